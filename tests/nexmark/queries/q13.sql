-- Nexmark q13: every bid with what a table of 10,000 rows says.

CREATE STREAM events (
    event_type BIGINT NOT NULL,
    auction    BIGINT PATH '$.bid.auction',
    bidder     BIGINT PATH '$.bid.bidder',
    price      BIGINT PATH '$.bid.price',
    date_time  TIMESTAMP(3) NOT NULL
) FROM TOPIC nexmark
  WATERMARK date_time - INTERVAL '4' SECOND
  ON ERROR FAIL
  LATE DROP;

CREATE TABLE side_input (
    key   BIGINT PRIMARY KEY,
    value VARCHAR NOT NULL
) FROM TOPIC side_input
  ON ERROR FAIL;

CREATE STREAM bids AS
SELECT auction, bidder, price, date_time FROM events WHERE event_type = 2;

INSERT INTO TOPIC q13
SELECT b.auction, b.bidder, b.price, EPOCH_MS(b.date_time) AS date_time, s.value
FROM bids b
JOIN side_input s ON s.key = MOD(b.auction, 10000);

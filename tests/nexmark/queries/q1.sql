-- Nexmark q1: the prices of all bids in another currency.

CREATE STREAM events (
    event_type BIGINT NOT NULL,
    auction    BIGINT PATH '$.bid.auction',
    bidder     BIGINT PATH '$.bid.bidder',
    price      BIGINT PATH '$.bid.price',
    date_time  TIMESTAMP(3) NOT NULL,
    extra      VARCHAR PATH '$.bid.extra'
) FROM TOPIC nexmark
  WATERMARK date_time - INTERVAL '4' SECOND
  ON ERROR FAIL
  LATE DROP;

INSERT INTO TOPIC q1
SELECT auction, bidder, 0.908 * price AS price, EPOCH_MS(date_time) AS date_time, extra
FROM events
WHERE event_type = 2;

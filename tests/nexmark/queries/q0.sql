-- Nexmark q0: every bid as it is. What it costs to read and to write.

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

INSERT INTO TOPIC q0
SELECT auction, bidder, price, EPOCH_MS(date_time) AS date_time, extra
FROM events
WHERE event_type = 2;

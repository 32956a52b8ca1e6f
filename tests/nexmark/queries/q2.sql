-- Nexmark q2: the bids for some auctions.

CREATE STREAM events (
    event_type BIGINT NOT NULL,
    auction    BIGINT PATH '$.bid.auction',
    price      BIGINT PATH '$.bid.price',
    date_time  TIMESTAMP(3) NOT NULL
) FROM TOPIC nexmark
  WATERMARK date_time - INTERVAL '4' SECOND
  ON ERROR FAIL
  LATE DROP;

INSERT INTO TOPIC q2
SELECT auction, price
FROM events
WHERE event_type = 2 AND MOD(auction, 123) = 0;

-- Nexmark q7: the highest bids of each ten seconds.

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

CREATE STREAM bids AS
SELECT auction, bidder, price, date_time, extra FROM events WHERE event_type = 2;

CREATE STREAM in_window AS
SELECT auction, bidder, price, date_time, extra, window_start, window_end
FROM TUMBLE(bids, INTERVAL '10' SECOND);

CREATE STREAM highest AS
SELECT MAX(price) AS price, window_start, window_end
FROM TUMBLE(bids, INTERVAL '10' SECOND)
GROUP BY window_start, window_end;

INSERT INTO TOPIC q7
SELECT b.auction, b.price, b.bidder, EPOCH_MS(b.date_time) AS date_time, b.extra
FROM in_window b
JOIN highest h ON b.window_start = h.window_start AND b.window_end = h.window_end AND b.price = h.price;

CREATE TABLE events (
    event_type BIGINT,
    date_time  BIGINT,
    person     ROW<id BIGINT, name STRING>,
    auction    ROW<seller BIGINT>,
    bid        ROW<auction BIGINT, bidder BIGINT, price BIGINT, extra STRING>,
    ts         AS TO_TIMESTAMP_LTZ(date_time, 3),
    WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = '${EVENTS}', 'format' = 'json');

CREATE VIEW bids AS
SELECT bid.auction AS auction, bid.bidder AS bidder, bid.price AS price, bid.extra AS extra, date_time, ts
FROM events WHERE event_type = 2;


CREATE TABLE sink (auction BIGINT, price BIGINT, bidder BIGINT, date_time BIGINT, extra STRING) WITH ('connector' = 'filesystem', 'path' = '${OUT}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');

INSERT INTO sink
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM (SELECT * FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))) b
JOIN (
    SELECT MAX(price) AS maxprice, window_start, window_end
    FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))
    GROUP BY window_start, window_end
) m
ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.maxprice;

CREATE TABLE sink (auction BIGINT, bidder BIGINT, price DECIMAL(22, 3), date_time BIGINT, extra STRING) WITH ('connector' = 'filesystem', 'path' = '${OUT}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');

INSERT INTO sink SELECT auction, bidder, 0.908 * price, date_time, extra FROM bids;

CREATE TABLE sink (auction BIGINT, bidder BIGINT, price BIGINT, date_time BIGINT, extra STRING) WITH ('connector' = 'filesystem', 'path' = '${OUT}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');

INSERT INTO sink SELECT auction, bidder, price, date_time, extra FROM bids;

CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'filesystem', 'path' = '${OUT}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');

INSERT INTO sink SELECT auction, price FROM bids WHERE MOD(auction, 123) = 0;

CREATE TABLE sink (id BIGINT, name STRING, window_start TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = '${OUT}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');

CREATE VIEW people AS
SELECT person.id AS id, person.name AS name, ts FROM events WHERE event_type = 0;

CREATE VIEW auctions AS
SELECT auction.seller AS seller, ts FROM events WHERE event_type = 1;

INSERT INTO sink
SELECT p.id, p.name, p.window_start
FROM (
    SELECT id, name, window_start, window_end
    FROM TABLE(TUMBLE(TABLE people, DESCRIPTOR(ts), INTERVAL '10' SECOND))
    GROUP BY id, name, window_start, window_end
) p
JOIN (
    SELECT seller, window_start, window_end
    FROM TABLE(TUMBLE(TABLE auctions, DESCRIPTOR(ts), INTERVAL '10' SECOND))
    GROUP BY seller, window_start, window_end
) a
ON p.window_start = a.window_start AND p.window_end = a.window_end AND p.id = a.seller;

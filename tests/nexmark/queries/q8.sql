-- Nexmark q8: the people who came and opened an auction within the same ten seconds.

CREATE STREAM events (
    event_type BIGINT NOT NULL,
    id         BIGINT PATH '$.person.id',
    name       VARCHAR PATH '$.person.name',
    seller     BIGINT PATH '$.auction.seller',
    date_time  TIMESTAMP(3) NOT NULL
) FROM TOPIC nexmark
  WATERMARK date_time - INTERVAL '4' SECOND
  ON ERROR FAIL
  LATE DROP;

CREATE STREAM people AS
SELECT id, name FROM events WHERE event_type = 0;

CREATE STREAM auctions AS
SELECT seller FROM events WHERE event_type = 1;

CREATE STREAM came AS
SELECT id, name, window_start, window_end
FROM TUMBLE(people, INTERVAL '10' SECOND)
GROUP BY id, name, window_start, window_end;

CREATE STREAM sold AS
SELECT seller, window_start, window_end
FROM TUMBLE(auctions, INTERVAL '10' SECOND)
GROUP BY seller, window_start, window_end;

INSERT INTO TOPIC q8
SELECT p.id, p.name, p.window_start
FROM came p
JOIN sold s ON p.window_start = s.window_start AND p.window_end = s.window_end AND p.id = s.seller;

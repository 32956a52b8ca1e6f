-- Nexmark q5: the auctions with the most bids in the last ten seconds, every two seconds.

CREATE STREAM events (
    event_type BIGINT NOT NULL,
    auction    BIGINT PATH '$.bid.auction',
    date_time  TIMESTAMP(3) NOT NULL
) FROM TOPIC nexmark
  WATERMARK date_time - INTERVAL '4' SECOND
  ON ERROR FAIL
  LATE DROP;

CREATE STREAM bids AS
SELECT auction FROM events WHERE event_type = 2;

CREATE STREAM counts AS
SELECT auction, COUNT(*) AS num, window_start, window_end
FROM HOP(bids, INTERVAL '2' SECOND, INTERVAL '10' SECOND)
GROUP BY auction, window_start, window_end;

CREATE STREAM most AS
SELECT MAX(num) AS num, window_start, window_end
FROM counts
GROUP BY window_start, window_end;

INSERT INTO TOPIC q5
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counts c
JOIN most m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num = m.num;

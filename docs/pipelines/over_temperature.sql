-- Machine over-temperature: one alert for each ten seconds in which a machine was too hot on average.

CREATE STREAM readings (
    machine  VARCHAR NOT NULL,
    celsius  DECIMAL(6, 2) NOT NULL CHECK (celsius BETWEEN -40 AND 400),
    at       TIMESTAMP(3) NOT NULL
) FROM TOPIC readings
  WATERMARK at - INTERVAL '2' SECOND IDLE INTERVAL '30' SECOND
  ON ERROR DEAD LETTER readings_bad
  LATE TO readings_late;

CREATE STREAM alerts TO TOPIC alerts KEY machine AS
SELECT machine,
       window_start,
       window_end,
       COUNT(*) AS readings,
       CAST(AVG(celsius) AS DECIMAL(6, 2)) AS average,
       MAX(celsius) AS highest,
       CASE WHEN MAX(celsius) >= 120 THEN 'stop' ELSE 'warn' END AS advice
FROM TUMBLE(readings, INTERVAL '10' SECOND)
GROUP BY machine, window_start, window_end
HAVING AVG(celsius) > 90;

TEST 'a hot machine gives one alert, a cool one none'
  INPUT readings '{"machine": "press", "celsius": 88.00, "at": "2026-03-01T08:00:01Z"}'
  INPUT readings '{"machine": "oven", "celsius": 41.5, "at": "2026-03-01T08:00:02Z"}'
  INPUT readings '{"machine": "press", "celsius": 95.01, "at": "2026-03-01T08:00:09.999Z"}'
  EXPECT alerts KEY 'press'
    '{"machine": "press", "window_start": "2026-03-01T08:00:00.000Z",
      "window_end": "2026-03-01T08:00:10.000Z", "readings": 2, "average": 91.51,
      "highest": 95.01, "advice": "warn"}';

TEST 'a window fires once, and what comes too late is kept'
  INPUT readings '{"machine": "press", "celsius": 100, "at": "2026-03-01T08:00:01Z"}'
  INPUT readings '{"machine": "press", "celsius": 20, "at": "2026-03-01T08:00:12Z"}'
  EPOCH
  INPUT readings '{"machine": "press", "celsius": 300, "at": "2026-03-01T08:00:09Z"}'
  INPUT readings '{"machine": "press", "celsius": 130, "at": "2026-03-01T08:00:10Z"}'
  INPUT readings '{"machine": "press", "celsius": 20, "at": "2026-03-01T08:00:21Z"}'
  EPOCH
  OPEN
  EXPECT alerts
    '{"machine": "press", "window_start": "2026-03-01T08:00:00.000Z",
      "window_end": "2026-03-01T08:00:10.000Z", "readings": 1, "average": 100.00,
      "highest": 100.00, "advice": "warn"}'
  EXPECT readings_late REASON 'before the watermark'
    '{"machine": "press", "celsius": 300, "at": "2026-03-01T08:00:09Z"}';

TEST 'a silent partition holds nothing up for long'
  INPUT readings PARTITION 1 '{"machine": "oven", "celsius": 20, "at": "2026-03-01T08:00:00Z"}'
  INPUT readings '{"machine": "press", "celsius": 100, "at": "2026-03-01T08:00:01Z"}'
  EPOCH
  INPUT readings '{"machine": "press", "celsius": 100, "at": "2026-03-01T08:00:31Z"}'
  EPOCH AFTER INTERVAL '30' SECOND
  OPEN
  EXPECT alerts
    '{"machine": "press", "window_start": "2026-03-01T08:00:00.000Z",
      "window_end": "2026-03-01T08:00:10.000Z", "readings": 1, "average": 100.00,
      "highest": 100.00, "advice": "warn"}';

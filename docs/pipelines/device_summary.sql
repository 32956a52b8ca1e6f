-- Per-device aggregates, enriched from a device table: how much each device used in each minute, where it
-- stands and what that costs, exactly to the cent.

CREATE STREAM usage (
    device      VARCHAR NOT NULL METADATA FROM 'key',
    kwh         DECIMAL(12, 6) NOT NULL PATH '$.meter.kwh' CHECK (kwh >= 0),
    at          TIMESTAMP(3) NOT NULL,
    position    BIGINT METADATA FROM 'offset'
) FROM TOPIC usage
  WATERMARK at - INTERVAL '5' SECOND IDLE INTERVAL '1' MINUTE
  ON ERROR DEAD LETTER usage_bad
  LATE TO usage_late;

CREATE TABLE devices (
    device      VARCHAR PRIMARY KEY METADATA FROM 'key',
    site        VARCHAR NOT NULL,
    price       DECIMAL(8, 4) NOT NULL,
    changed_at  TIMESTAMP(3) METADATA FROM 'timestamp'
) FROM TOPIC devices
  ON ERROR DEAD LETTER devices_bad;

-- A price holds from the moment that it was said, so each reading is priced before it is added up.
CREATE STREAM priced AS
SELECT u.device, COALESCE(d.site, 'unknown') AS site, u.kwh, u.kwh * d.price AS cost
FROM usage u
LEFT JOIN devices d ON u.device = d.device;

INSERT INTO TOPIC usage_by_minute KEY device
SELECT device,
       LAST_VALUE(site) AS site,
       window_start AS minute,
       COUNT(*) AS readings,
       SUM(kwh) AS kwh,
       ROUND(SUM(cost), 2) AS cost
FROM TUMBLE(priced, INTERVAL '1' MINUTE)
GROUP BY device, window_start, window_end;

INSERT INTO TOPIC usage_by_site KEY site
SELECT site, window_start AS minute, SUM(kwh) AS kwh
FROM TUMBLE(priced, INTERVAL '1' MINUTE)
GROUP BY site, window_start, window_end;

TEST 'readings are priced as of their time'
  INPUT devices KEY 'pump' TIMESTAMP '2026-03-01T08:00:00Z' '{"site": "north", "price": 0.3000}'
  INPUT devices KEY 'pump' TIMESTAMP '2026-03-01T08:00:30Z' '{"site": "north", "price": 0.4000}'
  INPUT usage KEY 'pump' '{"meter": {"kwh": 1.000001}, "at": "2026-03-01T08:00:10Z"}'
  INPUT usage KEY 'pump' '{"meter": {"kwh": 2}, "at": "2026-03-01T08:00:30Z"}'
  INPUT usage KEY 'fan' '{"meter": {"kwh": 0.5}, "at": "2026-03-01T08:00:31Z"}'
  EXPECT usage_by_minute KEY 'fan'
    '{"device": "fan", "site": "unknown", "minute": "2026-03-01T08:00:00.000Z", "readings": 1,
      "kwh": 0.500000, "cost": null}'
  EXPECT usage_by_minute KEY 'pump'
    '{"device": "pump", "site": "north", "minute": "2026-03-01T08:00:00.000Z", "readings": 2,
      "kwh": 3.000001, "cost": 1.10}'
  EXPECT usage_by_site KEY 'north'
    '{"site": "north", "minute": "2026-03-01T08:00:00.000Z", "kwh": 3.000001}'
  EXPECT usage_by_site KEY 'unknown'
    '{"site": "unknown", "minute": "2026-03-01T08:00:00.000Z", "kwh": 0.5}';

TEST 'a device that is gone is unknown from then on'
  INPUT devices KEY 'pump' TIMESTAMP '2026-03-01T08:00:00Z' '{"site": "north", "price": 0.3000}'
  INPUT devices KEY 'pump' TIMESTAMP '2026-03-01T08:01:00Z' NULL
  INPUT usage KEY 'pump' '{"meter": {"kwh": 1}, "at": "2026-03-01T08:01:10Z"}'
  EXPECT usage_by_minute
    '{"device": "pump", "site": "unknown", "minute": "2026-03-01T08:01:00.000Z", "readings": 1,
      "kwh": 1, "cost": null}'
  EXPECT usage_by_site '{"site": "unknown", "minute": "2026-03-01T08:01:00.000Z", "kwh": 1}';

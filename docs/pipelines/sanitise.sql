-- Sanitise and forward: what leaves the site names no person.
--
-- Every reading of a badge reader goes on, without the name, with a hash in place of the badge that
-- is the same for the same badge, and with the minute in place of the exact time.

CREATE STREAM scans (
    badge    VARCHAR NOT NULL,
    name     VARCHAR,
    email    VARCHAR,
    gate     VARCHAR NOT NULL CHECK (gate LIKE 'gate-%'),
    seconds  DECIMAL(9, 3) CHECK (seconds >= 0),
    at       TIMESTAMP(3) NOT NULL
) FROM TOPIC scans
  ON ERROR DEAD LETTER scans_bad;

INSERT INTO TOPIC scans_clean KEY badge
SELECT KEYED_HASH(badge, 'change this before you deploy') AS badge,
       MASK(name) AS name,
       REGEXP_REPLACE(email, '^[^@]*', '***') AS email,
       gate,
       ROUND(seconds, 1) AS seconds,
       DATE_TRUNC('minute', at) AS at
FROM scans
WHERE gate <> 'gate-test';

TEST 'names and badges do not leave'
  INPUT scans '{"badge": "4711", "name": "Ada B.", "email": "ada@example.com", "gate": "gate-7",
                "seconds": 1.250, "at": "2026-03-01T08:15:42.123Z"}'
  EXPECT scans_clean KEY '9212607f30c7aa4a247879b3347ff26d'
    '{"badge": "9212607f30c7aa4a247879b3347ff26d", "name": "*** *.", "email": "***@example.com",
      "gate": "gate-7", "seconds": 1.3, "at": "2026-03-01T08:15:00.000Z"}';

TEST 'what cannot be read is kept as it came'
  INPUT scans KEY 'k' '{"badge": 4711'
  INPUT scans '{"badge": "1", "gate": "door", "at": "2026-03-01T08:15:42Z"}'
  INPUT scans '{"gate": "gate-1", "at": "2026-03-01T08:15:42Z"}'
  INPUT scans NULL
  EXPECT scans_bad KEY 'k' REASON 'no JSON' '{"badge": 4711'
  EXPECT scans_bad REASON 'CHECK' '{"badge": "1", "gate": "door", "at": "2026-03-01T08:15:42Z"}'
  EXPECT scans_bad REASON 'NOT NULL' '{"gate": "gate-1", "at": "2026-03-01T08:15:42Z"}'
  EXPECT scans_bad REASON 'without a payload' NULL;

TEST 'the test gate is left out'
  INPUT scans '{"badge": "1", "gate": "gate-test", "at": "2026-03-01T08:15:42Z"}';

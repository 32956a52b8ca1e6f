-- Nexmark q11: how many bids somebody makes in a session, which ends after ten seconds without one.

CREATE STREAM events (
    event_type BIGINT NOT NULL,
    bidder     BIGINT PATH '$.bid.bidder',
    date_time  TIMESTAMP(3) NOT NULL
) FROM TOPIC nexmark
  WATERMARK date_time - INTERVAL '4' SECOND
  ON ERROR FAIL
  LATE DROP;

CREATE STREAM bids AS
SELECT bidder FROM events WHERE event_type = 2;

INSERT INTO TOPIC q11
SELECT bidder, COUNT(*) AS bid_count, window_start, window_end
FROM SESSION(bids, INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end;

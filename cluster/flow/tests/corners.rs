//! Files with tests of their own, for corners that no generator goes to.

use fulmar_flow::{plan, run_fixtures};
use std::sync::Arc;

/// The tests of a file pass.
fn passes(text: &str) {
    let plan = plan(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    for verdict in run_fixtures(&Arc::new(plan)) {
        assert!(verdict.differences.is_empty(), "{text}\n{}", verdict.differences.join("\n"));
    }
}

#[test]
fn a_partition_of_bad_records_falls_idle() {
    passes(
        "CREATE STREAM s (k VARCHAR, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at IDLE INTERVAL '5' SECOND
             ON ERROR DEAD LETTER bad LATE DROP;
         INSERT INTO TOPIC o SELECT COUNT(*) AS n FROM TUMBLE(s, INTERVAL '1' SECOND)
             GROUP BY window_start, window_end;
         TEST 'of a stream'
             INPUT t PARTITION 0 '{\"at\":\"2026-01-01T00:00:00Z\"}'
             INPUT t PARTITION 1 'garbage'
             EPOCH AFTER INTERVAL '4' SECOND
             INPUT t PARTITION 0 '{\"at\":\"2026-01-01T01:00:00Z\"}'
             INPUT t PARTITION 1 'garbage'
             EPOCH AFTER INTERVAL '4' SECOND
             INPUT t PARTITION 0 '{\"at\":\"2026-01-01T02:00:00Z\"}'
             INPUT t PARTITION 1 'garbage'
             EPOCH AFTER INTERVAL '4' SECOND
             OPEN
             EXPECT o '{\"n\":1}' EXPECT o '{\"n\":1}'
             EXPECT bad 'garbage' EXPECT bad 'garbage' EXPECT bad 'garbage';",
    );
}

#[test]
fn sessions_that_touch_are_two_wherever_an_epoch_ends() {
    passes(
        "CREATE STREAM s (k VARCHAR, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR FAIL LATE DROP;
         INSERT INTO TOPIC o SELECT k, COUNT(*) AS n FROM SESSION(s, INTERVAL '10' SECOND)
             GROUP BY k, window_start, window_end;
         TEST 'one epoch'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:00Z\"}'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:10Z\"}'
             EXPECT o '{\"k\":\"a\",\"n\":1}' EXPECT o '{\"k\":\"a\",\"n\":1}';
         TEST 'two epochs'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:00Z\"}'
             INPUT t '{\"k\":\"b\",\"at\":\"2026-01-01T00:00:10Z\"}'
             EPOCH
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:10Z\"}'
             EXPECT o '{\"k\":\"a\",\"n\":1}' EXPECT o '{\"k\":\"a\",\"n\":1}' EXPECT o '{\"k\":\"b\",\"n\":1}';
         TEST 'a row between them makes them one'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:00Z\"}'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:10Z\"}'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:09Z\"}'
             EXPECT o '{\"k\":\"a\",\"n\":3}';",
    );
}

//! Files with tests of their own, for corners that no generator goes to.

use fulmar_flow::{Engine, Record, plan, run_fixtures};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tests of a file pass.
fn passes(text: &str) {
    let plan = plan(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    for verdict in run_fixtures(&Arc::new(plan)) {
        assert!(verdict.differences.is_empty(), "{text}\n{}", verdict.differences.join("\n"));
    }
}

/// Of one key there are as many pairs as the product of its rows; they are looked at a few at a time, and are
/// not in memory together.
#[test]
fn a_join_of_one_key_goes_on_in_pieces() {
    let file = |from: &str| {
        format!(
            "CREATE STREAM s (v BIGINT, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR FAIL LATE DROP;
             CREATE STREAM a AS SELECT v, window_start AS ws, window_end AS we FROM TUMBLE(s, INTERVAL '1' MINUTE);
             CREATE STREAM b AS SELECT v, window_start AS ws, window_end AS we FROM TUMBLE(s, INTERVAL '1' MINUTE);
             CREATE STREAM j AS SELECT a.v AS v, b.v AS w FROM a JOIN b ON a.ws = b.ws AND a.we = b.we;
             {from}"
        )
    };
    let run = |text: &str, rows: i64| {
        let plan = plan(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let mut engine = Engine::new(Arc::new(plan), &BTreeMap::new());
        let record = |v: i64| {
            let value = format!("{{\"v\":{v},\"at\":1000}}");
            Arc::new(Record {
                partition: 0,
                offset: v,
                timestamp: 0,
                key: None,
                headers: Vec::new(),
                value: Some(value.into()),
                damage: None,
                is_retried: false,
            })
        };
        let records: Vec<_> = (0..rows).map(record).collect();
        engine.batch("t", &records).expect("no record is bad");
        engine.begin_end(1, true);
        let mut steps = 0;
        loop {
            steps += 1;
            match engine.end_some(200) {
                Ok(None) => {}
                Ok(Some(written)) => return (steps, Ok(written.count())),
                Err(halt) => return (steps, Err(halt.failure.reason)),
            }
        }
    };
    let few = file("INSERT INTO TOPIC o SELECT v, w FROM j WHERE v + w < 3;");
    let (steps, written) = run(&few, 400);
    assert_eq!(written, Ok(6));
    assert!(steps > 400 * 400 / 200, "{steps}");
    let all = file("INSERT INTO TOPIC o SELECT v, REPEATED AS r FROM j;");
    let all = all.replace("REPEATED", &format!("'{}'", "x".repeat(2_000)));
    let (steps, written) = run(&all, 400);
    assert!(written.is_err_and(|why| why.contains("take more than 64 MiB")));
    assert!(steps < 400 * 400 / 200, "{steps}");
    let kept = file(
        "INSERT INTO TOPIC o SELECT MAX(x.v) AS n FROM TUMBLE(j, INTERVAL '1' MINUTE) x
             GROUP BY window_start, window_end;",
    );
    assert_eq!(run(&kept, 400).1, Ok(1));
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

/// A copy of a row in one window fails, and the copies in the others do not.
#[test]
fn a_row_in_several_windows_has_one_fate() {
    let text = "CREATE STREAM s (k VARCHAR, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at
             ON ERROR DEAD LETTER bad LATE TO late;
         INSERT INTO TOPIC o SELECT k, COUNT(*) AS n FROM HOP(s, INTERVAL '1' SECOND, INTERVAL '3' SECOND)
             WHERE 10 / (EXTRACT(SECOND FROM window_start) - 1) > 0 OR k = 'c' GROUP BY k, window_start, window_end;
         TEST 'x'
             INPUT t '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:02Z\"}'
             INPUT t '{\"k\":\"b\",\"at\":\"2026-01-01T00:00:05Z\"}'
             EXPECT o '{\"k\":\"b\",\"n\":1}' EXPECT o '{\"k\":\"b\",\"n\":1}' EXPECT o '{\"k\":\"b\",\"n\":1}'
             EXPECT bad REASON 'division by zero' '{\"k\":\"a\",\"at\":\"2026-01-01T00:00:02Z\"}';";
    let plan = plan(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    for verdict in run_fixtures(&Arc::new(plan)) {
        assert_eq!(verdict.differences, Vec::<String>::new());
        let fates = verdict.fates[0].1;
        assert_eq!((fates.dead_lettered, fates.absorbed, fates.read), (1, 1, 2), "{fates}");
    }
}

#[test]
fn the_end_of_a_row_has_a_time_only_if_records_have() {
    passes(
        "CREATE STREAM s (k VARCHAR, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR FAIL LATE DROP;
         CREATE TABLE d (k VARCHAR PRIMARY KEY METADATA FROM 'key', name VARCHAR, at TIMESTAMP(3)) FROM TOPIC dt
             WATERMARK at IDLE INTERVAL '5' SECOND ON ERROR DEAD LETTER bad;
         INSERT INTO TOPIC o SELECT s.k, d.name FROM s LEFT JOIN d ON s.k = d.k;
         TEST 'of a row that was filled in later'
             INPUT dt KEY 'a' TIMESTAMP '2026-11-30T00:00:00Z' '{\"name\":\"old\",\"at\":\"2025-01-01T00:00:00Z\"}'
             INPUT dt KEY 'a' TIMESTAMP '2026-11-30T00:00:01Z' NULL
             INPUT t '{\"k\":\"a\",\"at\":\"2025-06-01T00:00:00Z\"}'
             EXPECT o '{\"k\":\"a\",\"name\":\"old\"}'
             EXPECT bad REASON 'has no event time' NULL;",
    );
}

#[test]
fn numbers_that_are_too_fine_are_rounded() {
    passes(
        "CREATE STREAM s (x DECIMAL(10, 2), f DOUBLE) FROM TOPIC t ON ERROR FAIL;
         INSERT INTO TOPIC o SELECT x, CAST(f AS DECIMAL(10, 2)) AS y FROM s;
         TEST 'x' INPUT t '{\"x\":1.1102230246251565e-26,\"f\":-1.1102230246251565e-26}'
             EXPECT o '{\"x\":0.00,\"y\":0.00}';",
    );
}

/// What comes out of an engine of a file for rows with these texts, from the first day on, and what became of them.
fn come_out(file: &str, texts: &[String]) -> Result<(usize, u64), String> {
    let plan = plan(file).expect("a plan");
    let mut engine = Engine::new(plan.into(), &[("t".to_owned(), 1)].into());
    let record = |(offset, text): (usize, &String)| {
        Arc::new(Record {
            partition: 0,
            offset: offset as i64,
            timestamp: 0,
            key: None,
            headers: Vec::new(),
            value: Some(format!("{{\"k\":\"{text}\",\"v\":{offset}}}").into()),
            damage: None,
            is_retried: false,
        })
    };
    let records: Vec<_> = texts.iter().enumerate().map(record).collect();
    let told = |halt: fulmar_flow::Halt| halt.failure.reason;
    engine.batch("t", &records).map_err(told)?;
    engine.begin_end(1, true);
    let count = loop {
        if let Some(written) = engine.end_some(200).map_err(told)? {
            break written.count();
        }
    };
    Ok((count, engine.fates().map(|(.., fates)| fates.dropped).sum()))
}

/// A row may be in a thousand windows, and an epoch has all of them.
#[test]
fn a_row_that_becomes_too_much_in_its_windows_is_a_bad_one() {
    let file = "CREATE STREAM s (k VARCHAR, at TIMESTAMP(3) METADATA FROM 'timestamp') FROM TOPIC t
                WATERMARK at ON ERROR DROP LATE DROP;
                INSERT INTO TOPIC o SELECT CONCAT(k, k, k, k, k, k, k, k, k) AS k
                FROM HOP(s, INTERVAL '1' SECOND, INTERVAL '1000' SECOND);";
    let texts = ["x".repeat(1_000), "x".repeat(2_000), "y".to_owned()];
    assert_eq!(come_out(file, &texts), Ok((2_000, 1)));
}

/// What is written in one of its windows is longer than a batch may be: nothing comes of the others either.
#[test]
fn a_row_of_which_one_copy_is_too_long_is_a_bad_one() {
    for first in ["00", "01", "59"] {
        let file = format!(
            "CREATE STREAM s (k VARCHAR, at TIMESTAMP(3) METADATA FROM 'timestamp') FROM TOPIC t
             WATERMARK at ON ERROR DROP LATE DROP;
             INSERT INTO TOPIC o SELECT window_start AS w, CASE
                 WHEN EXTRACT(SECOND FROM window_start) = {first} THEN CONCAT(k, k, k, k, k, k, k, k) ELSE 'x' END AS a
             FROM HOP(s, INTERVAL '1' SECOND, INTERVAL '3' SECOND);"
        );
        let texts = ["x".repeat(200_000), "y".to_owned()];
        let expected = if first == "01" { (6, 0) } else { (3, 1) };
        assert_eq!(come_out(&file, &texts), Ok(expected), "{first}");
    }
}

/// All groups of a window come out in one epoch.
#[test]
fn a_window_whose_groups_become_too_much_stops_the_pipeline() {
    let file = "CREATE STREAM s (k VARCHAR, v BIGINT, at TIMESTAMP(3) METADATA FROM 'timestamp') FROM TOPIC t
                WATERMARK at ON ERROR DROP LATE DROP;
                CREATE STREAM w AS SELECT v, MAX(k) AS k FROM TUMBLE(s, INTERVAL '1' SECOND)
                  GROUP BY v, window_start, window_end;
                INSERT INTO TOPIC o SELECT CONCAT(k, k, k, k, k, k, k, k, k) AS k FROM w;";
    let texts = |count: usize| vec!["x".repeat(100_000); count];
    assert_eq!(come_out(file, &texts(20)), Ok((20, 0)));
    let stopped = come_out(file, &texts(600));
    assert!(stopped.is_err_and(|why| why.contains("at once takes more than 512 MiB")));
}

/// A pattern may take so much time for a row, by its places and the bytes of the text, whatever the text is.
#[test]
fn a_text_that_is_too_long_for_a_pattern_is_a_bad_row() {
    let bits = |count: usize| "10".repeat(count / 2);
    let file = |row: &str, ok: &str| {
        format!(
            "CREATE STREAM s (v VARCHAR, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR DEAD LETTER bad LATE DROP;
             INSERT INTO TOPIC o SELECT REGEXP_LIKE(v, '1[01]{{150}}x') AS a, REGEXP_LIKE(v, '[01]{{150}}y') AS b
             FROM HOP(s, INTERVAL '1' SECOND, INTERVAL '2' SECOND) WHERE v NOT LIKE 'z%';
             TEST 'one' INPUT t '{{\"v\":\"{row}\",\"at\":1}}' {ok};"
        )
    };
    let twice = "EXPECT o '{\"a\":false,\"b\":false}' EXPECT o '{\"a\":false,\"b\":false}'";
    passes(&file(&bits(500), twice));
    // Of the two windows and the two patterns each has a quarter.
    let row = bits(1_000);
    let bad = format!("EXPECT bad REASON 'places takes too long' '{{\"v\":\"{row}\",\"at\":1}}'");
    passes(&file(&row, &bad));
}

/// All matches, one after the other, may be more than linear: where nothing says how far was looked behind a match,
/// all of it counts.
#[test]
fn many_matches_count_as_far_as_may_have_been_looked() {
    let file = |pattern: &str, expected: &str| {
        let text = "10".repeat(400);
        format!(
            "CREATE STREAM s (v VARCHAR) FROM TOPIC t ON ERROR DEAD LETTER bad;
             INSERT INTO TOPIC o SELECT CHAR_LENGTH(REGEXP_REPLACE(v, '{pattern}', 'ab')) AS n FROM s;
             TEST 'one' INPUT t '{{\"v\":\"{text}\"}}' {};",
            expected.replace("TEXT", &text)
        )
    };
    passes(&file("1", "EXPECT o '{\"n\":1200}'"));
    passes(&file("1+|0{1,3}", "EXPECT o '{\"n\":1600}'"));
    passes(&file("1[01]*x|1", "EXPECT bad REASON 'takes too long' '{\"v\":\"TEXT\"}'"));
}

#[test]
fn a_text_is_not_made_if_it_is_too_long() {
    let (arguments, long) = (vec!["x"; 450].join(","), "b".repeat(1_000));
    passes(&format!(
        "CREATE STREAM s (v VARCHAR) FROM TOPIC t ON ERROR DEAD LETTER bad;
         CREATE STREAM w AS SELECT REPLACE(v, 'a', '{long}') AS x FROM s;
         INSERT INTO TOPIC o SELECT CHAR_LENGTH(CONCAT({arguments})) AS n FROM w;
         TEST 'one' INPUT t '{{\"v\":\"aa\"}}' INPUT t '{{\"v\":\"aaaa\"}}'
         EXPECT o '{{\"n\":900000}}' EXPECT bad REASON 'longer than 1 MiB' '{{\"v\":\"aaaa\"}}';"
    ));
}

/// A record that is bad at its source moves no watermark; one that turns out to be bad behind it does.
#[test]
fn a_check_keeps_a_time_from_the_watermark() {
    let file = |check: &str, late: &str| {
        format!(
            "CREATE STREAM s (
                 at TIMESTAMP(3){check},
                 came TIMESTAMP(3) METADATA FROM 'timestamp'
             ) FROM TOPIC t WATERMARK at ON ERROR DEAD LETTER bad LATE TO late;
             INSERT INTO TOPIC o SELECT COUNT(*) AS n, window_end AS w FROM TUMBLE(s, INTERVAL '1' SECOND)
             GROUP BY window_start, window_end;
             TEST 'one'
               INPUT t TIMESTAMP '2026-01-01T00:00:00Z' '{{\"at\":\"9999-12-31T23:59:59.999Z\"}}'
               EPOCH
               INPUT t TIMESTAMP '2026-01-01T00:00:00Z' '{{\"at\":\"2026-01-01T00:00:00Z\"}}'
               EXPECT bad '{{\"at\":\"9999-12-31T23:59:59.999Z\"}}'
               {late};"
        )
    };
    passes(&file("", "EXPECT late '{\"at\":\"2026-01-01T00:00:00Z\"}'"));
    let check = " CHECK (at < came + INTERVAL '1' DAY)";
    passes(&file(check, "EXPECT o '{\"n\":1,\"w\":\"2026-01-01T00:00:01.000Z\"}'"));
}

#[test]
fn numbers_are_compared_and_folded_without_loss() {
    passes(&format!(
        "CREATE STREAM s (f DOUBLE, d DECIMAL(38, 0), at TIMESTAMP(3)) FROM TOPIC t WATERMARK at
         ON ERROR DEAD LETTER bad LATE DROP;
         INSERT INTO TOPIC c SELECT d > 1.5 AS a, d BETWEEN 1.5 AND 2.5 AS b, d IN (1.5, 2) AS c,
             CASE d WHEN 1.5 THEN 1 WHEN 2 THEN 2 ELSE 3 END AS e, d IS DISTINCT FROM 2.0 AS g FROM s;
         INSERT INTO TOPIC o SELECT AVG(f) AS mean FROM TUMBLE(s, INTERVAL '1' SECOND)
             GROUP BY window_start, window_end;
         INSERT INTO TOPIC p SELECT SUM(f) AS total, MAX(d) + 1 AS more, window_start AS ws
             FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, window_end;
         TEST 'one'
           INPUT t '{{\"f\":1.7e308,\"d\":1{zeros},\"at\":1e3}}'
           INPUT t '{{\"f\":1.7e308,\"d\":2,\"at\":1.0e3}}'
           INPUT t '{{\"at\":1.5}}'
           EXPECT c '{{\"a\":true,\"b\":false,\"c\":false,\"e\":3,\"g\":true}}'
           EXPECT c '{{\"a\":true,\"b\":true,\"c\":true,\"e\":2,\"g\":false}}'
           EXPECT o '{{\"mean\":1.7e308}}'
           EXPECT bad REASON 'is no TIMESTAMP' '{{\"at\":1.5}}'
           EXPECT bad REASON 'overflows'
             '{{\"ws\":\"1970-01-01T00:00:01.000Z\",\"window_end\":\"1970-01-01T00:00:02.000Z\"}}';",
        zeros = "0".repeat(37)
    ));
}

#[test]
fn a_mean_fits_where_its_sum_does_not() {
    let mean = |of: &str, count: usize, expected: &str| {
        let inputs = format!("INPUT t '{{\"d\":{of},\"at\":1}}' ").repeat(count);
        passes(&format!(
            "CREATE STREAM s (d DECIMAL(38, 18), at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR FAIL LATE DROP;
             INSERT INTO TOPIC o SELECT AVG(d) AS mean FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, window_end;
             TEST 'one' {inputs} EXPECT o '{{\"mean\":{expected}}}';"
        ));
    };
    let most = "99999999999999999999.999999999999999999";
    for count in [1, 2, 3, 7] {
        mean(most, count, most);
        mean(&format!("-{most}"), count, &format!("-{most}"));
    }
}

/// Both sides of a join have columns of one name, and whoever looks for why a pair is bad has to see both.
#[test]
fn a_bad_pair_tells_its_two_sides_apart() {
    passes(
        "CREATE STREAM r (k VARCHAR, v BIGINT, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR DEAD LETTER bad LATE DROP;
         CREATE STREAM x (k VARCHAR, v BIGINT, n BIGINT, at TIMESTAMP(3)) FROM TOPIC u WATERMARK at ON ERROR DROP LATE DROP;
         INSERT INTO TOPIC o SELECT l.v, q.n AS m FROM TUMBLE(r, INTERVAL '1' SECOND) l
           JOIN TUMBLE(x, INTERVAL '1' SECOND) q ON l.window_start = q.window_start AND l.window_end = q.window_end
             AND l.k = q.k AND 10 / q.v > 1;
         TEST 'one'
           INPUT t '{\"k\":\"a\",\"v\":5,\"at\":1}'
           INPUT u '{\"k\":\"a\",\"v\":0,\"n\":7,\"at\":2}'
           EXPECT bad REASON 'by zero' '{\"l.k\":\"a\",\"l.v\":5,\"l.at\":\"1970-01-01T00:00:00.001Z\",\"l.window_start\":\"1970-01-01T00:00:00.000Z\",\"l.window_end\":\"1970-01-01T00:00:01.000Z\",\"q.k\":\"a\",\"q.v\":0,\"n\":7,\"q.at\":\"1970-01-01T00:00:00.002Z\",\"q.window_start\":\"1970-01-01T00:00:00.000Z\",\"q.window_end\":\"1970-01-01T00:00:01.000Z\"}';",
    );
}

/// What is on the left of `AND` keeps rows away from what is on its right, also where the one asks for windows and the
/// other one does not.
#[test]
fn where_goes_from_left_to_right() {
    passes(
        "CREATE STREAM s (v BIGINT, at TIMESTAMP(3)) FROM TOPIC t WATERMARK at ON ERROR DEAD LETTER bad LATE DROP;
         INSERT INTO TOPIC o SELECT v FROM TUMBLE(s, INTERVAL '1' MINUTE)
             WHERE window_start > TIMESTAMP '2000-01-01 00:00:00' AND 10 / v > 1 AND v < 100;
         TEST 'a guard'
             INPUT t '{\"v\":0,\"at\":1}'
             INPUT t '{\"v\":0,\"at\":\"2026-01-01T00:00:00Z\"}'
             INPUT t '{\"v\":2,\"at\":\"2026-01-01T00:00:00Z\"}'
             EXPECT bad REASON 'division by zero' '{\"v\":0,\"at\":\"2026-01-01T00:00:00Z\"}'
             EXPECT o '{\"v\":2}';",
    );
}

/// A number that the other type has no room for is not equal to any of its numbers, and no error.
#[test]
fn what_does_not_fit_matches_nothing() {
    passes(
        "CREATE STREAM l (k BIGINT, at TIMESTAMP(3)) FROM TOPIC l WATERMARK at ON ERROR DEAD LETTER bad LATE DROP;
         CREATE STREAM r (k DECIMAL(38, 30), at TIMESTAMP(3)) FROM TOPIC r WATERMARK at
             ON ERROR DEAD LETTER bad LATE DROP;
         CREATE TABLE t (k DECIMAL(38, 30) PRIMARY KEY, n BIGINT) FROM TOPIC t ON ERROR DEAD LETTER bad;
         CREATE STREAM lw AS SELECT k, window_start, window_end FROM TUMBLE(l, INTERVAL '10' SECOND);
         CREATE STREAM rw AS SELECT k, window_start, window_end FROM TUMBLE(r, INTERVAL '10' SECOND);
         INSERT INTO TOPIC w SELECT lw.k AS k, rw.k AS rk FROM lw LEFT JOIN rw ON lw.window_start = rw.window_start
             AND lw.window_end = rw.window_end AND lw.k = rw.k;
         INSERT INTO TOPIC n SELECT NULLIF(k, 1.000000000000000000000000000000) AS i FROM l;
         INSERT INTO TOPIC j SELECT l.k AS k, t.n AS n FROM l LEFT JOIN t ON l.k = t.k;
         TEST 'of two exact types'
             INPUT t TIMESTAMP '1970-01-01T00:00:00Z' '{\"k\":1,\"n\":5}'
             INPUT r '{\"k\":1,\"at\":1}'
             INPUT l '{\"k\":9000000000000000000,\"at\":1}'
             INPUT l '{\"k\":1,\"at\":2}'
             EXPECT w '{\"k\":9000000000000000000,\"rk\":null}' EXPECT w '{\"k\":1,\"rk\":1}'
             EXPECT n '{\"i\":9000000000000000000}' EXPECT n '{\"i\":null}'
             EXPECT j '{\"k\":9000000000000000000,\"n\":null}' EXPECT j '{\"k\":1,\"n\":5}';",
    );
}

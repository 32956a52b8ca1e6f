//! Which changes of a file leave the shape of its plan, so that it can go on from the state of the one
//! before.

use fulmar_flow::{Plan, plan};

const FILE: &str = "
CREATE STREAM s (
    k VARCHAR NOT NULL, v DECIMAL(6, 2), at TIMESTAMP(3) NOT NULL
) FROM TOPIC readings
  WATERMARK at - INTERVAL '2' SECOND ON ERROR DROP LATE DROP;
INSERT INTO TOPIC alerts KEY who
SELECT k AS who, window_end AS at, AVG(v) AS mean
FROM TUMBLE(s, INTERVAL '10' SECOND)
WHERE v > 10.0
GROUP BY k, window_start, window_end
HAVING AVG(v) > 90;
";

fn planned(text: &str) -> Plan {
    plan(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

fn shape(text: &str) -> [u8; 16] {
    planned(text).shape()
}

fn misfits(text: &str) -> Vec<String> {
    planned(text).misfits(&planned(FILE))
}

/// The shape with something else in a place.
fn with(what: &str, by: &str) -> [u8; 16] {
    assert_eq!(FILE.matches(what).count(), 1, "{what}");
    shape(&FILE.replace(what, by))
}

#[test]
fn what_state_does_not_depend_on_leaves_it() {
    let same = [
        ("TOPIC alerts", "TOPIC warnings"),
        ("KEY who", ""),
        ("who, window_end AS at", "who,\n  window_end AS until"),
        ("ON ERROR DROP", "ON ERROR DEAD LETTER bad"),
        ("LATE DROP", "LATE TO late"),
        ("HAVING AVG(v) > 90", "HAVING AVG(v) > 95"),
        ("DECIMAL(6, 2)", "DECIMAL(6, 2) CHECK (v < 7.0)"),
        ("KEY who\nSELECT k AS who", "KEY id\nSELECT UPPER(k) AS id"),
    ];
    for (what, by) in same {
        assert_eq!(with(what, by), shape(FILE), "{by} for {what}");
        assert_eq!(misfits(&FILE.replace(what, by)), Vec::<String>::new(), "{by} for {what}");
    }
}

#[test]
fn what_state_depends_on_changes_it() {
    let different = [
        ("TOPIC readings", "TOPIC other"),
        ("k VARCHAR NOT NULL", "k VARCHAR"),
        ("DECIMAL(6, 2)", "DECIMAL(6, 3)"),
        ("NULL, v", "NULL, w BIGINT, v"),
        ("DECIMAL(6, 2)", "DECIMAL(6, 2) PATH '$.other'"),
        ("INTERVAL '2' SECOND", "INTERVAL '3' SECOND"),
        ("'2' SECOND", "'2' SECOND IDLE INTERVAL '1' MINUTE"),
        ("TUMBLE(s, INTERVAL '10' SECOND)", "HOP(s, INTERVAL '5' SECOND, INTERVAL '10' SECOND)"),
        ("INTERVAL '10' SECOND", "INTERVAL '20' SECOND"),
        ("WHERE v > 10.0", "WHERE v > 11.0"),
        ("WHERE v > 10.0", ""),
        ("AS mean", "AS mean, MAX(v) AS most"),
    ];
    for (what, by) in different {
        assert_ne!(with(what, by), shape(FILE), "{by} for {what}");
        assert_ne!(misfits(&FILE.replace(what, by)), Vec::<String>::new(), "{by} for {what}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let of = |what: &str, by: &str| misfits(&FILE.replace(what, by)).join("; ");
    assert_eq!(of("TOPIC readings", "TOPIC other"), "s reads the topic other and not readings");
    assert_eq!(
        of("DECIMAL(6, 2)", "DECIMAL(6, 3)"),
        "the type, the place or NOT NULL of the column v of s; the WHERE near line 8; \
         the GROUP BY or an aggregate near line 7"
    );
    assert_eq!(of("'2' SECOND", "'3' SECOND"), "the WATERMARK of s");
    assert_eq!(of("'10' SECOND", "'20' SECOND"), "the window near line 8");
    assert_eq!(
        of("NULL, v", "NULL, w BIGINT, v").split(';').next(),
        Some("s has 4 columns and not 3")
    );
}

#[test]
fn the_order_of_queries_leaves_it_and_those_that_are_alike_keep_their_topics() {
    let file = |queries: [&str; 3]| {
        let stream = FILE.split_once("INSERT").expect("a query").0;
        shape(&format!(
            "{stream} {}",
            queries.map(|query| format!("INSERT INTO TOPIC {query};")).concat()
        ))
    };
    let count = "c SELECT COUNT(*) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, window_end";
    let (a, b) = ("a SELECT v FROM s", "b SELECT k, v FROM s WHERE v > 1.0");
    let one = file([a, "b SELECT k, v FROM s", count]);
    assert_eq!(file([count, "b SELECT k, v FROM s", a]), one);
    assert_eq!(
        file(["b SELECT v FROM s", count, "a SELECT k, v FROM s"]),
        one,
        "another one of each"
    );
    assert_ne!(file(["d SELECT k, v FROM s", count, a]), one, "which of them would it be?");
    assert_eq!(file([a, "b SELECT k, v FROM s", &count.replacen('c', "d", 1)]), one);
    assert_ne!(file([a, b, count]), one, "another kind");
}

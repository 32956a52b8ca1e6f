//! What is said about mistakes: the place, what was found, what was expected.

use fulmar_flow::plan;
use proptest::prelude::*;

const STREAM: &str = "CREATE STREAM s (k VARCHAR, v BIGINT, d DECIMAL(9, 2), f DOUBLE, b BOOLEAN, j JSON, \
                      at TIMESTAMP(3)) FROM TOPIC a WATERMARK at ON ERROR DROP LATE DROP;\n";
const TABLE: &str =
    "CREATE TABLE t (k VARCHAR PRIMARY KEY, r BIGINT) FROM TOPIC c ON ERROR DROP;\n";

fn problems(text: &str) -> Vec<String> {
    match plan(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Every case is the second line of a file, and has one problem, which holds all these parts.
fn check(cases: &[(&str, &[&str])]) {
    for (query, parts) in cases {
        let found = problems(&format!("{STREAM}{query}"));
        assert_eq!(found.len(), 1, "{query}: {found:#?}");
        for part in *parts {
            assert!(found[0].contains(part), "{query}\n  {}\n  has no `{part}`", found[0]);
        }
    }
}

/// The same of queries that go to a topic.
fn outputs(queries: &[(&str, &[&str])]) {
    for (query, parts) in queries {
        check(&[(&format!("INSERT INTO TOPIC x {query};"), parts)]);
    }
}

#[test]
fn what_follows_from_a_mistake_is_not_told() {
    let lines = [
        "CREATE STREAM broken (k VARCHAR, v NUMBER) FROM TOPIC a ON ERROR DROP;",
        "CREATE STREAM unread (k VARCHAR) FROM TOPIC plant.people ON ERROR DROP;",
        "CREATE STREAM next AS SELECT k FROM broken;",
        "INSERT INTO TOPIC x SELECT k FROM next;",
        "INSERT INTO TOPIC x SELECT k FROM unread;",
        "INSERT INTO TOPIC x SELECT k FROM nobody;",
    ];
    let found = problems(&lines.join("\n"));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("1:36: found `NUMBER`"), "{found:#?}");
    assert!(
        found[1].starts_with("2:50: found `.`") && found[1].contains("in quotes"),
        "{found:#?}"
    );
    assert!(found[2].starts_with("6:35: found `nobody`"), "{found:#?}");
}

#[test]
fn what_a_broken_statement_was_to_define_is_known() {
    for (first, place) in [
        ("CRAETE STREAM a (k VARCHAR) FROM TOPIC t ON ERROR DROP;", "2:1: found `CRAETE`"),
        ("CREATE STRAEM a (k VARCHAR) FROM TOPIC t ON ERROR DROP;", "2:8: found `STRAEM`"),
        ("CREATE STREAM b AS SELECT k FROM s\nCREATE STREAM a AS SELECT k FROM s;", "3:1: found"),
    ] {
        let found = problems(&format!("{STREAM}{first}\nINSERT INTO TOPIC x SELECT k FROM a;"));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(place), "{found:#?}");
    }
}

#[test]
fn the_most_similar_function_is_named_first() {
    outputs(&[("SELECT RUOND(d, 1) AS r FROM s", &["docs/SQL.md, like ROUND, "])]);
}

#[test]
fn statements() {
    check(&[
        ("DROP STREAM s;", &["2:1: found `DROP`, expected CREATE, INSERT or TEST"]),
        ("CREATE VIEW x AS SELECT 1;", &["2:8: found `VIEW`, expected STREAM or TABLE"]),
        ("CREATE STREAM x FROM TOPIC y;", &["2:17: found `FROM`, expected `(`, TO TOPIC or AS"]),
        ("CREATE STREAM x TO TOPIC y SELECT k FROM s;", &["expected KEY or AS"]),
        ("CREATE STREAM x (a INT) FROM TOPIC y ON ERROR DROP;", &["2:20: found `INT`", "BIGINT"]),
        (
            "CREATE STREAM x (a DECIMAL(40, 2)) FROM TOPIC y ON ERROR DROP;",
            &["2:20: found `DECIMAL(40,2)`, expected DECIMAL(precision, scale) of 1 to 38 digits"],
        ),
        ("CREATE STREAM x (a BIGINT) FROM TOPIC y;", &["2:15: found `x` without ON ERROR"]),
        ("CREATE STREAM x (a BIGINT UNIQUE) FROM TOPIC y;", &["found `UNIQUE`, expected NOT NULL"]),
        (
            "CREATE STREAM x (a BIGINT, a BIGINT) FROM TOPIC y ON ERROR DROP;",
            &["a second column `a`"],
        ),
        (
            "CREATE STREAM x (a BIGINT) FROM TOPIC y ON ERROR SKIP;",
            &["2:50: found `SKIP`", "DEAD LETTER"],
        ),
        (
            "CREATE STREAM x (a BIGINT) FROM TOPIC y ON ERROR DEAD LETTER y;",
            &["found `y`, which is read"],
        ),
        ("CREATE STREAM x (a BIGINT) FROM TOPIC 'a b' ON ERROR DROP;", &["2:39: found `a b`"]),
        (
            "CREATE STREAM x (a BIGINT) FROM TOPIC y WATERMARK a ON ERROR DROP;",
            &["2:51: found `a`, expected a column of type TIMESTAMP(3)"],
        ),
        (
            "CREATE STREAM x (a TIMESTAMP(3)) FROM TOPIC y WATERMARK a ON ERROR DROP;",
            &["without LATE, expected LATE TO topic or LATE DROP"],
        ),
        (
            "CREATE STREAM x (a TIMESTAMP(3)) FROM TOPIC y WATERMARK a - 5 ON ERROR DROP LATE DROP;",
            &["2:61: found `5`, expected an interval"],
        ),
        (
            "CREATE STREAM x (a BIGINT METADATA FROM 'key') FROM TOPIC y ON ERROR DROP;",
            &["2:41: found BIGINT for METADATA FROM 'key', expected VARCHAR"],
        ),
        (
            "CREATE STREAM x (a BIGINT METADATA FROM 'age') FROM TOPIC y ON ERROR DROP;",
            &["found `age`"],
        ),
        (
            "CREATE STREAM x (a BIGINT PATH 'a') FROM TOPIC y ON ERROR DROP;",
            &["found `a`, expected a path"],
        ),
        (
            "CREATE STREAM x (a BIGINT CHECK (b > 1)) FROM TOPIC y ON ERROR DROP;",
            &["2:34: found `b`"],
        ),
        (
            "CREATE STREAM x (a BIGINT CHECK (a b)) FROM TOPIC y ON ERROR DROP;",
            &["2:36: found `b`"],
        ),
        ("CREATE TABLE x (a BIGINT) FROM TOPIC y ON ERROR DROP;", &["a table without PRIMARY KEY"]),
        ("CREATE STREAM s AS SELECT k FROM s;", &["2:15: found a second `s`"]),
        (
            "INSERT INTO TOPIC x KEY y SELECT k FROM s;",
            &["2:25: found `y`, expected one of the columns k"],
        ),
        ("INSERT INTO TOPIC x VALUES (1);", &["2:21: found `VALUES`, expected SELECT"]),
        ("INSERT INTO TOPIC x SELECT k FROM s WHERE;", &["2:42: found the end of it"]),
        ("INSERT INTO TOPIC x SELECT 'k FROM s;", &["Unterminated string literal"]),
        ("TEST 'x' OPEN;", &["no output"]),
    ]);
}

#[test]
fn slips_are_told_where_they_are() {
    let source = "CREATE STREAM x (a TIMESTAMP(3)) FROM TOPIC y WATERMARK a ON ERROR DROP";
    check(&[
        (
            &format!("{source}\nINSERT INTO TOPIC x SELECT a FROM x;"),
            &["3:1: found `INSERT`, expected LATE or `;`"],
        ),
        (
            &format!("{source} LATE TO z\nCREATE STREAM u AS SELECT a FROM x;"),
            &["3:1: found `CREATE`, expected `;`"],
        ),
        (
            "INSERT INTO TOPIC x SELECT k FROM s\nTEST 'a' OPEN;",
            &["3:1: found `TEST`, expected `;` before it"],
        ),
        (
            "INSERT INTO TOPIC x SELECT k FROM s\nINSERT INTO TOPIC y SELECT k FROM s;",
            &["3:1: found `INSERT`, expected `;` before it"],
        ),
        (
            "INSERT INTO TOPIC x SELECT k FROM s WHERE v > 1\nCREATE STREAM a AS SELECT k FROM s;",
            &["3:1: found `CREATE`, expected `;`, the end of the statement"],
        ),
        (
            "TEST 'a' OPEN EXPECT x NULL TEST 'b' OPEN;",
            &["2:29: found `TEST`, expected EXPECT or `;`"],
        ),
        (
            "INSERT INTO TOPIC x SELECT k FROM TUMBLE(s, INTERVAL '10' SECNDS);",
            &["2:59: found `SECNDS`, expected one of MILLISECOND, SECOND, MINUTE, HOUR, DAY"],
        ),
        (
            "INSERT INTO TOPIC x SELECT at + INTERVAL '10' SECNDS AS y FROM s;",
            &["2:47: found `SECNDS`, expected one of MILLISECOND"],
        ),
        (
            "INSERT INTO TOPIC x SELECT at + INTERVAL '10' SECONDS ) AS y FROM s;",
            &["2:55: found `)`, expected `;`"],
        ),
        (
            "CREATE STREAM x (a TIMESTAMP(3)) FROM TOPIC y WATERMARK a IDLE INTERVAL '1' MINUT ON ERROR DROP;",
            &["2:77: found `MINUT`, expected one of MILLISECOND"],
        ),
        (
            "INSERT INTO TOPIC x SELECT k FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(at), INTERVAL '1' SECOND));",
            &["2:48: found `TABLE s`, expected a stream and an INTERVAL, as in TUMBLE(stream"],
        ),
        (
            "INSERT INTO TOPIC x SELECT k FROM s WHERE k = 'a;\nTEST 'b'\n INPUT a '{}'\n EXPECT x '{}';",
            &["2:47: found a text without an end in the file, expected `'` behind each text"],
        ),
    ]);
}

#[test]
fn queries() {
    let queries: &[(&str, &[&str])] = &[
        ("SELECT x FROM s", &["2:28: found `x`, expected one of s.k, s.v"]),
        ("SELECT k FROM x", &["2:35: found `x`, expected one of s"]),
        ("SELECT 1 FROM s", &["2:28: found `1`, expected AS and a name"]),
        ("SELECT k, k FROM s", &["2:31: found a second column `k`"]),
        ("SELECT NULL AS x FROM s", &["2:28: found NULL"]),
        ("SELECT DISTINCT k FROM s", &["with DISTINCT"]),
        ("SELECT k FROM s ORDER BY k", &["with ORDER BY"]),
        ("SELECT k FROM s LIMIT 1", &["with LIMIT"]),
        ("SELECT k FROM s UNION ALL SELECT k FROM s", &["found UNION"]),
        ("SELECT k FROM s, s", &["2 relations"]),
        ("SELECT k FROM s CROSS JOIN s AS x", &["expected JOIN or LEFT JOIN"]),
        ("SELECT k FROM s FINAL x", &["found"]),
        ("SELECT k FROM (SELECT k FROM s)", &["with an alias"]),
        ("SELECT k FROM s WHERE v", &["2:43: found BIGINT, expected a condition"]),
        ("SELECT k FROM s WHERE v = 'a'", &["found BIGINT and VARCHAR"]),
        ("SELECT k FROM s WHERE j = j", &["found JSON and JSON"]),
        ("SELECT k + 1 AS x FROM s", &["2:28: found VARCHAR, expected a number"]),
        ("SELECT k FROM s WHERE k IN (1)", &["2:49: found BIGINT, expected a value like VARCHAR"]),
        ("SELECT k FROM s WHERE k LIKE k", &["expected a pattern, in quotes"]),
        (
            "SELECT k FROM s WHERE EXISTS (SELECT k FROM s)",
            &["expected an expression of docs/SQL.md"],
        ),
        ("SELECT CAST(b AS BIGINT) AS x FROM s", &["a CAST from BOOLEAN to BIGINT"]),
        ("SELECT CASE WHEN b THEN 1 ELSE 'a' END AS x FROM s", &["found VARCHAR, expected BIGINT"]),
        ("SELECT UPER(k) AS x FROM s", &["found the function `UPER`", "UPPER"]),
        ("SELECT ÄB(k) AS x FROM s", &["found the function `ÄB`"]),
        ("SELECT UPPER(k, k) AS x FROM s", &["found 2 arguments of UPPER, expected 1 argument"]),
        ("SELECT UPPER(v) AS x FROM s", &["2:34: found BIGINT, expected VARCHAR"]),
        ("SELECT REGEXP_LIKE(k, '(') AS x FROM s", &["2:43: `(` is no regular expression"]),
        ("SELECT REGEXP_REPLACE(k, '(a)', '$2') AS x FROM s", &["2:53", "none of the 1 groups"]),
        (
            "SELECT REGEXP_EXTRACT(k, 'a', 1) AS x FROM s",
            &["found the group 1, expected a number from 0 to 0"],
        ),
        (
            "SELECT DATE_FORMAT(at, 'YYYY') AS x FROM s",
            &["2:44: `YYYY`: `YYYY` is none of yyyy, MM"],
        ),
        ("SELECT JSON_VALUE(j, '$.*') AS x FROM s", &["found `$.*`, expected a path"]),
        ("SELECT JSON_VALUE(j, '$.x[+1]') AS x FROM s", &["found `$.x[+1]`, expected a path"]),
        ("SELECT JSON_VALUE(j, '$.motor temp') AS x FROM s", &["expected a path"]),
        ("SELECT JSON_VALUE(j, 'a') AS x FROM s", &["2:42: found `a`, expected a path"]),
        (
            "SELECT DATE_TRUNC('week', at) AS x FROM s",
            &["found `WEEK`, expected one of MILLISECOND"],
        ),
        ("SELECT ROUND(d, v) AS x FROM s", &["written out"]),
        ("SELECT at * INTERVAL '1' SECOND AS x FROM s", &["found an INTERVAL"]),
    ];
    outputs(queries);
}

#[test]
fn windows() {
    let queries: &[(&str, &[&str])] = &[
        ("SELECT COUNT(*) AS n FROM s", &["a GROUP BY without a window"]),
        ("SELECT k, COUNT(*) AS n FROM s GROUP BY k", &["a GROUP BY without a window"]),
        ("SELECT k FROM s HAVING v > 1", &["2:44: found HAVING"]),
        ("SELECT k FROM s WHERE COUNT(*) > 1", &["the aggregate COUNT"]),
        ("SELECT k FROM TUMBLE(s)", &["expected TUMBLE(stream, INTERVAL ...)"]),
        (
            "SELECT k FROM TUMBLE(s, INTERVAL '0' SECOND)",
            &["2:54: found `INTERVAL '0' SECOND`, expected a longer interval"],
        ),
        ("SELECT k FROM TUMBLE(s, INTERVAL '1' MONTH)", &["expected an interval like"]),
        (
            "SELECT k FROM HOP(s, INTERVAL '2' SECOND, INTERVAL '3' SECOND)",
            &[
                "windows of 3000 ms that begin every 2000 ms, expected a size that is a whole multiple",
            ],
        ),
        (
            "SELECT k FROM HOP(s, INTERVAL '1' SECOND, INTERVAL '1001' SECOND)",
            &["a row in 1001 of them, expected at most 1000"],
        ),
        ("SELECT k FROM SESSION(s, INTERVAL '2' SECOND)", &["SESSION without GROUP BY"]),
        ("SELECT k FROM CUMULATE(s, INTERVAL '2' SECOND)", &["expected TUMBLE, HOP or SESSION"]),
        (
            "SELECT v, COUNT(*) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY k, window_start, window_end",
            &["2:28: found `v`, expected an aggregate function or a column of the GROUP BY"],
        ),
        (
            "SELECT SUM(k) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, window_end",
            &["2:32: found VARCHAR, expected a number"],
        ),
        (
            "SELECT COUNT(DISTINCT k) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, \
             window_end",
            &["COUNT with DISTINCT"],
        ),
        (
            "SELECT SUM(COUNT(*)) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, window_end",
            &["the aggregate COUNT", "not in each other"],
        ),
        (
            "SELECT CAST(AVGG(v) AS DOUBLE) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY window_start, \
             window_end",
            &["2:33: found the function `AVGG`, expected a function of docs/SQL.md, like AVG, "],
        ),
        ("SELECT MOD(v, 2, 1) AS n FROM s", &["found 3 arguments of MOD, expected 2 arguments"]),
        ("SELECT s.k FROM s JOIN s AS x ON s.k = x.k", &["a join of streams without windows"]),
    ];
    outputs(queries);
}

#[test]
fn tables() {
    let other = "CREATE TABLE u (k DECIMAL(3, 0) PRIMARY KEY) FROM TOPIC c ON ERROR DROP;\n";
    let join =
        |on: &str| format!("{STREAM}{other}INSERT INTO TOPIC x SELECT s.k FROM s JOIN u ON {on};");
    for on in ["s.v = u.k", "u.k = s.v"] {
        let found = problems(&join(on));
        assert_eq!(
            found,
            ["3:51: found BIGINT = a column of the PRIMARY KEY that is DECIMAL(3, 0), \
              expected DECIMAL(3, 0) on both sides, by CAST or TRY_CAST of the other"]
        );
    }
    assert_eq!(problems(&join("TRY_CAST(s.v AS DECIMAL(3, 0)) = u.k")), Vec::<String>::new());
    for (query, part) in [
        ("SELECT k FROM t", "found the table `t`"),
        ("SELECT s.k FROM s JOIN t ON s.v = t.r", "expected ON ... = t.k, of the PRIMARY KEY"),
        ("SELECT s.k FROM s JOIN t ON s.k > t.k", "expected ON ... = t.k, of the PRIMARY KEY"),
        ("SELECT k FROM s JOIN t ON s.k = t.k", "3:28: found `k`, expected s.k or t.k"),
        ("SELECT s.k FROM s JOIN t USING (k)", "expected JOIN ... ON a condition"),
    ] {
        let found = problems(&format!("{STREAM}{TABLE}INSERT INTO TOPIC x {query};"));
        assert_eq!(found.len(), 1, "{query}: {found:#?}");
        assert!(found[0].contains(part), "{query}\n  {}\n  has no `{part}`", found[0]);
    }
}

#[test]
fn topics_that_no_site_takes_together() {
    let reads = "CREATE STREAM a (x BIGINT) FROM TOPIC t ON ERROR DEAD LETTER u;\n";
    let also = "CREATE STREAM b (x BIGINT) FROM TOPIC u ON ERROR DROP;\n";
    let found = problems(&format!(
        "{reads}{also}INSERT INTO TOPIC t SELECT x FROM a;\nINSERT INTO TOPIC o SELECT x FROM b;"
    ));
    let expected = "expected another topic; a pipeline does not read what it writes";
    assert_eq!(
        found,
        [
            format!("1:62: found `u`, which is read, {expected}"),
            format!("3:19: found `t`, which is read, {expected}")
        ]
    );
    for topic in ["..", ".", "__pipeline.x"] {
        let found = problems(&format!("{reads}INSERT INTO TOPIC '{topic}' SELECT x FROM a;"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!("2:19: found `{topic}`")), "{found:?}");
    }
}

#[test]
fn every_problem_of_a_file_is_found() {
    let text =
        "CREATE STREAM a (x INT) FROM TOPIC a ON ERROR DROP;\nINSERT INTO b SELECT 1;\nSELECT 1;";
    assert_eq!(problems(text).len(), 3);
    assert_eq!(problems(""), ["1:1: found no statement, expected CREATE, INSERT or TEST"]);
    let unread = format!("{STREAM}{TABLE}INSERT INTO TOPIC x SELECT k FROM s;");
    assert_eq!(
        problems(&unread),
        ["2:14: found `t`, which no output reads, expected a query that reads it"]
    );
    // Of queries that only read each other the last one is told, and the rest follows from it.
    let unread = format!(
        "{STREAM}{TABLE}CREATE STREAM a AS SELECT s.k FROM s JOIN t ON s.k = t.k;\n\
         CREATE STREAM b AS SELECT k FROM a;\nCREATE STREAM c TO TOPIC y AS SELECT k FROM s;"
    );
    assert_eq!(
        problems(&unread),
        ["4:15: found `b`, which no output reads, expected a query that reads it"]
    );
    let test =
        format!("{STREAM}INSERT INTO TOPIC x SELECT k FROM s;\nTEST 't' INPUT x '1' EXPECT a '1';");
    assert_eq!(
        problems(&test),
        [
            "3:16: found `x`, expected one of the topics a",
            "3:29: found `a`, expected one of the topics x"
        ]
    );
}

#[test]
fn nothing_is_too_large_or_too_deep() {
    let deep = |open: &str, close: &str, count: usize| {
        let (open, close) = (open.repeat(count), close.repeat(count));
        format!("{STREAM}INSERT INTO TOPIC x SELECT {open}v{close} AS y FROM s;")
    };
    for text in [
        deep("(", ")", 400),
        deep("ABS(", ")", 300),
        deep("NOT ", "", 900),
        deep("- ", "", 900),
        deep("", " + v", 400),
        deep("", " COLLATE v", 400),
        deep("", " IS NULL", 400),
        deep("CASE WHEN b THEN ", " END", 300),
        deep("", " + v", 100_000),
        "(".repeat(2_000_000),
        format!("{STREAM}INSERT INTO TOPIC x {}k FROM s;", "SELECT k FROM (".repeat(150)),
    ] {
        assert!(!problems(&text).is_empty(), "{}", &text[..80]);
    }
    let mut named = format!("{STREAM}CREATE STREAM a0 AS SELECT k FROM s;\n");
    for at in 1..20 {
        let before = at - 1;
        named += &format!(
            "CREATE STREAM a{at} AS SELECT x.k, x.window_start, x.window_end FROM TUMBLE(a{before}, INTERVAL \
             '1' SECOND) x JOIN TUMBLE(a{before}, INTERVAL '1' SECOND) y ON x.window_start = \
             y.window_start AND x.window_end = y.window_end;\n"
        );
        named += &format!("CREATE STREAM b{at} AS SELECT k FROM a{at};\n");
        named = named.replace(&format!("TUMBLE(a{before}, "), &format!("TUMBLE(b{before}, "));
        named = named.replace("b0", "a0");
    }
    named += "INSERT INTO TOPIC x SELECT k FROM b19;";
    assert!(!problems(&named).is_empty());
}

/// The operand of a CASE or a BETWEEN is looked at once, so this takes no longer than it is written.
#[test]
fn cases_in_each_other_are_planned_at_once() {
    let case = " WHEN 0 THEN 0 WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 3 THEN 3 END";
    let (cases, ends) = ("CASE ".repeat(9), case.repeat(9));
    let query = format!("INSERT INTO TOPIC x SELECT {cases}v{ends} AS y FROM s;");
    assert_eq!(problems(&format!("{STREAM}{query}")), Vec::<String>::new());
    let (open, close) = ("(".repeat(12), " BETWEEN FALSE AND TRUE)".repeat(12));
    let query = format!("INSERT INTO TOPIC x SELECT {open}b{close} AS y FROM s;");
    assert_eq!(problems(&format!("{STREAM}{query}")), Vec::<String>::new());
}

#[test]
fn a_file_that_takes_long_to_plan_is_refused() {
    let grouped = |count: usize| {
        let patterns = vec!["MAX(k) LIKE 'a_'"; count].join(" AND ");
        problems(&format!(
            "{STREAM}INSERT INTO TOPIC x SELECT {patterns} AS y, COUNT(*) AS n FROM TUMBLE(s, INTERVAL '1' SECOND) \
             GROUP BY UPPER(k), window_start, window_end;"
        ))
    };
    assert_eq!(grouped(20), Vec::<String>::new());
    let patterns = " AND k LIKE 'a_'".repeat(60);
    let many = format!("INSERT INTO TOPIC x SELECT k FROM s WHERE TRUE{patterns};\n").repeat(12);
    let found = problems(&format!("{STREAM}{many}"));
    assert!(found[0].contains("found too much for one file"), "{found:?}");
    // What is wrong counts as well, and when nothing is left, the rest is not looked at.
    let deep = format!(
        "INSERT INTO TOPIC x SELECT COUNT(*) AS n, k LIKE 'a_'{patterns} AS y, nope \
         FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY k, window_start, window_end;\n"
    );
    let found = problems(&format!("{STREAM}{}", deep.repeat(300)));
    assert!(found[0].contains("`nope`"), "{found:?}");
    assert!(found.len() < 100 && found.iter().any(|one| one.contains("too much for one file")));
}

#[test]
fn what_groups_cannot_have_is_refused_by_its_name() {
    let windows = "FROM TUMBLE(s, INTERVAL '1' SECOND) GROUP BY";
    let query = |select: &str, keys: &str| {
        format!(
            "INSERT INTO TOPIC x SELECT {select} AS n {windows} {keys}window_start, window_end;"
        )
    };
    check(&[
        (
            "INSERT INTO TOPIC x SELECT SUM(v) OVER (PARTITION BY k) AS n FROM s;",
            &["SUM with OVER"],
        ),
        (&query("COUNT(*) FILTER (WHERE b)", ""), &["COUNT with FILTER"]),
        (&query("COUNT(*)", "1, "), &["a number names no column here"]),
    ]);
}

#[test]
fn patterns_that_take_long_are_refused() {
    let like = |pattern: &str| {
        let found = problems(&format!(
            "{STREAM}INSERT INTO TOPIC x SELECT REGEXP_LIKE(k, '{pattern}') AS y FROM s;"
        ));
        found.first().cloned().unwrap_or_default()
    };
    assert_eq!(like(r"(?i)\w{20}"), "");
    assert!(like(r"\w{200}").contains("too many signs"), "{}", like(r"\w{200}"));
    assert!(like(&"a".repeat(1_001)).contains("longer than 1000 bytes"));
    let many = (10..50).map(|n| format!("REGEXP_LIKE(k, '\\w{{{n}}}') AS y{n}"));
    let many = many.collect::<Vec<_>>().join(", ");
    let found = problems(&format!("{STREAM}INSERT INTO TOPIC x SELECT {many} FROM s;"));
    assert!(found[0].contains("too many signs in all"), "{found:?}");
}

#[test]
fn units_and_idle_that_make_no_sense_are_refused() {
    let found =
        problems(&format!("{STREAM}INSERT INTO TOPIC x SELECT DATE_TRUNC('dow', at) AS y FROM s;"));
    assert!(found[0].contains("`DOW`") && !found[0].contains("DOY"), "{found:?}");
    let found = problems(
        "CREATE STREAM s (at TIMESTAMP(3)) FROM TOPIC t WATERMARK at IDLE INTERVAL '0' SECOND \
         ON ERROR DROP LATE DROP;\nINSERT INTO TOPIC x SELECT at FROM s;",
    );
    assert!(found[0].contains("IDLE after nothing"), "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever stands in a query, in whatever script: there are problems or a plan.
    #[test]
    fn no_text_makes_the_planner_panic(
        words in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "(", ")", ",", "k", "v", "at", "1", "'a'", "'é'", "AND", "CASE", "WHEN", "THEN", "END", "+",
                    "UPPER(", "LIKE", "SELECT", "FROM s", "WHERE", "INTERVAL '1' SECOND", "AS y", "\"ß\"", "Ä(",
                    "JSON_VALUE(j, '$.ä')", "REGEXP_REPLACE(k, '(ü)', '$1')", "DATE_FORMAT(at, 'ö')", "CAST(",
                ]).prop_map(str::to_owned),
                "\\PC{1,4}",
            ],
            0..12,
        )
    ) {
        let words = words.join(" ");
        problems(&format!("{STREAM}INSERT INTO TOPIC x SELECT {words} AS y FROM s;"));
        problems(&format!("{STREAM}{words};"));
    }
}

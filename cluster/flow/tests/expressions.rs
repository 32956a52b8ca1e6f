//! What expressions give: one row, one expression, one value.

use fulmar_flow::{Engine, Record, plan};
use std::collections::BTreeMap;
use std::sync::Arc;

const ROW: &str = "{\"k\": \"Zoë Ångström\", \"v\": 7, \"n\": null, \"d\": 2.50, \"f\": 0.1, \"b\": true, \
                   \"j\": {\"a\": [1.50, {\"b\": \"x\"}]}, \"at\": \"2024-02-29T13:07:08.009Z\"}";

/// The value as JSON, or why there is none.
fn value(expression: &str) -> Result<String, String> {
    let text = format!(
        "CREATE STREAM s (k VARCHAR, v BIGINT, n BIGINT, d DECIMAL(5, 2), f DOUBLE, b BOOLEAN, j JSON, at \
         TIMESTAMP(3)) FROM TOPIC a ON ERROR FAIL;\nINSERT INTO TOPIC x SELECT {expression} AS y FROM s;"
    );
    let plan = plan(&text).map_err(|problems| format!("{problems:?}"))?;
    let mut engine = Engine::new(Arc::new(plan), &BTreeMap::new());
    let value = Some(ROW.into());
    let record = Record {
        partition: 0,
        offset: 0,
        timestamp: 0,
        key: None,
        headers: Vec::new(),
        value,
        damage: None,
        is_retried: false,
    };
    engine.batch("a", &[Arc::new(record)]).map_err(|halt| halt.failure.reason)?;
    let written = engine.end_epoch(0, true).map_err(|halt| halt.failure.reason)?;
    let bytes = written[0].value.clone().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.trim_start_matches("{\"y\":").trim_end_matches('}').to_owned())
}

fn check(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        let value = value(expression).unwrap_or_else(|why| panic!("{expression}: {why}"));
        assert_eq!(value, *expected, "{expression}");
    }
}

#[test]
fn logic_has_three_values() {
    let null = "CAST(NULL AS BOOLEAN)";
    for (left, right, and, or) in [
        ("TRUE", "TRUE", "true", "true"),
        ("TRUE", "FALSE", "false", "true"),
        ("FALSE", null, "false", "null"),
        (null, "FALSE", "false", "null"),
        ("TRUE", null, "null", "true"),
        (null, "TRUE", "null", "true"),
        (null, null, "null", "null"),
    ] {
        check(&[(&format!("{left} AND {right}"), and), (&format!("{left} OR {right}"), or)]);
    }
    check(&[
        ("NOT (n = 1)", "null"),
        ("n IS NULL", "true"),
        ("(n = 1) IS NOT TRUE", "true"),
        ("n IS NOT DISTINCT FROM NULL", "true"),
        ("v IS DISTINCT FROM n", "true"),
        ("v IN (1, 7, n)", "true"),
        ("v IN (1, n)", "null"),
        ("v NOT IN (1, 2)", "true"),
        ("v BETWEEN 7 AND 7.5", "true"),
        ("v NOT BETWEEN 8 AND n", "true"),
        ("FALSE AND 1 / (v - 7) > 1", "false"),
        ("CASE v WHEN 7 THEN 'seven' ELSE 'other' END", "\"seven\""),
        ("CASE v WHEN n THEN 1 WHEN 7.0 THEN 2 WHEN 1 / 0 THEN 3 END", "2"),
        ("CASE n WHEN 1 THEN 1 ELSE 2 END", "2"),
        ("v BETWEEN 8 AND 1 / 0", "false"),
        ("v BETWEEN n AND 6", "false"),
        ("v BETWEEN n AND 8e0", "null"),
        ("NULL BETWEEN 1 AND 2", "null"),
        ("CASE WHEN n > 1 THEN 1 WHEN v > 1 THEN 2.5 END", "2.5"),
        ("COALESCE(n, v, 1 / 0)", "7.000000"),
        ("GREATEST(v, 7.5, 1)", "7.5"),
        ("LEAST('b', 'a')", "\"a\""),
    ]);
}

#[test]
fn numbers() {
    check(&[
        ("v + 1", "8"),
        ("v / 2", "3.500000"),
        ("-v % 4", "-3"),
        ("MOD(v, 4)", "3"),
        ("d * d", "6.2500"),
        ("d + v", "9.50"),
        ("d / 3", "0.833333"),
        ("d - 0.005", "2.495"),
        ("f + 0.2e0", "0.30000000000000004"),
        ("f * v", "0.7000000000000001"),
        ("-0e0", "0.0"),
        ("ABS(-d)", "2.50"),
        ("SIGN(-f)", "-1"),
        ("FLOOR(-d)", "-3"),
        ("CEIL(d)", "3"),
        ("ROUND(d)", "3"),
        ("CAST(1000 AS DECIMAL(38, 18)) / 1", "1000.000000000000000000"),
        (
            "CAST(1000000000 AS DECIMAL(38, 10)) / CAST(3 AS DECIMAL(20, 10))",
            "333333333.3333333333",
        ),
        ("1e38 % CAST(0.3 AS DOUBLE) >= 0e0", "true"),
        (
            "MOD(CAST(10000000000000000000000000000 AS DECIMAL(38, 0)), 0.000000000000000003)",
            "0.000000000000000001",
        ),
        ("CAST(1.1102230246251565e-26 AS DECIMAL(10, 2))", "0.00"),
        ("CAST('0.000000000000000000000000000000000000000000001' AS DECIMAL(10, 2))", "0.00"),
        ("ROUND(2.345, 2)", "2.35"),
        ("ROUND(f, 0)", "0.0"),
        ("TRUNCATE(-2.99, 1)", "-2.9"),
        ("TRUNCATE(2.99e0, 1)", "2.9"),
        ("ROUND(1.2345678901234567e-24, 30)", "1.234568e-24"),
        ("TRUNCATE(1.2345678901234567e-24, 30)", "1.234567e-24"),
        ("ROUND(-1.5e-38, 38)", "-2e-38"),
        ("TRUNCATE(-1.55e-38, 38)", "-1e-38"),
        ("ROUND(4e-39, 38)", "0.0"),
        ("ROUND(5e-324, 0)", "0.0"),
        ("TRUNCATE(-9.87e-30, 0)", "0.0"),
        ("ROUND(1.5e300, 2)", "1.5e300"),
        ("SQRT(v + 9)", "4.0"),
        ("CAST(d AS BIGINT)", "3"),
        ("CAST(2.5e0 AS DECIMAL(3, 1))", "2.5"),
        ("CAST('12.345' AS DECIMAL(4, 2))", "12.35"),
        ("CAST(' 12 ' AS BIGINT)", "12"),
        ("TRY_CAST(k AS BIGINT)", "null"),
        ("TRY_CAST('nan' AS DOUBLE)", "null"),
        ("99999999999999999999 + 1", "100000000000000000000"),
    ]);
    for (expression, why) in [
        ("v / 0", "division by zero"),
        ("9223372036854775807 + v", "BIGINT overflows"),
        ("CAST(d * 1000 AS DECIMAL(3, 2))", "is no DECIMAL(3, 2)"),
        ("1e308 * 10", "DOUBLE is not finite"),
        ("CAST(k AS BIGINT)", "is no BIGINT"),
        ("SQRT(-f)", "square root"),
    ] {
        let failed = value(expression).expect_err(expression);
        assert!(failed.contains(why), "{expression}: {failed}");
    }
}

#[test]
fn null_if_compares_and_keeps_its_type() {
    check(&[
        ("NULLIF(v, 7)", "null"),
        ("NULLIF(v, 7.0)", "null"),
        ("NULLIF(v, 7e0)", "null"),
        ("NULLIF(v, 7.5)", "7"),
        ("NULLIF(v, 7.5e0)", "7"),
        ("NULLIF(d, 2)", "2.50"),
        ("NULLIF(f, 1)", "0.1"),
        ("NULLIF(v, NULL)", "7"),
        ("NULLIF(NULL, v)", "null"),
    ]);
}

#[test]
fn texts() {
    check(&[
        ("UPPER(k)", "\"ZOË ÅNGSTRÖM\""),
        ("LOWER(k)", "\"zoë ångström\""),
        ("CHAR_LENGTH(k)", "12"),
        ("TRIM('  a ')", "\"a\""),
        ("LTRIM('  a ')", "\"a \""),
        ("SUBSTRING(k, 3, 2)", "\"ë \""),
        ("SUBSTRING(k FROM 5)", "\"Ångström\""),
        ("SUBSTRING(k, -1, 3)", "\"Z\""),
        ("LEFT(k, 3) || '-' || RIGHT(k, 1) || v", "\"Zoë-m7\""),
        ("CONCAT(k, n)", "null"),
        ("REPLACE(k, 'o', '')", "\"Zë Ångström\""),
        ("POSITION('Å' IN k)", "5"),
        ("SPLIT_INDEX('a,b,,c', ',', 3)", "\"c\""),
        ("SPLIT_INDEX('a', ',', 1)", "null"),
        ("STARTS_WITH(k, 'Zo')", "true"),
        ("k LIKE 'Z__ %m'", "true"),
        ("k NOT LIKE '%z%'", "true"),
        ("'a.c' LIKE 'abc'", "false"),
        ("REGEXP_LIKE(k, '^Z\\w+ ')", "true"),
        ("REGEXP_EXTRACT(k, '(\\w+) (\\w)', 2)", "\"Å\""),
        ("REGEXP_EXTRACT(k, 'x')", "null"),
        ("REGEXP_REPLACE(k, '(\\w+) (\\w+)', '$2, $1')", "\"Ångström, Zoë\""),
        ("REGEXP_REPLACE('12-34', '([0-9]+)-([0-9]+)', '$1_$2')", "\"12_34\""),
        ("REGEXP_REPLACE('12-34', '([0-9]+)-([0-9]+)', '${2}0$$1')", "\"340$1\""),
        ("REGEXP_REPLACE('ab', '(x)?b', '<$1>')", "\"a<>\""),
        ("MASK('हिन्दी e\u{301}-1', 1)", "\"****** **-1\""),
        ("MASK('DE-42 7', 2)", "\"**-** 7\""),
        ("MASK(k)", "\"*** ********\""),
        ("CHAR_LENGTH(KEYED_HASH(k, 'key'))", "32"),
        ("KEYED_HASH(v, 'a') = KEYED_HASH('7', 'a')", "true"),
        ("KEYED_HASH(v, 'a') = KEYED_HASH(v, 'b')", "false"),
        ("'it''s'", "\"it's\""),
    ]);
    assert_eq!(
        value("REGEXP_REPLACE(k, '(a)|o', 'x$' || v)"),
        Err("`$7` is none of the 1 groups of the pattern".to_owned())
    );
    let long = format!("REGEXP_REPLACE('{}', '.+', '{}')", "a".repeat(2_000), "$0".repeat(600));
    assert_eq!(value(&long), Err("the text is longer than 1 MiB".to_owned()));
    let long = "REPLACE(REPLACE(REPLACE(REPLACE(k, 'o', 'oooooooooooooooooooooooooooooooooooooooo'), 'o', \
                'oooooooooooooooooooooooooooooooooooooooo'), 'o', 'oooooooooooooooooooooooooooooooooooo'), \
                'o', 'oooooooooooooooooooooooooooooooooooooooooooooooooooo')";
    assert_eq!(value(long), Err("the text is longer than 1 MiB".to_owned()));
}

#[test]
fn times_and_json() {
    check(&[
        ("at", "\"2024-02-29T13:07:08.009Z\""),
        ("at + INTERVAL '1' DAY", "\"2024-03-01T13:07:08.009Z\""),
        ("at - INTERVAL '500' MILLISECOND", "\"2024-02-29T13:07:07.509Z\""),
        ("at > TIMESTAMP '2024-02-29 13:00:00'", "true"),
        ("DATE_TRUNC('hour', at)", "\"2024-02-29T13:00:00.000Z\""),
        ("DATE_TRUNC('month', at)", "\"2024-02-01T00:00:00.000Z\""),
        ("EXTRACT(MINUTE FROM at)", "7"),
        ("EXTRACT(DOY FROM at)", "60"),
        ("EXTRACT(DOW FROM at)", "4"),
        ("DATE_FORMAT(at, 'dd.MM.yyyy HH:mm:ss,SSS')", "\"29.02.2024 13:07:08,009\""),
        ("DATE_FORMAT(at, 'yyyy-MM-dd''T''HH')", "\"2024-02-29T13\""),
        ("EPOCH_MS(at)", "1709212028009"),
        ("FROM_EPOCH_MS(0)", "\"1970-01-01T00:00:00.000Z\""),
        ("CAST('2024-02-29' AS TIMESTAMP(3))", "\"2024-02-29T00:00:00.000Z\""),
        ("CAST(at AS VARCHAR)", "\"2024-02-29T13:07:08.009Z\""),
        ("j", "{\"a\":[1.50,{\"b\":\"x\"}]"),
        ("JSON_VALUE(j, '$.a[0]')", "\"1.50\""),
        ("JSON_VALUE(j, '$.a')", "null"),
        ("JSON_QUERY(j, '$.a[1]')", "{\"b\":\"x\""),
        ("JSON_VALUE(CAST('{\"motor temp\": 5}' AS JSON), '$.\"motor temp\"')", "\"5\""),
        ("JSON_VALUE(CAST('{\"motor temp\": 5}' AS JSON), '$[\"motor temp\"]')", "\"5\""),
        ("JSON_EXISTS(j, '$.a[2]')", "false"),
        ("CAST(JSON_VALUE(j, '$.a[0]') AS DECIMAL(4, 1))", "1.5"),
        ("JSON_VALUE(CAST('{\"x\": true}' AS JSON), '$.x')", "\"true\""),
    ]);
    for expression in
        ["FROM_EPOCH_MS(9223372036854775807)", "CAST('x' AS TIMESTAMP(3))", "CAST('{' AS JSON)"]
    {
        assert!(value(expression).is_err(), "{expression}");
    }
}

//! Tests of `rule.rs`.

use super::*;

fn read(settings: &[(&str, &str)]) -> Result<RuleDefinition, String> {
    RuleDefinition::from_settings(settings.iter().copied())
}

#[test]
fn a_rule_reads_back() {
    let rule = read(&[
        (REGIONS, "eu, us"),
        (KEY, "hash"),
        (HEADERS, "trace=pass, *=drop, odd\\=name=hash"),
        (FIELDS, "customer.name=mask, gps.*=round:-2, a\\.b\\,c.d=drop, note=truncate:12, id=hash"),
    ])
    .expect("it is a rule");
    assert!(rule.is_within_limits() && !rule.is_verbatim());
    assert_eq!(rule.regions, ["eu", "us"]);
    assert_eq!(rule.header(b"trace"), Passage::Pass);
    assert_eq!(rule.header(b"odd=name"), Passage::Hash);
    assert_eq!(rule.header(b"\xff"), Passage::Drop);
    let odd: FieldPath = "a\\.b\\,c.d".parse().expect("it is a path");
    assert_eq!(odd.segments()[0], Segment::Name("a.b,c".to_owned()));
    assert_eq!(rule.fields[&odd], FieldAction::Drop);
    let settings = rule.settings();
    let again = read(&settings.iter().map(|(k, v)| (&**k, &**v)).collect::<Vec<_>>());
    assert_eq!(again, Ok(rule.clone()));
    for action in rule.fields.values() {
        let (kind, argument) = action.numbers();
        assert_eq!(FieldAction::from_numbers(kind, argument), Some(*action));
    }
    assert_eq!(read(&[]), Ok(RuleDefinition::default()));
    let plain = read(&[(REGIONS, "eu")]).expect("it is a rule");
    assert!(plain.is_verbatim());
    assert_eq!(plain.settings(), [(REGIONS.to_owned(), "eu".to_owned())]);
}

#[test]
fn who_names_single_headers_has_to_name_the_others() {
    let laid_down =
        |headers: &str| RuleDefinition::laid_down([(REGIONS, "eu"), (HEADERS, headers)]);
    for whole in ["pass", "drop", "trace=pass,*=drop", "trace=drop,*=pass", "*=hash"] {
        laid_down(whole).expect(whole);
    }
    let said = laid_down("trace=pass").expect_err("the others would pass");
    assert!(said.contains("*=drop, or *=pass"), "{said}");
}

#[test]
fn what_is_wrong_with_a_rule_is_named() {
    let with =
        |name, value| read(&[(REGIONS, "eu"), (KEY, "pass"), (HEADERS, "pass"), (name, value)]);
    for (name, value, named) in [
        (FIELDS, "a=blur", "blur"),
        (FIELDS, "a=truncate:x", "truncate:x"),
        (FIELDS, "a=round:19", "round:19"),
        (FIELDS, "a", "`a`"),
        (FIELDS, "a..b=drop", "a..b"),
        (FIELDS, "items[0].id=drop", "items.id"),
        (FIELDS, "$.a=drop", "$.a"),
        (FIELDS, "a=drop,a=mask", "twice"),
        (FIELDS, "a =drop", "space"),
        (FIELDS, "a. b=drop", "space"),
        (HEADERS, "x =drop", "space"),
        (HEADERS, "x=maybe", "maybe"),
        (HEADERS, "x=drop,x=pass", "twice"),
        (KEY, "keep", "keep"),
        ("colour", "red", "colour"),
    ] {
        let error = with(name, value).expect_err(value);
        assert!(error.contains(named), "{error}");
    }
    let error = read(&[(REGIONS, "eu"), (FIELDS, "a=drop")]).expect_err("no word of the key");
    assert!(error.contains("`key`"), "{error}");
    let error = read(&[(KEY, "drop")]).expect_err("no region");
    assert!(error.contains("regions"), "{error}");
}

#[test]
fn a_rule_tells_more_if_anything_of_another_is_missing() {
    let held =
        [(REGIONS, "eu"), (KEY, "drop"), (HEADERS, "trace=pass,*=drop"), (FIELDS, "card=drop")];
    let standing = read(&held).expect("a rule");
    let with = |at: usize, value: &'static str| {
        let mut settings = held;
        settings[at].1 = value;
        read(&settings).expect("a rule")
    };
    for same in [standing.clone(), with(0, "eu,us"), with(2, "drop"), with(3, "card=drop,id=hash")]
    {
        assert!(!same.tells_more_than(&standing), "{same:?}");
    }
    let less = [with(1, "hash"), with(1, "pass"), with(2, "trace=pass"), with(2, "a=pass,*=drop")];
    for more in less.into_iter().chain([with(3, "card=hash"), with(3, "id=drop")]) {
        assert!(more.tells_more_than(&standing), "{more:?}");
    }
    assert!(!RuleDefinition::default().tells_more_than(&standing));
}

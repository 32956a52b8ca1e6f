//! What rules make of batches.

use super::*;
use fulmar_host::task::block_on;
use fulmar_types::rule::{FIELDS, HEADERS, KEY, REGIONS};
use fulmar_wire::batch::{BatchBuilder, Compression};
use fulmar_wire::compression::decompress;
use proptest::prelude::*;

const SECRET: RuleSecret = RuleSecret([7; 32]);

fn policy(key: &str, headers: &str, fields: &str) -> Policy {
    let settings = [(REGIONS, "eu"), (KEY, key), (HEADERS, headers), (FIELDS, fields)];
    Policy::new(&RuleDefinition::from_settings(settings).expect("it is a rule"), &SECRET)
}

/// The same without anybody who waits meanwhile.
fn clear(policy: &Policy, batch: &Bytes) -> Cleared {
    block_on(policy.clear(batch, &mut Pace::default()))
}

fn fields(fields: &str) -> Policy {
    policy("pass", "pass", fields)
}

fn value(policy: &Policy, text: &str) -> Option<String> {
    let value = Some(Bytes::copy_from_slice(text.as_bytes()));
    let record = Record { offset: 0, timestamp: 0, key: None, value, headers: Vec::new() };
    let record = block_on(policy.record(record, &mut Pace::default()))?;
    let value = record.value.expect("a value stays one");
    Some(String::from_utf8(value.to_vec()).expect("JSON is text"))
}

#[test]
fn each_action_does_what_it_says_and_the_rest_stays_as_it_is_written() {
    let text = r#"{ "id": 7,  "big": 12345678901234567890.10, "name":"Ada \"L\"","at":{"lat":52.5200,"lon":-0.1267},"tags":["x","yy"], "note":"private text","card":"4111" }"#;
    let all =
        fields("name=mask,at.lat=round:1,at.lon=round:0,tags=truncate:1,note=truncate:7,card=drop");
    let expected = r#"{"id":7,"big":12345678901234567890.10,"name":"***","at":{"lat":52.5,"lon":0},"tags":["x","y"],"note":"private"}"#;
    assert_eq!(value(&all, text).as_deref(), Some(expected));
    let hashed = value(&fields("id=hash,name=hash"), r#"{"id":"a","name":"a"}"#).expect("it goes");
    let parsed: BTreeMap<String, String> = serde_json::from_str(&hashed).expect("it is JSON");
    assert_eq!(parsed["id"], parsed["name"], "equal values stay equal");
    assert_eq!(parsed["id"].len(), 32);
    let other = Policy::new(&all.rule, &RuleSecret([8; 32]));
    assert_ne!(other.pseudonyms.of(b"a"), all.pseudonyms.of(b"a"), "another site, another hash");
}

#[test]
fn a_path_finds_its_field_however_it_is_written() {
    for (path, text, expected) in [
        ("a.b", r#"{"a":[{"b":1,"c":2},[{"b":3}],null]}"#, r#"{"a":[{"c":2},[{}],null]}"#),
        ("a", r#"{"\u0061":1,"b":2}"#, r#"{"b":2}"#),
        ("a", r#"{"a":1,"a":2,"b":3,"a":4}"#, r#"{"b":3}"#),
        ("*.s", r#"{"x":{"s":1,"t":2},"y":{"s":3}}"#, r#"{"x":{"t":2},"y":{}}"#),
        ("a", r#"[{"a":1},{"b":2}]"#, r#"[{},{"b":2}]"#),
        ("a.b", r#"{"a":null,"c":1}"#, r#"{"a":null,"c":1}"#),
        ("a\\.b", r#"{"a.b":1,"a":{"b":2}}"#, r#"{"a":{"b":2}}"#),
        // What stands where the path goes on cannot be judged.
        ("a.b", r#"{"a":"b=1","c":1}"#, r#"{"c":1}"#),
        ("a.b", r#"{"a":[1,{"b":2,"c":3}]}"#, r#"{"a":[null,{"c":3}]}"#),
    ] {
        let policy = fields(&format!("{path}=drop"));
        assert_eq!(value(&policy, text).as_deref(), Some(expected), "{path} of {text}");
    }
    // The stricter of two paths that lead to one field.
    let two = fields("*.b=truncate:1,a.*=hash");
    assert_eq!(value(&two, r#"{"a":{"b":"xyz"}}"#).as_deref(), Some(r#"{"a":{"b":"***"}}"#));
}

#[test]
fn what_an_action_cannot_be_applied_to_does_not_go() {
    let policy = fields("n=round:1,t=truncate:2");
    assert_eq!(value(&policy, r#"{"n":"1.234","t":12345}"#).as_deref(), Some("{}"));
    assert_eq!(value(&policy, r#"{"n":{"deep":1.234},"t":{"x":"secret"}}"#).as_deref(), Some("{}"));
    assert_eq!(value(&policy, r#"{"n":null,"t":null}"#).as_deref(), Some(r#"{"n":null,"t":null}"#));
    assert_eq!(value(&policy, r#"{"n":1e999}"#).as_deref(), Some("{}"));
}

#[test]
fn what_cannot_be_read_is_withheld() {
    let policy = fields("a=drop");
    for text in ["", "secret", "{", r#"{"a":1} secret"#, r#""secret""#, "7", "{\"\\ud800\":1}"] {
        assert_eq!(value(&policy, text), None, "{text}");
    }
    assert_eq!(value(&policy, "null").as_deref(), Some("null"));
}

#[test]
fn what_takes_too_long_or_too_much_is_withheld() {
    let policy = fields("a=truncate:1");
    let arrays =
        |depth: usize, inside: &str| format!("{}{inside}{}", "[".repeat(depth), "]".repeat(depth));
    // A thousand bytes may become eight million in a compressed batch, and be read once for each of the arrays.
    assert!(value(&policy, &arrays(16, "null")).is_some(), "what is short may lie deep");
    assert!(value(&policy, &arrays(7, &format!("{}null", "0,".repeat(5_000)))).is_some());
    assert_eq!(value(&policy, &arrays(9, &format!("{}null", "0,".repeat(5_000)))), None);
    // What no path leads to is read once, whatever is in it.
    let other =
        format!(r#"{{"b":{},"a":"xy"}}"#, arrays(100, "0,".repeat(1 << 18).trim_end_matches(',')));
    assert!(value(&policy, &other).is_some_and(|text| text.ends_with(r#","a":"x"}"#)));
    // Each part takes memory, in an array and in an object.
    for (part, count, goes) in [("0", 1 << 17, false), ("0", 1 << 16, true)] {
        let list = vec![part; count].join(",");
        assert_eq!(value(&policy, &format!(r#"{{"a":[{list}]}}"#)).is_some(), goes);
        let members = vec![r#""":0"#; count].join(",");
        assert_eq!(value(&policy, &format!(r#"{{{members},"a":"x"}}"#)).is_some(), goes);
    }
    // Where there is enough else that it may be read, what lies too deep does not go.
    let deep = format!(r#"{{"b":"{}","a":{}}}"#, "x".repeat(10_000), arrays(100, "\"xy\""));
    let shallow = value(&policy, &deep).expect("it goes");
    assert!(shallow.contains("[null]") && !shallow.contains("\"x\""), "{}", &shallow[10_000..]);
}

/// A batch of records, every second one without JSON.
fn batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new().producer(5, 1, 9).compressed(codec);
    for at in 0..6i64 {
        let value =
            if at % 2 == 0 { format!(r#"{{"at":{at},"name":"n{at}"}}"#) } else { "no".to_owned() };
        let key = format!("key-{at}");
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"trace", Some(b"t")), (b"user", Some(b"u"))];
        builder
            .push(1_000 + at, Some(key.as_bytes()), Some(value.as_bytes()), &headers)
            .expect("it fits");
    }
    builder.build().expect("it has records")
}

#[test]
fn a_batch_keeps_its_offsets_and_its_codec() {
    let policy = policy("hash", "trace=pass,*=drop", "name=drop");
    for codec in Compression::ALL {
        let before = batch(codec);
        let Cleared::Goes(after) = clear(&policy, &before) else { panic!("some of it goes") };
        assert_eq!(clear(&policy, &before), Cleared::Goes(after.clone()), "always the same bytes");
        let after = Batch::from_origin(after, 1 << 20).expect("it is a batch");
        assert_eq!(after.compression(), codec);
        assert_eq!((after.record_count(), after.header().last_offset_delta), (3, 5));
        assert_eq!(after.header().max_timestamp, 1_004);
        let plain = decompress(codec, &after.record_bytes(), 1 << 20).expect("it is ours");
        let records: Vec<Record> =
            RecordIter::over(after.header(), plain).map(|record| record.expect("whole")).collect();
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [0, 2, 4]);
        assert_eq!(records[1].value.as_deref(), Some(&b"{\"at\":2}"[..]));
        assert_eq!(records[1].timestamp, 1_002);
        assert_eq!(records[1].key, Some(policy.pseudonyms.of(b"key-2").into()));
        let headers: Vec<&[u8]> = records[1].headers.iter().map(|header| &*header.key).collect();
        assert_eq!(headers, [b"trace"]);
        assert!(
            Batch::from_producer(after.into_bytes(), 1 << 20).is_err(),
            "no producer sends that"
        );
    }
}

#[test]
fn a_batch_without_anything_that_may_go_is_withheld() {
    let mut builder = BatchBuilder::new();
    builder.push(1, None, Some(b"no JSON"), &[]).expect("it fits");
    let none = builder.build().expect("it has a record");
    assert_eq!(clear(&fields("a=drop"), &none), Cleared::Withheld);
    let mut damaged = batch(Compression::Gzip).to_vec();
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    let crc = crc32c::crc32c(&damaged[21..]);
    damaged[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(clear(&fields("a=drop"), &damaged.into()), Cleared::Withheld);
}

#[test]
fn what_would_become_too_much_is_withheld() {
    let many = format!("{{\"a\":[{}]}}", vec!["1"; 300_000].join(","));
    assert_eq!(value(&fields("a=hash"), &many), None);
    assert!(value(&fields("a=drop"), &many).is_some());
    let mut builder = BatchBuilder::new().compressed(Compression::Zstd);
    for _ in 0..40 {
        let some = format!("{{\"a\":[{}]}}", vec!["1"; 10_000].join(","));
        builder.push(1, None, Some(some.as_bytes()), &[]).expect("it fits");
    }
    let batch = builder.build().expect("it has records");
    assert_eq!(clear(&fields("a=hash"), &batch), Cleared::Withheld);
}

/// JSON with a secret in the fields `s`, wherever they are, and in odd places.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.25".to_owned()),
        Just("\"open\"".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "s", "\\u0073"]);
        let member = (name, inner.clone()).prop_map(|(name, value)| match name {
            "s" | "\\u0073" => format!("\"{name}\":[\"SECRET\",{{\"x\":\"SECRET\"}},{value}]"),
            name => format!("\"{name}\":{value}"),
        });
        prop_oneof![
            prop::collection::vec(member, 0..4)
                .prop_map(|members| format!("{{{}}}", members.join(","))),
            prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_of_a_dropped_field_is_left(
        text in any_json(), action in prop::sample::select(vec!["drop", "mask", "hash", "truncate:0"])
    ) {
        // At every depth that there is.
        let paths: Vec<String> = (0..8).map(|depth| format!("{}s={action}", "*.".repeat(depth))).collect();
        if let Some(after) = value(&fields(&paths.join(",")), &text) {
            prop_assert!(!after.contains("SECRET"), "{text} -> {after}");
            serde_json::from_str::<serde_json::Value>(&after).expect("it is JSON");
        }
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = clear(&fields("a=drop,*.b=hash"), &bytes.into());
    }

    #[test]
    fn any_text_is_judged(text in "[\\[\\]{}\",:a0-9e.\\\\ -]{0,40}") {
        let _ = value(&fields("a=round:1,*.a=hash,a.a.a=truncate:1"), &text);
    }
}

/// A batch of telemetry that becomes so many bytes when it is decompressed.
fn telemetry(codec: Compression, plain_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new().compressed(codec);
    while builder.batch_bytes() < plain_bytes {
        let at = builder.record_count();
        let row = format!(
            r#"{{"name":"n{at}","at":{{"lat":52.{at},"lon":-0.1}},"tags":["a","b"],"note":"private"}}"#
        );
        builder.push(1, Some(b"k"), Some(row.as_bytes()), &[]).expect("it fits");
    }
    builder.build().expect("it has records")
}

/// What becomes of a batch, and how often the thread was given back meanwhile.
fn counted(policy: &Policy, batch: &Bytes, pace: &mut Pace) -> (Cleared, usize) {
    let (mut clearing, mut times) = (Box::pin(policy.clear(batch, pace)), 0);
    let cleared = block_on(std::future::poll_fn(|context| {
        let polled = clearing.as_mut().poll(context);
        times += usize::from(polled.is_pending());
        polled
    }));
    (cleared, times)
}

#[test]
fn what_takes_long_gives_the_thread_back() {
    const PLAIN_BYTES: usize = 2 << 20;
    let policy = fields("name=hash,at.lat=round:1,note=drop");
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let batch = telemetry(codec, PLAIN_BYTES);
        let (cleared, times) = counted(&policy, &batch, &mut Pace::default());
        assert!(matches!(cleared, Cleared::Goes(_)), "{codec:?}");
        assert!(times >= PLAIN_BYTES / (64 << 10), "{codec:?}: {times} times");
    }
    // A single value.
    let deep = format!("{}{}1{}", "[".repeat(60), "1,".repeat(500_000), "]".repeat(60));
    let mut builder = BatchBuilder::new().compressed(Compression::Gzip);
    builder.push(1, None, Some(deep.as_bytes()), &[]).expect("it fits");
    let (_, times) = counted(&policy, &builder.build().expect("a record"), &mut Pace::default());
    assert!(times >= 8, "{times} times");
    // And many that take little each.
    let (batch, pace) = (telemetry(Compression::Lz4, 4 << 10), &mut Pace::default());
    let times: usize = (0..200).map(|_| counted(&policy, &batch, pace).1).sum();
    assert!((10..200).contains(&times), "{times} times");
}

//! A rule that withholds, in a shape that the seed draws, the records that it is about, and what it makes of them.
//!
//! ```text
//! key          hash | drop
//! headers      trace goes; user: hash | drop
//! secret       drop
//! person.name  drop | mask | hash
//! ids          hash, each of them
//! detail       by its name, as detail.* or as detail.*.code: drop | mask | hash
//! note         truncate: what is left is written in one byte or several, the rest is a canary
//! lat          round: what is left is ones, or a two at the end; the rest is a canary in digits
//! late         drop, once the rule is stricter
//! ```
//!
//! Some of what is hashed comes again and again, in all of these places.
//!
//! Invariant: what a rule makes of a record is said here without the code that applies rules.

use super::eavesdrop::{CANARY, DIGITS, LAPSING, MARKER, TOKEN_DIGITS};
use crate::prng::Prng;
use fulmar_client::ReadRecord;
use fulmar_types::rule::RuleDefinition;
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::Arc;

/// How many values there are that come again.
const KNOWN: u64 = 16;

/// In an expected value: what stands there is to be the hash of this text.
const HASH_OF: &str = "hash of";

/// Digits of a hash.
const HASH_DIGITS: usize = 32;

/// What a truncation may leave, and how that may be written.
const LEFT: [(&str, &str); 5] = [
    ("o", "o"),
    ("\u{e4}", "\\u00e4"),
    ("\u{20ac}", "\u{20ac}"),
    ("\"", "\\\""),
    ("\u{1f300}", "\\ud83c\\udf00"),
];

/// What becomes of a field.
#[derive(Clone, Copy, Debug)]
enum Hides {
    Drop,
    Mask,
    Hash,
}

impl Hides {
    const ALL: [Self; 3] = [Self::Drop, Self::Mask, Self::Hash];

    const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Mask => "mask",
            Self::Hash => "hash",
        }
    }

    /// What is to be in place of a value, of which this is hashed.
    fn of(self, hashed: &str) -> Option<Value> {
        match self {
            Self::Drop => None,
            Self::Mask => Some(Value::from("***")),
            Self::Hash => Some(json!({ HASH_OF: hashed })),
        }
    }
}

/// How a path leads to what `detail` hides.
#[derive(Clone, Copy, Debug)]
enum Path {
    Named,
    Any,
    Below,
}

impl Path {
    const ALL: [Self; 3] = [Self::Named, Self::Any, Self::Below];

    const fn text(self) -> &'static str {
        match self {
            Self::Named => "detail",
            Self::Any => "detail.*",
            Self::Below => "detail.*.code",
        }
    }
}

/// The shape of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    hashes_key: bool,
    hashes_user: bool,
    name: Hides,
    detail: (Path, Hides),
    characters: usize,
    digits: usize,
}

/// What is to become of a record.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// This is to be at the other site.
    Goes(Arc<Copied>),
    /// It stays, with so many canaries.
    Withheld(u64),
}

impl Fate {
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Goes(copied) => Some(copied.n),
            Self::Withheld(_) => None,
        }
    }
}

/// What is to be at the other site of a record. Of hashes only what they are of is known.
#[derive(Debug)]
pub(super) struct Copied {
    n: u64,
    key: Option<Value>,
    headers: Vec<(&'static str, Value)>,
    /// The value without `late`.
    value: Value,
    /// What may be there of `late`, if anything.
    late: Option<Value>,
    at_ms: i64,
    /// Canaries in the record, of which none is to be there.
    pub(super) canaries: u64,
}

/// A hash at the other site, and what it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) of: String,
    pub(super) hash: String,
}

/// A record as it is produced.
pub(super) struct Made {
    pub(super) key: String,
    pub(super) trace: String,
    pub(super) user: String,
    pub(super) value: String,
    pub(super) late: String,
    pub(super) fate: Fate,
}

/// What is written in the field that a rule rounds or truncates, and what is left of it.
struct Shortened {
    written: String,
    left: Value,
}

fn token(prng: &mut Prng, kind: &str) -> String {
    let digits = format!("{:016x}", prng.below(u64::MAX));
    format!("{kind}{}", &digits[16 - TOKEN_DIGITS..])
}

/// A canary that others are equal to, or not.
fn identity(prng: &mut Prng) -> String {
    match prng.below(2) {
        0 => token(prng, CANARY),
        _ => format!("{CANARY}{:0TOKEN_DIGITS$x}", prng.below(KNOWN)),
    }
}

fn pick<T: Copy>(prng: &mut Prng, all: &[T]) -> T {
    *prng.pick(all).expect("there are some")
}

impl Shape {
    pub(super) fn drawn(mut prng: Prng) -> Self {
        let prng = &mut prng;
        Self {
            hashes_key: prng.below(2) == 0,
            hashes_user: prng.below(2) == 0,
            name: pick(prng, &Hides::ALL),
            detail: (pick(prng, &Path::ALL), pick(prng, &Hides::ALL)),
            characters: prng.below(4) as usize,
            digits: prng.below(4) as usize,
        }
    }

    /// The rule of this shape for one region.
    pub(super) fn rule(&self, region: &str, is_stricter: bool) -> RuleDefinition {
        let key = if self.hashes_key { "hash" } else { "drop" };
        let user = if self.hashes_user { "user=hash," } else { "" };
        let headers = format!("trace=pass,{user}*=drop");
        let (path, detail) = self.detail;
        let late = if is_stricter { ",late=drop" } else { "" };
        let fields = format!(
            "secret=drop,person.name={},ids=hash,{}={},note=truncate:{},lat=round:{}{late}",
            self.name.name(),
            path.text(),
            detail.name(),
            self.characters,
            self.digits
        );
        let rule = RuleDefinition::from_settings([
            ("regions", region),
            ("key", key),
            ("headers", &headers),
            ("fields", &fields),
        ]);
        rule.expect("a rule that can be read")
    }

    /// A text of which a few characters are left.
    fn note(&self, prng: &mut Prng) -> Shortened {
        let (mut left, mut written) = (String::new(), String::from("\""));
        for _ in 0..self.characters {
            let (character, escaped) = pick(prng, &LEFT);
            left.push_str(character);
            written.push_str(escaped);
        }
        written.extend([&token(prng, CANARY), "\""]);
        Shortened { written, left: left.into() }
    }

    /// A number of which a few digits are left, with or without an exponent.
    fn lat(&self, prng: &mut Prng, n: u64) -> Shortened {
        let (ones, goes_up) = ("1".repeat(self.digits), prng.below(2));
        let sign = pick(prng, &["", "-"]);
        // What is behind them is less than a half, or nearly one.
        let nine = if goes_up == 1 { "9" } else { "" };
        let hidden = prng.below(10_u64.pow(TOKEN_DIGITS as u32));
        let behind = format!("{ones}{nine}{DIGITS}{hidden:0TOKEN_DIGITS$}");
        let written = match prng.below(2) {
            0 => format!("{sign}{n}.{behind}"),
            _ => format!("{sign}{n}{behind}e-{}", behind.len()),
        };
        let whole: u64 = format!("{n}{ones}").parse().expect("a small number");
        let mut left = format!("{sign}{}", whole + goes_up);
        if self.digits > 0 {
            left.insert(left.len() - self.digits, '.');
        }
        Shortened { written, left: serde_json::from_str(&left).expect("a number") }
    }

    /// An object in which something is hidden, and what is to be left of it.
    fn detail(&self, prng: &mut Prng) -> (String, Option<Value>) {
        let (path, hides) = self.detail;
        let (mut members, mut left) = (Vec::new(), Map::new());
        for name in ["home", "work"] {
            let code = identity(prng);
            let open = matches!(path, Path::Below).then(|| token(prng, MARKER));
            let more = open.as_ref().map(|open| format!(", \"open\":\"{open}\""));
            let member = format!("{{\"code\": \"{code}\"{}}}", more.unwrap_or_default());
            let stays = match path {
                Path::Named => None,
                Path::Any => hides.of(&member),
                Path::Below => {
                    let code = hides.of(&code).map(|code| ("code".to_owned(), code));
                    let open = open.map(|open| ("open".to_owned(), open.into()));
                    Some(Value::Object(code.into_iter().chain(open).collect()))
                }
            };
            left.extend(stays.map(|stays| (name.to_owned(), stays)));
            members.push(format!("\"{name}\":{member}"));
        }
        let written = format!("{{{}}}", members.join(" ,"));
        let left = match path {
            Path::Named => hides.of(&written),
            Path::Any | Path::Below => Some(left.into()),
        };
        (written, left)
    }

    /// A record with this number and time.
    pub(super) fn record(
        &self,
        prng: &mut Prng,
        (n, at_ms): (u64, i64),
        is_stricter: bool,
    ) -> Made {
        let (key, trace, user) = (identity(prng), token(prng, MARKER), identity(prng));
        let (secret, name) = (token(prng, CANARY), identity(prng));
        let (open, town) = (token(prng, MARKER), token(prng, MARKER));
        let late = token(prng, if is_stricter { CANARY } else { LAPSING });
        let ids: Vec<String> = (0..prng.below(4)).map(|_| identity(prng)).collect();
        let listed: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
        let (note, lat) = (self.note(prng), self.lat(prng, n));
        let (detail, detail_left) = self.detail(prng);
        // A name may be written in other ways, or come twice.
        let named = pick(prng, &["\"secret\"", "\"s\\u0065cret\"", "\"secret\":1,\"secret\""]);
        let json = format!(
            "{{\"n\":{n}, \"open\":\"{open}\",{named}:[{{\"x\":\"{secret}\"}}],\"person\":{{\"name\":\
             \"{name}\",\"town\":\"{town}\"}},\"ids\":[{}],\"detail\":{detail},\"note\":{},\"lat\":{},\
             \"late\":\"{late}\"}}",
            listed.join(","),
            note.written,
            lat.written
        );
        let value = match prng.below(10) {
            0 => Err(format!("{secret} is no JSON")),
            1 => Err(json[..json.len() - 1].to_owned()),
            2 => Err(format!("\"{secret}\"")),
            _ => Ok(json),
        };
        let (Ok(text) | Err(text)) = &value;
        let canaries = [&key, text, &user].map(|text| canaries_in(text)).iter().sum();
        let (value, fate) = match value {
            Err(value) => (value, Fate::Withheld(canaries)),
            Ok(value) => {
                let hashes: Vec<Value> = ids.iter().filter_map(|id| Hides::Hash.of(id)).collect();
                let mut person = json!({ "town": town });
                put(&mut person, "name", self.name.of(&name));
                let mut left = json!({
                    "n": n, "open": open, "person": person, "ids": hashes, "note": note.left,
                    "lat": lat.left
                });
                put(&mut left, "detail", detail_left);
                let traced = ("trace", Value::from(trace.clone()));
                let told = self.hashes_user.then(|| Hides::Hash.of(&user)).flatten();
                let copied = Copied {
                    n,
                    key: self.hashes_key.then(|| Hides::Hash.of(&key)).flatten(),
                    headers: [traced].into_iter().chain(told.map(|user| ("user", user))).collect(),
                    value: left,
                    late: (!is_stricter).then(|| late.clone().into()),
                    at_ms,
                    canaries,
                };
                (value, Fate::Goes(Arc::new(copied)))
            }
        };
        Made { key, trace, user, value, late, fate }
    }
}

fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(members), Some(value)) = (object.as_object_mut(), value) {
        members.insert(name.to_owned(), value);
    }
}

fn canaries_in(text: &str) -> u64 {
    (text.matches(CANARY).count() + text.matches(DIGITS).count()) as u64
}

impl Copied {
    /// The hashes in a record at the other site, if the record is as it is to be.
    pub(super) fn found(&self, record: &ReadRecord) -> Option<Vec<Hashed>> {
        let mut found: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        // Before it is withheld it may be there.
        let late = found.as_object_mut()?.remove("late");
        if late.is_some() && late != self.late {
            return None;
        }
        let mut hashes = Vec::new();
        let is_value = is_as(&self.value, &found, &mut hashes);
        let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
        let is_key = match (&self.key, record.key.as_deref()) {
            (Some(key), Some(found)) => is_as(key, &text(found), &mut hashes),
            (None, None) => true,
            (_, _) => false,
        };
        let mut pairs = self.headers.iter().zip(&record.headers);
        let are_headers = self.headers.len() == record.headers.len()
            && pairs.all(|((name, value), header)| {
                let found = text(header.value.as_deref().unwrap_or_default());
                name.as_bytes() == &*header.key && is_as(value, &found, &mut hashes)
            });
        let is_its_time = record.timestamp_ms == self.at_ms;
        (is_value && is_key && are_headers && is_its_time).then_some(hashes)
    }
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, headers, value, late, at_ms, .. } = self;
        write!(f, "{value} of {at_ms} ms, late {late:?}, key {key:?}, headers {headers:?}")
    }
}

/// Whether a value is what is expected; the hashes in it, and what they are of.
fn is_as(expected: &Value, found: &Value, hashes: &mut Vec<Hashed>) -> bool {
    let of = expected.as_object().filter(|members| members.len() == 1);
    if let Some(of) = of.and_then(|members| members.get(HASH_OF)?.as_str()) {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_hash = |text: &&str| text.len() == HASH_DIGITS && text.bytes().all(is_digit);
        let hash = found.as_str().filter(is_hash);
        hashes.extend(hash.map(|hash| Hashed { of: of.to_owned(), hash: hash.to_owned() }));
        return hash.is_some();
    }
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let mut members = one.iter();
            one.len() == other.len()
                && members.all(|(name, of)| other.get(name).is_some_and(|at| is_as(of, at, hashes)))
        }
        (Value::Array(one), Value::Array(other)) => {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.all(|(of, at)| is_as(of, at, hashes))
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_shape_have_canaries_in_all_that_is_hidden() {
        for seed in 0..200 {
            let shape = Shape::drawn(Prng::new(seed, "shape"));
            shape.rule("eu", true);
            let mut prng = Prng::new(seed, "records");
            for n in 1..50 {
                let made = shape.record(&mut prng, (n, 7), false);
                let Fate::Goes(copied) = &made.fate else { continue };
                let value: Value = serde_json::from_str(&made.value).expect("JSON");
                assert!(made.value.contains(DIGITS), "{shape:?}: {}", made.value);
                let shown = copied.value.to_string();
                let hidden = shown.replace("{\"hash of\":\"", "");
                assert!(!hidden.contains(DIGITS), "{shape:?}: {shown}");
                // Two others, a name, two codes, and what is rounded and truncated.
                assert!(copied.canaries >= 8, "{shape:?}: {}", made.value);
                let (lat, left) = (value["lat"].as_f64(), copied.value["lat"].as_f64());
                let step = 10_f64.powi(-i32::try_from(shape.digits).expect("few"));
                let off = (lat.expect("a number") - left.expect("a number")).abs();
                assert!(off <= step / 2.0 + 1e-9, "{shape:?}: {} {shown}", made.value);
                let note = value["note"].as_str().expect("a text").to_owned();
                let start: String = note.chars().take(shape.characters).collect();
                assert_eq!(copied.value["note"], start);
                assert!(note[start.len()..].starts_with(CANARY), "{note}");
            }
        }
    }

    #[test]
    fn a_value_is_as_expected_or_not() {
        let expected = json!({ "a": { HASH_OF: "x" }, "b": [1, { HASH_OF: "y" }] });
        let (one, other) = ("0".repeat(32), "f".repeat(32));
        let mut hashes = Vec::new();
        assert!(is_as(&expected, &json!({ "a": one, "b": [1, other] }), &mut hashes));
        let hashed = |of: &str, hash: &String| Hashed { of: of.to_owned(), hash: hash.clone() };
        assert_eq!(hashes, [hashed("x", &one), hashed("y", &other)]);
        for wrong in [
            json!({ "a": one, "b": [1] }),
            json!({ "a": one, "b": [2, other] }),
            json!({ "a": one, "b": [1, "y"] }),
            json!({ "a": one, "b": [1, other], "c": 1 }),
            json!({ "a": one.to_uppercase().replace('0', "G"), "b": [1, other] }),
        ] {
            assert!(!is_as(&expected, &wrong, &mut Vec::new()), "{wrong}");
        }
    }
}

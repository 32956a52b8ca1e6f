//! JSON as it comes in payloads: read with limits, and written in one form.
//!
//! Numbers stay the text that they were, so that no digit is lost. Members keep their order; of two with
//! one name the last counts.
//!
//! Invariant: reading is bounded by the length of the text and by how deep a value may lie, whatever it holds.

mod path;
mod reader;

pub use path::{Path, Wanted};

use reader::Reader;
use std::fmt::Write;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(Box<str>),
    /// A text.
    String(Box<str>),
    /// A list.
    Array(Vec<Json>),
    /// Members, in their order.
    Object(Vec<(Box<str>, Json)>),
}

/// Why a text is no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The byte where it stops to be.
    pub at: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl Json {
    /// About how many bytes it takes in memory.
    pub fn weight(&self) -> usize {
        32 + match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Number(text) | Self::String(text) => text.len(),
            Self::Array(elements) => elements.iter().map(Self::weight).sum(),
            Self::Object(members) => {
                members.iter().map(|(name, value)| 16 + name.len() + value.weight()).sum()
            }
        }
    }

    /// Reads a text that is one value and nothing else.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Self::parse_wanted(text, &Wanted::everything())
    }

    /// The same, but of objects only the members that are wanted, and of lists that are not wanted as a
    /// whole, nothing. The text has to be JSON all the same.
    pub fn parse_wanted(text: &str, wanted: &Wanted) -> Result<Self, Malformed> {
        Reader::of(text).whole(wanted)
    }

    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(member, _)| &**member == name).map(|(_, value)| value)
    }

    /// Writes it without any space.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(digits) => out.push_str(digits),
            Self::String(text) => write_text(text, out),
            Self::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    write_text(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// As a text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// Whether they mean the same: the order of members, and how a number is written, say nothing. Members with
    /// one name have to be there as often, and in the same order.
    pub fn means(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => {
                // With an exponent that is beyond all numbers, only the same text is the same.
                left == right || Digits::of(left).is_some_and(|l| Digits::of(right) == Some(l))
            }
            (Self::Array(left), Self::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.means(r))
            }
            (Self::Object(left), Self::Object(right)) => {
                let sorted = |members: &[(Box<str>, Self)]| {
                    let mut at: Vec<usize> = (0..members.len()).collect();
                    at.sort_by_key(|at| &members[*at].0);
                    at
                };
                let pairs = sorted(left).into_iter().zip(sorted(right));
                left.len() == right.len()
                    && pairs
                        .map(|(l, r)| (&left[l], &right[r]))
                        .all(|((name, l), (other, r))| name == other && l.means(r))
            }
            _ => self == other,
        }
    }
}

/// A number, however it was written: its digits without zeros on either side, as a whole number, and how many
/// places that is moved to the left.
#[derive(PartialEq, Eq)]
struct Digits {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Digits {
    /// `None` if the exponent is no number of 64 bits.
    fn of(number: &str) -> Option<Self> {
        let (number, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let unsigned = number.trim_start_matches('-');
        let (whole, behind) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all = [whole, behind].concat();
        let digits = all.trim_start_matches('0');
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits: String::new(), exponent: 0 });
        }
        let short = digits.trim_end_matches('0');
        let moved = i64::try_from(digits.len() - short.len()).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_add(moved)?;
        Some(Self {
            is_negative: number.starts_with('-'),
            digits: short.to_owned(),
            exponent: exponent.checked_sub(i64::try_from(behind.len()).ok()?)?,
        })
    }
}

/// A text in quotes.
pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    // What has to be escaped is ASCII, so a byte of it is no part of another character.
    while let Some(at) = rest.bytes().position(is_special) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Whether a byte cannot stand in a text as it is.
fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[test]
    fn only_what_is_wanted_is_kept_and_all_of_it_has_to_be_json() {
        let paths = ["$.a", "$.b.c", "$.d[1].e"].map(|path| Path::parse(path).expect("a path"));
        let wanted = Wanted::of(&paths);
        let text = r#"{"x":[1,{"y":2}],"a":{"z":null},"b":{"c":"\u0041","f":7},"d":[0,{"e":1}],"b":{"c":"\""}}"#;
        let kept = Json::parse_wanted(text, &wanted).expect("JSON");
        assert_eq!(kept.text(), r#"{"a":{"z":null},"b":{"c":"A"},"d":[0,{"e":1}],"b":{"c":"\""}}"#);
        for path in &paths {
            assert_eq!(kept.at(path), json(text).at(path));
        }
        for broken in [r#"{"x":[1,],"a":1}"#, r#"{"x":"\q"}"#, r#"{"x":01}"#] {
            assert_eq!(Json::parse_wanted(broken, &wanted), Json::parse(broken));
        }
    }

    #[test]
    fn values_are_read_and_written() {
        for text in [
            "null",
            "true",
            "-0.5e+10",
            "\"a\\\"b\\\\c\\n\"",
            "[]",
            "{}",
            "[1,[2,{\"a\":null}]]",
            "{\"a\":1,\"b\":\"ü\"}",
            "123456789012345678901234567890.000",
        ] {
            assert_eq!(json(text).text(), text);
        }
        assert_eq!(json(" { \"a\" : [ 1 , 2 ] } ").text(), "{\"a\":[1,2]}");
        assert_eq!(json("\"\\ud83d\\ude00\\u0041\\/\"").text(), "\"😀A/\"");
        for text in [
            "",
            "nul",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "\"",
            "\"\\x\"",
            "\"\\ud83d\"",
            "\"\\u+123\"",
            "1 2",
            "\"\u{1}\"",
            "[",
            "{\"a\":1",
            "\"\\u00e",
            "\"\\ud800\\u0041\"",
        ] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        assert!(Json::parse(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn paths_lead_somewhere() {
        let value = json("{\"a\":{\"b c\":[10,20]},\"a\":{\"b c\":[30]}}");
        let at = |path: &str| Path::parse(path).and_then(|path| value.at(&path).map(Json::text));
        assert_eq!(at("$.a['b c'][0]").as_deref(), Some("30"));
        assert_eq!(at("$.a.x"), None);
        for path in ["", "a", "$a", "$.", "$[x]", "$.a[", "$['a"] {
            assert_eq!(Path::parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_same_may_be_written_differently() {
        assert!(json("{\"a\":1.50,\"b\":[2]}").means(&json("{\"b\":[2.0],\"a\":15e-1}")));
        assert!(!json("{\"a\":1}").means(&json("{\"a\":1,\"b\":2}")));
        assert!(!json("1").means(&json("\"1\"")));
        for (left, right) in [
            ("1", "2"),
            ("1", "-1"),
            ("1e400", "2e999"),
            ("1e400", "1e401"),
            ("1e-400", "0"),
            (
                "123456789012345678901234567890123456789012",
                "123456789012345678901234567890123456789999",
            ),
            ("1e99999999999999999999", "2e99999999999999999999"),
            (r#"{"k":1,"k":1}"#, r#"{"k":1,"j":2}"#),
            (r#"{"k":1,"j":2}"#, r#"{"k":1,"k":1}"#),
            (r#"{"k":1,"k":2}"#, r#"{"k":2,"k":1}"#),
            (r#"{"k":1,"k":2}"#, r#"{"k":2}"#),
        ] {
            assert!(!json(left).means(&json(right)), "{left} {right}");
            assert!(!json(right).means(&json(left)), "{right} {left}");
        }
        for (left, right) in [
            ("100", "1E+2"),
            ("-0.0", "0e7"),
            ("0e99999999999999999999", "0"),
            ("1e400", "10.0e399"),
            ("0.00120", "12e-4"),
            (r#"{"k":1,"j":0,"k":2}"#, r#"{"j":0,"k":1,"k":2.0}"#),
        ] {
            assert!(json(left).means(&json(right)), "{left} {right}");
            assert!(json(right).means(&json(left)), "{right} {left}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "[\\[\\]{}\",:\\\\a1e.\\- u0-9dD]{0,40}") {
            if let Ok(value) = Json::parse(&text) {
                prop_assert_eq!(json(&value.text()), value);
            }
        }

        #[test]
        fn any_text_survives(text in any::<String>()) {
            let value = Json::String(text.into());
            prop_assert_eq!(json(&value.text()), value);
        }
    }
}

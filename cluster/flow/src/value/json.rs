//! JSON as it comes in payloads: read with limits, and written in one form.
//!
//! Numbers stay the text that they were, so that no digit is lost. Members keep their order; of two with
//! one name the last counts.
//!
//! Invariant: reading is bounded by the length of the text and by [`DEPTH_MAX`], whatever it holds.

use std::borrow::Cow;
use std::fmt::Write;

/// How deep arrays and objects may lie in each other.
const DEPTH_MAX: usize = 64;

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
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0, Some(wanted))?;
        reader.space();
        match reader.peek() {
            None => Ok(value),
            Some(_) => Err(reader.expected("nothing after the value")),
        }
    }

    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(member, _)| &**member == name).map(|(_, value)| value)
    }

    /// What a path leads to.
    pub fn at(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |value, step| match (step, value) {
            (Step::Member(name), _) => value.member(name),
            (Step::Element(at), Self::Array(elements)) => elements.get(*at),
            _ => None,
        })
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

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Element(usize),
}

/// A path like `$.motor.bearings[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// A path to a member of the outermost object.
    pub fn member(name: &str) -> Self {
        Self(vec![Step::Member(name.into())])
    }

    /// Reads a path. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let quoted = [("['", "']"), ("[\"", "\"]"), (".\"", "\"")];
            let quoted =
                quoted.iter().find_map(|(open, close)| rest.strip_prefix(open)?.split_once(close));
            if let Some((name, after)) = quoted {
                steps.push(Step::Member(name.into()));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (at, after) = after.split_once(']')?;
                let is_number = at.bytes().all(|digit| digit.is_ascii_digit());
                steps.push(Step::Element(at.parse().ok().filter(|_| is_number)?));
                rest = after;
            } else {
                let after = rest.strip_prefix('.')?;
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let name = &after[..end];
                // What other dialects give a meaning is no name, unless it is quoted.
                let is_other = |c: char| c.is_whitespace() || "*?@()\"'],:".contains(c);
                if name.is_empty() || name.contains(is_other) {
                    return None;
                }
                steps.push(Step::Member(name.into()));
                rest = &after[end..];
            }
        }
        Some(Self(steps))
    }
}

/// What of a value somebody will look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    everything: bool,
    members: Vec<(Box<str>, Wanted)>,
}

impl Wanted {
    fn everything() -> Self {
        Self { everything: true, members: Vec::new() }
    }

    /// What some paths lead to.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut wanted = Self::default();
        paths.into_iter().for_each(|path| wanted.add(&path.0));
        wanted
    }

    fn add(&mut self, steps: &[Step]) {
        let Some((Step::Member(name), rest)) = steps.split_first() else {
            self.everything = true;
            return;
        };
        let known = self.members.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or(self.members.len());
        if known.is_none() {
            self.members.push((name.clone(), Self::default()));
        }
        self.members[at].1.add(rest);
    }

    fn member(&self, name: &str) -> Option<&Self> {
        if self.everything {
            return Some(self);
        }
        self.members.iter().find(|(known, _)| **known == *name).map(|(_, wanted)| wanted)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> Malformed {
        Malformed { at: self.at, expected }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// The next value; NULL if nobody wants it.
    fn value(&mut self, depth: usize, wanted: Option<&Wanted>) -> Result<Json, Malformed> {
        self.space();
        if depth > DEPTH_MAX {
            return Err(self.expected("at most 64 levels"));
        }
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                Ok(wanted.map_or(Json::Null, |_| Json::String(text.into())))
            }
            Some(b'{') => self.object(depth, wanted),
            Some(b'[') => self.array(depth, wanted),
            Some(b'-' | b'0'..=b'9') => {
                let digits = self.number()?;
                Ok(wanted.map_or(Json::Null, |_| Json::Number(digits.into())))
            }
            _ => {
                for (word, value) in
                    [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
                {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.expected("a JSON value"))
            }
        }
    }

    fn object(&mut self, depth: usize, wanted: Option<&Wanted>) -> Result<Json, Malformed> {
        self.at += 1;
        let mut members = Vec::new();
        self.space();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("the name of a member, in quotes"));
            }
            let name = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(self.expected("a colon"));
            }
            let inner = wanted.and_then(|wanted| wanted.member(&name));
            let value = self.value(depth + 1, inner)?;
            if inner.is_some() {
                members.push((name.into(), value));
            }
            self.space();
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or a closing brace"));
            }
        }
    }

    fn array(&mut self, depth: usize, wanted: Option<&Wanted>) -> Result<Json, Malformed> {
        self.at += 1;
        let mut elements = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Json::Array(elements));
        }
        let inner = wanted.filter(|wanted| wanted.everything);
        loop {
            let element = self.value(depth + 1, inner)?;
            if inner.is_some() {
                elements.push(element);
            }
            self.space();
            if self.take(b']') {
                return Ok(Json::Array(elements));
            }
            if !self.take(b',') {
                return Err(self.expected("a comma or a closing bracket"));
            }
        }
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let begun = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if begun == self.at { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<&'a str, Malformed> {
        let begun = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.text[begun..self.at])
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let rest = &self.text[self.at..];
            let Some(plain) = rest.bytes().position(is_special) else {
                self.at = self.text.len();
                return Err(self.expected("a closing quote"));
            };
            // Nothing is copied unless something is escaped.
            text += &rest[..plain];
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.to_mut().push(self.escape()?),
                _ => return Err(self.expected("no bare control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        self.at += 1;
        let escaped = self.peek().ok_or_else(|| self.expected("an escaped character"))?;
        let c = match escaped {
            b'"' | b'\\' | b'/' => escaped as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(self.expected("an escaped character")),
        };
        self.at += 1;
        Ok(c)
    }

    /// The four digits after `\u`, twice for a character beyond 16 bits.
    fn unicode(&mut self) -> Result<char, Malformed> {
        let first = self.hex()?;
        let code = match first {
            0xd800..0xdc00 => {
                if !(self.take(b'\\') && self.peek() == Some(b'u')) {
                    return Err(self.expected("the other half of a surrogate pair"));
                }
                let second = self.hex()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(self.expected("the other half of a surrogate pair"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.expected("a character"))
    }

    /// From the `u` on.
    fn hex(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.get(self.at + 1..self.at + 5);
        let digits = digits.filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 5;
        Ok(code)
    }
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

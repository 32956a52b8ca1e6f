//! The reader: one pass over a text, which keeps what is wanted and checks all of it.
//!
//! Invariant: it never looks behind the text, and goes no deeper than [`DEPTH_MAX`].

use super::path::Wanted;
use super::{Json, Malformed, is_special};
use std::borrow::Cow;

/// How deep arrays and objects may lie in each other.
const DEPTH_MAX: usize = 64;

/// Where it is in a text.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the begin of a text.
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The value that the whole text is.
    pub(super) fn whole(mut self, wanted: &Wanted) -> Result<Json, Malformed> {
        let value = self.value(0, Some(wanted))?;
        self.space();
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.expected("nothing after the value")),
        }
    }

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

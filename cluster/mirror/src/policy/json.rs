//! Fields of a JSON value, dropped, masked, hashed, truncated or rounded.
//!
//! What no path leads to is copied as it is written: numbers keep their digits, members their order.
//! Names are compared without their escapes, and a name that is there twice is treated twice.
//!
//! Invariants: what stands where a path goes on, and is neither object nor array nor null, does not go;
//! nor does what an action cannot be applied to.
//!
//! Never: keep what was not understood.

use super::number::rounded;
use super::{Node, Pseudonyms};
use fulmar_types::rule::FieldAction;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Arrays and objects inside one another that are entered, at most.
const DEPTH_MAX: usize = 64;

/// Bytes that a value may become: hashes are longer than what they stand for.
const OUT_BYTES_MAX: usize = 4 << 20;

/// What goes in place of a masked value.
const MASK: &str = "\"***\"";

/// The members of an object, all of them, in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'a> Visitor<'a> for Visit {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The value without what the paths do not let go. `None` if it cannot be judged.
pub(super) fn rewrite(value: &[u8], root: &Node, pseudonyms: &Pseudonyms) -> Option<String> {
    let value: &RawValue = serde_json::from_slice(value).ok()?;
    let mut out = String::with_capacity(value.get().len());
    let goes = Rewriting { pseudonyms, out: &mut out }.value(value, &[root], 0)?;
    goes.then_some(out)
}

struct Rewriting<'a> {
    pseudonyms: &'a Pseudonyms,
    out: &'a mut String,
}

impl Rewriting<'_> {
    /// Writes a value that some paths lead to. `false` if it does not go, and then nothing is written;
    /// `None` if it cannot be read.
    fn value(&mut self, value: &RawValue, at: &[&Node], depth: usize) -> Option<bool> {
        self.fits()?;
        let actions = at.iter().filter_map(|node| node.action);
        if let Some(action) = actions.reduce(FieldAction::join) {
            return self.act(value, action, depth);
        }
        let text = value.get();
        match text.as_bytes().first()? {
            b'{' | b'[' if depth >= DEPTH_MAX => return Some(false),
            b'{' => self.object(value, at, depth)?,
            b'[' => self.array(value, depth, |this, element| this.value(element, at, depth + 1))?,
            b'n' => self.out.push_str(text),
            _ => return Some(false),
        }
        Some(true)
    }

    /// `None` if there is too much already.
    fn fits(&self) -> Option<()> {
        (self.out.len() <= OUT_BYTES_MAX).then_some(())
    }

    fn object(&mut self, value: &RawValue, at: &[&Node], depth: usize) -> Option<()> {
        let Members(members) = serde_json::from_str(value.get()).ok()?;
        self.out.push('{');
        let begun = self.out.len();
        for (name, member) in members {
            let below: Vec<&Node> = at
                .iter()
                .flat_map(|node| node.named.get(&name).into_iter().chain(node.any.as_deref()))
                .collect();
            let before = self.out.len();
            if before > begun {
                self.out.push(',');
            }
            self.out.push_str(&serde_json::to_string(&name).ok()?);
            self.out.push(':');
            let goes = match below.as_slice() {
                [] => {
                    self.out.push_str(member.get());
                    true
                }
                below => self.value(member, below, depth + 1)?,
            };
            if !goes {
                self.out.truncate(before);
            }
        }
        self.out.push('}');
        Some(())
    }

    /// Writes an array, with null in place of what does not go, so that the others keep their places.
    fn array(
        &mut self,
        value: &RawValue,
        depth: usize,
        mut write: impl FnMut(&mut Self, &RawValue) -> Option<bool>,
    ) -> Option<()> {
        debug_assert!(depth < DEPTH_MAX, "its caller has looked");
        let elements: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        self.out.push('[');
        for (at, element) in elements.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            if !write(self, element)? {
                self.out.push_str("null");
            }
        }
        self.out.push(']');
        Some(())
    }

    /// Writes what an action makes of a value; as `value`.
    fn act(&mut self, value: &RawValue, action: FieldAction, depth: usize) -> Option<bool> {
        self.fits()?;
        let text = value.get();
        match (action, *text.as_bytes().first()?) {
            (FieldAction::Drop, _) => return Some(false),
            (FieldAction::Mask, _) => self.out.push_str(MASK),
            (_, b'n') => self.out.push_str(text),
            (_, b'[') if depth >= DEPTH_MAX => return Some(false),
            (_, b'[') => {
                self.array(value, depth, |this, element| this.act(element, action, depth + 1))?
            }
            (FieldAction::Hash, first) => {
                let hash = match first {
                    b'"' => {
                        self.pseudonyms.of(serde_json::from_str::<String>(text).ok()?.as_bytes())
                    }
                    _ => self.pseudonyms.of(text.as_bytes()),
                };
                self.out.extend(["\"", &hash, "\""]);
            }
            (FieldAction::Truncate(characters), b'"') => {
                let whole: String = serde_json::from_str(text).ok()?;
                let short: String = whole.chars().take(characters as usize).collect();
                self.out.push_str(&serde_json::to_string(&short).ok()?);
            }
            (FieldAction::Round(digits), b'-' | b'0'..=b'9') => match rounded(text, digits) {
                Some(number) => self.out.push_str(&number),
                None => return Some(false),
            },
            (FieldAction::Truncate(_) | FieldAction::Round(_), _) => return Some(false),
        }
        Some(true)
    }
}

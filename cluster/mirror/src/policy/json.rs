//! Fields of a JSON value, dropped, masked, hashed, truncated or rounded.
//!
//! What no path leads to is copied as it is written: numbers keep their digits, members their order.
//! Names are compared without their escapes, and a name that is there twice is treated twice.
//!
//! Invariants: what stands where a path goes on, and is neither object nor array nor null, does not go;
//! nor does what an action cannot be applied to. What a value takes is bounded by its length in time, and in memory by
//! a number of parts, whatever is in it: an object or array that a path leads into is read as a whole, and then again
//! for each of those inside it that are entered.
//!
//! Never: keep what was not understood.

use super::number::rounded;
use super::{Node, Pace, Pseudonyms};
use fulmar_types::rule::FieldAction;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::pin::Pin;

/// Arrays and objects inside one another that are entered, at most.
const DEPTH_MAX: usize = 64;

/// How often a value may be read in all: each byte of it, for each array and object around it that is entered.
const READINGS_MAX: usize = 8;

/// Bytes that may be read beyond that, so that what is short may lie deep.
const READ_BYTES_FREE: usize = 256;

/// Members and elements of a value that are looked at, at most.
const PARTS_MAX: usize = 1 << 17;

/// What an element costs beside its bytes, in bytes.
const ELEMENT_WORK: usize = 32;

/// Bytes that a value may become: hashes are longer than what they stand for.
const OUT_BYTES_MAX: usize = 4 << 20;

/// What goes in place of a masked value.
const MASK: &str = "\"***\"";

/// Reads a text.
fn read<'a, S: DeserializeSeed<'a>>(seed: S, text: &'a str) -> Option<S::Value> {
    seed.deserialize(&mut serde_json::Deserializer::from_str(text)).ok()
}

/// The members of an object, all of them, in their order; an error, if there are more.
struct Members(usize);

impl<'a> DeserializeSeed<'a> for Members {
    type Value = Vec<(String, &'a RawValue)>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Members {
    type Value = Vec<(String, &'a RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            if members.len() >= self.0 {
                return Err(A::Error::custom("too many members"));
            }
            members.push(member);
        }
        Ok(members)
    }
}

/// The elements of an array, likewise.
struct Elements(usize);

impl<'a> DeserializeSeed<'a> for Elements {
    type Value = Vec<&'a RawValue>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Elements {
    type Value = Vec<&'a RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() >= self.0 {
                return Err(A::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

/// The value without what the paths do not let go. `None` if it cannot be judged.
pub(super) async fn rewrite(
    value: &[u8],
    (root, pseudonyms): (&Node, &Pseudonyms),
    pace: &mut Pace,
) -> Option<String> {
    let value: &RawValue = serde_json::from_slice(value).ok()?;
    let len = value.get().len();
    let mut rewriting = Rewriting {
        pseudonyms,
        pace,
        out: String::with_capacity(len),
        bytes_left: len * READINGS_MAX + READ_BYTES_FREE,
        parts_left: PARTS_MAX,
    };
    let goes = rewriting.value(value, Fate::Paths(&[root]), 0).await?;
    goes.then_some(rewriting.out)
}

/// What writes a value that has others in it.
type Inside<'a> = Pin<Box<dyn Future<Output = Option<()>> + Send + 'a>>;

/// What leads to a value.
#[derive(Clone, Copy)]
enum Fate<'a> {
    /// Paths that end there or go on.
    Paths(&'a [&'a Node]),
    /// This is done to it, or to each element of it.
    Action(FieldAction),
}

struct Rewriting<'a> {
    pseudonyms: &'a Pseudonyms,
    pace: &'a mut Pace,
    out: String,
    /// Bytes that may be read still.
    bytes_left: usize,
    /// Members and elements that may be looked at still.
    parts_left: usize,
}

impl Rewriting<'_> {
    /// Writes a value that something leads to. `false` if it does not go, and then nothing is written;
    /// `None` if it cannot be read.
    async fn value(&mut self, value: &RawValue, fate: Fate<'_>, depth: usize) -> Option<bool> {
        self.fits()?;
        let fate = match fate {
            Fate::Paths(at) => {
                let actions = at.iter().filter_map(|node| node.action);
                actions.reduce(FieldAction::join).map_or(fate, Fate::Action)
            }
            action => action,
        };
        match (fate, *value.get().as_bytes().first()?) {
            (Fate::Action(FieldAction::Drop), _) => Some(false),
            (Fate::Action(FieldAction::Mask), _) => {
                self.out.push_str(MASK);
                Some(true)
            }
            (_, b'n') => {
                self.out.push_str(value.get());
                Some(true)
            }
            (_, b'[') | (Fate::Paths(_), b'{') if depth >= DEPTH_MAX => Some(false),
            (Fate::Paths(at), b'{') => self.object(value, at, depth).await.map(|()| true),
            (_, b'[') => self.array(value, fate, depth).await.map(|()| true),
            (Fate::Paths(_), _) => Some(false),
            (Fate::Action(action), first) => self.act(value.get(), action, first),
        }
    }

    /// An object or an array is to be read: how many parts it may have. `None` if too much was read already.
    async fn enters(&mut self, value: &RawValue) -> Option<usize> {
        let len = value.get().len();
        self.bytes_left = self.bytes_left.checked_sub(len)?;
        self.pace.worked(len).await;
        Some(self.parts_left)
    }

    /// `None` if there is too much already.
    fn fits(&self) -> Option<()> {
        (self.out.len() <= OUT_BYTES_MAX).then_some(())
    }

    /// Writes an object without the members that do not go.
    fn object<'s>(
        &'s mut self,
        value: &'s RawValue,
        at: &'s [&'s Node],
        depth: usize,
    ) -> Inside<'s> {
        Box::pin(async move {
            let members = read(Members(self.enters(value).await?), value.get())?;
            self.parts_left -= members.len();
            self.out.push('{');
            let begun = self.out.len();
            for (name, member) in members {
                self.pace.worked(ELEMENT_WORK + name.len()).await;
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
                    below => self.value(member, Fate::Paths(below), depth + 1).await?,
                };
                if !goes {
                    self.out.truncate(before);
                }
            }
            self.out.push('}');
            Some(())
        })
    }

    /// Writes an array, with null in place of what does not go, so that the others keep their places.
    fn array<'s>(&'s mut self, value: &'s RawValue, fate: Fate<'s>, depth: usize) -> Inside<'s> {
        debug_assert!(depth < DEPTH_MAX, "its caller has looked");
        Box::pin(async move {
            let elements = read(Elements(self.enters(value).await?), value.get())?;
            self.parts_left -= elements.len();
            self.out.push('[');
            for (at, element) in elements.into_iter().enumerate() {
                self.pace.worked(ELEMENT_WORK).await;
                if at > 0 {
                    self.out.push(',');
                }
                if !self.value(element, fate, depth + 1).await? {
                    self.out.push_str("null");
                }
            }
            self.out.push(']');
            Some(())
        })
    }

    /// Writes what an action makes of a value that has no elements; as `value`.
    fn act(&mut self, text: &str, action: FieldAction, first: u8) -> Option<bool> {
        match (action, first) {
            (FieldAction::Hash, b'"') => {
                let hash =
                    self.pseudonyms.of(serde_json::from_str::<String>(text).ok()?.as_bytes());
                self.out.extend(["\"", &hash, "\""]);
            }
            (FieldAction::Hash, _) => {
                let hash = self.pseudonyms.of(text.as_bytes());
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
            // Whoever asks has done these.
            (FieldAction::Drop | FieldAction::Mask, _)
            | (FieldAction::Truncate(_) | FieldAction::Round(_), _) => return Some(false),
        }
        Some(true)
    }
}

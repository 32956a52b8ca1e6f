//! How the definition of a rule is written in an operation.
//!
//! ```text
//! secret [u8; 32] | regions texts | key u8
//! | headers u16, each name text, passage u8 | fields u16, each path text, action u8, argument u32
//! passage     0 pass, 1 hash, 2 drop
//! action      1 drop, 2 mask, 3 hash, 4 truncate to the argument, 5 round to the argument (i8)
//! ```
//!
//! Invariants: as in `operation.rs`.

use super::link::{fit_texts, put_count, put_texts, read_texts, texts_bytes};
use super::operation::{fits_text, put_text, read_text, text_bytes};
use crate::reader::Reader;
use bytes::{BufMut, BytesMut};
use fulmar_types::rule::{FieldAction, FieldPath, Passage, RuleDefinition};
use std::collections::BTreeMap;
use std::fmt;

/// The key of keyed hashes in place of values: of a site, and of nobody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RuleSecret(pub [u8; 32]);

/// Whoever has it can find out by trying what was hashed, so nobody is shown it by mistake.
impl fmt::Debug for RuleSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RuleSecret(..)")
    }
}

const HEADER_BYTES: usize = 1;
const FIELD_BYTES: usize = 1 + 4;

pub(super) fn rule_bytes(rule: &RuleDefinition) -> usize {
    let header = |name: &String| text_bytes(name) + HEADER_BYTES;
    let field = |path: &FieldPath| text_bytes(&path.to_string()) + FIELD_BYTES;
    size_of::<RuleSecret>()
        + texts_bytes(&rule.regions)
        + 1
        + 2
        + rule.headers.keys().map(header).sum::<usize>()
        + 2
        + rule.fields.keys().map(field).sum::<usize>()
}

pub(super) fn fits_rule(rule: &RuleDefinition) -> bool {
    let most = usize::from(u16::MAX);
    fit_texts(&rule.regions)
        && rule.headers.len() <= most
        && rule.headers.keys().all(|name| fits_text(name))
        && rule.fields.len() <= most
        && rule.fields.keys().all(|path| fits_text(&path.to_string()))
}

pub(super) fn put_rule(out: &mut BytesMut, rule: &RuleDefinition, secret: &RuleSecret) {
    out.put_slice(&secret.0);
    put_texts(out, &rule.regions);
    out.put_u8(rule.key.number());
    put_count(out, rule.headers.len());
    for (name, passage) in &rule.headers {
        put_text(out, name);
        out.put_u8(passage.number());
    }
    put_count(out, rule.fields.len());
    for (path, action) in &rule.fields {
        put_text(out, &path.to_string());
        let (kind, argument) = action.numbers();
        out.put_u8(kind);
        out.put_u32_le(argument);
    }
}

/// Reads what [`put_rule`] writes, and nothing that it would write otherwise.
pub(super) fn read_rule(reader: &mut Reader<'_>) -> Option<(RuleDefinition, RuleSecret)> {
    let secret = RuleSecret(reader.array()?);
    let regions = read_texts(reader)?;
    let key = Passage::from_number(reader.u8()?)?;
    let mut headers = BTreeMap::new();
    for _ in 0..reader.u16()? {
        let name = read_text(reader)?;
        if headers.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return None;
        }
        headers.insert(name, Passage::from_number(reader.u8()?)?);
    }
    let mut fields = BTreeMap::new();
    for _ in 0..reader.u16()? {
        let text = read_text(reader)?;
        let path: FieldPath = text.parse().ok()?;
        let is_behind = fields.last_key_value().is_none_or(|(last, _)| *last < path);
        if path.to_string() != text || !is_behind {
            return None;
        }
        let kind = reader.u8()?;
        fields.insert(path, FieldAction::from_numbers(kind, reader.u32()?)?);
    }
    Some((RuleDefinition { regions, key, headers, fields }, secret))
}

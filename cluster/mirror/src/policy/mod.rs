//! What of a record may leave: the rule of a topic, made ready to be applied to batches.
//!
//! ```text
//! stored batch --decompress--> records --key, headers, fields--> records --same codec--> batch
//!                                 |
//!                                 +-- cannot be judged: withheld, its offset stays a gap
//! ```
//!
//! It is done in steps, and between them other tasks run ([`Pace`]).
//!
//! Invariants: a record goes only if all that the rule speaks of was found and treated, or is not there;
//! every offset keeps its place; the same batch under the same rule becomes the same bytes.
//!
//! Never: let a value go that could not be read, or say in an error or a log what stood in one.

mod json;
mod number;
mod pace;
#[cfg(test)]
mod tests;

pub use pace::Pace;

use bytes::Bytes;
use fulmar_store::entry::RuleSecret;
use fulmar_types::Plant;
use fulmar_types::rule::{FieldAction, Passage, RuleDefinition, Segment};
use fulmar_wire::batch::{Batch, Record, RecordIter, Rewriting};
use fulmar_wire::compression::{Decompressing, STEP_BYTES};
use std::collections::BTreeMap;

/// What the records of one batch may become when they are decompressed. A batch that would become more
/// cannot be judged.
const PLAIN_BYTES_MAX: usize = 8 << 20;

/// Bytes of keys, headers and values that a batch may have when its rule was applied. One that would have
/// more is withheld: the other side would not take it.
const CLEARED_BYTES_MAX: usize = 8 << 20;

/// What a record costs beside its bytes, in bytes.
const RECORD_WORK: usize = 64;

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// This may go. It takes the same offsets, and perhaps not all of them have records.
    Goes(Bytes),
    /// None of its records may go.
    Withheld,
}

/// A place in the tree of paths.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// What becomes of the value here.
    pub(crate) action: Option<FieldAction>,
    /// Below it, by name.
    pub(crate) named: BTreeMap<String, Node>,
    /// Below it, whatever the name.
    pub(crate) any: Option<Box<Node>>,
}

/// Hashes that nobody can compute who does not have the key of the site.
#[derive(Debug)]
pub(crate) struct Pseudonyms(RuleSecret);

impl Pseudonyms {
    /// What goes in place of a value: 128 bits in hexadecimal digits.
    pub(crate) fn of(&self, value: &[u8]) -> String {
        let hash = match fulmar_host::planted(Plant::HashUnkeyed) {
            true => blake3::hash(value),
            false => blake3::keyed_hash(&self.0.0, value),
        };
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
        hash.as_bytes()[..16].iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
    }
}

/// A rule, ready.
#[derive(Debug)]
pub struct Policy {
    rule: RuleDefinition,
    root: Node,
    pseudonyms: Pseudonyms,
}

impl Policy {
    /// Makes a rule ready.
    pub fn new(rule: &RuleDefinition, secret: &RuleSecret) -> Self {
        let mut root = Node::default();
        for (path, action) in &rule.fields {
            let mut at = &mut root;
            for segment in path.segments() {
                at = match segment {
                    Segment::Name(name) => at.named.entry(name.clone()).or_default(),
                    Segment::Any => at.any.get_or_insert_default(),
                };
            }
            at.action = Some(at.action.map_or(*action, |known| known.join(*action)));
        }
        Self { rule: rule.clone(), root, pseudonyms: Pseudonyms(*secret) }
    }

    /// Whether batches go as they are stored.
    pub(crate) fn is_verbatim(&self) -> bool {
        self.rule.is_verbatim() && !fulmar_host::planted(Plant::CopyStampsTime)
    }

    /// What of a stored batch may go.
    pub async fn clear(&self, bytes: &Bytes, pace: &mut Pace) -> Cleared {
        if self.is_verbatim() {
            return Cleared::Goes(bytes.clone());
        }
        self.rewrite(bytes, pace).await.unwrap_or(Cleared::Withheld)
    }

    /// `None` if the batch cannot be judged.
    async fn rewrite(&self, bytes: &Bytes, pace: &mut Pace) -> Option<Cleared> {
        let batch = Batch::parse(bytes.clone()).ok()?;
        // What a broker writes for itself is no record of anybody.
        if batch.header().attributes.is_control() {
            return None;
        }
        let (codec, stored) = (batch.compression(), batch.record_bytes());
        let mut decompressing = Decompressing::new(codec, stored, PLAIN_BYTES_MAX).ok()?;
        let plain = loop {
            if let Some(plain) = decompressing.step().ok()? {
                break plain;
            }
            pace.worked(STEP_BYTES).await;
        };
        let (mut rewriting, mut bytes) = (Rewriting::new(&batch), 0);
        for record in RecordIter::over(batch.header(), plain) {
            let record = record.ok()?;
            pace.worked(RECORD_WORK + size(&record)).await;
            let Some(record) = self.record(record, pace).await else { continue };
            bytes += size(&record);
            if bytes > CLEARED_BYTES_MAX {
                return None;
            }
            rewriting.push(&record).ok()?;
        }
        if rewriting.is_empty() {
            return Some(Cleared::Withheld);
        }
        let mut closing = rewriting.close();
        loop {
            if let Some(bytes) = closing.step().ok()? {
                return Some(Cleared::Goes(bytes));
            }
            pace.worked(STEP_BYTES).await;
        }
    }

    /// What of a record may go; `None` if it is withheld.
    pub async fn record(&self, record: Record, pace: &mut Pace) -> Option<Record> {
        let Record { offset, timestamp, key, value, headers } = record;
        let value = match value {
            Some(value) if !self.rule.fields.is_empty() => {
                Some(json::rewrite(&value, (&self.root, &self.pseudonyms), pace).await?.into())
            }
            value => value,
        };
        let key = key.and_then(|key| self.passed(self.rule.key, key));
        let mut passed = Vec::new();
        for mut header in headers {
            let passage = match fulmar_host::planted(Plant::HeadersGo) {
                true => Passage::Pass,
                false => self.rule.header(&header.key),
            };
            if passage != Passage::Drop {
                header.value = header.value.and_then(|value| self.passed(passage, value));
                passed.push(header);
            }
        }
        let wrong = i64::from(fulmar_host::planted(Plant::CopyStampsTime));
        Some(Record { offset, timestamp: timestamp + wrong, key, value, headers: passed })
    }

    fn passed(&self, passage: Passage, bytes: Bytes) -> Option<Bytes> {
        match passage {
            Passage::Pass => Some(bytes),
            Passage::Hash => Some(self.pseudonyms.of(&bytes).into()),
            Passage::Drop => None,
        }
    }
}

/// Bytes of a record, but for what frames it.
fn size(record: &Record) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| header.key.len() + len(&header.value));
    len(&record.key) + len(&record.value) + headers.sum::<usize>()
}

//! Records that come in, rows on their way, and records that go out.

use crate::value::Value;
use crate::value::codec::{Codec, LIST_WEIGHT, Malformed};
use bytes::Bytes;
use std::sync::Arc;

/// What a record weighs besides its bytes.
const RECORD_WEIGHT: usize = 64;

/// The account of the fates of retried records, where others have their partition.
pub const RETRIED: u32 = u32::MAX;

/// A header: its name and its value.
pub type Header = (Arc<str>, Option<Bytes>);

/// A record of an input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// The timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The headers.
    pub headers: Vec<Header>,
    /// The payload.
    pub value: Option<Bytes>,
    /// Why it cannot be read, if so; the payload is then whatever is there instead.
    pub damage: Option<Arc<str>>,
    /// Whether it was a dead letter, and is put through again.
    pub is_retried: bool,
}

impl Record {
    /// The partition to whose account its fate goes: retried records have one of their own.
    pub fn account(&self) -> u32 {
        if self.is_retried { RETRIED } else { self.partition }
    }
}

/// A record for an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The topic.
    pub topic: Arc<str>,
    /// The timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The headers.
    pub headers: Vec<Header>,
    /// The payload.
    pub value: Option<Bytes>,
}

/// The record that a row was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// By which reader.
    pub reader: u32,
    /// The record as it came, for a dead letter.
    pub record: Arc<Record>,
    /// Whether the fate of the record is that of this row. Of the copies of a row in several windows
    /// only the last one's is.
    pub counts: bool,
}

/// A row on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The columns.
    pub values: Vec<Value>,
    /// The event time, or the timestamp of the record if there is none.
    pub time: i64,
    /// Where it is from, if it is from one record.
    pub origin: Option<Origin>,
}

impl Row {
    /// The row for keeping: what it has of its record is a copy. As they come, keys and payloads are parts of the
    /// batch that they lay in, and would keep all of it in memory, which nobody counts.
    pub fn kept(mut self) -> Self {
        if let Some(origin) = &mut self.origin {
            let copy = |bytes: &Option<Bytes>| bytes.as_deref().map(Bytes::copy_from_slice);
            let record = &origin.record;
            let headers = record.headers.iter();
            origin.record = Arc::new(Record {
                key: copy(&record.key),
                headers: headers.map(|(name, value)| (Arc::clone(name), copy(value))).collect(),
                value: copy(&record.value),
                damage: record.damage.clone(),
                ..**record
            });
        }
        self
    }
}

impl Codec for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let len = u32::read(from)? as usize;
        let (bytes, rest) = from.split_at_checked(len).ok_or(Malformed)?;
        *from = rest;
        Ok(Self::copy_from_slice(bytes))
    }

    fn weight(&self) -> usize {
        LIST_WEIGHT + self.len()
    }
}

/// ```text
/// row       values | time i64 | there u8: 0, or 1 and an origin
/// origin    reader u32 | flags u8: 1 counts, 2 is retried | partition u32 | offset i64 | timestamp i64
///           | key | headers u32, per header: name bytes, value | payload
/// key, value, payload    there u8: 0, or 1 and bytes
/// ```
impl Codec for Row {
    fn put(&self, out: &mut Vec<u8>) {
        self.values.put(out);
        self.time.put(out);
        let Some(origin) = &self.origin else { return 0u8.put(out) };
        1u8.put(out);
        origin.reader.put(out);
        (u8::from(origin.counts) | u8::from(origin.record.is_retried) << 1).put(out);
        origin.record.partition.put(out);
        origin.record.offset.put(out);
        origin.record.timestamp.put(out);
        origin.record.key.put(out);
        origin.record.headers.put(out);
        origin.record.value.put(out);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let (values, time) = (Vec::read(from)?, i64::read(from)?);
        let origin = match u8::read(from)? {
            0 => None,
            1 => {
                let reader = u32::read(from)?;
                let flags = u8::read(from)?;
                if flags > 3 {
                    return Err(Malformed);
                }
                let (counts, is_retried) = (flags & 1 > 0, flags & 2 > 0);
                let record = Record {
                    partition: u32::read(from)?,
                    offset: i64::read(from)?,
                    timestamp: i64::read(from)?,
                    key: Option::read(from)?,
                    headers: Vec::read(from)?,
                    value: Option::read(from)?,
                    // What cannot be read never becomes a row.
                    damage: None,
                    is_retried,
                };
                Some(Origin { reader, record: Arc::new(record), counts })
            }
            _ => return Err(Malformed),
        };
        Ok(Self { values, time, origin })
    }

    fn weight(&self) -> usize {
        let record = |origin: &Origin| {
            let record = &origin.record;
            RECORD_WEIGHT + record.key.weight() + record.headers.weight() + record.value.weight()
        };
        16 + self.values.weight() + self.origin.as_ref().map_or(0, record)
    }
}

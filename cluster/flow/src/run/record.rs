//! Records that come in, rows on their way, and records that go out.

use crate::value::Value;
use crate::value::codec::{Codec, LIST_WEIGHT, Malformed};
use bytes::Bytes;
use std::sync::Arc;

/// What a record weighs besides its bytes.
const RECORD_WEIGHT: usize = 64;

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
/// origin    reader u32 | counts u8 | partition u32 | offset i64 | timestamp i64
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
        u8::from(origin.counts).put(out);
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
                let counts = match u8::read(from)? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed),
                };
                let record = Record {
                    partition: u32::read(from)?,
                    offset: i64::read(from)?,
                    timestamp: i64::read(from)?,
                    key: Option::read(from)?,
                    headers: Vec::read(from)?,
                    value: Option::read(from)?,
                    // What cannot be read never becomes a row.
                    damage: None,
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

//! The records inside an uncompressed batch.
//!
//! ```text
//! varint length | int8 attributes | varlong timestamp_delta | varint offset_delta
//! | varint n | n bytes of key      (n = -1: null)
//! | varint n | n bytes of value    (n = -1: null)
//! | varint headers x ( varint n | n bytes of key | varint n | n bytes of value (n = -1: null) )
//! ```
//!
//! Invariants: a record never reads beyond its length, nor a batch beyond its bytes; the offset
//! deltas of a batch grow, up to the last one that its header names; keys, values and headers are
//! slices of the batch.
//!
//! Never: require UTF-8, or merge headers of the same key.

use super::{BatchHeader, Compression};
use crate::primitives::{DecodeError, Reader};
use bytes::Bytes;

/// The least bytes of a header: the lengths of its key and of its value.
const HEADER_BYTES_MIN: usize = 2;

/// Why the records of a batch cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The records are compressed.
    #[error("the records are compressed with {0:?}")]
    Compressed(Compression),
    /// A record is damaged.
    #[error("record {index} of the batch is damaged")]
    Damaged {
        /// The index of the record in its batch.
        index: i32,
    },
    /// A record has an offset that its place in the batch does not allow.
    #[error("record {index} of the batch has the offset delta {offset_delta}")]
    OffsetDelta {
        /// The index of the record in its batch.
        index: i32,
        /// Its offset relative to the batch.
        offset_delta: i32,
    },
    /// The batch goes on after its last record.
    #[error("{0} bytes follow the last record of the batch")]
    TrailingBytes(usize),
}

/// A record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The offset in the partition.
    pub offset: i64,
    /// The time in ms since 1970, as the producer or the broker set it.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers, in their order, repeated keys included.
    pub headers: Vec<Header>,
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key; any bytes.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// Iterates over the records of a batch; ends after the first error.
#[derive(Clone, Debug)]
pub struct RecordIter {
    reader: Reader,
    header: BatchHeader,
    index: i32,
    /// The least offset delta that the next record may have.
    least: i32,
}

impl RecordIter {
    /// The records in `records`, which belong to a batch with this header and are not compressed
    /// (any more).
    pub fn over(header: &BatchHeader, records: Bytes) -> Self {
        Self { reader: Reader::new(records), header: *header, index: 0, least: 0 }
    }

    pub(super) fn new(header: &BatchHeader, records: Bytes) -> Result<Self, RecordError> {
        match header.attributes.compression() {
            Ok(Compression::None) => Ok(Self::over(header, records)),
            Ok(compression) => Err(RecordError::Compressed(compression)),
            Err(_) => Err(RecordError::Damaged { index: 0 }),
        }
    }

    fn step(&mut self) -> Result<Option<Record>, RecordError> {
        let index = self.index;
        if index >= self.header.record_count {
            return match self.reader.remaining() {
                0 => Ok(None),
                bytes => Err(RecordError::TrailingBytes(bytes)),
            };
        }
        let (offset_delta, record) = read_record(&mut self.reader, &self.header)
            .ok()
            .flatten()
            .ok_or(RecordError::Damaged { index })?;
        // As many offsets must remain as records do.
        let left = self.header.record_count - 1 - index;
        let most = self.header.last_offset_delta.checked_sub(left);
        if offset_delta < self.least || most.is_none_or(|most| offset_delta > most) {
            return Err(RecordError::OffsetDelta { index, offset_delta });
        }
        self.index += 1;
        self.least = offset_delta.saturating_add(1);
        Ok(Some(record))
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.index = self.header.record_count;
            self.reader = Reader::new(Bytes::new());
        }
        result.transpose()
    }
}

/// Reads one record. `None` if a number in it overflows or a length is wrong.
fn read_record(
    batch: &mut Reader,
    header: &BatchHeader,
) -> Result<Option<(i32, Record)>, DecodeError> {
    let Ok(length) = usize::try_from(batch.varint()?) else { return Ok(None) };
    let mut r = Reader::new(batch.bytes(length)?);
    r.int8()?;
    let timestamp_delta = r.varlong()?;
    let offset_delta = r.varint()?;
    let key = nullable_bytes(&mut r)?;
    let value = nullable_bytes(&mut r)?;
    let Ok(header_count) = usize::try_from(r.varint()?) else { return Ok(None) };
    let mut headers = r.elements(header_count, HEADER_BYTES_MIN)?;
    for _ in 0..header_count {
        let Some(key) = nullable_bytes(&mut r)? else { return Ok(None) };
        headers.push(Header { key, value: nullable_bytes(&mut r)? });
    }
    r.finish()?;
    let timestamp = if header.attributes.is_log_append_time() {
        Some(header.max_timestamp)
    } else {
        header.base_timestamp.checked_add(timestamp_delta)
    };
    let offset = header.base_offset.checked_add(offset_delta.into());
    let (Some(timestamp), Some(offset)) = (timestamp, offset) else { return Ok(None) };
    Ok(Some((offset_delta, Record { offset, timestamp, key, value, headers })))
}

/// Bytes behind a varint; any negative length is null, as in Kafka.
fn nullable_bytes(r: &mut Reader) -> Result<Option<Bytes>, DecodeError> {
    usize::try_from(r.varint()?).ok().map(|len| r.bytes(len)).transpose()
}

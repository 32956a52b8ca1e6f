//! A batch with some of its records, or with others in their places: what a rule lets leave a site.
//!
//! It is made in steps, for whoever has no thread to spare.
//!
//! Invariants: the offsets that the batch takes stay, and so do the offset and the time of each record that
//! is left; so there may be offsets without records, as compaction leaves them in Kafka. The times in the
//! header are those of the records that are left.
//!
//! Never: let anything of a record remain that is left out, be it the time that others are relative to.

use super::build::{BuildError, put_record};
use super::{Batch, BatchHeader, CRC_START, HEADER_BYTES, LENGTH_END, Record};
use crate::compression::Compressing;
use crate::primitives::Writer;
use bytes::{Bytes, BytesMut};

/// Where fields of the header begin; see the module above.
const LENGTH_AT: usize = 8;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const RECORD_COUNT_AT: usize = 57;

/// The batch with these records, as [`Rewriting`] makes it.
///
/// # Errors
/// A record does not fit.
///
/// # Panics
/// As [`Rewriting`].
pub fn rewritten(batch: &Batch, records: &[Record]) -> Result<Bytes, BuildError> {
    let mut rewriting = Rewriting::new(batch);
    records.iter().try_for_each(|record| rewriting.push(record))?;
    let mut closing = rewriting.close();
    loop {
        if let Some(bytes) = closing.step()? {
            return Ok(bytes);
        }
    }
}

/// A batch that gets its records.
pub struct Rewriting {
    batch: Batch,
    plain: Writer,
    count: i32,
    /// The offset of the last record, from that of the batch on.
    last: i64,
    times: Times,
}

/// The times that a header tells.
#[derive(Clone, Copy)]
struct Times {
    /// That of the first record, which those of the others are relative to.
    base: i64,
    newest: i64,
}

impl Rewriting {
    /// Begins in place of a batch, without records.
    pub fn new(batch: &Batch) -> Self {
        let plain = Writer::copying(BytesMut::new());
        Self {
            batch: batch.clone(),
            plain,
            count: 0,
            last: -1,
            times: Times { base: 0, newest: i64::MIN },
        }
    }

    fn header(&self) -> &BatchHeader {
        self.batch.header()
    }

    /// Whether no record has come.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// It does not fit.
    ///
    /// # Panics
    /// If it is not one of the batch, as far as its offset goes, or not behind the one before: that would be
    /// a bug.
    pub fn push(&mut self, record: &Record) -> Result<(), BuildError> {
        let delta = record.offset - self.header().base_offset;
        let is_in_order = self.last < delta && self.header().offsets().contains(&record.offset);
        assert!(is_in_order, "offsets stay");
        self.last = delta;
        let delta = i32::try_from(delta).map_err(|_| BuildError::TooLarge)?;
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|of| (of.key.as_ref(), of.value.as_deref())).collect();
        if self.is_empty() {
            self.times.base = record.timestamp;
        }
        let timestamp = record.timestamp.checked_sub(self.times.base);
        let place = (delta, timestamp.ok_or(BuildError::Timestamp)?);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        put_record(&mut self.plain, place, (key, value), &headers)?;
        self.times.newest = self.times.newest.max(record.timestamp);
        self.count = self.count.checked_add(1).ok_or(BuildError::TooLarge)?;
        Ok(())
    }

    /// Has all its records; what is left is to compress them as they were.
    ///
    /// # Panics
    /// If there is none: that would be a bug.
    pub fn close(self) -> Closing {
        assert!(!self.is_empty(), "a batch has records");
        let Self { batch, plain, count, times, .. } = self;
        let compressing = Compressing::new(batch.compression(), plain.into_bytes().freeze());
        Closing { batch, count, times, compressing }
    }
}

/// A batch that has its records.
pub struct Closing {
    batch: Batch,
    count: i32,
    times: Times,
    compressing: Compressing,
}

impl Closing {
    /// Goes on, and returns the batch once it is whole.
    ///
    /// # Errors
    /// It is too long for one.
    ///
    /// # Panics
    /// If it was whole before.
    pub fn step(&mut self) -> Result<Option<Bytes>, BuildError> {
        let Some(stored) = self.compressing.step() else { return Ok(None) };
        let mut bytes = BytesMut::from(&self.batch.bytes()[..HEADER_BYTES]);
        bytes.extend_from_slice(&stored);
        let put = |bytes: &mut BytesMut, at: usize, number: &[u8]| {
            bytes[at..at + number.len()].copy_from_slice(number);
        };
        let length = i32::try_from(bytes.len() - LENGTH_END).map_err(|_| BuildError::TooLarge)?;
        put(&mut bytes, LENGTH_AT, &length.to_be_bytes());
        put(&mut bytes, RECORD_COUNT_AT, &self.count.to_be_bytes());
        put(&mut bytes, BASE_TIMESTAMP_AT, &self.times.base.to_be_bytes());
        if self.batch.header().max_timestamp >= 0 {
            put(&mut bytes, MAX_TIMESTAMP_AT, &self.times.newest.to_be_bytes());
        }
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        put(&mut bytes, CRC_START - 4, &crc.to_be_bytes());
        Ok(Some(bytes.freeze()))
    }
}

//! Building a batch from records, as a client does.

use super::{
    Attributes, CRC_START, Compression, HEADER_BYTES, LENGTH_END, MAGIC, NO_PRODUCER_ID,
    NO_TIMESTAMP,
};
use crate::compression::compress;
use crate::primitives::Writer;
use bytes::{Bytes, BytesMut};

/// Why a record does not fit into the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The batch or one of its lengths would not fit 31 bits.
    #[error("a batch holds at most 2 GiB and 2^31 records")]
    TooLarge,
    /// The timestamp is too far from the batch's first one.
    #[error("a timestamp is too far from the first one of the batch")]
    Timestamp,
}

/// Collects the records of one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    /// The header, with nothing filled in yet, and the records so far.
    batch: Writer,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: (i64, i16, i32),
    transactional: bool,
    compression: Compression,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// A batch without records.
    pub fn new() -> Self {
        Self {
            batch: Writer::copying(BytesMut::zeroed(HEADER_BYTES)),
            record_count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer: (NO_PRODUCER_ID, -1, -1),
            transactional: false,
            compression: Compression::None,
        }
    }

    /// Makes the batch idempotent: the broker appends it once, in the order of its sequence.
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.producer = (producer_id, producer_epoch, base_sequence);
        self
    }

    /// Makes the batch part of its producer's transaction.
    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Compresses the records.
    pub fn compressed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Appends a record with a timestamp in ms since 1970.
    ///
    /// # Errors
    /// The record does not fit; the batch is as before.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BuildError> {
        let base_timestamp = if self.record_count == 0 { timestamp } else { self.base_timestamp };
        let delta = timestamp.checked_sub(base_timestamp).ok_or(BuildError::Timestamp)?;
        let record_count = self.record_count.checked_add(1).ok_or(BuildError::TooLarge)?;

        put_record(&mut self.batch, (self.record_count, delta), (key, value), headers)?;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.base_timestamp = base_timestamp;
        self.record_count = record_count;
        Ok(())
    }

    /// The number of records so far.
    pub fn record_count(&self) -> u32 {
        self.record_count.cast_unsigned()
    }

    /// Bytes that the batch has so far, header included, if it is not compressed.
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// The batch with base offset 0; `None` if it has no records.
    ///
    /// # Panics
    /// If compression makes more than 2 GiB of less.
    pub fn build(self) -> Option<Bytes> {
        if self.record_count == 0 {
            return None;
        }
        let mut batch = self.batch.into_bytes();
        if self.compression != Compression::None {
            let records = compress(self.compression, &batch[HEADER_BYTES..]);
            batch.truncate(HEADER_BYTES);
            batch.extend_from_slice(&records);
        }
        let flags = if self.transactional { Attributes::TRANSACTIONAL } else { 0 };
        let attributes = flags | self.compression as i16;
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let batch_length = length(batch.len() - LENGTH_END).expect("push kept it below 2^31");

        let mut header = Writer::copying(BytesMut::with_capacity(HEADER_BYTES));
        header.int64(0);
        header.int32(batch_length);
        header.int32(-1);
        header.int8(MAGIC);
        header.uint32(0);
        header.int16(attributes);
        header.int32(self.record_count - 1);
        header.int64(self.base_timestamp);
        header.int64(self.max_timestamp);
        header.int64(producer_id);
        header.int16(producer_epoch);
        header.int32(base_sequence);
        header.int32(self.record_count);
        batch[..HEADER_BYTES].copy_from_slice(&header.into_bytes());

        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        Some(batch.freeze())
    }
}

/// Appends a record with an offset and a time relative to its batch. If it does not fit, nothing is
/// appended.
pub(super) fn put_record(
    batch: &mut Writer,
    (offset_delta, timestamp_delta): (i32, i64),
    (key, value): (Option<&[u8]>, Option<&[u8]>),
    headers: &[(&[u8], Option<&[u8]>)],
) -> Result<(), BuildError> {
    let mut record = Writer::copying(BytesMut::new());
    record.int8(0);
    record.varlong(timestamp_delta);
    record.varint(offset_delta);
    nullable_bytes(&mut record, key)?;
    nullable_bytes(&mut record, value)?;
    record.varint(length(headers.len())?);
    for (key, value) in headers {
        nullable_bytes(&mut record, Some(key))?;
        nullable_bytes(&mut record, *value)?;
    }
    length(batch.len() + record.len() + VARINT_BYTES_MAX)?;
    batch.varint(length(record.len())?);
    batch.slice(&record.into_bytes());
    Ok(())
}

/// A batch of so many offsets, from 0 on, of which none has a record: what a broker answers where there is
/// nothing to read and the partition goes on. Whoever reads it goes on behind its last offset.
///
/// # Panics
/// If there are no offsets.
pub fn empty_batch(offsets: u32) -> Bytes {
    let last = offsets.checked_sub(1).expect("a batch has offsets");
    let mut header = Writer::copying(BytesMut::with_capacity(HEADER_BYTES));
    header.int64(0);
    header.int32((HEADER_BYTES - LENGTH_END) as i32);
    header.int32(-1);
    header.int8(MAGIC);
    header.uint32(0);
    header.int16(0);
    header.int32(i32::try_from(last).unwrap_or(i32::MAX));
    header.int64(NO_TIMESTAMP);
    header.int64(NO_TIMESTAMP);
    header.int64(NO_PRODUCER_ID);
    header.int16(-1);
    header.int32(-1);
    header.int32(0);
    let mut batch = header.into_bytes();
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// The longest varint: 5 groups of 7 bits.
const VARINT_BYTES_MAX: usize = 5;

fn length(bytes: usize) -> Result<i32, BuildError> {
    i32::try_from(bytes).map_err(|_| BuildError::TooLarge)
}

fn nullable_bytes(w: &mut Writer, bytes: Option<&[u8]>) -> Result<(), BuildError> {
    w.varint(bytes.map_or(Ok(-1), |bytes| length(bytes.len()))?);
    w.slice(bytes.unwrap_or_default());
    Ok(())
}

//! A batch with some of its records, or with others in their places: what a rule lets leave a site.
//!
//! Invariant: the offsets that the batch takes stay, and so does the offset of each record; so there may
//! be offsets without records, as compaction leaves them in Kafka.

use super::build::{BuildError, put_record};
use super::{Batch, CRC_START, HEADER_BYTES, LENGTH_END, Record};
use crate::compression::compress;
use crate::primitives::Writer;
use bytes::{Bytes, BytesMut};

/// Where fields of the header begin; see the module above.
const LENGTH_AT: usize = 8;
const MAX_TIMESTAMP_AT: usize = 35;
const RECORD_COUNT_AT: usize = 57;

/// The batch with these records, which must be some of its own as far as offsets go, in their order,
/// compressed as it is.
///
/// # Errors
/// A record does not fit.
///
/// # Panics
/// Without any record, or with one that is not of the batch: that would be a bug.
pub fn rewritten(batch: &Batch, records: &[Record]) -> Result<Bytes, BuildError> {
    let header = batch.header();
    let (mut plain, mut last) = (Writer::copying(BytesMut::new()), -1);
    for record in records {
        let delta = record.offset - header.base_offset;
        assert!(last < delta && header.offsets().contains(&record.offset), "offsets stay");
        last = delta;
        let delta = i32::try_from(delta).map_err(|_| BuildError::TooLarge)?;
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|of| (of.key.as_ref(), of.value.as_deref())).collect();
        let timestamp = record.timestamp.checked_sub(header.base_timestamp);
        let place = (delta, timestamp.ok_or(BuildError::Timestamp)?);
        put_record(&mut plain, place, (record.key.as_deref(), record.value.as_deref()), &headers)?;
    }
    assert!(last >= 0, "a batch has records");
    let stored = compress(batch.compression(), &plain.into_bytes());
    let mut bytes = BytesMut::from(&batch.bytes()[..HEADER_BYTES]);
    bytes.extend_from_slice(&stored);
    let put = |bytes: &mut BytesMut, at: usize, number: &[u8]| {
        bytes[at..at + number.len()].copy_from_slice(number);
    };
    let length = i32::try_from(bytes.len() - LENGTH_END).map_err(|_| BuildError::TooLarge)?;
    let count = i32::try_from(records.len()).map_err(|_| BuildError::TooLarge)?;
    put(&mut bytes, LENGTH_AT, &length.to_be_bytes());
    put(&mut bytes, RECORD_COUNT_AT, &count.to_be_bytes());
    if header.max_timestamp >= 0 {
        let newest = records.iter().map(|record| record.timestamp).max();
        let newest = newest.expect("a batch has records");
        put(&mut bytes, MAX_TIMESTAMP_AT, &newest.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    put(&mut bytes, CRC_START - 4, &crc.to_be_bytes());
    Ok(bytes.freeze())
}

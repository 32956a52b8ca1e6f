//! What apply must know of a record batch, read from its header.
//!
//! The leader has validated the whole batch before it proposed it; this reads the few fields that
//! the state depends on, and refuses what no valid batch can have, so that the same bytes lead to
//! the same state on every node whoever proposed them.

use super::producers::{ProducerId, Sequenced};
use bytes::Bytes;
use fulmar_wire::batch::{BatchHeader, HEADER_BYTES};

/// The facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    /// How many offsets it takes, at least one.
    pub records: u32,
    /// How many of them have no record: those that the origin of a mirror does not let go.
    pub missing: u32,
    /// The largest timestamp of its records in milliseconds since 1970, -1 for none.
    pub max_timestamp_ms: i64,
    /// Who sent it, if an idempotent producer did.
    pub sequenced: Option<Sequenced>,
}

impl BatchFacts {
    /// Reads them. `None` if these bytes cannot be a batch that a broker stores. `entry_ms` is the
    /// time of the entry that brings it.
    pub fn read(bytes: &Bytes, entry_ms: u64) -> Option<Self> {
        let header = BatchHeader::read(bytes).ok()?;
        if header.batch_bytes().ok()? != bytes.len() || header.magic != 2 {
            return None;
        }
        let there = u32::try_from(header.record_count).ok().filter(|records| *records > 0)?;
        let records = u32::try_from(header.last_offset_delta).ok()?.checked_add(1)?;
        let missing = records.checked_sub(there)?;
        let sequenced = match header.producer() {
            None => None,
            Some(stamp) if stamp.producer_id < 0 => return None,
            Some(stamp) => Some(Sequenced {
                producer: ProducerId(stamp.producer_id),
                epoch: u16::try_from(stamp.producer_epoch).ok()?,
                first: u32::try_from(stamp.base_sequence).ok()?,
                records,
            }),
        };
        let appended_ms = i64::try_from(entry_ms).unwrap_or(i64::MAX);
        let max_timestamp_ms = header.max_timestamp_of(bytes.slice(HEADER_BYTES..), appended_ms);
        Some(Self { records, missing, max_timestamp_ms, sequenced })
    }
}

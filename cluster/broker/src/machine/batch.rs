//! What apply must know of a record batch, read from its header.
//!
//! The leader has validated the whole batch before it proposed it; this reads the few fields that
//! the state depends on, and refuses what no valid batch can have, so that the same bytes lead to
//! the same state on every node whoever proposed them.

use super::producers::{ProducerId, Sequenced};

/// Magic 2 batches have a header of this size (Kafka, `DefaultRecordBatch`).
pub const BATCH_HEADER_BYTES: usize = 61;

/// The facts.
///
/// ```text
///  0  base offset i64       broker's          23  last offset delta i32
///  8  batch length i32                        27  base timestamp i64
/// 12  leader epoch i32      broker's          35  max timestamp i64
/// 16  magic i8 = 2                            43  producer id i64
/// 17  crc u32                                 51  producer epoch i16
/// 21  attributes i16                          53  base sequence i32
///                                             57  records i32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    /// How many offsets it takes, at least one.
    pub records: u32,
    /// The largest timestamp of its records in milliseconds since 1970, -1 for none.
    pub max_timestamp_ms: i64,
    /// Who sent it, if an idempotent producer did.
    pub sequenced: Option<Sequenced>,
}

impl BatchFacts {
    /// Reads them. `None` if these bytes cannot be a batch that a broker stores.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; BATCH_HEADER_BYTES] = bytes.first_chunk()?;
        let at = |from: usize| -> [u8; 4] {
            [header[from], header[from + 1], header[from + 2], header[from + 3]]
        };
        let int32 = |from: usize| i32::from_be_bytes(at(from));
        let int64 = |from: usize| {
            i64::from(int32(from)) << 32 | i64::from(u32::from_be_bytes(at(from + 4)))
        };
        let epoch = i16::from_be_bytes([header[51], header[52]]);
        let whole = usize::try_from(int32(8)).ok()?.checked_add(12)?;
        if whole != bytes.len() || header[16] != 2 {
            return None;
        }
        let records = u32::try_from(int32(57)).ok().filter(|records| *records > 0)?;
        let last_delta = u32::try_from(int32(23)).ok()?;
        if last_delta != records - 1 {
            return None;
        }
        let producer = ProducerId(int64(43));
        let sequenced = match producer.0 {
            -1 => None,
            id if id < 0 => return None,
            _ => Some(Sequenced {
                producer,
                epoch: u16::try_from(epoch).ok()?,
                first: u32::try_from(int32(53)).ok()?,
                records,
            }),
        };
        let max_timestamp_ms = int64(35).max(-1);
        Some(Self { records, max_timestamp_ms, sequenced })
    }
}

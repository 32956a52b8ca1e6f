//! Puts units together into one entry.
//!
//! Invariants: an entry takes further units only while it is below its target, and no single unit
//! is larger than what the limit leaves above the target, so an entry that the builder finishes is
//! never above `limits::entry_bytes_max`. The same units and the same header give the same bytes.

use super::{ENTRY_HEADER_BYTES, ENTRY_VERSION, EntryHeader, Unit};
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::limits;
use thiserror::Error;

const UNITS_AT: usize = 4;
const WALL_MS_AT: usize = 8;
const CLAIM_AT: usize = 16;
const AGE_MS_AT: usize = 24;

/// The largest unit, header included, that an entry of this segment size takes: what
/// `limits::entry_bytes_max` leaves above the target.
pub const fn unit_bytes_max(segment_bytes: u64) -> usize {
    limits::entry_bytes_max(segment_bytes) - limits::entry_target_bytes(segment_bytes)
}

const _: () = assert!(
    unit_bytes_max(limits::SEGMENT_BYTES_MIN)
        >= limits::batch_bytes_max(limits::SEGMENT_BYTES_MIN) + 1024
);
const _: () = assert!(limits::ENTRY_BYTES_MAX < u32::MAX as usize);

/// Why a unit did not go into the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// The entry has reached its target: finish it, and put the unit into the next one.
    #[error("the entry is full")]
    Full,
    /// No entry takes this unit.
    #[error("a unit of {bytes} bytes is above the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The unit has no operation, or a text or list in it is longer than 65,535.
    #[error("the unit has no operation, or a text or list that is too long")]
    NotEncodable,
}

/// An entry that is being put together.
#[derive(Debug)]
pub struct EntryBuilder {
    out: BytesMut,
    units: u32,
    target_bytes: usize,
    unit_bytes_max: usize,
}

impl EntryBuilder {
    /// An entry without units, for a log with segments of this size.
    pub fn new(segment_bytes: u64) -> Self {
        let mut out = BytesMut::new();
        out.put_u8(ENTRY_VERSION);
        out.put_bytes(0, ENTRY_HEADER_BYTES - 1);
        Self {
            out,
            units: 0,
            target_bytes: limits::entry_target_bytes(segment_bytes),
            unit_bytes_max: unit_bytes_max(segment_bytes),
        }
    }

    /// Makes room for units of so many bytes, where the caller knows what will come: entries stay in
    /// the cache, and what a buffer has grown too much stays with them.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes.min(self.target_bytes + self.unit_bytes_max));
    }

    /// Adds a unit; its batches are copied once, here.
    ///
    /// # Errors
    /// [`PushError`]; the entry is as it was before.
    pub fn push(&mut self, unit: &Unit) -> Result<(), PushError> {
        if !unit.is_encodable() {
            return Err(PushError::NotEncodable);
        }
        let bytes = unit.encoded_len();
        if bytes > self.unit_bytes_max {
            return Err(PushError::TooLarge { bytes, max: self.unit_bytes_max });
        }
        if self.is_full() {
            return Err(PushError::Full);
        }
        self.out.reserve(bytes);
        unit.encode(&mut self.out);
        self.units += 1;
        Ok(())
    }

    /// Whether it has reached its target and takes no further unit.
    pub fn is_full(&self) -> bool {
        self.out.len() >= self.target_bytes
    }

    /// Whether it has no unit yet.
    pub const fn is_empty(&self) -> bool {
        self.units == 0
    }

    /// How many units it has.
    pub const fn unit_count(&self) -> u32 {
        self.units
    }

    /// How long the payload would be now, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.out.len()
    }

    /// The payload.
    ///
    /// # Panics
    /// If no unit was pushed: an entry says something.
    pub fn finish(mut self, header: EntryHeader) -> Bytes {
        assert!(self.units > 0, "an entry has at least one unit");
        assert!(self.out.len() <= self.target_bytes + self.unit_bytes_max, "entry above its limit");
        let mut put = |at: usize, bytes: &[u8]| {
            self.out[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(UNITS_AT, &self.units.to_le_bytes());
        put(WALL_MS_AT, &header.wall_ms.to_le_bytes());
        put(CLAIM_AT, &header.claim.to_le_bytes());
        put(AGE_MS_AT, &header.age_ms.to_le_bytes());
        self.out.freeze()
    }
}

//! The payload of a normal frame: what a leader proposes and every node applies.
//!
//! An [`Entry`] is a header and units. A unit is preconditions and operations that take effect all
//! or none; the units of one entry are independent of one another (the leader puts together what
//! arrived during the last flush). All numbers are little-endian.
//!
//! ```text
//! entry         0  version u8 = 2
//!               1  zero [u8; 3]
//!               4  units u32            at least one
//!               8  wall_ms u64          the leader's wall clock, made monotonic
//!              16  claim u64            index + 1 of the leader's last applied entry; 0: none
//!              24  age_ms u64           how long the site has existed
//!              32  the units
//! unit          0  len u32              bytes behind this field
//!               4  preconditions u16
//!               6  operations u16       at least one
//!               8  the preconditions, then the operations, each an item
//! item          0  kind u8              what it is
//!               1  version u8           how its body is written
//!               2  len u32              bytes of the body
//!               6  body                 see `operation.rs`
//! ```
//!
//! Invariants: [`Entry::decode`] is total, allocates nothing in proportion to a length it reads,
//! and accepts exactly one encoding of every entry, so equal entries have equal bytes. A kind or
//! version that this build does not know is an error of its own, never skipped.
//!
//! Never: read a clock here, or change a byte of a record batch.

mod builder;
mod link;
mod operation;
mod pipeline;
mod rule;
mod unit;

#[cfg(test)]
mod tests;

pub use builder::{EntryBuilder, PushError, unit_bytes_max};
pub use link::{LinkOperation, MirrorPlace, NewMirror, Tag};
pub use operation::{Batch, Operation, Precondition};
pub use pipeline::{EpochPlace, InputRange, NewPipeline, PipelineChange, PipelineOperation};
pub use rule::RuleSecret;
pub use unit::{Unit, UnitView, Units};

use crate::reader::Reader;
use bytes::Bytes;
use fulmar_types::{ExitCode, limits};
use thiserror::Error;

/// The version of the entry format that this build writes, and the only one that it reads.
pub const ENTRY_VERSION: u8 = 2;

/// Bytes before the first unit of an entry.
pub const ENTRY_HEADER_BYTES: usize = 32;

/// Bytes before the first item of a unit.
pub const UNIT_HEADER_BYTES: usize = 8;

/// Bytes before the body of a precondition or an operation.
pub const ITEM_HEADER_BYTES: usize = 6;

/// What a leader says about the moment at which it proposed an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryHeader {
    /// The leader's wall clock in milliseconds since 1970, never less than that of the entry
    /// before. It may be wrong, and jump forward when somebody sets it right.
    pub wall_ms: u64,
    /// The committed index that the leader knew, plus one; 0 for none. No node may ever cut its
    /// log at or below it.
    pub claim: u64,
    /// How long the site has existed, in milliseconds, as its leaders have measured it: what ages
    /// and expiries are counted in. Never less than that of the entry before.
    pub age_ms: u64,
}

impl EntryHeader {
    /// Reads the header in front of a payload without looking at its units. `None` if these bytes
    /// do not begin an entry of this version.
    pub fn peek(payload: &[u8]) -> Option<Self> {
        read_header(&mut Reader::new(payload)).ok().map(|(header, _)| header)
    }
}

/// Why a payload is not an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// The whole entry is of another version.
    #[error("entry version {0} is not known to this build")]
    UnknownVersion(u8),
    /// A precondition that this build does not know.
    #[error("precondition {kind} version {version} at byte {at} is not known to this build")]
    UnknownPrecondition {
        /// Its kind.
        kind: u8,
        /// Its version.
        version: u8,
        /// Where it begins in the payload.
        at: usize,
    },
    /// An operation that this build does not know.
    #[error("operation {kind} version {version} at byte {at} is not known to this build")]
    UnknownOperation {
        /// Its kind.
        kind: u8,
        /// Its version.
        version: u8,
        /// Where it begins in the payload.
        at: usize,
    },
    /// The bytes are not an entry of any version.
    #[error("malformed entry: {what} at byte {at}")]
    Malformed {
        /// What was expected there.
        what: &'static str,
        /// Where, in the payload.
        at: usize,
    },
}

impl EntryError {
    /// The code with which a node ends that meets such an entry in its committed log.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::UnknownVersion(_)
            | Self::UnknownPrecondition { .. }
            | Self::UnknownOperation { .. } => ExitCode::UnknownEntry,
            Self::Malformed { .. } => ExitCode::Damaged,
        }
    }
}

/// A payload whose every byte has been checked. Cheap to clone; it shares the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    header: EntryHeader,
    units: u32,
    payload: Bytes,
}

impl Entry {
    /// Checks a payload. Nothing is copied: batches of the decoded units share its memory.
    ///
    /// # Errors
    /// [`EntryError`], for every payload that [`EntryBuilder`] of this build could not have
    /// written for some segment size.
    pub fn decode(payload: Bytes) -> Result<Self, EntryError> {
        if payload.len() > limits::ENTRY_BYTES_MAX {
            return Err(EntryError::Malformed { what: "an entry within its limit", at: 0 });
        }
        let mut reader = Reader::new(&payload);
        let (header, units) = read_header(&mut reader)?;
        let mut at = reader.position();
        for _ in 0..units {
            let unit = unit::read_unit(&payload, at)?;
            unit.check()?;
            at = unit.end();
        }
        if at != payload.len() {
            return Err(EntryError::Malformed { what: "the end of the entry", at });
        }
        Ok(Self { header, units, payload })
    }

    /// What the leader said when it proposed the entry.
    pub const fn header(&self) -> EntryHeader {
        self.header
    }

    /// How many units it has, at least one.
    pub const fn unit_count(&self) -> u32 {
        self.units
    }

    /// Its units, in order.
    pub const fn units(&self) -> Units<'_> {
        Units::new(&self.payload, self.units)
    }

    /// The bytes that it was decoded from.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }
}

fn read_header(reader: &mut Reader<'_>) -> Result<(EntryHeader, u32), EntryError> {
    let cut = EntryError::Malformed { what: "an entry header", at: 0 };
    let version = reader.u8().ok_or_else(|| cut.clone())?;
    if version != ENTRY_VERSION {
        return Err(EntryError::UnknownVersion(version));
    }
    let mut fields = || {
        let (zero, units) = (reader.array::<3>()?, reader.u32()?);
        let (wall_ms, claim, age_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
        Some((zero, units, EntryHeader { wall_ms, claim, age_ms }))
    };
    let (zero, units, header) = fields().ok_or(cut)?;
    if zero != [0; 3] {
        return Err(EntryError::Malformed { what: "three zeros", at: 1 });
    }
    if units == 0 {
        return Err(EntryError::Malformed { what: "at least one unit", at: 4 });
    }
    Ok((header, units))
}

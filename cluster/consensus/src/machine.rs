//! What the log drives: a state machine that gives the same result for the same entries on every
//! node.
//!
//! Invariants that an implementation keeps: [`Machine::apply`] reads no clock, no random number
//! and nothing outside the machine; restoring a snapshot gives a machine that behaves exactly like
//! the one it was taken from.
//!
//! Never: block, or await, while a machine is locked.

use bytes::Bytes;
use fulmar_store::{Row, Section, StreamId};
use fulmar_types::{Event, ExitCode, LogPosition, Offset};
use std::sync::{Arc, Mutex, MutexGuard};
use thiserror::Error;

/// What applying one entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One compact outcome per unit, in the machine's own encoding: it is stored in the segment's
    /// footer and answered to whoever proposed the entry.
    pub outcome: Bytes,
    /// Where the record batches of the entry lie.
    pub rows: Vec<Row>,
    /// Streams that ceased to exist.
    pub dropped_streams: Vec<StreamId>,
    /// Streams whose first readable offset moved.
    pub moved_starts: Vec<(StreamId, Offset)>,
    /// Streams that go on behind offsets which have no batch.
    pub passed_streams: Vec<StreamId>,
    /// What is to be told of it.
    pub events: Vec<Event>,
}

/// Why an entry could not be applied. The node stops: going on would make it differ from the
/// others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The entry was written by a newer version.
    #[error(
        "entry {position} holds an operation that this version does not know ({what}); upgrade this node"
    )]
    UnknownOperation {
        /// The entry.
        position: LogPosition,
        /// The operation or version.
        what: String,
    },
    /// The entry passed its checksum and is malformed all the same.
    #[error("entry {position} is malformed: {what}")]
    Malformed {
        /// The entry.
        position: LogPosition,
        /// What is wrong.
        what: String,
    },
}

impl ApplyError {
    /// The code with which the node ends.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::UnknownOperation { .. } => ExitCode::UnknownEntry,
            Self::Malformed { .. } => ExitCode::Damaged,
        }
    }
}

/// Why a snapshot could not be restored. The node stops.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A section is not known, or of a newer version.
    #[error(
        "the snapshot holds a section that this version does not know ({0}); upgrade this node"
    )]
    UnknownSection(String),
    /// A section passed its checksum and is malformed all the same.
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
}

impl RestoreError {
    /// The code with which the node ends.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::UnknownSection(_) => ExitCode::UnknownEntry,
            Self::Malformed(_) => ExitCode::Damaged,
        }
    }
}

/// A deterministic state machine.
pub trait Machine: Send + 'static {
    /// Applies an entry.
    ///
    /// # Errors
    /// If this version cannot know what the entry means.
    fn apply(&mut self, position: LogPosition, payload: &Bytes) -> Result<Applied, ApplyError>;

    /// Takes note of an entry that is not the machine's (a blank one, or a membership), so that
    /// the machine knows how far it has come.
    fn pass(&mut self, position: LogPosition);

    /// The whole state, in sections.
    fn snapshot(&self) -> Vec<Section>;

    /// What [`Machine::state_hash`] would be with the state of a snapshot, which is not taken over.
    ///
    /// # Errors
    /// As [`Machine::restore`].
    fn hash_of(&self, sections: &[Section]) -> Result<u128, RestoreError>;

    /// Replaces the whole state.
    ///
    /// # Errors
    /// If this version cannot know what the snapshot means.
    fn restore(&mut self, last: LogPosition, sections: &[Section]) -> Result<(), RestoreError>;

    /// The streams that exist, with the first offset that can be read in each, in ascending order.
    fn streams(&self) -> Vec<(StreamId, Offset)>;

    /// The stream that the next new partition gets.
    fn next_stream(&self) -> StreamId;

    /// The time of the last entry, in milliseconds since 1970, as its leader saw it.
    fn wall_ms(&self) -> u64;

    /// A hash of the whole state, the same on every node that has applied the same entries.
    fn state_hash(&self) -> u128;
}

/// A machine that the apply loop and the readers share.
pub type SharedMachine = Arc<Mutex<dyn Machine>>;

pub(crate) fn locked(machine: &SharedMachine) -> MutexGuard<'_, dyn Machine> {
    machine.lock().expect("a panic while applying aborts the process")
}

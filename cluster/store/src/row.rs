//! One row of the index: where a stored record batch lies, and what a reader must know about it.
//!
//! Invariants: a row is derived from the log and can be rebuilt from it; it is the same on every
//! node, because it names an entry and a place inside its payload, never a file.

use fulmar_types::{LogIndex, Offset, Term};

/// The largest offset that a record may have: Kafka's offsets are signed on the wire.
pub const OFFSET_MAX: Offset = Offset(i64::MAX as u64);

/// A partition of a topic, as the log sees it. Assigned when the topic is created, and never
/// again to another partition of the same site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A record batch of a stream, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The stream that the batch belongs to.
    pub stream: StreamId,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many offsets it takes, at least one.
    pub records: u32,
    /// The largest timestamp of its records, in milliseconds since 1970; Kafka allows -1 for none.
    pub max_timestamp_ms: i64,
    /// The log entry that holds it.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// Where it begins in the payload of the entry, in bytes.
    pub at: u32,
    /// How long it is, in bytes.
    pub len: u32,
    /// crc32c of its bytes as they are stored, which is not the checksum inside the batch: that
    /// one leaves out the base offset and the leader epoch.
    pub crc: u32,
}

impl Row {
    /// The offset after its last record.
    ///
    /// # Panics
    /// Never for a row that was decoded or appended: those end at [`OFFSET_MAX`] at the latest.
    pub const fn end_offset(&self) -> Offset {
        self.base_offset.plus(self.records as u64)
    }

    /// Whether the row takes at least one offset, and none that Kafka cannot name.
    pub(crate) fn has_valid_offsets(&self) -> bool {
        self.records > 0
            && self.base_offset.0 <= OFFSET_MAX.0
            && OFFSET_MAX.0 - self.base_offset.0 >= u64::from(self.records) - 1
    }
}

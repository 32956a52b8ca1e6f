//! What the broker needs of the site's Raft group and of its stored records, as two small traits,
//! so that everything above can be tested against a group in memory.
//!
//! Invariants that an implementation keeps:
//! - Entries come to lie in the log in the order in which the futures of [`GroupHandle::propose`]
//!   were polled for the first time.
//! - An entry is applied, and its rows can be read, before its proposal is answered.
//! - [`Records`] holds what was applied, and nothing else.

use bytes::Bytes;
use fulmar_host::BoxFuture;
use fulmar_host::time::Instant;
use fulmar_store::{Row, StoredBatch, StreamId};
use fulmar_types::{LogIndex, LogPosition, Offset};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use fulmar_consensus::{
    Answerer, AskError, Leadership, NodeSeen, ProposeError, Proposed, ReadError, ReadPoint,
};

/// The Raft group of the site.
pub trait GroupHandle: Send + Sync + 'static {
    /// Proposes an entry and waits until it is applied here.
    fn propose(&self, payload: Bytes) -> BoxFuture<'static, Result<Proposed, ProposeError>>;

    /// Whether the disks of the site have room for records, as far as this node knows.
    fn takes_records(&self) -> bool;

    /// Waits until an entry with a payload of so many bytes has its place on this node's disk;
    /// `false` if there is none to be had now. With records in it, it must leave the reserve alone.
    fn room_for(&self, payload_bytes: usize, has_records: bool) -> BoxFuture<'static, bool>;

    /// The index that the next entry of this node's log gets.
    fn log_end(&self) -> LogIndex;

    /// Waits until this node's log is flushed up to an index and including it, or will not be
    /// flushed any more. Whoever waits for an index that may never be taken waits for something
    /// else as well.
    fn wait_flushed(&self, through: LogIndex) -> BoxFuture<'static, ()>;

    /// Who leads, as far as this node knows.
    fn leadership(&self) -> Leadership;

    /// Until when the peers have granted that nobody else leads, if this node does and they have.
    fn lease_until(&self) -> Option<Instant>;

    /// Waits until the leadership differs from `seen`.
    fn wait_leadership_change(&self, seen: Leadership) -> BoxFuture<'static, ()>;

    /// Proves that this node leads now and has applied an entry of its term, and waits until all
    /// that was committed before the call is applied here.
    fn read_barrier(&self) -> BoxFuture<'static, Result<ReadPoint, ReadError>>;

    /// The nodes of the site by id, with this one, if it leads; else none.
    fn alive(&self) -> Vec<NodeSeen>;

    /// Puts a question to the node that leads, for as long as the answer is waited for.
    fn ask_leader(
        &self,
        question: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, AskError>>;

    /// From now on the questions of other nodes are answered.
    fn answer_with(&self, answerer: Arc<dyn Answerer>);

    /// The last entry that was applied here.
    fn applied(&self) -> Option<LogPosition>;

    /// Whether all that this node knew in an earlier life is applied again.
    fn has_caught_up(&self) -> bool;
}

/// The store could not read. It ends the process by itself where that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored records cannot be read")]
pub struct RecordsError;

/// The records of all partitions.
pub trait Records: Send + Sync + 'static {
    /// The batches of a stream from the one that holds the first offset on, as long as they end at
    /// or below the last one: the first whatever its size, and more while all of them fit into
    /// `max_bytes`.
    fn read(
        &self,
        stream: StreamId,
        range: Range<Offset>,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredBatch>, RecordsError>>;

    /// The first batch of a stream with a record at or after a time, by its largest timestamp.
    fn by_timestamp(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> BoxFuture<'static, Result<Option<Row>, RecordsError>>;

    /// The payloads of normal entries that lie in this node's log behind `applied`. Nothing but a
    /// planted bug asks for them.
    fn unapplied(&self, applied: Option<LogPosition>) -> BoxFuture<'static, Vec<Bytes>>;
}

//! Bytes at rest: the log, its index, votes and snapshots of one node, over
//! [`fulmar_host::disk::Disk`].
//!
//! | module | what |
//! |---|---|
//! | [`store`] | what consensus and broker see: [`Store`] |
//! | [`mod@format`] | every layout of the log core |
//! | [`entry`] | what an entry carries |
//! | [`footer`], [`index`] | finding batches |
//! | [`snapshot`] | the state of the machine |
//! | `recovery` | from a directory to a log: a decision table and its driver |
//! | `log`, `cache` | the unsealed segments in memory |
//! | `writer`, `spare`, `seal` | the three tasks: changes in order, files ahead of need, seals |
//! | `figures` | what is counted |
//! | `read`, `incoming`, `install`, `gc` | reading, taking segments from peers, removing |
//!
//! Invariants: a record is written once; what the disk confirmed is never cut, what it may have
//! confirmed is never cut silently; everything but the log itself, the vote and the identity can be
//! rebuilt from the log. After an error of the disk the store does nothing any more.

mod cache;
mod core;
pub mod entry;
pub mod error;
mod figures;
mod files;
pub mod footer;
pub mod format;
mod gc;
mod handles;
mod incoming;
pub mod index;
mod install;
mod life;
mod log;
#[cfg(test)]
mod mutation;
mod paths;
mod read;
mod reader;
mod recovery;
mod row;
mod seal;
pub mod snapshot;
mod space;
mod spare;
pub mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::core::FlushCallback;
pub use error::{IncomingError, OpenError, Poisoned, ReadError};
pub use figures::{FLUSH_BUCKETS_US, StoreFigures};
pub use format::frame::{EntryKind, LogEntry, content_hash};
pub use format::identity::Identity;
pub use format::life::Life;
pub use format::manifest::SealedInfo;
pub use format::vote::SavedVote;
pub use read::StoredBatch;
pub use row::{OFFSET_MAX, Row, StreamId};
pub use snapshot::{Section, Snapshot};
pub use space::{Demand, Room};
pub use store::{Prepared, Recovered, Store, StoreSettings};

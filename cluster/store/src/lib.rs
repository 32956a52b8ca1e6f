//! Bytes at rest: entries, segments, index, recovery, votes, snapshots.

pub mod entry;
pub mod footer;
pub mod format;
pub mod index;
#[cfg(test)]
mod mutation;
mod reader;
mod row;
pub mod snapshot;

pub use row::{OFFSET_MAX, Row, StreamId};

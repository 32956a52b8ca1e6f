//! Bytes at rest: entries, segments, index, recovery, votes, snapshots.

pub mod entry;
pub mod format;
mod reader;
mod row;

pub use row::{OFFSET_MAX, Row, StreamId};

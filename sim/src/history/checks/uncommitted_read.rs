//! Only committed data is read: what a client was shown is in the log, at that offset, for ever. A
//! record above the commit may be lost with its leader (Ongaro 2014, section 3.6.2); Jepsen's "dirty
//! reads"; Kafka shows nothing above the high watermark (KIP-101).
//!
//! It needs the log as it was read back: a topic that is deleted before is judged by nobody. Where no
//! read back exists, or both contents were told by others, [`super::Changed`] has the word.

use super::PartitionHistory;
use crate::history::{Operation, PartitionName, Payload, ReadBack};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// A record that a client read and that was not in the log at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{partition}: record {payload} was read at offset {offset} and is not there; the log that was \
     read back {instead}\n  {read}"
)]
pub struct UncommittedRead {
    /// Where.
    pub partition: PartitionName,
    /// The offset at which it was read.
    pub offset: Offset,
    /// The record.
    pub payload: Payload,
    /// What the log has there.
    pub instead: Instead,
    /// Who read it.
    pub read: Box<Operation>,
}

/// What a log has at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Another record.
    Record(Payload),
    /// Nothing, because it ends here or before.
    End(Offset),
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(payload) => write!(f, "has record {payload} there"),
            Self::End(end) => write!(f, "ends at {end}"),
        }
    }
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<UncommittedRead> {
    let read_back = log.read_back?;
    let ReadBack { start, records, .. } = read_back;
    let there: BTreeMap<Offset, Payload> =
        records.iter().map(|record| (record.offset, record.payload)).collect();
    let end = read_back.end();
    log.operations.iter().copied().find_map(|read| {
        let mut seen = read.seen().iter().filter(|record| record.offset >= *start);
        let gone = seen.find(|record| there.get(&record.offset) != Some(&record.payload))?;
        let instead = there.get(&gone.offset).copied().map_or(Instead::End(end), Instead::Record);
        Some(UncommittedRead {
            partition: log.name.clone(),
            offset: gone.offset,
            payload: gone.payload,
            instead,
            read: Box::new(read.clone()),
        })
    })
}

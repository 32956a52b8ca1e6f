//! What Fetch and ListOffsets have in common: finding a partition, and being allowed to read it.
//!
//! Invariants: a read is answered only if this node proved, after it had looked at the data, that
//! it still led in the term in which it began.

use crate::broker::Broker;
use crate::error_map;
use crate::group::{ReadError, ReadPoint};
use crate::machine::partitions::Partition;
use crate::machine::state::State;
use fulmar_host::time;
use fulmar_store::StreamId;
use fulmar_types::{Event, Offset, PartitionIndex, Plant, Term};
use fulmar_wire::ErrorCode;

/// A term as a leader epoch. Terms stay far below 2^31: one election a second takes 68 years.
pub(super) fn epoch_of(term: Term) -> i32 {
    i32::try_from(term.get()).unwrap_or(i32::MAX)
}

/// An offset as it stands on the wire.
pub(super) fn wire_offset(offset: Offset) -> i64 {
    i64::try_from(offset.get()).unwrap_or(i64::MAX)
}

/// The stream of a partition.
pub(super) fn stream_of(state: &State, topic: &str, partition: i32) -> Option<StreamId> {
    let index = u32::try_from(partition).ok()?;
    state.topics().by_name(topic)?.stream(PartitionIndex(index))
}

/// The epoch of the record at an offset, -1 if it is not known.
pub(super) fn epoch_at(partition: &Partition, offset: Offset) -> i32 {
    let epochs = partition.epochs.iter().rev();
    let found = epochs.map(|(term, from)| (*term, *from)).find(|(_, from)| *from <= offset);
    found.map_or(-1, |(term, _)| epoch_of(term))
}

/// Compares the epoch that a client knows, -1 for none, with the present one (KIP-320).
pub(super) fn check_epoch(client: i32, current: Term) -> Result<(), ErrorCode> {
    let current = epoch_of(current);
    if client < 0 || client == current {
        Ok(())
    } else if client < current {
        Err(ErrorCode::FencedLeaderEpoch)
    } else {
        Err(ErrorCode::UnknownLeaderEpoch)
    }
}

/// The right to read in a term, still to be confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The term that this node leads.
    pub(super) term: Term,
}

impl Broker {
    /// Asks for the right to read: this node leads, and has applied what earlier leaders
    /// committed.
    pub(super) async fn begin_read(&self) -> Result<Reading, ErrorCode> {
        let before = self.group.leadership();
        let reading = self.prove_leadership().await;
        if reading.is_err() && before.is_me {
            self.host.report(Event::ReadRefused { term: before.term });
        }
        reading
    }

    /// Confirms, right before the answer, that what was read was this node's to answer.
    pub(super) async fn end_read(&self, reading: Reading) -> Result<(), ErrorCode> {
        if fulmar_host::planted(Plant::ReadWithoutLease) {
            return Ok(());
        }
        match self.read_barrier().await {
            Ok(point) if point.term == reading.term => Ok(()),
            Ok(_) => Err(ErrorCode::NotLeaderOrFollower),
            Err(error) => {
                self.host.report(Event::ReadRefused { term: reading.term });
                Err(error_map::of_read(error))
            }
        }
    }

    /// The same as [`Broker::begin_read`] for what is no read.
    pub(super) async fn prove_leadership(&self) -> Result<Reading, ErrorCode> {
        let leadership = self.group.leadership();
        if fulmar_host::planted(Plant::ReadWithoutLease) && leadership.is_me {
            return Ok(Reading { term: leadership.term });
        }
        let point = self.read_barrier().await.map_err(error_map::of_read)?;
        Ok(Reading { term: point.term })
    }

    /// Without a quorum the group cannot say; after a while that is an answer too.
    async fn read_barrier(&self) -> Result<ReadPoint, ReadError> {
        let patience = self.settings.request_timeout_max;
        let barrier = time::timeout(patience, self.group.read_barrier()).await;
        barrier.unwrap_or(Err(ReadError::NotLeader))
    }
}

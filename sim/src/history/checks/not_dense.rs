//! Offsets are dense: a read returns them one after the other from the asked one on, and the whole
//! log does so from its start on. Kafka allows gaps (compaction, transaction markers); a Fulmar site has
//! neither and gives every offset exactly one record. What it declares that it did not keep for its budget
//! is not there.

use super::{PartitionHistory, Witness};
use crate::history::{Action, PartitionName, ReadOutcome, SeenRecord};
use fulmar_types::Offset;
use thiserror::Error;

/// An offset that was skipped or came again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{partition}: offset {found} was read where {expected} had to come\n  {witness}")]
pub struct NotDense {
    /// Where.
    pub partition: PartitionName,
    /// The offset that had to come.
    pub expected: Offset,
    /// The one that came.
    pub found: Offset,
    /// Who read it.
    pub witness: Witness,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<NotDense> {
    let reads = log.operations.iter().filter_map(|operation| match &operation.action {
        Action::Read { from, outcome: ReadOutcome::Answer(answer) } => {
            Some((*from, answer.records.as_slice(), Some(*operation)))
        }
        _ => None,
    });
    let whole = log.read_back.map(|read| (read.start, read.records.as_slice(), None));
    reads.chain(whole).find_map(|(from, records, read_by)| {
        let (expected, found) = first_gap(log, from, records)?;
        Some(NotDense {
            partition: log.name.clone(),
            expected,
            found,
            witness: PartitionHistory::witness(read_by),
        })
    })
}

fn first_gap(
    log: &PartitionHistory<'_>,
    from: Offset,
    records: &[SeenRecord],
) -> Option<(Offset, Offset)> {
    let mut expected = from;
    for SeenRecord { offset: found, .. } in records {
        if *found < expected || !log.may_lack_all(expected, *found) {
            return Some((expected, *found));
        }
        expected = found.plus(1);
    }
    None
}

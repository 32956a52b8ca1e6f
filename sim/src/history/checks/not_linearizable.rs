//! Produce, read and latest-offset are linearizable, per partition (Herlihy, Wing 1990): see
//! [`crate::linear`]. The reader of the whole log counts as one read after everything else. A read that
//! passed over what was not kept, which [`super::NotDense`] judges, counts as one for each part.

use super::PartitionHistory;
use crate::history::{
    Action, ClientId, Operation, PartitionName, ReadAnswer, ReadOutcome, SeenRecord, Time,
};
use crate::linear;
use thiserror::Error;

/// A partition that did not answer as one log in one place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{partition}: {violation}")]
pub struct NotLinearizable {
    /// Where.
    pub partition: PartitionName,
    /// The operations that contradict one another, and how.
    pub violation: Box<linear::Violation>,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<NotLinearizable> {
    let last_read = log.read_back.map(|read| Operation {
        client: ClientId::LAST_READER,
        partition: log.name.clone(),
        invoked: Time::END,
        returned: Some(Time::END),
        action: Action::Read {
            from: read.start,
            outcome: ReadOutcome::Answer(ReadAnswer {
                records: read.records.clone(),
                high_watermark: read.end(),
                log_start: read.start,
            }),
        },
    });
    // What went for its age is another check's to judge.
    let gone = log.reads_before_start();
    let mut operations = log.operations.clone();
    operations.retain(|operation| !gone.iter().any(|(read, _)| std::ptr::eq(*read, *operation)));
    operations.extend(&last_read);
    let parts: Vec<Operation> = operations.iter().flat_map(|operation| parts(operation)).collect();
    operations.retain(|operation| consecutive(operation).len() <= 1);
    operations.extend(&parts);
    let violation = Box::new(linear::check(&operations).err()?);
    Some(NotLinearizable { partition: log.name.clone(), violation })
}

/// The records of a read, cut where offsets are passed over.
fn consecutive(operation: &Operation) -> Vec<&[SeenRecord]> {
    let parts = operation.seen().chunk_by(|one, next| one.offset.plus(1) == next.offset);
    let parts: Vec<_> = parts.collect();
    match &operation.action {
        // What was passed over may lie at the front.
        Action::Read { from, .. } if parts.first().is_some_and(|p| p[0].offset > *from) => {
            std::iter::once(&[][..]).chain(parts).collect()
        }
        _ => parts,
    }
}

/// A read that passed over something as several; nothing for any other operation.
fn parts(operation: &Operation) -> Vec<Operation> {
    let Action::Read { from, outcome: ReadOutcome::Answer(answer) } = &operation.action else {
        return Vec::new();
    };
    let parts = consecutive(operation);
    if parts.len() <= 1 {
        return Vec::new();
    }
    let part = |records: &[SeenRecord]| Operation {
        action: Action::Read {
            from: records.first().map_or(*from, |record| record.offset),
            outcome: ReadOutcome::Answer(ReadAnswer {
                records: records.to_vec(),
                ..answer.clone()
            }),
        },
        ..operation.clone()
    };
    parts.into_iter().map(part).collect()
}

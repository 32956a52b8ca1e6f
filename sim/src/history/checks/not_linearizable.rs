//! Produce, read and latest-offset are linearizable, per partition (Herlihy, Wing 1990): see
//! [`crate::linear`]. The reader of the whole log counts as one read after everything else.

use super::PartitionHistory;
use crate::history::{Action, ClientId, Operation, PartitionName, ReadAnswer, ReadOutcome, Time};
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
    let violation = Box::new(linear::check(&operations).err()?);
    Some(NotLinearizable { partition: log.name.clone(), violation })
}

//! No answer is damaged: what a node sends is a log, with every checksum right and every batch where
//! it belongs, and it sends it to the end. Kafka's batch format carries a CRC-32C for that (KIP-98,
//! "Message Format"); damage at rest has to be met before a client sees it (Ganesan et al. 2017,
//! "Redundancy Does Not Imply Fault Tolerance").

use super::PartitionHistory;
use crate::history::{Action, Operation, PartitionName, ReadOutcome};
use thiserror::Error;

/// An answer that no log gives.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{partition}: a read was answered with damage (in all: {answers})\n  {read}")]
pub struct DamagedAnswer {
    /// Where.
    pub partition: PartitionName,
    /// How many answers of the partition are damaged.
    pub answers: u64,
    /// The first of these reads.
    pub read: Box<Operation>,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<DamagedAnswer> {
    let mut damaged = log.operations.iter().copied().filter(|operation| {
        matches!(&operation.action, Action::Read { outcome: ReadOutcome::Damaged(_), .. })
    });
    let read = damaged.next()?;
    Some(DamagedAnswer {
        partition: log.name.clone(),
        answers: 1 + damaged.count() as u64,
        read: Box::new(read.clone()),
    })
}

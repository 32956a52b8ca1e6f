//! Nothing is invented: what is read was produced, by a request that had been sent by then and that
//! was not refused for good. Jepsen's "dirty reads" and "phantom writes"; Kafka's guarantee that a
//! produce request that fails with a final error is not in the log.

use super::{PartitionHistory, Witness};
use crate::history::{Action, Operation, PartitionName, Payload, ProduceOutcome};
use fulmar_types::Offset;
use std::fmt;
use thiserror::Error;

/// A record that cannot be where it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{partition}: record {payload} at offset {offset} {reason}\n  {witness}")]
pub struct Invented {
    /// Where.
    pub partition: PartitionName,
    /// The offset at which it was seen.
    pub offset: Offset,
    /// The record.
    pub payload: Payload,
    /// Why it cannot be there.
    pub reason: Reason,
    /// Who saw it.
    pub witness: Witness,
}

/// Why a record cannot be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody ever produced it to this partition.
    NeverProduced,
    /// The request that produced it was answered with a final error.
    Failed(Box<Operation>),
    /// It was read before it was produced.
    TooEarly(Box<Operation>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverProduced => f.write_str("was never produced"),
            Self::Failed(produce) => write!(f, "was refused for good\n  {produce}"),
            Self::TooEarly(produce) => write!(f, "was read before it was produced\n  {produce}"),
        }
    }
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<Invented> {
    log.seen().find_map(|(record, seen_by)| {
        let reason = match log.origins.get(&record.payload) {
            None => Reason::NeverProduced,
            Some(origin) => {
                let produce = origin.operation;
                let over = seen_by.and_then(|read| read.returned);
                let boxed = || Box::new(produce.clone());
                match &produce.action {
                    Action::Produce { outcome: ProduceOutcome::Failed, .. } => {
                        Reason::Failed(boxed())
                    }
                    _ if over.is_some_and(|over| over < produce.invoked) => {
                        Reason::TooEarly(boxed())
                    }
                    _ => return None,
                }
            }
        };
        Some(Invented {
            partition: log.name.clone(),
            offset: record.offset,
            payload: record.payload,
            reason,
            witness: PartitionHistory::witness(seen_by),
        })
    })
}

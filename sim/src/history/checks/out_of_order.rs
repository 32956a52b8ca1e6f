//! The records of one producer lie in the log in the order of their numbers (Kafka's ordering
//! guarantee per producer and partition; KIP-98 for idempotent ones).
//!
//! Of an idempotent producer this holds without exception. Another producer's batch of unknown
//! outcome may arrive after later ones, so for those only batches count whose outcome was known
//! before the next one was sent.

use super::{Origin, PartitionHistory, Witness};
use crate::history::{Action, Operation, PartitionName, ProduceOutcome, ProducerTag};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use thiserror::Error;

/// Two records of a producer in the wrong order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{partition}: {producer} has number {late} at offset {late_offset}, behind number {early} at \
     offset {early_offset}\n  {late_witness}\n  {early_witness}"
)]
pub struct OutOfOrder {
    /// Where.
    pub partition: PartitionName,
    /// Whose records.
    pub producer: ProducerTag,
    /// The smaller number.
    pub late: u64,
    /// Its offset, the larger one.
    pub late_offset: Offset,
    /// The larger number.
    pub early: u64,
    /// Its offset, the smaller one.
    pub early_offset: Offset,
    /// Who saw the record with the smaller number, or was told that it is there.
    pub late_witness: Witness,
    /// Who saw the record with the larger number, or was told that it is there.
    pub early_witness: Witness,
}

/// A record with its place.
#[derive(Clone, Copy)]
struct Seen<'a> {
    origin: Origin<'a>,
    offset: Offset,
    told_by: Option<&'a Operation>,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<OutOfOrder> {
    // Of each producer the record with the largest number so far, going up the log.
    let mut largest: BTreeMap<ProducerTag, Seen<'_>> = BTreeMap::new();
    for (offset, (payload, told_by)) in log.contents() {
        let Some(origin) = log.origins.get(&payload).copied() else { continue };
        let seen = Seen { origin, offset, told_by };
        let before = largest.entry(origin.batch.producer).or_insert(seen);
        if before.origin.sequence <= origin.sequence {
            *before = seen;
        } else if had_to_come_first(&origin, &before.origin) {
            return Some(OutOfOrder {
                partition: log.name.clone(),
                producer: origin.batch.producer,
                late: origin.sequence,
                late_offset: offset,
                early: before.origin.sequence,
                early_offset: before.offset,
                late_witness: PartitionHistory::witness(told_by),
                early_witness: PartitionHistory::witness(before.told_by),
            });
        }
    }
    None
}

/// Whether the batch with the smaller number cannot arrive after the other.
fn had_to_come_first(smaller: &Origin<'_>, larger: &Origin<'_>) -> bool {
    let known = matches!(
        smaller.operation.action,
        Action::Produce { outcome: ProduceOutcome::Acked(_) | ProduceOutcome::Failed, .. }
    );
    let over_before = smaller.operation.returned.is_some_and(|t| t < larger.operation.invoked);
    (smaller.batch.idempotent && larger.batch.idempotent)
        || smaller.operation == larger.operation
        || (known && over_before)
}

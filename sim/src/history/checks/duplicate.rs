//! An idempotent producer's record lies in the log once, however often it was sent (KIP-98,
//! "Idempotent Producer Guarantees"). A record of another producer is sent once and may not be there
//! twice either, but that is no question of sending again: [`super::NotLinearizable`] finds it.

use super::{PartitionHistory, Witness};
use crate::history::{PartitionName, Payload};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use thiserror::Error;

/// A record of an idempotent producer that lies at two offsets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{partition}: record {payload} of an idempotent producer is at offset {first} and again at \
     {second}\n  {first_witness}\n  {second_witness}"
)]
pub struct Duplicate {
    /// Where.
    pub partition: PartitionName,
    /// The record.
    pub payload: Payload,
    /// One offset.
    pub first: Offset,
    /// The other.
    pub second: Offset,
    /// Who saw it at the first, or was told that it is there.
    pub first_witness: Witness,
    /// Who saw it at the second, or was told that it is there.
    pub second_witness: Witness,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<Duplicate> {
    let mut places = BTreeMap::new();
    let acked = log.acked().map(|(record, operation)| (record, Some(operation)));
    for (record, told_by) in acked.chain(log.seen()) {
        let idempotent = |origin: &super::Origin<'_>| origin.batch.idempotent;
        if !log.origins.get(&record.payload).is_some_and(idempotent) {
            continue;
        }
        let (first, first_told_by) =
            *places.entry(record.payload).or_insert((record.offset, told_by));
        if first != record.offset {
            return Some(Duplicate {
                partition: log.name.clone(),
                payload: record.payload,
                first,
                second: record.offset,
                first_witness: PartitionHistory::witness(first_told_by),
                second_witness: PartitionHistory::witness(told_by),
            });
        }
    }
    None
}

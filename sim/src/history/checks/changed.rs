//! One offset has one content for ever: all who were told what lies there were told the same. Log
//! Matching and State Machine Safety (Ongaro 2014, sections 3.5 and 3.6.3) as clients see them.

use super::{PartitionHistory, Witness};
use crate::history::{PartitionName, Payload};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use thiserror::Error;

/// An offset at which two records were seen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{partition}: offset {offset} holds record {first} and also record {second}\n  \
     {first_witness}\n  {second_witness}"
)]
pub struct Changed {
    /// Where.
    pub partition: PartitionName,
    /// The offset.
    pub offset: Offset,
    /// One record.
    pub first: Payload,
    /// The other.
    pub second: Payload,
    /// Who saw the one, or was told that it is there.
    pub first_witness: Witness,
    /// Who saw the other, or was told that it is there.
    pub second_witness: Witness,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<Changed> {
    let mut contents = BTreeMap::new();
    let acked = log.acked().map(|(record, operation)| (record, Some(operation)));
    for (record, told_by) in acked.chain(log.seen()) {
        let (first, first_told_by) =
            *contents.entry(record.offset).or_insert((record.payload, told_by));
        if first != record.payload {
            return Some(Changed {
                partition: log.name.clone(),
                offset: record.offset,
                first,
                second: record.payload,
                first_witness: PartitionHistory::witness(first_told_by),
                second_witness: PartitionHistory::witness(told_by),
            });
        }
    }
    None
}

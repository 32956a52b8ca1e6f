//! No acknowledged record is lost: what a producer was told is in the log, at the offset it was
//! told, for ever. The promise of acks=all with a flush on a majority; Jepsen's "lost writes", and
//! Leader Completeness (Ongaro 2014, section 3.6.3) as a client sees it.

use super::PartitionHistory;
use crate::history::{Operation, PartitionName, Payload, ReadBack, SeenRecord};
use fulmar_types::Offset;
use thiserror::Error;

/// An acknowledged record that was not in the log at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{partition}: record {payload} was acknowledged at offset {offset} and is lost (lost in all: \
     {lost}); the log that was read back ends at {end}\n  {acked_by}"
)]
pub struct AckedLost {
    /// Where.
    pub partition: PartitionName,
    /// The offset that the producer was told.
    pub offset: Offset,
    /// The record.
    pub payload: Payload,
    /// How many acknowledged records of the partition are lost.
    pub lost: u64,
    /// The end of the log that was read back.
    pub end: Offset,
    /// The produce request.
    pub acked_by: Box<Operation>,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<AckedLost> {
    let read_back = log.read_back?;
    let ReadBack { start, records, .. } = read_back;
    let there = |offset: Offset, payload: Payload| {
        let at = records.partition_point(|record| record.offset < offset);
        records[at..].iter().take_while(|r| r.offset == offset).any(|r| r.payload == payload)
    };
    // What went before is judged by [`super::Expired`], what was not kept by [`super::Miscounted`].
    let stays = |record: &SeenRecord| record.offset >= *start && !log.may_lack(record.offset);
    let mut lost =
        log.acked().filter(|(record, _)| stays(record) && !there(record.offset, record.payload));
    let (record, operation) = lost.next()?;
    Some(AckedLost {
        partition: log.name.clone(),
        offset: record.offset,
        payload: record.payload,
        lost: 1 + lost.count() as u64,
        end: read_back.end(),
        acked_by: Box::new(operation.clone()),
    })
}

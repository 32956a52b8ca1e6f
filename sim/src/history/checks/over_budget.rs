//! A partition whose budget is a maximum (`keep-oldest`, `block`) never holds more than that, or one batch:
//! what was acknowledged between the start and the end that one answer tells was there at one moment.
//! Bytes are counted at the least that they can be, so the check allows about a sixteenth more with records
//! of the size that our clients send.

use super::PartitionHistory;
use crate::history::{Action, Budget, Operation, PartitionName, ReadOutcome};
use fulmar_types::Offset;
use thiserror::Error;

/// Bytes of a record that [`crate::history::Batch::bytes_max`] counts too many, at most, those of its
/// batch included.
const OVERCOUNTED: u64 = 32;

/// A partition with more than its budget.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{partition}: from offset {start} to {end} there were {bytes} bytes at least, and its budget is \
     {limit}\n  {told_by}"
)]
pub struct OverBudget {
    /// Where.
    pub partition: PartitionName,
    /// Where the log began.
    pub start: Offset,
    /// Where it ended, at the same moment.
    pub end: Offset,
    /// Bytes that it held at least.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub limit: u64,
    /// Who was told so.
    pub told_by: Box<Operation>,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<OverBudget> {
    let limit = log.kept?.bytes.filter(|_| log.budget() != Budget::KeepNewest)?;
    let mut batches: Vec<(Offset, Offset, u64)> = Vec::new();
    for operation in &log.operations {
        let Some((batch, base)) = operation.acked() else { continue };
        if !log.may_lack(base) {
            let bytes = batch.bytes_max.saturating_sub(OVERCOUNTED * batch.count());
            batches.push((base, base.plus(batch.count()), bytes));
        }
    }
    batches.sort();
    log.operations.iter().find_map(|operation| {
        let Action::Read { outcome: ReadOutcome::Answer(answer), .. } = &operation.action else {
            return None;
        };
        let (start, end) = (answer.log_start, answer.high_watermark);
        let first = batches.partition_point(|(base, _, _)| *base < start);
        let held = batches[first..].iter().take_while(|(_, behind, _)| *behind <= end);
        let (count, bytes) = held.fold((0, 0), |sum, batch| (sum.0 + 1, sum.1 + batch.2));
        (count > 1 && bytes > limit).then(|| OverBudget {
            partition: log.name.clone(),
            start,
            end,
            bytes,
            limit,
            told_by: Box::new((*operation).clone()),
        })
    })
}

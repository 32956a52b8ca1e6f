//! Which append stands where: step 1 of the argument in [`super`].

use super::violation::{Rule, Violation};
use crate::history::{
    Action, Batch, Operation, Payload, ProduceOutcome, ReadAnswer, ReadOutcome, Time,
};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// An append whose place in the log is known.
#[derive(Clone, Copy)]
pub(super) struct Append<'a> {
    pub(super) operation: &'a Operation,
    pub(super) base: Offset,
    /// The offset after its last record.
    pub(super) end: Offset,
    /// The operation that tells its place: itself, or one that read it.
    pub(super) shown_by: &'a Operation,
}

/// An append of unknown outcome, of which no record was read.
#[derive(Clone, Copy)]
pub(super) struct Free<'a> {
    pub(super) operation: &'a Operation,
    pub(super) count: u64,
}

/// What the answers say about places.
pub(super) struct Placed<'a> {
    /// By offset, without overlap.
    pub(super) appends: Vec<Append<'a>>,
    pub(super) free: Vec<Free<'a>>,
    /// Operations that saw the log end at an offset, by that offset.
    pub(super) ends: Vec<(Offset, &'a Operation)>,
    /// Operations that saw the log end before an offset, by that offset.
    pub(super) too_short: Vec<(Offset, &'a Operation)>,
}

/// The time by which the point of an operation must lie. An append that is not acknowledged may
/// take effect at any time after its call.
pub(super) fn deadline(operation: &Operation) -> Time {
    match (&operation.action, operation.returned) {
        (Action::Produce { outcome: ProduceOutcome::Unknown, .. }, _) | (_, None) => Time::END,
        (_, Some(returned)) => returned,
    }
}

/// Finds the place of every append that an answer tells.
pub(super) fn place<'a>(operations: &[&'a Operation]) -> Result<Placed<'a>, Violation> {
    let mut placing = Placing::default();
    for operation in operations {
        placing.index(operation);
    }
    let mut ends = Vec::new();
    let mut too_short = Vec::new();
    for operation in operations {
        match &operation.action {
            Action::Produce { batch, outcome: ProduceOutcome::Acked(base) } => {
                placing.pin(operation, batch, *base, operation)?;
            }
            Action::Read { from, outcome: ReadOutcome::Answer(answer) } => {
                placing.read(operation, *from, answer)?;
                ends.push((answer.high_watermark, *operation));
            }
            Action::Read { from, outcome: ReadOutcome::OutOfRange } => {
                if from.get() == 0 {
                    return Err(Violation::new(Rule::NothingBeforeZero, &[operation]));
                }
                too_short.push((*from, *operation));
            }
            Action::Latest { end: Some(end) } => ends.push((*end, *operation)),
            Action::Produce { .. }
            | Action::Read { .. }
            | Action::Latest { end: None }
            // The object of this check has no start.
            | Action::Earliest { .. }
            | Action::Keep { .. } => {}
        }
    }
    ends.sort_by_key(|(end, operation)| (*end, operation.invoked));
    too_short.sort_by_key(|(offset, operation)| (*offset, operation.invoked));
    placing.finish(operations, ends, too_short)
}

#[derive(Default)]
struct Placing<'a> {
    /// Who produced a payload, and the position in its batch.
    produced: BTreeMap<Payload, (&'a Operation, &'a Batch, u64)>,
    /// The appends with a place, by their first payload, which no other has.
    pinned: BTreeMap<Payload, Append<'a>>,
}

impl<'a> Placing<'a> {
    fn index(&mut self, operation: &'a Operation) {
        let Action::Produce { batch, .. } = &operation.action else { return };
        assert!(!batch.payloads.is_empty(), "a batch has a record: {operation}");
        for (at, payload) in batch.payloads.iter().enumerate() {
            let known = self.produced.insert(*payload, (operation, batch, at as u64));
            assert!(known.is_none(), "the payload {payload} is produced twice");
        }
    }

    fn pin(
        &mut self,
        operation: &'a Operation,
        batch: &Batch,
        base: Offset,
        shown_by: &'a Operation,
    ) -> Result<(), Violation> {
        let append = Append { operation, base, end: base.plus(batch.count()), shown_by };
        match self.pinned.entry(batch.payloads[0]) {
            Entry::Vacant(entry) => {
                entry.insert(append);
                Ok(())
            }
            Entry::Occupied(entry) if entry.get().base == base => Ok(()),
            Entry::Occupied(entry) => Err(Violation::new(
                Rule::TwoPlaces { first: entry.get().base, second: base },
                &[operation, entry.get().shown_by, shown_by],
            )),
        }
    }

    fn read(
        &mut self,
        read: &'a Operation,
        from: Offset,
        answer: &ReadAnswer,
    ) -> Result<(), Violation> {
        let mut expected = from;
        for record in &answer.records {
            let offset = record.offset;
            if offset != expected {
                return Err(Violation::new(
                    Rule::NotConsecutive { expected, found: offset },
                    &[read],
                ));
            }
            expected = expected.plus(1);
            let payload = record.payload;
            let Some((append, batch, position)) = self.produced.get(&payload).copied() else {
                return Err(Violation::new(Rule::NeverAppended { offset, payload }, &[read]));
            };
            if matches!(append.action, Action::Produce { outcome: ProduceOutcome::Failed, .. }) {
                return Err(Violation::new(Rule::FailedAppendSeen { offset }, &[append, read]));
            }
            let Some(base) = offset.get().checked_sub(position) else {
                return Err(Violation::new(Rule::TornBatch { offset }, &[append, read]));
            };
            self.pin(append, batch, Offset(base), read)?;
        }
        if expected > answer.high_watermark {
            return Err(Violation::new(Rule::BeyondEnd { end: answer.high_watermark }, &[read]));
        }
        Ok(())
    }

    fn finish(
        self,
        operations: &[&'a Operation],
        ends: Vec<(Offset, &'a Operation)>,
        too_short: Vec<(Offset, &'a Operation)>,
    ) -> Result<Placed<'a>, Violation> {
        let free = operations
            .iter()
            .filter_map(|operation| match &operation.action {
                Action::Produce { batch, outcome: ProduceOutcome::Unknown } => {
                    let pinned = self.pinned.contains_key(&batch.payloads[0]);
                    (!pinned).then(|| Free { operation, count: batch.count() })
                }
                _ => None,
            })
            .collect();
        let mut appends: Vec<Append<'a>> = self.pinned.into_values().collect();
        appends.sort_by_key(|append| append.base);
        for (first, second) in appends.iter().zip(appends.iter().skip(1)) {
            if second.base < first.end {
                return Err(Violation::new(
                    Rule::Overlap { offset: second.base },
                    &[first.operation, second.operation, first.shown_by, second.shown_by],
                ));
            }
        }
        for (end, operation) in &ends {
            let below = appends.partition_point(|append| append.base < *end);
            let last = below.checked_sub(1).and_then(|at| appends.get(at));
            if let Some(append) = last.filter(|append| append.end > *end) {
                return Err(Violation::new(
                    Rule::TornBatch { offset: *end },
                    &[append.operation, operation, append.shown_by],
                ));
            }
        }
        Ok(Placed { appends, free, ends, too_short })
    }
}

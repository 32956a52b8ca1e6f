//! A checker that tries every order (Wing, Gong 1993), for histories of a handful of operations.

use fulmar_sim::history::{Action, Operation, Payload, ProduceOutcome, ReadOutcome};

/// Whether some order of the operations agrees with the clock and with one log.
pub fn linearizable(operations: &[Operation]) -> bool {
    let done: Vec<bool> = operations.iter().map(says_nothing).collect();
    search(operations, &done, &mut Vec::new())
}

fn says_nothing(operation: &Operation) -> bool {
    matches!(
        &operation.action,
        Action::Produce { outcome: ProduceOutcome::Failed, .. }
            | Action::Read { outcome: ReadOutcome::Nothing, .. }
            | Action::Latest { end: None }
    )
}

fn may_never_happen(operation: &Operation) -> bool {
    matches!(&operation.action, Action::Produce { outcome: ProduceOutcome::Unknown, .. })
}

fn search(operations: &[Operation], done: &[bool], log: &mut Vec<Payload>) -> bool {
    let open = || operations.iter().zip(done).filter(|(_, done)| !**done).map(|(op, _)| op);
    if open().all(may_never_happen) {
        return true;
    }
    let over_before = |candidate: &Operation| {
        open().any(|other| {
            !may_never_happen(other)
                && other.returned.is_some_and(|returned| returned < candidate.invoked)
        })
    };
    for (at, candidate) in operations.iter().enumerate() {
        if done[at] || over_before(candidate) {
            continue;
        }
        let length = log.len();
        if apply(candidate, log) {
            let mut done = done.to_vec();
            done[at] = true;
            if search(operations, &done, log) {
                return true;
            }
        }
        log.truncate(length);
    }
    false
}

/// What a log in one place does. False if it would have answered something else.
fn apply(operation: &Operation, log: &mut Vec<Payload>) -> bool {
    let length = log.len() as u64;
    match &operation.action {
        Action::Produce { batch, outcome } => {
            let fits = match outcome {
                ProduceOutcome::Acked(base) => base.get() == length,
                ProduceOutcome::Unknown => true,
                ProduceOutcome::Failed => false,
            };
            log.extend(&batch.payloads);
            fits
        }
        Action::Read { from, outcome: ReadOutcome::Answer(answer) } => {
            let records = answer.records.iter().enumerate().all(|(at, record)| {
                let offset = from.get() + at as u64;
                record.offset.get() == offset && log.get(offset as usize) == Some(&record.payload)
            });
            records && from.get() <= length && answer.high_watermark.get() == length
        }
        Action::Read { from, outcome: ReadOutcome::OutOfRange } => length < from.get(),
        Action::Latest { end: Some(end) } => end.get() == length,
        Action::Read { .. }
        | Action::Latest { end: None }
        | Action::Earliest { .. }
        | Action::Keep { .. } => true,
    }
}

//! Records are kept as long as their topic declares, and what has gone stays away: a record goes
//! only when it is older than `retention.ms`, or when `retention.bytes` of newer ones are there
//! (Kafka, "Topic Configs"; ours are minima). Age is counted from the call that produced the record,
//! by the time of the simulator, so a node whose clock was set finds no excuse here.
//!
//! Where `retention.bytes` is a maximum (`keep-oldest`, `block`), what comes makes room, and the oldest go
//! by up to a sixteenth and a batch before; what was not kept takes no room.
//!
//! What a topic declares may change. A change takes effect between its call and its answer (at any
//! time after its call, or never, if nobody knows its outcome) and holds until another one does. A
//! record that somebody was told of went after that; one of the declarations that may have held from
//! then on has to allow it.
//!
//! A start that was told holds for everybody who asks later: no earlier one is told, and nothing
//! before it is read.

use super::PartitionHistory;
use crate::history::{
    Action, Budget, ChangeOutcome, Kept, Operation, PartitionName, ProduceOutcome, ReadOutcome,
    Time,
};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// A record that went too early, or that came back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{partition}: the log began at offset {start} at {at}, {why}")]
pub struct Expired {
    /// Where.
    pub partition: PartitionName,
    /// The start that was told.
    pub start: Offset,
    /// When.
    pub at: Time,
    /// What is wrong with that.
    pub why: Why,
}

/// What is wrong with a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// An acknowledged record before it had not had its time.
    TooEarly {
        /// The newest of these.
        produce: Box<Operation>,
        /// Who was told last that it is there.
        seen: Option<Box<Operation>>,
        /// What the topic may have declared when it went.
        promises: Vec<Promise>,
    },
    /// A later answer knows an earlier start, or holds something before it.
    CameBack(Box<Operation>),
}

/// What a topic declares, and what there was of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What it declares.
    pub kept: Kept,
    /// Bytes of the partition from the start on, at most.
    pub bytes_max: u64,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = self.kept.for_ns.map(|ns| format!("records are kept for {}", Time(ns)));
        let bytes = self.kept.bytes.map(|bytes| {
            format!("{bytes} bytes are kept, and there were {} at most", self.bytes_max)
        });
        let limits: Vec<String> = age.into_iter().chain(bytes).collect();
        if limits.is_empty() {
            return f.write_str("all records are kept");
        }
        f.write_str(&limits.join(", and "))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly { produce, seen, promises } => {
                let promises: Vec<String> = promises.iter().map(Promise::to_string).collect();
                write!(f, "too early: {}\n  {produce}", promises.join("; or "))?;
                seen.iter().try_for_each(|seen| write!(f, "\n  and it was there\n  {seen}"))
            }
            Self::CameBack(later) => write!(f, "and later did not\n  {later}"),
        }
    }
}

/// What a topic declares, and when that may have held.
#[derive(Clone, Copy)]
struct Declared {
    kept: Kept,
    from: Time,
    until: Time,
}

/// Everything that the topic may have declared: what it was created with, and each change.
fn declared(log: &PartitionHistory<'_>) -> Vec<Declared> {
    let changes = log.operations.iter().filter_map(|operation| {
        let Action::Keep { kept, outcome } = &operation.action else { return None };
        let by = match outcome {
            ChangeOutcome::Done => operation.returned,
            ChangeOutcome::Unknown => None,
            ChangeOutcome::Failed => return None,
        };
        Some((*kept, operation.invoked, by))
    });
    let created = (log.kept.unwrap_or_default(), Time(0), Some(Time(0)));
    let all: Vec<_> = std::iter::once(created).chain(changes).collect();
    let declared = |at: usize| {
        let (kept, from, by) = all[at];
        // What is called after this one has taken effect, and has taken effect itself, replaces it.
        let later = all.iter().skip(at + 1).filter(|later| by.is_some_and(|by| by <= later.1));
        Declared { kept, from, until: later.filter_map(|later| later.2).min().unwrap_or(Time::END) }
    };
    (0..all.len()).map(declared).collect()
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<Expired> {
    let declared = declared(log);
    let found = |start, at, why| Expired { partition: log.name.clone(), start, at, why };
    // Of each start the first who told it.
    let mut starts: BTreeMap<Offset, Time> = BTreeMap::new();
    for (start, at) in log.starts().filter(|(start, _)| *start > Offset(0)) {
        let first = starts.entry(start).or_insert(at);
        *first = (*first).min(at);
    }
    let too_early = starts.iter().find_map(|(start, at)| {
        too_early(log, &declared, (*start, *at)).map(|why| found(*start, *at, why))
    });
    too_early.or_else(|| {
        starts.iter().rev().find_map(|(start, at)| {
            let back = log.operations.iter().find(|later| {
                later.invoked > *at && knows(later).is_some_and(|known| known < *start)
            })?;
            Some(found(*start, *at, Why::CameBack(Box::new((*back).clone()))))
        })
    })
}

/// The newest acknowledged batch before a start that had not had its time.
fn too_early(
    log: &PartitionHistory<'_>,
    declared: &[Declared],
    (start, at): (Offset, Time),
) -> Option<Why> {
    let told = Told::by(log, at);
    // Each with the last moment at which it may have let something go, when most had had its time.
    let held: Vec<(Declared, Time, Promise)> = declared
        .iter()
        .filter(|declared| declared.from <= at)
        .map(|declared| {
            let last = at.min(declared.until);
            let bytes_max = declared.kept.bytes.map_or(0, |_| bytes_max(log, start, last));
            (*declared, last, Promise { kept: declared.kept, bytes_max })
        })
        .collect();
    let mut gone: Vec<(Offset, &Operation)> = log
        .operations
        .iter()
        .filter(|operation| operation.invoked <= at)
        .filter_map(|operation| Some((operation.acked()?.1, *operation)))
        .filter(|(base, _)| *base < start)
        .collect();
    gone.sort_by_key(|(base, _)| std::cmp::Reverse(*base));
    gone.into_iter().find_map(|(base, produce)| {
        let seen = told.last(base).filter(|seen| seen.invoked > produce.invoked);
        let since = seen.map_or(produce.invoked, |seen| seen.invoked);
        let when_gone =
            || held.iter().filter(|(declared, last, _)| since.max(declared.from) <= *last);
        let allows = |(_, last, promise): &(Declared, Time, Promise)| {
            let age_ns = last.0.saturating_sub(produce.invoked.0);
            promise.kept.for_ns.is_some_and(|limit| age_ns >= limit)
                || promise
                    .kept
                    .bytes
                    .is_some_and(|limit| promise.bytes_max >= at_least(log, promise.kept, limit))
        };
        if when_gone().any(allows) {
            return None;
        }
        let (produce, seen) = (Box::new(produce.clone()), seen.map(|seen| Box::new(seen.clone())));
        let promises = when_gone().map(|(_, _, promise)| *promise).collect();
        Some(Why::TooEarly { produce, seen, promises })
    })
}

/// How many bytes of newer records there have to be for one to go.
fn at_least(log: &PartitionHistory<'_>, kept: Kept, limit: u64) -> u64 {
    if kept.budget == Budget::KeepNewest {
        return limit;
    }
    let bytes = |operation: &&Operation| match &operation.action {
        Action::Produce { batch, .. } => batch.bytes_max,
        _ => 0,
    };
    let batch = log.operations.iter().map(bytes).max().unwrap_or(0);
    limit.saturating_sub((limit / 16).max(batch) + batch)
}

/// Bytes of what may have been in the log by some time, from a start on.
fn bytes_max(log: &PartitionHistory<'_>, start: Offset, by: Time) -> u64 {
    let bytes = |operation: &&Operation| match &operation.action {
        Action::Produce { outcome: ProduceOutcome::Acked(base), .. }
            if *base < start || log.markers.is_some() && log.may_lack(*base) =>
        {
            0
        }
        Action::Produce { outcome: ProduceOutcome::Failed, .. } => 0,
        Action::Produce { batch, .. } => batch.bytes_max,
        _ => 0,
    };
    log.operations.iter().filter(|operation| operation.invoked <= by).map(bytes).sum()
}

/// Who was told last that an offset is kept.
struct Told<'a>(BTreeMap<Offset, &'a Operation>);

impl<'a> Told<'a> {
    /// From the answers to what was asked by some time.
    fn by(log: &PartitionHistory<'a>, at: Time) -> Self {
        let mut told: BTreeMap<Offset, &'a Operation> = BTreeMap::new();
        for operation in log.operations.iter().copied().filter(|o| o.invoked <= at) {
            let Some(known) = knows(operation) else { continue };
            let last = told.entry(known).or_insert(operation);
            if last.invoked < operation.invoked {
                *last = operation;
            }
        }
        // Whoever knows of an offset knows of those behind it.
        let mut latest: Option<&'a Operation> = None;
        for operation in told.values_mut() {
            *operation =
                latest.filter(|latest| latest.invoked > operation.invoked).unwrap_or(operation);
            latest = Some(*operation);
        }
        Self(told)
    }

    fn last(&self, offset: Offset) -> Option<&'a Operation> {
        self.0.range(..=offset).next_back().map(|(_, operation)| *operation)
    }
}

/// The least offset that an answer knows to be kept.
fn knows(operation: &Operation) -> Option<Offset> {
    match &operation.action {
        Action::Read { outcome: ReadOutcome::Answer(answer), .. } => {
            let first = answer.records.first().map(|record| record.offset);
            Some(first.map_or(answer.log_start, |first| first.min(answer.log_start)))
        }
        Action::Earliest { start } => *start,
        _ => None,
    }
}

/// An offset that the log is known to reach: reading there is never above its end.
fn reaches(operation: &Operation) -> Option<Offset> {
    match &operation.action {
        Action::Read { outcome: ReadOutcome::Answer(answer), .. } => {
            let last = answer.records.last().map(|record| record.offset.plus(1));
            Some(last.map_or(answer.log_start, |last| last.max(answer.log_start)))
        }
        Action::Latest { end } => *end,
        Action::Earliest { start } => *start,
        _ => {
            let (batch, base) = operation.acked()?;
            Some(base.plus(batch.payloads.len() as u64))
        }
    }
}

impl<'a> PartitionHistory<'a> {
    /// Reads that were out of range because what they asked for had gone: somebody had been told
    /// before that the log reaches that far. Only where records may go.
    pub(super) fn reads_before_start(&self) -> Vec<(&'a Operation, Offset)> {
        if self.kept.is_none() {
            return Vec::new();
        }
        let reads =
            self.operations.iter().copied().filter_map(|operation| match operation.action {
                Action::Read { from, outcome: ReadOutcome::OutOfRange } => Some((operation, from)),
                _ => None,
            });
        let reached = |read: &Operation, from: Offset| {
            self.operations.iter().any(|told| {
                let is_before = told.returned.is_some_and(|over| over < read.invoked);
                is_before && reaches(told).is_some_and(|end| end >= from)
            })
        };
        reads.filter(|(read, from)| reached(read, *from)).collect()
    }

    /// Every start that was told, and when at the latest the log began there.
    fn starts(&self) -> impl Iterator<Item = (Offset, Time)> {
        let told = self.operations.iter().filter_map(|operation| {
            let start = match &operation.action {
                Action::Read { outcome: ReadOutcome::Answer(answer), .. } => answer.log_start,
                Action::Earliest { start } => (*start)?,
                _ => return None,
            };
            Some((start, operation.returned?))
        });
        let gone = self.reads_before_start().into_iter();
        let gone = gone.filter_map(|(read, from)| Some((from.plus(1), read.returned?)));
        let whole = self.read_back.map(|read| (read.start, read.at));
        told.chain(gone).chain(whole)
    }
}

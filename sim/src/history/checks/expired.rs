//! Records are kept as long as their topic declares, and what has gone stays away: a record goes
//! only when it is older than `retention.ms`, or when `retention.bytes` of newer ones are there
//! (Kafka, "Topic Configs"; ours are minima). Age is counted from the call that produced the record,
//! by the time of the simulator, so a node whose clock was set finds no excuse here.
//!
//! A start that was told holds for everybody who asks later: no earlier one is told, and nothing
//! before it is read.

use super::PartitionHistory;
use crate::history::{Action, Kept, Operation, PartitionName, ProduceOutcome, ReadOutcome, Time};
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
        /// What the topic declares.
        kept: Kept,
        /// Bytes of the partition from the start on, at most.
        bytes_max: u64,
    },
    /// A later answer knows an earlier start, or holds something before it.
    CameBack(Box<Operation>),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly { produce, kept, bytes_max } => {
                let age = kept.for_ns.map(|ns| format!("records are kept for {}", Time(ns)));
                let bytes = kept.bytes.map(|bytes| {
                    format!("{bytes} bytes are kept, and there were {bytes_max} at most")
                });
                let promises: Vec<String> = age.into_iter().chain(bytes).collect();
                write!(f, "too early: {}\n  {produce}", promises.join(", and "))
            }
            Self::CameBack(later) => write!(f, "and later did not\n  {later}"),
        }
    }
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<Expired> {
    let kept = log.kept.unwrap_or_default();
    let found = |start, at, why| Expired { partition: log.name.clone(), start, at, why };
    // Of each start the first who told it.
    let mut starts: BTreeMap<Offset, Time> = BTreeMap::new();
    for (start, at) in log.starts().filter(|(start, _)| *start > Offset(0)) {
        let first = starts.entry(start).or_insert(at);
        *first = (*first).min(at);
    }
    let too_early = starts.iter().find_map(|(start, at)| {
        let (produce, bytes_max) = too_early(log, kept, (*start, *at))?;
        let produce = Box::new(produce.clone());
        Some(found(*start, *at, Why::TooEarly { produce, kept, bytes_max }))
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
fn too_early<'a>(
    log: &PartitionHistory<'a>,
    kept: Kept,
    (start, at): (Offset, Time),
) -> Option<(&'a Operation, u64)> {
    let mut bytes_max = 0;
    let mut young: Option<(Offset, &'a Operation)> = None;
    for operation in log.operations.iter().copied().filter(|o| o.invoked <= at) {
        let Action::Produce { batch, outcome } = &operation.action else { continue };
        match outcome {
            ProduceOutcome::Acked(base) if *base < start => {
                let age_ns = at.0 - operation.invoked.0;
                let is_young = kept.for_ns.is_none_or(|limit| age_ns < limit);
                if is_young && young.is_none_or(|(newest, _)| newest < *base) {
                    young = Some((*base, operation));
                }
            }
            ProduceOutcome::Acked(_) | ProduceOutcome::Unknown => bytes_max += batch.bytes_max,
            ProduceOutcome::Failed => {}
        }
    }
    let is_too_much = kept.bytes.is_some_and(|limit| bytes_max >= limit);
    young.filter(|_| !is_too_much).map(|(_, operation)| (operation, bytes_max))
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

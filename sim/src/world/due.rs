//! What a pipeline still has to do or to say once all of its input is read.
//!
//! Invariants checked here: event time goes on without records, as far as idle partitions let it (liveness: the
//! reference says whether an epoch without records would change anything); no partition is taken for idle of which
//! records are there (`pipeline_exact`), whatever the epochs say of that; what was gone before it was read is counted,
//! exactly (`fates_exact`).

use crate::epochs::{EpochLog, Part};
use fulmar_reference::model::{self, Expected};
use fulmar_reference::spec::{Case, Epoch};
use fulmar_types::event::CommittedEpoch;
use fulmar_types::{Offset, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// After so long the table of a pipeline is idle, if its time is waited for.
const TABLE_IDLE_MS: u64 = 3_000;

/// What an epoch without records would still do, at the times when partitions fall idle.
pub(super) fn idle(case: &Case, given: &Expected) -> Option<String> {
    let last_ms = case.epochs.last()?.age_ms;
    let idle_ms = case.idle_ms.map(i64::unsigned_abs);
    let spans = [idle_ms, case.table_time.then_some(TABLE_IDLE_MS)];
    let heard = case.epochs.iter().map(|epoch| epoch.age_ms);
    let ages = heard.flat_map(|age_ms| spans.iter().flatten().map(move |ms| age_ms + ms));
    let ages: BTreeSet<u64> = ages.filter(|age_ms| *age_ms > last_ms).collect();
    let (inputs, devices) = (Vec::new(), Vec::new());
    let blank =
        Epoch { age_ms: 0, inputs, devices, unread: BTreeSet::new(), leaves_devices: false };
    let mut epochs = case.epochs.clone();
    epochs.extend(ages.into_iter().map(|age_ms| Epoch { age_ms, ..blank.clone() }));
    let later = model::run(&Case { epochs, ..case.clone() });
    let more = later.epochs.iter().skip(given.epochs.len()).flatten().count();
    let is_due = more > 0 || later.fates != given.fates;
    is_due.then(|| format!("partitions are idle, and {more} records have not come out for that"))
}

/// Where a partition of the stream became idle of which records were there that no epoch had read: those that were
/// acknowledged when the epoch before was told, its owner knew.
pub(super) fn slept(
    case: &Case,
    (input, epochs, behind_ns): (TopicId, &[CommittedEpoch], &BTreeMap<u64, u64>),
    acked: &BTreeMap<u32, Vec<(u64, Offset)>>,
) -> Option<String> {
    case.idle_ms?;
    let mut at: BTreeMap<u32, Offset> = BTreeMap::new();
    for (epoch, idle) in epochs.iter().zip(model::idle(case)) {
        let ranges = epoch.ranges.iter().filter(|range| range.topic == input);
        at.extend(ranges.map(|range| (range.partition.get(), range.to)));
        let known_ns = behind_ns.get(&epoch.epoch).copied().unwrap_or_default();
        for partition in idle {
            let read = at.get(&partition).copied().unwrap_or(Offset(0));
            let of = acked.get(&partition).into_iter().flatten();
            let mut unread = of.filter(|(ns, offset)| *ns < known_ns && *offset >= read);
            if let Some((_, offset)) = unread.next() {
                let number = epoch.epoch;
                return Some(format!(
                    "epoch {number} takes partition {partition} for idle, and record {offset} of it is there"
                ));
            }
        }
    }
    None
}

/// What is wrong with how many records it says were gone before it has read them.
pub(super) fn missed(log: &EpochLog, inputs: [TopicId; 2], told: u64) -> Option<String> {
    let mut at: BTreeMap<Part, Offset> = BTreeMap::new();
    let mut missed = 0;
    for range in log.epochs().flat_map(|epoch| &epoch.ranges) {
        if inputs.contains(&range.topic) {
            let before = at.insert((range.topic, range.partition), range.to);
            missed += range.from.get() - before.unwrap_or(Offset(0)).get();
        }
    }
    // Who has gone back counts from there.
    let is_wrong = log.left().is_empty() && missed != told;
    is_wrong.then(|| format!("it has missed {missed} records, and tells {told}"))
}

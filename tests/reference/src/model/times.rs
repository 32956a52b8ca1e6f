//! The event time: watermarks and idleness at the end of each epoch.

use super::is_bad;
use crate::spec::{Case, RETRIED};
use std::collections::BTreeSet;

/// What makes the event time of a source.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) is_table: bool,
    pub(super) partitions: u32,
    pub(super) delay_ms: i64,
    pub(super) idle_ms: Option<i64>,
}

/// What is known of the time of a source at the end of an epoch.
pub(super) struct Time {
    /// The watermark.
    pub(super) mark: Option<i64>,
    /// The partitions that are idle.
    pub(super) idle: BTreeSet<u32>,
    /// Whether all of them are.
    pub(super) is_idle: bool,
}

/// The time of a source at the end of each epoch.
pub(super) fn times(case: &Case, clock: Clock) -> Vec<Time> {
    let begun_ms = case.epochs.first().map_or(0, |epoch| epoch.age_ms);
    let mut heard_ms = vec![begun_ms; clock.partitions as usize];
    let mut tops: Vec<Option<i64>> = vec![None; clock.partitions as usize];
    let (mut best, mut all) = (None, Vec::new());
    for (at, epoch) in case.epochs.iter().enumerate() {
        for input in if clock.is_table { &epoch.devices } else { &epoch.inputs } {
            // One that comes once more says nothing of the time of its partition.
            if input.partition == RETRIED {
                continue;
            }
            let partition = input.partition as usize;
            // The end of a row of the table says nothing about its event time, and what is bad neither.
            let counts = if clock.is_table { !input.is_broken } else { !is_bad(input) };
            if counts {
                heard_ms[partition] = epoch.age_ms;
                tops[partition] = tops[partition].max(Some(input.at));
            }
        }
        for (partition, heard_ms) in (0..).zip(&mut heard_ms) {
            // What is there unread is no silence.
            let is_left = match clock.is_table {
                true => epoch.leaves_devices,
                false => epoch.unread.contains(&partition),
            };
            if is_left {
                *heard_ms = epoch.age_ms;
            }
        }
        let is_idle = |partition: &u32| {
            let silent_ms = epoch.age_ms - heard_ms[*partition as usize];
            clock.idle_ms.is_some_and(|idle_ms| silent_ms >= idle_ms as u64)
        };
        let idle: BTreeSet<u32> = (0..clock.partitions).filter(is_idle).collect();
        let active = (0..clock.partitions).filter(|partition| !idle.contains(partition));
        let least: Option<Vec<i64>> = active.map(|partition| tops[partition as usize]).collect();
        if let Some(least) = least.and_then(|tops| tops.into_iter().min()) {
            best = best.max(Some(least - clock.delay_ms));
        }
        if case.ends && at + 1 == case.epochs.len() {
            best = Some(i64::MAX);
        }
        let is_idle = idle.len() == clock.partitions as usize;
        all.push(Time { mark: best, idle, is_idle });
    }
    all
}

pub(super) fn stream(case: &Case) -> Clock {
    let (partitions, delay_ms, idle_ms) = (case.partitions, case.delay_ms, case.idle_ms);
    Clock { is_table: false, partitions, delay_ms, idle_ms }
}

/// The partitions of the stream that are idle at the end of each epoch.
pub fn idle(case: &Case) -> Vec<BTreeSet<u32>> {
    times(case, stream(case)).into_iter().map(|time| time.idle).collect()
}

/// The watermark of the stream at the end of each epoch.
pub(super) fn stream_times(case: &Case) -> Vec<Option<i64>> {
    times(case, stream(case)).into_iter().map(|time| time.mark).collect()
}

/// The watermark of the join with the table at the end of each epoch.
pub(super) fn join_times(case: &Case) -> Vec<Option<i64>> {
    let table = Clock { is_table: true, partitions: 1, delay_ms: 0, idle_ms: Some(3_000) };
    let tables = times(case, table);
    let (mut best, mut all) = (None, Vec::new());
    for (mut next, table) in stream_times(case).into_iter().zip(tables) {
        if case.table_time && !table.is_idle {
            next = next.min(table.mark);
        }
        best = best.max(next);
        all.push(best);
    }
    all
}

/// The times at the end of the epoch before, and of this one.
pub(super) fn step(times: &[Option<i64>], at: usize) -> (Option<i64>, Option<i64>) {
    (at.checked_sub(1).and_then(|before| times[before]), times[at])
}

//! The engine over the events, with all that its owner has to do for a commit: records out of stored batches,
//! epochs, outputs as batches with their digest, deltas and slices of the state.
//!
//! Invariant: an epoch is some time of the events; a delta is taken after each second of it, whatever the
//! epochs are, as an owner takes one every few seconds.

use crate::events::{SIDE_INPUT, Stored, TOPIC};
use bytes::Bytes;
use fulmar_flow::{Cursor, Cutter, Cutting, Engine, Plan, records};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of a slice there is at least, by the bytes of the delta before it.
const SLICE_BYTES_MIN: usize = 4 << 10;

/// A slice is this part of the state at least.
const SLICE_PART: usize = 256;

/// The bytes of a batch that is written.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Bytes of state that are taken out at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The input of an epoch.
pub type Epoch = Vec<Stored>;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Records that were written.
    pub records: u64,
    /// Bytes of their batches.
    pub output_bytes: u64,
    /// Bytes of state that were taken out, and of how many entries.
    pub state_bytes: u64,
    /// The same as a number of entries.
    pub state_entries: u64,
    /// A digest over all outputs, in order.
    pub digests: Vec<[u8; 16]>,
    /// How long it took to make batches of the outputs with their digest, and to take state out: what there
    /// would be no need of without a log.
    pub commit_time: Duration,
}

/// A pipeline and what is taken out of it.
struct Owner {
    engine: Engine,
    partitions: BTreeMap<String, u32>,
    cursor: Option<Cursor>,
    epoch: u64,
    outcome: Outcome,
}

/// Runs a plan over epochs of so many milliseconds, each output batch given to `take`.
///
/// # Panics
/// If the engine stops.
pub fn run(
    plan: Plan,
    side: &[Stored],
    epochs: &[Epoch],
    epoch_ms: u64,
    mut take: impl FnMut(&Bytes),
) -> Outcome {
    let partitions = BTreeMap::new();
    let engine = Engine::new(Arc::new(plan), &partitions);
    let mut owner =
        Owner { engine, partitions, cursor: None, epoch: 0, outcome: Outcome::default() };
    owner.read(SIDE_INPUT, side);
    owner.commit(0, false, &mut take);
    let mut since_delta_ms = 0;
    for (number, epoch) in (1..).zip(epochs) {
        owner.read(TOPIC, epoch);
        owner.commit(number * epoch_ms, number == epochs.len() as u64, &mut take);
        since_delta_ms += epoch_ms;
        if since_delta_ms >= 1_000 {
            since_delta_ms = 0;
            owner.keep();
        }
    }
    owner.outcome
}

impl Owner {
    fn read(&mut self, topic: &str, batches: &[Stored]) {
        for (offset, batch) in batches {
            let taken = self.engine.batch(topic, &records(0, *offset, batch));
            taken.expect("no record is bad");
        }
    }

    /// Ends an epoch and makes of its outputs what goes into the log.
    fn commit(&mut self, age_ms: u64, last: bool, take: &mut impl FnMut(&Bytes)) {
        let written = self.engine.end_epoch(age_ms, last).expect("no result is bad");
        let began = Instant::now();
        let cutting = Cutting {
            partitions: &self.partitions,
            epoch: self.epoch,
            batch_bytes_max: BATCH_BYTES_MAX,
        };
        let mut cutter = Cutter::new(cutting);
        written.iter().for_each(|one| cutter.push(one));
        self.epoch += 1;
        self.outcome.digests.push(cutter.digest());
        let batches: Vec<_> = cutter.batches().collect();
        self.outcome.commit_time += began.elapsed();
        for batch in &batches {
            self.outcome.records += u64::from(batch.records);
            self.outcome.output_bytes += batch.batch.len() as u64;
            take(&batch.batch);
        }
    }

    /// Takes a delta and a slice out of the state.
    fn keep(&mut self) {
        let began = Instant::now();
        let mut delta_bytes = 0;
        loop {
            let changes = self.engine.delta(PIECE_BYTES);
            if changes.is_empty() {
                break;
            }
            self.outcome.state_entries += changes.len() as u64;
            delta_bytes += changes.iter().map(|change| change.bytes()).sum::<usize>();
        }
        let part = self.engine.weight() / SLICE_PART;
        let mut left = delta_bytes.max(part).max(SLICE_BYTES_MIN);
        let mut slice_bytes = 0;
        while left > 0 {
            let (changes, cursor) = self.engine.slice(self.cursor.as_ref(), left.min(PIECE_BYTES));
            let bytes = changes.iter().map(|change| change.bytes()).sum::<usize>();
            (slice_bytes, left) = (slice_bytes + bytes, left.saturating_sub(bytes.max(1)));
            self.cursor = cursor;
            if self.cursor.is_none() {
                break;
            }
        }
        self.outcome.state_bytes += (delta_bytes + slice_bytes) as u64;
        self.outcome.commit_time += began.elapsed();
    }
}

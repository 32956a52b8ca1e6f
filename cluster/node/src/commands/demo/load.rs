//! The producers of the demo: they write the data set at a steady pace, each a share of the
//! partitions, so that the readings of a sensor come from one producer and in order.
//!
//! Invariant: a batch counts as acknowledged only by [`Outcome::Done`]; any other outcome fails
//! the demo.

use super::plant::{self, PARTITIONS};
use fulmar_client::{Cluster, Outcome, Producer, ProducerSettings, WriteRecord};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::PartitionIndex;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The producers; each has connections of its own.
pub const PRODUCERS: u32 = 4;

/// Records of a batch, at most. What is there is sent at the end of a tick.
const BATCH_RECORDS: usize = 50;

/// How often records are granted.
const TICK: Duration = Duration::from_millis(25);

/// How long a batch may take: far longer than any election.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// A data set. Each producer has one of its own and asks it for every record, in order.
pub trait DataSet: Clone + Send + Sync + 'static {
    /// The record with this number and where it goes, if it goes to a partition of the producer.
    fn record(
        &mut self,
        number: u64,
        is_mine: impl Fn(PartitionIndex) -> bool,
    ) -> Option<(PartitionIndex, WriteRecord)>;
}

/// What has become of the batches so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Batches that were acknowledged.
    pub batches: u64,
    /// Of these, batches that were sent more than once.
    pub sent_again: u64,
    /// Batches without an outcome yet, in flight or not.
    pub pending: u64,
    /// Outcomes that a demo must not have.
    pub failures: Vec<String>,
    /// When a leader was killed last.
    pub killed_at: Option<Instant>,
    /// The first acknowledgement after that.
    pub resumed_at: Option<Instant>,
}

/// The pace: records per second, up to a gate that the course of the demo opens.
#[derive(Clone, Copy, Debug)]
struct Pace {
    began: Instant,
    per_second: u64,
    gate: u64,
}

impl Pace {
    fn granted(&self, now: Instant) -> u64 {
        let elapsed_us = now.saturating_duration_since(self.began).as_micros();
        let due = elapsed_us * u128::from(self.per_second) / 1_000_000;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.gate)
    }
}

struct Shared {
    tally: Mutex<Tally>,
    pace: Mutex<Pace>,
    changed: Notify,
}

/// The load, as the course of the demo sees it. Dropping it stops the producers.
pub struct Load {
    shared: Arc<Shared>,
    producers: Vec<Arc<Producer>>,
    _writers: Vec<Owned<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Starts the producers.
    pub fn start(cluster: &Cluster, data: &impl DataSet, records: u64, per_second: u64) -> Self {
        let pace = Pace { began: time::now(), per_second, gate: records };
        let shared = Arc::new(Shared {
            tally: Mutex::default(),
            pace: Mutex::new(pace),
            changed: Notify::new(),
        });
        let settings =
            ProducerSettings { delivery_timeout: DELIVERY_TIMEOUT, ..ProducerSettings::default() };
        let producers = (0..PRODUCERS)
            .map(|_| Arc::new(Producer::new(cluster.separate(), settings.clone())))
            .collect::<Vec<_>>();
        let start = |(share, producer)| {
            let writer = Writer {
                producer: Arc::clone(producer),
                data: data.clone(),
                share,
                shared: Arc::clone(&shared),
                batches: BTreeMap::new(),
            };
            task::spawn_owned(writer.run(records))
        };
        let writers = (0..).zip(&producers).map(start).collect();
        Self { shared, producers, _writers: writers }
    }

    /// Batches that were sent and are not answered.
    pub fn in_flight(&self) -> u64 {
        self.producers.iter().map(|producer| producer.in_flight() as u64).sum()
    }

    /// What has become of the batches so far.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// Lets no more than this many records out.
    pub fn hold_at(&self, records: u64) {
        lock(&self.shared.pace).gate = records;
    }

    /// Waits until something holds about the tally, at most for a time. Returns whether it does.
    pub async fn wait_until(&self, timeout: Duration, holds: impl Fn(&Tally) -> bool) -> bool {
        let waiting = async {
            loop {
                if holds(&lock(&self.shared.tally)) {
                    return;
                }
                self.shared.changed.notified().await;
            }
        };
        time::timeout(timeout, waiting).await.is_ok()
    }

    /// From now on the next acknowledgement of a batch that was sent after this moment is noted.
    pub fn note_kill(&self) {
        let mut tally = lock(&self.shared.tally);
        tally.killed_at = Some(time::now());
        tally.resumed_at = None;
    }

    /// How long it took from the kill until the next acknowledgement.
    pub async fn resumed(&self, timeout: Duration) -> Option<Duration> {
        self.wait_until(timeout, |tally| tally.resumed_at.is_some()).await;
        let tally = lock(&self.shared.tally);
        Some(tally.resumed_at?.saturating_duration_since(tally.killed_at?))
    }
}

impl Shared {
    fn settle(&self, outcome: Outcome, records: u64, queued_at: Instant) {
        let mut tally = lock(&self.tally);
        tally.pending -= 1;
        match outcome {
            Outcome::Done { attempts, .. } => {
                tally.acknowledged += records;
                tally.batches += 1;
                tally.sent_again += u64::from(attempts > 1);
                // An answer that the dead leader had sent already proves nothing about the site.
                let is_new = tally.killed_at.is_some_and(|at| queued_at > at || attempts > 1);
                if is_new && tally.resumed_at.is_none() {
                    tally.resumed_at = Some(time::now());
                }
            }
            Outcome::NotDone(error) => {
                tally
                    .failures
                    .push(format!("a batch of {records} records was not written: {error}"));
            }
            Outcome::Unknown(error) => {
                let what = format!("the outcome of a batch of {records} records is unknown");
                tally.failures.push(format!("{what}: {error}"));
            }
        }
        drop(tally);
        self.changed.notify_one();
    }
}

/// One producer with its share of the partitions.
struct Writer<D> {
    producer: Arc<Producer>,
    data: D,
    share: u32,
    shared: Arc<Shared>,
    batches: BTreeMap<PartitionIndex, Vec<WriteRecord>>,
}

impl<D: DataSet> Writer<D> {
    async fn run(mut self, records: u64) {
        let mut at = 0;
        while at < records {
            let granted = lock(&self.shared.pace).granted(time::now()).min(records);
            while at < granted {
                let share = self.share;
                let is_mine = |partition: PartitionIndex| partition.get() % PRODUCERS == share;
                if let Some((partition, record)) = self.data.record(at, is_mine) {
                    self.add(partition, record).await;
                }
                at += 1;
            }
            self.send_all().await;
            time::sleep(TICK).await;
        }
    }

    async fn add(&mut self, partition: PartitionIndex, record: WriteRecord) {
        let batch = self.batches.entry(partition).or_default();
        batch.push(record);
        if batch.len() == BATCH_RECORDS {
            let batch = std::mem::take(batch);
            self.send(partition, batch).await;
        }
    }

    async fn send_all(&mut self) {
        for (partition, batch) in std::mem::take(&mut self.batches) {
            if !batch.is_empty() {
                self.send(partition, batch).await;
            }
        }
    }

    async fn send(&self, partition: PartitionIndex, batch: Vec<WriteRecord>) {
        let records = batch.len() as u64;
        let queued_at = time::now();
        lock(&self.shared.tally).pending += 1;
        self.shared.changed.notify_one();
        let ticket = self.producer.enqueue(&plant::partition(partition), batch).await;
        let shared = Arc::clone(&self.shared);
        // At most as many of these wait as the producer has batches, and that is bounded.
        task::spawn(async move { shared.settle(ticket.await, records, queued_at) });
    }
}

const _: () = assert!(PARTITIONS.is_multiple_of(PRODUCERS));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_steady_up_to_the_gate() {
        let began = time::now();
        let pace = Pace { began, per_second: 10_000, gate: 15_000 };
        assert_eq!(pace.granted(began), 0);
        assert_eq!(pace.granted(began + Duration::from_millis(25)), 250);
        assert_eq!(pace.granted(began + Duration::from_secs(3)), 15_000);
    }
}

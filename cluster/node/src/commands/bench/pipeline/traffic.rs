//! Records with numbers that go into a pipeline at a steady pace, and those that come out of it.
//!
//! Invariant: what is noted of a record is when the site has acknowledged it, and when it was read back from
//! the output; nothing is asked of the nodes for that.

use super::{INPUT, OUTPUT, PARTITIONS};
use crate::commands::bench::TIMEOUT;
use fulmar_client::{
    Cluster, Consumer, ConsumerSettings, Outcome, Producer, ProducerSettings, Start,
    TopicPartition, WriteRecord,
};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::PartitionIndex;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often records are sent that are due.
const TICK: Duration = Duration::from_millis(1);

/// How long a read waits for a first byte.
const POLL: Duration = Duration::from_millis(500);

/// 2026-01-01T00:00:00Z, the time of all records: no window ever ends.
const AT_MS: i64 = 1_767_225_600_000;

/// When something became of a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The site has said that it is there.
    pub acknowledged: Option<Instant>,
    /// What came of it was read.
    pub read: Option<Instant>,
}

#[derive(Default)]
struct Noted {
    times: Vec<Times>,
    failure: Option<String>,
}

/// The traffic. Dropping it ends it.
pub struct Traffic {
    noted: Arc<Mutex<Noted>>,
    _tasks: [Owned<()>; 2],
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record of a key; some carry what makes the state large.
pub fn record(number: u64, key: u64, pad: &str) -> WriteRecord {
    let value = format!(r#"{{"k":"key-{key}","n":{number},"pad":"{pad}","at":{AT_MS}}}"#);
    WriteRecord { timestamp_ms: AT_MS, key: None, value: Some(value.into()), headers: Vec::new() }
}

/// The partition of a record.
pub fn place(number: u64) -> TopicPartition {
    TopicPartition::new(INPUT, PartitionIndex((number % u64::from(PARTITIONS)) as u32))
}

impl Traffic {
    /// So many records a second, of keys up to a number, from now on.
    pub fn start(cluster: &Cluster, per_second: u64, keys: u64) -> Self {
        let noted = Arc::new(Mutex::new(Noted::default()));
        let sending = send(cluster.separate(), (per_second, keys), Arc::clone(&noted));
        let reading = read(cluster.separate(), Arc::clone(&noted));
        Self { noted, _tasks: [task::spawn_owned(sending), task::spawn_owned(reading)] }
    }

    /// What has become of all records so far.
    pub fn times(&self) -> Vec<Times> {
        lock(&self.noted).times.clone()
    }

    /// How many have been sent.
    pub fn sent(&self) -> usize {
        lock(&self.noted).times.len()
    }

    /// Why it cannot go on.
    pub fn failure(&self) -> Option<String> {
        lock(&self.noted).failure.clone()
    }

    /// Waits until something is read of what is sent from this number on. When that was.
    pub async fn read_from(&self, number: usize) -> Option<Instant> {
        let deadline = time::now() + TIMEOUT;
        while time::now() < deadline && self.failure().is_none() {
            let first = {
                let noted = lock(&self.noted);
                let behind = noted.times.get(number..).unwrap_or_default();
                behind.iter().filter_map(|times| times.read).min()
            };
            if first.is_some() {
                return first;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

async fn send(cluster: Cluster, (per_second, keys): (u64, u64), noted: Arc<Mutex<Noted>>) {
    let settings = ProducerSettings { delivery_timeout: TIMEOUT, ..ProducerSettings::default() };
    let producer = Producer::new(cluster, settings);
    let (began, mut number) = (time::now(), 0u64);
    loop {
        let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        while number < elapsed_us.saturating_mul(per_second) / 1_000_000 {
            lock(&noted).times.push(Times::default());
            let record = record(number, number % keys.max(1), "");
            let ticket = producer.enqueue(&place(number), vec![record]).await;
            let (noted, at) = (Arc::clone(&noted), number as usize);
            // As many of these wait as the producer has batches, and that is bounded.
            task::spawn(async move {
                let outcome = ticket.await;
                let mut noted = lock(&noted);
                match outcome {
                    Outcome::Done { .. } => {
                        noted.times[at].acknowledged.get_or_insert_with(time::now);
                    }
                    Outcome::NotDone(error) | Outcome::Unknown(error) => {
                        noted.failure = Some(format!("a record was not taken: {error}"));
                    }
                }
            });
            number += 1;
        }
        time::sleep(TICK).await;
    }
}

async fn read(cluster: Cluster, noted: Arc<Mutex<Noted>>) {
    let settings = ConsumerSettings { max_wait: POLL, ..ConsumerSettings::default() };
    let mut consumer = Consumer::new(&cluster, settings);
    for partition in (0..PARTITIONS).map(PartitionIndex) {
        consumer.assign(TopicPartition::new(OUTPUT, partition), Start::Latest);
    }
    loop {
        // Whoever leads by then knows more.
        let Ok(polled) = consumer.poll(POLL).await else {
            time::sleep(TICK).await;
            continue;
        };
        let now = time::now();
        let mut noted = lock(&noted);
        for record in polled.iter().flat_map(|polled| &polled.records) {
            let number = record.value.as_deref().and_then(number_of);
            if let Some(times) = number.and_then(|number| noted.times.get_mut(number)) {
                times.read.get_or_insert(now);
            }
        }
    }
}

/// The number in `{"n":17,"k":"key-4"}`.
fn number_of(value: &[u8]) -> Option<usize> {
    let rest = value.strip_prefix(b"{\"n\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_with_its_number() {
        assert_eq!(number_of(br#"{"n":170,"k":"key-4"}"#), Some(170));
        assert_eq!(number_of(b"{\"n\":"), None);
        let text = record(7, 3, "xx").value.expect("it has one");
        assert_eq!(&text[..], br#"{"k":"key-3","n":7,"pad":"xx","at":1767225600000}"#);
    }
}

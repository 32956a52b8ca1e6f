//! One client: what it sends and asks for, one after the other.
//!
//! Invariants: it writes down what it is going to do before it does it, and what it was answered after;
//! what it is not told is unknown.

use super::series::Series;
use super::stage::Stage;
use super::workload::{READ_TIMEOUT, create, note_kept};
use crate::history::{
    Action, Batch, ClientId, History, PartitionName, Payload, ProduceOutcome, ProducerTag, Time,
};
use crate::prng::Prng;
use crate::scenario::workload::{Acks, Filling, ListOffsets, ListTopics, Produce, TopicChurn};
use crate::scenario::{Drawn, EventKind, SiteName};
use bytes::Bytes;
use fulmar_client::admin::DeleteTopicError;
use fulmar_client::offsets::OffsetAt;
use fulmar_client::{
    Cluster, Outcome, Producer, ProducerSettings, Target, TopicPartition, WriteRecord,
};
use fulmar_types::PartitionIndex;
use fulmar_wire::batch::Header;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64;

/// Batches of one client that may be without an outcome.
const IN_FLIGHT: usize = 8;

/// Bytes of a batch beside its records, at most.
const BATCH_BYTES_MAX: u64 = 64;

/// Bytes of a record beside its key and value, at most.
const RECORD_BYTES_MAX: u64 = 32;

/// The header of a record that has one, and its bytes at most, with a number of a record as its value.
const HEADER: &str = "number";
const HEADER_BYTES_MAX: u64 = 32;

fn bytes_max(record: &WriteRecord) -> u64 {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len) as u64;
    let headers = if record.headers.is_empty() { 0 } else { HEADER_BYTES_MAX };
    RECORD_BYTES_MAX + len(&record.key) + len(&record.value) + headers
}

/// A header with the number of its record.
fn header(number: u64) -> Header {
    Header { key: Bytes::from_static(HEADER.as_bytes()), value: Some(number.to_string().into()) }
}

pub(super) fn payload(key: Option<&[u8]>, value: Option<&[u8]>) -> Payload {
    let key = key.unwrap_or_default();
    let mut bytes = Vec::with_capacity(8 + key.len() + value.map_or(0, <[u8]>::len));
    bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value.unwrap_or_default());
    Payload(xxh3_64(&bytes))
}

pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) site: SiteName,
    pub(super) clients: u32,
    pub(super) cluster: Cluster,
    pub(super) stage: Arc<Stage>,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) prng: Prng,
}

impl Client {
    pub(super) fn now(&self) -> Time {
        Time(self.stage.machines.now_ns())
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self, topic: &str, partition: PartitionIndex) -> PartitionName {
        PartitionName { site: self.site.as_str().to_owned(), topic: topic.to_owned(), partition }
    }

    pub(super) fn interval(&self, of_all: Duration) -> Duration {
        of_all * self.clients
    }

    /// Waits for the next turn; the turns of a client are spread around the interval.
    pub(super) async fn turn(&mut self, interval: Duration) {
        let ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 4);
        let wait = self.prng.between(ns / 2, ns + ns / 2);
        madsim::time::sleep(Duration::from_nanos(wait)).await;
    }

    pub(super) async fn produce(mut self, produce: Produce<Drawn>, series: Arc<Series>) {
        let idempotent = produce.idempotent && produce.acks == Acks::All;
        let settings = ProducerSettings {
            acks: match produce.acks {
                Acks::None => fulmar_client::Acks::None,
                Acks::Leader => fulmar_client::Acks::Leader,
                Acks::All => fulmar_client::Acks::All,
            },
            idempotent,
            delivery_timeout: Duration::from_secs(20),
            in_flight_max: if idempotent { 5 } else { 1 },
        };
        let mut producer = Producer::new(self.cluster.clone(), settings.clone());
        // What they still have to say comes in its own time.
        let (mut earlier, mut lives) = (Vec::new(), 0);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let batch_records = produce.batch_records.get().max(1);
        let interval = self.interval(produce.rate.interval()) * batch_records;
        let mut sequence = 0;
        while !self.stopped() {
            self.turn(interval).await;
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            if lives != self.stage.sink.put_back_times(self.stage.site_number(&self.site)) {
                lives += 1;
                let afresh = Producer::new(self.cluster.afresh(), settings.clone());
                earlier.push(std::mem::replace(&mut producer, afresh));
            }
            let (partition, records, batch) = self.batch(&produce, sequence, idempotent);
            sequence += u64::from(batch_records);
            let count = batch.count();
            let underway = series.enter();
            let topic = underway.topic();
            let to = TopicPartition::new(&topic, partition);
            let id = {
                let (now, name) = (self.now(), self.name(&topic, partition));
                self.history().begin(self.id, name, now, Action::produce(batch))
            };
            let ticket = producer.enqueue(&to, records).await;
            let (history, stage, site) =
                (self.history.clone(), self.stage.clone(), self.stage.site_number(&self.site));
            fulmar_host::task::spawn(async move {
                let outcome = match ticket.await {
                    Outcome::Done { base_offset: Some(base), .. } => ProduceOutcome::Acked(base),
                    // Written, but nobody remembers where.
                    Outcome::Done { base_offset: None, .. } | Outcome::Unknown(_) => {
                        ProduceOutcome::Unknown
                    }
                    Outcome::NotDone(_) => ProduceOutcome::Failed,
                };
                let now = Time(stage.machines.now_ns());
                history.lock().unwrap_or_else(PoisonError::into_inner).produced(id, now, outcome);
                if matches!(outcome, ProduceOutcome::Acked(_)) {
                    stage.sink.count(EventKind::Acked, site, count);
                }
                drop(underway);
                drop(permit);
            });
        }
        // Every batch has its outcome before the producer goes.
        let _all = room.acquire_many(u32::try_from(IN_FLIGHT).expect("a handful")).await;
    }

    /// The next batch: all of its records have one key, and so one partition.
    fn batch(
        &mut self,
        produce: &Produce<Drawn>,
        sequence: u64,
        idempotent: bool,
    ) -> (PartitionIndex, Vec<WriteRecord>, Batch) {
        let key = self.prng.below(u64::from(produce.keys.get().max(1)));
        let partitions = u64::from(produce.partitions.get().max(1));
        let partition = u32::try_from(key % partitions).expect("partitions are numbered by a u32");
        let key = Bytes::from(format!("key-{key}"));
        let count = u64::from(produce.batch_records.get().max(1));
        let records: Vec<WriteRecord> = (0..count)
            .map(|at| {
                let bytes = produce.value_bytes.sample(&mut self.prng).0;
                let mut value = format!("{}/{} ", self.id, sequence + at).into_bytes();
                let padding = usize::try_from(bytes).unwrap_or(0).saturating_sub(value.len());
                match produce.filling {
                    Filling::Dots => value.resize(value.len() + padding, b'.'),
                    Filling::Letters => {
                        let letter = |_| b'a' + u8::try_from(self.prng.below(26)).unwrap_or(0);
                        value.extend((0..padding).map(letter));
                    }
                }
                WriteRecord {
                    timestamp_ms: i64::try_from(self.stage.machines.clocks().true_ms())
                        .unwrap_or(i64::MAX),
                    key: Some(key.clone()),
                    value: Some(Bytes::from(value)),
                    headers: match produce.headers {
                        true => vec![header(sequence + at)],
                        false => Vec::new(),
                    },
                }
            })
            .collect();
        let payloads =
            records.iter().map(|r| payload(r.key.as_deref(), r.value.as_deref())).collect();
        let producer = ProducerTag(self.id.0);
        let bytes_max = BATCH_BYTES_MAX + records.iter().map(bytes_max).sum::<u64>();
        let batch = Batch { producer, sequence, payloads, idempotent, bytes_max };
        (PartitionIndex(partition), records, batch)
    }

    pub(super) async fn list_offsets(mut self, list: ListOffsets<Drawn>, partitions: u32) {
        let interval = self.interval(list.rate.interval());
        let topic = list.topic.as_str();
        while !self.stopped() {
            self.turn(interval).await;
            let number = u32::try_from(self.prng.below(u64::from(partitions))).unwrap_or(0);
            let partition = PartitionIndex(number);
            let id = {
                let (now, name) = (self.now(), self.name(topic, partition));
                self.history().begin(self.id, name, now, Action::latest())
            };
            let of = TopicPartition::new(topic, partition);
            let found =
                self.cluster.list_offset(Target::Leader, &of, OffsetAt::Latest, READ_TIMEOUT).await;
            let end = found.ok().and_then(|found| found.offset);
            let now = self.now();
            self.history().latest(id, now, end);
        }
    }

    /// What is told is judged by what the nodes report: see the check `topics_current`.
    pub(super) async fn list_topics(mut self, list: ListTopics<Drawn>, nodes: Vec<Cluster>) {
        let interval = self.interval(list.rate.interval());
        while !self.stopped() {
            self.turn(interval).await;
            let at = usize::try_from(self.prng.below(nodes.len() as u64)).unwrap_or(0);
            // A client that has heard of the other nodes would ask any of them.
            let _ = nodes[at].separate().refresh_all(READ_TIMEOUT).await;
        }
    }

    /// Renews a topic again and again: its successor is created, and when all that was sent to it
    /// has an outcome it is read back and deleted.
    pub(super) async fn renew(mut self, series: Arc<Series>, every: Duration) {
        let limit = Duration::from_secs(3);
        while !self.stopped() {
            self.turn(every).await;
            let next = series.next();
            note_kept(&self.history, &series, &next);
            while !create(&self.cluster, &next, &series).await {
                if self.stopped() {
                    return;
                }
            }
            let generation = series.go_on();
            let topic = series.settled(generation).await;
            while self.reader().read_topic(&topic, series.partitions).await.is_err() {
                if self.stopped() {
                    return;
                }
            }
            series.forget(generation);
            while !self.stopped() {
                match self.cluster.delete_topic(&topic, limit).await {
                    Ok(()) | Err(DeleteTopicError::NoTopic) => break,
                    Err(_) => madsim::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
    }

    /// Topics come and go, so that segments lose their last live record and are recycled.
    pub(super) async fn churn(mut self, churn: TopicChurn<Drawn>) {
        let interval = churn.rate.interval();
        let limit = Duration::from_secs(3);
        let mut living: VecDeque<String> = VecDeque::new();
        let mut number = 0u64;
        let settings =
            ProducerSettings { idempotent: false, in_flight_max: 1, ..Default::default() };
        let producer = Producer::new(self.cluster.clone(), settings);
        while !self.stopped() {
            self.turn(interval).await;
            number += 1;
            let name = format!("{}-{number}", churn.prefix.as_str());
            let partitions = churn.partitions.get().max(1);
            if self.cluster.create_topic(&name, partitions, limit).await.is_ok() {
                let record = WriteRecord {
                    value: Some(Bytes::from(vec![b'x'; 1_000])),
                    ..WriteRecord::default()
                };
                let to = TopicPartition::new(&name, PartitionIndex(0));
                let _ = producer.send(&to, vec![record]).await;
            }
            living.push_back(name);
            if living.len() > churn.topics_max.get() as usize
                && let Some(oldest) = living.pop_front()
            {
                let _ = self.cluster.delete_topic(&oldest, limit).await;
            }
        }
    }
}

//! Clients that write with producer ids which are not theirs.
//!
//! The broker remembers the last batches of every producer id. A batch with an id that nobody was
//! given yet must be refused: else the first batch of whoever is given the id later is taken for a
//! duplicate of it, and is acknowledged and never stored.
//!
//! Invariant: every batch is sent once; an outcome that the client does not know is written down as
//! unknown.

use super::client::{Client, payload};
use crate::history::{Action, Batch, ProduceOutcome, ProducerTag};
use crate::scenario::Drawn;
use crate::scenario::workload::ForeignIds;
use bytes::Bytes;
use fulmar_client::TopicPartition;
use fulmar_client::admin::ProducerIdentity;
use fulmar_host::time::{self, Duration};
use fulmar_types::{Offset, PartitionIndex};
use fulmar_wire::batch::BatchBuilder;
use fulmar_wire::{
    ErrorCode, PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};

/// Bytes of a batch beside the value of its one record, at most.
const BATCH_BYTES_MAX: u64 = 128;

/// How long a client waits for an id, for a leader and for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

impl Client {
    pub(super) async fn foreign_ids(mut self, foreign: ForeignIds<Drawn>, partitions: u32) {
        let interval = self.interval(foreign.rate.interval());
        let mut sequence = 0;
        while !self.stopped() {
            self.turn(interval).await;
            let number = u32::try_from(self.prng.below(u64::from(partitions))).unwrap_or(0);
            let to = TopicPartition::new(foreign.topic.as_str(), PartitionIndex(number));
            let Ok(given) = self.cluster.init_producer_id(time::now() + TIMEOUT).await else {
                continue;
            };
            sequence += 2;
            let next = ProducerIdentity { producer_id: given.producer_id + 1, epoch: 0 };
            self.write_as(&to, next, sequence).await;
            let Ok(own) = self.cluster.init_producer_id(time::now() + TIMEOUT).await else {
                continue;
            };
            self.write_as(&to, own, sequence + 1).await;
        }
    }

    /// Writes one record as the first batch of a producer. `sequence` is for the history alone.
    async fn write_as(&self, to: &TopicPartition, who: ProducerIdentity, sequence: u64) {
        let value = Bytes::from(format!("{}/{sequence} ", self.id));
        let batch = Batch {
            producer: ProducerTag(self.id.0),
            sequence,
            payloads: vec![payload(None, Some(&value))],
            idempotent: false,
            bytes_max: BATCH_BYTES_MAX + value.len() as u64,
        };
        let id = {
            let (now, name) = (self.now(), self.name(&to.topic, to.partition));
            self.history().begin(self.id, name, now, Action::produce(batch))
        };
        let outcome = self.send_once(to, request(to, first_batch(who, &value))).await;
        let now = self.now();
        self.history().produced(id, now, outcome);
    }

    async fn send_once(&self, to: &TopicPartition, request: ProduceRequest) -> ProduceOutcome {
        let Ok(leader) = self.cluster.leader(to, time::now() + TIMEOUT).await else {
            return ProduceOutcome::Failed;
        };
        let outcome = match leader.connection.call(&request, TIMEOUT).await {
            Ok(answer) => outcome(&answer),
            Err(error) if error.may_have_happened() => ProduceOutcome::Unknown,
            Err(_) => ProduceOutcome::Failed,
        };
        if !matches!(outcome, ProduceOutcome::Acked(_)) {
            self.cluster.forget_leader(to, leader.epoch);
        }
        outcome
    }
}

/// One record as the first batch of a producer.
fn first_batch(who: ProducerIdentity, value: &Bytes) -> Option<Bytes> {
    let mut batch = BatchBuilder::new().producer(who.producer_id, who.epoch, 0);
    batch.push(0, None, Some(value), &[]).expect("one small record");
    batch.build()
}

/// A request to append a batch.
pub(super) fn request(to: &TopicPartition, records: Option<Bytes>) -> ProduceRequest {
    let index = i32::try_from(to.partition.get()).expect("a handful of partitions");
    let data = PartitionProduceData { index, records };
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 3_000,
        topic_data: vec![TopicProduceData {
            name: to.topic.to_string(),
            partition_data: vec![data],
        }],
    }
}

fn outcome(answer: &ProduceResponse) -> ProduceOutcome {
    let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.next().map(|partition| (partition.error_code, partition.base_offset)) {
        Some((ErrorCode::None, base)) => match u64::try_from(base) {
            Ok(base) => ProduceOutcome::Acked(Offset(base)),
            Err(_) => ProduceOutcome::Unknown,
        },
        Some((ErrorCode::UnknownProducerId | ErrorCode::NotLeaderOrFollower, _)) => {
            ProduceOutcome::Failed
        }
        _ => ProduceOutcome::Unknown,
    }
}

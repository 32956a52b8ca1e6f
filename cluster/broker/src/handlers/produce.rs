//! Produce (key 0): validated here, settled by the state machine.
//!
//! With acks 1 as with acks -1 the answer comes when the batch is flushed on a majority: the site
//! has one meaning of "accepted". With acks 0 there is no answer; a client of that kind learns of
//! a failure by the end of its connection, as in Kafka.
//!
//! Invariants: a batch is proposed byte for byte as it came; the batches of one connection are
//! queued in the order of its requests; a batch that ran out of time is answered "timed out", which
//! means that it may be stored.

use super::Reply;
use super::partition::wire_offset;
use crate::broker::Broker;
use crate::error_map::{self, Unanswered};
use crate::machine::outcome::{OperationResult, Refusal, UnitResult};
use crate::machine::state::State;
use crate::proposer::{Answer, Ticket};
use bytes::Bytes;
use fulmar_host::time::{self, Instant};
use fulmar_host::{BoxFuture, Host};
use fulmar_store::StreamId;
use fulmar_store::entry::{Operation, Unit};
use fulmar_types::pipeline::is_internal;
use fulmar_types::{Offset, PartitionIndex, Probe, TopicId};
use fulmar_wire::batch::{Batch, Compression};
use fulmar_wire::{
    ACKS_ALL, ApiKey, ErrorCode, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use std::sync::Arc;
use std::time::Duration;

/// The first version whose clients know Zstandard (KIP-110).
const ZSTD_FROM: i16 = 7;

/// Why a partition's batch was not appended.
#[derive(Clone, Debug)]
struct Failure {
    code: ErrorCode,
    message: Option<String>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        let full = unanswered == Unanswered::NoRoom;
        Self {
            code: error_map::of_unanswered_produce(unanswered),
            message: full.then(|| "the disks of the site are full".to_owned()),
        }
    }
}

/// One partition of the request on its way.
struct Waiting {
    index: i32,
    /// Where the batch goes, and the answer that is to come.
    queued: Result<(StreamId, Ticket), Failure>,
}

/// Where a batch goes.
struct Target {
    topic: TopicId,
    partition: PartitionIndex,
    stream: StreamId,
    bytes_max: usize,
}

/// Queues the batches of a request, whose frame is of about `frame_bytes`. The future waits for the answers.
pub(super) async fn start(
    broker: Arc<Broker>,
    version: i16,
    request: ProduceRequest,
    frame_bytes: usize,
) -> BoxFuture<'static, Reply> {
    let acks = request.acks;
    let refused = if !matches!(acks, ACKS_ALL | 0 | 1) {
        Some(ErrorCode::InvalidRequiredAcks)
    } else if request.transactional_id.is_some() {
        // Transactions are not served, and InitProducerId has said so before.
        Some(ErrorCode::InvalidTxnState)
    } else if !broker.group.leadership().is_me {
        Some(ErrorCode::NotLeaderOrFollower)
    } else {
        None
    };
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = time::now() + timeout.min(broker.settings.request_timeout_max);
    if acks == 0 {
        let all_queued =
            refused.is_none() && queue_silently(&broker, version, request, deadline).await;
        let reply = if all_queued { Reply::Silent } else { Reply::Close };
        return Box::pin(std::future::ready(reply));
    }
    let mut topics = Vec::new();
    for topic in request.topic_data {
        let mut waiting = Vec::new();
        for data in topic.partition_data {
            let index = data.index;
            let queued = match refused {
                Some(code) => Err(Failure::from(code)),
                None => match prepare(&broker, version, &topic.name, data) {
                    Ok((target, bytes)) => {
                        let unit = unit_of(&target, kept(bytes, frame_bytes));
                        Ok((target.stream, broker.proposer.submit(unit, deadline).await))
                    }
                    Err(failure) => Err(failure),
                },
            };
            waiting.push(Waiting { index, queued });
        }
        topics.push((topic.name, waiting));
    }
    Box::pin(async move {
        let mut responses = Vec::new();
        for (name, waiting) in topics {
            let mut partition_responses = Vec::new();
            for one in waiting {
                partition_responses.push(answer(&broker, one, deadline).await);
            }
            responses.push(TopicProduceResponse { name, partition_responses });
        }
        ProduceResponse { responses, ..ProduceResponse::default() }.into()
    })
}

/// The batch as it is queued. A batch shares the memory of its frame, and the queue counts batches:
/// one that is a small part of its frame is copied, so that no frame stays for less than half of it.
fn kept(batch: Bytes, frame_bytes: usize) -> Bytes {
    if batch.len() >= frame_bytes / 2 { batch } else { Bytes::copy_from_slice(&batch) }
}

/// Queues the batches of a request without an answer. Says whether all of them were good.
async fn queue_silently(
    broker: &Broker,
    version: i16,
    request: ProduceRequest,
    deadline: Instant,
) -> bool {
    let mut all_queued = true;
    for topic in request.topic_data {
        for data in topic.partition_data {
            let queued = match prepare(broker, version, &topic.name, data) {
                // The room of the frame is given back at once, so nothing may keep the frame.
                Ok((target, bytes)) => {
                    let unit = unit_of(&target, Bytes::copy_from_slice(&bytes));
                    broker.proposer.submit_silently(unit, deadline).await
                }
                Err(_) => false,
            };
            all_queued &= queued;
        }
    }
    all_queued
}

fn unit_of(target: &Target, bytes: Bytes) -> Unit {
    let (topic, partition) = (target.topic, target.partition);
    Unit::of(Operation::Append { topic, partition, batch: bytes.into() })
}

/// A leader that has not applied all that was committed before its term may not know the topic yet.
fn unknown(broker: &Broker) -> ErrorCode {
    if broker.group.has_caught_up() {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::NotLeaderOrFollower
    }
}

/// Finds the partition, and checks the batch.
fn prepare(
    broker: &Broker,
    version: i16,
    topic: &str,
    data: PartitionProduceData,
) -> Result<(Target, Bytes), Failure> {
    let site_max = broker.settings.batch_bytes_max();
    let target = broker
        .site
        .read(|state| target(state, topic, data.index, site_max))
        .ok_or_else(|| unknown(broker))?;
    if is_internal(topic) {
        return Err(refused(&broker.host, Refusal::IsInternal));
    }
    let bytes = validate(version, data.records, target.bytes_max)?;
    // Decided when the entry is applied, and here, so that what is refused again and again does not
    // fill the log.
    let is_blocked = broker.site.read(|state| {
        let topic = state.topics().get(target.topic);
        topic.is_some_and(|topic| state.is_blocked(topic, target.stream, &bytes))
    });
    if is_blocked {
        return Err(refused(&broker.host, Refusal::BudgetReached));
    }
    broker.counters.produce_batches.add(1);
    broker.counters.produce_bytes.add(bytes.len() as u64);
    Ok((target, bytes))
}

/// What is answered to a batch that was refused.
fn refused(host: &Host, refusal: Refusal) -> Failure {
    let mut message = None;
    match refusal {
        Refusal::UnknownProducer => host.probe(Probe::ProducerIdRefused),
        Refusal::SequenceOutOfOrder { .. } => host.probe(Probe::SequenceRefused),
        Refusal::BudgetReached => {
            host.probe(Probe::HeldBack);
            message = Some(refusal.to_string());
        }
        _ => {}
    }
    Failure { code: error_map::of_refusal(refusal), message }
}

fn target(state: &State, topic: &str, index: i32, site_max: usize) -> Option<Target> {
    let partition = PartitionIndex(u32::try_from(index).ok()?);
    let topic = state.topics().by_name(topic)?;
    let topic_max = super::topic_config::max_message_bytes(topic);
    Some(Target {
        topic: topic.id,
        partition,
        stream: topic.stream(partition)?,
        bytes_max: topic_max.map_or(site_max, |max| max.min(site_max)),
    })
}

fn validate(version: i16, records: Option<Bytes>, bytes_max: usize) -> Result<Bytes, Failure> {
    let records = records.filter(|records| !records.is_empty()).ok_or(Failure {
        code: ErrorCode::InvalidRecord,
        message: Some("a partition without a record batch".to_owned()),
    })?;
    let batch = Batch::from_producer(records, bytes_max).map_err(|error| Failure {
        code: error_map::of_batch(error),
        message: Some(error.to_string()),
    })?;
    if batch.compression() == Compression::Zstd && version < ZSTD_FROM {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    if batch.header().attributes.is_transactional() {
        return Err(ErrorCode::InvalidTxnState.into());
    }
    Ok(batch.into_bytes())
}

async fn answer(broker: &Broker, one: Waiting, deadline: Instant) -> PartitionProduceResponse {
    let appended = match one.queued {
        Ok((stream, ticket)) => {
            let answer = time::timeout_at(deadline, ticket).await.unwrap_or(Answer::Unknown);
            settle(&broker.host, answer).map(|base| (stream, base))
        }
        Err(failure) => Err(failure),
    };
    let mut response =
        PartitionProduceResponse { index: one.index, base_offset: -1, ..Default::default() };
    match appended {
        Ok((stream, base)) => {
            let log_start = broker.site.read(|state| state.partition(stream).map(|p| p.log_start));
            response.base_offset = wire_offset(base);
            // The topic may have been deleted since; the batch was stored all the same.
            response.log_start_offset = log_start.map_or(-1, wire_offset);
        }
        Err(failure) => {
            broker.counters.answered(ApiKey::Produce, failure.code);
            response.error_code = failure.code;
            response.error_message = failure.message;
        }
    }
    response
}

fn settle(host: &Host, answer: Answer) -> Result<Offset, Failure> {
    let (result, term) = match answer {
        Answer::Done { result, term } => (result, term),
        Answer::NotDone => return Err(Unanswered::NotDone.into()),
        Answer::NoRoom => return Err(Unanswered::NoRoom.into()),
        Answer::Unknown => return Err(Unanswered::Unknown.into()),
    };
    match result {
        UnitResult::Done(results) => match results.as_slice() {
            [OperationResult::Appended { base_offset }] => Ok(*base_offset),
            [OperationResult::Duplicate { base_offset, term: first }] => {
                if *first != term {
                    host.probe(Probe::DuplicateAnsweredAfterLeaderChange);
                }
                Ok(*base_offset)
            }
            [OperationResult::NotKept { base_offset }] => {
                host.probe(Probe::NotKept);
                Ok(*base_offset)
            }
            other => unreachable!("an append was answered with {other:?}"),
        },
        UnitResult::Refused(refusal) => Err(refused(host, refusal)),
    }
}

//! Fetch (key 1): a long poll over some partitions.
//!
//! ```text
//! barrier -> look at all partitions -> enough? -> barrier again -> answer
//!                ^                      no: wait for an append, the deadline, a new leader
//!                +----------------------+
//! ```
//!
//! Invariants: nothing above the high watermark is read, and the high watermark is what this node
//! has applied, which is committed; the first batch of the first partition with data is returned
//! whole, however large, and begins at or before the offset that was asked for; the answer comes at
//! the deadline at the latest, or when there is room to make it in; the lease is checked after the
//! data was read; a Fetch that waits takes no room from other requests. Sessions (KIP-227)
//! are not kept: session id 0 serves every client.

use super::Reply;
use super::partition::{Reading, check_epoch, epoch_of, stream_of, wire_offset};
use crate::answers::{Held, Named};
use crate::broker::{Broker, kafka_id};
use crate::error_map;
use crate::limits::{
    FETCH_BYTES_MAX, FETCH_LOOK_PAUSE_MS, FETCH_ROOM_WAIT_MS_MAX, FETCH_WAIT_MS_MAX,
};
use crate::machine::state::State;
use crate::room::take;
use bytes::BytesMut;
use fulmar_host::time::{self, Instant};
use fulmar_store::{StoredBatch, StreamId};
use fulmar_types::{LogPosition, Offset, Plant};
use fulmar_wire::batch::{BatchHeader, HEADER_BYTES, empty_batch, place};
use fulmar_wire::{
    ApiKey, ErrorCode, FetchPartition, FetchPartitionData, FetchRequest, FetchResponse, FetchTopic,
    FetchableTopicResponse, LeaderIdAndEpoch, READ_COMMITTED, Records,
};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// One look at all partitions of a request.
struct Look {
    responses: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
}

/// What is left of the size of a response.
struct Budget {
    bytes: usize,
    /// Nothing was read yet, so the next batch is returned whatever its size.
    first: bool,
}

/// `held` is what the request occupies.
pub(super) async fn handle(
    broker: &Broker,
    version: i16,
    request: FetchRequest,
    held: Option<OwnedSemaphorePermit>,
) -> Reply {
    if request.session_id != 0 {
        return whole(ErrorCode::FetchSessionIdNotFound).into();
    }
    let named = Named::by_fetch(&request);
    if named.is_too_much() {
        return whole(ErrorCode::InvalidRequest).into();
    }
    match poll(broker, version, (&request, named), held).await {
        Ok((look, room)) => {
            broker.counters.fetch_bytes.add(look.bytes as u64);
            let response = FetchResponse { responses: look.responses, ..FetchResponse::default() };
            Reply::Response(response.into(), room.shrunk(look.bytes))
        }
        Err(Failed::NoRoom) => Reply::Close,
        Err(Failed::Error(error)) => {
            broker.counters.answered(ApiKey::Fetch, error);
            match broker.answer_room.take(named).await {
                Some(room) => {
                    Reply::Response(refuse_all(broker, version, &request, error).into(), room)
                }
                None => Reply::Close,
            }
        }
    }
}

fn whole(error_code: ErrorCode) -> FetchResponse {
    FetchResponse { error_code, ..FetchResponse::default() }
}

fn budget_of(request: &FetchRequest) -> usize {
    usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX)
}

/// Reserves memory for the records of the answer; waits while too many answers are under way, until
/// `patience` at most.
async fn take_room(
    broker: &Broker,
    request: &FetchRequest,
    patience: Instant,
) -> Option<OwnedSemaphorePermit> {
    // The first batch comes whole, so there is never less than one batch to be had.
    let batch_max = broker.settings.batch_bytes_max();
    let room = take(&broker.fetch_room, budget_of(request).max(batch_max));
    time::timeout_at(patience, room).await.ok()
}

/// Whether any partition has a record for the request, so that memory is needed to look at it.
fn has_records(broker: &Broker, request: &FetchRequest) -> bool {
    // The planted bug reads where there is nothing.
    if fulmar_host::planted(Plant::ReadAboveCommit) {
        return true;
    }
    broker.site.read(|state| {
        let has_record = |topic: &FetchTopic, asked: &FetchPartition| {
            let stream = stream_of(state, &topic.topic, asked.partition);
            let partition = stream.and_then(|stream| state.partition(stream));
            partition.is_some_and(|partition| asked.fetch_offset < wire_offset(partition.next))
        };
        request.topics.iter().any(|topic| topic.partitions.iter().any(|p| has_record(topic, p)))
    })
}

/// Why there is no answer with records.
enum Failed {
    /// The whole request is answered with an error.
    Error(ErrorCode),
    /// There is no room for any answer.
    NoRoom,
}

impl From<ErrorCode> for Failed {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error)
    }
}

/// What a look occupies.
struct Room {
    /// For the records, if there are any.
    records: Option<OwnedSemaphorePermit>,
    /// For all else.
    rest: Held,
}

impl Room {
    /// Gives back what an answer with so many bytes of records does not need.
    fn shrunk(self, bytes: usize) -> Held {
        let mut held = self.rest;
        if let Some(mut records) = self.records {
            let excess = records.num_permits().saturating_sub(bytes.div_ceil(1024));
            drop(records.split(excess));
            held.push(records);
        }
        held
    }
}

async fn poll(
    broker: &Broker,
    version: i16,
    (request, named): (&FetchRequest, Named),
    mut held: Option<OwnedSemaphorePermit>,
) -> Result<(Look, Room), Failed> {
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0).min(FETCH_WAIT_MS_MAX);
    let deadline = time::now() + Duration::from_millis(wait_ms);
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0).min(budget_of(request));
    let reading = broker.begin_read().await?;
    // From before the first look, so that nothing is missed between looking and waiting.
    let watch = broker.site.watch(&streams(broker, request));
    let mut waiting = None;
    loop {
        let rest = broker.answer_room.take(named).await.ok_or(Failed::NoRoom)?;
        let mut room = Room { records: None, rest };
        if has_records(broker, request) {
            let patience = time::now() + Duration::from_millis(FETCH_ROOM_WAIT_MS_MAX);
            room.records = take_room(broker, request, deadline.max(patience)).await;
        }
        let look = look(broker, version, (request, room.records.is_some()), reading).await;
        let due = time::now() >= deadline;
        if look.failed || look.bytes >= wanted || due || !may_wait(broker, &mut held, &mut waiting)
        {
            broker.end_read(reading).await?;
            return Ok((look, room));
        }
        let has_some = look.bytes > 0;
        // Whoever waits for an append occupies no more than its request.
        drop((look, room));
        wait(broker, &watch, deadline, reading).await?;
        if has_some {
            // What is there is read again with every look: let some more come together.
            time::sleep(Duration::from_millis(FETCH_LOOK_PAUSE_MS)).await;
        }
    }
}

/// Moves what a request occupies to where it takes nothing from the requests to come. Says no if
/// too many wait already.
fn may_wait(
    broker: &Broker,
    held: &mut Option<OwnedSemaphorePermit>,
    waiting: &mut Option<OwnedSemaphorePermit>,
) -> bool {
    let Some(room) = held.take() else {
        return true;
    };
    let kib = u32::try_from(room.num_permits()).expect("frames are bounded");
    *waiting = broker.waiting_room.clone().try_acquire_many_owned(kib).ok();
    waiting.is_some()
}

/// Waits for an append, for the deadline, or until another term begins, which is an error.
async fn wait(
    broker: &Broker,
    watch: &crate::site::Watch,
    deadline: Instant,
    reading: Reading,
) -> Result<(), ErrorCode> {
    let _ = time::timeout_at(deadline, watch.changed()).await;
    let leadership = broker.group.leadership();
    if leadership.is_me && leadership.term == reading.term {
        Ok(())
    } else {
        Err(ErrorCode::NotLeaderOrFollower)
    }
}

fn streams(broker: &Broker, request: &FetchRequest) -> Vec<StreamId> {
    broker.site.read(|state| {
        let all = request.topics.iter().flat_map(|topic| {
            let stream = |p: &FetchPartition| stream_of(state, &topic.topic, p.partition);
            topic.partitions.iter().filter_map(stream)
        });
        all.collect()
    })
}

/// Without room it reads no records.
async fn look(
    broker: &Broker,
    version: i16,
    (request, has_room): (&FetchRequest, bool),
    reading: Reading,
) -> Look {
    let bytes = if has_room { budget_of(request) } else { 0 };
    let mut budget = Budget { bytes, first: has_room };
    let mut look = Look { responses: Vec::new(), bytes: 0, failed: false };
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let read = read_partition(broker, &topic.topic, asked, reading, &mut budget).await;
            let mut data = read.unwrap_or_else(|error_code| failed(asked, error_code));
            broker.counters.answered(ApiKey::Fetch, data.error_code);
            look.failed |= !data.error_code.is_none();
            look.bytes += data.records.as_ref().map_or(0, Records::len);
            if request.isolation_level == READ_COMMITTED {
                data.aborted_transactions = Some(Vec::new());
            }
            if data.error_code == ErrorCode::FencedLeaderEpoch {
                data.current_leader = current_leader(broker, version);
            }
            partitions.push(data);
        }
        look.responses.push(FetchableTopicResponse { topic: topic.topic.clone(), partitions });
    }
    look
}

fn failed(asked: &FetchPartition, error_code: ErrorCode) -> FetchPartitionData {
    FetchPartitionData {
        partition_index: asked.partition,
        error_code,
        high_watermark: -1,
        ..FetchPartitionData::default()
    }
}

async fn read_partition(
    broker: &Broker,
    topic: &str,
    asked: &FetchPartition,
    reading: Reading,
    budget: &mut Budget,
) -> Result<FetchPartitionData, ErrorCode> {
    let found = broker.site.read(|state| {
        let stream = stream_of(state, topic, asked.partition)?;
        state.partition(stream).map(|partition| (stream, partition.log_start, partition.next))
    });
    let applied = broker.group.applied();
    let (stream, log_start, mut high_watermark) =
        found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    check_epoch(asked.current_leader_epoch, reading.term)?;
    let from = u64::try_from(asked.fetch_offset).map(Offset);
    let from = from.map_err(|_| ErrorCode::OffsetOutOfRange)?;
    let above = from > high_watermark && !fulmar_host::planted(Plant::ReadAboveCommit);
    if from < log_start || above {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(budget.bytes);
    let mut records = Records::new();
    if from < high_watermark && (budget.first || limit > 0) {
        let batches = broker.records.read(stream, from..high_watermark, limit).await;
        let batches = batches.map_err(error_map::of_records)?;
        // A marker may span records that are there, which may not fit into this answer.
        let has_batches = !batches.is_empty();
        for batch in batches {
            if !budget.first && batch.bytes.len() > limit.saturating_sub(records.len()) {
                break;
            }
            budget.first = false;
            push_placed(&mut records, &batch);
        }
        if !has_batches
            && let Some(end) = broker.site.read(|state| hole(state, stream, from, high_watermark))
        {
            budget.first = false;
            push_hole(&mut records, from, end, reading);
        }
        // Reading waits for the disk. What went meanwhile is left out, and nobody would notice.
        let start = broker.site.read(|state| state.partition(stream).map(|now| now.log_start));
        let start = start.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if from < start && !fulmar_host::planted(Plant::FetchBehindStart) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
    }
    if fulmar_host::planted(Plant::ReadAboveCommit) {
        let behind = (applied, high_watermark);
        high_watermark = push_unapplied(broker, stream, behind, from, &mut records).await;
    }
    budget.bytes = budget.bytes.saturating_sub(records.len());
    Ok(FetchPartitionData {
        partition_index: asked.partition,
        high_watermark: wire_offset(high_watermark),
        last_stable_offset: wire_offset(high_watermark),
        log_start_offset: wire_offset(log_start),
        records: Some(records),
        ..FetchPartitionData::default()
    })
}

/// Appends a batch with its base offset and leader epoch; everything behind the header is shared.
fn push_placed(records: &mut Records, batch: &StoredBatch) {
    let Some(header) = batch.bytes.get(..HEADER_BYTES) else {
        return;
    };
    let mut header = BytesMut::from(header);
    place(&mut header, batch.base_offset, batch.term);
    records.push(header.freeze());
    records.push(batch.bytes.slice(HEADER_BYTES..));
}

/// Up to where the offsets from one on have no records, if that is known.
fn hole(state: &State, stream: StreamId, from: Offset, to: Offset) -> Option<Offset> {
    let gap = state.gap_at(stream, from)?;
    Some(gap.end.min(to))
}

/// Appends a batch without records, so that whoever reads goes on behind it: nobody else would tell it
/// that there is nothing to wait for.
fn push_hole(records: &mut Records, from: Offset, end: Offset, reading: Reading) {
    let offsets = u32::try_from(end.0.saturating_sub(from.0)).unwrap_or(u32::MAX);
    let mut batch = BytesMut::from(&empty_batch(offsets.clamp(1, 1 << 30))[..]);
    place(&mut batch, from, reading.term);
    let records_of = batch.split_off(HEADER_BYTES);
    records.push(batch.freeze());
    records.push(records_of.freeze());
}

/// The planted bug: also what lies in the log above the commit, as if it were settled. Returns where
/// the log seems to end then, so that no single answer contradicts itself.
async fn push_unapplied(
    broker: &Broker,
    stream: StreamId,
    (applied, high_watermark): (Option<LogPosition>, Offset),
    from: Offset,
    records: &mut Records,
) -> Offset {
    let read_to = end_of(records).unwrap_or(from);
    let mut next = high_watermark;
    for batch in broker.unapplied(stream, applied, high_watermark).await {
        next = batch.base_offset.plus(u64::from(batch.records));
        // Nothing follows where the size of the answer cut short what is applied.
        if batch.base_offset >= from && read_to >= high_watermark {
            push_placed(records, &batch);
        }
    }
    next
}

/// The offset behind the last batch, of which each is two pieces.
fn end_of(records: &Records) -> Option<Offset> {
    let last = records.chunks().rchunks(2).next()?.first()?;
    let last = *BatchHeader::read(last).ok()?.offsets().end();
    u64::try_from(last).ok().map(|last| Offset(last).plus(1))
}

/// The answer where this node may not read at all.
fn refuse_all(
    broker: &Broker,
    version: i16,
    request: &FetchRequest,
    error: ErrorCode,
) -> FetchResponse {
    let refuse = |asked: &FetchPartition| FetchPartitionData {
        current_leader: current_leader(broker, version),
        ..failed(asked, error)
    };
    let responses = request
        .topics
        .iter()
        .map(|topic| FetchableTopicResponse {
            topic: topic.topic.clone(),
            partitions: topic.partitions.iter().map(refuse).collect(),
        })
        .collect();
    FetchResponse { responses, ..FetchResponse::default() }
}

/// Who leads instead, for the versions that can say it (KIP-595).
fn current_leader(broker: &Broker, version: i16) -> LeaderIdAndEpoch {
    let leadership = broker.group.leadership();
    match leadership.leader {
        Some(leader) if version >= 12 => LeaderIdAndEpoch {
            leader_id: kafka_id(leader),
            leader_epoch: epoch_of(leadership.term),
        },
        Some(_) | None => LeaderIdAndEpoch::default(),
    }
}

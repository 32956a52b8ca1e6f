//! ListOffsets (key 2): the first offset, the last one, or the first at or after a time.
//!
//! A lookup by time has the granularity of a batch: it gives the first offset of the first batch
//! whose largest timestamp is at or after the time, so a consumer may read a few records too many
//! and never one too few.
//!
//! Invariants: as for Fetch, the lease is checked after everything was looked up.

use super::partition::{Reading, check_epoch, epoch_at, stream_of, wire_offset};
use crate::broker::Broker;
use crate::error_map;
use crate::machine::partitions::Partition;
use fulmar_wire::{
    EARLIEST_TIMESTAMP, ErrorCode, LATEST_TIMESTAMP, ListOffsetsPartition,
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse, MAX_TIMESTAMP,
};

/// The first version with lookups of the largest timestamp (KIP-734).
const MAX_TIMESTAMP_FROM: i16 = 7;

/// The first version that knows leader epochs.
const EPOCH_FROM: i16 = 4;

pub(super) async fn handle(
    broker: &Broker,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    match look_up_all(broker, version, &request).await {
        Ok(response) => response,
        Err(error) => refuse_all(&request, error),
    }
}

async fn look_up_all(
    broker: &Broker,
    version: i16,
    request: &ListOffsetsRequest,
) -> Result<ListOffsetsResponse, ErrorCode> {
    let reading = broker.begin_read().await?;
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let found = look_up(broker, version, (&topic.name, asked), reading).await;
            partitions.push(found.unwrap_or_else(|error| failed(asked, error)));
        }
        response.topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    broker.end_read(reading).await?;
    Ok(response)
}

fn failed(asked: &ListOffsetsPartition, error_code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        error_code,
        ..ListOffsetsPartitionResponse::default()
    }
}

fn refuse_all(request: &ListOffsetsRequest, error: ErrorCode) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(|asked| failed(asked, error)).collect(),
    });
    ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
}

async fn look_up(
    broker: &Broker,
    version: i16,
    (topic, asked): (&str, &ListOffsetsPartition),
    reading: Reading,
) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
    let found = broker.site.read(|state| {
        let stream = stream_of(state, topic, asked.partition_index)?;
        state.partition(stream).cloned()
    });
    let partition: Partition = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    check_epoch(asked.current_leader_epoch, reading.term)?;
    let (timestamp, offset) = match asked.timestamp {
        LATEST_TIMESTAMP => (-1, Some(partition.next)),
        EARLIEST_TIMESTAMP => (-1, Some(partition.log_start)),
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_FROM => match partition.max_timestamp_ms {
            none if none < 0 => (-1, None),
            known => (known, Some(partition.max_timestamp_offset)),
        },
        timestamp_ms if timestamp_ms >= 0 => {
            let row = broker.records.by_timestamp(partition.stream, timestamp_ms).await;
            match row.map_err(error_map::of_records)? {
                // What was appended or cut off since the partition was looked at does not count.
                Some(row) if row.base_offset < partition.next => {
                    (row.max_timestamp_ms, Some(row.base_offset.max(partition.log_start)))
                }
                Some(_) | None => (-1, None),
            }
        }
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let mut response = failed(asked, ErrorCode::None);
    response.timestamp = timestamp;
    if let Some(offset) = offset {
        response.offset = wire_offset(offset);
        if version >= EPOCH_FROM {
            response.leader_epoch = epoch_at(&partition, offset);
        }
    }
    Ok(response)
}

//! The handlers against a group of one node in memory.

use super::*;
use crate::testing::{Fixture, batch, run, settings, settle};
use bytes::Bytes;
use fulmar_host::net::PeerIdentity;
use fulmar_host::time;
use fulmar_types::{NodeId, Probe, Term, Uuid};
use fulmar_wire::batch::{Batch, BatchHeader};
use fulmar_wire::*;
use std::time::Duration;

fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
    RequestHeader { api_key, api_version, correlation_id: 1, client_id: None }
}

async fn begin(fixture: &Fixture, version: i16, request: Request) -> BoxFuture<'static, Reply> {
    let (header, who) = (header(request.api(), version), stranger());
    start(fixture.broker.clone(), (&header, &who), request, &mut None).await
}

/// Somebody who has proved nothing.
fn stranger() -> Principal {
    let peer = PeerIdentity::unproved(([10, 0, 0, 7], 4_000).into());
    Principal::of(&peer, |_| false)
}

/// Every response must have a form in its version.
fn written(reply: Reply, version: i16) -> Response {
    let Reply::Response(response, _) = reply else { panic!("a response") };
    response.encode(1, version).expect("the response can be written");
    response
}

macro_rules! ask {
    ($fixture:expr, $version:expr, $Api:ident, $request:expr) => {{
        let reply = begin($fixture, $version, Request::$Api($request)).await.await;
        let Response::$Api(response) = written(reply, $version) else { panic!("the same api") };
        response
    }};
}

mod admin;
mod configs;
mod fetch;
mod links;
mod pipelines;
mod produce;
mod sparse;

async fn create(fixture: &Fixture, name: &str, partitions: i32) -> CreatableTopicResult {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    create_as(fixture, topic).await
}

async fn create_as(fixture: &Fixture, topic: CreatableTopic) -> CreatableTopicResult {
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    ask!(fixture, 7, CreateTopics, request).topics.remove(0)
}

fn produce_request(acks: i16, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 5_000,
        topic_data: vec![TopicProduceData {
            name: "t".to_owned(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(records) }],
        }],
        ..ProduceRequest::default()
    }
}

fn produced(response: &ProduceResponse) -> (ErrorCode, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

async fn produce(fixture: &Fixture, records: Bytes) -> (ErrorCode, i64) {
    produced(&ask!(fixture, 9, Produce, produce_request(-1, records)))
}

fn fetch_request(offset: i64, max_wait_ms: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: "t".to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
        }],
        ..FetchRequest::default()
    }
}

fn fetched(response: &FetchResponse) -> &FetchPartitionData {
    &response.responses[0].partitions[0]
}

fn records(data: &FetchPartitionData) -> Bytes {
    data.records.clone().expect("never null").into_bytes()
}

async fn fetch(fixture: &Fixture, offset: i64) -> FetchPartitionData {
    let response = ask!(fixture, 12, Fetch, fetch_request(offset, 0));
    assert_eq!(response.session_id, 0);
    fetched(&response).clone()
}

async fn list(fixture: &Fixture, timestamp: i64) -> ListOffsetsPartitionResponse {
    list_as(fixture, 7, timestamp).await
}

async fn list_as(fixture: &Fixture, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: "t".to_owned(), partitions: vec![partition] };
    let request = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
    ask!(fixture, version, ListOffsets, request).topics.remove(0).partitions.remove(0)
}

async fn metadata(
    fixture: &Fixture,
    version: i16,
    names: Option<&[&str]>,
    create: bool,
) -> MetadataResponse {
    let topic = |name: &&str| MetadataRequestTopic {
        name: Some((*name).to_owned()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: names.map(|names| names.iter().map(topic).collect()),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    ask!(fixture, version, Metadata, request)
}

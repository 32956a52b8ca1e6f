//! The handlers against a group of one node in memory.

use super::*;
use crate::testing::{Fixture, batch, run, settings, settle};
use bytes::Bytes;
use fulmar_host::time;
use fulmar_types::{NodeId, Probe, Term, Uuid};
use fulmar_wire::batch::{Batch, BatchHeader};
use fulmar_wire::*;
use std::time::Duration;

fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
    RequestHeader { api_key, api_version, correlation_id: 1, client_id: None }
}

async fn begin(fixture: &Fixture, version: i16, request: Request) -> BoxFuture<'static, Reply> {
    start(fixture.broker.clone(), &header(request.api(), version), request).await
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

#[test]
fn what_is_produced_is_fetched_byte_for_byte_but_for_offset_and_epoch() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        assert_eq!(produce(&fixture, batch(None, 3, 100)).await, (ErrorCode::None, 0));
        fixture.group.elect(Some(NodeId(1)));
        let sent = batch(None, 2, 200);
        assert_eq!(produce(&fixture, sent.clone()).await, (ErrorCode::None, 3));

        // An offset in the middle of a batch gives the whole batch.
        let data = fetch(&fixture, 4).await;
        assert_eq!(
            (data.high_watermark, data.last_stable_offset, data.log_start_offset),
            (5, 5, 0)
        );
        let got = records(&data);
        let header = BatchHeader::read(&got).expect("a header");
        assert_eq!((header.base_offset, header.partition_leader_epoch), (3, 2));
        assert_eq!(got[16..], sent[16..]);
        assert!(Batch::parse(got).is_ok());
        assert!(records(&fetch(&fixture, 5).await).is_empty());
        assert_eq!(fetch(&fixture, 6).await.error_code, ErrorCode::OffsetOutOfRange);
        assert_eq!(fetch(&fixture, -1).await.error_code, ErrorCode::OffsetOutOfRange);
    });
}

#[test]
fn every_acks_waits_for_the_commit_and_acks_0_for_nothing() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        for acks in [1, -1] {
            let request = produce_request(acks, batch(None, 1, 0));
            let mut reply = begin(&fixture, 9, request.into()).await;
            settle().await;
            let early = time::timeout(Duration::from_millis(30), &mut reply).await;
            assert!(early.is_err(), "answered before the commit");
        }
        let silent = begin(&fixture, 9, produce_request(0, batch(None, 1, 0)).into()).await.await;
        assert!(matches!(silent, Reply::Silent));
        let broken = begin(&fixture, 9, produce_request(0, Bytes::new()).into()).await.await;
        assert!(matches!(broken, Reply::Close), "a client without answers learns of errors");
        fixture.group.hold(false);
        settle().await;
        assert_eq!(fetch(&fixture, 0).await.high_watermark, 3);
        let odd = ask!(&fixture, 9, Produce, produce_request(2, batch(None, 1, 0)));
        assert_eq!(produced(&odd).0, ErrorCode::InvalidRequiredAcks);
    });
}

#[test]
fn pipelined_batches_keep_their_order_and_share_entries() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.set_flushing(true);
        fixture.group.hold(true);
        let entries = fixture.group.entries();
        let mut replies = Vec::new();
        for n in 0..20 {
            let request = produce_request(-1, batch(Some((7, 0, n)), 1, 0));
            replies.push(begin(&fixture, 9, request.into()).await);
            settle().await;
        }
        fixture.group.set_flushing(false);
        fixture.group.hold(false);
        for (n, reply) in (0..).zip(replies) {
            let Response::Produce(response) = written(reply.await, 9) else { panic!("produce") };
            assert_eq!(produced(&response), (ErrorCode::None, n));
        }
        // The first was proposed alone, the others while its flush ran.
        assert_eq!(fixture.group.entries() - entries, 2);
    });
}

#[test]
fn a_duplicate_after_a_leader_change_is_answered_with_its_offset() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let first = batch(Some((7, 0, 0)), 2, 0);
        assert_eq!(produce(&fixture, first.clone()).await, (ErrorCode::None, 0));
        assert_eq!(produce(&fixture, first.clone()).await, (ErrorCode::None, 0));
        assert_eq!(fixture.events.probes(Probe::DuplicateAnsweredAfterLeaderChange), 0);
        fixture.group.elect(Some(NodeId(1)));
        assert_eq!(produce(&fixture, first).await, (ErrorCode::None, 0));
        assert_eq!(fixture.events.probes(Probe::DuplicateAnsweredAfterLeaderChange), 1);
        let gap = produce(&fixture, batch(Some((7, 0, 5)), 1, 0)).await;
        assert_eq!(gap, (ErrorCode::OutOfOrderSequenceNumber, -1));
        assert_eq!(fixture.events.probes(Probe::SequenceRefused), 1);
        assert_eq!(fetch(&fixture, 0).await.high_watermark, 2);
    });
}

#[test]
fn a_lost_leadership_is_told_from_an_unknown_outcome() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        let reply = begin(&fixture, 9, produce_request(-1, batch(None, 1, 0)).into()).await;
        settle().await;
        fixture.group.elect(Some(NodeId(2)));
        let Response::Produce(response) = written(reply.await, 9) else { panic!("produce") };
        assert_eq!(produced(&response), (ErrorCode::RequestTimedOut, -1));
        let refused = produce(&fixture, batch(None, 1, 0)).await;
        assert_eq!(refused, (ErrorCode::NotLeaderOrFollower, -1));
    });
}

#[test]
fn a_batch_that_ran_out_of_time_is_unknown() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        let mut request = produce_request(-1, batch(None, 1, 0));
        request.timeout_ms = 20;
        let response = ask!(&fixture, 9, Produce, request);
        assert_eq!(produced(&response).0, ErrorCode::RequestTimedOut);
    });
}

#[test]
fn batches_that_no_broker_stores_are_refused_before_they_are_proposed() {
    run(async {
        let fixture = Fixture::new();
        let small = CreatableTopic {
            name: "t".to_owned(),
            num_partitions: 1,
            replication_factor: 3,
            configs: vec![CreatableTopicConfig {
                name: "max.message.bytes".to_owned(),
                value: Some("200".to_owned()),
            }],
            ..CreatableTopic::default()
        };
        assert_eq!(create_as(&fixture, small).await.error_code, ErrorCode::None);
        let entries = fixture.group.entries();
        let mut rotten = batch(None, 1, 0).to_vec();
        *rotten.last_mut().expect("not empty") ^= 1;
        let mut old = batch(None, 1, 0).to_vec();
        old[16] = 1;
        for (bytes, code) in [
            (Bytes::from(rotten), ErrorCode::CorruptMessage),
            (Bytes::from(old), ErrorCode::UnsupportedForMessageFormat),
            (batch(None, 100, 0), ErrorCode::MessageTooLarge),
            (Bytes::new(), ErrorCode::InvalidRecord),
            (Bytes::from_static(&[0; 10]), ErrorCode::CorruptMessage),
        ] {
            assert_eq!(produce(&fixture, bytes).await, (code, -1));
        }
        let mut elsewhere = produce_request(-1, batch(None, 1, 0));
        elsewhere.topic_data[0].partition_data[0].index = -1;
        let response = ask!(&fixture, 3, Produce, elsewhere);
        assert_eq!(produced(&response).0, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(fixture.group.entries(), entries);
    });
}

#[test]
fn a_fetch_waits_for_an_append_or_its_deadline() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let start = time::now();
        let response = ask!(&fixture, 4, Fetch, fetch_request(0, 60));
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(records(fetched(&response)).is_empty());

        let waiting = begin(&fixture, 4, fetch_request(0, 10_000).into()).await;
        let waiting = fulmar_host::task::spawn(waiting);
        settle().await;
        produce(&fixture, batch(None, 1, 0)).await;
        let Response::Fetch(response) = written(waiting.await.expect("answered"), 4) else {
            panic!("fetch")
        };
        assert_eq!(fetched(&response).high_watermark, 1);
        assert!(!records(fetched(&response)).is_empty());
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn fetches_that_wait_occupy_no_memory_of_others() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let request = FetchRequest { max_bytes: i32::MAX, ..fetch_request(0, 10_000) };
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let reply = begin(&fixture, 12, request.clone().into()).await;
            waiting.push(fulmar_host::task::spawn(reply));
        }
        settle().await;
        produce(&fixture, batch(None, 1, 0)).await;
        for one in waiting {
            let reply = one.await.expect("answered");
            let Response::Fetch(response) = written(reply, 12) else { panic!("fetch") };
            assert_eq!(fetched(&response).high_watermark, 1);
        }
        let free = fixture.broker.fetch_room.available_permits();
        assert_eq!(free * 1024, crate::limits::FETCH_BYTES_IN_FLIGHT_MAX);
    });
}

#[test]
fn a_waiting_fetch_learns_that_another_node_leads() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let waiting = begin(&fixture, 12, fetch_request(0, 10_000).into()).await;
        let waiting = fulmar_host::task::spawn(waiting);
        settle().await;
        fixture.group.elect(Some(NodeId(3)));
        let Response::Fetch(response) = written(waiting.await.expect("answered"), 12) else {
            panic!("fetch")
        };
        let data = fetched(&response);
        assert_eq!(data.error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!((data.current_leader.leader_id, data.current_leader.leader_epoch), (3, 2));
    });
}

#[test]
fn a_leader_without_lease_answers_no_read() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        produce(&fixture, batch(None, 1, 0)).await;
        fixture.group.set_lease(false);
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::NotLeaderOrFollower);
        let latest = list(&fixture, LATEST_TIMESTAMP).await;
        assert_eq!(latest.error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!(fixture.events.probes(Probe::DeposedLeaderRefusedRead), 2);
        fixture.group.set_lease(true);
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::None);
    });
}

#[test]
fn the_lease_is_checked_after_the_data_was_read() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let waiting = begin(&fixture, 12, fetch_request(0, 100).into()).await;
        let waiting = fulmar_host::task::spawn(waiting);
        settle().await;
        // Still the leader, as far as this node knows.
        fixture.group.set_lease(false);
        let Response::Fetch(response) = written(waiting.await.expect("answered"), 12) else {
            panic!("fetch")
        };
        assert_eq!(fetched(&response).error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!(fixture.events.probes(Probe::DeposedLeaderRefusedRead), 1);
    });
}

#[test]
fn epochs_of_clients_are_compared_with_the_term() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.elect(Some(NodeId(1)));
        for (epoch, code) in [
            (-1, ErrorCode::None),
            (2, ErrorCode::None),
            (1, ErrorCode::FencedLeaderEpoch),
            (3, ErrorCode::UnknownLeaderEpoch),
        ] {
            let mut request = fetch_request(0, 0);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            assert_eq!(fetched(&ask!(&fixture, 9, Fetch, request)).error_code, code);
        }
    });
}

#[test]
fn the_first_batch_is_whole_and_the_rest_keeps_to_the_limits() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 2).await;
        let one = batch(None, 50, 0);
        for _ in 0..4 {
            produce(&fixture, one.clone()).await;
        }
        let sizes = |max_bytes: i32, partition_max_bytes: i32| {
            let mut request = fetch_request(0, 0);
            request.max_bytes = max_bytes;
            request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
            let mut second = request.topics[0].partitions[0].clone();
            second.fetch_offset = 50;
            request.topics[0].partitions.push(second);
            let fixture = &fixture;
            async move {
                let response = ask!(fixture, 11, Fetch, request);
                let partitions = &response.responses[0].partitions;
                [0, 1].map(|at| records(&partitions[at]).len() / one_len(fixture))
            }
        };
        fn one_len(_: &Fixture) -> usize {
            batch(None, 50, 0).len()
        }
        let len = i32::try_from(one.len()).expect("small");
        assert_eq!(sizes(1, 1).await, [1, 0]);
        assert_eq!(sizes(3 * len, 1 << 20).await, [3, 0]);
        assert_eq!(sizes(1 << 20, 2 * len).await, [2, 2]);
        assert_eq!(sizes(1 << 20, 1).await, [1, 0]);
        assert_eq!(sizes(-5, -5).await, [1, 0]);
    });
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

#[test]
fn offsets_are_found_by_place_and_by_time() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let of = |found: ListOffsetsPartitionResponse| {
            (found.error_code, found.offset, found.timestamp, found.leader_epoch)
        };
        let none = ErrorCode::None;
        assert_eq!(of(list(&fixture, LATEST_TIMESTAMP).await), (none, 0, -1, -1));
        assert_eq!(of(list(&fixture, MAX_TIMESTAMP).await), (none, -1, -1, -1));
        produce(&fixture, batch(None, 3, 1_000)).await;
        fixture.group.elect(Some(NodeId(1)));
        produce(&fixture, batch(None, 3, 2_000)).await;
        produce(&fixture, batch(None, 1, 500)).await;
        assert_eq!(of(list(&fixture, EARLIEST_TIMESTAMP).await), (none, 0, -1, 1));
        assert_eq!(of(list(&fixture, LATEST_TIMESTAMP).await), (none, 7, -1, 2));
        assert_eq!(of(list(&fixture, MAX_TIMESTAMP).await), (none, 3, 2_002, 2));
        assert_eq!(of(list(&fixture, 1_001).await), (none, 0, 1_002, 1));
        assert_eq!(of(list(&fixture, 1_003).await), (none, 3, 2_002, 2));
        assert_eq!(of(list(&fixture, 9_999).await), (none, -1, -1, -1));
        let unsupported = list_as(&fixture, 6, MAX_TIMESTAMP).await.error_code;
        assert_eq!(unsupported, ErrorCode::UnsupportedVersion);
        assert_eq!(list_as(&fixture, 1, LATEST_TIMESTAMP).await.offset, 7);
    });
}

#[test]
fn topics_are_checked_created_once_and_deleted_by_name_or_id() {
    run(async {
        let fixture = Fixture::new();
        let made = create(&fixture, "t", 3).await;
        assert_eq!((made.error_code, made.num_partitions), (ErrorCode::None, 3));
        assert_ne!(made.topic_id, Uuid::NIL);
        assert_eq!(create(&fixture, "t", 3).await.error_code, ErrorCode::TopicAlreadyExists);
        assert_eq!(create(&fixture, "a/b", 3).await.error_code, ErrorCode::InvalidTopicException);
        assert_eq!(create(&fixture, "b", 0).await.error_code, ErrorCode::InvalidPartitions);
        assert_eq!(create(&fixture, "b", -1).await.num_partitions, 2);
        let odd = |topic: CreatableTopic| CreatableTopic {
            name: "c".to_owned(),
            num_partitions: 1,
            ..topic
        };
        let factor = odd(CreatableTopic { replication_factor: 4, ..Default::default() });
        let code = create_as(&fixture, factor).await.error_code;
        assert_eq!(code, ErrorCode::InvalidReplicationFactor);
        let config = CreatableTopicConfig {
            name: "cleanup.policy".to_owned(),
            value: Some("compact".to_owned()),
        };
        let compacted = odd(CreatableTopic {
            replication_factor: 1,
            configs: vec![config],
            ..Default::default()
        });
        let refused = create_as(&fixture, compacted).await;
        assert_eq!(refused.error_code, ErrorCode::InvalidConfig);
        assert!(refused.error_message.expect("says why").contains("cleanup.policy"));

        let by_id = DeleteTopicState { name: None, topic_id: made.topic_id };
        let by_name = DeleteTopicState { name: Some("b".to_owned()), topic_id: Uuid::NIL };
        let topics = vec![by_id.clone(), by_name, by_id];
        let request =
            DeleteTopicsRequest { topics, timeout_ms: 5_000, ..DeleteTopicsRequest::default() };
        let deleted = ask!(&fixture, 6, DeleteTopics, request).responses;
        let codes: Vec<ErrorCode> = deleted.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [ErrorCode::None, ErrorCode::None, ErrorCode::UnknownTopicId]);
        assert_eq!(deleted[0].name.as_deref(), Some("t"));
        let gone = produce(&fixture, batch(None, 1, 0)).await;
        assert_eq!(gone, (ErrorCode::UnknownTopicOrPartition, -1));
        let request = DeleteTopicsRequest {
            topic_names: vec!["t".to_owned()],
            timeout_ms: 5_000,
            ..DeleteTopicsRequest::default()
        };
        let deleted = ask!(&fixture, 1, DeleteTopics, request).responses;
        assert_eq!(deleted[0].error_code, ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn a_topic_that_is_only_validated_is_not_created() {
    run(async {
        let fixture = Fixture::new();
        let topic = CreatableTopic {
            name: "t".to_owned(),
            num_partitions: 1,
            replication_factor: 3,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            validate_only: true,
            ..CreateTopicsRequest::default()
        };
        let checked = ask!(&fixture, 5, CreateTopics, request.clone()).topics.remove(0);
        assert_eq!(checked.error_code, ErrorCode::None);
        assert_eq!(fixture.group.entries(), 0);
        create(&fixture, "t", 1).await;
        let checked = ask!(&fixture, 5, CreateTopics, request).topics.remove(0);
        assert_eq!(checked.error_code, ErrorCode::TopicAlreadyExists);
    });
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

#[test]
fn metadata_names_the_raft_leader_and_what_clients_may_dial() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 2).await;
        for version in 0..=12 {
            let all = metadata(&fixture, version, None.or((version == 0).then_some(&[][..])), true);
            let all = all.await;
            assert_eq!(all.brokers.len(), 3);
            assert_eq!(all.brokers[1].host, "node-2.example");
            assert_eq!(all.controller_id, 1);
            let topic = &all.topics[0];
            assert_eq!(topic.name.as_deref(), Some("t"));
            assert_ne!(topic.topic_id, Uuid::NIL);
            let partition = &topic.partitions[1];
            assert_eq!((partition.leader_id, partition.leader_epoch), (1, 1));
            assert_eq!(partition.isr_nodes, [1, 2, 3]);
        }
        fixture.group.elect(None);
        let none = metadata(&fixture, 12, Some(&["t"]), true).await;
        assert_eq!(none.controller_id, -1);
        let partition = &none.topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::LeaderNotAvailable);
        assert_eq!((partition.leader_id, partition.leader_epoch), (-1, 0));
    });
}

#[test]
fn metadata_creates_topics_if_both_sides_agree() {
    run(async {
        let fixture = Fixture::new();
        let unknown = metadata(&fixture, 12, Some(&["new"]), false).await;
        assert_eq!(unknown.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
        let invalid = metadata(&fixture, 12, Some(&["a b"]), true).await;
        assert_eq!(invalid.topics[0].error_code, ErrorCode::InvalidTopicException);
        let created = metadata(&fixture, 1, Some(&["new", "new"]), true).await;
        assert_eq!(created.topics[0].error_code, ErrorCode::None);
        assert_eq!(created.topics[0].partitions.len(), 2);
        assert_eq!(fixture.group.entries(), 1);

        let fixture =
            Fixture::with(crate::BrokerSettings { auto_create_topics: false, ..settings(1) });
        let unknown = metadata(&fixture, 12, Some(&["new"]), true).await;
        assert_eq!(unknown.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn producer_ids_are_handed_out_once_and_transactions_are_refused() {
    run(async {
        let fixture = Fixture::new();
        for expected in 0..3 {
            let got = ask!(&fixture, 4, InitProducerId, InitProducerIdRequest::default());
            assert_eq!((got.error_code, got.producer_id), (ErrorCode::None, expected));
        }
        let request = InitProducerIdRequest {
            transactional_id: Some("x".to_owned()),
            ..InitProducerIdRequest::default()
        };
        let refused = ask!(&fixture, 4, InitProducerId, request);
        assert_eq!(refused.error_code, ErrorCode::InvalidRequest);
        fixture.group.elect(None);
        let refused = ask!(&fixture, 4, InitProducerId, InitProducerIdRequest::default());
        assert_eq!(refused.error_code, ErrorCode::CoordinatorLoadInProgress);
    });
}

#[test]
fn what_only_the_leader_can_do_is_handed_over_to_it() {
    run(async {
        let leader = Fixture::new();
        let server = crate::server::Server::start(leader.broker.clone()).await.expect("listens");
        let mut settings = settings(2);
        settings.nodes[0].internal = server.address();
        let follower = Fixture::with(settings);
        assert_eq!(create(&follower, "t", 1).await.error_code, ErrorCode::None);
        assert_eq!(leader.group.entries(), 1);
        let got = ask!(&follower, 1, InitProducerId, InitProducerIdRequest::default());
        assert_eq!((got.error_code, got.producer_id), (ErrorCode::None, 0));
        // Created, and not yet applied here.
        let created = metadata(&follower, 4, Some(&["new"]), true).await;
        assert_eq!(created.topics[0].error_code, ErrorCode::LeaderNotAvailable);
        assert!(leader.broker.site.read(|state| state.topics().by_name("new").is_some()));
        let request = DeleteTopicsRequest {
            topic_names: vec!["t".to_owned()],
            timeout_ms: 5_000,
            ..DeleteTopicsRequest::default()
        };
        let deleted = ask!(&follower, 3, DeleteTopics, request);
        assert_eq!(deleted.responses[0].error_code, ErrorCode::None);

        // A leader that has stepped down does not hand it on again.
        leader.group.elect(Some(NodeId(3)));
        let refused = create(&follower, "u", 1).await;
        assert_eq!(refused.error_code, ErrorCode::NotController);
        drop(server);
        settle().await;
        let refused = create(&follower, "u", 1).await;
        assert_eq!(refused.error_code, ErrorCode::NotController);
    });
}

#[test]
fn idle_producers_are_forgotten() {
    run(async {
        let fixture = Fixture::with(crate::BrokerSettings {
            producer_expiry: Duration::from_millis(300),
            ..settings(1)
        });
        create(&fixture, "t", 1).await;
        produce(&fixture, batch(Some((7, 0, 0)), 1, 0)).await;
        assert_eq!(fixture.broker.site.read(|state| state.producers().len()), 1);
        while fixture.broker.site.read(|state| !state.producers().is_empty()) {
            time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(Term(1), fixture.broker.group.leadership().term);
    });
}

#[test]
fn fetch_sessions_are_never_opened() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let request = FetchRequest { session_id: 5, session_epoch: 1, ..fetch_request(0, 0) };
        let refused = ask!(&fixture, 12, Fetch, request);
        assert_eq!(refused.error_code, ErrorCode::FetchSessionIdNotFound);
        let versions = ask!(&fixture, 3, ApiVersions, ApiVersionsRequest::default());
        assert_eq!(versions.api_keys.len(), 8);
    });
}

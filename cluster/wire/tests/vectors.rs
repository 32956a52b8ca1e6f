//! Frames of a real client, drawn byte by byte in `tests/data`: they are read as what they mean,
//! and written again as the same bytes.

use bytes::{Bytes, BytesMut};
use fulmar_wire::batch::Batch;
use fulmar_wire::frame::{self, Incoming};
use fulmar_wire::*;

const HANDSHAKE: &str = include_str!("data/kcat-handshake.txt");
const PRODUCE_FETCH: &str = include_str!("data/kcat-produce-fetch.txt");

/// The frame under the heading `= title`.
fn frame_of(file: &str, title: &str) -> Bytes {
    let sections = file.split("\n= ").skip(1);
    let section = sections.map(|section| section.split_once('\n').expect("a heading"));
    let (_, body) = section.into_iter().find(|(found, _)| *found == title).expect("the heading");
    let digits = body.lines().filter_map(|line| line.split_once('|')).map(|(hex, _)| hex);
    digits
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}

fn check_request<R>(file: &str, title: &str, expected: &R)
where
    R: RequestMessage + Into<Request> + Clone,
{
    let bytes = frame_of(file, title);
    let incoming = Incoming::parse(bytes.clone()).expect("a header");
    let Incoming::Request(header, body) = incoming else { panic!("{incoming:?}") };
    let named = format!("{} {} request", header.api_key, header.api_version);
    assert!(title.starts_with(&named), "{named} under the title {title}");
    let request = Request::decode(&header, body).expect("a body");
    assert_eq!(request, expected.clone().into());
    let mut out = BytesMut::new();
    let client_id = header.client_id.as_deref();
    assert_eq!(client_id, Some("rdkafka"));
    frame::encode_request(&mut out, expected, header.api_version, header.correlation_id, client_id)
        .expect("valid");
    assert_eq!(out[frame::LENGTH_BYTES..], bytes[..]);
}

fn check_response<M: Message + PartialEq + std::fmt::Debug>(
    title: &str,
    version: i16,
    expected: &M,
) {
    let bytes = frame_of(HANDSHAKE, title);
    let body = frame::response_body(bytes.clone(), M::API, version).expect("a header");
    assert_eq!(M::decode(body, version).as_ref(), Ok(expected));
    let correlation_id = frame::correlation_id(&bytes).expect("a header");
    let frame = frame::encode_response(correlation_id, version, expected).expect("valid");
    assert_eq!(frame.to_bytes()[frame::LENGTH_BYTES..], bytes[..]);
}

#[test]
fn the_handshake_of_kcat() {
    check_request(
        HANDSHAKE,
        "ApiVersions 3 request",
        &ApiVersionsRequest {
            client_software_name: "librdkafka".into(),
            client_software_version: "2.0.2".into(),
        },
    );
    check_request(
        HANDSHAKE,
        "Metadata 4 request",
        &MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some("readings".into()),
                ..Default::default()
            }]),
            ..Default::default()
        },
    );
    check_request(
        HANDSHAKE,
        "InitProducerId 4 request",
        &InitProducerIdRequest { transaction_timeout_ms: -1, ..Default::default() },
    );
}

#[test]
fn our_side_of_the_handshake() {
    check_response("ApiVersions 3 response", 3, &ApiVersionsResponse::advertised());
    check_response(
        "Metadata 4 response",
        4,
        &MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "127.0.0.1".into(),
                port: 19_192,
                rack: None,
            }],
            cluster_id: Some("north".into()),
            controller_id: 1,
            topics: vec![MetadataResponseTopic {
                name: Some("readings".into()),
                partitions: vec![MetadataResponsePartition {
                    leader_id: 1,
                    replica_nodes: vec![1],
                    isr_nodes: vec![1],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
    );
    check_response(
        "InitProducerId 4 response",
        4,
        &InitProducerIdResponse { producer_id: 4_000, ..Default::default() },
    );
}

fn produce(records: Bytes) -> ProduceRequest {
    ProduceRequest {
        transactional_id: None,
        acks: ACKS_ALL,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: "readings".into(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(records) }],
        }],
    }
}

#[test]
fn two_lines_produced_by_kcat() {
    let title = "Produce 7 request, with a header on each record";
    let frame = frame_of(PRODUCE_FETCH, title);
    let batch = frame.slice(frame.len() - 110..);
    check_request(PRODUCE_FETCH, title, &produce(batch.clone()));

    let batch = Batch::from_producer(batch, 110).expect("valid");
    assert_eq!(batch.header().producer(), None);
    assert_eq!(batch.max_timestamp(0), 1_795_387_021_988);
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let records = batch.records().expect("not compressed").map(|record| {
        let record = record.expect("whole");
        let header = record.headers.first().expect("one");
        let unit = text(header.value.as_ref().expect("a value"));
        assert_eq!((record.headers.len(), &header.key[..]), (1, &b"unit"[..]));
        let (key, value) = (record.key.expect("a key"), record.value.expect("a value"));
        format!("{} {} {} {unit}", record.offset, text(&key), text(&value))
    });
    assert_eq!(records.collect::<Vec<_>>(), ["0 pump-7 31.5 C", "1 pump-8 30.25 C"]);
}

#[test]
fn an_idempotent_batch_of_kcat() {
    let title = "Produce 7 request, idempotent";
    let frame = frame_of(PRODUCE_FETCH, title);
    let batch = frame.slice(frame.len() - 96..);
    check_request(PRODUCE_FETCH, title, &produce(batch.clone()));
    let stamp = Batch::from_producer(batch, 96).expect("valid").header().producer();
    let stamp = stamp.expect("idempotent");
    assert_eq!((stamp.producer_id, stamp.producer_epoch), (4_000, 0));
    assert_eq!((stamp.base_sequence, stamp.last_sequence), (0, 1));
}

#[test]
fn a_fetch_of_kcat() {
    check_request(
        PRODUCE_FETCH,
        "Fetch 11 request",
        &FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 52_428_800,
            isolation_level: READ_COMMITTED,
            topics: vec![FetchTopic {
                topic: "readings".into(),
                partitions: vec![FetchPartition {
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        },
    );
}

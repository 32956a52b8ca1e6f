//! Connections, against a group in memory.

use super::*;
use crate::testing::{Fixture, batch, run, settle};
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_wire::frame::{FrameSplitter, correlation_id, encode_request, response_body};
use fulmar_wire::*;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod limits;

struct Client {
    connection: fulmar_host::net::Connection,
    buffer: BytesMut,
}

impl Client {
    async fn connect(fixture: &Fixture, server: &Server) -> Self {
        let connection = fixture.broker.host.network.connect(server.address()).await;
        Self { connection: connection.expect("connects"), buffer: BytesMut::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.connection.writer.write_all(bytes).await.expect("sends");
    }

    async fn request<R: RequestMessage>(&mut self, request: &R, version: i16, id: i32) {
        let mut frame = BytesMut::new();
        encode_request(&mut frame, request, version, id, Some("test")).expect("encodes");
        self.send(&frame).await;
    }

    /// The next frame, or `None` at the end of the connection.
    async fn frame(&mut self) -> Option<Bytes> {
        let splitter = FrameSplitter::new(1 << 24);
        loop {
            if let Some(frame) = splitter.split(&mut self.buffer).expect("a frame") {
                return Some(frame);
            }
            match self.connection.reader.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn response<M: Message>(&mut self, version: i16, id: i32) -> M {
        let frame = self.frame().await.expect("an answer");
        assert_eq!(correlation_id(&frame), Ok(id));
        let body = response_body(frame, M::API, version).expect("a body");
        M::decode(body, version).expect("decodes")
    }
}

async fn started() -> (Fixture, Server) {
    let fixture = Fixture::new();
    let server = Server::start(fixture.broker.clone()).await.expect("listens");
    (fixture, server)
}

fn produce(acks: i16, sequence: i32) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 5_000,
        topic_data: vec![TopicProduceData {
            name: "t".to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(batch(Some((0, 0, sequence)), 1, 0)),
            }],
        }],
        ..ProduceRequest::default()
    }
}

fn metadata() -> MetadataRequest {
    let name = Some("t".to_owned());
    let topic = MetadataRequestTopic { name, ..MetadataRequestTopic::default() };
    MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() }
}

#[test]
fn answers_leave_in_the_order_of_the_requests_and_acks_0_has_none() {
    run(async {
        let (fixture, server) = started().await;
        assert_eq!(fixture.producer().await, 0);
        let mut client = Client::connect(&fixture, &server).await;
        client.request(&metadata(), 12, 1).await;
        let made: MetadataResponse = client.response(12, 1).await;
        assert_eq!(made.topics[0].error_code, ErrorCode::None);
        fixture.group.hold(true);
        for n in 0..5 {
            client.request(&produce(-1, n), 9, 10 + n).await;
        }
        client.request(&produce(0, 5), 9, 15).await;
        client.request(&metadata(), 12, 16).await;
        settle().await;
        fixture.group.hold(false);
        for n in 0..5 {
            let answer: ProduceResponse = client.response(9, 10 + n).await;
            assert_eq!(answer.responses[0].partition_responses[0].base_offset, i64::from(n));
        }
        let _: MetadataResponse = client.response(12, 16).await;
        let stream = fixture.broker.site.read(|state| {
            let topic = state.topics().by_name("t").expect("there");
            state.partition(topic.first_stream).expect("there").next
        });
        assert_eq!(stream.get(), 6);
    });
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    run(async {
        let (fixture, server) = started().await;
        let mut client = Client::connect(&fixture, &server).await;
        client.send(b"\0\0\0\x0b\0\x12\0\x63\0\0\0\x09abc").await;
        let frame = client.frame().await.expect("an answer");
        assert_eq!(correlation_id(&frame), Ok(9));
        let answer = ApiVersionsResponse::decode(frame.slice(4..), 0).expect("version 0");
        assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion);
        // The connection lives on.
        client.request(&ApiVersionsRequest::default(), 3, 10).await;
        let answer: ApiVersionsResponse = client.response(3, 10).await;
        assert!(!answer.api_keys.is_empty());
    });
}

#[test]
fn what_cannot_be_answered_ends_its_connection_and_no_other() {
    run(async {
        let (fixture, server) = started().await;
        let mut bystander = Client::connect(&fixture, &server).await;
        let mut too_long = BytesMut::new();
        too_long.put_i32(i32::MAX);
        for bytes in [
            &too_long[..],
            b"\xff\xff\xff\xff",
            b"\0\0\0\x04abcd",
            // Api key 71, which is not served; Metadata with a count beyond its bytes.
            b"\0\0\0\x0a\0\x47\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff",
        ] {
            let mut client = Client::connect(&fixture, &server).await;
            client.send(bytes).await;
            assert_eq!(client.frame().await, None);
        }
        let mut unheard = Client::connect(&fixture, &server).await;
        unheard.request(&produce(0, 0), 9, 1).await;
        assert_eq!(unheard.frame().await, None, "acks 0 and no such topic");
        bystander.request(&metadata(), 4, 2).await;
        let _: MetadataResponse = bystander.response(4, 2).await;
    });
}

#[test]
fn a_client_that_is_done_sending_still_gets_its_answers() {
    run(async {
        let (fixture, server) = started().await;
        let mut client = Client::connect(&fixture, &server).await;
        client.request(&metadata(), 4, 1).await;
        client.request(&metadata(), 4, 2).await;
        client.connection.writer.shutdown().await.expect("closes its side");
        let _: MetadataResponse = client.response(4, 1).await;
        let _: MetadataResponse = client.response(4, 2).await;
        assert_eq!(client.frame().await, None);
    });
}

#[test]
fn a_large_answer_arrives_whole() {
    run(async {
        let (fixture, server) = started().await;
        let mut client = Client::connect(&fixture, &server).await;
        client.request(&metadata(), 4, 0).await;
        let _: MetadataResponse = client.response(4, 0).await;
        let mut request = produce(-1, 0);
        for n in 0..200 {
            let records = Some(batch(None, 300, n));
            request.topic_data[0].partition_data[0].records = records;
            client.request(&request, 7, 1).await;
            let _: ProduceResponse = client.response(7, 1).await;
        }
        let partition = FetchPartition { partition_max_bytes: i32::MAX, ..Default::default() };
        let topic = FetchTopic { topic: "t".to_owned(), partitions: vec![partition] };
        let request = FetchRequest {
            min_bytes: 1,
            max_wait_ms: 1,
            topics: vec![topic],
            ..Default::default()
        };
        client.request(&request, 11, 2).await;
        let answer: FetchResponse = client.response(11, 2).await;
        let records = answer.responses[0].partitions[0].records.clone().expect("not null");
        let mut bytes = records.into_bytes();
        let mut next = 0;
        while !bytes.is_empty() {
            let header = batch::BatchHeader::read(&bytes).expect("a header");
            let one = bytes.split_to(header.batch_bytes().expect("a length"));
            batch::Batch::parse(one).expect("a batch");
            assert_eq!(header.base_offset, next);
            next += 300;
        }
        assert_eq!(next, 60_000);
    });
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    run(async {
        let (fixture, server) = started().await;
        let mut clients = Vec::new();
        for _ in 0..CLIENT_CONNECTIONS_MAX {
            clients.push(Client::connect(&fixture, &server).await);
        }
        let last = clients.last_mut().expect("some");
        last.request(&metadata(), 4, 1).await;
        let _: MetadataResponse = last.response(4, 1).await;
        let mut refused = Client::connect(&fixture, &server).await;
        assert_eq!(refused.frame().await, None);
        drop(clients);
        settle().await;
        let mut again = Client::connect(&fixture, &server).await;
        again.request(&metadata(), 4, 1).await;
        let _: MetadataResponse = again.response(4, 1).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Any bytes from a client end at worst its connection.
    #[test]
    fn no_bytes_of_a_client_stop_the_server(
        frames in proptest::collection::vec(
            (0i16..25, 0i16..13, proptest::collection::vec(any::<u8>(), 0..60)),
            1..8,
        ),
    ) {
        run(async {
            let (fixture, server) = started().await;
            let mut client = Client::connect(&fixture, &server).await;
            let mut bytes = BytesMut::new();
            for (key, version, body) in frames {
                bytes.put_i32(i32::try_from(body.len() + 10).expect("short"));
                bytes.put_i16(key);
                bytes.put_i16(version);
                bytes.put_i32(1);
                bytes.put_i16(-1);
                bytes.put_slice(&body);
            }
            let _ = client.connection.writer.write_all(&bytes).await;
            let _ = client.connection.writer.shutdown().await;
            settle().await;
            let mut other = Client::connect(&fixture, &server).await;
            other.request(&ApiVersionsRequest::default(), 0, 1).await;
            let _: ApiVersionsResponse = other.response(0, 1).await;
        });
    }
}

//! A site in memory that speaks wire bytes over tokio's duplex pipes, and misbehaves on request.
//!
//! It has one topic `t` with some partitions, nodes 1 to 3, and keeps what it appended. It is a
//! test double: it keeps the rules of a broker only as far as the tests of this crate look.

use crate::cluster::Cluster;
use crate::settings::Settings;
use bytes::{Bytes, BytesMut};
use fulmar_host::BoxFuture;
use fulmar_host::net::{Connection, Listener, Network, PeerIdentity};
use fulmar_host::task;
use fulmar_host::time::Duration;
use fulmar_types::{NodeId, Offset, Term, Uuid};
use fulmar_wire::batch::{Batch, sequence_after};
use fulmar_wire::frame::{FrameSplitter, Incoming, unsupported_api_versions};
use fulmar_wire::*;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What the site does with the next produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Closes the connection instead of appending.
    CloseBefore,
    /// Appends, and closes the connection instead of answering.
    CloseAfter,
    /// Answers with an error and does not append.
    Refuse(ErrorCode),
    /// Appends and answers with an error.
    AppendAndSay(ErrorCode),
    /// Neither appends nor ever answers on this connection again.
    Silence,
    /// Makes the other node the leader, in the next epoch, and falls silent.
    SilenceAndMoveTo(u64),
    /// Makes the other node the leader, and says that it is none.
    MoveTo(u64),
    /// Answers with bytes that are no answer.
    Garbage,
}

#[derive(Default)]
struct Log {
    batches: Vec<Batch>,
    next: u64,
    /// Per producer id: the batches of it, by first sequence number.
    seen: BTreeMap<i64, Vec<(i32, i32, u64)>>,
}

impl Log {
    fn append(&mut self, bytes: Bytes, epoch: u64) -> (ErrorCode, i64) {
        let batch = Batch::from_producer(bytes, 1 << 20).expect("the client sends valid batches");
        let count = u64::from(batch.record_count());
        if let Some(stamp) = batch.header().producer() {
            let seen = self.seen.entry(stamp.producer_id).or_default();
            if let Some((_, _, offset)) =
                seen.iter().rev().take(5).find(|(first, _, _)| *first == stamp.base_sequence)
            {
                return (ErrorCode::None, offset.cast_signed());
            }
            let expected = seen.last().map_or(0, |(_, last, _)| sequence_after(*last, 1));
            if stamp.base_sequence != expected {
                return (ErrorCode::OutOfOrderSequenceNumber, -1);
            }
            seen.push((stamp.base_sequence, stamp.last_sequence, self.next));
        }
        let base = self.next;
        let placed = batch.placed(Offset(base), Term(epoch)).concat();
        self.batches.push(Batch::parse(placed.into()).expect("placed"));
        self.next += count;
        (ErrorCode::None, base.cast_signed())
    }
}

/// What the site holds.
pub struct Site {
    logs: Vec<Log>,
    pub leader: u64,
    pub epoch: i32,
    pub mischief: VecDeque<Mischief>,
    /// Every produce request that came in: partition and batch.
    pub produced: Vec<(i32, Bytes)>,
    next_producer: i64,
    pub topics: BTreeMap<String, Uuid>,
    made: u8,
    pub connections: usize,
    pub api_versions_max: i16,
    /// Whether nobody listens any more.
    pub is_down: bool,
    /// What it says to whoever lays something down, and how often it did.
    pub refusal: ErrorCode,
    pub refused: u32,
    /// Every request to delete topics that came in.
    pub deleting: Vec<DeleteTopicsRequest>,
    /// Every request to lay something down that came in.
    pub altering: Vec<AlterConfigsRequest>,
    pub laid: Laid,
}

/// What is laid down, by name, with the number of its last change; `None` if that removed it.
#[derive(Default)]
pub struct Laid {
    pub things: BTreeMap<String, (u64, Option<Vec<AlterableConfig>>)>,
    changes: u64,
}

impl Laid {
    const NUMBER: &str = "number";

    fn may_be_set(&self, resource: &AlterConfigsResource) -> bool {
        let number = resource.configs.iter().find(|config| config.name == Self::NUMBER);
        let number = number.and_then(|config| config.value.as_ref()).map(|text| text.parse());
        let number: u64 = number.expect("the client names numbers").expect("it is a number");
        match self.things.get(&resource.resource_name) {
            Some((is, Some(_))) => *is == number,
            Some((gone, None)) => *gone <= number,
            None => true,
        }
    }

    fn set(&mut self, resource: AlterConfigsResource) {
        let mut settings = resource.configs;
        settings.retain(|config| config.name != Self::NUMBER);
        self.changes += 1;
        let settings = (!settings.is_empty()).then_some(settings);
        self.things.insert(resource.resource_name, (self.changes, settings));
    }

    fn told(&self, name: &str) -> (ErrorCode, Vec<(String, String)>) {
        let number = |number: u64| (Self::NUMBER.to_owned(), number.to_string());
        match self.things.get(name) {
            Some((is, Some(settings))) => {
                let settings = settings.iter().cloned();
                let settings = settings.map(|of| (of.name, of.value.unwrap_or_default()));
                (ErrorCode::None, settings.chain([number(*is)]).collect())
            }
            _ => (ErrorCode::ResourceNotFound, vec![number(self.changes)]),
        }
    }
}

/// The site, and the network that leads to it.
#[derive(Clone)]
pub struct Fake(Arc<Mutex<Site>>);

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9000 + node as u16))
}

impl Fake {
    pub fn new(partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(Site {
            logs: (0..partitions).map(|_| Log::default()).collect(),
            leader: 1,
            epoch: 1,
            mischief: VecDeque::new(),
            produced: Vec::new(),
            next_producer: 100,
            topics: BTreeMap::new(),
            made: 0,
            connections: 0,
            api_versions_max: 3,
            is_down: false,
            refusal: ErrorCode::None,
            refused: 0,
            deleting: Vec::new(),
            altering: Vec::new(),
            laid: Laid::default(),
        })))
    }

    pub fn site(&self) -> MutexGuard<'_, Site> {
        self.0.lock().expect("no test panics under the lock")
    }

    pub fn cluster(&self) -> Cluster {
        let settings = Settings {
            connect_timeout: Duration::from_millis(300),
            request_timeout: Duration::from_millis(300),
            leader_check: Duration::from_millis(40),
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(20),
            ..Settings::default()
        };
        Cluster::new(Arc::new(self.clone()), (1..=3).map(address).collect(), settings)
    }

    /// The values in a partition, in order.
    pub fn values(&self, partition: usize) -> Vec<String> {
        let site = self.site();
        let records = site.logs[partition].batches.iter().flat_map(|b| b.records().expect("plain"));
        let text = |record: fulmar_wire::batch::Record| {
            String::from_utf8(record.value.expect("a value").to_vec()).expect("text")
        };
        records.map(|record| text(record.expect("whole"))).collect()
    }
}

impl Network for Fake {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let node = u64::from(to.port()) - 9000;
            self.site().connections += 1;
            if self.site().is_down {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let fake = self.clone();
            task::spawn(async move { fake.serve(node, theirs).await });
            let (reader, writer) = tokio::io::split(ours);
            Ok(Connection {
                peer: PeerIdentity::unproved(to),
                reader: Box::new(reader),
                writer: Box::new(writer),
                abrupt: None,
            })
        })
    }
}

enum Act {
    Answer(Response),
    Nothing,
    Close,
    Hang,
    Garbage,
}

impl Fake {
    async fn serve(&self, node: u64, mut stream: DuplexStream) {
        let mut buffer = BytesMut::new();
        let splitter = FrameSplitter::new(1 << 24);
        loop {
            let frame = match splitter.split(&mut buffer).expect("the client sends frames") {
                Some(frame) => frame,
                None => match stream.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                },
            };
            let (header, body) = match Incoming::parse(frame).expect("a header") {
                Incoming::Request(header, body) => (header, body),
                Incoming::UnknownApiVersions { correlation_id } => {
                    let frame = unsupported_api_versions(correlation_id).expect("encodes");
                    stream.write_all(&frame.to_bytes()).await.expect("open");
                    continue;
                }
            };
            let old = header.api_key == ApiKey::ApiVersions
                && header.api_version > self.site().api_versions_max;
            if old {
                let mut refused = ApiVersionsResponse::unsupported_version();
                refused.api_keys[0].max_version = self.site().api_versions_max;
                let refused =
                    fulmar_wire::frame::encode_response(header.correlation_id, 0, &refused);
                let refused = refused.expect("encodes");
                stream.write_all(&refused.to_bytes()).await.expect("open");
                continue;
            }
            let request = Request::decode(&header, body);
            let act = self.act(node, request.expect("the client sends requests"));
            let written = match act {
                Act::Nothing => continue,
                Act::Close => return,
                Act::Hang => return std::future::pending().await,
                Act::Garbage => stream.write_all(&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]).await,
                Act::Answer(answer) => {
                    let frame = answer.encode(header.correlation_id, header.api_version);
                    stream.write_all(&frame.expect("encodes").to_bytes()).await
                }
            };
            if written.is_err() {
                return;
            }
        }
    }

    fn act(&self, node: u64, request: Request) -> Act {
        let mut site = self.site();
        match request {
            Request::ApiVersions(_) => Act::Answer(ApiVersionsResponse::advertised().into()),
            Request::Metadata(_) => Act::Answer(site.metadata().into()),
            Request::InitProducerId(_) => {
                site.next_producer += 1;
                let producer_id = site.next_producer;
                Act::Answer(InitProducerIdResponse { producer_id, ..Default::default() }.into())
            }
            Request::Produce(request) => site.produce(node, request),
            Request::Fetch(request) => Act::Answer(site.fetch(node, request).into()),
            Request::ListOffsets(request) => Act::Answer(site.list_offsets(request).into()),
            Request::CreateTopics(request) => Act::Answer(site.create(request).into()),
            Request::DeleteTopics(request) => {
                site.deleting.push(request.clone());
                match site.mischief.pop_front() {
                    Some(Mischief::CloseBefore) => Act::Close,
                    _ => Act::Answer(site.delete(request).into()),
                }
            }
            Request::AlterConfigs(request) => {
                site.altering.push(request.clone());
                match site.mischief.pop_front() {
                    Some(Mischief::CloseBefore) => Act::Close,
                    mischief => {
                        let answer = site.alter(request);
                        let closes = mischief == Some(Mischief::CloseAfter);
                        if closes { Act::Close } else { Act::Answer(answer.into()) }
                    }
                }
            }
            Request::DescribeConfigs(request) => Act::Answer(site.describe(request).into()),
            Request::IncrementalAlterConfigs(_) => panic!("no test changes topics"),
        }
    }
}

impl Site {
    pub fn alter(&mut self, request: AlterConfigsRequest) -> AlterConfigsResponse {
        let is_so = request.resources.iter().all(|resource| self.laid.may_be_set(resource));
        let error_code = match self.refusal {
            ErrorCode::None if is_so => ErrorCode::None,
            ErrorCode::None => ErrorCode::InvalidRequest,
            refusal => refusal,
        };
        let mut response = AlterConfigsResponse::default();
        for resource in request.resources {
            match error_code {
                ErrorCode::None => self.laid.set(resource),
                _ => self.refused += 1,
            }
            let error_message = Some("there is no topic in".to_owned());
            let answer =
                AlterConfigsResourceResponse { error_code, error_message, ..Default::default() };
            response.responses.push(answer);
        }
        response
    }

    fn describe(&self, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
        let result = |asked: DescribeConfigsResource| {
            let (error_code, told) = self.laid.told(&asked.resource_name);
            let config = |(name, value)| DescribeConfigsResourceResult {
                name,
                value: Some(value),
                ..Default::default()
            };
            let configs = told.into_iter().map(config).collect();
            let resource_name = asked.resource_name;
            DescribeConfigsResult { error_code, resource_name, configs, ..Default::default() }
        };
        let results = request.resources.into_iter().map(result).collect();
        DescribeConfigsResponse { results, ..Default::default() }
    }

    fn metadata(&self) -> MetadataResponse {
        let broker = |node: u64| MetadataResponseBroker {
            node_id: node as i32,
            host: "127.0.0.1".to_owned(),
            port: 9000 + node as i32,
            rack: None,
        };
        let partition = |index: usize| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: self.leader as i32,
            leader_epoch: self.epoch,
            ..Default::default()
        };
        let of_records = MetadataResponseTopic {
            name: Some("t".to_owned()),
            topic_id: Uuid([7; 16]),
            partitions: (0..self.logs.len()).map(partition).collect(),
            ..Default::default()
        };
        let made = self.topics.iter().map(|(name, id)| MetadataResponseTopic {
            name: Some(name.clone()),
            topic_id: *id,
            ..Default::default()
        });
        MetadataResponse {
            brokers: (1..=3).map(broker).collect(),
            controller_id: self.leader as i32,
            topics: made.chain([of_records]).collect(),
            ..Default::default()
        }
    }

    fn produce(&mut self, node: u64, request: ProduceRequest) -> Act {
        let topic = &request.topic_data[0];
        let data = &topic.partition_data[0];
        let batch = data.records.clone().expect("a batch");
        self.produced.push((data.index, batch.clone()));
        let append = |site: &mut Self| {
            let epoch = site.epoch as u64;
            site.logs[data.index as usize].append(batch.clone(), epoch)
        };
        let (error_code, base_offset) = match self.mischief.pop_front() {
            Some(Mischief::CloseBefore) => return Act::Close,
            Some(Mischief::CloseAfter) => {
                append(self);
                return Act::Close;
            }
            Some(Mischief::Refuse(code)) => (code, -1),
            Some(Mischief::AppendAndSay(code)) => {
                append(self);
                (code, -1)
            }
            Some(Mischief::Silence) => return Act::Hang,
            Some(Mischief::SilenceAndMoveTo(other)) => {
                (self.leader, self.epoch) = (other, self.epoch + 1);
                return Act::Hang;
            }
            Some(Mischief::MoveTo(other)) => {
                (self.leader, self.epoch) = (other, self.epoch + 1);
                (ErrorCode::NotLeaderOrFollower, -1)
            }
            Some(Mischief::Garbage) => return Act::Garbage,
            None if node != self.leader => (ErrorCode::NotLeaderOrFollower, -1),
            None => append(self),
        };
        if request.acks == 0 {
            return Act::Nothing;
        }
        let partition = PartitionProduceResponse {
            index: data.index,
            error_code,
            base_offset,
            ..Default::default()
        };
        let topic =
            TopicProduceResponse { name: topic.name.clone(), partition_responses: vec![partition] };
        Act::Answer(ProduceResponse { responses: vec![topic], throttle_time_ms: 0 }.into())
    }

    fn fetch(&self, node: u64, request: FetchRequest) -> FetchResponse {
        let read = |topic: &str, asked: &FetchPartition| {
            let known = self.logs.get(asked.partition as usize).filter(|_| topic == "t");
            let mut data =
                FetchPartitionData { partition_index: asked.partition, ..Default::default() };
            let Some(log) = known else {
                data.error_code = ErrorCode::UnknownTopicOrPartition;
                return data;
            };
            data.high_watermark = log.next.cast_signed();
            if node != self.leader {
                data.error_code = ErrorCode::NotLeaderOrFollower;
            } else if asked.fetch_offset > log.next.cast_signed() {
                data.error_code = ErrorCode::OffsetOutOfRange;
            } else {
                let wanted = |b: &&Batch| *b.header().offsets().end() >= asked.fetch_offset;
                let all: Vec<u8> =
                    log.batches.iter().filter(wanted).flat_map(|b| b.bytes().to_vec()).collect();
                let first = log.batches.iter().find(wanted).map_or(0, |b| b.bytes().len());
                let bytes = all.len().min(first.max(asked.partition_max_bytes as usize));
                data.records = Some(Bytes::from(all).slice(..bytes).into());
            }
            data
        };
        let topic = |asked: &FetchTopic| FetchableTopicResponse {
            topic: asked.topic.clone(),
            partitions: asked.partitions.iter().map(|p| read(&asked.topic, p)).collect(),
        };
        FetchResponse {
            responses: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn list_offsets(&self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let find = |asked: &ListOffsetsPartition| {
            let log = &self.logs[asked.partition_index as usize];
            let at = |ms: i64| log.batches.iter().find(|b| b.max_timestamp(0) >= ms);
            let offset = match asked.timestamp {
                EARLIEST_TIMESTAMP => 0,
                LATEST_TIMESTAMP => log.next.cast_signed(),
                ms => at(ms).map_or(-1, |batch| *batch.header().offsets().start()),
            };
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                offset,
                ..Default::default()
            }
        };
        let topic = |asked: &ListOffsetsTopic| ListOffsetsTopicResponse {
            name: asked.name.clone(),
            partitions: asked.partitions.iter().map(find).collect(),
        };
        ListOffsetsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn create(&mut self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let mut topics = Vec::new();
        for topic in request.topics {
            let exists = self.topics.contains_key(&topic.name);
            let error_code = if exists { ErrorCode::TopicAlreadyExists } else { ErrorCode::None };
            self.made += 1;
            let id = Uuid([self.made + 100; 16]);
            let topic_id = *self.topics.entry(topic.name.clone()).or_insert(id);
            topics.push(CreatableTopicResult {
                name: topic.name,
                topic_id,
                error_code,
                ..Default::default()
            });
        }
        CreateTopicsResponse { topics, throttle_time_ms: 0 }
    }

    pub fn delete(&mut self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut responses = Vec::new();
        for asked in request.topics {
            let known = self.topics.len();
            self.topics.retain(|name, id| {
                asked.name.as_ref().map_or(*id != asked.topic_id, |asked| asked != name)
            });
            let error_code = match (self.topics.len() < known, &asked.name) {
                (true, _) => ErrorCode::None,
                (false, Some(_)) => ErrorCode::UnknownTopicOrPartition,
                (false, None) => ErrorCode::UnknownTopicId,
            };
            let name = asked.name;
            responses.push(DeletableTopicResult { name, error_code, ..Default::default() });
        }
        DeleteTopicsResponse { responses, throttle_time_ms: 0 }
    }
}

/// A record with this value.
pub fn record(value: &str) -> crate::WriteRecord {
    crate::WriteRecord {
        timestamp_ms: 1_000,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    }
}

/// A node by number.
pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

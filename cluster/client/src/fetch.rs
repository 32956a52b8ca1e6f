//! One Fetch request for one partition, and what its answer holds.
//!
//! Invariants: every batch that is handed out has a right checksum; batches come in the order of
//! their offsets, none ends before the offset that was asked for; a batch that is cut off at the
//! end is left out, to be fetched again.
//!
//! Never: decompress. Our own producer does not compress, and a foreign batch is an error here.

use crate::cluster::{Cluster, Target};
use crate::error::{CallError, LeaderError};
use crate::metadata::{LeaderEpoch, TopicPartition};
use bytes::Bytes;
use fulmar_host::time::{self, Duration};
use fulmar_types::{NodeId, Offset};
use fulmar_wire::batch::{Batch, BatchError, Batches, Header, Record, RecordError, RecordIter};
use fulmar_wire::compression::decompress;
use fulmar_wire::{
    ErrorCode, FetchPartition, FetchPartitionData, FetchRequest, FetchTopic, READ_COMMITTED,
    Records,
};

/// The bytes that one Fetch asks for by default. A broker sends a first batch that is larger.
pub const FETCH_BYTES_DEFAULT: i32 = 1 << 20;

/// What the records of one batch may become when they are decompressed.
const PLAIN_BYTES_MAX: usize = 64 << 20;

/// What to read, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Where from.
    pub partition: TopicPartition,
    /// The first offset.
    pub offset: Offset,
    /// How long the node may wait for a first byte.
    pub max_wait: Duration,
    /// The most bytes, except that a first batch is whole.
    pub max_bytes: i32,
    /// The leader epoch that the node is held to (KIP-320), -1 for any.
    pub leader_epoch: LeaderEpoch,
}

impl Fetch {
    /// Reads what is there from an offset on, without waiting.
    pub fn new(partition: TopicPartition, offset: Offset) -> Self {
        Self {
            partition,
            offset,
            max_wait: Duration::ZERO,
            max_bytes: FETCH_BYTES_DEFAULT,
            leader_epoch: -1,
        }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its time in ms since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

impl From<Record> for ReadRecord {
    fn from(record: Record) -> Self {
        Self {
            // `Fetched::parse` has refused batches with negative offsets.
            offset: Offset(record.offset.cast_unsigned()),
            timestamp_ms: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The node that answered.
    pub node: NodeId,
    /// The offset that was asked for.
    pub offset: Offset,
    /// The offset after the last committed record.
    pub high_watermark: Offset,
    /// The first offset that is kept.
    pub log_start: Offset,
    /// The whole batches.
    pub batches: Vec<Batch>,
}

impl Fetched {
    /// The records from the requested offset on, without the markers of transactions.
    ///
    /// # Errors
    /// A batch that is damaged inside, or cannot be decompressed.
    pub fn records(&self) -> Result<Vec<ReadRecord>, RecordError> {
        let mut records = Vec::new();
        for batch in self.batches.iter().filter(|b| !b.header().attributes.is_control()) {
            let codec = batch.compression();
            let plain = decompress(codec, &batch.record_bytes(), PLAIN_BYTES_MAX)
                .map_err(|_| RecordError::Compressed(codec))?;
            for record in RecordIter::over(batch.header(), plain) {
                let record = ReadRecord::from(record?);
                // An offset in the middle of a batch is answered with the whole batch.
                if record.offset >= self.offset {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }

    /// The offset after everything that was read.
    pub fn next_offset(&self) -> Offset {
        let last = self.batches.last().map(|batch| *batch.header().offsets().end());
        last.map_or(self.offset, |last| Offset(last.cast_unsigned()).plus(1))
    }

    pub(crate) fn parse(
        node: NodeId,
        offset: Offset,
        data: FetchPartitionData,
    ) -> Result<Self, FetchError> {
        if !data.error_code.is_none() {
            return Err(FetchError::Refused(data.error_code));
        }
        let positive = |offset: i64| Offset(u64::try_from(offset).unwrap_or(0));
        let mut fetched = Self {
            node,
            offset,
            high_watermark: positive(data.high_watermark),
            log_start: positive(data.log_start_offset),
            batches: Vec::new(),
        };
        let records = data.records.map(Records::into_bytes).unwrap_or_default();
        for batch in Batches::new(records) {
            let batch = batch?;
            let (base, last) = batch.header().offsets().into_inner();
            let expected = fetched.next_offset();
            let last = u64::try_from(last).ok().filter(|_| base >= 0).map(Offset);
            // The first may begin before what was asked for, and none may lie behind it.
            let begins_too_early = !fetched.batches.is_empty() && positive(base) < expected;
            if begins_too_early || last.is_none_or(|last| last < expected) {
                return Err(FetchError::Order { expected, base_offset: base });
            }
            fetched.batches.push(batch);
        }
        Ok(fetched)
    }
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The node refused.
    #[error("the node answered {0}")]
    Refused(ErrorCode),
    /// There is no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no leader to ask.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// A batch is damaged.
    #[error("a damaged batch: {0}")]
    Batch(#[from] BatchError),
    /// The records of a batch are damaged or compressed.
    #[error("unreadable records: {0}")]
    Record(#[from] RecordError),
    /// A batch lies elsewhere than where the partition goes on.
    #[error("a batch at offset {base_offset} where {expected} was expected")]
    Order {
        /// The offset from which the partition goes on.
        expected: Offset,
        /// The offset that the batch claims.
        base_offset: i64,
    },
    /// The answer does not hold the partition that was asked for.
    #[error("the answer is about another partition")]
    Missing,
}

impl FetchError {
    /// Whether the same read may succeed later, from the next leader perhaps.
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused(code) => code.is_retriable(),
            Self::Call(error) => error.is_retriable(),
            Self::Leader(_) => true,
            Self::Batch(_) | Self::Record(_) | Self::Order { .. } | Self::Missing => false,
        }
    }
}

/// A request for some partitions of one node.
pub(crate) fn request(fetches: &[Fetch], max_wait: Duration, max_bytes: i32) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for fetch in fetches {
        let partition = FetchPartition {
            partition: fetch.partition.wire_index(),
            current_leader_epoch: fetch.leader_epoch,
            fetch_offset: i64::try_from(fetch.offset.get()).unwrap_or(i64::MAX),
            partition_max_bytes: fetch.max_bytes,
            ..FetchPartition::default()
        };
        match topics.last_mut().filter(|topic| *topic.topic == *fetch.partition.topic) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic: fetch.partition.topic.to_string(),
                partitions: vec![partition],
            }),
        }
    }
    FetchRequest {
        max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: 1,
        max_bytes,
        isolation_level: READ_COMMITTED,
        topics,
        ..FetchRequest::default()
    }
}

impl Cluster {
    /// Reads once, from the leader or from a node of the caller's choice, which need not lead (a
    /// test that asks a deposed leader wants just that). One attempt.
    ///
    /// # Errors
    /// Why nothing was read. An answer without records is no error.
    pub async fn fetch(
        &self,
        target: Target,
        fetch: &Fetch,
        timeout: Duration,
    ) -> Result<Fetched, FetchError> {
        let deadline = time::now() + timeout;
        let request = request(std::slice::from_ref(fetch), fetch.max_wait, fetch.max_bytes);
        let (node, answer) = match target {
            Target::Node(node) => {
                let connection = self.connection(node, deadline).await?;
                (node, connection.start(&request, deadline).await?.await?)
            }
            Target::Leader => {
                let leader = self.leader(&fetch.partition, deadline).await?;
                let mut answer = leader.connection.start(&request, deadline).await?;
                let answered = self.await_leader(&fetch.partition, &leader, &mut answer).await;
                if answered.is_err() {
                    self.forget_leader(&fetch.partition, leader.epoch);
                }
                (leader.node, answered?)
            }
        };
        if !answer.error_code.is_none() {
            return Err(FetchError::Refused(answer.error_code));
        }
        let topic =
            answer.responses.into_iter().next().filter(|t| *t.topic == *fetch.partition.topic);
        let data = topic.and_then(|topic| topic.partitions.into_iter().next());
        let data = data.filter(|data| data.partition_index == fetch.partition.wire_index());
        let data = data.ok_or(FetchError::Missing)?;
        let code = data.error_code;
        if target == Target::Leader && code.is_retriable() {
            self.forget_leader(&fetch.partition, i32::MAX);
        }
        Fetched::parse(node, fetch.offset, data)
    }
}

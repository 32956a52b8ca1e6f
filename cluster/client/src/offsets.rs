//! Looking up an offset: the first, the next to be written, or the first at or after a time.

use crate::cluster::{Cluster, Target};
use crate::error::{CallError, LeaderError};
use crate::metadata::{LeaderEpoch, TopicPartition};
use fulmar_host::time::{self, Duration};
use fulmar_types::Offset;
use fulmar_wire::{
    EARLIEST_TIMESTAMP, ErrorCode, LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopic, MAX_TIMESTAMP, READ_UNCOMMITTED,
};

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first that is kept.
    Earliest,
    /// The one after the last committed record.
    Latest,
    /// The record with the highest timestamp.
    MaxTimestamp,
    /// The first record at or after this time, in ms since 1970.
    Time(i64),
}

impl OffsetAt {
    const fn timestamp(self) -> i64 {
        match self {
            Self::Earliest => EARLIEST_TIMESTAMP,
            Self::Latest => LATEST_TIMESTAMP,
            Self::MaxTimestamp => MAX_TIMESTAMP,
            Self::Time(ms) => ms,
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; `None` if no record is at or after the time.
    pub offset: Option<Offset>,
    /// The timestamp of the record there, if the lookup was by time.
    pub timestamp_ms: Option<i64>,
    /// The leader epoch in which the answer was given, or the record was written; -1 if unknown.
    pub leader_epoch: LeaderEpoch,
}

/// Why no offset was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// The node refused.
    #[error("the node answered {0}")]
    Refused(ErrorCode),
    /// There is no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no leader to ask.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// The answer does not hold the partition that was asked for.
    #[error("the answer is about another partition")]
    Missing,
}

impl OffsetError {
    /// Whether the same lookup may succeed later.
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused(code) => code.is_retriable(),
            Self::Call(error) => error.is_retriable(),
            Self::Leader(_) => true,
            Self::Missing => false,
        }
    }
}

impl Cluster {
    /// Looks up an offset, at the leader or at a node of the caller's choice. One attempt.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn list_offset(
        &self,
        target: Target,
        of: &TopicPartition,
        at: OffsetAt,
        timeout: Duration,
    ) -> Result<FoundOffset, OffsetError> {
        let deadline = time::now() + timeout;
        let request = request(of, at);
        let answer = match target {
            Target::Node(node) => {
                let connection = self.connection(node, deadline).await?;
                connection.start(&request, deadline).await?.await?
            }
            Target::Leader => {
                let leader = self.leader(of, deadline).await?;
                let mut answer = leader.connection.start(&request, deadline).await?;
                let answered = self.await_leader(of, &leader, &mut answer).await;
                if answered.is_err() {
                    self.forget_leader(of, leader.epoch);
                }
                answered?
            }
        };
        let found = parse(of, answer);
        if target == Target::Leader
            && let Err(OffsetError::Refused(code)) = &found
            && code.is_retriable()
        {
            self.forget_leader(of, i32::MAX);
        }
        found
    }

    /// Looks up an offset at the leader, and tries until the deadline.
    ///
    /// # Errors
    /// What became of the last attempt.
    pub async fn find_offset(
        &self,
        of: &TopicPartition,
        at: OffsetAt,
        timeout: Duration,
    ) -> Result<FoundOffset, OffsetError> {
        let deadline = time::now() + timeout;
        let mut failures = 0;
        loop {
            let rest = deadline.saturating_duration_since(time::now());
            match self.list_offset(Target::Leader, of, at, rest).await {
                Err(error) if error.is_retriable() && time::now() < deadline => {
                    failures += 1;
                    self.pause(failures, deadline).await;
                }
                settled => return settled,
            }
        }
    }
}

fn request(of: &TopicPartition, at: OffsetAt) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition {
        partition_index: of.wire_index(),
        current_leader_epoch: -1,
        timestamp: at.timestamp(),
    };
    let topic = ListOffsetsTopic { name: of.topic.to_string(), partitions: vec![partition] };
    ListOffsetsRequest { replica_id: -1, isolation_level: READ_UNCOMMITTED, topics: vec![topic] }
}

fn parse(of: &TopicPartition, answer: ListOffsetsResponse) -> Result<FoundOffset, OffsetError> {
    let topic = answer.topics.into_iter().next().filter(|topic| *topic.name == *of.topic);
    let found = topic.and_then(|topic| topic.partitions.into_iter().next());
    let found = found.filter(|found| found.partition_index == of.wire_index());
    let found = found.ok_or(OffsetError::Missing)?;
    if !found.error_code.is_none() {
        return Err(OffsetError::Refused(found.error_code));
    }
    Ok(FoundOffset {
        offset: u64::try_from(found.offset).ok().map(Offset),
        timestamp_ms: Some(found.timestamp).filter(|ms| *ms >= 0),
        leader_epoch: found.leader_epoch,
    })
}

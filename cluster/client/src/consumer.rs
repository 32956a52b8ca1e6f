//! Reading by assignment: the caller says which partitions, and keeps its own offsets.
//!
//! Invariants: each record is handed out once, in the order of its offsets; a position moves only
//! with records that were handed out; an offset that is not kept any more is an error, and never
//! silently the next one that is.
//!
//! Never: share the connections of writers. A node answers in order, and this one waits.

use crate::cluster::Cluster;
use crate::error::{CallError, LeaderError};
use crate::fetch::{self, FETCH_BYTES_DEFAULT, Fetch, FetchError, Fetched, ReadRecord};
use crate::metadata::{LeaderEpoch, TopicPartition};
use crate::offsets::{OffsetAt, OffsetError};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::{NodeId, Offset};
use futures_util::future::join_all;
use std::collections::BTreeMap;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first record that is kept.
    Earliest,
    /// With the next record to be written.
    Latest,
    /// With the first record at or after this time, in ms since 1970; else the next to be written.
    Time(i64),
    /// At this offset.
    Offset(Offset),
}

/// How a consumer reads.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// How long a node may wait for a first byte.
    pub max_wait: Duration,
    /// The most bytes of one answer for one partition, except that a first batch is whole.
    pub partition_bytes_max: i32,
    /// The most bytes of one answer.
    pub answer_bytes_max: i32,
    /// The longest wait for the offset to start with.
    pub start_timeout: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(500),
            partition_bytes_max: FETCH_BYTES_DEFAULT,
            answer_bytes_max: 16 << 20,
            start_timeout: Duration::from_secs(10),
        }
    }
}

/// What was read from one partition.
#[derive(Clone, Debug)]
pub struct Polled {
    /// The partition.
    pub partition: TopicPartition,
    /// Its records, in order.
    pub records: Vec<ReadRecord>,
    /// The offset after its last committed record, as the answering node said.
    pub high_watermark: Offset,
}

/// Why reading cannot go on. The positions are as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PollError {
    /// A partition cannot be read.
    #[error("cannot read {partition}: {error}")]
    Fetch {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: FetchError,
    },
    /// At the end of the time to wait there was no such topic or partition.
    #[error("cannot read {partition}: {error}")]
    Leader {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: LeaderError,
    },
    /// A node cannot be asked at all.
    #[error("cannot read from node {node}: {error}")]
    Call {
        /// The node.
        node: NodeId,
        /// Why.
        error: CallError,
    },
    /// The offset to start with could not be found.
    #[error("cannot find where to start in {partition}: {error}")]
    Start {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: OffsetError,
    },
}

#[derive(Clone, Copy)]
enum Position {
    Unresolved(Start),
    At(Offset),
}

/// Reads partitions of a site.
pub struct Consumer {
    cluster: Cluster,
    settings: ConsumerSettings,
    positions: BTreeMap<TopicPartition, Position>,
    failures: u32,
}

/// A partition without a leader, and why.
type Leaderless = Option<(TopicPartition, LeaderError)>;

type OfPartitions = Vec<(TopicPartition, Result<Fetched, FetchError>)>;

/// What came of asking a leader.
struct Asked {
    node: NodeId,
    of: Vec<(TopicPartition, LeaderEpoch)>,
    answer: Result<OfPartitions, CallError>,
}

impl Consumer {
    /// A consumer of this site, with connections of its own.
    pub fn new(cluster: &Cluster, settings: ConsumerSettings) -> Self {
        Self { cluster: cluster.separate(), settings, positions: BTreeMap::new(), failures: 0 }
    }

    /// Reads a partition from now on, or from elsewhere if it is read already.
    pub fn assign(&mut self, partition: TopicPartition, start: Start) {
        let position = match start {
            Start::Offset(offset) => Position::At(offset),
            start => Position::Unresolved(start),
        };
        self.positions.insert(partition, position);
    }

    /// Reads a partition no more.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
    }

    /// The offset that is read next, `None` until it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        match self.positions.get(partition)? {
            Position::At(offset) => Some(*offset),
            Position::Unresolved(_) => None,
        }
    }

    /// Reads the next records. Returns as soon as there are some, or nothing after `wait`; errors
    /// that pass are waited out until then.
    ///
    /// # Errors
    /// If reading cannot go on: an offset that is not kept, a damaged batch, no start, no such
    /// partition until the end of `wait`, a node that does not speak our protocol.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<Polled>, PollError> {
        let deadline = time::now() + wait;
        self.resolve().await?;
        loop {
            let (by_leader, leaderless) = self.by_leader(deadline).await;
            let mut passing = leaderless.is_some();
            let mut read = Vec::new();
            let asking =
                by_leader.into_iter().map(|(leader, fetches)| self.ask(leader, fetches, deadline));
            for asked in join_all(asking).await {
                passing |= self.take(asked, &mut read)?;
            }
            if !read.is_empty() {
                self.failures = 0;
                return Ok(read);
            }
            if time::now() >= deadline || self.positions.is_empty() {
                return match leaderless {
                    Some((
                        partition,
                        error @ (LeaderError::Topic(_) | LeaderError::NoPartition),
                    )) => Err(PollError::Leader { partition, error }),
                    _ => Ok(Vec::new()),
                };
            }
            if passing {
                self.failures += 1;
                self.cluster.pause(self.failures, deadline).await;
            }
        }
    }

    async fn resolve(&mut self) -> Result<(), PollError> {
        for (partition, position) in &mut self.positions {
            let Position::Unresolved(start) = *position else { continue };
            let at = match start {
                Start::Latest => OffsetAt::Latest,
                Start::Time(ms) => OffsetAt::Time(ms),
                Start::Earliest | Start::Offset(_) => OffsetAt::Earliest,
            };
            let timeout = self.settings.start_timeout;
            let failed = |error| PollError::Start { partition: partition.clone(), error };
            let found = self.cluster.find_offset(partition, at, timeout).await.map_err(failed)?;
            let offset = match found.offset {
                Some(offset) => offset,
                None => {
                    let latest = self.cluster.find_offset(partition, OffsetAt::Latest, timeout);
                    latest.await.map_err(failed)?.offset.unwrap_or_default()
                }
            };
            *position = Position::At(offset);
        }
        Ok(())
    }

    /// The fetches by leader, and a partition that has none at the moment.
    async fn by_leader(&self, deadline: Instant) -> (BTreeMap<NodeId, Vec<Fetch>>, Leaderless) {
        let mut by_leader: BTreeMap<NodeId, Vec<Fetch>> = BTreeMap::new();
        let mut leaderless = None;
        for (partition, position) in &self.positions {
            let Position::At(offset) = *position else { continue };
            let leader = match self.cluster.leader(partition, deadline).await {
                Ok(leader) => leader,
                Err(error) => {
                    leaderless = Some((partition.clone(), error));
                    continue;
                }
            };
            by_leader.entry(leader.node).or_default().push(Fetch {
                partition: partition.clone(),
                offset,
                max_wait: self.settings.max_wait,
                max_bytes: self.settings.partition_bytes_max,
                leader_epoch: leader.epoch,
            });
        }
        (by_leader, leaderless)
    }

    /// Asks one leader for all of its partitions.
    async fn ask(&self, node: NodeId, fetches: Vec<Fetch>, deadline: Instant) -> Asked {
        let rest = deadline.saturating_duration_since(time::now());
        let max_wait = self.settings.max_wait.min(rest);
        let request = fetch::request(&fetches, max_wait, self.settings.answer_bytes_max);
        let asked = fetches.iter().map(|f| (f.partition.clone(), f.leader_epoch)).collect();
        let until = time::now() + max_wait + self.cluster.settings().request_timeout;
        let call = async {
            let Some(first) = fetches.first() else { return Ok(Vec::new()) };
            let leader = self.cluster.leader(&first.partition, deadline).await;
            let leader = leader.map_err(|_| CallError::NotSent)?;
            let mut answer = leader.connection.start(&request, until).await?;
            let answer = self.cluster.await_leader(&first.partition, &leader, &mut answer).await?;
            Ok(split(node, &fetches, answer))
        };
        Asked { node, of: asked, answer: call.await }
    }

    /// Takes over what a leader answered. Returns whether a passing error was among it.
    fn take(&mut self, asked: Asked, read: &mut Vec<Polled>) -> Result<bool, PollError> {
        let answer = match asked.answer {
            Ok(answer) => answer,
            Err(error) if !error.is_retriable() && read.is_empty() => {
                return Err(PollError::Call { node: asked.node, error });
            }
            Err(_) => {
                for (partition, epoch) in asked.of {
                    self.cluster.forget_leader(&partition, epoch);
                }
                return Ok(true);
            }
        };
        let mut passing = false;
        for (partition, fetched) in answer {
            let records = fetched.and_then(|fetched| Ok((fetched.records()?, fetched)));
            match records {
                Ok((records, fetched)) => {
                    self.positions.insert(partition.clone(), Position::At(fetched.next_offset()));
                    if !records.is_empty() {
                        let high_watermark = fetched.high_watermark;
                        read.push(Polled { partition, records, high_watermark });
                    }
                }
                Err(error) if error.is_retriable() => {
                    self.cluster.forget_leader(&partition, LeaderEpoch::MAX);
                    passing = true;
                }
                // What was read of other partitions goes first; the error comes again.
                Err(_) if !read.is_empty() => {}
                Err(error) => return Err(PollError::Fetch { partition, error }),
            }
        }
        Ok(passing)
    }
}

/// An answer by partition.
fn split(node: NodeId, fetches: &[Fetch], answer: fulmar_wire::FetchResponse) -> OfPartitions {
    let mut found = Vec::new();
    for topic in answer.responses {
        for data in topic.partitions {
            let asked = fetches.iter().find(|fetch| {
                *fetch.partition.topic == *topic.topic
                    && fetch.partition.wire_index() == data.partition_index
            });
            // What was not asked for is of no interest.
            if let Some(fetch) = asked {
                let fetched = Fetched::parse(node, fetch.offset, data);
                found.push((fetch.partition.clone(), fetched));
            }
        }
    }
    if !answer.error_code.is_none() {
        let refused =
            |fetch: &Fetch| (fetch.partition.clone(), Err(FetchError::Refused(answer.error_code)));
        return fetches.iter().map(refused).collect();
    }
    found
}

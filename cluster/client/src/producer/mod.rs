//! Writing: batches to partitions, one outcome each.
//!
//! ```text
//! enqueue -> lane of the partition (one task) -> window -> leader
//!            bounded queue                       at most `in_flight_max` batches on the wire
//! ```
//!
//! Invariants: the batches of one partition are written in the order in which they were queued; a
//! batch is sent again only as the very same bytes; an outcome is [`Outcome::Unknown`] whenever an
//! attempt may have been carried out and no answer says so. An idempotent producer tries until a
//! deadline, because the broker drops what it has already. Any other producer does not try again
//! after an attempt without an answer, and has one batch in flight.
//!
//! Never: guess an outcome; number a batch anew that may already have been written.

mod identity;
mod lane;
mod window;

use crate::admin::ProducerIdError;
use crate::cluster::Cluster;
use crate::error::{CallError, LeaderError};
use crate::metadata::TopicPartition;
use bytes::Bytes;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_types::Offset;
use fulmar_types::limits::PRODUCER_BATCHES_REMEMBERED;
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::{BatchBuilder, BuildError, Header};
use identity::Identities;
use lane::{Answers, Lane};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use window::Slot;

/// Batches that may wait for their turn in one partition, besides those in flight.
const QUEUE_BATCHES: usize = 16;

/// Whose flush is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Nobody's: there is no answer, and every outcome is unknown.
    None,
    /// The leader's. A Fulmar site waits for a majority all the same.
    Leader,
    /// A majority's.
    #[default]
    All,
}

impl Acks {
    const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How a producer writes.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// Whose flush is waited for. An idempotent producer needs [`Acks::All`].
    pub acks: Acks,
    /// Whether batches are numbered, so that the broker drops those that it has already.
    pub idempotent: bool,
    /// After this long without an outcome a batch is given up.
    pub delivery_timeout: Duration,
    /// Batches of one partition on the wire at a time, 1 to 5. More than one only if idempotent:
    /// the broker remembers the last five batches of a producer.
    pub in_flight_max: usize,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            delivery_timeout: Duration::from_secs(30),
            in_flight_max: PRODUCER_BATCHES_REMEMBERED,
        }
    }
}

/// A record to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteRecord {
    /// Its time in ms since 1970. The client has no clock.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was written, once, and is flushed on a majority.
    Done {
        /// The offset of its first record. `None` if the broker remembers only that it has it.
        base_offset: Option<Offset>,
        /// How often it was sent. If more than once, the answer may be that of a duplicate.
        attempts: u32,
    },
    /// Nothing of it was written, and nothing will be.
    NotDone(SendError),
    /// It may have been written, or still be.
    Unknown(SendError),
}

/// Why a batch was not written, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The broker refused it.
    #[error("the broker answered {0}")]
    Refused(ErrorCode),
    /// A request has no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There was no leader to send it to.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// The site gave no producer id.
    #[error(transparent)]
    NoProducerId(#[from] ProducerIdError),
    /// The records do not make a batch.
    #[error("the records do not make a batch: {0}")]
    Batch(#[from] BuildError),
    /// There are no records.
    #[error("a batch has at least one record")]
    Empty,
    /// Its time was over before it was sent.
    #[error("its time was over before it was sent")]
    Deadline,
    /// The broker was not asked for an answer.
    #[error("acks are 0, so there is no answer")]
    NotAsked,
    /// The producer was dropped.
    #[error("the producer was closed")]
    Closed,
}

/// Builds the batch of some records; `stamp` is producer id, epoch and first sequence number.
fn build(records: &[WriteRecord], stamp: Option<(i64, i16, i32)>) -> Result<Bytes, SendError> {
    let mut batch = BatchBuilder::new();
    if let Some((producer_id, epoch, sequence)) = stamp {
        batch = batch.producer(producer_id, epoch, sequence);
    }
    for record in records {
        let headers = record.headers.iter();
        let headers =
            headers.map(|h| (h.key.as_ref(), h.value.as_deref())).collect::<Vec<(&[u8], _)>>();
        batch.push(
            record.timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        )?;
    }
    batch.build().ok_or(SendError::Empty)
}

/// A batch of these records as a producer without a producer id sends it, for requests that a
/// test makes by hand.
///
/// # Errors
/// If there are no records, or they do not fit into a batch.
pub fn plain_batch(records: &[WriteRecord]) -> Result<Bytes, SendError> {
    build(records, None)
}

struct Entry {
    queue: mpsc::Sender<Slot>,
    _task: Owned<()>,
}

/// Writes batches to a site. Dropping it ends it: what is under way is unknown then.
pub struct Producer {
    cluster: Cluster,
    settings: ProducerSettings,
    identities: Arc<Identities>,
    lanes: Mutex<BTreeMap<TopicPartition, Entry>>,
    in_flight: Arc<AtomicUsize>,
}

impl Producer {
    /// A producer that writes to this site, over the connections of `cluster`.
    ///
    /// # Panics
    /// If the settings contradict each other: idempotent without [`Acks::All`], or a number of
    /// batches in flight that the broker could not keep apart.
    pub fn new(cluster: Cluster, settings: ProducerSettings) -> Self {
        assert!(
            !settings.idempotent || settings.acks == Acks::All,
            "idempotent writing needs an answer from the majority"
        );
        assert!((1..=PRODUCER_BATCHES_REMEMBERED).contains(&settings.in_flight_max));
        Self {
            identities: Arc::new(Identities::new(cluster.clone())),
            cluster,
            settings,
            lanes: Mutex::default(),
            in_flight: Arc::default(),
        }
    }

    /// Batches that were given to a connection and have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Writes a batch and waits for its outcome.
    pub async fn send(&self, to: &TopicPartition, records: Vec<WriteRecord>) -> Outcome {
        self.enqueue(to, records).await.await
    }

    /// Queues a batch, waiting for room. Batches are written in the order of these calls; the
    /// ticket is a future of the outcome. Dropping it changes nothing about the batch.
    pub async fn enqueue(&self, to: &TopicPartition, records: Vec<WriteRecord>) -> Ticket {
        let (reply, replied) = oneshot::channel();
        let deadline = time::now() + self.settings.delivery_timeout;
        let slot = Slot::new(records, deadline, reply);
        let queue = self.queue(to);
        // Fails only if the lane's task is gone; the ticket then says that the producer is closed.
        let queued = queue.send(slot).await.is_ok();
        Ticket { replied, queued }
    }

    fn queue(&self, to: &TopicPartition) -> mpsc::Sender<Slot> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = lanes.get(to) {
            return entry.queue.clone();
        }
        let (queue, queued) = mpsc::channel(QUEUE_BATCHES);
        let answers = Answers::new(Arc::clone(&self.in_flight));
        let identities = Arc::clone(&self.identities);
        let lane =
            Lane::new(self.cluster.clone(), to.clone(), self.settings.clone(), identities, answers);
        let task = task::spawn_owned(lane.run(queued));
        lanes.insert(to.clone(), Entry { queue: queue.clone(), _task: task });
        queue
    }
}

/// A future of an outcome.
pub struct Ticket {
    replied: oneshot::Receiver<Outcome>,
    queued: bool,
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.replied).poll(cx).map(|replied| match replied {
            Ok(outcome) => outcome,
            Err(_) if self.queued => Outcome::Unknown(SendError::Closed),
            Err(_) => Outcome::NotDone(SendError::Closed),
        })
    }
}

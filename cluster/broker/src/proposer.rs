//! Puts units into entries and entries into the log: group commit without a timer.
//!
//! While the leader flushes one entry, the units that arrive wait; when the flush is done, all of
//! them become the next entry. A lone unit is proposed at once. Several entries may be on their
//! way to the followers at the same time.
//!
//! Invariants: units are proposed in the order in which [`Proposer::submit`] took them; every unit
//! is answered once, with what became of it, "certainly not done", or "unknown"; the bytes that
//! wait are bounded, and whoever brings more waits before the queue, but not beyond its deadline. A
//! unit whose answer nobody awaits any more leaves the queue: it is certainly not done.
//!
//! Room on the disks is asked for before an entry is proposed, since nobody can refuse it later.
//! Units without records may use the reserve that is kept for them.
//!
//! Never: propose a unit a second time. After "unknown" only its owner can know whether that is
//! safe.

use crate::age;
use crate::counters::Pool;
use crate::group::{GroupHandle, ProposeError, Proposed};
use crate::limits::{PROPOSALS_IN_FLIGHT_MAX, PROPOSER_QUEUE_BYTES_MAX};
use crate::machine::outcome::{self, UnitResult};
use crate::site::Site;
use bytes::Bytes;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Instant};
use fulmar_host::{BoxFuture, Host};
use fulmar_store::entry::{EntryBuilder, EntryHeader, PushError, Unit};
use fulmar_types::limits::entry_target_bytes;
use fulmar_types::{Event, Probe, Term};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// What became of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was committed on a majority and applied here.
    Done {
        /// What the state machine said.
        result: UnitResult,
        /// The term of the entry that holds it.
        term: Term,
    },
    /// It was certainly not done, and never will be.
    NotDone,
    /// The same, because the disks of the site have no room for it now.
    NoRoom,
    /// It may or may not be done, now or later.
    Unknown,
}

/// The answer to a unit, to be awaited.
pub struct Ticket(oneshot::Receiver<Answer>);

impl Future for Ticket {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        // A proposer that went away with its node has left the outcome open.
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Answer::Unknown))
    }
}

struct Pending {
    unit: Unit,
    /// How long it is, encoded.
    bytes: usize,
    promise: Promise,
}

/// The answer that a unit is owed, and its room until then. The entry has its own copy of the unit.
struct Promise {
    /// `None` if nobody asked for an answer.
    reply: Option<oneshot::Sender<Answer>>,
    has_records: bool,
    _room: OwnedSemaphorePermit,
}

impl Promise {
    /// Whether an answer was asked for, and is not awaited any more.
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn keep(self, answer: Answer) {
        if let Some(reply) = self.reply {
            // Nobody waits any more if the request ran out of time or its connection broke.
            let _ = reply.send(answer);
        }
    }
}

/// The units that wait, and how many bytes they are.
#[derive(Default)]
struct Queue {
    pending: VecDeque<Pending>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.pending.push_back(pending);
    }

    fn pop(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.bytes -= pending.bytes;
        Some(pending)
    }

    fn put_back(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.pending.push_front(pending);
    }

    fn drop_abandoned(&mut self) {
        self.pending.retain(|pending| !pending.promise.is_abandoned());
        self.bytes = self.pending.iter().map(|pending| pending.bytes).sum();
    }
}

struct Shared {
    host: Host,
    group: Arc<dyn GroupHandle>,
    site: Site,
    segment_bytes: u64,
    queue: Mutex<Queue>,
    arrived: Notify,
    /// In KiB, so that the number of permits fits where 2^32 bytes would not.
    room: Arc<Semaphore>,
}

/// Takes units for the log of the site.
pub struct Proposer {
    shared: Arc<Shared>,
    _driver: Owned<()>,
}

const KIB: usize = 1024;
const ROOM_KIB: usize = PROPOSER_QUEUE_BYTES_MAX / KIB;

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(KIB).min(ROOM_KIB)).expect("the bound is far below 2^32")
}

impl Proposer {
    /// Starts the proposer of a group.
    pub fn start(host: Host, group: Arc<dyn GroupHandle>, site: Site, segment_bytes: u64) -> Self {
        let shared = Arc::new(Shared {
            host,
            group,
            site,
            segment_bytes,
            queue: Mutex::new(Queue::default()),
            arrived: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        });
        let driver = task::spawn_owned(drive(shared.clone()));
        Self { shared, _driver: driver }
    }

    /// Queues a unit behind those that were taken before. While the queue is full it waits, until
    /// the deadline at most: then the unit is certainly not done.
    pub async fn submit(&self, unit: Unit, deadline: Instant) -> Ticket {
        let (reply, answer) = oneshot::channel();
        match time::timeout_at(deadline, self.shared.room(&unit)).await {
            Ok(room) => self.shared.push(unit, Some(reply), room),
            // The other end is two lines above.
            Err(_) => drop(reply.send(Answer::NotDone)),
        }
        Ticket(answer)
    }

    /// The same for a unit that nobody wants an answer to. Says whether it was queued.
    pub async fn submit_silently(&self, unit: Unit, deadline: Instant) -> bool {
        let room = time::timeout_at(deadline, self.shared.room(&unit)).await;
        room.is_ok_and(|room| {
            self.shared.push(unit, None, room);
            true
        })
    }

    /// The memory of the queue.
    pub(crate) fn pool(&self) -> Pool {
        Pool::of("proposals", &self.shared.room, PROPOSER_QUEUE_BYTES_MAX)
    }

    /// Submits a unit and waits for its answer. The caller brings its own deadline; a unit that is
    /// given up before it was proposed is not done.
    pub async fn propose(&self, unit: Unit) -> Answer {
        let room = self.shared.room(&unit).await;
        let (reply, answer) = oneshot::channel();
        self.shared.push(unit, Some(reply), room);
        Ticket(answer).await
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }

    fn push(&self, unit: Unit, reply: Option<oneshot::Sender<Answer>>, room: OwnedSemaphorePermit) {
        let promise = Promise { reply, has_records: unit.has_records(), _room: room };
        let bytes = unit.encoded_len();
        self.locked().push(Pending { unit, bytes, promise });
        self.arrived.notify_one();
    }

    /// Room for a unit in the queue; waits while there is none.
    async fn room(&self, unit: &Unit) -> OwnedSemaphorePermit {
        let kib = kib(unit.encoded_len());
        if let Ok(room) = self.room.clone().try_acquire_many_owned(kib) {
            return room;
        }
        // Without a quorum the queue stands still, and fills with units of clients that have gone.
        self.locked().drop_abandoned();
        self.room.clone().acquire_many_owned(kib).await.expect("the semaphore is never closed")
    }

    /// Takes units off the queue until the entry is full. `None` if the queue was empty.
    fn next_entry(&self) -> Option<(Bytes, Vec<Promise>)> {
        let mut builder = EntryBuilder::new(self.segment_bytes);
        let mut taken = Vec::new();
        let takes_records = self.group.takes_records();
        let mut queue = self.locked();
        builder.reserve(queue.bytes.min(entry_target_bytes(self.segment_bytes)));
        while let Some(pending) = queue.pop() {
            if pending.promise.is_abandoned() {
                continue;
            }
            if !takes_records && pending.promise.has_records {
                self.refuse(pending.promise);
                continue;
            }
            match builder.push(&pending.unit) {
                Ok(()) => taken.push(pending.promise),
                Err(PushError::Full) => {
                    queue.put_back(pending);
                    break;
                }
                Err(PushError::TooLarge { .. } | PushError::NotEncodable) => {
                    pending.promise.keep(Answer::NotDone);
                }
            }
        }
        drop(queue);
        if builder.is_empty() {
            return None;
        }
        let wall_ms = self.host.clock.wall_ms().max(self.site.read(|state| state.entry_ms()));
        let claim = self.group.applied().map_or(0, |applied| applied.index.next().get());
        let age_ms = age::age_ms(&self.host, &self.site, self.group.leadership().term);
        Some((builder.finish(EntryHeader { wall_ms, claim, age_ms }), taken))
    }

    /// Waits for the place of an entry, and answers its units if there is none.
    async fn place(&self, payload: Bytes, units: Vec<Promise>) -> Option<(Bytes, Vec<Promise>)> {
        let has_records = units.iter().any(|promise| promise.has_records);
        if self.group.room_for(payload.len(), has_records).await {
            return Some((payload, units));
        }
        units.into_iter().for_each(|promise| self.refuse(promise));
        None
    }

    fn refuse(&self, promise: Promise) {
        self.host.probe(Probe::RefusedForSpace);
        promise.keep(Answer::NoRoom);
    }

    fn report_depth(&self) {
        // What waits, and not what has room: a unit without room is what is looked for.
        let (depth, bound) = (self.locked().bytes as u64, PROPOSER_QUEUE_BYTES_MAX as u64);
        self.host.report(Event::QueueDepth { queue: "proposer bytes", depth, bound });
    }
}

async fn drive(shared: Arc<Shared>) {
    let in_flight = Arc::new(Semaphore::new(PROPOSALS_IN_FLIGHT_MAX));
    loop {
        let slot = in_flight.clone().acquire_owned().await.expect("never closed");
        shared.report_depth();
        let (payload, units) = loop {
            match shared.next_entry() {
                None => shared.arrived.notified().await,
                Some((payload, units)) => {
                    if let Some(entry) = shared.place(payload, units).await {
                        break entry;
                    }
                }
            }
        };
        // The least index that the entry can have: the core appends it a little later.
        let index = shared.group.log_end();
        let mut proposal = shared.group.propose(payload);
        // The first poll settles the order of the entries; a spawned task would be polled whenever
        // the runtime likes.
        match first_poll(&mut proposal).await {
            Poll::Ready(proposed) => conclude(units, proposed),
            Poll::Pending => {
                let concluded = task::spawn(async move {
                    conclude(units, proposal.await);
                    drop(slot);
                });
                tokio::select! {
                    biased;
                    () = shared.group.wait_flushed(index) => {}
                    // Refused, or committed by the others while the disk here was slow.
                    _ = concluded => {}
                }
            }
        }
    }
}

async fn first_poll<T>(future: &mut BoxFuture<'static, T>) -> Poll<T> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

fn conclude(units: Vec<Promise>, proposed: Result<Proposed, ProposeError>) {
    match proposed {
        Ok(Proposed { position, outcome }) => {
            let results = outcome::decode(&outcome).expect("this node's machine wrote it");
            assert_eq!(results.len(), units.len(), "every unit has a result");
            for (promise, result) in units.into_iter().zip(results) {
                promise.keep(Answer::Done { result, term: position.term });
            }
        }
        Err(ProposeError::NotLeader) => {
            units.into_iter().for_each(|promise| promise.keep(Answer::NotDone));
        }
        Err(ProposeError::Unknown) => {
            units.into_iter().for_each(|promise| promise.keep(Answer::Unknown));
        }
    }
}

//! The side of a session that gives: what this site may let the other one have, from where it asks
//! for it.
//!
//! Invariants: only what is applied here is shipped, which is committed; a partition is shipped from
//! a place on only if the other side holds the tag that this site has there, or had there before the
//! records had their time; the bytes on their way stay within the room that the other side gave.
//!
//! Never: ship what a rule does not let go. What decides is `session::write`; here it is only
//! offered.

use crate::locked;
use crate::message::{Mark, Message, OFFERED_MAX, Offered, Part};
use crate::session::{Ended, Parts};
use crate::target::GAP_BYTES;
use fulmar_broker::machine::partitions::chained;
use fulmar_broker::machine::state::State;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_store::entry::{LinkOperation, MirrorPlace, Operation, Tag, Unit};
use fulmar_store::{StoredBatch, StreamId};
use fulmar_types::link::GapReason;
use fulmar_types::{Event, Offset, Plant, Probe};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// How often this side looks whether it offers something else.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often the progress of the other side is noted in the log, if it has moved.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// Bytes that are read for one partition at a time.
const READ_BYTES: usize = 256 << 10;

/// The most that the other side may have given room for at one time.
const ROOM_BYTES_MAX: usize = 64 << 20;

/// Partitions that are shipped in one session, at most.
const PARTS_MAX: usize = 16_384;

/// Reads of one session that are under way or wait for room, at most.
const READS_MAX: usize = 8;

/// The places behind what was sent and is not known to be committed there, by partition. Their number
/// is bounded by the room.
type Sent = Arc<Mutex<BTreeMap<Part, VecDeque<Mark>>>>;

/// The giving side.
pub(crate) struct Source {
    parts: Parts,
    room: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    shipping: BTreeMap<Part, Owned<()>>,
    sent: Sent,
    progress: Arc<Mutex<BTreeMap<Part, Mark>>>,
    _offering: Owned<()>,
    _noting: Owned<()>,
}

impl Source {
    pub(crate) fn start(parts: Parts) -> Self {
        let progress = Arc::new(Mutex::default());
        let _offering = task::spawn_owned(offer(parts.clone()));
        let _noting = task::spawn_owned(note(parts.clone(), Arc::clone(&progress)));
        let room = Arc::new(Semaphore::new(0));
        let reading = Arc::new(Semaphore::new(READS_MAX));
        let (shipping, sent) = (BTreeMap::new(), Sent::default());
        Self { parts, room, reading, shipping, sent, progress, _offering, _noting }
    }

    /// The other side asks for a partition. `false` if it may not.
    pub(crate) fn take(&mut self, part: Part, mark: Mark) -> bool {
        if self.shipping.len() >= PARTS_MAX && !self.shipping.contains_key(&part) {
            return false;
        }
        locked(&self.sent).remove(&part);
        let shipment = Shipment {
            parts: self.parts.clone(),
            room: Arc::clone(&self.room),
            reading: Arc::clone(&self.reading),
            sent: Arc::clone(&self.sent),
            part,
        };
        self.shipping.insert(part, task::spawn_owned(shipment.run(mark)));
        true
    }

    /// The other side has room for more. `false` if it gives more than it may.
    pub(crate) fn room(&mut self, bytes: u32) -> bool {
        let fits = self.room.available_permits() + bytes as usize <= ROOM_BYTES_MAX;
        if fits {
            self.room.add_permits(bytes as usize);
        }
        fits
    }

    /// The other side has everything before a place. `false` if this side has not sent that: what is
    /// noted of the other side is what this side knows to be so.
    pub(crate) fn has(&mut self, part: Part, mark: Mark) -> bool {
        let mut sent = locked(&self.sent);
        let Some(sent) = sent.get_mut(&part) else { return false };
        while sent.front().is_some_and(|first| first.offset < mark.offset) {
            sent.pop_front();
        }
        let is_sent = sent.front() == Some(&mark);
        if is_sent {
            locked(&self.progress).insert(part, mark);
            self.parts.said(part, mark.offset);
        }
        is_sent
    }
}

fn offers(state: &State, parts: &Parts) -> Vec<Offered> {
    let may_go = state.topics().iter().filter(|topic| parts.lets_go(state, topic.id));
    let offered = may_go.map(|topic| Offered {
        topic: topic.id,
        name: topic.name.clone(),
        partitions: topic.partitions,
        configs: topic.configs.clone(),
    });
    offered.take(OFFERED_MAX).collect()
}

async fn offer(parts: Parts) {
    let mut told = None;
    loop {
        let now = parts.context.broker.site().read(|state| offers(state, &parts));
        if told.as_ref() != Some(&now) {
            parts.send(Message::Offer(now.clone())).await;
            told = Some(now);
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// Notes in the log how far the other side has come, so that whoever leads next knows it.
async fn note(parts: Parts, progress: Arc<Mutex<BTreeMap<Part, Mark>>>) {
    loop {
        time::sleep(NOTE_EVERY).await;
        let moved = std::mem::take(&mut *locked(&progress));
        for (Part { topic, partition }, Mark { offset, tag }) in moved {
            let place = MirrorPlace { link: parts.link.number, topic, partition, offset, tag };
            let unit = Unit::of(Operation::Link(LinkOperation::PeerHas { place }));
            let deadline = time::now() + NOTE_EVERY;
            parts.context.broker.proposer().submit_silently(unit, deadline).await;
        }
    }
}

/// What a partition is like at one moment.
struct Look {
    stream: StreamId,
    chain_key: [u8; 32],
    log_start: Offset,
    next: Offset,
    /// The chain at `next`.
    chain: Tag,
    /// Where the chain is known at or before the offset in question, and what it is there.
    known: Option<Mark>,
    /// What the other side was known to hold.
    noted: Option<Mark>,
}

/// Why a partition is not shipped.
enum Stop {
    /// It is not there any more.
    Gone,
    /// The other side does not hold what this side had there.
    Fork,
    /// The start moved meanwhile.
    Again,
    /// The records cannot be read here.
    Unreadable,
    /// This node does not lead, or not yet.
    Deposed,
}

/// One partition on its way.
struct Shipment {
    parts: Parts,
    room: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    sent: Sent,
    part: Part,
}

impl Shipment {
    async fn run(self, from: Mark) {
        match self.ship(from).await {
            Stop::Gone | Stop::Again => {}
            Stop::Fork => {
                let host = &self.parts.context.host;
                host.report(Event::LinkForked {
                    topic: self.part.topic,
                    partition: self.part.partition,
                    offset: from.offset,
                });
                host.probe(Probe::ForkRefused);
                self.parts.send(Message::Fork(self.part, from.offset)).await;
            }
            Stop::Unreadable => self.parts.end(Ended::Lost),
            Stop::Deposed => self.parts.end(Ended::Deposed),
        }
    }

    /// Looks at the partition, with an eye on an offset.
    fn look(&self, at: Offset) -> Result<Look, Stop> {
        let Part { topic, partition } = self.part;
        let link = &self.parts.link.name;
        self.parts.context.broker.site().read(|state| {
            let topic = state.topics().get(topic).ok_or(Stop::Gone)?;
            let stream = topic.stream(partition).ok_or(Stop::Gone)?;
            let known = state.partition(stream).ok_or(Stop::Gone)?;
            let spans = state.spans(stream).rev().find(|span| span.first <= at);
            let noted = state.peer_progress(link, stream);
            Ok(Look {
                stream,
                chain_key: topic.chain_key,
                log_start: known.log_start,
                next: known.next,
                chain: known.chain,
                known: spans.map(|span| Mark { offset: span.first, tag: span.chain }),
                noted: noted.map(|peer| Mark { offset: peer.offset, tag: peer.tag }),
            })
        })
    }

    async fn read(
        &self,
        stream: StreamId,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<StoredBatch>, Stop> {
        let records = self.parts.context.broker.records();
        records.read(stream, from..to, READ_BYTES).await.map_err(|_| Stop::Unreadable)
    }

    /// As [`Self::verify`], a few at a time.
    async fn verified(&self, mark: Mark) -> Result<(), Stop> {
        let _slot = self.reading.acquire().await;
        self.verify(mark).await
    }

    /// Whether this side had the tag at the offset, as far as it can still be known.
    async fn verify(&self, mark: Mark) -> Result<(), Stop> {
        let look = self.look(mark.offset)?;
        if mark.offset > look.next {
            return Err(Stop::Fork);
        }
        if mark.offset < look.log_start {
            // What it was is gone; but how far the other side had come was noted.
            let noted = look.noted.filter(|noted| noted.offset == mark.offset);
            let differs = noted.is_some_and(|noted| noted.tag != mark.tag);
            return if differs { Err(Stop::Fork) } else { Ok(()) };
        }
        let chain =
            if mark.offset == look.next { look.chain } else { self.roll(&look, mark).await? };
        if chain == mark.tag { Ok(()) } else { Err(Stop::Fork) }
    }

    /// The chain at the offset of a mark, computed from the last place before it where it is known.
    async fn roll(&self, look: &Look, to: Mark) -> Result<Tag, Stop> {
        let mut at =
            look.known.filter(|known| known.offset >= look.log_start).ok_or(Stop::Again)?;
        while at.offset < to.offset {
            let batches = self.read(look.stream, at.offset, to.offset).await?;
            let is_next = batches.first().is_some_and(|batch| batch.base_offset == at.offset);
            if !is_next && self.look(at.offset)?.log_start > at.offset {
                // They expired meanwhile.
                return Err(Stop::Again);
            }
            if batches.is_empty() {
                // No batch ends there, so the other side has it from somebody else.
                return Err(Stop::Fork);
            }
            for batch in batches {
                at = behind(&look.chain_key, at.tag, &batch);
            }
        }
        Ok(at.tag)
    }

    async fn ship(&self, from: Mark) -> Stop {
        // What an earlier leader had committed, and the other side may have, may not be applied here
        // yet: the other side would seem to be ahead.
        if self.parts.context.broker.group().read_barrier().await.is_err() {
            return Stop::Deposed;
        }
        while let Err(stop) = self.verified(from).await {
            match stop {
                Stop::Again => time::sleep(LOOK_EVERY).await,
                stop => return stop,
            }
        }
        self.parts.said(self.part, from.offset);
        if from.offset > Offset(0) {
            self.parts.context.host.probe(Probe::LinkResumed);
        }
        let mut at = from;
        loop {
            match self.ship_some(at).await {
                Ok(next) => at = next,
                Err(Stop::Again) => time::sleep(LOOK_EVERY).await,
                Err(stop) => return stop,
            }
        }
    }

    /// Ships what there is behind a place, or waits until there is something. Returns how far it came.
    async fn ship_some(&self, at: Mark) -> Result<Mark, Stop> {
        let look = self.look(at.offset)?;
        if at.offset < look.log_start {
            return self.skip_expired(at.offset, look.log_start).await;
        }
        let watch = self.parts.context.broker.site().watch(&[look.stream]);
        let look = self.look(at.offset)?;
        if at.offset == look.next && !fulmar_host::planted(Plant::ShipUncommitted) {
            watch.changed().await;
            return Ok(at);
        }
        // What is read waits here for room.
        let _slot = self.reading.acquire().await;
        let batches = if fulmar_host::planted(Plant::ShipUncommitted) && at.offset >= look.next {
            time::sleep(LOOK_EVERY / 100).await;
            let broker = &self.parts.context.broker;
            let mut batches =
                broker.unapplied(look.stream, broker.group().applied(), look.next).await;
            batches.retain(|batch| batch.base_offset >= at.offset);
            batches
        } else {
            self.read(look.stream, at.offset, look.next).await?
        };
        let from = at.offset;
        let mut at = at;
        for batch in batches {
            if batch.base_offset != at.offset {
                break;
            }
            at = self.send(&look.chain_key, at, batch).await;
        }
        // A log in which nothing begins where the state says so gives nothing at once, however often
        // it is asked.
        if at.offset == from { Err(Stop::Again) } else { Ok(at) }
    }

    /// Sends what takes so many bytes of room, once there are as many, and notes the place behind it.
    async fn post(&self, message: Message, bytes: u32, behind: Mark) {
        // The session ends, and this with it, before the room is closed.
        if let Ok(room) = self.room.acquire_many(bytes).await {
            room.forget();
        }
        locked(&self.sent).entry(self.part).or_default().push_back(behind);
        self.parts.send(message).await;
    }

    async fn skip_expired(&self, from: Offset, start: Offset) -> Result<Mark, Stop> {
        let look = self.look(start)?;
        if look.log_start != start {
            return Err(Stop::Again);
        }
        let end = Mark { offset: look.next, tag: look.chain };
        let behind = match look.known {
            _ if fulmar_host::planted(Plant::GapTooWide) => end,
            Some(known) if known.offset == start => known,
            _ if start == look.next => end,
            // The start is always that of a span; it has moved since.
            _ => return Err(Stop::Again),
        };
        let (mark, reason) = (Mark { offset: from, tag: behind.tag }, GapReason::Expired);
        let gap = Message::Gap { part: self.part, mark, to: behind.offset, reason };
        self.post(gap, GAP_BYTES, behind).await;
        Ok(behind)
    }

    async fn send(&self, chain_key: &[u8; 32], at: Mark, batch: StoredBatch) -> Mark {
        let behind = behind(chain_key, at.tag, &batch);
        let bytes = u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX);
        let mark = Mark { offset: batch.base_offset, tag: behind.tag };
        self.post(Message::Batch(self.part, mark, batch.bytes), bytes, behind).await;
        behind
    }
}

/// The place behind a batch.
fn behind(chain_key: &[u8; 32], tag: Tag, batch: &StoredBatch) -> Mark {
    Mark {
        offset: batch.base_offset.plus(u64::from(batch.records)),
        tag: chained(chain_key, &tag, batch.base_offset, &batch.bytes),
    }
}

//! The side of a session that takes: mirrors of the topics that the other site offers and this one
//! wants.
//!
//! Invariants: a batch is proposed with its offset and tag under the definition of the link that the
//! session belongs to, so whatever became of an earlier proposal it takes effect once or never; the
//! batches of a partition are proposed in their order; what the other side may have on its way is
//! bounded, and more is given only when something is committed.
//!
//! Never: tell the other side that something is here before it is committed.

use crate::bond::Hearing;
use crate::locked;
use crate::message::{Mark, Message, Offered, Part};
use crate::session::{Ended, Parts};
use crate::taker::Taker;
use bytes::Bytes;
use fulmar_broker::machine::outcome::{OperationResult, UnitResult};
use fulmar_broker::proposer::{Answer, Ticket};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_store::entry::{Batch, LinkOperation, MirrorPlace, Operation, Unit};
use fulmar_types::gap::Missing;
use fulmar_types::limits::BATCH_BYTES_MAX;
use fulmar_types::link::{LINK_OFFSET_MAX, Priority};
use fulmar_types::{Event, Offset, Plant, Probe, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Bytes of batches of one priority that the other side may have on their way, of all partitions
/// together. Each has room of its own, so that none waits for another.
const fn room_bytes(lane: Priority) -> u32 {
    match lane {
        Priority::Urgent | Priority::Bulk => ROOM_BYTES_MAX / 2,
        Priority::Normal => ROOM_BYTES_MAX,
    }
}

/// The most of it.
pub(crate) const ROOM_BYTES_MAX: u32 = 8 << 20;

/// How much must have become free before it is said.
const ROOM_STEP_BYTES: u32 = ROOM_BYTES_MAX / 16;

/// Bytes of batches that are not urgent and are being proposed at one time: as much is in front of an
/// urgent one at most.
const PROPOSING_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(room_bytes(Priority::Urgent) as usize >= 2 * BATCH_BYTES_MAX);
const _: () = assert!(PROPOSING_BYTES_MAX >= 2 * BATCH_BYTES_MAX);

/// The room that a gap takes, on both sides.
pub(crate) const GAP_BYTES: u32 = 256;

/// Batches of one partition that are being proposed at one time.
const PROPOSED_MAX: usize = 64;

/// Batches of one partition after which it is said what is here in any case.
const UNSAID_MAX: usize = 64;

/// How long a batch may wait for its place in the log.
pub(crate) const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing more of a copy comes whose origin has another history, and what to do.
const FORKED: &str = "a fork: the site that gives has other records: either the origin was put back to an older copy, \
                      or a copy in between was deleted and made anew; if that site is right, delete this copy: it is \
                      made anew from what that site has, and its older records are lost where that one has them no more";

/// Why nothing more of a copy comes of which something came that is no batch.
const NO_BATCH: &str = "a batch cannot be taken";

/// The same where its offsets would go on behind the last that can be said over a link.
pub(crate) const TOO_FAR: &str = "its offsets go beyond 2^62: the site that gives it has it from somebody who made them up; \
                                  nothing more of it can go over a link";

/// What came for a partition.
pub(crate) struct Incoming {
    /// What is proposed.
    operation: LinkOperation,
    /// Up to where the partition is when that is done.
    behind: Mark,
    /// The bytes of it that take room, and the priority whose room that is.
    bytes: u32,
    lane: Priority,
}

/// A partition that is taken: its mirror here, and who commits what comes.
pub(crate) struct Taken {
    pub(crate) topic: TopicId,
    /// The offset that comes next.
    pub(crate) next: Offset,
    pub(crate) incoming: mpsc::UnboundedSender<Incoming>,
    pub(crate) _committing: Owned<()>,
}

pub(crate) type Taking = Arc<Mutex<BTreeMap<Part, Taken>>>;

/// Partitions that were taken in this session and are no more: each is asked for once.
pub(crate) type GivenUp = Arc<Mutex<BTreeSet<Part>>>;

/// Room of one priority that is to be given back to the other side, and what it has left.
#[derive(Clone, Copy, Default)]
pub(crate) struct Room {
    freed: u32,
    given: u32,
}

impl Room {
    /// The other side has used so many bytes. `false` if it had not been given as many.
    fn take(&mut self, bytes: u32) -> bool {
        let left = self.given.checked_sub(bytes);
        self.given = left.unwrap_or(self.given);
        left.is_some()
    }

    /// Gives back what is free, if it is at least so much. Returns what the other side is to be told.
    pub(crate) fn release(&mut self, least: u32) -> u32 {
        let freed = if self.freed >= least { std::mem::take(&mut self.freed) } else { 0 };
        self.given += freed;
        freed
    }
}

pub(crate) type Rooms = Arc<Mutex<[Room; Priority::ALL.len()]>>;

/// The taking side.
pub(crate) struct Target {
    parts: Parts,
    taking: Taking,
    rooms: Rooms,
    hearing: Hearing,
    offers: watch::Sender<Option<Vec<Offered>>>,
    /// Partitions that are not taken any more in this session.
    given_up: GivenUp,
    /// What the other side is to be told of those among them whose batch cannot be taken.
    refused: mpsc::UnboundedSender<Part>,
    _taking_up: Owned<()>,
    _refusing: Owned<()>,
}

impl Target {
    pub(crate) fn start(parts: Parts) -> Self {
        let (offers, offered) = watch::channel(None);
        let taking = Taking::default();
        let (rooms, given_up) = (Rooms::default(), GivenUp::default());
        let taker = Taker {
            parts: parts.clone(),
            taking: Arc::clone(&taking),
            given_up: Arc::clone(&given_up),
            rooms: Arc::clone(&rooms),
            proposing: Arc::new(Semaphore::new(PROPOSING_BYTES_MAX)),
            copies: BTreeSet::new(),
            held: BTreeMap::new(),
        };
        let hearing = Hearing::start(parts.clone());
        let _taking_up = task::spawn_owned(taker.run(offered, hearing.logged()));
        // No more than there are partitions: each is given up once.
        let (refused, mut refuses) = mpsc::unbounded_channel();
        let _refusing = task::spawn_owned({
            let parts = parts.clone();
            async move {
                while let Some(part) = refuses.recv().await {
                    parts.send(Message::Stuck(part)).await;
                }
            }
        });
        Self { parts, taking, rooms, hearing, offers, given_up, refused, _taking_up, _refusing }
    }

    /// Lets the other side send.
    pub(crate) async fn give_room(&self) {
        for lane in Priority::ALL {
            locked(&self.rooms)[lane.rank()].given = room_bytes(lane);
            self.parts.send(Message::Room(lane, room_bytes(lane))).await;
        }
    }

    /// The other side has used room. `false` if it had not been given as much.
    fn takes_room(&self, lane: Priority, bytes: u32) -> bool {
        locked(&self.rooms)[lane.rank()].take(bytes)
    }

    /// Room that nothing has taken after all: the other side is told when somebody looks.
    fn give_back(&self, lane: Priority, bytes: u32) {
        locked(&self.rooms)[lane.rank()].freed += bytes;
    }

    /// The other side has given a number. `false` if that is none.
    pub(crate) fn bond(&mut self, number: u64) -> bool {
        self.hearing.came(number)
    }

    /// What the other side lets go, all of it. `false` if it has given no number before.
    pub(crate) fn offered(&mut self, topics: Vec<Offered>) -> bool {
        // Only the newest counts.
        self.hearing.has_come() && self.offers.send(Some(topics)).is_ok()
    }

    /// A batch came. `false` if it may not.
    pub(crate) fn batch(&mut self, lane: Priority, part: Part, mark: Mark, bytes: Bytes) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        // What takes no room could come without end.
        if len == 0 || !self.takes_room(lane, len) {
            return false;
        }
        let bytes_max = self.parts.context.settings.batch_bytes_max;
        let valid = fulmar_wire::batch::Batch::from_origin(bytes, bytes_max);
        let bytes = match valid {
            Ok(batch) => batch.into_bytes(),
            Err(error) => {
                tracing::debug!(?part, offset = %mark.offset, %error, "no batch");
                return self.give_up(part, (lane, len), mark.offset, NO_BATCH);
            }
        };
        let Some(records) = records_of(&bytes) else { return false };
        let Some(end) = mark.offset.0.checked_add(records) else { return false };
        let behind = Mark { offset: Offset(end), tag: mark.tag };
        self.pass(part, (mark.offset, behind), (lane, len), |place| LinkOperation::MirrorAppend {
            place: MirrorPlace { offset: mark.offset, ..place },
            batch: Batch::new(bytes),
        })
    }

    /// Takes nothing more of a partition in this session: what came would come again and again, and the
    /// others are not to suffer from it. `false` if it may not have come.
    fn give_up(
        &self,
        part: Part,
        (lane, bytes): (Priority, u32),
        offset: Offset,
        why: &'static str,
    ) -> bool {
        self.give_back(lane, bytes);
        let Some(taken) = locked(&self.taking).remove(&part) else {
            return locked(&self.given_up).contains(&part);
        };
        if let Some(unsaid) = self.parts.may_say() {
            tracing::warn!(?part, %offset, why, unsaid, "nothing more of a copy is taken");
        }
        self.parts.stopped(taken.topic, part.partition, why);
        locked(&self.given_up).insert(part);
        self.refused.send(part).is_ok()
    }

    /// Something will never come. `false` if it may not be said.
    pub(crate) fn gap(
        &mut self,
        lane: Priority,
        part: Part,
        mark: Mark,
        (to, missing): (Offset, Missing),
    ) -> bool {
        if !missing.fits(mark.offset, to) || !self.takes_room(lane, GAP_BYTES) {
            return false;
        }
        self.parts.context.host.probe(Probe::GapMirrored);
        let behind = Mark { offset: to, tag: mark.tag };
        let operation = |place| LinkOperation::MirrorSkip {
            place: MirrorPlace { offset: mark.offset, ..place },
            to,
            missing,
        };
        self.pass(part, (mark.offset, behind), (lane, GAP_BYTES), operation)
    }

    /// Hands something from an offset on to the task of its partition.
    fn pass(
        &self,
        part: Part,
        (from, behind): (Offset, Mark),
        (lane, bytes): (Priority, u32),
        operation: impl FnOnce(MirrorPlace) -> LinkOperation,
    ) -> bool {
        if behind.offset.0 > LINK_OFFSET_MAX {
            return self.give_up(part, (lane, bytes), from, TOO_FAR);
        }
        let mut taking = locked(&self.taking);
        // What was not asked for is not taken; what was given up may still come for a while.
        let Some(taken) = taking.get_mut(&part) else {
            self.give_back(lane, bytes);
            return locked(&self.given_up).contains(&part);
        };
        if from != taken.next {
            return false;
        }
        taken.next = behind.offset;
        let (topic, partition) = (taken.topic, part.partition);
        self.parts.context.host.report(Event::LinkReceived { topic, partition, from });
        let place = MirrorPlace {
            link: self.parts.link.number,
            topic: taken.topic,
            partition: part.partition,
            offset: behind.offset,
            tag: behind.tag,
        };
        let incoming = Incoming { operation: operation(place), behind, bytes, lane };
        taken.incoming.send(incoming).is_ok()
    }

    /// The other side does not have what this mirror has.
    pub(crate) fn fork(&mut self, part: Part, offset: Offset) -> bool {
        let mut taking = locked(&self.taking);
        let Some(taken) = taking.remove(&part) else { return false };
        locked(&self.given_up).insert(part);
        let (topic, partition) = (taken.topic, part.partition);
        self.parts.context.host.report(Event::LinkForked { topic, partition, offset });
        self.parts.stopped(topic, partition, FORKED);
        true
    }
}

/// How many offsets a batch takes, if it is one.
fn records_of(bytes: &Bytes) -> Option<u64> {
    let facts = fulmar_broker::machine::batch::BatchFacts::read(bytes, 0)?;
    Some(u64::from(facts.records))
}

/// Commits what comes for one partition.
pub(crate) struct Committer {
    pub(crate) parts: Parts,
    pub(crate) rooms: Rooms,
    pub(crate) proposing: Arc<Semaphore>,
    pub(crate) part: Part,
}

/// A proposal on its way.
struct Proposed {
    ticket: Ticket,
    behind: Mark,
    bytes: u32,
    lane: Priority,
    _proposing: Option<OwnedSemaphorePermit>,
}

impl Committer {
    pub(crate) async fn run(self, mut came: mpsc::UnboundedReceiver<Incoming>) {
        let mut proposed: VecDeque<Proposed> = VecDeque::new();
        let (mut waiting, mut unsaid) = (None, 0);
        loop {
            match self.next(&mut proposed, &mut came, &mut waiting).await {
                Next::Answer(answer) => {
                    let done = proposed.pop_front().expect("its ticket was answered");
                    if !is_committed(&answer) {
                        return self.parts.end(Ended::NotTaken);
                    }
                    unsaid += 1;
                    if self.committed(&done, proposed.is_empty() || unsaid >= UNSAID_MAX).await {
                        unsaid = 0;
                    }
                }
                Next::Came(incoming, _proposing) => {
                    let Incoming { operation, behind, bytes, lane } = *incoming;
                    if fulmar_host::planted(Plant::ProgressBeforeRecords) {
                        self.parts.send(Message::Has(self.part, behind)).await;
                    }
                    let unit = Unit::of(Operation::Link(operation));
                    let deadline = time::now() + PROPOSE_TIMEOUT;
                    let ticket = self.parts.context.broker.proposer().submit(unit, deadline).await;
                    proposed.push_back(Proposed { ticket, behind, bytes, lane, _proposing });
                }
                Next::Over => return,
            }
        }
    }

    /// What is to be done next. What has come and may not be proposed yet stays in `waiting`.
    async fn next(
        &self,
        proposed: &mut VecDeque<Proposed>,
        came: &mut mpsc::UnboundedReceiver<Incoming>,
        waiting: &mut Option<Incoming>,
    ) -> Next {
        let has_place = proposed.len() < PROPOSED_MAX;
        let answered = async {
            match proposed.front_mut() {
                Some(first) => (&mut first.ticket).await,
                None => std::future::pending().await,
            }
        };
        let to_propose = async {
            if waiting.is_none() {
                *waiting = came.recv().await;
            }
            let (lane, bytes) = match waiting {
                Some(incoming) => (incoming.lane, incoming.bytes),
                None => return Next::Over,
            };
            let permit = self.permit(lane, bytes).await;
            waiting.take().map_or(Next::Over, |incoming| Next::Came(Box::new(incoming), permit))
        };
        tokio::select! {
            biased;
            answer = answered => Next::Answer(answer),
            next = to_propose, if has_place => next,
        }
    }

    /// What allows to propose something; nobody keeps back what is urgent.
    async fn permit(&self, lane: Priority, bytes: u32) -> Option<OwnedSemaphorePermit> {
        if lane == Priority::Urgent {
            return None;
        }
        let bytes = bytes.min(u32::try_from(PROPOSING_BYTES_MAX).unwrap_or(u32::MAX));
        Arc::clone(&self.proposing).acquire_many_owned(bytes).await.ok()
    }

    /// Tells the other side, now and then, how far this one is, and that there is room again. Returns whether it said
    /// how far.
    async fn committed(&self, done: &Proposed, is_due: bool) -> bool {
        let freed = {
            let mut rooms = locked(&self.rooms);
            let room = &mut rooms[done.lane.rank()];
            room.freed += done.bytes;
            room.release(ROOM_STEP_BYTES)
        };
        if freed > 0 {
            self.parts.send(Message::Room(done.lane, freed)).await;
        }
        let says = is_due || freed > 0;
        if says {
            self.parts.send(Message::Has(self.part, done.behind)).await;
        }
        says
    }
}

/// What is to be done next for a partition.
enum Next {
    /// The oldest proposal was answered.
    Answer(Answer),
    /// Something is to be proposed.
    Came(Box<Incoming>, Option<OwnedSemaphorePermit>),
    /// The session is over.
    Over,
}

fn is_committed(answer: &Answer) -> bool {
    let Answer::Done { result: UnitResult::Done(results), .. } = answer else { return false };
    let is_ours = |result: &OperationResult| {
        matches!(result, OperationResult::Appended { .. } | OperationResult::Skipped)
    };
    results.iter().all(is_ours)
}

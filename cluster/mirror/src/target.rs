//! The side of a session that takes: mirrors of the topics that the other site offers and this one
//! wants.
//!
//! Invariants: a batch is proposed with its offset and tag under the definition of the link that the
//! session belongs to, so whatever became of an earlier proposal it takes effect once or never; the
//! batches of a partition are proposed in their order; what the other side may have on its way is
//! bounded, and more is given only when something is committed.
//!
//! Never: tell the other side that something is here before it is committed.

use crate::locked;
use crate::message::{Mark, Message, Offered, Part};
use crate::session::{Ended, Parts};
use bytes::Bytes;
use fulmar_broker::broker::chain_key;
use fulmar_broker::machine::mirroring::NO_TAG;
use fulmar_broker::machine::outcome::{OperationResult, Refusal, UnitResult};
use fulmar_broker::machine::topics::is_valid_name;
use fulmar_broker::proposer::{Answer, Ticket};
use fulmar_host::random;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_store::entry::{Batch, LinkOperation, MirrorPlace, NewMirror, Operation, Unit};
use fulmar_types::gap::Missing;
use fulmar_types::limits::{BATCH_BYTES_MAX, PARTITIONS_PER_TOPIC_MAX};
use fulmar_types::link::{Decline, Priority, VIA_MAX};
use fulmar_types::{Event, Offset, PartitionIndex, Plant, Probe, TopicId, Uuid};
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

/// How long a batch may wait for its place in the log.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the taking side looks whether its mirrors are still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long nothing is made of what is offered after something was.
const OFFERS_PAUSE: Duration = Duration::from_secs(1);

/// Why nothing more of a copy comes whose origin has another history, and what to do.
const FORKED: &str = "a fork: its origin has other records, as one that was put back to an older copy; \
                      if the origin is right, delete this copy, and it is made anew";

/// How often a mirror that cannot be made is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What came for a partition.
struct Incoming {
    /// What is proposed.
    operation: LinkOperation,
    /// Up to where the partition is when that is done.
    behind: Mark,
    /// The bytes of it that take room, and the priority whose room that is.
    bytes: u32,
    lane: Priority,
}

/// A partition that is taken: its mirror here, and who commits what comes.
struct Taken {
    topic: TopicId,
    /// The offset that comes next.
    next: Offset,
    incoming: mpsc::UnboundedSender<Incoming>,
    _committing: Owned<()>,
}

type Taking = Arc<Mutex<BTreeMap<Part, Taken>>>;

/// Partitions that were taken in this session and are no more: each is asked for once.
type GivenUp = Arc<Mutex<BTreeSet<Part>>>;

/// Room of one priority that is to be given back to the other side, and what it has left.
#[derive(Clone, Copy, Default)]
struct Room {
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
    fn release(&mut self, least: u32) -> u32 {
        let freed = if self.freed >= least { std::mem::take(&mut self.freed) } else { 0 };
        self.given += freed;
        freed
    }
}

type Rooms = Arc<Mutex<[Room; Priority::ALL.len()]>>;

/// The taking side.
pub(crate) struct Target {
    parts: Parts,
    taking: Taking,
    rooms: Rooms,
    offers: watch::Sender<Option<Vec<Offered>>>,
    /// Partitions that are not taken any more in this session.
    given_up: GivenUp,
    _taking_up: Owned<()>,
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
        };
        let _taking_up = task::spawn_owned(taker.run(offered));
        Self { parts, taking, rooms, offers, given_up, _taking_up }
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

    /// What the other side lets go, all of it.
    pub(crate) fn offered(&mut self, topics: Vec<Offered>) -> bool {
        // Only the newest counts.
        self.offers.send(Some(topics)).is_ok()
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
                self.give_back(lane, len);
                let Some(taken) = locked(&self.taking).remove(&part) else {
                    return locked(&self.given_up).contains(&part);
                };
                // It would come again and again: the others are not to suffer from it.
                tracing::warn!(?part, offset = %mark.offset, %error, "a batch cannot be taken");
                self.parts.stopped(taken.topic, part.partition, "a batch cannot be taken");
                locked(&self.given_up).insert(part);
                return true;
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

/// Takes up what is offered.
struct Taker {
    parts: Parts,
    taking: Taking,
    given_up: GivenUp,
    rooms: Rooms,
    /// Bytes that may be proposed.
    proposing: Arc<Semaphore>,
    /// The mirrors of this session, those included of which nothing more comes.
    copies: BTreeSet<TopicId>,
}

/// What there is for an offered topic on this site.
enum Here {
    /// Its mirror, with where each partition has come to, and whether it is what its origin is now.
    Mirror { topic: TopicId, marks: Vec<Mark>, is_aligned: bool },
    /// Its mirror, which another link brings.
    OtherLink(TopicId),
    /// Nothing yet.
    Nothing,
    /// A topic of the name that is no mirror of this one.
    InTheWay,
}

impl Taker {
    async fn run(mut self, mut offered: watch::Receiver<Option<Vec<Offered>>>) {
        loop {
            match time::timeout(LOOK_EVERY, offered.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                // Somebody has removed a copy. The next session makes it anew.
                Err(time::Elapsed) if self.lacks_one() => {
                    return self.parts.end(Ended::MirrorRemoved);
                }
                Err(time::Elapsed) => {
                    self.tell_room().await;
                    continue;
                }
            }
            let topics = offered.borrow_and_update().clone().unwrap_or_default();
            // What an earlier leader had committed may not be applied here yet.
            if !self.parts.context.leads().await {
                return self.parts.end(Ended::Deposed);
            }
            self.take_up_all(&topics).await;
            // What the other side offers may become an entry of the log for each topic, and is answered with
            // all that is declined. Of what it offers meanwhile only the last counts.
            time::sleep(OFFERS_PAUSE).await;
        }
    }

    /// Takes what is wanted, and says what is not.
    async fn take_up_all(&mut self, topics: &[Offered]) {
        let declined = |topic| self.decline(topic).map(|why| (topic, why));
        let mut declined: Vec<(&Offered, Decline)> = topics.iter().filter_map(declined).collect();
        match fulmar_host::planted(Plant::DeclinesAll) {
            true => {
                let all: Vec<_> = topics.iter().map(|topic| (topic, Decline::NotWanted)).collect();
                self.tell_declined(&all).await;
            }
            false => self.tell_declined(&declined).await,
        }
        let known = declined.len();
        for topic in topics {
            if self.decline(topic).is_none() && !self.take_up(topic).await {
                // Another link was faster.
                declined.push((topic, Decline::OtherLink));
            }
        }
        if declined.len() > known {
            self.tell_declined(&declined).await;
        }
    }

    async fn tell_declined(&self, declined: &[(&Offered, Decline)]) {
        let told = declined.iter().map(|(topic, why)| (topic.name.clone(), why.name())).collect();
        self.parts.declines(told);
        let told = declined.iter().map(|(topic, why)| (topic.topic, *why)).collect();
        self.parts.send(Message::Declines(told)).await;
    }

    /// Why a topic is not to be taken, if it is not.
    fn decline(&mut self, topic: &Offered) -> Option<Decline> {
        let link = &self.parts.link;
        if !link.definition.takes(&topic.name) {
            return Some(Decline::NotWanted);
        }
        let name = link.definition.name_of(&topic.via, &topic.name)?;
        let (is_own, other, is_of_other) = self.parts.context.broker.site().read(|state| {
            let own = state.topics().get(topic.origin);
            let is_own = own.is_some_and(|own| state.mirror(own.id).is_none());
            let here = state.topics().by_name(&name).and_then(|here| state.mirror(here.id));
            let other = here.filter(|m| m.origin == topic.origin && m.link != link.name);
            let origin = topic.via.first();
            let claims = origin.is_some_and(|origin| state.is_site_of_another(&link.name, origin));
            (is_own, other.map(|mirror| mirror.topic), claims && here.is_none())
        });
        let is_loop = is_own || topic.via.contains(&self.parts.context.settings.site);
        if is_loop && !fulmar_host::planted(Plant::LoopNotCut) {
            return Some(Decline::Loop);
        }
        // If it is removed, this link may bring the topic.
        self.copies.extend(other);
        (other.is_some() || is_of_other).then_some(Decline::OtherLink)
    }

    /// Tells the other side of room that was given back, and is not told with what is committed.
    async fn tell_room(&self) {
        for lane in Priority::ALL {
            let freed = locked(&self.rooms)[lane.rank()].release(0);
            if freed > 0 {
                self.parts.send(Message::Room(lane, freed)).await;
            }
        }
    }

    /// Whether a mirror that this session takes is not there any more.
    fn lacks_one(&self) -> bool {
        let site = self.parts.context.broker.site();
        site.read(|state| self.copies.iter().any(|topic| state.topics().get(*topic).is_none()))
    }

    /// Takes up a topic. `false` if it comes over another link.
    async fn take_up(&mut self, topic: &Offered) -> bool {
        let name = self.parts.link.definition.name_of(&topic.via, &topic.name);
        let can_be = name.is_some_and(|name| is_valid_name(&name))
            && topic.via.len() < VIA_MAX
            && (1..=PARTITIONS_PER_TOPIC_MAX).contains(&topic.partitions);
        if !can_be {
            self.stopped(topic, "no topic can have its name or its partitions");
            return true;
        }
        loop {
            match self.here(topic) {
                Here::Mirror { topic: mirror, is_aligned: false, .. }
                    if !fulmar_host::planted(Plant::SettingsStay)
                        && self.align(topic, mirror).await => {}
                Here::Mirror { topic: mirror, marks, .. } => {
                    self.copies.insert(mirror);
                    for (partition, mark) in (0..).zip(marks) {
                        self.take(topic.topic, mirror, PartitionIndex(partition), mark).await;
                    }
                    return true;
                }
                Here::OtherLink(mirror) => {
                    self.copies.insert(mirror);
                    return false;
                }
                Here::InTheWay => {
                    tracing::warn!(topic = %topic.name, "another topic has the name of its mirror");
                    self.stopped(topic, "another topic has the name of its copy");
                    return true;
                }
                Here::Nothing => {
                    if !self.create(topic).await {
                        return true;
                    }
                }
            }
        }
    }

    /// A topic of the other site cannot be taken.
    fn stopped(&self, topic: &Offered, why: &'static str) {
        let name = self.parts.link.definition.name_of(&topic.via, &topic.name);
        let name = name.unwrap_or_else(|| topic.name.clone());
        self.parts.stopped_by_name(name, PartitionIndex(0), why);
    }

    /// The sites that a topic comes through to this one.
    fn via(&self, topic: &Offered) -> Vec<String> {
        let giver = std::iter::once(&self.parts.link.definition.site);
        topic.via.iter().chain(giver).cloned().collect()
    }

    /// The settings of a topic that this site honours.
    fn configs(&self, topic: &Offered) -> Vec<(String, String)> {
        self.parts.context.broker.honoured(&topic.configs)
    }

    fn here(&self, topic: &Offered) -> Here {
        let link = &self.parts.link;
        let name = link.definition.name_of(&topic.via, &topic.name);
        let (via, configs) = (self.via(topic), self.configs(topic));
        self.parts.context.broker.site().read(|state| {
            let here = name.and_then(|name| state.topics().by_name(&name));
            let Some(here) = here else { return Here::Nothing };
            let mirror = state.mirror(here.id).filter(|mirror| mirror.origin == topic.origin);
            let Some(mirror) = mirror else { return Here::InTheWay };
            if mirror.link != link.name {
                return Here::OtherLink(here.id);
            }
            let is_aligned = mirror.via == via && mirror.configs == configs;
            let mark = |stream| {
                let known = state.partition(stream).zip(state.tag(stream));
                // The planted bug has forgotten everything, as every session would.
                let known = known.filter(|_| !fulmar_host::planted(Plant::ProgressInMemory));
                let beginning = Mark { offset: Offset(0), tag: NO_TAG };
                let wrong = u64::from(fulmar_host::planted(Plant::ResumeOffByOne));
                known.map_or(beginning, |(partition, tag)| {
                    let next = partition.next;
                    Mark { offset: if next.0 > 0 { next.plus(wrong) } else { next }, tag }
                })
            };
            let marks = here.streams().map(mark).collect();
            Here::Mirror { topic: here.id, marks, is_aligned }
        })
    }

    async fn propose(&self, operation: LinkOperation) -> Answer {
        let unit = Unit::of(Operation::Link(operation));
        let deadline = time::now() + PROPOSE_TIMEOUT;
        let ticket = self.parts.context.broker.proposer().submit(unit, deadline).await;
        time::timeout_at(deadline, ticket).await.unwrap_or(Answer::Unknown)
    }

    /// Makes of a mirror what has changed of its origin. `false` if it stays as it is.
    async fn align(&self, topic: &Offered, mirror: TopicId) -> bool {
        let (link, via, configs) = (self.parts.link.number, self.via(topic), self.configs(topic));
        let operation = LinkOperation::AlignMirror { link, topic: mirror, via, configs };
        match self.propose(operation).await {
            Answer::Done { result: UnitResult::Done(_), .. } => true,
            Answer::Done { result: UnitResult::Refused(refusal), .. } => {
                tracing::warn!(topic = %topic.name, %refusal, "a mirror keeps its settings");
                false
            }
            Answer::NotDone | Answer::NoRoom | Answer::Unknown => {
                time::sleep(AGAIN_AFTER).await;
                true
            }
        }
    }

    /// Makes the mirror of a topic. `false` if there can be none.
    async fn create(&self, topic: &Offered) -> bool {
        let link = &self.parts.link;
        let Some(name) = link.definition.name_of(&topic.via, &topic.name) else { return false };
        let mut configs = self.configs(topic);
        // A copy may be passed on, and under a rule: what its tags say of it is for this site alone.
        configs.push(chain_key());
        let new = NewMirror {
            topic: TopicId(Uuid::from_random(random::random_16())),
            name,
            partitions: topic.partitions,
            configs,
            link: link.name.clone(),
            origin: topic.origin,
            origin_name: topic.name.clone(),
            via: self.via(topic),
        };
        match self.propose(LinkOperation::CreateMirror(new)).await {
            Answer::Done { result: UnitResult::Done(_), .. } => true,
            Answer::Done { result: UnitResult::Refused(Refusal::TopicExists), .. } => true,
            Answer::Done { result: UnitResult::Refused(refusal), .. } => {
                tracing::warn!(topic = %topic.name, %refusal, "a topic cannot be mirrored");
                self.stopped(topic, "the site does not take it: a name or a limit");
                false
            }
            Answer::NotDone | Answer::NoRoom | Answer::Unknown => {
                time::sleep(AGAIN_AFTER).await;
                true
            }
        }
    }

    async fn take(&self, origin: TopicId, topic: TopicId, partition: PartitionIndex, mark: Mark) {
        let part = Part { topic: origin, partition };
        {
            let mut taking = locked(&self.taking);
            if taking.contains_key(&part) || locked(&self.given_up).contains(&part) {
                return;
            }
            let (incoming, came) = mpsc::unbounded_channel();
            let committer = Committer {
                parts: self.parts.clone(),
                rooms: Arc::clone(&self.rooms),
                proposing: Arc::clone(&self.proposing),
                part,
            };
            let _committing = task::spawn_owned(committer.run(came));
            taking.insert(part, Taken { topic, next: mark.offset, incoming, _committing });
        }
        self.parts.send(Message::Take(part, mark)).await;
    }
}

/// Commits what comes for one partition.
struct Committer {
    parts: Parts,
    rooms: Rooms,
    proposing: Arc<Semaphore>,
    part: Part,
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
    async fn run(self, mut came: mpsc::UnboundedReceiver<Incoming>) {
        let mut proposed: VecDeque<Proposed> = VecDeque::new();
        let mut waiting = None;
        loop {
            match self.next(&mut proposed, &mut came, &mut waiting).await {
                Next::Answer(answer) => {
                    let done = proposed.pop_front().expect("its ticket was answered");
                    if !is_committed(&answer) {
                        return self.parts.end(Ended::NotTaken);
                    }
                    self.committed(&done, proposed.is_empty()).await;
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

    /// Tells the other side, now and then, how far this one is, and that there is room again.
    async fn committed(&self, done: &Proposed, was_last: bool) {
        let freed = {
            let mut rooms = locked(&self.rooms);
            let room = &mut rooms[done.lane.rank()];
            room.freed += done.bytes;
            room.release(ROOM_STEP_BYTES)
        };
        if freed > 0 {
            self.parts.send(Message::Room(done.lane, freed)).await;
        }
        if was_last || freed > 0 {
            self.parts.send(Message::Has(self.part, done.behind)).await;
        }
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

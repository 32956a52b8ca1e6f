//! The side of a session that gives: what this site may let the other one have, from where it asks
//! for it.
//!
//! What it offers, how far the other side has come, and what it does not take; one partition on its way is
//! `shipment.rs`.
//!
//! Invariants: the bytes on their way stay within the room that the other side gave; what is noted of the other side is
//! what this side has sent.
//!
//! Never: ship what a rule does not let go. What decides is `stripe::write`; here it is only
//! offered.

use crate::bond;
use crate::locked;
use crate::message::{Mark, Message, Offered, Part, fitting};
use crate::session::Parts;
use crate::shipment::Shipment;
use fulmar_broker::machine::outcome::UnitResult;
use fulmar_broker::machine::state::State;
use fulmar_broker::proposer::{Answer, Ticket};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::entry::{LinkOperation, MirrorPlace, Operation, Unit};
use fulmar_types::link::{Decline, Priority};
use fulmar_types::{Plant, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// How often this side looks whether it offers something else.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often the progress of the other side is noted in the log, if it has moved; sooner where its room
/// is needed.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// How often the other side is given a new bond at most, while it has more than before or may have less.
const GIVE_EVERY: Duration = Duration::from_secs(1);

/// Why nothing more of a partition goes whose batch was refused.
const STUCK: &str = "the other site cannot take a batch of it; its log says why";

/// The most that the other side may have given room for at one time.
const ROOM_BYTES_MAX: usize = 64 << 20;

/// Partitions that are shipped in one session, at most.
const PARTS_MAX: usize = 16_384;

/// Reads of one priority that are under way or wait for room, at most.
const READS_MAX: usize = 8;

/// The places behind what was sent and is not known to be committed there. Who takes says so of each batch, or of one a
/// little later; nobody can make this side keep more than [`SENT_MAX`].
#[derive(Debug, Default)]
pub(crate) struct SentMarks {
    by_part: BTreeMap<Part, VecDeque<Mark>>,
    count: usize,
    /// What nothing more is sent of: whatever is said of it is passed over.
    given_up: BTreeSet<Part>,
}

/// More than the room of all priorities holds of the smallest batches, and what the other side says some time later.
const SENT_MAX: usize = 1 << 20;

const _: () = assert!(SENT_MAX > 2 * 2 * crate::target::ROOM_BYTES_MAX as usize / 61);

impl SentMarks {
    /// Something is sent. `false` if the other side does not say what it has.
    pub(crate) fn sent(&mut self, part: Part, behind: Mark) -> bool {
        if self.given_up.contains(&part) {
            return true;
        }
        self.by_part.entry(part).or_default().push_back(behind);
        self.count += 1;
        self.count <= SENT_MAX
    }

    /// The other side has everything before a place. `None` if that is behind nothing that was sent, else whether it
    /// is to be noted.
    fn has(&mut self, part: Part, mark: Mark) -> Option<bool> {
        if self.given_up.contains(&part) {
            return Some(false);
        }
        let sent = self.by_part.get_mut(&part)?;
        while sent.front().is_some_and(|first| first.offset < mark.offset) {
            sent.pop_front();
            self.count -= 1;
        }
        (sent.front() == Some(&mark)).then_some(true)
    }

    /// Nothing more of a partition is sent.
    fn give_up(&mut self, part: Part) {
        let sent = self.by_part.remove(&part);
        self.count -= sent.map_or(0, |sent| sent.len());
        self.given_up.insert(part);
    }

    /// The last place that the other side is known to have, or the first that it is not.
    pub(crate) fn first(&self, part: Part) -> Option<&Mark> {
        self.by_part.get(&part)?.front()
    }
}

pub(crate) type Sent = Arc<Mutex<SentMarks>>;

/// What may be sent of one priority, and read for it: of its own, so that none waits for another.
pub(crate) struct Lane {
    pub(crate) room: Semaphore,
    pub(crate) reading: Semaphore,
}

pub(crate) type Lanes = Arc<[Lane; Priority::ALL.len()]>;

/// What the other side has said that it has, and is not noted in the log yet.
pub(crate) type Progress = Arc<Mutex<BTreeMap<Part, Mark>>>;

/// What the other side has said last that it does not take, until somebody has looked at it.
type Declines = Arc<Mutex<Option<Vec<(TopicId, Decline)>>>>;

/// Partitions of which the other side cannot take a batch.
pub(crate) type Stuck = Arc<Mutex<BTreeSet<Part>>>;

/// The giving side.
pub(crate) struct Source {
    parts: Parts,
    lanes: Lanes,
    shipping: BTreeMap<Part, Owned<()>>,
    sent: Sent,
    progress: Progress,
    declined: Declines,
    stuck: Stuck,
    _offering: Owned<()>,
    _noting: Owned<()>,
}

impl Source {
    pub(crate) fn start(parts: Parts) -> Self {
        let progress = Progress::default();
        let declined = Declines::default();
        let noting = note(parts.clone(), Arc::clone(&progress), Arc::clone(&declined));
        let _noting = task::spawn_owned(noting);
        let lane = |_| Lane { room: Semaphore::new(0), reading: Semaphore::new(READS_MAX) };
        let lanes: Lanes = Arc::new(Priority::ALL.map(lane));
        let _offering = task::spawn_owned(offer(parts.clone(), Arc::clone(&lanes)));
        let (shipping, sent) = (BTreeMap::new(), Sent::default());
        let stuck = Stuck::default();
        Self { parts, lanes, shipping, sent, progress, declined, stuck, _offering, _noting }
    }

    /// The other side asks for a partition. `false` if it may not.
    pub(crate) fn take(&mut self, part: Part, mark: Mark) -> bool {
        // Each is asked for once in a session: what it takes to look whether the two have one history
        // cannot be asked for again and again, nor what is said if they have not.
        if self.shipping.len() >= PARTS_MAX || self.shipping.contains_key(&part) {
            return false;
        }
        // What is said of it later stands in the status: nothing that the other side has made up.
        let is_there = self.parts.context.broker.site().read(|state| {
            let topic = state.topics().get(part.topic);
            topic.is_some_and(|topic| topic.stream(part.partition).is_some())
        });
        if !is_there {
            return false;
        }
        let shipment = Shipment {
            parts: self.parts.clone(),
            lanes: Arc::clone(&self.lanes),
            sent: Arc::clone(&self.sent),
            progress: Arc::clone(&self.progress),
            stuck: Arc::clone(&self.stuck),
            part,
            from: mark,
            has_told: AtomicBool::new(false),
        };
        self.shipping.insert(part, task::spawn_owned(shipment.run(mark)));
        true
    }

    /// The other side does not take some of what it was offered.
    pub(crate) fn declined(&mut self, topics: Vec<(TopicId, Decline)>) -> bool {
        *locked(&self.declined) = Some(topics);
        true
    }

    /// The other side cannot take a batch of a partition: it would come again and again. `false` if it
    /// has not asked for it.
    pub(crate) fn stuck(&mut self, part: Part) -> bool {
        let is_shipped = self.shipping.contains_key(&part);
        if is_shipped && locked(&self.stuck).insert(part) {
            locked(&self.sent).give_up(part);
            if let Some(unsaid) = self.parts.may_say() {
                let link = &self.parts.link.name;
                tracing::warn!(?part, link, unsaid, "the other site cannot take a batch");
            }
            self.parts.stopped(part.topic, part.partition, STUCK);
        }
        is_shipped
    }

    /// The other side has room for more. `false` if it gives more than it may.
    pub(crate) fn room(&mut self, lane: Priority, bytes: u32) -> bool {
        let room = &self.lanes[lane.rank()].room;
        let fits = room.available_permits() + bytes as usize <= ROOM_BYTES_MAX;
        if fits {
            room.add_permits(bytes as usize);
        }
        fits
    }

    /// The other side has everything before a place. `false` if this side has not sent that: what is
    /// noted of the other side is what this side knows to be so.
    pub(crate) fn has(&mut self, part: Part, mark: Mark) -> bool {
        let said = locked(&self.sent).has(part, mark);
        if said == Some(true) {
            locked(&self.progress).insert(part, mark);
            self.parts.said(part, mark.offset);
        }
        said.is_some()
    }
}

/// What may go to the other side now, as far as one offer holds it, and whether there is more.
fn offers(state: &State, parts: &Parts) -> (Vec<Offered>, bool) {
    let may_go = state.topics().iter().filter(|topic| parts.lets_go(state, topic.id));
    let offered = may_go.map(|topic| {
        let mirror = state.mirror(topic.id);
        Offered {
            topic: topic.id,
            origin: mirror.map_or(topic.id, |mirror| mirror.origin),
            name: topic.name.clone(),
            via: mirror.map_or_else(Vec::new, |mirror| mirror.via.clone()),
            partitions: topic.partitions,
            configs: topic.configs.clone(),
        }
    });
    fitting(offered)
}

async fn offer(parts: Parts, lanes: Lanes) {
    // Who has dialled gives room when he has accepted the welcome. The lanes go with the session.
    drop(lanes[Priority::Urgent.rank()].room.acquire().await);
    if !bond::give(&parts).await {
        return;
    }
    let (mut told, mut seen) = (None, None);
    loop {
        let looked = parts.context.broker.site().read(|state| {
            let now = state.border_hashes();
            let is_new = seen.replace(now) != Some(now);
            is_new.then(|| offers(state, &parts))
        });
        if let Some((now, has_more)) = looked.filter(|(now, _)| told.as_ref() != Some(now)) {
            if has_more && let Some(unsaid) = parts.may_say() {
                let (link, topics) = (&parts.link.name, now.len());
                tracing::warn!(
                    link,
                    topics,
                    unsaid,
                    "more topics may go than one offer holds: the last by name do not"
                );
            }
            parts.send(Message::Offer(now.clone())).await;
            told = Some(now);
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a partition may soon need the room of what the other side has.
fn is_pressed(state: &State, part: Part) -> bool {
    let pressed = || {
        let topic = state.topics().get(part.topic)?;
        let (most, stream) = (topic.keeping.bytes_max()?, topic.stream(part.partition)?);
        Some(state.bytes(stream) > most / 2)
    };
    pressed().unwrap_or(false)
}

/// Notes in the log what the other side does not take, if it is something else than what stands there:
/// before it does, nothing goes that the other side lacks. Returns whether it was, and is noted now; if not,
/// it is tried again.
async fn note_declined(parts: &Parts, declined: &Declines) -> bool {
    let Some(topics) = locked(declined).take() else { return false };
    let stands = parts.context.broker.site().read(|state| {
        let known = state.declined_over(&parts.link.name);
        known.collect::<BTreeMap<_, _>>() == topics.iter().copied().collect()
    });
    if stands {
        return false;
    }
    let said = topics.clone();
    let operation = LinkOperation::PeerDeclines { link: parts.link.number, topics };
    let is_noted = is_settled(submit(parts, operation).await).await;
    if !is_noted {
        // What was said meanwhile is what counts.
        locked(declined).get_or_insert(said);
    }
    is_noted
}

/// Has an operation proposed, unless there is no room for it in time.
pub(crate) async fn submit(parts: &Parts, operation: LinkOperation) -> Ticket {
    let unit = Unit::of(Operation::Link(operation));
    parts.context.broker.proposer().submit(unit, time::now() + NOTE_EVERY).await
}

/// What the log has made of what was submitted, if it has taken it.
pub(crate) async fn settled(ticket: Ticket) -> Option<UnitResult> {
    match time::timeout(NOTE_EVERY, ticket).await {
        Ok(Answer::Done { result, .. }) => Some(result),
        Ok(Answer::NotDone | Answer::NoRoom | Answer::Unknown) | Err(time::Elapsed) => None,
    }
}

/// Whether the log has taken what was submitted, whatever it made of it. The other side says it only once,
/// so whatever the log has not taken has to be submitted again.
pub(crate) async fn is_settled(ticket: Ticket) -> bool {
    settled(ticket).await.is_some()
}

/// Notes in the log how far the other side has come, so that whoever leads next knows it.
async fn note(parts: Parts, progress: Progress, declined: Declines) {
    let (mut noted, mut declined_noted) = (time::now(), None);
    // Over a line that flaps no session may last until the others are due.
    let mut noted_once: BTreeSet<Part> = BTreeSet::new();
    let is_late = fulmar_host::planted(Plant::NotedLate);
    let border = || {
        parts.context.broker.site().read(|state| state.changes().next_back().map(|of| of.number))
    };
    let (mut given, mut changed, mut is_owed) = (time::now(), border(), false);
    let (mut said, is_rare) = (BTreeMap::new(), fulmar_host::planted(Plant::BondAtTheTick));
    let give_every = if is_rare { NOTE_EVERY } else { GIVE_EVERY };
    loop {
        time::sleep(LOOK_EVERY).await;
        // The first at once, and then the last that was said: each that differs is an entry of the log.
        if declined_noted.is_none_or(|at: Instant| at.elapsed() >= NOTE_EVERY)
            && note_declined(&parts, &declined).await
        {
            declined_noted = Some(time::now());
        }
        let is_due = noted.elapsed() >= NOTE_EVERY;
        if is_due {
            noted = time::now();
        }
        let moved: BTreeMap<Part, Mark> = {
            let mut progress = locked(&progress);
            let (moved, later): (BTreeMap<_, _>, _) = parts.context.broker.site().read(|state| {
                let all = std::mem::take(&mut *progress).into_iter();
                all.partition(|(part, _)| {
                    // Who asks for what he did not take before is waited for from now on.
                    let asks = state.declined(&parts.link.name, part.topic).is_some();
                    let is_first = !is_late && !noted_once.contains(part);
                    is_due || is_first || asks || is_pressed(state, *part)
                })
            });
            *progress = later;
            // What the other side has, an older copy of this one would not.
            is_owed |= !is_rare && progress.iter().any(|(part, mark)| said.get(part) != Some(mark));
            said.clone_from(&progress);
            moved
        };
        let mut submitted = Vec::new();
        noted_once.extend(moved.keys());
        for (part, mark) in moved {
            let (Part { topic, partition }, Mark { offset, tag }) = (part, mark);
            let place = MirrorPlace { link: parts.link.number, topic, partition, offset, tag };
            let ticket = submit(&parts, LinkOperation::PeerHas { place }).await;
            submitted.push((part, mark, ticket));
        }
        // An older copy of this site would not know how far the other one has come, nor what goes by now.
        is_owed |= !submitted.is_empty() && (is_due || !is_rare);
        is_owed |= changed != border();
        if is_owed && given.elapsed() >= give_every {
            (given, changed, is_owed) = (time::now(), border(), false);
            if !bond::give(&parts).await {
                return;
            }
        }
        for (part, mark, ticket) in submitted {
            if !is_settled(ticket).await {
                // Unless the other side has come further meanwhile.
                locked(&progress).entry(part).or_insert(mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::{Offset, PartitionIndex, Uuid};

    #[test]
    fn who_does_not_say_what_he_has_is_not_sent_more_than_is_kept() {
        let part = |partition| Part {
            topic: TopicId(Uuid([1; 16])),
            partition: PartitionIndex(partition),
        };
        let mark = |offset| Mark { offset: Offset(offset), tag: [0; 16] };
        let mut sent = SentMarks::default();
        let mut next = 0;
        for _ in 0..3 {
            while sent.count < SENT_MAX {
                next += 1;
                assert!(sent.sent(part((next % 2) as u32), mark(next)), "{next}");
            }
            // He has all but the last of both.
            assert_eq!(sent.has(part(0), mark(next - next % 2)), Some(true));
            assert_eq!(sent.has(part(1), mark(next - 1 + next % 2)), Some(true));
            assert_eq!(sent.count, 2);
        }
        sent.give_up(part(1));
        assert_eq!((sent.count, sent.has(part(1), mark(next))), (1, Some(false)));
        assert_eq!(sent.has(part(0), mark(next + 2)), None, "that was not sent");
        assert_eq!(sent.has(part(2), mark(1)), None);
        while sent.count < SENT_MAX {
            next += 1;
            sent.sent(part(0), mark(next));
        }
        assert!(!sent.sent(part(2), mark(next + 1)));
    }
}

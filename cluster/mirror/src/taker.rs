//! What becomes of the topics that the other site offers: which are taken, under which name, and why not.
//!
//! Invariants: a topic comes over one link at a time; what is not taken for a reason that may pass is looked at
//! again while the session lives; a copy whose link is gone, or brings it no more, goes on over another one to the
//! same site, and over no other.
//!
//! Never: say that a topic comes over another link if no link brings it: the other side would not wait for this
//! one any more.

use crate::locked;
use crate::message::{Mark, Message, Offered, Part};
use crate::ration::Rationed;
use crate::session::{Ended, Parts};
use crate::target::{Committer, GivenUp, PROPOSE_TIMEOUT, Rooms, TOO_FAR, Taken, Taking};
use fulmar_broker::broker::chain_key;
use fulmar_broker::machine::mirroring::NO_TAG;
use fulmar_broker::machine::outcome::{Refusal, UnitResult};
use fulmar_broker::machine::topics::is_valid_name;
use fulmar_broker::proposer::Answer;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_host::{random, task};
use fulmar_store::entry::{LinkOperation, NewMirror, Operation, Unit};
use fulmar_types::limits::PARTITIONS_PER_TOPIC_MAX;
use fulmar_types::link::{Decline, LINK_OFFSET_MAX, Priority, VIA_MAX};
use fulmar_types::{Offset, PartitionIndex, Plant, TopicId, Uuid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, watch};

/// How often a topic is tried again that the site has refused: each time may be an entry of the log.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How often the taking side looks whether its mirrors are still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long nothing is made of what is offered after something was.
const OFFERS_PAUSE: Duration = Duration::from_secs(1);

/// How often a mirror that cannot be made is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why nothing more of a copy comes that its link does not bring, and what to do.
const LEFT: &str = "its copy came over a link that is gone or does not take it any more; have that link take it \
                    again, or delete this copy, and it is made anew";

/// Takes up what is offered.
pub(crate) struct Taker {
    pub(crate) parts: Parts,
    pub(crate) taking: Taking,
    pub(crate) given_up: GivenUp,
    pub(crate) rooms: Rooms,
    /// Bytes that may be proposed.
    pub(crate) proposing: Arc<Semaphore>,
    /// The mirrors of this session, those included of which nothing more comes.
    pub(crate) copies: BTreeSet<TopicId>,
    /// By name: what is not taken for now.
    pub(crate) held: BTreeMap<String, Held>,
}

/// Why a topic is not taken for now.
#[derive(Clone, Copy)]
pub(crate) enum Held {
    /// The site has refused it, then.
    Refused(Instant),
    /// The other side was told that it comes over another link, and does not wait for this one.
    Declined,
    /// Something is in the way, and the other side waits.
    Stopped,
}

/// What there is for an offered topic on this site.
enum Here {
    /// Its mirror, with where each partition has come to, and whether it is what its origin is now.
    Mirror { topic: TopicId, marks: Vec<Mark>, is_aligned: bool },
    /// Its mirror, which another link brings.
    OtherLink(TopicId),
    /// Its mirror, which its link does not bring any more, and whether this one leads to the same site.
    Left { topic: TopicId, is_heir: bool },
    /// Nothing yet.
    Nothing,
    /// A topic of the name that is no mirror of this one.
    InTheWay,
}

impl Taker {
    pub(crate) async fn run(
        mut self,
        mut offered: watch::Receiver<Option<Vec<Offered>>>,
        mut is_known: watch::Receiver<bool>,
    ) {
        // The session goes on or ends without this one.
        if is_known.wait_for(|is_known| *is_known).await.is_err() {
            return;
        }
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
                    let topics = offered.borrow().clone().unwrap_or_default();
                    if !self.may_take_more(&topics) {
                        continue;
                    }
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
        for name in std::mem::take(&mut self.held).into_keys() {
            self.parts.not_stopped(name);
        }
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
        for (topic, why) in declined {
            if matches!(why, Decline::OtherLink | Decline::FromOrigin) {
                self.hold(topic, Held::Declined);
            }
        }
    }

    /// Notes that a topic is to be looked at again.
    fn hold(&mut self, topic: &Offered, why: Held) {
        if let Some(name) = self.name_of(topic)
            && !fulmar_host::planted(Plant::HeldForGood)
        {
            self.held.insert(name, why);
        }
    }

    /// The name that a topic has here.
    fn name_of(&self, topic: &Offered) -> Option<String> {
        self.parts.link.definition.name_of(&topic.via, &topic.name)
    }

    /// Whether anything that was not taken can be now.
    fn may_take_more(&mut self, topics: &[Offered]) -> bool {
        if self.held.is_empty() {
            return false;
        }
        topics.iter().any(|topic| {
            let held = self.name_of(topic).and_then(|name| self.held.get(&name).copied());
            match held {
                None => false,
                Some(Held::Refused(then)) => then.elapsed() >= REFUSED_AGAIN_AFTER,
                Some(Held::Declined) => self.decline(topic).is_none(),
                Some(Held::Stopped) => match self.here(topic) {
                    Here::Nothing | Here::Mirror { .. } | Here::OtherLink(_) => true,
                    Here::Left { is_heir, .. } => is_heir,
                    Here::InTheWay => false,
                },
            }
        })
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
            let other = here.filter(|mirror| {
                mirror.origin == topic.origin
                    && mirror.link != link.name
                    && state.is_brought(mirror)
            });
            let claims = state.is_taken_from_origin(&link.name, (&topic.via, &topic.name));
            (is_own, other.map(|mirror| mirror.topic), claims && here.is_none())
        });
        let is_loop = is_own || topic.via.contains(&self.parts.context.settings.site);
        if is_loop && !fulmar_host::planted(Plant::LoopNotCut) {
            return Some(Decline::Loop);
        }
        // If it is removed, this link may bring the topic.
        self.copies.extend(other);
        let other = other.map(|_| Decline::OtherLink);
        other.or(is_of_other.then_some(Decline::FromOrigin))
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
                Here::Left { topic: mirror, is_heir: true } if self.align(topic, mirror).await => {}
                Here::Left { topic: mirror, .. } => {
                    self.copies.insert(mirror);
                    self.stopped(topic, LEFT);
                    self.hold(topic, Held::Stopped);
                    return true;
                }
                Here::InTheWay => {
                    if let Some(unsaid) = self.parts.may_say() {
                        tracing::warn!(topic = %topic.name, unsaid, "another topic has the name of its mirror");
                    }
                    self.stopped(topic, "another topic has the name of its copy");
                    self.hold(topic, Held::Stopped);
                    return true;
                }
                Here::Nothing => {
                    if !self.create(topic).await {
                        self.hold(topic, Held::Refused(time::now()));
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
            if !state.is_brought(mirror) {
                let is_heir = mirror.is_given_by(&link.definition);
                return Here::Left { topic: here.id, is_heir };
            }
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
        self.parts.context.rations.wait(Rationed::Change, &self.parts.link.name).await;
        let operation = LinkOperation::AlignMirror { link, topic: mirror, via, configs };
        match self.propose(operation).await {
            Answer::Done { result: UnitResult::Done(_), .. } => true,
            Answer::Done { result: UnitResult::Refused(refusal), .. } => {
                if let Some(unsaid) = self.parts.may_say() {
                    tracing::warn!(topic = %topic.name, %refusal, unsaid, "a mirror keeps its settings");
                }
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
                if let Some(unsaid) = self.parts.may_say() {
                    tracing::warn!(topic = %topic.name, %refusal, unsaid, "a topic cannot be mirrored");
                }
                self.stopped(topic, "the site does not take it: a name or a limit");
                // There may be thousands of them in each offer.
                self.parts.context.rations.wait(Rationed::Change, &link.name).await;
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
        if mark.offset.0 > LINK_OFFSET_MAX {
            // A copy that an earlier build took. It cannot be said from where it would go on.
            if locked(&self.given_up).insert(part) {
                self.parts.stopped(topic, partition, TOO_FAR);
            }
            return;
        }
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

//! What two sites have to do with each other at one time, over one connection or several, from the
//! first greeting to the end.
//!
//! ```text
//! inbox  --> source: take, room, has, declines, stuck      target: bond, offer, batch, gap, fork
//! outbox <-- both
//! stripe.rs: each of the connections, between the two and the other side
//! ```
//!
//! Invariants: a session belongs to one term of this node's leadership and to one definition of the
//! link, and ends with either; everything that it started ends with it; the other side may send no
//! more bytes of batches than it was given room for; a connection that is lost takes nothing along,
//! and while another one is left the session goes on.
//!
//! Never: write a batch to a connection but in `stripe.rs`, where the rules are asked.

use crate::border::Border;
use crate::cap::Cap;
use crate::frame::Frame;
use crate::greeting::Greeted;
use crate::inbox::Inbox;
use crate::lapse;
use crate::links::{self, Context};
use crate::locked;
use crate::message::{Message, Part, Refusal, SessionId};
use crate::outbox::Outbox;
use crate::source::Source;
use crate::stripe::{self, LEAVE_WAIT, Stripe};
use crate::target::Target;
use fulmar_broker::machine::links::{Link, Rule};
use fulmar_broker::machine::state::State;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_types::link::Priority;
use fulmar_types::{Event, Offset, PartitionIndex, Plant, Probe, TopicId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// How often a session looks whether its link is still what it was.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it proves that this node still leads: one that was cut off from the other nodes of its
/// site, and not from the other site, would hold on to the link.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// How often the side that dials looks whether one of its connections is missing, and the longest pause after it
/// could not be had.
const DIAL_EVERY: Duration = Duration::from_millis(250);
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Connections that were greeted, and are not among those of the session yet.
pub(crate) const JOINING_MAX: usize = 8;

/// Copies that there cannot be of which is told, at most.
const STOPPED_MAX: usize = 1_024;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The connection broke, was closed, or the other side has said nothing for long.
    Lost,
    /// The other side broke the rules of the protocol, in this way.
    Protocol(&'static str),
    /// This node does not lead any more, or cannot be sure that it does.
    Deposed,
    /// The link has another definition, or none.
    Redefined,
    /// A rule does not let a topic go any more that was being sent.
    Withheld,
    /// This site did not take what came, or may not have.
    NotTaken,
    /// A mirror was removed on this site.
    MirrorRemoved,
    /// The certificate of the other side does not count any more.
    Distrusted,
    /// The other site has paused the link.
    PausedThere,
    /// The other site has dialled, and does not like this one after all.
    RefusedThere(Refusal),
}

impl Ended {
    /// Its name, for logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Protocol(how) => how,
            Self::Deposed => "deposed",
            Self::Redefined => "redefined",
            Self::Withheld => "withheld",
            Self::NotTaken => "not-taken",
            Self::MirrorRemoved => "mirror-removed",
            Self::Distrusted => "distrusted",
            Self::PausedThere => "paused by the other site",
            Self::RefusedThere(Refusal::PutBack) => links::OTHER_PUT_BACK,
            Self::RefusedThere(reason) => reason.name(),
        }
    }
}

/// What the parts of a session share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) context: Arc<Context>,
    pub(crate) link: Arc<Link>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) cap: Arc<Cap>,
    pub(crate) border: Arc<Border>,
    /// The bytes of the largest batch that the other side takes.
    pub(crate) batch_bytes_there: usize,
    /// The number of the last bond that the other side has heard.
    pub(crate) shown: u64,
    end: mpsc::Sender<Ended>,
}

impl Parts {
    /// Has a message written that is no record. Waits while many wait already.
    pub(crate) async fn send(&self, message: Message) {
        self.outbox.push(Priority::Urgent, message).await;
    }

    /// Has records written, or that there are none.
    pub(crate) async fn ship(&self, lane: Priority, message: Message) {
        self.outbox.push(lane, message).await;
    }

    /// All of a frame is in the hands of its connection, of so many bytes.
    pub(crate) fn wrote(&self, frame: &Frame, bytes: usize) {
        let Frame::Messages { messages, .. } = frame else { return };
        let records: usize =
            messages.iter().filter_map(Message::records).map(|(_, bytes)| bytes).sum();
        if records > 0 {
            let now = time::now();
            self.context.broker.links().note(&self.link.name, |link| {
                link.sent.add(records as u64, now);
                link.line_bytes += bytes as u64;
            });
        }
        for message in messages {
            let (Message::Batch(part, mark, _) | Message::Gap { part, mark, .. }) = message else {
                continue;
            };
            let (link, Part { topic, partition }) = (self.link.number, *part);
            let from = mark.offset;
            self.context.host.report(Event::LinkShipped { link, topic, partition, from });
        }
    }

    /// Messages came.
    pub(crate) fn came(&self, messages: &[Message]) {
        let records: usize =
            messages.iter().filter_map(Message::records).map(|(_, bytes)| bytes).sum();
        if records > 0 {
            let links = self.context.broker.links();
            let now = time::now();
            links.note(&self.link.name, |link| link.received.add(records as u64, now));
        }
    }

    /// Whether a line is written on account of what the other side says, and how many were not.
    pub(crate) fn may_say(&self) -> Option<u64> {
        self.context.may_say(&self.link.name)
    }

    /// Ends the session.
    pub(crate) fn end(&self, why: Ended) {
        // The first reason counts.
        let _ = self.end.try_send(why);
    }

    /// The other side has everything of a partition of this one before an offset, for whoever asks.
    pub(crate) fn said(&self, part: Part, offset: Offset) {
        let (link, Part { topic, partition }) = (self.link.number, part);
        self.context.host.report(Event::LinkConfirmed { link, topic, partition, offset });
        self.context.broker.links().note(&self.link.name, |link| {
            link.has.insert((part.topic, part.partition), (offset, time::now()));
        });
    }

    /// Nothing more of a partition of this site passes over this session, for whoever asks.
    pub(crate) fn stopped(&self, topic: TopicId, partition: PartitionIndex, why: &'static str) {
        let name = self.context.broker.site().read(|state| {
            let topic = state.topics().get(topic);
            topic.map(|topic| topic.name.clone()).unwrap_or_default()
        });
        // There are no more of them than the site has partitions: none is hidden by what another site makes up.
        self.context.broker.links().note(&self.link.name, |link| {
            link.stopped.insert((name, partition), why);
        });
    }

    /// The same for a copy that there may not be.
    pub(crate) fn stopped_by_name(
        &self,
        name: String,
        partition: PartitionIndex,
        why: &'static str,
    ) {
        self.context.broker.links().note(&self.link.name, |link| {
            // The other side may offer whatever it likes.
            if link.stopped.len() < STOPPED_MAX {
                link.stopped.entry((name, partition)).or_insert(why);
            }
        });
    }

    /// It may be made after all.
    pub(crate) fn not_stopped(&self, name: String) {
        let place = (name, PartitionIndex(0));
        self.context.broker.links().note(&self.link.name, |link| {
            link.stopped.remove(&place);
        });
    }

    /// Whether somebody has paused the link meanwhile.
    pub(crate) fn is_paused(&self) -> bool {
        let site = self.context.broker.site();
        site.read(|state| state.link(&self.link.name).is_some_and(|link| link.definition.paused))
    }

    /// What this side does not take of what is offered, for whoever asks.
    pub(crate) fn declines(&self, declined: BTreeMap<String, &'static str>) {
        self.context.broker.links().note(&self.link.name, |link| link.declines = declined);
    }

    /// The link, if it still has the definition under which the session began.
    fn definition<'s>(&self, state: &'s State) -> Option<&'s Link> {
        state.link(&self.link.name).filter(|link| link.number == self.link.number)
    }

    /// Whether the records of a topic of this site may go to the other one now: by the rule, and by
    /// the definition of the link, that stand at this moment.
    pub(crate) fn may_go(&self, topic: TopicId) -> bool {
        self.context.broker.site().read(|state| self.lets_go(state, topic))
    }

    /// The same in a state.
    pub(crate) fn lets_go(&self, state: &State, topic: TopicId) -> bool {
        if fulmar_host::planted(Plant::ShipWithoutRule) {
            return true;
        }
        let link = self.definition(state).filter(|link| !link.definition.paused);
        link.is_some()
            && self.rule(state, topic).is_some_and(|rule| self.border.is_under(topic, rule))
    }

    /// The rule by which a topic may go to the other site.
    pub(crate) fn rule<'s>(&self, state: &'s State, topic: TopicId) -> Option<&'s Rule> {
        state.rule_over(&self.link, state.topics().get(topic)?)
    }
}

/// Both sides of a session, as far as they take what the other side says.
pub(crate) struct Taking(Mutex<Taker>);

struct Taker {
    inbox: Inbox,
    source: Source,
    target: Target,
}

impl Taking {
    /// Takes messages that came over a connection.
    ///
    /// # Errors
    /// If the session ends with them.
    pub(crate) fn take(
        &self,
        parts: &Parts,
        lane: Priority,
        number: u64,
        messages: Vec<Message>,
    ) -> Result<(), Ended> {
        let mut taker = locked(&self.0);
        let (ready, waits) =
            taker.inbox.take(lane, number, messages).map_err(|_| Ended::Protocol(TOO_FAR_AHEAD))?;
        if waits {
            parts.context.host.probe(Probe::StripeOvertook);
        }
        ready.into_iter().try_for_each(|message| taker.pass(parts, lane, message))
    }
}

impl Taker {
    fn pass(&mut self, parts: &Parts, lane: Priority, message: Message) -> Result<(), Ended> {
        let Self { source, target, .. } = self;
        let what = broken_by(&message);
        let in_order = match message {
            // The rules have changed since it was offered.
            Message::Take(part, _) if !parts.may_go(part.topic) => return Err(Ended::Withheld),
            Message::Take(part, mark) => source.take(part, mark),
            Message::Room(lane, bytes) => source.room(lane, bytes),
            Message::Has(part, mark) => source.has(part, mark),
            Message::Declines(topics) => source.declined(topics),
            Message::Stuck(part) => source.stuck(part),
            Message::Bond(number) => target.bond(number),
            Message::Offer(topics) => target.offered(topics),
            Message::Batch(part, mark, bytes) => target.batch(lane, part, mark, bytes),
            Message::Gap { part, mark, to, missing } => target.gap(lane, part, mark, (to, missing)),
            Message::Fork(part, offset) => target.fork(part, offset),
            Message::Hello(_) | Message::Welcome { .. } | Message::Refused(_) => false,
        };
        if in_order { Ok(()) } else { Err(Ended::Protocol(what)) }
    }
}

/// How the protocol is broken by a message that may not come now.
const fn broken_by(message: &Message) -> &'static str {
    match message {
        Message::Take(..) => "protocol: asked for what may not be asked for",
        Message::Room(..) => "protocol: more room than may be",
        Message::Has(..) => "protocol: has what was not sent",
        Message::Declines(_) => "protocol: declined",
        Message::Stuck(_) => "protocol: stuck with what it has not asked for",
        Message::Bond(_) => "protocol: no bond",
        Message::Offer(_) => "protocol: an offer before a bond",
        Message::Batch(..) => "protocol: a batch that was not to come",
        Message::Gap { .. } => "protocol: a gap that was not to come",
        Message::Fork(..) => "protocol: a fork of what was not asked for",
        Message::Hello(_) | Message::Welcome { .. } | Message::Refused(_) => {
            "protocol: a greeting in the middle"
        }
    }
}

/// The same by messages that nobody has room for.
const TOO_FAR_AHEAD: &str = "protocol: too far ahead";

/// Where the other connections of a session are dialled, by the side that dials.
pub(crate) struct Dialling {
    /// The place that answered.
    pub(crate) place: String,
    /// The session there.
    pub(crate) session: SessionId,
    /// How many connections there are to be.
    pub(crate) connections: u8,
}

/// The other end of what more connections come through.
pub(crate) type Joining = mpsc::Receiver<Stripe>;

/// Runs a session to its end.
pub(crate) async fn run(
    context: Arc<Context>,
    greeted: Greeted,
    (joins, joining): (mpsc::Sender<Stripe>, Joining),
) -> Ended {
    let Greeted { link, stripe, dialling, batch_bytes, shown, .. } = greeted;
    let (end, mut ended) = mpsc::channel(1);
    let cap = context.cap(&link.name);
    cap.set(link.definition.cap);
    let (outbox, border) = (Arc::default(), Arc::default());
    let (link, batch_bytes_there) = (Arc::new(link), batch_bytes as usize);
    let parts = Parts { context, link, outbox, cap, border, batch_bytes_there, shown, end };
    let up = Arc::new(Mutex::new(BTreeMap::new()));
    let dial_each = |to: Dialling| {
        let to = Arc::new(to);
        let each = (0..to.connections).map(|number| {
            let (parts, to, up) = (parts.clone(), Arc::clone(&to), Arc::clone(&up));
            let joins = joins.clone();
            task::spawn_owned(async move { dial(&parts, (&to, number), &up, &joins).await })
        });
        each.collect::<Vec<_>>()
    };
    let _dialling = dialling.map(dial_each);
    tokio::select! {
        biased;
        why = ended.recv() => why.unwrap_or(Ended::Lost),
        why = stands(&parts) => why,
        why = lapse::wait(&parts) => why,
        why = carry(&parts, stripe, joining, &up) => why,
    }
}

/// The connections that are up, by their number, each with a number of its own.
type Up = Mutex<BTreeMap<u8, (u64, Owned<()>)>>;

/// Carries the session over its connections until the last one is lost, or one ends it.
async fn carry(parts: &Parts, first: Stripe, mut joining: Joining, up: &Up) -> Ended {
    let source = Source::start(parts.clone());
    let target = Target::start(parts.clone());
    target.give_room().await;
    let taking = Arc::new(Taking(Mutex::new(Taker { inbox: Inbox::default(), source, target })));
    let (gone, mut goes) = mpsc::unbounded_channel();
    let mut serial = 0;
    let mut add = |stripe: Stripe| {
        serial += 1;
        let (number, serial) = (stripe.number, serial);
        // In place of one that this side has not missed yet.
        if locked(up).remove(&number).is_some() {
            parts.outbox.lost(number);
        }
        parts.outbox.up(number);
        let (parts, taking, gone) = (parts.clone(), Arc::clone(&taking), gone.clone());
        let task = task::spawn_owned(async move {
            let why = stripe::run(&parts, &taking, stripe).await;
            // Nobody listens if the session has ended.
            let _ = gone.send((number, serial, why));
        });
        locked(up).insert(number, (serial, task));
    };
    add(first);
    loop {
        tokio::select! {
            biased;
            Some((number, serial, why)) = goes.recv() => {
                let is_up = locked(up).get(&number).is_some_and(|(known, _)| *known == serial);
                if !is_up {
                    continue;
                }
                locked(up).remove(&number);
                if why != Ended::Lost || !parts.outbox.lost(number) {
                    return why;
                }
                parts.context.host.probe(Probe::StripeLost);
            }
            Some(stripe) = joining.recv() => add(stripe),
        }
    }
}

/// Dials one of the connections of a session whenever it is missing. Each by itself: on a bad line one
/// may wait for seconds, in which others are lost.
async fn dial(parts: &Parts, (to, number): (&Dialling, u8), up: &Up, joins: &mpsc::Sender<Stripe>) {
    let mut pause = DIAL_EVERY;
    loop {
        time::sleep(pause).await;
        if locked(up).contains_key(&number) {
            continue;
        }
        parts.cap.pay_for_greeting().await;
        match links::call(&parts.context, &parts.link, &to.place, Some((to.session, number))).await
        {
            Ok(greeted) => {
                pause = DIAL_EVERY;
                // The session takes it at once.
                let _ = joins.send(greeted.stripe).await;
            }
            Err(error) => {
                tracing::debug!(link = %parts.link.name, %error, "a connection is not to be had");
                pause = (pause * 2).min(DIAL_PAUSE_MAX);
            }
        }
    }
}

/// Waits until this node does not lead in the same term any more, or the link is another one.
async fn stands(parts: &Parts) -> Ended {
    let seen = parts.context.broker.group().leadership();
    let mut proved = time::now();
    let changes = parts.context.broker.site().border_changes();
    let mut changed = Box::pin(changes.clone().notified_owned());
    let mut looked_at = None;
    loop {
        if !seen.is_me {
            return Ended::Deposed;
        }
        let looked = parts.context.broker.site().read(|state| {
            let now = state.border_hashes();
            let is_new = looked_at.replace(now) != Some(now);
            is_new.then(|| (parts.definition(state).is_some(), parts.border.stands(parts, state)))
        });
        let (is_same, stands) = looked.unwrap_or((true, true));
        if !is_same {
            if parts.is_paused() {
                // The other side is to know why; if it cannot be told, it hears it when it dials.
                parts.outbox.leave();
                time::sleep(LEAVE_WAIT).await;
            }
            return Ended::Redefined;
        }
        // Who dialled under an earlier definition may have set another one.
        parts.cap.set(parts.link.definition.cap);
        if !stands && !fulmar_host::planted(Plant::RuleAtOfferOnly) {
            if parts.outbox.topics().into_iter().any(|topic| !parts.may_go(topic)) {
                parts.context.host.probe(Probe::RuleChangedInFlight);
            }
            return Ended::Withheld;
        }
        let mut is_changed = false;
        let is_due = proved.elapsed() >= PROVE_EVERY;
        if is_due && !fulmar_host::planted(Plant::LinkWithoutLease) {
            // It may take a while, and what has changed meanwhile is looked at before.
            tokio::select! {
                biased;
                () = &mut changed => is_changed = true,
                leads = parts.context.leads() => match leads {
                    true => proved = time::now(),
                    false => return Ended::Deposed,
                },
            }
        }
        if !is_changed {
            let deposed = parts.context.broker.group().wait_leadership_change(seen);
            tokio::select! {
                biased;
                _ = deposed => return Ended::Deposed,
                // Before whoever changed it hears that it is so.
                () = &mut changed => is_changed = true,
                () = time::sleep(LOOK_EVERY) => {}
            }
        }
        if is_changed {
            changed = Box::pin(changes.clone().notified_owned());
            looked_at = None;
        }
    }
}

//! One connection between two sites, from the greeting to its end.
//!
//! ```text
//! reader --> source: take, room, has      target: offer, batch, gap, fork
//! writer <-- outbox <-- both
//! ```
//!
//! Invariants: a session belongs to one term of this node's leadership and to one definition of the
//! link, and ends with either; everything that it started ends with it; the other side may send no
//! more bytes of batches than it was given room for; who says nothing for long is gone.
//!
//! Never: write a batch to the connection that the rules do not let go at that moment.

use crate::frame::{self, Messages};
use crate::greeting::{self, Greeted};
use crate::links::Context;
use crate::message::{Message, Part};
use crate::source::Source;
use crate::target::Target;
use fulmar_broker::machine::links::Link;
use fulmar_broker::machine::state::State;
use fulmar_host::net::{PeerIdentity, WriteHalf};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_types::{NodeId, Offset, PartitionIndex, Plant, Probe, TopicId};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Somebody who has nothing to say says so this often.
const ALIVE_EVERY: Duration = Duration::from_secs(2);

/// Who has not been heard for this long is gone: a line may stall without breaking.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// How often a session looks whether its link is still what it was.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it proves that this node still leads: one that was cut off from the other nodes of its
/// site, and not from the other site, would hold on to the link.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// How often what the other side has shown is judged again: the time of a certificate runs out.
const JUDGE_EVERY: Duration = Duration::from_secs(60);

/// Messages that wait to be written.
const OUTBOX: usize = 8;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The connection broke, was closed, or the other side has said nothing for long.
    Lost,
    /// The other side broke the rules of the protocol.
    Protocol,
    /// This node does not lead any more.
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
}

impl Ended {
    /// Its name, for logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::Deposed => "deposed",
            Self::Redefined => "redefined",
            Self::Withheld => "withheld",
            Self::NotTaken => "not-taken",
            Self::MirrorRemoved => "mirror-removed",
            Self::Distrusted => "distrusted",
        }
    }
}

/// What the parts of a session share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) context: Arc<Context>,
    pub(crate) link: Arc<Link>,
    outbox: mpsc::Sender<Message>,
    end: mpsc::Sender<Ended>,
}

impl Parts {
    /// Has a message written. Waits while many wait already.
    pub(crate) async fn send(&self, message: Message) {
        // A session that has ended takes its parts along.
        let _ = self.outbox.send(message).await;
    }

    /// Ends the session.
    pub(crate) fn end(&self, why: Ended) {
        // The first reason counts.
        let _ = self.end.try_send(why);
    }

    /// The other side has everything of a partition of this one before an offset, for whoever asks.
    pub(crate) fn said(&self, part: Part, offset: Offset) {
        self.context.broker.links().note(&self.link.name, |link| {
            link.has.insert((part.topic, part.partition), (offset, time::now()));
        });
    }

    /// Nothing more of a copy comes over this session, for whoever asks.
    pub(crate) fn stopped(&self, topic: TopicId, partition: PartitionIndex, why: &'static str) {
        let name = self.context.broker.site().read(|state| {
            let topic = state.topics().get(topic);
            topic.map(|topic| topic.name.clone()).unwrap_or_default()
        });
        self.stopped_by_name(name, partition, why);
    }

    /// The same for a copy that there may not be.
    pub(crate) fn stopped_by_name(
        &self,
        name: String,
        partition: PartitionIndex,
        why: &'static str,
    ) {
        self.context.broker.links().note(&self.link.name, |link| {
            link.stopped.insert((name, partition), why);
        });
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
        let Some(link) = link else { return false };
        // A copy goes back neither to where it came from, nor on to another site.
        let topic = state.topics().get(topic).filter(|topic| state.mirror(topic.id).is_none());
        let rule = topic.and_then(|topic| state.rule_to(&topic.name, &link.definition.region));
        // What has to be rewritten stays.
        rule.is_some_and(|rule| rule.definition.is_verbatim())
    }
}

/// Runs a session to its end.
pub(crate) async fn run(context: Arc<Context>, greeted: Greeted) -> Ended {
    let Greeted { link, peer, node, reader, writer } = greeted;
    let (outbox, to_write) = mpsc::channel(OUTBOX);
    let (end, mut ended) = mpsc::channel(1);
    let parts = Parts { context, link: Arc::new(link), outbox, end };
    let _writing: Owned<()> = {
        let parts = parts.clone();
        task::spawn_owned(async move {
            let why = write(&parts, writer, to_write).await;
            parts.end(why);
        })
    };
    tokio::select! {
        biased;
        why = ended.recv() => why.unwrap_or(Ended::Lost),
        why = stands(&parts, (&peer, node)) => why,
        why = read(&parts, reader) => why,
    }
}

/// Waits until this node does not lead in the same term any more, the link is another one, or what the
/// other side has shown does not count any more.
async fn stands(parts: &Parts, (peer, node): (&PeerIdentity, NodeId)) -> Ended {
    let seen = parts.context.broker.group().leadership();
    let (mut proved, mut judged) = (time::now(), time::now());
    loop {
        let change = parts.context.broker.group().wait_leadership_change(seen);
        if time::timeout(LOOK_EVERY, change).await.is_ok() || !seen.is_me {
            return Ended::Deposed;
        }
        if proved.elapsed() >= PROVE_EVERY {
            if !parts.context.leads().await {
                return Ended::Deposed;
            }
            proved = time::now();
        }
        if judged.elapsed() >= JUDGE_EVERY {
            if greeting::judged(&parts.context, &parts.link, peer, Some(node)).is_err() {
                return Ended::Distrusted;
            }
            judged = time::now();
        }
        let is_same = parts.context.broker.site().read(|state| parts.definition(state).is_some());
        if !is_same {
            return Ended::Redefined;
        }
    }
}

async fn write(
    parts: &Parts,
    mut writer: WriteHalf,
    mut to_write: mpsc::Receiver<Message>,
) -> Ended {
    loop {
        let message = match to_write.try_recv() {
            Ok(message) => message,
            Err(_) => {
                if frame::flush(&mut writer).await.is_err() {
                    return Ended::Lost;
                }
                match time::timeout(ALIVE_EVERY, to_write.recv()).await {
                    Ok(Some(message)) => message,
                    Ok(None) => return Ended::Lost,
                    Err(time::Elapsed) => Message::Alive,
                }
            }
        };
        // The one place through which records leave the site.
        if let Message::Batch(part, ..) | Message::Gap { part, .. } = &message
            && !parts.may_go(part.topic)
            && !fulmar_host::planted(Plant::RuleAtOfferOnly)
        {
            parts.context.host.probe(Probe::RuleChangedInFlight);
            return Ended::Withheld;
        }
        if let Message::Batch(_, _, bytes) = &message {
            let links = parts.context.broker.links();
            let (bytes, now) = (bytes.len() as u64, time::now());
            links.note(&parts.link.name, |link| link.sent.add(bytes, now));
        }
        if frame::write(&mut writer, &message).await.is_err() {
            return Ended::Lost;
        }
    }
}

async fn read(parts: &Parts, mut reader: Messages) -> Ended {
    let mut source = Source::start(parts.clone());
    let mut target = Target::start(parts.clone());
    target.give_room().await;
    loop {
        let message = match reader.next(SILENCE_MAX).await {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Ended::Protocol;
            }
            Ok(None) | Err(_) => return Ended::Lost,
        };
        if let Message::Batch(_, _, bytes) = &message {
            let links = parts.context.broker.links();
            let (bytes, now) = (bytes.len() as u64, time::now());
            links.note(&parts.link.name, |link| link.received.add(bytes, now));
        }
        let in_order = match message {
            // The rules have changed since it was offered.
            Message::Take(part, _) if !parts.may_go(part.topic) => return Ended::Withheld,
            Message::Take(part, mark) => source.take(part, mark),
            Message::Room(bytes) => source.room(bytes),
            Message::Has(part, mark) => source.has(part, mark),
            Message::Offer(topics) => target.offered(topics),
            Message::Batch(part, mark, bytes) => target.batch(part, mark, bytes),
            Message::Gap { part, mark, to, reason } => target.gap(part, mark, to, reason),
            Message::Fork(part, offset) => target.fork(part, offset),
            Message::Alive => true,
            Message::Hello(_) | Message::Welcome { .. } | Message::Refused(_) => false,
        };
        if !in_order {
            return Ended::Protocol;
        }
    }
}

//! Which sessions there are to be: one for each link, on whichever node leads.
//!
//! Invariants: only a node that leads has sessions; a link has one, and while it has one nobody dials;
//! of two connections the newer stays, but if both sides have dialled, on both sides the one of the
//! site whose name comes first; a peer that cannot be reached is tried again for ever, after pauses
//! that are bounded and differ.
//!
//! Never: keep anything here that has to outlive this process. What there is to know about a link
//! stands in the log.

use crate::cap::Cap;
use crate::greeting::{self, Greeted, GreetingError};
use crate::locked;
use crate::message::{Refusal, SessionId};
use crate::policy::Pace;
use crate::quiet::Quiet;
use crate::ration::{Rationed, Rations};
use crate::session;
use crate::stripe::Stripe;
use fulmar_broker::Broker;
use fulmar_broker::link_states::PUT_BACK;
use fulmar_broker::machine::links::Link;
use fulmar_broker::proposer::Answer;
use fulmar_host::net::Listener;
use fulmar_host::places::Places;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_host::{Host, random};
use fulmar_store::entry::{LinkOperation, Operation, Unit};
use fulmar_types::link::Priority;
use fulmar_types::{Event, NodeId, Probe};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// How often this node looks which links there are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The first pause after an attempt in vain, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A session that was shorter than this is not followed by another one at once.
const SHORT: Duration = Duration::from_secs(2);

/// Under which name it stands in the log that some places answered, and none leads.
const NO_LEADER: &str = "no-leader";

/// Under which names it stands among the metrics that nobody answered, and that a link leads to its own site.
const SILENCE: &str = "no-answer";
const OWN_SITE: &str = "own-site";

/// What is said then, and what to do.
const PUT_BACK_TEXT: &str = "the other site has heard more of this one than this one knows: this site was put back to an older \
                             copy of itself, or begun anew under its name; look whether its rules and links are those that are \
                             to be, then pause and resume the link";

/// The same at the other side, and its kind among the metrics.
const OTHER_PUT_BACK_TEXT: &str = "this site has heard more of the other one than that one knows: it was put back to an older copy \
                                   of itself, or begun anew under its name; nothing passes until somebody there has looked at it";
pub(crate) const OTHER_PUT_BACK: &str = "other-site-put-back";

/// How long the log may take to note it.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(3);

/// A site that nobody could reach for so long is said to be unreachable.
const SILENT: Duration = Duration::from_secs(5);

/// How long connecting to one place may take, by its address and by its name, which may stand for
/// several.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const DIAL_NAME_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that have not been greeted yet, at one time. Anybody who reaches the port can have one.
const GREETINGS_MAX: usize = 64;

/// Why a connection ends that had not been greeted, when too many wait for that.
const CROWDED_OUT: &str = "crowded-out";

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a node has to know for its links.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// The name of its site.
    pub site: String,
    /// The node.
    pub node: NodeId,
    /// Where it waits for other sites; nowhere if they need not dial it.
    pub listen: Option<SocketAddr>,
    /// The largest batch that the log of the site takes.
    pub batch_bytes_max: usize,
}

impl LinkSettings {
    /// The same as it is told to other sites.
    pub(crate) fn takes(&self) -> u32 {
        u32::try_from(self.batch_bytes_max).unwrap_or(u32::MAX)
    }
}

/// What everything about the links of a node shares.
pub(crate) struct Context {
    pub(crate) host: Host,
    pub(crate) broker: Arc<Broker>,
    pub(crate) settings: LinkSettings,
    /// The session of each link.
    sessions: Mutex<BTreeMap<String, Session>>,
    /// Links whose last session was short, and until when nobody dials.
    resting: Mutex<BTreeMap<String, Instant>>,
    /// Nothing begins any more.
    is_closed: AtomicBool,
    /// Who is dialled at the moment, by link and number of its definition.
    dialling: Mutex<BTreeMap<String, (u64, Owned<()>)>>,
    next_session: Mutex<u64>,
    /// What may be sent over each link. It outlives sessions, or each would begin with a burst.
    caps: Mutex<BTreeMap<String, Arc<Cap>>>,
    /// What is logged on account of what other sites say.
    quiet: Quiet,
    /// How often other sites may bring about entries of the log that carry nothing.
    pub(crate) rations: Rations,
    /// Batches of one priority go through their rules one at a time, whatever their link: what is done
    /// before others have their turn does not grow with their number.
    pub(crate) paces: [tokio::sync::Mutex<Pace>; Priority::ALL.len()],
}

/// A session of a link.
struct Session {
    number: u64,
    /// What it is known by to the other side, and the node there.
    id: (SessionId, NodeId),
    /// Whether this side has dialled.
    is_dialled: bool,
    /// Where it takes more connections.
    joins: mpsc::Sender<Stripe>,
    since: Instant,
    /// Whether the site dialled whose name comes first.
    is_of_first: bool,
    _running: Owned<()>,
}

/// The links of a node. Dropping it ends all of them.
pub struct Links {
    context: Arc<Context>,
    _tasks: Vec<Owned<()>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        // Their tasks hold the context, and the context holds them.
        self.context.is_closed.store(true, Ordering::Relaxed);
        self.context.sessions().clear();
        self.context.dialling().clear();
    }
}

impl Links {
    /// Begins to carry the links of a site.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(
        host: Host,
        broker: Arc<Broker>,
        settings: LinkSettings,
    ) -> io::Result<Self> {
        let listener = match settings.listen {
            Some(address) => Some(host.links.listen(address).await?),
            None => None,
        };
        let context = Arc::new(Context {
            host,
            broker,
            settings,
            sessions: Mutex::default(),
            resting: Mutex::default(),
            is_closed: AtomicBool::new(false),
            dialling: Mutex::default(),
            next_session: Mutex::default(),
            caps: Mutex::default(),
            quiet: Quiet::default(),
            rations: Rations::default(),
            paces: Default::default(),
        });
        let mut tasks = vec![task::spawn_owned(keep(Arc::clone(&context)))];
        tasks.extend(
            listener.map(|listener| task::spawn_owned(accept(Arc::clone(&context), listener))),
        );
        Ok(Self { context, _tasks: tasks })
    }
}

impl Context {
    /// Whether this node leads its site now: one that was cut off from the others may believe it for
    /// long. Everything that was committed before is applied here then.
    pub(crate) async fn leads(&self) -> bool {
        self.broker.group().read_barrier().await.is_ok()
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        locked(&self.sessions)
    }

    fn dialling(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Owned<()>)>> {
        locked(&self.dialling)
    }

    /// What may be sent over a link.
    pub(crate) fn cap(&self, link: &str) -> Arc<Cap> {
        let mut caps = locked(&self.caps);
        Arc::clone(caps.entry(link.to_owned()).or_insert_with(|| Arc::new(Cap::new())))
    }

    /// Whether a line is written on account of what the other site of a link says, and how many were not.
    pub(crate) fn may_say(&self, link: &str) -> Option<u64> {
        self.quiet.may_say(link, time::now())
    }

    /// The number of the last bond that the other site of a link has given.
    pub(crate) fn heard(&self, link: &Link) -> u64 {
        self.broker.site().read(|state| state.bond(&link.definition.site).heard)
    }

    /// This site was put back, as the other one of a link knows: it has heard a number that this one has not given. The log
    /// knows it before anybody is told, so that who resumes the link pardons just that.
    pub(crate) async fn put_back(&self, link: &Link, shown: u64) {
        let noticed = self.broker.site().read(|state| state.bond(&link.definition.site).noticed);
        if noticed < shown {
            // It may say another number with each greeting. It is refused all the same.
            if self.rations.take(Rationed::Notice, &link.name, time::now()).is_err() {
                return;
            }
            let operation = LinkOperation::PutBackNoticed { link: link.number, shown };
            let unit = Unit::of(Operation::Link(operation));
            let ticket = self.broker.proposer().submit(unit, time::now() + NOTICE_TIMEOUT).await;
            let answer = time::timeout(NOTICE_TIMEOUT, ticket).await;
            if !matches!(answer, Ok(Answer::Done { .. })) {
                // The other site, or this one, dials again.
                return;
            }
        }
        self.host.report(Event::SitePutBack { link: link.name.clone() });
        self.host.probe(Probe::PutBackNoticed);
        self.trouble(&link.name, PUT_BACK, PUT_BACK_TEXT.to_owned());
    }

    /// Whether a link has a session of this name that was dialled by that node of the other site.
    pub(crate) fn has_session(&self, link: &str, session: SessionId, node: NodeId) -> bool {
        let is_it = |known: &Session| known.id == (session, node) && !known.is_dialled;
        self.sessions().get(link).is_some_and(is_it)
    }

    /// Takes up a connection that was dialled by the other side: it begins a session or joins one.
    fn welcome(self: &Arc<Self>, greeted: Greeted) {
        let (link, id) = (&greeted.link.name, (greeted.session, greeted.stripe.node));
        let is_it = |known: &&Session| known.id == id && !known.is_dialled;
        let joins = self.sessions().get(link).filter(is_it).map(|known| known.joins.clone());
        match joins {
            // One that takes no more has ended, or is about to.
            Some(joins) => drop(joins.try_send(greeted.stripe)),
            None if greeted.stripe.number == 0 => self.begin(greeted, false),
            None => {}
        }
    }

    /// Begins a session, in place of the one that the link may have; unless that one is to stay.
    fn begin(self: &Arc<Self>, greeted: Greeted, is_dialled: bool) {
        // Two sites that dial each other at one time would each give up what the other one keeps.
        let is_of_first = is_dialled == (self.settings.site < greeted.link.definition.site);
        let stays = |session: &Session| session.is_of_first && !is_of_first;
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed || self.sessions().get(&greeted.link.name).is_some_and(stays) {
            return;
        }
        let number = {
            let mut next = locked(&self.next_session);
            *next += 1;
            *next
        };
        let name = greeted.link.name.clone();
        let id = (greeted.session, greeted.stripe.node);
        let (joins, joining) = mpsc::channel(session::JOINING_MAX);
        self.host.report(Event::LinkUp { link: name.clone() });
        self.broker.links().note(&name, |link| {
            (link.up_since, link.next_attempt) = (Some(time::now()), None);
            link.sessions += 1;
            link.has.clear();
            link.stopped.clear();
            link.declines.clear();
        });
        let _running = {
            let (context, name) = (Arc::clone(self), name.clone());
            let joins = joins.clone();
            task::spawn_owned(async move {
                let why = session::run(Arc::clone(&context), greeted, (joins, joining)).await;
                context.host.report(Event::LinkDown { link: name.clone(), reason: why.name() });
                // Dropping one's own task from within only marks it.
                context.ended(&name, number, why.name());
            })
        };
        let since = time::now();
        let session = Session { number, id, is_dialled, joins, since, is_of_first, _running };
        let replaced = self.sessions().insert(name.clone(), session);
        if replaced.is_some() {
            self.host.report(Event::LinkDown { link: name, reason: "replaced" });
        }
    }

    /// Notes what is wrong with a link, which carries nothing now.
    fn trouble(&self, link: &str, kind: &'static str, what: String) {
        // Somebody may have dialled this side while it dials.
        let has_session = self.sessions().contains_key(link);
        self.broker.links().note(link, |link| {
            if !has_session {
                link.up_since = None;
            }
            link.trouble = Some((what, time::now()));
            link.trouble_kind = kind;
        });
    }

    /// Notes at a link that carries nothing that somebody was refused who says that he is of its site: whoever looks
    /// for why it is down looks there. Of one that carries nothing is to be said: anybody may say so.
    pub(crate) fn refused(&self, site: &str, address: SocketAddr, reason: &'static str) {
        let link = self.broker.site().read(|state| state.link_to(site).cloned());
        let carries = |link: &Link| self.sessions().contains_key(&link.name);
        let leads = self.broker.group().leadership().is_me;
        // What is to be done about one that was put back has been said already.
        if let Some(link) = link.filter(|link| leads && reason != PUT_BACK && !carries(link)) {
            let who = format!("{address}, which says that it is of this site,");
            self.trouble(&link.name, reason, format!("{who} is refused: {reason}"));
        }
    }

    fn ended(&self, name: &str, number: u64, why: &'static str) {
        let mut sessions = self.sessions();
        let is_it = |session: &&Session| session.number == number;
        let Some(since) = sessions.get(name).filter(is_it).map(|session| session.since) else {
            return;
        };
        sessions.remove(name);
        drop(sessions);
        let text = match why {
            OTHER_PUT_BACK => OTHER_PUT_BACK_TEXT.to_owned(),
            why => format!("the session ended: {why}"),
        };
        self.trouble(name, why, text);
        if since.elapsed() < SHORT {
            // What ended it may end the next one as well.
            let rest = PAUSE_MIN + PAUSE_MIN * spread() / 500;
            locked(&self.resting).insert(name.to_owned(), time::now() + rest);
        }
    }
}

/// Sees to it that every link that has places to dial has a session, or is being dialled.
async fn keep(context: Arc<Context>) {
    loop {
        if context.broker.group().leadership().is_me {
            let links = context.broker.site().read(|state| {
                let dialled =
                    |link: &&Link| !link.definition.paused && !link.definition.dial.is_empty();
                context.broker.links().keep(|name| state.link(name).is_some());
                state.links().filter(dialled).cloned().collect::<Vec<_>>()
            });
            let sessions: Vec<String> = context.sessions().keys().cloned().collect();
            let mut dialling = context.dialling();
            dialling.retain(|name, (number, _)| {
                let is_wanted = |link: &Link| link.name == *name && link.number == *number;
                let stays = links.iter().any(is_wanted) && !sessions.contains(name);
                if !stays {
                    context.broker.links().note(name, |link| link.next_attempt = None);
                }
                stays
            });
            let mut resting = locked(&context.resting);
            resting.retain(|_, until| *until > time::now());
            for link in links {
                if link.definition.site == context.settings.site {
                    // A build before refused none.
                    let text = "it leads to this very site; delete it".to_owned();
                    context.trouble(&link.name, OWN_SITE, text);
                    continue;
                }
                let is_idle = !sessions.contains(&link.name) && !resting.contains_key(&link.name);
                if is_idle && !dialling.contains_key(&link.name) {
                    let (name, number) = (link.name.clone(), link.number);
                    let task = task::spawn_owned(dial(Arc::clone(&context), link));
                    dialling.insert(name, (number, task));
                }
            }
        } else {
            context.dialling().clear();
            // Another node carries them.
            context.broker.links().keep(|_| false);
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// Dials one place after the other until the node there leads its site.
async fn dial(context: Arc<Context>, link: Link) {
    let (mut pause, begun) = (PAUSE_MIN, time::now());
    loop {
        match dial_each(&context, &link).await {
            Ok(greeted) => {
                context.begin(greeted, true);
                // The session may be over before anybody has looked at it. This drops the task
                // that says so, which has nothing more to do.
                context.dialling().remove(&link.name);
                return;
            }
            Err(Vain::Silent(error)) if begun.elapsed() > SILENT => {
                context.host.report(Event::LinkUnreachable { link: link.name.clone(), error });
            }
            Err(Vain::NoLeader) if begun.elapsed() > SILENT => {
                let (link, reason) = (link.name.clone(), NO_LEADER);
                context.host.report(Event::LinkRefused { link, reason, by_peer: true });
            }
            Err(Vain::Silent(_) | Vain::NoLeader | Vain::Refused | Vain::Deposed) => {}
        }
        let rest = pause / 2 + pause * spread() / 2_000;
        context
            .broker
            .links()
            .note(&link.name, |link| link.next_attempt = Some(time::now() + rest));
        time::sleep(rest).await;
        context.broker.links().note(&link.name, |link| link.next_attempt = None);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What became of dialling every place of a link in vain: the most telling of it.
enum Vain {
    /// One side refused the other, which has been reported.
    Refused,
    /// Somebody answered, and nobody leads the other site.
    NoLeader,
    /// Nobody answered.
    Silent(io::ErrorKind),
    /// This node does not lead.
    Deposed,
}

/// Dials every place of a link once, and notes what went wrong.
///
/// # Errors
/// The same.
async fn dial_each(context: &Context, link: &Link) -> Result<Greeted, Vain> {
    let (mut silence, mut refusal, mut answered) = (None, None, false);
    for place in &link.definition.dial {
        // Who cannot prove that he leads leaves the link to somebody who can.
        if !context.leads().await {
            return Err(Vain::Deposed);
        }
        let cap = context.cap(&link.name);
        cap.set(link.definition.cap);
        cap.pay_for_greeting().await;
        let (reason, by_peer) = match call(context, link, place, None).await {
            Ok(greeted) => return Ok(greeted),
            Err(GreetingError::Io(error)) => {
                tracing::debug!(link = %link.name, %place, %error, "the other site does not answer");
                let kind = error.kind();
                silence = Some((kind, format!("{place} does not answer: {error}")));
                continue;
            }
            Err(GreetingError::Refused(reason)) => (reason, true),
            Err(GreetingError::Refuses(reason)) => (reason, false),
        };
        answered = true;
        // Two of three nodes do not lead: that is no trouble.
        if reason != Refusal::NotLeader {
            let (link, reason) = (link.name.clone(), reason.name());
            let who = if by_peer { "the other site refuses this one" } else { "refused" };
            let told = match reason {
                PUT_BACK if by_peer => (OTHER_PUT_BACK, OTHER_PUT_BACK_TEXT.to_owned()),
                PUT_BACK => (PUT_BACK, PUT_BACK_TEXT.to_owned()),
                reason => (reason, format!("{place}: {who}: {reason}")),
            };
            refusal = Some(told);
            context.host.report(Event::LinkRefused { link, reason, by_peer });
        }
    }
    let (vain, what, text) = match (refusal, silence) {
        (Some((reason, text)), _) => (Vain::Refused, reason, text),
        (None, Some((kind, text))) if !answered => (Vain::Silent(kind), SILENCE, text),
        (None, Some((_, text))) => {
            (Vain::NoLeader, NO_LEADER, format!("no place that answers leads; {text}"))
        }
        (None, None) => (Vain::NoLeader, NO_LEADER, "no place leads the other site".to_owned()),
    };
    context.trouble(&link.name, what, text);
    Err(vain)
}

/// From 0 to 999, so that pauses differ.
fn spread() -> u32 {
    u32::try_from(random::random_u64() % 1_000).unwrap_or(0)
}

/// Dials a place, for a new session or as a connection of one that there is.
///
/// # Errors
/// [`GreetingError`].
pub(crate) async fn call(
    context: &Context,
    link: &Link,
    place: &str,
    joins: Option<(SessionId, u8)>,
) -> Result<Greeted, GreetingError> {
    let network = context.host.links.as_ref();
    let connected = match place.parse::<SocketAddr>() {
        Ok(address) => time::timeout(DIAL_TIMEOUT, network.connect(address)).await,
        Err(_) => time::timeout(DIAL_NAME_TIMEOUT, network.connect_to_name(place)).await,
    };
    let connection = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    greeting::call(context, link.clone(), (place, connection), joins).await
}

async fn accept(context: Arc<Context>, mut listener: Box<dyn Listener>) {
    let greetings = Places::new(GREETINGS_MAX);
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let (greeter, address) = (Arc::clone(&context), connection.peer.address);
                let greeting = async move {
                    match greeting::answer(&greeter, connection).await {
                        Ok(greeted) => greeter.welcome(greeted),
                        // Who was refused, and why, has been reported.
                        Err(error) => tracing::debug!(%error, "a greeting came to nothing"),
                    }
                };
                if let Some(gone) = greetings.take(address, greeting) {
                    let (address, site) = (gone.address, String::new());
                    let reason = CROWDED_OUT;
                    context.host.report(Event::SiteRefused { address, site, reason });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept another site");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

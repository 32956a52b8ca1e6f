//! The site as a client sees it: whom to ask, who leads, when to try again.
//!
//! Invariants: one connection per node and [`Cluster`], opened by the first who needs it while the
//! others wait; metadata is asked of one node after the other, beginning with another one each
//! time, so that a node which is cut off cannot keep the client from the rest.
//!
//! Never: retry a write here. Whether that is safe is known only to who made it.

use crate::connection::{Answer, Connection};
use crate::error::{CallError, ConnectError, LeaderError};
use crate::metadata::{LeaderEpoch, Metadata, Place, TopicPartition};
use crate::settings::Settings;
use fulmar_host::net::Network;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::{NodeId, Uuid};
use fulmar_wire::{ErrorCode, MetadataRequest, MetadataRequestTopic, RequestMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest wait for one node's metadata, so that a silent node costs little.
const METADATA_TIMEOUT: Duration = Duration::from_millis(500);

/// The same for all topics: a node that has just started answers when it knows them again.
const ALL_TOPICS_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest wait for the controller, so that one which is paused does not use up the deadline.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(2);

/// Metadata younger than this is not asked for again by a request that merely waits.
const METADATA_AGE_MIN: Duration = Duration::from_millis(20);

/// The longest pause while a leader is looked for. What the client adds to an election is this and
/// a round trip.
const LEADER_PAUSE_MAX: Duration = Duration::from_millis(40);

/// Which node a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The leader, as far as the client knows.
    Leader,
    /// This node, whatever it is.
    Node(NodeId),
}

type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

#[derive(Default)]
struct State {
    metadata: Metadata,
    /// Every topic that was ever asked for: they are refreshed together.
    wanted: BTreeSet<String>,
    refreshed: Option<Instant>,
    slots: BTreeMap<Place, Slot>,
    /// Where the next refresh begins.
    turn: usize,
}

struct Shared {
    network: Arc<dyn Network>,
    bootstrap: Vec<Place>,
    settings: Settings,
    state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
}

/// A site. Cheap to clone; clones share connections and metadata.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

/// A partition's leader and a connection to it.
pub struct Leader {
    /// The node.
    pub node: NodeId,
    /// The epoch in which it leads.
    pub epoch: LeaderEpoch,
    /// A connection to it.
    pub connection: Connection,
}

/// Why the controller did not carry out a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControllerError {
    /// Whether one of the attempts may have been carried out all the same.
    pub(crate) may_have_happened: bool,
    /// What became of the last attempt.
    pub(crate) reason: ControllerReason,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerReason {
    /// The node refused.
    #[error("the node answered {0}")]
    Refused(ErrorCode),
    /// There is no answer.
    #[error(transparent)]
    Call(CallError),
}

impl ControllerReason {
    /// Whether all that is known is that nothing came in time.
    const fn is_silence(&self) -> bool {
        let Self::Call(error) = self else { return false };
        matches!(
            error,
            CallError::TimedOut | CallError::NotSent | CallError::Connect(ConnectError::TimedOut)
        )
    }
}

impl Cluster {
    /// A site with these places to begin with. Nothing is connected yet.
    pub fn new<P: Into<Place>>(
        network: Arc<dyn Network>,
        bootstrap: Vec<P>,
        settings: Settings,
    ) -> Self {
        Self(Arc::new(Shared {
            network,
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            settings,
            state: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(()),
        }))
    }

    /// The same site with connections of its own. A node answers the requests of a connection in
    /// their order, so one that waits for records holds up what is sent after it.
    pub fn separate(&self) -> Self {
        let shared = &self.0;
        let separate = Self::new(
            Arc::clone(&shared.network),
            shared.bootstrap.clone(),
            shared.settings.clone(),
        );
        separate.state().metadata = self.metadata();
        separate
    }

    /// The same site with connections of its own, and nothing known of it. For a site that was put back
    /// to an older copy of itself: its leaders have epochs again that clients have seen the end of.
    pub fn afresh(&self) -> Self {
        let shared = &self.0;
        let (bootstrap, settings) = (shared.bootstrap.clone(), shared.settings.clone());
        Self::new(Arc::clone(&shared.network), bootstrap, settings)
    }

    /// How this client behaves.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What the client believes about the site at the moment.
    pub fn metadata(&self) -> Metadata {
        self.state().metadata.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the metadata of all topics, of one node after the other.
    ///
    /// # Errors
    /// What the last node did, if none answered.
    pub async fn refresh_all(&self, timeout: Duration) -> Result<Metadata, CallError> {
        self.refresh_with(None, None, time::now() + timeout).await?;
        Ok(self.metadata())
    }

    /// Asks for the metadata of the topics that this client has to do with.
    ///
    /// # Errors
    /// As [`Self::refresh_all`].
    pub async fn refresh(&self, deadline: Instant) -> Result<(), CallError> {
        self.refresh_wanted(None, deadline).await
    }

    /// Asks for the metadata of a topic.
    ///
    /// # Errors
    /// As [`Self::refresh_all`].
    pub(crate) async fn refresh_topic(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<(), CallError> {
        self.refresh_with(Some(vec![name.to_owned()]), None, deadline).await
    }

    async fn refresh_wanted(
        &self,
        avoid: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let topics = self.state().wanted.iter().cloned().collect();
        self.refresh_with(Some(topics), avoid, deadline).await
    }

    /// As [`Self::refresh`], but not again right after somebody else has done it, and of a node to
    /// `avoid` only if no other answers.
    async fn refresh_if_old(
        &self,
        avoid: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let began = time::now();
        let lock = time::timeout_at(deadline, self.0.refreshing.lock()).await;
        let _lock = lock.map_err(|_| CallError::NotSent)?;
        let old = began.checked_sub(METADATA_AGE_MIN).unwrap_or(began);
        if self.state().refreshed.is_some_and(|at| at > old) {
            return Ok(());
        }
        self.refresh_wanted(avoid, deadline).await
    }

    async fn refresh_with(
        &self,
        topics: Option<Vec<String>>,
        avoid: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let by_name = |name| MetadataRequestTopic { topic_id: Uuid::NIL, name: Some(name) };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.into_iter().map(by_name).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let patience = if request.topics.is_some() { METADATA_TIMEOUT } else { ALL_TOPICS_TIMEOUT };
        let mut last = CallError::NotSent;
        for place in self.candidates(avoid) {
            let until = deadline.min(time::now() + patience);
            match self.call_place(place, &request, until).await {
                Ok(answer) => {
                    let mut state = self.state();
                    state.metadata.merge(answer);
                    state.refreshed = Some(time::now());
                    return Ok(());
                }
                Err(error) => last = error,
            }
            if time::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    /// Every place that is known, each time beginning with the next one, and the one to avoid at
    /// the end.
    fn candidates(&self, avoid: Option<NodeId>) -> Vec<Place> {
        let mut state = self.state();
        let nodes = state.metadata.nodes.values().map(|advertised| Place::from(&**advertised));
        let known = self.0.bootstrap.iter().cloned().chain(nodes).collect::<BTreeSet<_>>();
        let mut known = known.into_iter().collect::<Vec<_>>();
        if !known.is_empty() {
            let first = state.turn % known.len();
            known.rotate_left(first);
            state.turn = first + 1;
        }
        let avoid = avoid.and_then(|node| state.metadata.place(node));
        known.sort_by_key(|place| Some(place) == avoid.as_ref());
        known
    }

    /// A connection to a place: the one that there is, or a new one.
    ///
    /// # Errors
    /// If there is none by the deadline.
    pub async fn connection_to(
        &self,
        place: Place,
        deadline: Instant,
    ) -> Result<Connection, CallError> {
        let slot = Arc::clone(self.state().slots.entry(place.clone()).or_default());
        let connecting = async {
            let mut slot = slot.lock().await;
            if let Some(connection) = slot.as_ref().filter(|open| open.is_usable()) {
                return Ok(connection.clone());
            }
            *slot = None;
            let network = self.0.network.as_ref();
            let connection = Connection::open(network, place, &self.0.settings).await?;
            Ok(slot.insert(connection).clone())
        };
        let connected = time::timeout_at(deadline, connecting).await;
        connected.unwrap_or(Err(CallError::Connect(ConnectError::TimedOut)))
    }

    /// A connection to a node.
    ///
    /// # Errors
    /// If the node is not known even after asking, or there is no connection by the deadline.
    pub async fn connection(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<Connection, CallError> {
        let mut place = self.state().metadata.place(node);
        if place.is_none() {
            self.refresh(deadline).await?;
            place = self.state().metadata.place(node);
        }
        self.connection_to(place.ok_or(CallError::UnknownNode(node))?, deadline).await
    }

    async fn call_place<R: RequestMessage>(
        &self,
        place: Place,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, CallError> {
        self.connection_to(place, deadline).await?.start(request, deadline).await?.await
    }

    /// Sends a request to a node and waits for its answer. One attempt.
    ///
    /// # Errors
    /// Why there is no answer. [`CallError::may_have_happened`] says what that means for a write.
    pub async fn call<R: RequestMessage>(
        &self,
        node: NodeId,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, CallError> {
        let deadline = time::now() + timeout;
        self.connection(node, deadline).await?.start(request, deadline).await?.await
    }

    /// The leader of a partition: the one that is known, or whoever the nodes name. Tries until
    /// the deadline, also if the topic is not there: the nodes that answer may not know it yet.
    ///
    /// # Errors
    /// If there is no such topic or partition, or no leader is found and reached in time.
    pub async fn leader(
        &self,
        of: &TopicPartition,
        deadline: Instant,
    ) -> Result<Leader, LeaderError> {
        self.want(&of.topic);
        let mut failures = 0;
        // While nobody answers, what is known says nothing about the topic.
        let mut unreachable = None;
        loop {
            let error = match self.known_leader(of) {
                Ok((node, epoch)) => {
                    let connecting = std::pin::pin!(self.connection(node, deadline));
                    match self.watch(of, (node, epoch), connecting).await {
                        Some(Ok(connection)) => return Ok(Leader { node, epoch, connection }),
                        Some(Err(error)) => LeaderError::Leader(error),
                        None => continue,
                    }
                }
                Err(error) => error,
            };
            // The first look at the metadata costs no pause: it is the usual way to begin.
            if failures > 0 {
                let soon = time::now() + LEADER_PAUSE_MAX;
                self.pause(failures, deadline.min(soon)).await;
            }
            failures += 1;
            if time::now() >= deadline {
                return Err(unreachable.map_or(error, LeaderError::Unreachable));
            }
            unreachable = self.refresh_if_old(None, deadline).await.err();
        }
    }

    fn known_leader(&self, of: &TopicPartition) -> Result<(NodeId, LeaderEpoch), LeaderError> {
        let state = self.state();
        let Some(topic) = state.metadata.topics.get(&*of.topic) else {
            return Err(LeaderError::Topic(ErrorCode::UnknownTopicOrPartition));
        };
        if !topic.error.is_none() {
            return Err(LeaderError::Topic(topic.error));
        }
        let partition = topic.partitions.get(&of.partition).ok_or(LeaderError::NoPartition)?;
        let leader = partition.leader.ok_or(LeaderError::NoLeader(partition.error))?;
        Ok((leader, partition.leader_epoch))
    }

    /// Remembers a topic, so that the next refresh asks for it.
    fn want(&self, topic: &str) {
        let mut state = self.state();
        if !state.wanted.contains(topic) {
            state.wanted.insert(topic.to_owned());
        }
    }

    /// Forgets the leader of a partition, because it said that it is none or could not be reached.
    /// The next [`Self::leader`] asks. A later leader that is known by now stays.
    pub fn forget_leader(&self, of: &TopicPartition, epoch: LeaderEpoch) {
        let mut state = self.state();
        let topic = state.metadata.topics.get_mut(&*of.topic);
        if let Some(partition) = topic.and_then(|topic| topic.partitions.get_mut(&of.partition))
            && partition.leader_epoch <= epoch
        {
            partition.leader = None;
            partition.error = ErrorCode::LeaderNotAvailable;
        }
    }

    /// Waits for an answer of a leader, and asks around when it stays silent: a leader that is
    /// paused or cut off says nothing, and meanwhile the site may have another one. The connection
    /// to the old one is given up then.
    ///
    /// # Errors
    /// As the answer; [`CallError::LeaderMoved`] if somebody else leads in a later epoch.
    pub async fn await_leader<R: RequestMessage>(
        &self,
        of: &TopicPartition,
        leader: &Leader,
        answer: &mut Answer<R>,
    ) -> Result<R::Response, CallError> {
        let answered = self.watch(of, (leader.node, leader.epoch), answer).await;
        answered.unwrap_or_else(|| {
            leader.connection.give_up(&CallError::LeaderMoved);
            Err(CallError::LeaderMoved)
        })
    }

    /// Waits for something that a leader is to do. `None` if another one leads by then.
    async fn watch<F: Future + Unpin>(
        &self,
        of: &TopicPartition,
        (node, epoch): (NodeId, LeaderEpoch),
        mut future: F,
    ) -> Option<F::Output> {
        loop {
            let check = self.0.settings.leader_check;
            if let Ok(output) = time::timeout(check, &mut future).await {
                return Some(output);
            }
            let asking = self.refresh_if_old(Some(node), time::now() + check);
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                _ = asking => {}
            }
            if self.has_newer_leader(of, epoch) {
                return None;
            }
        }
    }

    fn has_newer_leader(&self, of: &TopicPartition, epoch: LeaderEpoch) -> bool {
        let state = self.state();
        let known = state.metadata.partition(of);
        known.is_some_and(|known| known.leader.is_some() && known.leader_epoch > epoch)
    }

    /// Waits a little longer after each failure, at most until the deadline.
    pub async fn pause(&self, failures: u32, deadline: Instant) {
        let until = time::now() + self.0.settings.backoff(failures);
        time::sleep_until(until.min(deadline)).await;
    }

    /// Sends a request that only the controller can carry out, again and again until it is carried
    /// out, refused, or the deadline has passed. For requests that do no harm if they are carried
    /// out twice.
    pub(crate) async fn ask_controller<R: RequestMessage>(
        &self,
        request: &R,
        error_of: fn(&R::Response) -> ErrorCode,
        deadline: Instant,
    ) -> Result<R::Response, ControllerError> {
        self.ask_controller_again(request, error_of, deadline).await.map(|(answer, _)| answer)
    }

    /// The same. Returns with the answer whether an attempt before the answered one may have been carried out,
    /// or may be yet.
    pub(crate) async fn ask_controller_again<R: RequestMessage>(
        &self,
        request: &R,
        error_of: fn(&R::Response) -> ErrorCode,
        deadline: Instant,
    ) -> Result<(R::Response, bool), ControllerError> {
        let mut failures = 0;
        let mut may_have_happened = false;
        // The last attempt is cut short by the deadline, which says less than what failed before it.
        let mut telling = None;
        loop {
            let until = deadline.min(time::now() + CONTROLLER_TIMEOUT);
            let reason = match self.ask_controller_once(request, until).await {
                Ok(answer) => match error_of(&answer) {
                    code if code.is_retriable() => {
                        may_have_happened |= code == ErrorCode::RequestTimedOut;
                        ControllerReason::Refused(code)
                    }
                    _ => return Ok((answer, may_have_happened)),
                },
                Err(error) => {
                    may_have_happened |= error.may_have_happened();
                    ControllerReason::Call(error)
                }
            };
            let hopeless =
                matches!(&reason, ControllerReason::Call(error) if !error.is_retriable());
            if !reason.is_silence() {
                telling = Some(reason.clone());
            }
            if hopeless || time::now() >= deadline {
                let reason = telling.unwrap_or(reason);
                return Err(ControllerError { may_have_happened, reason });
            }
            self.state().metadata.controller = None;
            failures += 1;
            self.pause(failures, deadline).await;
        }
    }

    async fn ask_controller_once<R: RequestMessage>(
        &self,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, CallError> {
        let mut controller = self.state().metadata.controller;
        if controller.is_none() {
            self.refresh(deadline).await?;
            controller = self.state().metadata.controller;
        }
        let controller = controller.ok_or(CallError::NotSent)?;
        self.connection(controller, deadline).await?.start(request, deadline).await?.await
    }
}

//! The site's Raft group as a value: everything above this crate speaks to it and not to openraft.
//!
//! Invariants: a proposal is answered exactly once, with "done", "certainly not done" or
//! "unknown"; a read barrier passes only on a leader whose lease holds and who has applied an
//! entry of its own term; a group whose core has stopped ends the process.
//!
//! Never: two groups on one directory.

mod keeping;

use crate::bootstrap::{self, Bootstrap};
use crate::catch_up::CatchUp;
use crate::lease::{EarlierGrant, Lease};
use crate::log_store::LogStore;
use crate::machine::SharedMachine;
use crate::peer::asking::{Answerer, AskError, Asking};
use crate::peer::client::PeerNetwork;
use crate::peer::connection::PeerContext;
use crate::peer::installing::Installing;
use crate::peer::server::PeerServer;
use crate::peer::ship::ShipYard;
use crate::space::{Admission, RoomReport, Space};
use crate::state_machine::{Progress, StateMachine};
use crate::types::{Member, Proposal, TypeConfig, position};
use bytes::Bytes;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Instant};
use fulmar_host::{Host, planted};
use fulmar_store::{Demand, Life, OpenError, SavedVote, Store, StoreSettings};
use fulmar_types::limits::{BLANKS_BYTES, control_reserve_bytes};
use fulmar_types::{Event, ExitCode, LogPosition, NodeId, Plant, SiteId, Term};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{ReadPolicy, SnapshotPolicy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Notify;

/// openraft with our types.
pub(crate) type SiteRaft = openraft::Raft<TypeConfig, StateMachine>;

/// How long a connection attempt to a peer may take, in election timeouts.
const DIAL_PATIENCE: u32 = 1;
/// How long a peer may owe an answer, in election timeouts. A slow flush must fit in.
const STALL_PATIENCE: u32 = 4;

/// How long a leader may be silent before a node says that it hears of none, in election timeouts. With
/// Pre-Vote a node that is cut off goes on believing in the leader that it had.
const SILENCE_PATIENCE: u32 = 2;

/// How long a proposal waits for a spare that is being written: a slow disk takes more than a
/// second for the 64 MiB of one.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// What a group needs to know.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// This node.
    pub node: NodeId,
    /// Where all nodes of the site listen for their peers, this one included.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// The name of the site, which is a part of the names in the certificates of its nodes.
    pub site_name: String,
    /// The data directory.
    pub directory: PathBuf,
    /// The size of a segment file.
    pub segment_bytes: u64,
    /// Empty segments kept ready.
    pub spare_segments: u32,
    /// Room that only entries without records may use, before the segment size bounds it.
    pub reserve_bytes: u64,
    /// Full segments that the Raft floor stays behind the newest snapshot.
    pub purge_lag_segments: u32,
    /// How often a leader speaks when it has nothing to say.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower asks for votes.
    pub election_timeout_min: Duration,
    /// The longest one, and the length of the lease.
    pub election_timeout_max: Duration,
}

/// Why a group could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The peer address.
    #[error("cannot listen for peers on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// This node is not in the configuration.
    #[error("node {0} is not among the configured nodes")]
    UnknownNode(NodeId),
    /// The configuration names other nodes than the site has.
    #[error(
        "this directory belongs to a site of nodes {has}, and the configuration names {configured}. \
         A site keeps the nodes that it began with: use its own configuration, or another directory"
    )]
    OtherNodes {
        /// The nodes of the site.
        has: String,
        /// Those of the configuration.
        configured: String,
    },
    /// Recovery found a state that cannot be restored, or openraft refused to start.
    #[error("{0}")]
    Core(String),
}

impl StartError {
    /// The exit code of a process that meets this at its start.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Bind { .. } => ExitCode::Bind,
            Self::UnknownNode(_) => ExitCode::Usage,
            Self::OtherNodes { .. } => ExitCode::Identity,
            Self::Core(_) => ExitCode::CoreDead,
        }
    }
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: Term,
    /// Its leader, where it is known.
    pub leader: Option<NodeId>,
    /// Whether that is this node.
    pub is_me: bool,
}

/// A committed and applied proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Where it lies in the log.
    pub position: LogPosition,
    /// What the machine said of it.
    pub outcome: Bytes,
}

/// Why a proposal was not answered with an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// It was certainly not done: this node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// It may or may not be done, now or later.
    #[error("the leader changed before the outcome was known")]
    Unknown,
}

/// Why a read cannot be served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// This node does not lead, or cannot prove that it still does.
    #[error("this node cannot prove that it leads")]
    NotLeader,
}

/// Proof that this node led at the moment of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    /// The term that it leads.
    pub term: Term,
    /// Everything up to here was committed, and has been applied.
    pub applied: LogPosition,
}

/// A node of the site as the one that leads sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// The node.
    pub node: NodeId,
    /// How long ago the last question was sent that it has answered; `None` if it has answered none in
    /// this term.
    pub silent_for: Option<Duration>,
    /// Entries that it has not flushed, as far as it has said; `None` if it has said nothing yet.
    pub behind: Option<u64>,
}

pub(crate) struct Shared {
    pub(crate) host: Host,
    pub(crate) store: Arc<Store>,
    pub(crate) raft: SiteRaft,
    pub(crate) progress: Arc<Progress>,
    pub(crate) space: Arc<Space>,
    context: Arc<PeerContext>,
    asking: Asking,
    pub(crate) earlier_grant: EarlierGrant,
    leadership: Mutex<Leadership>,
    leadership_changed: Notify,
    /// How long a leader that is there may be silent.
    silence_max: Duration,
    node: NodeId,
    site: SiteId,
}

impl Shared {
    /// Until when the peers have granted this node that nobody else leads, if they have.
    fn lease_until(&self, term: Term) -> Option<Instant> {
        let metrics = self.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        self.context.lease.until(term, membership.membership().get_joint_config(), time::now())
    }

    /// Whether this node leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leadership.lock().expect("no holder of this lock panics").is_me
    }

    /// What this node lets in, if it leads.
    pub(crate) fn admission(&self, bytes: u64, has_place: bool) -> Admission {
        let metrics = self.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        self.space.admission(self.node, membership.voter_ids(), (bytes, has_place))
    }
}

/// A handle to the group of this node. The group ends when the last clone is dropped.
#[derive(Clone)]
pub struct Group {
    shared: Arc<Shared>,
    _tasks: Arc<Vec<Owned<()>>>,
}

fn raft_config(settings: &GroupSettings, may_elect: bool) -> Result<openraft::Config, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: "site".to_owned(),
        heartbeat_interval: ms(settings.heartbeat),
        election_timeout_min: ms(settings.election_timeout_min),
        election_timeout_max: ms(settings.election_timeout_max),
        install_snapshot_timeout: ms(settings.election_timeout_max),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // `space::watch` lets it from then on.
        enable_elect: may_elect,
        // With an asynchronous flush, a leader that lost its unflushed tail would resume its term
        // and propose other entries under the same ids.
        enable_leader_restore: Some(planted(Plant::LeaderRestore)),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| StartError::Core(error.to_string()))
}

impl Group {
    /// Opens the store, waits until this node belongs to a site, and joins its group.
    ///
    /// # Errors
    /// If the directory cannot be recovered, the address cannot be bound, or the state cannot be
    /// restored.
    pub async fn start(
        host: Host,
        settings: GroupSettings,
        machine: SharedMachine,
    ) -> Result<Self, StartError> {
        let address =
            *settings.peers.get(&settings.node).ok_or(StartError::UnknownNode(settings.node))?;
        let (store, _) = Store::open(host.clone(), store_settings(&settings)).await?;
        let core = |error: std::io::Error| StartError::Core(error.to_string());
        let life = Bootstrap::incarnate(&store, &settings).await.map_err(core)?;
        bootstrap::check_nodes(&life, &settings)?;
        let reserve = store_settings(&settings).reserve_bytes;
        let space = Arc::new(Space::new(host.clone(), store.clone(), reserve));
        let context = Arc::new(peer_context(&settings, life, space.clone(), store.vote()));
        let bind = |error| StartError::Bind { address, error };
        let listener = host.peers.listen(address).await.map_err(bind)?;
        let bootstrap = Arc::new(Bootstrap::new(context.clone(), store.clone()));
        let answerer = Arc::new(OnceLock::new());
        let server = Arc::new(PeerServer {
            answerer: answerer.clone(),
            context: context.clone(),
            store: store.clone(),
            bootstrap: bootstrap.clone(),
            raft: OnceLock::new(),
            yard: Arc::new(ShipYard::default()),
            installing: Installing::default(),
            serving: Mutex::default(),
        });
        let mut tasks = vec![task::spawn_owned(server.clone().run(listener))];
        bootstrap.run().await.map_err(core)?;
        let site = context.acquaintance().site.unwrap_or_default();

        let (driver, progress) =
            StateMachine::recover(host.clone(), store.clone(), machine).await.map_err(core)?;
        let raft = SiteRaft::new(
            settings.node,
            Arc::new(raft_config(&settings, context.earlier_grant.is_over())?),
            PeerNetwork::new(context.clone(), store.clone()),
            LogStore::new(store.clone()),
            driver,
        )
        .await
        .map_err(|error| StartError::Core(error.to_string()))?;
        let life = context.acquaintance();
        bootstrap::check_nodes(&life, &settings)?;
        if !life.rejoins {
            begin_group(&raft, &store, &life).await?;
        }
        server.raft.set(raft.clone()).map_err(|_| StartError::Core("started twice".to_owned()))?;

        let shared = Arc::new(Shared {
            host,
            store,
            raft,
            progress,
            space,
            context: context.clone(),
            asking: Asking::new(&context, answerer),
            earlier_grant: context.earlier_grant,
            leadership: Mutex::new(Leadership { term: Term(0), leader: None, is_me: false }),
            leadership_changed: Notify::new(),
            silence_max: settings.election_timeout_max * SILENCE_PATIENCE,
            node: settings.node,
            site,
        });
        tasks.extend(keeping::keepers(&shared, &context, &settings));
        Ok(Self { shared, _tasks: Arc::new(tasks) })
    }

    /// Proposes an entry and waits until it is applied here.
    ///
    /// # Errors
    /// If this node does not lead, or leadership was lost before the outcome was known.
    pub async fn propose(&self, payload: Bytes) -> Result<Proposed, ProposeError> {
        let claim = self.shared.progress.applied().map_or(0, |at| at.index.get() + 1);
        let (seen, demand) = (self.leadership(), Demand::of_payload(payload.len()));
        let ticket = self.shared.space.admit(demand);
        let mut writing =
            std::pin::pin!(self.shared.raft.client_write(Proposal { claim, payload }));
        let written = tokio::select! {
            biased;
            written = &mut writing => {
                ticket.settle();
                written
            }
            () = self.wait_leadership_change(seen) => {
                // It is in the log or never will be, and its answer may have to wait for entries of the next leader:
                // they must find its place.
                let kept = planted(Plant::DeposedProposalsCount).then_some(ticket);
                let written = writing.await;
                drop(kept);
                written
            }
        };
        match written {
            Ok(response) => {
                Ok(Proposed { position: position(&response.log_id), outcome: response.data.0 })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(ProposeError::NotLeader)
            }
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Whether records are let in, as far as this node knows: enough nodes have room for so many
    /// bytes of entries, and the reserve beside them.
    pub fn takes_records(&self, bytes: u64) -> bool {
        self.shared.admission(bytes, true) == Admission::Records
    }

    /// Waits for the place of an entry with so many bytes of payload on the disk of this node;
    /// `false` if there is none to be had now, or too few of the others have room for it. To be
    /// asked before [`Group::propose`]. With records in it, an entry leaves the reserve alone.
    pub async fn room_for(&self, payload_len: usize, has_records: bool) -> bool {
        let frame = Demand::of_payload(payload_len).bytes;
        let space = &self.shared.space;
        let keep = if has_records { space.reserve_bytes() } else { BLANKS_BYTES };
        let has_room = space.wait_for(&[frame], keep, ROOM_PATIENCE).await
            && (!has_records || self.takes_records(frame));
        if has_records && !has_room {
            space.refused(frame);
        }
        has_room
    }

    /// Who leads, as far as this node knows.
    pub fn leadership(&self) -> Leadership {
        *self.shared.leadership.lock().expect("no holder of this lock panics")
    }

    /// Until when the peers have granted that nobody else leads, if this node does and they have. Each
    /// answer of theirs moves it.
    pub fn lease_until(&self) -> Option<Instant> {
        let leadership = self.leadership();
        if leadership.is_me { self.shared.lease_until(leadership.term) } else { None }
    }

    /// Waits until the leadership differs from `seen`.
    pub async fn wait_leadership_change(&self, seen: Leadership) {
        loop {
            let changed = self.shared.leadership_changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.leadership() != seen {
                return;
            }
            changed.await;
        }
    }

    /// Proves that this node leads now, and waits until all that was committed before is applied.
    ///
    /// # Errors
    /// If it does not lead, or its lease has run out.
    pub async fn read_barrier(&self) -> Result<ReadPoint, ReadError> {
        match self.shared.raft.get_read_log_id(ReadPolicy::LeaseRead).await {
            Ok((read, _)) => {
                let until = position(read.log_id());
                // openraft's own lease may be the answer to an older question.
                if self.shared.lease_until(until.term).is_none()
                    && !planted(Plant::LeaseOfOlderAnswer)
                {
                    return Err(ReadError::NotLeader);
                }
                self.shared.host.report(Event::LeadProved { term: until.term });
                let mut applied = self.shared.progress.applied();
                while applied.is_none_or(|applied| applied.index < until.index) {
                    self.shared.progress.wait_beyond(applied).await;
                    applied = self.shared.progress.applied();
                }
                Ok(ReadPoint { term: until.term, applied: until })
            }
            Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_)
                | LinearizableReadError::QuorumNotEnough(_),
            ))
            | Err(RaftError::Fatal(_)) => Err(ReadError::NotLeader),
        }
    }

    /// Whether this node leads, or has heard lately from the one that does.
    pub fn hears_leader(&self) -> bool {
        let leadership = self.leadership();
        let heard = *self.shared.context.heard.lock().expect("no holder of this lock panics");
        let is_fresh = |(term, at): (Term, time::Instant)| {
            term == leadership.term && at.elapsed() <= self.shared.silence_max
        };
        leadership.is_me || leadership.leader.is_some() && heard.is_some_and(is_fresh)
    }

    /// The last entry that was applied here.
    pub fn applied(&self) -> Option<LogPosition> {
        self.shared.progress.applied()
    }

    /// The last entry that is known to be committed, by the word of the leader; it may not be here yet.
    pub fn committed(&self) -> Option<LogPosition> {
        let metrics = self.shared.raft.metrics();
        metrics.borrow_watched().cluster_committed.as_ref().map(position)
    }

    /// What the log of this node can still take.
    pub fn room(&self) -> RoomReport {
        self.shared.space.own()
    }

    /// Whether this node knows all that it knew in an earlier life. Before that it cannot say that
    /// something is not there.
    pub fn has_caught_up(&self) -> bool {
        let leadership = self.leadership();
        let leads = leadership.is_me.then_some(leadership.term);
        self.shared.context.catch_up.is_done(self.applied(), leads)
            || planted(Plant::TellTopicsAtOnce)
    }

    /// The nodes of the site by id, with this one, if it leads; else none.
    pub fn alive(&self) -> Vec<NodeSeen> {
        let Leadership { term, is_me: true, .. } = self.leadership() else { return Vec::new() };
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = self.shared.store.last().map_or(0, |last| last.index.next().get());
        let matched = |node: NodeId| {
            let matched = metrics.replication.as_ref()?.get(&node)?.as_ref();
            Some(last.saturating_sub(matched.map_or(0, |id| id.index() + 1)))
        };
        let seen = |node: NodeId| {
            if node == self.shared.node {
                return NodeSeen { node, silent_for: Some(Duration::ZERO), behind: Some(0) };
            }
            let answered = self.shared.context.lease.answered(node, term);
            NodeSeen { node, silent_for: answered.map(|at| at.elapsed()), behind: matched(node) }
        };
        metrics.membership_config.voter_ids().map(seen).collect()
    }

    /// Puts a question to the node that leads, on which the same answers as here. One that leads itself
    /// asks nobody.
    ///
    /// # Errors
    /// If nothing was done, or that is not known in time.
    pub async fn ask_leader(
        &self,
        question: Bytes,
        patience: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let leadership = self.leadership();
        let leader = leadership.leader.filter(|_| !leadership.is_me).ok_or(AskError::NotDone)?;
        self.shared.asking.ask(leader, question, patience).await
    }

    /// From now on the questions of other nodes are answered.
    pub fn answer_with(&self, answerer: Arc<dyn Answerer>) {
        self.shared.asking.answer_with(answerer);
    }

    /// The site that this node belongs to.
    pub fn site(&self) -> SiteId {
        self.shared.site
    }

    /// Where records are read from.
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Asks another node to take over the leadership, for a planned stop of this one.
    pub async fn hand_over(&self, to: NodeId) {
        // A dead core is noticed by its watcher.
        let _ = self.shared.raft.trigger().transfer_leader(to).await;
    }

    /// Stops taking part in the group. What was flushed stays.
    pub async fn shutdown(&self) {
        let _ = self.shared.raft.shutdown().await;
    }
}

pub(crate) fn peer_context(
    settings: &GroupSettings,
    life: Life,
    space: Arc<Space>,
    vote: Option<SavedVote>,
) -> PeerContext {
    // What an earlier life granted, it granted with the configuration of then.
    let longest = Duration::from_millis(life.lease_ms);
    PeerContext {
        host: space.host().clone(),
        space,
        lease: Arc::new(Lease::new(settings.node, settings.election_timeout_max)),
        earlier_grant: EarlierGrant::at_start(settings.node, vote, longest),
        catch_up: CatchUp::default(),
        heard: Mutex::default(),
        node: settings.node,
        addresses: settings.peers.clone(),
        site_name: settings.site_name.clone(),
        segment_bytes: settings.segment_bytes,
        dial_timeout: settings.election_timeout_max * DIAL_PATIENCE,
        stall_timeout: settings.election_timeout_max * STALL_PATIENCE,
        refused_by: Mutex::default(),
        unreachable: Mutex::default(),
        acquaintance: Mutex::new(life),
    }
}

pub(crate) fn store_settings(settings: &GroupSettings) -> StoreSettings {
    StoreSettings {
        directory: settings.directory.clone(),
        node: settings.node,
        segment_bytes: settings.segment_bytes,
        spare_segments: settings.spare_segments,
        reserve_bytes: control_reserve_bytes(settings.segment_bytes, settings.reserve_bytes),
        entry_cache_bytes: fulmar_types::limits::ENTRY_CACHE_BYTES,
    }
}

/// Writes the first entry of the group, if nobody has: its members. Every node may do it, since
/// all of them write the same entry.
async fn begin_group(raft: &SiteRaft, store: &Store, life: &Life) -> Result<(), StartError> {
    if store.last().is_some() || store.floor().is_some() || store.vote().is_some() {
        return Ok(());
    }
    let members: BTreeMap<NodeId, Member> =
        life.known.iter().map(|(node, life)| (*node, Member { incarnation: *life })).collect();
    match raft.initialize(members).await {
        // Another node was faster, and its entries or its candidacy have already arrived.
        Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
        Err(RaftError::Fatal(error)) => Err(StartError::Core(error.to_string())),
    }
}

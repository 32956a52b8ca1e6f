//! A broker: what its handlers share, and the tasks that keep it going.
//!
//! Invariants: a broker serves from the state machine and the records of its own node; whether it
//! may do so is asked of the group at every read. Nothing here is durable.

use crate::age;
use crate::answers::AnswerRoom;
use crate::anywhere;
use crate::counters::{Counters, Pool};
use crate::group::{GroupHandle, Records};
use crate::handlers;
use crate::limits::{
    FETCH_BYTES_IN_FLIGHT_MAX, METADATA_BYTES_IN_FLIGHT_MAX, WAITING_FETCH_BYTES_MAX,
};
use crate::link_states::LinkStates;
use crate::machine::topics::CHAIN_KEY_CONFIG;
use crate::planner::Planner;
use crate::proposer::Proposer;
use crate::room::room;
use crate::server::RequestRoom;
use crate::settings::BrokerSettings;
use crate::site::Site;
use crate::upkeep;
use fulmar_host::task::{self, Owned};
use fulmar_host::{Host, random};
use fulmar_types::Uuid;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// What the handlers of a node share.
pub struct Broker {
    pub(crate) host: Host,
    pub(crate) group: Arc<dyn GroupHandle>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) site: Site,
    pub(crate) proposer: Proposer,
    pub(crate) settings: BrokerSettings,
    pub(crate) links: LinkStates,
    pub(crate) counters: Counters,
    /// Reads files of pipelines. Without one, none can be laid down here.
    pub(crate) planner: OnceLock<Arc<dyn Planner>>,
    /// Requests that were read.
    pub(crate) request_room: Arc<RequestRoom>,
    /// Record bytes of responses, in KiB.
    pub(crate) fetch_room: Arc<Semaphore>,
    /// Fetch requests that wait for an append, in KiB.
    pub(crate) waiting_room: Arc<Semaphore>,
    /// Metadata responses, in KiB.
    pub(crate) metadata_room: Arc<Semaphore>,
    /// The other responses.
    pub(crate) answer_room: AnswerRoom,
    _tasks: [Owned<()>; 1],
}

impl Broker {
    /// Starts the broker of a node whose group runs and drives `site`.
    pub fn start(
        host: Host,
        group: Arc<dyn GroupHandle>,
        records: Arc<dyn Records>,
        site: Site,
        settings: BrokerSettings,
    ) -> Arc<Self> {
        let segment_bytes = settings.segment_bytes;
        let proposer = Proposer::start(host.clone(), group.clone(), site.clone(), segment_bytes);
        let wake = task::spawn_owned(wake_at_leader_change(group.clone(), site.clone()));
        let broker = Arc::new(Self {
            host,
            group,
            records,
            site,
            proposer,
            settings,
            links: LinkStates::default(),
            counters: Counters::default(),
            planner: OnceLock::new(),
            request_room: Arc::new(RequestRoom::new()),
            fetch_room: room(FETCH_BYTES_IN_FLIGHT_MAX),
            waiting_room: room(WAITING_FETCH_BYTES_MAX),
            metadata_room: room(METADATA_BYTES_IN_FLIGHT_MAX),
            answer_room: AnswerRoom::new(),
            _tasks: [wake],
        });
        anywhere::serve(&broker);
        upkeep::start(&broker);
        broker
    }

    /// The state machine of this node.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The Raft group of the site.
    pub fn group(&self) -> &dyn GroupHandle {
        self.group.as_ref()
    }

    /// The stored records.
    pub fn records(&self) -> &dyn Records {
        self.records.as_ref()
    }

    /// From now on files of pipelines are taken. The first one that reads them counts.
    pub fn plan_with(&self, planner: Arc<dyn Planner>) {
        let _ = self.planner.set(planner);
    }

    /// What becomes of the links to other sites.
    pub fn links(&self) -> &LinkStates {
        &self.links
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The memory that it keeps for one use or another, and how much of it is in use.
    pub fn pools(&self) -> Vec<Pool> {
        let mut pools = self.request_room.pools().to_vec();
        pools.extend(self.answer_room.pools());
        pools.extend([
            Pool::of("fetch-records", &self.fetch_room, FETCH_BYTES_IN_FLIGHT_MAX),
            Pool::of("fetch-waiting", &self.waiting_room, WAITING_FETCH_BYTES_MAX),
            Pool::of("metadata-answers", &self.metadata_room, METADATA_BYTES_IN_FLIGHT_MAX),
            self.proposer.pool(),
        ]);
        pools
    }

    /// The age of the site now, in milliseconds.
    pub fn age_ms(&self) -> u64 {
        age::age_ms(&self.host, &self.site, self.group.leadership().term)
    }

    /// What puts units into the log.
    pub fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// Those settings of a topic that this site honours as they are.
    pub fn honoured(&self, settings: &[(String, String)]) -> Vec<(String, String)> {
        let is_honoured = |(name, value): &&(String, String)| {
            handlers::topic_config::check(&self.settings, name, value).is_ok()
        };
        settings.iter().filter(is_honoured).cloned().collect()
    }

    /// The id of this node, as Kafka has it.
    pub fn node_id(&self) -> i32 {
        kafka_id(self.settings.node)
    }
}

/// The setting that gives a new topic a key for its hash chains that nobody else has.
pub fn chain_key() -> (String, String) {
    let key = [random::random_16(), random::random_16()].map(|half| Uuid(half).to_string());
    (CHAIN_KEY_CONFIG.to_owned(), key.concat())
}

/// A node's id as a Kafka broker id. The configuration allows ids up to 1000.
pub(crate) fn kafka_id(node: fulmar_types::NodeId) -> i32 {
    i32::try_from(node.get()).unwrap_or(i32::MAX)
}

/// Fetches that wait here must learn soon that another node leads.
async fn wake_at_leader_change(group: Arc<dyn GroupHandle>, site: Site) {
    let mut seen = group.leadership();
    loop {
        group.wait_leadership_change(seen).await;
        seen = group.leadership();
        site.wake_all();
    }
}

//! A broker: what its handlers share, and the tasks that keep it going.
//!
//! Invariants: a broker serves from the state machine and the records of its own node; whether it
//! may do so is asked of the group at every read. Nothing here is durable.

use crate::group::{GroupHandle, Records};
use crate::limits::FETCH_BYTES_IN_FLIGHT_MAX;
use crate::machine::outcome::{OperationResult, UnitResult};
use crate::proposer::Proposer;
use crate::settings::BrokerSettings;
use crate::site::Site;
use fulmar_host::task::{self, Owned};
use fulmar_host::{Host, time};
use fulmar_store::entry::{Operation, Unit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The longest pause between two looks for idle producers.
const EXPIRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the handlers of a node share.
pub struct Broker {
    pub(crate) host: Host,
    pub(crate) group: Arc<dyn GroupHandle>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) site: Site,
    pub(crate) proposer: Proposer,
    pub(crate) settings: BrokerSettings,
    /// Record bytes of responses, in KiB.
    pub(crate) fetch_room: Arc<Semaphore>,
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
            fetch_room: Arc::new(Semaphore::new(FETCH_BYTES_IN_FLIGHT_MAX / 1024)),
            _tasks: [wake],
        });
        task::spawn(expire_producers(Arc::downgrade(&broker)));
        broker
    }

    /// The id of this node, as Kafka has it.
    pub fn node_id(&self) -> i32 {
        kafka_id(self.settings.node)
    }
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

/// Proposes to forget idle producers, while this node leads.
async fn expire_producers(broker: std::sync::Weak<Broker>) {
    loop {
        let Some(expiry) = broker.upgrade().map(|b| b.settings.producer_expiry) else {
            return;
        };
        time::sleep((expiry / 8).clamp(Duration::from_millis(100), EXPIRY_PAUSE_MAX)).await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let idle_ms = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
        while broker.group.leadership().is_me && broker.has_idle_producer(idle_ms) {
            let unit = Unit::of(Operation::ExpireProducers { idle_ms });
            let crate::proposer::Answer::Done { result, .. } = broker.proposer.propose(unit).await
            else {
                break;
            };
            let none = OperationResult::ProducersExpired { count: 0 };
            if result == UnitResult::Done(vec![none]) {
                break;
            }
        }
    }
}

impl Broker {
    fn has_idle_producer(&self, idle_ms: u64) -> bool {
        let now_ms = self.host.clock.wall_ms();
        self.site.read(|state| {
            let now_ms = now_ms.max(state.entry_ms());
            let oldest = state.producers().oldest_used_ms();
            oldest.is_some_and(|used| used < now_ms.saturating_sub(idle_ms))
        })
    }
}

//! A node as it is looked at from outside, from before it has recovered its log until it ends.
//!
//! Invariant: looking changes nothing, and keeps nothing alive.

use crate::metrics::events::{Tally, TallyingObserver};
use fulmar_broker::Broker;
use fulmar_consensus::Group;
use fulmar_host::Host;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_pipelines::figures::Figures;
use fulmar_pipelines::memory::Memory;
use fulmar_types::NodeId;
use std::sync::{Arc, OnceLock, Weak};

/// What serves once the node is up.
pub struct Serving {
    /// The group of the site.
    pub group: Group,
    /// What clients are served by.
    pub broker: Arc<Broker>,
    /// What its pipelines have done.
    pub pipelines: Arc<Figures>,
    /// What their state takes.
    pub pipeline_memory: Arc<Memory>,
}

/// What is known of a node.
pub struct NodeView {
    /// The name of its site.
    pub site: String,
    /// Its number.
    pub node: NodeId,
    begun: Instant,
    events: Arc<TallyingObserver>,
    serving: OnceLock<Weak<Serving>>,
}

impl NodeView {
    /// A node that is about to start. What happens on the returned host is counted.
    pub fn before_start(site: &str, node: NodeId, host: Host) -> (Arc<Self>, Host) {
        let events = Arc::new(TallyingObserver::before(host.observer.clone()));
        let host = Host { observer: events.clone(), ..host };
        let site = site.to_owned();
        let view = Self { site, node, begun: time::now(), events, serving: OnceLock::new() };
        (Arc::new(view), host)
    }

    /// From now on it serves.
    pub fn serves(&self, serving: &Arc<Serving>) {
        // A node starts once.
        let _ = self.serving.set(Arc::downgrade(serving));
    }

    /// What serves, if it does.
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.get()?.upgrade()
    }

    /// How long the process runs.
    pub fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What was counted of its events.
    pub fn tally(&self) -> Tally {
        self.events.tally()
    }
}

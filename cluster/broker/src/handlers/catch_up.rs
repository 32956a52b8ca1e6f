//! Waiting for a node that has just started to know its topics again.
//!
//! Invariant: what is answered after [`has_caught_up`] said yes holds every topic that the node knew
//! before its start, so "it does not exist" is then the truth.

use crate::broker::Broker;
use fulmar_host::time::{self, Duration};
use fulmar_types::Event;

/// How long a request waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether what this node has not applied does not exist either; it waits a little until that is so.
pub(super) async fn has_caught_up(broker: &Broker) -> bool {
    let deadline = time::now() + PATIENCE;
    while !broker.group.has_caught_up() {
        if time::now() >= deadline {
            return false;
        }
        time::sleep(LOOK_EVERY).await;
    }
    if let Some(applied) = broker.group.applied() {
        broker.host.report(Event::TopicsTold { applied });
    }
    true
}

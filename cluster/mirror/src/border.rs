//! Where records leave the site: which rule each topic of a session leaves under.
//!
//! A session clears all batches of a topic under one rule, the one that stood when the first of them was
//! read. When another one stands, nothing more is written and the session ends; the next one begins under
//! the new rule. So whatever waits, is on its way, or is sent again after a connection was lost, has the
//! form of the rule that stands.
//!
//! Invariants: a topic is cleared under the number of one rule, and written only while that is the number
//! of the rule that stands; what waits to be written has been cleared.
//!
//! Never: hand out bytes of a batch that have not been through its rule.

use crate::locked;
use crate::policy::{Cleared, Policy};
use crate::session::Parts;
use bytes::Bytes;
use fulmar_broker::machine::links::Rule;
use fulmar_broker::machine::state::State;
use fulmar_types::link::Priority;
use fulmar_types::{Plant, TopicId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A rule, and what it is made ready as.
struct Ready {
    number: u64,
    policy: Policy,
}

/// The rules of a session.
#[derive(Default)]
pub(crate) struct Border(Mutex<BTreeMap<TopicId, Arc<Ready>>>);

impl Border {
    /// Whether a rule is the one that a topic leaves under, if some of it has.
    pub(crate) fn is_under(&self, topic: TopicId, rule: &Rule) -> bool {
        locked(&self.0).get(&topic).is_none_or(|ready| ready.number == rule.number)
            || fulmar_host::planted(Plant::OldRuleUsed)
    }

    /// Whether every topic that has left still has the rule that it left under.
    pub(crate) fn stands(&self, parts: &Parts, state: &State) -> bool {
        let topics: Vec<TopicId> = locked(&self.0).keys().copied().collect();
        let is_there = |topic: &TopicId| state.topics().get(*topic).is_some();
        topics.into_iter().filter(is_there).all(|topic| parts.lets_go(state, topic))
    }

    /// What of a stored batch of a priority may leave. `None` if nothing of the topic may. What takes long
    /// lets other tasks run, and others of its kind wait.
    pub(crate) async fn clear(
        &self,
        parts: &Parts,
        (topic, lane): (TopicId, Priority),
        bytes: &Bytes,
    ) -> Option<Cleared> {
        if fulmar_host::planted(Plant::ShipWithoutRule) {
            return Some(Cleared::Goes(bytes.clone()));
        }
        let ready = self.ready(parts, topic)?;
        if ready.policy.is_verbatim() {
            return Some(Cleared::Goes(bytes.clone()));
        }
        let most = parts.context.settings.batch_bytes_max;
        let mut pace = parts.context.paces[lane.rank()].lock().await;
        match ready.policy.clear(bytes, &mut pace).await {
            // A rule may make a batch longer than a site takes.
            Cleared::Goes(cleared) if cleared.len() > most && cleared.len() > bytes.len() => {
                Some(Cleared::Withheld)
            }
            cleared => Some(cleared),
        }
    }

    /// The rule that a topic leaves under in this session. `None` if nothing of it may.
    fn ready(&self, parts: &Parts, topic: TopicId) -> Option<Arc<Ready>> {
        if let Some(ready) = locked(&self.0).get(&topic) {
            return Some(Arc::clone(ready));
        }
        let (number, policy) = parts.context.broker.site().read(|state| {
            let rule = parts.rule(state, topic)?;
            Some((rule.number, Policy::new(&rule.definition, &rule.secret)))
        })?;
        let ready = Arc::new(Ready { number, policy });
        locked(&self.0).insert(topic, Arc::clone(&ready));
        Some(ready)
    }
}

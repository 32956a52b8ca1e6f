//! What a leader proposes by itself: that records and producers which have had their time go.
//!
//! Everything here is decided by the age of the site (`age.rs`) and takes effect as an entry of the
//! log, so all nodes forget the same.
//!
//! Invariants: only a node that leads proposes. It looks at what it has applied, and that may be old:
//! a longer retention can stand in the log ahead of what it proposes, and a new leader may not have
//! applied yet what the one before acknowledged. So a proposal is no more than a wish, and applying
//! it decides again what has had its time (`machine/state.rs`).
//!
//! Never: remove anything here. Files go when nothing in them can be read (`store/gc.rs`).

use crate::broker::Broker;
use crate::machine::outcome::{OperationResult, UnitResult};
use crate::machine::state::State;
use crate::machine::topics::Topic;
use crate::proposer::Answer;
use fulmar_host::time::{self, Duration};
use fulmar_store::entry::{Operation, Unit};
use fulmar_types::{Offset, PartitionIndex, Probe, TopicId};
use std::sync::{Arc, Weak};

/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Partitions whose start is moved at one look, at most. The others come next time.
const STARTS_AT_ONCE: usize = 1_024;

/// How much of the age of an idle site may be lost with its leader, in ms.
const UNWRITTEN_AGE_MAX_MS: u64 = 60_000;

/// Looks after a broker until it is gone.
pub(crate) async fn run(broker: Weak<Broker>) {
    loop {
        let Some(expiry) = broker.upgrade().map(|broker| broker.settings.producer_expiry) else {
            return;
        };
        time::sleep((expiry / 8).clamp(Duration::from_millis(100), PAUSE_MAX)).await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        if broker.group.leadership().is_me {
            broker.expire_producers().await;
            broker.expire_records().await;
            broker.write_age().await;
        }
    }
}

/// A partition that may begin later than it does.
type Due = (TopicId, PartitionIndex, Offset);

/// The partitions with records that have had their time in a site of this age.
fn due(state: &State, age_ms: u64) -> Vec<Due> {
    let mut due = Vec::new();
    for topic in state.topics().iter().filter(|topic| state.keeping(topic).retention.is_limited()) {
        let of_topic = (0..topic.partitions).map(PartitionIndex).filter_map(|partition| {
            let stream = topic.stream(partition)?;
            let start = state.due_start(topic, stream, age_ms)?;
            Some((topic.id, partition, start))
        });
        due.extend(of_topic.take(STARTS_AT_ONCE - due.len()));
        if due.len() >= STARTS_AT_ONCE {
            break;
        }
    }
    due
}

impl Broker {
    /// Forgets the producers that have been idle for long.
    async fn expire_producers(&self) {
        let idle_ms = u64::try_from(self.settings.producer_expiry.as_millis()).unwrap_or(u64::MAX);
        let is_due = || {
            let before_ms = self.age_ms().saturating_sub(idle_ms);
            let oldest = self.site.read(|state| state.producers().oldest_used_ms());
            oldest.is_some_and(|used| used < before_ms)
        };
        while self.group.leadership().is_me && is_due() {
            let unit = Unit::of(Operation::ExpireProducers { idle_ms });
            let Answer::Done { result, .. } = self.proposer.propose(unit).await else { return };
            let none = OperationResult::ProducersExpired { count: 0 };
            if result == UnitResult::Done(vec![none]) {
                return;
            }
        }
    }

    /// Moves the start of the partitions whose oldest records have had their time.
    async fn expire_records(&self) {
        let age_ms = self.age_ms();
        let due = self.site.read(|state| due(state, age_ms));
        let deadline = time::now() + self.settings.request_timeout_max;
        let mut tickets = Vec::with_capacity(due.len());
        for (topic, partition, offset) in due {
            let unit = Unit::of(Operation::AdvanceStart { topic, partition, offset });
            tickets.push((offset, self.proposer.submit(unit, deadline).await));
        }
        for (offset, ticket) in tickets {
            let Answer::Done { result: UnitResult::Done(results), .. } = ticket.await else {
                continue;
            };
            let is_moved = |result: &OperationResult| matches!(result, OperationResult::StartMoved { log_start, .. } if *log_start >= offset);
            let lacks = |result: &OperationResult| matches!(result, OperationResult::StartMoved { missing, .. } if *missing > 0);
            let moved = results.iter().all(is_moved);
            if results.iter().any(lacks) {
                self.host.probe(Probe::WentUnsent);
            }
            self.host.probe(if moved { Probe::RecordsExpired } else { Probe::ExpiryHeldBack });
        }
    }

    /// Writes the age down from time to time, where something depends on it and nobody writes. A full
    /// site goes without: the room that is left is for those who make some.
    async fn write_age(&self) {
        if !self.group.takes_records() {
            return;
        }
        let written_ms = self.site.read(|state| has_ages(state).then(|| state.age_ms()));
        let now_ms = self.age_ms();
        let is_due = |written_ms| now_ms >= written_ms + UNWRITTEN_AGE_MAX_MS;
        if written_ms.is_some_and(is_due) {
            // Whatever becomes of it, the next look is soon.
            let _ = self.proposer.propose(Unit::of(Operation::Noop)).await;
        }
    }
}

/// Whether anything grows old.
fn has_ages(state: &State) -> bool {
    let aging = |topic: &Topic| {
        topic.keeping.retention.age_ms.is_some()
            && topic.streams().any(|stream| state.spans(stream).next().is_some())
    };
    !state.producers().is_empty() || state.topics().iter().any(aging)
}

/// Starts to look after a broker.
pub(crate) fn start(broker: &Arc<Broker>) {
    fulmar_host::task::spawn(run(Arc::downgrade(broker)));
}

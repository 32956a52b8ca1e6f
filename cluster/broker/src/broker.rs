//! A broker: what its handlers share, and the tasks that keep it going.
//!
//! Invariants: a broker serves from the state machine and the records of its own node; whether it
//! may do so is asked of the group at every read. Nothing here is durable.

use crate::answers::AnswerRoom;
use crate::group::{GroupHandle, Records};
use crate::limits::{
    FETCH_BYTES_IN_FLIGHT_MAX, METADATA_BYTES_IN_FLIGHT_MAX, WAITING_FETCH_BYTES_MAX,
};
use crate::machine::outcome::{OperationResult, UnitResult};
use crate::proposer::Proposer;
use crate::room::room;
use crate::settings::BrokerSettings;
use crate::site::Site;
use fulmar_host::Host;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Instant};
use fulmar_store::entry::{Operation, Unit};
use fulmar_types::Term;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The longest pause between two looks for idle producers.
const EXPIRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A clock that gains more than this between two looks was set.
const CLOCK_JUMP: Duration = Duration::from_secs(1);

/// How long a leader and its clock must be steady before producers are forgotten: longer than
/// clients try to send a batch.
const STEADY_MIN: Duration = Duration::from_secs(600);

/// What the handlers of a node share.
pub struct Broker {
    pub(crate) host: Host,
    pub(crate) group: Arc<dyn GroupHandle>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) site: Site,
    pub(crate) proposer: Proposer,
    pub(crate) settings: BrokerSettings,
    /// The last term in which this node proved that it leads, 0 before the first.
    pub(crate) proved_term: AtomicU64,
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
            proved_term: AtomicU64::new(0),
            fetch_room: room(FETCH_BYTES_IN_FLIGHT_MAX),
            waiting_room: room(WAITING_FETCH_BYTES_MAX),
            metadata_room: room(METADATA_BYTES_IN_FLIGHT_MAX),
            answer_room: AnswerRoom::new(),
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

/// How long this node has led with a clock that went on without a jump.
///
/// Producers expire by entry time, which is a leader's wall clock. If that is set forward by more
/// than the expiry, every producer looks idle, also one that is about to send its last batch again;
/// so nobody is forgotten until those who live have had time to write with the new time.
struct Steady {
    since: Instant,
    seen: Instant,
    wall_ms: u64,
    term: Option<Term>,
}

impl Steady {
    fn new() -> Self {
        let now = time::now();
        Self { since: now, seen: now, wall_ms: 0, term: None }
    }

    /// Takes note of the clock and of the term in which this node leads, if it does.
    fn observe(&mut self, now: Instant, wall_ms: u64, term: Option<Term>) -> Duration {
        let passed = now.saturating_duration_since(self.seen);
        let expected_ms = self.wall_ms.saturating_add(millis(passed + CLOCK_JUMP));
        if wall_ms > expected_ms || term.is_none() || term != self.term {
            self.since = now;
        }
        (self.seen, self.wall_ms, self.term) = (now, wall_ms, term);
        now.saturating_duration_since(self.since)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Proposes to forget idle producers, while this node leads.
async fn expire_producers(broker: std::sync::Weak<Broker>) {
    let mut steady = Steady::new();
    loop {
        let Some(expiry) = broker.upgrade().map(|b| b.settings.producer_expiry) else {
            return;
        };
        time::sleep((expiry / 8).clamp(Duration::from_millis(100), EXPIRY_PAUSE_MAX)).await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let leadership = broker.group.leadership();
        let term = leadership.is_me.then_some(leadership.term);
        let steady_for = steady.observe(time::now(), broker.wall_ms(), term);
        if steady_for < expiry.min(STEADY_MIN) {
            continue;
        }
        let idle_ms = millis(expiry);
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
    /// The time that an entry would have now.
    fn wall_ms(&self) -> u64 {
        self.host.clock.wall_ms().max(self.site.read(|state| state.entry_ms()))
    }

    fn has_idle_producer(&self, idle_ms: u64) -> bool {
        let now_ms = self.wall_ms();
        self.site.read(|state| {
            let oldest = state.producers().oldest_used_ms();
            oldest.is_some_and(|used| used < now_ms.saturating_sub(idle_ms))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_and_a_new_term_begin_anew() {
        crate::testing::run(async {
            let mut steady = Steady::new();
            let (start, s) = (time::now(), Duration::from_secs);
            let mut at = |seconds, wall_s: u64, term| {
                let now = start + s(seconds);
                steady.observe(now, wall_s * 1_000, term).as_secs()
            };
            let (one, two) = (Some(Term(1)), Some(Term(2)));
            assert_eq!(at(10, 1_000, one), 0);
            assert_eq!(at(70, 1_060, one), 60);
            assert_eq!(at(130, 1_121, one), 120, "a clock that runs a little fast");
            assert_eq!(at(190, 1_100, one), 180, "set back: entry time stands still");
            assert_eq!(at(250, 9_999, one), 0, "set forward");
            assert_eq!(at(310, 10_059, one), 60);
            assert_eq!(at(370, 10_119, two), 0, "it lost the lead in between");
            assert_eq!(at(430, 10_179, None), 0);
            assert_eq!(at(490, 10_239, two), 0);
        });
    }
}

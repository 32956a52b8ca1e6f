//! The topics that a workload produces to: one for good, or one after another.
//!
//! Kafka users roll their topics: from now on `orders-8`, and `orders-7` goes once everybody has
//! read it. In a simulation this is what kills whole segments, so that they are removed and their
//! files used again.
//!
//! ```text
//! orders-0 ──produced to──► orders-1 ──────────► orders-2 ...
//!    └ last outcome ─► read back ─► deleted
//! ```
//!
//! Invariants: a topic is read back, and deleted, only when every batch that was sent to it has
//! its outcome; one that is not among [`Series::living`] any more may be gone at any moment.

use crate::history::{Budget, Kept};
use crate::scenario::workload::{self, Policy, Produce};
use crate::scenario::{Drawn, SiteName};
use fulmar_types::link::{PRIORITY, Priority};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    generation: u64,
    /// Topics that exist, oldest first, and how many of their batches have no outcome.
    living: BTreeMap<u64, u64>,
}

/// The topics of one name.
#[derive(Debug)]
pub struct Series {
    /// Where they are.
    pub site: SiteName,
    /// How many partitions each has.
    pub partitions: u32,
    /// How long each is produced to; for good without it.
    pub renew: Option<Duration>,
    /// How long records are kept, if not for good.
    pub kept: Option<Kept>,
    /// When the topic is told so; when it is created without it.
    pub kept_from: Option<Duration>,
    /// How long that holds, and then how long something longer does, by turns; for good without it.
    pub kept_for: Option<Duration>,
    /// How urgent it is on links.
    pub priority: Priority,
    name: String,
    state: Mutex<State>,
    settled: Notify,
}

/// A batch on its way to a topic; its outcome is known when this is dropped.
#[derive(Debug)]
pub struct Underway {
    series: Arc<Series>,
    generation: u64,
}

impl Underway {
    /// The topic.
    pub fn topic(&self) -> String {
        self.series.topic(self.generation)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Some(batches) = self.series.state().living.get_mut(&self.generation) {
            *batches -= 1;
        }
        self.series.settled.notify_waiters();
    }
}

/// What a workload says about how long its records are kept; whole milliseconds, as Kafka has it.
fn kept(produce: &Produce<Drawn>) -> Option<Kept> {
    let whole_ms = |kept: Duration| u64::try_from(kept.as_millis()).unwrap_or(0) * 1_000_000;
    let for_ns = produce.retention.map(|kept| whole_ms(kept.0));
    let bytes = produce.retention_bytes.map(|kept| kept.0);
    let budget = match produce.budget {
        Policy::KeepNewest => Budget::KeepNewest,
        Policy::KeepOldest => Budget::KeepOldest,
        Policy::Block => Budget::Block,
    };
    (for_ns.is_some() || bytes.is_some()).then_some(Kept { for_ns, bytes, budget })
}

/// What a topic is told about how long records are kept; without a value a limit goes.
pub fn settings(Kept { for_ns, bytes, budget }: Kept) -> [(String, Option<String>); 3] {
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    let for_ms = for_ns.map(|ns| ns / 1_000_000);
    let policy = (budget != Budget::default()).then(|| budget.name().to_owned());
    [
        ("retention.ms".to_owned(), text(for_ms)),
        ("retention.bytes".to_owned(), text(bytes)),
        ("fulmar.budget.policy".to_owned(), policy),
    ]
}

impl Series {
    /// The topics of this workload.
    pub fn new(produce: &Produce<Drawn>) -> Self {
        Self {
            site: produce.site.clone(),
            partitions: produce.partitions.get().max(1),
            renew: produce.renew.map(|every| every.0),
            kept: kept(produce),
            kept_from: produce.retention_from.map(|from| from.0),
            kept_for: produce.retention_for.map(|every| every.0),
            priority: match produce.priority {
                workload::Priority::Urgent => Priority::Urgent,
                workload::Priority::Normal => Priority::Normal,
                workload::Priority::Bulk => Priority::Bulk,
            },
            name: produce.topic.as_str().to_owned(),
            state: Mutex::new(State { generation: 0, living: BTreeMap::from([(0, 0)]) }),
            settled: Notify::new(),
        }
    }

    /// How long records are kept from the creation of a topic on; `None` if for good.
    pub fn kept_at_first(&self) -> Option<Kept> {
        self.kept.map(|kept| if self.kept_from.is_some() { Kept::default() } else { kept })
    }

    /// The settings that its topics are created with.
    pub fn settings(&self) -> Vec<(String, String)> {
        let settings = settings(self.kept_at_first().unwrap_or_default());
        let kept = settings.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let priority = (self.priority != Priority::default())
            .then(|| (PRIORITY.to_owned(), self.priority.name().to_owned()));
        kept.chain(priority).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topic(&self, generation: u64) -> String {
        match self.renew {
            None => self.name.clone(),
            Some(_) => format!("{}-{generation}", self.name),
        }
    }

    /// The topic that is produced to.
    pub fn current(&self) -> String {
        self.topic(self.state().generation)
    }

    /// Every topic that exists and has to be read back at the end.
    pub fn living(&self) -> Vec<String> {
        self.state().living.keys().map(|generation| self.topic(*generation)).collect()
    }

    /// A batch for the topic that is produced to.
    pub fn enter(self: &Arc<Self>) -> Underway {
        let mut state = self.state();
        let generation = state.generation;
        *state.living.entry(generation).or_default() += 1;
        Underway { series: self.clone(), generation }
    }

    /// The topic after the one that is produced to. It does not count until [`Series::go_on`].
    pub fn next(&self) -> String {
        self.topic(self.state().generation + 1)
    }

    /// From now on the next topic is produced to. Returns the one before.
    pub fn go_on(&self) -> u64 {
        let mut state = self.state();
        let before = state.generation;
        state.generation += 1;
        let now = state.generation;
        state.living.insert(now, 0);
        before
    }

    /// Waits until every batch of a topic has its outcome. Returns the name of the topic.
    pub async fn settled(&self, generation: u64) -> String {
        loop {
            let settled = self.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            if self.state().living.get(&generation).copied().unwrap_or(0) == 0 {
                return self.topic(generation);
            }
            settled.await;
        }
    }

    /// The topic is about to be deleted.
    pub fn forget(&self, generation: u64) {
        self.state().living.remove(&generation);
    }
}

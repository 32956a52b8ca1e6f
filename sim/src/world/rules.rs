//! Rules that are taken back and made again while records flow, and links that do not take a topic any
//! more and take it again.
//!
//! Invariants checked here (`rule_in_force`, `take_in_force`): nothing of a topic leaves its site after its
//! rule was taken back, whenever it was produced, and be it that it waited for long; and what was
//! produced after that, or after the other site did not take the topic any more, is not there before the
//! opposite was asked for. And (`change_noted`) each change that was acknowledged is told
//! with who made it, and when.
//!
//! ```text
//! taken back, answered ---- leaves ---------------------------------------- made again
//! taken back, answered ---- produced ---- seen at the other site ---------- made again
//! ```
//!
//! What leaves is heard at the line between the sites ([`super::eavesdrop`]): what was written to a connection
//! before and left before may arrive later; what had not left does not any more, since the connection is
//! ended abruptly.

use super::eavesdrop::Eavesdropper;
use super::pausing::{STEP, pause};
use super::stage::Stage;
use crate::history::{History, PartitionName, Payload, Time};
use crate::report::Verdict;
use crate::scenario::SiteName;
use fulmar_client::Cluster;
use fulmar_types::link::LinkDefinition;
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Offset, PartitionIndex, Uuid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one attempt to change a rule may take.
pub(super) const LIMIT: Duration = Duration::from_secs(2);

/// The same for whoever asks again and again.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a node that is asked may be behind: it notices before that it does not lead.
const BEHIND_MAX_NS: u64 = 10_000_000_000;

/// How far the clocks of nodes may be off.
const CLOCK_MS: u64 = 5_000;

/// A time in which a topic of a site was to go nowhere.
#[derive(Clone, Debug)]
struct Withheld {
    site: SiteName,
    topic: String,
    /// What is known of its ids, if what leaves of it is judged.
    ids: BTreeSet<Uuid>,
    /// By what, and which check that is.
    by: (&'static str, &'static str),
    /// The answer that it was withheld.
    from: Time,
    /// The request to let it go again, if there was one.
    until: Option<Time>,
}

/// All such times of a run, and when records were seen at another site first.
#[derive(Clone, Default)]
pub(super) struct Rules(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    /// What is wrong with what was told of a change.
    wrong: Option<String>,
    withheld: Vec<Withheld>,
    seen: BTreeMap<(SiteName, String, PartitionIndex, Offset), (Time, Payload)>,
}

impl Rules {
    fn locked(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record of a topic of a site was seen at another one.
    pub(super) fn seen(
        &self,
        (site, topic): (&SiteName, &str),
        (partition, offset): (PartitionIndex, Offset),
        what: (Time, Payload),
    ) {
        let place = (site.clone(), topic.to_owned(), partition, offset);
        self.locked().seen.entry(place).or_insert(what);
    }

    /// A record that left while no rule let it go.
    fn left(noted: &Noted, ear: &Eavesdropper) -> Option<Verdict> {
        noted.withheld.iter().find_map(|withheld| {
            let is_within = |at_ns| {
                let is_before = withheld.until.is_none_or(|until| at_ns < until.0);
                withheld.from.0 <= at_ns && is_before
            };
            let left = ear.departed(&withheld.ids, is_within)?;
            let (Withheld { site, topic, .. }, (first, end)) = (withheld, left.offsets);
            let text = format!(
                "offsets {first} to {end} of {topic}/{} left {site} {} ms after {} at {}",
                left.partition,
                (left.left_ns - withheld.from.0) / 1_000_000,
                withheld.by.0,
                withheld.from
            );
            Some(Verdict::Safety { check: withheld.by.1.to_owned(), text })
        })
    }

    /// A record that was seen where it must not be, or left when it must not.
    pub(super) fn verdict(&self, history: &Mutex<History>, ear: &Eavesdropper) -> Option<Verdict> {
        let noted = self.locked();
        if let Some(verdict) = Self::left(&noted, ear) {
            return Some(verdict);
        }
        if let Some(text) = noted.wrong.clone() {
            return Some(Verdict::Safety { check: "change_noted".to_owned(), text });
        }
        let history = history.lock().unwrap_or_else(PoisonError::into_inner);
        for operation in history.operations() {
            let Some((batch, base)) = operation.acked() else { continue };
            let PartitionName { site, topic, partition } = &operation.partition;
            let of_topic = |of: &&Withheld| of.site.as_str() == site && of.topic == *topic;
            for withheld in noted.withheld.iter().filter(of_topic) {
                if operation.invoked <= withheld.from {
                    continue;
                }
                for offset in (base.get()..).take(batch.payloads.len()).map(Offset) {
                    let place = (withheld.site.clone(), topic.clone(), *partition, offset);
                    let Some((seen, payload)) = noted.seen.get(&place) else { continue };
                    if withheld.until.is_some_and(|until| *seen >= until) {
                        continue;
                    }
                    let text = format!(
                        "record {payload} of {topic}/{partition} at {site} was produced at {}, after \
                         {} at {}, and seen at another site at {seen}",
                        operation.invoked, withheld.by.0, withheld.from
                    );
                    return Some(Verdict::Safety { check: withheld.by.1.to_owned(), text });
                }
            }
        }
        None
    }
}

/// What turns.
pub(super) enum Turns {
    /// The rule of the topic: what it is while the topic has one.
    Rule(RuleDefinition),
    /// The link of the other site: its name, what it is while it takes the topic, and otherwise.
    Take(String, Box<[LinkDefinition; 2]>),
}

impl Turns {
    fn by(&self) -> (&'static str, &'static str) {
        match self {
            Self::Rule(_) => ("its rule was taken back", "rule_in_force"),
            Self::Take(..) => {
                ("the other site did not take it, or paused the link,", "take_in_force")
            }
        }
    }

    /// Lets the topic go, or withholds it. Whether that is known to have been done.
    async fn turn(&self, of: (&Cluster, &str), goes: bool, limit: Duration) -> bool {
        let (cluster, topic) = of;
        match self {
            Self::Rule(rule) => {
                let rule = if goes { rule.clone() } else { RuleDefinition::default() };
                cluster.set_rule(topic, None, &rule, limit).await.is_ok()
            }
            Self::Take(link, definitions) => {
                let [takes, declines] = &**definitions;
                let definition = if goes { takes } else { declines };
                cluster.set_link(link, None, Some(definition), limit).await.is_ok()
            }
        }
    }
}

/// Whoever takes a rule back and makes it again, or has a link take a topic no more, and again.
pub(super) struct Turning {
    /// The site with the origin.
    pub(super) site: SiteName,
    pub(super) topic: String,
    pub(super) turns: Turns,
    /// How long each lasts.
    pub(super) each: Duration,
    /// Whether it is taken back again and again until that is done.
    pub(super) insists: bool,
    pub(super) cluster: Cluster,
    pub(super) stage: Arc<Stage>,
    pub(super) rules: Rules,
    /// What the topic has been known by.
    pub(super) ids: BTreeSet<Uuid>,
}

impl Turning {
    /// Goes on until it is told to stop; then the topic may go.
    pub(super) async fn run(mut self, stopped: impl Fn() -> bool) {
        while !stopped() {
            pause(self.each, &stopped).await;
            self.look_at_ids().await;
            let asked = self.now();
            let withheld = self.take_back(&stopped).await;
            let answered = self.now();
            // Without an answer nobody knows, and nothing is checked. With one, nothing that was asked for before
            // is done any more.
            let number = withheld.then(|| {
                let (site, topic, by) = (self.site.clone(), self.topic.clone(), self.turns.by());
                let ids = self.ids.clone();
                let withheld = Withheld { site, topic, ids, by, from: answered, until: None };
                let mut noted = self.rules.locked();
                noted.withheld.push(withheld);
                noted.withheld.len() - 1
            });
            if withheld && matches!(self.turns, Turns::Rule(_)) {
                self.look_at_change((asked, answered)).await;
            }
            pause(self.each, &stopped).await;
            if let Some(number) = number {
                self.rules.locked().withheld[number].until = Some(self.now());
            }
            while !self.turns.turn((&self.cluster, &self.topic), true, LIMIT).await {
                madsim::time::sleep(STEP).await;
            }
        }
    }

    /// Whether it is known to be taken back.
    async fn take_back(&self, stopped: impl Fn() -> bool) -> bool {
        let limit = if self.insists { PATIENCE } else { LIMIT };
        loop {
            let is_done = self.turns.turn((&self.cluster, &self.topic), false, limit).await;
            if is_done || !self.insists || stopped() {
                return is_done;
            }
        }
    }

    /// Learns by what id the topic leaves its site, if its rule is what turns.
    async fn look_at_ids(&mut self) {
        if matches!(self.turns, Turns::Rule(_))
            && let Ok(known) = self.cluster.refresh_all(LIMIT).await
        {
            let id = known.topics.get(self.topic.as_str()).map(|topic| topic.id);
            self.ids.extend(id.filter(|id| *id != Uuid::NIL));
        }
    }

    /// Looks who is said to have changed the rule, and when. Whoever is asked answers from what it has
    /// applied, and may be behind for a while, as one that has just ceased to lead.
    async fn look_at_change(&self, (asked, answered): (Time, Time)) {
        let until = self.now().0 + BEHIND_MAX_NS;
        while let Some(wrong) = self.wrong_change((asked, answered)).await {
            if self.now().0 >= until {
                self.rules.locked().wrong.get_or_insert(wrong);
                return;
            }
            madsim::time::sleep(STEP).await;
        }
    }

    async fn wrong_change(&self, (asked, answered): (Time, Time)) -> Option<String> {
        let changes = self.cluster.changes(LIMIT).await.ok()?;
        let me = format!("anonymous at {}", self.stage.client_address(&self.site));
        let mut ours = changes.iter().filter(|of| of.of == "rule" && of.name == self.topic);
        if let Some(by) = ours.clone().find(|change| change.who != me) {
            Some(format!(
                "the rule of {} is said to be changed by {}, not {me}",
                self.topic, by.who
            ))
        } else {
            let true_ms = self.stage.machines.clocks().true_ms();
            let ago_ms = |at: Time| self.now().0.saturating_sub(at.0) / 1_000_000;
            let from = true_ms.saturating_sub(ago_ms(asked) + CLOCK_MS);
            let until = true_ms.saturating_sub(ago_ms(answered)) + CLOCK_MS;
            let is_then = |ms: u64| from <= ms && ms <= until;
            (!ours.any(|change| is_then(change.wall_ms))).then(|| {
                let topic = &self.topic;
                format!("the rule of {topic} was changed from {asked} to {answered}, and nothing says so")
            })
        }
    }

    fn now(&self) -> Time {
        Time(self.stage.machines.now_ns())
    }
}

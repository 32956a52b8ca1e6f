//! The always-on checks over what the nodes report: one property a file, each with its source.
//!
//! A check sees every event of every node in the order in which they happened. It draws no random
//! number, touches no node, and counts what it compared, so that a summary can show that it did
//! not pass for want of work.
//!
//! The properties that clients can see (lost, invented, duplicate, reordered or stale records) are
//! checked over the client history instead: [`crate::history`] and [`crate::linear`].
//!
//! Never: weaken a check because a run fails. If a check is wrong, its file says why and a test
//! shows it.

mod applied_equal;
mod election_safety;
mod epochs_agree;
mod flushed_survives;
mod forks_have_cause;
mod full_disk_survived;
mod leader_completeness;
mod lease_alone;
mod link_protocol;
mod log_matching;
mod node_log;
mod peer_noted;
mod queues_bounded;
mod sealed_equal;
mod stops_have_cause;
mod takeovers_equal;
mod topics_current;
mod votes_kept;

use crate::epochs::EpochLog;
use fulmar_types::{Event, NodeId};
use std::collections::BTreeMap;
use std::fmt;

/// Sites of a scenario are fewer. A site that was put back to an older copy of itself is another site for
/// the checks, since nothing that it promised after the copy holds; its number grows by this.
const SITES: u16 = 1 << 10;

/// A node of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteNode {
    /// The site, by its place in the scenario.
    pub site: u16,
    /// The node.
    pub node: NodeId,
}

impl SiteNode {
    /// Whether the site was never put back to an older copy of itself.
    pub fn is_first_life(self) -> bool {
        self.site < SITES
    }
}

impl fmt::Display for SiteNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of site {}", self.node, self.site % SITES)?;
        match self.site / SITES {
            0 => Ok(()),
            times => write!(f, " (put back {times} times)"),
        }
    }
}

/// What the simulator did to the disk of a node. Rot lies there until it is read; of everything else
/// it is said what the process met in this life, when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Bits were flipped.
    Rot,
    /// A flush failed.
    FlushError,
    /// A read failed.
    ReadError,
}

/// Something that happened to a node.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The node.
    pub at: SiteNode,
    /// When, in virtual nanoseconds since the start.
    pub time_ns: u64,
    /// What.
    pub event: &'a Event,
}

/// A property does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the check.
    pub check: &'static str,
    /// When it was noticed, in virtual nanoseconds since the start.
    pub time_ns: u64,
    /// What contradicts what, for people.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.time_ns / 1_000_000;
        write!(f, "at {}.{:03} s: {}", ms / 1_000, ms % 1_000, self.text)
    }
}

/// One property.
pub trait Check {
    /// Its name: the name of its file.
    fn name(&self) -> &'static str;

    /// Looks at an event.
    ///
    /// # Errors
    /// What contradicts what.
    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String>;

    /// The disk of a node was emptied: what the node had promised is gone, and what is remembered
    /// of its log does not hold any more.
    fn wiped(&mut self, _node: SiteNode) {}

    /// A site was put back to an older copy of itself; from now on its events come under another number.
    fn put_back(&mut self) {}

    /// Something was done to the disk of a node that may well end its process.
    fn harmed(&mut self, _node: SiteNode, _harm: Harm) {}

    /// The epochs of a pipeline of a site, if it keeps them.
    fn epochs(&self, _site: u16, _pipeline: &str) -> Option<&EpochLog> {
        None
    }

    /// How many comparisons it has made.
    fn compared(&self) -> u64;
}

/// All checks together.
pub struct Checks {
    checks: Vec<Box<dyn Check + Send>>,
    violation: Option<Violation>,
    /// How often a site was put back to an older copy of itself.
    put_back: BTreeMap<u16, u16>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            checks: vec![
                Box::<election_safety::ElectionSafety>::default(),
                Box::<log_matching::LogMatching>::default(),
                Box::<leader_completeness::LeaderCompleteness>::default(),
                Box::<lease_alone::LeaseAlone>::default(),
                Box::<applied_equal::AppliedEqual>::default(),
                Box::<topics_current::TopicsCurrent>::default(),
                Box::<votes_kept::VotesKept>::default(),
                Box::<flushed_survives::FlushedSurvives>::default(),
                Box::<sealed_equal::SealedEqual>::default(),
                Box::<queues_bounded::QueuesBounded>::default(),
                Box::<full_disk_survived::FullDiskSurvived>::default(),
                Box::<stops_have_cause::StopsHaveCause>::default(),
                Box::<forks_have_cause::ForksHaveCause>::default(),
                Box::<link_protocol::LinkProtocol>::default(),
                Box::<peer_noted::PeerNoted>::default(),
                Box::<epochs_agree::EpochsAgree>::default(),
                Box::<takeovers_equal::TakeoversEqual>::default(),
            ],
            violation: None,
            put_back: BTreeMap::new(),
        }
    }
}

impl Checks {
    /// Shows an event to every check. Only the first violation is kept: what follows it says
    /// little.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        if self.violation.is_some() {
            return;
        }
        let seen = &Observation { at: self.now(seen.at), ..*seen };
        for check in &mut self.checks {
            if let Err(text) = check.observe(seen) {
                self.violation =
                    Some(Violation { check: check.name(), time_ns: seen.time_ns, text });
                return;
            }
        }
    }

    /// A node as the checks know it.
    fn now(&self, node: SiteNode) -> SiteNode {
        let times = self.put_back_times(node.site);
        SiteNode { site: node.site + times * SITES, ..node }
    }

    /// How often a site was put back to an older copy of itself.
    pub fn put_back_times(&self, site: u16) -> u16 {
        self.put_back.get(&site).copied().unwrap_or(0)
    }

    /// Tells every check that a site was put back to an older copy of itself.
    pub fn put_back(&mut self, site: u16) {
        *self.put_back.entry(site).or_default() += 1;
        for check in &mut self.checks {
            check.put_back();
        }
    }

    /// Tells every check that the disk of a node was emptied.
    pub fn wiped(&mut self, node: SiteNode) {
        let node = self.now(node);
        for check in &mut self.checks {
            check.wiped(node);
        }
    }

    /// Tells every check what was done to the disk of a node.
    pub fn harmed(&mut self, node: SiteNode, harm: Harm) {
        let node = self.now(node);
        for check in &mut self.checks {
            check.harmed(node, harm);
        }
    }

    /// The epochs of a pipeline of a site.
    pub fn epochs(&self, site: u16, pipeline: &str) -> Option<&EpochLog> {
        let site = site + self.put_back_times(site) * SITES;
        self.checks.iter().find_map(|check| check.epochs(site, pipeline))
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Each check's name and how many comparisons it has made.
    pub fn compared(&self) -> Vec<(&'static str, u64)> {
        self.checks.iter().map(|check| (check.name(), check.compared())).collect()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use fulmar_types::{LogIndex, LogPosition, Term};

    pub fn position(term: u64, index: u64) -> LogPosition {
        LogPosition { term: Term(term), index: LogIndex(index) }
    }

    pub fn appended(term: u64, index: u64, content: u64) -> Event {
        Event::Appended { position: position(term, index), content }
    }

    pub fn applied(term: u64, index: u64, content: u64) -> Event {
        Event::Applied { position: position(term, index), content, state: u128::from(content) }
    }

    /// Shows events to one check; the text of the violation, if any.
    pub fn run(check: &mut dyn Check, events: &[(u64, Event)]) -> Option<String> {
        for (time_ns, (node, event)) in events.iter().enumerate() {
            let at = SiteNode { site: 0, node: NodeId(*node) };
            let seen = Observation { at, time_ns: time_ns as u64, event };
            if let Err(text) = check.observe(&seen) {
                return Some(text);
            }
        }
        None
    }
}

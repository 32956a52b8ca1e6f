//! What is counted of the events of a node, on their way to whoever listens to them.
//!
//! Invariants: an event is handed on as it came; the reasons that are counted are names out of the code,
//! so their number is bounded.

use fulmar_host::Observer;
use fulmar_types::{Event, Role};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The part that the node plays; `None` before it plays any.
    pub role: Option<Role>,
    /// How often another leader than the one before was heard of.
    pub leader_changes: u64,
    /// Snapshots that were saved.
    pub snapshots: u64,
    /// Segments that were sealed.
    pub seals: u64,
    /// Refused peers, by reason.
    pub peers_refused: BTreeMap<&'static str, u64>,
    /// Certificates that were not trusted, by reason, and whether it was the other side that did not.
    pub distrusted: BTreeMap<(&'static str, bool), u64>,
    /// Refused sites, by reason.
    pub sites_refused: BTreeMap<&'static str, u64>,
    /// Forks that were found here.
    pub forks: u64,
    leader: Option<fulmar_types::NodeId>,
}

impl Tally {
    fn count(&mut self, event: &Event) {
        match event {
            Event::RoleChanged { role, leader, .. } => {
                self.role = Some(*role);
                if leader.is_some() && *leader != self.leader {
                    self.leader_changes += 1;
                    self.leader = *leader;
                }
            }
            Event::SnapshotSaved { .. } => self.snapshots += 1,
            Event::SegmentSealed { .. } => self.seals += 1,
            Event::PeerRefused { reason, .. } => {
                *self.peers_refused.entry(reason).or_default() += 1
            }
            Event::Distrusted { reason, by_peer, .. } => {
                *self.distrusted.entry((reason, *by_peer)).or_default() += 1;
            }
            Event::SiteRefused { reason, .. } => {
                *self.sites_refused.entry(reason).or_default() += 1
            }
            Event::LinkForked { .. } => self.forks += 1,
            _ => {}
        }
    }
}

/// Counts events, and hands them on.
pub struct TallyingObserver {
    tally: Mutex<Tally>,
    next: Arc<dyn Observer>,
}

impl TallyingObserver {
    /// In front of another observer.
    pub fn before(next: Arc<dyn Observer>) -> Self {
        Self { tally: Mutex::default(), next }
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for TallyingObserver {
    fn observe(&self, event: &Event) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).count(event);
        self.next.observe(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::{NodeId, Term};

    struct Nobody;
    impl Observer for Nobody {
        fn observe(&self, _: &Event) {}
    }

    #[test]
    fn a_leader_that_comes_back_after_a_pause_is_no_other_one() {
        let observer = TallyingObserver::before(Arc::new(Nobody));
        let change = |role, leader| {
            let leader = Some(leader).filter(|leader| *leader > 0).map(NodeId);
            observer.observe(&Event::RoleChanged { role, term: Term(1), leader });
        };
        for leader in [1, 0, 1, 2] {
            change(Role::Follower, leader);
        }
        observer.observe(&Event::PeerRefused { peer: None, reason: "other-site" });
        let tally = observer.tally();
        assert_eq!((tally.leader_changes, tally.role), (2, Some(Role::Follower)));
        assert_eq!(tally.peers_refused["other-site"], 1);
    }
}

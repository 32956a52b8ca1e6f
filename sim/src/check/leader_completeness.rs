//! Leader completeness: an entry that was committed is in the log of every leader of a later term
//! (Ongaro 2014, section 3.6.3 and figure 3.2). Any node's `Applied` proves a commit.
//!
//! An election is checked against what is known to be committed, and what turns out to have been
//! committed in an earlier term, against the leader that is in office then. An entry of an earlier term is committed in
//! that of the leader which brings it to a majority: at most the latest that had a leader when its commit became known. A
//! candidate of a term before that one, which counts its votes late, leads nobody and owes nothing.

use super::node_log::NodeLogs;
use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Role, Term};
use std::collections::BTreeMap;

/// The committed entries of each site, and the log of each node.
#[derive(Default)]
pub struct LeaderCompleteness {
    /// With the term of each, and the latest term in which it may have been committed.
    committed: BTreeMap<u16, BTreeMap<LogIndex, (Term, Term)>>,
    /// The latest term of each site that had a leader.
    latest: BTreeMap<u16, Term>,
    logs: NodeLogs,
    /// The leader of the highest term of each site, as long as it lives and says so.
    in_office: BTreeMap<u16, (Term, NodeId)>,
    compared: u64,
}

impl LeaderCompleteness {
    /// An entry is known to be committed from now on.
    fn check_entry(&mut self, site: u16, position: LogPosition) -> Result<(), String> {
        let Some((term, node)) = self.in_office.get(&site).copied() else { return Ok(()) };
        let at = SiteNode { site, node };
        self.compared += 1;
        if position.term >= term || self.logs.of(at).has(position) {
            return Ok(());
        }
        Err(format!("{at} leads term {term} without the entry {position}, which is committed"))
    }

    fn leaves(&mut self, at: SiteNode) {
        if self.in_office.get(&at.site).is_some_and(|(_, node)| *node == at.node) {
            self.in_office.remove(&at.site);
        }
    }

    fn check_leader(&mut self, at: SiteNode, term: Term) -> Result<(), String> {
        let Some(committed) = self.committed.get(&at.site) else { return Ok(()) };
        let log = self.logs.of(at);
        for (index, (committed_term, by)) in committed.range(log.start()..) {
            self.compared += 1;
            // It may be committed by somebody else in a later term: this leader is deposed and does not know it
            // yet.
            if *by >= term {
                continue;
            }
            let mine = log.term_at(*index);
            if mine != Some(*committed_term) {
                let committed = LogPosition { term: *committed_term, index: *index };
                let has = mine.map_or("nothing".to_owned(), |term| format!("term {term}"));
                return Err(format!(
                    "{at} leads term {term} without the committed entry {committed}: it has {has} \
                     there"
                ));
            }
        }
        Ok(())
    }
}

impl Check for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader_completeness"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        self.logs.follow(seen);
        match seen.event {
            Event::Recovered { .. } => self.leaves(seen.at),
            Event::Applied { position, .. } => {
                let latest = self.latest.get(&seen.at.site).copied().unwrap_or_default();
                let by = latest.max(position.term);
                let site = self.committed.entry(seen.at.site).or_default();
                let is_new = !site.contains_key(&position.index);
                if is_new {
                    site.insert(position.index, (position.term, by));
                    return self.check_entry(seen.at.site, *position);
                }
            }
            Event::RoleChanged { role: Role::Leader, term, .. } => {
                let highest = self.in_office.get(&seen.at.site).is_none_or(|(of, _)| of < term);
                let latest = self.latest.entry(seen.at.site).or_default();
                *latest = (*latest).max(*term);
                if highest {
                    self.in_office.insert(seen.at.site, (*term, seen.at.node));
                }
                return self.check_leader(seen.at, *term);
            }
            Event::RoleChanged { .. } => self.leaves(seen.at),
            _ => {}
        }
        Ok(())
    }

    fn wiped(&mut self, node: SiteNode) {
        self.leaves(node);
        self.logs.wiped(node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{appended, applied, position, run};
    use super::*;

    fn leads(term: u64) -> Event {
        Event::RoleChanged { role: Role::Leader, term: Term(term), leader: None }
    }

    #[test]
    fn a_leader_with_every_committed_entry_passes() {
        let mut check = LeaderCompleteness::default();
        let events = [
            (1, appended(1, 0, 7)),
            (1, appended(1, 1, 8)),
            (2, appended(1, 0, 7)),
            (1, applied(1, 0, 7)),
            (2, leads(2)),
            (3, Event::SnapshotInstalled { last: position(1, 0), segments: 1, tail_kept: false }),
            (3, leads(3)),
        ];
        assert_eq!(run(&mut check, &events), None);
        assert_eq!(check.compared(), 1);
    }

    #[test]
    fn a_candidate_that_counts_its_votes_late_owes_nothing() {
        let begin = [
            (1, appended(2, 0, 7)),
            (1, leads(5)),
            (1, appended(5, 1, 8)),
            // Committed by the leader of term 5, though it is of term 2.
            (1, applied(2, 0, 7)),
        ];
        let mut check = LeaderCompleteness::default();
        assert_eq!(run(&mut check, &begin), None);
        assert_eq!(run(&mut check, &[(2, appended(4, 0, 9)), (2, leads(4))]), None);
        let text = run(&mut check, &[(3, leads(6))]).expect("a later leader has to have it");
        assert!(text.contains("without the committed entry 2.0"), "{text}");
    }

    #[test]
    fn what_turns_out_to_be_committed_later_counts() {
        let mut check = LeaderCompleteness::default();
        let begin = [(1, appended(1, 0, 7)), (1, appended(1, 1, 8)), (2, appended(1, 0, 7))];
        assert_eq!(run(&mut check, &begin), None);
        assert_eq!(run(&mut check, &[(2, leads(2)), (1, applied(1, 0, 7))]), None);
        let text = run(&mut check, &[(1, applied(1, 1, 8))]).expect("node 2 has no such entry");
        assert!(text.contains("leads term 2 without the entry 1.1"), "{text}");
        // One that does not lead any more owes nothing.
        let mut check = LeaderCompleteness::default();
        assert_eq!(run(&mut check, &begin), None);
        let follows = Event::RoleChanged { role: Role::Follower, term: Term(3), leader: None };
        let end = [(2, leads(2)), (2, follows), (1, applied(1, 1, 8))];
        assert_eq!(run(&mut check, &end), None);
    }

    #[test]
    fn a_snapshot_that_was_installed_before_power_went_counts() {
        let recovered = |snapshot, last| {
            let (snapshot, last) = (Some(position(1, snapshot)), Some(position(1, last)));
            (2, Event::Recovered { last, snapshot, cut_bytes: 0 })
        };
        let begin = [(1, applied(1, 0, 7)), (1, applied(1, 1, 8)), (1, applied(1, 2, 9))];
        let mut check = LeaderCompleteness::default();
        assert_eq!(run(&mut check, &begin), None);
        assert_eq!(run(&mut check, &[recovered(2, 2), (2, leads(3))]), None);
        let mut check = LeaderCompleteness::default();
        assert_eq!(run(&mut check, &begin), None);
        let text = run(&mut check, &[recovered(1, 1), (2, leads(3))]).expect("2 is missing");
        assert!(text.contains("without the committed entry 1.2"), "{text}");
    }

    #[test]
    fn a_leader_that_lost_a_committed_entry_is_caught() {
        for loss in [
            Event::Truncated { from: LogIndex(0) },
            Event::Recovered { last: None, snapshot: None, cut_bytes: 0 },
            appended(2, 0, 9),
        ] {
            let mut check = LeaderCompleteness::default();
            let events =
                [(1, applied(1, 0, 7)), (2, appended(1, 0, 7)), (2, loss.clone()), (2, leads(3))];
            let text = run(&mut check, &events).unwrap_or_else(|| panic!("{loss:?} was not seen"));
            assert!(text.contains("without the committed entry 1.0"), "{text}");
        }
    }
}

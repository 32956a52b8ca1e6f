//! A lease is alone: once a term has a leader, nobody proves to hold the lease of an earlier term
//! (Ongaro 2014, section 6.4.1). What a client would see of it is a stale read, but only if it asks
//! the old leader within the moment for which that believes itself, about something that the new one
//! has committed by then; here the moment is enough.

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, NodeId, Role, Term};
use std::collections::BTreeMap;

/// The latest elected leader of each site.
#[derive(Default)]
pub struct LeaseAlone {
    elected: BTreeMap<u16, (Term, NodeId)>,
    compared: u64,
}

impl LeaseAlone {
    fn elected(&mut self, site: u16, term: Term, leader: NodeId) {
        let latest = self.elected.entry(site).or_insert((term, leader));
        *latest = (*latest).max((term, leader));
    }
}

impl Check for LeaseAlone {
    fn name(&self) -> &'static str {
        "lease_alone"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let SiteNode { site, node } = seen.at;
        match *seen.event {
            Event::RoleChanged { role: Role::Leader, term, .. } => self.elected(site, term, node),
            // A vote is committed once a majority has granted it.
            Event::VoteSaved { term, voted_for, committed: true } => {
                self.elected(site, term, voted_for);
            }
            Event::LeadProved { term } => {
                self.compared += 1;
                if let Some((later, leader)) = self.elected.get(&site)
                    && *later > term
                {
                    return Err(format!(
                        "{} proved the lease of term {term}, and node {leader} was elected in term {later}",
                        seen.at
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    fn proves(term: u64) -> Event {
        Event::LeadProved { term: Term(term) }
    }

    fn leads(term: u64) -> Event {
        Event::RoleChanged { role: Role::Leader, term: Term(term), leader: None }
    }

    fn vote(term: u64, committed: bool) -> Event {
        Event::VoteSaved { term: Term(term), voted_for: NodeId(2), committed }
    }

    #[test]
    fn a_lease_is_proved_until_another_leads() {
        let mut check = LeaseAlone::default();
        let before = [(1, leads(1)), (1, proves(1)), (3, vote(2, false)), (1, proves(1))];
        assert_eq!(run(&mut check, &before), None);
        assert_eq!(run(&mut check, &[(2, leads(2)), (2, proves(2))]), None);
        assert_eq!(check.compared(), 3);
        let text = run(&mut check, &[(1, proves(1))]).expect("two leases");
        assert_eq!(
            text,
            "node 1 of site 0 proved the lease of term 1, and node 2 was elected in term 2"
        );
    }

    #[test]
    fn the_vote_of_a_majority_ends_the_lease_before_the_leader_says_so() {
        let mut check = LeaseAlone::default();
        let text = run(&mut check, &[(1, leads(1)), (2, vote(2, true)), (1, proves(1))]);
        assert!(text.is_some());
    }
}

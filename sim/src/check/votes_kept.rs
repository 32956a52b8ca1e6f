//! Votes never regress: the term that a node has voted in never decreases, and it votes for one
//! candidate per term (Ongaro 2014, section 3.4, rule of the persistent `votedFor`). The harness
//! remembers what a node promised; the node itself may have lost it, and that is the violation.
//!
//! What is saved as a vote is also whom a node follows: a vote that is *committed* belongs to a
//! leader that a majority has elected. A node that voted for another candidate of that term takes
//! it over, which promises nothing to anybody; from then on only that leader can stand there.

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, NodeId, Term};
use std::collections::BTreeMap;

/// The last vote of each node.
#[derive(Default)]
pub struct VotesKept {
    votes: BTreeMap<SiteNode, (Term, NodeId, bool)>,
    compared: u64,
}

impl VotesKept {
    /// What a node finds on its disk is its last vote, or a later one of which the power cut kept
    /// us from hearing.
    fn found(&mut self, at: SiteNode, term: Term, voted_for: Option<NodeId>) -> Result<(), String> {
        let Some((last, last_for, _)) = self.votes.get(&at) else { return Ok(()) };
        self.compared += 1;
        let kept = term > *last || (term == *last && voted_for.is_some());
        if kept {
            return Ok(());
        }
        Err(format!(
            "{at} voted for node {last_for} in term {last}, and found a vote of term {term} when it \
             came back"
        ))
    }
}

impl Check for VotesKept {
    fn name(&self) -> &'static str {
        "votes_kept"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let (term, voted_for, committed) = match seen.event {
            Event::VoteSaved { term, voted_for, committed } => (term, voted_for, committed),
            Event::VoteRecovered { term, voted_for } => {
                return self.found(seen.at, *term, *voted_for);
            }
            _ => return Ok(()),
        };
        self.compared += 1;
        let vote = (*term, *voted_for, *committed);
        if let Some((old_term, old_for, old_committed)) = self.votes.insert(seen.at, vote) {
            if *term < old_term {
                return Err(format!(
                    "{} voted in term {old_term}, and now votes in term {term}",
                    seen.at
                ));
            }
            let follows_the_elected = *committed && !old_committed;
            if *term == old_term && *voted_for != old_for && !follows_the_elected {
                return Err(format!(
                    "{} voted for node {old_for} in term {term}, and now for node {voted_for}",
                    seen.at
                ));
            }
        }
        Ok(())
    }

    fn wiped(&mut self, node: SiteNode) {
        self.votes.remove(&node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    fn vote(term: u64, node: u64) -> Event {
        Event::VoteSaved { term: Term(term), voted_for: NodeId(node), committed: false }
    }

    fn follows(term: u64, node: u64) -> Event {
        Event::VoteSaved { term: Term(term), voted_for: NodeId(node), committed: true }
    }

    #[test]
    fn an_elected_leader_may_be_followed_by_who_voted_for_another() {
        let good = [(1, vote(2, 1)), (1, follows(2, 3)), (1, follows(2, 3))];
        assert_eq!(run(&mut VotesKept::default(), &good), None);
        for bad in [follows(2, 1), vote(2, 1)] {
            let mut check = VotesKept::default();
            assert_eq!(run(&mut check, &good), None);
            assert!(run(&mut check, &[(1, bad)]).is_some(), "another leader, or a vote after it");
        }
    }

    #[test]
    fn a_vote_that_is_forgotten_is_noticed_at_the_restart() {
        let found = |term, node: Option<u64>| Event::VoteRecovered {
            term: Term(term),
            voted_for: node.map(NodeId),
        };
        let good = [(1, vote(2, 1)), (1, found(2, Some(1))), (1, found(3, Some(2)))];
        assert_eq!(run(&mut VotesKept::default(), &good), None);
        assert!(run(&mut VotesKept::default(), &[(1, vote(2, 1)), (1, found(0, None))]).is_some());
        assert!(
            run(&mut VotesKept::default(), &[(1, vote(2, 1)), (1, found(1, Some(3)))]).is_some()
        );
    }

    #[test]
    fn one_vote_a_term_and_never_back() {
        let good = [(1, vote(1, 1)), (1, vote(1, 1)), (1, vote(3, 2)), (2, vote(1, 3))];
        assert_eq!(run(&mut VotesKept::default(), &good), None);
        assert!(run(&mut VotesKept::default(), &[(1, vote(2, 1)), (1, vote(2, 2))]).is_some());
        assert!(run(&mut VotesKept::default(), &[(1, vote(2, 1)), (1, vote(1, 1))]).is_some());
    }
}

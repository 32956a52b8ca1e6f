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
use std::fmt;

/// The last vote of each node.
#[derive(Default)]
pub struct VotesKept {
    votes: BTreeMap<SiteNode, (Term, Vote)>,
    compared: u64,
}

/// For whom, and whether a majority has granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vote {
    voted_for: NodeId,
    committed: bool,
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.committed { ", who was elected," } else { "" };
        write!(f, "for node {}{how}", self.voted_for)
    }
}

impl VotesKept {
    /// What a node finds on its disk is its last vote, or a later one of which the power cut kept
    /// us from hearing: of a later term, or for the leader that was elected in this one.
    fn found(&mut self, at: SiteNode, term: Term, vote: Option<Vote>) -> Result<(), String> {
        let last = self.votes.get(&at).copied();
        if let Some(vote) = vote {
            self.votes.insert(at, (term, vote));
        }
        let Some((last_term, last)) = last else { return Ok(()) };
        self.compared += 1;
        let same = vote == Some(last) || vote.is_some_and(|vote| vote.committed && !last.committed);
        if term > last_term || (term == last_term && same) {
            return Ok(());
        }
        let found = vote.map_or("none".to_owned(), |vote| vote.to_string());
        Err(format!(
            "{at} voted {last} in term {last_term}, and found when it came back: {found}, term {term}"
        ))
    }
}

impl Check for VotesKept {
    fn name(&self) -> &'static str {
        "votes_kept"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let (term, vote) = match *seen.event {
            Event::VoteSaved { term, voted_for, committed } => {
                (term, Vote { voted_for, committed })
            }
            Event::VoteRecovered { term, voted_for, committed } => {
                let vote = voted_for.map(|voted_for| Vote { voted_for, committed });
                return self.found(seen.at, term, vote);
            }
            _ => return Ok(()),
        };
        self.compared += 1;
        if let Some((old_term, old)) = self.votes.insert(seen.at, (term, vote)) {
            if term < old_term {
                return Err(format!(
                    "{} voted in term {old_term}, and now votes in term {term}",
                    seen.at
                ));
            }
            let follows_the_elected = vote.committed && !old.committed;
            if term == old_term && vote.voted_for != old.voted_for && !follows_the_elected {
                return Err(format!("{} voted {old} in term {term}, and now {vote}", seen.at));
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

    fn found(term: u64, node: Option<u64>, committed: bool) -> Event {
        Event::VoteRecovered { term: Term(term), voted_for: node.map(NodeId), committed }
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
        let good = [
            [(1, vote(2, 1)), (1, found(2, Some(1), false))],
            [(1, vote(2, 1)), (1, found(3, Some(2), false))],
            [(1, vote(2, 1)), (1, found(2, Some(3), true))],
            [(1, follows(2, 1)), (1, found(2, Some(1), true))],
        ];
        for story in good {
            assert_eq!(run(&mut VotesKept::default(), &story), None);
        }
        let bad = [
            [(1, vote(2, 1)), (1, found(0, None, false))],
            [(1, vote(2, 1)), (1, found(1, Some(3), false))],
            [(1, vote(2, 1)), (1, found(2, Some(3), false))],
            [(1, follows(2, 1)), (1, found(2, Some(3), true))],
            [(1, follows(2, 1)), (1, found(2, Some(1), false))],
        ];
        for story in bad {
            assert!(run(&mut VotesKept::default(), &story).is_some(), "{story:?}");
        }
    }

    #[test]
    fn a_vote_that_was_found_is_kept_like_one_that_was_saved() {
        let unheard = [(1, vote(2, 1)), (1, found(3, Some(2), false))];
        for later in [vote(3, 1), found(3, Some(1), false), found(2, Some(1), false)] {
            let mut check = VotesKept::default();
            assert_eq!(run(&mut check, &unheard), None);
            assert!(run(&mut check, &[(1, later)]).is_some());
        }
    }

    #[test]
    fn one_vote_a_term_and_never_back() {
        let good = [(1, vote(1, 1)), (1, vote(1, 1)), (1, vote(3, 2)), (2, vote(1, 3))];
        assert_eq!(run(&mut VotesKept::default(), &good), None);
        assert!(run(&mut VotesKept::default(), &[(1, vote(2, 1)), (1, vote(2, 2))]).is_some());
        assert!(run(&mut VotesKept::default(), &[(1, vote(2, 1)), (1, vote(1, 1))]).is_some());
    }
}

//! The leader's lease: how long nobody else can have been elected, by what the peers have answered.
//!
//! openraft has a lease too, but a process that was paused holds it for too long (0.10.0-alpha.37,
//! `drain_acked`): an answer there acknowledges every request whose last entry it covers. A request
//! that carries no entries, only a commit, covers nothing new, so an answer that lay in the socket
//! acknowledges one that was sent after it had come. So each answer is matched with its own question
//! here, and a read needs both leases.
//!
//! ```text
//! leader    append 7 ......................... paused ........................ commit 7 (no entries)
//! follower            answer to append 7 ----> [lies in the socket] ---------> read now
//!                                       openraft: "commit 7" is acknowledged; here: append 7 is
//! ```
//!
//! A grant is kept in memory only. A node that restarts may have granted the lease an instant before,
//! to the leader that its stored vote names; so it gives no vote, not to itself either, until the
//! longest lease that it can have granted has run out ([`EarlierGrant`]).
//!
//! The length is the longest election timeout, on the leader and on those who grant it, so nodes that
//! are configured with different ones refuse to talk with one another. The length with which a node
//! may have granted is in its `life` file: the configuration may have changed since.
//!
//! Invariants: a voter counts from the moment before a question was sent that it answered in this
//! term without naming a higher one; a follower that has answered refuses its vote to others for the
//! length of the lease from when the question came (Ongaro 2014, section 6.4.1).
//!
//! Never: count an answer for a question that it does not belong to.

use fulmar_host::planted;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::SavedVote;
use fulmar_types::{NodeId, Plant, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// A question that was sent in a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    /// The term in which this node leads, or believes to.
    pub term: Term,
    /// A moment before it was sent.
    pub at: Instant,
}

/// The lease of a node, which holds while it leads.
#[derive(Debug)]
pub struct Lease {
    node: NodeId,
    length: Duration,
    /// The last question that each peer has answered.
    answered: Mutex<BTreeMap<NodeId, Asked>>,
}

impl Lease {
    /// A lease that nobody has granted yet.
    pub(crate) fn new(node: NodeId, length: Duration) -> Self {
        Self { node, length, answered: Mutex::default() }
    }

    /// How long it holds from a question on, in ms. All nodes of a site must agree on it.
    pub(crate) fn length_ms(&self) -> u64 {
        u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX)
    }

    /// A peer has answered a question, and knows of no higher term.
    pub(crate) fn grant(&self, by: NodeId, asked: Asked) {
        let mut answered = self.answered.lock().expect("no holder of this lock panics");
        let last = answered.entry(by).or_insert(asked);
        *last = (*last).max(asked);
    }

    /// When the last question was sent that a peer has answered in this term.
    pub(crate) fn answered(&self, node: NodeId, term: Term) -> Option<Instant> {
        let answered = self.answered.lock().expect("no holder of this lock panics");
        answered.get(&node).filter(|asked| asked.term == term).map(|asked| asked.at)
    }

    /// Until when a majority of each of these sets of voters has granted it in this term, if it has
    /// not run out. There are two sets while the membership changes.
    pub(crate) fn until(
        &self,
        term: Term,
        voters: &[BTreeSet<NodeId>],
        now: Instant,
    ) -> Option<Instant> {
        let answered = self.answered.lock().expect("no holder of this lock panics");
        let granted = |node: &NodeId| {
            let of_term = answered.get(node).filter(|asked| asked.term == term);
            let asked = if *node == self.node { Some(now) } else { of_term.map(|asked| asked.at) };
            asked.map(|at| at + self.length)
        };
        let of_majority = |voters: &BTreeSet<NodeId>| {
            let mut grants: Vec<Option<Instant>> = voters.iter().map(granted).collect();
            grants.sort_unstable();
            // As many have granted it for as long, or for longer, as a majority has.
            grants.into_iter().rev().nth(voters.len() / 2).flatten()
        };
        let until = voters.iter().map(of_majority).min().flatten();
        until.filter(|until| now < *until)
    }
}

/// What an earlier life of this node may have granted to a leader.
#[derive(Clone, Copy, Debug)]
pub struct EarlierGrant {
    until: Option<Instant>,
}

impl EarlierGrant {
    /// At the start of a node with this stored vote; `length` is the longest that it can have granted
    /// a lease for. A grant needs a leader other than itself, whose
    /// committed vote is stored before the first answer to it.
    pub(crate) fn at_start(node: NodeId, vote: Option<SavedVote>, length: Duration) -> Self {
        let followed = vote.is_some_and(|vote| vote.committed && vote.voted_for != node);
        Self { until: followed.then(|| time::now() + length) }
    }

    /// Whether it has run out, so that this node may help to elect another leader.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| time::now() >= until) || planted(Plant::ForgetGrant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const S: Duration = Duration::from_secs(1);

    impl Lease {
        fn holds(&self, term: Term, voters: &[BTreeSet<NodeId>], now: Instant) -> bool {
            self.until(term, voters, now).is_some()
        }
    }

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn it_runs_from_the_question_and_not_from_the_answer() {
        let (lease, begun) = (Lease::new(NodeId(1), 2 * S), time::now());
        let three = [set(&[1, 2, 3])];
        assert!(!lease.holds(Term(5), &three, begun));
        lease.grant(NodeId(2), Asked { term: Term(5), at: begun });
        assert!(lease.holds(Term(5), &three, begun + S));
        assert!(!lease.holds(Term(5), &three, begun + 2 * S));
        // An older question takes nothing back.
        lease.grant(NodeId(2), Asked { term: Term(5), at: begun + S });
        lease.grant(NodeId(2), Asked { term: Term(5), at: begun });
        assert!(lease.holds(Term(5), &three, begun + 2 * S));
    }

    #[test]
    fn it_belongs_to_one_term() {
        let (lease, now) = (Lease::new(NodeId(1), S), time::now());
        lease.grant(NodeId(2), Asked { term: Term(5), at: now });
        assert!(!lease.holds(Term(6), &[set(&[1, 2, 3])], now));
        lease.grant(NodeId(2), Asked { term: Term(6), at: now });
        assert!(!lease.holds(Term(5), &[set(&[1, 2, 3])], now));
    }

    #[test]
    fn an_earlier_grant_was_to_another_leader() {
        let vote = |voted_for, committed| {
            Some(SavedVote { term: Term(3), voted_for: NodeId(voted_for), committed })
        };
        let at_start = |vote| EarlierGrant::at_start(NodeId(1), vote, 1_000 * S);
        assert!(!at_start(vote(2, true)).is_over());
        for nobody in [None, vote(2, false), vote(1, true)] {
            assert!(at_start(nobody).is_over(), "{nobody:?}");
        }
        let past = EarlierGrant::at_start(NodeId(1), vote(2, true), Duration::ZERO);
        assert!(past.is_over());
    }

    #[test]
    fn it_takes_a_majority_of_the_voters_in_every_set() {
        let (lease, now) = (Lease::new(NodeId(1), S), time::now());
        assert!(lease.holds(Term(1), &[set(&[1])], now), "alone");
        assert!(!lease.holds(Term(1), &[], now), "nobody");
        lease.grant(NodeId(4), Asked { term: Term(1), at: now });
        assert!(!lease.holds(Term(1), &[set(&[1, 2, 3])], now), "4 has no vote");
        lease.grant(NodeId(2), Asked { term: Term(1), at: now });
        assert!(lease.holds(Term(1), &[set(&[1, 2, 3])], now));
        assert!(!lease.holds(Term(1), &[set(&[1, 2, 3]), set(&[1, 3])], now));
    }

    #[test]
    fn it_runs_out_when_the_last_majority_does() {
        let (lease, now) = (Lease::new(NodeId(1), 4 * S), time::now());
        let five = [set(&[1, 2, 3, 4, 5])];
        for (node, at) in [(2, now), (3, now + S), (4, now + 2 * S)] {
            lease.grant(NodeId(node), Asked { term: Term(5), at });
        }
        let later = now + 3 * S;
        assert_eq!(lease.until(Term(5), &five, later), Some(now + 5 * S), "1, 4 and 3");
        assert_eq!(lease.until(Term(5), &five, now + 5 * S), None);
        let both = [set(&[1, 3, 4]), set(&[1, 2, 5])];
        assert_eq!(lease.until(Term(5), &both, later), Some(now + 4 * S), "the earlier of the two");
        assert_eq!(lease.until(Term(5), &[set(&[1])], later), Some(later + 4 * S), "alone");
    }
}

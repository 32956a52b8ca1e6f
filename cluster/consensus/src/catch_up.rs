//! Whether a node that has just started knows again all that it knew in its earlier life.
//!
//! At the start it applies what its log says of itself that it is committed. What else was, it
//! hears from a leader, a moment later or, alone, never. Until then it cannot tell a topic that is
//! not there from one that it has forgotten.
//!
//! ```text
//! earlier life    applied .................... X
//! this life       applied ........ from the log |   a leader says: term t, committed below c
//!                                               '--> done once applied >= c - 1 in a term >= t
//! ```
//!
//! An applied entry of term `t` has every entry of an earlier term that was ever committed before it
//! (leader completeness, Ongaro 2014, section 3.6.3); of term `t` itself nobody knew more than the
//! leader does. A leader has caught up with the first entry of its own term.
//!
//! Never: take the word of a leader whose term is behind the stored vote, for what this node knew may
//! be of a later one; nor what was said before this life began, in a request that waited while its
//! connection was dialled, which is the first of it at most.

use crate::types::{TypeConfig, Vote, vote_from_store};
use fulmar_store::SavedVote;
use fulmar_types::{LogIndex, LogPosition, Term};
use openraft::raft::AppendEntriesRequest;
use std::sync::OnceLock;

/// What the first leader since the start said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    term: Term,
    committed_below: LogIndex,
}

/// What is known of the time before the start.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    heard: OnceLock<Heard>,
}

impl CatchUp {
    /// A leader spoke to this node, whose stored vote is `own`.
    pub(crate) fn hear(&self, said: &AppendEntriesRequest<TypeConfig>, own: Option<SavedVote>) {
        if self.heard.get().is_none() {
            let committed_below = said.leader_commit.map_or(0, |last| last.index + 1);
            self.note(said.vote, LogIndex(committed_below), own.map(|own| vote_from_store(&own)));
        }
    }

    fn note(&self, vote: Vote, committed_below: LogIndex, own: Option<Vote>) {
        let is_behind = own.is_some_and(|own| vote.leader_id.term < own.leader_id.term);
        if vote.committed && !is_behind {
            let term = Term(vote.leader_id.term);
            // Somebody else may have noted it meanwhile, which is as good.
            let _ = self.heard.set(Heard { term, committed_below });
        }
    }

    /// Whether that is done with this applied; `leads` is the term that this node leads.
    pub(crate) fn is_done(&self, applied: Option<LogPosition>, leads: Option<Term>) -> bool {
        let Some(applied) = applied else { return false };
        let with = |heard: &Heard| {
            applied.term >= heard.term && applied.index.next() >= heard.committed_below
        };
        leads == Some(applied.term) || self.heard.get().is_some_and(with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::NodeId;

    fn vote(term: u64, committed: bool) -> Vote {
        vote_from_store(&SavedVote { term: Term(term), voted_for: NodeId(2), committed })
    }

    fn at(term: u64, index: u64) -> Option<LogPosition> {
        Some(LogPosition { term: Term(term), index: LogIndex(index) })
    }

    #[test]
    fn a_follower_catches_up_with_the_first_leader_that_it_hears() {
        let catch_up = CatchUp::default();
        assert!(!catch_up.is_done(at(3, 9), None), "nobody has spoken");
        catch_up.note(vote(2, true), LogIndex(4), Some(vote(3, true)));
        assert!(!catch_up.is_done(at(3, 9), None), "that leader is deposed");
        catch_up.note(vote(3, true), LogIndex(9), Some(vote(3, true)));
        assert!(!catch_up.is_done(at(3, 7), None) && catch_up.is_done(at(3, 8), None));
        assert!(!catch_up.is_done(at(2, 8), None), "a new leader may not know its own commit yet");
        catch_up.note(vote(4, true), LogIndex(20), Some(vote(3, true)));
        assert!(catch_up.is_done(at(3, 8), None), "it stays");
    }

    #[test]
    fn a_leader_catches_up_with_the_first_entry_of_its_term() {
        let catch_up = CatchUp::default();
        assert!(!catch_up.is_done(None, Some(Term(4))));
        assert!(!catch_up.is_done(at(3, 9), Some(Term(4))));
        assert!(catch_up.is_done(at(4, 10), Some(Term(4))));
    }
}

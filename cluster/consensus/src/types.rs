//! openraft's type parameters, and the conversions between its types and ours.
//!
//! Invariant: none of openraft's types is stored or sent as it is; what leaves this crate are
//! Fulmar's own types, whose layouts we version.

use crate::membership;
use crate::runtime::HostRuntime;
use bytes::Bytes;
use fulmar_store::{EntryKind, LogEntry, SavedVote};
use fulmar_types::{Incarnation, LogIndex, LogPosition, NodeId, Term};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use std::fmt;
use std::io;

openraft::declare_raft_types!(
    /// The types of the site's Raft group. Leader ids are the standard ones: one leader per term,
    /// so that the Kafka leader epoch can be the term.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = HostRuntime,
);

pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;

/// What the membership says of a node. The site's log decides which life of a node it is that
/// takes part, and so a directory that was emptied cannot take the place of the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Which life of its data directory.
    pub incarnation: Incarnation,
}

/// What is proposed: the payload of an entry, and the committed position that the leader knew.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The number of entries that the leader knew to be committed.
    pub claim: u64,
    /// The encoded entry.
    pub payload: Bytes,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.payload.len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What applying an entry gave, in the state machine's own encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome(pub Bytes);

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: Term(id.committed_leader_id().term), index: LogIndex(id.index()) }
}

pub(crate) fn log_id(position: LogPosition) -> LogId {
    // The node id is not part of a committed leader id in the standard scheme.
    LogId::new(LeaderId::new(position.term.get(), NodeId(0)).to_committed(), position.index.get())
}

pub(crate) fn vote_to_store(vote: &Vote) -> SavedVote {
    SavedVote {
        term: Term(vote.leader_id.term),
        voted_for: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_store(saved: &SavedVote) -> Vote {
    Vote { leader_id: LeaderId::new(saved.term.get(), saved.voted_for), committed: saved.committed }
}

/// Bytes of the payload that an entry has on disk.
pub(crate) fn payload_len(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(proposal) => proposal.payload.len(),
        EntryPayload::Membership(membership) => membership::encode(membership).len(),
    }
}

pub(crate) fn entry_to_store(entry: Entry) -> LogEntry {
    let position = position(&entry.log_id());
    match entry.payload {
        EntryPayload::Blank => {
            LogEntry { position, kind: EntryKind::Blank, claim: 0, payload: Bytes::new() }
        }
        EntryPayload::Normal(proposal) => LogEntry {
            position,
            kind: EntryKind::Normal,
            claim: proposal.claim,
            payload: proposal.payload,
        },
        EntryPayload::Membership(membership) => LogEntry {
            position,
            kind: EntryKind::Membership,
            claim: 0,
            payload: membership::encode(&membership),
        },
    }
}

pub(crate) fn entry_from_store(entry: LogEntry) -> io::Result<Entry> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Normal => {
            EntryPayload::Normal(Proposal { claim: entry.claim, payload: entry.payload })
        }
        EntryKind::Membership => {
            EntryPayload::Membership(membership::decode(&entry.payload).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("membership entry {}: {error}", entry.position),
                )
            })?)
        }
    };
    Ok(Entry::new(log_id(entry.position), payload))
}

//! The messages between the nodes of a site.
//!
//! Heads are bincode with a byte limit (the advisory on bincode's maintenance is accepted in
//! `deny.toml`, with the reason); the structs here are the format, so a change of one is a change
//! of [`PROTOCOL_VERSION`]. Bulk data travels as the body of the frame.
//!
//! | kind | request | answer |
//! |---|---|---|
//! | 1 | hello | welcome or refused |
//! | 2 | vote, pre-vote | vote |
//! | 3 | append | append |
//! | 4 | transfer of leadership | done |
//! | 5 | offer of segments | wanted |
//! | 6 | chunk of a segment or of the snapshot | done |
//! | 7 | install | still at it (nothing), as often as need be; installed |
//! | 8 | introduction, before there is a site | introduction |
//! | 9 | may an emptied node take part again | its standing |
//! | 10 | a question for those above (`asking`) | what they say |
//!
//! Invariant: a message that decodes has been checked for everything that does not need the state
//! of the node. Never: a type of openraft in a message.

use super::frame::Frame;
use crate::space::RoomReport;
use crate::types::{LogId, TypeConfig, Vote, log_id, position, vote_from_store, vote_to_store};
use bytes::Bytes;
use fulmar_store::{EntryKind, LogEntry, SavedVote};
use fulmar_types::event::NO_SITE_YET;
use fulmar_types::limits::ENTRY_BYTES_MAX;
use fulmar_types::{Incarnation, LogIndex, LogPosition, NodeId, SiteId, Term};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use thiserror::Error;

/// The first bytes of a connection between peers.
pub const MAGIC: u32 = 0x464C_4D52; // "FLMR"
/// The version of everything in this module.
pub const PROTOCOL_VERSION: u16 = 5;

const HEAD_BYTES_MAX: usize = 8 << 20;

/// Kinds of frames.
pub mod kind {
    /// Handshake.
    pub const HELLO: u8 = 1;
    /// Vote and pre-vote.
    pub const VOTE: u8 = 2;
    /// Entries and heartbeats.
    pub const APPEND: u8 = 3;
    /// Transfer of leadership.
    pub const TRANSFER: u8 = 4;
    /// Which segments there are.
    pub const OFFER: u8 = 5;
    /// A piece of a segment or of the snapshot.
    pub const CHUNK: u8 = 6;
    /// Put what was shipped into place.
    pub const INSTALL: u8 = 7;
    /// Who is there, before there is a site.
    pub const INTRODUCE: u8 = 8;
    /// May a node whose directory was emptied take part again.
    pub const REJOIN: u8 = 9;
    /// A question for those above.
    pub const ASK: u8 = 10;
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Encodes a head.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(message, bincode::config::standard())
        .expect("plain structs of numbers and vectors always encode")
}

/// Decodes a head, all of it.
///
/// # Errors
/// If the bytes are not exactly one such message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let config = bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();
    let (message, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| invalid(format!("a peer message does not decode: {error}")))?;
    if used != bytes.len() {
        return Err(invalid("a peer message has bytes left over".to_owned()));
    }
    Ok(message)
}

/// What a connection is for. One connection serves one purpose, so that a long transfer never
/// delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// Votes, heartbeats, leadership transfer, introductions: one question, one answer.
    Control,
    /// A pipelined stream of entries.
    Append,
    /// Snapshot and segments.
    Ship,
    /// A node whose directory was emptied asks to take part again.
    Rejoin,
    /// Questions for those above.
    Ask,
}

/// The first message on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u16,
    /// Bits of optional abilities; none exist yet.
    pub features: u64,
    /// What the connection is for.
    pub purpose: Purpose,
    /// The site, once there is one.
    pub site: Option<SiteId>,
    /// Who speaks.
    pub from: NodeId,
    /// Which life of its data directory.
    pub incarnation: Incarnation,
    /// Who is meant.
    pub to: NodeId,
    /// The segment size of the sender, which must be the same on all nodes of a site.
    pub segment_bytes: u64,
    /// How long a lease holds that the sender grants, or is granted: the same on all nodes, too.
    pub lease_ms: u64,
}

impl Hello {
    /// Reads the head of a first message. Its first two fields stay where they are in all versions,
    /// so that nodes of different ones can say that they are.
    ///
    /// # Errors
    /// The inner one is the refusal of a stranger or of another version; the outer one says that the
    /// bytes are no message at all.
    pub fn read(head: &[u8]) -> io::Result<Result<Self, Refusal>> {
        let config = bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();
        let first: Result<((u32, u16), usize), _> = bincode::serde::decode_from_slice(head, config);
        let ((magic, version), _) =
            first.map_err(|error| invalid(format!("a greeting does not decode: {error}")))?;
        if magic != MAGIC {
            return Ok(Err(Refusal::NotFulmar));
        }
        if version != PROTOCOL_VERSION {
            return Ok(Err(Refusal::Version));
        }
        decode(head).map(Ok)
    }
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// The connection is open.
    Accepted {
        /// Optional abilities of the answering node.
        features: u64,
        /// Which life of its data directory.
        incarnation: Incarnation,
    },
    /// The connection is refused and closed.
    Refused(Refusal),
}

/// Why a handshake was refused. The names are shown to people and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The first bytes are not Fulmar's.
    NotFulmar,
    /// The protocol version is not spoken here.
    Version,
    /// The peer belongs to another site.
    OtherSite,
    /// The node that is meant is another one.
    OtherNode,
    /// The peer says that it is a node which is not in the configuration.
    UnknownNode,
    /// The peer's data directory is not the one that this site knows: it was wiped or replaced.
    OtherIncarnation,
    /// The two nodes are configured with different segment sizes.
    SegmentSize,
    /// The two nodes are configured with different longest election timeouts. A leader would count
    /// on a follower for longer than that refuses its vote to others.
    LeaseLength,
    /// The answering node is not part of a site yet.
    NoSiteYet,
    /// The certificate of the peer is not that of the node which it says it is.
    OtherCertificate,
}

impl Refusal {
    /// The name of the reason.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFulmar => "not-fulmar",
            Self::Version => "protocol-version",
            Self::OtherSite => "other-site",
            Self::OtherNode => "other-node",
            Self::UnknownNode => "unknown-node",
            Self::OtherIncarnation => "other-incarnation",
            Self::SegmentSize => "segment-size",
            Self::LeaseLength => "lease-length",
            Self::NoSiteYet => NO_SITE_YET,
            Self::OtherCertificate => "certificate-of-another-node",
        }
    }
}

/// A vote as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireVote {
    term: Term,
    voted_for: NodeId,
    committed: bool,
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        let saved = vote_to_store(vote);
        Self { term: saved.term, voted_for: saved.voted_for, committed: saved.committed }
    }
}

impl WireVote {
    pub(crate) fn to_vote(self) -> Vote {
        vote_from_store(&SavedVote {
            term: self.term,
            voted_for: self.voted_for,
            committed: self.committed,
        })
    }

    /// The term of the vote.
    pub fn term(self) -> Term {
        self.term
    }
}

/// A request for a vote, or the question whether one would be granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// Only ask; nothing is promised (pre-vote, Ongaro 2014, section 9.6).
    pub pre_vote: bool,
    /// The vote asked for.
    pub vote: WireVote,
    /// The last entry of the candidate.
    pub last: Option<LogPosition>,
    /// The leader asked for this election itself.
    pub transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAnswer {
    /// The vote of the answering node.
    pub vote: WireVote,
    /// Whether it was granted.
    pub granted: bool,
    /// The last entry of the answering node.
    pub last: Option<LogPosition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EntryHead {
    kind: u8,
    term: Term,
    claim: u64,
    len: u32,
}

/// Entries, or a heartbeat. The payloads are the body, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendHead {
    vote: WireVote,
    previous: Option<LogPosition>,
    committed: Option<LogPosition>,
    first_index: LogIndex,
    entries: Vec<EntryHead>,
}

/// The answer to an append, with what the answering node can still take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendAnswer {
    /// The room of the answering node.
    pub room: RoomReport,
    /// What became of the append.
    pub outcome: AppendOutcome,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// Everything up to here is flushed.
    Flushed(Option<LogPosition>),
    /// The entry before the first one is not there.
    Conflict(LogPosition),
    /// A higher vote is known.
    HigherVote(WireVote),
    /// The disk has no room for the entries; they were not looked at.
    NoRoom,
}

/// Transfer of leadership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The vote of the leader that steps down.
    pub from: WireVote,
    /// Who is to lead.
    pub to: NodeId,
    /// What it must have flushed.
    pub last: Option<LogPosition>,
}

/// A sealed segment on offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentOffer {
    /// Its first index.
    pub base: LogIndex,
    /// Its last entry.
    pub last: LogPosition,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Hash of its bytes.
    pub hash: u128,
}

/// What a leader has for a node behind its purge point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The vote of the leader.
    pub vote: WireVote,
    /// The last entry of the snapshot.
    pub snapshot: LogPosition,
    /// The size of the snapshot in bytes.
    pub snapshot_bytes: u64,
    /// Every sealed segment up to there.
    pub segments: Vec<SegmentOffer>,
}

/// What the other node wants of an [`Offer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// First indexes of the segments that it has not, and how many bytes of each it has already.
    pub segments: Vec<(LogIndex, u64)>,
}

/// What a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkOf {
    /// The segment with this first index.
    Segment(LogIndex),
    /// The snapshot of the current offer.
    Snapshot,
}

/// Some bytes; they are the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// What they belong to.
    pub of: ChunkOf,
    /// Where they begin.
    pub at: u64,
    /// Whether the segment or snapshot is complete with them.
    pub last: bool,
}

/// The answer to [`Chunk`] and other orders: done, or the reason why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Empty if it was done.
    pub problem: Option<String>,
}

/// Put everything into place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// The vote of the leader.
    pub vote: WireVote,
    /// The last entry of the snapshot.
    pub snapshot: LogPosition,
}

/// The answer to [`Install`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Installed {
    /// Not yet. Said again and again, so that silence means that the node is gone.
    StillAtIt,
    /// It is over. The vote of the answering node.
    Over(WireVote),
    /// There is no space for it now. Nothing has changed, and what was shipped is kept.
    NoSpace,
}

/// Who a node is, asked for before there is a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The node.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The site it belongs to, if it was initialised.
    pub site: Option<SiteId>,
    /// The lives of all nodes of that site, as it knows them.
    pub known: Vec<(NodeId, Incarnation)>,
}

/// Where a node stands that asks to take part again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// The asked node does not lead; this one may.
    NotLeader(Option<NodeId>),
    /// Not yet, and why.
    Wait(String),
    /// It takes entries and has no vote.
    Learner {
        /// The site.
        site: SiteId,
        /// The lives of the nodes that take part.
        known: Vec<(NodeId, Incarnation)>,
    },
    /// It has a vote.
    Voter,
}

fn optional(id: Option<&LogId>) -> Option<LogPosition> {
    id.map(position)
}

/// Splits an append into head and payloads.
pub(crate) fn append_to_wire(
    request: AppendEntriesRequest<TypeConfig>,
) -> (AppendHead, Vec<Bytes>) {
    let mut bodies = Vec::with_capacity(request.entries.len());
    let mut entries = Vec::with_capacity(request.entries.len());
    let first_index = LogIndex(request.prev_log_id.as_ref().map_or(0, |id| id.index() + 1));
    for (at, entry) in request.entries.into_iter().enumerate() {
        let entry = crate::types::entry_to_store(entry);
        assert_eq!(
            entry.position.index.get(),
            first_index.get() + at as u64,
            "entries are consecutive"
        );
        entries.push(EntryHead {
            kind: entry.kind as u8,
            term: entry.position.term,
            claim: entry.claim,
            len: u32::try_from(entry.payload.len()).expect("a payload is a few MiB at most"),
        });
        if !entry.payload.is_empty() {
            bodies.push(entry.payload);
        }
    }
    let head = AppendHead {
        vote: WireVote::from(&request.vote),
        previous: optional(request.prev_log_id.as_ref()),
        committed: optional(request.leader_commit.as_ref()),
        first_index,
        entries,
    };
    (head, bodies)
}

/// Puts an append together again. The payloads share the memory of the frame.
pub(crate) fn append_from_wire(frame: Frame) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let head: AppendHead = decode(&frame.head)?;
    let expected = LogIndex(head.previous.map_or(0, |previous| previous.index.get() + 1));
    if head.first_index != expected {
        return Err(invalid("entries do not follow the entry before them".to_owned()));
    }
    let mut body = frame.body;
    let mut entries = Vec::with_capacity(head.entries.len());
    let mut index = head.first_index;
    for entry in head.entries {
        let len = entry.len as usize;
        if len > body.len() || len > ENTRY_BYTES_MAX {
            return Err(invalid(format!("entry {index} is longer than its message")));
        }
        let kind = EntryKind::from_byte(entry.kind)
            .ok_or_else(|| invalid(format!("entry {index} is of unknown kind {}", entry.kind)))?;
        entries.push(crate::types::entry_from_store(LogEntry {
            position: LogPosition { term: entry.term, index },
            kind,
            claim: entry.claim,
            payload: body.split_to(len),
        })?);
        index = index.next();
    }
    if !body.is_empty() {
        return Err(invalid("a message has payload bytes left over".to_owned()));
    }
    Ok(AppendEntriesRequest {
        vote: head.vote.to_vote(),
        prev_log_id: head.previous.map(log_id),
        leader_commit: head.committed.map(log_id),
        entries,
    })
}

pub(crate) fn outcome_to_wire(result: StreamAppendResult<TypeConfig>) -> AppendOutcome {
    match result {
        Ok(flushed) => AppendOutcome::Flushed(optional(flushed.as_ref())),
        Err(StreamAppendError::Conflict(id)) => AppendOutcome::Conflict(position(&id)),
        Err(StreamAppendError::HigherVote(vote)) => {
            AppendOutcome::HigherVote(WireVote::from(&vote))
        }
    }
}

/// A peer has no room for entries on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no room on the disk of the peer")]
pub struct NoRoom;

pub(crate) fn outcome_from_wire(
    outcome: AppendOutcome,
) -> Result<StreamAppendResult<TypeConfig>, NoRoom> {
    Ok(match outcome {
        AppendOutcome::Flushed(flushed) => Ok(flushed.map(log_id)),
        AppendOutcome::Conflict(position) => Err(StreamAppendError::Conflict(log_id(position))),
        AppendOutcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.to_vote())),
        AppendOutcome::NoRoom => return Err(NoRoom),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, LeaderId, Proposal};
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;
    use openraft::vote::RaftLeaderId;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, NodeId(1)).to_committed(), index)
    }

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let normal = |bytes: &'static [u8]| {
            EntryPayload::Normal(Proposal { claim: 4, payload: Bytes::from_static(bytes) })
        };
        AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId::new(3, NodeId(2)), committed: true },
            prev_log_id: Some(id(2, 6)),
            leader_commit: Some(id(2, 5)),
            entries: vec![
                Entry::new(id(3, 7), EntryPayload::Blank),
                Entry::new(id(3, 8), normal(b"eight")),
                Entry::new(id(3, 9), normal(b"nine")),
            ],
        }
    }

    fn frame(request: AppendEntriesRequest<TypeConfig>) -> Frame {
        let (head, body) = append_to_wire(request);
        Frame { kind: kind::APPEND, head: encode(&head).into(), body: body.concat().into() }
    }

    #[test]
    fn an_append_reads_back() {
        let back = append_from_wire(frame(request())).expect("good");
        assert_eq!(format!("{back:?}"), format!("{:?}", request()));
        assert_eq!(back.entries[1].payload, request().entries[1].payload);
    }

    #[test]
    fn payloads_that_do_not_match_the_head_are_refused() {
        let mut short = frame(request());
        short.body.truncate(3);
        assert!(append_from_wire(short).is_err());
        let mut long = frame(request());
        long.body = [&long.body[..], b"x"].concat().into();
        assert!(append_from_wire(long).is_err());
        let mut garbage = frame(request());
        garbage.head = Bytes::from(vec![0xff; 40]);
        assert!(append_from_wire(garbage).is_err());
    }

    #[test]
    fn a_claimed_number_of_entries_allocates_nothing() {
        // The count of a vector is a varint; 0xfd announces a u64 behind it.
        let mut head = encode(&AppendHead {
            vote: WireVote { term: Term(1), voted_for: NodeId(1), committed: true },
            previous: None,
            committed: None,
            first_index: LogIndex(0),
            entries: vec![],
        });
        head.pop();
        head.extend_from_slice(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        let frame = Frame { kind: kind::APPEND, head: head.into(), body: Bytes::new() };
        assert!(append_from_wire(frame).is_err());
    }
}

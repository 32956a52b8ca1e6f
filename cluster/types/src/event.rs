//! What happens to a node, in one vocabulary: it feeds tracing, the trace of the simulator, its
//! checks, and later the flight recorder.
//!
//! Invariants: an event is a fact that has already happened (past tense); it is plain data and
//! holds no reference to the code that reports it. Reporting an event never changes what the node
//! does.

use crate::{
    ExitCode, LogIndex, LogPosition, NodeId, Offset, PartitionIndex, Probe, Term, TopicId,
};
use std::io::ErrorKind;
use std::net::SocketAddr;

/// Why a node that is not part of a site yet refuses its peers: part of every first start.
pub const NO_SITE_YET: &str = "no-site-yet";

/// The part that a node plays in its Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Neither votes nor counts, until it has caught up.
    Learner,
    /// Takes entries from the leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Proposes entries.
    Leader,
}

/// Some neighbouring records of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRange {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first.
    pub from: Offset,
    /// Where they end.
    pub to: Offset,
    /// Behind them more was there that was not read.
    pub has_more: bool,
}

/// What the log says of one epoch of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedEpoch {
    /// The pipeline.
    pub pipeline: String,
    /// The number of the owner that committed it.
    pub fence: u64,
    /// Which epoch it is, from 1.
    pub epoch: u64,
    /// The age of the site at its end, in milliseconds.
    pub age_ms: u64,
    /// Hash of all outputs.
    pub hash: [u8; 16],
    /// How many batches they are.
    pub appends: u32,
    /// What was read, in canonical order; and partitions of which nothing was, though something was there.
    pub ranges: Vec<RecordRange>,
}

/// A fact about one node. The reporter adds which node, and when.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The node opened its store and recovered its log.
    Recovered {
        /// The last entry that was found, `None` for an empty log.
        last: Option<LogPosition>,
        /// The last entry that the newest snapshot covers, `None` without one. Power may have gone
        /// between its installation and the report of that.
        snapshot: Option<LogPosition>,
        /// Bytes cut off behind the last entry.
        cut_bytes: u64,
    },
    /// The vote that the node found on its disk when it opened its store.
    VoteRecovered {
        /// The term voted in; 0 if it never voted.
        term: Term,
        /// The candidate, or the leader; `None` if it never voted.
        voted_for: Option<NodeId>,
        /// Whether a majority had granted this vote.
        committed: bool,
    },
    /// The node is ready to serve.
    Ready,
    /// The role, term or known leader changed.
    RoleChanged {
        /// The new role.
        role: Role,
        /// The current term.
        term: Term,
        /// The leader of that term, where it is known.
        leader: Option<NodeId>,
    },
    /// A vote became durable.
    VoteSaved {
        /// The term voted in.
        term: Term,
        /// The candidate, or the leader.
        voted_for: NodeId,
        /// Whether a majority has granted this vote.
        committed: bool,
    },
    /// The lease held: the node may answer a read as the leader of this term.
    LeadProved {
        /// The term that it leads.
        term: Term,
    },
    /// The lease did not hold: the node refused a read that it had taken as the leader of this term.
    /// Whether somebody else leads by then is more than it knows.
    ReadRefused {
        /// The term that it leads, or led when it took the read.
        term: Term,
    },
    /// The node told a client which topics there are, as one that knows all of them.
    TopicsTold {
        /// The last entry that it had applied.
        applied: LogPosition,
    },
    /// An entry was added to the log; it is not flushed yet.
    Appended {
        /// Its place.
        position: LogPosition,
        /// xxh3 hash of its payload.
        content: u64,
    },
    /// All entries up to here are flushed on this node.
    Flushed {
        /// The last of them.
        last: LogPosition,
        /// How many entries the flush covered.
        entries: u32,
        /// How many bytes were written for them.
        bytes: u64,
    },
    /// Entries from here on are about to be removed. A crash before [`Event::Truncated`] leaves all
    /// of them, some, or none.
    Truncating {
        /// The first that goes.
        from: LogIndex,
    },
    /// Entries from here on were removed because the leader has others.
    Truncated {
        /// The first that was removed.
        from: LogIndex,
    },
    /// The Raft floor moved; no data was deleted.
    Purged {
        /// The last entry below the floor.
        to: LogPosition,
    },
    /// An entry was applied to the state machine.
    Applied {
        /// Its place.
        position: LogPosition,
        /// xxh3 hash of its payload.
        content: u64,
        /// Hash of the whole state after it, of all sections.
        state: u128,
    },
    /// A snapshot became durable.
    SnapshotSaved {
        /// The last entry that it covers.
        last: LogPosition,
        /// Hash of the state in it.
        state: u128,
    },
    /// A segment was sealed: its footer is durable and it will not change again.
    SegmentSealed {
        /// The first index in it.
        base: LogIndex,
        /// The last index in it.
        last: LogIndex,
        /// Hash of its bytes, the same on every node.
        hash: u128,
    },
    /// A snapshot and the segments below it, taken from a peer, were put into place; by recovery,
    /// where a crash had interrupted it.
    SnapshotInstalled {
        /// The last entry that it covers.
        last: LogPosition,
        /// How many segments came over the network for it.
        segments: u32,
        /// Whether the entries that were behind it are still there; else the log ends with it.
        tail_kept: bool,
    },
    /// A segment came from a peer, whole, and its hash was verified; it is not in place yet.
    SegmentReceived {
        /// The first index in it.
        base: LogIndex,
    },
    /// The room for records on this node ran low, or there is enough of it again.
    SpaceChanged {
        /// Whether less than the reserve is left.
        low: bool,
        /// Bytes that the log can take without new space from the file system.
        ready_bytes: u64,
        /// Bytes for which the file system has space beyond that.
        more_bytes: u64,
    },
    /// A peer connection was refused at the handshake.
    PeerRefused {
        /// The node that the peer says it is, where it got that far.
        peer: Option<NodeId>,
        /// The name of the reason.
        reason: &'static str,
    },
    /// A connection came to nothing because one side does not trust the certificate of the other.
    Distrusted {
        /// Where the other side is.
        address: SocketAddr,
        /// The name of the reason.
        reason: &'static str,
        /// Whether it is the other side that does not trust this one.
        by_peer: bool,
    },
    /// A peer could not be reached for a while, and still cannot. Reported with each attempt.
    PeerUnreachable {
        /// The node.
        peer: NodeId,
        /// Where it should be.
        address: SocketAddr,
        /// What became of the attempt.
        error: ErrorKind,
    },
    /// A peer that could not be reached answers again.
    PeerReached {
        /// The node.
        peer: NodeId,
    },
    /// The node, whose directory was empty when the site existed already, has its vote back.
    Rejoined,
    /// A link to another site carries records.
    LinkUp {
        /// Its name.
        link: String,
    },
    /// It does not any more.
    LinkDown {
        /// Its name.
        link: String,
        /// The name of the reason.
        reason: &'static str,
    },
    /// This site dialled the other one of a link, and one of the two refused the other.
    LinkRefused {
        /// Its name.
        link: String,
        /// The name of the reason.
        reason: &'static str,
        /// Whether it was the other site that refused this one.
        by_peer: bool,
    },
    /// No place that a link names for the other site could be reached. Reported with each round.
    LinkUnreachable {
        /// Its name.
        link: String,
        /// What became of the last attempt.
        error: ErrorKind,
    },
    /// Somebody dialled this site, and was refused.
    SiteRefused {
        /// Where he is.
        address: SocketAddr,
        /// The site that he says he is of.
        site: String,
        /// The name of the reason.
        reason: &'static str,
    },
    /// This site was put back to an older copy of itself, as the other site of a link knows: nothing passes until somebody
    /// resumes that.
    SitePutBack {
        /// The name of the link.
        link: String,
    },
    /// A mirror and its origin differ before an offset: nothing more passes.
    LinkForked {
        /// The topic on this site.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Where the mirror is.
        offset: Offset,
    },
    /// What begins at an offset of a topic of this site is written to a connection of a link.
    LinkShipped {
        /// The number of the definition of the link.
        link: u64,
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Where the batch begins, or the gap.
        from: Offset,
    },
    /// The other site of a link says that it has everything of a topic of this one before an offset: at the
    /// beginning of a session, and when it has committed more.
    LinkConfirmed {
        /// The number of the definition of the link.
        link: u64,
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Where it goes on.
        offset: Offset,
    },
    /// That is in the log of this site from here on, as this node has applied it.
    LinkNoted {
        /// The number of the definition of the link.
        link: u64,
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Where the other site goes on.
        offset: Offset,
    },
    /// What begins at an offset of a mirror has come over a link, and is about to be proposed.
    LinkReceived {
        /// The mirror.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
        /// Where the batch begins, or the gap.
        from: Offset,
    },
    /// From here on this node knows who owns a pipeline.
    PipelineOwned {
        /// Its name.
        pipeline: String,
        /// Who runs it; nobody, if `None`.
        owner: Option<NodeId>,
        /// His number: whatever acts under another one is refused.
        fence: u64,
    },
    /// An epoch of a pipeline was applied.
    EpochCommitted(Box<CommittedEpoch>),
    /// A rare state was reached.
    Probe(Probe),
    /// A queue was measured; the simulator checks that it never exceeds its bound.
    QueueDepth {
        /// The name of the queue.
        queue: &'static str,
        /// Items or bytes in it.
        depth: u64,
        /// Its bound, in the same unit.
        bound: u64,
    },
    /// The process ends.
    Fatal {
        /// Why.
        code: ExitCode,
        /// For people: what happened, which file, what to do.
        message: String,
    },
}

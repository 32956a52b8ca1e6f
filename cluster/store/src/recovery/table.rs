//! The decision table of recovery: what was observed -> what is done. Pure; a test per row.
//!
//! The rule behind every row: a power cut can only have hurt what was not confirmed, and what was
//! not confirmed may be cut. Everything else that does not read as it was written has rotted or was
//! lost; it may have been acknowledged, so the node stops, names the file and deletes nothing.
//!
//! | what is observed | verdict |
//! |---|---|
//! | good frames, then zeros or the end of the file | whole |
//! | good frames, then a frame of an earlier life of the file | whole (and a probe) |
//! | good frames, then a sector that cannot be read | cut there: a part of its block could not be written |
//! | a block other than its copy in a mark | read as the copy, and written back (and a probe) |
//! | a bad frame at or above the flush mark, with or without good ones behind it | cut there |
//! | a bad frame below the flush mark | stop: it was flushed |
//! | a bad frame in a segment that has a successor | stop: it was flushed before the successor was named |
//! | a good frame at another place, index or chain, below the mark | stop: misplaced block |
//! | no good flush mark | stop: only one of the two slots is ever in flight |
//! | the mark disagrees with the frames below it | stop: another history |
//! | a cut at or below the newest snapshot | stop |
//! | one vote slot bad | the other one; the bad one is written again |
//! | both vote slots bad, or no vote file | stop: the node could vote twice |
//! | a named segment is not there | stop: lost |
//! | trailer, length or footer of a sealed segment is bad | stop |
//! | the newest snapshot bad, an older one good | the older one, if the log reaches back to it |
//! | no good snapshot | an empty state, if the log reaches back to its first entry; else stop |
//! | identity, manifest or `life` bad, or gone where there is a log | stop |
//! | no identity, and `life` says that there was one | stop: what this node promised is lost |
//!
//! What remains: rot in the last group that was flushed, on a node that lost power or its process
//! within a second of it (after that, or a clean stop, a mark covers it), looks like a torn group
//! and is cut; the other nodes have what was acknowledged. What a frame claims to be committed does not help: a
//! good frame claims nothing above itself, and what a torn group claims the other nodes may have
//! committed before this one had flushed it.

use crate::format::frame::{Chain, FrameError};
use crate::format::mark::FlushMark;
use crate::format::vote::VoteSlot;
use fulmar_types::{LogIndex, LogPosition};
use thiserror::Error;

/// Why a node stops rather than guess.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Stop {
    #[error("{0}, below the place up to which the file was flushed")]
    FlushedFrame(FrameError),
    #[error("{0}, in a segment that was completed before the next one began")]
    CompletedFrame(FrameError),
    #[error("neither flush mark is readable")]
    NoMark,
    #[error("the frames below the flush mark are not the ones that were flushed")]
    MarkDisagrees,
    #[error("the next segment does not follow from its last frame")]
    SuccessorDisagrees,
    #[error("it ends before entry {next}, and the newest snapshot covers {covered}")]
    SnapshotBeyondCut { next: LogIndex, covered: LogIndex },
    #[error("neither slot of the vote is readable")]
    Vote,
    #[error("it is missing, so what this node voted is not known")]
    VoteMissing,
    #[error("no snapshot is readable, and entries before {0} were removed")]
    NoSnapshot(LogIndex),
    #[error("the newest readable snapshot ends at {at}, and entries up to {removed} were removed")]
    SnapshotTooOld { at: LogIndex, removed: LogIndex },
}

/// What lies behind the last good frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Zeros, or nothing.
    Zeros,
    /// No frame of this life of the file.
    Stale(FrameError),
    /// A frame of this life that is torn or misplaced.
    Bad(FrameError),
    /// The segment went as far as its successor says.
    Complete,
}

/// What a scan of an unsealed segment saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailSeen {
    /// Where the good frames end.
    pub end: u64,
    /// The index that would come next.
    pub next: LogIndex,
    /// What lies there.
    pub behind: Behind,
    /// The end of the last frame of this life, or of the last unreadable sector, that was found
    /// further behind.
    pub remnant_end: Option<u64>,
    /// The better flush mark.
    pub mark: Option<FlushMark>,
    /// The chain of the good frames at the place that the mark names, if one ends there.
    pub chain_at_mark: Option<Chain>,
    /// The first index of the segment that follows, if one does.
    pub successor: Option<LogIndex>,
    /// Whether that segment's header continues this one.
    pub successor_agrees: bool,
    /// The last entry of the newest good snapshot.
    pub snapshot: Option<LogPosition>,
}

/// What is done about an unsealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TailVerdict {
    /// Every frame that is there counts.
    Whole,
    /// The last group was torn: it ends here, and what lies behind is wiped up to `wipe_to`.
    Cut { wipe_to: u64 },
    /// Stop.
    Stop(Stop),
}

/// Judges a segment that is not sealed.
pub(crate) fn judge_tail(seen: &TailSeen) -> TailVerdict {
    use TailVerdict::Stop as S;
    if let Some(successor) = seen.successor {
        return match seen.behind {
            Behind::Complete if seen.successor_agrees && seen.next == successor => {
                TailVerdict::Whole
            }
            Behind::Complete => S(Stop::SuccessorDisagrees),
            Behind::Bad(error) | Behind::Stale(error) => S(Stop::CompletedFrame(error)),
            Behind::Zeros => S(Stop::CompletedFrame(FrameError::NoHeader)),
        };
    }
    let Some(mark) = seen.mark else { return S(Stop::NoMark) };
    if seen.end < mark.flushed {
        return S(Stop::FlushedFrame(match seen.behind {
            Behind::Bad(error) | Behind::Stale(error) => error,
            Behind::Zeros | Behind::Complete => FrameError::NoHeader,
        }));
    }
    if seen.chain_at_mark != Some(mark.chain) {
        return S(Stop::MarkDisagrees);
    }
    if let Some(snapshot) = seen.snapshot
        && snapshot.index >= seen.next
    {
        return S(Stop::SnapshotBeyondCut { next: seen.next, covered: snapshot.index });
    }
    match (seen.behind, seen.remnant_end) {
        (Behind::Bad(_), remnant) => TailVerdict::Cut {
            wipe_to: remnant.unwrap_or(seen.end).max(seen.end + crate::format::SECTOR),
        },
        (_, Some(remnant)) => TailVerdict::Cut { wipe_to: remnant.max(seen.end) },
        (_, None) => TailVerdict::Whole,
    }
}

/// What is done about the vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VoteVerdict {
    /// This is the vote; both slots say so.
    Use(VoteSlot),
    /// This is the vote; the slots are written again, because one does not say so.
    Repair(VoteSlot),
    /// Stop.
    Stop(Stop),
}

/// Judges the two slots of the vote; `None` for a slot that is not readable, no slots at all for a
/// file that is not there.
pub(crate) fn judge_vote(slots: Option<[Option<VoteSlot>; 2]>) -> VoteVerdict {
    match slots {
        None => VoteVerdict::Stop(Stop::VoteMissing),
        Some([None, None]) => VoteVerdict::Stop(Stop::Vote),
        Some([Some(slot), None] | [None, Some(slot)]) => VoteVerdict::Repair(slot),
        Some([Some(a), Some(b)]) if a == b => VoteVerdict::Use(a),
        Some([Some(a), Some(b)]) => {
            VoteVerdict::Repair(if a.generation >= b.generation { a } else { b })
        }
    }
}

/// Where the state machine begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotVerdict {
    /// From the newest good snapshot, or from nothing; the floor must not be above it.
    Use,
    /// Stop.
    Stop(Stop),
}

/// Judges the newest good snapshot. `removed` is the last index that was removed from the log.
pub(crate) fn judge_snapshot(
    newest: Option<LogPosition>,
    removed: Option<LogIndex>,
) -> SnapshotVerdict {
    match (newest, removed) {
        (_, None) => SnapshotVerdict::Use,
        (None, Some(removed)) => SnapshotVerdict::Stop(Stop::NoSnapshot(removed.next())),
        (Some(at), Some(removed)) if at.index < removed => {
            SnapshotVerdict::Stop(Stop::SnapshotTooOld { at: at.index, removed })
        }
        (Some(_), Some(_)) => SnapshotVerdict::Use,
    }
}

/// What a small file of a directory looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SmallFile {
    /// It is not there.
    Missing,
    /// It is there and cannot be believed.
    Damaged,
    /// It is there.
    Good,
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryVerdict {
    /// Nothing of a node is in it, or what an interrupted first initialisation left.
    Empty,
    /// A node's.
    Node,
    /// Stop: this file is damaged.
    Damaged(&'static str),
    /// Stop: this file was lost.
    Lost(&'static str),
}

/// The small files that make a directory a node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SmallFiles {
    pub identity: SmallFile,
    pub manifest: SmallFile,
    pub life: SmallFile,
    /// Whether a good `life` says that the identity was there.
    pub initialised: bool,
}

/// Judges a directory. `life` is written first and the identity last, so a log that holds anything
/// without an identity has lost it, and an identity without a `life` has lost that one: what is in
/// it (whom this node has met, whether it has a vote) must not be made up anew. Once the identity
/// is there `life` says so, for the case that everything else is gone. `has_entries`: a segment
/// with a frame, or a sealed one, or a snapshot.
pub(crate) fn judge_directory(seen: &SmallFiles, has_entries: bool) -> DirectoryVerdict {
    use SmallFile::{Damaged, Good, Missing};
    match (seen.identity, has_entries) {
        (Damaged, _) => return DirectoryVerdict::Damaged("identity"),
        (Missing, true) => return DirectoryVerdict::Lost("identity"),
        (Missing, false) if seen.life == Damaged => return DirectoryVerdict::Damaged("life"),
        (Missing, false) if seen.initialised => return DirectoryVerdict::Lost("identity"),
        (Missing, false) => return DirectoryVerdict::Empty,
        (Good, _) => {}
    }
    for (name, file) in [("manifest", seen.manifest), ("life", seen.life)] {
        match file {
            Damaged => return DirectoryVerdict::Damaged(name),
            Missing => return DirectoryVerdict::Lost(name),
            Good => {}
        }
    }
    DirectoryVerdict::Node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::vote::SavedVote;
    use fulmar_types::{NodeId, Term};

    fn mark(flushed: u64) -> FlushMark {
        FlushMark { base: LogIndex(10), flushed, chain: Chain(1), sequence: 4, end: flushed }
    }

    /// Ten good frames, the last group of which began at 6000.
    fn good() -> TailSeen {
        TailSeen {
            end: 8192,
            next: LogIndex(20),
            behind: Behind::Zeros,
            remnant_end: None,
            mark: Some(mark(6144)),
            chain_at_mark: Some(Chain(1)),
            successor: None,
            successor_agrees: false,
            snapshot: Some(LogPosition { term: Term(1), index: LogIndex(9) }),
        }
    }

    fn judge(change: impl FnOnce(&mut TailSeen)) -> TailVerdict {
        let mut seen = good();
        change(&mut seen);
        judge_tail(&seen)
    }

    #[test]
    fn row_whole() {
        assert_eq!(judge(|_| {}), TailVerdict::Whole);
    }

    #[test]
    fn row_stale_frame_of_an_earlier_life() {
        let stale = Behind::Stale(FrameError::OtherBase(LogIndex(3)));
        assert_eq!(judge(|s| s.behind = stale), TailVerdict::Whole);
    }

    #[test]
    fn row_torn_tail() {
        let cut = |end, wipe_to| {
            assert_eq!(
                judge(|s| {
                    s.behind = Behind::Bad(FrameError::Payload);
                    s.remnant_end = end;
                }),
                TailVerdict::Cut { wipe_to }
            );
        };
        cut(None, 8192 + 512);
        cut(Some(10240), 10240);
    }

    #[test]
    fn row_torn_group_whose_first_frame_never_arrived() {
        assert_eq!(judge(|s| s.remnant_end = Some(10240)), TailVerdict::Cut { wipe_to: 10240 });
    }

    #[test]
    fn row_rot_in_the_last_group_is_cut() {
        // The documented window: it cannot be told from a torn group.
        let verdict = judge(|s| {
            s.end = 6144;
            s.behind = Behind::Bad(FrameError::Payload);
            s.remnant_end = Some(8192);
        });
        assert_eq!(verdict, TailVerdict::Cut { wipe_to: 8192 });
    }

    #[test]
    fn row_rot_in_the_middle() {
        let verdict = judge(|s| {
            s.end = 5120;
            s.behind = Behind::Bad(FrameError::Payload);
            s.remnant_end = Some(8192);
        });
        assert_eq!(verdict, TailVerdict::Stop(Stop::FlushedFrame(FrameError::Payload)));
        let verdict = judge(|s| s.end = 5120);
        assert_eq!(verdict, TailVerdict::Stop(Stop::FlushedFrame(FrameError::NoHeader)));
    }

    #[test]
    fn row_rot_in_a_completed_segment() {
        let completed = |behind, agrees, next| {
            judge(|s| {
                s.successor = Some(LogIndex(20));
                s.behind = behind;
                s.successor_agrees = agrees;
                s.next = LogIndex(next);
                // A completed segment does not need its marks any more.
                s.mark = None;
            })
        };
        assert_eq!(completed(Behind::Complete, true, 20), TailVerdict::Whole);
        let stop = |error| TailVerdict::Stop(Stop::CompletedFrame(error));
        let bad = Behind::Bad(FrameError::Payload);
        assert_eq!(completed(bad, true, 18), stop(FrameError::Payload));
        assert_eq!(completed(Behind::Zeros, true, 18), stop(FrameError::NoHeader));
        let disagrees = TailVerdict::Stop(Stop::SuccessorDisagrees);
        assert_eq!(completed(Behind::Complete, false, 20), disagrees);
        assert_eq!(completed(Behind::Complete, true, 19), disagrees);
    }

    #[test]
    fn row_misplaced_block() {
        let error = FrameError::OtherPlace(4096);
        let verdict = judge(|s| {
            s.end = 5120;
            s.behind = Behind::Bad(error);
        });
        assert_eq!(verdict, TailVerdict::Stop(Stop::FlushedFrame(error)));
        // Frames that verify among themselves and are not what was flushed.
        let verdict = judge(|s| s.chain_at_mark = Some(Chain(2)));
        assert_eq!(verdict, TailVerdict::Stop(Stop::MarkDisagrees));
        let verdict = judge(|s| s.chain_at_mark = None);
        assert_eq!(verdict, TailVerdict::Stop(Stop::MarkDisagrees));
    }

    #[test]
    fn row_no_flush_mark() {
        assert_eq!(judge(|s| s.mark = None), TailVerdict::Stop(Stop::NoMark));
    }

    #[test]
    fn row_cut_below_the_newest_snapshot() {
        let verdict =
            judge(|s| s.snapshot = Some(LogPosition { term: Term(1), index: LogIndex(20) }));
        let stop = Stop::SnapshotBeyondCut { next: LogIndex(20), covered: LogIndex(20) };
        assert_eq!(verdict, TailVerdict::Stop(stop));
    }

    fn slot(generation: u64, term: u64) -> VoteSlot {
        let vote = SavedVote { term: Term(term), voted_for: NodeId(1), committed: false };
        VoteSlot { generation, vote: Some(vote) }
    }

    #[test]
    fn row_vote() {
        let (old, new) = (slot(3, 1), slot(4, 2));
        assert_eq!(judge_vote(Some([Some(new), Some(new)])), VoteVerdict::Use(new));
        // Torn between the two slots: the save was not confirmed, and its first slot counts.
        assert_eq!(judge_vote(Some([Some(new), Some(old)])), VoteVerdict::Repair(new));
        // One slot rotten or torn.
        assert_eq!(judge_vote(Some([None, Some(old)])), VoteVerdict::Repair(old));
        assert_eq!(judge_vote(Some([Some(new), None])), VoteVerdict::Repair(new));
        // Both, or the file itself.
        assert_eq!(judge_vote(Some([None, None])), VoteVerdict::Stop(Stop::Vote));
        assert_eq!(judge_vote(None), VoteVerdict::Stop(Stop::VoteMissing));
    }

    #[test]
    fn row_snapshot() {
        let at = |index| Some(LogPosition { term: Term(1), index: LogIndex(index) });
        let removed = |index| Some(LogIndex(index));
        assert_eq!(judge_snapshot(None, None), SnapshotVerdict::Use);
        assert_eq!(judge_snapshot(at(9), None), SnapshotVerdict::Use);
        assert_eq!(judge_snapshot(at(9), removed(9)), SnapshotVerdict::Use);
        assert_eq!(
            judge_snapshot(at(9), removed(19)),
            SnapshotVerdict::Stop(Stop::SnapshotTooOld { at: LogIndex(9), removed: LogIndex(19) })
        );
        assert_eq!(
            judge_snapshot(None, removed(9)),
            SnapshotVerdict::Stop(Stop::NoSnapshot(LogIndex(10)))
        );
    }

    #[test]
    fn row_identity_manifest_and_life() {
        use SmallFile::{Damaged, Good, Missing};
        let judge = |identity, manifest, life, has_entries| {
            let initialised = false;
            judge_directory(&SmallFiles { identity, manifest, life, initialised }, has_entries)
        };
        assert_eq!(judge(Missing, Missing, Missing, false), DirectoryVerdict::Empty);
        assert_eq!(judge(Missing, Good, Good, false), DirectoryVerdict::Empty);
        assert_eq!(judge(Missing, Good, Damaged, false), DirectoryVerdict::Damaged("life"));
        assert_eq!(judge(Missing, Damaged, Good, true), DirectoryVerdict::Lost("identity"));
        assert_eq!(judge(Damaged, Good, Good, false), DirectoryVerdict::Damaged("identity"));
        assert_eq!(judge(Good, Damaged, Good, false), DirectoryVerdict::Damaged("manifest"));
        assert_eq!(judge(Good, Missing, Good, false), DirectoryVerdict::Lost("manifest"));
        assert_eq!(judge(Good, Good, Damaged, true), DirectoryVerdict::Damaged("life"));
        assert_eq!(judge(Good, Good, Missing, true), DirectoryVerdict::Lost("life"));
        assert_eq!(judge(Good, Good, Good, true), DirectoryVerdict::Node);
    }

    #[test]
    fn row_everything_but_life_is_gone() {
        use SmallFile::{Good, Missing};
        let judge = |identity, manifest, initialised| {
            judge_directory(&SmallFiles { identity, manifest, life: Good, initialised }, false)
        };
        assert_eq!(judge(Missing, Missing, true), DirectoryVerdict::Lost("identity"));
        assert_eq!(judge(Missing, Good, true), DirectoryVerdict::Lost("identity"));
        // A crash between the identity and the flag.
        assert_eq!(judge(Good, Good, false), DirectoryVerdict::Node);
        assert_eq!(judge(Good, Good, true), DirectoryVerdict::Node);
        assert_eq!(judge(Missing, Good, false), DirectoryVerdict::Empty);
    }
}

//! One of the two slots of the file `vote`.
//!
//! ```text
//! file         0  slot 0, in a block of its own
//!           4096  slot 1
//!
//! slot         0  magic [u8; 8] = "FULMVOTE"
//!              8  version u32 = 1
//!             12  flags u32         1: there is a vote, 2: it is committed
//!             16  generation u64    counts the saves
//!             24  term u64
//!             32  voted_for u64
//!             40  crc u32           crc32c of bytes 0..40
//!             44  zeros to the end of the block
//! ```
//!
//! A slot is written as a whole block: one that a power cut left unreadable can be written in no
//! other way.
//!
//! Crash rule: a save writes and flushes slot 0, then slot 1; it is confirmed after both. So both
//! hold the confirmed vote at rest, a torn write leaves the other slot, and one rotten slot never
//! loses a vote.

use super::{finish_sector, open_sector};
use bytes::BufMut;
use fulmar_types::limits::BLOCK_BYTES;
use fulmar_types::{NodeId, Term};

const MAGIC: [u8; 8] = *b"FULMVOTE";
const VERSION: u32 = 1;
const BODY_BYTES: usize = 40;
const HAS_VOTE: u32 = 1;
const COMMITTED: u32 = 2;

/// Where the slots lie.
pub const VOTE_SLOTS_AT: [u64; 2] = [0, 4096];

/// Bytes of the file.
pub const VOTE_FILE_BYTES: usize = 8192;

/// A vote (Ongaro 2014, section 3.4: `currentTerm` and `votedFor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedVote {
    /// The term voted in.
    pub term: Term,
    /// The candidate, or the leader of the term.
    pub voted_for: NodeId,
    /// Whether a majority has granted it: `voted_for` is the leader.
    pub committed: bool,
}

/// What one slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteSlot {
    /// Counts the saves.
    pub generation: u64,
    /// The vote; `None` before the first one.
    pub vote: Option<SavedVote>,
}

impl VoteSlot {
    /// One block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        let flags =
            self.vote.map_or(0, |vote| HAS_VOTE | if vote.committed { COMMITTED } else { 0 });
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(flags);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.vote.map_or(0, |vote| vote.term.0));
        out.put_u64_le(self.vote.map_or(0, |vote| vote.voted_for.0));
        let mut out = finish_sector(out);
        out.resize(BLOCK_BYTES, 0);
        out
    }

    /// Reads a slot. `None` if it holds no undamaged vote of this version.
    pub fn decode(sector: &[u8]) -> Option<Self> {
        let mut reader = open_sector(sector, BODY_BYTES)?;
        let magic: [u8; 8] = reader.array()?;
        let (version, flags) = (reader.u32()?, reader.u32()?);
        let generation = reader.u64()?;
        let (term, voted_for) = (Term(reader.u64()?), NodeId(reader.u64()?));
        if magic != MAGIC || version != VERSION {
            return None;
        }
        let vote = |committed| Some(SavedVote { term, voted_for, committed });
        let vote = match flags {
            0 if term.0 == 0 && voted_for.0 == 0 => None,
            HAS_VOTE => vote(false),
            flags if flags == HAS_VOTE | COMMITTED => vote(true),
            _ => return None,
        };
        Some(Self { generation, vote })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::each_flipped;
    use super::*;
    use fulmar_types::limits::SECTOR_BYTES;

    #[test]
    fn slots_read_back_and_damage_is_refused() {
        let vote = |committed| Some(SavedVote { term: Term(4), voted_for: NodeId(2), committed });
        for vote in [None, vote(false), vote(true)] {
            let slot = VoteSlot { generation: 12, vote };
            let bytes = slot.encode();
            assert_eq!(VoteSlot::decode(&bytes), Some(slot));
            assert_eq!(bytes.len(), BLOCK_BYTES);
            for (bit, flipped) in each_flipped(&bytes[..SECTOR_BYTES]) {
                assert_eq!(VoteSlot::decode(&flipped), None, "bit {bit}");
            }
        }
    }
}

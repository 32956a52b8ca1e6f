//! A flush mark: up to where a segment was certainly flushed when a group was issued, and a copy of
//! the bytes that the next group puts at risk.
//!
//! ```text
//!   0  magic u32 = "MARK"
//!   4  version u32 = 2
//!   8  base index u64       of the segment
//!  16  flushed u64          every byte before this position was flushed
//!  24  chain u64            the chain there
//!  32  sequence u64         counts the marks of this life of the file
//!  40  end u64              where the frames end when the group is flushed
//!  48  tail crc u32         crc32c of the tail
//!  52  crc u32              crc32c of bytes 0..52
//!  56  zeros
//! 512  tail                 the last end % 4096 bytes before `end`: what of the block that `end` lies
//!   .                       in is used
//!   .  zeros up to 4096
//! ```
//!
//! A group begins where the one before it ended, mostly in the middle of a block. The file system
//! writes that block again, with frames in it that were flushed and perhaps acknowledged, and power
//! loss may leave all of it unreadable. So each mark carries what the block will hold when its group
//! is flushed: while the next group is under way, the mark before it lies untouched in the other
//! slot.
//!
//! ```text
//!              flushed   end
//! mark N          │ group N │
//! ────────┬───────┴─────────┼───┬──────────
//! block   │   B     ╎       │   │   B + 1        tail of mark N: from B + 0 or B + 1 up to `end`
//! ────────┴─────────────────┼───┴──────────
//! mark N + 1             flushed   end
//! ```
//!
//! Crash rule: a mark is written together with the group that follows `flushed`, into the slot that
//! the mark before did not use. So at most one slot is torn, and what the better of the two says
//! had been flushed before the mark was written. Its tail may be torn where the rest of it is not,
//! and has a checksum of its own. Marks are local to a node: both slots are zeros in a sealed file.

use super::{finish_sector, open_sector};
use crate::format::frame::Chain;
use bytes::{BufMut, Bytes};
use fulmar_types::LogIndex;
use fulmar_types::limits::{BLOCK_BYTES, SECTOR_BYTES};

const MAGIC: u32 = u32::from_le_bytes(*b"MARK");
const VERSION: u32 = 2;
const BODY_BYTES: usize = 52;

/// Where the two slots lie in a segment file, each in a block of its own.
pub const MARK_SLOTS_AT: [u64; 2] = [BLOCK, 2 * BLOCK];

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The beginning of the block that a position lies in, or ends at.
pub const fn block_of(position: u64) -> u64 {
    position - position % BLOCK
}

/// What is known to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushMark {
    /// The first index of the segment.
    pub base: LogIndex,
    /// Every byte of the file before this position was flushed.
    pub flushed: u64,
    /// The chain at that position.
    pub chain: Chain,
    /// Counts the marks of this life of the file.
    pub sequence: u64,
    /// Where the frames end when the group that came with the mark is flushed.
    pub end: u64,
}

impl FlushMark {
    /// Where this mark goes.
    pub const fn slot_at(&self) -> u64 {
        MARK_SLOTS_AT[(self.sequence % 2) as usize]
    }

    const fn tail_len(&self) -> usize {
        (self.end % BLOCK) as usize
    }

    /// One block, with the bytes from the border of a block up to `end`.
    ///
    /// # Panics
    /// If the tail is of another length, or does not fit behind the mark.
    pub fn encode(&self, tail: &[u8]) -> Vec<u8> {
        assert_eq!(
            tail.len(),
            self.tail_len(),
            "the tail goes from the border of a block to the end"
        );
        assert!(tail.len() <= BLOCK_BYTES - SECTOR_BYTES, "frames end at sectors");
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.flushed);
        out.put_u64_le(self.chain.0);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.end);
        out.put_u32_le(crc32c::crc32c(tail));
        assert_eq!(out.len(), BODY_BYTES, "a mark is as long as drawn");
        let mut out = finish_sector(out);
        out.extend_from_slice(tail);
        out.resize(BLOCK_BYTES, 0);
        out
    }

    /// Reads one slot. `None` if it holds no undamaged mark of this version; the tail is `None` if
    /// only that is damaged.
    pub fn decode(block: &Bytes) -> Option<(Self, Option<Bytes>)> {
        let mut reader = open_sector(block.get(..SECTOR_BYTES)?, BODY_BYTES)?;
        let (magic, version) = (reader.u32()?, reader.u32()?);
        let mark = Self {
            base: LogIndex(reader.u64()?),
            flushed: reader.u64()?,
            chain: Chain(reader.u64()?),
            sequence: reader.u64()?,
            end: reader.u64()?,
        };
        let tail_crc = reader.u32()?;
        let to = SECTOR_BYTES + mark.tail_len();
        let tail = (to <= block.len()).then(|| block.slice(SECTOR_BYTES..to));
        let tail = tail.filter(|tail| crc32c::crc32c(tail) == tail_crc);
        (magic == MAGIC && version == VERSION).then_some((mark, tail))
    }
}

/// Bytes that were flushed at a place, whatever the file says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCopy {
    /// The border of a block.
    pub at: u64,
    /// At most what fits into the block.
    pub bytes: Bytes,
}

/// What the marks of a segment say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The mark that says most: the newest undamaged one of this life of the file.
    pub best: Option<FlushMark>,
    /// Of the blocks that the groups of both marks have written to again, the later one last.
    pub copies: Vec<TailCopy>,
}

impl Marks {
    /// Reads both slots from the blocks in front of the frames.
    pub fn read(page: &Bytes, base: LogIndex) -> Self {
        let slot = |at: u64| {
            let at = usize::try_from(at).ok()?;
            let block =
                (at + BLOCK_BYTES <= page.len()).then(|| page.slice(at..at + BLOCK_BYTES))?;
            FlushMark::decode(&block).filter(|(mark, _)| mark.base == base)
        };
        let mut found: Vec<_> = MARK_SLOTS_AT.into_iter().filter_map(slot).collect();
        found.sort_by_key(|(mark, _)| mark.sequence);
        let best = found.last().map(|(mark, _)| *mark);
        // The older one speaks of the block in which the group of the newer one begins. If the log
        // was cut in between, it speaks of what is no more.
        let is_before = |mark: &FlushMark| best.is_some_and(|best| mark.end == best.flushed);
        let copies = found.into_iter().filter(|(mark, _)| Some(*mark) == best || is_before(mark));
        let copies = copies.filter_map(|(mark, tail)| {
            let bytes = tail.filter(|tail| !tail.is_empty())?;
            Some(TailCopy { at: block_of(mark.end), bytes })
        });
        Self { best, copies: copies.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::each_flipped;
    use super::*;

    fn mark(base: u64, sequence: u64) -> FlushMark {
        let flushed = 12_288 + sequence * 1_024;
        let (base, chain) = (LogIndex(base), Chain(5));
        FlushMark { base, flushed, chain, sequence, end: flushed + 1_024 }
    }

    fn tail(mark: &FlushMark) -> Vec<u8> {
        (block_of(mark.end)..mark.end).map(|at| (at / 512) as u8).collect()
    }

    fn page(marks: &[FlushMark]) -> Vec<u8> {
        let mut page = vec![0; 3 * BLOCK_BYTES];
        for mark in marks {
            let at = mark.slot_at() as usize;
            page[at..at + BLOCK_BYTES].copy_from_slice(&mark.encode(&tail(mark)));
        }
        page
    }

    fn best(page: Vec<u8>, base: u64) -> Option<FlushMark> {
        Marks::read(&page.into(), LogIndex(base)).best
    }

    fn copied(page: Vec<u8>, base: u64) -> Vec<(u64, usize)> {
        let copies = Marks::read(&page.into(), LogIndex(base)).copies;
        copies.iter().map(|copy| (copy.at, copy.bytes.len())).collect()
    }

    #[test]
    fn marks_read_back_and_damage_is_refused() {
        let mark = mark(7, 2);
        let bytes = mark.encode(&tail(&mark));
        let read = Some((mark, Some(tail(&mark).into())));
        assert_eq!(FlushMark::decode(&bytes.clone().into()), read);
        let used = SECTOR_BYTES + mark.tail_len();
        for (bit, flipped) in each_flipped(&bytes[..used]) {
            let mut flipped = flipped;
            flipped.resize(BLOCK_BYTES, 0);
            let expected = (bit / 8 >= SECTOR_BYTES).then_some((mark, None));
            assert_eq!(FlushMark::decode(&flipped.into()), expected, "bit {bit}");
        }
        assert_eq!(FlushMark::decode(&Bytes::from_static(&[0; BLOCK_BYTES])), None);
        assert_eq!(FlushMark::decode(&bytes[..512].to_vec().into()), Some((mark, None)));
        assert_eq!(FlushMark::decode(&bytes[..511].to_vec().into()), None);
    }

    #[test]
    fn the_newest_mark_of_this_life_counts() {
        assert_eq!(best(page(&[mark(7, 3), mark(7, 4)]), 7), Some(mark(7, 4)));
        assert_eq!(best(page(&[mark(7, 3), mark(2, 40)]), 7), Some(mark(7, 3)));
        assert_eq!(best(page(&[mark(2, 40)]), 7), None);
        let mut torn = page(&[mark(7, 3), mark(7, 4)]);
        torn[mark(7, 4).slot_at() as usize + 20] ^= 1;
        assert_eq!(best(torn, 7), Some(mark(7, 3)));
        assert_eq!(best(Vec::new(), 7), None);
    }

    #[test]
    fn both_marks_speak_of_what_their_groups_left() {
        // The third ends on the border of a block and has no tail.
        assert_eq!(copied(page(&[mark(7, 4), mark(7, 5)]), 7), [(16_384, 1_024), (16_384, 2_048)]);
        assert_eq!(copied(page(&[mark(7, 2), mark(7, 3)]), 7), [(12_288, 3_072)]);
        let mut torn = page(&[mark(7, 4), mark(7, 5)]);
        torn[mark(7, 5).slot_at() as usize + 600] ^= 1;
        assert_eq!(copied(torn, 7), [(16_384, 1_024)]);
        // What was there before a cut is no more.
        let cut = FlushMark { end: 16_896, flushed: 16_896, sequence: 6, ..mark(7, 5) };
        assert_eq!(copied(page(&[mark(7, 5), cut]), 7), [(16_384, 512)]);
    }
}

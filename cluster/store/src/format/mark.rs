//! A flush mark: up to where a segment was certainly flushed when a group was issued.
//!
//! ```text
//!   0  magic u32 = "MARK"
//!   4  version u32 = 1
//!   8  base index u64       of the segment
//!  16  flushed u64          every byte before this position was flushed
//!  24  chain u64            the chain there
//!  32  sequence u64         counts the marks of this life of the file
//!  40  crc u32              crc32c of bytes 0..40
//!  44  zeros
//! ```
//!
//! Crash rule: a mark is written together with the group that follows `flushed`, into the slot that
//! the mark before did not use. So at most one slot is torn, and what the better of the two says
//! had been flushed before the mark was written. Marks are local to a node: both slots are zeros in
//! a sealed file.

use super::{finish_sector, open_sector};
use crate::format::frame::Chain;
use bytes::BufMut;
use fulmar_types::LogIndex;
use fulmar_types::limits::SECTOR_BYTES;

const MAGIC: u32 = u32::from_le_bytes(*b"MARK");
const VERSION: u32 = 1;
const BODY_BYTES: usize = 40;

/// Where the two slots lie in a segment file.
pub const MARK_SLOTS_AT: [u64; 2] = [2 * SECTOR_BYTES as u64, 4 * SECTOR_BYTES as u64];

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
}

impl FlushMark {
    /// Where this mark goes.
    pub const fn slot_at(&self) -> u64 {
        MARK_SLOTS_AT[(self.sequence % 2) as usize]
    }

    /// One sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR_BYTES);
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.flushed);
        out.put_u64_le(self.chain.0);
        out.put_u64_le(self.sequence);
        finish_sector(out)
    }

    /// Reads one slot. `None` if it holds no undamaged mark of this version.
    pub fn decode(sector: &[u8]) -> Option<Self> {
        let mut reader = open_sector(sector, BODY_BYTES)?;
        let (magic, version) = (reader.u32()?, reader.u32()?);
        let mark = Self {
            base: LogIndex(reader.u64()?),
            flushed: reader.u64()?,
            chain: Chain(reader.u64()?),
            sequence: reader.u64()?,
        };
        (magic == MAGIC && version == VERSION).then_some(mark)
    }
}

/// The mark that says most: the newest undamaged one of this life of the file.
pub fn best(page: &[u8], base: LogIndex) -> Option<FlushMark> {
    MARK_SLOTS_AT
        .iter()
        .filter_map(|at| {
            let at = usize::try_from(*at).ok()?;
            FlushMark::decode(page.get(at..at + SECTOR_BYTES)?)
        })
        .filter(|mark| mark.base == base)
        .max_by_key(|mark| mark.sequence)
}

#[cfg(test)]
mod tests {
    use super::super::testing::each_flipped;
    use super::*;

    fn mark(base: u64, sequence: u64) -> FlushMark {
        FlushMark { base: LogIndex(base), flushed: 4096 + sequence, chain: Chain(5), sequence }
    }

    fn page(marks: &[FlushMark]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        for mark in marks {
            let at = mark.slot_at() as usize;
            page[at..at + 512].copy_from_slice(&mark.encode());
        }
        page
    }

    #[test]
    fn marks_read_back_and_damage_is_refused() {
        let bytes = mark(7, 3).encode();
        assert_eq!(FlushMark::decode(&bytes), Some(mark(7, 3)));
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(FlushMark::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn the_newest_mark_of_this_life_counts() {
        assert_eq!(best(&page(&[mark(7, 3), mark(7, 4)]), LogIndex(7)), Some(mark(7, 4)));
        assert_eq!(best(&page(&[mark(7, 3), mark(2, 40)]), LogIndex(7)), Some(mark(7, 3)));
        assert_eq!(best(&page(&[mark(2, 40)]), LogIndex(7)), None);
        let mut torn = page(&[mark(7, 3), mark(7, 4)]);
        torn[mark(7, 4).slot_at() as usize + 20] ^= 1;
        assert_eq!(best(&torn, LogIndex(7)), Some(mark(7, 3)));
        assert_eq!(best(&[], LogIndex(7)), None);
    }
}

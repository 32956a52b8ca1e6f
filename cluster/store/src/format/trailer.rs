//! The last sector of a sealed segment.
//!
//! ```text
//! sealed file  0  page                    marks zero
//!          12288  frames
//!              .  footer                  see `crate::footer`, padded with zeros to a sector
//!              .  trailer, one sector; the file ends here
//!
//! trailer      0  magic [u8; 8] = "FULMTRLR"
//!              8  version u32 = 1
//!             12  zero u32
//!             16  base index u64
//!             24  frames end u64          where the footer begins
//!             32  footer len u64          without its padding
//!             40  last index u64
//!             48  last term u64
//!             56  chain u64               after the last frame
//!             64  hash u128               xxh3-128 of every byte of the file before the trailer
//!             80  crc u32                 crc32c of bytes 0..80
//!             84  zeros
//! ```
//!
//! Crash rule: a segment counts as sealed once the manifest names it; until then the trailer and
//! everything behind the frames is ignored and written again.

use super::{finish_sector, open_sector, to_sectors};
use crate::format::frame::Chain;
use crate::format::header::FRAMES_AT;
use bytes::BufMut;
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{LogIndex, LogPosition, Term};

const MAGIC: [u8; 8] = *b"FULMTRLR";
const VERSION: u32 = 1;
const BODY_BYTES: usize = 80;

/// What a sealed segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The index of the first frame.
    pub base: LogIndex,
    /// Where the frames end and the footer begins.
    pub frames_end: u64,
    /// Bytes of the footer, without its padding.
    pub footer_len: u64,
    /// The last frame.
    pub last: LogPosition,
    /// The chain after it.
    pub chain: Chain,
    /// xxh3-128 of every byte before the trailer.
    pub hash: u128,
}

impl Trailer {
    /// Where the trailer lies.
    pub const fn at(&self) -> u64 {
        self.frames_end + to_sectors(self.footer_len)
    }

    /// Bytes of the whole file.
    pub const fn file_bytes(&self) -> u64 {
        self.at() + SECTOR_BYTES as u64
    }

    /// One sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(0);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.frames_end);
        out.put_u64_le(self.footer_len);
        out.put_u64_le(self.last.index.0);
        out.put_u64_le(self.last.term.0);
        out.put_u64_le(self.chain.0);
        out.put_u128_le(self.hash);
        assert_eq!(out.len(), BODY_BYTES, "the trailer is as long as drawn");
        finish_sector(out)
    }

    /// Reads the last sector of a file of this length. `None` if it is not an undamaged trailer of
    /// this version, or describes a file of another length.
    pub fn decode(sector: &[u8], file_bytes: u64) -> Option<Self> {
        let mut reader = open_sector(sector, BODY_BYTES)?;
        let magic: [u8; 8] = reader.array()?;
        let (version, zero) = (reader.u32()?, reader.u32()?);
        if magic != MAGIC || version != VERSION || zero != 0 {
            return None;
        }
        let base = LogIndex(reader.u64()?);
        let (frames_end, footer_len) = (reader.u64()?, reader.u64()?);
        let index = LogIndex(reader.u64()?);
        let trailer = Self {
            base,
            frames_end,
            footer_len,
            last: LogPosition { index, term: Term(reader.u64()?) },
            chain: Chain(reader.u64()?),
            hash: reader.u128()?,
        };
        // Checked before the sums below, which these bounds keep from overflowing.
        let bounded = frames_end <= file_bytes && footer_len <= file_bytes;
        let good = bounded
            && frames_end > FRAMES_AT
            && frames_end == to_sectors(frames_end)
            && trailer.file_bytes() == file_bytes
            && index >= base;
        good.then_some(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, each_flipped};
    use super::*;

    fn trailer() -> Trailer {
        Trailer {
            base: LogIndex(10),
            frames_end: FRAMES_AT + 4096,
            footer_len: 700,
            last: at(3, 17),
            chain: Chain(99),
            hash: 1 << 100,
        }
    }

    #[test]
    fn trailers_read_back_and_damage_is_refused() {
        let bytes = trailer().encode();
        let len = trailer().frames_end + 1024 + 512;
        assert_eq!(trailer().file_bytes(), len);
        assert_eq!(Trailer::decode(&bytes, len), Some(trailer()));
        assert_eq!(Trailer::decode(&bytes, len + 512), None, "a file of another length");
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(Trailer::decode(&flipped, len), None, "bit {bit}");
        }
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        let bad = Trailer { footer_len: u64::MAX - 100, ..trailer() };
        let mut out = bad;
        out.footer_len = 0;
        assert_eq!(Trailer::decode(&out.encode(), trailer().frames_end), None);
        let bytes = Trailer { frames_end: FRAMES_AT, ..trailer() }.encode();
        assert_eq!(Trailer::decode(&bytes, FRAMES_AT + 1024 + 512), None, "no frame at all");
    }
}

//! The first sector of a segment file.
//!
//! ```text
//! page         0  this header, one sector
//!            512  zeros
//!           4096  flush mark, slot 0      (see `mark`)
//!           8192  flush mark, slot 1
//!          12288  the frames
//!
//! header       0  magic [u8; 8] = "FULMSEGM"
//!              8  version u32 = 2
//!             12  zero u32
//!             16  site uuid [u8; 16]
//!             32  base index u64          the index of the first frame
//!             40  base chain u64          the chain before it
//!             48  has predecessor u8, term u64, index u64
//!             65  zero [u8; 3]
//!             68  crc u32                 crc32c of bytes 0..68
//!             72  zeros
//! ```
//!
//! Crash rule: the header is flushed before the file gets its name, and nothing is written to its
//! block after that, so a file `<base>.seg` with a bad header has rotted.

use super::{finish_sector, open_sector, put_position, read_position};
use crate::format::frame::Chain;
use bytes::BufMut;
use fulmar_types::limits::{SECTOR_BYTES, SEGMENT_HEADER_BYTES};
use fulmar_types::{LogIndex, LogPosition, SiteId, Uuid};

/// Where the first frame of a segment lies.
pub const FRAMES_AT: u64 = SEGMENT_HEADER_BYTES as u64;

const MAGIC: [u8; 8] = *b"FULMSEGM";
const VERSION: u32 = 2;
const BODY_BYTES: usize = 68;

/// What a segment continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The site that the log belongs to.
    pub site: SiteId,
    /// The index of the first frame.
    pub base: LogIndex,
    /// The chain before the first frame.
    pub chain: Chain,
    /// The entry before the first frame, `None` for the first segment of a site.
    pub predecessor: Option<LogPosition>,
}

impl SegmentHeader {
    /// One sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(0);
        out.put_slice(&self.site.0.0);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.chain.0);
        put_position(&mut out, self.predecessor);
        out.put_slice(&[0; 3]);
        assert_eq!(out.len(), BODY_BYTES, "the header is as long as drawn");
        finish_sector(out)
    }

    /// Reads the first sector. `None` if it is not an undamaged header of this version.
    pub fn decode(sector: &[u8]) -> Option<Self> {
        let mut reader = open_sector(sector, BODY_BYTES)?;
        let magic: [u8; 8] = reader.array()?;
        let (version, zero) = (reader.u32()?, reader.u32()?);
        let header = Self {
            site: SiteId(Uuid(reader.array()?)),
            base: LogIndex(reader.u64()?),
            chain: Chain(reader.u64()?),
            predecessor: read_position(&mut reader)?,
        };
        let zeros: [u8; 3] = reader.array()?;
        let follows = header.predecessor.map_or(0, |p| p.index.0.saturating_add(1));
        let good = magic == MAGIC
            && version == VERSION
            && zero == 0
            && zeros == [0; 3]
            && follows == header.base.0;
        good.then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, each_flipped};
    use super::*;

    fn header(predecessor: Option<LogPosition>) -> SegmentHeader {
        SegmentHeader {
            site: SiteId(Uuid([9; 16])),
            base: LogIndex(predecessor.map_or(0, |p| p.index.0 + 1)),
            chain: Chain(1234),
            predecessor,
        }
    }

    #[test]
    fn headers_read_back() {
        for header in [header(None), header(Some(at(3, 41)))] {
            assert_eq!(SegmentHeader::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn damage_is_refused() {
        let bytes = header(Some(at(3, 41))).encode();
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(SegmentHeader::decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..511]), None);
        assert_eq!(SegmentHeader::decode(&[0; 512]), None);
    }

    #[test]
    fn a_base_that_does_not_follow_its_predecessor_is_refused() {
        let mut bad = header(Some(at(3, 41)));
        bad.base = LogIndex(43);
        assert_eq!(SegmentHeader::decode(&bad.encode()), None);
    }
}

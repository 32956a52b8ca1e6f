//! Every layout of the log core, one file each: pure functions between values and bytes.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | an entry of the log |
//! | [`header`], [`mark`], [`trailer`] | the other parts of a segment file |
//! | [`vote`], [`identity`], [`manifest`], [`install`] | the small files of a node |
//!
//! Invariants: numbers are little-endian; a checksum covers everything that is believed; decoding
//! is total and never allocates from a length that the bytes themselves do not bear out; what
//! decodes encodes to the same bytes.
//!
//! Never: touch a disk here.

mod envelope;
pub mod frame;
pub mod header;
pub mod identity;
pub mod install;
pub mod life;
pub mod manifest;
pub mod mark;
pub mod trailer;
pub mod vote;

use crate::reader::Reader;
use bytes::BufMut;
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{LogIndex, LogPosition, Term};

/// One sector, in the unit of file positions.
pub(crate) const SECTOR: u64 = SECTOR_BYTES as u64;

/// A sector of zeros, from which padding is cut.
pub(crate) static ZERO_SECTOR: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

/// Rounds up to whole sectors.
pub(crate) const fn to_sectors(bytes: u64) -> u64 {
    bytes.next_multiple_of(SECTOR)
}

/// Puts a checksum behind what was written and fills the sector with zeros.
fn finish_sector(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    assert!(out.len() <= SECTOR_BYTES, "a layout of one sector fits in one");
    out.resize(SECTOR_BYTES, 0);
    out
}

/// The first `len` bytes of a sector, if the checksum behind them is right and zeros follow.
fn open_sector(sector: &[u8], len: usize) -> Option<Reader<'_>> {
    let body = sector.get(..len)?;
    let crc = Reader::starting_at(sector, len).u32()?;
    let rest = sector.get(len + 4..SECTOR_BYTES)?;
    let zeros = rest.iter().all(|byte| *byte == 0);
    (crc == crc32c::crc32c(body) && zeros).then(|| Reader::new(body))
}

/// Writes a position, or that there is none, in 17 bytes.
fn put_position(out: &mut Vec<u8>, position: Option<LogPosition>) {
    out.put_u8(u8::from(position.is_some()));
    out.put_u64_le(position.map_or(0, |p| p.term.0));
    out.put_u64_le(position.map_or(0, |p| p.index.0));
}

fn read_position(reader: &mut Reader<'_>) -> Option<Option<LogPosition>> {
    let is_some = reader.u8()?;
    let (term, index) = (Term(reader.u64()?), LogIndex(reader.u64()?));
    match is_some {
        1 => Some(Some(LogPosition { term, index })),
        0 if term.0 == 0 && index.0 == 0 => Some(None),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Flips each bit of a byte string in turn.
    pub fn each_flipped(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
        (0..bytes.len() * 8).map(|bit| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            (bit, flipped)
        })
    }

    pub fn at(term: u64, index: u64) -> LogPosition {
        LogPosition { term: Term(term), index: LogIndex(index) }
    }
}

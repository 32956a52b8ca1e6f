//! The file `manifest`: which segments there must be.
//!
//! ```text
//! body of the envelope, magic "FULMMANI", version 1
//!   0  generation u64          counts the writes
//!   8  floor                   u8, term u64, index u64: the last entry below the Raft floor
//!  25  active u64              a segment with this base exists, and perhaps later ones
//!  33  sealed count u32
//!  37  per sealed segment, ascending:
//!        base u64 | last index u64 | last term u64 | file bytes u64 | hash u128
//!   .  removed count u32
//!   .  per removed range, ascending: first index u64 | last index u64
//! ```
//!
//! Crash rule: a segment is named after its file is durable and un-named before its file goes, so
//! a named segment that is not there was lost, and an unnamed one below the last sealed segment is
//! left over from a removal.
//!
//! Invariants: sealed segments and removed ranges are disjoint and cover every index from 0 to the
//! last sealed one.

use super::{envelope, put_position, read_position};
use crate::reader::Reader;
use bytes::BufMut;
use fulmar_types::{LogIndex, LogPosition, Term};
use std::collections::BTreeMap;

const MAGIC: [u8; 8] = *b"FULMMANI";
const VERSION: u32 = 1;
const SEALED_BYTES: usize = 48;
const REMOVED_BYTES: usize = 16;

/// The largest manifest that is read, in bytes: a million segments.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;

/// A sealed segment: enough to know whether another node has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedInfo {
    /// Its first index.
    pub base: LogIndex,
    /// Its last entry.
    pub last: LogPosition,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// xxh3-128 of every byte before its trailer, the same on every node.
    pub hash: u128,
}

/// Which segments there must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Counts the writes.
    pub generation: u64,
    /// The last entry below the Raft floor.
    pub floor: Option<LogPosition>,
    /// The base of a segment that exists and is not sealed; later ones may exist too.
    pub active: LogIndex,
    /// The sealed segments that are kept.
    pub sealed: BTreeMap<LogIndex, SealedInfo>,
    /// Indexes whose segments were removed: first and last.
    pub removed: BTreeMap<LogIndex, LogIndex>,
}

impl Manifest {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let body = self.encode_body();
        envelope::seal(MAGIC, VERSION, &body)
    }

    /// Reads the file. `None` if it is damaged, of another version, or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let body = envelope::open(MAGIC, VERSION, bytes)?;
        let mut reader = Reader::new(body);
        let manifest = Self::decode_body(&mut reader)?;
        reader.is_at_end().then_some(manifest)
    }

    /// Bytes of a file that names so many segments, with a gap before each.
    pub const fn bytes_of(segments: usize) -> u64 {
        128 + segments as u64 * (SEALED_BYTES + REMOVED_BYTES) as u64
    }

    pub(super) fn encode_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.sealed.len() * SEALED_BYTES);
        out.put_u64_le(self.generation);
        put_position(&mut out, self.floor);
        out.put_u64_le(self.active.0);
        out.put_u32_le(u32::try_from(self.sealed.len()).expect("segments are counted in 32 bits"));
        for info in self.sealed.values() {
            put_sealed(&mut out, info);
        }
        out.put_u32_le(u32::try_from(self.removed.len()).expect("ranges are counted in 32 bits"));
        for (first, last) in &self.removed {
            out.put_u64_le(first.0);
            out.put_u64_le(last.0);
        }
        out
    }

    pub(super) fn decode_body(reader: &mut Reader<'_>) -> Option<Self> {
        let generation = reader.u64()?;
        let floor = read_position(reader)?;
        let active = LogIndex(reader.u64()?);
        let sealed = count(reader, SEALED_BYTES)?;
        let mut manifest = Self { generation, floor, active, ..Self::default() };
        for _ in 0..sealed {
            let info = read_sealed(reader)?;
            manifest.sealed.insert(info.base, info);
        }
        let removed = count(reader, REMOVED_BYTES)?;
        for _ in 0..removed {
            let (first, last) = (LogIndex(reader.u64()?), LogIndex(reader.u64()?));
            manifest.removed.insert(first, last);
        }
        let whole = manifest.sealed.len() == sealed && manifest.removed.len() == removed;
        (whole && manifest.end().is_some()).then_some(manifest)
    }

    /// The index after the last sealed or removed one. `None` if the ranges leave a gap or
    /// overlap, which no writer of this file produces.
    pub fn end(&self) -> Option<LogIndex> {
        let mut ranges: Vec<(LogIndex, LogIndex)> =
            self.sealed.values().map(|info| (info.base, info.last.index)).collect();
        ranges.extend(self.removed.iter().map(|(first, last)| (*first, *last)));
        ranges.sort_unstable();
        let mut end = LogIndex(0);
        for (first, last) in ranges {
            if first != end || last < first || last.0 == u64::MAX {
                return None;
            }
            end = last.next();
        }
        (self.active >= end).then_some(end)
    }

    /// The last sealed segment, if nothing was removed behind it.
    pub fn last_sealed(&self) -> Option<&SealedInfo> {
        self.sealed.values().next_back()
    }

    /// Whether an index lies in a removed range.
    pub fn is_removed(&self, index: LogIndex) -> bool {
        self.removed.range(..=index).next_back().is_some_and(|(_, last)| index <= *last)
    }

    /// Notes that the segment at `base` is removed, and joins neighbouring ranges.
    pub fn remove(&mut self, base: LogIndex) {
        let Some(info) = self.sealed.remove(&base) else { return };
        let (mut first, mut last) = (info.base, info.last.index);
        if let Some((before, end)) = self.removed.range(..first).next_back()
            && end.next() == first
        {
            first = *before;
        }
        if let Some(end) = self.removed.remove(&last.next()) {
            last = end;
        }
        self.removed.insert(first, last);
    }
}

pub(super) fn put_sealed(out: &mut Vec<u8>, info: &SealedInfo) {
    out.put_u64_le(info.base.0);
    out.put_u64_le(info.last.index.0);
    out.put_u64_le(info.last.term.0);
    out.put_u64_le(info.file_bytes);
    out.put_u128_le(info.hash);
}

fn read_sealed(reader: &mut Reader<'_>) -> Option<SealedInfo> {
    let base = LogIndex(reader.u64()?);
    let index = LogIndex(reader.u64()?);
    let last = LogPosition { index, term: Term(reader.u64()?) };
    Some(SealedInfo { base, last, file_bytes: reader.u64()?, hash: reader.u128()? })
}

/// A count of items, refused if the bytes that remain cannot hold them.
fn count(reader: &mut Reader<'_>, item_bytes: usize) -> Option<usize> {
    let count = usize::try_from(reader.u32()?).ok()?;
    (count.checked_mul(item_bytes)? <= reader.remaining()).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, each_flipped};
    use super::*;

    pub fn sealed(base: u64, last: u64) -> (LogIndex, SealedInfo) {
        let info = SealedInfo {
            base: LogIndex(base),
            last: at(2, last),
            file_bytes: 9000,
            hash: u128::from(base) << 70,
        };
        (info.base, info)
    }

    fn manifest() -> Manifest {
        Manifest {
            generation: 8,
            floor: Some(at(1, 12)),
            active: LogIndex(30),
            sealed: BTreeMap::from([sealed(10, 19), sealed(20, 29)]),
            removed: BTreeMap::from([(LogIndex(0), LogIndex(9))]),
        }
    }

    #[test]
    fn manifests_read_back_and_damage_is_refused() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes), Some(manifest()));
        assert_eq!(Manifest::decode(&Manifest::default().encode()), Some(Manifest::default()));
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(Manifest::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_manifest_with_a_gap_is_refused() {
        let mut gap = manifest();
        gap.sealed.remove(&LogIndex(10));
        assert_eq!(Manifest::decode(&gap.encode()), None);
        let mut overlap = manifest();
        overlap.removed.insert(LogIndex(0), LogIndex(10));
        assert_eq!(Manifest::decode(&overlap.encode()), None);
        let mut active = manifest();
        active.active = LogIndex(29);
        assert_eq!(Manifest::decode(&active.encode()), None);
    }

    #[test]
    fn removed_ranges_join() {
        let mut some = manifest();
        some.sealed.extend([sealed(30, 39), sealed(40, 49)]);
        some.active = LogIndex(50);
        some.remove(LogIndex(30));
        assert_eq!(some.removed.len(), 2);
        assert!(some.is_removed(LogIndex(35)) && some.is_removed(LogIndex(0)));
        assert!(!some.is_removed(LogIndex(10)) && !some.is_removed(LogIndex(40)));
        some.remove(LogIndex(20));
        assert_eq!(some.removed.get(&LogIndex(20)), Some(&LogIndex(39)));
        some.remove(LogIndex(10));
        assert_eq!(some.removed, BTreeMap::from([(LogIndex(0), LogIndex(39))]));
        assert_eq!(some.end(), Some(LogIndex(50)));
    }
}

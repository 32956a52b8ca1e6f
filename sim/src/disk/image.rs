//! The bytes of one file, as its process sees them and as the disk has them.
//!
//! What a process sees is kept whole; of what the disk has, only the sectors that differ are kept.
//! A write makes its sectors dirty. A flush takes everything that is dirty when it begins and
//! makes it durable when it ends; what is written meanwhile belongs to the next one.
//!
//! ```text
//! sector 0     1     2     3     4     5
//!      ┌─────┬─────┬─────┬─────┬─────┬─────┐
//! live │  A  │  B2 │  C2 │  D2 │  E2 │  F  │  what a read returns
//!      └─────┴─────┴─────┴─────┴─────┴─────┘
//! dirty              C1    D1                what was there before, younger than every flush
//! flushing                 D0    E0          what was there before, younger than a flush under way
//! dropped      B0                            what the disk has, though nobody calls it dirty
//! ```
//! A power cut leaves of sector 3: D2, D1, D0 or garbage.
//!
//! Invariants: a sector in none of the three is the same on the disk. The oldest version of a
//! sector is the durable one. A write makes all sectors of its blocks dirty, those included that it
//! does not change: a file system writes whole blocks, and power loss may make any sector of them
//! unreadable, flushed neighbours too.

use super::PowerLoss;
use crate::prng::Prng;
use fulmar_types::limits::{BLOCK_BYTES, SECTOR_BYTES};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SECTOR: u64 = SECTOR_BYTES as u64;

/// The unit in which space is taken, and in which a file system writes.
const BLOCK: u64 = BLOCK_BYTES as u64;

type Sector = [u8; SECTOR_BYTES];

/// An earlier version of a sector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Old {
    Zeros,
    Bytes(Box<Sector>),
    /// The one that came after it: its block was written, and it was not changed.
    Same,
}

/// The versions that a group of writes replaced.
#[derive(Clone, Debug, Default)]
struct Replaced {
    sectors: BTreeMap<u64, Old>,
    /// The shortest and the longest that the file was meanwhile, if its length changed.
    lengths: Option<(u64, u64)>,
}

impl Replaced {
    fn note_length(&mut self, low: u64, high: u64) {
        self.lengths = Some(match self.lengths {
            Some((lowest, highest)) => (lowest.min(low), highest.max(high)),
            None => (low, high),
        });
    }
}

/// A flush under way.
struct Flushing {
    id: FlushId,
    replaced: Replaced,
    /// The length that it makes durable.
    len_bytes: u64,
}

/// The number of a flush of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushId(u64);

/// The bytes of a file.
#[derive(Default)]
pub struct Image {
    live: Vec<u8>,
    durable_len_bytes: u64,
    dirty: Replaced,
    flushing: VecDeque<Flushing>,
    dropped: BTreeMap<u64, Old>,
    next_flush: u64,
    /// The sectors that the last flush which ended well has made durable.
    latest: BTreeSet<u64>,
    blocks: BTreeSet<u64>,
}

fn sectors(from: u64, to: u64) -> std::ops::Range<u64> {
    from / SECTOR..to.div_ceil(SECTOR)
}

impl Image {
    /// A file with these bytes, all of them durable.
    pub fn of(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.write(0, bytes);
        let flush = image.begin_flush();
        image.end_flush(flush);
        image
    }

    /// The length that a process sees.
    pub fn len_bytes(&self) -> u64 {
        self.live.len() as u64
    }

    /// The bytes that a process sees.
    pub fn live(&self) -> &[u8] {
        &self.live
    }

    /// Space taken on the disk.
    pub fn taken_bytes(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }

    /// Space that a write would take in addition.
    pub fn needed_bytes(&self, at: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let blocks = at / BLOCK..(at + len).div_ceil(BLOCK);
        let all = blocks.end - blocks.start;
        (all - self.blocks.range(blocks).count() as u64) * BLOCK
    }

    fn version(&self, sector: u64) -> Old {
        let from = usize::try_from(sector * SECTOR).unwrap_or(usize::MAX).min(self.live.len());
        let to = from.saturating_add(SECTOR_BYTES).min(self.live.len());
        let bytes = &self.live[from..to];
        if bytes.iter().all(|byte| *byte == 0) {
            return Old::Zeros;
        }
        let mut sector = Box::new([0; SECTOR_BYTES]);
        sector[..bytes.len()].copy_from_slice(bytes);
        Old::Bytes(sector)
    }

    /// A sector is about to change.
    fn make_dirty(&mut self, sector: u64) {
        if self.dirty.sectors.get(&sector).is_some_and(|old| *old != Old::Same) {
            return;
        }
        // A dropped page that is written again is dirty again, and the disk still has what it had.
        let old = self.dropped.remove(&sector).unwrap_or_else(|| self.version(sector));
        self.dirty.sectors.insert(sector, old);
    }

    /// A sector is written again as it is, if it is a part of the file.
    fn make_rewritten(&mut self, sector: u64) {
        if sector * SECTOR >= self.len_bytes() {
            return;
        }
        let old = self.dropped.remove(&sector).unwrap_or(Old::Same);
        self.dirty.sectors.entry(sector).or_insert(old);
    }

    /// Writes bytes; the file grows as needed.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len() as u64;
        let changed = sectors(at, end);
        let written = sectors(at - at % BLOCK, end.next_multiple_of(BLOCK));
        for sector in (written.start..changed.start).chain(changed.end..written.end) {
            self.make_rewritten(sector);
        }
        for sector in changed {
            self.make_dirty(sector);
        }
        self.blocks.extend(at / BLOCK..end.div_ceil(BLOCK));
        if end > self.len_bytes() {
            self.live.resize(end as usize, 0);
            self.dirty.note_length(end, end);
        }
        self.live[at as usize..end as usize].copy_from_slice(bytes);
    }

    /// Cuts the file or extends it with a hole.
    pub fn set_len(&mut self, len_bytes: u64) {
        if len_bytes == self.len_bytes() {
            return;
        }
        if len_bytes < self.len_bytes() {
            for sector in sectors(len_bytes, self.len_bytes()) {
                self.make_dirty(sector);
            }
            drop(self.blocks.split_off(&len_bytes.div_ceil(BLOCK)));
        }
        self.live.resize(len_bytes as usize, 0);
        self.dirty.note_length(len_bytes, len_bytes);
    }

    /// Begins a flush of everything written so far.
    pub fn begin_flush(&mut self) -> FlushId {
        let id = FlushId(self.next_flush);
        self.next_flush += 1;
        let replaced = std::mem::take(&mut self.dirty);
        self.flushing.push_back(Flushing { id, replaced, len_bytes: self.len_bytes() });
        id
    }

    /// A flush has ended well: what it covers, it and every one begun before, is durable.
    pub fn end_flush(&mut self, id: FlushId) {
        while let Some(first) = self.flushing.front()
            && first.id <= id
        {
            self.durable_len_bytes = first.len_bytes;
            if let Some(ended) = self.flushing.pop_front()
                && !ended.replaced.sectors.is_empty()
            {
                let changed = ended.replaced.sectors.into_iter();
                let changed = changed.filter(|(_, old)| *old != Old::Same);
                self.latest = changed.map(|(sector, _)| sector).collect();
            }
        }
    }

    /// A flush has failed. What it covers is dirty as before, or, if `drop_pages`, is called clean
    /// without being durable: so Linux behaves, and a second flush then succeeds and means nothing
    /// (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
    pub fn fail_flush(&mut self, id: FlushId, drop_pages: bool) {
        let mut failed = Vec::new();
        while let Some(first) = self.flushing.front()
            && first.id <= id
        {
            failed.extend(self.flushing.pop_front());
        }
        // The oldest version is the durable one, so the oldest group goes last and wins.
        for Flushing { replaced, .. } in failed.into_iter().rev() {
            if let Some((low, high)) = replaced.lengths {
                self.dirty.note_length(low, high);
            }
            for (sector, old) in replaced.sectors {
                let later = self
                    .flushing
                    .iter_mut()
                    .map(|flushing| &mut flushing.replaced.sectors)
                    .find(|sectors| sectors.contains_key(&sector))
                    .unwrap_or(&mut self.dirty.sectors);
                if old == Old::Same {
                    // A later version is as old as this one.
                    if !drop_pages {
                        later.entry(sector).or_insert(old);
                    }
                    continue;
                }
                if later.contains_key(&sector) || !drop_pages {
                    later.insert(sector, old);
                } else {
                    self.dropped.insert(sector, old);
                }
            }
        }
    }

    /// The process sees again what the disk has, where nobody calls the difference dirty.
    pub fn forget_cached(&mut self) {
        for (sector, old) in std::mem::take(&mut self.dropped) {
            self.put_sector(sector, &old);
        }
    }

    /// The power is cut: only what the disk has is left, and of what was under way, this or that.
    pub fn lose_power(&mut self, prng: &mut Prng, model: &PowerLoss) {
        let torn = prng.chance(model.torn_file_ppm);
        // Now next to nothing has reached the disk, now nearly all: chance alone would give half.
        let kept_ppm = match prng.pick(&[0, 200_000, 500_000, 900_000, 1_000_000]) {
            Some(kept_ppm) if torn => *kept_ppm,
            _ => 0,
        };
        let garbage_ppm = if torn { model.torn_sector_ppm } else { 0 };
        let len_bytes = self.surviving_len(prng, torn);

        let dropped = std::mem::take(&mut self.dropped);
        let mut versions: BTreeMap<u64, Vec<Old>> = BTreeMap::new();
        let groups = self.flushing.drain(..).map(|flushing| flushing.replaced);
        for group in groups.chain([std::mem::take(&mut self.dirty)]) {
            for (sector, old) in group.sectors {
                versions.entry(sector).or_default().push(old);
            }
        }
        let whole = len_bytes.max(self.len_bytes()).next_multiple_of(SECTOR);
        self.live.resize(whole as usize, 0);
        for (sector, old) in dropped {
            self.put_sector(sector, &old);
        }
        for (sector, versions) in versions {
            if prng.chance(garbage_ppm) {
                let mut garbage = Box::new([0; SECTOR_BYTES]);
                for chunk in garbage.chunks_exact_mut(8) {
                    chunk.copy_from_slice(&prng.next_u64().to_le_bytes());
                }
                self.put_sector(sector, &Old::Bytes(garbage));
            } else if !prng.chance(kept_ppm) {
                let at = if torn { prng.below(versions.len() as u64) as usize } else { 0 };
                if let Some(version) = versions[at..].iter().find(|version| **version != Old::Same)
                {
                    self.put_sector(sector, version);
                }
            }
        }
        self.live.truncate(len_bytes as usize);
        self.durable_len_bytes = len_bytes;
        drop(self.blocks.split_off(&len_bytes.div_ceil(BLOCK)));
    }

    fn surviving_len(&self, prng: &mut Prng, torn: bool) -> u64 {
        let pending = self.flushing.iter().map(|flushing| &flushing.replaced);
        let lengths = pending.chain([&self.dirty]).filter_map(|replaced| replaced.lengths);
        let (mut low, mut high) = (self.durable_len_bytes, self.durable_len_bytes);
        for (lowest, highest) in lengths {
            (low, high) = (low.min(lowest), high.max(highest));
        }
        match prng.below(3) {
            _ if !torn || low == high => self.durable_len_bytes,
            0 => self.durable_len_bytes,
            1 => self.len_bytes(),
            _ => prng.between(low, high),
        }
    }

    fn put_sector(&mut self, sector: u64, version: &Old) {
        let from = (sector * SECTOR) as usize;
        // What lies beyond the end that survives needs no bytes.
        let Some(place) = self.live.get_mut(from..from + SECTOR_BYTES) else {
            return;
        };
        match version {
            Old::Zeros => place.fill(0),
            Old::Bytes(bytes) => place.copy_from_slice(bytes.as_slice()),
            Old::Same => {}
        }
    }

    /// Flips bits at rest: in a byte that is on the disk as it is seen, of a sector that holds more
    /// than zeros where there is one. `spare_latest`: not among what the last flush wrote. Returns
    /// the offset and the mask, or `None` if the file has no such byte.
    pub fn rot(&mut self, prng: &mut Prng, spare_latest: bool) -> Option<(u64, u8)> {
        let unsettled: BTreeSet<u64> = self
            .flushing
            .iter()
            .map(|flushing| &flushing.replaced)
            .chain([&self.dirty])
            .flat_map(|replaced| replaced.sectors.keys())
            .chain(self.dropped.keys())
            .chain(spare_latest.then_some(&self.latest).into_iter().flatten())
            .copied()
            .collect();
        let end = self.durable_len_bytes.min(self.len_bytes());
        let settled: Vec<u64> = sectors(0, end).filter(|at| !unsettled.contains(at)).collect();
        let used: Vec<u64> = settled.iter().copied().filter(|at| self.is_used(*at)).collect();
        let sector = *prng.pick(&used).or_else(|| prng.pick(&settled))?;
        let at = prng.between(sector * SECTOR, ((sector + 1) * SECTOR).min(end) - 1);
        let mask = 1 << prng.below(8);
        self.flip(at, mask);
        Some((at, mask))
    }

    fn is_used(&self, sector: u64) -> bool {
        let from = (sector * SECTOR) as usize;
        let to = self.live.len().min(from + SECTOR as usize);
        self.live.get(from..to).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    }

    /// Flips the bits of `mask` in one byte, on the disk and in what is seen.
    pub fn flip(&mut self, at: u64, mask: u8) {
        if let Some(byte) = self.live.get_mut(at as usize) {
            *byte ^= mask;
        }
    }

    /// Whether everything that a process sees is durable.
    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        let groups = self.flushing.iter().map(|flushing| &flushing.replaced).chain([&self.dirty]);
        let mut groups = groups.map(|group| group.sectors.is_empty() && group.lengths.is_none());
        groups.all(|clean| clean) && self.dropped.is_empty()
    }
}

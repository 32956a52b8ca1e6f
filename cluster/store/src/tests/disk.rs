//! A disk in memory that loses what was not flushed, for the tests of this crate.
//!
//! Every operation that changes something is a point at which the power can go. Then each sector of
//! each block of 4 KiB that was written to and not flushed is old, new or unreadable, each length old or new, and each creation,
//! rename or removal in a directory that was not flushed has happened or not, all drawn from a
//! seed. Afterwards every call fails until [`TestDisk::restore_power`].

mod seam;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// A small generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Sectors that a power cut left unreadable.
    bad: BTreeSet<usize>,
}

impl Inode {
    /// The sectors that a write changes in part or not at all, and that are written with it because
    /// they lie in its blocks.
    fn rewritten(&self, at: usize, len: usize) -> Vec<usize> {
        let (from, to) = (at, at + len);
        let whole = from.div_ceil(SECTOR)..to / SECTOR;
        let last = self.live.len().max(to).div_ceil(SECTOR);
        blocks(from, to).filter(|sector| !whole.contains(sector) && *sector < last).collect()
    }

    fn make_dirty(&mut self, at: usize, len: usize) {
        for sector in blocks(at, at + len) {
            self.dirty.insert(sector);
            self.bad.remove(&sector);
        }
    }
}

/// The sectors of the blocks that a range touches.
fn blocks(from: usize, to: usize) -> std::ops::Range<usize> {
    const BLOCK_BYTES: usize = BLOCK as usize;
    if from == to {
        return 0..0;
    }
    let sectors = BLOCK_BYTES / SECTOR;
    from / BLOCK_BYTES * sectors..to.div_ceil(BLOCK_BYTES) * sectors
}

#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct World {
    inodes: BTreeMap<u64, Inode>,
    live: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable, with their directory.
    changes: Vec<(PathBuf, Change)>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    /// How often each file is open: one without a name takes space until nobody has it open.
    open: BTreeMap<u64, u32>,
    points: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    dead: bool,
    life: u64,
    next_inode: u64,
    dice: u64,
    trace: Vec<String>,
    fail_reads: u32,
    /// Others run before a file is created, written or removed.
    slow: bool,
    /// Only the process dies: the page cache stays.
    only_process: bool,
    /// What fits on the disk; without bounds if there is none.
    capacity: Option<u64>,
}

const BLOCK: u64 = 4_096;

/// The disk.
#[derive(Clone, Default)]
pub struct TestDisk(Arc<Mutex<World>>);

fn gone() -> io::Error {
    io::Error::other("the power is off")
}

impl World {
    fn taken(&self) -> u64 {
        let blocks = |inode: &u64| (self.inodes[inode].live.len() as u64).next_multiple_of(BLOCK);
        let open = self.open.iter().filter(|(_, times)| **times > 0).map(|(inode, _)| inode);
        let inodes: BTreeSet<&u64> = self.live.values().chain(open).collect();
        inodes.into_iter().map(blocks).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(self.taken()))
    }

    /// Counts a point. `Err` if the power is off; `Ok(true)` if it goes off in the middle of this.
    fn point(&mut self, what: impl FnOnce() -> String) -> io::Result<bool> {
        if self.dead {
            return Err(gone());
        }
        self.points += 1;
        self.trace.push(format!("{}: {}", self.points, what()));
        if self.fail_at == Some(self.points) {
            return Err(io::Error::other("injected"));
        }
        Ok(self.cut_at == Some(self.points))
    }

    fn cut(&mut self) {
        let mut dice = Dice(self.dice);
        self.dead = true;
        self.life += 1;
        self.locked.clear();
        self.open.clear();
        if std::mem::take(&mut self.only_process) {
            return;
        }
        for inode in self.inodes.values_mut() {
            if inode.live.len() != inode.durable.len() && dice.below(2) == 0 {
                inode.durable.resize(inode.live.len(), 0);
            }
            let len = inode.durable.len();
            let fate_of_all = dice.below(4);
            for sector in std::mem::take(&mut inode.dirty) {
                let (from, to) = (sector * SECTOR, (sector * SECTOR + SECTOR).min(len));
                if from >= len {
                    continue;
                }
                let fate = if fate_of_all < 2 { fate_of_all } else { dice.below(5) };
                match fate {
                    0 => {}
                    1..=3 => {
                        let end = to.min(inode.live.len());
                        if from < end {
                            inode.durable[from..end].copy_from_slice(&inode.live[from..end]);
                        }
                    }
                    _ if dice.below(2) == 0 => {
                        inode.bad.insert(sector);
                    }
                    _ => inode.durable[from..to].iter_mut().for_each(|b| *b ^= 0x5A),
                }
            }
            inode.live = inode.durable.clone();
        }
        for (_, change) in std::mem::take(&mut self.changes) {
            if dice.below(2) == 0 {
                apply(&mut self.durable, &change);
            }
        }
        self.live = self.durable.clone();
        self.dice = dice.0;
    }

    fn change(&mut self, path: &Path, change: Change) {
        apply(&mut self.live, &change);
        self.changes.push((path.parent().unwrap().to_owned(), change));
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &Change) {
    match change {
        Change::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Change::Unlink(path) => {
            names.remove(path);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl TestDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The power goes at this point, counted from 1 since the disk was made.
    pub fn cut_at(&self, point: u64, seed: u64) {
        let mut world = self.world();
        world.cut_at = Some(point);
        world.dice = seed;
    }

    /// The process dies at this point; what it wrote stays in the page cache.
    pub fn kill_at(&self, point: u64) {
        let mut world = self.world();
        world.cut_at = Some(point);
        world.only_process = true;
    }

    /// This point answers with an error.
    pub fn fail_at(&self, point: u64) {
        self.world().fail_at = Some(point);
    }

    /// So many reads answer with an error.
    pub fn fail_reads(&self, count: u32) {
        self.world().fail_reads = count;
    }

    /// From now on others run before a file is created, written or removed.
    pub fn be_slow(&self) {
        self.world().slow = true;
    }

    /// From now on so many bytes are free; `None`: as many as anybody wants.
    pub fn leave(&self, free: Option<u64>) {
        let mut world = self.world();
        world.capacity = free.map(|free| world.taken() + free);
    }

    pub fn free(&self) -> u64 {
        self.world().free()
    }

    /// The length of a file.
    pub fn len(&self, path: &Path) -> Option<u64> {
        let world = self.world();
        world.live.get(path).map(|inode| world.inodes[inode].live.len() as u64)
    }

    pub fn points(&self) -> u64 {
        self.world().points
    }

    /// Cuts the power now.
    pub fn cut_now(&self, seed: u64) {
        let mut world = self.world();
        world.dice = seed;
        if !world.dead {
            world.cut();
        }
    }

    pub fn is_dead(&self) -> bool {
        self.world().dead
    }

    pub fn restore_power(&self) {
        let mut world = self.world();
        world.dead = false;
        world.cut_at = None;
        world.fail_at = None;
        world.fail_reads = 0;
        // What has no name is gone.
        let names = world.durable.values().chain(world.live.values());
        let named: BTreeSet<u64> = names.copied().collect();
        world.inodes.retain(|inode, _| named.contains(inode));
    }

    pub fn trace(&self) -> Vec<String> {
        self.world().trace.clone()
    }

    /// The bytes of a file as they are now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        let inode = world.live.get(path)?;
        Some(world.inodes[inode].live.clone())
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.world().live.keys().cloned().collect()
    }

    /// Whether a power cut has left a sector that cannot be read.
    pub fn has_unreadable(&self) -> bool {
        self.world().inodes.values().any(|inode| !inode.bad.is_empty())
    }

    /// Changes a file behind everybody's back: rot.
    pub fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let inode = *world.live.get(path).unwrap_or_else(|| panic!("no {}", path.display()));
        let inode = world.inodes.get_mut(&inode).unwrap();
        change(&mut inode.live);
        inode.durable = inode.live.clone();
        inode.dirty.clear();
    }

    /// Puts a file there.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.world();
        world.next_inode += 1;
        let inode = world.next_inode;
        let (live, durable) = (bytes.to_vec(), bytes.to_vec());
        world.inodes.insert(inode, Inode { live, durable, ..Inode::default() });
        world.live.insert(path.to_owned(), inode);
        world.durable.insert(path.to_owned(), inode);
    }

    /// Loses a file: it was there, and is no more.
    pub fn lose(&self, path: &Path) {
        let mut world = self.world();
        world.live.remove(path).unwrap_or_else(|| panic!("no {}", path.display()));
        world.durable.remove(path);
    }

    /// A copy of the disk as it would be if it were flushed now.
    pub fn copy(&self) -> Self {
        let world = self.world();
        let mut inodes = world.inodes.clone();
        for inode in inodes.values_mut() {
            inode.durable = inode.live.clone();
            inode.dirty.clear();
        }
        Self(Arc::new(Mutex::new(World {
            inodes,
            live: world.live.clone(),
            durable: world.live.clone(),
            dirs: world.dirs.clone(),
            next_inode: world.next_inode,
            ..World::default()
        })))
    }
}

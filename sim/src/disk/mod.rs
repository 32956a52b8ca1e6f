//! The simulated disks: a plugin of the simulator, one file system for every machine.
//!
//! The end of a process and the loss of power are two things. After the one, everything written is
//! still there, flushed or not; after the other, what was not flushed is old, new or garbage,
//! sector by sector ([`SECTOR_BYTES`](fulmar_types::limits::SECTOR_BYTES)), and names are there or
//! not (see `names.rs` for the order that is kept). `kill` cannot tell which one is meant, so a
//! power cut has to be announced: [`DiskSim::will_power_cut`].
//!
//! | module | what |
//! |---|---|
//! | `image` | the bytes of one file, seen and durable |
//! | `names` | the names, seen and durable |
//! | `system` | both together, with faults and figures |
//! | `handle` | the traits of `fulmar_host::disk` on top |
//!
//! Invariants: every handle belongs to one life of one machine, and is dead after it. All random
//! numbers come from one stream of the disks' own. `reset_node` uses only what is in here.

mod handle;
mod image;
mod names;
mod system;

#[cfg(test)]
mod tests;

pub use handle::SimDisk;
pub use system::{DiskCopy, any_file};

use crate::prng::Prng;
use crate::spread::Spread;
use crate::trace::{NoTrace, TraceSink};
use madsim::rand::{GlobalRng, RngCore};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use madsim::{Config, plugin};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use system::{FileSystem, Tap};

/// Picks files by their names.
pub type PathMatch = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// A kind of operation, for its time and its faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// A read, or an opening or a listing.
    Read,
    /// A write into the page cache, a change of length, a rename or a removal.
    Write,
    /// A flush of a file or a directory.
    Sync,
}

/// What a power cut does to what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLoss {
    /// How likely the unflushed bytes of a file are lost in part and not altogether, in millionths.
    pub torn_file_ppm: u32,
    /// How likely a sector of such a file is garbage, and not old or new, in millionths.
    pub torn_sector_ppm: u32,
    /// How likely an unflushed creation, rename or removal is lost, in millionths.
    pub lost_name_ppm: u32,
}

impl Default for PowerLoss {
    fn default() -> Self {
        Self { torn_file_ppm: 500_000, torn_sector_ppm: 50_000, lost_name_ppm: 500_000 }
    }
}

/// How a disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The time of a read.
    pub read: Spread,
    /// The time of a write into the page cache.
    pub write: Spread,
    /// The time of a flush.
    pub sync: Spread,
    /// How likely a flush takes longer than that, in millionths.
    pub tail_ppm: u32,
    /// How much longer it takes then.
    pub tail: Spread,
    /// A disk that has become slow: by how much every flush takes longer.
    pub slow_sync: Duration,
    /// A disk that has become slow: the time of everything, in percent of what it was.
    pub slow_percent: u32,
    /// Bytes that fit on it.
    pub capacity_bytes: u64,
    /// What a power cut does.
    pub power_loss: PowerLoss,
}

impl Default for DiskConfig {
    /// A solid-state disk without capacitors.
    fn default() -> Self {
        Self {
            read: Spread::from_micros(20, 200),
            write: Spread::from_micros(5, 50),
            sync: Spread::from_micros(300, 2_000),
            tail_ppm: 0,
            tail: Spread::default(),
            slow_sync: Duration::ZERO,
            slow_percent: 100,
            capacity_bytes: 1 << 30,
            power_loss: PowerLoss::default(),
        }
    }
}

/// What a disk has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Reads.
    pub reads: u64,
    /// Writes of one piece.
    pub writes: u64,
    /// Bytes in them.
    pub written_bytes: u64,
    /// Flushes, of files and directories.
    pub flushes: u64,
    /// Operations that failed because a fault waited for them.
    pub errors: u64,
    /// Writes that found the disk full.
    pub full: u64,
    /// Creations, renames and removals that power cuts undid.
    pub lost_names: u64,
    /// Bits that were flipped.
    pub rotten_bits: u64,
}

/// What a process has met, of what was done to its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// A read failed.
    pub read_failed: bool,
    /// A flush failed.
    pub flush_failed: bool,
}

/// Bits that were flipped at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rot {
    /// The file.
    pub path: PathBuf,
    /// The byte, counted from the start of the file.
    pub at: u64,
    /// The bits of it.
    pub mask: u8,
}

struct State {
    prng: Prng,
    trace: Arc<dyn TraceSink>,
    systems: BTreeMap<NodeId, FileSystem>,
}

/// What the plugin and its handles share.
pub(crate) struct Shared {
    time: TimeHandle,
    state: Mutex<State>,
}

impl Shared {
    fn all<T>(&self, work: impl FnOnce(&mut State, u64) -> T) -> T {
        let now = self.time.elapsed().as_nanos();
        let now_ns = u64::try_from(now).expect("a run of less than 500 years");
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), now_ns)
    }

    /// Works on the file system of a machine.
    fn with<T>(
        &self,
        machine: NodeId,
        work: impl FnOnce(&mut FileSystem, Tap<'_>, &mut Prng) -> T,
    ) -> T {
        self.all(|state, now_ns| {
            let system = state
                .systems
                .get_mut(&machine)
                .expect("madsim announces every node to its plugins");
            work(system, Tap { now_ns, trace: state.trace.as_ref() }, &mut state.prng)
        })
    }
}

/// The disks of the simulation.
pub struct DiskSim {
    shared: Arc<Shared>,
}

impl plugin::Simulator for DiskSim {
    fn new(rand: &GlobalRng, time: &TimeHandle, _: &Config) -> Self {
        let state = State {
            prng: Prng::new(rand.clone().next_u64(), "disk"),
            trace: Arc::new(NoTrace),
            systems: BTreeMap::new(),
        };
        Self { shared: Arc::new(Shared { time: time.clone(), state: Mutex::new(state) }) }
    }

    fn create_node(&self, id: NodeId) {
        let number = id.to_string().parse().expect("a madsim node prints as its number");
        self.shared.all(|state, _| {
            state.systems.entry(id).or_insert_with(|| FileSystem::new(number));
        });
    }

    fn reset_node(&self, id: NodeId) {
        self.shared.with(id, |system, tap, prng| {
            if std::mem::take(&mut system.cut_power_next) {
                system.power_lost(tap, prng);
            } else {
                system.process_died();
            }
        });
    }
}

impl DiskSim {
    /// Draws from this seed from now on, and reports to this trace.
    pub fn prepare(&self, seed: u64, trace: Arc<dyn TraceSink>) {
        self.shared.all(|state, _| {
            state.prng = Prng::new(seed, "disk");
            state.trace = trace;
        });
    }

    /// The disk for a process that starts on a machine.
    pub fn boot(&self, machine: NodeId) -> SimDisk {
        let epoch = self.shared.with(machine, |system, _, _| system.epoch);
        SimDisk { shared: Arc::clone(&self.shared), machine, epoch }
    }

    /// Says that the next `kill` of a machine is a power cut, and not the end of its process.
    pub fn will_power_cut(&self, machine: NodeId) {
        self.shared.with(machine, |system, _, _| system.cut_power_next = true);
    }

    /// The process of a machine ended by itself; its handles are dead at once.
    pub fn process_died(&self, machine: NodeId) {
        self.shared.with(machine, |system, _, _| system.process_died());
    }

    /// How a disk behaves.
    pub fn config(&self, machine: NodeId) -> DiskConfig {
        self.shared.with(machine, |system, _, _| system.config)
    }

    /// Changes how a disk behaves. What is under way keeps its time.
    pub fn set_config(&self, machine: NodeId, config: DiskConfig) {
        self.shared.with(machine, |system, _, _| system.config = config);
    }

    /// Bytes of the files on a disk.
    pub fn taken_bytes(&self, machine: NodeId) -> u64 {
        self.shared.with(machine, |system, _, _| system.taken_bytes())
    }

    /// Lets the next operations of a kind fail, on the files (or directories) that match. A failed
    /// flush may leave dirty pages that are called clean. Returns what becomes true when the first
    /// of them has failed.
    pub fn fail_next(
        &self,
        machine: NodeId,
        operation: DiskOp,
        count: u32,
        matches: PathMatch,
    ) -> Arc<AtomicBool> {
        self.shared.with(machine, |system, _, _| system.arm(operation, count, matches))
    }

    /// What the process that runs on a machine has met.
    pub fn trouble(&self, machine: NodeId) -> Trouble {
        self.shared.with(machine, |system, _, _| system.trouble)
    }

    /// Takes back what [`DiskSim::fail_next`] has announced and has not happened yet.
    pub fn repair(&self, machine: NodeId) {
        self.shared.with(machine, |system, _, _| system.disarm());
    }

    /// Flips bits at rest in one of the files that match, at places that are flushed; if
    /// `spare_latest`, not where the last flush wrote.
    pub fn rot(
        &self,
        machine: NodeId,
        bits: u32,
        matches: PathMatch,
        spare_latest: bool,
    ) -> Vec<Rot> {
        let pick = (matches, bits, spare_latest);
        self.shared.with(machine, |system, tap, prng| system.rot(tap, prng, pick))
    }

    /// Flips given bits. Returns whether the file has such a byte.
    pub fn rot_at(&self, machine: NodeId, rot: &Rot) -> bool {
        self.shared.with(machine, |system, tap, _| system.flip(tap, rot))
    }

    /// Replaces the disk by an empty one. The process on the machine should have ended before.
    pub fn wipe(&self, machine: NodeId) {
        self.shared.with(machine, |system, _, _| system.wipe());
    }

    /// What a disk holds, as its process sees it.
    pub fn copy(&self, machine: NodeId) -> DiskCopy {
        self.shared.with(machine, |system, _, _| system.copy())
    }

    /// Makes a disk what it was when it was copied. The process on the machine should have ended before.
    pub fn put_back(&self, machine: NodeId, copy: &DiskCopy) {
        self.shared.with(machine, |system, tap, _| system.put_back(tap, copy));
    }

    /// Every file with its length, ordered by name.
    pub fn files(&self, machine: NodeId) -> Vec<(PathBuf, u64)> {
        self.shared.with(machine, |system, _, _| {
            let files = system.names.files();
            files.map(|(path, file)| (path.clone(), system.len_bytes(file).unwrap_or(0))).collect()
        })
    }

    /// The bytes of a file, as its process sees them. Takes no simulated time.
    pub fn contents(&self, machine: NodeId, path: &Path) -> Option<Vec<u8>> {
        self.shared.with(machine, |system, _, _| {
            let file = system.names.file(&names::plain(path)).ok()?;
            system.live(file).ok().map(<[u8]>::to_vec)
        })
    }

    /// What a disk has seen so far.
    pub fn counts(&self, machine: NodeId) -> DiskCounts {
        self.shared.with(machine, |system, _, _| system.counts)
    }

    /// The next number of the disks' stream, which stays where it is: for the trace.
    pub fn generator_position(&self) -> u64 {
        self.shared.all(|state, _| state.prng.clone().next_u64())
    }
}

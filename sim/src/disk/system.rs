//! The file system of one machine: names, files, faults and figures.
//!
//! Invariant: a file lives as long as a name leads to it, now or after some power cut, or a handle
//! of the current process has it open.

use super::image::{FlushId, Image};
use super::names::{Entry, FileId, Names, plain};
use super::{DiskConfig, DiskCounts, DiskOp, PathMatch, Rot, Trouble};
use crate::prng::Prng;
use crate::trace::{Kind, Record, TraceSink};
use fulmar_host::disk::{Listed, Open};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `EIO`: what an operating system says about a broken disk.
const INPUT_OUTPUT_ERROR: i32 = 5;

/// A fault that waits for its operation.
struct Armed {
    operation: DiskOp,
    left: u32,
    matches: PathMatch,
    /// Whether an operation has met it.
    met: Arc<AtomicBool>,
}

struct Stored {
    image: Image,
    /// The name that it was opened under last, for faults that pick a file by its name.
    path: PathBuf,
    handles: u32,
}

/// What a disk held at one moment: of every name, the bytes; nothing for a directory.
#[derive(Clone, Debug, Default)]
pub struct DiskCopy(BTreeMap<PathBuf, Option<Vec<u8>>>);

/// A file system.
pub struct FileSystem {
    /// The number of its machine, for the trace.
    pub number: u64,
    /// Which life of the machine's process this is. A handle of an earlier one is stale.
    pub epoch: u64,
    /// Whether the next end of the process is a power cut.
    pub cut_power_next: bool,
    /// How it behaves.
    pub config: DiskConfig,
    /// What it has seen.
    pub counts: DiskCounts,
    /// What the process that runs now has met.
    pub trouble: Trouble,
    pub(super) names: Names,
    files: BTreeMap<FileId, Stored>,
    next_file: u64,
    locks: BTreeSet<PathBuf>,
    armed: Vec<Armed>,
}

/// When something happened, and who takes note of it.
#[derive(Clone, Copy)]
pub struct Tap<'a> {
    /// Nanoseconds since the simulation began.
    pub now_ns: u64,
    /// The trace.
    pub trace: &'a dyn TraceSink,
}

fn not_open() -> io::Error {
    io::Error::from(ErrorKind::NotFound)
}

impl FileSystem {
    /// An empty disk.
    pub fn new(number: u64) -> Self {
        Self {
            number,
            epoch: 0,
            cut_power_next: false,
            config: DiskConfig::default(),
            counts: DiskCounts::default(),
            trouble: Trouble::default(),
            names: Names::default(),
            files: BTreeMap::new(),
            next_file: 0,
            locks: BTreeSet::new(),
            armed: Vec::new(),
        }
    }

    fn tell(&self, tap: Tap<'_>, kind: Kind, (place, detail): (u64, u64), bytes: &[u8]) {
        let (machine, at_ns) = (self.number, tap.now_ns);
        tap.trace.record(&Record { kind, machine, at_ns, place, detail, bytes });
    }

    fn stored(&mut self, file: FileId) -> io::Result<&mut Stored> {
        self.files.get_mut(&file).ok_or_else(not_open)
    }

    /// How long an operation takes.
    pub fn delay(&self, prng: &mut Prng, operation: DiskOp) -> Duration {
        let config = &self.config;
        let spread = match operation {
            DiskOp::Read => config.read,
            DiskOp::Write => config.write,
            DiskOp::Sync => config.sync,
        };
        let mut ns = spread.draw_ns(prng);
        if operation == DiskOp::Sync {
            ns = ns.saturating_add(u64::try_from(config.slow_sync.as_nanos()).unwrap_or(u64::MAX));
            if prng.chance(config.tail_ppm) {
                ns = ns.saturating_add(config.tail.draw_ns(prng));
            }
        }
        let slow = u128::from(ns) * u128::from(config.slow_percent) / 100;
        Duration::from_nanos(u64::try_from(slow).unwrap_or(u64::MAX))
    }

    /// Arms a fault for the next `count` operations on files that match. Returns what says whether
    /// one of them was met.
    pub fn arm(&mut self, operation: DiskOp, count: u32, matches: PathMatch) -> Arc<AtomicBool> {
        let met = Arc::new(AtomicBool::new(false));
        if count > 0 {
            self.armed.push(Armed { operation, left: count, matches, met: met.clone() });
        }
        met
    }

    /// Takes every fault back that has not fired.
    pub fn disarm(&mut self) {
        self.armed.clear();
    }

    /// Fails if a fault waits for this.
    ///
    /// # Errors
    /// `EIO`.
    pub fn check(&mut self, operation: DiskOp, path: &Path) -> io::Result<()> {
        let waiting = self
            .armed
            .iter()
            .position(|armed| armed.operation == operation && (armed.matches)(path));
        let Some(at) = waiting else { return Ok(()) };
        self.armed[at].met.store(true, Ordering::Relaxed);
        self.armed[at].left -= 1;
        if self.armed[at].left == 0 {
            self.armed.remove(at);
        }
        self.counts.errors += 1;
        match operation {
            DiskOp::Read => self.trouble.read_failed = true,
            DiskOp::Sync => self.trouble.flush_failed = true,
            DiskOp::Write => {}
        }
        Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR))
    }

    /// [`FileSystem::check`] for an open file.
    ///
    /// # Errors
    /// `EIO`.
    pub fn check_file(&mut self, operation: DiskOp, file: FileId) -> io::Result<()> {
        let path = self.stored(file)?.path.clone();
        self.check(operation, &path)
    }

    /// Creates a directory and those above it, durably.
    ///
    /// # Errors
    /// `NotADirectory`.
    pub fn create_directory(&mut self, tap: Tap<'_>, directory: &Path) -> io::Result<()> {
        let directory = plain(directory);
        self.names.create_directory(&directory)?;
        self.tell(tap, Kind::DiskName, (0, 4), directory.as_os_str().as_encoded_bytes());
        Ok(())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `IsADirectory`.
    pub fn open(&mut self, tap: Tap<'_>, path: &Path, how: Open) -> io::Result<FileId> {
        let path = plain(path);
        let file = match how {
            Open::Existing => self.names.file(&path)?,
            Open::New => {
                let file = FileId(self.next_file);
                self.names.create(path.clone(), file)?;
                self.next_file += 1;
                let stored = Stored { image: Image::default(), path: path.clone(), handles: 0 };
                self.files.insert(file, stored);
                self.tell(tap, Kind::DiskName, (file.0, 1), path.as_os_str().as_encoded_bytes());
                file
            }
        };
        let stored = self.stored(file)?;
        stored.handles += 1;
        stored.path = path;
        Ok(file)
    }

    /// A handle of a file was dropped.
    pub fn close(&mut self, file: FileId) {
        if let Ok(stored) = self.stored(file) {
            stored.handles -= 1;
            if stored.handles == 0 {
                self.collect();
            }
        }
    }

    /// Frees the files that nothing leads to any more.
    fn collect(&mut self) {
        let reachable = self.names.reachable();
        self.files.retain(|file, stored| stored.handles > 0 || reachable.contains(file));
    }

    /// Renames a file.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn rename(&mut self, tap: Tap<'_>, from: &Path, to: &Path) -> io::Result<()> {
        let to = plain(to);
        let file = self.names.file(&plain(from))?;
        self.names.rename(plain(from), to.clone())?;
        self.stored(file)?.path = to.clone();
        self.tell(tap, Kind::DiskName, (file.0, 2), to.as_os_str().as_encoded_bytes());
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn remove(&mut self, tap: Tap<'_>, path: &Path) -> io::Result<()> {
        let path = plain(path);
        let file = self.names.file(&path)?;
        self.tell(tap, Kind::DiskName, (file.0, 3), path.as_os_str().as_encoded_bytes());
        self.names.remove(path)
    }

    /// Everything directly in a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let directory = plain(directory);
        self.names.directory(&directory)?;
        let listed = self.names.children(&directory).map(|(path, entry)| Listed {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            len_bytes: match entry {
                Entry::File(file) => self.len_bytes(file).unwrap_or(0),
                Entry::Directory => 0,
            },
            is_dir: entry == Entry::Directory,
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort();
        Ok(listed)
    }

    /// Takes a directory.
    ///
    /// # Errors
    /// `WouldBlock`, `NotFound`, `NotADirectory`.
    pub fn lock(&mut self, directory: &Path) -> io::Result<PathBuf> {
        let directory = plain(directory);
        self.names.directory(&directory)?;
        if !self.locks.insert(directory.clone()) {
            return Err(io::Error::from(ErrorKind::WouldBlock));
        }
        Ok(directory)
    }

    /// Gives a directory back.
    pub fn unlock(&mut self, directory: &Path) {
        self.locks.remove(directory);
    }

    /// Bytes that the files take.
    pub fn taken_bytes(&self) -> u64 {
        self.files.values().map(|stored| stored.image.taken_bytes()).sum()
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        self.config.capacity_bytes.saturating_sub(self.taken_bytes())
    }

    /// The length of a file.
    ///
    /// # Errors
    /// If it is gone.
    pub fn len_bytes(&self, file: FileId) -> io::Result<u64> {
        self.files.get(&file).map(|stored| stored.image.len_bytes()).ok_or_else(not_open)
    }

    /// The bytes of a file, as a process sees them.
    ///
    /// # Errors
    /// If it is gone.
    pub fn live(&self, file: FileId) -> io::Result<&[u8]> {
        self.files.get(&file).map(|stored| stored.image.live()).ok_or_else(not_open)
    }

    /// Writes at one place, as much as there is room for.
    ///
    /// # Errors
    /// `StorageFull`; a part may have been written.
    pub fn write(&mut self, tap: Tap<'_>, file: FileId, at: u64, bytes: &[u8]) -> io::Result<()> {
        let free = self.free_bytes();
        let len = bytes.len() as u64;
        if at.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
            return Err(io::Error::from(ErrorKind::FileTooLarge));
        }
        let needed = self.stored(file)?.image.needed_bytes(at, len);
        let mut fits = bytes;
        if needed > free {
            // Blocks are taken one by one until none is left, as an operating system does it.
            let missing = needed - free;
            fits = &bytes[..bytes.len().saturating_sub(missing as usize)];
            if self.stored(file)?.image.needed_bytes(at, fits.len() as u64) > free {
                fits = &[];
            }
        }
        self.stored(file)?.image.write(at, fits);
        self.counts.written_bytes += fits.len() as u64;
        self.counts.writes += 1;
        self.tell(tap, Kind::DiskWrite, (file.0, at), fits);
        if fits.len() < bytes.len() {
            self.counts.full += 1;
            return Err(io::Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// Cuts or extends a file. What it is extended by takes no space yet.
    ///
    /// # Errors
    /// `FileTooLarge` for a file that the disk could never hold.
    pub fn set_len(&mut self, tap: Tap<'_>, file: FileId, len_bytes: u64) -> io::Result<()> {
        if len_bytes > self.config.capacity_bytes {
            return Err(io::Error::from(ErrorKind::FileTooLarge));
        }
        self.stored(file)?.image.set_len(len_bytes);
        self.tell(tap, Kind::DiskFlush, (file.0, len_bytes), &[0]);
        Ok(())
    }

    /// Shows a file to its process as the disk has it.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn forget_cached(&mut self, tap: Tap<'_>, file: FileId) -> io::Result<()> {
        self.stored(file)?.image.forget_cached();
        self.tell(tap, Kind::DiskFlush, (file.0, 0), &[3]);
        Ok(())
    }

    /// Begins a flush of a file.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn begin_flush(&mut self, file: FileId) -> io::Result<FlushId> {
        Ok(self.stored(file)?.image.begin_flush())
    }

    /// Ends a flush of a file, well or not.
    ///
    /// # Errors
    /// `EIO` if a fault waits for it.
    pub fn end_flush(
        &mut self,
        (tap, prng): (Tap<'_>, &mut Prng),
        file: FileId,
        flush: FlushId,
    ) -> io::Result<()> {
        let result = self.check_file(DiskOp::Sync, file);
        let stored = self.stored(file)?;
        if result.is_err() {
            let drop_pages = prng.chance(500_000);
            stored.image.fail_flush(flush, drop_pages);
        } else {
            stored.image.end_flush(flush);
        }
        let len_bytes = stored.image.len_bytes();
        self.counts.flushes += 1;
        self.tell(tap, Kind::DiskFlush, (file.0, len_bytes), &[1 + u8::from(result.is_err())]);
        result
    }

    /// Ends a flush of a directory, well or not.
    ///
    /// # Errors
    /// `EIO` if a fault waits for it.
    pub fn end_directory_flush(
        &mut self,
        tap: Tap<'_>,
        directory: &Path,
        end: u64,
    ) -> io::Result<()> {
        let result = self.check(DiskOp::Sync, directory);
        if result.is_ok() {
            self.names.end_flush(directory, end);
            self.counts.flushes += 1;
        }
        let bytes = directory.as_os_str().as_encoded_bytes();
        self.tell(tap, Kind::DiskFlush, (end, 4 + u64::from(result.is_err())), bytes);
        result
    }

    /// The process ended. The page cache stays, and so does what was not flushed.
    pub fn process_died(&mut self) {
        self.epoch += 1;
        self.trouble = Trouble::default();
        self.locks.clear();
        for stored in self.files.values_mut() {
            stored.handles = 0;
        }
        self.collect();
    }

    /// The power is cut: of what was not flushed, this or that is left.
    pub fn power_lost(&mut self, tap: Tap<'_>, prng: &mut Prng) {
        let lost = self.names.lose_power(prng, self.config.power_loss.lost_name_ppm);
        self.counts.lost_names += lost as u64;
        self.process_died();
        let mut hash = Vec::new();
        for stored in self.files.values_mut() {
            stored.image.lose_power(prng, &self.config.power_loss);
            let left = xxhash_rust::xxh3::xxh3_64(stored.image.live());
            hash.extend_from_slice(&left.to_le_bytes());
        }
        self.tell(tap, Kind::Fault, (lost as u64, 0), &hash);
    }

    /// Flips bits at rest in one file that matches, or spares what the last flush wrote. Returns
    /// what was flipped.
    pub fn rot(
        &mut self,
        tap: Tap<'_>,
        prng: &mut Prng,
        (matches, bits, spare_latest): (PathMatch, u32, bool),
    ) -> Vec<Rot> {
        let fitting: Vec<(PathBuf, FileId)> = self
            .names
            .files()
            .filter(|(path, file)| matches(path) && self.len_bytes(*file).is_ok_and(|len| len > 0))
            .map(|(path, file)| (path.clone(), file))
            .collect();
        let Some((path, file)) = prng.pick(&fitting).cloned() else {
            return Vec::new();
        };
        let mut flipped = Vec::new();
        for _ in 0..bits {
            let rotten =
                self.stored(file).ok().and_then(|stored| stored.image.rot(prng, spare_latest));
            let Some((at, mask)) = rotten else { break };
            self.tell(tap, Kind::Fault, (file.0, at), &[mask]);
            self.counts.rotten_bits += 1;
            flipped.push(Rot { path: path.clone(), at, mask });
        }
        flipped
    }

    /// Flips the bits of a mask in one byte of a file. Whether there is such a byte.
    pub fn flip(&mut self, tap: Tap<'_>, rot: &Rot) -> bool {
        let Ok(file) = self.names.file(&plain(&rot.path)) else {
            return false;
        };
        let Ok(stored) = self.stored(file) else {
            return false;
        };
        if rot.at >= stored.image.len_bytes() {
            return false;
        }
        stored.image.flip(rot.at, rot.mask);
        self.counts.rotten_bits += 1;
        self.tell(tap, Kind::Fault, (file.0, rot.at), &[rot.mask]);
        true
    }

    /// An empty disk takes the place of this one.
    pub fn wipe(&mut self) {
        self.names = Names::default();
        self.process_died();
    }

    /// What the disk holds, as its process sees it.
    pub fn copy(&self) -> DiskCopy {
        let bytes = |entry: Entry| match entry {
            Entry::File(file) => Some(self.live(file).unwrap_or_default().to_vec()),
            Entry::Directory => None,
        };
        DiskCopy(self.names.all().map(|(path, entry)| (path.clone(), bytes(entry))).collect())
    }

    /// A disk that holds a copy, all of it durable, takes the place of this one.
    pub fn put_back(&mut self, tap: Tap<'_>, copy: &DiskCopy) {
        self.wipe();
        let mut names = BTreeMap::new();
        for (path, bytes) in &copy.0 {
            let entry = bytes.as_ref().map_or(Entry::Directory, |bytes| {
                let file = FileId(self.next_file);
                self.next_file += 1;
                let image = Image::of(bytes);
                self.files.insert(file, Stored { image, path: path.clone(), handles: 0 });
                self.tell(tap, Kind::DiskWrite, (file.0, 0), bytes);
                Entry::File(file)
            });
            names.insert(path.clone(), entry);
        }
        self.names = Names::of(names);
    }
}

/// Any file.
pub fn any_file() -> PathMatch {
    Arc::new(|_| true)
}

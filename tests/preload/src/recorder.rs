//! What has been changed and not flushed, in memory and in the journal.
//!
//! Invariants: the journal lies outside the directory that is watched, on the same file system
//! (hard links); its descriptor is locked, so that one process at a time writes it; a new process
//! goes on with the journal of the one before it, because a flush of the new one covers what the
//! old one left in the page cache.

use crate::journal::{Content, Inode, JOURNAL, Record, What, decode_all, extents, kept_name};
use crate::raw;
use libc::{c_char, c_int};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The directory in which every change is recorded. Absolute, without links.
const DATA: &CStr = c"FULMAR_PRELOAD_DATA";
/// The directory for the journal.
const SIDE: &CStr = c"FULMAR_PRELOAD_JOURNAL";
/// If it is set, flushes do nothing.
const LIE: &CStr = c"FULMAR_PRELOAD_LIE";

/// Bytes read at once before they are overwritten.
const CHUNK_BYTES: usize = 1 << 20;

/// What the environment asks for.
pub struct Settings {
    data: Vec<u8>,
    side: Vec<u8>,
    /// Whether flushes do nothing.
    pub lie: bool,
}

impl Settings {
    /// Read once; `None` if this process is not to be watched.
    pub fn get() -> Option<&'static Self> {
        static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
        let read = || {
            let data = variable(DATA)?;
            let side = variable(SIDE)?;
            Some(Settings { data, side, lie: variable(LIE).is_some() })
        };
        SETTINGS.get_or_init(read).as_ref()
    }

    /// Whether a path is the directory or lies in it.
    pub fn watches(&self, path: &[u8]) -> bool {
        path.strip_prefix(self.data.as_slice())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    fn in_side(&self, name: &str) -> Vec<u8> {
        [self.side.as_slice(), b"/", name.as_bytes()].concat()
    }
}

fn variable(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: the name ends in a zero byte; the value is copied at once.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes().to_vec())
    }
}

/// A change that has not been flushed.
struct Pending {
    seq: u64,
    kept: bool,
}

/// The changes of this process, and of those before it.
pub struct Recorder {
    settings: &'static Settings,
    journal: c_int,
    seq: u64,
    pending: BTreeMap<Inode, Vec<Pending>>,
}

/// The recorder of this process. Whoever changes something holds it from the record to the change.
pub fn recorder(settings: &'static Settings) -> Guard {
    static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);
    let mut slot = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.is_none() {
        *slot = Some(Recorder::open(settings));
    }
    Guard(slot)
}

/// The recorder, locked.
pub struct Guard(MutexGuard<'static, Option<Recorder>>);

impl std::ops::Deref for Guard {
    type Target = Recorder;
    fn deref(&self) -> &Recorder {
        self.0.as_ref().expect("filled before the guard is made")
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Recorder {
        self.0.as_mut().expect("filled before the guard is made")
    }
}

impl Recorder {
    fn open(settings: &'static Settings) -> Self {
        let path = raw::zero_ended(&settings.in_side(JOURNAL));
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        let journal = raw::openat(libc::AT_FDCWD, path.as_ptr().cast(), flags, 0o600);
        // SAFETY: no memory is involved.
        if journal < 0 || unsafe { libc::flock(journal, libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            raw::give_up("the journal cannot be opened, or another process has it");
        }
        let len = raw::stat(journal).map_or(0, |(_, len)| len);
        let (records, whole) = decode_all(&raw::read_at(journal, 0, len as usize));
        if raw::ftruncate(journal, whole as libc::off_t) != 0 {
            raw::give_up("the torn end of the journal cannot be cut");
        }
        let mut recorder = Self { settings, journal, seq: 0, pending: BTreeMap::new() };
        for record in &records {
            recorder.seq = recorder.seq.max(record.seq);
            recorder.account(record);
        }
        recorder
    }

    /// The number of the last change.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    fn append(&mut self, inode: Inode, what: What) {
        self.seq += 1;
        let record = Record { seq: self.seq, inode, what };
        raw::write_all(self.journal, &record.encode());
        self.account(&record);
    }

    /// Keeps the memory as the journal is; returns what no longer needs its hard link.
    fn account(&mut self, record: &Record) -> Vec<u64> {
        let kept = match &record.what {
            What::Durable => {
                let Some(pending) = self.pending.get_mut(&record.inode) else { return Vec::new() };
                let done = pending.iter().filter(|p| p.seq <= record.seq && p.kept);
                let done = done.map(|p| p.seq).collect();
                pending.retain(|p| p.seq > record.seq);
                if pending.is_empty() {
                    self.pending.remove(&record.inode);
                }
                return done;
            }
            What::Content(_) => false,
            What::Name { kept, .. } => *kept,
        };
        self.pending.entry(record.inode).or_default().push(Pending { seq: record.seq, kept });
        Vec::new()
    }

    /// Notes how a range of a file is, before it is changed.
    pub fn content(&mut self, fd: c_int, at: u64, len: u64) {
        let Some((inode, file_bytes)) = raw::stat(fd) else { return };
        // What lies beyond the end of the file needs no bytes: the old length says it.
        let end = at.saturating_add(len).min(file_bytes);
        let mut found = Vec::new();
        let (reader, is_ours) = raw::readable(fd);
        let mut here = at;
        while here < end {
            let step = CHUNK_BYTES.min((end - here) as usize);
            let bytes = raw::read_at(reader, here, step);
            found.extend(extents(here, &bytes));
            here += step as u64;
        }
        if is_ours {
            raw::close(reader);
        }
        let len = end.saturating_sub(at);
        self.append(inode, What::Content(Content { file_bytes, at, len, extents: found }));
    }

    /// Notes what a name means, before it is made, replaced or removed.
    pub fn name(&mut self, place: &Place) {
        let kept = raw::exists(place.directory, place.name());
        let link = self.settings.in_side(&kept_name(self.seq + 1));
        if kept && !raw::link(place.directory, place.name(), &link) {
            raw::give_up("a link to a file that is replaced cannot be kept");
        }
        self.append(place.inode, What::Name { path: place.path(), kept });
    }

    /// Forgets the changes of an inode up to a number: they are durable now.
    pub fn durable(&mut self, inode: Inode, up_to: u64) {
        if !self.pending.get(&inode).is_some_and(|p| p.iter().any(|p| p.seq <= up_to)) {
            return;
        }
        let record = Record { seq: up_to, inode, what: What::Durable };
        raw::write_all(self.journal, &record.encode());
        for seq in self.account(&record) {
            let link = raw::zero_ended(&self.settings.in_side(&kept_name(seq)));
            raw::unlinkat(libc::AT_FDCWD, link.as_ptr().cast(), 0);
        }
        if self.pending.is_empty() && raw::ftruncate(self.journal, 0) != 0 {
            raw::give_up("the journal cannot be emptied");
        }
    }
}

/// A name in a directory that is watched.
pub struct Place {
    directory: c_int,
    directory_path: Vec<u8>,
    inode: Inode,
    /// With its zero byte.
    name: Vec<u8>,
}

impl Place {
    /// The place that a path names, if it is watched.
    ///
    /// # Safety
    /// `path` is null or ends in a zero byte.
    pub unsafe fn of(settings: &Settings, directory: c_int, path: *const c_char) -> Option<Self> {
        if path.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name): (&[u8], &[u8]) = match slash {
            Some(0) => (b"/", &path[1..]),
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (b".", path),
        };
        if name.is_empty() || name == b"." || name == b".." {
            return None;
        }
        let parent = raw::zero_ended(parent);
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let opened = raw::openat(directory, parent.as_ptr().cast(), flags, 0);
        if opened < 0 {
            return None;
        }
        let found = raw::path_of(opened).filter(|path| settings.watches(path));
        let (Some(directory_path), Some((inode, _))) = (found, raw::stat(opened)) else {
            raw::close(opened);
            return None;
        };
        Some(Self { directory: opened, directory_path, inode, name: raw::zero_ended(name) })
    }

    fn name(&self) -> *const c_char {
        self.name.as_ptr().cast()
    }

    /// Whether something has this name.
    pub fn exists(&self) -> bool {
        raw::exists(self.directory, self.name())
    }

    fn path(&self) -> Vec<u8> {
        let name = &self.name[..self.name.len() - 1];
        [self.directory_path.as_slice(), b"/", name].concat()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        raw::close(self.directory);
    }
}

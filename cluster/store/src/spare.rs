//! Files for the segments to come, taken from the disk ahead of need.
//!
//! A spare is a file of a full segment's size: writing a frame into it changes no metadata of the
//! file system, so a flush is two to three times cheaper, and a full disk is met here and not in
//! the middle of an append. It holds real zeros, or whatever its earlier life as a segment left:
//! the frames of that life name another base and are not believed.
//!
//! The task also keeps the ballast (see `space`) and looks how much space is free: after each
//! change, and every second.
//!
//! Invariants: zeros are written in pieces, each flushed by itself, so that the flush of the log
//! never waits for a large one. A full disk ends nothing here: what was begun is given back, and
//! the disk is asked again after a pause, or when something was removed.
//!
//! Never: take the last free bytes for a spare. Snapshots and small files need some now and then.

use crate::core::Inner;
use crate::error::{DiskError, Failure, is_full};
use crate::files::{CHUNK_BYTES, create, open_if_there, sync_dir, zeros};
use crate::format::SECTOR;
use crate::paths::Paths;
use crate::space::{BLOCK_BYTES, room, take_ballast};
use fulmar_host::disk::{Disk, File, Flush, Open, Write};
use fulmar_host::time;
use fulmar_types::Event;
use fulmar_types::limits::{ballast_bytes, free_kept_bytes};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A page of the kernel's cache.
const PAGE_BYTES: u64 = 4_096;

/// After this long the file system is asked again.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The spares that there are.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    /// Of full size.
    ready: VecDeque<u64>,
    /// Files of earlier segments; perhaps not of full size.
    raw: VecDeque<u64>,
    next: u64,
}

impl Spares {
    /// What was found on disk.
    pub fn found(numbers: Vec<u64>) -> Self {
        let next = numbers.iter().max().map_or(0, |number| number + 1);
        Self { ready: VecDeque::new(), raw: numbers.into(), next }
    }

    /// A number that no spare has or had.
    pub fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Adds a file that was a segment.
    pub fn add(&mut self, number: u64) {
        self.raw.push_back(number);
        self.next = self.next.max(number + 1);
    }

    /// A file for a segment, and whether it has to be created first.
    pub fn take(&mut self) -> (u64, bool) {
        match self.ready.pop_front().or_else(|| self.raw.pop_front()) {
            Some(number) => (number, false),
            None => (self.next_number(), true),
        }
    }

    /// All of them, the ready ones first.
    pub fn numbers(&self) -> Vec<u64> {
        self.ready.iter().chain(&self.raw).copied().collect()
    }

    /// Takes one of them. `false` if it is not there any more.
    pub fn take_this(&mut self, number: u64) -> bool {
        let before = self.ready.len() + self.raw.len();
        self.ready.retain(|other| *other != number);
        self.raw.retain(|other| *other != number);
        self.ready.len() + self.raw.len() < before
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }
}

/// Bytes of a spare: a segment, and room for the footer of one that is full of batches of 1 KiB.
/// More room would cost zeros each time that a segment is recycled.
pub(crate) const fn spare_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes + segment_bytes / 64).next_multiple_of(SECTOR)
}

/// A spare and its length in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Longest {
    pub number: u64,
    pub len: u64,
}

/// The first of these spares that has its full size, or else the longest: what it lacks takes
/// space. `None` if there is none.
pub(crate) async fn longest(
    disk: &dyn Disk,
    paths: &Paths,
    numbers: &[u64],
) -> Result<Option<Longest>, DiskError> {
    let mut longest: Option<Longest> = None;
    for number in numbers {
        let path = paths.spare(*number);
        let Some(file) = open_if_there(disk, &path).await? else { continue };
        let len = file.len_bytes().await.map_err(DiskError::with("read", &path))?;
        if longest.is_none_or(|most| len > most.len) {
            longest = Some(Longest { number: *number, len });
        }
    }
    Ok(longest)
}

/// Bytes that [`fill`] would have to write.
pub(crate) const fn lacks_bytes(len: u64, segment_bytes: u64) -> u64 {
    if len >= segment_bytes { 0 } else { spare_bytes(segment_bytes) - len }
}

enum Task {
    /// Bring the ballast to its size.
    Ballast { wanted_bytes: u64 },
    /// Bring this file to its size; it may have to be created.
    Fill { number: u64, is_new: bool },
    /// There are more than wanted.
    Remove(u64),
}

/// What is to be done; nothing if the disk is full and nothing can be given back. Without the
/// ballast, if that has just found no space: a file that was a segment may need none.
fn next_task(inner: &Inner, with_ballast: bool) -> Option<Task> {
    let mut core = inner.core();
    if core.poisoned || core.identity.is_none() {
        return None;
    }
    let segment_bytes = inner.settings.segment_bytes;
    let free = core.space.free_bytes.unwrap_or(u64::MAX);
    if core.installing {
        // It has asked whether there is space for it.
        return None;
    }
    let wanted_bytes = ballast_bytes(segment_bytes);
    if with_ballast && core.space.ballast_bytes < wanted_bytes && free >= BLOCK_BYTES {
        return Some(Task::Ballast { wanted_bytes });
    }
    // One is needed whatever the settings say: nothing is appended without a place for it.
    let wanted = (inner.settings.spare_segments as usize).max(1);
    let has_space = free >= free_kept_bytes(segment_bytes) + spare_bytes(segment_bytes);
    let spares = &mut core.spares;
    let missing = wanted.saturating_sub(spares.ready.len());
    // Some files of removed segments are kept for later, or a steady log would write zeros for
    // every new segment and recycle none.
    if spares.raw.len() > wanted + missing {
        return spares.raw.pop_front().map(Task::Remove);
    }
    if missing == 0 {
        return None;
    }
    match spares.raw.pop_front() {
        Some(number) => Some(Task::Fill { number, is_new: false }),
        None if has_space => Some(Task::Fill { number: spares.next_number(), is_new: true }),
        None => None,
    }
}

/// Keeps as many spares ready as the settings say, until the store is dropped or fails.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut with_ballast = true;
    loop {
        look(&inner).await;
        let task = next_task(&inner, with_ballast);
        let is_ballast = matches!(task, Some(Task::Ballast { .. }));
        let done = match task {
            None => Ok(false),
            Some(task) => perform(&inner, task).await,
        };
        inner.space_changed.notify_waiters();
        match done {
            Ok(true) => {}
            Ok(false) if is_ballast => with_ballast = false,
            Ok(false) => {
                let _ = time::timeout(LOOK_PAUSE, inner.spare_taken.notified()).await;
                with_ballast = true;
            }
            Err(error) => {
                inner.fail(&Failure::Disk(error), Vec::new());
            }
        }
        if inner.core().poisoned {
            return;
        }
    }
}

/// Asks how much space is free, and says so if the room for records ran low or came back.
async fn look(inner: &Inner) {
    let free = inner.host.disk.free_bytes(&inner.paths.root).await;
    let event = {
        let mut core = inner.core();
        // A file system that does not say is taken for one that has space, until a write fails.
        core.space.free_bytes = free.ok();
        let room = room(&core, &inner.settings);
        let (ready_bytes, more_bytes) = (room.ready_bytes(), room.more_bytes());
        let low = ready_bytes.saturating_add(more_bytes) < inner.settings.reserve_bytes;
        if core.identity.is_none() || low == core.space.low {
            return;
        }
        core.space.low = low;
        Event::SpaceChanged { low, ready_bytes, more_bytes }
    };
    tracing::warn!(?event, "the room on the disk changed");
    inner.host.report(event);
}

/// Does a task. Whether there is more to do at once: not if the disk is full.
async fn perform(inner: &Inner, task: Task) -> Result<bool, DiskError> {
    let done = match task {
        Task::Ballast { wanted_bytes } => {
            let disk = inner.host.disk.as_ref();
            let before = inner.core().space.ballast_bytes;
            let taken_bytes = take_ballast(disk, &inner.ballast, wanted_bytes).await?;
            inner.core().space.ballast_bytes = taken_bytes;
            return Ok(taken_bytes > before);
        }
        Task::Remove(number) => return remove(inner, number).await.map(|()| true),
        Task::Fill { number, is_new } => {
            let filled = prepare(inner, &inner.paths.spare(number), is_new).await;
            let mut core = inner.core();
            match filled {
                Ok(()) => core.spares.ready.push_back(number),
                Err(_) => core.spares.raw.push_back(number),
            }
            filled
        }
    };
    match done {
        Ok(()) => Ok(true),
        Err(error) if is_full(&error.source) => {
            tracing::warn!(path = %error.path.display(), "no space for it now");
            // Of two files that cannot be brought to their size, one makes room for the other.
            let other = {
                let raw = &mut inner.core().spares.raw;
                if raw.len() > 1 { raw.pop_front() } else { None }
            };
            match other {
                Some(number) => remove(inner, number).await.map(|()| true),
                None => Ok(false),
            }
        }
        Err(error) => Err(error),
    }
}

async fn remove(inner: &Inner, number: u64) -> Result<(), DiskError> {
    let path = inner.paths.spare(number);
    let disk = inner.host.disk.as_ref();
    disk.remove(&path).await.map_err(DiskError::with("remove", &path))?;
    sync_dir(disk, &inner.paths.log).await
}

/// Zeros for a range, one write a page. A large write makes the kernel keep the range as one large
/// piece of its cache, and a sector that is written into it later is accounted as all of it.
fn zero_pages(from: u64, len: u64) -> Vec<Write> {
    let end = from + len;
    let mut writes = Vec::new();
    let mut at = from;
    while at < end {
        let to = (at + 1).next_multiple_of(PAGE_BYTES).min(end);
        writes.push(Write { at, pieces: zeros(to - at) });
        at = to;
    }
    writes
}

/// Brings a spare to its size, if there is space for it.
async fn prepare(inner: &Inner, path: &Path, is_new: bool) -> Result<(), DiskError> {
    let disk = inner.host.disk.as_ref();
    let file = open_spare(disk, path, is_new).await?;
    let len = file.len_bytes().await.map_err(DiskError::with("read", path))?;
    let segment_bytes = inner.settings.segment_bytes;
    let missing = spare_bytes(segment_bytes).saturating_sub(len);
    let free = inner.core().space.free_bytes.unwrap_or(u64::MAX);
    if missing > 0 && free < missing.saturating_add(free_kept_bytes(segment_bytes)) {
        return Err(DiskError::with("write", path)(std::io::ErrorKind::StorageFull.into()));
    }
    fill(file.as_ref(), path, segment_bytes).await
}

/// Opens the file of a spare, which may have to be created.
pub(crate) async fn open_spare(
    disk: &dyn Disk,
    path: &Path,
    is_new: bool,
) -> Result<Arc<dyn File>, DiskError> {
    if is_new {
        create(disk, path).await
    } else {
        disk.open(path, Open::Existing).await.map_err(DiskError::with("open", path))
    }
}

/// Writes zeros until a spare has its size; a longer file is cut. If there is no space, what was
/// written is given back: none of what may not have reached the disk is believed by a second try.
pub(crate) async fn fill(
    file: &dyn File,
    path: &Path,
    segment_bytes: u64,
) -> Result<(), DiskError> {
    let wanted = spare_bytes(segment_bytes);
    let filled = async {
        let len = file.len_bytes().await?;
        if len > wanted {
            file.set_len(wanted).await?;
            return file.sync().await;
        }
        // A file that was a segment ends with its footer. The next footer may be longer: it is
        // written once, and not worth filling the difference up each time.
        if lacks_bytes(len, segment_bytes) == 0 {
            return Ok(());
        }
        let mut at = len;
        while at < wanted {
            let piece = (wanted - at).min(CHUNK_BYTES);
            let written = file.write(zero_pages(at, piece), Flush::Data).await;
            if written.as_ref().is_err_and(is_full) {
                file.set_len(len).await?;
                file.sync().await?;
            }
            written?;
            at += piece;
        }
        Ok(())
    };
    filled.await.map_err(DiskError::with("write", path))
}

//! Files for the segments to come, taken from the disk ahead of need.
//!
//! A spare is a file of a full segment's size: writing a frame into it changes no metadata of the
//! file system, so a flush is two to three times cheaper, and a full disk is met here and not in
//! the middle of an append. It holds real zeros, or whatever its earlier life as a segment left:
//! the frames of that life name another base and are not believed.
//!
//! Invariants: a segment never waits for a spare; where none is ready it begins with an empty
//! file. Zeros are written in pieces, each flushed by itself, so that the flush of the log never
//! waits for a large one.

use crate::core::Inner;
use crate::error::{DiskError, Failure};
use crate::files::{CHUNK_BYTES, create, sync_dir, zeros};
use crate::format::SECTOR;
use fulmar_host::disk::{File, Flush, Open, Write};
use fulmar_host::time;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A page of the kernel's cache.
const PAGE_BYTES: u64 = 4_096;

/// After this long a full disk is asked again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

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

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }
}

/// Bytes of a spare: a segment, and room for the footer of a usual one.
pub(crate) const fn spare_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes + segment_bytes / 32).next_multiple_of(SECTOR)
}

enum Task {
    /// Bring this file to its size; it may have to be created.
    Fill { number: u64, is_new: bool },
    /// There are more than wanted.
    Remove(u64),
}

fn next_task(inner: &Inner) -> Option<Task> {
    let mut core = inner.core();
    if core.poisoned || core.identity.is_none() {
        return None;
    }
    let wanted = inner.settings.spare_segments as usize;
    let spares = &mut core.spares;
    if spares.ready.len() < wanted {
        return Some(match spares.raw.pop_front() {
            Some(number) => Task::Fill { number, is_new: false },
            None => Task::Fill { number: spares.next_number(), is_new: true },
        });
    }
    // Some files of removed segments are kept for later, or a steady log would write zeros for
    // every new segment and recycle none.
    if spares.raw.len() > wanted { spares.raw.pop_front().map(Task::Remove) } else { None }
}

/// Keeps as many spares ready as the settings say, until the store is dropped or fails.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        let Some(task) = next_task(&inner) else {
            inner.spare_taken.notified().await;
            if inner.core().poisoned {
                return;
            }
            continue;
        };
        let failed = match task {
            Task::Fill { number, is_new } => {
                let path = inner.paths.spare(number);
                match fill(&inner, path.clone(), is_new).await {
                    Ok(()) => {
                        inner.core().spares.ready.push_back(number);
                        None
                    }
                    Err(error) if error.source.kind() == io::ErrorKind::StorageFull => {
                        tracing::warn!(path = %path.display(), "no space for the next segment");
                        inner.core().spares.raw.push_back(number);
                        time::sleep(FULL_DISK_PAUSE).await;
                        None
                    }
                    Err(error) => Some(error),
                }
            }
            Task::Remove(number) => remove(&inner, number).await.err(),
        };
        if let Some(error) = failed {
            inner.fail(&Failure::Disk(error), Vec::new());
            return;
        }
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

async fn fill(inner: &Inner, path: PathBuf, is_new: bool) -> Result<(), DiskError> {
    let disk = inner.host.disk.as_ref();
    let file: Arc<dyn File> = if is_new {
        create(disk, &path).await?
    } else {
        disk.open(&path, Open::Existing).await.map_err(DiskError::with("open", &path))?
    };
    let wanted = spare_bytes(inner.settings.segment_bytes);
    let filled = async {
        let len = file.len_bytes().await?;
        if len > wanted {
            file.set_len(wanted).await?;
            return file.sync().await;
        }
        // A file that was a segment ends with its footer. The next footer may be longer: it is
        // written once, and not worth filling the difference up each time.
        if len >= inner.settings.segment_bytes {
            return Ok(());
        }
        let mut at = len;
        while at < wanted {
            let piece = (wanted - at).min(CHUNK_BYTES);
            file.write(zero_pages(at, piece), Flush::Data).await?;
            at += piece;
        }
        Ok(())
    };
    filled.await.map_err(DiskError::with("write", &path))
}

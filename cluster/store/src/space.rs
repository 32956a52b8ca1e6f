//! How much the log of a node can still take, and the little that is kept back for the small files.
//!
//! ```text
//! room    what is left of the last segment | spares, each a whole segment | what the file system
//!         <----------- ready: no new space is needed ---------------->     could give: more
//! ballast a file of zeros; given up piece by piece when a small file finds the disk full, and
//!         taken again as soon as there is space
//! ```
//!
//! Invariants: room is counted in memory and ahead of the disk: a segment that was begun there has
//! its spare, before the file got its name. What is *ready* can be appended whatever happens to the
//! file system; *more* is a figure of about a second ago and nothing is promised on it. The ballast
//! has no hole: one task at a time changes its length.
//!
//! Never: a question to the file system in the way of an append.

use crate::core::Core;
use crate::error::{DiskError, is_full};
use crate::files::{create, open_if_there, sync_dir, zeros};
use crate::format::frame::frame_bytes;
use crate::format::header::FRAMES_AT;
use crate::format::manifest::Manifest;
use crate::paths::Paths;
use crate::snapshot::Snapshot;
use crate::spare::spare_bytes;
use crate::store::StoreSettings;
use fulmar_host::disk::{Disk, Flush, Write};
use fulmar_types::limits::{SECTOR_BYTES, free_kept_bytes};
use std::future::Future;
use std::path::PathBuf;
use tokio::sync::Mutex;

/// The unit in which file systems give space.
pub(crate) const BLOCK_BYTES: u64 = 4_096;

/// Directories and files that are a block long.
const SMALL_FILES_BYTES: u64 = 8 * BLOCK_BYTES;

/// What the log of a node can still take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes left in the last segment.
    pub rest_bytes: u64,
    /// Spares that are ready.
    pub spares: u64,
    /// Further spares for which the file system had space when it was asked last.
    pub more: u64,
    /// Bytes of frames that fit into a segment.
    pub segment_bytes: u64,
}

/// Frames that are to be appended one behind the other, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// All of them together.
    pub bytes: u64,
    /// The largest of them.
    pub largest: u64,
}

impl Demand {
    /// The frame of an entry with a payload of this length.
    pub fn of_payload(len: usize) -> Self {
        Self::of_bytes(frame_bytes(len))
    }

    /// Frames of a sector each.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes, largest: bytes }
    }

    /// Both, in whatever order.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, largest: self.largest.max(other.largest) }
    }
}

impl Room {
    /// Bytes that can be appended without new space from the file system.
    pub fn ready_bytes(&self) -> u64 {
        self.rest_bytes + self.spares * self.segment_bytes
    }

    /// Bytes for which the file system had space beyond that.
    pub fn more_bytes(&self) -> u64 {
        self.more.saturating_mul(self.segment_bytes)
    }

    /// Whether frames are sure to find a ready place, in whatever order they come: a segment is
    /// left for the next one when a frame no longer fits, so each holds all but a little less than
    /// the largest frame.
    pub fn takes(&self, demand: Demand) -> bool {
        let waste = demand.largest.saturating_sub(SECTOR_BYTES as u64);
        let rest = self.rest_bytes.saturating_sub(waste);
        let each = self.segment_bytes.saturating_sub(waste);
        demand.bytes <= rest + self.spares * each
    }

    /// Whether these frames find a ready place in just this order, and nothing comes between.
    pub fn takes_in_order(&self, frames: impl IntoIterator<Item = u64>) -> bool {
        let (mut left, mut spares) = (self.rest_bytes, self.spares);
        for frame in frames {
            if frame > left {
                if spares == 0 || frame > self.segment_bytes {
                    return false;
                }
                spares -= 1;
                left = self.segment_bytes;
            }
            left -= frame;
        }
        true
    }
}

/// What is known of the free space.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    /// What the file system said last; `None` before it was asked.
    pub free_bytes: Option<u64>,
    /// Whether less than the reserve is left, as it was reported last.
    pub low: bool,
    /// How long the ballast is, or less where that is not known.
    pub ballast_bytes: u64,
    /// A spare was taken for a segment that has no name yet.
    pub rolling: bool,
}

/// What the log can still take.
pub(crate) fn room(core: &Core, settings: &StoreSettings) -> Room {
    let segment_bytes = settings.segment_bytes - FRAMES_AT;
    let Some(log) = &core.log else { return Room { segment_bytes, ..Room::default() } };
    let begun = log.segments().keys().filter(|base| Some(**base) > core.rolled).count() as u64;
    let begun = begun - u64::from(core.space.rolling && begun > 0);
    let ready = core.spares.ready() as u64;
    // A segment that was begun without a spare has no place yet.
    let rest_bytes =
        if begun > ready { 0 } else { settings.segment_bytes.saturating_sub(log.tail().end()) };
    let spares = ready.saturating_sub(begun);
    let kept = free_kept_bytes(settings.segment_bytes);
    let more = core
        .space
        .free_bytes
        .map_or(1, |free| free.saturating_sub(kept) / spare_bytes(settings.segment_bytes));
    Room { rest_bytes, spares, more, segment_bytes }
}

/// Free bytes without which a snapshot should not be installed: it is written twice, as are the
/// names of its segments, and the log goes on in an empty segment, of which `next_bytes` are not
/// there yet. The ballast counts as free.
pub(crate) fn needed_to_install(snapshot: &Snapshot, segments: usize, next_bytes: u64) -> u64 {
    let names = Manifest::bytes_of(segments);
    let small = 2 * (blocks(snapshot.encoded_len()) + blocks(names)) + SMALL_FILES_BYTES;
    small + blocks(next_bytes)
}

/// What a file takes on disk.
const fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// The ballast of a directory.
pub(crate) struct Ballast {
    root: PathBuf,
    path: PathBuf,
    /// Held from the look at its length to the end of the change: what is written behind an end
    /// that was given up meanwhile would leave a hole, and the hole is no space to give up.
    changing: Mutex<()>,
}

impl Ballast {
    pub fn new(paths: &Paths) -> Self {
        Self { root: paths.root.clone(), path: paths.ballast(), changing: Mutex::new(()) }
    }
}

/// Brings the ballast to its size, as far as there is space. Returns how long it is.
pub(crate) async fn take_ballast(
    disk: &dyn Disk,
    ballast: &Ballast,
    wanted_bytes: u64,
) -> Result<u64, DiskError> {
    let Ballast { root, path, changing } = ballast;
    let _changing = changing.lock().await;
    let failed = |error| DiskError::with("write", path)(error);
    let file = match open_if_there(disk, path).await? {
        Some(file) => file,
        None => {
            let file = create(disk, path).await?;
            sync_dir(disk, root).await?;
            file
        }
    };
    let len = file.len_bytes().await.map_err(failed)?;
    let free = disk.free_bytes(root).await.map_err(failed)?;
    // A power cut leaves any length, so what lacks may be less than a block.
    let lacks = wanted_bytes.saturating_sub(len);
    let more = if lacks <= free { lacks } else { free / BLOCK_BYTES * BLOCK_BYTES };
    if more == 0 {
        return Ok(len);
    }
    match file.write(vec![Write { at: len, pieces: zeros(more) }], Flush::Data).await {
        Err(error) if is_full(&error) => {
            file.set_len(len).await.map_err(failed)?;
            file.sync().await.map_err(failed)?;
            Ok(len)
        }
        written => written.map(|()| len + more).map_err(failed),
    }
}

/// Gives up ballast for so many bytes, but keeps the last `keep_bytes`. Whether any was given up.
pub(crate) async fn release(
    disk: &dyn Disk,
    ballast: &Ballast,
    (bytes, keep_bytes): (u64, u64),
) -> Result<bool, DiskError> {
    let Ballast { path, changing, .. } = ballast;
    let _changing = changing.lock().await;
    let Some(file) = open_if_there(disk, path).await? else { return Ok(false) };
    let failed = |error| DiskError::with("write", path)(error);
    let len = file.len_bytes().await.map_err(failed)?;
    let rest = len.saturating_sub(blocks(bytes) + BLOCK_BYTES).max(keep_bytes);
    if rest >= len {
        return Ok(false);
    }
    file.set_len(rest).await.map_err(failed)?;
    // Only then does the file system give the space back for good.
    file.sync().await.map_err(failed)?;
    Ok(true)
}

/// Writes a small file whole by `work`, and begins anew with less ballast if the disk is full. That
/// is no second try of a flush: the file is another one, or what was written to it was given back.
/// Also says whether any ballast was given up.
pub(crate) async fn with_ballast<T, F: Future<Output = Result<T, DiskError>>>(
    disk: &dyn Disk,
    ballast: &Ballast,
    bytes: u64,
    work: impl Fn() -> F,
) -> Result<(T, bool), DiskError> {
    let mut given_up = false;
    loop {
        match work().await {
            Err(error) if is_full(&error.source) => {
                if !release(disk, ballast, (bytes, 0)).await? {
                    return Err(error);
                }
                tracing::warn!(path = %error.path.display(), "the disk is full: giving up ballast");
                given_up = true;
            }
            done => return done.map(|done| (done, given_up)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { rest_bytes: 10_240, spares: 1, more: 0, segment_bytes: 102_400 };

    #[test]
    fn frames_that_are_sure_to_fit_fit_in_any_order() {
        assert!(ROOM.takes(Demand { bytes: 102_400, largest: 512 }));
        assert!(ROOM.takes(Demand { bytes: 112_640, largest: 512 }));
        assert!(!ROOM.takes(Demand { bytes: 113_152, largest: 512 }));
        // One that does not fit into the rest leaves it unused.
        assert!(!ROOM.takes(Demand::of_bytes(102_400)), "nothing may come before it");
        assert!(ROOM.takes_in_order([102_400]));
        assert!(!ROOM.takes_in_order([512, 102_400, 512]));
        assert!(ROOM.takes_in_order([10_240, 102_400]));
        assert!(!Room::default().takes_in_order([512]));
        assert!(Room::default().takes_in_order([]));
    }

    #[test]
    fn what_is_sure_is_never_more_than_what_is_so() {
        let mut dice = crate::tests::disk::Dice(7);
        for _ in 0..20_000 {
            let room = Room {
                rest_bytes: dice.below(200) * 512,
                spares: dice.below(4),
                more: 0,
                segment_bytes: 200 * 512,
            };
            let count = 1 + dice.below(12);
            let frames: Vec<u64> = (0..count).map(|_| (1 + dice.below(150)) * 512).collect();
            let demand = frames.iter().map(|f| Demand::of_bytes(*f));
            let demand = demand.fold(Demand::default(), Demand::and);
            if room.takes(demand) {
                assert!(room.takes_in_order(frames.clone()), "{room:?} {frames:?}");
            }
        }
    }
}

//! The directory `snap/` of a node: `<last index, 20 digits>.snap`, the two newest kept.
//!
//! ```text
//! save     write <name>.tmp and flush it -> rename to <name> -> flush the directory
//!          -> remove what is older than the two newest good ones
//! ```
//!
//! If there is no space, the `.tmp` is removed and the snapshot is left out: the next seal takes
//! another, and until then a restart begins at the one before.
//!
//! A crash before the rename is durable leaves the snapshots of before, and perhaps a `.tmp`, which
//! is not a snapshot and is overwritten by the next one of that name. A crash before a removal is
//! durable leaves an old snapshot more, which the next save removes.

use super::{SNAPSHOT_BYTES_MAX, Snapshot, SnapshotError};
use crate::error::is_full;
use crate::files::read_around;
use fulmar_host::disk::{Disk, Flush, Open, Write};
use fulmar_host::{Host, planted};
use fulmar_types::{Event, LogIndex, Plant};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

const SUFFIX: &str = ".snap";

/// How many good snapshots are kept: one, and one to fall back to should it rot.
const KEPT: usize = 2;

/// An error of the disk under a snapshot. The store poisons itself on any of them.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct SnapshotFileError {
    /// What was tried: `read` for everything that changes nothing.
    pub action: &'static str,
    /// Which file or directory.
    pub path: PathBuf,
    /// What the disk said.
    pub source: io::Error,
}

/// A snapshot file that cannot be used. Nothing was done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: SnapshotError,
}

/// The snapshots of a node.
#[derive(Debug)]
pub struct Snapshots {
    directory: PathBuf,
    /// Those that were read or written by this process without an error.
    good: BTreeSet<LogIndex>,
    /// The newest of them.
    latest: Option<Snapshot>,
    damaged: Vec<DamagedSnapshot>,
}

/// The name of the file of a snapshot.
pub fn file_name(last: LogIndex) -> String {
    format!("{:020}{SUFFIX}", last.0)
}

fn index_of(name: &str) -> Option<LogIndex> {
    let digits = name.strip_suffix(SUFFIX)?;
    let index = LogIndex(digits.parse().ok()?);
    // Only the spelling that `file_name` gives: `+1.snap` is somebody else's.
    (file_name(index) == name).then_some(index)
}

impl Snapshots {
    /// Reads every snapshot in a directory, which is created if it is not there. Changes nothing.
    ///
    /// A damaged file is not an error here: the newest good one is [`Snapshots::latest`], and
    /// whether the log reaches back to it is for the caller to decide, who knows the log.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(host: &Host, directory: PathBuf) -> Result<Self, SnapshotFileError> {
        let disk = host.disk.as_ref();
        disk.create_dir(&directory).await.map_err(failed("create", &directory))?;
        let listed = disk.list(&directory).await.map_err(failed("read", &directory))?;
        let mut snapshots =
            Self { directory, good: BTreeSet::new(), latest: None, damaged: Vec::new() };
        for file in listed {
            let Some(index) = index_of(&file.name).filter(|_| !file.is_dir) else { continue };
            let path = snapshots.directory.join(&file.name);
            match read(disk, &path, index).await? {
                Ok(snapshot) => {
                    snapshots.good.insert(index);
                    if snapshots.latest.as_ref().is_none_or(|other| other.last.index < index) {
                        snapshots.latest = Some(snapshot);
                    }
                }
                Err(error) => snapshots.damaged.push(DamagedSnapshot { path, error }),
            }
        }
        Ok(snapshots)
    }

    /// The newest good snapshot.
    pub const fn latest(&self) -> Option<&Snapshot> {
        self.latest.as_ref()
    }

    /// The oldest good snapshot that is kept: the log must reach back to it, so that there is
    /// something to fall back to.
    pub fn oldest(&self) -> Option<LogIndex> {
        self.good.first().copied()
    }

    /// The files that were found damaged when the directory was opened, oldest first.
    pub fn damaged(&self) -> &[DamagedSnapshot] {
        &self.damaged
    }

    /// Saves a snapshot and removes those that two newer good ones make needless. The snapshot is
    /// durable on return, and [`Event::SnapshotSaved`] has been reported. `false` if the disk is
    /// full: then nothing has changed, and the log reaches back to the one before.
    ///
    /// # Errors
    /// The disk's. Whether the snapshot will be there after a restart is unknown then; what was
    /// there before still is.
    pub async fn save(
        &mut self,
        host: &Host,
        snapshot: Snapshot,
    ) -> Result<bool, SnapshotFileError> {
        let disk = host.disk.as_ref();
        let index = snapshot.last.index;
        let path = self.directory.join(file_name(index));
        let tmp = self.directory.join(format!("{}.tmp", file_name(index)));
        match write_new(disk, &tmp, &snapshot).await {
            Err(error) if is_full(&error.source) => {
                remove_if_there(disk, &tmp).await?;
                return Ok(false);
            }
            written => written?,
        }
        disk.rename(&tmp, &path).await.map_err(failed("rename", &tmp))?;
        if !planted(Plant::LoseRename) && !planted(Plant::PurgeBeforeSnapshot) {
            disk.sync_dir(&self.directory).await.map_err(failed("flush", &self.directory))?;
        }
        host.report(Event::SnapshotSaved { last: snapshot.last, state: snapshot.state });
        self.damaged.retain(|damaged| damaged.path != path);
        self.good.insert(index);
        if self.latest.as_ref().is_none_or(|other| other.last.index <= index) {
            self.latest = Some(snapshot);
        }
        self.prune(disk).await.map(|()| true)
    }

    /// Removes the files below the newest good ones that are kept, damaged ones included.
    async fn prune(&mut self, disk: &dyn Disk) -> Result<(), SnapshotFileError> {
        let Some(keep_from) = self.good.iter().rev().nth(KEPT - 1).copied() else {
            return Ok(());
        };
        let listed = disk.list(&self.directory).await.map_err(failed("read", &self.directory))?;
        for file in listed {
            let finished = file.name.strip_suffix(".tmp").unwrap_or(&file.name);
            if file.is_dir || index_of(finished).is_none_or(|index| index >= keep_from) {
                continue;
            }
            let path = self.directory.join(&file.name);
            disk.remove(&path).await.map_err(failed("remove", &path))?;
            self.damaged.retain(|damaged| damaged.path != path);
        }
        self.good.retain(|index| *index >= keep_from);
        Ok(())
    }
}

async fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), SnapshotFileError> {
    match disk.remove(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotFileError {
    move |source| SnapshotFileError { action, path: path.to_owned(), source }
}

/// Writes and flushes a file that nobody reads before it is renamed.
async fn write_new(
    disk: &dyn Disk,
    tmp: &Path,
    snapshot: &Snapshot,
) -> Result<(), SnapshotFileError> {
    let file = match disk.open(tmp, Open::New).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // An earlier life of this node stopped before the rename.
            disk.remove(tmp).await.map_err(failed("remove", tmp))?;
            disk.open(tmp, Open::New).await
        }
        opened => opened,
    }
    .map_err(failed("create", tmp))?;
    let write = Write::one(0, snapshot.encode());
    let flush = if planted(Plant::PurgeBeforeSnapshot) { Flush::No } else { Flush::Data };
    file.write(vec![write], flush).await.map_err(failed("write", tmp))
}

/// The inner result is about the bytes, the outer one about the disk.
async fn read(
    disk: &dyn Disk,
    path: &Path,
    index: LogIndex,
) -> Result<Result<Snapshot, SnapshotError>, SnapshotFileError> {
    let file = disk.open(path, Open::Existing).await.map_err(failed("read", path))?;
    let len = file.len_bytes().await.map_err(failed("read", path))?;
    let Some(len) = usize::try_from(len).ok().filter(|len| *len as u64 <= SNAPSHOT_BYTES_MAX)
    else {
        return Ok(Err(SnapshotError::Damaged("longer than a snapshot may be")));
    };
    let bytes = match read_around(file.as_ref(), 0, len).await {
        Ok(bytes) => bytes,
        // There is another snapshot, or a log to begin at; the caller judges that.
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a snapshot cannot be read");
            return Ok(Err(SnapshotError::Damaged("the disk does not read it")));
        }
    };
    Ok(Snapshot::decode(&bytes).and_then(|snapshot| {
        if snapshot.last.index == index {
            Ok(snapshot)
        } else {
            Err(SnapshotError::Damaged("its name says another index"))
        }
    }))
}

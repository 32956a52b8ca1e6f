//! What can go wrong with a store, and how people are told.
//!
//! Invariants: a damaged file is named with its path, the place and what to do, and always by
//! [`Damage`], so the advice is worded in one place. An operation has its own small error; after
//! any error of the disk the store is poisoned and every later call answers so.

use fulmar_types::{ExitCode, LogIndex, LogPosition};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Stored bytes that are not what was written, where that may matter to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes, if that can be said.
    pub at: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    pub(crate) fn new(path: &Path, at: Option<u64>, what: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), at, what: what.to_string() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged", self.path.display())?;
        if let Some(at) = self.at {
            write!(f, " at byte {at}")?;
        }
        write!(
            f,
            ": {}. It may have been acknowledged, so nothing was cut and nothing was deleted. \
             The site goes on without this node as long as the other two are up. Check the disk, \
             keep this directory as it is, and see docs/RUNBOOK.md, exit code {}",
            self.what,
            ExitCode::Damaged.code()
        )
    }
}

/// An error of the disk.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}. The store is closed; check the disk and start the node \
         again", path.display())]
pub struct DiskError {
    /// What was tried.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the disk said.
    pub source: io::Error,
}

impl DiskError {
    pub(crate) fn with(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }

    /// Which exit code says it: reading and writing are told apart.
    pub fn exit_code(&self) -> ExitCode {
        if is_full(&self.source) {
            ExitCode::DiskFull
        } else if matches!(self.action, "read" | "list" | "open") {
            ExitCode::DiskRead
        } else {
            ExitCode::DiskWrite
        }
    }
}

/// Whether an error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<crate::snapshot::SnapshotFileError> for DiskError {
    fn from(error: crate::snapshot::SnapshotFileError) -> Self {
        Self { action: error.action, path: error.path, source: error.source }
    }
}

/// What ends a store.
#[derive(Debug, Error)]
pub enum Failure {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Damaged bytes.
    #[error("{0}")]
    Damaged(Damage),
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl From<crate::snapshot::SnapshotFileError> for Failure {
    fn from(error: crate::snapshot::SnapshotFileError) -> Self {
        Self::Disk(error.into())
    }
}

impl Failure {
    /// The code with which the node ends.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Disk(error) => error.exit_code(),
            Self::Damaged(_) => ExitCode::Damaged,
        }
    }
}

/// Why a store could not be opened. Nothing was deleted.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The directory belongs to another node, or to a site with another segment size.
    #[error("{}: {what}", path.display())]
    Identity {
        /// The identity file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The disk failed, or bytes are damaged.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Failed(damage.into())
    }
}

impl OpenError {
    /// The code with which the node ends.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Locked(_) => ExitCode::Locked,
            Self::Identity { .. } => ExitCode::Identity,
            Self::Failed(failure) => failure.exit_code(),
        }
    }
}

/// The store met an error of the disk or damaged bytes, and does nothing any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Error)]
#[error("the store is closed after an error of the disk")]
pub struct Poisoned;

impl From<Poisoned> for io::Error {
    fn from(poisoned: Poisoned) -> Self {
        Self::other(poisoned)
    }
}

/// Why entries could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The range begins at or below the Raft floor.
    #[error("entries up to {floor} were purged")]
    Purged {
        /// The last entry that was purged.
        floor: LogPosition,
    },
    /// The range begins behind the last entry, or the log was cut there while it was read.
    #[error("the log has no entry {0}")]
    Missing(LogIndex),
}

/// Why a segment could not be taken from a peer. Nothing of the log has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IncomingError {
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// No segment with this base was begun.
    #[error("segment {0} was not begun")]
    NotBegun(LogIndex),
    /// The disk is full. What had come of the segment is forgotten.
    #[error("no space for segment {0}")]
    NoSpace(LogIndex),
    /// The bytes do not go where the file goes on, or beyond its end.
    #[error("segment {base} is written at {at}, {expected} is next")]
    OutOfOrder {
        /// The segment.
        base: LogIndex,
        /// Where the bytes were to go.
        at: u64,
        /// Where the file goes on.
        expected: u64,
    },
    /// What arrived is not a sealed segment of this site with that hash.
    #[error("segment {base} is refused: {what}")]
    Refused {
        /// The segment.
        base: LogIndex,
        /// Why.
        what: String,
    },
    /// The segments of an installation do not make up the log of its snapshot.
    #[error("the installation is refused: {0}")]
    Incomplete(String),
}

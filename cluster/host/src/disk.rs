//! Files, as a node sees them: what is written is gone after a power cut until it is flushed, and
//! a name is gone until its directory is flushed.
//!
//! Invariants that every implementation keeps and [`crate::conformance`] tests:
//! - A write is visible to every read that starts after it returned.
//! - What [`File::write`] with [`Flush::Data`] or [`File::sync`] has confirmed survives a power
//!   cut, length included. What was not confirmed may be old, new or unreadable, sector by sector
//!   (`fulmar_types::limits::SECTOR_BYTES`) and independently of one another.
//! - Creation, rename and removal survive a power cut once [`Disk::sync_dir`] of the directory has
//!   returned; until then each may or may not have happened.
//! - The calls on one file that are awaited one after the other take effect in that order.
//! - A call that is dropped before it answered may have taken effect wholly, in part or not at all,
//!   and may still be running.
//!
//! Never: retry a flush that failed. The page cache may have dropped what it could not write.

use crate::BoxFuture;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How [`Disk::open`] treats a file that is there, or not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must exist.
    Existing,
    /// The file must not exist; it is created empty.
    New,
}

/// Whether a write is flushed before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Leave it in the page cache.
    No,
    /// Flush the data and the length (`fdatasync`), together with everything written before.
    Data,
}

/// Bytes to be written at one place of a file.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where, in bytes from the start of the file.
    pub at: u64,
    /// What, in order and without gaps.
    pub pieces: Vec<Bytes>,
}

impl Write {
    /// A write of one piece.
    pub fn one(at: u64, piece: impl Into<Bytes>) -> Self {
        Self { at, pieces: vec![piece.into()] }
    }

    /// How many bytes it writes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// A file in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name without its directory.
    pub name: String,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A directory tree on a disk.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` or `AlreadyExists` according to `how`; any other error is the disk's.
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>>;

    /// Renames a file, replacing what is there. Not durable before [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>>;

    /// Removes a file. Not durable before [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>>;

    /// Everything directly in a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn list<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<Vec<Listed>>>;

    /// Creates a directory and those above it, durably. Nothing happens if it is there.
    ///
    /// # Errors
    /// The disk's.
    fn create_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>>;

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// The disk's. Never retried.
    fn sync_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>>;

    /// Bytes that can still be written to the file system that holds a directory.
    ///
    /// # Errors
    /// The disk's.
    fn free_bytes<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<u64>>;

    /// Takes the directory for this process until the lock is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it.
    fn lock<'a>(&'a self, directory: &'a Path)
    -> BoxFuture<'a, io::Result<Box<dyn DirectoryLock>>>;
}

/// Holding it keeps other processes out of a directory.
pub trait DirectoryLock: Send + Sync {}

/// An open file.
pub trait File: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The disk's.
    fn len_bytes(&self) -> BoxFuture<'_, io::Result<u64>>;

    /// Reads `len` bytes from `at`, fewer only where the file ends before.
    ///
    /// # Errors
    /// The disk's.
    fn read(&self, at: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>>;

    /// Writes at one or several places, in order, and flushes if asked to. The file grows as
    /// needed; a gap reads as zeros.
    ///
    /// # Errors
    /// `StorageFull`, or the disk's. Any part of it may have been written.
    fn write(&self, writes: Vec<Write>, flush: Flush) -> BoxFuture<'_, io::Result<()>>;

    /// Flushes everything written before the call (`fdatasync`).
    ///
    /// # Errors
    /// The disk's. Never retried.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;

    /// Flushes, and forgets what is cached of the file, so that the next read is of the disk. After a
    /// flush that failed the system calls pages clean which it did not write: reads return them, and
    /// another flush succeeds and does nothing (Rebello and others 2020, "Can applications recover
    /// from fsync failures?").
    ///
    /// # Errors
    /// The disk's. Never retried.
    fn forget_cached(&self) -> BoxFuture<'_, io::Result<()>>;

    /// Cuts the file, or extends it with zeros. Not durable before [`File::sync`].
    ///
    /// # Errors
    /// `StorageFull`, or the disk's.
    fn set_len(&self, len_bytes: u64) -> BoxFuture<'_, io::Result<()>>;
}

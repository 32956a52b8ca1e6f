//! The disk of one machine, as `fulmar_host::disk` wants it.
//!
//! An operation takes its time before it takes effect, so a process that dies meanwhile has not
//! done it; a long write may have been done in part. A flush covers what was written before it
//! began and takes effect when it ends.

use super::image::FlushId;
use super::names::{FileId, plain};
use super::system::{FileSystem, Tap};
use super::{DiskOp, Shared};
use crate::prng::Prng;
use bytes::Bytes;
use fulmar_host::BoxFuture;
use fulmar_host::disk::{DirectoryLock, Disk, File, Flush, Listed, Open, Write};
use fulmar_host::time;
use madsim::task::NodeId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a write is done in two steps, so that a crash can come between them.
const SPLIT_WRITE_PPM: u32 = 125_000;

/// The disk of one life of one machine.
#[derive(Clone)]
pub struct SimDisk {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: NodeId,
    pub(super) epoch: u64,
}

/// The error of a handle that belongs to an earlier life of its machine.
fn stale() -> io::Error {
    io::Error::other("the process of this file has ended")
}

impl SimDisk {
    /// Works on the file system, if this life of the machine still lasts.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut FileSystem, Tap<'_>, &mut Prng) -> io::Result<T>,
    ) -> io::Result<T> {
        self.shared.with(self.machine, |system, tap, prng| {
            if system.epoch != self.epoch {
                return Err(stale());
            }
            work(system, tap, prng)
        })
    }

    async fn take_time(&self, operation: DiskOp) -> io::Result<()> {
        let delay = self.with(|system, _, prng| Ok(system.delay(prng, operation)))?;
        time::sleep(delay).await;
        Ok(())
    }

    /// Takes the time of an operation, then does it.
    fn later<'a, T: Send + 'a>(
        &'a self,
        operation: DiskOp,
        work: impl FnOnce(&mut FileSystem, Tap<'_>) -> io::Result<T> + Send + 'a,
    ) -> BoxFuture<'a, io::Result<T>> {
        Box::pin(async move {
            self.take_time(operation).await?;
            self.with(|system, tap, _| work(system, tap))
        })
    }
}

impl Disk for SimDisk {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        Box::pin(async move {
            self.take_time(DiskOp::Read).await?;
            let file = self.with(|system, tap, _| system.open(tap, path, how))?;
            Ok(Arc::new(SimFile { disk: self.clone(), file }) as Arc<dyn File>)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.later(DiskOp::Write, move |system, tap| {
            system.check(DiskOp::Write, from)?;
            system.rename(tap, from, to)
        })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.later(DiskOp::Write, move |system, tap| {
            system.check(DiskOp::Write, path)?;
            system.remove(tap, path)
        })
    }

    fn list<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<Vec<Listed>>> {
        self.later(DiskOp::Read, move |system, _| system.list(directory))
    }

    fn create_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.later(DiskOp::Sync, move |system, tap| system.create_directory(tap, directory))
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let directory = plain(directory);
            let end = self.with(|system, _, _| {
                system.names.directory(&directory)?;
                Ok(system.names.begin_flush())
            })?;
            self.take_time(DiskOp::Sync).await?;
            self.with(|system, tap, _| system.end_directory_flush(tap, &directory, end))
        })
    }

    fn free_bytes<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<u64>> {
        self.later(DiskOp::Read, move |system, _| {
            system.names.directory(&plain(directory))?;
            Ok(system.free_bytes())
        })
    }

    fn lock<'a>(
        &'a self,
        directory: &'a Path,
    ) -> BoxFuture<'a, io::Result<Box<dyn DirectoryLock>>> {
        Box::pin(async move {
            self.take_time(DiskOp::Read).await?;
            let directory = self.with(|system, _, _| system.lock(directory))?;
            Ok(Box::new(SimLock { disk: self.clone(), directory }) as Box<dyn DirectoryLock>)
        })
    }
}

struct SimLock {
    disk: SimDisk,
    directory: PathBuf,
}

impl DirectoryLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        // A stale lock was given back when its process ended, and may be another's by now.
        let _ = self.disk.with(|system, _, _| {
            system.unlock(&self.directory);
            Ok(())
        });
    }
}

struct SimFile {
    disk: SimDisk,
    file: FileId,
}

impl SimFile {
    async fn flush(&self) -> io::Result<()> {
        let flush: FlushId = self.disk.with(|system, _, _| system.begin_flush(self.file))?;
        self.disk.take_time(DiskOp::Sync).await?;
        self.disk.with(|system, tap, prng| system.end_flush((tap, prng), self.file, flush))
    }

    /// Where a write is cut in two, if it is: at a page, as the operating system copies pages.
    fn split(&self, writes: &[Write]) -> io::Result<u64> {
        let pages: u64 = writes.iter().map(|write| write.bytes() / 4_096).sum();
        self.disk.with(|_, _, prng| {
            let cut = pages > 0 && prng.chance(SPLIT_WRITE_PPM);
            Ok(if cut { prng.between(1, pages) * 4_096 } else { 0 })
        })
    }

    /// Writes the bytes from `from` to `to`, counted over all places together.
    fn write_part(&self, writes: &[Write], from: u64, to: u64) -> io::Result<()> {
        self.disk.with(|system, tap, _| {
            let mut passed = 0;
            for write in writes {
                let mut at = write.at;
                for piece in &write.pieces {
                    let len = piece.len() as u64;
                    let first = from.saturating_sub(passed).min(len);
                    let last = to.saturating_sub(passed).min(len);
                    if first < last {
                        let part = &piece[first as usize..last as usize];
                        system.write(tap, self.file, at + first, part)?;
                    }
                    passed += len;
                    at = at.saturating_add(len);
                }
            }
            Ok(())
        })
    }
}

impl File for SimFile {
    fn len_bytes(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async move { self.disk.with(|system, _, _| system.len_bytes(self.file)) })
    }

    fn read(&self, at: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.disk.later(DiskOp::Read, move |system, _| {
            system.check_file(DiskOp::Read, self.file)?;
            system.counts.reads += 1;
            let live = system.live(self.file)?;
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(live.len());
            let to = from.saturating_add(len).min(live.len());
            Ok(Bytes::copy_from_slice(&live[from..to]))
        })
    }

    fn write(&self, writes: Vec<Write>, flush: Flush) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.disk.with(|system, _, _| system.check_file(DiskOp::Write, self.file))?;
            let split = self.split(&writes)?;
            self.write_part(&writes, 0, split)?;
            self.disk.take_time(DiskOp::Write).await?;
            self.write_part(&writes, split, u64::MAX)?;
            match flush {
                Flush::No => Ok(()),
                Flush::Data => self.flush().await,
            }
        })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.flush())
    }

    fn forget_cached(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.flush().await?;
            self.disk.with(|system, tap, _| system.forget_cached(tap, self.file))
        })
    }

    fn set_len(&self, len_bytes: u64) -> BoxFuture<'_, io::Result<()>> {
        self.disk.later(DiskOp::Write, move |system, tap| {
            system.check_file(DiskOp::Write, self.file)?;
            system.set_len(tap, self.file, len_bytes)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // A stale handle was closed when its process ended.
        let _ = self.disk.with(|system, _, _| {
            system.close(self.file);
            Ok(())
        });
    }
}

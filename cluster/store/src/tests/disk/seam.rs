//! The disk in memory as the store sees it: files, directories, locks.
//!
//! Invariant: nothing outlives the life of the disk that it was opened in.

use super::{BLOCK, Change, Inode, SECTOR, TestDisk, World, apply, gone};
use bytes::Bytes;
use fulmar_host::BoxFuture;
use fulmar_host::disk::{DirectoryLock, Disk, File, Flush, Listed, Open, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

struct TestFile {
    disk: TestDisk,
    inode: u64,
    life: u64,
    path: PathBuf,
}

struct TestLock(TestDisk, PathBuf, u64);

impl DirectoryLock for TestLock {}

impl Drop for TestLock {
    fn drop(&mut self) {
        let mut world = self.0.world();
        if world.life == self.2 {
            world.locked.remove(&self.1);
        }
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.life == self.life
            && let Some(times) = world.open.get_mut(&self.inode)
        {
            *times -= 1;
        }
    }
}

impl TestDisk {
    async fn let_others_run(&self) {
        let slow = self.world().slow;
        if slow {
            fulmar_host::task::yield_now().await;
        }
    }
}

impl Disk for TestDisk {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        Box::pin(async move {
            if how == Open::New {
                self.let_others_run().await;
            }
            let mut world = self.world();
            if world.dead {
                return Err(gone());
            }
            let found = world.live.get(path).copied();
            let inode = match (found, how) {
                (Some(inode), Open::Existing) => inode,
                (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
                (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
                (None, Open::New) => {
                    let cut = world.point(|| format!("create {}", path.display()))?;
                    world.next_inode += 1;
                    let inode = world.next_inode;
                    world.inodes.insert(inode, Inode::default());
                    world.change(path, Change::Link(path.to_owned(), inode));
                    if cut {
                        world.cut();
                        return Err(gone());
                    }
                    inode
                }
            };
            let life = world.life;
            let path = path.to_owned();
            *world.open.entry(inode).or_default() += 1;
            Ok(Arc::new(TestFile { disk: self.clone(), inode, life, path }) as Arc<dyn File>)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut world = self.world();
            let cut = world.point(|| format!("rename {} {}", from.display(), to.display()))?;
            if !world.live.contains_key(from) {
                return Err(io::ErrorKind::NotFound.into());
            }
            world.change(from, Change::Rename(from.to_owned(), to.to_owned()));
            if cut {
                world.cut();
                return Err(gone());
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.let_others_run().await;
            let mut world = self.world();
            if !world.dead && !world.live.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let cut = world.point(|| format!("remove {}", path.display()))?;
            world.change(path, Change::Unlink(path.to_owned()));
            if cut {
                world.cut();
                return Err(gone());
            }
            Ok(())
        })
    }

    fn list<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<Vec<Listed>>> {
        Box::pin(async move {
            let world = self.world();
            if world.dead {
                return Err(gone());
            }
            let mut listed = Vec::new();
            for (path, inode) in &world.live {
                if path.parent() == Some(directory) {
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    let len_bytes = world.inodes[inode].live.len() as u64;
                    listed.push(Listed { name, len_bytes, is_dir: false });
                }
            }
            listed.sort();
            Ok(listed)
        })
    }

    fn create_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut world = self.world();
            if world.dead {
                return Err(gone());
            }
            world.dirs.insert(directory.to_owned());
            Ok(())
        })
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            fulmar_host::task::yield_now().await;
            let mut world = self.world();
            if world.point(|| format!("sync_dir {}", directory.display()))? {
                world.cut();
                return Err(gone());
            }
            let changes = std::mem::take(&mut world.changes);
            for (dir, change) in changes {
                if dir == directory {
                    apply(&mut world.durable, &change);
                } else {
                    world.changes.push((dir, change));
                }
            }
            Ok(())
        })
    }

    fn free_bytes<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u64>> {
        Box::pin(async { Ok(self.free()) })
    }

    fn lock<'a>(
        &'a self,
        directory: &'a Path,
    ) -> BoxFuture<'a, io::Result<Box<dyn DirectoryLock>>> {
        Box::pin(async move {
            let mut world = self.world();
            if world.dead {
                return Err(gone());
            }
            if !world.locked.insert(directory.to_owned()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let lock = TestLock(self.clone(), directory.to_owned(), world.life);
            Ok(Box::new(lock) as Box<dyn DirectoryLock>)
        })
    }
}

impl TestFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.disk.world();
        if world.dead || world.life != self.life { Err(gone()) } else { Ok(world) }
    }

    fn inode<'a>(&self, world: &'a mut World) -> &'a mut Inode {
        world.inodes.get_mut(&self.inode).expect("an open file has an inode")
    }

    fn sync_now(&self, world: &mut World) {
        let inode = self.inode(world);
        inode.durable.resize(inode.live.len(), 0);
        for sector in std::mem::take(&mut inode.dirty) {
            let (from, to) = (sector * SECTOR, (sector * SECTOR + SECTOR).min(inode.live.len()));
            if from < to {
                inode.durable[from..to].copy_from_slice(&inode.live[from..to]);
            }
        }
    }
}

impl File for TestFile {
    fn len_bytes(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async move {
            let mut world = self.world()?;
            Ok(self.inode(&mut world).live.len() as u64)
        })
    }

    fn read(&self, at: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            fulmar_host::task::yield_now().await;
            let mut world = self.world()?;
            if world.fail_reads > 0 {
                world.fail_reads -= 1;
                return Err(io::Error::other("injected"));
            }
            let inode = self.inode(&mut world);
            let from = (at as usize).min(inode.live.len());
            let to = from.saturating_add(len).min(inode.live.len());
            let sectors = from / SECTOR..to.div_ceil(SECTOR);
            if from < to && inode.bad.range(sectors).next().is_some() {
                return Err(io::Error::other("unreadable sector"));
            }
            Ok(Bytes::copy_from_slice(&inode.live[from..to]))
        })
    }

    fn write(&self, writes: Vec<Write>, flush: Flush) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.disk.let_others_run().await;
            {
                let mut world = self.world()?;
                let cut = world.point(|| {
                    let places: Vec<_> = writes.iter().map(|w| (w.at, w.bytes())).collect();
                    format!("write {} {places:?} {flush:?}", self.path.display())
                })?;
                let free = world.free();
                let inode = self.inode(&mut world);
                let len = inode.live.len() as u64;
                let end = writes.iter().map(|write| write.at + write.bytes()).max().unwrap_or(0);
                let blocks = |len: u64| len.next_multiple_of(BLOCK);
                if blocks(end.max(len)) - blocks(len) > free {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                // A file system writes whole blocks: it reads what the write leaves alone, if that can
                // be read, and writes it again.
                for write in &writes {
                    let rewritten = inode.rewritten(write.at as usize, write.bytes() as usize);
                    if inode.bad.iter().any(|bad| rewritten.contains(bad)) {
                        return Err(io::Error::other("the rest of the block is unreadable"));
                    }
                }
                for write in writes {
                    let mut at = write.at as usize;
                    inode.make_dirty(at, write.bytes() as usize);
                    for piece in write.pieces {
                        let end = at + piece.len();
                        if inode.live.len() < end {
                            inode.live.resize(end, 0);
                        }
                        inode.live[at..end].copy_from_slice(&piece);
                        at = end;
                    }
                }
                if cut {
                    world.cut();
                    return Err(gone());
                }
            }
            if flush == Flush::Data { self.sync().await } else { Ok(()) }
        })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            // Others run while the disk is busy.
            for _ in 0..3 {
                fulmar_host::task::yield_now().await;
            }
            let mut world = self.world()?;
            if world.point(|| format!("sync {}", self.path.display()))? {
                world.cut();
                return Err(gone());
            }
            self.sync_now(&mut world);
            Ok(())
        })
    }

    fn forget_cached(&self) -> BoxFuture<'_, io::Result<()>> {
        self.sync()
    }

    fn set_len(&self, len_bytes: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut world = self.world()?;
            let cut = world.point(|| format!("set_len {} {len_bytes}", self.path.display()))?;
            let inode = self.inode(&mut world);
            inode.live.resize(len_bytes as usize, 0);
            if cut {
                world.cut();
                return Err(gone());
            }
            Ok(())
        })
    }
}

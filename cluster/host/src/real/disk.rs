//! Files, on a few I/O threads of our own.
//!
//! A call becomes a job, a thread runs it with plain system calls, and the answer comes back
//! through a oneshot channel: one hop there and one back, also for a write together with its
//! flush. What changes the disk has threads of its own, so that the flush of the log does not wait
//! behind the reads of consumers that are far behind, nor they behind it. Order among the calls on
//! one file comes from their caller, who awaits one before he starts the next.
//!
//! Invariants: at most 256 jobs of either kind wait or run; a caller beyond that waits for room. A
//! job that was started runs to its end, also when nobody waits for its answer any more. For want
//! of a file descriptor nothing fails: that is no failure of the disk, and it waits for one.
//!
//! Never: a system call that can block outside an I/O thread; a second try of a failed flush.

use super::pool::Pool;
use crate::BoxFuture;
use crate::disk::{DirectoryLock, Disk, File, Flush, Listed, Open, Write};
use bytes::Bytes;
use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The slices that one `pwritev` takes (`IOV_MAX` on Linux).
const SLICES_MAX: usize = 1_024;

/// How long to wait before the next try to get a descriptor.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);

/// One warning in so many tries.
const WARN_EVERY: u32 = 100;

/// The file systems of this machine.
pub struct RealDisk {
    pools: Pools,
}

#[derive(Clone)]
struct Pools {
    reads: Arc<Pool>,
    writes: Arc<Pool>,
}

impl RealDisk {
    /// Starts the I/O threads. They end when this and every file opened through it is dropped.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn new() -> io::Result<Self> {
        let start = |name| Ok::<_, io::Error>(Arc::new(Pool::start(name)?));
        Ok(Self { pools: Pools { reads: start("read")?, writes: start("write")? } })
    }

    /// Runs a job about one path on an I/O thread, again and again while it gets no descriptor.
    fn on_path<'a, T, F>(&'a self, path: &Path, job: F) -> BoxFuture<'a, io::Result<T>>
    where
        T: Send + 'static,
        F: Fn(&Path) -> io::Result<T> + Clone + Send + 'static,
    {
        let path = path.to_owned();
        Box::pin(async move {
            let mut tries = 0;
            loop {
                let (at, again) = (path.clone(), job.clone());
                let done = self.pools.writes.run(move || again(&at)).await;
                match done {
                    Err(error) if wants_descriptor(&error) => {
                        if tries % WARN_EVERY == 0 {
                            tracing::warn!(path = %path.display(), %error, "waiting for a descriptor");
                        }
                        tries += 1;
                        crate::time::sleep(DESCRIPTOR_PAUSE).await;
                    }
                    done => return done,
                }
            }
        })
    }
}

/// Whether the process or the machine has too many files open now. Sockets come and go.
fn wants_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Disk for RealDisk {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        let opened = self.on_path(path, move |path| open(path, how));
        Box::pin(async move {
            let file = Arc::new(opened.await?);
            Ok(Arc::new(RealFile { pools: self.pools.clone(), file }) as Arc<dyn File>)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        let to = to.to_owned();
        self.on_path(from, move |from| fs::rename(from, &to))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.on_path(path, |path| fs::remove_file(path))
    }

    fn list<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<Vec<Listed>>> {
        self.on_path(directory, list)
    }

    fn create_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.on_path(directory, create_dir)
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.on_path(directory, sync_dir)
    }

    fn free_bytes<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<u64>> {
        self.on_path(directory, free_bytes)
    }

    fn lock<'a>(
        &'a self,
        directory: &'a Path,
    ) -> BoxFuture<'a, io::Result<Box<dyn DirectoryLock>>> {
        self.on_path(directory, |directory| {
            let directory = fs::File::open(directory)?;
            // SAFETY: the descriptor is open for as long as `directory` lives.
            let taken =
                unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            if taken != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Box::new(RealLock { _directory: directory }) as Box<dyn DirectoryLock>)
        })
    }
}

/// The kernel gives the lock back when the descriptor is closed, also when the process dies.
struct RealLock {
    _directory: fs::File,
}

impl DirectoryLock for RealLock {}

struct RealFile {
    pools: Pools,
    file: Arc<fs::File>,
}

impl RealFile {
    fn run<'a, T, F>(&self, pool: &'a Pool, job: F) -> BoxFuture<'a, io::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    {
        let file = Arc::clone(&self.file);
        Box::pin(pool.run(move || job(&file)))
    }

    fn to_read<T, F>(&self, job: F) -> BoxFuture<'_, io::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    {
        self.run(&self.pools.reads, job)
    }

    fn to_write<F>(&self, job: F) -> BoxFuture<'_, io::Result<()>>
    where
        F: FnOnce(&fs::File) -> io::Result<()> + Send + 'static,
    {
        self.run(&self.pools.writes, job)
    }
}

impl File for RealFile {
    fn len_bytes(&self) -> BoxFuture<'_, io::Result<u64>> {
        self.to_read(|file| Ok(file.metadata()?.len()))
    }

    fn read(&self, at: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.to_read(move |file| read(file, at, len))
    }

    fn write(&self, writes: Vec<Write>, flush: Flush) -> BoxFuture<'_, io::Result<()>> {
        self.to_write(move |file| {
            for write in &writes {
                write_all(file, write)?;
            }
            match flush {
                Flush::No => Ok(()),
                Flush::Data => file.sync_data(),
            }
        })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.to_write(|file| file.sync_data())
    }

    fn forget_cached(&self) -> BoxFuture<'_, io::Result<()>> {
        self.to_write(|file| {
            file.sync_data()?;
            // The whole file, since the system may cache it in pieces that begin before any place.
            // SAFETY: no memory is involved, and the descriptor is open.
            let code =
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
        })
    }

    fn set_len(&self, len_bytes: u64) -> BoxFuture<'_, io::Result<()>> {
        self.to_write(move |file| file.set_len(len_bytes))
    }
}

fn open(path: &Path, how: Open) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    match how {
        Open::Existing => options.create_new(false),
        // O_EXCL: of two that create the same file, one fails.
        Open::New => options.create_new(true),
    };
    options.open(path)
}

fn list(directory: &Path) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        listed.push(Listed {
            name: entry.file_name().to_string_lossy().into_owned(),
            len_bytes: if metadata.is_dir() { 0 } else { metadata.len() },
            is_dir: metadata.is_dir(),
        });
    }
    listed.sort();
    Ok(listed)
}

/// The directory that holds a path; that of a plain relative name is the working directory.
fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn create_dir(directory: &Path) -> io::Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = directory;
    while !fs::exists(at)? {
        missing.push(at.to_owned());
        match parent(at) {
            Some(above) => at = above,
            None => break,
        }
    }
    for path in missing.iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    if !fs::metadata(directory)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    // The name of a directory lies in the directory above it. Those that were there already are
    // flushed too: an earlier process may have died between the creation and its flush.
    let mut at = directory;
    while let Some(above) = parent(at) {
        let created_here = missing.iter().any(|path| path == at);
        match sync_dir(above) {
            Err(error) if created_here || !is_not_ours_to_flush(&error) => return Err(error),
            _ => {}
        }
        if above == Path::new(".") {
            break;
        }
        at = above;
    }
    Ok(())
}

/// Whether a directory is somebody else's, or of a file system that is only read, such as that of an
/// image: then somebody else made the one below durable, too.
fn is_not_ours_to_flush(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn sync_dir(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let path = CString::new(directory.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in a zero byte and `stat` is writable; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the structure in.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn read(file: &fs::File, at: u64, len: usize) -> io::Result<Bytes> {
    // The buffer is bounded by what the file holds, whatever was asked for.
    let rest = file.metadata()?.len().saturating_sub(at);
    let len = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

fn write_all(file: &fs::File, write: &Write) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        write.pieces.iter().filter(|piece| !piece.is_empty()).map(|p| IoSlice::new(p)).collect();
    let mut rest = slices.as_mut_slice();
    let mut at = write.at;
    while !rest.is_empty() {
        let count = rest.len().min(SLICES_MAX);
        let offset =
            libc::off_t::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: an `IoSlice` has the layout of an `iovec`; `count` of them are valid, and the
        // bytes that they point to live as long as `write`.
        let written = unsafe {
            libc::pwritev(file.as_raw_fd(), rest.as_ptr().cast(), count as libc::c_int, offset)
        };
        match usize::try_from(written) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pieces_than_one_system_call_takes_are_written() {
        let path = std::env::temp_dir().join(format!("fulmar-pieces-{}", std::process::id()));
        let file = open(&path, Open::New).unwrap();
        fs::remove_file(&path).unwrap();
        let pieces = (0..3_000u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
        write_all(&file, &Write { at: 5, pieces }).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5 + 4 * 3_000);
        let last = read(&file, 5 + 4 * 2_999, usize::MAX).unwrap();
        assert_eq!(last.as_ref(), 2_999u32.to_be_bytes());
    }

    #[test]
    fn a_file_system_that_cannot_flush_is_told_from_a_disk_that_fails() {
        let is_forgiven = |code| is_not_ours_to_flush(&io::Error::from_raw_os_error(code));
        for code in [libc::EACCES, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::EROFS] {
            assert!(is_forgiven(code), "{code}");
        }
        for code in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::ENOENT] {
            assert!(!is_forgiven(code), "{code}");
        }
    }

    #[test]
    fn a_directory_below_one_that_cannot_be_flushed_is_created() {
        // A file system of the kernel whose directories answer a flush with EINVAL; what is there
        // already needs none.
        let there = Path::new("/proc/self");
        if fs::File::open(there).is_ok() {
            create_dir(there).unwrap();
        }
    }

    #[test]
    fn an_offset_beyond_any_file_is_an_error() {
        let path = std::env::temp_dir().join(format!("fulmar-offset-{}", std::process::id()));
        let file = open(&path, Open::New).unwrap();
        fs::remove_file(&path).unwrap();
        let error = write_all(&file, &Write::one(u64::MAX, "x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(read(&file, u64::MAX, 10).unwrap().is_empty());
    }
}

//! A preloaded library (`LD_PRELOAD`) that makes SIGKILL equal to a power cut for a process.
//!
//! SIGKILL leaves the page cache alone, so a process that never flushes survives it. This library
//! stands between the process and the kernel. Before a change in one directory it writes to a
//! journal how things were; when the matching flush returns, it forgets that. After the kill, the
//! tests apply the journal backwards, and what was not flushed is gone.
//!
//! | variable | means |
//! |---|---|
//! | `FULMAR_PRELOAD_DATA` | the directory that is watched: absolute, without links |
//! | `FULMAR_PRELOAD_JOURNAL` | where the journal lies: elsewhere on the same file system |
//! | `FULMAR_PRELOAD_LIE` | if set, flushes in the directory do nothing and succeed |
//!
//! Invariants: a change and its record happen under one lock. A flush forgets what was recorded
//! before it began, and nothing later. Without the variables every call goes straight through.
//!
//! Limits: memory maps are not seen; preallocation and copying inside the kernel end the process,
//! so that a product that starts to use them cannot pass unseen.

mod journal;
mod raw;
mod recorder;

use libc::{c_char, c_int, c_long, c_void, iovec, mode_t, off_t, size_t, ssize_t, syscall};
use recorder::{Place, Settings, recorder};

/// The settings, if this descriptor is open in the directory that is watched.
fn watched(fd: c_int) -> Option<&'static Settings> {
    let settings = Settings::get()?;
    raw::path_of(fd).is_some_and(|path| settings.watches(&path)).then_some(settings)
}

/// Where a write without a place goes.
fn position(fd: c_int) -> u64 {
    // SAFETY: no memory is involved.
    let (flags, here) =
        unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek(fd, 0, libc::SEEK_CUR)) };
    if flags & libc::O_APPEND != 0 {
        raw::stat(fd).map_or(0, |(_, file_bytes)| file_bytes)
    } else {
        u64::try_from(here).unwrap_or(0)
    }
}

/// Records a range before `real` writes it.
fn write_at(fd: c_int, at: Option<off_t>, len: usize, real: impl FnOnce() -> c_long) -> ssize_t {
    let Some(settings) = watched(fd) else { return real() as ssize_t };
    let mut recorder = recorder(settings);
    let at = at.map_or_else(|| position(fd), |at| u64::try_from(at).unwrap_or(0));
    recorder.content(fd, at, len as u64);
    real() as ssize_t
}

/// The bytes of a vector.
///
/// # Safety
/// `slices` is readable for `count` elements.
unsafe fn total(slices: *const iovec, count: c_int) -> usize {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller's promise.
    (0..count).map(|n| unsafe { (*slices.add(n)).iov_len }).sum()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's own arguments.
    write_at(fd, None, len, || unsafe { syscall(libc::SYS_write, fd, bytes, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, slices: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's own arguments.
    unsafe {
        let len = total(slices, count);
        write_at(fd, None, len, || syscall(libc::SYS_writev, fd, slices, count))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's own arguments.
    write_at(fd, Some(at), len, || unsafe { syscall(libc::SYS_pwrite64, fd, bytes, len, at) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's own arguments.
    unsafe { pwrite64(fd, bytes, len, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev2(
    fd: c_int,
    slices: *const iovec,
    count: c_int,
    at: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's own arguments. The kernel takes the place in two halves, of which a
    // 64-bit machine uses the first.
    unsafe {
        let len = total(slices, count);
        let place = (at != -1).then_some(at);
        let real = || syscall(libc::SYS_pwritev2, fd, slices, count, at, 0, flags);
        write_at(fd, place, len, real)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64v2(
    fd: c_int,
    slices: *const iovec,
    count: c_int,
    at: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's own arguments.
    unsafe { pwritev2(fd, slices, count, at, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(
    fd: c_int,
    slices: *const iovec,
    count: c_int,
    at: off_t,
) -> ssize_t {
    // SAFETY: the caller's own arguments.
    unsafe {
        let len = total(slices, count);
        write_at(fd, Some(at), len, || syscall(libc::SYS_pwritev, fd, slices, count, at, 0))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, slices: *const iovec, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: the caller's own arguments.
    unsafe { pwritev64(fd, slices, count, at) }
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    if let Some(settings) = watched(fd)
        && let Some((_, file_bytes)) = raw::stat(fd)
    {
        let at = u64::try_from(len).unwrap_or(0).min(file_bytes);
        let mut recorder = recorder(settings);
        recorder.content(fd, at, file_bytes - at);
        return raw::ftruncate(fd, len);
    }
    raw::ftruncate(fd, len)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    ftruncate64(fd, len)
}

/// A flush: what was recorded before it began is durable once it has returned.
fn flush(number: c_long, fd: c_int) -> c_int {
    let Some(settings) = watched(fd) else { return raw::on_descriptor(number, fd) };
    if settings.lie {
        return 0;
    }
    // The lock is not held meanwhile: others go on writing, as they would.
    let begun = recorder(settings).seq();
    let result = raw::on_descriptor(number, fd);
    if result == 0
        && let Some((inode, _)) = raw::stat(fd)
    {
        recorder(settings).durable(inode, begun);
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    flush(libc::SYS_fsync, fd)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    flush(libc::SYS_fdatasync, fd)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    let creates = flags & libc::O_CREAT != 0;
    let cuts = flags & libc::O_TRUNC != 0;
    let settings = Settings::get().filter(|_| creates || cuts);
    // SAFETY: the caller's own path.
    let place = settings.and_then(|s| Some((s, unsafe { Place::of(s, directory, path) }?)));
    let Some((settings, place)) = place else { return raw::openat(directory, path, flags, mode) };
    let mut recorder = recorder(settings);
    let is_new = creates && !place.exists();
    if is_new {
        recorder.name(&place);
    }
    let fd = raw::openat(directory, path, flags & !libc::O_TRUNC, mode);
    if fd < 0 {
        return fd;
    }
    if is_new && let Some((inode, _)) = raw::stat(fd) {
        // The number may have belonged to a file that is gone for good.
        let now = recorder.seq();
        recorder.durable(inode, now);
    }
    drop(recorder);
    if cuts && ftruncate64(fd, 0) != 0 {
        raw::close(fd);
        return -1;
    }
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller's own path.
    unsafe { openat64(directory, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's own path.
    unsafe { openat64(libc::AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's own path.
    unsafe { openat64(libc::AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(
    from_directory: c_int,
    from: *const c_char,
    to_directory: c_int,
    to: *const c_char,
) -> c_int {
    // SAFETY: the caller's own paths.
    let real = || unsafe {
        syscall(libc::SYS_renameat2, from_directory, from, to_directory, to, 0) as c_int
    };
    let Some(settings) = Settings::get() else { return real() };
    // SAFETY: the caller's own paths.
    let places = unsafe {
        (Place::of(settings, from_directory, from), Place::of(settings, to_directory, to))
    };
    match places {
        (None, None) => real(),
        (Some(from), Some(to)) if from.exists() => {
            let mut recorder = recorder(settings);
            recorder.name(&from);
            recorder.name(&to);
            real()
        }
        (Some(_), Some(_)) => real(),
        _ => raw::give_up("a rename into or out of the watched directory"),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's own paths.
    unsafe { renameat(libc::AT_FDCWD, from, libc::AT_FDCWD, to) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    let settings = Settings::get().filter(|_| flags & libc::AT_REMOVEDIR == 0);
    // SAFETY: the caller's own path.
    let place = settings.and_then(|s| Some((s, unsafe { Place::of(s, directory, path) }?)));
    let Some((settings, place)) = place.filter(|(_, place)| place.exists()) else {
        return raw::unlinkat(directory, path, flags);
    };
    let mut recorder = recorder(settings);
    recorder.name(&place);
    raw::unlinkat(directory, path, flags)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's own path.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdirat(directory: c_int, path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller's own path.
    let real = || unsafe { syscall(libc::SYS_mkdirat, directory, path, mode) as c_int };
    let Some(settings) = Settings::get() else { return real() };
    // SAFETY: the caller's own path.
    let place = unsafe { Place::of(settings, directory, path) };
    let Some(place) = place.filter(|place| !place.exists()) else { return real() };
    let mut recorder = recorder(settings);
    recorder.name(&place);
    real()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller's own path.
    unsafe { mkdirat(libc::AT_FDCWD, path, mode) }
}

#[unsafe(no_mangle)]
extern "C" fn fallocate64(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int {
    if watched(fd).is_some() {
        raw::give_up("fallocate: teach the journal about it first");
    }
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_fallocate, fd, mode, at, len) as c_int }
}

#[unsafe(no_mangle)]
extern "C" fn fallocate(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int {
    fallocate64(fd, mode, at, len)
}

#[unsafe(no_mangle)]
extern "C" fn posix_fallocate64(fd: c_int, at: off_t, len: off_t) -> c_int {
    if fallocate64(fd, 0, at, len) == 0 { 0 } else { libc::EOPNOTSUPP }
}

#[unsafe(no_mangle)]
extern "C" fn posix_fallocate(fd: c_int, at: off_t, len: off_t) -> c_int {
    posix_fallocate64(fd, at, len)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    len: size_t,
) -> ssize_t {
    if watched(to).is_some() {
        raw::give_up("copy_file_range: teach the journal about it first");
    }
    // SAFETY: the caller's own arguments; the flags of the kernel's call must be zero.
    unsafe { syscall(libc::SYS_copy_file_range, from, from_at, to, to_at, len, 0) as ssize_t }
}

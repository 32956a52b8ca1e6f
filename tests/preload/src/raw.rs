//! System calls, past the C library.
//!
//! Never: a function of `std::fs` or of the C library that this library interposes. It would end
//! up here again.

use crate::journal::Inode;
use libc::{c_char, c_int, c_long, mode_t, off_t, syscall};

/// Ends the process: a change that cannot be undone would make the test lie.
pub fn give_up(what: &str) -> ! {
    // SAFETY: reads the errno of this thread.
    let errno = unsafe { *libc::__errno_location() };
    let message = format!("fulmar-preload: {what} (errno {errno})\n");
    write(2, message.as_bytes());
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// `write(2)`; what was written, negative for an error.
pub fn write(fd: c_int, bytes: &[u8]) -> isize {
    // SAFETY: the slice is readable for its length.
    unsafe { syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) as isize }
}

/// Writes all bytes.
pub fn write_all(fd: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match usize::try_from(write(fd, bytes)) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            _ => give_up("the journal cannot be written"),
        }
    }
}

/// Reads up to `len` bytes at a place; fewer only where the file ends before.
pub fn read_at(fd: c_int, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; len];
    let mut filled = 0;
    while filled < len {
        let rest = &mut bytes[filled..];
        let place = at + filled as u64;
        // SAFETY: `rest` is writable for its length.
        let read = unsafe { syscall(libc::SYS_pread64, fd, rest.as_mut_ptr(), rest.len(), place) };
        match usize::try_from(read) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(_) => give_up("the bytes before a write cannot be read"),
        }
    }
    bytes.truncate(filled);
    bytes
}

/// A descriptor of the same file that can be read, and whether it is one to close again.
pub fn readable(fd: c_int) -> (c_int, bool) {
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags & libc::O_ACCMODE != libc::O_WRONLY {
        return (fd, false);
    }
    let link = format!("/proc/self/fd/{fd}\0");
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    (openat(libc::AT_FDCWD, link.as_ptr().cast(), flags, 0), true)
}

/// What a descriptor is open on, and its length in bytes; `None` for a bad descriptor.
pub fn stat(fd: c_int) -> Option<(Inode, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is writable; it is read only if the call filled it in.
    let stat = unsafe {
        if libc::fstat(fd, stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    Some((Inode { device: stat.st_dev, number: stat.st_ino }, stat.st_size as u64))
}

/// Whether a name is there.
pub fn exists(directory: c_int, name: *const c_char) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the name ends in a zero byte, `stat` is writable.
    unsafe { libc::fstatat(directory, name, stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW) == 0 }
}

/// The path that a descriptor is open on; `None` for a socket, a pipe or a bad descriptor.
pub fn path_of(fd: c_int) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{fd}\0");
    let mut path = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: `link` ends in a zero byte, `path` is writable for its length.
    let len = unsafe {
        syscall(libc::SYS_readlinkat, libc::AT_FDCWD, link.as_ptr(), path.as_mut_ptr(), path.len())
    };
    path.truncate(usize::try_from(len).ok()?);
    path.starts_with(b"/").then_some(path)
}

/// `openat(2)`.
pub fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's own arguments, or a path that ends in a zero byte.
    unsafe { syscall(libc::SYS_openat, directory, path, flags | libc::O_LARGEFILE, mode) as c_int }
}

/// `close(2)`.
pub fn close(fd: c_int) {
    // SAFETY: the descriptor is one that this library opened.
    unsafe { syscall(libc::SYS_close, fd) };
}

/// `ftruncate(2)`.
pub fn ftruncate(fd: c_int, len: off_t) -> c_int {
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_ftruncate, fd, len) as c_int }
}

/// `unlinkat(2)`.
pub fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's own path, or one that ends in a zero byte.
    unsafe { syscall(libc::SYS_unlinkat, directory, path, flags) as c_int }
}

/// Any system call on a descriptor that takes nothing else.
pub fn on_descriptor(number: c_long, fd: c_int) -> c_int {
    // SAFETY: no memory is involved.
    unsafe { syscall(number, fd) as c_int }
}

/// Makes another name for a file; whether that went well.
pub fn link(directory: c_int, name: *const c_char, path: &[u8]) -> bool {
    let path = zero_ended(path);
    // SAFETY: both names end in a zero byte.
    let linked = || unsafe {
        syscall(libc::SYS_linkat, directory, name, libc::AT_FDCWD, path.as_ptr(), 0) == 0
    };
    // A link of that name is a left-over of a journal that was emptied.
    linked() || {
        unlinkat(libc::AT_FDCWD, path.as_ptr().cast(), 0);
        linked()
    }
}

/// A path for a system call.
pub fn zero_ended(path: &[u8]) -> Vec<u8> {
    [path, b"\0"].concat()
}

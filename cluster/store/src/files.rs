//! The few things that are done to small files, each in the order that survives a power cut.

use crate::error::DiskError;
use crate::format::SECTOR;
use bytes::{Bytes, BytesMut};
use fulmar_host::disk::{Disk, File, Flush, Open, Write};
use fulmar_host::planted;
use fulmar_types::Plant;
use fulmar_types::limits::SECTOR_BYTES;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Zeros, to be written many at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// How much is read or zeroed at a time, in bytes.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;

/// Fills what could not be read: it is neither zero nor the beginning of anything.
const UNREADABLE: u8 = 0xEE;

/// Pieces of zeros, `len` bytes altogether.
pub(crate) fn zeros(len: u64) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut left = len;
    while left > 0 {
        let piece = left.min(ZEROS.len() as u64);
        pieces.push(Bytes::from_static(&ZEROS[..piece as usize]));
        left -= piece;
    }
    pieces
}

/// Writes zeros over a range and leaves the flush to the caller.
pub(crate) async fn zero_range(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let len = (to - at).min(CHUNK_BYTES);
        file.write(vec![Write { at, pieces: zeros(len) }], Flush::No).await?;
        at += len;
    }
    Ok(())
}

/// Makes the next reads those of the disk, unless a planted bug trusts the page cache.
pub(crate) async fn forget_cached(file: &dyn File) -> io::Result<()> {
    if planted(Plant::TrustPageCache) {
        return Ok(());
    }
    file.forget_cached().await
}

/// Flushes the names in a directory.
pub(crate) async fn sync_dir(disk: &dyn Disk, directory: &Path) -> Result<(), DiskError> {
    disk.sync_dir(directory).await.map_err(DiskError::with("flush", directory))
}

/// Flushes the names in a directory after a rename, unless a planted bug forgets it.
pub(crate) async fn sync_rename(disk: &dyn Disk, directory: &Path) -> Result<(), DiskError> {
    if planted(Plant::LoseRename) {
        return Ok(());
    }
    sync_dir(disk, directory).await
}

/// Opens a file, `None` if it is not there.
pub(crate) async fn open_if_there(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<Arc<dyn File>>, DiskError> {
    match disk.open(path, Open::Existing).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DiskError::with("open", path)(error)),
    }
}

/// Creates an empty file, in place of one that an earlier life may have left.
pub(crate) async fn create(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn File>, DiskError> {
    match disk.open(path, Open::New).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_if_there(disk, path).await?;
            disk.open(path, Open::New).await.map_err(DiskError::with("create", path))
        }
        opened => opened.map_err(DiskError::with("create", path)),
    }
}

/// Removes a file that may not be there. The directory is not flushed.
pub(crate) async fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    match disk.remove(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DiskError::with("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Replaces a small file as a whole: after a power cut it is the old one or the new one.
pub(crate) async fn replace(disk: &dyn Disk, path: &Path, bytes: Vec<u8>) -> Result<(), DiskError> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = Path::new(&tmp);
    let file = create(disk, tmp).await?;
    file.write(vec![Write::one(0, bytes)], Flush::Data)
        .await
        .map_err(DiskError::with("write", tmp))?;
    disk.rename(tmp, path).await.map_err(DiskError::with("rename", tmp))?;
    let directory = path.parent().unwrap_or(path);
    sync_rename(disk, directory).await
}

/// Reads a small file whole, `None` if it is not there. What is longer than `max` is cut, so its
/// checksum fails. Such a file is only ever replaced as a whole, so no power cut has torn it, and a
/// failed read is the disk's.
pub(crate) async fn read_small(
    disk: &dyn Disk,
    path: &Path,
    max: usize,
) -> Result<Option<Bytes>, DiskError> {
    let Some(file) = open_if_there(disk, path).await? else { return Ok(None) };
    let len = file.len_bytes().await.map_err(DiskError::with("read", path))?;
    let len = usize::try_from(len).unwrap_or(max).min(max);
    file.read(0, len).await.map(Some).map_err(DiskError::with("read", path))
}

/// Reads a range, and sector by sector where the disk refuses: a sector that a power cut left
/// unreadable reads as bytes that no checksum accepts, so that recovery judges it like any other
/// torn one.
///
/// # Errors
/// The disk's, if neither a sector of the range nor the first one of the file could be read: then
/// it is not about single sectors.
pub(crate) async fn read_around(file: &dyn File, at: u64, len: usize) -> io::Result<Bytes> {
    Ok(read_noting(file, at, len).await?.0)
}

/// The same, with the end of the last sector that could not be read.
pub(crate) async fn read_noting(
    file: &dyn File,
    at: u64,
    len: usize,
) -> io::Result<(Bytes, Option<u64>)> {
    let first = match file.read(at, len).await {
        Ok(bytes) => return Ok((bytes, None)),
        Err(error) => error,
    };
    let end = file.len_bytes().await?.min(at + len as u64);
    let mut out = BytesMut::new();
    let (mut position, mut readable, mut unreadable_end) = (at, false, None);
    while position < end {
        // Up to the next border of a sector, and not beyond what was asked for.
        let piece = (SECTOR - position % SECTOR).min(end - position) as usize;
        let next = position + piece as u64;
        match file.read(position, piece).await {
            Ok(bytes) if bytes.len() == piece => {
                readable = true;
                out.extend_from_slice(&bytes);
            }
            _ => {
                out.resize(out.len() + piece, UNREADABLE);
                unreadable_end = Some(next);
            }
        }
        position = next;
    }
    if readable || file.read(0, SECTOR_BYTES).await.is_ok() {
        Ok((out.freeze(), unreadable_end))
    } else {
        Err(first)
    }
}

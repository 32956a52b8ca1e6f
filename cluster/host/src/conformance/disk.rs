//! What every implementation of [`Disk`](crate::disk::Disk) and [`File`] promises.

use super::{fails, good};
use crate::Host;
use crate::disk::{File, Flush, Open, Write};
use bytes::Bytes;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Tests the disk of a host in a directory that does not exist yet.
///
/// # Panics
/// If a promise is broken.
pub async fn disk(host: &Host, directory: &Path) {
    let directory = &directory.join("made").join("for").join("this");
    directories(host, directory).await;
    opening(host, directory).await;
    reading_and_writing(host, directory).await;
    lengths(host, directory).await;
    renaming(host, directory).await;
    removing(host, directory).await;
    listing(host, directory).await;
    locking(host, directory).await;
}

async fn new_file(host: &Host, path: &Path) -> Arc<dyn File> {
    good("creating a file", host.disk.open(path, Open::New).await)
}

async fn put(file: &Arc<dyn File>, at: u64, bytes: &'static [u8]) {
    let writes = vec![Write::one(at, bytes)];
    good("a write", file.write(writes, Flush::No).await);
}

async fn get(file: &Arc<dyn File>, at: u64, len: usize) -> Bytes {
    good("a read", file.read(at, len).await)
}

async fn directories(host: &Host, directory: &Path) {
    fails("listing no directory", ErrorKind::NotFound, host.disk.list(directory).await);
    fails("flushing no directory", ErrorKind::NotFound, host.disk.sync_dir(directory).await);
    let orphan = host.disk.open(&directory.join("orphan"), Open::New).await;
    fails("creating a file in no directory", ErrorKind::NotFound, orphan);
    good("creating directories", host.disk.create_dir(directory).await);
    good("creating a directory again", host.disk.create_dir(directory).await);
    assert!(
        good("listing", host.disk.list(directory).await).is_empty(),
        "a new directory is empty"
    );
    good("flushing a directory", host.disk.sync_dir(directory).await);
    let free = good("asking for space", host.disk.free_bytes(directory).await);
    assert!(free > 0, "there is space on the disk");
}

async fn opening(host: &Host, directory: &Path) {
    let path = directory.join("open");
    fails("opening no file", ErrorKind::NotFound, host.disk.open(&path, Open::Existing).await);
    let file = new_file(host, &path).await;
    let again = host.disk.open(&path, Open::New).await;
    fails("creating a file that exists", ErrorKind::AlreadyExists, again);
    let second = good("opening", host.disk.open(&path, Open::Existing).await);
    put(&file, 0, b"seen by all").await;
    assert_eq!(get(&second, 0, 11).await, "seen by all", "two handles show one file");
}

async fn reading_and_writing(host: &Host, directory: &Path) {
    let file = new_file(host, &directory.join("bytes")).await;
    assert!(get(&file, 0, 10).await.is_empty(), "an empty file reads as nothing");
    put(&file, 3, b"defg").await;
    assert_eq!(get(&file, 0, 100).await.as_ref(), b"\0\0\0defg", "a gap reads as zeros");
    put(&file, 0, b"abc").await;
    assert_eq!(get(&file, 2, 3).await, "cde", "a read takes from the middle");
    assert_eq!(get(&file, 5, 100).await, "fg", "a read ends where the file ends");
    assert!(get(&file, 7, 1).await.is_empty(), "there is nothing at the end");
    assert!(get(&file, 1 << 40, 1).await.is_empty(), "there is nothing beyond the end");

    let pieces = vec![Bytes::from("one "), Bytes::new(), Bytes::from("two")];
    let writes = vec![
        Write { at: 1_000, pieces },
        Write::one(2_000, "far"),
        Write::one(1_004, "TWO"),
        Write { at: 9_999, pieces: Vec::new() },
    ];
    assert_eq!(writes[0].bytes(), 7, "a write counts its bytes");
    good("a write in several places", file.write(writes, Flush::Data).await);
    assert_eq!(get(&file, 1_000, 7).await, "one TWO", "the places are written in their order");
    assert_eq!(get(&file, 2_000, 3).await, "far");
    assert_eq!(good("length", file.len_bytes().await), 2_003, "nothing written, nothing grown");

    let large: Bytes = (0..300_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    let write =
        Write { at: 513, pieces: large.chunks(1_000).map(Bytes::copy_from_slice).collect() };
    good("a large write", file.write(vec![write], Flush::Data).await);
    assert!(get(&file, 513, large.len()).await == large, "a large write reads back");
    good("a flush", file.sync().await);
    good("a flush of nothing", file.sync().await);
    good("a fresh look", file.forget_cached().await);
    assert!(get(&file, 513, large.len()).await == large, "and it is still there");
}

async fn lengths(host: &Host, directory: &Path) {
    let file = new_file(host, &directory.join("lengths")).await;
    put(&file, 0, b"0123456789").await;
    good("cutting", file.set_len(4).await);
    assert_eq!(good("length", file.len_bytes().await), 4);
    good("extending", file.set_len(8).await);
    assert_eq!(get(&file, 0, 100).await.as_ref(), b"0123\0\0\0\0", "what was cut off is zeros");
    good("cutting all", file.set_len(0).await);
    assert!(get(&file, 0, 100).await.is_empty());
    good("extending far", file.set_len(1_000_000).await);
    assert!(get(&file, 999_000, 2_000).await.iter().all(|byte| *byte == 0));
    good("a flush", file.sync().await);
}

async fn renaming(host: &Host, directory: &Path) {
    let (from, to) = (directory.join("from"), directory.join("to"));
    fails("renaming no file", ErrorKind::NotFound, host.disk.rename(&from, &to).await);
    let file = new_file(host, &from).await;
    put(&file, 0, b"moved").await;
    let replaced = new_file(host, &to).await;
    put(&replaced, 0, b"replaced").await;
    good("renaming", host.disk.rename(&from, &to).await);
    good("flushing the directory", host.disk.sync_dir(directory).await);
    fails("opening the old name", ErrorKind::NotFound, host.disk.open(&from, Open::Existing).await);
    let opened = good("opening the new name", host.disk.open(&to, Open::Existing).await);
    assert_eq!(get(&opened, 0, 100).await, "moved");
    put(&file, 5, b" on").await;
    assert_eq!(get(&opened, 0, 100).await, "moved on", "a handle follows its file");
    assert_eq!(get(&replaced, 0, 100).await, "replaced", "a handle keeps its file");
    good("renaming to itself", host.disk.rename(&to, &to).await);
    assert_eq!(get(&opened, 0, 5).await, "moved");

    let below = directory.join("below");
    good("creating a directory", host.disk.create_dir(&below).await);
    good("renaming across directories", host.disk.rename(&to, &below.join("to")).await);
    good("flushing the new directory", host.disk.sync_dir(&below).await);
    good("flushing the old directory", host.disk.sync_dir(directory).await);
    good("opening there", host.disk.open(&below.join("to"), Open::Existing).await);
    let nowhere = host.disk.rename(&below.join("to"), &directory.join("none").join("to")).await;
    fails("renaming into no directory", ErrorKind::NotFound, nowhere);
}

async fn removing(host: &Host, directory: &Path) {
    let path = directory.join("remove");
    fails("removing no file", ErrorKind::NotFound, host.disk.remove(&path).await);
    let file = new_file(host, &path).await;
    put(&file, 0, b"still here").await;
    good("removing", host.disk.remove(&path).await);
    fails("opening it", ErrorKind::NotFound, host.disk.open(&path, Open::Existing).await);
    assert_eq!(get(&file, 0, 100).await, "still here", "a handle keeps its file");
    let second = new_file(host, &path).await;
    assert!(get(&second, 0, 100).await.is_empty(), "the name has a new file");
    good("flushing the directory", host.disk.sync_dir(directory).await);
}

async fn listing(host: &Host, directory: &Path) {
    let directory = &directory.join("listing");
    good("creating a directory", host.disk.create_dir(directory).await);
    for name in ["b", "c", "a"] {
        let file = new_file(host, &directory.join(name)).await;
        put(&file, 0, b"12345").await;
    }
    good("creating a directory", host.disk.create_dir(&directory.join("aa").join("deep")).await);
    let listed = good("listing", host.disk.list(directory).await);
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a", "aa", "b", "c"], "a listing is sorted and not recursive");
    assert_eq!(listed[0].len_bytes, 5, "a listing knows the lengths");
    let kinds: Vec<bool> = listed.iter().map(|entry| entry.is_dir).collect();
    assert_eq!(kinds, [false, true, false, false], "a listing tells directories from files");
}

async fn locking(host: &Host, directory: &Path) {
    let lock = good("locking", host.disk.lock(directory).await);
    fails("locking twice", ErrorKind::WouldBlock, host.disk.lock(directory).await);
    let below = directory.join("below");
    let other = good("locking another directory", host.disk.lock(&below).await);
    drop(lock);
    good("locking what was given back", host.disk.lock(directory).await);
    drop(other);
    let missing = directory.join("none");
    fails("locking no directory", ErrorKind::NotFound, host.disk.lock(&missing).await);
}

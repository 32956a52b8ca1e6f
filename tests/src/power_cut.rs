//! SIGKILL made equal to a power cut, with the preloaded library of `tests/preload`.
//!
//! A process runs with [`PowerCut::watch`]; it is killed; [`PowerCut::cut`] then takes back, newest
//! first, every change that no flush has covered.
//!
//! Invariant: what a flush had confirmed before the kill stays as it was.

// The format is written by the library and read here. The library is loaded into other processes
// and must not be linked into this one, so the file is shared and not the crate.
#[path = "../preload/src/journal.rs"]
pub mod journal;

use crate::cargo;
use journal::{Content, Inode, JOURNAL, Record, What, decode_all, kept_name};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A directory whose unflushed changes can be taken back.
#[derive(Clone, Debug)]
pub struct PowerCut {
    data: PathBuf,
    side: PathBuf,
}

/// What a power cut took back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Writes and changes of a length.
    pub writes: usize,
    /// Names that were made, replaced or removed.
    pub names: usize,
}

impl PowerCut {
    /// Prepares a directory; the journal is kept in another one beside it.
    ///
    /// # Errors
    /// If one of them cannot be made.
    pub fn new(data: &Path, side: &Path) -> io::Result<Self> {
        fs::create_dir_all(data)?;
        fs::create_dir_all(side)?;
        Ok(Self { data: data.canonicalize()?, side: side.canonicalize()? })
    }

    /// Loads the library into a process. If `lie` is set, its flushes do nothing and succeed.
    pub fn watch(&self, command: &mut Command, lie: bool) {
        command
            .env("LD_PRELOAD", library())
            .env("FULMAR_PRELOAD_DATA", &self.data)
            .env("FULMAR_PRELOAD_JOURNAL", &self.side)
            .env_remove("FULMAR_PRELOAD_LIE");
        if lie {
            command.env("FULMAR_PRELOAD_LIE", "1");
        }
    }

    /// Takes back what was not flushed. The process must be dead.
    ///
    /// # Errors
    /// If a file cannot be restored.
    pub fn cut(&self) -> io::Result<Lost> {
        let bytes = match fs::read(self.side.join(JOURNAL)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lost::default()),
            Err(error) => return Err(error),
        };
        let pending = pending(decode_all(&bytes).0);
        let files = self.files(&pending)?;
        let mut lost = Lost::default();
        for record in pending.iter().rev() {
            match &record.what {
                What::Content(content) => {
                    // A file without any name left is gone, flushed or not.
                    if let Some(file) = files.get(&record.inode) {
                        restore_content(file, content)?;
                        lost.writes += 1;
                    }
                }
                What::Name { path, kept } => {
                    self.restore_name(Path::new(OsStr::from_bytes(path)), record.seq, *kept)?;
                    lost.names += 1;
                }
                What::Durable => {}
            }
        }
        for entry in fs::read_dir(&self.side)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(lost)
    }

    /// The files whose content has to be restored, found by inode: their names may have changed.
    fn files(&self, pending: &[Record]) -> io::Result<BTreeMap<Inode, fs::File>> {
        let mut paths = BTreeMap::new();
        index(&self.side, &mut paths)?;
        index(&self.data, &mut paths)?;
        let mut files = BTreeMap::new();
        for record in pending {
            if let (What::Content(_), Some(path)) = (&record.what, paths.get(&record.inode)) {
                let open = || fs::OpenOptions::new().read(true).write(true).open(path);
                files.insert(record.inode, open()?);
            }
        }
        Ok(files)
    }

    fn restore_name(&self, path: &Path, seq: u64, kept: bool) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path)?,
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if kept {
            fs::hard_link(self.side.join(kept_name(seq)), path)?;
        }
        Ok(())
    }
}

/// The library, built once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| cargo::build("fulmar-preload", "fulmar_preload"))
}

/// The records that no flush has covered, oldest first.
fn pending(records: Vec<Record>) -> Vec<Record> {
    let mut durable: BTreeMap<Inode, u64> = BTreeMap::new();
    for record in &records {
        if record.what == What::Durable {
            let up_to = durable.entry(record.inode).or_default();
            *up_to = record.seq.max(*up_to);
        }
    }
    let is_pending = |record: &Record| {
        record.what != What::Durable
            && durable.get(&record.inode).is_none_or(|up_to| record.seq > *up_to)
    };
    records.into_iter().filter(is_pending).collect()
}

fn index(directory: &Path, paths: &mut BTreeMap<Inode, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            index(&entry.path(), paths)?;
        } else {
            let inode = Inode { device: metadata.dev(), number: metadata.ino() };
            paths.insert(inode, entry.path());
        }
    }
    Ok(())
}

fn restore_content(file: &fs::File, content: &Content) -> io::Result<()> {
    let zeros = vec![0u8; usize::try_from(content.len.min(1 << 20)).unwrap_or(0)];
    let end = content.at + content.len;
    let mut here = content.at;
    while here < end {
        let step = zeros.len().min(usize::try_from(end - here).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..step], here)?;
        here += step as u64;
    }
    for extent in &content.extents {
        file.write_all_at(&extent.bytes, extent.at)?;
    }
    file.set_len(content.file_bytes)
}

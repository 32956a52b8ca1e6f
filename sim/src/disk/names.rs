//! The names of files: which there are, and which there will be after a power cut.
//!
//! Creations, renames and removals wait until their directory is flushed. At a power cut each of
//! them is lost or survives, within what a file system with a journal allows:
//!
//! 1. Steps that touch the same name survive in their order: if one is lost, so are the later ones.
//!    (Else a rename away from a name could be lost, a new file under that name survive, and a
//!    durable file vanish that nobody removed.)
//! 2. The renames of one directory survive in their order.
//! 3. Apart from that, any of them may survive without the others, in one directory or in two.
//!    ext4 would keep a stricter order; btrfs and XFS after replay need not.
//!
//! A name that survives leads to its file, whatever of the file's bytes has survived. Directories
//! are durable at once, because `create_dir` is durable by contract.

use crate::prng::Prng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub u64);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(FileId),
    /// A directory.
    Directory,
}

#[derive(Clone, Debug)]
enum Step {
    Create { path: PathBuf, file: FileId },
    Rename { from: PathBuf, to: PathBuf, file: FileId },
    Remove { path: PathBuf, file: FileId },
}

impl Step {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> + Clone {
        let (one, other) = match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => (path, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }

    fn file(&self) -> FileId {
        match self {
            Self::Create { file, .. } | Self::Rename { file, .. } | Self::Remove { file, .. } => {
                *file
            }
        }
    }

    fn touches(&self, directory: &Path) -> bool {
        self.paths().any(|path| path.parent() == Some(directory))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        let mut remove = |path: &PathBuf, file: FileId| {
            if names.get(path) == Some(&Entry::File(file)) {
                names.remove(path);
            }
        };
        match self {
            Self::Create { path, file } => {
                names.insert(path.clone(), Entry::File(*file));
            }
            Self::Rename { from, to, file } => {
                remove(from, *file);
                names.insert(to.clone(), Entry::File(*file));
            }
            Self::Remove { path, file } => remove(path, *file),
        }
    }
}

/// A path without `.` in it, so that two spellings are one name.
pub fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| !matches!(component, Component::CurDir)).collect()
}

/// The names of one disk.
#[derive(Default)]
pub struct Names {
    live: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    pending: BTreeMap<u64, Step>,
    next_step: u64,
}

impl Names {
    /// What a name stands for.
    pub fn get(&self, path: &Path) -> Option<Entry> {
        if path.parent().is_none() {
            // The root, and the directory that relative names begin in.
            return Some(Entry::Directory);
        }
        self.live.get(path).copied()
    }

    /// The file with this name.
    ///
    /// # Errors
    /// `NotFound`; `IsADirectory` for a directory.
    pub fn file(&self, path: &Path) -> io::Result<FileId> {
        match self.get(path) {
            Some(Entry::File(file)) => Ok(file),
            Some(Entry::Directory) => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    /// Fails unless this is a directory.
    ///
    /// # Errors
    /// `NotFound`; `NotADirectory` for a file.
    pub fn directory(&self, path: &Path) -> io::Result<()> {
        match self.get(path) {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_)) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn holder(&self, path: &Path) -> io::Result<()> {
        self.directory(path.parent().unwrap_or(Path::new("")))
    }

    fn step(&mut self, step: Step) {
        step.apply(&mut self.live);
        self.pending.insert(self.next_step, step);
        self.next_step += 1;
    }

    /// Creates a name.
    ///
    /// # Errors
    /// `AlreadyExists`, or `NotFound` without a directory for it.
    pub fn create(&mut self, path: PathBuf, file: FileId) -> io::Result<()> {
        if self.get(&path).is_some() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.holder(&path)?;
        self.step(Step::Create { path, file });
        Ok(())
    }

    /// Renames a file, replacing what is there.
    ///
    /// # Errors
    /// `NotFound`, or `IsADirectory` where a directory is in the way.
    pub fn rename(&mut self, from: PathBuf, to: PathBuf) -> io::Result<()> {
        let file = self.file(&from)?;
        self.holder(&to)?;
        if self.get(&to) == Some(Entry::Directory) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if from != to {
            self.step(Step::Rename { from, to, file });
        }
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, or `IsADirectory`.
    pub fn remove(&mut self, path: PathBuf) -> io::Result<()> {
        let file = self.file(&path)?;
        self.step(Step::Remove { path, file });
        Ok(())
    }

    /// Creates a directory and those above it, durably.
    ///
    /// # Errors
    /// `NotADirectory` where a file is in the way.
    pub fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        for path in above.into_iter().rev() {
            if matches!(self.get(path), Some(Entry::File(_))) {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
            self.live.insert(path.to_owned(), Entry::Directory);
            self.durable.insert(path.to_owned(), Entry::Directory);
        }
        Ok(())
    }

    /// Everything directly in a directory.
    pub fn children<'a>(
        &'a self,
        directory: &'a Path,
    ) -> impl Iterator<Item = (&'a PathBuf, Entry)> {
        let inside = self.live.iter().filter(|(path, _)| path.parent() == Some(directory));
        inside.map(|(path, entry)| (path, *entry))
    }

    /// Names that are durable.
    pub fn of(names: BTreeMap<PathBuf, Entry>) -> Self {
        Self { live: names.clone(), durable: names, ..Self::default() }
    }

    /// Every name that there is.
    pub fn all(&self) -> impl Iterator<Item = (&PathBuf, Entry)> {
        self.live.iter().map(|(path, entry)| (path, *entry))
    }

    /// Every file that there is.
    pub fn files(&self) -> impl Iterator<Item = (&PathBuf, FileId)> {
        self.live.iter().filter_map(|(path, entry)| match entry {
            Entry::File(file) => Some((path, *file)),
            Entry::Directory => None,
        })
    }

    /// Every file that has a name, or will have one after some power cut.
    pub fn reachable(&self) -> BTreeSet<FileId> {
        let named = self
            .live
            .values()
            .chain(self.durable.values())
            .filter_map(|entry| if let Entry::File(file) = entry { Some(*file) } else { None });
        named.chain(self.pending.values().map(Step::file)).collect()
    }

    /// The number of the next step: a flush covers those below it.
    pub fn begin_flush(&self) -> u64 {
        self.next_step
    }

    /// Makes the steps below `end` that touch a directory durable, and whatever they rest on.
    pub fn end_flush(&mut self, directory: &Path, end: u64) {
        let mut names: BTreeSet<PathBuf> = BTreeSet::new();
        let mut flushed: Vec<u64> = Vec::new();
        for (at, step) in self.pending.range(..end).rev() {
            if step.touches(directory) || step.paths().any(|path| names.contains(path)) {
                names.extend(step.paths().cloned());
                flushed.push(*at);
            }
        }
        for at in flushed.into_iter().rev() {
            if let Some(step) = self.pending.remove(&at) {
                step.apply(&mut self.durable);
            }
        }
    }

    /// The power is cut: what was not flushed is lost or not, see the module. Returns how many
    /// steps were lost.
    pub fn lose_power(&mut self, prng: &mut Prng, lost_ppm: u32) -> usize {
        let mut lost_names: BTreeSet<PathBuf> = BTreeSet::new();
        let mut renames_lost_in: BTreeSet<PathBuf> = BTreeSet::new();
        let mut lost = 0;
        for step in std::mem::take(&mut self.pending).into_values() {
            let directories = step.paths().filter_map(|path| path.parent());
            let is_rename = matches!(step, Step::Rename { .. });
            let rests_on_lost = step.paths().any(|path| lost_names.contains(path))
                || is_rename && directories.clone().any(|at| renames_lost_in.contains(at));
            if prng.chance(lost_ppm) || rests_on_lost {
                if is_rename {
                    renames_lost_in.extend(directories.map(Path::to_owned));
                }
                lost_names.extend(step.paths().cloned());
                lost += 1;
            } else {
                step.apply(&mut self.durable);
            }
        }
        self.live = self.durable.clone();
        lost
    }
}

//! Reading the files of the repository.
//!
//! Invariant: what `.gitignore` excludes and what is not text is not seen; everything else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories at the root that are not part of what is shipped.
const EXCLUDED: &[&str] = &[".git", "failures"];

/// A text file.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Relative to the root of the repository, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// All text files of the repository, sorted by path.
pub struct Repository {
    /// Its root.
    pub root: PathBuf,
    /// The text files.
    pub files: Vec<TextFile>,
    /// The paths of all files, text or not.
    pub paths: BTreeSet<String>,
}

impl Repository {
    /// Reads the repository that this crate lies in.
    ///
    /// # Panics
    /// If a file cannot be read: a check that skips files proves nothing.
    pub fn read() -> Self {
        let root = root();
        let mut read = Self { root: root.clone(), files: Vec::new(), paths: BTreeSet::new() };
        read.collect(&root);
        read.files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(read.files.len() > 20, "{} holds no repository", root.display());
        read
    }

    /// Whether there is a file or a directory at this path.
    pub fn holds(&self, path: &str) -> bool {
        let inside = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.paths.contains(path)
            || self.paths.range(inside.clone()..).next().is_some_and(|at| at.starts_with(&inside))
    }

    fn collect(&mut self, directory: &Path) {
        let entries = fs::read_dir(directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries {
            let path = entry.expect("a directory that can be opened can be listed").path();
            let relative = path.strip_prefix(&self.root).expect("below the root");
            let relative = relative.to_string_lossy().into_owned();
            let is_build = path.ends_with("target") && path.is_dir();
            if is_build || EXCLUDED.contains(&relative.as_str()) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                self.collect(&path);
                continue;
            }
            match fs::read(&path) {
                Ok(bytes) => {
                    self.paths.insert(relative.clone());
                    if let Ok(text) = String::from_utf8(bytes) {
                        self.files.push(TextFile { path: relative, text });
                    }
                }
                // An editor's temporary file may go between the listing and the reading.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// The Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The files with this ending.
    pub fn ending<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a TextFile> {
        self.files.iter().filter(move |file| file.path.ends_with(ending))
    }
}

/// The root of the repository.
///
/// # Panics
/// If this crate does not lie in it.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the tests lie below the root").to_owned()
}

//! The checks of the sources, run by `cargo test`.
//!
//! A check is a function from text to findings. It reads no file itself, so that its own tests can
//! plant a violation in a string; [`Repository`] does the reading.
//!
//! Invariant: a finding teaches. It names the place, the rule, and what to write instead.

pub mod docs;
pub mod forbidden;
pub mod layers;
pub mod lexer;
pub mod markers;
pub mod repository;
pub mod served;
pub mod size;
pub mod words;

pub use lexer::Source;
pub use repository::{Repository, TextFile};

use std::fmt;

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the root of the repository.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Finding {
    /// A violation at a line.
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Fails a test with every finding on a line of its own.
///
/// # Panics
/// If there is a finding.
pub fn assert_clean(mut findings: Vec<Finding>) {
    findings.sort();
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} finding(s):\n{}", lines.len(), lines.join("\n"));
}

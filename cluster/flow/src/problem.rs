//! What is wrong with a pipeline file, and where.
//!
//! Invariant: a problem names the place, what stands there, and what could stand there instead.

use std::fmt;

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something that keeps a file from being a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is.
    pub at: Position,
    /// What was found, and what was expected.
    pub message: String,
}

impl Problem {
    /// A problem in words of its own.
    pub(crate) fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// What follows from a problem that is told already, and is not told.
    pub(crate) fn consequence(at: Position) -> Self {
        Self::new(at, "")
    }

    /// Whether it only follows from another one.
    pub(crate) fn is_consequence(&self) -> bool {
        self.message.is_empty()
    }

    /// The usual one: something else was expected here.
    pub(crate) fn expected(
        at: Position,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::new(at, format!("found {found}, expected {expected}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

impl std::error::Error for Problem {}

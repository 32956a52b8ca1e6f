//! Words for people.
//!
//! Invariant: writing never panics. Whoever reads our output may stop reading, as `head` does; what
//! a run found is in its exit code.

use std::fmt::Display;
use std::io::Write;

/// Prints a line of data.
pub fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Prints progress, or a message about trouble.
pub fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

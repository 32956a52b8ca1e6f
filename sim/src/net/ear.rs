//! Listening to what sites say to each other: outside of what would be TLS, every byte that crosses.
//!
//! A byte has crossed when it is at the other machine. What waits at its sender has not, and never does if
//! the sender gives it up; so whoever listens hears what was written long ago when it comes, with the time
//! at which it left.
//!
//! Invariant: whoever listens changes nothing.

/// Somebody who listens.
pub trait Ear: Send + Sync {
    /// The next bytes of one side of a connection, in order, as they reach the other machine, and when
    /// they left. `line` is its own for each side. He must not use the network from within.
    fn hears(&self, line: u64, bytes: &[u8], left_ns: u64);
}

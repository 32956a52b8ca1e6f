//! The wall clock of a machine: it may be wrong, and it may jump.
//!
//! Never: measure a duration or decide a timeout with it. That is what [`crate::time`] is for.

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970-01-01T00:00:00Z, as this machine believes.
    fn wall_ms(&self) -> u64;
}

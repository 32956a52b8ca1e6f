//! What a store counts, and how large its log is, for whoever wants to look.
//!
//! Invariant: a counter never goes back while the process lives.

use crate::store::Store;
use fulmar_host::time::Duration;
use fulmar_types::LogPosition;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bounds of the buckets that flushes are counted in, in microseconds.
pub const FLUSH_BUCKETS_US: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000,
];

/// The flushes of groups of entries, from the beginning of the write to the end of the flush.
#[derive(Debug, Default)]
pub(crate) struct FlushTimes {
    /// One more than bounds: the last is without one.
    buckets: [AtomicU64; FLUSH_BUCKETS_US.len() + 1],
    total_us: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl FlushTimes {
    /// A group of so many entries and bytes was flushed.
    pub fn add(&self, took: Duration, entries: u32, bytes: u64) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = FLUSH_BUCKETS_US.partition_point(|bound| *bound < took_us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(took_us, Ordering::Relaxed);
        self.entries.fetch_add(u64::from(entries), Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Flushes by how long they took: up to each of [`FLUSH_BUCKETS_US`], and longer.
    pub flushes: [u64; FLUSH_BUCKETS_US.len() + 1],
    /// Microseconds that all of them took.
    pub flush_us: u64,
    /// Entries that they covered.
    pub flushed_entries: u64,
    /// Bytes that they wrote.
    pub flushed_bytes: u64,
    /// The last entry of the log.
    pub last: Option<LogPosition>,
    /// The last one that is on disk.
    pub flushed: Option<LogPosition>,
    /// The last one that Raft does not know any more.
    pub floor: Option<LogPosition>,
    /// Segments of the log, of `segment_bytes` each, sealed and open.
    pub segments: u64,
    /// Spares beside them.
    pub spares: u64,
    /// How large a segment file is.
    pub segment_bytes: u64,
}

impl Store {
    /// How it is now.
    pub fn figures(&self) -> StoreFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let times = &self.inner.flush_times;
        let spares = self.room().spares;
        let core = self.inner.core();
        let open = core.log.as_ref().map_or(0, |log| log.segments().len());
        StoreFigures {
            flushes: std::array::from_fn(|at| read(&times.buckets[at])),
            flush_us: read(&times.total_us),
            flushed_entries: read(&times.entries),
            flushed_bytes: read(&times.bytes),
            last: core.last(),
            flushed: core.flushed,
            floor: core.floor,
            segments: (open + core.sealed.len()) as u64,
            spares,
            segment_bytes: self.inner.settings.segment_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_in_the_first_bucket_that_it_fits_into() {
        let times = FlushTimes::default();
        for us in [0, 500, 501, 2_500_000, 9_000_000] {
            times.add(Duration::from_micros(us), 2, 512);
        }
        let counts: Vec<u64> =
            times.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(times.entries.load(Ordering::Relaxed), 10);
    }
}

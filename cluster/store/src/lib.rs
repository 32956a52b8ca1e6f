//! Bytes at rest: entries, segments, index, recovery, votes, snapshots.

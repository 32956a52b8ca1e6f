//! The newest entries in memory: for followers, for the apply loop, and for everybody who reads
//! what is not flushed yet.
//!
//! Invariants: the entries are consecutive and end with the last one of the log; an entry that is
//! not flushed is never evicted, so that it can be read although the file does not have it.

use crate::format::frame::LogEntry;
use fulmar_types::LogIndex;
use std::collections::VecDeque;

/// What an entry costs beside its payload.
const ENTRY_BYTES: usize = size_of::<LogEntry>();

/// Consecutive entries up to the end of the log.
#[derive(Debug)]
pub(crate) struct EntryCache {
    limit_bytes: usize,
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

fn cost(entry: &LogEntry) -> usize {
    ENTRY_BYTES + entry.payload.len()
}

impl EntryCache {
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, entries: VecDeque::new(), bytes: 0 }
    }

    pub fn push(&mut self, entry: LogEntry) {
        if let Some(last) = self.entries.back() {
            assert_eq!(last.position.index.next(), entry.position.index, "entries are consecutive");
        }
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
    }

    /// Evicts the oldest entries until the bound holds, sparing those from `keep_from` on.
    pub fn evict(&mut self, keep_from: LogIndex) {
        while self.bytes > self.limit_bytes {
            match self.entries.front() {
                Some(first) if first.position.index < keep_from => {
                    self.bytes -= cost(first);
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
    }

    pub fn truncate(&mut self, from: LogIndex) {
        while let Some(last) = self.entries.back() {
            if last.position.index < from {
                break;
            }
            self.bytes -= cost(last);
            self.entries.pop_back();
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    pub fn get(&self, index: LogIndex) -> Option<&LogEntry> {
        let first = self.entries.front()?.position.index;
        self.entries.get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }

    /// The index of the oldest entry here.
    pub fn first(&self) -> Option<LogIndex> {
        self.entries.front().map(|entry| entry.position.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::EntryKind;
    use bytes::Bytes;
    use fulmar_types::{LogPosition, Term};

    fn entry(index: u64) -> LogEntry {
        LogEntry {
            position: LogPosition { term: Term(1), index: LogIndex(index) },
            kind: EntryKind::Normal,
            claim: 0,
            payload: Bytes::from_static(&[0; 1000]),
        }
    }

    #[test]
    fn what_is_not_flushed_stays() {
        let mut cache = EntryCache::new(2 * (1000 + ENTRY_BYTES));
        (5..10).for_each(|index| cache.push(entry(index)));
        cache.evict(LogIndex(6));
        assert_eq!(cache.first(), Some(LogIndex(6)));
        cache.evict(LogIndex(10));
        assert_eq!(cache.first(), Some(LogIndex(8)));
        assert_eq!(cache.get(LogIndex(9)), Some(&entry(9)));
        assert_eq!(cache.get(LogIndex(7)), None);
        assert_eq!(cache.get(LogIndex(10)), None);
        cache.truncate(LogIndex(9));
        assert_eq!(cache.get(LogIndex(9)), None);
        cache.truncate(LogIndex(0));
        assert_eq!((cache.bytes, cache.first()), (0, None));
    }
}

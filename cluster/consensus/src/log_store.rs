//! openraft's log storage on top of the store.
//!
//! Invariants: an append returns as soon as its entries can be read, and reports them flushed when
//! they are; a vote is durable when saving it returns; votes, appends and truncations reach the
//! disk in the order in which openraft asked for them (the store's one queue).

use crate::types::{
    Entry, LeaderId, LogId, TypeConfig, Vote, entry_from_store, entry_to_store, log_id,
    payload_len, position, vote_from_store, vote_to_store,
};
use fulmar_store::{Demand, LogEntry, ReadError, Store};
use fulmar_types::LogIndex;
use fulmar_types::limits::{APPEND_MESSAGE_TARGET_BYTES, append_message_bytes};
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::errors::LeaderChanged;
use openraft::storage::{
    IOFlushed, LeaderBoundedStreamError, LeaderBoundedStreamResult, LogState, RaftLogReader,
    RaftLogStorage,
};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Bytes of entries that the apply loop reads at a time.
pub(crate) const APPLY_CHUNK_BYTES: usize = 4 << 20;

/// The log of the site's Raft group.
#[derive(Clone)]
pub struct LogStore {
    store: Arc<Store>,
}

impl LogStore {
    /// The log in this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn vote(&self) -> Option<Vote> {
        self.store.vote().map(|saved| vote_from_store(&saved))
    }

    async fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let range = LogIndex(start)..LogIndex(end);
        let entries: Vec<LogEntry> =
            self.store.entries(range, max_bytes).await.map_err(io::Error::other)?;
        entries.into_iter().map(entry_from_store).collect()
    }

    /// The same for the part of the range that the log holds: openraft may ask for entries that
    /// were purged, and for some that were never appended.
    async fn read_held(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let begin = self.store.floor().map_or(0, |floor| floor.index.get() + 1);
        let next = self.store.last().map_or(0, |last| last.index.get() + 1);
        let (start, end) = (start.max(begin), end.min(next));
        if start < end { self.read(start, end, max_bytes).await } else { Ok(Vec::new()) }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at + 1,
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let read = async {
            let changed =
                |vote| LeaderBoundedStreamError::LeaderChanged(LeaderChanged::new(leader, vote));
            let before = self.vote();
            if !before.is_some_and(|vote| vote.leader_id == leader && vote.committed) {
                return Err(changed(before));
            }
            let entries = self.read(start, end, usize::MAX).await?;
            let after = self.vote();
            if after != before {
                return Err(changed(after));
            }
            Ok(entries)
        };
        stream::iter(match read.await {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    /// Entries for the apply loop, read in chunks so that a long replay does not have to fit in
    /// memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        stream::unfold(Some((log, start)), move |state| async move {
            let (log, start) = state?;
            if start >= end {
                return None;
            }
            match log.read_held(start, end, APPLY_CHUNK_BYTES).await {
                Ok(entries) => {
                    let next = entries.last()?.log_id.index + 1;
                    let items: Vec<io::Result<Entry>> = entries.into_iter().map(Ok).collect();
                    Some((stream::iter(items), Some((log, next))))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        })
        .flatten()
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read_held(start, end, usize::MAX).await
    }

    /// Entries for one message to a follower: at least one if the log holds the first, and no more
    /// than fit into a message, and surely into what a node keeps ready.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let most = append_message_bytes(self.store.room().segment_bytes);
        let range = LogIndex(start)..LogIndex(end);
        let read = match self.store.entries(range, APPEND_MESSAGE_TARGET_BYTES).await {
            // Asked for by a leader that was deposed a moment ago, and its entries taken back or
            // purged. To openraft nothing is a heartbeat, before which it looks whether it still
            // leads; an error would be the end of this node. As long as it does lead, openraft
            // neither takes back nor purges what it replicates.
            Err(ReadError::Missing(_) | ReadError::Purged { .. }) => return Ok(Vec::new()),
            read => read.map_err(io::Error::other)?,
        };
        let entries: io::Result<Vec<Entry>> = read.into_iter().map(entry_from_store).collect();
        let mut entries = entries?;
        let mut bytes = 0;
        let fitting = entries.iter().take_while(|entry| {
            bytes += Demand::of_payload(payload_len(entry)).bytes;
            bytes <= most
        });
        let fitting = fitting.count().max(1);
        entries.truncate(fitting);
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.store.floor().map(log_id);
        let last_log_id = self.store.last().map(log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.store.save_vote(vote_to_store(vote)).await?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(entry_to_store).collect();
        let flushed = Box::new(move |result| callback.io_completed(result));
        Ok(self.store.append(entries, flushed).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = LogIndex(last.map_or(0, |id| id.index() + 1));
        Ok(self.store.truncate_from(from).await?)
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        Ok(self.store.purge_to(position(&to)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use fulmar_host::task::block_on;
    use fulmar_store::EntryKind;
    use fulmar_types::{LogPosition, Term};

    #[test]
    fn nothing_is_what_a_deposed_leader_gets_of_entries_that_went() {
        block_on(async {
            let bench = Bench::new("deposed");
            let store = bench.store().await;
            let at = |index| LogPosition { term: Term(1), index: LogIndex(index) };
            let blank = |index| LogEntry {
                position: at(index),
                kind: EntryKind::Blank,
                claim: 0,
                payload: bytes::Bytes::new(),
            };
            store.append((0..8).map(blank).collect(), Box::new(|_| {})).await.expect("works");
            let mut log = LogStore::new(store.clone());
            store.truncate_from(LogIndex(5)).await.expect("works");
            store.purge_to(at(1)).await.expect("works");
            let mut read = async |start, end| {
                let read = log.limited_get_log_entries(start, end).await.expect("no error");
                read.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>()
            };
            assert_eq!(read(5, 8).await, []);
            assert_eq!(read(3, 8).await, [3, 4]);
            assert_eq!(read(1, 4).await, []);
            assert_eq!(read(2, 4).await, [2, 3]);
        });
    }
}

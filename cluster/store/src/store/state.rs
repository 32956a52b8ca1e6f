//! What the state machine says and asks: what came of entries, batches of streams, snapshots, and
//! what is no longer needed.

use super::Store;
use crate::error::{Failure, Poisoned};
use crate::footer::{EntryPlace, FooterBuilder};
use crate::gc;
use crate::read::StoredBatch;
use crate::row::{Row, StreamId};
use crate::snapshot::Snapshot;
use crate::space::release;
use crate::writer::Job;
use bytes::Bytes;
use fulmar_types::{LogIndex, Offset, Probe};
use std::ops::Range;

impl Store {
    /// Notes what came of an entry. Called for every entry in order; what is applied again below
    /// the sealed part is ignored.
    ///
    /// # Panics
    /// If an entry is left out, or its rows belong to another one.
    pub fn applied(&self, index: LogIndex, outcome: &Bytes, rows: &[Row]) {
        let is_closed = {
            let mut core = self.inner.core();
            let core = &mut *core;
            core.applied = Some(index);
            let segment = core.log().segment_of(index).map(|segment| segment.header.base);
            let Some(base) = segment else { return };
            let meta = *core.log().meta(index).expect("an entry that was applied is in the log");
            let footer = core.footers.entry(base).or_insert_with(|| FooterBuilder::new(base));
            let place = EntryPlace { index, term: meta.term, position: meta.at() };
            footer.push(place, outcome, rows);
            core.index.append(base, rows);
            core.committed_below = core.committed_below.max(index.next());
            core.log().segments().len() > 1
        };
        if is_closed {
            self.inner.seal_due.notify_one();
        }
    }

    /// Entries below this index are known to be committed; right after the start from the log
    /// itself, whose entries say how far their leader had applied.
    pub fn committed_below(&self) -> LogIndex {
        self.inner.core().committed_below
    }

    /// The last entry that was applied since the store was opened.
    pub fn last_applied(&self) -> Option<LogIndex> {
        self.inner.core().applied
    }

    /// Batches of a stream from the one that holds the first offset on, as long as they end at or
    /// below the last one and within `max_bytes` together. The first one is given whatever its
    /// size.
    ///
    /// # Errors
    /// If the store is closed, also because a batch is damaged: it is never served.
    pub async fn read_stream(
        &self,
        stream: StreamId,
        offsets: Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<StoredBatch>, Poisoned> {
        self.inner.read_stream(stream, offsets, max_bytes).await
    }

    /// The row that holds an offset, or the next one.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn row_at(&self, stream: StreamId, offset: Offset) -> Result<Option<Row>, Poisoned> {
        self.inner.ask(|index| index.lookup(stream, offset)).await
    }

    /// The first row whose largest timestamp is at least this, for ListOffsets.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn row_by_timestamp(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> Result<Option<Row>, Poisoned> {
        self.inner.ask(|index| index.by_timestamp(stream, timestamp_ms)).await
    }

    /// The offset after the last record of a stream, `None` if it has nothing to read.
    pub fn stream_end(&self, stream: StreamId) -> Option<Offset> {
        self.inner.core().index.end(stream)
    }

    /// Moves the start of a stream: what lies below is never read again.
    pub fn advance_start(&self, stream: StreamId, start: Offset) {
        self.inner.core().index.advance_start(stream, start);
    }

    /// Forgets a stream, whose topic was deleted.
    pub fn drop_stream(&self, stream: StreamId) {
        self.inner.core().index.drop_stream(stream);
    }

    /// Forgets the streams that are not wanted: after opening and after an installation, when the
    /// footers still name those that were dropped before. It must want every stream that the
    /// snapshot does not know yet.
    pub fn retain_streams(&self, keep: impl FnMut(StreamId) -> bool) {
        self.inner.core().index.retain_streams(keep);
    }

    /// Removes the sealed segments in which nothing is left to read, below the floor and below
    /// every snapshot that is kept. Returns how many.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn collect_garbage(&self) -> Result<usize, Poisoned> {
        let oldest = self.inner.snapshots.lock().await.oldest();
        let removal = gc::removable(&*self.inner.usable()?, oldest);
        let count = removal.bases.len();
        if count > 0 {
            self.wait(|done| Job::Remove { removal, done }).await?;
        }
        Ok(count)
    }

    /// Saves a snapshot of the state after the last entry of a segment. First the segment is
    /// sealed, because afterwards nobody could say any more what came of its entries. Durable on
    /// return; `false` if it was left out because the disk is full.
    ///
    /// # Errors
    /// If the store is closed.
    ///
    /// # Panics
    /// If the snapshot does not end where a segment ends, or its entries were not applied.
    pub async fn save_snapshot(&self, snapshot: Snapshot) -> Result<bool, Poisoned> {
        let next = snapshot.last.index.next();
        {
            let mut core = self.inner.usable()?;
            let ends = core.log().position(snapshot.last.index);
            let is_first =
                core.log().segments().contains_key(&next) || core.sealed.contains_key(&next);
            assert!(is_first, "a snapshot at {} does not end a segment", snapshot.last);
            assert!(ends.is_none_or(|p| p == snapshot.last), "{} is another entry", snapshot.last);
            assert!(core.committed_below >= next, "{} was not applied", snapshot.last);
            // Whoever takes it is about to apply the next entry, which is committed therefore.
            core.committed_below = core.committed_below.max(next.next());
        }
        self.inner.seal_due.notify_one();
        loop {
            let progress = self.inner.progress.notified();
            if self.inner.usable()?.log().head().header.base >= next {
                break;
            }
            progress.await;
        }
        self.save_or_leave_out(snapshot).await.map_err(|failure| {
            self.inner.fail(&failure, Vec::new());
            Poisoned
        })
    }

    /// Saves a snapshot, if need be with a part of the ballast.
    async fn save_or_leave_out(&self, snapshot: Snapshot) -> Result<bool, Failure> {
        let inner = &self.inner;
        let ballast = (snapshot.encoded_len(), inner.settings.ballast_kept_bytes());
        let mut snapshots = inner.snapshots.lock().await;
        loop {
            if snapshots.save(&inner.host, snapshot.clone()).await? {
                return Ok(true);
            }
            if !release(inner.host.disk.as_ref(), &inner.ballast, ballast).await? {
                inner.host.probe(Probe::SnapshotLeftOut);
                return Ok(false);
            }
            inner.ballast_released();
        }
    }

    /// The newest good snapshot.
    pub async fn latest_snapshot(&self) -> Option<Snapshot> {
        self.inner.snapshots.lock().await.latest().cloned()
    }
}

//! The log as consensus sees it: append, take back, read.

use super::Store;
use crate::core::{Core, FlushCallback, QUEUE_BYTES_MAX};
use crate::error::{Poisoned, ReadError};
use crate::format::frame::{FRAME_HEADER_BYTES, LogEntry, frame_bytes, padding};
use crate::writer::{Job, RUN_TARGET_BYTES, Run};
use bytes::BytesMut;
use fulmar_types::{Event, LogIndex, LogPosition};
use std::ops::Range;
use tokio::sync::oneshot;

impl Store {
    /// Adds entries to the log. They can be read when this returns. `flushed` is called once: after
    /// they are flushed, or with an error if they never will be. Everything that arrives during a
    /// flush shares the next one. Waits while too much waits for the disk.
    ///
    /// # Errors
    /// If the store is closed; `flushed` was called with an error too.
    ///
    /// # Panics
    /// If the entries leave a gap, or their terms fall, or one is too large for a segment.
    pub async fn append(
        &self,
        entries: Vec<LogEntry>,
        flushed: FlushCallback,
    ) -> Result<(), Poisoned> {
        loop {
            let room = self.inner.room.notified();
            match self.inner.usable() {
                Err(poisoned) => {
                    flushed(Err(poisoned.into()));
                    return Err(poisoned);
                }
                Ok(core) if core.queue_bytes < QUEUE_BYTES_MAX => break,
                Ok(_) => {}
            }
            room.await;
        }
        if entries.is_empty() {
            flushed(Ok(()));
            return Ok(());
        }
        let (events, depth) = {
            let mut core = self.inner.core();
            assert!(!core.installing, "nothing is appended while a snapshot is taken over");
            let (runs, events) = place(&mut core, entries, flushed);
            for run in runs {
                core.queue_bytes += run.bytes;
                core.queue.push_back(Job::Run(run));
            }
            (events, core.queue_bytes)
        };
        for event in events {
            self.inner.host.report(event);
        }
        // One append may go beyond the bound, but none is admitted above it.
        let bound = 2 * QUEUE_BYTES_MAX;
        self.inner.host.report(Event::QueueDepth { queue: "store", depth, bound });
        self.inner.work.notify_one();
        Ok(())
    }

    /// Takes back the entries from `from` on. They can no longer be read when this is called, and
    /// never will be when it returns.
    ///
    /// # Errors
    /// If the store is closed.
    ///
    /// # Panics
    /// If one of them was applied, or lies in a sealed segment.
    pub async fn truncate_from(&self, from: LogIndex) -> Result<(), Poisoned> {
        let (done, answer) = oneshot::channel();
        {
            let mut core = self.inner.usable()?;
            assert!(!core.installing, "nothing is cut while a snapshot is taken over");
            let committed = core.committed_below;
            assert!(from >= committed, "cut at {from}, entries below {committed} are committed");
            let Some(cut) = core.log_mut().truncate(from) else { return Ok(()) };
            core.cache.truncate(from);
            core.epoch += 1;
            core.cutting.push_back(from);
            if core.flushed.is_some_and(|flushed| flushed.index >= from) {
                core.flushed = core.last();
            }
            core.queue.push_back(Job::Cut { cut, done });
        }
        self.inner.work.notify_one();
        answer.await.map_err(|_| Poisoned)
    }

    /// Moves the Raft floor up to `to`, an entry of the log. Deletes nothing; see
    /// [`Store::collect_garbage`]. Durable on return.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn purge_to(&self, to: LogPosition) -> Result<(), Poisoned> {
        {
            let mut core = self.inner.usable()?;
            if core.floor.is_some_and(|floor| floor.index >= to.index) {
                return Ok(());
            }
            assert!(
                core.last().is_some_and(|last| last.index >= to.index),
                "{to} is not in the log"
            );
            core.floor = Some(to);
        }
        self.wait(|done| Job::Floor { to, done }).await
    }

    /// Reads entries from `range`, at least one if it is not empty, until `max_bytes` of payload
    /// or the end of the log. From memory where they are recent, else from the file, verified.
    ///
    /// # Errors
    /// If the range begins below the floor or behind the end, or the store is closed.
    pub async fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, ReadError> {
        self.inner.entries(range, max_bytes).await
    }

    /// The last entry below the Raft floor.
    pub fn floor(&self) -> Option<LogPosition> {
        self.inner.core().floor
    }

    /// The last entry of the log, flushed or not.
    pub fn last(&self) -> Option<LogPosition> {
        self.inner.core().last()
    }

    /// The last entry up to which everything is flushed.
    pub fn flushed(&self) -> Option<LogPosition> {
        self.inner.core().flushed
    }

    /// Waits until more than `after` is flushed, and says how much.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn flush_progress(
        &self,
        after: Option<LogPosition>,
    ) -> Result<LogPosition, Poisoned> {
        loop {
            let progress = self.inner.progress.notified();
            let flushed = self.inner.usable()?.flushed;
            match flushed {
                Some(flushed) if Some(flushed.index) > after.map(|p| p.index) => {
                    return Ok(flushed);
                }
                _ => progress.await,
            }
        }
    }

    /// Whether an entry is the first one of its segment: before it is applied, a snapshot of the
    /// state goes with the seal of the segment before.
    pub fn is_segment_first(&self, index: LogIndex) -> bool {
        let core = self.inner.core();
        let is_open = core.log.as_ref().is_some_and(|log| log.segments().contains_key(&index));
        is_open || core.sealed.contains_key(&index)
    }
}

/// Puts entries into the log in memory and into runs for the writer. One buffer holds the headers
/// of all of them; payloads are not copied.
fn place(
    core: &mut Core,
    entries: Vec<LogEntry>,
    flushed: FlushCallback,
) -> (Vec<Run>, Vec<Event>) {
    let mut headers = BytesMut::with_capacity(entries.len() * FRAME_HEADER_BYTES);
    let mut runs: Vec<Run> = Vec::new();
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        let placed = core.log_mut().append(&entry);
        placed.frame.encode(&mut headers);
        let len = entry.payload.len();
        let (position, content) = (entry.position, placed.frame.content);
        events.push(Event::Appended { position, content });
        let joins =
            placed.starts.is_none() && runs.last().is_some_and(|run| run.bytes < RUN_TARGET_BYTES);
        if !joins {
            runs.push(Run {
                starts: placed.starts,
                base: placed.frame.base,
                at: placed.at,
                before: placed.before,
                pieces: Vec::new(),
                bytes: 0,
                entries: 0,
                last: position,
                flushed: None,
            });
        }
        let run = runs.last_mut().expect("one was pushed");
        run.pieces.push(headers.split().freeze());
        if len > 0 {
            run.pieces.push(entry.payload.clone());
        }
        run.pieces.push(padding(len));
        run.bytes += frame_bytes(len);
        run.entries += 1;
        run.last = position;
        core.remember(entry);
    }
    if let Some(last) = runs.last_mut() {
        last.flushed = Some(flushed);
    }
    (runs, events)
}

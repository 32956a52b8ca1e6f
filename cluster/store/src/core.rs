//! The state that the store's tasks share.
//!
//! Invariants: the lock is never held across an await, nor while somebody else's code runs (a
//! callback, an observer). What a caller sees here (the end of the log, the entries) is ahead of
//! the disk; `flushed` says how far the disk is, and never names an entry that was taken back.
//!
//! Never: go on after [`Inner::fail`]. It closes the store for good.

use crate::cache::EntryCache;
use crate::error::{DiskError, Failure, Poisoned};
use crate::figures::FlushTimes;
use crate::files::replace;
use crate::footer::FooterBuilder;
use crate::format::frame::LogEntry;
use crate::format::identity::Identity;
use crate::format::manifest::SealedInfo;
use crate::format::vote::SavedVote;
use crate::handles::Handles;
use crate::incoming::Incoming;
use crate::index::Index;
use crate::log::OpenLog;
use crate::paths::Paths;
use crate::recovery::SealedSegment;
use crate::snapshot::Snapshots;
use crate::space::{Ballast, Space, with_ballast};
use crate::spare::Spares;
use crate::store::StoreSettings;
use crate::writer::{Job, Run};
use fulmar_host::Host;
use fulmar_host::disk::File;
use fulmar_types::{Event, LogIndex, LogPosition};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Called once when the entries of an append are flushed, or never will be.
pub type FlushCallback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Bytes of entries that wait for a flush before `append` waits too.
pub(crate) const QUEUE_BYTES_MAX: u64 = 32 << 20;

/// The state under the lock.
pub(crate) struct Core {
    pub poisoned: bool,
    pub identity: Option<Identity>,
    pub vote: Option<SavedVote>,
    /// `None` until the node is initialised.
    pub log: Option<OpenLog>,
    pub cache: EntryCache,
    pub floor: Option<LogPosition>,
    pub flushed: Option<LogPosition>,
    pub sealed: BTreeMap<LogIndex, SealedSegment>,
    /// The files of the open segments that are on disk.
    pub files: BTreeMap<LogIndex, Arc<dyn File>>,
    /// The newest segment that is on disk.
    pub rolled: Option<LogIndex>,
    pub queue: VecDeque<Job>,
    /// Bytes of appends that are not flushed yet.
    pub queue_bytes: u64,
    /// Where the log is to be cut, for the cuts that the disk has not done yet.
    pub cutting: VecDeque<LogIndex>,
    /// Counts what takes bytes away from readers: cuts, removals, installations.
    pub epoch: u64,
    pub index: Index,
    /// The last entry that was applied.
    pub applied: Option<LogIndex>,
    /// Entries below this index are committed, as far as apply, snapshots and, at the start, the log
    /// itself have said.
    pub committed_below: LogIndex,
    /// The footers of the open segments, as far as their entries were applied.
    pub footers: BTreeMap<LogIndex, FooterBuilder>,
    pub spares: Spares,
    pub space: Space,
    /// A snapshot is being taken over: nothing else may change the log.
    pub installing: bool,
    /// Snapshots that may be taken over any moment: what they count on stays.
    pub prepared: usize,
    /// Segments on their way from a peer.
    pub incoming: BTreeMap<LogIndex, Incoming>,
}

/// What the store and its tasks share.
pub(crate) struct Inner {
    pub host: Host,
    pub paths: Paths,
    pub settings: StoreSettings,
    core: Mutex<Core>,
    /// Wakes the task that writes.
    pub work: Notify,
    /// Wakes whoever waits for flushes, seals and for the end of the store.
    pub progress: Notify,
    /// Wakes whoever waits to append.
    pub room: Notify,
    /// Wakes the task that keeps spares ready.
    pub spare_taken: Notify,
    /// Wakes whoever waits for room on the disk.
    pub space_changed: Notify,
    /// Wakes the task that seals.
    pub seal_due: Notify,
    pub snapshots: tokio::sync::Mutex<Snapshots>,
    /// Held while a segment is sealed and while a snapshot is taken over: the one writes to a file
    /// that the other may make a spare.
    pub sealing: tokio::sync::Mutex<()>,
    /// Held by whoever changes a segment on its way from a peer, or what is remembered of it: an
    /// earlier transfer may still be at it. Taken after `sealing`, never before.
    pub staging: tokio::sync::Mutex<()>,
    pub handles: Handles,
    pub ballast: Ballast,
    pub flush_times: FlushTimes,
}

/// What [`Inner::new`] is made of.
pub(crate) struct Parts {
    pub host: Host,
    pub paths: Paths,
    pub settings: StoreSettings,
    pub core: Core,
    pub snapshots: Snapshots,
}

impl Inner {
    /// Replaces a small file as a whole, if need be with a part of the ballast.
    pub async fn replace_with_ballast(&self, path: &Path, bytes: Vec<u8>) -> Result<(), DiskError> {
        let disk = self.host.disk.as_ref();
        let len = bytes.len() as u64;
        let work = || replace(disk, path, bytes.clone());
        let ((), given_up) = with_ballast(disk, &self.ballast, len, work).await?;
        if given_up {
            self.ballast_released();
        }
        Ok(())
    }

    /// Less ballast is there than is remembered: whoever keeps it is to look.
    pub fn ballast_released(&self) {
        self.core().space.ballast_bytes = 0;
        self.spare_taken.notify_one();
    }

    pub fn new(parts: Parts) -> Self {
        Self {
            host: parts.host,
            ballast: Ballast::new(&parts.paths),
            paths: parts.paths,
            settings: parts.settings,
            core: Mutex::new(parts.core),
            work: Notify::new(),
            progress: Notify::new(),
            room: Notify::new(),
            spare_taken: Notify::new(),
            space_changed: Notify::new(),
            seal_due: Notify::new(),
            snapshots: tokio::sync::Mutex::new(parts.snapshots),
            sealing: tokio::sync::Mutex::new(()),
            staging: tokio::sync::Mutex::new(()),
            handles: Handles::default(),
            flush_times: FlushTimes::default(),
        }
    }

    /// The shared state, whatever happened to the store.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        // A panic ends the process in production; in a test the state is still worth looking at.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared state of a store that works.
    pub fn usable(&self) -> Result<MutexGuard<'_, Core>, Poisoned> {
        let core = self.core();
        if core.poisoned { Err(Poisoned) } else { Ok(core) }
    }

    /// Puts a job behind everything that was asked for before.
    pub fn enqueue(&self, job: Job) -> Result<(), Poisoned> {
        self.usable()?.queue.push_back(job);
        self.work.notify_one();
        Ok(())
    }

    /// Closes the store for good and ends the process. `waiting` are callbacks that are no longer
    /// in the queue.
    pub fn fail(&self, failure: &Failure, waiting: Vec<FlushCallback>) {
        let (first, jobs) = {
            let mut core = self.core();
            let first = !std::mem::replace(&mut core.poisoned, true);
            (first, std::mem::take(&mut core.queue))
        };
        if first {
            let (code, message) = (failure.exit_code(), failure.to_string());
            // The process ends before anybody is answered, so nothing leaves it any more; this is
            // what `Host::fatal` does, without waiting for ever in a task that must answer below.
            self.host.report(Event::Fatal { code, message: message.clone() });
            self.host.process.exit(code, &message);
        }
        let queued = jobs.into_iter().filter_map(|job| match job {
            Job::Run(Run { flushed, .. }) => flushed,
            // The other jobs answer by dropping their senders.
            _ => None,
        });
        for callback in waiting.into_iter().chain(queued) {
            callback(Err(Poisoned.into()));
        }
        let waiting =
            [&self.progress, &self.room, &self.spare_taken, &self.space_changed, &self.seal_due];
        for notify in waiting {
            notify.notify_waiters();
        }
        self.work.notify_one();
    }
}

impl Core {
    /// The log of a node that is initialised.
    ///
    /// # Panics
    /// Before that: nobody may append, vote or apply then.
    pub fn log(&self) -> &OpenLog {
        self.log.as_ref().expect("the store was initialised before it is used")
    }

    pub fn log_mut(&mut self) -> &mut OpenLog {
        self.log.as_mut().expect("the store was initialised before it is used")
    }

    /// The last entry of the log, or of what was installed.
    pub fn last(&self) -> Option<LogPosition> {
        self.log.as_ref().and_then(OpenLog::last)
    }

    /// Lets go of old entries once everything up to `last` is on disk. What was appended anew at
    /// these indexes since then is above `flushed`.
    pub fn evict(&mut self, last: LogPosition) {
        let flushed = self.flushed.map_or(LogIndex(0), |p| p.index.next());
        self.cache.evict(flushed.min(last.index.next()));
    }

    /// Notes that everything up to `last` is flushed, as far as it was not taken back meanwhile.
    pub fn note_flushed(&mut self, last: LogPosition) {
        let cut = self.cutting.iter().min().copied();
        let reached = match cut {
            Some(LogIndex(0)) => None,
            Some(cut) if cut <= last.index => self.log().position(LogIndex(cut.0 - 1)),
            _ => Some(last),
        };
        if reached.map(|p| p.index) > self.flushed.map(|p| p.index) {
            self.flushed = reached;
        }
    }

    /// Adds an entry to the log in memory.
    pub fn remember(&mut self, entry: LogEntry) {
        self.cache.push(entry);
    }

    /// Every sealed segment, in ascending order.
    pub fn sealed_infos(&self) -> Vec<SealedInfo> {
        self.sealed.values().map(|segment| segment.info).collect()
    }
}

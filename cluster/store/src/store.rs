//! The store of a node: what consensus and broker see of it.
//!
//! Invariants: [`Store::append`] returns when the entries can be read, and calls back when they are
//! flushed; everything that changes the disk goes through one queue in the order in which it was
//! asked; whoever asks after an error is told that the store is closed.
//!
//! Never: acknowledge anything here before the disk did.

use crate::cache::EntryCache;
use crate::core::{Core, FlushCallback, Inner, Parts, QUEUE_BYTES_MAX};
use crate::error::{DiskError, Failure, IncomingError, OpenError, Poisoned, ReadError};
use crate::footer::{EntryPlace, FooterBuilder};
use crate::format::frame::{FRAME_HEADER_BYTES, LogEntry, frame_bytes, padding};
use crate::format::identity::Identity;
use crate::format::manifest::SealedInfo;
use crate::format::vote::SavedVote;
use crate::install::{self, Installation};
use crate::paths::Paths;
use crate::read::StoredBatch;
use crate::recovery::{self, FoundNode, open_sealed};
use crate::row::{Row, StreamId};
use crate::snapshot::Snapshot;
use crate::spare::{self, Spares};
use crate::writer::{self, Job, RUN_TARGET_BYTES, Run, Writer};
use crate::{gc, seal};
use bytes::{Bytes, BytesMut};
use fulmar_host::Host;
use fulmar_host::disk::{DirectoryLock, Open};
use fulmar_host::task::{Owned, spawn_owned};
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Offset, Probe};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where everything of the node lies.
    pub directory: PathBuf,
    /// The node, checked against the identity of the directory.
    pub node: NodeId,
    /// The size of a segment, checked likewise.
    pub segment_bytes: u64,
    /// Files kept ready for the next segments.
    pub spare_segments: u32,
    /// Recent entries kept in memory, in bytes.
    pub entry_cache_bytes: usize,
}

/// What was found when a store was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last entry of the log.
    pub last: Option<LogPosition>,
    /// Bytes of a torn group that were cut off behind it.
    pub cut_bytes: u64,
    /// Which node this is; `None` for an empty directory.
    pub identity: Option<Identity>,
    /// What it voted last.
    pub vote: Option<SavedVote>,
    /// The newest good snapshot: the state begins there, and the entries behind it are applied
    /// again.
    pub snapshot: Option<Snapshot>,
    /// The first entry above the floor.
    pub first_index: LogIndex,
}

/// The bytes of a node at rest. Dropping it stops its tasks where they are, as a crash would; see
/// [`Store::close`].
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    _tasks: [Owned<()>; 3],
    /// Keeps other processes out. Dropped after the tasks were stopped.
    _lock: Box<dyn DirectoryLock>,
}

impl Store {
    /// Opens the store of a directory, which is created if it is not there. It needs a runtime.
    ///
    /// # Errors
    /// If another process has the directory, it belongs to another node, the disk fails, or bytes
    /// are damaged where they may have been acknowledged. Nothing was deleted then; the caller ends
    /// the process with [`OpenError::exit_code`].
    pub async fn open(
        host: Host,
        settings: StoreSettings,
    ) -> Result<(Arc<Self>, Recovered), OpenError> {
        let paths = Paths::new(&settings.directory);
        let lock = lock(&host, &paths).await?;
        let found = recovery::recover(&host, &paths, &settings).await?;
        let disk = host.disk.clone();
        let vote_file = match &found.node {
            Some(_) => {
                let path = paths.vote();
                let file = disk.open(&path, Open::Existing).await;
                Some(file.map_err(DiskError::with("open", &path))?)
            }
            None => None,
        };
        let snapshot = found.snapshots.latest().cloned();
        let covered = snapshot.as_ref().map(|snapshot| snapshot.last);
        let cut_bytes = found.node.as_ref().map_or(0, |node| node.cut_bytes);
        let (core, mut writer) = assemble(&settings, found.node, found.spares, covered);
        writer.vote = vote_file;
        let recovered = Recovered {
            last: core.last(),
            cut_bytes,
            identity: core.identity,
            vote: core.vote,
            snapshot,
            first_index: core.floor.map_or(LogIndex(0), |floor| floor.index.next()),
        };
        report_recovered(&host, &settings, &recovered);
        let parts = Parts { host, paths, settings, core, snapshots: found.snapshots };
        let inner = Arc::new(Inner::new(parts));
        let tasks = [
            spawn_owned(writer::run(writer.start(inner.clone()))),
            spawn_owned(spare::run(inner.clone())),
            spawn_owned(seal::run(inner.clone())),
        ];
        Ok((Arc::new(Self { inner, _tasks: tasks, _lock: lock }), recovered))
    }

    async fn wait(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) -> Result<(), Poisoned> {
        let (done, answer) = oneshot::channel();
        self.inner.enqueue(job(done))?;
        answer.await.map_err(|_| Poisoned)
    }

    /// Which node this is, once it is initialised.
    pub fn identity(&self) -> Option<Identity> {
        self.inner.core().identity
    }

    /// What was voted last.
    pub fn vote(&self) -> Option<SavedVote> {
        self.inner.core().vote
    }

    /// Makes an empty directory a node's: writes the first segment and, last, the identity.
    /// Durable on return.
    ///
    /// # Errors
    /// If the store is closed.
    ///
    /// # Panics
    /// If it is another node or segment size than the store was opened with, or the directory
    /// already has an identity.
    pub async fn initialise(&self, identity: Identity) -> Result<(), Poisoned> {
        assert_eq!(self.identity(), None, "a directory is initialised once");
        assert_eq!(identity.node, self.inner.settings.node, "opened for another node");
        let segment_bytes = self.inner.settings.segment_bytes;
        assert_eq!(identity.segment_bytes, segment_bytes, "opened for another segment size");
        self.wait(|done| Job::Initialise { identity, done }).await
    }

    /// Replaces the identity, to note that the node takes part with a vote now. Durable on return.
    ///
    /// # Errors
    /// If the store is closed.
    ///
    /// # Panics
    /// If anything else of the identity changes but that note.
    pub async fn save_identity(&self, identity: Identity) -> Result<(), Poisoned> {
        let same =
            |own: Identity| Identity { initialised: identity.initialised, ..own } == identity;
        assert!(self.identity().is_some_and(same), "an identity does not change: {identity:?}");
        self.wait(|done| Job::Identity { identity, done }).await
    }

    /// Saves a vote. Durable on return, and ordered with appends and truncations.
    ///
    /// # Errors
    /// If the store is closed; whether the vote will be there after a restart is unknown then.
    ///
    /// # Panics
    /// If the vote regresses.
    pub async fn save_vote(&self, vote: SavedVote) -> Result<(), Poisoned> {
        if let Some(before) = self.vote() {
            assert!(vote.term >= before.term, "{vote:?} goes back behind {before:?}");
        }
        self.wait(|done| Job::Vote { vote, done }).await
    }

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

    /// Notes what came of an entry. Called for every entry in order; what is applied again below
    /// the sealed part is ignored.
    ///
    /// # Panics
    /// If an entry is left out, or its rows belong to another one.
    pub fn applied(&self, index: LogIndex, outcome: &Bytes, rows: &[Row]) {
        {
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
        }
        self.inner.seal_due.notify_one();
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
    /// return.
    ///
    /// # Errors
    /// If the store is closed.
    ///
    /// # Panics
    /// If the snapshot does not end where a segment ends, or its entries were not applied.
    pub async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), Poisoned> {
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
        let mut snapshots = self.inner.snapshots.lock().await;
        let saved = snapshots.save(&self.inner.host, snapshot).await;
        saved.map_err(|error| {
            self.inner.fail(&Failure::from(error), Vec::new());
            Poisoned
        })
    }

    /// The newest good snapshot.
    pub async fn latest_snapshot(&self) -> Option<Snapshot> {
        self.inner.snapshots.lock().await.latest().cloned()
    }

    /// Every sealed segment that is kept, in order.
    pub fn sealed(&self) -> Vec<SealedInfo> {
        self.inner.core().sealed_infos()
    }

    /// Bytes of a sealed segment, for a peer. Fewer than `len` only at the end of the file; `None`
    /// if the segment is not there any more.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn read_sealed_chunk(
        &self,
        base: LogIndex,
        at: u64,
        len: usize,
    ) -> Result<Option<Bytes>, Poisoned> {
        self.inner.read_sealed_chunk(base, at, len).await
    }

    /// Begins a segment that comes from a peer, or goes on with it. Returns where the next chunk
    /// goes: at the end of the file it is there already.
    ///
    /// # Errors
    /// If the segment cannot be one, or the store is closed.
    pub async fn begin_incoming(&self, info: SealedInfo) -> Result<u64, IncomingError> {
        self.inner.begin_incoming(info).await
    }

    /// Writes the next chunk of a segment that comes from a peer.
    ///
    /// # Errors
    /// If it was not begun, the chunk is not the next one, or the store is closed.
    pub async fn write_incoming(
        &self,
        base: LogIndex,
        at: u64,
        bytes: Bytes,
    ) -> Result<(), IncomingError> {
        self.inner.write_incoming(base, at, bytes).await
    }

    /// Verifies a segment that has arrived whole: hash, every frame, footer and trailer.
    ///
    /// # Errors
    /// If it is not what it should be (it begins anew then), or the store is closed.
    pub async fn finish_incoming(&self, base: LogIndex) -> Result<(), IncomingError> {
        self.inner.finish_incoming(base).await
    }

    /// Replaces everything up to the end of a snapshot by the segments of a peer, those that came
    /// in and those that are here already; `segments` are all that the peer keeps up to there. The
    /// log goes on behind the snapshot: with the local entries if they agree with it, else empty.
    /// A crash leaves the old state or the new one. Durable on return.
    ///
    /// # Errors
    /// If a segment is missing or they do not belong together (nothing has changed then), or the
    /// store is closed.
    pub async fn install(
        &self,
        snapshot: Snapshot,
        segments: Vec<SealedInfo>,
    ) -> Result<(), IncomingError> {
        let last = snapshot.last;
        let installation = self.gather(last, segments).await?;
        let staged = install::stage_snapshot(&self.inner, &snapshot).await;
        if let Err(error) = staged {
            self.inner.fail(&Failure::Disk(error), Vec::new());
            return Err(Poisoned.into());
        }
        self.inner.usable()?.installing = true;
        let installation = Box::new(installation);
        self.wait(|done| Job::Install { installation, done }).await?;
        self.inner.usable()?.incoming.clear();
        Ok(())
    }

    /// Finds the segments of an installation, here or among those that came in.
    async fn gather(
        &self,
        last: LogPosition,
        infos: Vec<SealedInfo>,
    ) -> Result<Installation, IncomingError> {
        let mut segments = Vec::with_capacity(infos.len());
        let mut moved = 0;
        for info in infos {
            let local = self.inner.usable()?.sealed.get(&info.base).cloned();
            if let Some(segment) = local.filter(|segment| segment.info == info) {
                segments.push(segment);
                continue;
            }
            let came = self.inner.usable()?.incoming.get(&info.base).cloned();
            if !came.is_some_and(|incoming| incoming.finished && incoming.info == info) {
                let what = format!("segment {} is not here", info.base);
                return Err(IncomingError::Incomplete(what));
            }
            let path = self.inner.paths.incoming_segment(info.base);
            let opened = async {
                let disk = self.inner.host.disk.as_ref();
                let file = disk.open(&path, Open::Existing).await;
                let file = file.map_err(DiskError::with("open", &path))?;
                open_sealed(file.as_ref(), &path, &info).await
            };
            match opened.await {
                Ok(segment) => segments.push(segment),
                Err(failure) => {
                    self.inner.fail(&failure, Vec::new());
                    return Err(Poisoned.into());
                }
            }
            moved += 1;
        }
        install::check(last, &segments)?;
        Ok(Installation { snapshot: last, segments, moved })
    }

    /// Bytes that appends can take before the disk must give more: what is left of the last
    /// segment, and the spares. The broker stops taking records before it is used up.
    pub fn ready_bytes(&self) -> u64 {
        let core = self.inner.core();
        let Some(log) = &core.log else { return 0 };
        let left = self.inner.settings.segment_bytes.saturating_sub(log.tail().end());
        left + core.spares.ready() as u64 * self.inner.settings.segment_bytes
    }

    /// Bytes that are free on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub async fn free_bytes(&self) -> io::Result<u64> {
        self.inner.host.disk.free_bytes(&self.inner.paths.root).await
    }

    /// Waits until everything that was asked for is on disk.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn close(&self) -> Result<(), Poisoned> {
        self.wait(|done| Job::Barrier { done }).await
    }
}

async fn lock(host: &Host, paths: &Paths) -> Result<Box<dyn DirectoryLock>, OpenError> {
    let root = &paths.root;
    host.disk.create_dir(root).await.map_err(DiskError::with("create", root))?;
    match host.disk.lock(root).await {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::Locked(root.clone()))
        }
        locked => Ok(locked.map_err(DiskError::with("lock", root))?),
    }
}

fn report_recovered(host: &Host, settings: &StoreSettings, recovered: &Recovered) {
    let Recovered { last, cut_bytes, .. } = *recovered;
    host.report(Event::Recovered { last, cut_bytes });
    let led = recovered.vote.is_some_and(|vote| vote.committed && vote.voted_for == settings.node);
    if led && cut_bytes > 0 {
        host.probe(Probe::LeaderUnflushedTailLost);
    }
}

/// What the writer is made of before the shared state exists.
#[derive(Default)]
struct Unstarted {
    files: BTreeMap<LogIndex, writer::OpenFile>,
    vote: Option<Arc<dyn fulmar_host::disk::File>>,
    vote_generation: u64,
    manifest: crate::format::manifest::Manifest,
}

impl Unstarted {
    fn start(self, inner: Arc<Inner>) -> Writer {
        let Self { files, vote, vote_generation, manifest } = self;
        Writer { inner, files, vote, vote_generation, manifest }
    }
}

/// The state in memory that belongs to what was found on disk.
fn assemble(
    settings: &StoreSettings,
    node: Option<FoundNode>,
    spares: Vec<u64>,
    covered: Option<LogPosition>,
) -> (Core, Unstarted) {
    let mut core = Core {
        poisoned: false,
        identity: None,
        vote: None,
        log: None,
        cache: EntryCache::new(settings.entry_cache_bytes),
        floor: None,
        flushed: None,
        sealed: BTreeMap::new(),
        files: BTreeMap::new(),
        rolled: None,
        queue: VecDeque::new(),
        queue_bytes: 0,
        cutting: VecDeque::new(),
        epoch: 0,
        index: install::index_of(std::iter::empty()),
        applied: None,
        committed_below: covered.map_or(LogIndex(0), |last| last.index.next()),
        footers: BTreeMap::new(),
        spares: Spares::found(spares),
        installing: false,
        incoming: BTreeMap::new(),
    };
    let Some(node) = node else { return (core, Unstarted::default()) };
    core.identity = Some(node.identity);
    core.vote = node.vote.vote;
    core.floor = node.manifest.floor;
    core.flushed = node.log.last();
    core.files = node.files.iter().map(|(base, open)| (*base, open.file.clone())).collect();
    core.rolled = core.files.keys().next_back().copied();
    core.index = install::index_of(node.sealed.iter().map(|segment| &segment.summary));
    core.sealed = node.sealed.into_iter().map(|s| (s.info.base, s)).collect();
    // What is sealed was committed, whether a snapshot covers it or not.
    core.committed_below = core.committed_below.max(node.log.head().header.base);
    core.log = Some(node.log);
    let writer = Unstarted {
        files: node.files,
        vote: None,
        vote_generation: node.vote.generation,
        manifest: node.manifest,
    };
    (core, writer)
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

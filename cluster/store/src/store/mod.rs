//! The store of a node: what consensus and broker see of it.
//!
//! Invariants: [`Store::append`] returns when the entries can be read, and calls back when they are
//! flushed; everything that changes the disk goes through one queue in the order in which it was
//! asked; whoever asks after an error is told that the store is closed.
//!
//! Never: acknowledge anything here before the disk did.

mod log;
mod ship;
mod state;

pub use ship::Prepared;

use crate::cache::EntryCache;
use crate::core::{Core, Inner, Parts};
use crate::error::{DiskError, OpenError, Poisoned};
use crate::files::open_if_there;
use crate::format::identity::Identity;
use crate::format::vote::SavedVote;
use crate::install;
use crate::paths::Paths;
use crate::recovery::{self, FoundNode};
use crate::seal;
use crate::snapshot::Snapshot;
use crate::space::{self, Room, Space};
use crate::spare::{self, Spares};
use crate::writer::{self, Job, Writer};
use fulmar_host::Host;
use fulmar_host::disk::{DirectoryLock, Open};
use fulmar_host::task::{Owned, spawn_owned};
use fulmar_types::limits::ballast_bytes;
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Term};
use std::collections::{BTreeMap, VecDeque};
use std::io;
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
    /// With less room than this a node says that it is low.
    pub reserve_bytes: u64,
    /// Recent entries kept in memory, in bytes.
    pub entry_cache_bytes: usize,
}

impl StoreSettings {
    /// Ballast that nothing but the smallest files may use: without a manifest a node cannot go on.
    pub(crate) fn ballast_kept_bytes(&self) -> u64 {
        ballast_bytes(self.segment_bytes) / 2
    }
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
        report_recovered(&host, &recovered);
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

    /// Makes a directory that has a `life` ([`Store::save_life`]) a node's: writes the first segment
    /// and, last, the identity. Durable on return.
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

    /// Saves a vote. Durable on return, and ordered with appends and truncations.
    ///
    /// # Errors
    /// If the store is closed; whether the vote will be there after a restart is unknown then.
    ///
    /// # Panics
    /// If the vote regresses, or the node is not initialised.
    pub async fn save_vote(&self, vote: SavedVote) -> Result<(), Poisoned> {
        if let Some(before) = self.vote() {
            assert!(vote.term >= before.term, "{vote:?} goes back behind {before:?}");
        }
        self.wait(|done| Job::Vote { vote, done }).await
    }

    /// What the log can still take. Nothing that does not fit should be appended: it would meet the
    /// full disk in the queue that votes wait in too.
    pub fn room(&self) -> Room {
        space::room(&self.inner.core(), &self.inner.settings)
    }

    /// Is done when there may be more room than there was when this was called.
    pub fn room_change(&self) -> impl Future<Output = ()> + '_ {
        self.inner.space_changed.notified()
    }

    /// Whether there is space to install a snapshot whose segments are here already: to be asked
    /// before it is begun, since it cannot be stopped half way.
    ///
    /// # Errors
    /// The disk's.
    pub async fn has_space_to_install(
        &self,
        snapshot: &Snapshot,
        segments: usize,
    ) -> io::Result<bool> {
        let (disk, paths) = (self.inner.host.disk.as_ref(), &self.inner.paths);
        let free = disk.free_bytes(&paths.root).await?;
        // Asked of the disk: what is remembered may be less while the disk is full.
        let ballast = match open_if_there(disk, &paths.ballast()).await.map_err(|e| e.source)? {
            Some(file) => file.len_bytes().await?,
            None => 0,
        };
        let numbers = self.inner.core().spares.numbers();
        let longest = spare::longest(disk, paths, &numbers).await.map_err(|e| e.source)?;
        let len = longest.map_or(0, |longest| longest.len);
        let next_bytes = spare::lacks_bytes(len, self.inner.settings.segment_bytes);
        Ok(free + ballast >= space::needed_to_install(snapshot, segments, next_bytes))
    }

    /// Waits until everything that was asked for is on disk, and a mark says so.
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

fn report_recovered(host: &Host, recovered: &Recovered) {
    let Recovered { last, cut_bytes, .. } = *recovered;
    let snapshot = recovered.snapshot.as_ref().map(|snapshot| snapshot.last);
    host.report(Event::Recovered { last, snapshot, cut_bytes });
    host.report(Event::VoteRecovered {
        term: recovered.vote.map_or(Term(0), |vote| vote.term),
        voted_for: recovered.vote.map(|vote| vote.voted_for),
        committed: recovered.vote.is_some_and(|vote| vote.committed),
    });
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
        Writer { inner, files, vote, vote_generation, manifest, unmarked: None }
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
        space: Space::default(),
        installing: false,
        prepared: 0,
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
    let sealed = node.log.head().header.base;
    core.committed_below = core.committed_below.max(sealed).max(node.claim);
    core.log = Some(node.log);
    let writer = Unstarted {
        files: node.files,
        vote: None,
        vote_generation: node.vote.generation,
        manifest: node.manifest,
    };
    (core, writer)
}

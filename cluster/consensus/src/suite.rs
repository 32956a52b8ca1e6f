//! openraft's own tests of a runtime, a log store and a state machine, run over ours.
//!
//! The tests live in openraft; this module only gives them what they ask for. Some of them do what
//! openraft itself never does to a Fulmar node, and where that clashes with a decision of ours a
//! thin layer stands in between:
//!
//! - *They begin a log anywhere*, ours begins at index 0: [`AnyStart`] puts blank entries in front
//!   and hides them.
//! - *They purge entries that the log has not*, as after a snapshot from elsewhere, which puts our
//!   segments there first: [`AnyStart`] appends blank ones up to that point.
//! - *They apply entries that the log has not*, ours are in the log first: [`WithLog`] gives the
//!   state machine a store of its own and appends there what is about to be applied.
//! - *They take a snapshot anywhere*, ours are taken at seals: [`WithLog`] applies all of it once
//!   more in another store, followed by an entry that does not fit into the segment.
//!
//! Invariant: everything that a test checks is answered by the log store and the state machine that
//! a node runs with. Never: run this anywhere but in tests; it is generic so that it costs a node
//! nothing.

use crate::log_store::LogStore;
use crate::machine::{Applied, ApplyError, Machine, RestoreError};
use crate::runtime::HostRuntime;
use crate::snapshot_data::SnapshotData;
use crate::state_machine::{SavedSnapshot, StateMachine};
use crate::types::{
    Entry, LeaderId, LogId, StoredMembership, TypeConfig, Vote, entry_from_store, entry_to_store,
    position,
};
use bytes::Bytes;
use fulmar_host::{Host, time};
use fulmar_store::{
    EntryKind, Identity, Life, LogEntry, Section, Snapshot, Store, StoreSettings, StreamId,
    content_hash,
};
use fulmar_types::limits::{SECTOR_BYTES, SEGMENT_HEADER_BYTES};
use fulmar_types::{Incarnation, LogIndex, LogPosition, NodeId, Offset, SiteId, Term, Uuid};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{
    EntryResponder, IOFlushed, LeaderBoundedStreamResult, LogState, RaftLogReader, RaftLogStorage,
    RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEGMENT_BYTES: u64 = 128 << 10;

/// A segment holds an entry of this size and nothing else.
const FILLER_BYTES: usize = SEGMENT_BYTES as usize - SEGMENT_HEADER_BYTES - SECTOR_BYTES;

/// Our log, from an index on that its first entry chooses.
#[derive(Clone)]
pub struct AnyStart {
    log: LogStore,
    store: Arc<Store>,
    /// The first index that a test has seen.
    first: Arc<AtomicU64>,
}

impl AnyStart {
    fn visible(&self, range: &impl RangeBounds<u64>) -> (Bound<u64>, Bound<u64>) {
        let first = self.first.load(Ordering::Relaxed);
        let start = match range.start_bound() {
            Bound::Included(at) => (*at).max(first),
            Bound::Excluded(at) => (at + 1).max(first),
            Bound::Unbounded => first,
        };
        (Bound::Included(start), range.end_bound().cloned())
    }

    /// Appends what is missing up to an entry.
    async fn reach(&self, to: LogPosition) -> io::Result<()> {
        let begin = self.store.last().map_or(0, |last| last.index.get() + 1);
        let fillers: Vec<LogEntry> =
            (begin..=to.index.get()).map(|index| blank(to.term.get(), index)).collect();
        match fillers.is_empty() {
            true => Ok(()),
            false => Ok(self.store.append(fillers, Box::new(|_| {})).await?),
        }
    }

    async fn begin_at(&self, first: u64) -> io::Result<()> {
        if first == 0 || self.store.last().is_some() || self.store.floor().is_some() {
            return Ok(());
        }
        self.first.store(first, Ordering::Relaxed);
        let fillers = (0..first).map(|index| blank(0, index)).collect();
        Ok(self.store.append(fillers, Box::new(|_| {})).await?)
    }
}

fn blank(term: u64, index: u64) -> LogEntry {
    let position = LogPosition { term: Term(term), index: LogIndex(index) };
    LogEntry { position, kind: EntryKind::Blank, claim: 0, payload: Bytes::new() }
}

impl RaftLogReader<TypeConfig> for AnyStart {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let visible = self.visible(&range);
        let items: Vec<_> = self.log.leader_bounded_stream(leader, visible).await.collect().await;
        stream::iter(items)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let visible = self.visible(&range);
        let items: Vec<_> = self.log.entries_stream(visible).await.collect().await;
        stream::iter(items)
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let visible = self.visible(&range);
        self.log.try_get_log_entries(visible).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = start.max(self.first.load(Ordering::Relaxed));
        self.log.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for AnyStart {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.log.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.log.save_vote(vote).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(first) = entries.first() {
            self.begin_at(first.log_id().index()).await?;
        }
        self.log.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last).await
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        self.reach(position(&to)).await?;
        self.log.purge(to).await
    }
}

/// A state machine and the store below it.
struct Machinery {
    store: Arc<Store>,
    machine: StateMachine,
}

impl Machinery {
    /// Appends what lies between the log and an entry, then the entry, and applies all of it.
    async fn apply(&mut self, entry: LogEntry) -> io::Result<()> {
        let index = entry.position.index.get();
        let last = self.store.last();
        let (term, begin) = last.map_or((0, 0), |last| (last.term.get(), last.index.get() + 1));
        let blanks = (begin..index).map(|at| blank(term, at));
        let entries: Vec<LogEntry> = blanks.chain([entry]).collect();
        self.store.append(entries.clone(), Box::new(|_| {})).await?;
        let entries = entries.into_iter().map(|entry| Ok((entry_from_store(entry)?, None)));
        self.machine.apply(stream::iter(entries)).await
    }
}

/// Our state machine, above a log that gets each entry just before it is applied.
pub struct WithLog<F> {
    fresh: Arc<Fresh<F>>,
    used: Machinery,
    applied: Vec<LogEntry>,
    /// The one that the newest snapshot comes from.
    built: Option<Machinery>,
}

impl<F: Fn() -> PathBuf + Send + Sync + 'static> WithLog<F> {
    /// Applies everything once more, and then an entry that begins the next segment.
    async fn build(&self) -> io::Result<Machinery> {
        let mut built = self.fresh.machinery().await;
        for entry in &self.applied {
            built.apply(entry.clone()).await?;
        }
        let last = self.applied.last().expect("nobody asks for a snapshot of nothing").position;
        let filler = LogEntry {
            kind: EntryKind::Normal,
            payload: Bytes::from(vec![0; FILLER_BYTES]),
            ..blank(last.term.get(), last.index.get() + 1)
        };
        built.apply(filler).await?;
        while !built.store.sealed().iter().any(|segment| segment.last == last) {
            time::sleep(Duration::from_millis(1)).await;
        }
        Ok(built)
    }
}

impl<F: Fn() -> PathBuf + Send + Sync + 'static> RaftStateMachine<TypeConfig> for WithLog<F> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotOfAny;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.used.machine.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        // The tests ask for no answer, so there is no responder to serve.
        while let Some((entry, _)) = entries.try_next().await? {
            let entry = entry_to_store(entry);
            self.used.apply(entry.clone()).await?;
            self.applied.push(entry);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotOfAny {
        if self.applied.is_empty() {
            return SnapshotOfAny::Nothing;
        }
        let built = self.build().await.expect("a store of a test takes entries");
        SnapshotOfAny::Saved(self.built.insert(built).machine.get_snapshot_builder().await)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        // A transfer puts the segments there before.
        let source = self.fresh.offered.lock().expect("nobody panics with it").clone();
        if let Some(source) = source {
            ship(&source, &self.used.store, &data).await?;
        }
        self.used.machine.install_snapshot(meta, data).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        if let Some(built) = &mut self.built {
            *self.fresh.offered.lock().expect("nobody panics with it") = Some(built.store.clone());
            return built.machine.get_current_snapshot().await;
        }
        self.used.machine.get_current_snapshot().await
    }
}

/// Finds a snapshot, unless nothing was applied that it could be of.
pub enum SnapshotOfAny {
    /// Of a state machine without entries.
    Nothing,
    /// The newest one on disk.
    Saved(SavedSnapshot),
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotOfAny {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let SnapshotOfAny::Saved(saved) = self else {
            let last = LogPosition { term: Term(0), index: LogIndex(0) };
            let (membership, sections) = (Bytes::new(), Vec::new());
            let nothing = Snapshot { last, membership, wall_ms: 0, state: 0, sections };
            let snapshot = SnapshotData { snapshot: nothing, segments: Vec::new(), prepared: None };
            let meta = SnapshotMetaOf::<TypeConfig>::default();
            return Ok(SnapshotOf::<TypeConfig, SnapshotData> { meta, snapshot });
        };
        saved.build_snapshot().await
    }
}

/// Copies segments from one store to where another one looks for them.
async fn ship(from: &Store, to: &Store, data: &SnapshotData) -> io::Result<()> {
    for segment in &data.segments {
        let begun = to.begin_incoming(*segment).await.map_err(io::Error::other)?;
        assert_eq!(begun, 0, "nothing was shipped before");
        let len = usize::try_from(segment.file_bytes).expect("a small segment");
        let bytes = from.read_sealed_chunk(segment.base, 0, len).await?.expect("it is sealed");
        to.write_incoming(segment.base, 0, bytes).await.map_err(io::Error::other)?;
        to.finish_incoming(segment.base).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// A state machine that counts what it applied.
#[derive(Debug, Default)]
struct Counter {
    entries: u64,
    hash: u64,
}

impl Machine for Counter {
    fn apply(&mut self, _: LogPosition, payload: &Bytes) -> Result<Applied, ApplyError> {
        self.entries += 1;
        self.hash = self.hash.rotate_left(7) ^ content_hash(payload);
        Ok(Applied::default())
    }

    fn pass(&mut self, _: LogPosition) {
        self.entries += 1;
    }

    fn snapshot(&self) -> Vec<Section> {
        let mut bytes = self.entries.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.hash.to_le_bytes());
        vec![Section { id: 1, version: 1, bytes: bytes.into() }]
    }

    fn hash_of(&self, sections: &[Section]) -> Result<u128, RestoreError> {
        let mut other = Self::default();
        other.restore(LogPosition { term: Term(0), index: LogIndex(0) }, sections)?;
        Ok(other.state_hash())
    }

    fn restore(&mut self, _: LogPosition, sections: &[Section]) -> Result<(), RestoreError> {
        let malformed = || RestoreError::Malformed("not two numbers".to_owned());
        let bytes: [u8; 16] = sections
            .first()
            .and_then(|section| section.bytes.as_ref().try_into().ok())
            .ok_or_else(malformed)?;
        let both = u128::from_le_bytes(bytes);
        self.entries = both as u64;
        self.hash = (both >> 64) as u64;
        Ok(())
    }

    fn streams(&self) -> Vec<(StreamId, Offset)> {
        Vec::new()
    }

    fn next_stream(&self) -> StreamId {
        StreamId(1)
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn state_hash(&self) -> u128 {
        u128::from(self.entries) << 64 | u128::from(self.hash)
    }
}

/// The store of a node that was initialised in an empty directory.
///
/// # Panics
/// If the disk fails.
pub(crate) async fn fresh_store(host: Host, directory: PathBuf) -> Arc<Store> {
    let settings = StoreSettings {
        directory,
        node: NodeId(0),
        segment_bytes: SEGMENT_BYTES,
        spare_segments: 1,
        reserve_bytes: 0,
        entry_cache_bytes: 1 << 20,
    };
    let opened = Store::open(host, settings).await;
    let (store, _) = opened.expect("an empty directory opens");
    let identity = Identity {
        site: SiteId(Uuid([1; 16])),
        node: NodeId(0),
        incarnation: Incarnation(Uuid([2; 16])),
        segment_bytes: SEGMENT_BYTES,
    };
    let life = Life { site: Some(identity.site), ..Life::new(identity.incarnation) };
    store.save_life(&life).await.expect("a disk that works");
    store.initialise(identity).await.expect("a disk that works");
    store
}

/// Makes stores in fresh directories of one host.
struct Fresh<F> {
    host: Host,
    directory: F,
    /// Whose segments a snapshot is installed with.
    offered: Mutex<Option<Arc<Store>>>,
}

impl<F: Fn() -> PathBuf + Send + Sync> Fresh<F> {
    async fn store(&self) -> Arc<Store> {
        fresh_store(self.host.clone(), (self.directory)()).await
    }

    async fn machinery(&self) -> Machinery {
        let store = self.store().await;
        let counter = Arc::new(Mutex::new(Counter::default()));
        let recovered = StateMachine::recover(self.host.clone(), store.clone(), counter).await;
        let (machine, _) = recovered.expect("an empty directory has nothing to restore");
        Machinery { store, machine }
    }
}

/// What the suite asks for its stores.
struct Builder<F>(Arc<Fresh<F>>);

impl<F> StoreBuilder<TypeConfig, AnyStart, WithLog<F>> for Builder<F>
where
    F: Fn() -> PathBuf + Send + Sync + 'static,
{
    async fn build(&self) -> Result<((), AnyStart, WithLog<F>), StorageError<TypeConfig>> {
        let store = self.0.store().await;
        let log = AnyStart {
            log: LogStore::new(store.clone()),
            store,
            first: Arc::new(AtomicU64::new(0)),
        };
        let used = self.0.machinery().await;
        Ok(((), log, WithLog { fresh: self.0.clone(), used, applied: Vec::new(), built: None }))
    }
}

/// Runs the tests of a runtime. They begin runtimes of their own.
///
/// # Panics
/// If a test fails.
pub fn run_runtime() {
    openraft_rt::testing::Suite::<HostRuntime>::test_all();
}

/// Runs the tests over stores in directories that `directory` names, each of them another one.
/// Returns how many tests ran.
///
/// # Panics
/// If a test fails.
pub async fn run<F>(host: Host, directory: F) -> usize
where
    F: Fn() -> PathBuf + Send + Sync + 'static,
{
    let fresh = Builder(Arc::new(Fresh { host, directory, offered: Mutex::default() }));
    let mut ran = 0;
    macro_rules! tests {
        ($($name:ident)*) => {$(
            let ((), log, machine) = fresh.build().await.expect("building does not fail");
            let ended = Suite::<TypeConfig, AnyStart, WithLog<F>, Builder<F>, ()>::$name(log, machine);
            ended.await.unwrap_or_else(|error| panic!("{}: {error}", stringify!($name)));
            ran += 1;
        )*};
    }
    tests! {
        last_membership_in_log_initial last_membership_in_log last_membership_in_log_multi_step
        get_membership_initial get_membership_from_log_and_empty_sm
        get_membership_from_empty_log_and_sm get_membership_from_log_le_sm_last_applied
        get_membership_from_log_gt_sm_last_applied_1 get_membership_from_log_gt_sm_last_applied_2
        get_initial_state_without_init get_initial_state_membership_from_empty_log_and_sm
        get_initial_state_membership_from_sm_inlog_is_smaller
        get_initial_state_membership_from_log_insm_is_smaller get_initial_state_with_state
        get_initial_state_last_log_gt_sm get_initial_state_last_log_lt_sm
        get_initial_state_inverted_log_order get_initial_state_conflict_at_same_index
        get_initial_state_log_ids get_initial_state_re_apply_committed save_vote get_log_entries
        limited_get_log_entries leader_bounded_stream entries_stream try_get_log_entry
        log_reader_reads_new_entries initial_logs get_log_state get_log_id last_id_in_log
        last_applied_state purge_logs_upto_0 purge_logs_upto_5 purge_logs_upto_20
        delete_logs_after_11 delete_logs_after_5 delete_logs_after_0 delete_logs_after_none
        append_to_log snapshot_meta snapshot_meta_optional apply_single apply_multiple
    }
    Suite::transfer_snapshot(&fresh).await.expect("transfer_snapshot");
    ran + 1
}

//! openraft's state machine: it drives a [`Machine`] and keeps its snapshots.
//!
//! A snapshot is taken at each seal, that is: before the first entry of a segment is applied, the
//! state as of the last entry of the segment before is saved. Segments are cut by a pure function
//! of the log, so all nodes take the same snapshots.
//!
//! Invariants: entries are applied in order, each once; a snapshot holds the state as of exactly
//! its last entry; what the snapshot's hash promises is what restoring it gives, or the node
//! stops.

use crate::log_store::APPLY_CHUNK_BYTES;
use crate::machine::{Applied, RestoreError, SharedMachine, locked};
use crate::membership;
use crate::snapshot_data::{SnapshotData, membership_bytes, membership_of, to_openraft};
use crate::types::{
    LogId, Outcome, StoredMembership, TypeConfig, entry_from_store, log_id, position,
};
use fulmar_host::{Host, planted};
use fulmar_store::{Snapshot, Store, content_hash};
use fulmar_types::{Event, ExitCode, LogIndex, LogPosition, Plant};
use futures_util::{Stream, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// How far the machine has come, for everyone who waits for it.
#[derive(Default)]
pub struct Progress {
    applied: Mutex<Option<LogPosition>>,
    moved: Notify,
    /// A new snapshot is on disk.
    pub snapshot_taken: Notify,
    /// Batches became unreadable: segments may have become garbage.
    pub streams_moved: Notify,
}

impl Progress {
    /// The last entry that was applied.
    pub fn applied(&self) -> Option<LogPosition> {
        *self.applied.lock().expect("no holder of this lock panics")
    }

    /// Waits until more has been applied than `seen`.
    pub async fn wait_beyond(&self, seen: Option<LogPosition>) {
        loop {
            let moved = self.moved.notified();
            let mut moved = std::pin::pin!(moved);
            // Registered before looking, so that a step in between is not missed.
            moved.as_mut().enable();
            if self.applied() > seen {
                return;
            }
            moved.await;
        }
    }

    fn set(&self, position: LogPosition) {
        *self.applied.lock().expect("no holder of this lock panics") = Some(position);
        self.moved.notify_waiters();
    }
}

/// Drives the machine of this node.
pub struct StateMachine {
    host: Host,
    store: Arc<Store>,
    machine: SharedMachine,
    membership: StoredMembership,
    /// The end of the newest snapshot, restored or saved.
    saved: Option<LogPosition>,
    progress: Arc<Progress>,
    /// Held while a snapshot of the leader is put into place.
    installing: Arc<tokio::sync::Mutex<()>>,
}

fn broken(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl StateMachine {
    /// A driver for a machine that is restored from the newest snapshot of the store.
    ///
    /// # Errors
    /// If that snapshot cannot be restored.
    pub async fn recover(
        host: Host,
        store: Arc<Store>,
        machine: SharedMachine,
    ) -> io::Result<(Self, Arc<Progress>)> {
        let progress = Arc::new(Progress::default());
        let mut this = Self {
            host,
            store,
            machine,
            membership: StoredMembership::default(),
            saved: None,
            progress: progress.clone(),
            installing: Arc::default(),
        };
        if let Some(snapshot) = this.store.latest_snapshot().await {
            this.restore(&snapshot).await?;
            this.reconcile_streams();
        }
        this.replay().await?;
        Ok((this, progress))
    }

    /// Applies again what the log says of itself that it is committed, so that a node which comes
    /// back alone knows its topics before it meets the others. It ends where a snapshot is due:
    /// taking one may have to wait for space, and a node must come up on a full disk too.
    async fn replay(&mut self) -> io::Result<()> {
        let end = if planted(Plant::ReplayEverything) {
            self.store.last().map_or(LogIndex(0), |last| last.index.next())
        } else {
            self.store.committed_below()
        };
        loop {
            let applied = self.progress.applied();
            let next = applied.map_or(LogIndex(0), |applied| applied.index.next());
            if next >= end {
                return Ok(());
            }
            let entries = self.store.entries(next..end, APPLY_CHUNK_BYTES).await;
            for entry in entries.map_err(io::Error::other)? {
                if self.is_snapshot_due(entry.position.index) {
                    return Ok(());
                }
                self.apply_one(entry_from_store(entry)?).await?;
            }
        }
    }

    /// Replaces the state. What cannot be restored ends the process.
    async fn restore(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let restored = {
            let mut machine = locked(&self.machine);
            let restored = machine.restore(snapshot.last, &snapshot.sections);
            restored.map(|()| machine.state_hash())
        };
        self.expect(snapshot, restored).await;
        self.membership = membership_of(snapshot)?;
        self.saved = Some(snapshot.last);
        self.progress.set(snapshot.last);
        Ok(())
    }

    /// Ends the process if a snapshot could not be read, or gives another state than it promises.
    async fn expect(&self, snapshot: &Snapshot, got: Result<u128, RestoreError>) {
        match got {
            // A snapshot that forgot something would be refused here; planted, it has to be
            // found by what it does to the site.
            Ok(got) if got == snapshot.state || planted(Plant::ForgetProducers) => {}
            Ok(got) => {
                let message = format!(
                    "snapshot {} promises state {:032x}, and restoring it gives {got:032x}. Keep \
                     the directory and report it.",
                    snapshot.last, snapshot.state
                );
                self.host.fatal(ExitCode::Diverged, message).await
            }
            Err(error) => self.host.fatal(error.exit_code(), error.to_string()).await,
        }
    }

    /// Tells the store which streams there are: footers still name those that were dropped.
    fn reconcile_streams(&self) {
        let (streams, next) = {
            let machine = locked(&self.machine);
            (machine.streams(), machine.next_stream())
        };
        self.store.retain_streams(|stream| {
            stream >= next || streams.binary_search_by_key(&stream, |(known, _)| *known).is_ok()
        });
        for (stream, start) in streams {
            self.store.advance_start(stream, start);
        }
    }

    /// Whether the state is to be saved before the next entry, which has this index, is applied.
    fn is_snapshot_due(&self, next: LogIndex) -> bool {
        let applied = self.progress.applied();
        applied.is_some() && applied != self.saved && self.store.is_segment_first(next)
    }

    /// Saves the state as of the last applied entry.
    async fn take_snapshot(&mut self) -> io::Result<()> {
        let Some(last) = self.progress.applied() else { return Ok(()) };
        let snapshot = {
            let machine = locked(&self.machine);
            Snapshot {
                last,
                membership: membership_bytes(&self.membership),
                wall_ms: machine.wall_ms(),
                state: machine.state_hash(),
                sections: machine.snapshot(),
            }
        };
        if self.store.save_snapshot(snapshot).await? {
            self.saved = Some(last);
            self.progress.snapshot_taken.notify_one();
        } else {
            tracing::warn!(%last, "no space for a snapshot; the next seal takes another");
        }
        Ok(())
    }

    async fn apply_one(&mut self, entry: crate::types::Entry) -> io::Result<Outcome> {
        let at = position(&entry.log_id());
        if let Some(applied) = self.progress.applied() {
            assert_eq!(at.index, applied.index.next(), "entries are applied in order, each once");
            assert!(at.term >= applied.term, "terms never decrease along the log");
            if self.is_snapshot_due(at.index) {
                self.take_snapshot().await?;
            }
        }
        let (payload, content) = match entry.payload {
            EntryPayload::Blank => (None, content_hash(&[])),
            EntryPayload::Normal(proposal) => {
                let content = content_hash(&proposal.payload);
                (Some(proposal.payload), content)
            }
            EntryPayload::Membership(membership) => {
                let content = content_hash(&membership::encode(&membership));
                self.membership = StoredMembership::new(Some(log_id(at)), membership);
                (None, content)
            }
        };
        let outcome = {
            let mut machine = locked(&self.machine);
            let applied = match &payload {
                None => {
                    machine.pass(at);
                    Ok(Applied::default())
                }
                Some(payload) => machine.apply(at, payload),
            };
            applied.map(|applied| (applied, machine.state_hash()))
        };
        let (applied, state) = match outcome {
            Ok(applied) => applied,
            Err(error) => self.host.fatal(error.exit_code(), error.to_string()).await,
        };
        self.host.report(Event::Applied { position: at, content, state });
        for event in applied.events {
            self.host.report(event);
        }
        // The rows first: one entry may append to a topic and delete it.
        self.store.applied(at.index, &applied.outcome, &applied.rows);
        for stream in &applied.dropped_streams {
            self.store.drop_stream(*stream);
        }
        for (stream, start) in &applied.moved_starts {
            self.store.advance_start(*stream, *start);
        }
        if !applied.dropped_streams.is_empty() || !applied.moved_starts.is_empty() {
            self.progress.streams_moved.notify_one();
        }
        self.progress.set(at);
        Ok(Outcome(applied.outcome))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SavedSnapshot;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.progress.applied().map(log_id), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_one(entry).await?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SavedSnapshot {
        SavedSnapshot { store: self.store.clone(), installing: self.installing.clone() }
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMetaOf<TypeConfig>,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let _installing = self.installing.clone().lock_owned().await;
        // A snapshot that the machine cannot read must not replace what is on disk.
        let got = locked(&self.machine).hash_of(&data.snapshot.sections);
        self.expect(&data.snapshot, got).await;
        let snapshot = data.snapshot.clone();
        // What the new state speaks of has to be there before anybody can hear of it.
        if planted(Plant::StateBeforeSegments) {
            self.restore(&snapshot).await?;
        }
        self.store.install(data.snapshot, data.segments).await.map_err(io::Error::other)?;
        self.restore(&snapshot).await?;
        self.reconcile_streams();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        current(&self.store).await.transpose()
    }
}

async fn current(store: &Store) -> Option<io::Result<SnapshotOf<TypeConfig, SnapshotData>>> {
    let snapshot = store.latest_snapshot().await?;
    let segments = store
        .sealed()
        .into_iter()
        .filter(|segment| segment.last.index <= snapshot.last.index)
        .collect();
    Some(to_openraft(SnapshotData { snapshot, segments, prepared: None }))
}

/// "Builds" a snapshot by finding the newest one on disk: they are taken at seals, not on demand.
pub struct SavedSnapshot {
    store: Arc<Store>,
    installing: Arc<tokio::sync::Mutex<()>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SavedSnapshot {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        // The core must not hear of a snapshot from here before it hears that it is installed: to it
        // that would be the end of the installation.
        let _not_installing = self.installing.lock().await;
        current(&self.store)
            .await
            .unwrap_or_else(|| Err(broken("no snapshot has been taken yet".to_owned())))
    }
}

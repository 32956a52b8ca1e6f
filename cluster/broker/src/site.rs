//! The state machine as it is shared: the apply loop changes it, handlers read it, and fetches
//! that wait are woken when something they wait for was applied.
//!
//! Invariants: the lock is never held across an await; whoever watches a stream from before they
//! looked at it cannot miss a change. The node runs on one thread and the apply loop does not
//! pause between applying an entry and handing its rows to the index, so no task sees an offset
//! whose batch cannot be read yet.

use crate::age::AgeClock;
use crate::machine::state::State;
use crate::machine::{self, Section};
use bytes::Bytes;
use fulmar_consensus::{Applied, ApplyError, Machine, RestoreError};
use fulmar_store::StreamId;
use fulmar_store::entry::{Entry, EntryError};
use fulmar_types::{LogPosition, Offset, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// The state machine and those who watch it.
#[derive(Default)]
pub struct SiteMachine {
    state: State,
    age: AgeClock,
    watchers: BTreeMap<u64, Arc<Notify>>,
    by_stream: BTreeMap<StreamId, BTreeSet<u64>>,
    next_watcher: u64,
    /// Wakes those who look after the pipelines.
    pipelines: Arc<Notify>,
    /// Wakes those who carry records over the border of the site.
    border: Arc<Notify>,
}

impl SiteMachine {
    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn wake(&self, stream: StreamId) {
        for watcher in self.by_stream.get(&stream).into_iter().flatten() {
            if let Some(notify) = self.watchers.get(watcher) {
                notify.notify_one();
            }
        }
    }

    fn wake_all(&self) {
        self.pipelines.notify_waiters();
        self.border.notify_waiters();
        self.watchers.values().for_each(|notify| notify.notify_one());
    }
}

fn restored(sections: &[Section]) -> Result<State, RestoreError> {
    State::restore(sections).map_err(|error| match error {
        machine::RestoreError::Unknown { .. } => RestoreError::UnknownSection(error.to_string()),
        machine::RestoreError::Missing { .. }
        | machine::RestoreError::Damaged { .. }
        | machine::RestoreError::Inconsistent(_) => RestoreError::Malformed(error.to_string()),
    })
}

impl Machine for SiteMachine {
    fn apply(&mut self, position: LogPosition, payload: &Bytes) -> Result<Applied, ApplyError> {
        let entry = Entry::decode(payload.clone()).map_err(|error| refused(position, &error))?;
        let (before, changed) = (self.state.pipeline_turns(), last_change(&self.state));
        let applied = self.state.apply(position, &entry);
        if self.state.pipeline_turns() != before {
            self.pipelines.notify_waiters();
        }
        if last_change(&self.state) != changed {
            self.border.notify_waiters();
        }
        self.age.learn(position.term, entry.header().age_ms);
        let appended = applied.rows.iter().map(|row| row.stream);
        let moved = applied.moved_starts.iter().map(|(stream, _)| *stream);
        let others = applied.dropped_streams.iter().chain(&applied.passed_streams).copied();
        for stream in appended.chain(moved).chain(others) {
            self.wake(stream);
        }
        Ok(applied)
    }

    fn pass(&mut self, position: LogPosition) {
        self.age.pass(position.term);
    }

    fn snapshot(&self) -> Vec<Section> {
        self.state.snapshot()
    }

    fn hash_of(&self, sections: &[Section]) -> Result<u128, RestoreError> {
        restored(sections).map(|state| state.hash())
    }

    fn restore(&mut self, position: LogPosition, sections: &[Section]) -> Result<(), RestoreError> {
        self.state.replace(restored(sections)?);
        self.age.restored(position.term, self.state.age_ms());
        self.wake_all();
        Ok(())
    }

    fn streams(&self) -> Vec<(StreamId, Offset)> {
        self.state.streams().collect()
    }

    fn next_stream(&self) -> StreamId {
        self.state.next_stream()
    }

    fn wall_ms(&self) -> u64 {
        self.state.entry_ms()
    }

    fn state_hash(&self) -> u128 {
        self.state.hash()
    }
}

/// The number of the last entry that changed a link or a rule, or something else of the kind.
fn last_change(state: &State) -> Option<u64> {
    state.changes().next_back().map(|change| change.number)
}

fn refused(position: LogPosition, error: &EntryError) -> ApplyError {
    let what = error.to_string();
    match error {
        EntryError::UnknownVersion(_)
        | EntryError::UnknownPrecondition { .. }
        | EntryError::UnknownOperation { .. } => ApplyError::UnknownOperation { position, what },
        EntryError::Malformed { .. } => ApplyError::Malformed { position, what },
    }
}

/// A handle to the state machine of this node.
#[derive(Clone, Default)]
pub struct Site(Arc<Mutex<SiteMachine>>);

impl Site {
    /// The machine of a site without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the apply loop drives.
    pub fn machine(&self) -> Arc<Mutex<SiteMachine>> {
        self.0.clone()
    }

    fn locked(&self) -> MutexGuard<'_, SiteMachine> {
        self.0.lock().expect("a panic while applying aborts the process")
    }

    /// Looks at the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.locked().state)
    }

    /// How long the site has existed, in milliseconds, for the leader of this term.
    pub fn age_ms(&self, term: Term) -> u64 {
        let mut machine = self.locked();
        let applied_ms = machine.state.age_ms();
        machine.age.now_ms(term, applied_ms)
    }

    /// Watches some streams until the watch is dropped.
    pub fn watch(&self, streams: &[StreamId]) -> Watch {
        let mut machine = self.locked();
        let watcher = machine.next_watcher;
        machine.next_watcher += 1;
        let notify = Arc::new(Notify::new());
        machine.watchers.insert(watcher, notify.clone());
        for stream in streams {
            machine.by_stream.entry(*stream).or_default().insert(watcher);
        }
        Watch { site: self.clone(), watcher, streams: streams.to_vec(), notify }
    }

    /// Watches what pipelines there are, who owns them, and what is wanted of the owners.
    pub fn watch_pipelines(&self) -> PipelineWatch {
        let changed = self.locked().pipelines.clone();
        let seen = self.read(State::pipeline_turns);
        PipelineWatch { site: self.clone(), changed, seen: Mutex::new(seen) }
    }

    /// Notifies whoever waits whenever a link or a rule may have been changed, as that is applied.
    pub fn border_changes(&self) -> Arc<Notify> {
        self.locked().border.clone()
    }

    /// Wakes everybody who watches anything: the leader changed.
    pub fn wake_all(&self) {
        self.locked().wake_all();
    }
}

/// Learns of what is applied to some streams.
pub struct Watch {
    site: Site,
    watcher: u64,
    streams: Vec<StreamId>,
    notify: Arc<Notify>,
}

impl Watch {
    /// Waits until something was applied since the watch began, or since the last call returned.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut machine = self.site.locked();
        machine.watchers.remove(&self.watcher);
        for stream in &self.streams {
            if let Some(watchers) = machine.by_stream.get_mut(stream) {
                watchers.remove(&self.watcher);
                if watchers.is_empty() {
                    machine.by_stream.remove(stream);
                }
            }
        }
    }
}

/// Learns of what becomes of pipelines.
pub struct PipelineWatch {
    site: Site,
    changed: Arc<Notify>,
    seen: Mutex<u64>,
}

impl PipelineWatch {
    /// Waits until something differs from when the watch began, or from when the last call returned.
    pub async fn changed(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = self.site.read(State::pipeline_turns);
            let before =
                std::mem::replace(&mut *self.seen.lock().expect("nobody panics in here"), now);
            if now != before {
                return;
            }
            changed.await;
        }
    }
}

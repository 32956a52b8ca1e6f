//! Housekeeping of one node: after each new snapshot openraft hears of it, Raft's floor follows at
//! a distance, and segments that nobody can read any more are given back.
//!
//! Invariant: the floor stays a segment or more behind the newest snapshot. That alone deletes
//! nothing: what is given back is decided against the oldest snapshot that is kept, so a damaged
//! newest one can be replaced by the older one and the log behind it.
//!
//! Never: delete data because of a purge. Only segments without a live record go.

use crate::group::Shared;
use fulmar_host::planted;
use fulmar_types::{LogIndex, Plant};
use std::sync::Arc;

pub(crate) async fn run(shared: Arc<Shared>, purge_lag_segments: u32) {
    // Once at the start, for the snapshot that recovery found, if there is one.
    loop {
        if shared.store.latest_snapshot().await.is_none() {
            shared.progress.snapshot_taken.notified().await;
            continue;
        }
        if shared.raft.trigger().snapshot().await.is_err() {
            return;
        }
        if let Some(to) = purge_target(&shared, purge_lag_segments).await
            && shared.raft.trigger().purge_log(to.get()).await.is_err()
        {
            return;
        }
        if let Err(error) = shared.store.collect_garbage().await {
            // The store has poisoned itself and reported why; the core stops with it.
            tracing::error!(%error, "giving back segments failed");
            return;
        }
        if !until_snapshot(&shared).await {
            return;
        }
    }
}

/// Waits for the next snapshot. What a deletion frees meanwhile is given back at once: on a full
/// disk nobody could write the entries that lead to another snapshot. `false` if the store is
/// closed.
async fn until_snapshot(shared: &Shared) -> bool {
    loop {
        tokio::select! {
            biased;
            () = shared.progress.snapshot_taken.notified() => return true,
            () = shared.progress.streams_moved.notified() => {}
        }
        if shared.store.collect_garbage().await.is_err() {
            return false;
        }
    }
}

/// The last entry that may fall below the floor.
async fn purge_target(shared: &Shared, lag_segments: u32) -> Option<LogIndex> {
    let snapshot = shared.store.latest_snapshot().await?;
    let covered: Vec<LogIndex> = shared
        .store
        .sealed()
        .iter()
        .map(|segment| segment.last.index)
        .filter(|last| *last <= snapshot.last.index)
        .collect();
    // One segment behind at least: that is where the older snapshot was taken.
    let behind = match usize::try_from(lag_segments).unwrap_or(usize::MAX).max(1) {
        _ if planted(Plant::PurgeBeforeSnapshot) => 0,
        behind => behind,
    };
    let at = covered.len().checked_sub(1 + behind)?;
    covered.get(at).copied()
}

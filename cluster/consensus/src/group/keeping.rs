//! What looks after a running group: who leads, whether openraft's core lives, and what else goes on beside it.
//!
//! Invariants: a change of who leads is told to all that wait for one; a core that has stopped by itself ends
//! the process.
//!
//! Never: keep a group alive that nobody holds any more: the tasks end with its last handle.

use super::{GroupSettings, Leadership, Shared};
use crate::peer::connection::PeerContext;
use crate::{bootstrap, maintenance, rejoin, space};
use fulmar_host::task::{self, Owned};
use fulmar_types::{Event, ExitCode, Role, Term};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use std::sync::Arc;

/// What looks after a running group.
pub(super) fn keepers(
    shared: &Arc<Shared>,
    context: &Arc<PeerContext>,
    settings: &GroupSettings,
) -> Vec<Owned<()>> {
    let pauses = (settings.heartbeat, settings.election_timeout_max);
    let mut tasks = vec![
        task::spawn_owned(watch_role(shared.clone())),
        task::spawn_owned(watch_core(shared.clone(), context.clone())),
        task::spawn_owned(space::watch(shared.clone(), pauses)),
        task::spawn_owned(maintenance::run(shared.clone(), settings.purge_lag_segments)),
    ];
    let (lease_of, store, length) =
        (context.clone(), shared.store.clone(), settings.election_timeout_max);
    tasks.push(task::spawn_owned(async move {
        bootstrap::note_shorter_lease(&lease_of, &store, length).await;
    }));
    if context.acquaintance().rejoins {
        let (raft, context) = (shared.raft.clone(), context.clone());
        let asking = async move { rejoin::until_voter(&context, &raft).await };
        tasks.push(task::spawn_owned(asking));
    }
    tasks
}

async fn watch_role(shared: Arc<Shared>) {
    let mut metrics = shared.raft.server_metrics();
    loop {
        let (leadership, role) = {
            let now = metrics.borrow_watched();
            let is_me = now.state == ServerState::Leader && now.current_leader == Some(shared.node);
            let role = match now.state {
                ServerState::Learner => Role::Learner,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Follower | ServerState::Shutdown => Role::Follower,
            };
            let term = Term(now.vote.leader_id.term);
            // A persisted vote of the last life may name this node, which does not lead again by it.
            let leader = now.current_leader.filter(|leader| is_me || *leader != shared.node);
            (Leadership { term, leader, is_me }, role)
        };
        let changed = {
            let mut current = shared.leadership.lock().expect("no holder of this lock panics");
            let changed = *current != leadership;
            *current = leadership;
            changed
        };
        if changed {
            let Leadership { term, leader, .. } = leadership;
            shared.host.report(Event::RoleChanged { role, term, leader });
            shared.leadership_changed.notify_waiters();
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Ends the process when openraft's core has stopped by itself: half a node helps nobody. Keeps the
/// handshake in step with the membership, the last one in the log, committed or not, as Raft does.
///
/// It wakes for what changes with the membership or the leader, never for every entry; the core
/// closes this watch as it ends, after it has said why in the full metrics.
async fn watch_core(shared: Arc<Shared>, context: Arc<PeerContext>) {
    let mut metrics = shared.raft.server_metrics();
    let mut seen = None;
    loop {
        let membership = metrics.borrow_watched().membership_config.clone();
        if seen.as_ref() != Some(&membership) {
            let lives = rejoin::lives(membership.membership());
            // A node that catches up reads of lives that ended before its own began: until it meets
            // itself, what the leader told it holds.
            if lives.get(&shared.node) == Some(&context.acquaintance().incarnation) {
                context.members(lives);
            }
            seen = Some(membership);
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    let ended = shared.raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(openraft::errors::Fatal::Stopped) => {}
        Err(error) => {
            shared.host.fatal(ExitCode::CoreDead, format!("consensus stopped: {error}")).await
        }
    }
}

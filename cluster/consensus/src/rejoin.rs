//! How a node whose directory was emptied takes part again.
//!
//! What such a node had promised is gone: it may have voted, and its flush may be one of the two
//! that an acknowledgement counted. So its old place is taken out of the group before it gets a new
//! one, and it has no vote until it has caught up (Ongaro 2014, sections 4.1, 4.2.1 and 4.3).
//!
//! ```text
//! node, empty                         leader
//!   may I take part?            -->   removes the earlier life from the voters   (joint consensus)
//!                                     adds this life as a learner
//!                               <--   learner {site, known}
//!   takes snapshot and segments <--
//!   may I take part?            -->   it has caught up: gives it a vote          (joint consensus)
//!                               <--   voter
//! ```
//!
//! The node asks again and again, and the leader looks only at what the log says of it, so each
//! side may die at any point and the next question goes on from there.
//!
//! Invariants: a new life of a node takes part only after the earlier one was taken out, and that
//! is committed by both other nodes; an earlier life that still answers the leader is never taken
//! out.
//!
//! Never: write the first entry of a log on a node that rejoins.

use crate::group::SiteRaft;
use crate::peer::connection::{PeerContext, dial};
use crate::peer::message::{Purpose, Standing, kind};
use crate::types::{Member, Membership, TypeConfig};
use fulmar_host::time;
use fulmar_types::{Event, Incarnation, NodeId};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::RaftMetrics;
use openraft::{ChangeMembers, ServerState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(200);

/// A learner that is no further behind gets its vote, in entries.
const BEHIND_MAX: u64 = 1_000;

/// Where a node stands according to a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not there.
    Absent,
    /// There as an earlier life, with a vote or without.
    Earlier { votes: bool },
    /// There, without a vote, or on its way to one.
    Learner,
    /// There, with a vote.
    Voter,
}

fn place(membership: &Membership, node: NodeId, incarnation: Incarnation) -> Place {
    let configs = membership.get_joint_config();
    let votes_now = configs.iter().any(|config| config.contains(&node));
    match membership.get_node(&node) {
        None => Place::Absent,
        Some(member) if member.incarnation != incarnation => Place::Earlier { votes: votes_now },
        Some(_) if configs.iter().all(|config| config.contains(&node)) => Place::Voter,
        Some(_) => Place::Learner,
    }
}

/// The lives that take part according to a membership.
pub(crate) fn lives(membership: &Membership) -> BTreeMap<NodeId, Incarnation> {
    membership.nodes().map(|(node, member)| (*node, member.incarnation)).collect()
}

/// The leader's side: brings a node one step closer to its vote.
pub(crate) async fn admit(
    context: &PeerContext,
    raft: &SiteRaft,
    node: NodeId,
    incarnation: Incarnation,
) -> Standing {
    let metrics = raft.metrics().borrow_watched().clone();
    if metrics.state != ServerState::Leader {
        return Standing::NotLeader(metrics.current_leader);
    }
    let membership = metrics.membership_config.membership();
    let change = match place(membership, node, incarnation) {
        Place::Voter => return Standing::Voter,
        Place::Learner if !has_caught_up(&metrics, node) => return learner(context, membership),
        Place::Learner => ChangeMembers::AddVoterIds(BTreeSet::from([node])),
        Place::Absent => ChangeMembers::AddNodes(BTreeMap::from([(node, Member { incarnation })])),
        Place::Earlier { .. } if answers(context, &metrics, node) => {
            let why = format!("an earlier life of node {node} is running and answers the leader");
            return Standing::Wait(why);
        }
        Place::Earlier { votes: true } => ChangeMembers::RemoveVoters(BTreeSet::from([node])),
        Place::Earlier { votes: false } => ChangeMembers::RemoveNodes(BTreeSet::from([node])),
    };
    tracing::info!(%node, ?change, "a node with an emptied directory takes part again");
    // Both steps of a change of voters; what a deadline leaves half done the next question finishes.
    let changed = time::timeout(context.stall_timeout, raft.change_membership(change, false)).await;
    match changed {
        Ok(Ok(done)) => {
            let now = done
                .membership
                .as_ref()
                .map_or(Place::Absent, |membership| place(membership, node, incarnation));
            match (now, done.membership.as_ref()) {
                (Place::Voter, _) => Standing::Voter,
                (Place::Learner, Some(membership)) => learner(context, membership),
                _ => Standing::Wait("its earlier life was taken out".to_owned()),
            }
        }
        // It led a moment ago, and has lost the other one, without which nothing can be agreed.
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Standing::Wait("the other nodes have no leader; both must run".to_owned())
        }
        Ok(Err(error)) => Standing::Wait(error.to_string()),
        Err(time::Elapsed) => Standing::Wait("the other nodes have not agreed yet".to_owned()),
    }
}

fn learner(context: &PeerContext, membership: &Membership) -> Standing {
    match context.acquaintance().site {
        Some(site) => Standing::Learner { site, known: lives(membership).into_iter().collect() },
        None => Standing::Wait("there is no site yet".to_owned()),
    }
}

fn has_caught_up(metrics: &RaftMetrics<TypeConfig>, node: NodeId) -> bool {
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&node)?.as_ref());
    let last = metrics.last_log_index.unwrap_or(0);
    matched.is_some_and(|matched| matched.index() + BEHIND_MAX >= last)
}

/// Whether a node has answered the leader lately.
fn answers(context: &PeerContext, metrics: &RaftMetrics<TypeConfig>, node: NodeId) -> bool {
    let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&node)?.as_ref());
    heard.is_some_and(|heard| heard.elapsed() < context.dial_timeout * 2)
}

/// Asks every peer in turn where this node stands; the first answer of a leader counts.
pub(crate) async fn ask(context: &PeerContext) -> Option<Standing> {
    for peer in context.addresses.keys().copied().filter(|peer| *peer != context.node) {
        let Ok(mut connection) = dial(context, peer, Purpose::Rejoin).await else { continue };
        // A change of voters is two commits.
        let limit = context.stall_timeout * 2;
        match connection.ask(kind::REJOIN, &(), limit).await {
            Ok(Standing::NotLeader(_)) | Err(_) => {}
            Ok(standing) => return Some(standing),
        }
    }
    None
}

/// Asks until this node has its vote; one that has it from before starts without a word.
pub(crate) async fn until_voter(context: &PeerContext, raft: &SiteRaft) {
    let (node, incarnation) = (context.node, context.acquaintance().incarnation);
    let mut told = None;
    let mut asked = false;
    loop {
        // Asked of the core itself: the metrics are empty until it has begun.
        let standing = raft.with_raft_state(move |state| {
            place(state.membership_state.effective().membership(), node, incarnation)
        });
        match standing.await {
            Ok(Place::Voter) if asked => return context.host.report(Event::Rejoined),
            Ok(Place::Voter) | Err(_) => return,
            Ok(_) => asked = true,
        }
        let answer = ask(context).await;
        tell(&mut told, answer.as_ref());
        time::sleep(PAUSE).await;
    }
}

/// Says why it takes long, each reason once.
pub(crate) fn tell(told: &mut Option<String>, answer: Option<&Standing>) {
    let why = match answer {
        Some(Standing::Wait(why)) => why.clone(),
        Some(_) => return,
        None => "no node of the site that leads can be reached".to_owned(),
    };
    if is_news(told, &why) {
        tracing::warn!(%why, "waiting to take part again");
    }
}

/// Whether something was not said last; now it is.
pub(crate) fn is_news(told: &mut Option<String>, text: &str) -> bool {
    let news = told.as_deref() != Some(text);
    if news {
        *told = Some(text.to_owned());
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Uuid;

    fn life(number: u8) -> Incarnation {
        Incarnation(Uuid([number; 16]))
    }

    fn membership(configs: &[&[u64]], nodes: &[(u64, u8)]) -> Membership {
        let configs = configs.iter().map(|c| c.iter().map(|id| NodeId(*id)).collect()).collect();
        let nodes: BTreeMap<NodeId, Member> =
            nodes.iter().map(|(id, n)| (NodeId(*id), Member { incarnation: life(*n) })).collect();
        Membership::new(configs, nodes).expect("every voter is a node")
    }

    #[test]
    fn a_node_stands_where_the_membership_puts_its_life() {
        let all = [(1, 1), (2, 1), (3, 1)];
        let of = |configs: &[&[u64]], nodes: &[(u64, u8)], n: u8| {
            place(&membership(configs, nodes), NodeId(3), life(n))
        };
        assert_eq!(of(&[&[1, 2, 3]], &all, 1), Place::Voter);
        assert_eq!(of(&[&[1, 2, 3]], &all, 2), Place::Earlier { votes: true });
        assert_eq!(of(&[&[1, 2, 3], &[1, 2]], &all, 2), Place::Earlier { votes: true });
        assert_eq!(of(&[&[1, 2]], &all, 2), Place::Earlier { votes: false });
        assert_eq!(of(&[&[1, 2]], &all[..2], 2), Place::Absent);
        assert_eq!(of(&[&[1, 2]], &all, 1), Place::Learner);
        // Half way to its vote: the leader has to finish the change.
        assert_eq!(of(&[&[1, 2], &[1, 2, 3]], &all, 1), Place::Learner);
    }
}

//! Room on the disks of the site: what is let in, and what is pushed back.
//!
//! ```text
//! proposer  --room?-->  leader's core --append--> peer server --room?--> follower's core
//!                            ^                         |
//!                            '---- room of the follower, in each answer, heartbeats included
//! ```
//!
//! The core cannot refuse an entry, and its log waits in one queue with its votes. So both ways in
//! are guarded: an entry passes only if its frames have a place on the disk already. A leader lets
//! records in while a majority of the voters has more than the reserve left; entries without
//! records may use the reserve, down to what blank entries of new leaders need.
//!
//! Invariants: what was let in and is not answered yet counts as if it were not in the log, so the
//! same place is never promised twice, but no longer than this node leads, or the place of what waits for
//! entries of the next leader would be kept from them; a node that was not heard of is taken to have room, since
//! entries that it refuses are not committed by it.
//!
//! Never: a wait in here that a heartbeat or a vote has to wait for.

use crate::group::Shared;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_host::{Host, planted};
use fulmar_store::{Demand, Store};
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{NodeId, Plant, Probe};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// How long entries whose connection broke still count: the core may be about to append them.
const LINGER: Duration = Duration::from_secs(1);

/// After it tried to hand over, a full leader waits for so many election timeouts.
const HAND_OVER_PAUSE: u32 = 4;

/// An entry that was refused speaks for those that clients try again, for so long.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// The room of a node, as it travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomReport {
    /// Bytes that its log can take without new space from its file system.
    pub ready_bytes: u64,
    /// Bytes for which its file system has space beyond that.
    pub more_bytes: u64,
}

impl RoomReport {
    /// All that its log can take.
    pub fn total_bytes(self) -> u64 {
        self.ready_bytes.saturating_add(self.more_bytes)
    }
}

/// A voter, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// Bytes that it can take; `None` if it has not said.
    pub room_bytes: Option<u64>,
    /// Whether it answered lately.
    pub is_near: bool,
}

/// What a leader lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everything.
    Records,
    /// Nothing but entries without records: too few nodes have room.
    Control,
    /// The same, but with this node as the leader records could go on.
    HandOver(NodeId),
}

/// What the leader `me` lets in, if a node needs so many bytes for it.
pub fn admission(me: NodeId, voters: &[Voter], needed_bytes: u64) -> Admission {
    let has_room = |voter: &Voter| voter.room_bytes.is_none_or(|room| room >= needed_bytes);
    let roomy = voters.iter().filter(|voter| has_room(voter)).count();
    if roomy * 2 <= voters.len() {
        return Admission::Control;
    }
    if voters.iter().any(|voter| voter.node == me && has_room(voter)) {
        return Admission::Records;
    }
    let others = voters.iter().filter(|voter| voter.node != me && voter.is_near && has_room(voter));
    let known = others.filter_map(|voter| Some((voter.room_bytes?, Reverse(voter.node))));
    match known.max() {
        Some((_, Reverse(node))) => Admission::HandOver(node),
        None => Admission::Control,
    }
}

/// Entries that were let in and are not answered yet.
#[derive(Clone, Copy)]
struct Admitted {
    demand: Demand,
    /// Nobody waits for their answer any more, since when that was first seen.
    orphaned: Option<Option<Instant>>,
}

#[derive(Default)]
struct Ledger {
    admitted: BTreeMap<u64, Admitted>,
    next: u64,
}

impl Ledger {
    /// All that counts, without what was orphaned long ago.
    fn demand(&mut self) -> Demand {
        self.admitted.retain(|_, admitted| match &mut admitted.orphaned {
            None => true,
            Some(since) => since.get_or_insert_with(time::now).elapsed() < LINGER,
        });
        self.admitted.values().fold(Demand::default(), |sum, admitted| sum.and(admitted.demand))
    }
}

/// The place of entries that were let in. Dropped without [`Ticket::settle`], it counts a little
/// longer.
pub struct Ticket {
    space: Arc<Space>,
    number: u64,
}

impl Ticket {
    /// The entries are answered: they are in the log, or never will be.
    pub fn settle(self) {
        self.space.ledger().admitted.remove(&self.number);
        self.space.settled.notify_waiters();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(admitted) = self.space.ledger().admitted.get_mut(&self.number) {
            admitted.orphaned = Some(None);
        }
    }
}

/// What a node knows of the room in its site.
pub struct Space {
    host: Host,
    store: Arc<Store>,
    reserve_bytes: u64,
    ledger: Mutex<Ledger>,
    peers: Mutex<BTreeMap<NodeId, (RoomReport, Instant)>>,
    /// The frame of the largest entry with records that was refused lately, and when one was last.
    refused: Mutex<Option<(u64, Instant)>>,
    settled: Notify,
}

impl Space {
    /// For the node with this store.
    pub fn new(host: Host, store: Arc<Store>, reserve_bytes: u64) -> Self {
        let (ledger, peers, settled) = (Mutex::default(), Mutex::default(), Notify::new());
        let refused = Mutex::default();
        Self { host, store, reserve_bytes, ledger, peers, refused, settled }
    }

    /// The host of this node.
    pub fn host(&self) -> &Host {
        &self.host
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder of this lock panics")
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, (RoomReport, Instant)>> {
        self.peers.lock().expect("no holder of this lock panics")
    }

    /// The room of this node.
    pub fn own(&self) -> RoomReport {
        let room = self.store.room();
        let waiting = self.ledger().demand().bytes;
        RoomReport {
            ready_bytes: room.ready_bytes().saturating_sub(waiting),
            more_bytes: room.more_bytes(),
        }
    }

    /// A peer has said what room it has.
    pub fn heard(&self, peer: NodeId, room: RoomReport) {
        self.peers().insert(peer, (room, time::now()));
    }

    /// Whether a peer is known to have no room for so many bytes.
    pub fn lacks_room(&self, peer: NodeId, bytes: u64) -> bool {
        self.peers().get(&peer).is_some_and(|(room, _)| room.total_bytes() < bytes)
    }

    /// Whether frames have their place in this order, and `keep` bytes of blank ones after them.
    fn fits(&self, frames: &[u64], keep: u64) -> bool {
        if planted(Plant::NoRoomCheck) {
            return true;
        }
        let room = self.store.room();
        let waiting = self.ledger().demand();
        let sector = SECTOR_BYTES as u64;
        if waiting == Demand::default() {
            let blanks = std::iter::repeat_n(sector, (keep / sector) as usize);
            return room.takes_in_order(frames.iter().copied().chain(blanks));
        }
        let frames = frames.iter().map(|frame| Demand::of_bytes(*frame));
        let kept = Demand { bytes: keep, largest: sector };
        room.takes(frames.fold(waiting.and(kept), Demand::and))
    }

    /// Waits until frames have their place, at most for `limit` and not at all if the disk is full.
    /// Whether they have it.
    pub async fn wait_for(&self, frames: &[u64], keep: u64, limit: Duration) -> bool {
        let deadline = time::now() + limit;
        loop {
            // Made before looking, so that a change in between is not missed.
            let (settled, changed) = (self.settled.notified(), self.store.room_change());
            if self.fits(frames, keep) {
                return true;
            }
            if self.store.room().more == 0 && self.ledger().demand() == Demand::default() {
                return false;
            }
            let wait = async {
                tokio::select! {
                    biased;
                    () = settled => {}
                    () = changed => {}
                }
            };
            if time::timeout_at(deadline, wait).await.is_err() {
                return false;
            }
        }
    }

    /// An entry with records was refused.
    pub fn refused(&self, frame: u64) {
        let largest = self.lately_refused().map_or(frame, |before| before.max(frame));
        *self.refused.lock().expect("no holder of this lock panics") = Some((largest, time::now()));
    }

    /// The frame of the largest entry with records that was refused lately.
    pub fn lately_refused(&self) -> Option<u64> {
        let refused = *self.refused.lock().expect("no holder of this lock panics");
        refused.filter(|(_, at)| at.elapsed() < REFUSAL_LINGER).map(|(frame, _)| frame)
    }

    /// Lets entries in.
    pub fn admit(self: &Arc<Self>, demand: Demand) -> Ticket {
        let mut ledger = self.ledger();
        let number = ledger.next;
        ledger.next += 1;
        ledger.admitted.insert(number, Admitted { demand, orphaned: None });
        Ticket { space: self.clone(), number }
    }

    /// Lets the entries of a leader in, if there is room for them.
    pub async fn receive(self: &Arc<Self>, frames: &[u64], limit: Duration) -> Option<Ticket> {
        if !self.wait_for(frames, 0, limit).await {
            self.host.probe(Probe::AppendRefusedForSpace);
            return None;
        }
        let demand = frames.iter().map(|frame| Demand::of_bytes(*frame));
        Some(self.admit(demand.fold(Demand::default(), Demand::and)))
    }

    /// What is kept for entries without records.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Whether a frame with records has its place on the disk of this node. Bytes that are there in
    /// two places may be too few in each.
    pub fn has_place(&self, frame: u64) -> bool {
        self.fits(&[frame], self.reserve_bytes)
    }

    /// What this node lets in, if it leads: whether there is room for so many bytes of entries
    /// beside those that are let in and not answered yet, and the reserve. Whoever asks knows already
    /// whether they have a place on its own disk ([`Space::has_place`]).
    pub fn admission(
        &self,
        me: NodeId,
        voters: impl Iterator<Item = NodeId>,
        (bytes, has_place): (u64, bool),
    ) -> Admission {
        if planted(Plant::NoRoomCheck) {
            return Admission::Records;
        }
        let own = if has_place { self.own().total_bytes() } else { 0 };
        // What is on its way to the others they have not counted yet.
        let waiting = self.ledger().demand().bytes;
        let peers = self.peers();
        let voters: Vec<Voter> = voters
            .map(|node| {
                let heard = peers.get(&node);
                let is_near = heard.is_some_and(|(_, at)| at.elapsed() < LINGER);
                let room_bytes = heard.map(|(room, _)| room.total_bytes().saturating_sub(waiting));
                let room_bytes = if node == me { Some(own) } else { room_bytes };
                Voter { node, room_bytes, is_near }
            })
            .collect();
        admission(me, &voters, self.reserve_bytes.saturating_add(bytes))
    }
}

/// Keeps a node without any room from standing for election, or one that may have granted a lease in
/// an earlier life, and lets a leader whose own disk is
/// full hand over to a node that can go on.
pub(crate) async fn watch(shared: Arc<Shared>, pause: (Duration, Duration)) {
    let (look, election_timeout) = pause;
    let blanks = [SECTOR_BYTES as u64; 2];
    let mut told = false;
    // Whoever has just handed over looks at its disk all the same: it may have to keep from standing.
    let mut may_hand_over_at = time::now();
    loop {
        let can_lead = planted(Plant::NoRoomCheck) || shared.store.room().takes_in_order(blanks);
        shared.raft.runtime_config().elect(can_lead && shared.earlier_grant.is_over());
        // What is left may be enough for nothing and too little for what clients send.
        let refused = match planted(Plant::FullLeaderStays) {
            true => None,
            false => shared.space.lately_refused(),
        };
        if shared.leads() {
            let has_place = refused.is_none_or(|frame| shared.space.has_place(frame));
            match shared.admission(refused.unwrap_or(0), has_place) {
                Admission::HandOver(_) if time::now() < may_hand_over_at => {}
                Admission::HandOver(to) => {
                    tracing::warn!(%to, "no room on this disk: handing over the leadership");
                    shared.host.probe(Probe::FullLeaderHandedOver);
                    // A dead core is noticed by its watcher.
                    let _ = shared.raft.trigger().transfer_leader(to).await;
                    may_hand_over_at = time::now() + election_timeout * HAND_OVER_PAUSE;
                }
                Admission::Control if refused.is_some() && !told => {
                    tracing::warn!("records are refused: too few nodes have room on their disks");
                    told = true;
                }
                Admission::Control => {}
                Admission::Records => told = false,
            }
        }
        time::sleep(look).await;
    }
}

/// Bytes of the frames for entries with these payloads.
pub(crate) fn frames_of(lens: impl Iterator<Item = usize>) -> Vec<u64> {
    lens.map(|len| Demand::of_payload(len).bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 100;

    fn voters(rooms: [Option<u64>; 3]) -> Vec<Voter> {
        let node = |at: usize| NodeId(at as u64 + 1);
        let voter =
            |(at, room_bytes)| Voter { node: node(at), room_bytes, is_near: room_bytes.is_some() };
        rooms.into_iter().enumerate().map(voter).collect()
    }

    fn decide(rooms: [Option<u64>; 3]) -> Admission {
        admission(NodeId(1), &voters(rooms), RESERVE)
    }

    #[test]
    fn records_are_let_in_while_leader_and_majority_have_room() {
        assert_eq!(decide([Some(100), Some(100), Some(100)]), Admission::Records);
        assert_eq!(decide([Some(100), Some(0), Some(100)]), Admission::Records);
        assert_eq!(decide([Some(100), Some(0), None]), Admission::Records, "not heard of yet");
        assert_eq!(decide([Some(100), None, None]), Admission::Records);
    }

    #[test]
    fn records_are_pushed_back_when_a_majority_is_low() {
        assert_eq!(decide([Some(100), Some(99), Some(99)]), Admission::Control);
        assert_eq!(decide([Some(0), Some(99), Some(1_000)]), Admission::Control);
        assert_eq!(decide([Some(0), Some(0), Some(0)]), Admission::Control);
    }

    #[test]
    fn a_full_leader_hands_over_to_the_roomiest_that_answers() {
        assert_eq!(decide([Some(99), Some(200), Some(300)]), Admission::HandOver(NodeId(3)));
        assert_eq!(decide([Some(99), Some(300), Some(300)]), Admission::HandOver(NodeId(2)));
        assert_eq!(decide([Some(99), Some(300), None]), Admission::HandOver(NodeId(2)));
        assert_eq!(decide([Some(99), None, None]), Admission::Control, "nobody to hand over to");
        let mut far = voters([Some(99), Some(200), Some(300)]);
        far[2].is_near = false;
        assert_eq!(admission(NodeId(1), &far, RESERVE), Admission::HandOver(NodeId(2)));
    }

    #[test]
    fn a_lone_node_pushes_back_by_itself() {
        let alone = |room| [Voter { node: NodeId(1), room_bytes: Some(room), is_near: false }];
        assert_eq!(admission(NodeId(1), &alone(100), RESERVE), Admission::Records);
        assert_eq!(admission(NodeId(1), &alone(99), RESERVE), Admission::Control);
    }
}

//! How connections end that nobody has closed: a process dies, a machine loses power, forgets, or is reset.
//!
//! Invariants: the other end learns what an operating system would tell it, and nothing else (see the table
//! of [`super`]).
//!
//! Never: leave an end behind whose machine has lost it.

use super::state::{ListenerState, State, Way};
use super::tcp::{End, EndId, Side, Stage, stale};
use madsim::task::NodeId;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

impl State {
    /// Stops listening; who waited to be accepted is reset.
    pub(super) fn stop_listening(&mut self, now_ns: u64, key: (NodeId, SocketAddr)) {
        if let Some(ListenerState { backlog, waker }) = self.listeners.remove(&key) {
            self.wakes.extend(waker);
            for id in backlog {
                self.abandon(now_ns, id);
            }
        }
    }

    fn ends_of(&self, machine: NodeId) -> Vec<EndId> {
        self.ends.iter().filter(|(_, end)| end.way.0 == machine).map(|(id, _)| *id).collect()
    }

    /// The process of a machine ended; its operating system closes what it had open.
    pub(super) fn process_died(&mut self, now_ns: u64, id: NodeId) {
        self.machine(id).epoch += 1;
        let listening = self.listeners.keys().copied().filter(|key| key.0 == id);
        for key in listening.collect::<Vec<_>>() {
            self.stop_listening(now_ns, key);
        }
        for end_id in self.ends_of(id) {
            let Some(end) = self.ends.get(&end_id) else {
                continue;
            };
            let (way, unread) = (end.way, !end.inbox.is_empty());
            if end.stage == Stage::Opening || end.broken.is_some() {
                // Nobody is told now; whoever still sends is answered with a reset.
                self.flows.remove(&end_id);
            } else if end.is_abrupt {
                self.sever(now_ns, (way, end_id), true);
            } else if unread {
                self.send_reset(now_ns, way, end_id.other());
            } else {
                self.finish(now_ns, end_id);
            }
            self.remove_end(end_id);
        }
    }

    /// From now on an end is given up together with what it has not sent.
    pub(super) fn end_abruptly(&mut self, id: EndId) -> io::Result<()> {
        let end = self.ends.get_mut(&id).ok_or_else(stale)?;
        end.is_abrupt = true;
        Ok(())
    }

    /// An end is given up: what it has not sent, or would have to send again, is gone with it.
    pub(super) fn sever(&mut self, now_ns: u64, (way, id): (Way, EndId), tell: bool) {
        self.severed.insert(id);
        if tell {
            self.send_reset(now_ns, way, id.other());
        }
        self.flows.remove(&id);
    }

    /// A machine lost power: everything is gone and nobody is told.
    pub(super) fn power_lost(&mut self, id: NodeId) {
        let machine = self.machine(id);
        machine.epoch += 1;
        machine.power_epoch += 1;
        machine.powered = false;
        let listening = self.listeners.keys().copied().filter(|key| key.0 == id);
        for key in listening.collect::<Vec<_>>() {
            if let Some(listener) = self.listeners.remove(&key) {
                self.wakes.extend(listener.waker);
            }
        }
        for end in self.ends_of(id) {
            self.forgotten.insert(end);
            self.remove_end(end);
        }
        self.flows.retain(|_, flow| flow.way.0 != id);
    }

    /// Resets every connection between two machines, at both ends and at once.
    pub(super) fn reset_between(&mut self, one: NodeId, other: NodeId) -> usize {
        let between = |end: &End| end.way == (one, other) || end.way == (other, one);
        let ends = self.ends.iter().filter(|(_, end)| between(end)).map(|(id, _)| *id);
        let ends: Vec<EndId> = ends.collect();
        for id in &ends {
            self.break_end(*id, ErrorKind::ConnectionReset);
        }
        ends.len()
    }

    /// One of the open connections between any two of these machines.
    pub(super) fn pick_between(&mut self, between: &[Way]) -> Option<u64> {
        let is_among = |end: &End| {
            let (one, other) = end.way;
            between.contains(&(one, other)) || between.contains(&(other, one))
        };
        let open = self.ends.iter().filter(|(_, end)| is_among(end) && end.broken.is_none());
        let open: BTreeSet<u64> = open.map(|(id, _)| id.connection).collect();
        let last = (open.len() as u64).checked_sub(1)?;
        let picked = usize::try_from(self.prng.between(0, last)).unwrap_or(0);
        open.into_iter().nth(picked)
    }

    /// Breaks one connection of those between any two of these machines.
    pub(super) fn reset_one_between(&mut self, between: &[Way]) -> usize {
        let Some(connection) = self.pick_between(between) else { return 0 };
        let sides = [Side::Connecting, Side::Accepting];
        let ends = sides.map(|side| EndId { connection, side });
        let there = ends.into_iter().filter(|id| self.ends.contains_key(id)).count();
        ends.into_iter().for_each(|id| self.break_end(id, ErrorKind::ConnectionReset));
        there
    }

    /// A machine forgets its connections to another, which is not told.
    pub(super) fn forget(&mut self, machine: NodeId, peer: NodeId) -> usize {
        let mut count = 0;
        for id in self.ends_of(machine) {
            if let Some(end) = self.ends.get_mut(&id)
                && end.way.1 == peer
                && end.broken.is_none()
            {
                end.silent = true;
                count += 1;
                self.severed.insert(id);
                self.break_end(id, ErrorKind::ConnectionAborted);
            }
        }
        count
    }
}

//! Connections over a line: what goes into packets, and what comes of them.
//!
//! A flow begins with the first thing that its end sends while the link is a line, goes on with the numbers
//! that were not used yet, and stays one. So a connection may have been opened before its link became a
//! line, or go on after it was one.
//!
//! Invariants: a flow whose end is gone in good order still brings over what was written; one whose end
//! broke sends nothing any more.

use super::flow::{Ack, Expired, Flow, Outgoing};
use super::state::{State, Way};
use super::tcp::{Body, EndId};
use std::io::ErrorKind;

/// Nothing beyond what is there in order.
const NO_RUNS: [(u64, u64); Ack::RUNS] = [(0, 0); Ack::RUNS];

impl State {
    /// Whether what an end sends next goes into packets.
    pub(super) fn is_flow(&self, id: EndId) -> bool {
        let is_line = |way: Way| self.link(way).line.is_some();
        let over_line = || self.ends.get(&id).is_some_and(|end| is_line(end.way));
        self.has_lines && (self.flows.contains_key(&id) || over_line())
    }

    /// Gives what an end sends to its flow, which sends it as soon as it may.
    pub(super) fn send_over_line(&mut self, now_ns: u64, id: EndId, body: Body) {
        let Some(end) = self.ends.get(&id) else { return };
        // A writer has counted its bytes already.
        let begun_bytes = end.sent_bytes - body.bytes().len() as u64;
        let (way, next, bytes) = (end.way, end.next_out, (begun_bytes, end.confirmed_bytes));
        self.flows.entry(id).or_insert_with(|| Flow::new(way, next, bytes)).push(body);
        self.transmit(now_ns, id);
    }

    /// Sends what a flow may send.
    pub(super) fn transmit(&mut self, now_ns: u64, id: EndId) {
        while let Some(flow) = self.flows.get_mut(&id) {
            let way = flow.way;
            let Some(outgoing) = flow.transmit(now_ns) else { break };
            let Outgoing { number, transmission, body, again } = outgoing;
            self.counts.resent += u64::from(again);
            self.send_packet(now_ns, (way, id.other()), (number, transmission), body);
        }
        if let Some(at_ns) = self.flows.get_mut(&id).and_then(Flow::timer_to_set) {
            self.set_timer(at_ns, id);
        }
    }

    /// Tells the other end what has arrived at this one, and how much of it was read.
    pub(super) fn acknowledge(&mut self, now_ns: u64, id: EndId, of: Option<(u64, u64)>) {
        let Some(end) = self.ends.get(&id).filter(|end| !end.is_broken()) else { return };
        let runs = Ack::runs_of(end.early.keys());
        let ack = Ack { next: end.next_in, runs, of, read_bytes: end.read_bytes };
        let way = end.way;
        self.send_packet(now_ns, (way, id.other()), (0, 0), Body::Ack(Box::new(ack)));
    }

    /// Tells whoever has sent a last packet to an end that was closed that it has come.
    pub(super) fn acknowledge_late(
        &mut self,
        now_ns: u64,
        (way, id): (Way, EndId),
        of: (u64, u64),
    ) {
        let ack = Ack { next: 0, runs: NO_RUNS, of: Some(of), read_bytes: 0 };
        self.send_packet(now_ns, (way, id.other()), (0, 0), Body::Ack(Box::new(ack)));
    }

    /// The other end says what has arrived.
    pub(super) fn acknowledged(&mut self, now_ns: u64, id: EndId, ack: &Ack) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.acknowledged(now_ns, ack);
        let (is_done, has_room) = (flow.is_done(), flow.has_much_room());
        match self.ends.get_mut(&id) {
            Some(end) if has_room => self.wakes.extend(end.writer.take()),
            None if is_done => {
                self.flows.remove(&id);
            }
            _ => {}
        }
        self.transmit(now_ns, id);
    }

    /// The timer of a flow fires.
    pub(super) fn flow_timer(&mut self, now_ns: u64, id: EndId) {
        let is_orphan = !self.ends.contains_key(&id);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let way = flow.way;
        match flow.expired(now_ns, is_orphan) {
            Some(Expired::GiveUp) => {
                self.flows.remove(&id);
                self.break_end(id, ErrorKind::TimedOut);
            }
            Some(Expired::Probe) => {
                self.send_packet(now_ns, (way, id.other()), (0, 0), Body::Probe);
            }
            Some(Expired::Transmit) | None => {}
        }
        self.transmit(now_ns, id);
    }
}

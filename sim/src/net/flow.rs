//! One direction of a connection over a line: what its sender's operating system keeps until it
//! knows that it has arrived.
//!
//! ```text
//! write ──► waiting ──transmit──► under way ──acknowledged──► gone
//!                        ▲            │ three sent later arrived, or nothing was heard for long
//!                        └─── lost ◄──┘
//! ```
//!
//! | what | as in |
//! |---|---|
//! | packets of 1,448 bytes; what is written in small pieces waits to fill one while the window is full | Ethernet, with the timestamps of RFC 7323 |
//! | each packet that arrives is acknowledged, with what arrived beside it | RFC 9293 section 3.8.6.3, RFC 2018 |
//! | how much may be under way | [`Window`], RFC 9438; counted as RFC 6675 section 4 does |
//! | a packet is lost when one that was sent three later has arrived | RFC 8985 section 6.2, with a threshold of packets instead of time: a line does not overtake |
//! | a window is made smaller once for the losses of one round trip | RFC 6582 section 3.2 |
//! | nothing heard for the retransmission timeout: all is lost, and the timeout doubles | RFC 6298, with the bounds of Linux |
//! | a closed receive window is probed | RFC 9293 section 3.8.6.1 |
//! | the send buffer has room for twice the congestion window | Linux, `tcp_sndbuf_expand` |
//! | who is never answered gives up | Linux, `tcp_retries2`, `tcp_orphan_retries` |
//!
//! Invariants: a packet waits, is under way or is lost, and is dropped from here only when the other
//! end has it; packets are numbered without holes. Nothing in here sends: it says what is to be sent.
//!
//! Left out: delayed acknowledgements, tail loss probes (with round trips as even as those of a line
//! they come no earlier than the timeout), the undoing of a reduction that was made in vain.

use super::congestion::Window;
use super::state::Way;
use super::tcp::Body;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The bytes of a packet on Ethernet: 1,500 with all headers.
const PACKET_BYTES: u64 = 1_500;

/// Headers of IPv4 and TCP, with timestamps.
pub const HEADER_BYTES: u64 = 52;

/// The bytes of the stream that one packet carries.
pub const SEGMENT_BYTES: u64 = PACKET_BYTES - HEADER_BYTES;

/// Bytes that the other end takes before its process reads them: below what Linux lets a window grow
/// to (`tcp_rmem`), and more than a line of this simulator holds.
pub const RECEIVE_BYTES: u64 = 4 << 20;

/// The most that a send buffer holds (`tcp_wmem`).
const SEND_BYTES_MAX: u64 = 4 << 20;

/// The bounds of the retransmission timeout in Linux, and what it is before the first round trip.
const TIMEOUT_MIN_NS: u64 = 200_000_000;
const TIMEOUT_MAX_NS: u64 = 120_000_000_000;
const TIMEOUT_FIRST_NS: u64 = 1_000_000_000;

/// Timeouts in a row after which a connection is given up, and one whose process has closed it.
const TIMEOUTS_MAX: u32 = 15;
const ORPHAN_TIMEOUTS_MAX: u32 = 8;

/// A packet is lost when one that was sent so many later has arrived.
const LATER_ARRIVED: u64 = 3;

/// What the receiving end says of what arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Everything before this packet is there.
    pub next: u64,
    /// Packets beyond that are there, each run from one to before another.
    pub runs: [(u64, u64); Self::RUNS],
    /// The packet that made this be said, and which transmission of it; none says that bytes were read.
    pub of: Option<(u64, u64)>,
    /// So many bytes were read.
    pub read_bytes: u64,
}

impl Ack {
    /// Runs that fit beside timestamps (RFC 2018, section 3).
    pub const RUNS: usize = 3;

    /// The highest runs of packets that arrived early.
    pub fn runs_of<'a>(
        early: impl DoubleEndedIterator<Item = &'a u64>,
    ) -> [(u64, u64); Self::RUNS] {
        let mut runs = [(0, 0); Self::RUNS];
        let mut at = 0;
        // Long runs are told again by what follows.
        for number in early.rev().take(256) {
            if let Some(run) = runs.get_mut(at)
                && run.0 == number + 1
            {
                run.0 = *number;
                continue;
            }
            at += usize::from(runs[0] != (0, 0));
            let Some(run) = runs.get_mut(at) else { break };
            *run = (*number, number + 1);
        }
        runs
    }
}

/// How long a packet and its acknowledgement take (RFC 6298, section 2).
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    smoothed_ns: Option<u64>,
    varies_ns: u64,
}

impl RoundTrip {
    fn measured(&mut self, ns: u64) {
        match self.smoothed_ns {
            None => (self.smoothed_ns, self.varies_ns) = (Some(ns), ns / 2),
            Some(smoothed_ns) => {
                self.varies_ns = (3 * self.varies_ns + smoothed_ns.abs_diff(ns)) / 4;
                self.smoothed_ns = Some((7 * smoothed_ns + ns) / 8);
            }
        }
    }

    fn timeout_ns(&self, doubled: u32) -> u64 {
        let once_ns = self
            .smoothed_ns
            .map_or(TIMEOUT_FIRST_NS, |ns| ns + (4 * self.varies_ns).max(TIMEOUT_MIN_NS));
        once_ns.saturating_mul(1 << doubled.min(32)).min(TIMEOUT_MAX_NS)
    }
}

/// A packet that was sent and is not known to have arrived.
struct Sent {
    body: Body,
    /// Which transmission it was last; none if that is lost.
    under_way: Option<u64>,
}

/// What follows on a loss, until everything is there that was sent before it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recovery {
    until: u64,
    /// The window may grow meanwhile: it began with a timeout.
    grows: bool,
}

/// What came of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// There is something to send.
    Transmit,
    /// The other end has no room; it is asked whether it has.
    Probe,
    /// The other end is not there.
    GiveUp,
}

/// A packet that is to be sent.
pub struct Outgoing {
    pub number: u64,
    /// Which transmission this is.
    pub transmission: u64,
    pub body: Body,
    /// Whether it was sent before.
    pub again: bool,
}

/// One direction of a connection over a line.
pub struct Flow {
    pub way: Way,
    waiting: VecDeque<Body>,
    waiting_bytes: u64,
    /// The number of the first that waits.
    next: u64,
    sent: BTreeMap<u64, Sent>,
    sent_bytes: u64,
    /// What is under way, by transmission: its number, and when it was sent.
    under_way: BTreeMap<u64, (u64, u64)>,
    lost: BTreeSet<u64>,
    next_transmission: u64,
    arrived_transmission: Option<u64>,
    /// Bytes that were sent at least once, and that the process at the other end has read.
    begun_bytes: u64,
    read_bytes: u64,
    window: Window,
    /// Whether the window was what held the sender back.
    is_full: bool,
    recovery: Option<Recovery>,
    round_trip: RoundTrip,
    timeouts: u32,
    last_sent_ns: u64,
    deadline_ns: Option<u64>,
    /// When the timer that is set will fire.
    timer_ns: Option<u64>,
}

fn len(body: &Body) -> u64 {
    body.bytes().len() as u64
}

impl Flow {
    /// A flow whose first packet has a number; so many bytes went before it, and were read.
    pub fn new(way: Way, next: u64, (begun_bytes, read_bytes): (u64, u64)) -> Self {
        Self {
            way,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            next,
            sent: BTreeMap::new(),
            sent_bytes: 0,
            under_way: BTreeMap::new(),
            lost: BTreeSet::new(),
            next_transmission: 0,
            arrived_transmission: None,
            begun_bytes,
            read_bytes,
            window: Window::default(),
            is_full: false,
            recovery: None,
            round_trip: RoundTrip::default(),
            timeouts: 0,
            last_sent_ns: 0,
            deadline_ns: None,
            timer_ns: None,
        }
    }

    /// Bytes that it holds at most.
    fn send_buffer_bytes(&self) -> u64 {
        let packets = self.window.packets().max(super::congestion::INITIAL_PACKETS as u64);
        (2 * packets * SEGMENT_BYTES).min(SEND_BYTES_MAX)
    }

    /// Bytes that it takes now.
    pub fn room_bytes(&self) -> u64 {
        self.send_buffer_bytes().saturating_sub(self.waiting_bytes + self.sent_bytes)
    }

    /// Whether a writer that waits is woken: not for every packet.
    pub fn has_much_room(&self) -> bool {
        self.room_bytes() * 3 >= self.send_buffer_bytes()
    }

    /// Everything has arrived.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// Takes what is to be sent, in packets.
    pub fn push(&mut self, body: Body) {
        let Body::Data(mut bytes) = body else {
            self.waiting.push_back(body);
            return;
        };
        self.waiting_bytes += bytes.len() as u64;
        let whole = SEGMENT_BYTES as usize;
        if let Some(Body::Data(last)) = self.waiting.back_mut()
            && last.len() < whole
        {
            let more = bytes.split_to(bytes.len().min(whole - last.len()));
            *last = Bytes::from([&last[..], &more[..]].concat());
        }
        while !bytes.is_empty() {
            let packet = bytes.split_to(bytes.len().min(whole));
            self.waiting.push_back(Body::Data(packet));
        }
    }

    /// The next packet that may be sent now.
    pub fn transmit(&mut self, now_ns: u64) -> Option<Outgoing> {
        let quiet_ns = now_ns.saturating_sub(self.last_sent_ns);
        if self.sent.is_empty() && quiet_ns > self.round_trip.timeout_ns(0) {
            self.window.idle();
        }
        if self.under_way.len() as u64 >= self.window.packets() {
            self.is_full = !self.lost.is_empty() || !self.waiting.is_empty();
            return None;
        }
        let (number, again) = match self.lost.pop_first() {
            Some(number) => (number, true),
            None => (self.begin(now_ns)?, false),
        };
        let transmission = self.next_transmission;
        self.next_transmission += 1;
        self.under_way.insert(transmission, (number, now_ns));
        self.last_sent_ns = now_ns;
        if self.deadline_ns.is_none() {
            self.set_deadline(now_ns);
        }
        let sent = self.sent.get_mut(&number).expect("what is lost or begins is among the sent");
        sent.under_way = Some(transmission);
        Some(Outgoing { number, transmission, body: sent.body.clone(), again })
    }

    /// Takes the first that waits among the sent, if the other end has room for it.
    fn begin(&mut self, now_ns: u64) -> Option<u64> {
        let bytes = len(self.waiting.front()?);
        if self.begun_bytes + bytes > self.read_bytes + RECEIVE_BYTES {
            // Nothing that is under way would tell when there is room.
            if self.sent.is_empty() && self.deadline_ns.is_none() {
                self.set_deadline(now_ns);
            }
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.begun_bytes += bytes;
        self.waiting_bytes -= bytes;
        self.sent_bytes += bytes;
        let body = self.waiting.pop_front()?;
        self.sent.insert(number, Sent { body, under_way: None });
        Some(number)
    }

    fn set_deadline(&mut self, now_ns: u64) {
        self.deadline_ns = Some(now_ns.saturating_add(self.round_trip.timeout_ns(self.timeouts)));
    }

    /// The time for which a timer is to be set, if there is none before it.
    pub fn timer_to_set(&mut self) -> Option<u64> {
        let deadline_ns = self.deadline_ns?;
        let is_set = self.timer_ns.is_some_and(|timer_ns| timer_ns <= deadline_ns);
        if is_set {
            return None;
        }
        self.timer_ns = Some(deadline_ns);
        Some(deadline_ns)
    }

    /// The process at the other end has read so much.
    pub fn read(&mut self, bytes: u64) {
        self.read_bytes = self.read_bytes.max(bytes);
    }

    /// The other end says what has arrived.
    pub fn acknowledged(&mut self, now_ns: u64, ack: &Ack) {
        self.read(ack.read_bytes);
        if let Some((_, transmission)) = ack.of {
            // Of a packet that was sent again meanwhile there is nothing to measure.
            if let Some((_, sent_ns)) = self.under_way.get(&transmission) {
                self.round_trip.measured(now_ns - sent_ns);
            }
            self.arrived_transmission = self.arrived_transmission.max(Some(transmission));
        }
        let mut arrived: Vec<u64> =
            self.sent.range(..ack.next).map(|(number, _)| *number).collect();
        for (from, to) in ack.runs {
            arrived.extend(self.sent.range(from..to.max(from)).map(|(number, _)| *number));
        }
        arrived.extend(ack.of.map(|(number, _)| number));
        let count = arrived.into_iter().filter(|number| self.arrived(*number)).count() as u64;
        self.notice_losses();
        if self.recovery.is_some_and(|recovery| ack.next >= recovery.until) {
            self.recovery = None;
        }
        if count > 0 {
            self.timeouts = 0;
            self.deadline_ns = None;
            if !self.sent.is_empty() {
                self.set_deadline(now_ns);
            }
            if self.is_full && self.recovery.is_none_or(|recovery| recovery.grows) {
                let round_trip_ns = self.round_trip.smoothed_ns.unwrap_or(TIMEOUT_FIRST_NS);
                self.window.arrived(count, now_ns, round_trip_ns);
            }
            self.is_full = false;
        } else if self.sent.is_empty() {
            // The other end has answered, so it is there, whether it has room or not.
            self.timeouts = 0;
            self.deadline_ns = None;
        }
    }

    /// A packet has arrived. `false` if that was known.
    fn arrived(&mut self, number: u64) -> bool {
        let Some(sent) = self.sent.remove(&number) else { return false };
        self.sent_bytes -= len(&sent.body);
        self.lost.remove(&number);
        if let Some(transmission) = sent.under_way {
            self.under_way.remove(&transmission);
        }
        true
    }

    /// What was sent well before something that arrived is lost.
    fn notice_losses(&mut self) {
        let Some(arrived) = self.arrived_transmission else { return };
        let mut noticed = None;
        while let Some(first) = self.under_way.first_entry() {
            if first.key() + LATER_ARRIVED > arrived {
                break;
            }
            let (number, _) = first.remove();
            self.lose(number);
            noticed = Some(number);
        }
        if noticed.is_some() && self.recovery.is_none() {
            self.window.lost();
            self.recovery = Some(Recovery { until: self.next, grows: false });
        }
    }

    fn lose(&mut self, number: u64) {
        let sent = self.sent.get_mut(&number).expect("what is under way is among the sent");
        sent.under_way = None;
        self.lost.insert(number);
    }

    /// The timer fires. `None` if there is nothing to do yet.
    pub fn expired(&mut self, now_ns: u64, is_orphan: bool) -> Option<Expired> {
        if self.timer_ns.take_if(|timer_ns| *timer_ns <= now_ns).is_none()
            || self.deadline_ns.is_none_or(|deadline_ns| deadline_ns > now_ns)
        {
            return None;
        }
        self.deadline_ns = None;
        if self.timeouts >= if is_orphan { ORPHAN_TIMEOUTS_MAX } else { TIMEOUTS_MAX } {
            return Some(Expired::GiveUp);
        }
        self.timeouts += 1;
        if self.sent.is_empty() {
            self.set_deadline(now_ns);
            return Some(Expired::Probe);
        }
        // Once for a row of timeouts (RFC 5681, section 3.1).
        if self.timeouts == 1 {
            self.window.timed_out(self.sent.len() as u64);
        }
        for (number, _) in std::mem::take(&mut self.under_way).into_values() {
            self.lose(number);
        }
        self.recovery = Some(Recovery { until: self.next, grows: true });
        self.is_full = true;
        self.set_deadline(now_ns);
        Some(Expired::Transmit)
    }
}

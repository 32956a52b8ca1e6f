//! Connections: what an operating system does with the segments that reach it.
//!
//! A connection has two ends with the same number, the connecting and the accepting one. Every
//! direction numbers its segments; what arrives early waits for what was lost before it.
//!
//! ```text
//! connecting end        accepting end
//!     │ ── 0 Open ────────► │  somebody listens: the end exists, not accepted yet
//!     │ ◄──────── Opened 0 ─│  connect() returns
//!     │ ── 1 Confirm ─────► │  into the backlog of the listener; accept() returns it
//!     │ ── 2.. Data ──────► │
//!     │ ◄────── Window ──── │  bytes were read: more may be sent
//!     │ ── n Finish ──────► │  this direction ends
//!     │ ◄───── Reset ────── │  the end is not there (any more)
//! ```
//!
//! Invariants: bytes come out in the order in which they went in, each once, or the connection
//! breaks. At most `window_bytes` of a direction are sent and not read.
//!
//! Over a line what an end sends goes through a [`Flow`](super::flow::Flow) (`packets.rs`).
//!
//! Left out on purpose: keep-alives, and, where there is no line, the give-up timers of TCP, which are
//! far longer than any timeout of the node.

use super::flow::{Ack, RECEIVE_BYTES};
use super::state::{Segment, State, Way};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

/// The bytes that one call sends at most.
const SEGMENT_BYTES_MAX: u64 = 64 << 10;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one that connected.
    Connecting,
    /// The one that accepted.
    Accepting,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndId {
    /// The number of the connection.
    pub connection: u64,
    /// Which of its ends.
    pub side: Side,
}

impl EndId {
    /// The other end.
    pub fn other(self) -> Self {
        let side = match self.side {
            Side::Connecting => Side::Accepting,
            Side::Accepting => Side::Connecting,
        };
        Self { side, ..self }
    }
}

/// What a segment says.
#[derive(Clone, Debug)]
pub enum Body {
    /// A wish to connect to an address, from one.
    Open { to: SocketAddr, from: SocketAddr },
    /// The wish is granted.
    Opened,
    /// The connecting end knows.
    Confirm,
    /// Bytes.
    Data(Bytes),
    /// So many bytes have been read.
    Window(u64),
    /// No more bytes.
    Finish,
    /// There is no such connection.
    Reset,
    /// These packets are there.
    Ack(Box<Ack>),
    /// Is there room again?
    Probe,
}

impl Body {
    /// A number for the trace.
    pub fn code(&self) -> u64 {
        match self {
            Self::Open { .. } => 1,
            Self::Opened => 2,
            Self::Confirm => 3,
            Self::Data(_) => 4,
            Self::Window(_) => 5,
            Self::Finish => 6,
            Self::Reset => 7,
            Self::Ack(_) => 8,
            Self::Probe => 9,
        }
    }

    /// The bytes in it.
    pub fn bytes(&self) -> &[u8] {
        if let Self::Data(bytes) = self { bytes } else { &[] }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Open,
}

/// One end of a connection, as its operating system keeps it.
pub struct End {
    pub(super) way: Way,
    pub(super) remote: SocketAddr,
    pub(super) stage: Stage,
    /// The listener's address, for an accepting end.
    pub(super) listener: Option<SocketAddr>,
    /// When the wish to connect came, for an accepting end.
    pub(super) opened_ns: u64,

    pub(super) inbox: VecDeque<Bytes>,
    finished: bool,
    pub(super) next_in: u64,
    pub(super) early: BTreeMap<u64, (Body, u64)>,
    pub(super) read_bytes: u64,
    announced_bytes: u64,
    /// Whether packets come in, which are to be acknowledged.
    pub(super) in_packets: bool,

    pub(super) next_out: u64,
    pub(super) sent_bytes: u64,
    pub(super) confirmed_bytes: u64,
    finish_sent: bool,

    pub(super) broken: Option<ErrorKind>,
    /// Broken without telling the other end.
    pub(super) silent: bool,
    /// What has not left when it ends is dropped.
    pub(super) is_abrupt: bool,
    reader_open: bool,
    writer_open: bool,
    reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl End {
    pub(super) fn new(way: Way, remote: SocketAddr) -> Self {
        Self {
            way,
            remote,
            stage: Stage::Opening,
            listener: None,
            opened_ns: 0,
            inbox: VecDeque::new(),
            finished: false,
            next_in: 0,
            early: BTreeMap::new(),
            read_bytes: 0,
            announced_bytes: 0,
            in_packets: false,
            next_out: 0,
            sent_bytes: 0,
            confirmed_bytes: 0,
            finish_sent: false,
            broken: None,
            silent: false,
            is_abrupt: false,
            reader_open: true,
            writer_open: true,
            reader: None,
            writer: None,
        }
    }

    /// Whether it has broken.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

/// The error of a handle that belongs to an earlier life of its machine.
pub fn stale() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "the process of this socket has ended")
}

impl State {
    fn wake_end(&mut self, id: EndId) {
        if let Some(end) = self.ends.get_mut(&id) {
            let wakers = [end.reader.take(), end.writer.take()];
            self.wakes.extend(wakers.into_iter().flatten());
        }
    }

    /// Takes an end away; its handles turn stale.
    pub(super) fn remove_end(&mut self, id: EndId) {
        self.wake_end(id);
        self.ends.remove(&id);
    }

    /// Sends the next numbered segment of an end.
    pub(super) fn send_next(&mut self, now_ns: u64, id: EndId, body: Body) {
        if self.is_flow(id) {
            self.send_over_line(now_ns, id, body);
            return;
        }
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        let (way, seq) = (end.way, end.next_out);
        end.next_out += 1;
        self.send(now_ns, way, id.other(), (seq, body));
    }

    pub(super) fn send_reset(&mut self, now_ns: u64, way: Way, to: EndId) {
        if self.flows.remove(&to.other()).is_some() || self.link(way).line.is_some() {
            self.send_packet(now_ns, (way, to), (0, 0), Body::Reset);
        } else {
            self.send(now_ns, way, to, (0, Body::Reset));
        }
    }

    /// Breaks an end for its own machine.
    pub(super) fn break_end(&mut self, id: EndId, how: ErrorKind) {
        self.flows.remove(&id);
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        if end.broken.is_none() {
            end.broken = Some(how);
            self.counts.resets += u64::from(how == ErrorKind::ConnectionReset);
        }
        self.wake_end(id);
    }

    /// A segment reaches a machine that has power.
    pub(super) fn arrive(&mut self, now_ns: u64, segment: Segment) {
        let Segment { way, to, seq, body, packet, transmission, left_ns, .. } = segment;
        let transmission = packet.then_some(transmission);
        match body {
            Body::Open { to: address, from } => {
                // A packet may come twice.
                if !self.ends.contains_key(&to) {
                    self.arrive_open(now_ns, way, to, (address, from));
                }
                if let Some(transmission) = transmission {
                    self.acknowledge(now_ns, to, Some((seq, transmission)));
                }
            }
            Body::Ack(ack) => self.acknowledged(now_ns, to, &ack),
            Body::Probe => self.acknowledge(now_ns, to, None),
            Body::Window(read_bytes) => {
                if let Some(flow) = self.flows.get_mut(&to) {
                    flow.read(read_bytes);
                    self.transmit(now_ns, to);
                }
                if let Some(end) = self.ends.get_mut(&to) {
                    end.confirmed_bytes = end.confirmed_bytes.max(read_bytes);
                    self.wakes.extend(end.writer.take());
                }
            }
            Body::Reset => {
                let opening = self.ends.get(&to).is_some_and(|end| end.stage == Stage::Opening);
                let refused = opening && to.side == Side::Connecting;
                self.counts.refused += u64::from(refused);
                self.break_end(
                    to,
                    if refused { ErrorKind::ConnectionRefused } else { ErrorKind::ConnectionReset },
                );
            }
            body => {
                let numbered = (seq, (body, left_ns));
                self.arrive_numbered(now_ns, ((way.1, way.0), to), numbered, transmission);
            }
        }
    }

    fn arrive_numbered(
        &mut self,
        now_ns: u64,
        (back, id): (Way, EndId),
        (seq, (body, left_ns)): (u64, (Body, u64)),
        transmission: Option<u64>,
    ) {
        let Some(end) = self.ends.get_mut(&id) else {
            // Whoever closed an end in good order still knows what a last segment means.
            if !matches!(body, Body::Finish) || self.forgotten.contains(&id) {
                self.send_reset(now_ns, back, id.other());
            } else if let Some(transmission) = transmission {
                self.acknowledge_late(now_ns, (back, id), (seq, transmission));
            }
            return;
        };
        if end.broken.is_some() {
            if end.silent {
                self.send_reset(now_ns, back, id.other());
            }
            return;
        }
        // A packet may come twice.
        if seq >= end.next_in {
            end.early.insert(seq, (body, left_ns));
        }
        end.in_packets |= transmission.is_some();
        while let Some((body, left_ns)) = self.ends.get_mut(&id).and_then(|end| {
            let body = end.early.remove(&end.next_in)?;
            end.next_in += 1;
            Some(body)
        }) {
            if let Some(line) = self.overheard.get(&id.other())
                && let Some(ear) = self.ear.as_ref()
            {
                ear.hears(*line, body.bytes(), left_ns);
            }
            self.accept_in_order(now_ns, id, body);
        }
        if let Some(transmission) = transmission {
            self.acknowledge(now_ns, id, Some((seq, transmission)));
        }
    }

    fn accept_in_order(&mut self, now_ns: u64, id: EndId, body: Body) {
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        match body {
            Body::Opened => {
                end.stage = Stage::Open;
                self.wakes.extend(end.writer.take());
                self.send_next(now_ns, id, Body::Confirm);
            }
            Body::Confirm => {
                end.stage = Stage::Open;
                let back = end.way;
                let key = end.listener.map(|address| (end.way.0, address));
                match key.and_then(|key| self.listeners.get_mut(&key)) {
                    Some(listener) => {
                        listener.backlog.push_back(id);
                        self.wakes.extend(listener.waker.take());
                        self.counts.connections += 1;
                    }
                    None => {
                        self.remove_end(id);
                        self.send_reset(now_ns, back, id.other());
                    }
                }
            }
            Body::Data(bytes) => {
                let (way, count) = ((end.way.1, end.way.0), bytes.len() as u64);
                end.inbox.push_back(bytes);
                self.wakes.extend(end.reader.take());
                self.counts.messages += 1;
                self.counts.bytes += count;
                self.delivered(way, count);
            }
            Body::Finish => {
                end.finished = true;
                self.wakes.extend(end.reader.take());
            }
            Body::Open { .. } | Body::Window(_) | Body::Reset | Body::Ack(_) | Body::Probe => {
                unreachable!("handled where it arrives")
            }
        }
    }

    /// Reads what is there.
    pub(super) fn poll_read(
        &mut self,
        now_ns: u64,
        id: EndId,
        cx: &Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let window_bytes = self.window_bytes;
        let Some(end) = self.ends.get_mut(&id) else {
            return Poll::Ready(Err(stale()));
        };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        while buffer.remaining() > 0
            && let Some(mut bytes) = end.inbox.pop_front()
        {
            let taken = bytes.split_to(bytes.len().min(buffer.remaining()));
            buffer.put_slice(&taken);
            if !bytes.is_empty() {
                end.inbox.push_front(bytes);
            }
        }
        let read = (buffer.filled().len() - before) as u64;
        if read == 0 {
            if end.finished {
                return Poll::Ready(Ok(()));
            }
            if let Some(how) = end.broken {
                return Poll::Ready(Err(io::Error::from(how)));
            }
            end.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        end.read_bytes += read;
        let window_bytes = if end.in_packets { RECEIVE_BYTES } else { window_bytes };
        // Not after every read: the other end only needs to know before its window closes.
        if end.read_bytes - end.announced_bytes >= window_bytes / 4 && !end.finished {
            end.announced_bytes = end.read_bytes;
            let (way, announced) = (end.way, end.read_bytes);
            if end.in_packets {
                self.acknowledge(now_ns, id, None);
            } else if end.broken.is_none() {
                self.send(now_ns, way, id.other(), (0, Body::Window(announced)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends as much as the window takes.
    pub(super) fn poll_write(
        &mut self,
        now_ns: u64,
        id: EndId,
        cx: &Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let window_bytes = self.window_bytes;
        let Some(end) = self.ends.get_mut(&id) else {
            return Poll::Ready(Err(stale()));
        };
        if let Some(how) = end.broken {
            // To a machine that has seen the end of the other direction, a reset is a broken pipe.
            let how = if end.finished { ErrorKind::BrokenPipe } else { how };
            return Poll::Ready(Err(io::Error::from(how)));
        }
        if end.finish_sent {
            return Poll::Ready(Err(io::Error::from(ErrorKind::BrokenPipe)));
        }
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let under_way = end.sent_bytes - end.confirmed_bytes;
        let room = match self.flows.get(&id) {
            Some(flow) => flow.room_bytes(),
            None => window_bytes.saturating_sub(under_way),
        };
        let room = room.min(SEGMENT_BYTES_MAX);
        if room == 0 {
            end.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = wanted.min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut segment = Vec::with_capacity(count);
        for piece in pieces {
            let taken = piece.len().min(count - segment.len());
            segment.extend_from_slice(&piece[..taken]);
        }
        end.sent_bytes += count as u64;
        let (way, port) = (end.way, end.listener.map_or(end.remote.port(), |at| at.port()));
        self.given(now_ns, way, port, count as u64);
        self.send_next(now_ns, id, Body::Data(segment.into()));
        Poll::Ready(Ok(count))
    }

    /// Ends the sending direction.
    pub(super) fn finish(&mut self, now_ns: u64, id: EndId) {
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        if !end.finish_sent && end.broken.is_none() {
            end.finish_sent = true;
            self.send_next(now_ns, id, Body::Finish);
        }
    }

    /// A handle of an end was dropped.
    pub(super) fn close_half(&mut self, now_ns: u64, id: EndId, is_writer: bool) {
        let is_abrupt = self.ends.get(&id).is_some_and(|end| end.is_abrupt);
        if is_writer && !is_abrupt {
            self.finish(now_ns, id);
        }
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        if is_writer {
            end.writer_open = false;
        } else {
            end.reader_open = false;
        }
        if end.reader_open || end.writer_open {
            return;
        }
        let is_up = end.broken.is_none();
        let (way, unread) = (end.way, !end.inbox.is_empty() && is_up);
        if end.silent {
            self.forgotten.insert(id);
        }
        self.remove_end(id);
        if is_abrupt {
            self.sever(now_ns, (way, id), is_up);
            return;
        }
        self.flows.retain(|of, flow| *of != id || !flow.is_done());
        if unread {
            // RFC 2525, section 2.17: whoever sent it learns that it was not read.
            self.send_reset(now_ns, way, id.other());
        }
    }
}

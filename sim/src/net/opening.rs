//! How connections begin: the wish to connect, its answer, and wishes that come to nothing.
//!
//! Invariants: a connection is in the backlog of its listener once both ends know of it, and counts
//! against the backlog from the moment its wish is granted until it is accepted or forgotten.
//!
//! Never: answer for a machine that nobody has, or wait for a confirmation without end.

use super::state::{State, Way};
use super::tcp::{Body, End, EndId, Side, Stage, stale};
use fulmar_host::net::BACKLOG;
use madsim::task::NodeId;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

/// How long a granted wish to connect waits for the other end: Linux sends its answer again after 1, 2, 4,
/// 8 and 16 seconds (`tcp_synack_retries` is 5) and forgets the wish 32 seconds later.
const UNCONFIRMED_NS: u64 = 63_000_000_000;

impl State {
    /// Begins a connection.
    pub(super) fn connect(
        &mut self,
        now_ns: u64,
        from: NodeId,
        to: SocketAddr,
    ) -> io::Result<Option<EndId>> {
        let local_ip = if to.ip().is_loopback() {
            match to.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            }
        } else {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4();
            let own = self.machine(from).addresses.iter().find(same_family).copied();
            own.ok_or_else(|| io::Error::from(ErrorKind::AddrNotAvailable))?
        };
        let local = SocketAddr::new(local_ip, self.free_port(from)?);
        let Some(owner) = self.owner(from, to.ip()) else {
            // No machine has this address, so nobody ever answers.
            return Ok(None);
        };
        let id = EndId { connection: self.next_connection, side: Side::Connecting };
        self.next_connection += 1;
        self.ends.insert(id, End::new((from, owner), to));
        self.send_next(now_ns, id, Body::Open { to, from: local });
        Ok(Some(id))
    }

    /// Whether a connection is established.
    pub(super) fn poll_connect(&mut self, id: EndId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(end) = self.ends.get_mut(&id) else {
            return Poll::Ready(Err(stale()));
        };
        if let Some(how) = end.broken {
            return Poll::Ready(Err(io::Error::from(how)));
        }
        if end.stage == Stage::Open {
            return Poll::Ready(Ok(()));
        }
        end.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A wish to connect reaches a machine that has power.
    pub(super) fn arrive_open(
        &mut self,
        now_ns: u64,
        way: Way,
        id: EndId,
        (to, from): (SocketAddr, SocketAddr),
    ) {
        let back = (way.1, way.0);
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bound = [to, SocketAddr::new(any, to.port())]
            .into_iter()
            .find(|address| self.listeners.contains_key(&(way.1, *address)));
        self.forget_unconfirmed(now_ns, way.1);
        let open = bound.and_then(|bound| {
            let listener = self.listeners.get(&(way.1, bound))?;
            let waiting = self.ends.values().filter(|end| {
                end.listener == Some(bound) && end.way.0 == way.1 && end.stage == Stage::Opening
            });
            (listener.backlog.len() + waiting.count() < BACKLOG as usize).then_some(bound)
        });
        let Some(bound) = open.filter(|_| !self.turns_away(way)) else {
            self.send_reset(now_ns, back, id.other());
            return;
        };
        let mut end = End::new(back, from);
        end.listener = Some(bound);
        end.opened_ns = now_ns;
        end.next_in = 1;
        self.ends.insert(id, end);
        self.send_next(now_ns, id, Body::Opened);
    }

    /// Gives up the wishes to connect that their other end has not confirmed in time: while only one
    /// direction is cut they keep coming, and must not fill the backlog for ever.
    fn forget_unconfirmed(&mut self, now_ns: u64, machine: NodeId) {
        let ends = self.ends.iter().filter(|(_, end)| {
            end.way.0 == machine
                && end.listener.is_some()
                && end.stage == Stage::Opening
                && now_ns - end.opened_ns >= UNCONFIRMED_NS
        });
        for id in ends.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove_end(id);
            self.flows.remove(&id);
        }
    }

    /// Gives up a connection that was not established or not accepted.
    pub(super) fn abandon(&mut self, now_ns: u64, id: EndId) {
        let Some(end) = self.ends.get(&id) else {
            return;
        };
        let (way, tell) = (end.way, end.stage == Stage::Open && end.broken.is_none());
        self.remove_end(id);
        self.flows.remove(&id);
        if tell {
            self.send_reset(now_ns, way, id.other());
        }
    }
}

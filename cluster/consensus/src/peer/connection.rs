//! A connection between two nodes, from the handshake on.
//!
//! ```text
//! dialling node                         listening node
//!   hello {magic, version, site,  -->
//!          from, incarnation, to}
//!                                 <--   welcome {incarnation} | refused {reason}
//!   requests ...                  -->
//!                                 <--   answers, in the order of the requests
//! ```
//!
//! Invariants: no request is read before the handshake has been accepted; a node that was wiped
//! (another incarnation than the site knows) is refused by both sides; every refusal has a name
//! and is reported.
//!
//! Never: take a vote or an entry from a node of another site.

use super::frame::{self, Frame, FrameReader};
use super::message::{self, Hello, MAGIC, PROTOCOL_VERSION, Purpose, Refusal, Welcome, kind};
use crate::catch_up::CatchUp;
use crate::lease::{EarlierGrant, Lease};
use crate::space::Space;
use bytes::Bytes;
use fulmar_host::net::{Connection, PeerIdentity, WriteHalf};
use fulmar_host::time::{self, Instant};
use fulmar_host::{Host, planted};
use fulmar_store::Life;
use fulmar_types::config::certificate_name;
use fulmar_types::{Event, ExitCode, Incarnation, NodeId, Plant, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use thiserror::Error;

/// What all connections of a node share.
pub struct PeerContext {
    /// The outside world.
    pub host: Host,
    /// This node.
    pub node: NodeId,
    /// Where the nodes of the site listen, this one included.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The name of the site.
    pub site_name: String,
    /// The segment size, which must be the same everywhere.
    pub segment_bytes: u64,
    /// How long a connection attempt with its handshake may take.
    pub dial_timeout: Duration,
    /// How long a peer may owe an answer before the connection is given up.
    pub stall_timeout: Duration,
    /// What the peers have granted to this node as a leader.
    pub(crate) lease: Arc<Lease>,
    /// What an earlier life of this node may have granted.
    pub(crate) earlier_grant: EarlierGrant,
    /// What the first leader since the start has said.
    pub(crate) catch_up: CatchUp,
    /// The term of the leader that spoke to this node last, and when it did.
    pub(crate) heard: Mutex<Option<(Term, Instant)>>,
    /// The room on the disks of the site.
    pub space: Arc<Space>,
    /// What the handshake compares.
    pub acquaintance: Mutex<Life>,
    /// The nodes that refuse this one as a stranger, and since when.
    pub(crate) refused_by: Mutex<BTreeMap<NodeId, Instant>>,
    /// The nodes that cannot be reached.
    pub(crate) unreachable: Mutex<BTreeMap<NodeId, Missed>>,
}

/// Attempts in a row to reach a node that came to nothing.
pub(crate) struct Missed {
    first: Instant,
    latest: Instant,
}

impl PeerContext {
    /// A copy of what the handshake compares.
    pub fn acquaintance(&self) -> Life {
        self.acquaintance.lock().expect("no holder of this lock panics").clone()
    }

    /// Replaces what the handshake compares.
    pub fn acquaint(&self, acquaintance: Life) {
        *self.acquaintance.lock().expect("no holder of this lock panics") = acquaintance;
    }

    /// From now on no lease that this node has granted is longer.
    pub fn grants(&self, lease_ms: u64) {
        self.acquaintance.lock().expect("no holder of this lock panics").lease_ms = lease_ms;
    }

    /// From now on these lives take part, and no others.
    pub fn members(&self, known: BTreeMap<NodeId, Incarnation>) {
        self.acquaintance.lock().expect("no holder of this lock panics").known = known;
    }
}

/// Why no connection came about.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nobody answered, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The deadline passed.
    #[error("no answer in time")]
    Timeout,
    /// One side refused the other.
    #[error("refused: {}", .0.name())]
    Refused(Refusal),
    /// The configuration has no such node.
    #[error("node {0} is not in the configuration")]
    Unknown(NodeId),
}

/// An accepted connection.
pub struct PeerConnection {
    /// Frames from the peer.
    pub reader: FrameReader,
    /// Frames to the peer.
    pub writer: WriteHalf,
}

impl PeerConnection {
    /// Sends one message.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn send<T: Serialize>(
        &mut self,
        kind: u8,
        message: &T,
        body: &[Bytes],
    ) -> io::Result<()> {
        frame::write(&mut self.writer, kind, &message::encode(message), body).await
    }

    /// Receives the next frame.
    ///
    /// # Errors
    /// If the connection broke or ended.
    pub async fn receive(&mut self) -> io::Result<Frame> {
        self.reader.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Asks and waits for the answer, at most for `limit`.
    ///
    /// # Errors
    /// If the connection broke, or the deadline passed (`TimedOut`); it is of no use afterwards.
    pub async fn ask<T: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: u8,
        message: &T,
        limit: Duration,
    ) -> io::Result<A> {
        self.ask_with(kind, message, &[], limit).await
    }

    /// Asks with bulk data and waits for the answer, at most for `limit`.
    ///
    /// # Errors
    /// If the connection broke, or the deadline passed (`TimedOut`); it is of no use afterwards.
    pub async fn ask_with<T: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: u8,
        message: &T,
        body: &[Bytes],
        limit: Duration,
    ) -> io::Result<A> {
        let exchange = async {
            self.send(kind, message, body).await?;
            self.expect(kind).await
        };
        in_time(limit, exchange).await
    }

    /// Waits for another answer to the last question, at most for `limit`.
    ///
    /// # Errors
    /// If the connection broke, or the deadline passed (`TimedOut`); it is of no use afterwards.
    pub async fn answer<A: DeserializeOwned>(
        &mut self,
        kind: u8,
        limit: Duration,
    ) -> io::Result<A> {
        in_time(limit, self.expect(kind)).await
    }

    async fn expect<A: DeserializeOwned>(&mut self, kind: u8) -> io::Result<A> {
        let answer = self.receive().await?;
        if answer.kind != kind {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a peer answered another question",
            ));
        }
        message::decode(&answer.head)
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    time::timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Connects to a node and shakes hands.
///
/// # Errors
/// If nobody answers in time, or one side refuses the other.
pub async fn dial(
    context: &PeerContext,
    to: NodeId,
    purpose: Purpose,
) -> Result<PeerConnection, DialError> {
    let address = *context.addresses.get(&to).ok_or(DialError::Unknown(to))?;
    let mut answered = None;
    let attempt = async {
        let Connection { peer, reader, writer, .. } = context.host.peers.connect(address).await?;
        if !proves(peer.names.as_deref(), &context.site_name, to) {
            return Err(DialError::Refused(Refusal::OtherCertificate));
        }
        let mut connection = PeerConnection { reader: FrameReader::new(reader), writer };
        let me = context.acquaintance();
        let hello = Hello {
            magic: MAGIC,
            version: PROTOCOL_VERSION,
            features: 0,
            purpose,
            site: me.site,
            from: context.node,
            incarnation: me.incarnation,
            to,
            segment_bytes: context.segment_bytes,
            lease_ms: context.lease.length_ms(),
        };
        connection.send(kind::HELLO, &hello, &[]).await?;
        let answer: Welcome = message::decode(&connection.receive().await?.head)?;
        answered = Some(answer.clone());
        match answer {
            Welcome::Refused(reason) => Err(DialError::Refused(reason)),
            Welcome::Accepted { incarnation, .. } => {
                // One who rejoins may have heard of the others long ago; they decide.
                if purpose != Purpose::Rejoin && is_stranger(&me, to, incarnation) {
                    return Err(DialError::Refused(Refusal::OtherIncarnation));
                }
                Ok(connection)
            }
        }
    };
    let outcome = time::timeout(context.dial_timeout, attempt).await;
    let outcome = outcome.unwrap_or(Err(DialError::Timeout));
    match &outcome {
        Err(DialError::Timeout) => context.missed(to, address, io::ErrorKind::TimedOut),
        Err(DialError::Io(error)) => context.missed(to, address, error.kind()),
        Ok(_) | Err(DialError::Refused(_) | DialError::Unknown(_)) => context.reached(to),
    }
    if let Some(answer) = answered {
        context.noted(to, answer).await;
    }
    if let Err(DialError::Refused(reason)) = &outcome {
        context.host.report(Event::PeerRefused { peer: Some(to), reason: reason.name() });
    }
    outcome
}

/// A node that cannot be reached for so long is worth a word: it has not just been started again.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);

/// A node that all others have refused as a stranger for so long is one.
const STRANGER_AFTER: Duration = Duration::from_secs(10);

impl PeerContext {
    /// Notes that a node could not be reached.
    fn missed(&self, peer: NodeId, address: SocketAddr, error: io::ErrorKind) {
        let now = time::now();
        let first = {
            let mut unreachable = self.unreachable();
            let missed = unreachable.entry(peer).or_insert(Missed { first: now, latest: now });
            // A follower seldom calls; what it missed last month says nothing.
            if missed.latest.elapsed() >= UNREACHABLE_AFTER {
                missed.first = now;
            }
            missed.latest = now;
            missed.first
        };
        if first.elapsed() >= UNREACHABLE_AFTER {
            self.host.report(Event::PeerUnreachable { peer, address, error });
        }
    }

    /// Notes that a node was reached.
    fn reached(&self, peer: NodeId) {
        let missed = self.unreachable().remove(&peer);
        let long = |missed: Missed| missed.latest - missed.first >= UNREACHABLE_AFTER;
        if missed.is_some_and(long) {
            self.host.report(Event::PeerReached { peer });
        }
    }

    fn unreachable(&self) -> MutexGuard<'_, BTreeMap<NodeId, Missed>> {
        self.unreachable.lock().expect("no holder of this lock panics")
    }

    /// Notes how a node answered the handshake. Ends this process if all the others have refused it
    /// for a while because its directory is not the one that belongs here: it will never take part,
    /// and would stand in the way of clients until somebody looks.
    async fn noted(&self, by: NodeId, answer: Welcome) {
        let reason = match answer {
            Welcome::Refused(reason @ (Refusal::OtherSite | Refusal::OtherIncarnation)) => reason,
            _ => {
                self.refusals().remove(&by);
                return;
            }
        };
        let by_all = {
            let mut refusals = self.refusals();
            refusals.entry(by).or_insert_with(time::now);
            let mut others = self.addresses.keys().filter(|node| **node != self.node);
            let long = |since: &Instant| since.elapsed() >= STRANGER_AFTER;
            others.all(|node| refusals.get(node).is_some_and(long))
        };
        if by_all {
            let message = format!(
                "node {} is refused by all other nodes of its site: {}. Its directory belongs to \
                 another site, or to an earlier life of this node that `fulmar rejoin` has \
                 replaced. Put the right directory in its place.",
                self.node,
                reason.name()
            );
            self.host.fatal(ExitCode::Identity, message).await
        }
    }

    fn refusals(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.refused_by.lock().expect("no holder of this lock panics")
    }
}

/// Whether somebody with these names is that node of the site. Where nobody proves anything, everybody
/// is who he says.
fn proves(names: Option<&[String]>, site: &str, node: NodeId) -> bool {
    let expected = certificate_name(site, node);
    names.is_none_or(|names| names.contains(&expected))
}

/// Whether a node is not the one that takes part under this id. Before there is a site nobody is.
fn is_stranger(me: &Life, node: NodeId, incarnation: Incarnation) -> bool {
    if planted(Plant::WipedNodeVotes) {
        return false;
    }
    me.site.is_some() && me.known.get(&node) != Some(&incarnation)
}

/// What a node compares with the configuration of who says hello.
struct Local<'a> {
    node: NodeId,
    site_name: &'a str,
    addresses: &'a BTreeMap<NodeId, SocketAddr>,
    segment_bytes: u64,
    lease_ms: u64,
}

impl PeerContext {
    fn local(&self) -> Local<'_> {
        Local {
            node: self.node,
            site_name: &self.site_name,
            addresses: &self.addresses,
            segment_bytes: self.segment_bytes,
            lease_ms: self.lease.length_ms(),
        }
    }
}

fn judge(local: &Local<'_>, me: &Life, peer: &PeerIdentity, hello: &Hello) -> Result<(), Refusal> {
    if !proves(peer.names.as_deref(), local.site_name, hello.from) {
        return Err(Refusal::OtherCertificate);
    }
    if hello.to != local.node {
        return Err(Refusal::OtherNode);
    }
    if hello.from == local.node || !local.addresses.contains_key(&hello.from) {
        return Err(Refusal::UnknownNode);
    }
    if hello.segment_bytes != local.segment_bytes {
        return Err(Refusal::SegmentSize);
    }
    if hello.lease_ms != local.lease_ms {
        return Err(Refusal::LeaseLength);
    }
    match (me.site, hello.site) {
        (Some(mine), Some(theirs)) if mine != theirs => return Err(Refusal::OtherSite),
        // Until both belong to the site, they may only introduce themselves.
        (None, _) | (_, None) if !matches!(hello.purpose, Purpose::Control | Purpose::Rejoin) => {
            return Err(Refusal::NoSiteYet);
        }
        (None, _) if hello.purpose == Purpose::Rejoin => return Err(Refusal::NoSiteYet),
        _ => {}
    }
    // Who asks to rejoin is a stranger: the leader decides with the log whether it may.
    if hello.purpose != Purpose::Rejoin && is_stranger(me, hello.from, hello.incarnation) {
        return Err(Refusal::OtherIncarnation);
    }
    Ok(())
}

/// Shakes hands with whoever connected.
///
/// # Errors
/// If the connection broke, nothing came in time, or the peer was refused.
pub async fn welcome(
    context: &Arc<PeerContext>,
    connection: Connection,
) -> Result<(PeerConnection, Hello), DialError> {
    let Connection { peer, reader, writer, .. } = connection;
    let mut connection = PeerConnection { reader: FrameReader::of_stranger(reader), writer };
    let greeting = async {
        let frame = connection.receive().await?;
        if frame.kind != kind::HELLO {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a peer did not say hello"));
        }
        Hello::read(&frame.head)
    };
    let hello =
        time::timeout(context.dial_timeout, greeting).await.map_err(|_| DialError::Timeout)??;
    let me = context.acquaintance();
    let from = hello.as_ref().ok().map(|hello| hello.from);
    let verdict =
        hello.and_then(|hello| judge(&context.local(), &me, &peer, &hello).map(|()| hello));
    let answer = match &verdict {
        Ok(_) => Welcome::Accepted { features: 0, incarnation: me.incarnation },
        Err(reason) => Welcome::Refused(*reason),
    };
    let sent = time::timeout(context.dial_timeout, connection.send(kind::HELLO, &answer, &[]));
    sent.await.map_err(|_| DialError::Timeout)??;
    match verdict {
        Ok(hello) => {
            connection.reader.acquainted();
            Ok((connection, hello))
        }
        Err(reason) => {
            context.host.report(Event::PeerRefused { peer: from, reason: reason.name() });
            Err(DialError::Refused(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::{SiteId, Uuid};

    #[test]
    fn every_difference_is_refused_by_its_name() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = (1..=3).map(|id| (NodeId(id), at)).collect();
        let local = Local {
            node: NodeId(1),
            site_name: "north",
            addresses: &addresses,
            segment_bytes: 64,
            lease_ms: 600,
        };
        let of = |names: Option<&[&str]>| PeerIdentity {
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            ..PeerIdentity::unproved(at)
        };
        let (site, life) = (Some(SiteId(Uuid([1; 16]))), |n| Incarnation(Uuid([n; 16])));
        let known = (1..=3).map(|id| (NodeId(id), life(id as u8))).collect();
        let me = Life { site, known, ..Life::new(life(1)) };
        let hello_of = |peer: &PeerIdentity, change: &dyn Fn(&mut Hello)| {
            let mut hello = Hello {
                magic: MAGIC,
                version: PROTOCOL_VERSION,
                features: 0,
                purpose: Purpose::Append,
                site,
                from: NodeId(2),
                incarnation: life(2),
                to: NodeId(1),
                segment_bytes: 64,
                lease_ms: 600,
            };
            change(&mut hello);
            let read = Hello::read(&message::encode(&hello)).expect("a greeting");
            read.and_then(|hello| judge(&local, &me, peer, &hello)).map_err(Refusal::name)
        };
        let hello = |change: &dyn Fn(&mut Hello)| hello_of(&of(None), change);
        assert_eq!(hello(&|_| {}), Ok(()));
        assert_eq!(hello(&|h| h.magic += 1), Err("not-fulmar"));
        assert_eq!(hello(&|h| h.version += 1), Err("protocol-version"));
        assert_eq!(hello(&|h| h.site = Some(SiteId(Uuid([2; 16])))), Err("other-site"));
        assert_eq!(hello(&|h| h.to = NodeId(3)), Err("other-node"));
        assert_eq!(hello(&|h| h.from = NodeId(1)), Err("unknown-node"));
        assert_eq!(hello(&|h| h.from = NodeId(4)), Err("unknown-node"));
        assert_eq!(hello(&|h| h.incarnation = life(9)), Err("other-incarnation"));
        assert_eq!(hello(&|h| h.segment_bytes = 32), Err("segment-size"));
        assert_eq!(hello(&|h| h.lease_ms = 3_000), Err("lease-length"));
        assert_eq!(hello(&|h| h.site = None), Err("no-site-yet"));
        let named = |names: &[&str]| hello_of(&of(Some(names)), &|_| {});
        assert_eq!(named(&["node-2.north"]), Ok(()));
        assert_eq!(named(&["box.example", "node-2.north"]), Ok(()));
        let others: [&[&str]; 4] =
            [&[], &["node-3.north"], &["node-2.south"], &["node-2.north.example"]];
        for names in others {
            assert_eq!(named(names), Err("certificate-of-another-node"), "{names:?}");
        }
        // Another version has other fields behind the first two.
        for version in [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, u16::MAX] {
            let read = Hello::read(&message::encode(&(MAGIC, version, "other")));
            assert_eq!(read.expect("a greeting"), Err(Refusal::Version));
        }
        assert!(Hello::read(&message::encode(&(MAGIC, PROTOCOL_VERSION, "other"))).is_err());
        assert!(Hello::read(&[]).is_err());
    }
}

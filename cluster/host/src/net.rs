//! Sockets, as a node sees them: ordered byte streams that can break at any time.
//!
//! Invariants: both halves of a connection fail once it is reset; a half that was shut down reads
//! as end of stream on the other side. `connect` and `accept` return who the peer is; whether that
//! is proved, and whether what is said is encrypted, is a property of the [`Network`] that a caller
//! was given, so that no caller can forget it. Between sites it is the caller who knows whom to
//! trust, and a [`LinkNetwork`] that tells him whether he may; and what was written there need not leave
//! any more once the caller has given up the connection ([`Abrupt`]).
//!
//! Never: assume that a write which returned has arrived, or that it has left before a flush.

use crate::BoxFuture;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// Connections that may wait to be accepted, per listener. The kernel drops a call beyond that, and
/// the caller tries again after a second: with the usual 128 a site whose clients all come back at
/// once, as they do when the leader changes, would lose that second. The kernel may allow fewer
/// (`net.core.somaxconn`).
pub const BACKLOG: u32 = 4_096;

/// The receiving half of a connection.
pub type ReadHalf = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The sending half of a connection. Dropping it closes the direction.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What is known about the other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its address.
    pub address: SocketAddr,
    /// The names in its certificate; `None` where nobody shows any. A [`Network`] has proved them; on
    /// a connection between sites they count once [`LinkNetwork::judge`] has.
    pub names: Option<Vec<String>>,
    /// What its certificate calls it for people (the common name), if it says so and [`Self::names`] are
    /// proved. Nobody is let in for it.
    pub common_name: Option<String>,
    /// The certificates that it showed, its own first, where somebody else is to judge them.
    pub shown: Vec<Vec<u8>>,
}

impl PeerIdentity {
    /// Somebody of whom nothing is known but the address.
    pub const fn unproved(address: SocketAddr) -> Self {
        Self { address, names: None, common_name: None, shown: Vec::new() }
    }
}

/// Why somebody's certificate does not prove who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distrust {
    /// Another authority signed it than the one that is trusted.
    OtherAuthority,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for another use than to be a node.
    OtherUse,
    /// It is another node's, or another site's.
    OtherNode,
    /// He showed none.
    Missing,
    /// It is none, or one that is not understood.
    Malformed,
}

impl Distrust {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OtherAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::OtherUse,
        Self::OtherNode,
        Self::Missing,
        Self::Malformed,
    ];

    /// Its name, as it stands in the log and in the runbook.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherAuthority => "certificate-of-another-authority",
            Self::Expired => "certificate-expired",
            Self::NotYetValid => "certificate-not-yet-valid",
            Self::OtherUse => "certificate-for-another-use",
            Self::OtherNode => "certificate-of-another-node",
            Self::Missing => "certificate-missing",
            Self::Malformed => "certificate-malformed",
        }
    }
}

/// How a connection between sites comes to its end.
pub trait Abrupt: Send + Sync {
    /// From now on the connection ends abruptly, with its halves or with the process: what has not left
    /// this machine by then is dropped, nothing is sent again, and the other side is told by a reset,
    /// if that reaches it.
    ///
    /// # Errors
    /// If the connection is not there any more.
    fn end_abruptly(&self) -> io::Result<()>;
}

/// An established connection.
pub struct Connection {
    /// Who is on the other side.
    pub peer: PeerIdentity,
    /// Bytes from the other side.
    pub reader: ReadHalf,
    /// Bytes to the other side.
    pub writer: WriteHalf,
    /// What makes it end abruptly; every connection of a [`LinkNetwork`] has it, and no other one.
    pub abrupt: Option<Box<dyn Abrupt>>,
}

/// Listening and connecting.
pub trait Network: Send + Sync {
    /// Listens on an address.
    ///
    /// # Errors
    /// If the address is in use or not of this machine.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to an address. The caller brings its own deadline: behind a cut this may take
    /// for ever.
    ///
    /// # Errors
    /// If the other side refuses.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>>;

    /// Connects to the first address of a name, `host:port`, that answers. Looking a name up may
    /// take many seconds.
    ///
    /// # Errors
    /// As [`Self::connect`]; `NotFound` if the name is not known, or whoever knows it does not
    /// answer. A network that has no names knows none.
    fn connect_to_name<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

/// The network between sites. Whom a connection belongs to is known only when he has said which site
/// he is of, so whoever has asked him judges what he showed.
pub trait LinkNetwork: Network {
    /// Whether the certificates of authorities, one behind the other, can be pinned here.
    ///
    /// # Errors
    /// For people: why they cannot, or why this machine has no links at all.
    fn check_authority(&self, authority: &[u8]) -> Result<(), String>;

    /// Whether one of these authorities vouches for what the other side showed, now, and for a node.
    /// Its names count from then on.
    ///
    /// # Errors
    /// Why not.
    fn judge(&self, peer: &PeerIdentity, authority: &[u8]) -> Result<(), Distrust>;
}

/// A listening socket. Dropping it stops the listening.
pub trait Listener: Send + Sync {
    /// The next connection.
    ///
    /// # Errors
    /// If the listening socket broke, or the process has no descriptors left; the caller may try
    /// again after a pause.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;

    /// The address that is listened on.
    fn local_address(&self) -> SocketAddr;
}

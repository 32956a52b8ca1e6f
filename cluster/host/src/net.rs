//! Sockets, as a node sees them: ordered byte streams that can break at any time.
//!
//! Invariants: both halves of a connection fail once it is reset; a half that was shut down reads
//! as end of stream on the other side. `connect` and `accept` return who the peer is; whether that
//! is proved, and whether what is said is encrypted, is a property of the [`Network`] that a caller
//! was given, so that no caller can forget it.
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
    /// The names that its certificate proves; `None` where nobody proves anything.
    pub names: Option<Vec<String>>,
}

/// An established connection.
pub struct Connection {
    /// Who is on the other side.
    pub peer: PeerIdentity,
    /// Bytes from the other side.
    pub reader: ReadHalf,
    /// Bytes to the other side.
    pub writer: WriteHalf,
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

    /// Whether there is such a network at all.
    fn is_there(&self) -> bool {
        true
    }

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

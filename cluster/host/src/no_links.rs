//! The network between sites of a machine that cannot prove who it is.
//!
//! Never: a link on which nobody has proved who he is.

use crate::BoxFuture;
use crate::net::{Connection, Distrust, LinkNetwork, Listener, Network, PeerIdentity};
use std::io;
use std::net::SocketAddr;

/// What is missing.
const NO_KEYS: &str = "links to other sites need keys: a table `[tls]` in the configuration of this \
                       site";

/// Refuses to listen and to connect.
pub struct NoLinks;

fn refused<'a, T: Send + 'a>() -> BoxFuture<'a, io::Result<T>> {
    Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, NO_KEYS)) })
}

impl Network for NoLinks {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        refused()
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        refused()
    }
}

impl LinkNetwork for NoLinks {
    fn check_authority(&self, _: &[u8]) -> Result<(), String> {
        Err(NO_KEYS.to_owned())
    }

    fn judge(&self, _: &PeerIdentity, _: &[u8]) -> Result<(), Distrust> {
        Err(Distrust::Missing)
    }
}

//! The network between sites of a machine on which there is none yet.
//!
//! Never: a link on which nobody has proved who he is. Sites cannot do that yet, so links are refused.

use crate::BoxFuture;
use crate::net::{Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;

/// Refuses to listen and to connect.
pub(super) struct NoLinks;

fn refused<'a, T: Send + 'a>() -> BoxFuture<'a, io::Result<T>> {
    Box::pin(async {
        let text = "links between sites are not served on real machines yet";
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    })
}

impl Network for NoLinks {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        refused()
    }

    fn is_there(&self) -> bool {
        false
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        refused()
    }
}

//! TCP.
//!
//! Invariant: `TCP_NODELAY` is set on every connection, on both sides. Left out on the accepting
//! side it costs 40 ms per answer (Nagle's algorithm against delayed acknowledgements), which no
//! simulation shows.

use crate::BoxFuture;
use crate::net::{BACKLOG, Connection, Listener, Network, PeerIdentity};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The network of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNetwork;

/// The addresses of `host:port`, where the host may be a name. It may block for many seconds, so it
/// is for a command line that is being read, and not for a node.
///
/// # Errors
/// If the name is not known, or whoever knows it does not answer.
pub fn look_up(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(host_and_port.to_socket_addrs()?.collect())
}

/// `address` is the one that the socket itself names as its peer's.
fn connection(stream: TcpStream, address: SocketAddr) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok(Connection {
        peer: PeerIdentity { address, name: None },
        reader: Box::new(reader),
        writer: Box::new(writer),
    })
}

impl Network for RealNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // A node can restart while old connections linger.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok(Box::new(RealListener { socket, address }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { connection(TcpStream::connect(address).await?, address) })
    }
}

struct RealListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener for RealListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            loop {
                let (stream, address) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    // The peer gave up while it waited in the queue: no fault of the listener.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(error) => return Err(error),
                };
                // A connection that was reset before it could be set up is none at all.
                if let Ok(connection) = connection(stream, address) {
                    return Ok(connection);
                }
            }
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

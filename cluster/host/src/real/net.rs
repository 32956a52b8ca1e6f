//! TCP.
//!
//! Invariants: `TCP_NODELAY` is set on every connection, on both sides. Left out on the accepting
//! side it costs 40 ms per answer (Nagle's algorithm against delayed acknowledgements), which no
//! simulation shows. A connection never has itself for its peer, and never keeps a node from
//! listening.

use crate::BoxFuture;
use crate::net::{BACKLOG, Connection, Listener, Network, PeerIdentity};
use crate::time::{self, Duration};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long one address of a name may take before the next is tried.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(3);

/// The network of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNetwork;

/// A new connection to the first address of `host:port` that answers, and that address.
pub(super) async fn dial_name(host_and_port: &str) -> io::Result<(TcpStream, SocketAddr)> {
    // The system's error has a kind of its own, which nobody could tell from others.
    let addresses = tokio::net::lookup_host(host_and_port).await;
    let mut last = io::ErrorKind::NotFound.into();
    for address in addresses.map_err(|_| io::Error::from(io::ErrorKind::NotFound))? {
        match time::timeout(NEXT_ADDRESS_AFTER, dial(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = error,
            Err(time::Elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// A new connection to an address.
pub(super) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_for(address)?;
    // The port that the system lends to this connection may be one that a node is about to
    // listen on; with this its listener is let in beside us.
    socket.set_reuseaddr(true)?;
    let stream = socket.connect(address).await?;
    refuse_itself(&stream)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Network for RealNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(RealListener(Accepting::on(address)?)) as Box<dyn Listener>) },
        )
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { Ok(connection(dial(address).await?, address)) })
    }

    fn connect_to_name<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, address) = dial_name(name).await?;
            Ok(connection(stream, address))
        })
    }
}

/// `address` is the one that the socket itself names as its peer's.
fn connection(stream: TcpStream, address: SocketAddr) -> Connection {
    let (reader, writer) = stream.into_split();
    Connection {
        peer: PeerIdentity::unproved(address),
        reader: Box::new(reader),
        writer: Box::new(writer),
        abrupt: None,
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// A connection to a port that nobody listens on reaches itself if the system lends it that very
/// port (the simultaneous open of RFC 9293, section 3.5). Kept up it would hold the port against
/// the node that it was meant for.
fn refuse_itself(stream: &TcpStream) -> io::Result<()> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nobody listens there; the connection reached itself",
        ));
    }
    Ok(())
}

/// A listening socket.
pub(super) struct Accepting {
    socket: TcpListener,
    address: SocketAddr,
}

impl Accepting {
    pub(super) fn on(address: SocketAddr) -> io::Result<Self> {
        let socket = socket_for(address)?;
        // A node can restart while old connections linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, and where it comes from.
    pub(super) async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let (stream, address) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                // The peer gave up while it waited in the queue: no fault of the listener.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            // A connection that was reset before it could be set up is none at all.
            if stream.set_nodelay(true).is_ok() {
                return Ok((stream, address));
            }
        }
    }
}

struct RealListener(Accepting);

impl Listener for RealListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, address) = self.0.next().await?;
            Ok(connection(stream, address))
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.0.address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// A port that nobody listens on, held by a socket that may be asked to connect from it.
    fn bound() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of every socket");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("loopback has a free port");
        let address = socket.local_addr().expect("it is bound");
        (socket, address)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn a_name_leads_to_whoever_listens_there_or_is_not_found() {
        block_on(async {
            let mut listener = RealNetwork
                .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
                .await
                .expect("loopback has a free port");
            let at = listener.local_address();
            // The name may stand for an address of IPv6 too, where nobody listens.
            let name = format!("localhost:{}", at.port());
            let connected = RealNetwork.connect_to_name(&name).await.expect("somebody listens");
            assert_eq!(connected.peer.address, at);
            listener.accept().await.expect("it was called");
            let unknown = RealNetwork.connect_to_name("no.such.name.invalid:1").await;
            assert_eq!(unknown.map(|_| ()).expect_err("reserved").kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn a_connection_to_itself_is_refused_and_its_port_can_be_listened_on() {
        block_on(async {
            let (socket, address) = bound();
            let stream = socket.connect(address).await.expect("a simultaneous open");
            let refused = refuse_itself(&stream).expect_err("nobody listens");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            // While it is there, and while the system remembers that it was.
            drop(RealNetwork.listen(address).await.expect("the port is lent, not taken"));
            drop(stream);
            RealNetwork.listen(address).await.expect("nobody listens there");
        });
    }

    #[test]
    fn a_connection_does_not_keep_a_node_from_listening_on_the_port_lent_to_it() {
        block_on(async {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut listener = RealNetwork.listen(any).await.expect("a free port");
            let at = listener.local_address();
            let _client = RealNetwork.connect(at).await.expect("it listens");
            let lent = listener.accept().await.expect("the client").peer.address;
            RealNetwork.listen(lent).await.expect("the port is lent, not taken");
        });
    }
}

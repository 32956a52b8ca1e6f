//! The sockets of one machine, as `fulmar_host::net` wants them.
//!
//! Invariant: the lock of the network is never held while a waker is woken or dropped.

use super::Shared;
use super::state::ListenerState;
use super::tcp::{EndId, stale};
use fulmar_host::BoxFuture;
use fulmar_host::net::{Abrupt, Connection, Listener, Network, PeerIdentity};
use madsim::task::NodeId;
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The network of one life of one machine.
pub struct SimNetwork {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: NodeId,
    pub(super) epoch: u64,
}

impl SimNetwork {
    pub(super) fn listen_now(&self, address: SocketAddr) -> io::Result<SimListener> {
        let address = self.shared.with(|state, _| {
            if state.machine(self.machine).epoch != self.epoch {
                return Err(stale());
            }
            let own = address.ip().is_unspecified()
                || state.owner(self.machine, address.ip()) == Some(self.machine);
            if !own {
                return Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
            }
            let mut address = address;
            if address.port() == 0 {
                address.set_port(state.free_port(self.machine)?);
            }
            let conflicts = |(node, other): &(NodeId, SocketAddr)| {
                *node == self.machine
                    && other.port() == address.port()
                    && (other.ip() == address.ip()
                        || other.ip().is_unspecified()
                        || address.ip().is_unspecified())
            };
            if state.listeners.keys().any(conflicts) {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            let listener = ListenerState { backlog: VecDeque::new(), waker: None };
            state.listeners.insert((self.machine, address), listener);
            Ok(address)
        })?;
        Ok(SimListener {
            shared: Arc::clone(&self.shared),
            machine: self.machine,
            epoch: self.epoch,
            address,
        })
    }

    /// A new connection to an address.
    pub(super) async fn establish(&self, address: SocketAddr) -> io::Result<EndId> {
        let begun = self.shared.with(|state, now_ns| {
            if state.machine(self.machine).epoch != self.epoch {
                return Err(stale());
            }
            state.connect(now_ns, self.machine, address)
        })?;
        let Some(id) = begun else {
            return pending().await;
        };
        let opening = Opening { shared: &self.shared, id: Some(id) };
        poll_fn(|cx| self.shared.with(|state, _| state.poll_connect(id, cx))).await?;
        Ok(opening.established())
    }
}

impl Network for SimNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(self.listen_now(address)?) as Box<dyn Listener>) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let id = self.establish(address).await?;
            Ok(connection(&self.shared, id, address))
        })
    }
}

/// A connection that is not established yet; dropping it gives it up.
struct Opening<'a> {
    shared: &'a Shared,
    id: Option<EndId>,
}

impl Opening<'_> {
    fn established(mut self) -> EndId {
        self.id.take().expect("taken only here, which consumes the guard")
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.with(|state, now_ns| state.abandon(now_ns, id));
        }
    }
}

pub(super) fn connection(shared: &Arc<Shared>, id: EndId, address: SocketAddr) -> Connection {
    Connection {
        peer: PeerIdentity::unproved(address),
        reader: Box::new(SimReader { shared: Arc::clone(shared), id }),
        writer: Box::new(SimWriter { shared: Arc::clone(shared), id }),
        abrupt: None,
    }
}

/// What makes a connection end abruptly.
pub(super) struct SimAbrupt {
    pub(super) shared: Arc<Shared>,
    pub(super) id: EndId,
}

impl Abrupt for SimAbrupt {
    fn end_abruptly(&self) -> io::Result<()> {
        self.shared.with(|state, _| state.end_abruptly(self.id))
    }
}

/// A listening socket of a machine.
pub(super) struct SimListener {
    shared: Arc<Shared>,
    machine: NodeId,
    epoch: u64,
    address: SocketAddr,
}

impl SimListener {
    /// The next connection that waits, and who called.
    pub(super) fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(EndId, SocketAddr)>> {
        self.shared.with(|state, _| {
            if state.machine(self.machine).epoch != self.epoch {
                return Poll::Ready(Err(stale()));
            }
            let key = (self.machine, self.address);
            let Some(listener) = state.listeners.get_mut(&key) else {
                return Poll::Ready(Err(stale()));
            };
            while let Some(id) = listener.backlog.pop_front() {
                if let Some(end) = state.ends.get(&id) {
                    return Poll::Ready(Ok((id, end.remote)));
                }
            }
            listener.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let (id, address) = poll_fn(|cx| self.poll_accept(cx)).await?;
            Ok(connection(&self.shared, id, address))
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.shared.with(|state, now_ns| {
            // A listener of a later life may have the same address.
            if state.machine(self.machine).epoch == self.epoch {
                state.stop_listening(now_ns, (self.machine, self.address));
            }
        });
    }
}

struct SimReader {
    shared: Arc<Shared>,
    id: EndId,
}

impl AsyncRead for SimReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.shared.with(|state, now_ns| state.poll_read(now_ns, self.id, cx, buffer))
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.shared.with(|state, now_ns| state.close_half(now_ns, self.id, false));
    }
}

struct SimWriter {
    shared: Arc<Shared>,
    id: EndId,
}

impl AsyncWrite for SimWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.with(|state, now_ns| state.poll_write(now_ns, self.id, cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As with a socket: what was written is with the operating system already.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|state, now_ns| state.finish(now_ns, self.id));
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.shared.with(|state, now_ns| state.close_half(now_ns, self.id, true));
    }
}

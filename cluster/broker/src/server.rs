//! Connections of Kafka clients: frames in, frames out, in order.
//!
//! ```text
//! socket -> reader: cut frames, decode, start ---- futures, at most 64 ---> writer -> socket
//! ```
//!
//! The reader starts requests in their order, and only Produce does something at that moment; the
//! writer awaits the futures in the same order. So responses leave in the order of the requests,
//! produce requests are pipelined, and everything else is served as if one by one.
//!
//! Invariants: connections, requests and their bytes are bounded for the node and per connection;
//! nothing is reserved for bytes that were only announced; a connection that stalls in the middle
//! of a frame is closed. What cannot be answered ends its connection and nothing else.

mod connection;
mod room;

pub(crate) use room::Room as RequestRoom;

#[cfg(test)]
mod tests;

use crate::broker::Broker;
use connection::serve;
use fulmar_host::net::Listener;
use fulmar_host::task::{self, Owned};
use fulmar_host::time;
use fulmar_types::Event;
use fulmar_types::limits::CLIENT_CONNECTIONS_MAX;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The pause after a failed accept: the process may be out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening broker. Dropping it closes the listener and every connection.
pub struct Server {
    address: SocketAddr,
    _acceptor: Owned<()>,
}

impl Server {
    /// Listens on the address of the settings.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(broker: Arc<Broker>) -> std::io::Result<Self> {
        let listener = broker.host.network.listen(broker.settings.listen).await?;
        Ok(Self::with_listener(broker, listener))
    }

    /// Serves the connections of a listener.
    pub fn with_listener(broker: Arc<Broker>, listener: Box<dyn Listener>) -> Self {
        let address = listener.local_address();
        Self { address, _acceptor: task::spawn_owned(accept(broker, listener)) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(broker: Arc<Broker>, mut listener: Box<dyn Listener>) {
    let slots = Arc::new(Semaphore::new(CLIENT_CONNECTIONS_MAX));
    let mut connections = Connections(Vec::new());
    loop {
        let connection = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        broker.counters.connections.add(1);
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            // Kafka closes what is too much as well (max.connections): the client tries another.
            tracing::warn!(peer = %connection.peer.address, "too many connections");
            broker.counters.connections_refused.add(1);
            broker.counters.connections_ended.add(1);
            continue;
        };
        let (host, served) = (broker.host.clone(), Served(broker.clone()));
        connections.0.retain(|task| !task.is_finished());
        connections.0.push(task::spawn(async move {
            serve(&served.0, connection).await;
            drop((slot, served));
        }));
        // Those that are served, and not the slots that are taken, of which there are never more.
        let (depth, bound) = (connections.0.len() as u64, CLIENT_CONNECTIONS_MAX as u64);
        host.report(Event::QueueDepth { queue: "client connections", depth, bound });
    }
}

/// Somebody who is served, until he is not any more, whatever ends it.
struct Served(Arc<Broker>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.counters.connections_ended.add(1);
    }
}

/// The tasks of the connections, which end when this is dropped.
struct Connections(Vec<task::JoinHandle<()>>);

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(|task| task.abort());
    }
}

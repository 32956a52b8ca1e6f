//! A machine in memory: connections between tests and brokers, a clock, and nothing else.

use fulmar_host::clock::Clock;
use fulmar_host::disk::{DirectoryLock, Disk, File, Listed, Open};
use fulmar_host::net::{Connection, Distrust, LinkNetwork, Listener, Network, PeerIdentity};
use fulmar_host::process::Process;
use fulmar_host::time::{self, Instant};
use fulmar_host::{BoxFuture, Host, Observer};
use fulmar_types::ExitCode;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Bytes that a connection holds in each direction.
const PIPE_BYTES: usize = 64 * 1024;

/// Connections in memory. A clone is the same network.
#[derive(Clone, Default)]
pub(crate) struct Pipes(Arc<Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Connection>>>>);

struct PipeListener {
    address: SocketAddr,
    connections: mpsc::UnboundedReceiver<Connection>,
}

fn half(pipe: tokio::io::DuplexStream, address: SocketAddr) -> Connection {
    let (reader, writer) = tokio::io::split(pipe);
    let peer = PeerIdentity::unproved(address);
    Connection { peer, reader: Box::new(reader), writer: Box::new(writer), abrupt: None }
}

impl Network for Pipes {
    fn listen(&self, wanted: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let mut listeners = self.0.lock().expect("no test panics in here");
        let port = u16::try_from(10_000 + listeners.len()).expect("few listeners");
        let address = SocketAddr::new(wanted.ip(), port);
        let (sender, connections) = mpsc::unbounded_channel();
        listeners.insert(address, sender);
        Box::pin(
            async move { Ok(Box::new(PipeListener { address, connections }) as Box<dyn Listener>) },
        )
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        let (here, there) = tokio::io::duplex(PIPE_BYTES);
        let listeners = self.0.lock().expect("no test panics in here");
        let accepted = listeners
            .get(&address)
            .is_some_and(|listener| listener.send(half(there, address)).is_ok());
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let connection = if accepted { Ok(half(here, address)) } else { Err(refused()) };
        Box::pin(std::future::ready(connection))
    }
}

impl LinkNetwork for Pipes {
    fn check_authority(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn judge(&self, _: &PeerIdentity, _: &[u8]) -> Result<(), Distrust> {
        Err(Distrust::Missing)
    }
}

impl Listener for PipeListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            self.connections.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

/// A clock that began when the test did.
struct TestClock(Instant);

impl Clock for TestClock {
    fn wall_ms(&self) -> u64 {
        let passed = time::now().saturating_duration_since(self.0);
        1_700_000_000_000 + u64::try_from(passed.as_millis()).unwrap_or(0)
    }
}

struct TestProcess;

impl Process for TestProcess {
    fn exit(&self, code: ExitCode, message: &str) {
        panic!("the node ended with {code:?}: {message}");
    }
}

/// The broker has no business with a disk.
struct NoDisk;

fn none<T: Send + 'static>() -> BoxFuture<'static, io::Result<T>> {
    Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
}

impl Disk for NoDisk {
    fn open<'a>(&'a self, _: &'a Path, _: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        none()
    }
    fn rename<'a>(&'a self, _: &'a Path, _: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        none()
    }
    fn remove<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        none()
    }
    fn list<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<Vec<Listed>>> {
        none()
    }
    fn create_dir<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        none()
    }
    fn sync_dir<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        none()
    }
    fn free_bytes<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u64>> {
        none()
    }
    fn lock<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<Box<dyn DirectoryLock>>> {
        none()
    }
}

/// The machine of a broker on a network.
pub(crate) fn host(network: Pipes, observer: Arc<dyn Observer>) -> Host {
    let network = Arc::new(network);
    Host {
        http: network.clone(),
        peers: network.clone(),
        links: network.clone(),
        network,
        disk: Arc::new(NoDisk),
        clock: Arc::new(TestClock(time::now())),
        process: Arc::new(TestProcess),
        observer,
    }
}

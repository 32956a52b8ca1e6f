//! The line between the two sites of the demo, which can be cut.
//!
//! Each node of one site gets a place of its own on loopback, and what comes there is passed on to it
//! and back, unread: it is TLS.
//!
//! Invariant: while the line is cut nothing passes, and whoever dials is turned away.

use fulmar_host::net::{Connection, Listener, Network, ReadHalf, WriteHalf};
use fulmar_host::task::{self, Owned};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, copy};
use tokio::sync::watch;

/// A line to the nodes of a site.
pub struct Line {
    /// Where the other side dials.
    pub places: Vec<String>,
    is_cut: watch::Sender<bool>,
    _passing: Vec<Owned<()>>,
}

impl Line {
    /// A line to these places.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn to(network: Arc<dyn Network>, ends: Vec<SocketAddr>) -> io::Result<Self> {
        let (is_cut, cut) = watch::channel(false);
        let (mut places, mut passing) = (Vec::new(), Vec::new());
        for end in ends {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = network.listen(any).await?;
            places.push(listener.local_address().to_string());
            passing.push(task::spawn_owned(pass(network.clone(), listener, end, cut.clone())));
        }
        Ok(Self { places, is_cut, _passing: passing })
    }

    /// Cuts the line, and what is on it.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn pass(
    network: Arc<dyn Network>,
    mut listener: Box<dyn Listener>,
    end: SocketAddr,
    cut: watch::Receiver<bool>,
) {
    while let Ok(near) = listener.accept().await {
        if *cut.borrow() {
            continue;
        }
        let (network, mut cut) = (network.clone(), cut.clone());
        task::spawn(async move {
            let Ok(far) = network.connect(end).await else { return };
            tokio::select! {
                biased;
                _ = cut.wait_for(|is_cut| *is_cut) => {}
                () = both_ways(near, far) => {}
            }
        });
    }
}

async fn both_ways(near: Connection, far: Connection) {
    let one_way = async |mut from: ReadHalf, mut to: WriteHalf| {
        // Whoever closes his side has said all.
        let _ = copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(one_way(near.reader, far.writer), one_way(far.reader, near.writer));
}

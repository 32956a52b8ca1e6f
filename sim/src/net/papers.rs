//! Who a machine can prove to be: what stands in for certificates between sites.
//!
//! Invariant: papers belong to a machine and are shown by whoever speaks from its address, so nobody can
//! show those of another one; whether they are good is found out by who judges them, and not before.

use super::socket::{SimAbrupt, SimListener, connection};
use super::tcp::EndId;
use super::{Shared, SimNetwork};
use fulmar_host::BoxFuture;
use fulmar_host::net::{Connection, Distrust, LinkNetwork, Listener, Network, PeerIdentity};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a machine shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Papers {
    /// Whose signature they bear: the bytes that a link pins.
    pub authority: Vec<u8>,
    /// For whom they are.
    pub name: String,
    /// What is wrong with them apart from that.
    pub flaw: Option<Distrust>,
}

impl Papers {
    /// The authority of a site.
    pub fn authority_of(site: &str) -> Vec<u8> {
        format!("authority of {site}").into_bytes()
    }
}

impl fmt::Display for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = String::from_utf8_lossy(&self.authority);
        write!(f, "papers for {} of the {authority}", self.name)?;
        self.flaw.map_or(Ok(()), |flaw| write!(f, " ({})", flaw.name()))
    }
}

/// The network between sites, for one life of one machine.
pub struct SimLinks(pub Arc<SimNetwork>);

/// A connection with what the other side shows, to which somebody listens if there is one.
fn shown(shared: &Arc<Shared>, id: EndId, address: SocketAddr) -> Connection {
    let papers = shared.with(|state, _| {
        let line = state.overheard.len() as u64;
        if state.ear.is_some() {
            state.overheard.insert(id, line);
        }
        let machine = state.owners.get(&address.ip())?;
        state.papers.get(machine).cloned()
    });
    let abrupt = SimAbrupt { shared: Arc::clone(shared), id };
    let connection =
        Connection { abrupt: Some(Box::new(abrupt)), ..connection(shared, id, address) };
    let Some(papers) = papers else { return connection };
    let flaw = papers.flaw.map_or("", Distrust::name).as_bytes().to_vec();
    let names = Some(vec![papers.name]);
    let shown = vec![papers.authority, flaw];
    let peer = PeerIdentity { names, shown, ..PeerIdentity::unproved(address) };
    Connection { peer, ..connection }
}

impl Network for SimLinks {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = self.0.listen_now(address)?;
            let shared = Arc::clone(&self.0.shared);
            Ok(Box::new(LinkListener { inner, shared }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let id = self.0.establish(address).await?;
            Ok(shown(&self.0.shared, id, address))
        })
    }
}

impl LinkNetwork for SimLinks {
    fn check_authority(&self, authority: &[u8]) -> Result<(), String> {
        if authority.is_empty() { Err("a link needs an authority".to_owned()) } else { Ok(()) }
    }

    fn judge(&self, peer: &PeerIdentity, authority: &[u8]) -> Result<(), Distrust> {
        let [shown, flaw] = peer.shown.as_slice() else { return Err(Distrust::Missing) };
        if shown != authority {
            return Err(Distrust::OtherAuthority);
        }
        let flaw = Distrust::ALL.into_iter().find(|known| known.name().as_bytes() == flaw);
        flaw.map_or(Ok(()), Err)
    }
}

struct LinkListener {
    inner: SimListener,
    shared: Arc<Shared>,
}

impl Listener for LinkListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (id, address) = poll_fn(|cx| self.inner.poll_accept(cx)).await?;
            Ok(shown(&self.shared, id, address))
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.inner.local_address()
    }
}

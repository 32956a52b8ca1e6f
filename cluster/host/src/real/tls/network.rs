//! Connecting and listening with TLS.

use super::halves;
use super::keys::{KeyFiles, KeysError, anonymous};
use super::reason::Reason;
use super::subject;
use crate::net::{Connection, Distrust, Listener, Network, PeerIdentity};
use crate::places::{Gone, Places};
use crate::real::net::{Accepting, dial, dial_name};
use crate::task::{self, Owned};
use crate::time::{self, Duration};
use crate::{BoxFuture, Observer};
use fulmar_types::Event;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long a handshake may take: a few round trips over a bad line.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes under way, per listener.
const HANDSHAKES_MAX: usize = 256;

/// Why one ends that is under way, when there are too many.
const CROWDED_OUT: &str = "crowded-out";

/// Connections that are through and wait to be taken, per listener.
const READY_MAX: usize = 256;

/// Certificates that somebody may show who is judged later, and their bytes.
const SHOWN_MAX: usize = 4;
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// What a listener asks of those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// A certificate of the site's authority.
    Certificate,
}

/// The network of this machine, with TLS on every connection.
pub struct TlsNetwork {
    client: Arc<ClientConfig>,
    /// `None` for one that only connects.
    server: Option<Arc<ServerConfig>>,
    observer: Arc<dyn Observer>,
    /// What the other side shows is judged by somebody else.
    is_judged_later: bool,
}

impl TlsNetwork {
    /// The network of somebody with keys.
    ///
    /// # Errors
    /// If the keys do not fit together.
    pub fn with_keys(
        keys: &KeyFiles,
        asked: Asked,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, KeysError> {
        let server = keys.server(asked == Asked::Certificate)?;
        Ok(Self {
            client: Arc::new(keys.client()?),
            server: Some(Arc::new(server)),
            observer,
            is_judged_later: false,
        })
    }

    /// One that hands on what the other side shows.
    pub(super) fn for_links(
        (client, server): (ClientConfig, ServerConfig),
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (client, server) = (Arc::new(client), Some(Arc::new(server)));
        Self { client, server, observer, is_judged_later: true }
    }

    /// The network of a client that proves nothing and trusts the nodes of one authority.
    ///
    /// # Errors
    /// If the file holds no authority.
    pub fn trusting(authority: &Path, observer: Arc<dyn Observer>) -> Result<Self, KeysError> {
        let client = Arc::new(anonymous(authority)?);
        Ok(Self { client, server: None, observer, is_judged_later: false })
    }
}

impl Network for TlsNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let Some(server) = &self.server else {
                let text = "without a certificate of one's own one cannot listen";
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            };
            let greeter = Greeter {
                acceptor: TlsAcceptor::from(server.clone()),
                observer: self.observer.clone(),
                is_judged_later: self.is_judged_later,
            };
            Ok(Box::new(TlsListener::on(address, greeter)?) as Box<dyn Listener>)
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let stream = dial(address).await?;
            self.greet(ServerName::from(address.ip()), stream, address).await
        })
    }

    fn connect_to_name<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
            let no_name = |error| io::Error::new(io::ErrorKind::NotFound, error);
            let host = ServerName::try_from(host.to_owned()).map_err(no_name)?;
            let (stream, address) = dial_name(name).await?;
            self.greet(host, stream, address).await
        })
    }
}

impl TlsNetwork {
    /// The handshake of one who connects; the certificate of the other side has to be for `name`.
    async fn greet(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<Connection> {
        let connector = TlsConnector::from(self.client.clone());
        let stream = connector.connect(name, stream).await;
        let stream = stream.inspect_err(|error| tell(&self.observer, address, error))?;
        connection(TlsStream::from(stream), address, &self.observer, self.is_judged_later)
    }
}

/// Reports an error of a connection if it is one of trust.
pub(super) fn tell(observer: &Arc<dyn Observer>, address: SocketAddr, error: &io::Error) {
    if let Some(reason) = Reason::of(error) {
        let Reason { name, by_peer } = reason;
        observer.observe(&Event::Distrusted { address, reason: name, by_peer });
    }
}

fn connection(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    observer: &Arc<dyn Observer>,
    is_judged_later: bool,
) -> io::Result<Connection> {
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default();
    let bytes: usize = certificates.iter().map(|certificate| certificate.len()).sum();
    if is_judged_later && (certificates.len() > SHOWN_MAX || bytes > SHOWN_BYTES_MAX) {
        // Whoever judges them tries every one of them as the signer of every other.
        let reason = Distrust::Malformed.name();
        observer.observe(&Event::Distrusted { address, reason, by_peer: false });
        return Err(io::ErrorKind::InvalidData.into());
    }
    let names = certificates.first().map(names_of).transpose()?;
    let common_name = certificates.first().and_then(subject::common_name);
    let shown = if is_judged_later { certificates } else { &[] };
    let shown = shown.iter().map(|certificate| certificate.to_vec()).collect();
    let (reader, writer, abrupt) = halves::split(stream, address, observer.clone());
    Ok(Connection {
        peer: PeerIdentity { address, names, common_name, shown },
        reader: Box::new(reader),
        writer: Box::new(writer),
        abrupt: if is_judged_later { Some(Box::new(abrupt)) } else { None },
    })
}

/// The names that a certificate, which has been verified, gives its owner.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> io::Result<Vec<String>> {
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(malformed)?;
    Ok(certificate.valid_dns_names().map(str::to_owned).collect())
}

/// Shakes hands with those who connect.
#[derive(Clone)]
struct Greeter {
    acceptor: TlsAcceptor,
    observer: Arc<dyn Observer>,
    is_judged_later: bool,
}

impl Greeter {
    async fn greet(&self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let greeted = time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await.ok()?;
        let stream = greeted.inspect_err(|error| tell(&self.observer, address, error)).ok()?;
        connection(TlsStream::from(stream), address, &self.observer, self.is_judged_later).ok()
    }
}

/// Hands are shaken beside the caller, so that one who is slow holds up nobody else.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<io::Result<Connection>>,
    _accepting: Owned<()>,
}

impl TlsListener {
    fn on(address: SocketAddr, greeter: Greeter) -> io::Result<Self> {
        let accepting = Accepting::on(address)?;
        let (through, ready) = mpsc::channel(READY_MAX);
        let address = accepting.address();
        let accepting = task::spawn_owned(accept(accepting, greeter, through));
        Ok(Self { address, ready, _accepting: accepting })
    }
}

async fn accept(
    mut accepting: Accepting,
    greeter: Greeter,
    through: mpsc::Sender<io::Result<Connection>>,
) {
    let greetings = Places::new(HANDSHAKES_MAX);
    loop {
        match accepting.next().await {
            Ok((stream, address)) => {
                let observer = greeter.observer.clone();
                let (greeter, through) = (greeter.clone(), through.clone());
                let gone = greetings.take(address, async move {
                    if let Some(connection) = greeter.greet(stream, address).await {
                        // Nobody listens any more: the connection ends here.
                        let _ = through.send(Ok(connection)).await;
                    }
                });
                if let Some(Gone { address, .. }) = gone {
                    observer.observe(&Event::Distrusted {
                        address,
                        reason: CROWDED_OUT,
                        by_peer: false,
                    });
                }
            }
            Err(error) => {
                if through.send(Err(error)).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Listener for TlsListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let none = || Err(io::Error::from(io::ErrorKind::NotConnected));
            self.ready.recv().await.unwrap_or_else(none)
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

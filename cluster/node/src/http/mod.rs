//! A few questions over HTTP: is the process alive, can it serve, and what does it count.
//!
//! ```text
//! accept -- a place for the connection --> head of the request --> answer --> the end
//! ```
//!
//! One connection carries one request: whoever asks every few seconds loses nothing by that, and there is
//! no order of answers to keep. What is answered is a function that the caller brings.
//!
//! Invariants: connections, the bytes of a request and the time for it are bounded; nothing is reserved
//! for what was only announced; nobody can change anything here.
//!
//! Never: a panic that bytes from outside could reach; a body of a request that is looked at.

mod request;

use bytes::BytesMut;
use fulmar_host::net::{Connection, Listener, Network, ReadHalf, WriteHalf};
use fulmar_host::places::{Gone, Places};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_host::{BoxFuture, net::PeerIdentity};
use request::{BadRequest, HEAD_BYTES_MAX, Request};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Connections at one time. For whoever comes then, the oldest goes of the address that has most of them.
const CONNECTIONS_MAX: usize = 16;

/// How long the head of a request may take to arrive (no test waits that long), and the answer to be
/// made and taken.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5_000 });
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What is still read behind a request, and for how long: a connection that is closed with something
/// unread is reset, and takes the answer with it.
const REST_BYTES_MAX: usize = 64 << 10;
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a failed accept: the process may be out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The form of Prometheus that metrics are told in.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    /// A line for people, and a status for programs.
    pub fn line(status: u16, text: impl Into<String>) -> Self {
        let body = text.into() + "\n";
        Self { status, content_type: TEXT_TYPE, body }
    }

    /// Metrics.
    pub fn metrics(body: String) -> Self {
        Self { status: 200, content_type: METRICS_TYPE, body }
    }

    fn head(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "",
        };
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len()
        )
    }
}

impl From<BadRequest> for Answer {
    fn from(bad: BadRequest) -> Self {
        match bad {
            BadRequest::Malformed => Self::line(400, "this is no request of HTTP/1"),
            BadRequest::Method => Self::line(405, "only GET and HEAD are answered here"),
            BadRequest::TooLong => Self::line(431, "the head of the request is too long"),
            BadRequest::Version => Self::line(505, "HTTP/1.0 and HTTP/1.1 are spoken here"),
        }
    }
}

/// Answers what a path asks for.
pub type Answers = Arc<dyn Fn(String) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Whoever listens for questions. Dropping it closes the listener and every connection.
pub struct HttpServer {
    address: SocketAddr,
    _acceptor: Owned<()>,
}

impl HttpServer {
    /// Listens on an address.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub async fn start(
        network: &dyn Network,
        address: SocketAddr,
        answers: Answers,
    ) -> io::Result<Self> {
        let listener = network.listen(address).await?;
        let address = listener.local_address();
        Ok(Self { address, _acceptor: task::spawn_owned(accept(listener, answers)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(mut listener: Box<dyn Listener>, answers: Answers) {
    // Their tasks end with it.
    let places = Places::new(CONNECTIONS_MAX);
    loop {
        let connection = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (answers, address) = (answers.clone(), connection.peer.address);
        let gone = places.take(address, async move { serve(connection, &answers).await });
        if let Some(Gone { address, untold: Some(times) }) = gone {
            tracing::warn!(%address, times, "too many connections ask for the health or the metrics: the oldest was closed");
        }
    }
}

async fn serve(connection: Connection, answers: &Answers) {
    let Connection { peer: PeerIdentity { address, .. }, mut reader, mut writer, .. } = connection;
    let asked = time::timeout(REQUEST_TIMEOUT, read(&mut reader)).await;
    let (answer, head_only) = match asked {
        Ok(Ok(Some(Ok(Request { path, head_only })))) => {
            let made = time::timeout(ANSWER_TIMEOUT, answers(path)).await;
            let late = |_| Answer::line(503, "no answer was found in time");
            (made.unwrap_or_else(late), head_only)
        }
        Ok(Ok(Some(Err(bad)))) => (Answer::from(bad), false),
        // Whoever only looks whether the port is open says nothing, and is told nothing.
        Ok(Ok(None) | Err(_)) => return,
        Err(time::Elapsed) => (Answer::line(408, "the request did not come in time"), false),
    };
    let told = time::timeout(ANSWER_TIMEOUT, tell(&mut writer, &answer, head_only)).await;
    if let Err(error) = told.map_err(io::Error::other).flatten() {
        tracing::debug!(peer = %address, %error, "an answer was not taken");
        return;
    }
    let _ = time::timeout(REST_TIMEOUT, pass_over(&mut reader)).await;
}

/// The request, once it is there; `None` if the other side has closed before.
async fn read(reader: &mut ReadHalf) -> io::Result<Option<Result<Request, BadRequest>>> {
    let mut bytes = BytesMut::new();
    loop {
        match request::read(&bytes) {
            Ok(None) => {}
            Ok(Some(request)) => return Ok(Some(Ok(request))),
            Err(bad) => return Ok(Some(Err(bad))),
        }
        bytes.reserve(HEAD_BYTES_MAX / 8);
        if reader.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

async fn tell(writer: &mut WriteHalf, answer: &Answer, head_only: bool) -> io::Result<()> {
    writer.write_all(answer.head().as_bytes()).await?;
    if !head_only {
        writer.write_all(answer.body.as_bytes()).await?;
    }
    writer.flush().await?;
    writer.shutdown().await
}

/// Reads what nobody wants, up to the end or the bound.
async fn pass_over(reader: &mut ReadHalf) {
    let mut piece = [0; 1024];
    let mut left = REST_BYTES_MAX;
    while left > 0 {
        match reader.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
}

#[cfg(test)]
mod tests;

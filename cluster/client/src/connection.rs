//! One connection to one node: the ApiVersions handshake, then pipelined requests.
//!
//! ```text
//! start() -> unsent bytes -> writer task -> socket -> node
//!    \                                                  |
//!     Answer  <- oneshot <- pending (in order) <- reader task
//! ```
//!
//! Invariants: answers come in the order of the requests (Kafka promises it) and are matched by
//! position *and* correlation id; a request is either answered, or told whether it may have left;
//! at most `in_flight_max` requests wait at a time. A connection that missed a deadline is of no
//! use any more and says so to everybody who waits on it.
//!
//! Never: reconnect. That is the business of [`crate::Cluster`].

use crate::error::{CallError, ConnectError};
use crate::metadata::Place;
use crate::settings::Settings;
use bytes::{Bytes, BytesMut};
use fulmar_host::net::{self as host, Network, ReadHalf, WriteHalf};
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration, Instant, Sleep};
use fulmar_wire::frame::{self, FrameSplitter};
use fulmar_wire::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, Message, RequestMessage};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Read from a socket at once, at most. What a node claims about the length of an answer is
/// believed only this far ahead of its bytes.
const READ_BYTES: usize = 256 << 10;

type Reply = oneshot::Sender<Result<Bytes, CallError>>;

struct Pending {
    correlation_id: i32,
    reply: Reply,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    /// Requests that the writer has not taken yet.
    unsent: BytesMut,
    /// How many of the last `pending` are among them.
    unsent_requests: usize,
    /// Who waits for an answer, in the order of the requests.
    pending: VecDeque<Pending>,
    next_correlation_id: i32,
    failed: bool,
}

struct Shared {
    state: Mutex<State>,
    unsent: Notify,
    permits: Arc<Semaphore>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits, and whoever comes later, that the connection is gone.
    fn fail(&self, reason: &CallError) {
        let mut state = self.state();
        if state.failed {
            return;
        }
        state.failed = true;
        let sent = state.pending.len() - state.unsent_requests;
        let pending = std::mem::take(&mut state.pending);
        state.unsent = BytesMut::new();
        state.unsent_requests = 0;
        drop(state);
        for (at, waiting) in pending.into_iter().enumerate() {
            let error = if at < sent { reason.clone() } else { CallError::NotSent };
            // Who dropped the answer does not want to know.
            let _ = waiting.reply.send(Err(error));
        }
        self.unsent.notify_one();
    }

    async fn write(&self, mut writer: WriteHalf) {
        loop {
            let bytes = {
                let mut state = self.state();
                if state.failed {
                    return;
                }
                state.unsent_requests = 0;
                state.unsent.split()
            };
            if bytes.is_empty() {
                self.unsent.notified().await;
                continue;
            }
            let written = writer.write_all(&bytes).await;
            if written.is_err() || writer.flush().await.is_err() {
                return self.fail(&CallError::Lost);
            }
        }
    }

    async fn read(&self, mut reader: ReadHalf, splitter: FrameSplitter) {
        let mut buffer = BytesMut::new();
        let reason = loop {
            match read_frame(&mut reader, &mut buffer, splitter).await {
                Some(frame) => {
                    if let Err(reason) = self.deliver(frame) {
                        break reason;
                    }
                }
                None => break CallError::Lost,
            }
        };
        self.fail(&reason);
    }

    fn deliver(&self, frame: Bytes) -> Result<(), CallError> {
        let correlation_id = frame::correlation_id(&frame)?;
        let mut state = self.state();
        // An answer that nobody asked for, or out of order: the stream cannot be trusted.
        let awaited = state.pending.len() > state.unsent_requests
            && state.pending.front().is_some_and(|front| front.correlation_id == correlation_id);
        let waiting = if awaited { state.pending.pop_front() } else { None };
        drop(state);
        let waiting = waiting.ok_or(CallError::Lost)?;
        let _ = waiting.reply.send(Ok(frame));
        Ok(())
    }
}

/// The next frame, `None` if the stream ended, broke, or is not made of frames.
async fn read_frame(
    reader: &mut ReadHalf,
    buffer: &mut BytesMut,
    splitter: FrameSplitter,
) -> Option<Bytes> {
    loop {
        if let Some(frame) = splitter.split(buffer).ok()? {
            return Some(frame);
        }
        let missing = splitter.missing_bytes(buffer).ok()?;
        buffer.reserve(missing.clamp(4 << 10, READ_BYTES));
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn connect(network: &dyn Network, to: &Place) -> Result<host::Connection, ConnectError> {
    let connected = match to {
        Place::Address(address) => network.connect(*address).await,
        Place::Name(name) => network.connect_to_name(name).await,
    };
    connected.map_err(|error| match to {
        Place::Name(name) if error.kind() == io::ErrorKind::NotFound => {
            ConnectError::Name(name.clone())
        }
        _ => ConnectError::Io(error.kind()),
    })
}

struct Link {
    shared: Arc<Shared>,
    place: Place,
    client_id: String,
    versions: ApiVersionsResponse,
    /// Reader and writer; they end with the link.
    tasks: Mutex<Option<(Owned<()>, Owned<()>)>>,
}

/// A connection to a node. Cheap to clone; it is closed when the last clone is dropped.
#[derive(Clone)]
pub struct Connection(Arc<Link>);

impl Connection {
    /// Connects and asks the node what it speaks.
    ///
    /// # Errors
    /// If there is no connection, or no handshake, within `settings.connect_timeout`.
    pub async fn open(
        network: &dyn Network,
        place: Place,
        settings: &Settings,
    ) -> Result<Self, ConnectError> {
        let opening = async {
            let connection = connect(network, &place).await?;
            let (mut reader, mut writer) = (connection.reader, connection.writer);
            let versions = handshake(&mut reader, &mut writer, settings).await?;
            Ok(Self::start_tasks(place, settings, versions, (reader, writer)))
        };
        let opened = time::timeout(settings.connect_timeout, opening).await;
        opened.unwrap_or(Err(ConnectError::TimedOut))
    }

    fn start_tasks(
        place: Place,
        settings: &Settings,
        versions: ApiVersionsResponse,
        (reader, writer): (ReadHalf, WriteHalf),
    ) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            unsent: Notify::new(),
            permits: Arc::new(Semaphore::new(settings.in_flight_max)),
        });
        let splitter = FrameSplitter::new(settings.response_bytes_max);
        let (for_reader, for_writer) = (Arc::clone(&shared), Arc::clone(&shared));
        let reading = task::spawn_owned(async move { for_reader.read(reader, splitter).await });
        let writing = task::spawn_owned(async move { for_writer.write(writer).await });
        Self(Arc::new(Link {
            shared,
            place,
            client_id: settings.client_id.clone(),
            versions,
            tasks: Mutex::new(Some((reading, writing))),
        }))
    }

    /// Where the node is.
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Whether requests can still be sent. It may break the moment after.
    pub fn is_usable(&self) -> bool {
        !self.0.shared.state().failed
    }

    /// The version of an API that is spoken on this connection.
    pub fn version(&self, api: ApiKey) -> Option<i16> {
        api.negotiate(self.0.versions.versions_of(api)?)
    }

    /// Gives the connection up: every request that waits is told that its answer is lost.
    pub fn close(&self) {
        self.give_up(&CallError::Lost);
    }

    pub(crate) fn give_up(&self, reason: &CallError) {
        self.0.shared.fail(reason);
        let tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(tasks);
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// Why there is none. If it does not come in time, the connection is given up.
    pub async fn call<R: RequestMessage>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, CallError> {
        self.start(request, time::now() + timeout).await?.await
    }

    /// Queues a request, and returns its answer to be waited for. Requests are sent in the order
    /// in which this returns.
    ///
    /// # Errors
    /// [`CallError::NotSent`] if the connection is broken or stays busy until the deadline; an API
    /// that the node does not offer; a request without a form.
    pub async fn start<R: RequestMessage>(
        &self,
        request: &R,
        deadline: Instant,
    ) -> Result<Answer<R>, CallError> {
        let shared = &self.0.shared;
        let version = self.version(R::API).ok_or(CallError::NotOffered(R::API))?;
        let permit = Arc::clone(&shared.permits).acquire_owned();
        let permit = time::timeout_at(deadline, permit).await;
        let Ok(Ok(permit)) = permit else { return Err(CallError::NotSent) };
        let (reply, replied) = oneshot::channel();
        let mut state = shared.state();
        let correlation_id = self.queue(&mut state, request, version)?;
        state.pending.push_back(Pending { correlation_id, reply, _permit: permit });
        state.unsent_requests += 1;
        drop(state);
        shared.unsent.notify_one();
        Ok(Answer {
            connection: self.clone(),
            version,
            replied,
            deadline: time::sleep_until(deadline),
            request: PhantomData,
        })
    }

    /// Queues a request that has no answer: Produce with acks 0. Whether it arrives is never known.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_unanswered<R: RequestMessage>(&self, request: &R) -> Result<(), CallError> {
        let version = self.version(R::API).ok_or(CallError::NotOffered(R::API))?;
        let mut state = self.0.shared.state();
        // Without answers there is no other measure of how far behind the node is.
        if state.unsent.len() > READ_BYTES {
            return Err(CallError::NotSent);
        }
        self.queue(&mut state, request, version)?;
        drop(state);
        self.0.shared.unsent.notify_one();
        Ok(())
    }

    fn queue<R: RequestMessage>(
        &self,
        state: &mut State,
        request: &R,
        version: i16,
    ) -> Result<i32, CallError> {
        if state.failed {
            return Err(CallError::NotSent);
        }
        let id = state.next_correlation_id;
        let client_id = Some(self.0.client_id.as_str());
        frame::encode_request(&mut state.unsent, request, version, id, client_id)?;
        state.next_correlation_id = id.wrapping_add(1);
        Ok(id)
    }
}

/// The answer to a request, a future. Dropping it forgets the answer and keeps the connection.
pub struct Answer<R: RequestMessage> {
    connection: Connection,
    version: i16,
    replied: oneshot::Receiver<Result<Bytes, CallError>>,
    deadline: Sleep,
    request: PhantomData<fn() -> R>,
}

impl<R: RequestMessage> Answer<R> {
    fn decode(&self, frame: Bytes) -> Result<R::Response, CallError> {
        let body = frame::response_body(frame, R::API, self.version);
        body.and_then(|body| R::Response::decode(body, self.version)).map_err(|error| {
            let error = CallError::Malformed(error);
            self.connection.give_up(&error);
            error
        })
    }
}

impl<R: RequestMessage> Future for Answer<R> {
    type Output = Result<R::Response, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(replied) = Pin::new(&mut self.replied).poll(cx) {
            // Without a word from the connection the worst has to be assumed.
            let frame = replied.unwrap_or(Err(CallError::Lost));
            return Poll::Ready(frame.and_then(|frame| self.decode(frame)));
        }
        if Pin::new(&mut self.deadline).poll(cx).is_ready() {
            self.connection.give_up(&CallError::TimedOut);
            return Poll::Ready(Err(CallError::TimedOut));
        }
        Poll::Pending
    }
}

/// Asks for the versions of the node's APIs: in our own highest version first, then as the node
/// says that it can (KIP-511).
async fn handshake(
    reader: &mut ReadHalf,
    writer: &mut WriteHalf,
    settings: &Settings,
) -> Result<ApiVersionsResponse, ConnectError> {
    let splitter = FrameSplitter::new(settings.response_bytes_max);
    let mut buffer = BytesMut::new();
    let mut version = *ApiKey::ApiVersions.range().served.end();
    let request = ApiVersionsRequest {
        client_software_name: "fulmar".to_owned(),
        client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // Once in our version, and once in the one that the node names.
    for _ in 0..2 {
        let mut out = BytesMut::new();
        let client_id = Some(settings.client_id.as_str());
        frame::encode_request(&mut out, &request, version, 0, client_id)
            .expect("a handshake is small and exists in every version that is served");
        writer.write_all(&out).await.map_err(|error| ConnectError::Io(error.kind()))?;
        writer.flush().await.map_err(|error| ConnectError::Io(error.kind()))?;
        let frame = read_frame(reader, &mut buffer, splitter).await.ok_or(ConnectError::Closed)?;
        let body = frame::response_body(frame, ApiKey::ApiVersions, version)?;
        let answer = ApiVersionsResponse::decode_answer(body, version)?;
        if answer.error_code.is_none() {
            return Ok(answer);
        }
        let offered = answer.versions_of(ApiKey::ApiVersions).unwrap_or(0..=0);
        match ApiKey::ApiVersions.negotiate(offered) {
            Some(other) if other != version => version = other,
            _ => return Err(ConnectError::Refused(answer.error_code)),
        }
    }
    Err(ConnectError::Closed)
}

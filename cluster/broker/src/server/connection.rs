//! One connection: a reader and a writer that end together.
//!
//! Invariants: at most `REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX` requests wait for their answer; the
//! reader stops reading while there is no room; a frame has a time in which it must have arrived as
//! a whole, and an answer one in which it must be taken, so that a byte now and then keeps nobody
//! out for long; one timer per connection watches over that and for silence, and not one per read;
//! an idle connection keeps no large buffer.

use super::room::{Share, is_small};
use crate::broker::Broker;
use crate::handlers::{self, Reply};
use crate::limits::{
    BUFFER_KEPT_BYTES_MAX, CLOSED_WAIT_MS_MAX, CONNECTION_IDLE_MS_MAX, FRAME_BYTES_PER_S_MIN,
    FRAME_STALL_MS_MAX, OWN_FRAMES_BYTES_MAX,
};
use crate::principal::Principal;
use crate::room::{room as room_of, take};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fulmar_host::BoxFuture;
use fulmar_host::net::{Connection, ReadHalf, WriteHalf};
use fulmar_host::time::{self, Instant};
use fulmar_types::limits::{CLIENT_FRAME_BYTES_MAX, REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX};
use fulmar_wire::frame::{FrameSplitter, HeaderError, Incoming, unsupported_api_versions};
use fulmar_wire::{ApiKey, Frame, Request};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that a connection reserves for what it reads next.
const READ_BYTES: usize = 4 * 1024;
/// The most that it reserves ahead while a frame is arriving.
const READ_AHEAD_BYTES_MAX: usize = 256 * 1024;
/// Pieces of one vectored write: the kernel takes up to 1024.
const IO_SLICES_MAX: usize = 64;
/// How often a connection is looked at for silence.
const WATCH_PAUSE: Duration = Duration::from_secs(10);

/// An answer on its way, in the order of the requests.
struct InFlight {
    reply: BoxFuture<'static, Reply>,
    correlation_id: i32,
    version: i16,
    /// The room of the request, held until it is answered, unless its handler has taken it.
    room: Option<OwnedSemaphorePermit>,
    /// The same out of what one connection may take.
    own_room: Option<OwnedSemaphorePermit>,
}

/// A request, or what stands in for one.
enum Queued {
    Request(InFlight),
    /// The answer to an ApiVersions request of an unknown version.
    Ready(Frame),
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] fulmar_wire::frame::FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("not a request: {0}")]
    Decode(#[from] fulmar_wire::DecodeError),
    #[error("a response has no form on the wire: {0}")]
    Encode(#[from] fulmar_wire::EncodeError),
    #[error("a request that has no other answer")]
    Unanswerable,
    #[error("nothing came for too long")]
    Idle,
    #[error("a frame stalled")]
    Stalled,
}

/// What the watch looks at.
#[derive(Clone, Copy)]
struct Pulse {
    /// The last time that bytes came or went.
    moved: Instant,
    /// When the frame that has begun to arrive must be complete.
    arriving_until: Option<Instant>,
    /// When the answer that is being sent must have been taken.
    sending_until: Option<Instant>,
    /// Requests that were read and not answered.
    in_flight: usize,
}

/// Shared by the reader, the writer and the watch of one connection.
struct Vitals(Mutex<Pulse>);

impl Vitals {
    fn locked(&self) -> MutexGuard<'_, Pulse> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn change(&self, change: impl FnOnce(&mut Pulse)) {
        change(&mut self.locked());
    }
}

/// Serves a connection until one of its sides ends it.
pub(super) async fn serve(broker: &Arc<Broker>, connection: Connection) {
    let Connection { peer, reader, writer, .. } = connection;
    let principal = Principal::of(&peer, |name| broker.settings.is_node_name(name));
    let pulse =
        Pulse { moved: time::now(), arriving_until: None, sending_until: None, in_flight: 0 };
    let vitals = Vitals(Mutex::new(pulse));
    // The channel holds what is in flight, apart from the one that the writer awaits.
    let (queue, queued) = mpsc::channel(REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX - 1);
    let (buffer, own) = (BytesMut::new(), room_of(OWN_FRAMES_BYTES_MAX));
    let mut input =
        Input { broker: broker.clone(), principal, reader, vitals: &vitals, buffer, own };
    let ended = tokio::select! {
        biased;
        end = write_all(writer, queued, &vitals) => end,
        end = input.read_all(queue) => end,
        end = watch(&vitals) => end,
    };
    match ended {
        End::Closed | End::Io(_) | End::Idle => {
            tracing::debug!(peer = %peer.address, reason = %ended, "connection ended");
        }
        _ => {
            broker.counters.connections_faulty.add(1);
            tracing::info!(peer = %peer.address, reason = %ended, "connection closed");
        }
    }
}

/// When so many bytes must have gone one way or the other.
fn due(bytes: usize) -> Instant {
    let for_bytes = (bytes / FRAME_BYTES_PER_S_MIN) as u64;
    time::now() + Duration::from_millis(FRAME_STALL_MS_MAX) + Duration::from_secs(for_bytes)
}

async fn watch(vitals: &Vitals) -> End {
    loop {
        time::sleep(WATCH_PAUSE).await;
        let (pulse, now) = (*vitals.locked(), time::now());
        let is_due = |until: Option<Instant>| until.is_some_and(|until| now >= until);
        if is_due(pulse.arriving_until) || is_due(pulse.sending_until) {
            return End::Stalled;
        }
        let silent = now.saturating_duration_since(pulse.moved);
        if pulse.in_flight == 0 && silent >= Duration::from_millis(CONNECTION_IDLE_MS_MAX) {
            return End::Idle;
        }
    }
}

struct Input<'a> {
    broker: Arc<Broker>,
    principal: Principal,
    reader: ReadHalf,
    vitals: &'a Vitals,
    buffer: BytesMut,
    /// What the small frames without records of one connection may take, in KiB.
    own: Arc<Semaphore>,
}

/// A frame and what it occupies.
struct Counted {
    frame: Bytes,
    room: OwnedSemaphorePermit,
    own_room: Option<OwnedSemaphorePermit>,
}

impl Input<'_> {
    async fn read_all(&mut self, queue: mpsc::Sender<Queued>) -> End {
        loop {
            // The slot first: a client that sends more than may be in flight is not read.
            let Ok(slot) = queue.reserve().await else {
                return End::Closed;
            };
            match self.next().await {
                Ok(queued) => {
                    self.vitals.change(|pulse| pulse.in_flight += 1);
                    slot.send(queued);
                }
                Err(End::Closed) => {
                    // The client may have closed its sending side only, and wait for answers; or
                    // it is gone, which only a write would show.
                    drop(slot);
                    drop(queue);
                    time::sleep(Duration::from_millis(CLOSED_WAIT_MS_MAX)).await;
                    return End::Closed;
                }
                Err(end) => return end,
            }
        }
    }

    async fn next(&mut self) -> Result<Queued, End> {
        let Counted { frame, room, own_room } = self.frame().await?;
        match Incoming::parse(frame)? {
            Incoming::UnknownApiVersions { correlation_id } => {
                Ok(Queued::Ready(unsupported_api_versions(correlation_id)?))
            }
            Incoming::Request(header, body) => {
                let (version, correlation_id) = (header.api_version, header.correlation_id);
                let request = Request::decode(&header, body)?;
                self.broker.counters.request(header.api_key);
                let mut room = Some(room);
                let broker = self.broker.clone();
                let from = (&header, &self.principal);
                let reply = handlers::start(broker, from, request, &mut room).await;
                let request = InFlight { reply, correlation_id, version, room, own_room };
                Ok(Queued::Request(request))
            }
        }
    }

    async fn frame(&mut self) -> Result<Counted, End> {
        let splitter = FrameSplitter::new(CLIENT_FRAME_BYTES_MAX);
        let mut room = None;
        let mut is_announced = false;
        loop {
            let missing = splitter.missing_bytes(&self.buffer)?;
            if !is_announced && let Some(frame_bytes) = splitter.frame_bytes(&self.buffer)? {
                is_announced = true;
                if !is_small(frame_bytes) {
                    // Waiting for room is not the client's fault.
                    self.vitals.change(|pulse| pulse.arriving_until = None);
                    room = Some(self.broker.request_room.take(Share::Large, frame_bytes).await);
                }
                self.vitals.change(|pulse| pulse.arriving_until = Some(due(missing)));
            }
            if missing == 0
                && let Some(frame) = splitter.split(&mut self.buffer)?
            {
                self.vitals.change(|pulse| pulse.arriving_until = None);
                if frame.len() > BUFFER_KEPT_BYTES_MAX {
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                return Ok(self.count(frame, room).await);
            }
            self.fill(missing).await?;
        }
    }

    /// Takes room for a frame that has none yet, and was small enough to be read without.
    async fn count(&self, frame: Bytes, room: Option<OwnedSemaphorePermit>) -> Counted {
        if let Some(room) = room {
            return Counted { frame, room, own_room: None };
        }
        if has_records(&frame) {
            let room = self.broker.request_room.take(Share::Records, frame.len()).await;
            return Counted { frame, room, own_room: None };
        }
        let own_room = Some(take(&self.own, frame.len()).await);
        let room = self.broker.request_room.take(Share::Others, frame.len()).await;
        Counted { frame, room, own_room }
    }

    /// Reads what there is; at least one byte.
    async fn fill(&mut self, missing: usize) -> Result<(), End> {
        if !self.buffer.is_empty() {
            self.vitals.change(|pulse| {
                pulse.arriving_until.get_or_insert_with(|| due(0));
            });
        }
        let room = missing.clamp(READ_BYTES, READ_AHEAD_BYTES_MAX);
        let read = read_at_most(&mut self.reader, &mut self.buffer, room).await?;
        self.vitals.change(|pulse| pulse.moved = time::now());
        match read {
            0 => Err(End::Closed),
            _ => Ok(()),
        }
    }
}

/// Reads what there is, but not all that the buffer has place for: that may be as much again as the
/// frame that is arriving, and the bytes of the frames behind it are not counted yet.
async fn read_at_most(
    reader: &mut ReadHalf,
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> io::Result<usize> {
    buffer.reserve(bytes_max);
    reader.read_buf(&mut buffer.limit(bytes_max)).await
}

/// Whether a request brings records. What its header cannot be read from is refused a moment later.
fn has_records(frame: &[u8]) -> bool {
    frame.get(..2) == Some(&(ApiKey::Produce as i16).to_be_bytes()[..])
}

async fn write_all(
    mut writer: WriteHalf,
    mut queued: mpsc::Receiver<Queued>,
    vitals: &Vitals,
) -> End {
    while let Some(queued) = queued.recv().await {
        match write_one(&mut writer, queued, vitals).await {
            Ok(()) => vitals.change(|pulse| pulse.in_flight -= 1),
            Err(end) => return end,
        }
    }
    End::Closed
}

async fn write_one(writer: &mut WriteHalf, queued: Queued, vitals: &Vitals) -> Result<(), End> {
    let request = match queued {
        Queued::Ready(frame) => return write_frame(writer, frame, vitals).await,
        Queued::Request(request) => request,
    };
    let reply = request.reply.await;
    // The request is answered; what its answer occupies is counted with the answer.
    drop((request.room, request.own_room));
    match reply {
        Reply::Response(response, held) => {
            let frame = response.encode(request.correlation_id, request.version)?;
            drop(response);
            write_frame(writer, frame, vitals).await?;
            drop(held);
            Ok(())
        }
        Reply::Silent => Ok(()),
        Reply::Close => Err(End::Unanswerable),
    }
}

async fn write_frame(writer: &mut WriteHalf, frame: Frame, vitals: &Vitals) -> Result<(), End> {
    let mut chunks = frame.into_chunks();
    let bytes = chunks.iter().map(Bytes::len).sum();
    vitals.change(|pulse| pulse.sending_until = Some(due(bytes)));
    // Reversed, so that what was written can be popped.
    chunks.reverse();
    while !chunks.is_empty() {
        let written = write_some(writer, &chunks).await?;
        vitals.change(|pulse| pulse.moved = time::now());
        skip(&mut chunks, written);
    }
    writer.flush().await?;
    vitals.change(|pulse| pulse.sending_until = None);
    Ok(())
}

async fn write_some(writer: &mut WriteHalf, reversed: &[Bytes]) -> io::Result<usize> {
    let slices: Vec<IoSlice<'_>> =
        reversed.iter().rev().take(IO_SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
    let written = poll_fn(|cx| Pin::new(&mut *writer).poll_write_vectored(cx, &slices)).await?;
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

/// Removes written bytes from the front, which is the end of the reversed list.
fn skip(reversed: &mut Vec<Bytes>, mut written: usize) {
    while let Some(chunk) = reversed.last_mut() {
        if chunk.len() > written {
            chunk.advance(written);
            return;
        }
        written -= chunk.len();
        reversed.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_with_place_to_spare_takes_no_more_than_was_asked_for() {
        crate::testing::run(async {
            let mut reader: ReadHalf = Box::new(&[7_u8; 10_000][..]);
            let mut buffer = BytesMut::with_capacity(1 << 20);
            for len in [4_096, 8_192, 10_000] {
                read_at_most(&mut reader, &mut buffer, 4_096).await.expect("bytes");
                assert_eq!(buffer.len(), len);
            }
        });
    }
}

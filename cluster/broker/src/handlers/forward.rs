//! Hands a request over to the leader: any node takes what a Kafka client may send to any broker,
//! and only the leader can propose it.
//!
//! The request travels as it would from a client, over the leader's Kafka listener, under a client
//! id that the leader knows. It is not handed on a second time, so that nodes which disagree about
//! the leader do not send it round in circles.
//!
//! Invariants: a request is sent at most once; after a byte of it has left, a failure means
//! "unknown".

use super::Origin;
use crate::broker::Broker;
use crate::error_map::Unanswered;
use bytes::BytesMut;
use fulmar_host::net::Connection;
use fulmar_host::time::{self, Instant};
use fulmar_types::limits::CLIENT_FRAME_BYTES_MAX;
use fulmar_wire::frame::{FrameSplitter, encode_request, response_body};
use fulmar_wire::{Message, RequestMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The client id of a request that another node of the site handed over; behind it stands for whom.
const CLIENT_ID: &str = "fulmar-forward ";

/// For whom a request was handed over, if it was.
pub(super) fn for_whom(client_id: &str) -> Option<&str> {
    client_id.strip_prefix(CLIENT_ID)
}

const CORRELATION_ID: i32 = 1;

/// Sends a request to the leader and waits for its answer.
///
/// # Errors
/// [`Unanswered::NotDone`] if no leader is known or it cannot be reached, [`Unanswered::Unknown`]
/// if the connection broke or the deadline passed after the request was sent.
pub(super) async fn to_leader<R: RequestMessage>(
    broker: &Broker,
    request: &R,
    of: &Origin,
    deadline: Instant,
) -> Result<R::Response, Unanswered> {
    let (version, client_id) = (of.version, format!("{CLIENT_ID}{}", of.who));
    let leadership = broker.group.leadership();
    let leader = leadership.leader.filter(|_| !leadership.is_me).ok_or(Unanswered::NotDone)?;
    let address = broker.settings.endpoint(leader).ok_or(Unanswered::NotDone)?.internal;
    let mut frame = BytesMut::new();
    encode_request(&mut frame, request, version, CORRELATION_ID, Some(&client_id))
        .map_err(|_| Unanswered::NotDone)?;
    let connection = time::timeout_at(deadline, broker.host.network.connect(address)).await;
    let connection =
        connection.map_err(|_| Unanswered::NotDone)?.map_err(|_| Unanswered::NotDone)?;
    let exchange = exchange::<R::Response>(connection, frame, version);
    match time::timeout_at(deadline, exchange).await {
        Ok(Some(response)) => Ok(response),
        Ok(None) | Err(time::Elapsed) => Err(Unanswered::Unknown),
    }
}

/// The same, but `None` where the request stays: at the leader, and at a node to which another one has
/// handed it over.
pub(super) async fn from_follower<R: RequestMessage>(
    broker: &Broker,
    request: &R,
    of: &Origin,
    deadline: Instant,
) -> Option<Result<R::Response, Unanswered>> {
    if broker.group.leadership().is_me || of.forwarded {
        return None;
    }
    Some(to_leader(broker, request, of, deadline).await)
}

/// `None` if the connection broke, or what came back is no answer.
async fn exchange<M: Message>(
    mut connection: Connection,
    frame: BytesMut,
    version: i16,
) -> Option<M> {
    connection.writer.write_all(&frame).await.ok()?;
    connection.writer.flush().await.ok()?;
    let splitter = FrameSplitter::new(CLIENT_FRAME_BYTES_MAX);
    let mut buffer = BytesMut::new();
    loop {
        if let Some(frame) = splitter.split(&mut buffer).ok()? {
            let body = response_body(frame, M::API, version).ok()?;
            return M::decode(body, version).ok();
        }
        // Grows with what has arrived, not with what was announced.
        buffer.reserve(4096);
        if connection.reader.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
}

//! The APIs, one file each.
//!
//! A handler gets a decoded request and gives the response. Only Produce does something before its
//! future is polled: it queues its batches, so that those of one connection stay in order while
//! several requests are in flight. All others run when the answers before theirs are on their way,
//! as in Kafka, where a connection is served one request after the other.
//!
//! Invariants: no panic is reachable from a request; whatever grows with a request is bounded.

mod api_versions;
mod create_topics;
mod delete_topics;
mod fetch;
mod forward;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod partition;
mod produce;
mod topic_config;

#[cfg(test)]
mod tests;

use crate::broker::Broker;
use fulmar_host::BoxFuture;
use fulmar_wire::frame::RequestHeader;
use fulmar_wire::{Request, Response};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What goes back to a client.
pub enum Reply {
    /// A response, and what it occupies until it is sent.
    Response(Response, Option<OwnedSemaphorePermit>),
    /// Nothing: the request asked for no answer.
    Silent,
    /// The end of the connection: the request cannot be answered, or asked for no answer and
    /// failed, which a client can only learn in this way.
    Close,
}

impl<R: Into<Response>> From<R> for Reply {
    fn from(response: R) -> Self {
        Self::Response(response.into(), None)
    }
}

/// Takes a request. The returned future gives the reply; it does nothing for most requests before
/// it is polled. `room` is what the request occupies; a handler that may wait for long takes it, to
/// give it back before the reply.
pub async fn start(
    broker: Arc<Broker>,
    header: &RequestHeader,
    request: Request,
    room: &mut Option<OwnedSemaphorePermit>,
) -> BoxFuture<'static, Reply> {
    let version = header.api_version;
    let forwarded = header.client_id.as_deref() == Some(forward::CLIENT_ID);
    match request {
        Request::Produce(request) => produce::start(broker, version, request).await,
        Request::Fetch(request) => {
            let room = room.take();
            Box::pin(async move { fetch::handle(&broker, version, request, room).await })
        }
        Request::ListOffsets(request) => {
            Box::pin(async move { list_offsets::handle(&broker, version, request).await.into() })
        }
        Request::Metadata(request) => {
            Box::pin(async move { metadata::handle(&broker, version, request).await })
        }
        Request::ApiVersions(_) => Box::pin(async { api_versions::handle().into() }),
        Request::CreateTopics(request) => Box::pin(async move {
            create_topics::handle(&broker, version, request, forwarded).await.into()
        }),
        Request::DeleteTopics(request) => Box::pin(async move {
            delete_topics::handle(&broker, version, request, forwarded).await.into()
        }),
        Request::InitProducerId(request) => Box::pin(async move {
            init_producer_id::handle(&broker, version, request, forwarded).await.into()
        }),
    }
}

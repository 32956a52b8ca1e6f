//! The APIs, one file each.
//!
//! A handler gets a decoded request and gives the response. Only Produce does something before its
//! future is polled: it queues its batches, so that those of one connection stay in order while
//! several requests are in flight. All others run when the answers before theirs are on their way,
//! as in Kafka, where a connection is served one request after the other.
//!
//! Invariants: no panic is reachable from a request; whatever grows with a request is bounded.

mod alter_configs;
mod api_versions;
mod catch_up;
mod controller;
mod create_topics;
mod delete_topics;
mod describe_configs;
mod fetch;
mod forward;
mod init_producer_id;
mod link_config;
mod link_status;
mod list_offsets;
mod metadata;
mod partition;
mod pipeline_config;
mod pipeline_status;
mod produce;
pub(crate) mod topic_config;

#[cfg(test)]
mod tests;

pub use topic_config::check_on_any_site;

use crate::answers::{Held, Named};
use crate::broker::Broker;
use crate::principal::Principal;
use fulmar_host::BoxFuture;
use fulmar_wire::frame::RequestHeader;
use fulmar_wire::{Request, Response};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What goes back to a client.
pub enum Reply {
    /// A response, and what it occupies until it is sent.
    Response(Response, Held),
    /// Nothing: the request asked for no answer.
    Silent,
    /// The end of the connection: the request cannot be answered, or asked for no answer and
    /// failed, which a client can only learn in this way.
    Close,
}

impl<R: Into<Response>> From<R> for Reply {
    fn from(response: R) -> Self {
        Self::Response(response.into(), Held::new())
    }
}

/// Takes a request. The returned future gives the reply; it does nothing for most requests before
/// it is polled. `room` is what the request occupies; a handler that may wait for long takes it, to
/// give it back before the reply.
pub async fn start(
    broker: Arc<Broker>,
    (header, principal): (&RequestHeader, &Principal),
    request: Request,
    room: &mut Option<OwnedSemaphorePermit>,
) -> BoxFuture<'static, Reply> {
    let (named, version) = (Named::by(&request), header.api_version);
    let is_silent = matches!(&request, Request::Produce(produce) if produce.acks == 0);
    let said = header.client_id.as_deref().and_then(forward::for_whom);
    if named.is_too_much() {
        // To refuse each by its name would take more memory than the request does.
        return Box::pin(std::future::ready(Reply::Close));
    }
    let (forwarded, who) = (said.is_some(), principal.acting_for(said));
    let of = Origin { version, forwarded, who };
    let reply = dispatch(broker.clone(), of, request, room).await;
    if named.is_small() || is_silent {
        return reply;
    }
    Box::pin(async move {
        let Some(room) = broker.answer_room.take(named).await else { return Reply::Close };
        match reply.await {
            Reply::Response(response, mut held) => {
                held.extend(room);
                Reply::Response(response, held)
            }
            other => other,
        }
    })
}

/// How a request came.
#[derive(Clone)]
struct Origin {
    version: i16,
    /// By another node of the site, for a client of its own.
    forwarded: bool,
    /// By whom, or for whom it was handed over.
    who: Arc<str>,
}

async fn dispatch(
    broker: Arc<Broker>,
    of: Origin,
    request: Request,
    room: &mut Option<OwnedSemaphorePermit>,
) -> BoxFuture<'static, Reply> {
    let version = of.version;
    match request {
        Request::Produce(request) => {
            // About how long the frame is: room is counted in KiB.
            let frame_bytes = room.as_ref().map_or(0, |room| room.num_permits() * 1024);
            produce::start(broker, version, request, frame_bytes).await
        }
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
        Request::CreateTopics(request) => {
            Box::pin(async move { create_topics::handle(&broker, &of, request).await.into() })
        }
        Request::DeleteTopics(request) => {
            Box::pin(async move { delete_topics::handle(&broker, &of, request).await.into() })
        }
        Request::InitProducerId(request) => {
            Box::pin(async move { init_producer_id::handle(&broker, &of, request).await.into() })
        }
        Request::DescribeConfigs(request) => {
            Box::pin(async move { describe_configs::handle(&broker, request).await.into() })
        }
        Request::AlterConfigs(request) => {
            Box::pin(async move { alter_configs::replace(&broker, &of, request).await.into() })
        }
        Request::IncrementalAlterConfigs(request) => {
            Box::pin(async move { alter_configs::change(&broker, &of, request).await.into() })
        }
    }
}

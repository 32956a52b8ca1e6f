//! DeleteTopics (key 20): by name, or from version 6 by id. A topic is deleted by its id, so that
//! one that was re-created under the same name in between is not hit by mistake. Pipelines that have just read
//! dead letters of it are asked to store their state first.

use super::controller::{Failure, carry_out, deadline};
use super::pipeline_config::take_delta;
use super::{Origin, forward};
use crate::broker::Broker;
use crate::error_map;
use crate::machine::outcome::Refusal;
use fulmar_host::time::{self, Instant};
use fulmar_store::entry::{Operation, Unit};
use fulmar_types::{TopicId, Uuid};
use fulmar_wire::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse, ErrorCode,
};

/// The first version that names topics by id as well (KIP-516).
const IDS_FROM: i16 = 6;

/// The answer while a pipeline needs the topic.
const AGAIN: ErrorCode = error_map::of_refusal(Refusal::NeededAgain);

pub(super) async fn handle(
    broker: &Broker,
    of: &Origin,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let deadline = deadline(broker, request.timeout_ms);
    let handed_over = match forward::from_follower(broker, &request, of, deadline).await {
        Some(Ok(response)) => return response,
        Some(Err(unanswered)) => Some(error_map::of_unanswered_admin(unanswered)),
        None => None,
    };
    let mut responses = Vec::new();
    for topic in asked(of.version, request) {
        let deleted = match handed_over {
            Some(code) => Err(plain(code)),
            None => delete(broker, &topic, deadline).await,
        };
        // An unknown id has no name; old versions always gave one.
        let (name, topic_id) = match &deleted {
            Ok((name, id)) => (Some(name.clone()), id.0),
            Err(_) => (topic.name, topic.topic_id),
        };
        let failure = deleted.err();
        let error_code = failure.as_ref().map_or(ErrorCode::None, |failure| failure.code);
        let error_message = failure.map(|failure| failure.message).filter(|text| !text.is_empty());
        let result = DeletableTopicResult { name, topic_id, error_code, error_message };
        responses.push(result);
    }
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

fn asked(version: i16, request: DeleteTopicsRequest) -> Vec<DeleteTopicState> {
    if version >= IDS_FROM {
        return request.topics;
    }
    let by_name = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::NIL };
    request.topic_names.into_iter().map(by_name).collect()
}

async fn delete(
    broker: &Broker,
    asked: &DeleteTopicState,
    deadline: Instant,
) -> Result<(String, TopicId), Failure> {
    // A new leader must have applied what the one before committed, or it would not know a topic
    // that exists.
    broker.prove_leadership().await.map_err(|_| error_map::Unanswered::NotDone)?;
    let found = broker.site.read(|state| {
        let topic = match &asked.name {
            Some(name) => state.topics().by_name(name),
            None => state.topics().get(TopicId(asked.topic_id)),
        };
        topic.map(|topic| (topic.name.clone(), topic.id))
    });
    let unknown = match &asked.name {
        Some(_) if asked.topic_id != Uuid::NIL => return Err(plain(ErrorCode::InvalidRequest)),
        Some(_) => ErrorCode::UnknownTopicOrPartition,
        None => ErrorCode::UnknownTopicId,
    };
    let (name, id) = found.ok_or_else(|| plain(unknown))?;
    loop {
        let needed = broker.site.read(|state| {
            state.topics().get(id).map(|topic| state.needed_by(topic)).unwrap_or_default()
        });
        for pipeline in &needed {
            match take_delta(broker, pipeline, deadline).await {
                Err(failure) if failure.code == ErrorCode::NotController => return Err(failure),
                Err(_) => return Err(Refusal::NeededAgain.into()),
                Ok(()) => {}
            }
        }
        let unit = Unit::of(Operation::DeleteTopic { topic: id });
        match carry_out(broker, unit, deadline).await {
            // An epoch has come in between.
            Err(failure) if failure.code == AGAIN && time::now() < deadline => {}
            done => return done.map(|()| (name, id)),
        }
    }
}

fn plain(code: ErrorCode) -> Failure {
    Failure { code, message: String::new() }
}

//! CreateTopics (key 19), and the creation of a topic that Metadata was asked for.
//!
//! The node that takes the request draws the topic's id and the key of its hash chains; whether the
//! name is free and the site has room is settled by the state machine.
//!
//! Invariant: every partition is on every node, so an assignment by the client is refused rather
//! than ignored.

use super::controller::{Failure, carry_out, deadline, refuse};
use super::{Origin, forward, topic_config};
use crate::broker::{Broker, chain_key};
use crate::machine::outcome::Refusal;
use crate::machine::topics::{TOPIC_CONFIGS_MAX, is_valid_name};
use fulmar_host::random;
use fulmar_host::time::Instant;
use fulmar_store::entry::{Operation, Unit};
use fulmar_types::limits::{PARTITIONS_PER_SITE_MAX, PARTITIONS_PER_TOPIC_MAX};
use fulmar_types::{TopicId, Uuid};
use fulmar_wire::{
    CONFIG_SOURCE_TOPIC, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse, ErrorCode,
};
use std::collections::BTreeMap;

/// The first version that returns the settings of a new topic (KIP-525).
const DETAILS_FROM: i16 = 5;

/// A topic that may be created as far as this node can tell.
struct Plan {
    name: String,
    partitions: u32,
    configs: Vec<(String, String)>,
}

pub(super) async fn handle(
    broker: &Broker,
    of: &Origin,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let deadline = deadline(broker, request.timeout_ms);
    match forward::from_follower(broker, &request, of, deadline).await {
        Some(Ok(response)) => return response,
        Some(Err(unanswered)) => return refuse_all(&request, &unanswered.into()),
        None => {}
    }
    let mut times = BTreeMap::<&str, u32>::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let mut response = CreateTopicsResponse::default();
    for topic in &request.topics {
        let created = if times.get(topic.name.as_str()).is_some_and(|times| *times > 1) {
            refuse(ErrorCode::InvalidRequest, "the request names this topic more than once")
        } else {
            create(broker, topic, request.validate_only, deadline).await
        };
        response.topics.push(match created {
            Ok((id, plan)) => result_of(broker, of.version, id, plan),
            Err(failure) => failed(topic, &failure),
        });
    }
    response
}

fn failed(topic: &CreatableTopic, failure: &Failure) -> CreatableTopicResult {
    CreatableTopicResult {
        name: topic.name.clone(),
        error_code: failure.code,
        error_message: Some(failure.message.clone()),
        ..CreatableTopicResult::default()
    }
}

fn refuse_all(request: &CreateTopicsRequest, failure: &Failure) -> CreateTopicsResponse {
    let topics = request.topics.iter().map(|topic| failed(topic, failure)).collect();
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

fn result_of(broker: &Broker, version: i16, id: TopicId, plan: Plan) -> CreatableTopicResult {
    let mut result =
        CreatableTopicResult { name: plan.name, topic_id: id.0, ..CreatableTopicResult::default() };
    if version >= DETAILS_FROM {
        result.num_partitions = i32::try_from(plan.partitions).unwrap_or(i32::MAX);
        result.replication_factor = i16::try_from(broker.settings.nodes.len()).unwrap_or(i16::MAX);
        let config = |(name, value)| CreatableTopicConfigs {
            name,
            value: Some(value),
            config_source: CONFIG_SOURCE_TOPIC,
            ..CreatableTopicConfigs::default()
        };
        result.configs = Some(plan.configs.into_iter().map(config).collect());
    }
    result
}

async fn create(
    broker: &Broker,
    topic: &CreatableTopic,
    validate_only: bool,
    deadline: Instant,
) -> Result<(TopicId, Plan), Failure> {
    let plan = plan(broker, topic)?;
    if validate_only {
        let existing = broker.site.read(|state| state.topics().by_name(&plan.name).is_some());
        let full = broker.site.read(|state| state.topics().partition_count())
            + plan.partitions as usize
            > PARTITIONS_PER_SITE_MAX;
        return match (existing, full) {
            (true, _) => Err(Refusal::TopicExists.into()),
            (false, true) => Err(Refusal::LimitReached.into()),
            (false, false) => Ok((TopicId(Uuid::NIL), plan)),
        };
    }
    let id = propose(broker, &plan, deadline).await?;
    Ok((id, plan))
}

fn plan(broker: &Broker, topic: &CreatableTopic) -> Result<Plan, Failure> {
    if !is_valid_name(&topic.name) {
        return Err(Refusal::InvalidTopicName.into());
    }
    if !topic.assignments.is_empty() {
        let message = "every partition is on every node; leave the assignment out";
        return refuse(ErrorCode::InvalidReplicaAssignment, message);
    }
    let nodes = broker.settings.nodes.len();
    let factor = topic.replication_factor;
    if factor != -1 && !usize::try_from(factor).is_ok_and(|n| (1..=nodes).contains(&n)) {
        let message = format!("the replication factor must be -1 or from 1 to {nodes}");
        return refuse(ErrorCode::InvalidReplicationFactor, message);
    }
    let partitions = match topic.num_partitions {
        -1 => broker.settings.default_partitions,
        asked => u32::try_from(asked).unwrap_or(0),
    };
    if partitions == 0 || partitions > PARTITIONS_PER_TOPIC_MAX {
        let message = format!("a topic has from 1 to {PARTITIONS_PER_TOPIC_MAX} partitions");
        return refuse(ErrorCode::InvalidPartitions, message);
    }
    // One place is kept for the key of the hash chains.
    if topic.configs.len() >= TOPIC_CONFIGS_MAX {
        return Err(Refusal::InvalidConfig.into());
    }
    let mut configs: Vec<(String, String)> = Vec::new();
    for config in &topic.configs {
        if configs.iter().any(|(name, _)| *name == config.name) {
            let message = format!("the setting {} is given twice", config.name);
            return refuse(ErrorCode::InvalidConfig, message);
        }
        // A setting without a value stands for its default.
        let Some(value) = &config.value else { continue };
        if let Err(message) = topic_config::check(&broker.settings, &config.name, value) {
            return refuse(ErrorCode::InvalidConfig, message);
        }
        configs.push((config.name.clone(), value.clone()));
    }
    Ok(Plan { name: topic.name.clone(), partitions, configs })
}

async fn propose(broker: &Broker, plan: &Plan, deadline: Instant) -> Result<TopicId, Failure> {
    let topic = TopicId(Uuid::from_random(random::random_16()));
    let mut configs = plan.configs.clone();
    configs.push(chain_key());
    let (name, partitions) = (plan.name.clone(), plan.partitions);
    let unit = Unit::of(Operation::CreateTopic { topic, name, partitions, configs });
    carry_out(broker, unit, deadline).await.map(|()| topic)
}

/// Creates a topic that a client asked to see, with the defaults of the site.
pub(super) async fn create_automatically(broker: &Broker, name: &str) -> Result<(), ErrorCode> {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    // Nobody keeps who asks for a topic.
    let of = Origin { version: DETAILS_FROM, forwarded: false, who: "".into() };
    let response = handle(broker, &of, request).await;
    match response.topics.first().map(|topic| topic.error_code) {
        // Somebody else was faster.
        Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => Ok(()),
        Some(ErrorCode::NotController | ErrorCode::RequestTimedOut) | None => {
            Err(ErrorCode::LeaderNotAvailable)
        }
        Some(refused) => Err(refused),
    }
}

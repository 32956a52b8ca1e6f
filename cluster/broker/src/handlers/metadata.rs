//! Metadata (key 3): the nodes, the topics, and who leads.
//!
//! One Raft leader leads all partitions, and is the controller. Any node answers from what it has
//! applied. While no leader is known a partition has error "leader not available" and the epoch of
//! its last batch: a number that no leader has yet would make clients refuse the answers of the
//! next one.
//!
//! A node that has just started may not know all of its topics again. Who asks for all of them, or
//! for one that is not there, waits a little until it does; if that takes too long, a name is
//! answered with "leader not available", which clients ask again for, and never with "unknown",
//! which they believe. The list of all topics has no place for an error: then it is what is known.

use super::catch_up::has_caught_up;
use super::partition::epoch_of;
use super::{Reply, create_topics};
use crate::answers::Held;
use crate::broker::{Broker, kafka_id};
use crate::limits::{
    AUTO_CREATED_TOPICS_MAX, METADATA_BYTES_IN_FLIGHT_MAX, REQUEST_PARTITIONS_MAX,
};
use crate::machine::state::State;
use crate::machine::topics::{Topic, is_valid_name};
use crate::room::take;
use fulmar_types::pipeline::is_internal;
use fulmar_types::{TopicId, Uuid};
use fulmar_wire::{
    ErrorCode, MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use std::collections::{BTreeMap, BTreeSet};

/// The first version that says whether a topic may be created.
const MAY_CREATE_FROM: i16 = 4;

/// About what the description of a topic takes in memory, without its partitions: the structure
/// and its bytes on the wire.
const TOPIC_BYTES: usize = 512;

/// The same for a partition: three lists of nodes, and its bytes on the wire.
const PARTITION_BYTES: usize = 320;

/// The first version in which the name of a topic may be null.
const NULL_NAME_FROM: i16 = 12;

pub(super) async fn handle(broker: &Broker, version: i16, request: MetadataRequest) -> Reply {
    if request.is_for_all_topics(version) {
        has_caught_up(broker).await;
        let all = |state: &State| bytes_of(state.topics().iter().map(Some));
        let room = take_room(broker, broker.site.read(all)).await;
        let mut response = without_topics(broker);
        response.topics = broker.site.read(|state| {
            state.topics().iter().map(|topic| describe(broker, state, topic)).collect()
        });
        return Reply::Response(response.into(), room);
    }
    let may_create = broker.settings.auto_create_topics
        && (version < MAY_CREATE_FROM || request.allow_auto_topic_creation);
    let asked = once_each(request.topics.unwrap_or_default());
    if asked.len() > REQUEST_PARTITIONS_MAX {
        // There is no error code for the whole of it.
        return Reply::Close;
    }
    let has_all = |state: &State| asked.iter().all(|topic| existing(state, topic).is_some());
    let is_certain = broker.site.read(has_all) || has_caught_up(broker).await;
    let created = if may_create { create_missing(broker, &asked).await } else { BTreeMap::new() };
    // A name that was asked for comes back, whatever it is.
    let name_bytes = asked.iter().filter_map(|topic| topic.name.as_ref()).map(String::len);
    let name_bytes = 2 * name_bytes.sum::<usize>();
    if name_bytes > METADATA_BYTES_IN_FLIGHT_MAX / 2 {
        return Reply::Close;
    }
    let named = |state: &State| bytes_of(asked.iter().map(|topic| existing(state, topic)));
    let room = take_room(broker, broker.site.read(named) + name_bytes).await;
    let mut response = without_topics(broker);
    response.topics = broker.site.read(|state| {
        let find = |topic| {
            let mut found = find(broker, state, topic, &created);
            if !is_certain && is_unknown(found.error_code) {
                found.error_code = ErrorCode::LeaderNotAvailable;
            }
            // Before version 12 a name is never null.
            found.name = found.name.or_else(|| (version < NULL_NAME_FROM).then(String::new));
            found
        };
        asked.into_iter().map(find).collect()
    });
    Reply::Response(response.into(), room)
}

fn is_unknown(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition)
}

/// Every topic once, in the order in which they were first named: a topic that is named a thousand
/// times is described once.
fn once_each(mut asked: Vec<MetadataRequestTopic>) -> Vec<MetadataRequestTopic> {
    let mut seen = BTreeSet::new();
    asked.retain(|topic| seen.insert((topic.name.clone(), topic.topic_id)));
    asked
}

/// About how much memory the description of some topics takes; `None` is one that does not exist.
fn bytes_of<'a>(topics: impl Iterator<Item = Option<&'a Topic>>) -> usize {
    let partitions = |topic: Option<&Topic>| topic.map_or(0, |topic| topic.partitions as usize);
    topics.map(|topic| TOPIC_BYTES + partitions(topic) * PARTITION_BYTES).sum()
}

/// Reserves memory for a response; waits while too many are under way.
async fn take_room(broker: &Broker, bytes: usize) -> Held {
    vec![take(&broker.metadata_room, bytes.min(METADATA_BYTES_IN_FLIGHT_MAX)).await]
}

fn without_topics(broker: &Broker) -> MetadataResponse {
    MetadataResponse {
        brokers: brokers(broker),
        cluster_id: Some(broker.settings.cluster_id.clone()),
        controller_id: broker.group.leadership().leader.map_or(-1, kafka_id),
        ..MetadataResponse::default()
    }
}

fn brokers(broker: &Broker) -> Vec<MetadataResponseBroker> {
    let describe = |endpoint: &crate::settings::Endpoint| MetadataResponseBroker {
        node_id: kafka_id(endpoint.node),
        host: endpoint.host.clone(),
        port: endpoint.port.into(),
        rack: None,
    };
    broker.settings.nodes.iter().map(describe).collect()
}

/// Creates the topics that are missing, and says for each what its entry is to show until this
/// node has applied it.
async fn create_missing(
    broker: &Broker,
    asked: &[MetadataRequestTopic],
) -> BTreeMap<String, ErrorCode> {
    let missing: BTreeSet<String> = broker.site.read(|state| {
        let names = asked.iter().filter_map(|topic| topic.name.as_ref());
        let missing = names.filter(|name| state.topics().by_name(name).is_none());
        missing.filter(|name| is_valid_name(name)).take(AUTO_CREATED_TOPICS_MAX).cloned().collect()
    });
    let mut created = BTreeMap::new();
    for name in missing {
        let done = create_topics::create_automatically(broker, &name).await;
        created.insert(name, done.err().unwrap_or(ErrorCode::LeaderNotAvailable));
    }
    created
}

fn existing<'a>(state: &'a State, asked: &MetadataRequestTopic) -> Option<&'a Topic> {
    match &asked.name {
        Some(name) => state.topics().by_name(name),
        None => state.topics().get(TopicId(asked.topic_id)),
    }
}

fn find(
    broker: &Broker,
    state: &State,
    asked: MetadataRequestTopic,
    created: &BTreeMap<String, ErrorCode>,
) -> MetadataResponseTopic {
    if let Some(topic) = existing(state, &asked) {
        return describe(broker, state, topic);
    }
    let error_code = match &asked.name {
        None => ErrorCode::UnknownTopicId,
        Some(name) if !is_valid_name(name) => ErrorCode::InvalidTopicException,
        Some(name) => *created.get(name).unwrap_or(&ErrorCode::UnknownTopicOrPartition),
    };
    let topic_id = if asked.name.is_some() { Uuid::NIL } else { asked.topic_id };
    let name = asked.name;
    MetadataResponseTopic { error_code, name, topic_id, ..MetadataResponseTopic::default() }
}

fn describe(broker: &Broker, state: &State, topic: &Topic) -> MetadataResponseTopic {
    let leadership = broker.group.leadership();
    let nodes: Vec<i32> = broker.settings.nodes.iter().map(|e| kafka_id(e.node)).collect();
    let partitions = (0..).zip(topic.streams()).map(|(partition_index, stream)| {
        let last_epoch = || {
            let last = state.partition(stream).and_then(|partition| partition.epochs.last());
            last.map_or(0, |(term, _)| epoch_of(*term))
        };
        let (error_code, leader_id, leader_epoch) = match leadership.leader {
            Some(leader) => (ErrorCode::None, kafka_id(leader), epoch_of(leadership.term)),
            None => (ErrorCode::LeaderNotAvailable, -1, last_epoch()),
        };
        MetadataResponsePartition {
            error_code,
            partition_index,
            leader_id,
            leader_epoch,
            replica_nodes: nodes.clone(),
            isr_nodes: nodes.clone(),
            offline_replicas: Vec::new(),
        }
    });
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id.0,
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}

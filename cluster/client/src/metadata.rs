//! What the client believes about the site: nodes, topics, and who leads.
//!
//! Invariant: the leader epoch of a partition never goes back while the topic keeps its id. A node
//! that was cut off answers with what it last knew, and must not turn the client back to a leader
//! that was deposed (KIP-320).

use fulmar_types::{NodeId, PartitionIndex, Uuid};
use fulmar_wire::{
    ErrorCode, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The name of the topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: &str, partition: PartitionIndex) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The partition as the wire has it.
    pub(crate) fn wire_index(&self) -> i32 {
        // Nobody has partitions beyond 2^31; if somebody asks for one, the broker has to say no.
        i32::try_from(self.partition.get()).unwrap_or(i32::MAX)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A leader epoch as the wire has it: the Raft term, -1 if it is not known.
pub type LeaderEpoch = i32;

/// What is known about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The node that leads it.
    pub leader: Option<NodeId>,
    /// The epoch of that leader.
    pub leader_epoch: LeaderEpoch,
    /// Why there is no leader.
    pub error: ErrorCode,
}

/// What is known about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its id, [`Uuid::NIL`] if the node did not tell.
    pub id: Uuid,
    /// Why there is no such topic.
    pub error: ErrorCode,
    /// Its partitions.
    pub partitions: BTreeMap<PartitionIndex, PartitionMetadata>,
}

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At this address.
    Address(SocketAddr),
    /// At an address of this name, `host:port`, which is looked up for each new connection: names
    /// move.
    Name(String),
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&str> for Place {
    fn from(advertised: &str) -> Self {
        advertised.parse().map_or_else(|_| Self::Name(advertised.to_owned()), Self::Address)
    }
}

/// What is known about the site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The site's id.
    pub site: Option<String>,
    /// The nodes with the address that they advertise, `host:port`.
    pub nodes: BTreeMap<NodeId, String>,
    /// The node that takes requests about topics.
    pub controller: Option<NodeId>,
    /// The topics that were asked for.
    pub topics: BTreeMap<String, TopicMetadata>,
}

fn node_id(id: i32) -> Option<NodeId> {
    u64::try_from(id).ok().map(NodeId)
}

fn advertised(broker: &MetadataResponseBroker) -> String {
    // A bare IPv6 address needs brackets before a port can follow it.
    match broker.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", broker.port),
        _ => format!("{}:{}", broker.host, broker.port),
    }
}

fn partition(found: &MetadataResponsePartition) -> PartitionMetadata {
    PartitionMetadata {
        leader: node_id(found.leader_id),
        leader_epoch: found.leader_epoch,
        error: found.error_code,
    }
}

impl Metadata {
    /// Where a node says that it can be reached.
    pub fn place(&self, node: NodeId) -> Option<Place> {
        self.nodes.get(&node).map(|advertised| Place::from(&**advertised))
    }

    /// What is known about a partition.
    pub fn partition(&self, of: &TopicPartition) -> Option<&PartitionMetadata> {
        self.topics.get(&*of.topic)?.partitions.get(&of.partition)
    }

    /// Takes over what a node answered.
    pub(crate) fn merge(&mut self, answer: MetadataResponse) {
        // A node that just started may know nobody yet.
        if !answer.brokers.is_empty() {
            let known = |broker: &MetadataResponseBroker| {
                Some((node_id(broker.node_id)?, advertised(broker)))
            };
            self.nodes = answer.brokers.iter().filter_map(known).collect();
        }
        self.site = answer.cluster_id.or(self.site.take());
        self.controller = node_id(answer.controller_id);
        for topic in answer.topics {
            if let Some(name) = topic.name.clone() {
                self.merge_topic(name, &topic);
            }
        }
    }

    fn merge_topic(&mut self, name: String, answer: &MetadataResponseTopic) {
        let fresh = TopicMetadata {
            id: answer.topic_id,
            error: answer.error_code,
            partitions: BTreeMap::new(),
        };
        let topic = self.topics.entry(name).or_insert_with(|| fresh.clone());
        if !answer.error_code.is_none() {
            topic.error = answer.error_code;
            return;
        }
        if topic.id != fresh.id {
            *topic = fresh;
        }
        topic.error = ErrorCode::None;
        for found in &answer.partitions {
            let Ok(index) = u32::try_from(found.partition_index) else { continue };
            let fresh = partition(found);
            let known = topic.partitions.entry(PartitionIndex(index)).or_insert(fresh.clone());
            if fresh.leader_epoch >= known.leader_epoch {
                *known = fresh;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u8, leader: i32, epoch: i32) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "127.0.0.1".to_owned(),
                port: 9092,
                ..Default::default()
            }],
            controller_id: leader,
            topics: vec![MetadataResponseTopic {
                name: Some("t".to_owned()),
                topic_id: Uuid([id; 16]),
                partitions: vec![MetadataResponsePartition {
                    leader_id: leader,
                    leader_epoch: epoch,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn leader(metadata: &Metadata) -> Option<NodeId> {
        metadata.partition(&TopicPartition::new("t", PartitionIndex(0))).expect("known").leader
    }

    #[test]
    fn an_older_epoch_does_not_bring_a_deposed_leader_back() {
        let mut metadata = Metadata::default();
        metadata.merge(answer(1, 2, 7));
        assert_eq!(leader(&metadata), Some(NodeId(2)));
        metadata.merge(answer(1, 1, 6));
        assert_eq!(leader(&metadata), Some(NodeId(2)));
        metadata.merge(answer(1, -1, 8));
        assert_eq!(leader(&metadata), None);
        metadata.merge(answer(1, 3, 8));
        assert_eq!(leader(&metadata), Some(NodeId(3)));
    }

    #[test]
    fn a_topic_that_was_made_anew_starts_afresh() {
        let mut metadata = Metadata::default();
        metadata.merge(answer(1, 2, 7));
        metadata.merge(answer(2, 1, 3));
        assert_eq!(leader(&metadata), Some(NodeId(1)));
    }

    #[test]
    fn a_node_advertises_an_address_or_a_name() {
        let mut metadata = Metadata::default();
        metadata.merge(answer(1, 2, 7));
        let address = "127.0.0.1:9092".parse().expect("an address");
        assert_eq!(metadata.place(NodeId(1)), Some(Place::Address(address)));
        metadata.nodes.insert(NodeId(2), "gateway:9092".to_owned());
        assert_eq!(metadata.place(NodeId(2)), Some(Place::Name("gateway:9092".to_owned())));
        assert_eq!(metadata.place(NodeId(3)), None);
        let six = MetadataResponseBroker { host: "::1".to_owned(), port: 1, ..Default::default() };
        assert_eq!(advertised(&six), "[::1]:1");
    }
}

//! Metadata (key 3): brokers, topics, partitions and their leaders.

use crate::ErrorCode;
use crate::message::message;
use fulmar_types::Uuid;

/// The value of the fields of authorised operations when they were not asked for.
pub const AUTHORIZED_OPERATIONS_OMITTED: i32 = i32::MIN;

message! {
    /// Asks for topics, or for all of them ([`MetadataRequest::is_for_all_topics`]).
    pub struct MetadataRequest {
        /// The topics asked for; null means all, which version 0 says with an empty array.
        [0.., nullable 1..] topics: Option<Vec<MetadataRequestTopic>>;
        /// Whether a topic that does not exist may be created.
        [4..] allow_auto_topic_creation: bool = true;
        /// Whether to say what the client may do to the site.
        [8..=10] include_cluster_authorized_operations: bool;
        /// Whether to say what the client may do to each topic.
        [8..] include_topic_authorized_operations: bool;
    }

    /// A topic asked for by name, or by id where the name is null.
    pub struct MetadataRequestTopic {
        /// The id of the topic, or [`Uuid::NIL`].
        [10..] topic_id: Uuid, ignorable;
        /// The name of the topic.
        [0.., nullable 10..] name: Option<String>;
    }

    /// Brokers and topics.
    pub struct MetadataResponse {
        /// How long the broker held the request back to enforce a quota.
        [3..] throttle_time_ms: i32, ignorable;
        /// Every broker of the site.
        [0..] brokers: Vec<MetadataResponseBroker>;
        /// The id of the site.
        [2.., nullable 2..] cluster_id: Option<String>, ignorable;
        /// The broker id of the controller, -1 if there is none.
        [1..] controller_id: i32 = -1, ignorable;
        /// The topics.
        [0..] topics: Vec<MetadataResponseTopic>;
        /// A bit field of what the client may do to the site.
        [8..=10] cluster_authorized_operations: i32 = AUTHORIZED_OPERATIONS_OMITTED;
    }

    /// A broker and where to reach it.
    pub struct MetadataResponseBroker {
        /// The broker id.
        [0..] node_id: i32;
        /// The advertised host.
        [0..] host: String;
        /// The advertised port.
        [0..] port: i32;
        /// The rack.
        [1.., nullable 1..] rack: Option<String>, ignorable;
    }

    /// A topic, or why there is none.
    pub struct MetadataResponseTopic {
        /// The error of the topic.
        [0..] error_code: ErrorCode;
        /// The name; null if the topic was asked for by an id that is not known.
        [0.., nullable 12..] name: Option<String>;
        /// The id of the topic, stable for its life.
        [10..] topic_id: Uuid, ignorable;
        /// Whether the topic belongs to the broker.
        [1..] is_internal: bool, ignorable;
        /// The partitions.
        [0..] partitions: Vec<MetadataResponsePartition>;
        /// A bit field of what the client may do to the topic.
        [8..] topic_authorized_operations: i32 = AUTHORIZED_OPERATIONS_OMITTED;
    }

    /// A partition and its replicas.
    pub struct MetadataResponsePartition {
        /// The error of the partition.
        [0..] error_code: ErrorCode;
        /// The index of the partition in its topic.
        [0..] partition_index: i32;
        /// The broker id of the leader, -1 if there is none.
        [0..] leader_id: i32;
        /// The leader epoch (KIP-320), which is the Raft term.
        [7..] leader_epoch: i32 = -1, ignorable;
        /// The brokers that hold the partition.
        [0..] replica_nodes: Vec<i32>;
        /// Those of them that are in sync.
        [0..] isr_nodes: Vec<i32>;
        /// Those of them that are offline.
        [5..] offline_replicas: Vec<i32>, ignorable;
    }
}

impl MetadataRequest {
    /// Whether the request, which came in `version`, asks for every topic.
    pub fn is_for_all_topics(&self, version: i16) -> bool {
        self.topics.as_ref().is_none_or(|topics| version == 0 && topics.is_empty())
    }
}

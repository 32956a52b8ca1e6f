//! CreateTopics (key 19).

use crate::ErrorCode;
use crate::message::message;
use fulmar_types::Uuid;

message! {
    /// Topics to create.
    pub struct CreateTopicsRequest {
        /// The topics.
        [0..] topics: Vec<CreatableTopic>;
        /// How long the broker may take.
        [0..] timeout_ms: i32 = 60_000;
        /// Whether to check the request and create nothing.
        [1..] validate_only: bool;
    }

    /// A topic to create.
    pub struct CreatableTopic {
        /// The name.
        [0..] name: String;
        /// The number of partitions, -1 for the broker's default or with assignments.
        [0..] num_partitions: i32;
        /// The number of replicas, -1 for the broker's default or with assignments.
        [0..] replication_factor: i16;
        /// Replicas by partition, chosen by the client.
        [0..] assignments: Vec<CreatableReplicaAssignment>;
        /// Settings of the topic.
        [0..] configs: Vec<CreatableTopicConfig>;
    }

    /// The replicas of one partition.
    pub struct CreatableReplicaAssignment {
        /// The index of the partition.
        [0..] partition_index: i32;
        /// The broker ids.
        [0..] broker_ids: Vec<i32>;
    }

    /// A setting of a topic.
    pub struct CreatableTopicConfig {
        /// Its name.
        [0..] name: String;
        /// Its value.
        [0.., nullable 0..] value: Option<String>;
    }

    /// What became of each topic.
    pub struct CreateTopicsResponse {
        /// How long the broker held the request back to enforce a quota.
        [2..] throttle_time_ms: i32, ignorable;
        /// The outcomes.
        [0..] topics: Vec<CreatableTopicResult>;
    }

    /// What became of one topic.
    pub struct CreatableTopicResult {
        /// The name.
        [0..] name: String;
        /// The id of the topic.
        [7..] topic_id: Uuid, ignorable;
        /// The error, or none.
        [0..] error_code: ErrorCode;
        /// What went wrong, for people.
        [1.., nullable 0..] error_message: Option<String>, ignorable;
        /// Why the settings are not returned.
        [5.., tag 0] topic_config_error_code: ErrorCode, ignorable;
        /// The number of partitions.
        [5..] num_partitions: i32 = -1, ignorable;
        /// The number of replicas.
        [5..] replication_factor: i16 = -1, ignorable;
        /// The settings of the topic.
        [5.., nullable 5..] configs: Option<Vec<CreatableTopicConfigs>> = Some(Vec::new()), ignorable;
    }

    /// A setting of a topic that was created.
    pub struct CreatableTopicConfigs {
        /// Its name.
        [5..] name: String;
        /// Its value.
        [5.., nullable 5..] value: Option<String>, ignorable;
        /// Whether it cannot be changed.
        [5..] read_only: bool;
        /// Where the value comes from.
        [5..] config_source: i8 = -1, ignorable;
        /// Whether the value must not be shown.
        [5..] is_sensitive: bool;
    }
}

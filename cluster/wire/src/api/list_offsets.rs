//! ListOffsets (key 2): the first, the last, or the first offset at or after a time.

use crate::ErrorCode;
use crate::message::message;

/// [`ListOffsetsPartition::timestamp`]: the offset after the last record.
pub const LATEST_TIMESTAMP: i64 = -1;

/// [`ListOffsetsPartition::timestamp`]: the first offset that is kept.
pub const EARLIEST_TIMESTAMP: i64 = -2;

/// [`ListOffsetsPartition::timestamp`]: the record with the highest timestamp (version 7).
pub const MAX_TIMESTAMP: i64 = -3;

message! {
    /// What to look up.
    pub struct ListOffsetsRequest {
        /// The broker id of a follower; -1 for a consumer.
        [0..] replica_id: i32 = -1;
        /// [`crate::READ_UNCOMMITTED`] or [`crate::READ_COMMITTED`].
        [2..] isolation_level: i8;
        /// The lookups by topic.
        [0..] topics: Vec<ListOffsetsTopic>;
    }

    /// The lookups in one topic.
    pub struct ListOffsetsTopic {
        /// The name of the topic.
        [0..] name: String;
        /// The lookups by partition.
        [0..] partitions: Vec<ListOffsetsPartition>;
    }

    /// The lookup in one partition.
    pub struct ListOffsetsPartition {
        /// The index of the partition.
        [0..] partition_index: i32;
        /// The leader epoch that the client knows, -1 for none (KIP-320).
        [4..] current_leader_epoch: i32 = -1, ignorable;
        /// A time in ms since 1970, or one of the constants above.
        [0..] timestamp: i64;
    }

    /// What was found.
    pub struct ListOffsetsResponse {
        /// How long the broker held the request back to enforce a quota.
        [2..] throttle_time_ms: i32, ignorable;
        /// The answers by topic.
        [0..] topics: Vec<ListOffsetsTopicResponse>;
    }

    /// The answers for one topic.
    pub struct ListOffsetsTopicResponse {
        /// The name of the topic.
        [0..] name: String;
        /// The answers by partition.
        [0..] partitions: Vec<ListOffsetsPartitionResponse>;
    }

    /// The answer for one partition.
    pub struct ListOffsetsPartitionResponse {
        /// The index of the partition.
        [0..] partition_index: i32;
        /// The error of the partition.
        [0..] error_code: ErrorCode;
        /// The timestamp of the record that was found, -1 for none.
        [1..] timestamp: i64 = -1;
        /// The offset that was found, -1 for none.
        [1..] offset: i64 = -1;
        /// The leader epoch of that record, -1 for none.
        [4..] leader_epoch: i32 = -1;
    }
}

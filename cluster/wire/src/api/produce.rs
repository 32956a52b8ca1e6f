//! Produce (key 0): appends one record batch to each of some partitions.
//!
//! A request with acks 0 has no response.

use crate::ErrorCode;
use crate::message::message;
use bytes::Bytes;

/// The value of [`ProduceRequest::acks`] that asks for all in-sync replicas.
pub const ACKS_ALL: i16 = -1;

message! {
    /// Batches to append.
    pub struct ProduceRequest {
        /// The transactional id, if the batches are part of a transaction.
        [3.., nullable 3..] transactional_id: Option<String>;
        /// 0 for no answer, 1 for the leader, -1 for all in-sync replicas.
        [0..] acks: i16;
        /// How long the broker may wait for the replicas.
        [0..] timeout_ms: i32;
        /// The batches by topic.
        [0..] topic_data: Vec<TopicProduceData>;
    }

    /// The batches for one topic.
    pub struct TopicProduceData {
        /// The name of the topic.
        [0..] name: String;
        /// The batches by partition.
        [0..] partition_data: Vec<PartitionProduceData>;
    }

    /// The batch for one partition.
    pub struct PartitionProduceData {
        /// The index of the partition.
        [0..] index: i32;
        /// The record batch, shared with the frame; see [`crate::batch::Batch::from_producer`].
        [0.., nullable 0..] records: Option<Bytes>;
    }

    /// What became of each batch.
    pub struct ProduceResponse {
        /// The outcomes by topic.
        [0..] responses: Vec<TopicProduceResponse>;
        /// How long the broker held the request back to enforce a quota.
        [1..] throttle_time_ms: i32, ignorable;
    }

    /// The outcomes for one topic.
    pub struct TopicProduceResponse {
        /// The name of the topic.
        [0..] name: String;
        /// The outcomes by partition.
        [0..] partition_responses: Vec<PartitionProduceResponse>;
    }

    /// The outcome for one partition.
    pub struct PartitionProduceResponse {
        /// The index of the partition.
        [0..] index: i32;
        /// The error, or none.
        [0..] error_code: ErrorCode;
        /// The offset of the batch's first record; -1 if nothing was appended.
        [0..] base_offset: i64;
        /// The time of the append, if the topic stamps records itself; else -1.
        [2..] log_append_time_ms: i64 = -1, ignorable;
        /// The first offset that the partition keeps.
        [5..] log_start_offset: i64 = -1, ignorable;
        /// Which records of the batch caused the error.
        [8..] record_errors: Vec<BatchIndexAndErrorMessage>, ignorable;
        /// What went wrong, for people.
        [8.., nullable 8..] error_message: Option<String>, ignorable;
    }

    /// One record that caused its batch to be refused.
    pub struct BatchIndexAndErrorMessage {
        /// The index of the record in the batch.
        [8..] batch_index: i32;
        /// What is wrong with it, for people.
        [8.., nullable 8..] batch_index_error_message: Option<String>;
    }
}

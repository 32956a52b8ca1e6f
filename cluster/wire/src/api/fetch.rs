//! Fetch (key 1): reads record batches from some partitions.
//!
//! Sessions (KIP-227) are declared so that their fields can be read; a broker that always answers
//! session id 0 serves every client.

use crate::message::message;
use crate::{ErrorCode, Records};

/// [`FetchRequest::isolation_level`] and [`crate::ListOffsetsRequest::isolation_level`]: all records.
pub const READ_UNCOMMITTED: i8 = 0;

/// [`FetchRequest::isolation_level`] and [`crate::ListOffsetsRequest::isolation_level`]: none of
/// open or aborted transactions.
pub const READ_COMMITTED: i8 = 1;

message! {
    /// Where to read, and how long to wait for how much.
    pub struct FetchRequest {
        /// The id of the site, if the client knows it.
        [12.., nullable 12.., tag 0] cluster_id: Option<String>, ignorable;
        /// The broker id of a follower; -1 for a consumer.
        [0..] replica_id: i32 = -1;
        /// The longest wait for `min_bytes`.
        [0..] max_wait_ms: i32;
        /// The fewest bytes worth an answer before the wait is over.
        [0..] min_bytes: i32;
        /// The most bytes to answer with, except that the first batch is always whole.
        [3..] max_bytes: i32 = i32::MAX, ignorable;
        /// [`READ_UNCOMMITTED`] or [`READ_COMMITTED`].
        [4..] isolation_level: i8;
        /// The fetch session; 0 for none.
        [7..] session_id: i32, ignorable;
        /// The epoch of the fetch session; -1 for none.
        [7..] session_epoch: i32 = -1, ignorable;
        /// The partitions to read.
        [0..] topics: Vec<FetchTopic>;
        /// Partitions to drop from the session.
        [7..] forgotten_topics_data: Vec<ForgottenTopic>;
        /// The rack of the consumer.
        [11..] rack_id: String, ignorable;
    }

    /// The partitions of one topic to read.
    pub struct FetchTopic {
        /// The name of the topic.
        [0..] topic: String;
        /// The partitions.
        [0..] partitions: Vec<FetchPartition>;
    }

    /// A partition to read.
    pub struct FetchPartition {
        /// The index of the partition.
        [0..] partition: i32;
        /// The leader epoch that the client knows, -1 for none (KIP-320).
        [9..] current_leader_epoch: i32 = -1, ignorable;
        /// The offset to read from.
        [0..] fetch_offset: i64;
        /// The epoch of the last record that a follower has, -1 for a consumer.
        [12..] last_fetched_epoch: i32 = -1;
        /// The first offset that a follower keeps, -1 for a consumer.
        [5..] log_start_offset: i64 = -1, ignorable;
        /// The most bytes to read from this partition.
        [0..] partition_max_bytes: i32;
    }

    /// Partitions of one topic to drop from the session.
    pub struct ForgottenTopic {
        /// The name of the topic.
        [7..] topic: String;
        /// The partitions.
        [7..] partitions: Vec<i32>;
    }

    /// What was read.
    pub struct FetchResponse {
        /// How long the broker held the request back to enforce a quota.
        [1..] throttle_time_ms: i32, ignorable;
        /// The error of the request as a whole.
        [7..] error_code: ErrorCode, ignorable;
        /// The fetch session; 0 for none.
        [7..] session_id: i32;
        /// The records by topic.
        [0..] responses: Vec<FetchableTopicResponse>;
    }

    /// What was read from one topic.
    pub struct FetchableTopicResponse {
        /// The name of the topic.
        [0..] topic: String;
        /// The records by partition.
        [0..] partitions: Vec<FetchPartitionData>;
    }

    /// What was read from one partition (Kafka calls it `PartitionData`).
    pub struct FetchPartitionData {
        /// The index of the partition.
        [0..] partition_index: i32;
        /// The error of the partition.
        [0..] error_code: ErrorCode;
        /// The offset after the last committed record.
        [0..] high_watermark: i64;
        /// The offset of the first record of an open transaction, else the high watermark.
        [4..] last_stable_offset: i64 = -1, ignorable;
        /// The first offset that the partition keeps.
        [5..] log_start_offset: i64 = -1, ignorable;
        /// Where the follower's log parted from the leader's.
        [12.., tag 0] diverging_epoch: EpochEndOffset;
        /// The present leader, if the answering broker is not.
        [12.., tag 1] current_leader: LeaderIdAndEpoch;
        /// The snapshot that a follower has to fetch first.
        [12.., tag 2] snapshot_id: SnapshotId;
        /// Transactions that were aborted in the range that was read; null if not asked for.
        [4.., nullable 4..] aborted_transactions: Option<Vec<AbortedTransaction>>, ignorable;
        /// A replica that is closer to the consumer, -1 for none.
        [11..] preferred_read_replica: i32 = -1;
        /// The batches. Empty rather than null, which librdkafka takes for damage.
        [0.., nullable 0..] records: Option<Records> = Some(Records::new());
    }

    /// The end of a leader epoch.
    pub struct EpochEndOffset {
        /// The epoch, -1 for none.
        [12..] epoch: i32 = -1;
        /// The offset after its last record.
        [12..] end_offset: i64 = -1;
    }

    /// A leader and its epoch.
    pub struct LeaderIdAndEpoch {
        /// The broker id, -1 for none.
        [12..] leader_id: i32 = -1;
        /// The leader epoch.
        [12..] leader_epoch: i32 = -1;
    }

    /// The end of a snapshot.
    pub struct SnapshotId {
        /// The offset after the last record that it holds, -1 for none.
        [0..] end_offset: i64 = -1;
        /// The epoch of that record.
        [0..] epoch: i32 = -1;
    }

    /// A transaction that was aborted.
    pub struct AbortedTransaction {
        /// The producer id of the transaction.
        [4..] producer_id: i64;
        /// The offset of its first record.
        [4..] first_offset: i64;
    }
}

//! DeleteTopics (key 20).

use crate::ErrorCode;
use crate::message::message;
use fulmar_types::Uuid;

message! {
    /// Topics to delete.
    pub struct DeleteTopicsRequest {
        /// The topics by name or id, from version 6.
        [6..] topics: Vec<DeleteTopicState>;
        /// The topics by name, up to version 5.
        [0..=5] topic_names: Vec<String>;
        /// How long the broker may take.
        [0..] timeout_ms: i32;
    }

    /// A topic by name, or by id where the name is null.
    pub struct DeleteTopicState {
        /// The name.
        [6.., nullable 6..] name: Option<String>;
        /// The id, or [`Uuid::NIL`].
        [6..] topic_id: Uuid;
    }

    /// What became of each topic.
    pub struct DeleteTopicsResponse {
        /// How long the broker held the request back to enforce a quota.
        [1..] throttle_time_ms: i32, ignorable;
        /// The outcomes.
        [0..] responses: Vec<DeletableTopicResult>;
    }

    /// What became of one topic.
    pub struct DeletableTopicResult {
        /// The name; null for a topic id that is not known.
        [0.., nullable 6..] name: Option<String>;
        /// The id of the topic.
        [6..] topic_id: Uuid, ignorable;
        /// The error, or none.
        [0..] error_code: ErrorCode;
        /// What went wrong, for people.
        [5.., nullable 5..] error_message: Option<String>, ignorable;
    }
}

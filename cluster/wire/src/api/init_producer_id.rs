//! InitProducerId (key 22): a producer id and an epoch, for duplicate detection (KIP-98).

use crate::ErrorCode;
use crate::message::message;

message! {
    /// Asks for a producer id.
    pub struct InitProducerIdRequest {
        /// The transactional id; null for a producer that is idempotent and no more.
        [0.., nullable 0..] transactional_id: Option<String>;
        /// How long a transaction may stay open.
        [0..] transaction_timeout_ms: i32;
        /// The producer id that the client has and wants bumped, -1 for none (KIP-360).
        [3..] producer_id: i64 = -1;
        /// The epoch that the client has, -1 for none.
        [3..] producer_epoch: i16 = -1;
    }

    /// The producer id.
    pub struct InitProducerIdResponse {
        /// How long the broker held the request back to enforce a quota.
        [0..] throttle_time_ms: i32, ignorable;
        /// The error, or none.
        [0..] error_code: ErrorCode;
        /// The producer id, -1 with an error.
        [0..] producer_id: i64 = -1;
        /// The epoch of the producer id.
        [0..] producer_epoch: i16;
    }
}

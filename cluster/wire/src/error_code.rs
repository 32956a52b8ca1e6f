//! Kafka's error codes, as far as the APIs that we speak can answer with them.
//!
//! Source: the table "Error Codes" of the Kafka protocol guide. A code that is not listed here
//! survives a round trip, so that a client can log what a newer broker said.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal $(, $retriable:ident)?;)*) => {
        /// An error code of the protocol.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$meta])* $name,)*
            /// A code that this crate has no name for.
            Unlisted(UnlistedCode),
        }

        impl ErrorCode {
            /// Every code that has a name, in the order of their numbers.
            pub const LISTED: &'static [Self] = &[$(Self::$name,)*];

            /// The code with this number.
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    code => Self::Unlisted(UnlistedCode(code)),
                }
            }

            /// The number on the wire.
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Unlisted(UnlistedCode(code)) => code,
                }
            }

            /// Whether the same request may succeed later, after a refresh of the metadata at
            /// most (Kafka's `RetriableException`). A code without a name is not retried.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$name => error_codes!(@retriable $($retriable)?),)*
                    Self::Unlisted(_) => false,
                }
            }
        }
    };
    (@retriable) => { false };
    (@retriable retriable) => { true };
}

error_codes! {
    /// An error of the broker that no other code describes.
    UnknownServerError = -1;
    /// Success.
    #[default]
    None = 0;
    /// The offset lies outside the range that the broker keeps.
    OffsetOutOfRange = 1;
    /// A checksum does not match, or the message is otherwise damaged.
    CorruptMessage = 2, retriable;
    /// No such topic or partition here.
    UnknownTopicOrPartition = 3, retriable;
    /// The requested fetch size is invalid.
    InvalidFetchSize = 4;
    /// No leader at the moment: an election is on.
    LeaderNotAvailable = 5, retriable;
    /// The broker is not the leader of the partition.
    NotLeaderOrFollower = 6, retriable;
    /// The request did not complete in its time.
    RequestTimedOut = 7, retriable;
    /// The broker is not available.
    BrokerNotAvailable = 8;
    /// The replica is not available for the topic partition.
    ReplicaNotAvailable = 9, retriable;
    /// The batch is larger than the broker accepts.
    MessageTooLarge = 10;
    /// The metadata of the committed offset is too large.
    OffsetMetadataTooLarge = 12;
    /// The connection broke before an answer came.
    NetworkException = 13, retriable;
    /// The coordinator is loading and cannot answer yet.
    CoordinatorLoadInProgress = 14, retriable;
    /// The coordinator is not available.
    CoordinatorNotAvailable = 15, retriable;
    /// The broker is not the coordinator.
    NotCoordinator = 16, retriable;
    /// The name of the topic is not valid, or the topic is internal.
    InvalidTopicException = 17;
    /// The record batch is larger than a segment.
    RecordListTooLarge = 18;
    /// Fewer replicas are in sync than the topic requires.
    NotEnoughReplicas = 19, retriable;
    /// The batch was appended, to fewer replicas than the topic requires.
    NotEnoughReplicasAfterAppend = 20, retriable;
    /// The value of acks is not 0, 1 or -1.
    InvalidRequiredAcks = 21;
    /// Not authorised to access the topic.
    TopicAuthorizationFailed = 29;
    /// Not authorised to access the group.
    GroupAuthorizationFailed = 30;
    /// Not authorised to access the site.
    ClusterAuthorizationFailed = 31;
    /// The timestamp of a record is out of the accepted range.
    InvalidTimestamp = 32;
    /// The SASL mechanism is not enabled.
    UnsupportedSaslMechanism = 33;
    /// The request is not valid in the present state of the SASL exchange.
    IllegalSaslState = 34;
    /// The version of the API is not supported.
    UnsupportedVersion = 35;
    /// A topic of this name exists.
    TopicAlreadyExists = 36;
    /// The number of partitions is not valid.
    InvalidPartitions = 37;
    /// The replication factor is not valid.
    InvalidReplicationFactor = 38;
    /// The replica assignment is not valid.
    InvalidReplicaAssignment = 39;
    /// The configuration is not valid.
    InvalidConfig = 40;
    /// The broker is not the controller.
    NotController = 41, retriable;
    /// The request contradicts itself or the protocol.
    InvalidRequest = 42;
    /// The message format on disk does not support the request.
    UnsupportedForMessageFormat = 43;
    /// A policy of the broker refuses the request.
    PolicyViolation = 44;
    /// A batch's sequence number is not the next one of its producer.
    OutOfOrderSequenceNumber = 45;
    /// The sequence number is one that was appended before.
    DuplicateSequenceNumber = 46;
    /// The producer's epoch is older than the one that the broker knows.
    InvalidProducerEpoch = 47;
    /// The producer tried an operation of transactions in a state that does not allow it.
    InvalidTxnState = 48;
    /// The producer id is not the one of the transactional id.
    InvalidProducerIdMapping = 49;
    /// The transaction timeout is longer than the broker accepts.
    InvalidTransactionTimeout = 50;
    /// Another operation of the transaction is under way.
    ConcurrentTransactions = 51;
    /// A newer coordinator has written the transaction's marker.
    TransactionCoordinatorFenced = 52;
    /// Not authorised to use the transactional id.
    TransactionalIdAuthorizationFailed = 53;
    /// Security is disabled.
    SecurityDisabled = 54;
    /// The disk of the log failed.
    KafkaStorageError = 56, retriable;
    /// The authentication failed.
    SaslAuthenticationFailed = 58;
    /// The broker has no state of this producer id any more.
    UnknownProducerId = 59;
    /// The fetch session is not known.
    FetchSessionIdNotFound = 70, retriable;
    /// The epoch of the fetch session is not the expected one.
    InvalidFetchSessionEpoch = 71, retriable;
    /// Deletion of topics is disabled.
    TopicDeletionDisabled = 73;
    /// The client's leader epoch is older than the broker's.
    FencedLeaderEpoch = 74, retriable;
    /// The client's leader epoch is newer than the broker's.
    UnknownLeaderEpoch = 75, retriable;
    /// The client does not know the compression of the batch (too old a version of the API).
    UnsupportedCompressionType = 76;
    /// The high watermark has not caught up after an election, so the latest offset is not known.
    OffsetNotAvailable = 78, retriable;
    /// The preferred leader is not available.
    PreferredLeaderNotAvailable = 80, retriable;
    /// A record does not keep the rules of the batch.
    InvalidRecord = 87;
    /// Committed offsets are not stable yet.
    UnstableOffsetCommit = 88, retriable;
    /// The request was throttled and not carried out.
    ThrottlingQuotaExceeded = 89, retriable;
    /// A newer producer of the same transactional id has taken over.
    ProducerFenced = 90;
    /// No such resource.
    ResourceNotFound = 91;
    /// The topic id is not known.
    UnknownTopicId = 100, retriable;
    /// The topic id is not the one of the topic's log.
    InconsistentTopicId = 103, retriable;
    /// The topic ids of the fetch session are not the ones of the request.
    FetchSessionTopicIdError = 106, retriable;
}

impl ErrorCode {
    /// Whether it is [`ErrorCode::None`].
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlisted(UnlistedCode(code)) => write!(f, "error code {code}"),
            listed => write!(f, "{listed:?} ({})", listed.code()),
        }
    }
}

/// The number of a code that has no name here; made only by [`ErrorCode::from_code`], so that
/// each code has one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnlistedCode(i16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_a_round_trip() {
        for code in i16::MIN..=i16::MAX {
            assert_eq!(ErrorCode::from_code(code).code(), code);
        }
    }

    #[test]
    fn listed_codes_are_in_order_and_named() {
        assert!(ErrorCode::LISTED.is_sorted_by_key(|code| code.code()));
        assert_eq!(ErrorCode::NotLeaderOrFollower.to_string(), "NotLeaderOrFollower (6)");
        assert_eq!(ErrorCode::from_code(9999).to_string(), "error code 9999");
        assert!(!ErrorCode::from_code(9999).is_retriable());
        assert_eq!(ErrorCode::default(), ErrorCode::None);
    }
}

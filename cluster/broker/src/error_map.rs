//! Every error of the broker as a code of the Kafka protocol, one exhaustive match per kind.
//!
//! Invariants: a code that clients retry is used only where a retry can help; "certainly not done"
//! and "unknown" never share a code for a request that changes something.
//!
//! Never: a match with `_`. A new error must be given its code here.

use crate::group::{ReadError, RecordsError};
use crate::machine::outcome::Refusal;
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::BatchError;

/// Why a request that changes something has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It was certainly not done.
    NotDone,
    /// It was certainly not done: the disks of the site have no room for it.
    NoRoom,
    /// It may or may not be done: the leader changed, or time ran out.
    Unknown,
}

pub(crate) const fn of_refusal(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::UnknownTopic | Refusal::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        Refusal::TopicExists => ErrorCode::TopicAlreadyExists,
        Refusal::InvalidTopicName => ErrorCode::InvalidTopicException,
        Refusal::InvalidPartitions => ErrorCode::InvalidPartitions,
        Refusal::InvalidConfig => ErrorCode::InvalidConfig,
        Refusal::LimitReached => ErrorCode::PolicyViolation,
        Refusal::UnexpectedOffset { .. } | Refusal::OffsetOutOfRange { .. } => {
            ErrorCode::OffsetOutOfRange
        }
        Refusal::Fenced { .. } => ErrorCode::InvalidRequest,
        Refusal::SequenceOutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
        Refusal::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
        Refusal::UnknownProducer => ErrorCode::UnknownProducerId,
        Refusal::InvalidBatch => ErrorCode::InvalidRecord,
        // As for a full disk: producers try again after it, for as long as they may.
        Refusal::BudgetReached => ErrorCode::KafkaStorageError,
        Refusal::IsMirror => ErrorCode::PolicyViolation,
        // Not done, and possible in a moment: clients that know the code ask again by themselves.
        Refusal::NeededAgain => ErrorCode::ThrottlingQuotaExceeded,
        // As Kafka answers for its own.
        Refusal::IsInternal => ErrorCode::InvalidTopicException,
        Refusal::UnknownLink
        | Refusal::StaleLink { .. }
        | Refusal::InvalidLink
        | Refusal::SiteTaken
        | Refusal::LinkOfOtherSite
        | Refusal::Changed
        | Refusal::NotAMirror
        | Refusal::UnknownPipeline
        | Refusal::StaleOwner { .. }
        | Refusal::NotRunning
        | Refusal::InvalidPipeline
        | Refusal::OwnInput
        | Refusal::Circle
        | Refusal::OtherShape
        | Refusal::OtherInput
        | Refusal::NotSettled
        | Refusal::UnexpectedEpoch { .. }
        | Refusal::EpochIncomplete { .. }
        | Refusal::UnexpectedAppend { .. }
        | Refusal::AgeGoesBack { .. }
        | Refusal::NotAnInput
        | Refusal::NotAnOutput
        | Refusal::UnexpectedPart { .. }
        | Refusal::DeltaNeeded
        | Refusal::UnknownSavepoint
        | Refusal::SavepointOfAnother
        | Refusal::SavepointHeld => ErrorCode::InvalidRequest,
    }
}

/// For requests about the data of a partition.
pub(crate) const fn of_unanswered_produce(unanswered: Unanswered) -> ErrorCode {
    match unanswered {
        Unanswered::NotDone => ErrorCode::NotLeaderOrFollower,
        // Producers try again after it, and know that the batch was not stored.
        Unanswered::NoRoom => ErrorCode::KafkaStorageError,
        Unanswered::Unknown => ErrorCode::RequestTimedOut,
    }
}

/// For requests that the controller carries out.
pub(crate) const fn of_unanswered_admin(unanswered: Unanswered) -> ErrorCode {
    match unanswered {
        Unanswered::NotDone => ErrorCode::NotController,
        Unanswered::NoRoom => ErrorCode::KafkaStorageError,
        Unanswered::Unknown => ErrorCode::RequestTimedOut,
    }
}

pub(crate) const fn of_batch(error: BatchError) -> ErrorCode {
    match error {
        BatchError::Magic(_) => ErrorCode::UnsupportedForMessageFormat,
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
        // Damage on the way: the client has the bytes and may send them again.
        BatchError::Truncated { .. } | BatchError::Checksum { .. } => ErrorCode::CorruptMessage,
        BatchError::Length(_)
        | BatchError::Count { .. }
        | BatchError::Attributes(_)
        | BatchError::Producer { .. }
        | BatchError::Record(_) => ErrorCode::InvalidRecord,
    }
}

pub(crate) const fn of_read(error: ReadError) -> ErrorCode {
    match error {
        ReadError::NotLeader => ErrorCode::NotLeaderOrFollower,
    }
}

pub(crate) const fn of_records(error: RecordsError) -> ErrorCode {
    let RecordsError = error;
    ErrorCode::KafkaStorageError
}

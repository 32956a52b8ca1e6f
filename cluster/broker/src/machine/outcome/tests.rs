//! Tests of `outcome.rs`.

use super::*;
use proptest::prelude::*;

#[test]
fn an_append_takes_a_few_bytes() {
    let appended = OperationResult::Appended { base_offset: Offset(300) };
    assert_eq!(encode(&[UnitResult::Done(vec![appended])]), &[1, 4, 0xac, 0x02][..]);
    let refusal = Refusal::SequenceOutOfOrder { expected: 5 };
    assert_eq!(encode(&[UnitResult::Refused(refusal)]), &[0, 10, 5][..]);
}

/// One of each.
fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::UnknownTopic,
        Refusal::UnknownPartition,
        Refusal::TopicExists,
        Refusal::InvalidTopicName,
        Refusal::InvalidPartitions,
        Refusal::InvalidConfig,
        Refusal::LimitReached,
        Refusal::UnexpectedOffset { next: Offset(9) },
        Refusal::Fenced { number: 8 },
        Refusal::SequenceOutOfOrder { expected: 7 },
        Refusal::ProducerFenced { epoch: 6 },
        Refusal::InvalidBatch,
        Refusal::OffsetOutOfRange { next: Offset(5) },
        Refusal::UnknownProducer,
        Refusal::UnknownLink,
        Refusal::StaleLink { number: 4 },
        Refusal::InvalidLink,
        Refusal::IsMirror,
        Refusal::NotAMirror,
        Refusal::SiteTaken,
        Refusal::LinkOfOtherSite,
        Refusal::Changed,
        Refusal::BudgetReached,
        Refusal::UnknownPipeline,
        Refusal::StaleOwner { fence: 300 },
        Refusal::NotRunning,
        Refusal::InvalidPipeline,
        Refusal::OwnInput,
        Refusal::OtherShape,
        Refusal::NotSettled,
        Refusal::UnexpectedEpoch { next: 3 },
        Refusal::EpochIncomplete { appended: 2 },
        Refusal::UnexpectedAppend { next: 1 },
        Refusal::AgeGoesBack { age_ms: 300 },
        Refusal::NotAnInput,
        Refusal::NotAnOutput,
        Refusal::UnexpectedPart { first: Offset(1), end: Offset(2) },
        Refusal::DeltaNeeded,
        Refusal::IsInternal,
        Refusal::UnknownSavepoint,
        Refusal::SavepointHeld,
        Refusal::OtherInput,
        Refusal::Circle,
        Refusal::NeededAgain,
        Refusal::SavepointOfAnother,
    ]
}

#[test]
fn every_result_and_refusal_reads_back() {
    let done = vec![
        OperationResult::Noop,
        OperationResult::TopicCreated,
        OperationResult::TopicDeleted,
        OperationResult::Appended { base_offset: Offset(u64::MAX) },
        OperationResult::Duplicate { base_offset: Offset(127), term: Term(128) },
        OperationResult::ProducerAssigned { producer: ProducerId(i64::MAX) },
        OperationResult::StartMoved { log_start: Offset(0), missing: 300 },
        OperationResult::ProducersExpired { count: u32::MAX },
        OperationResult::TopicAltered,
        OperationResult::LinkSet { number: 300 },
        OperationResult::Skipped,
        OperationResult::PeerNoted,
        OperationResult::NotKept { base_offset: Offset(7) },
        OperationResult::PipelineSet { number: 300 },
        OperationResult::Claimed { fence: 301 },
        OperationResult::EpochCommitted,
        OperationResult::DeltaDone,
        OperationResult::Halted,
        OperationResult::DeltaWanted { epoch: 302 },
        OperationResult::SavepointSet { number: 303 },
        OperationResult::LettersWanted { records: 304 },
        OperationResult::BondGiven { number: 305 },
    ];
    let refusals = refusals();
    let mut results = vec![UnitResult::Done(done)];
    results.extend(refusals.into_iter().map(UnitResult::Refused));
    assert_eq!(decode(&encode(&results)), Ok(results));
    assert_eq!(decode(&[1]), Err(CodecError::Short));
    assert_eq!(decode(&[0xff; 11]), Err(CodecError::Tag));
}

proptest! {
    #[test]
    fn any_bytes_are_an_outcome_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(results) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&results)), Ok(results));
        }
    }
}

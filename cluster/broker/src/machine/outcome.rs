//! What became of a unit: the answer to its proposer, and the compact form that a sealed segment
//! keeps.
//!
//! ```text
//! outcome    units one after the other
//! unit       0 u8 | refusal             it had no effect
//!            count varint | results     it took effect; one result per operation
//! result     tag u8 | numbers as varints (LEB128)
//! refusal    tag u8 | numbers as varints
//! ```
//!
//! Invariants: an outcome depends on the log alone, so it is the same on every node; a tag never
//! changes its meaning.

use super::codec::{CodecError, Reader};
use super::producers::ProducerId;
use bytes::Bytes;
use fulmar_types::{Offset, Term};

/// What became of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitResult {
    /// It took effect; one result per operation, in order.
    Done(Vec<OperationResult>),
    /// Nothing of it took effect.
    Refused(Refusal),
}

/// What one operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// Nothing, as asked.
    Noop,
    /// A topic exists now.
    TopicCreated,
    /// A topic and its partitions are gone.
    TopicDeleted,
    /// A batch was appended.
    Appended {
        /// The offset of its first record.
        base_offset: Offset,
    },
    /// The batch was there already and was not appended again.
    Duplicate {
        /// The offset that its first record got then.
        base_offset: Offset,
        /// The term in which it was appended.
        term: Term,
    },
    /// A producer id was handed out, with epoch 0.
    ProducerAssigned {
        /// The id.
        producer: ProducerId,
    },
    /// The first offset that can be read.
    StartMoved {
        /// Where it is now; it stays where it was if it was there already. Before the offset that
        /// was asked for if retention keeps what is there.
        log_start: Offset,
        /// How many of the records that went some other site is not known to have.
        missing: u64,
    },
    /// Idle producers were forgotten.
    ProducersExpired {
        /// How many.
        count: u32,
    },
    /// The settings of a topic are what was asked for.
    TopicAltered,
    /// A link or a rule is what was asked for.
    LinkSet {
        /// The number of the definition.
        number: u64,
    },
    /// A mirror goes on behind a gap.
    Skipped,
    /// Something of a peer was noted.
    PeerNoted,
    /// A number was drawn for a peer.
    BondGiven {
        /// The number.
        number: u64,
    },
    /// A batch was taken and not kept, since the budget of its partition is reached.
    NotKept {
        /// The offset of its first record.
        base_offset: Offset,
    },
    /// A pipeline is what was asked for.
    PipelineSet {
        /// The number of the definition.
        number: u64,
    },
    /// A pipeline has another owner, or none.
    Claimed {
        /// The number that the owner names from now on.
        fence: u64,
    },
    /// An epoch of a pipeline is what it is.
    EpochCommitted,
    /// A delta is complete.
    DeltaDone,
    /// A pipeline does not go on.
    Halted,
    /// The owner of a pipeline was asked for a delta, or there is one.
    DeltaWanted {
        /// That of this epoch or of a later one is the one to wait for.
        epoch: u64,
    },
    /// A savepoint is there, or is gone.
    SavepointSet {
        /// The number of the definition.
        number: u64,
    },
    /// Dead letters are to be put through again.
    LettersWanted {
        /// How many records that are.
        records: u64,
    },
}

/// Why a unit had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such topic.
    #[error("there is no such topic")]
    UnknownTopic,
    /// The topic has no such partition.
    #[error("the topic has no such partition")]
    UnknownPartition,
    /// The name, or the id, belongs to another topic.
    #[error("a topic of this name exists")]
    TopicExists,
    /// The name is empty, too long, or has characters that Kafka does not allow.
    #[error("a topic name is 1 to 249 letters, digits, `.`, `_` and `-`")]
    InvalidTopicName,
    /// A topic must have from 1 to `limits::PARTITIONS_PER_TOPIC_MAX` partitions.
    #[error("this is not a possible number of partitions")]
    InvalidPartitions,
    /// Too many settings, or one that is too long.
    #[error("there are too many settings, or one is too long")]
    InvalidConfig,
    /// A limit of the site is reached.
    #[error("a limit of the site is reached")]
    LimitReached,
    /// The next offset of the partition is not the expected one.
    #[error("the next offset is {next}")]
    UnexpectedOffset {
        /// What it is.
        next: Offset,
    },
    /// Somebody else has used the name with a greater number.
    #[error("fenced by number {number}")]
    Fenced {
        /// The greatest number so far.
        number: u64,
    },
    /// The sequence number is neither the next one nor that of a remembered batch.
    #[error("sequence number out of order: {expected} is next")]
    SequenceOutOfOrder {
        /// The one that would have been next.
        expected: u32,
    },
    /// A later epoch of the producer has written.
    #[error("the producer is fenced by its epoch {epoch}")]
    ProducerFenced {
        /// That epoch.
        epoch: u16,
    },
    /// The site has not handed out this producer id.
    #[error("the site has not handed out this producer id")]
    UnknownProducer,
    /// The bytes are not a batch that a broker may store.
    #[error("this is not a valid record batch")]
    InvalidBatch,
    /// The offset is not within the partition.
    #[error("the offset is not within the partition, which ends at {next}")]
    OffsetOutOfRange {
        /// The next offset of the partition.
        next: Offset,
    },
    /// There is no such link.
    #[error("there is no such link")]
    UnknownLink,
    /// The link has another definition by now.
    #[error("the link has the definition {number} by now, or is paused")]
    StaleLink {
        /// Its number.
        number: u64,
    },
    /// A name, a text or a list is not what it may be.
    #[error("a name, an address or a list in it is empty, too long, or not what it may be")]
    InvalidLink,
    /// The topic is a mirror, which only its link writes to.
    #[error("the topic is a mirror")]
    IsMirror,
    /// The topic is no mirror.
    #[error("the topic is no mirror")]
    NotAMirror,
    /// Two links to one site would bring the same topics twice.
    #[error("another link leads to this site already")]
    SiteTaken,
    /// A link stays with its site.
    #[error("the link leads to another site; remove it first")]
    LinkOfOtherSite,
    /// The link or the rule is not what whoever changes it has seen.
    #[error("it has been changed meanwhile; look at it again")]
    Changed,
    /// The budget of the partition is reached, and other sites lack what would have to go.
    #[error("the budget of the partition is reached, and other sites lack what would have to go")]
    BudgetReached,
    /// There is no such pipeline.
    #[error("there is no such pipeline")]
    UnknownPipeline,
    /// Another claim stands by now.
    #[error("the pipeline has another owner by now, or none; its fence is {fence}")]
    StaleOwner {
        /// The number of that claim.
        fence: u64,
    },
    /// The pipeline is paused, or has failed.
    #[error("the pipeline is paused, or has failed")]
    NotRunning,
    /// A name, a text, a list or an epoch is not what it may be.
    #[error("a name, a text or a list of the pipeline is empty, too long, or not what it may be")]
    InvalidPipeline,
    /// A pipeline reads what it writes.
    #[error("the pipeline would read a topic that it writes")]
    OwnInput,
    /// Pipelines would feed each other for ever.
    #[error("the pipeline would get to read what comes of what it writes")]
    Circle,
    /// Dead letters of the topic were put through again, and the state does not cover that yet.
    #[error(
        "a pipeline has just read dead letters of the topic, and has to be able to read them again until its state is stored"
    )]
    NeededAgain,
    /// The state does not fit what the pipeline does.
    #[error(
        "the state belongs to a pipeline of another shape; begin fresh, or from a savepoint of this shape"
    )]
    OtherShape,
    /// The state is of another topic than the one that has the name of an input now.
    #[error(
        "an input is another topic of the same name now, and the state is of the one before; begin fresh"
    )]
    OtherInput,
    /// The state does not cover everything that has been done.
    #[error("the state does not cover yet what has been put out; pause the pipeline first")]
    NotSettled,
    /// It is not the turn of this epoch.
    #[error("it is not the turn of this epoch, but of {next}")]
    UnexpectedEpoch {
        /// The one whose turn it is.
        next: u64,
    },
    /// The last epoch has appends that are not there.
    #[error("only {appended} appends of the last epoch are there")]
    EpochIncomplete {
        /// How many are there.
        appended: u32,
    },
    /// It is not the turn of this append.
    #[error("it is not the turn of this append, but of {next}")]
    UnexpectedAppend {
        /// The one whose turn it is.
        next: u32,
    },
    /// An epoch ends before the one before it.
    #[error("an epoch cannot end before the age {age_ms}")]
    AgeGoesBack {
        /// The age at which the last one ended, in milliseconds.
        age_ms: u64,
    },
    /// The pipeline does not read the partition.
    #[error("the pipeline does not read this partition")]
    NotAnInput,
    /// The pipeline does not write the topic.
    #[error("the pipeline does not write this topic")]
    NotAnOutput,
    /// The parts of a delta lie elsewhere.
    #[error("what was written of the delta lies from {first} to {end}")]
    UnexpectedPart {
        /// Where it begins.
        first: Offset,
        /// Where it ends.
        end: Offset,
    },
    /// There are too many epochs that no delta covers.
    #[error("there are too many epochs that the state does not cover")]
    DeltaNeeded,
    /// The topic has the state of a pipeline.
    #[error("the topic has the state of a pipeline, which alone writes to it and removes it")]
    IsInternal,
    /// There is no such savepoint of the pipeline.
    #[error("there is no such savepoint of the pipeline")]
    UnknownSavepoint,
    /// Savepoints need the state of the pipeline.
    #[error(
        "the pipeline has savepoints; `fulmar pipeline forget` removes one, and --savepoints all with it"
    )]
    SavepointHeld,
    /// The name is that of a savepoint of another pipeline.
    #[error("a savepoint of another pipeline has this name; take another name, or forget that one")]
    SavepointOfAnother,
}

/// The outcome of an entry: one result per unit.
pub fn encode(results: &[UnitResult]) -> Bytes {
    let mut out = Vec::with_capacity(results.len() * 8);
    for result in results {
        match result {
            UnitResult::Refused(refusal) => {
                out.push(0);
                refusal.encode(&mut out);
            }
            UnitResult::Done(results) => {
                assert!(!results.is_empty(), "a unit has an operation");
                put_varint(&mut out, results.len() as u64);
                results.iter().for_each(|result| result.encode(&mut out));
            }
        }
    }
    out.into()
}

/// Reads an outcome back.
///
/// # Errors
/// If the bytes are not the outcome of an entry.
pub fn decode(bytes: &[u8]) -> Result<Vec<UnitResult>, CodecError> {
    let mut input = Reader::new(bytes);
    let mut results = Vec::new();
    while input.end().is_err() {
        results.push(match take_varint(&mut input)? {
            0 => UnitResult::Refused(Refusal::decode(&mut input)?),
            // Grown one by one: the count is believed only as far as there are bytes.
            count => UnitResult::Done(
                (0..count)
                    .map(|_| OperationResult::decode(&mut input))
                    .collect::<Result<_, _>>()?,
            ),
        });
    }
    Ok(results)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(input: &mut Reader<'_>) -> Result<u64, CodecError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = input.u8()?;
        let part = u64::from(byte & 0x7f);
        if (part << shift) >> shift != part {
            return Err(CodecError::Tag);
        }
        value |= part << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(CodecError::Tag)
}

fn take_u32(input: &mut Reader<'_>) -> Result<u32, CodecError> {
    u32::try_from(take_varint(input)?).map_err(|_| CodecError::Tag)
}

fn take_offset(input: &mut Reader<'_>) -> Result<Offset, CodecError> {
    take_varint(input).map(Offset)
}

fn put(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    numbers.iter().for_each(|number| put_varint(out, *number));
}

impl OperationResult {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Noop => put(out, 1, &[]),
            Self::TopicCreated => put(out, 2, &[]),
            Self::TopicDeleted => put(out, 3, &[]),
            Self::Appended { base_offset } => put(out, 4, &[base_offset.0]),
            Self::Duplicate { base_offset, term } => put(out, 5, &[base_offset.0, term.0]),
            Self::ProducerAssigned { producer } => put(out, 6, &[producer.0.unsigned_abs()]),
            Self::StartMoved { log_start, missing } => put(out, 7, &[log_start.0, missing]),
            Self::ProducersExpired { count } => put(out, 8, &[u64::from(count)]),
            Self::TopicAltered => put(out, 9, &[]),
            Self::LinkSet { number } => put(out, 10, &[number]),
            Self::Skipped => put(out, 11, &[]),
            Self::PeerNoted => put(out, 12, &[]),
            Self::NotKept { base_offset } => put(out, 13, &[base_offset.0]),
            Self::PipelineSet { number } => put(out, 14, &[number]),
            Self::Claimed { fence } => put(out, 15, &[fence]),
            Self::EpochCommitted => put(out, 16, &[]),
            Self::DeltaDone => put(out, 17, &[]),
            Self::Halted => put(out, 18, &[]),
            Self::DeltaWanted { epoch } => put(out, 19, &[epoch]),
            Self::SavepointSet { number } => put(out, 20, &[number]),
            Self::LettersWanted { records } => put(out, 21, &[records]),
            Self::BondGiven { number } => put(out, 22, &[number]),
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match input.u8()? {
            1 => Self::Noop,
            2 => Self::TopicCreated,
            3 => Self::TopicDeleted,
            4 => Self::Appended { base_offset: take_offset(input)? },
            5 => Self::Duplicate {
                base_offset: take_offset(input)?,
                term: Term(take_varint(input)?),
            },
            6 => {
                let id = i64::try_from(take_varint(input)?).map_err(|_| CodecError::Tag)?;
                Self::ProducerAssigned { producer: ProducerId(id) }
            }
            7 => Self::StartMoved { log_start: take_offset(input)?, missing: take_varint(input)? },
            8 => Self::ProducersExpired { count: take_u32(input)? },
            9 => Self::TopicAltered,
            10 => Self::LinkSet { number: take_varint(input)? },
            11 => Self::Skipped,
            12 => Self::PeerNoted,
            13 => Self::NotKept { base_offset: take_offset(input)? },
            14 => Self::PipelineSet { number: take_varint(input)? },
            15 => Self::Claimed { fence: take_varint(input)? },
            16 => Self::EpochCommitted,
            17 => Self::DeltaDone,
            18 => Self::Halted,
            19 => Self::DeltaWanted { epoch: take_varint(input)? },
            20 => Self::SavepointSet { number: take_varint(input)? },
            21 => Self::LettersWanted { records: take_varint(input)? },
            22 => Self::BondGiven { number: take_varint(input)? },
            _ => return Err(CodecError::Tag),
        })
    }
}

impl Refusal {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::UnknownTopic => put(out, 1, &[]),
            Self::UnknownPartition => put(out, 2, &[]),
            Self::TopicExists => put(out, 3, &[]),
            Self::InvalidTopicName => put(out, 4, &[]),
            Self::InvalidPartitions => put(out, 5, &[]),
            Self::InvalidConfig => put(out, 6, &[]),
            Self::LimitReached => put(out, 7, &[]),
            Self::UnexpectedOffset { next } => put(out, 8, &[next.0]),
            Self::Fenced { number } => put(out, 9, &[number]),
            Self::SequenceOutOfOrder { expected } => put(out, 10, &[u64::from(expected)]),
            Self::ProducerFenced { epoch } => put(out, 11, &[u64::from(epoch)]),
            Self::InvalidBatch => put(out, 12, &[]),
            Self::OffsetOutOfRange { next } => put(out, 13, &[next.0]),
            Self::UnknownProducer => put(out, 14, &[]),
            Self::UnknownLink => put(out, 15, &[]),
            Self::StaleLink { number } => put(out, 16, &[number]),
            Self::InvalidLink => put(out, 17, &[]),
            Self::IsMirror => put(out, 18, &[]),
            Self::NotAMirror => put(out, 19, &[]),
            Self::SiteTaken => put(out, 20, &[]),
            Self::LinkOfOtherSite => put(out, 21, &[]),
            Self::Changed => put(out, 22, &[]),
            Self::BudgetReached => put(out, 23, &[]),
            Self::UnknownPipeline => put(out, 24, &[]),
            Self::StaleOwner { fence } => put(out, 25, &[fence]),
            Self::NotRunning => put(out, 26, &[]),
            Self::InvalidPipeline => put(out, 27, &[]),
            Self::OwnInput => put(out, 28, &[]),
            Self::OtherShape => put(out, 29, &[]),
            Self::NotSettled => put(out, 30, &[]),
            Self::UnexpectedEpoch { next } => put(out, 31, &[next]),
            Self::EpochIncomplete { appended } => put(out, 32, &[u64::from(appended)]),
            Self::UnexpectedAppend { next } => put(out, 33, &[u64::from(next)]),
            Self::AgeGoesBack { age_ms } => put(out, 34, &[age_ms]),
            Self::NotAnInput => put(out, 35, &[]),
            Self::NotAnOutput => put(out, 36, &[]),
            Self::UnexpectedPart { first, end } => put(out, 37, &[first.0, end.0]),
            Self::DeltaNeeded => put(out, 38, &[]),
            Self::IsInternal => put(out, 39, &[]),
            Self::UnknownSavepoint => put(out, 40, &[]),
            Self::SavepointHeld => put(out, 41, &[]),
            Self::OtherInput => put(out, 42, &[]),
            Self::Circle => put(out, 43, &[]),
            Self::NeededAgain => put(out, 44, &[]),
            Self::SavepointOfAnother => put(out, 45, &[]),
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match input.u8()? {
            1 => Self::UnknownTopic,
            2 => Self::UnknownPartition,
            3 => Self::TopicExists,
            4 => Self::InvalidTopicName,
            5 => Self::InvalidPartitions,
            6 => Self::InvalidConfig,
            7 => Self::LimitReached,
            8 => Self::UnexpectedOffset { next: take_offset(input)? },
            9 => Self::Fenced { number: take_varint(input)? },
            10 => Self::SequenceOutOfOrder { expected: take_u32(input)? },
            11 => {
                let epoch = take_u32(input)?;
                Self::ProducerFenced { epoch: u16::try_from(epoch).map_err(|_| CodecError::Tag)? }
            }
            12 => Self::InvalidBatch,
            13 => Self::OffsetOutOfRange { next: take_offset(input)? },
            14 => Self::UnknownProducer,
            15 => Self::UnknownLink,
            16 => Self::StaleLink { number: take_varint(input)? },
            17 => Self::InvalidLink,
            18 => Self::IsMirror,
            19 => Self::NotAMirror,
            20 => Self::SiteTaken,
            21 => Self::LinkOfOtherSite,
            22 => Self::Changed,
            23 => Self::BudgetReached,
            24 => Self::UnknownPipeline,
            25 => Self::StaleOwner { fence: take_varint(input)? },
            26 => Self::NotRunning,
            27 => Self::InvalidPipeline,
            28 => Self::OwnInput,
            29 => Self::OtherShape,
            30 => Self::NotSettled,
            31 => Self::UnexpectedEpoch { next: take_varint(input)? },
            32 => Self::EpochIncomplete { appended: take_u32(input)? },
            33 => Self::UnexpectedAppend { next: take_u32(input)? },
            34 => Self::AgeGoesBack { age_ms: take_varint(input)? },
            35 => Self::NotAnInput,
            36 => Self::NotAnOutput,
            37 => Self::UnexpectedPart { first: take_offset(input)?, end: take_offset(input)? },
            38 => Self::DeltaNeeded,
            39 => Self::IsInternal,
            40 => Self::UnknownSavepoint,
            41 => Self::SavepointHeld,
            42 => Self::OtherInput,
            43 => Self::Circle,
            44 => Self::NeededAgain,
            45 => Self::SavepointOfAnother,
            _ => return Err(CodecError::Tag),
        })
    }
}

#[cfg(test)]
mod tests;

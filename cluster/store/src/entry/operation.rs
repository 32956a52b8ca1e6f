//! What a unit may demand and do, and how the bodies of its items are written.
//!
//! ```text
//! precondition 1 v1  expected offset   topic [u8; 16] | partition u32 | offset u64
//!              2 v1  fence             number u64 | name, to the end, UTF-8
//! operation    1 v1  noop              nothing
//!              2 v1  create topic      topic [u8; 16] | partitions u32 | configs u16
//!                                      | name text | (key text, value text) per config
//!              3 v1  delete topic      topic [u8; 16]
//!              4 v1  append            topic [u8; 16] | partition u32 | the batch, to the end
//!              5 v1  init producer     request [u8; 16]
//!              6 v1  advance start     topic [u8; 16] | partition u32 | offset u64
//!              7 v1  expire producers  idle_ms u64
//!              8 v1  alter topic       topic [u8; 16] | replaces u8 | changes u16
//!                                      | (key text, 0 u8 | 1 u8, value text) per change
//!           9 to 14                    links and mirrors, see `link.rs`
//!          15 to 23                    pipelines, see `pipeline.rs`
//! text               len u16 | UTF-8
//! ```
//!
//! Invariants: a kind or a version never changes its meaning; a new one gets a new number. What
//! the values mean, and whether they are allowed, is decided at apply.
//!
//! Never: validate a batch here. What is stored is what the client sent.

use super::link::{self, LinkOperation};
use super::pipeline::{self, PipelineOperation};
use super::{EntryError, ITEM_HEADER_BYTES};
use crate::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::{Offset, PartitionIndex, TopicId, Uuid};
use std::ops::Range;

const EXPECTED_OFFSET: u8 = 1;
const FENCE: u8 = 2;

const NOOP: u8 = 1;
const CREATE_TOPIC: u8 = 2;
const DELETE_TOPIC: u8 = 3;
const APPEND: u8 = 4;
const INIT_PRODUCER: u8 = 5;
const ADVANCE_START: u8 = 6;
const EXPIRE_PRODUCERS: u8 = 7;
const ALTER_TOPIC: u8 = 8;

/// The version of every item so far.
const VERSION_1: u8 = 1;

/// What must hold for a unit to take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The next offset of the partition is this one: an append with an explicit base offset.
    ExpectedOffset {
        /// The topic.
        topic: TopicId,
        /// Its partition.
        partition: PartitionIndex,
        /// The offset that the next record must get.
        offset: Offset,
    },
    /// Nobody has used `name` with a greater number. A unit that takes effect raises the number of
    /// `name` to this one (a fencing token, Kleppmann 2016).
    Fence {
        /// What is fenced.
        name: String,
        /// The number that its owner was given.
        number: u64,
    },
}

/// What a unit does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing: it carries the leader's time and claim.
    Noop,
    /// Creates a topic. The streams of its partitions are assigned at apply.
    CreateTopic {
        /// Drawn by the leader.
        topic: TopicId,
        /// Its name, at most 65,535 bytes here; Kafka's rules are checked at apply.
        name: String,
        /// How many partitions; the bound is checked at apply.
        partitions: u32,
        /// Its configuration, keys and values, in the order in which they were given.
        configs: Vec<(String, String)>,
    },
    /// Deletes a topic.
    DeleteTopic {
        /// The topic.
        topic: TopicId,
    },
    /// Appends one record batch.
    Append {
        /// The topic.
        topic: TopicId,
        /// Its partition.
        partition: PartitionIndex,
        /// The batch, byte for byte as the client sent it.
        batch: Batch,
    },
    /// Assigns a producer id.
    InitProducer {
        /// Drawn by the proposer, so that a proposal which was repeated after an unknown outcome
        /// can be recognised.
        request: Uuid,
    },
    /// Moves the first offset of a partition that can be read, as far as the retention of its topic
    /// allows where this is applied, and in spans.
    AdvanceStart {
        /// The topic.
        topic: TopicId,
        /// Its partition.
        partition: PartitionIndex,
        /// The new first offset.
        offset: Offset,
    },
    /// Forgets the producers that have been idle for long. The leader decides when and how long,
    /// so that nodes with different configurations stay alike; idle time is counted in the age of
    /// the site.
    ExpireProducers {
        /// How long a producer must have sent nothing, in milliseconds.
        idle_ms: u64,
    },
    /// Changes the settings of a topic.
    AlterTopic {
        /// The topic.
        topic: TopicId,
        /// Whether the settings that are not named go back to their defaults.
        replaces: bool,
        /// Settings and their new values; `None` for the default. A later change counts.
        changes: Vec<(String, Option<String>)>,
    },
    /// Something about links and mirrors.
    Link(LinkOperation),
    /// Something about pipelines.
    Pipeline(PipelineOperation),
}

/// The bytes of a record batch, and where they lie in the entry that they were decoded from.
///
/// Two batches are equal if their bytes are.
#[derive(Clone, Debug, Eq)]
pub struct Batch {
    bytes: Bytes,
    at: u32,
}

impl Batch {
    /// A batch to be put into an entry. Its position is 0 until it is decoded from one.
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where it begins in the payload of its entry, in bytes: [`crate::Row::at`].
    pub const fn at(&self) -> u32 {
        self.at
    }

    /// Its length in bytes: [`crate::Row::len`].
    pub fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a batch fits an entry, which is far below 4 GiB")
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// crc32c of its bytes: [`crate::Row::crc`]. Computed anew by every call.
    pub fn crc(&self) -> u32 {
        crc32c::crc32c(&self.bytes)
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl From<Bytes> for Batch {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

/// A precondition or an operation whose body has not been read.
#[derive(Clone, Debug)]
pub(super) struct Item {
    kind: u8,
    version: u8,
    at: usize,
    body: Range<usize>,
}

impl Item {
    /// Reads the header of the item at `at`; its body must end within `payload[..end]`.
    pub(super) fn read(payload: &[u8], at: usize, end: usize) -> Result<Self, EntryError> {
        let malformed = EntryError::Malformed { what: "an item within its unit", at };
        let within = payload.get(..end).ok_or_else(|| malformed.clone())?;
        let mut reader = Reader::starting_at(within, at);
        let mut header = || Some((reader.u8()?, reader.u8()?, reader.u32()?));
        let (kind, version, len) = header().ok_or_else(|| malformed.clone())?;
        let body_at = reader.position();
        let len = usize::try_from(len).map_err(|_| malformed.clone())?;
        reader.take(len).ok_or(malformed)?;
        Ok(Self { kind, version, at, body: body_at..body_at + len })
    }

    /// Where the next item begins.
    pub(super) const fn end(&self) -> usize {
        self.body.end
    }

    fn malformed(&self, what: &'static str) -> EntryError {
        EntryError::Malformed { what, at: self.at }
    }

    fn body<'a>(&self, payload: &'a [u8]) -> Reader<'a> {
        Reader::new(payload.get(self.body.clone()).unwrap_or_default())
    }

    /// The operation is not known to this build.
    pub(super) fn unknown(&self) -> EntryError {
        let Self { kind, version, at, .. } = *self;
        EntryError::UnknownOperation { kind, version, at }
    }

    /// What stands before a batch that takes the rest of the body, and the batch.
    pub(super) fn before_batch<'a, T>(
        &self,
        payload: &'a Bytes,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<(T, Batch), EntryError> {
        let mut reader = self.body(payload);
        let before = read(&mut reader).ok_or_else(|| self.malformed("a batch"))?;
        let start = self.body.start + reader.position();
        let at = u32::try_from(start).map_err(|_| self.malformed("a batch below 4 GiB"))?;
        Ok((before, Batch { bytes: payload.slice(start..self.body.end), at }))
    }

    /// The body if `read` took all of it.
    pub(super) fn whole<'a, T>(
        &self,
        payload: &'a [u8],
        what: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<T, EntryError> {
        let mut reader = self.body(payload);
        read(&mut reader).filter(|_| reader.is_at_end()).ok_or_else(|| self.malformed(what))
    }
}

pub(super) type Place = (TopicId, PartitionIndex);

pub(super) fn read_topic(reader: &mut Reader<'_>) -> Option<TopicId> {
    Some(TopicId(Uuid(reader.array()?)))
}

pub(super) fn read_place(reader: &mut Reader<'_>) -> Option<Place> {
    Some((read_topic(reader)?, PartitionIndex(reader.u32()?)))
}

fn read_offset(reader: &mut Reader<'_>) -> Option<(Place, Offset)> {
    Some((read_place(reader)?, Offset(reader.u64()?)))
}

pub(super) fn read_text(reader: &mut Reader<'_>) -> Option<String> {
    let len = usize::from(reader.u16()?);
    utf8(reader.take(len)?)
}

fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

pub(super) fn put_place(out: &mut BytesMut, topic: TopicId, partition: PartitionIndex) {
    out.put_slice(&topic.0.0);
    out.put_u32_le(partition.0);
}

pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let len = u16::try_from(text.len()).expect("the length of texts is checked before encoding");
    out.put_u16_le(len);
    out.put_slice(text.as_bytes());
}

pub(super) const PLACE_BYTES: usize = 16 + 4;

pub(super) fn text_bytes(text: &str) -> usize {
    2 + text.len()
}

pub(super) fn fits_text(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX)
}

impl Precondition {
    fn kind(&self) -> u8 {
        match self {
            Self::ExpectedOffset { .. } => EXPECTED_OFFSET,
            Self::Fence { .. } => FENCE,
        }
    }

    fn body_len(&self) -> usize {
        match self {
            Self::ExpectedOffset { .. } => PLACE_BYTES + 8,
            Self::Fence { name, .. } => 8 + name.len(),
        }
    }

    /// How many bytes it takes in an entry.
    pub(super) fn encoded_len(&self) -> usize {
        ITEM_HEADER_BYTES + self.body_len()
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_item_header(out, self.kind(), self.body_len());
        match self {
            Self::ExpectedOffset { topic, partition, offset } => {
                put_place(out, *topic, *partition);
                out.put_u64_le(offset.0);
            }
            Self::Fence { name, number } => {
                out.put_u64_le(*number);
                out.put_slice(name.as_bytes());
            }
        }
    }

    pub(super) fn decode(payload: &[u8], item: &Item) -> Result<Self, EntryError> {
        match (item.kind, item.version) {
            (EXPECTED_OFFSET, VERSION_1) => {
                let ((topic, partition), offset) =
                    item.whole(payload, "an expected offset", read_offset)?;
                Ok(Self::ExpectedOffset { topic, partition, offset })
            }
            (FENCE, VERSION_1) => item.whole(payload, "a fence", |reader| {
                let number = reader.u64()?;
                let name = utf8(reader.take(reader.remaining())?)?;
                Some(Self::Fence { name, number })
            }),
            (kind, version) => Err(EntryError::UnknownPrecondition { kind, version, at: item.at }),
        }
    }
}

impl Operation {
    fn kind(&self) -> u8 {
        match self {
            Self::Noop => NOOP,
            Self::CreateTopic { .. } => CREATE_TOPIC,
            Self::DeleteTopic { .. } => DELETE_TOPIC,
            Self::Append { .. } => APPEND,
            Self::InitProducer { .. } => INIT_PRODUCER,
            Self::AdvanceStart { .. } => ADVANCE_START,
            Self::ExpireProducers { .. } => EXPIRE_PRODUCERS,
            Self::AlterTopic { .. } => ALTER_TOPIC,
            Self::Link(operation) => operation.kind(),
            Self::Pipeline(operation) => operation.kind(),
        }
    }

    fn body_len(&self) -> usize {
        match self {
            Self::Noop => 0,
            Self::CreateTopic { name, configs, .. } => {
                let pair = |(key, value): &(String, String)| text_bytes(key) + text_bytes(value);
                16 + 4 + 2 + text_bytes(name) + configs.iter().map(pair).sum::<usize>()
            }
            Self::DeleteTopic { .. } | Self::InitProducer { .. } => 16,
            Self::Append { batch, .. } => PLACE_BYTES + batch.bytes.len(),
            Self::AdvanceStart { .. } => PLACE_BYTES + 8,
            Self::ExpireProducers { .. } => 8,
            Self::AlterTopic { changes, .. } => {
                let change = |(key, value): &(String, Option<String>)| {
                    text_bytes(key) + 1 + value.as_deref().map_or(0, text_bytes)
                };
                16 + 1 + 2 + changes.iter().map(change).sum::<usize>()
            }
            Self::Link(operation) => operation.body_len(),
            Self::Pipeline(operation) => operation.body_len(),
        }
    }

    /// How many bytes it takes in an entry.
    pub(super) fn encoded_len(&self) -> usize {
        ITEM_HEADER_BYTES + self.body_len()
    }

    /// Whether every text and list of it has a length that can be written down.
    pub(super) fn is_encodable(&self) -> bool {
        match self {
            Self::CreateTopic { name, configs, .. } => {
                fits_text(name)
                    && configs.len() <= usize::from(u16::MAX)
                    && configs.iter().all(|(key, value)| fits_text(key) && fits_text(value))
            }
            Self::AlterTopic { changes, .. } => {
                let fits = |(key, value): &(String, Option<String>)| {
                    fits_text(key) && value.as_deref().is_none_or(fits_text)
                };
                changes.len() <= usize::from(u16::MAX) && changes.iter().all(fits)
            }
            Self::Link(operation) => operation.is_encodable(),
            Self::Pipeline(operation) => operation.is_encodable(),
            _ => true,
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_item_header(out, self.kind(), self.body_len());
        match self {
            Self::Noop => {}
            Self::CreateTopic { topic, name, partitions, configs } => {
                out.put_slice(&topic.0.0);
                out.put_u32_le(*partitions);
                out.put_u16_le(u16::try_from(configs.len()).expect("checked before encoding"));
                put_text(out, name);
                for (key, value) in configs {
                    put_text(out, key);
                    put_text(out, value);
                }
            }
            Self::DeleteTopic { topic } => out.put_slice(&topic.0.0),
            Self::Append { topic, partition, batch } => {
                put_place(out, *topic, *partition);
                out.put_slice(&batch.bytes);
            }
            Self::InitProducer { request } => out.put_slice(&request.0),
            Self::AdvanceStart { topic, partition, offset } => {
                put_place(out, *topic, *partition);
                out.put_u64_le(offset.0);
            }
            Self::ExpireProducers { idle_ms } => out.put_u64_le(*idle_ms),
            Self::AlterTopic { topic, replaces, changes } => {
                out.put_slice(&topic.0.0);
                out.put_u8(u8::from(*replaces));
                out.put_u16_le(u16::try_from(changes.len()).expect("checked before encoding"));
                for (key, value) in changes {
                    put_text(out, key);
                    out.put_u8(u8::from(value.is_some()));
                    if let Some(value) = value {
                        put_text(out, value);
                    }
                }
            }
            Self::Link(operation) => operation.encode(out),
            Self::Pipeline(operation) => operation.encode(out),
        }
    }

    pub(super) fn decode(payload: &Bytes, item: &Item) -> Result<Self, EntryError> {
        match (item.kind, item.version) {
            (NOOP, VERSION_1) => item.whole(payload, "a noop", |_| Some(Self::Noop)),
            (CREATE_TOPIC, VERSION_1) => item.whole(payload, "a new topic", read_create_topic),
            (DELETE_TOPIC, VERSION_1) => item.whole(payload, "a topic", |reader| {
                Some(Self::DeleteTopic { topic: read_topic(reader)? })
            }),
            (APPEND, VERSION_1) => decode_append(payload, item),
            (INIT_PRODUCER, VERSION_1) => item.whole(payload, "a request", |reader| {
                Some(Self::InitProducer { request: Uuid(reader.array()?) })
            }),
            (ADVANCE_START, VERSION_1) => {
                let ((topic, partition), offset) =
                    item.whole(payload, "a new start", read_offset)?;
                Ok(Self::AdvanceStart { topic, partition, offset })
            }
            (EXPIRE_PRODUCERS, VERSION_1) => item.whole(payload, "an idle time", |reader| {
                Some(Self::ExpireProducers { idle_ms: reader.u64()? })
            }),
            (ALTER_TOPIC, VERSION_1) => item.whole(payload, "changes of a topic", read_alter_topic),
            (
                kind @ (link::SET_LINK..=link::PEER_HAS
                | link::ALIGN_MIRROR..=link::PEER_DECLINES
                | link::GIVE_BOND..=link::PUT_BACK_NOTICED),
                VERSION_1,
            ) => LinkOperation::decode(payload, kind, item).map(Self::Link),
            (
                kind @ (pipeline::SET_PIPELINE..=pipeline::SET_SAVEPOINT | pipeline::RETRY_LETTERS),
                VERSION_1,
            ) => PipelineOperation::decode(payload, kind, item).map(Self::Pipeline),
            _ => Err(item.unknown()),
        }
    }
}

fn decode_append(payload: &Bytes, item: &Item) -> Result<Operation, EntryError> {
    let ((topic, partition), batch) = item.before_batch(payload, read_place)?;
    Ok(Operation::Append { topic, partition, batch })
}

fn read_create_topic(reader: &mut Reader<'_>) -> Option<Operation> {
    let topic = read_topic(reader)?;
    let partitions = reader.u32()?;
    let count = reader.u16()?;
    let name = read_text(reader)?;
    // Each pair takes at least four bytes, so the list grows no faster than what is really there.
    let mut configs = Vec::new();
    for _ in 0..count {
        configs.push((read_text(reader)?, read_text(reader)?));
    }
    Some(Operation::CreateTopic { topic, name, partitions, configs })
}

fn read_alter_topic(reader: &mut Reader<'_>) -> Option<Operation> {
    let topic = read_topic(reader)?;
    let replaces = read_flag(reader)?;
    let count = reader.u16()?;
    // As above: each change takes at least three bytes.
    let mut changes = Vec::new();
    for _ in 0..count {
        let key = read_text(reader)?;
        let value = if read_flag(reader)? { Some(read_text(reader)?) } else { None };
        changes.push((key, value));
    }
    Some(Operation::AlterTopic { topic, replaces, changes })
}

pub(super) fn read_flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn put_item_header(out: &mut BytesMut, kind: u8, body_len: usize) {
    out.put_u8(kind);
    out.put_u8(VERSION_1);
    out.put_u32_le(u32::try_from(body_len).expect("a unit is far below 4 GiB"));
}

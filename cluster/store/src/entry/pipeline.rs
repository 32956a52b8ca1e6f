//! Operations about pipelines, and how their bodies are written.
//!
//! ```text
//! operation   15 v1  set pipeline      name text | expected u64 | who text | there u8 = 1
//!                                      | topic [u8; 16] | secret [u8; 32] | shape [u8; 16]
//!                                      | paused u8 | latency ms u32 | inputs texts | outputs texts
//!                                      | start u8: 0 keep, 1 fresh, 2 savepoint, its name text
//!                                      | the file, to the end, UTF-8
//!                                      or name text | expected u64 | who text | there u8 = 0
//!                                      | savepoints u8
//!             16 v1  claim pipeline    pipeline text | expected u64 | node u64, 0 for none
//!             17 v1  commit epoch      at | age ms u64 | hash [u8; 16] | appends u32 | ranges u16
//!                                      | (topic [u8; 16] | partition u32 | from u64 | to u64
//!                                      | more u8) each
//!                                      | the facts, to the end
//!             18 v1  epoch append      at | seq u32 | topic [u8; 16] | partition u32
//!                                      | the batch, to the end
//!             19 v1  state part        at | the batch, to the end
//!             20 v1  state done        at | first u64 | end u64 | keep from u64
//!             21 v1  halt pipeline     pipeline text | fence u64 | reason text
//!             22 v1  want delta        pipeline text
//!             23 v1  set savepoint     name text | expected u64 | who text
//!                                      | there u8 = 1 | pipeline text, or there u8 = 0
//!             26 v1  retry letters     pipeline text | who text | topic text
//! at                  pipeline text | fence u64 | epoch u64
//! text                len u16 | UTF-8
//! texts               count u16 | text per element
//! ```
//!
//! `fence` is the number of the entry that made the sender the owner of the pipeline, so that nothing takes
//! effect that an earlier owner had on its way. `expected` and `who` are as in `link.rs`; of a claim
//! `expected` is the fence that is to be replaced.
//!
//! Invariants: as in `operation.rs`.

use super::EntryError;
use super::link::{fit_texts, put_expected, put_texts, read_expected, read_texts, texts_bytes};
use super::operation::{
    Batch, Item, PLACE_BYTES, fits_text, put_place, put_text, read_flag, read_place, read_text,
    read_topic, text_bytes,
};
use crate::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::pipeline::{OutputHash, PipelineDefinition, Start};
use fulmar_types::{NodeId, Offset, PartitionIndex, TopicId};

pub(super) const SET_PIPELINE: u8 = 15;
const CLAIM: u8 = 16;
const COMMIT: u8 = 17;
const APPEND: u8 = 18;
const PART: u8 = 19;
const DONE: u8 = 20;
const HALT: u8 = 21;
const WANT_DELTA: u8 = 22;
pub(super) const SET_SAVEPOINT: u8 = 23;
pub(super) const RETRY_LETTERS: u8 = 26;

/// An epoch of a pipeline, and as which of its owners somebody speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochPlace {
    /// The pipeline, by name.
    pub pipeline: String,
    /// The number of the claim.
    pub fence: u64,
    /// The epoch, from 1 on.
    pub epoch: u64,
}

/// What an epoch reads of one partition; nothing, if it only says that something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputRange {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The first offset.
    pub from: Offset,
    /// The offset behind the last one.
    pub to: Offset,
    /// More was there when the epoch began, and is not read by it: that nothing comes of it is no silence.
    pub has_more: bool,
}

impl InputRange {
    /// Whether it reads nothing.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

/// A pipeline as it is to be from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPipeline {
    /// The topic for its state, drawn by the leader; it counts if the pipeline is new.
    pub topic: TopicId,
    /// The key of the hash chain of that topic, drawn by the leader.
    pub secret: [u8; 32],
    /// What it is.
    pub definition: PipelineDefinition,
    /// With which state it begins.
    pub start: Start,
}

/// What becomes of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineChange {
    /// It is this, from now on.
    Set(NewPipeline),
    /// It is no more.
    Remove {
        /// Its savepoints go with it. Without that it stays if it has any.
        savepoints: bool,
    },
}

/// What a unit does about pipelines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineOperation {
    /// Defines a pipeline anew, or removes it.
    Set {
        /// Its name.
        name: String,
        /// The number that it must have, 0 if there must be none; `None` if that does not matter.
        expected: Option<u64>,
        /// Who made it so.
        who: String,
        /// What becomes of it.
        change: Box<PipelineChange>,
    },
    /// Makes a node the owner of a pipeline, or nobody.
    Claim {
        /// The pipeline, by name.
        pipeline: String,
        /// The fence that must stand.
        expected: u64,
        /// The owner.
        node: Option<NodeId>,
    },
    /// Decides what an epoch is: what it reads, when it ends, and what it puts out.
    Commit {
        /// Which one; the one that is next.
        at: EpochPlace,
        /// The age at which it ends, in milliseconds.
        age_ms: u64,
        /// The hash over everything that it puts out.
        hash: OutputHash,
        /// How many appends it will have.
        appends: u32,
        /// What it reads, by the name of the topic and by partition.
        ranges: Vec<InputRange>,
        /// What is to be known about the pipeline now, for people.
        facts: Bytes,
    },
    /// Appends a batch of the last epoch to one of the outputs.
    Append {
        /// Which epoch.
        at: EpochPlace,
        /// The place among the appends of the epoch, from 0 on; the one that is next.
        seq: u32,
        /// The output.
        topic: TopicId,
        /// Its partition.
        partition: PartitionIndex,
        /// The batch.
        batch: Batch,
    },
    /// Appends a part of a delta to the topic with the state.
    Part {
        /// The delta is that at the end of this epoch.
        at: EpochPlace,
        /// The batch.
        batch: Batch,
    },
    /// Says that a delta is complete.
    Done {
        /// It is that at the end of this epoch.
        at: EpochPlace,
        /// Where its parts begin.
        first: Offset,
        /// The offset behind them.
        end: Offset,
        /// Deltas of epochs before this one are not needed any more.
        keep_from: u64,
    },
    /// The pipeline cannot go on.
    Halt {
        /// The pipeline, by name.
        pipeline: String,
        /// The number of the claim.
        fence: u64,
        /// Why, for people.
        reason: String,
    },
    /// Asks the owner for a delta soon.
    WantDelta {
        /// The pipeline, by name.
        pipeline: String,
    },
    /// Keeps the state of a pipeline as of its last delta under a name, or forgets it.
    SetSavepoint {
        /// The name.
        name: String,
        /// As for a pipeline.
        expected: Option<u64>,
        /// Who made it so.
        who: String,
        /// The pipeline; `None` to forget it.
        pipeline: Option<String>,
    },
    /// Asks for the dead letters that lie in a topic by now to be put through again.
    Retry {
        /// The pipeline, by name.
        pipeline: String,
        /// Who asks.
        who: String,
        /// One of its outputs, by name.
        topic: String,
    },
}

const RANGE_BYTES: usize = PLACE_BYTES + 8 + 8 + 1;

fn at_bytes(at: &EpochPlace) -> usize {
    text_bytes(&at.pipeline) + 8 + 8
}

fn put_at(out: &mut BytesMut, at: &EpochPlace) {
    put_text(out, &at.pipeline);
    out.put_u64_le(at.fence);
    out.put_u64_le(at.epoch);
}

fn read_at(reader: &mut Reader<'_>) -> Option<EpochPlace> {
    Some(EpochPlace { pipeline: read_text(reader)?, fence: reader.u64()?, epoch: reader.u64()? })
}

/// Without the file, which takes the rest.
fn new_bytes(new: &NewPipeline) -> usize {
    let definition = &new.definition;
    let start = match &new.start {
        Start::Keep | Start::Fresh => 1,
        Start::Savepoint(name) => 1 + text_bytes(name),
    };
    16 + 32
        + 16
        + 1
        + 4
        + texts_bytes(&definition.inputs)
        + texts_bytes(&definition.outputs)
        + start
}

fn put_new(out: &mut BytesMut, new: &NewPipeline) {
    let PipelineDefinition { file, inputs, outputs, shape, paused, latency_ms } = &new.definition;
    out.put_slice(&new.topic.0.0);
    out.put_slice(&new.secret);
    out.put_slice(shape);
    out.put_u8(u8::from(*paused));
    out.put_u32_le(*latency_ms);
    put_texts(out, inputs);
    put_texts(out, outputs);
    match &new.start {
        Start::Keep => out.put_u8(0),
        Start::Fresh => out.put_u8(1),
        Start::Savepoint(name) => {
            out.put_u8(2);
            put_text(out, name);
        }
    }
    out.put_slice(file.as_bytes());
}

fn read_new(reader: &mut Reader<'_>) -> Option<NewPipeline> {
    let topic = read_topic(reader)?;
    let (secret, shape) = (reader.array()?, reader.array()?);
    let (paused, latency_ms) = (read_flag(reader)?, reader.u32()?);
    let (inputs, outputs) = (read_texts(reader)?, read_texts(reader)?);
    let start = match reader.u8()? {
        0 => Start::Keep,
        1 => Start::Fresh,
        2 => Start::Savepoint(read_text(reader)?),
        _ => return None,
    };
    let file = std::str::from_utf8(reader.take(reader.remaining())?).ok()?.to_owned();
    let definition = PipelineDefinition { file, inputs, outputs, shape, paused, latency_ms };
    Some(NewPipeline { topic, secret, definition, start })
}

impl PipelineOperation {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Set { .. } => SET_PIPELINE,
            Self::Claim { .. } => CLAIM,
            Self::Commit { .. } => COMMIT,
            Self::Append { .. } => APPEND,
            Self::Part { .. } => PART,
            Self::Done { .. } => DONE,
            Self::Halt { .. } => HALT,
            Self::WantDelta { .. } => WANT_DELTA,
            Self::SetSavepoint { .. } => SET_SAVEPOINT,
            Self::Retry { .. } => RETRY_LETTERS,
        }
    }

    /// Whether it brings record batches.
    pub(super) const fn has_records(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Part { .. })
    }

    pub(super) fn body_len(&self) -> usize {
        match self {
            Self::Set { name, who, change, .. } => {
                let change = match &**change {
                    PipelineChange::Set(new) => new_bytes(new) + new.definition.file.len(),
                    PipelineChange::Remove { .. } => 1,
                };
                text_bytes(name) + 8 + text_bytes(who) + 1 + change
            }
            Self::Claim { pipeline, .. } => text_bytes(pipeline) + 8 + 8,
            Self::Commit { at, ranges, facts, .. } => {
                at_bytes(at) + 8 + 16 + 4 + 2 + ranges.len() * RANGE_BYTES + facts.len()
            }
            Self::Append { at, batch, .. } => at_bytes(at) + 4 + PLACE_BYTES + batch.bytes().len(),
            Self::Part { at, batch } => at_bytes(at) + batch.bytes().len(),
            Self::Done { at, .. } => at_bytes(at) + 3 * 8,
            Self::Halt { pipeline, reason, .. } => text_bytes(pipeline) + 8 + text_bytes(reason),
            Self::WantDelta { pipeline } => text_bytes(pipeline),
            Self::SetSavepoint { name, who, pipeline, .. } => {
                let pipeline = pipeline.as_deref().map_or(0, text_bytes);
                text_bytes(name) + 8 + text_bytes(who) + 1 + pipeline
            }
            Self::Retry { pipeline, who, topic } => {
                text_bytes(pipeline) + text_bytes(who) + text_bytes(topic)
            }
        }
    }

    pub(super) fn is_encodable(&self) -> bool {
        match self {
            Self::Set { name, who, change, .. } => {
                let fits = match &**change {
                    PipelineChange::Set(NewPipeline { definition, start, .. }) => {
                        let has_name = !matches!(start, Start::Savepoint(name) if !fits_text(name));
                        fit_texts(&definition.inputs) && fit_texts(&definition.outputs) && has_name
                    }
                    PipelineChange::Remove { .. } => true,
                };
                fits_text(name) && fits_text(who) && fits
            }
            Self::Claim { pipeline, node, .. } => {
                fits_text(pipeline) && node.is_none_or(|node| node.get() > 0)
            }
            Self::Commit { at, ranges, .. } => {
                fits_text(&at.pipeline) && ranges.len() <= usize::from(u16::MAX)
            }
            Self::Append { at, .. } | Self::Part { at, .. } | Self::Done { at, .. } => {
                fits_text(&at.pipeline)
            }
            Self::Halt { pipeline, reason, .. } => fits_text(pipeline) && fits_text(reason),
            Self::WantDelta { pipeline } => fits_text(pipeline),
            Self::SetSavepoint { name, who, pipeline, .. } => {
                fits_text(name) && fits_text(who) && pipeline.as_deref().is_none_or(fits_text)
            }
            Self::Retry { pipeline, who, topic } => {
                fits_text(pipeline) && fits_text(who) && fits_text(topic)
            }
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Set { name, expected, who, change } => {
                put_text(out, name);
                put_expected(out, *expected);
                put_text(out, who);
                match &**change {
                    PipelineChange::Set(new) => {
                        out.put_u8(1);
                        put_new(out, new);
                    }
                    PipelineChange::Remove { savepoints } => {
                        out.put_u8(0);
                        out.put_u8(u8::from(*savepoints));
                    }
                }
            }
            Self::Claim { pipeline, expected, node } => {
                put_text(out, pipeline);
                out.put_u64_le(*expected);
                out.put_u64_le(node.map_or(0, NodeId::get));
            }
            Self::Commit { .. } => self.encode_commit(out),
            Self::Append { at, seq, topic, partition, batch } => {
                put_at(out, at);
                out.put_u32_le(*seq);
                put_place(out, *topic, *partition);
                out.put_slice(batch.bytes());
            }
            Self::Part { at, batch } => {
                put_at(out, at);
                out.put_slice(batch.bytes());
            }
            Self::Done { at, first, end, keep_from } => {
                put_at(out, at);
                [first.0, end.0, *keep_from].into_iter().for_each(|number| out.put_u64_le(number));
            }
            Self::Halt { pipeline, fence, reason } => {
                put_text(out, pipeline);
                out.put_u64_le(*fence);
                put_text(out, reason);
            }
            Self::WantDelta { pipeline } => put_text(out, pipeline),
            Self::SetSavepoint { name, expected, who, pipeline } => {
                put_text(out, name);
                put_expected(out, *expected);
                put_text(out, who);
                out.put_u8(u8::from(pipeline.is_some()));
                pipeline.iter().for_each(|pipeline| put_text(out, pipeline));
            }
            Self::Retry { pipeline, who, topic } => {
                [pipeline, who, topic].into_iter().for_each(|text| put_text(out, text));
            }
        }
    }

    fn encode_commit(&self, out: &mut BytesMut) {
        let Self::Commit { at, age_ms, hash, appends, ranges, facts } = self else { return };
        put_at(out, at);
        out.put_u64_le(*age_ms);
        out.put_slice(hash);
        out.put_u32_le(*appends);
        out.put_u16_le(u16::try_from(ranges.len()).expect("lengths are checked before encoding"));
        for range in ranges {
            put_place(out, range.topic, range.partition);
            out.put_u64_le(range.from.0);
            out.put_u64_le(range.to.0);
            out.put_u8(u8::from(range.has_more));
        }
        out.put_slice(facts);
    }

    /// Reads the body of an operation of version 1.
    pub(super) fn decode(payload: &Bytes, kind: u8, item: &Item) -> Result<Self, EntryError> {
        match kind {
            SET_PIPELINE => item.whole(payload, "a pipeline", read_set),
            CLAIM => item.whole(payload, "a claim", |reader| {
                let (pipeline, expected) = (read_text(reader)?, reader.u64()?);
                let node = Some(NodeId(reader.u64()?)).filter(|node| node.get() > 0);
                Some(Self::Claim { pipeline, expected, node })
            }),
            COMMIT => item.whole(payload, "an epoch", read_commit),
            APPEND => {
                let read = |reader: &mut Reader<'_>| {
                    Some((read_at(reader)?, reader.u32()?, read_place(reader)?))
                };
                let ((at, seq, (topic, partition)), batch) = item.before_batch(payload, read)?;
                Ok(Self::Append { at, seq, topic, partition, batch })
            }
            PART => {
                let (at, batch) = item.before_batch(payload, read_at)?;
                Ok(Self::Part { at, batch })
            }
            DONE => item.whole(payload, "a delta", |reader| {
                let at = read_at(reader)?;
                let (first, end) = (Offset(reader.u64()?), Offset(reader.u64()?));
                Some(Self::Done { at, first, end, keep_from: reader.u64()? })
            }),
            HALT => item.whole(payload, "a halt", |reader| {
                let (pipeline, fence) = (read_text(reader)?, reader.u64()?);
                Some(Self::Halt { pipeline, fence, reason: read_text(reader)? })
            }),
            WANT_DELTA => item.whole(payload, "a wish", |reader| {
                Some(Self::WantDelta { pipeline: read_text(reader)? })
            }),
            SET_SAVEPOINT => item.whole(payload, "a savepoint", |reader| {
                let (name, expected) = (read_text(reader)?, read_expected(reader)?);
                let who = read_text(reader)?;
                let pipeline = if read_flag(reader)? { Some(read_text(reader)?) } else { None };
                Some(Self::SetSavepoint { name, expected, who, pipeline })
            }),
            RETRY_LETTERS => item.whole(payload, "a wish for letters", |reader| {
                let (pipeline, who) = (read_text(reader)?, read_text(reader)?);
                Some(Self::Retry { pipeline, who, topic: read_text(reader)? })
            }),
            _ => Err(item.unknown()),
        }
    }
}

fn read_set(reader: &mut Reader<'_>) -> Option<PipelineOperation> {
    let (name, expected) = (read_text(reader)?, read_expected(reader)?);
    let who = read_text(reader)?;
    let change = match read_flag(reader)? {
        true => PipelineChange::Set(read_new(reader)?),
        false => PipelineChange::Remove { savepoints: read_flag(reader)? },
    };
    Some(PipelineOperation::Set { name, expected, who, change: Box::new(change) })
}

fn read_commit(reader: &mut Reader<'_>) -> Option<PipelineOperation> {
    let (at, age_ms) = (read_at(reader)?, reader.u64()?);
    let (hash, appends) = (reader.array()?, reader.u32()?);
    let count = reader.u16()?;
    // Each takes its bytes, so the list grows no faster than what is really there.
    let mut ranges = Vec::new();
    for _ in 0..count {
        let (topic, partition) = read_place(reader)?;
        let (from, to) = (Offset(reader.u64()?), Offset(reader.u64()?));
        let has_more = read_flag(reader)?;
        ranges.push(InputRange { topic, partition, from, to, has_more });
    }
    let facts = Bytes::copy_from_slice(reader.take(reader.remaining())?);
    Some(PipelineOperation::Commit { at, age_ms, hash, appends, ranges, facts })
}

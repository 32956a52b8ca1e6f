//! Pipelines: what they are, who runs them, how far they have come, and where their state lies.
//!
//! ```text
//! inputs    ----[ floor ............. next )----------->     offsets of a partition
//! epochs        | logged since the delta |  next one
//! deltas    [first, end) [first, end) ... |                  offsets of the internal topic
//! ```
//!
//! Invariants: positions, epochs and outputs move in one unit; of the epochs those are known that no
//! delta covers, so that whoever takes over makes again what they put out; the floor of an input is
//! where that begins; a fence stands for one owner in the life of a site.
//!
//! Never: look into what a pipeline says of itself.

mod savepoint;

pub use savepoint::Savepoint;

use super::changes::Changed;
use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use bytes::Bytes;
use fulmar_store::StreamId;
use fulmar_store::entry::InputRange;
use fulmar_types::pipeline::{
    OutputHash, PIPELINE_FACTS_BYTES_MAX, PIPELINE_FILE_BYTES_MAX, PIPELINE_NAME_BYTES_MAX,
    PIPELINE_PARTITIONS_MAX, PIPELINE_REASON_BYTES_MAX, PIPELINE_TOPICS_MAX, PipelineDefinition,
};
use fulmar_types::{NodeId, Offset, PartitionIndex, TopicId};

/// Topics that one topic is made of, of which it is known; of one that is made of more nothing is known.
pub const MADE_OF_MAX: usize = 1_024;

pub(super) fn name(input: &mut Reader<'_>) -> Result<String, CodecError> {
    let name = input.text()?;
    if name.len() > PIPELINE_NAME_BYTES_MAX { Err(CodecError::Tag) } else { Ok(name) }
}

fn put_texts(out: &mut Writer, texts: &[String]) {
    out.count(texts.len());
    texts.iter().for_each(|text| out.text(text));
}

fn texts(input: &mut Reader<'_>, most: usize) -> Result<Vec<String>, CodecError> {
    let count = input.count(4)?;
    if count > most {
        return Err(CodecError::Tag);
    }
    (0..count).map(|_| input.text()).collect()
}

/// A pipeline.
///
/// ```text
/// name len u32, UTF-8 | number u64 | who len u32, UTF-8 | wall ms u64 | topic [u8; 16] | shape [u8; 16]
/// | paused u8 | latency ms u32 | inputs u32, outputs u32: each len u32, UTF-8 | file len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The index of the entry that defined it as it is.
    pub number: u64,
    /// Who did, and when.
    pub changed: Changed,
    /// The topic with its state.
    pub topic: TopicId,
    /// What it is.
    pub definition: PipelineDefinition,
}

impl Pipeline {
    /// Whether somebody has to own it: it runs, or has been paused without a last delta.
    pub fn may_be_claimed(&self, run: &Run) -> bool {
        run.failed.is_none() && !(self.definition.paused && run.is_settled())
    }
}

impl Element for Pipeline {
    type Key = String;
    const SEED: u64 = 15;
    const BYTES_MIN: usize = 73;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self, out: &mut Writer) {
        let PipelineDefinition { file, inputs, outputs, shape, paused, latency_ms } =
            &self.definition;
        out.text(&self.name);
        out.u64(self.number);
        self.changed.encode(out);
        out.uuid(self.topic.0);
        out.raw(shape);
        out.u8(u8::from(*paused));
        out.u32(*latency_ms);
        put_texts(out, inputs);
        put_texts(out, outputs);
        out.text(file);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (name, number) = (name(input)?, input.u64()?);
        let changed = Changed::decode(input)?;
        let topic = TopicId(input.uuid()?);
        let (shape, paused, latency_ms) = (input.array()?, input.flag()?, input.u32()?);
        let inputs = texts(input, PIPELINE_TOPICS_MAX)?;
        let outputs = texts(input, PIPELINE_TOPICS_MAX)?;
        let file = input.text()?;
        if file.len() > PIPELINE_FILE_BYTES_MAX {
            return Err(CodecError::Tag);
        }
        let definition = PipelineDefinition { file, inputs, outputs, shape, paused, latency_ms };
        Ok(Self { name, number, changed, topic, definition })
    }
}

/// The parts of a delta that is being written, by the owner that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The fence under which they were written.
    pub fence: u64,
    /// It is the delta at the end of this epoch.
    pub epoch: u64,
    /// Where in the internal topic it begins.
    pub first: Offset,
    /// The offset behind what there is of it.
    pub end: Offset,
}

/// How far a pipeline has come, and who runs it.
///
/// ```text
/// pipeline len u32, UTF-8 | owner u64, 0 for none | fence u64 | claimed age ms u64 | epoch u64 | age ms u64
/// | hash [u8; 16] | appends u32 | appended u32 | delta epoch u64 | delta age ms u64 | ranges u32
/// | wanted 0 u8 or 1 u8, epoch u64 | failed 0 u8 or 1 u8, len u32, UTF-8
/// | parts 0 u8 or 1 u8, fence u64, epoch u64, first u64, end u64
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The pipeline, by name.
    pub pipeline: String,
    /// The node that runs it.
    pub owner: Option<NodeId>,
    /// The index of the entry that made it so.
    pub fence: u64,
    /// The age of the site then, in milliseconds.
    pub claimed_age_ms: u64,
    /// The last epoch; 0 before the first one.
    pub epoch: u64,
    /// The age at which it ended, in milliseconds.
    pub age_ms: u64,
    /// The hash over everything that it puts out.
    pub hash: OutputHash,
    /// How many appends it has.
    pub appends: u32,
    /// How many of them are there.
    pub appended: u32,
    /// The epoch of the last delta; 0 before the first one.
    pub delta_epoch: u64,
    /// The age at which that epoch ended, in milliseconds.
    pub delta_age_ms: u64,
    /// Ranges of the epochs since then.
    pub logged_ranges: u32,
    /// A delta of this epoch or a later one is wanted.
    pub wants_delta: Option<u64>,
    /// Why it cannot go on.
    pub failed: Option<String>,
    /// The delta that is being written.
    pub parts: Option<Parts>,
}

impl Run {
    /// How many appends of the last epoch are not there yet.
    pub fn appends_missing(&self) -> u32 {
        if fulmar_host::planted(fulmar_types::Plant::EpochAppendsUnchecked) {
            return 0;
        }
        self.appends - self.appended
    }

    /// Whether there is nothing that its state does not cover.
    pub fn is_settled(&self) -> bool {
        self.epoch == self.delta_epoch && self.appends_missing() == 0
    }
}

impl Element for Run {
    type Key = String;
    const SEED: u64 = 16;
    const BYTES_MIN: usize = 95;

    fn key(&self) -> String {
        self.pipeline.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.pipeline);
        out.u64(self.owner.map_or(0, NodeId::get));
        out.u64(self.fence);
        out.u64(self.claimed_age_ms);
        out.u64(self.epoch);
        out.u64(self.age_ms);
        out.raw(&self.hash);
        out.u32(self.appends);
        out.u32(self.appended);
        out.u64(self.delta_epoch);
        out.u64(self.delta_age_ms);
        out.u32(self.logged_ranges);
        out.u8(u8::from(self.wants_delta.is_some()));
        self.wants_delta.iter().for_each(|epoch| out.u64(*epoch));
        out.u8(u8::from(self.failed.is_some()));
        self.failed.iter().for_each(|reason| out.text(reason));
        out.u8(u8::from(self.parts.is_some()));
        if let Some(parts) = &self.parts {
            let Parts { fence, epoch, first, end } = *parts;
            [fence, epoch, first.0, end.0].into_iter().for_each(|number| out.u64(number));
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut run = Self { pipeline: name(input)?, ..Self::default() };
        run.owner = Some(NodeId(input.u64()?)).filter(|node| node.get() > 0);
        run.fence = input.u64()?;
        run.claimed_age_ms = input.u64()?;
        run.epoch = input.u64()?;
        run.age_ms = input.u64()?;
        run.hash = input.array()?;
        run.appends = input.u32()?;
        run.appended = input.u32()?;
        run.delta_epoch = input.u64()?;
        run.delta_age_ms = input.u64()?;
        run.logged_ranges = input.u32()?;
        run.wants_delta = if input.flag()? { Some(input.u64()?) } else { None };
        run.failed = if input.flag()? { Some(input.text()?) } else { None };
        if input.flag()? {
            let (fence, epoch) = (input.u64()?, input.u64()?);
            let (first, end) = (Offset(input.u64()?), Offset(input.u64()?));
            run.parts = Some(Parts { fence, epoch, first, end });
        }
        let is_long = |reason: &String| reason.len() > PIPELINE_REASON_BYTES_MAX;
        let is_backwards = |parts: &Parts| parts.first > parts.end;
        if run.appended > run.appends
            || run.delta_epoch > run.epoch
            || run.failed.as_ref().is_some_and(is_long)
            || run.parts.as_ref().is_some_and(is_backwards)
        {
            return Err(CodecError::Tag);
        }
        Ok(run)
    }
}

/// What a pipeline has said of itself with its last epoch.
///
/// ```text
/// pipeline len u32, UTF-8 | facts len u32, bytes
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The pipeline, by name.
    pub pipeline: String,
    /// What it said.
    pub facts: Bytes,
}

impl Element for Facts {
    type Key = String;
    const SEED: u64 = 17;
    const BYTES_MIN: usize = 8;

    fn key(&self) -> String {
        self.pipeline.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.pipeline);
        out.bytes(&self.facts);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (pipeline, facts) = (name(input)?, input.bytes()?);
        if facts.len() > PIPELINE_FACTS_BYTES_MAX {
            return Err(CodecError::Tag);
        }
        Ok(Self { pipeline, facts: Bytes::copy_from_slice(facts) })
    }
}

/// How far a pipeline has read a partition.
///
/// ```text
/// stream u32 | pipeline len u32, UTF-8 | next u64 | floor u64 | missed u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub stream: StreamId,
    /// The pipeline, by name.
    pub pipeline: String,
    /// The first offset that no epoch has read.
    pub next: Offset,
    /// The first offset that the last delta does not know: whoever takes over reads from here.
    pub floor: Offset,
    /// Offsets that were gone before they were read.
    pub missed: u64,
}

impl Element for Position {
    type Key = (StreamId, String);
    const SEED: u64 = 18;
    const BYTES_MIN: usize = 32;

    fn key(&self) -> Self::Key {
        (self.stream, self.pipeline.clone())
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.text(&self.pipeline);
        out.u64(self.next.0);
        out.u64(self.floor.0);
        out.u64(self.missed);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (stream, pipeline) = (StreamId(input.u32()?), name(input)?);
        let (next, floor) = (Offset(input.u64()?), Offset(input.u64()?));
        Ok(Self { stream, pipeline, next, floor, missed: input.u64()? })
    }
}

/// What is kept of pipelines by partition: how far each has come with it.
impl<T: Element<Key = (StreamId, String)>> Table<T> {
    /// That of a partition.
    pub fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = &T> {
        // A stream number is never used up, see `Table<Meta>::take_streams`.
        let behind = StreamId(stream.0.saturating_add(1));
        self.range((stream, String::new())..(behind, String::new()))
    }

    /// Forgets a partition that is gone.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let gone: Vec<_> = self.of_stream(stream).map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

/// An epoch that no delta covers.
///
/// ```text
/// pipeline len u32, UTF-8 | epoch u64 | age ms u64 | hash [u8; 16] | appends u32
/// | ranges u32, each topic [u8; 16], partition u32, from u64, to u64, more u8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEpoch {
    /// The pipeline, by name.
    pub pipeline: String,
    /// Its number.
    pub epoch: u64,
    /// The age at which it ended, in milliseconds.
    pub age_ms: u64,
    /// The hash over everything that it puts out.
    pub hash: OutputHash,
    /// How many appends it has.
    pub appends: u32,
    /// What it has read, and of what it said that it left something.
    pub ranges: Vec<InputRange>,
}

impl Element for LoggedEpoch {
    type Key = (String, u64);
    const SEED: u64 = 19;
    const BYTES_MIN: usize = 44;

    fn key(&self) -> Self::Key {
        (self.pipeline.clone(), self.epoch)
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.pipeline);
        out.u64(self.epoch);
        out.u64(self.age_ms);
        out.raw(&self.hash);
        out.u32(self.appends);
        out.count(self.ranges.len());
        for range in &self.ranges {
            out.uuid(range.topic.0);
            out.u32(range.partition.0);
            out.u64(range.from.0);
            out.u64(range.to.0);
            out.u8(u8::from(range.has_more));
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (pipeline, epoch, age_ms) = (name(input)?, input.u64()?, input.u64()?);
        let (hash, appends) = (input.array()?, input.u32()?);
        let count = input.count(37)?;
        if count > PIPELINE_PARTITIONS_MAX {
            return Err(CodecError::Tag);
        }
        let mut range = || {
            let (topic, partition) = (TopicId(input.uuid()?), PartitionIndex(input.u32()?));
            let (from, to) = (Offset(input.u64()?), Offset(input.u64()?));
            Ok(InputRange { topic, partition, from, to, has_more: input.flag()? })
        };
        let ranges = (0..count).map(|_| range()).collect::<Result<_, CodecError>>()?;
        Ok(Self { pipeline, epoch, age_ms, hash, appends, ranges })
    }
}

/// Where in the internal topic a delta lies.
///
/// ```text
/// pipeline len u32, UTF-8 | epoch u64 | first u64 | end u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The pipeline, by name.
    pub pipeline: String,
    /// It is the state at the end of this epoch, less what the deltas before it have.
    pub epoch: u64,
    /// Where it begins.
    pub first: Offset,
    /// The offset behind it.
    pub end: Offset,
}

impl Element for Delta {
    type Key = (String, u64);
    const SEED: u64 = 20;
    const BYTES_MIN: usize = 28;

    fn key(&self) -> Self::Key {
        (self.pipeline.clone(), self.epoch)
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.pipeline);
        [self.epoch, self.first.0, self.end.0].into_iter().for_each(|number| out.u64(number));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (pipeline, epoch) = (name(input)?, input.u64()?);
        let (first, end) = (Offset(input.u64()?), Offset(input.u64()?));
        if first > end {
            return Err(CodecError::Tag);
        }
        Ok(Self { pipeline, epoch, first, end })
    }
}

/// What a topic is made of that pipelines write or once wrote: what is in it comes from there, whatever
/// has become of the pipelines.
///
/// ```text
/// topic [u8; 16] | more u8 | of u32, each len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    /// The topic.
    pub topic: TopicId,
    /// There are more than are named.
    pub has_more: bool,
    /// The topics that it is made of, by name, in order.
    pub of: Vec<String>,
}

impl Making {
    /// It is made of some more.
    pub fn add(&mut self, inputs: &[String]) {
        for input in inputs {
            match self.of.binary_search(input) {
                Ok(_) => {}
                Err(_) if self.of.len() >= MADE_OF_MAX => self.has_more = true,
                Err(at) => self.of.insert(at, input.clone()),
            }
        }
    }
}

impl Element for Making {
    type Key = TopicId;
    const SEED: u64 = 22;
    const BYTES_MIN: usize = 21;

    fn key(&self) -> TopicId {
        self.topic
    }

    fn encode(&self, out: &mut Writer) {
        out.uuid(self.topic.0);
        out.u8(u8::from(self.has_more));
        put_texts(out, &self.of);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (topic, has_more) = (TopicId(input.uuid()?), input.flag()?);
        let of = texts(input, MADE_OF_MAX)?;
        if !of.is_sorted() {
            return Err(CodecError::Tag);
        }
        Ok(Self { topic, has_more, of })
    }
}

/// A table whose elements belong to a pipeline and an epoch of it.
pub trait ByEpoch {
    /// Forgets those of a pipeline up to an epoch and including it.
    fn drop_through(&mut self, pipeline: &str, epoch: u64);
}

impl<E: Element<Key = (String, u64)>> ByEpoch for Table<E> {
    fn drop_through(&mut self, pipeline: &str, epoch: u64) {
        let of = |epoch| (pipeline.to_owned(), epoch);
        let gone: Vec<_> = self.range(of(0)..=of(epoch)).map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

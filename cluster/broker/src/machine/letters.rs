//! Dead letters that are put through again: how far a pipeline has come with that.
//!
//! ```text
//! partition of an output    ----[ floor ....... next ........ until )----->
//!                                | logged epochs  | asked for, not yet read
//! ```
//!
//! Somebody asks for it: then the end of the topic at that moment is *until*. The owner reads up to there in
//! epochs like any input, so the position moves with what comes of it, in one unit. What fails again
//! lies behind *until*, and is read when somebody asks again.
//!
//! Invariants: a dead letter is read by one epoch at most, whatever files come and go: how far a topic was put
//! through is kept for as long as it and the pipeline are there, also while the pipeline does not write it;
//! what lies there when a pipeline begins anew, or with a savepoint, or begins to write the topic, is never
//! read: the records themselves are, or it is of somebody else; a topic that is put through again is one of
//! those that the outputs are made of.

use super::changes::ChangeOf;
use super::codec::{CodecError, Reader, Writer};
use super::outcome::{OperationResult, Refusal};
use super::pipelines::{Pipeline, Run, name};
use super::piping::Read;
use super::state::{State, Step};
use super::table::{Element, Table};
use super::topics::Topic;
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_types::pipeline::RETRY;
use fulmar_types::{Offset, PartitionIndex, Plant};
use std::collections::BTreeSet;

/// How far a pipeline has put the dead letters of a partition through again.
///
/// ```text
/// stream u32 | pipeline len u32, UTF-8 | next u64 | floor u64 | until u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letters {
    /// The partition.
    pub stream: StreamId,
    /// The pipeline, by name.
    pub pipeline: String,
    /// The first offset that no epoch has read.
    pub next: Offset,
    /// The first offset that the last delta does not know: whoever takes over reads from here.
    pub floor: Offset,
    /// The offset up to which it is to be read.
    pub until: Offset,
}

impl Element for Letters {
    type Key = (StreamId, String);
    const SEED: u64 = 24;
    const BYTES_MIN: usize = 32;

    fn key(&self) -> Self::Key {
        (self.stream, self.pipeline.clone())
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.text(&self.pipeline);
        [self.next, self.floor, self.until].into_iter().for_each(|offset| out.u64(offset.0));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (stream, pipeline) = (StreamId(input.u32()?), name(input)?);
        let mut offset = || Ok(Offset(input.u64()?));
        let (next, floor, until) = (offset()?, offset()?, offset()?);
        if floor > next || next > until {
            return Err(CodecError::Tag);
        }
        Ok(Self { stream, pipeline, next, floor, until })
    }
}

impl Table<Letters> {
    /// Forgets what a pipeline has put through again.
    pub fn drop_pipeline(&mut self, pipeline: &str) {
        let of = self.iter().filter(|letters| letters.pipeline == pipeline);
        let gone: Vec<_> = of.map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

/// A partition of an output that is or was put through again.
#[derive(Clone, Copy, Debug)]
pub struct Lettered<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Its partition.
    pub partition: PartitionIndex,
    /// How far.
    pub letters: &'a Letters,
}

impl State {
    /// Of which outputs a pipeline puts dead letters through again or has done so, by the name of the topic and
    /// by partition.
    pub fn letters(&self, pipeline: &str) -> Vec<Lettered<'_>> {
        let outputs = self.pipeline(pipeline).map(|known| &known.definition.outputs);
        let mut topics: Vec<&Topic> =
            outputs.into_iter().flatten().filter_map(|name| self.topics.by_name(name)).collect();
        topics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut all = Vec::new();
        for topic in topics {
            for (partition, stream) in (0..).map(PartitionIndex).zip(topic.streams()) {
                let letters = self.letters.get(&(stream, pipeline.to_owned()));
                all.extend(letters.map(|letters| Lettered { topic, partition, letters }));
            }
        }
        all
    }

    /// Asks for what lies in an output by now.
    pub(super) fn retry(
        &mut self,
        step: &mut Step,
        (pipeline, who): (String, String),
        topic: String,
    ) -> Result<OperationResult, Refusal> {
        let known = self.pipelines.get(&pipeline).ok_or(Refusal::UnknownPipeline)?;
        if !known.definition.outputs.contains(&topic) {
            return Err(Refusal::NotAnOutput);
        }
        let definition = known.definition.clone();
        let found = self.topics.by_name(&topic).ok_or(Refusal::UnknownTopic)?;
        let streams: Vec<StreamId> = found.streams().collect();
        let before = definition.settings();
        let mut after = before.clone();
        after.push((RETRY.to_owned(), topic.clone()));
        self.note(step, (ChangeOf::Pipeline, &pipeline, who), (Some(before), Some(after)));
        // What they say is now in all that it writes.
        self.note_makings(&definition.outputs, &[topic]);
        let mut records = 0;
        for stream in streams {
            let (log_start, until) = (self.known(stream).log_start, self.known(stream).next);
            let known = self.letters.get(&(stream, pipeline.clone()));
            let (next, floor) = known.map_or((log_start, log_start), |of| (of.next, of.floor));
            records += until.0.saturating_sub(next.max(log_start).0);
            let pipeline = pipeline.clone();
            self.letters.put(Letters { stream, pipeline, next, floor, until });
        }
        Ok(OperationResult::LettersWanted { records })
    }

    /// Where the dead letters of a partition are read next, and up to where.
    pub(super) fn letters_at(&self, key: &(StreamId, String)) -> Option<(Offset, Offset)> {
        let letters = self.letters.get(key)?;
        Some((letters.next, letters.until))
    }

    /// An epoch has read a partition up to here.
    pub(super) fn read_up_to(&mut self, pipeline: &str, read: &Read) {
        let Read { stream, to, missed } = *read;
        let key = (stream, pipeline.to_owned());
        let was_input = self.positions.modify(&key, |position| {
            position.next = to;
            let counted = if planted(Plant::MissedNotCounted) { 0 } else { missed };
            position.missed = position.missed.saturating_add(counted);
        });
        if was_input.is_none() && !planted(Plant::RetryNotCommitted) {
            self.letters.modify(&key, |letters| letters.next = to);
        }
    }

    /// The last delta knows what was read of a partition up to here.
    pub(super) fn covered_up_to(&mut self, key: &(StreamId, String), floor: Offset) {
        let was_input = self.positions.modify(key, |position| position.floor = floor);
        if was_input.is_none() {
            self.letters.modify(key, |letters| letters.floor = floor.min(letters.next));
        }
    }

    /// From where on dead letters have to stay for whoever takes over.
    pub(super) fn letters_replayed_from(&self, stream: StreamId) -> impl Iterator<Item = Offset> {
        let of_stream = self.letters.of_stream(stream);
        of_stream.filter(|letters| self.is_replayed(letters)).map(|letters| letters.floor)
    }

    /// Whether whoever takes over reads some of it again. A pipeline that has failed keeps nothing.
    fn is_replayed(&self, letters: &Letters) -> bool {
        let goes_on = |run: &Run| run.failed.is_none();
        letters.floor < letters.next && self.runs.get(&letters.pipeline).is_some_and(goes_on)
    }

    /// The partitions of what a pipeline writes, and of what it once wrote, with another file: of all of them it
    /// is to be known how far their dead letters were put through.
    pub(super) fn lettered_streams(
        &self,
        pipeline: &str,
        outputs: &[String],
    ) -> BTreeSet<StreamId> {
        let before = self.pipeline(pipeline).map_or(&[][..], |known| &known.definition.outputs);
        let of = self.letters.iter().filter(|letters| letters.pipeline == pipeline);
        let known = of.map(|letters| letters.stream);
        let written = [before, outputs].into_iter().flat_map(|topics| self.streams_of(topics));
        known.chain(written).collect()
    }

    /// A pipeline that is there gets other outputs. What it stops writing may come back; what it begins to
    /// write has no dead letters of it so far.
    pub(super) fn change_letters(&mut self, known: &Pipeline, outputs: &[String]) {
        if planted(Plant::LettersForgotten) {
            return;
        }
        let is_in = |topics: &[String], topic: &String| topics.contains(topic);
        let written = known.definition.outputs.iter();
        let left: Vec<_> = written.filter(|topic| !is_in(outputs, topic)).cloned().collect();
        let come = outputs.iter().filter(|topic| !is_in(&known.definition.outputs, topic));
        let come: Vec<_> = come.cloned().collect();
        for stream in self.streams_of(&left) {
            self.letters_from(&known.name, stream, Offset(0));
        }
        for stream in self.streams_of(&come) {
            self.letters_from(&known.name, stream, self.known(stream).next);
        }
    }

    /// Unless it is known of a partition, nothing of it before this was put through or will be.
    fn letters_from(&mut self, pipeline: &str, stream: StreamId, at: Offset) {
        let pipeline = pipeline.to_owned();
        if self.letters.get(&(stream, pipeline.clone())).is_none() {
            self.letters.put(Letters { stream, pipeline, next: at, floor: at, until: at });
        }
    }

    /// A pipeline begins anew or goes back: what lies in its outputs, and in those that it once had, is of records
    /// that it reads once more, or that it had before.
    pub(super) fn begin_letters(&mut self, pipeline: &str) {
        if planted(Plant::LettersForgotten) {
            self.letters.drop_pipeline(pipeline);
        }
        for stream in self.lettered_streams(pipeline, &[]) {
            let next = self.known(stream).next;
            let pipeline = pipeline.to_owned();
            // An output of which nothing is known is put through from its beginning on.
            if next > Offset(0) || self.letters.get(&(stream, pipeline.clone())).is_some() {
                self.letters.put(Letters { stream, pipeline, next, floor: next, until: next });
            }
        }
    }

    /// Pipelines that would have to read some of a topic again, which somebody wants to delete: dead letters,
    /// behind the last delta. Without it they could never go on with their state. Not so with an input: of
    /// a topic that is gone the state is of no use.
    pub fn needed_by(&self, topic: &Topic) -> BTreeSet<String> {
        let letters = topic.streams().flat_map(|stream| self.letters.of_stream(stream));
        let needed = letters.filter(|letters| self.is_replayed(letters));
        needed.map(|letters| letters.pipeline.clone()).collect()
    }
}

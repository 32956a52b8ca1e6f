//! What entries about pipelines do to the state, and what can be asked about them.
//!
//! Invariants: as in `state.rs`; what an owner sends takes effect only under the fence that stands; an epoch
//! begins where the one before has ended, in every partition, and may leave out only records that are
//! gone; an epoch is complete before the next one; what its state does not cover can be read again.
//!
//! Never: trust a pipeline about where its inputs or its outputs are.

use super::batch::BatchFacts;
use super::changes::{ChangeOf, Settings};
use super::deploying::is_name;
use super::outcome::{OperationResult, Refusal};
use super::pipelines::{
    ByEpoch, Delta, Facts, LoggedEpoch, Parts, Pipeline, Position, Run, Savepoint,
};
use super::state::{Append, State, Step};
use super::topics::Topic;
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_store::entry::{Batch, EpochPlace, InputRange, PipelineOperation};
use fulmar_types::event::{CommittedEpoch, RecordRange};
use fulmar_types::pipeline::{
    APPENDS_PER_EPOCH_MAX, DELTAS_MAX, EPOCHS_LOGGED_MAX, OutputHash, PIPELINE_FACTS_BYTES_MAX,
    PIPELINE_PARTITIONS_MAX, PIPELINE_REASON_BYTES_MAX, RANGES_LOGGED_MAX,
    RANGES_LOGGED_PER_SITE_MAX, STATE_PART_BYTES_MAX, is_internal,
};
use fulmar_types::{Event, NodeId, Offset, PartitionIndex, Plant, TopicId};
use std::collections::BTreeMap;

/// A partition that a pipeline reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The partition in the log.
    pub stream: StreamId,
    /// How far it has been read.
    pub position: &'a Position,
}

/// What an epoch reads of a partition.
pub(super) struct Read {
    pub(super) stream: StreamId,
    /// Up to where.
    pub(super) to: Offset,
    /// How much was gone before.
    pub(super) missed: u64,
}

/// An epoch that is to be committed.
struct Epoch<'a> {
    at: &'a EpochPlace,
    age_ms: u64,
    hash: OutputHash,
    appends: u32,
    ranges: &'a [InputRange],
}

impl State {
    /// The pipelines, by name.
    pub fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.pipelines.iter()
    }

    /// A pipeline.
    pub fn pipeline(&self, name: &str) -> Option<&Pipeline> {
        self.pipelines.get(&name.to_owned())
    }

    /// How far a pipeline has come. There is one for each.
    pub fn run(&self, pipeline: &str) -> Option<&Run> {
        self.runs.get(&pipeline.to_owned())
    }

    /// What a pipeline said of itself with its last epoch.
    pub fn facts(&self, pipeline: &str) -> Option<&bytes::Bytes> {
        self.facts.get(&pipeline.to_owned()).map(|facts| &facts.facts)
    }

    /// What a pipeline reads, by the name of the topic and by partition. `None` if there is no such
    /// pipeline, or one of its topics is not there any more: another one of the same name is another one.
    pub fn inputs(&self, pipeline: &str) -> Option<Vec<Input<'_>>> {
        let known = self.pipeline(pipeline)?;
        let mut names: Vec<&String> = known.definition.inputs.iter().collect();
        names.sort_unstable();
        let mut inputs = Vec::new();
        for name in names {
            let topic = self.topics.by_name(name)?;
            for (partition, stream) in (0..).map(PartitionIndex).zip(topic.streams()) {
                let position = self.positions.get(&(stream, pipeline.to_owned()))?;
                inputs.push(Input { topic, partition, stream, position });
            }
        }
        Some(inputs)
    }

    /// What a pipeline writes, in the order of its definition. `None` if there is no such pipeline, or one
    /// of the topics is not there any more.
    pub fn outputs(&self, pipeline: &str) -> Option<Vec<&Topic>> {
        let names = &self.pipeline(pipeline)?.definition.outputs;
        names.iter().map(|name| self.topics.by_name(name)).collect()
    }

    /// The epochs of a pipeline since its last delta, in order.
    pub fn logged_epochs(&self, pipeline: &str) -> impl Iterator<Item = &LoggedEpoch> {
        let of = |epoch| (pipeline.to_owned(), epoch);
        self.epochs.range(of(0)..=of(u64::MAX))
    }

    /// The deltas of a pipeline, in order.
    pub fn deltas(&self, pipeline: &str) -> impl Iterator<Item = &Delta> {
        let of = |epoch| (pipeline.to_owned(), epoch);
        self.deltas.range(of(0)..=of(u64::MAX))
    }

    /// The savepoints, by name.
    pub fn savepoints(&self) -> impl Iterator<Item = &Savepoint> {
        self.savepoints.iter()
    }

    /// A savepoint.
    pub fn savepoint(&self, name: &str) -> Option<&Savepoint> {
        self.savepoints.get(&name.to_owned())
    }

    /// From where on the records of a partition have to stay, since whoever takes over a pipeline reads
    /// them again. What has not been read yet keeps nothing, and neither does a pipeline that has failed.
    pub fn replayed_from(&self, stream: StreamId) -> Option<Offset> {
        if planted(Plant::ReplayFloorIgnored) {
            return None;
        }
        let has_failed = |position: &&Position| {
            self.runs.get(&position.pipeline).is_none_or(|run| run.failed.is_some())
        };
        let of_stream = self.positions.of_stream(stream);
        let replayed = of_stream.filter(|position| position.floor < position.next);
        let floors = replayed.filter(|position| !has_failed(position)).map(|of| of.floor);
        floors.chain(self.letters_replayed_from(stream)).min()
    }

    /// How often something has become of pipelines here but for epochs and parts of deltas: what they are,
    /// who owns them, what is wanted of the owners.
    pub fn pipeline_turns(&self) -> u64 {
        self.pipeline_turns
    }

    pub(super) fn apply_pipeline(
        &mut self,
        step: &mut Step,
        operation: PipelineOperation,
    ) -> Result<OperationResult, Refusal> {
        if !matches!(
            operation,
            PipelineOperation::Commit { .. }
                | PipelineOperation::Append { .. }
                | PipelineOperation::Part { .. }
        ) {
            self.pipeline_turns += 1;
        }
        match operation {
            PipelineOperation::Set { name, who, change, .. } => {
                self.change_pipeline(step, (name, who), *change)
            }
            PipelineOperation::Claim { pipeline, expected, node } => {
                self.claim(step, pipeline, expected, node)
            }
            PipelineOperation::Commit { at, age_ms, hash, appends, ranges, facts } => {
                if facts.len() > PIPELINE_FACTS_BYTES_MAX {
                    return Err(Refusal::InvalidPipeline);
                }
                let epoch = Epoch { at: &at, age_ms, hash, appends, ranges: &ranges };
                self.commit_epoch(&epoch)?;
                step.tell(committed(&epoch));
                self.facts.put(Facts { pipeline: at.pipeline, facts });
                Ok(OperationResult::EpochCommitted)
            }
            PipelineOperation::Append { at, seq, topic, partition, batch } => {
                self.epoch_append(step, (&at, seq), (topic, partition), &batch)
            }
            PipelineOperation::Part { at, batch } => self.state_part(step, &at, &batch),
            PipelineOperation::Done { at, first, end, keep_from } => {
                self.state_done(step, &at, (first, end), keep_from)
            }
            PipelineOperation::Halt { pipeline, fence, reason } => {
                self.halt(step, &pipeline, fence, reason)
            }
            PipelineOperation::WantDelta { pipeline } => {
                let run = self.runs.get(&pipeline).ok_or(Refusal::UnknownPipeline)?;
                let epoch = run.epoch;
                if run.delta_epoch < epoch {
                    self.runs.modify(&pipeline, |run| run.wants_delta = Some(epoch));
                }
                Ok(OperationResult::DeltaWanted { epoch })
            }
            PipelineOperation::SetSavepoint { name, who, pipeline, .. } => {
                self.set_savepoint(step, (name, who), pipeline)
            }
            PipelineOperation::Retry { pipeline, who, topic } => {
                self.retry(step, (pipeline, who), topic)
            }
        }
    }

    fn claim(
        &mut self,
        step: &mut Step,
        name: String,
        expected: u64,
        node: Option<NodeId>,
    ) -> Result<OperationResult, Refusal> {
        let pipeline = self.pipelines.get(&name).ok_or(Refusal::UnknownPipeline)?;
        let run = self.runs.get(&name).expect("every pipeline has one");
        if run.fence != expected {
            return Err(Refusal::StaleOwner { fence: run.fence });
        }
        if node.is_some() && !pipeline.may_be_claimed(run) {
            return Err(Refusal::NotRunning);
        }
        let (fence, claimed_age_ms) = (step.number(), step.age_ms());
        self.runs.modify(&name, |run| {
            (run.owner, run.fence, run.claimed_age_ms) = (node, fence, claimed_age_ms);
            if !planted(Plant::DeltaOfOtherFenceTaken) {
                run.parts = None;
            }
        });
        step.tell(Event::PipelineOwned { pipeline: name, owner: node, fence });
        Ok(OperationResult::Claimed { fence })
    }

    /// How far a pipeline has come, for its owner.
    fn owned(&self, pipeline: &String, fence: u64) -> Result<&Run, Refusal> {
        let run = self.runs.get(pipeline).ok_or(Refusal::UnknownPipeline)?;
        if run.owner.is_none() || run.fence != fence {
            return Err(Refusal::StaleOwner { fence: run.fence });
        }
        Ok(run)
    }

    fn commit_epoch(&mut self, epoch: &Epoch<'_>) -> Result<(), Refusal> {
        let at = epoch.at;
        let run = match self.owned(&at.pipeline, at.fence) {
            Err(Refusal::StaleOwner { .. }) if planted(Plant::FencingNotChecked) => {
                self.runs.get(&at.pipeline).expect("it has another owner")
            }
            owned => owned?,
        };
        let is_checked = run.fence == at.fence || !planted(Plant::FencingNotChecked);
        let number = run.epoch + 1;
        if at.epoch != number && is_checked {
            return Err(Refusal::UnexpectedEpoch { next: number });
        }
        if run.appends_missing() > 0 {
            return Err(Refusal::EpochIncomplete { appended: run.appended });
        }
        if epoch.age_ms < run.age_ms {
            return Err(Refusal::AgeGoesBack { age_ms: run.age_ms });
        }
        if epoch.appends > APPENDS_PER_EPOCH_MAX || epoch.ranges.len() > PIPELINE_PARTITIONS_MAX {
            return Err(Refusal::InvalidPipeline);
        }
        let ranges = u32::try_from(epoch.ranges.len()).expect("bounded by its limit");
        self.check_log_of_epochs(run, ranges)?;
        let reads = self.check_ranges(&at.pipeline, epoch.ranges, is_checked)?;
        for read in reads {
            self.read_up_to(&at.pipeline, &read);
        }
        let Epoch { age_ms, hash, appends, .. } = *epoch;
        let (pipeline, ranges_of) = (at.pipeline.clone(), epoch.ranges.to_vec());
        self.epochs.put(LoggedEpoch {
            pipeline,
            epoch: number,
            age_ms,
            hash,
            appends,
            ranges: ranges_of,
        });
        self.runs.modify(&at.pipeline, |run| {
            (run.epoch, run.age_ms, run.hash) = (number, age_ms, hash);
            (run.appends, run.appended) = (appends, 0);
            run.logged_ranges += ranges;
        });
        Ok(())
    }

    /// Whether one epoch more can be kept until there is a delta.
    fn check_log_of_epochs(&self, run: &Run, ranges: u32) -> Result<(), Refusal> {
        let epochs = run.epoch - run.delta_epoch;
        let of_site = self.runs.iter().fold(0u32, |sum, run| sum.saturating_add(run.logged_ranges));
        let is_full = epochs >= EPOCHS_LOGGED_MAX as u64
            || run.logged_ranges.saturating_add(ranges) > RANGES_LOGGED_MAX
            || of_site.saturating_add(ranges) > RANGES_LOGGED_PER_SITE_MAX;
        // Whatever others have, a pipeline can always take a step from one delta to the next.
        if is_full && epochs > 0 { Err(Refusal::DeltaNeeded) } else { Ok(()) }
    }

    /// What an epoch reads of each partition. The ranges are in order, none twice, and each begins where the
    /// one before has ended; of dead letters nothing is read that nobody has asked for. A range without records
    /// says that there are some, and moves nothing.
    fn check_ranges(
        &self,
        pipeline: &str,
        ranges: &[InputRange],
        is_checked: bool,
    ) -> Result<Vec<Read>, Refusal> {
        let mut reads = Vec::with_capacity(ranges.len());
        let mut before: Option<(&str, PartitionIndex)> = None;
        for range in ranges {
            let (topic, stream) = self.stream(range.topic, range.partition)?;
            let key = (stream, pipeline.to_owned());
            let end = self.known(stream).next;
            let known = self.positions.get(&key).map(|position| (position.next, end));
            let known = known.or_else(|| self.letters_at(&key));
            let (at, until) = known.ok_or(Refusal::NotAnInput)?;
            let place = (topic.name.as_str(), range.partition);
            if before.replace(place).is_some_and(|before| before >= place) {
                return Err(Refusal::InvalidPipeline);
            }
            if range.is_empty() {
                let is_input = self.positions.get(&key).is_some();
                Self::check_left(range, is_input, (at, end))?;
                continue;
            }
            let partition = self.known(stream);
            let next = at.max(partition.log_start);
            let is_off_by_one = planted(Plant::InputOffsetOffByOne) && range.from == next.plus(1);
            if range.from != next && is_checked && !is_off_by_one {
                return Err(Refusal::UnexpectedOffset { next });
            }
            let most = if range.has_more { Offset(end.0.saturating_sub(1)) } else { end };
            if range.from >= range.to || range.to > until.min(most) {
                return Err(Refusal::OffsetOutOfRange { next: until.min(end) });
            }
            let to =
                if planted(Plant::InputOffsetOffByOne) { Offset(range.to.0 - 1) } else { range.to };
            reads.push(Read { stream, to, missed: range.from.0.saturating_sub(at.0) });
        }
        Ok(reads)
    }

    /// An epoch says that it leaves records of an input as they are: the next one begins there, and they are there,
    /// or were. Dead letters nobody waits for.
    fn check_left(
        range: &InputRange,
        is_input: bool,
        (at, end): (Offset, Offset),
    ) -> Result<(), Refusal> {
        if !is_input || !range.has_more {
            return Err(Refusal::InvalidPipeline);
        }
        if range.from != at {
            return Err(Refusal::UnexpectedOffset { next: at });
        }
        if at >= end { Err(Refusal::OffsetOutOfRange { next: end }) } else { Ok(()) }
    }

    fn epoch_append(
        &mut self,
        step: &mut Step,
        (at, seq): (&EpochPlace, u32),
        (topic, partition): (TopicId, PartitionIndex),
        batch: &Batch,
    ) -> Result<OperationResult, Refusal> {
        let run = match self.owned(&at.pipeline, at.fence) {
            Err(Refusal::StaleOwner { .. }) if planted(Plant::FencingNotChecked) => {
                self.runs.get(&at.pipeline).expect("it has another owner")
            }
            owned => {
                let run = owned?;
                if at.epoch != run.epoch {
                    return Err(Refusal::UnexpectedEpoch { next: run.epoch });
                }
                run
            }
        };
        if seq != run.appended || seq >= run.appends {
            return Err(Refusal::UnexpectedAppend { next: run.appended });
        }
        let (topic, stream) = self.stream(topic, partition)?;
        let pipeline = self.pipelines.get(&at.pipeline).expect("it has a run");
        let is_output = pipeline.definition.outputs.contains(&topic.name);
        if !is_output || is_internal(&topic.name) || self.mirrors.get(&topic.id).is_some() {
            return Err(Refusal::NotAnOutput);
        }
        let append = Self::plain_append(step, (topic, stream), batch)?;
        let done = self.append(step, &append)?;
        self.runs.modify(&at.pipeline, |run| run.appended += 1);
        Ok(done)
    }

    /// A batch of the site's own.
    fn plain_append<'a>(
        step: &Step,
        (topic, stream): (&Topic, StreamId),
        batch: &'a Batch,
    ) -> Result<Append<'a>, Refusal> {
        let facts = BatchFacts::read(batch.bytes(), step.entry_ms());
        let is_plain = |facts: &BatchFacts| facts.missing == 0 && facts.sequenced.is_none();
        let facts = facts.filter(is_plain).ok_or(Refusal::InvalidBatch)?;
        let (chain_key, retention) = (topic.chain_key, topic.keeping.retention);
        Ok(Append { topic: topic.id, stream, chain_key, retention, batch, facts })
    }

    /// How far a pipeline has come, for its owner who writes the delta at the end of an epoch.
    fn delta_of(&self, at: &EpochPlace) -> Result<&Run, Refusal> {
        let run = self.owned(&at.pipeline, at.fence)?;
        if at.epoch <= run.delta_epoch || at.epoch > run.epoch {
            return Err(Refusal::UnexpectedEpoch { next: run.epoch });
        }
        Ok(run)
    }

    /// The topic with the state of a pipeline, and its only partition.
    pub(super) fn internal(&self, pipeline: &String) -> (&Topic, StreamId) {
        let pipeline = self.pipelines.get(pipeline).expect("it has a run");
        let topic = self.topics.get(pipeline.topic).expect("nobody else can delete it");
        (topic, topic.first_stream)
    }

    fn state_part(
        &mut self,
        step: &mut Step,
        at: &EpochPlace,
        batch: &Batch,
    ) -> Result<OperationResult, Refusal> {
        let before = self.delta_of(at)?.parts;
        if batch.bytes().len() > STATE_PART_BYTES_MAX {
            return Err(Refusal::InvalidPipeline);
        }
        let (topic, stream) = self.internal(&at.pipeline);
        let append = Self::plain_append(step, (topic, stream), batch)?;
        let first = self.known(stream).next;
        let done = self.append(step, &append)?;
        let end = self.known(stream).next;
        let parts = match before {
            Some(parts) if (parts.fence, parts.epoch) == (at.fence, at.epoch) => {
                Parts { end, ..parts }
            }
            Some(parts) if planted(Plant::DeltaOfOtherFenceTaken) => {
                Parts { fence: at.fence, epoch: at.epoch, end, ..parts }
            }
            _ => Parts { fence: at.fence, epoch: at.epoch, first, end },
        };
        self.runs.modify(&at.pipeline, |run| run.parts = Some(parts));
        Ok(done)
    }

    fn state_done(
        &mut self,
        step: &mut Step,
        at: &EpochPlace,
        (first, end): (Offset, Offset),
        keep_from: u64,
    ) -> Result<OperationResult, Refusal> {
        let run = self.delta_of(at)?;
        let next = self.known(self.internal(&at.pipeline).1).next;
        let parts = run.parts.filter(|parts| (parts.fence, parts.epoch) == (at.fence, at.epoch));
        let written = parts.map_or((next, next), |parts| (parts.first, parts.end));
        if written != (first, end) {
            return Err(Refusal::UnexpectedPart { first: written.0, end: written.1 });
        }
        if at.epoch == run.epoch && run.appends_missing() > 0 {
            return Err(Refusal::EpochIncomplete { appended: run.appended });
        }
        if keep_from > at.epoch {
            return Err(Refusal::UnexpectedEpoch { next: at.epoch });
        }
        let kept = self.deltas(&at.pipeline).filter(|delta| delta.epoch >= keep_from).count();
        if kept >= DELTAS_MAX {
            return Err(Refusal::LimitReached);
        }
        self.cover_epochs(&at.pipeline, at.epoch);
        if let Some(before) = keep_from.checked_sub(1) {
            self.deltas.drop_through(&at.pipeline, before);
        }
        let (pipeline, (first, end)) = (at.pipeline.clone(), written);
        self.deltas.put(Delta { pipeline, epoch: at.epoch, first, end });
        self.trim(step, &at.pipeline, None);
        Ok(OperationResult::DeltaDone)
    }

    /// The state of a pipeline covers its epochs up to one: they leave the log of epochs, and what they
    /// have read need not be read again.
    fn cover_epochs(&mut self, pipeline: &String, epoch: u64) {
        let (mut floors, mut ranges, mut age_ms) = (BTreeMap::new(), 0, 0);
        for logged in self.logged_epochs(pipeline).take_while(|logged| logged.epoch <= epoch) {
            ranges += u32::try_from(logged.ranges.len()).expect("bounded by its limit");
            age_ms = logged.age_ms;
            for range in &logged.ranges {
                floors.insert((range.topic, range.partition), range.to);
            }
        }
        for ((topic, partition), floor) in floors {
            // A topic that is gone has taken its positions along.
            let Ok((_, stream)) = self.stream(topic, partition) else { continue };
            self.covered_up_to(&(stream, pipeline.clone()), floor);
        }
        self.epochs.drop_through(pipeline, epoch);
        self.runs.modify(pipeline, |run| {
            (run.delta_epoch, run.delta_age_ms) = (epoch, age_ms);
            run.logged_ranges -= ranges;
            run.wants_delta = run.wants_delta.filter(|wanted| *wanted > epoch);
            run.parts = None;
        });
    }

    /// Lets those parts go that no delta and no savepoint needs. Where there is none the topic begins at
    /// `or`, if that is given.
    pub(super) fn trim(&mut self, step: &mut Step, pipeline: &String, or: Option<Offset>) {
        let of_this = |savepoint: &&Savepoint| {
            savepoint.pipeline == *pipeline && !planted(Plant::SavepointPartsFreed)
        };
        let kept = self.savepoints.iter().filter(of_this);
        let kept = kept.flat_map(|savepoint| savepoint.deltas.iter().map(|(_, first, _)| *first));
        let needed = kept.chain(self.deltas(pipeline).map(|delta| delta.first)).min();
        let Some(start) = needed.or(or) else { return };
        let stream = self.internal(pipeline).1;
        let moved = self.partitions.modify(&stream, |partition| partition.advance_start(start));
        if moved == Some(true) {
            self.spans.advance_start(stream, start);
            step.start_moved(stream, start);
        }
    }

    fn halt(
        &mut self,
        step: &mut Step,
        pipeline: &String,
        fence: u64,
        reason: String,
    ) -> Result<OperationResult, Refusal> {
        self.owned(pipeline, fence)?;
        if reason.len() > PIPELINE_REASON_BYTES_MAX {
            return Err(Refusal::InvalidPipeline);
        }
        self.runs.modify(pipeline, |run| {
            (run.owner, run.fence, run.parts) = (None, step.number(), None);
            run.failed = Some(reason);
        });
        let (pipeline, fence) = (pipeline.clone(), step.number());
        step.tell(Event::PipelineOwned { pipeline, owner: None, fence });
        Ok(OperationResult::Halted)
    }

    fn set_savepoint(
        &mut self,
        step: &mut Step,
        (name, who): (String, String),
        pipeline: Option<String>,
    ) -> Result<OperationResult, Refusal> {
        let known = self.savepoints.get(&name);
        let settings =
            |savepoint: &Savepoint| Settings::from([("of".to_owned(), savepoint.pipeline.clone())]);
        let before = known.map(settings);
        let Some(pipeline) = pipeline else {
            if !is_name(&name) {
                return Err(Refusal::InvalidPipeline);
            }
            let gone = self.savepoints.remove(&name);
            let (number, _) = self.note(step, (ChangeOf::Savepoint, &name, who), (before, None));
            if let Some(gone) = gone {
                self.trim(step, &gone.pipeline, None);
            }
            return Ok(OperationResult::SavepointSet { number });
        };
        if known.is_some_and(|known| known.pipeline != pipeline) {
            return Err(Refusal::SavepointOfAnother);
        }
        let savepoint = self.savepoint_of(&name, &pipeline, known.is_some())?;
        let after = Some(settings(&savepoint));
        let (number, changed) = self.note(step, (ChangeOf::Savepoint, &name, who), (before, after));
        let replaced = self.savepoints.put(Savepoint { number, changed, ..savepoint });
        if let Some(replaced) = replaced {
            self.trim(step, &replaced.pipeline, None);
        }
        Ok(OperationResult::SavepointSet { number })
    }
}

/// What is told of an epoch.
fn committed(epoch: &Epoch<'_>) -> Event {
    let ranges = epoch.ranges.iter().map(|range| {
        let InputRange { topic, partition, from, to, has_more } = *range;
        RecordRange { topic, partition, from, to, has_more }
    });
    Event::EpochCommitted(Box::new(CommittedEpoch {
        pipeline: epoch.at.pipeline.clone(),
        fence: epoch.at.fence,
        epoch: epoch.at.epoch,
        age_ms: epoch.age_ms,
        hash: epoch.hash,
        appends: epoch.appends,
        ranges: ranges.collect(),
    }))
}

//! What one owner of a pipeline knows and does, from the claim that made it so to the next one.
//!
//! One fence has one engine: whenever what is in memory does not go on from what is in the log, the owner
//! claims the pipeline anew and begins again. So whatever an earlier life of it has on its way is refused.
//!
//! Invariants: an epoch is given to the engine in the order of topics, partitions and offsets; nothing is
//! given to it before the last epoch is in the log with all its outputs; others run in between.

mod reach;
mod taking;

use crate::delta::{PartReader, PartWriter, Rounds};
use crate::facts::{Facts, Waiting};
use crate::outgoing::{Decision, Output};
use crate::{Context, plans};
use bytes::Bytes;
use fulmar_broker::machine::pipelines::{LoggedEpoch, Run};
use fulmar_broker::machine::state::State;
use fulmar_flow::{Cutter, Cutting, Engine, Halt, Horizon, Layout, Plan, bytes_of};
use fulmar_host::{planted, task};
use fulmar_store::entry::InputRange;
use fulmar_store::{StoredBatch, StreamId};
use fulmar_types::pipeline::STATE_PART_BYTES_MAX;
use fulmar_types::{Offset, PartitionIndex, Plant, Probe, TopicId, Uuid};
use reach::Reach;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of input, as they are without compression, that make an epoch large enough to end.
pub const EPOCH_BYTES_MAX: usize = 1 << 20;

/// Bytes of rows that come out while it is being read, which do the same.
const PUT_OUT_BYTES_MAX: usize = 8 << 20;

/// What patterns take while it is being read, which does the same: about 200 ms.
const EFFORT_MAX: usize = 32 << 20;

/// What a step takes of any of them if the next one is to have fewer records.
const STEP_SHARE: usize = 128;

/// Bytes that are read of one partition at a time.
const READ_BYTES: usize = 256 << 10;

/// Records that are taken in at a time, at most, and changes of the state.
const STEP_RECORDS: usize = 200;

/// Rows on which operators have worked when others may run.
const STEP_ROWS: usize = 400;

/// Batches that are closed at a time: each of an output that gets little.
const STEP_BATCHES: usize = 16;

/// Bytes of state that are taken out or taken in at a time, and of outputs.
const STEP_BYTES: usize = 64 << 10;

/// A batch of an output has at most so many bytes, if it has more than one record.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// Stands for a topic that is gone.
const NO_TOPIC: TopicId = TopicId(Uuid([0; 16]));

/// Why a pipeline cannot go on that had failed before its state was stored.
const REPLAY_GONE: &str = "records are gone that the epochs behind its state have read, so these cannot be run \
                           again; begin fresh, or from a savepoint";

/// Why a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody else owns the pipeline, or nobody, or this node is ending.
    Superseded,
    /// It is to be loaded anew.
    Reload,
    /// It is paused, and its state is in the log.
    Settled,
    /// It cannot go on, and why. The state is in the log, as far as it can be.
    Halted(String),
}

/// A partition that is read.
#[derive(Clone, Debug)]
pub struct Input {
    /// The topic.
    pub topic: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
    /// It in the log.
    pub stream: StreamId,
    /// What is read next.
    pub next: Offset,
    /// Whether dead letters are in it, to be put through again.
    pub has_letters: bool,
}

/// Where a partition is in the canonical order.
type Place = (Arc<str>, PartitionIndex);

impl Input {
    fn place(&self) -> Place {
        (Arc::clone(&self.name), self.partition)
    }

    fn is(&self, range: &InputRange) -> bool {
        self.number() == (range.topic, range.partition)
    }

    /// By which it is found: there is one input of each partition.
    fn number(&self) -> (TopicId, PartitionIndex) {
        (self.topic, self.partition)
    }

    /// What there is to read: from where, and up to where.
    fn unread(&self, state: &State) -> Option<(Offset, Offset)> {
        let known = state.partition(self.stream)?;
        let from = self.next.max(known.log_start);
        (from < known.next).then_some((from, known.next))
    }
}

/// What the log says of a pipeline when it is taken over.
pub struct Found {
    pub run: Run,
    pub definition_file: String,
    pub internal: StreamId,
    pub inputs: Vec<Input>,
    /// Dead letters that are or were put through again.
    pub letters: Vec<Input>,
    /// By name, with the number of partitions.
    pub outputs: BTreeMap<String, (TopicId, u32)>,
    /// One of them is not there: the state can be brought up to date and kept, and no more.
    pub lacks_output: bool,
    pub epochs: Vec<LoggedEpoch>,
    pub deltas: Vec<(u64, Offset, Offset)>,
}

/// Looks a pipeline up.
pub fn find(state: &State, name: &str) -> Result<Found, String> {
    let known = state.pipeline(name).zip(state.run(name));
    let (pipeline, run) = known.ok_or("there is no such pipeline")?;
    let internal = state.topics().get(pipeline.topic);
    let internal = internal.and_then(|topic| topic.stream(PartitionIndex(0)));
    let inputs =
        state.inputs(name).ok_or("a topic that it reads is gone, or is another one now")?;
    let inputs = inputs.iter().map(|input| Input {
        topic: input.topic.id,
        name: input.topic.name.as_str().into(),
        partition: input.partition,
        stream: input.stream,
        next: input.position.next,
        has_letters: false,
    });
    let letters = letters(state, name).into_iter().map(|(input, _)| input);
    let wanted = &pipeline.definition.outputs;
    let outputs = wanted.iter().filter_map(|name| state.topics().by_name(name));
    let outputs = outputs.map(|topic| (topic.name.clone(), (topic.id, topic.partitions)));
    let outputs: BTreeMap<_, _> = outputs.collect();
    Ok(Found {
        run: run.clone(),
        definition_file: pipeline.definition.file.clone(),
        internal: internal.ok_or("the topic with its state is gone")?,
        inputs: inputs.collect(),
        letters: letters.collect(),
        lacks_output: outputs.len() < wanted.len(),
        outputs,
        epochs: state.logged_epochs(name).cloned().collect(),
        deltas: state.deltas(name).map(|delta| (delta.epoch, delta.first, delta.end)).collect(),
    })
}

/// Dead letters of a pipeline, and up to where they are to be read.
fn letters(state: &State, name: &str) -> Vec<(Input, Offset)> {
    let all = state.letters(name).into_iter().map(|of| {
        let input = Input {
            topic: of.topic.id,
            name: of.topic.name.as_str().into(),
            partition: of.partition,
            stream: of.letters.stream,
            next: of.letters.next,
            has_letters: true,
        };
        (input, of.letters.until)
    });
    all.collect()
}

/// What an epoch puts out.
pub struct Produced {
    /// The batches.
    pub outputs: Vec<Output>,
    /// The hash over them.
    pub hash: [u8; 16],
}

/// A pipeline in memory.
pub struct Job {
    pub context: Arc<Context>,
    pub name: String,
    pub fence: u64,
    pub internal: StreamId,
    plan: Arc<Plan>,
    pub engine: Engine,
    pub inputs: Vec<Input>,
    /// Where each of them is among them: there may be thousands, and an epoch may read all.
    places: BTreeMap<(TopicId, PartitionIndex), usize>,
    /// As they were when it was taken over, for its epochs.
    letters: Vec<Input>,
    /// Up to where the epochs since then have read dead letters: the state of this node may lag behind.
    retried: BTreeMap<StreamId, Offset>,
    /// Whether the last epoch read some.
    had_letters: bool,
    outputs: BTreeMap<String, (TopicId, u32)>,
    partitions: BTreeMap<String, u32>,
    /// The last epoch, and the age at its end.
    pub epoch: u64,
    pub age_ms: u64,
    /// How slices of the state follow one another.
    rounds: Rounds,
    /// Records that were given to the engine, and their bytes.
    pub taken: (u64, usize),
    /// What the state may come to with the epoch that is being read; one that is run again is what it was.
    weight_max: Option<usize>,
    /// Where among the inputs the next epoch begins, if the last one could not take something of all.
    turn: Place,
    /// Up to where the epoch that is being read takes of a partition, while there is little memory.
    horizon: Option<Horizon>,
    /// How far that is beyond the partition that is last.
    reach: Reach,
    /// Epochs with little memory, counted round.
    held: u32,
}

impl Job {
    /// What the log says, with an engine that has seen nothing yet.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn new(
        context: Arc<Context>,
        (name, fence): (String, u64),
        found: &Found,
    ) -> Result<Self, String> {
        let plan = plans::plan(&found.definition_file)?;
        let mut read: BTreeMap<String, u32> = BTreeMap::new();
        for input in &found.inputs {
            *read.entry(input.name.to_string()).or_default() += 1;
        }
        let engine = Engine::new(Arc::clone(&plan), &read);
        // Owners that cut the work differently also do it in other orders: what comes out has to be the same.
        let order = (context.subtasks > 1).then_some(fence);
        let layout = Layout { subtasks: context.subtasks, order, ..Layout::default() };
        let engine = engine.named(&name).laid_out(layout);
        let engine = engine.batches_up_to(context.broker.batch_bytes_max());
        Ok(Self {
            name,
            fence,
            internal: found.internal,
            plan,
            engine,
            inputs: found.inputs.clone(),
            places: (0..).zip(&found.inputs).map(|(at, input)| (input.number(), at)).collect(),
            letters: found.letters.clone(),
            retried: BTreeMap::new(),
            had_letters: false,
            partitions: found.outputs.iter().map(|(n, (_, count))| (n.clone(), *count)).collect(),
            outputs: found.outputs.clone(),
            epoch: found.run.delta_epoch,
            age_ms: found.run.delta_age_ms,
            rounds: Rounds::of(found.deltas.iter().map(|(epoch, _, _)| *epoch)),
            taken: (0, 0),
            weight_max: None,
            turn: Place::default(),
            horizon: None,
            reach: Reach::default(),
            held: 0,
            context,
        })
    }

    /// Loads the deltas.
    ///
    /// # Errors
    /// [`End`].
    pub async fn load(&mut self, deltas: &[(u64, Offset, Offset)]) -> Result<(), End> {
        let is_planted = planted(Plant::DeltaLostAtTakeover);
        let deltas = if is_planted { &deltas[..deltas.len().saturating_sub(1)] } else { deltas };
        let damaged = |epoch: u64| End::Halted(format!("the delta of epoch {epoch} is damaged"));
        for (epoch, first, end) in deltas {
            let (mut reader, mut at) = (PartReader::default(), *first);
            while at < *end {
                let records = self.context.broker.records();
                let batches = records.read(self.internal, at..*end, 4 * READ_BYTES).await;
                let batches = batches.map_err(|_| End::Reload)?;
                let last = batches.last().ok_or(End::Reload)?;
                at = last.base_offset.plus(last.records.into());
                for batch in batches {
                    let changes = reader.part(&batch.bytes).map_err(|_| damaged(*epoch))?;
                    for changes in changes.chunks(STEP_RECORDS) {
                        self.engine.load(changes).map_err(|_| damaged(*epoch))?;
                        task::yield_now().await;
                    }
                }
            }
            reader.finish().map_err(|_| damaged(*epoch))?;
        }
        self.engine.loaded();
        if self.engine.fates().any(|(_, _, fates)| fates.held > 0) {
            self.context.host.probe(Probe::TakeoverWithOpenWindows);
        }
        Ok(())
    }

    /// Where the input is that a range is of, if it is none of dead letters.
    fn place_of(&self, range: &InputRange) -> Option<usize> {
        self.places.get(&(range.topic, range.partition)).copied()
    }

    /// Runs an epoch again that is in the log.
    ///
    /// # Errors
    /// [`End`]: also if something else comes out than did.
    pub async fn replay(&mut self, epoch: &LoggedEpoch) -> Result<Produced, End> {
        let mut ranges: Vec<(Input, InputRange)> = Vec::new();
        for range in &epoch.ranges {
            let letters = || self.letters.iter().find(|input| input.is(range));
            let input = self.place_of(range).map(|at| &self.inputs[at]).or_else(letters).cloned();
            let foreign = || End::Halted("a logged epoch reads something else".into());
            ranges.push((input.ok_or_else(foreign)?, *range));
        }
        self.in_planted_order(&mut ranges);
        self.leave(&epoch.ranges);
        for (input, range) in ranges {
            self.read_range(&input, range).await?;
        }
        let halted = |halt: Halt| End::Halted(format!("it diverged: it stopped at {halt}"));
        let produced = self.end_epoch(epoch.age_ms, epoch.epoch).await.map_err(halted)?;
        if produced.hash != epoch.hash {
            self.context.host.probe(Probe::Diverged);
            let number = epoch.epoch;
            let why =
                format!("it diverged: epoch {number} puts out something else when it is run again");
            return Err(End::Halted(why));
        }
        self.context.host.probe(Probe::EpochMadeAgain);
        (self.epoch, self.age_ms) = (epoch.epoch, epoch.age_ms);
        Ok(produced)
    }

    /// Tells the engine what an epoch says that it leaves unread.
    pub fn leave(&mut self, ranges: &[InputRange]) {
        for range in ranges.iter().filter(|range| range.has_more) {
            if let Some(at) = self.place_of(range) {
                self.engine.leave(&self.inputs[at].name, range.partition.0);
            }
        }
    }

    /// The planted bug takes partitions in an order that depends on the node.
    fn in_planted_order<T>(&self, ranges: &mut [T]) {
        if planted(Plant::CanonicalOrderIgnored) && self.context.node.get().is_multiple_of(2) {
            ranges.reverse();
        }
    }

    /// Gives exactly this range to the engine.
    async fn read_range(&mut self, input: &Input, range: InputRange) -> Result<(), End> {
        let mut from = range.from;
        while from < range.to {
            let records = self.context.broker.records();
            let batches = records.read(input.stream, from..range.to, READ_BYTES).await;
            let batches = batches.map_err(|_| End::Reload)?;
            if batches.first().is_none_or(|first| first.base_offset > from) {
                from = match self.hole(input.stream, from) {
                    Some(behind) => behind,
                    None => return Err(self.lost(input.stream, from)),
                };
            }
            for batch in &batches {
                if batch.base_offset > from {
                    break;
                }
                from = self.feed(input, (from, range.to), batch).await?.1;
            }
        }
        Ok(())
    }

    /// What an epoch has read that is to be run again is not here. For an owner it stays where it is; but a pipeline
    /// that has failed keeps nothing.
    fn lost(&self, stream: StreamId, from: Offset) -> End {
        if self.context.is_over(&self.name, self.fence) {
            return End::Superseded;
        }
        if self.is_gone(stream, from) { End::Halted(REPLAY_GONE.to_owned()) } else { End::Reload }
    }

    /// Whether a topic that it writes is gone, or is another one.
    pub fn lacks_output(&self) -> bool {
        self.context.broker.site().read(|state| {
            let is_there = |topic: TopicId| state.topics().get(topic).is_some();
            self.outputs.values().any(|(topic, _)| !is_there(*topic))
        })
    }

    /// Gives the records of a stored batch to the engine, from an offset on and up to another one; when the epoch is
    /// full, no more than that. Returns their bytes, as they are without compression: what is in memory, and what
    /// running the epoch again costs; and up to where it came.
    async fn feed(
        &mut self,
        input: &Input,
        (from, to): (Offset, Offset),
        batch: &StoredBatch,
    ) -> Result<(usize, Offset), End> {
        let signed = |offset: Offset| i64::try_from(offset.0).unwrap_or(i64::MAX);
        let (base, stored) = (signed(batch.base_offset), &batch.bytes);
        let records = fulmar_flow::records(input.partition.0, base, stored);
        let from = records.partition_point(|record| record.offset < signed(from));
        let to = records.partition_point(|record| record.offset < signed(to));
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let (mut bytes, mut at, mut step) = (0, from, 1);
        while at < to {
            let records = &records[at..to.min(at + step)];
            let (put_out, effort) = (self.engine.put_out(), self.engine.effort());
            at += records.len();
            self.taken.0 += records.len() as u64;
            let plain = records.iter().map(|record| len(&record.key) + len(&record.value));
            bytes += plain.sum::<usize>();
            match input.has_letters {
                true => self.engine.give_letters(&input.name, records),
                false => self.engine.give(&input.name, records),
            }
            // A record can become a thousand rows.
            while self.engine.work(STEP_ROWS) {
                task::yield_now().await;
            }
            self.engine.halted().map_err(|halt| End::Halted(halt.to_string()))?;
            task::yield_now().await;
            if self.is_enough(input) {
                break;
            }
            // What a record becomes is not known before: few at first, and few again if it was much.
            let is_much = self.engine.put_out() - put_out > PUT_OUT_BYTES_MAX / STEP_SHARE
                || self.engine.effort() - effort > EFFORT_MAX / STEP_SHARE;
            step = if is_much { (step / 4).max(1) } else { (step * 2).min(STEP_RECORDS) };
        }
        let behind = batch.base_offset.plus(batch.records.into());
        let next = records.get(at).map_or(behind, |next| Offset(next.offset.unsigned_abs()));
        let bytes = if from == 0 && next == behind { bytes.max(stored.len()) } else { bytes };
        self.taken.1 += bytes;
        Ok((bytes, next))
    }

    /// Behind the offsets from one on that never had records here, as a marker says. What cannot be read and has
    /// no marker is not taken for such: this node may be about to get it.
    fn hole(&self, stream: StreamId, from: Offset) -> Option<Offset> {
        if planted(Plant::StateBeforeSegments) {
            return Some(Offset(u64::MAX));
        }
        let site = self.context.broker.site();
        site.read(|state| state.gap_at(stream, from).map(|gap| gap.end))
    }

    fn is_gone(&self, stream: StreamId, from: Offset) -> bool {
        let site = self.context.broker.site();
        site.read(|state| state.partition(stream).is_none_or(|p| p.log_start > from))
    }

    /// Ends an epoch.
    ///
    /// # Errors
    /// A bad record or result stops the pipeline.
    pub async fn end_epoch(&mut self, age_ms: u64, epoch: u64) -> Result<Produced, Halt> {
        let held_back = self.engine.held_back();
        self.engine.begin_end(age_ms, false);
        let written = loop {
            let written = self.engine.end_some(STEP_ROWS)?;
            task::yield_now().await;
            if let Some(written) = written {
                break written;
            }
        };
        if self.engine.held_back() > held_back {
            self.context.host.probe(Probe::AlignedBarrierWaited);
        }
        let batch_bytes_max = OUTPUT_BYTES_MAX.min(self.context.broker.batch_bytes_max());
        let cutting = Cutting { partitions: &self.partitions, epoch, batch_bytes_max };
        let (mut cutter, mut since) = (Cutter::new(cutting), 0);
        for one in written {
            cutter.push(&one);
            since += bytes_of(&one);
            if since >= STEP_BYTES {
                since = 0;
                task::yield_now().await;
            }
        }
        let (hash, mut outputs) = (cutter.digest(), Vec::new());
        for batch in cutter.batches() {
            outputs.push(Output {
                // Without the topic nothing is delivered.
                topic: self.outputs.get(&*batch.topic).map_or(NO_TOPIC, |(topic, _)| *topic),
                partition: PartitionIndex(batch.partition),
                batch: batch.batch,
            });
            if outputs.len().is_multiple_of(STEP_BATCHES) {
                task::yield_now().await;
            }
        }
        Ok(Produced { outputs, hash })
    }

    /// What decides the epoch that has just ended in memory.
    pub fn decision(
        &self,
        age_ms: u64,
        ranges: Vec<InputRange>,
        hash: [u8; 16],
        (waiting, records_per_s): (Waiting, u64),
    ) -> Decision {
        let facts = Facts::of(&self.engine, self.plan.sources.len());
        let facts = Facts { waiting, records_per_s, ..facts };
        let encoded = facts.encode();
        self.tell(facts);
        Decision { age_ms, hash, ranges, facts: encoded }
    }

    /// What metrics tell until the first epoch that ends here: how it was left.
    pub fn tell_as_found(&self) {
        self.tell(Facts::of(&self.engine, self.plan.sources.len()));
    }

    fn tell(&self, facts: Facts) {
        let facts = Some((Arc::clone(&self.plan), facts));
        self.context.figures.note(&self.name, |figure| figure.facts = facts);
    }

    /// The epoch is in the log.
    pub fn committed(&mut self, epoch: u64, age_ms: u64, ranges: &[InputRange]) {
        (self.epoch, self.age_ms) = (epoch, age_ms);
        let known = match self.had_letters {
            true => self.context.broker.site().read(|state| letters(state, &self.name)),
            false => Vec::new(),
        };
        for range in ranges {
            if let Some(at) = self.place_of(range) {
                self.inputs[at].next = range.to;
            } else {
                let input = known.iter().find(|(input, _)| input.is(range));
                self.retried.extend(input.map(|(input, _)| (input.stream, range.to)));
            }
        }
    }

    /// Takes a delta and a slice out of the engine, as of the end of the last epoch: the parts, and from which
    /// epoch on deltas are needed once they are in the log.
    pub async fn take_delta(&mut self) -> (Vec<Bytes>, u64) {
        let part_bytes_max = STATE_PART_BYTES_MAX.min(self.context.broker.batch_bytes_max());
        let mut writer = PartWriter::new(part_bytes_max);
        loop {
            let changes = self.engine.delta(STEP_BYTES);
            if changes.is_empty() {
                break;
            }
            writer.push(&changes);
            task::yield_now().await;
        }
        let delta_bytes = writer.bytes();
        let slice_bytes = self.rounds.slice_bytes(&self.engine, delta_bytes);
        while writer.bytes() - delta_bytes < slice_bytes {
            let (changes, cursor) = self.engine.slice(self.rounds.cursor(), STEP_BYTES);
            writer.push(&changes);
            let is_end = cursor.is_none();
            self.rounds.sliced(self.epoch, cursor);
            if is_end {
                break;
            }
            task::yield_now().await;
        }
        self.rounds.taken(self.epoch);
        (writer.finish(), self.rounds.keep_from())
    }
}

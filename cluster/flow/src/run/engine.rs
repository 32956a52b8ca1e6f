//! A pipeline that runs: records are given to it, its subtasks work, and when the barrier of an epoch has passed
//! all sinks, its outputs are handed over.
//!
//! ```text
//!   give, give, begin_end, give, ...    the records of an epoch, its end, the records of the next one
//!   end_some, end_some, ...             some work, until an epoch is over
//! ```
//!
//! Epochs may overlap: the sources go on with the next one while the barrier of the last is under way. That is
//! sound since lateness is decided at the source, when its barrier leaves it; operators with several inputs hold
//! one back until the barriers of the others have come, so none of them sees a row of the next epoch too soon.
//! What is asked of the engine as a whole (state, ages) is what it is at the end of an epoch only if nothing was
//! given since.

use super::Halt;
use super::awaited::Lately;
use super::channel::{Barrier, Item};
use super::epoch::{CameOut, Epoch};
use super::fates::{Fates, Ledger};
use super::kept::Kept;
use super::operator::State;
use super::record::{Record, Written};
use super::source::EventTime;
use super::tasks::{INTAKE, Layout, Reader, Tasks};
use crate::pattern;
use crate::plan::Plan;
use crate::plan::order::ReaderName;
use fulmar_host::planted;
use fulmar_types::Plant;
use fulmar_types::limits::BATCH_BYTES_MAX;
use fulmar_wire::batch::HEADER_BYTES;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What looking for patterns has to take, in bytes times places, to count as another row.
const EFFORT_OF_A_ROW: usize = 2_048;

/// Bytes that a sink has to write to count as another row.
const BYTES_OF_A_ROW: usize = 256;

/// What sinks wrote in one step, in bytes, if the next one is to have fewer rows.
const PACE_BYTES: usize = 256 << 10;

/// The rows of a step, at most.
const PACE_MAX: usize = 1 << 16;

/// What the intake has before it.
#[derive(Debug)]
pub(super) enum Given {
    /// Records of a source, from one of them on.
    Records {
        source: usize,
        /// For one reader, or for all of them.
        only: Option<u32>,
        records: Vec<Arc<Record>>,
        from: usize,
    },
    /// The end of an epoch, and the partitions of topics that it leaves unread.
    End { age_ms: u64, unread: BTreeSet<(Arc<str>, u32)>, last: bool },
}

/// What lies behind what.
#[derive(Debug)]
pub struct Behind {
    /// For each node the one that it feeds, and on which side.
    pub(super) consumers: Vec<Option<(usize, usize)>>,
    /// For each node, whether its rows come out of a join of streams.
    pub(super) joins: Vec<bool>,
    /// For each node, in how many windows a row is there.
    pub(super) copies: Vec<usize>,
}

/// A pipeline that runs.
#[derive(Debug)]
pub struct Engine {
    pub(super) plan: Arc<Plan>,
    pub(super) behind: Behind,
    /// The pipeline, by name.
    pub(super) name: Arc<str>,
    /// What readers are called, by their numbers.
    pub(super) names: Vec<ReaderName>,
    /// By source.
    pub(super) readers: Vec<Vec<Reader>>,
    pub(super) times: Vec<Option<EventTime>>,
    /// By node and subtask.
    pub(super) states: Vec<Vec<State>>,
    /// Of nodes with several inputs.
    pub(super) watermarks: Kept<u32, i64>,
    pub(super) fates: Ledger,
    /// Results of no single record that could not be computed, under the key 0.
    pub(super) failed_results: Kept<u32, u64>,
    /// What became of dead letters, see `letters.rs`.
    pub(super) letters: Kept<u32, u64>,
    pub(super) tasks: Tasks,
    pub(super) given: VecDeque<Given>,
    /// Those under way, and the one that records are given for.
    pub(super) epochs: VecDeque<Epoch>,
    /// How many are over.
    pub(super) over: u64,
    /// How many barriers waited for those of other inputs.
    pub(super) held_back: u64,
    /// The last record of this epoch, to see that they come in order.
    last: Option<(Arc<str>, u32, i64)>,
    /// How far tables have been read that have no watermark, by source and partition, since this is there: see
    /// `awaited.rs`.
    pub(super) tops: BTreeMap<(usize, u32), Lately>,
    /// What this epoch leaves unread.
    unread: BTreeSet<(Arc<str>, u32)>,
    /// How long a record may be that is written.
    pub(super) record_bytes_max: usize,
    /// What sinks have written since it is there, in bytes.
    pub(super) bytes_written: usize,
    /// What patterns have taken since the last epoch was over, see [`pattern`].
    effort: usize,
    /// How many rows the next step may take: fewer, if what came of the last one was large.
    pace: usize,
}

impl Engine {
    /// A pipeline that has seen nothing yet, and the number of partitions of its topics.
    pub fn new(plan: Arc<Plan>, partitions: &BTreeMap<String, u32>) -> Self {
        let times = plan.sources.iter().map(|source| {
            let partitions = partitions.get(&source.topic).copied().unwrap_or(1);
            source.watermark.map(|rule| EventTime::new(rule, partitions))
        });
        let times = times.collect();
        let (tasks, readers) = Tasks::new(&plan, Layout::default());
        Self {
            times,
            states: Self::states(&plan, tasks.layout),
            readers,
            names: plan.reader_names(),
            watermarks: Kept::default(),
            fates: Ledger::default(),
            failed_results: Kept::default(),
            letters: Kept::default(),
            name: "".into(),
            tasks,
            given: VecDeque::new(),
            epochs: [Epoch::default()].into(),
            over: 0,
            held_back: 0,
            last: None,
            tops: BTreeMap::new(),
            unread: BTreeSet::new(),
            record_bytes_max: BATCH_BYTES_MAX - HEADER_BYTES,
            bytes_written: 0,
            effort: 0,
            pace: PACE_MAX,
            behind: Behind {
                consumers: plan.consumers(),
                joins: plan.behind_joins(),
                copies: plan.copies(),
            },
            plan,
        }
    }

    fn states(plan: &Plan, layout: Layout) -> Vec<Vec<State>> {
        let of = |node| (0..layout.subtasks).map_while(|_| State::of(plan, node)).collect();
        plan.nodes.iter().map(of).collect()
    }

    /// Of a pipeline of this name: it stands in dead letters.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// For a site that takes batches of so many bytes.
    pub fn batches_up_to(mut self, batch_bytes_max: usize) -> Self {
        self.record_bytes_max = batch_bytes_max.saturating_sub(HEADER_BYTES);
        self
    }

    /// With its work cut in this way, before anything was given to it or loaded.
    pub fn laid_out(mut self, layout: Layout) -> Self {
        (self.tasks, self.readers) = Tasks::new(&self.plan, layout);
        self.states = Self::states(&self.plan, self.tasks.layout);
        self
    }

    /// Gives records of a topic to it, and lets it work until nothing is left to do.
    ///
    /// # Errors
    /// If a bad record stops the pipeline.
    ///
    /// # Panics
    /// As [`Self::give`].
    pub fn batch(&mut self, topic: &str, records: &[Arc<Record>]) -> Result<(), Halt> {
        self.give(topic, records);
        self.work(usize::MAX);
        self.halted()
    }

    /// Gives records of a topic to it. They are read when it works.
    ///
    /// # Panics
    /// If the records are not in the order of topics, partitions and offsets.
    pub fn give(&mut self, topic: &str, records: &[Arc<Record>]) {
        self.in_order(topic, records);
        for source in 0..self.plan.sources.len() {
            if self.plan.sources[source].topic == topic {
                self.give_to((source, None), records.to_vec());
            }
        }
    }

    /// Gives records to a source: to one of its readers, or to all of them.
    pub(super) fn give_to(
        &mut self,
        (source, only): (usize, Option<u32>),
        records: Vec<Arc<Record>>,
    ) {
        self.given.push_back(Given::Records { source, only, records, from: 0 });
        self.tasks.wake(INTAKE);
    }

    /// Sees that records come in canonical order.
    pub(super) fn in_order(&mut self, topic: &str, records: &[Arc<Record>]) {
        let topic: Arc<str> = topic.into();
        for record in records {
            let place = (Arc::clone(&topic), record.partition, record.offset);
            if let Some(last) = &self.last {
                let is_behind = *last < place || planted(Plant::CanonicalOrderIgnored);
                assert!(is_behind, "a record of {place:?} comes after one of {last:?}");
            }
            self.last = Some(place);
        }
    }

    /// Whether records wait that were given to it.
    pub fn has_waiting(&self) -> bool {
        !self.given.is_empty()
    }

    /// Whether something was given for the epoch that records are given for.
    pub(super) fn has_taken(&self) -> bool {
        self.last.is_some()
    }

    /// About how many bytes of rows have come out in the epoch that records are given for.
    pub fn put_out(&self) -> usize {
        self.epochs.back().map_or(0, |epoch| epoch.put_out)
    }

    /// What patterns have taken since the last epoch was over, in bytes of text times places: a million is a few ms.
    pub fn effort(&self) -> usize {
        self.effort
    }

    /// Whether the pipeline has to stop: in the epoch that records are given for.
    ///
    /// # Errors
    /// If so.
    pub fn halted(&self) -> Result<(), Halt> {
        self.epochs.back().and_then(|epoch| epoch.halt.clone()).map_or(Ok(()), Err)
    }

    /// Ends an epoch, when the pipeline is so old, and hands over what came out. `last` says that no record
    /// will come any more: everything that waits for its time gets it.
    ///
    /// # Errors
    /// If a bad result stops the pipeline.
    pub fn end_epoch(&mut self, age_ms: u64, last: bool) -> Result<Vec<Written>, Halt> {
        self.begin_end(age_ms, last);
        loop {
            if let Some(written) = self.end_some(usize::MAX)? {
                return Ok(written.collect());
            }
        }
    }

    /// Something is there of a partition that the epoch leaves unread: the partition does not become idle with it.
    pub fn leave(&mut self, topic: &str, partition: u32) {
        self.unread.insert((topic.into(), partition));
    }

    /// The partitions, with their topics, that are idle at the end of an epoch at this age, if nothing is there
    /// of them.
    pub fn silent(&self, age_ms: u64) -> BTreeSet<(&str, u32)> {
        let sources = self.plan.sources.iter().zip(&self.times);
        let silent = sources.flat_map(|(source, time)| {
            let silent = time.iter().flat_map(move |time| time.silent(age_ms));
            silent.map(|partition| (source.topic.as_str(), partition))
        });
        silent.collect()
    }

    /// Begins to end the epoch that records are given for: from here on they are given for the next one.
    pub fn begin_end(&mut self, age_ms: u64, last: bool) {
        let unread = std::mem::take(&mut self.unread);
        self.given.push_back(Given::End { age_ms, unread, last });
        self.epochs.push_back(Epoch::default());
        self.last = None;
        self.tasks.wake(INTAKE);
    }

    /// Lets about so many rows be worked on, and hands over what came out of the oldest epoch that is being
    /// ended when that is over: so that others can be let in between when many windows end at once.
    ///
    /// # Errors
    /// If a bad record or result of that epoch stops the pipeline.
    ///
    /// # Panics
    /// If no epoch is being ended.
    pub fn end_some(&mut self, rows_max: usize) -> Result<Option<CameOut>, Halt> {
        assert!(self.epochs.len() > 1, "an epoch is being ended");
        let has_more = self.work(rows_max);
        if let Some(halt) = &self.epochs[0].halt {
            return Err(halt.clone());
        }
        if self.epochs[0].sinks_passed < self.tasks.sinks {
            assert!(has_more, "a barrier has not passed all sinks, and nothing is left to do");
            return Ok(None);
        }
        let mut epoch = self.epochs.pop_front().unwrap_or_default();
        self.over += 1;
        self.effort = 0;
        self.fates.take(std::mem::take(&mut epoch.tally));
        if epoch.failed_results > 0 {
            self.failed_results.change(&0, |count| *count += epoch.failed_results);
        }
        for (at, more) in std::mem::take(&mut epoch.letters) {
            self.letters.change(&at, |count| *count += more);
        }
        for (node, watermark) in std::mem::take(&mut epoch.watermarks) {
            self.watermarks.insert(node, watermark);
        }
        Ok(Some(epoch.written(self.record_bytes_max)))
    }

    /// Lets subtasks work on about so many rows. Whether something is left to do.
    pub fn work(&mut self, rows_max: usize) -> bool {
        let mut done = 0usize;
        while let Some(subtask) = self.tasks.next() {
            if done >= rows_max {
                return true;
            }
            // One row may take as long as many thousand.
            let most = if self.plan.has_patterns { 1 } else { (rows_max - done).min(self.pace) };
            let before = self.bytes_written;
            pattern::take_spent();
            match self.step(subtask, most) {
                Some(rows) => done = done.saturating_add(rows.max(1)),
                None => self.tasks.sleep(subtask),
            }
            let effort = pattern::take_spent();
            self.effort = self.effort.saturating_add(effort);
            done = done.saturating_add(effort / EFFORT_OF_A_ROW);
            let bytes = self.bytes_written.wrapping_sub(before);
            done = done.saturating_add(bytes / BYTES_OF_A_ROW);
            self.pace = match bytes > PACE_BYTES {
                true => (self.pace / 4).max(1),
                false => (self.pace * 2).min(PACE_MAX),
            };
        }
        false
    }

    /// The barrier leaves the sources: event time goes on there.
    pub(super) fn leave_sources(
        &mut self,
        age_ms: u64,
        unread: &BTreeSet<(Arc<str>, u32)>,
        last: bool,
    ) {
        for (source, time) in self.plan.sources.iter().zip(&mut self.times) {
            let of_source = unread.iter().filter(|(topic, _)| **topic == *source.topic);
            let unread = of_source.map(|(_, partition)| *partition).collect();
            time.iter_mut().for_each(|time| time.advance(age_ms, &unread, last));
        }
        for source in 0..self.readers.len() {
            let time = self.times[source].as_ref();
            let barrier = Barrier {
                watermark: time.and_then(EventTime::watermark),
                is_idle: time.is_some_and(EventTime::is_idle),
            };
            for reader in 0..self.readers[source].len() {
                let outlet = self.readers[source][reader].outlet;
                self.pass(outlet, barrier);
            }
        }
        self.tasks.subtasks[INTAKE].epoch += 1;
    }

    /// A barrier goes to all subtasks behind an outlet.
    pub(super) fn pass(&mut self, outlet: usize, barrier: Barrier) {
        if let Some(watermark) = barrier.watermark {
            self.tasks.outlets[outlet].forget(watermark);
        }
        for at in 0..self.tasks.outlets[outlet].channels.len() {
            let channel = self.tasks.outlets[outlet].channels[at];
            self.put(channel, Item::Barrier(barrier));
        }
    }

    /// Puts something into a channel.
    pub(super) fn put(&mut self, channel: usize, item: Item) {
        self.tasks.channels[channel].push(item);
        let reader = self.tasks.channels[channel].to;
        self.tasks.wake(reader);
    }

    /// The fates by reader: the name of the source, the place of the query, and the counts by partition.
    pub fn fates(&self) -> impl Iterator<Item = (u32, u32, Fates)> {
        self.fates
            .0
            .entries()
            .iter()
            .map(|((reader, partition), fates)| (*reader, *partition, *fates))
    }

    /// The next age behind that of the last epoch at which the end of an epoch would let time go on without
    /// any record.
    pub fn next_idle_age(&self, age_ms: u64) -> Option<u64> {
        let sources = self.plan.sources.iter().zip(&self.times);
        let ages = sources.filter_map(|(source, time)| {
            time.as_ref()?.next_idle_age(age_ms, source.primary.is_some())
        });
        ages.min()
    }

    /// How many results of no single record could not be computed.
    pub fn failed_results(&self) -> u64 {
        self.failed_results.get(&0).copied().unwrap_or_default()
    }

    /// The watermark of a source.
    pub fn watermark(&self, source: usize) -> Option<i64> {
        self.times[source].as_ref().and_then(EventTime::watermark)
    }

    /// How many barriers have waited, at an operator with several inputs, for those of the others.
    pub fn held_back(&self) -> u64 {
        self.held_back
    }
}

//! Running a plan over records that are given to it, epoch by epoch, in memory.
//!
//! | module | what |
//! |---|---|
//! | [`record`] | records and rows |
//! | [`source`] | from records to rows, event time |
//! | [`group`], [`table_join`], [`window_join`] | the operators that keep state |
//! | [`fold`] | aggregates |
//! | [`fates`] | what became of every record |
//! | [`kept`] | state by key, its snapshots and deltas |
//! | [`context`] | bad rows |
//!
//! An epoch is some records and an age. Its records come in the order of the topics, the partitions and
//! the offsets, cut into batches anywhere; then it is ended, watermarks move, windows fire, and what came
//! out is handed over.
//!
//! Invariants: the same epochs give the same bytes, whatever the batches; the fates add up at the end of
//! every epoch; after a [`Halt`] nothing is taken any more.

pub mod context;
pub mod fates;
pub mod fold;
pub mod group;
pub mod kept;
pub mod record;
pub mod source;
pub mod table_join;
pub mod window_join;

use crate::eval::{Failure, eval};
use crate::plan::{Node, Operator, Plan, Windows};
use crate::sql::statement::{Late, OnError};
use crate::value::codec::Malformed;
use crate::value::{Value, time};
use context::{Context, beside, object};
use fates::{Fate, Fates, Ledger};
use group::Groups;
use kept::{Change, Kept};
use record::{Origin, Record, Row, Written};
use source::{Decoded, EventTime};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use table_join::{TableJoin, Version};
use window_join::WindowJoin;

/// Parts of the state: those of the pipeline, then two for each node, then two for each source.
const PART_FATES: u32 = 0;
const PART_WATERMARKS: u32 = 1;
const PART_FAILED: u32 = 2;
const PART_NODES: u32 = 16;
const PART_SOURCES: u32 = 1 << 16;

/// Why a pipeline stopped: a bad record, and the file says `ON ERROR FAIL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// What was wrong with it.
    pub failure: Failure,
    /// Its topic.
    pub topic: String,
    /// The record, if it was one.
    pub record: Option<Arc<Record>>,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.record {
            Some(record) => {
                let (partition, offset) = (record.partition, record.offset);
                write!(f, "record {offset} of {}/{partition}: {}", self.topic, self.failure)
            }
            None => write!(f, "a result of topic {}: {}", self.topic, self.failure),
        }
    }
}

/// What a node keeps.
#[derive(Debug)]
enum State {
    None,
    Groups(Groups),
    TableJoin(TableJoin),
    WindowJoin(WindowJoin),
}

/// A place where a source is read.
#[derive(Clone, Copy, Debug)]
struct Reader {
    number: u32,
    node: usize,
    is_table: bool,
    /// Whether a late row is of no use there.
    uses_time: bool,
}

/// A pipeline that runs.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    consumers: Vec<Option<(usize, usize)>>,
    /// By source.
    readers: Vec<Vec<Reader>>,
    times: Vec<Option<EventTime>>,
    states: Vec<State>,
    /// Of nodes with several inputs.
    watermarks: Kept<u32, i64>,
    fates: Ledger,
    /// Results of no single record that could not be computed, under the key 0.
    failed_results: Kept<u32, u64>,
    /// What came out in this epoch, by node and by source.
    sinks: Vec<Vec<Written>>,
    failed: Vec<Vec<Written>>,
    dead: Vec<Vec<Written>>,
    late: Vec<Vec<Written>>,
    /// The last record of this epoch, to see that they come in order.
    last: Option<(Arc<str>, u32, i64)>,
    halt: Option<Halt>,
}

impl Engine {
    /// A pipeline that has seen nothing yet, and the number of partitions of its topics.
    pub fn new(plan: Arc<Plan>, partitions: &BTreeMap<String, u32>) -> Self {
        let consumers = plan.consumers();
        let mut readers = vec![Vec::new(); plan.sources.len()];
        let mut states = Vec::new();
        for (at, node) in plan.nodes.iter().enumerate() {
            if let Operator::Read { source, reader } = node.operator {
                let uses_time = uses_time(&plan, &consumers, at);
                readers[source].push(Reader {
                    number: reader,
                    node: at,
                    is_table: false,
                    uses_time,
                });
            }
            if let Operator::TableJoin { table, reader, .. } = node.operator {
                let reader = Reader { number: reader, node: at, is_table: true, uses_time: false };
                readers[table].push(reader);
            }
            states.push(state(&plan, node));
        }
        let times = plan.sources.iter().map(|source| {
            let partitions = partitions.get(&source.topic).copied().unwrap_or(1);
            source.watermark.map(|rule| EventTime::new(rule, partitions))
        });
        Self {
            times: times.collect(),
            sinks: vec![Vec::new(); plan.nodes.len()],
            failed: vec![Vec::new(); plan.nodes.len()],
            dead: vec![Vec::new(); plan.sources.len()],
            late: vec![Vec::new(); plan.sources.len()],
            consumers,
            readers,
            states,
            watermarks: Kept::default(),
            fates: Ledger::default(),
            failed_results: Kept::default(),
            last: None,
            halt: None,
            plan,
        }
    }

    /// Takes in records of a topic.
    ///
    /// # Errors
    /// If a bad record stops the pipeline.
    ///
    /// # Panics
    /// If the records are not in the order of topics, partitions and offsets.
    pub fn batch(&mut self, topic: &str, records: &[Arc<Record>]) -> Result<(), Halt> {
        let topic: Arc<str> = topic.into();
        for record in records {
            let place = (Arc::clone(&topic), record.partition, record.offset);
            if let Some(last) = &self.last {
                assert!(*last < place, "a record of {place:?} comes after one of {last:?}");
            }
            self.last = Some(place);
        }
        for source in 0..self.plan.sources.len() {
            if self.halt.is_none() && *self.plan.sources[source].topic == *topic {
                self.read(source, records);
            }
        }
        self.halted()
    }

    fn halted(&self) -> Result<(), Halt> {
        self.halt.clone().map_or(Ok(()), Err)
    }

    fn read(&mut self, index: usize, records: &[Arc<Record>]) {
        let plan = Arc::clone(&self.plan);
        let source = &plan.sources[index];
        let mut batches: Vec<Vec<Row>> = vec![Vec::new(); self.readers[index].len()];
        for record in records {
            if let Some(time) = &mut self.times[index] {
                time.hear(record.partition);
            }
            for reader in &self.readers[index] {
                self.fates.read((reader.number, record.partition));
            }
            match source::decode(source, record) {
                Ok(Decoded::Row(row)) if source.primary.is_some() => {
                    self.version(index, record, row);
                }
                Ok(Decoded::Gone(key, time)) => self.gone(index, record, key, time),
                Ok(Decoded::Row(row)) => self.row(index, record, row, &mut batches),
                Err(failure) => self.bad(index, record, failure),
            }
            if self.halt.is_some() {
                return;
            }
        }
        for (reader, rows) in batches.into_iter().enumerate() {
            let node = self.readers[index][reader].node;
            self.push(node, rows);
        }
    }

    fn row(&mut self, index: usize, record: &Arc<Record>, row: Row, batches: &mut [Vec<Row>]) {
        let mut is_late = false;
        if let Some(time) = &mut self.times[index] {
            is_late = time.is_late(row.time);
            time.see(record.partition, row.time);
        }
        let mut was_needed = false;
        for (reader, batch) in self.readers[index].iter().zip(batches) {
            if is_late && reader.uses_time {
                was_needed = true;
                self.fates.settle((reader.number, record.partition), Fate::Late);
            } else {
                let record = Arc::clone(record);
                let origin = Some(Origin { reader: reader.number, record, counts: true });
                batch.push(Row { origin, ..row.clone() });
            }
        }
        let source = &self.plan.sources[index];
        if let (true, Late::To(topic)) = (was_needed, &source.late) {
            let reason =
                format!("its event time {} is before the watermark", time::format(row.time));
            let failure = Failure::new(source.at, reason);
            self.late[index].push(beside(source, &topic.text, record, &failure));
        }
    }

    fn bad(&mut self, index: usize, record: &Arc<Record>, failure: Failure) {
        let source = &self.plan.sources[index];
        let fate = match &source.on_error {
            OnError::DeadLetter(topic) => {
                self.dead[index].push(beside(source, &topic.text, record, &failure));
                Fate::DeadLettered
            }
            OnError::Drop => Fate::Dropped,
            OnError::Fail => {
                let (topic, record) = (source.topic.clone(), Some(Arc::clone(record)));
                self.halt = Some(Halt { failure, topic, record });
                return;
            }
        };
        for reader in &self.readers[index] {
            self.fates.settle((reader.number, record.partition), fate);
        }
    }

    fn version(&mut self, index: usize, record: &Arc<Record>, row: Row) {
        if let Some(time) = &mut self.times[index] {
            time.see(record.partition, row.time);
        }
        let primary = self.plan.sources[index].primary.clone().unwrap_or_default();
        let key: Vec<Value> = primary.iter().map(|index| row.values[*index].clone()).collect();
        self.tell(index, record, (key, row.time), Some(row.values));
    }

    fn gone(&mut self, index: usize, record: &Arc<Record>, key: Vec<Value>, time: i64) {
        self.tell(index, record, (key, time), None);
    }

    /// Tells every join with a table what its topic says.
    fn tell(
        &mut self,
        index: usize,
        record: &Arc<Record>,
        (key, time): (Vec<Value>, i64),
        values: Option<Vec<Value>>,
    ) {
        for at in 0..self.readers[index].len() {
            let reader = self.readers[index][at];
            assert!(reader.is_table, "reader {} reads a table as a stream", reader.number);
            let version =
                Version { values: values.clone(), record: (reader.number, record.partition) };
            let (state, mut context) = self.at(reader.node);
            if let State::TableJoin(join) = state {
                join.version(key.clone(), time, version, &mut context);
            }
        }
    }

    /// The state of a node, and what else it may touch.
    fn at(&mut self, at: usize) -> (&mut State, Context<'_>) {
        let node = &self.plan.nodes[at];
        // Where rows are only looked at, they have the columns of the input.
        let is_plain = matches!(node.operator, Operator::Filter(_) | Operator::Project(_));
        let shown = if is_plain { &self.plan.nodes[node.inputs[0]] } else { node };
        let context = Context {
            fates: &mut self.fates,
            rule: &self.plan.sources[node.rule],
            columns: &shown.columns,
            beside: &mut self.failed[at],
            failed_results: self.failed_results.change(&0),
            halt: &mut self.halt,
        };
        (&mut self.states[at], context)
    }

    /// Rows leave a node, and go as far as they can.
    fn push(&mut self, from: usize, mut rows: Vec<Row>) {
        let mut next = self.consumers[from];
        while let Some((at, side)) = next {
            if rows.is_empty() || self.halt.is_some() {
                return;
            }
            rows = self.step(at, side, rows);
            next = self.consumers[at];
        }
    }

    fn step(&mut self, at: usize, side: usize, rows: Vec<Row>) -> Vec<Row> {
        let plan = Arc::clone(&self.plan);
        let node = &plan.nodes[at];
        if let Operator::Sink { topic, key } = &node.operator {
            self.write(at, (topic, *key), rows);
            return Vec::new();
        }
        let (state, mut context) = self.at(at);
        match (&node.operator, state) {
            (Operator::Filter(condition), _) => {
                let mut kept = Vec::with_capacity(rows.len());
                for row in rows {
                    match eval(condition, &row.values) {
                        Ok(value) if value.is_true() => kept.push(row),
                        Ok(_) => context.fates.settle_row(row.origin.as_ref(), Fate::Filtered),
                        Err(failure) => context.fail(&row, &failure),
                    }
                }
                kept
            }
            (Operator::Project(exprs), _) => {
                let mut projected = Vec::with_capacity(rows.len());
                for row in rows {
                    let values: Result<Vec<Value>, Failure> =
                        exprs.iter().map(|expr| eval(expr, &row.values)).collect();
                    match values {
                        Ok(values) => projected.push(Row { values, ..row }),
                        Err(failure) => context.fail(&row, &failure),
                    }
                }
                projected
            }
            (Operator::Assign(windows), _) => assign(*windows, rows, node, &mut context),
            (_, State::Groups(groups)) => {
                groups.rows(rows, &mut context);
                Vec::new()
            }
            (_, State::TableJoin(join)) => {
                join.rows(rows, &mut context);
                Vec::new()
            }
            (_, State::WindowJoin(join)) => {
                join.rows(side, rows, &mut context);
                Vec::new()
            }
            (operator, State::None) => panic!("no rows go into {operator:?}"),
        }
    }

    fn write(&mut self, at: usize, (topic, key): (&str, Option<usize>), rows: Vec<Row>) {
        let topic: Arc<str> = topic.into();
        for row in rows {
            let key = key.map(|index| &row.values[index]).filter(|value| !value.is_null());
            let written = Written {
                topic: Arc::clone(&topic),
                timestamp: row.time,
                key: key.map(|value| value.to_string().into()),
                headers: Vec::new(),
                value: Some(object(&self.plan.nodes[at].columns, &row)),
            };
            self.sinks[at].push(written);
            self.fates.settle_row(row.origin.as_ref(), Fate::Passed);
        }
    }

    /// Ends an epoch, when the pipeline is so old, and hands over what came out. `last` says that no record
    /// will come any more: everything that waits for its time gets it.
    ///
    /// # Errors
    /// If a bad result stops the pipeline.
    pub fn end_epoch(&mut self, age_ms: u64, last: bool) -> Result<Vec<Written>, Halt> {
        self.halted()?;
        for time in self.times.iter_mut().flatten() {
            time.advance(age_ms, last);
        }
        let mut known: Vec<Option<i64>> = Vec::new();
        for at in 0..self.plan.nodes.len() {
            let now = self.watermark_of(at, &known);
            known.push(now);
            if let Some(watermark) = now {
                let (state, mut context) = self.at(at);
                let rows = match state {
                    State::None => Vec::new(),
                    State::Groups(groups) => groups.watermark(watermark, &mut context),
                    State::TableJoin(join) => join.watermark(watermark, &mut context),
                    State::WindowJoin(join) => join.watermark(watermark, &mut context),
                };
                self.push(at, rows);
            }
        }
        self.halted()?;
        self.fates.check();
        self.last = None;
        let outputs = [&mut self.sinks, &mut self.dead, &mut self.late, &mut self.failed];
        Ok(outputs.into_iter().flatten().flat_map(std::mem::take).collect())
    }

    /// Never after that of an input: a row that its source lets in is not behind any node on its way. So a
    /// stream that is idle as a whole holds up what it is joined with; a table that is idle does not.
    fn watermark_of(&mut self, at: usize, known: &[Option<i64>]) -> Option<i64> {
        let node = &self.plan.nodes[at];
        let inputs: Option<Vec<i64>> = node.inputs.iter().map(|input| known[*input]).collect();
        let least = inputs.and_then(|inputs| inputs.into_iter().min());
        let table = match node.operator {
            Operator::Read { source, .. } => {
                return self.times[source].as_ref().and_then(EventTime::watermark);
            }
            Operator::TableJoin { table, .. } => self.times[table].as_ref(),
            _ => None,
        };
        let Some(table) = table else { return least };
        let next = if table.is_idle() { least } else { least.min(table.watermark()) };
        let before = self.watermarks.get(&(at as u32)).copied();
        // A table that wakes up may be behind; the promise that was given stands.
        if let Some(next) = next
            && before.is_none_or(|before| before < next)
        {
            self.watermarks.insert(at as u32, next);
            return Some(next);
        }
        before
    }

    /// The fates by reader: the name of the source, the place of the query, and the counts by partition.
    pub fn fates(&self) -> impl Iterator<Item = (u32, u32, Fates)> {
        self.fates
            .0
            .entries()
            .iter()
            .map(|((reader, partition), fates)| (*reader, *partition, *fates))
    }

    /// How many results of no single record could not be computed.
    pub fn failed_results(&self) -> u64 {
        self.failed_results.get(&0).copied().unwrap_or_default()
    }

    /// The watermark of a source.
    pub fn watermark(&self, source: usize) -> Option<i64> {
        self.times[source].as_ref().and_then(EventTime::watermark)
    }

    /// What changed in the state since the last time.
    pub fn delta(&mut self) -> Vec<Change> {
        let mut out = Vec::new();
        self.fates.0.delta(PART_FATES, &mut out);
        self.watermarks.delta(PART_WATERMARKS, &mut out);
        self.failed_results.delta(PART_FAILED, &mut out);
        for (at, state) in self.states.iter_mut().enumerate() {
            let part = PART_NODES + 2 * at as u32;
            match state {
                State::None => {}
                State::Groups(groups) => groups.delta(part, &mut out),
                State::TableJoin(join) => join.delta(part, &mut out),
                State::WindowJoin(join) => join.delta(part, &mut out),
            }
        }
        for (at, time) in self.times.iter_mut().enumerate() {
            if let Some(time) = time {
                time.delta(PART_SOURCES + 2 * at as u32, &mut out);
            }
        }
        out
    }

    /// The whole state.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut out = Vec::new();
        self.fates.0.snapshot(PART_FATES, &mut out);
        self.watermarks.snapshot(PART_WATERMARKS, &mut out);
        self.failed_results.snapshot(PART_FAILED, &mut out);
        for (at, state) in self.states.iter().enumerate() {
            let part = PART_NODES + 2 * at as u32;
            match state {
                State::None => {}
                State::Groups(groups) => groups.snapshot(part, &mut out),
                State::TableJoin(join) => join.snapshot(part, &mut out),
                State::WindowJoin(join) => join.snapshot(part, &mut out),
            }
        }
        for (at, time) in self.times.iter().enumerate() {
            if let Some(time) = time {
                time.snapshot(PART_SOURCES + 2 * at as u32, &mut out);
            }
        }
        out
    }

    /// Takes in a snapshot and the deltas after it, between two epochs.
    ///
    /// # Errors
    /// If the bytes are not of this plan.
    pub fn load<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<(), Malformed> {
        for change in changes {
            match change.part {
                PART_FATES => self.fates.0.load(change)?,
                PART_WATERMARKS => self.watermarks.load(change)?,
                PART_FAILED => self.failed_results.load(change)?,
                part if part >= PART_SOURCES => {
                    let at = (part - PART_SOURCES) as usize;
                    let time = self.times.get_mut(at / 2).and_then(Option::as_mut);
                    time.ok_or(Malformed)?.load(at % 2 == 1, change)?;
                }
                part => {
                    let at = part.checked_sub(PART_NODES).ok_or(Malformed)? as usize;
                    match (self.states.get_mut(at / 2), at % 2 == 1) {
                        (Some(State::Groups(groups)), second) => groups.load(second, change)?,
                        (Some(State::TableJoin(join)), second) => join.load(second, change)?,
                        (Some(State::WindowJoin(join)), false) => join.load(change)?,
                        _ => return Err(Malformed),
                    }
                }
            }
        }
        for state in &mut self.states {
            match state {
                State::Groups(groups) => groups.loaded(),
                State::TableJoin(join) => join.loaded(),
                State::None | State::WindowJoin(_) => {}
            }
        }
        Ok(())
    }
}

fn state(plan: &Plan, node: &Node) -> State {
    match &node.operator {
        Operator::Group(grouping) => State::Groups(Groups::new(grouping)),
        Operator::TableJoin { table, joining, .. } => {
            State::TableJoin(TableJoin::new(joining, plan.sources[*table].columns.len()))
        }
        Operator::WindowJoin { joining, left, right } => {
            let width = plan.nodes[node.inputs[1]].columns.len();
            State::WindowJoin(WindowJoin::new(joining, [*left, *right], width))
        }
        _ => State::None,
    }
}

/// Whether rows that are read at a node come to an operator that goes by event time.
fn uses_time(plan: &Plan, consumers: &[Option<(usize, usize)>], from: usize) -> bool {
    let mut next = consumers[from];
    while let Some((at, _)) = next {
        if plan.nodes[at].uses_time {
            return true;
        }
        next = consumers[at];
    }
    false
}

/// Copies of each row, one for each of its windows; the fate of the record is that of the last copy.
fn assign(windows: Windows, rows: Vec<Row>, node: &Node, context: &mut Context<'_>) -> Vec<Row> {
    let mut assigned = Vec::new();
    for row in rows {
        let last = row.time - row.time.rem_euclid(windows.slide_ms);
        let first = last - windows.size_ms + windows.slide_ms;
        let (first, end) = (time::in_range(first), time::in_range(last + windows.size_ms));
        let (Some(first), Some(_)) = (first, end) else {
            let reason = "the window is outside of the years 1 to 9999";
            context.fail(&row, &Failure::new(node.at, reason));
            continue;
        };
        let mut start = first;
        while start <= last {
            let mut copy = row.clone();
            copy.values.push(Value::Timestamp(start));
            copy.values.push(Value::Timestamp(start + windows.size_ms));
            if let Some(origin) = &mut copy.origin {
                origin.counts &= start == last;
            }
            assigned.push(copy);
            start += windows.slide_ms;
        }
    }
    assigned
}

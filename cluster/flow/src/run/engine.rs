//! A pipeline that runs: rows go from node to node, and at the end of an epoch watermarks do.

use super::Halt;
use super::context::{Context, object};
use super::fates::{Fate, Fates, Ledger};
use super::group::Groups;
use super::kept::Kept;
use super::output;
use super::record::{Record, Row, Written};
use super::source::EventTime;
use super::table_join::TableJoin;
use super::window_join::WindowJoin;
use crate::eval::{Failure, eval};
use crate::plan::{Node, Operator, Plan, Windows};
use crate::value::{Value, time};
use fulmar_host::planted;
use fulmar_types::Plant;
use fulmar_types::limits::BATCH_BYTES_MAX;
use fulmar_wire::batch::HEADER_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node keeps.
#[derive(Debug)]
pub(super) enum State {
    None,
    Groups(Groups),
    TableJoin(TableJoin),
    WindowJoin(WindowJoin),
}

/// A place where a source is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) number: u32,
    pub(super) node: usize,
    pub(super) is_table: bool,
    /// Whether a late row is of no use there.
    pub(super) uses_time: bool,
}

/// A pipeline that runs.
#[derive(Debug)]
pub struct Engine {
    pub(super) plan: Arc<Plan>,
    /// The pipeline, by name.
    pub(super) name: Arc<str>,
    pub(super) consumers: Vec<Option<(usize, usize)>>,
    /// By source.
    pub(super) readers: Vec<Vec<Reader>>,
    pub(super) times: Vec<Option<EventTime>>,
    pub(super) states: Vec<State>,
    /// Of nodes with several inputs.
    pub(super) watermarks: Kept<u32, i64>,
    pub(super) fates: Ledger,
    /// Results of no single record that could not be computed, under the key 0.
    pub(super) failed_results: Kept<u32, u64>,
    /// What became of dead letters, see `letters.rs`.
    pub(super) letters: Kept<u32, u64>,
    /// What came out in this epoch, by node and by source.
    pub(super) sinks: Vec<Vec<Written>>,
    pub(super) failed: Vec<Vec<Written>>,
    pub(super) dead: Vec<Vec<Written>>,
    pub(super) late: Vec<Vec<Written>>,
    /// The last record of this epoch, to see that they come in order.
    pub(super) last: Option<(Arc<str>, u32, i64)>,
    pub(super) halt: Option<Halt>,
    /// The watermarks of the nodes so far, while an epoch ends; the last of them may have rows left that
    /// are due.
    ending: Option<Vec<Option<i64>>>,
    /// How long a record may be that is written.
    record_bytes_max: usize,
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
            letters: Kept::default(),
            name: "".into(),
            last: None,
            halt: None,
            ending: None,
            record_bytes_max: BATCH_BYTES_MAX - HEADER_BYTES,
            plan,
        }
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

    /// Takes in records of a topic.
    ///
    /// # Errors
    /// If a bad record stops the pipeline.
    ///
    /// # Panics
    /// If the records are not in the order of topics, partitions and offsets.
    pub fn batch(&mut self, topic: &str, records: &[Arc<Record>]) -> Result<(), Halt> {
        self.in_order(topic, records);
        for source in 0..self.plan.sources.len() {
            if self.halt.is_none() && *self.plan.sources[source].topic == *topic {
                self.read((source, None), records);
            }
        }
        self.halted()
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

    pub(super) fn halted(&self) -> Result<(), Halt> {
        self.halt.clone().map_or(Ok(()), Err)
    }

    /// The state of a node, and what else it may touch.
    pub(super) fn at(&mut self, at: usize) -> (&mut State, Context<'_>) {
        let node = &self.plan.nodes[at];
        // Where rows are only looked at, they have the columns of the input.
        let is_plain = matches!(node.operator, Operator::Filter(_) | Operator::Project(_));
        let shown = if is_plain { &self.plan.nodes[node.inputs[0]] } else { node };
        let context = Context {
            pipeline: &self.name,
            fates: &mut self.fates,
            rule: &self.plan.sources[node.rule],
            columns: &shown.columns,
            beside: &mut self.failed[at],
            failed_results: &mut self.failed_results,
            halt: &mut self.halt,
        };
        (&mut self.states[at], context)
    }

    /// Rows leave a node, and go as far as they can.
    pub(super) fn push(&mut self, from: usize, mut rows: Vec<Row>) {
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
            let (bytes, most) = (output::bytes_of(&written), self.record_bytes_max);
            if bytes > most {
                let reason = format!("a record of {bytes} bytes, and a batch takes {most}");
                let failure = Failure::new(self.plan.nodes[at].at, reason);
                self.at(at).1.fail(&row, &failure);
                continue;
            }
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
        self.begin_end(age_ms, last);
        loop {
            if let Some(written) = self.end_some(usize::MAX)? {
                return Ok(written);
            }
        }
    }

    /// Begins to end an epoch. No record may be given before [`Self::end_some`] has ended it.
    ///
    /// # Panics
    /// If an epoch is being ended already.
    pub fn begin_end(&mut self, age_ms: u64, last: bool) {
        assert_eq!(self.ending, None, "an epoch ends once");
        for time in self.times.iter_mut().flatten() {
            time.advance(age_ms, last);
        }
        self.ending = Some(Vec::new());
    }

    /// Lets about so many rows come out that are due, and hands over what came out when that was all: so
    /// that others can be let in between when many windows end at once.
    ///
    /// # Errors
    /// If a bad record or result stops the pipeline.
    ///
    /// # Panics
    /// If no epoch is being ended.
    pub fn end_some(&mut self, rows_max: usize) -> Result<Option<Vec<Written>>, Halt> {
        self.halted()?;
        let mut known = self.ending.take().expect("an epoch is being ended");
        let is_done = match known.last().copied() {
            Some(Some(watermark)) => self.fire(known.len() - 1, watermark, rows_max),
            _ => true,
        };
        if is_done && known.len() < self.plan.nodes.len() {
            let next = self.watermark_of(known.len(), &known);
            known.push(next);
        } else if is_done {
            self.halted()?;
            self.fates.check();
            self.last = None;
            let beside = [&mut self.dead, &mut self.late, &mut self.failed];
            let beside = beside.into_iter().flatten().flat_map(std::mem::take);
            let beside = beside.map(|written| output::fitting(written, self.record_bytes_max));
            return Ok(Some(
                self.sinks.iter_mut().flat_map(std::mem::take).chain(beside).collect(),
            ));
        }
        self.ending = Some(known);
        Ok(None)
    }

    /// Lets rows out of a node that are due. Whether that was all.
    fn fire(&mut self, at: usize, watermark: i64, rows_max: usize) -> bool {
        let (state, mut context) = self.at(at);
        let (rows, is_done) = match state {
            State::None => return true,
            State::Groups(groups) => groups.watermark(watermark, rows_max, &mut context),
            State::TableJoin(join) => join.watermark(watermark, rows_max, &mut context),
            State::WindowJoin(join) => join.watermark(watermark, rows_max, &mut context),
        };
        self.push(at, rows);
        is_done
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
            let mut values = Vec::with_capacity(row.values.len() + 2);
            values.extend_from_slice(&row.values);
            values.push(Value::Timestamp(start));
            values.push(Value::Timestamp(start + windows.size_ms));
            let mut copy = Row { values, time: row.time, origin: row.origin.clone() };
            if let Some(origin) = &mut copy.origin {
                origin.counts &= start == last;
            }
            assigned.push(copy);
            start += windows.slide_ms;
        }
    }
    assigned
}

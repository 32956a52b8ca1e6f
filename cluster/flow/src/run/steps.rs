//! What nodes do that keep nothing, and sinks: rows go through on the way from one task to the next.

use super::channel::Rank;
use super::context::{Context, object};
use super::copies::{self, Way};
use super::engine::{Behind, Engine};
use super::epoch::{Epoch, Where};
use super::fates::Fate;
use super::operator::State;
use super::output;
use super::record::{Row, Written};
use super::tasks::Layout;
use crate::eval::{Failure, eval};
use crate::pattern;
use crate::plan::expr::Expr;
use crate::plan::order::ReaderName;
use crate::plan::{Node, Operator, Plan};
use crate::value::Value;
use std::sync::Arc;

impl Engine {
    /// What may be touched for an epoch, at a place.
    fn context(&mut self, epoch: u64, place: Where) -> Context<'_> {
        let epoch = (epoch - self.over) as usize;
        let of = (&mut self.epochs[epoch], &self.behind);
        context((&self.plan, &self.name, &self.names), of, place, self.tasks.layout)
    }

    /// What a subtask keeps, and what it may touch for an epoch.
    pub(super) fn state(
        &mut self,
        epoch: u64,
        (node, subtask): (usize, usize),
        side: u8,
    ) -> (&mut State, Context<'_>) {
        let epoch = (epoch - self.over) as usize;
        let epoch = (&mut self.epochs[epoch], &self.behind);
        let context =
            context((&self.plan, &self.name, &self.names), epoch, (node, side), self.tasks.layout);
        (&mut self.states[node][subtask], context)
    }

    /// Rows go through a node that keeps nothing.
    pub(super) fn through(&mut self, epoch: u64, at: usize, rows: Vec<Row>) -> Vec<Row> {
        let plan = Arc::clone(&self.plan);
        let node = &plan.nodes[at];
        let way = match node.operator {
            Operator::Assign(_) => Some(Way::of(&plan, &self.behind, at, self.record_bytes_max)),
            _ => None,
        };
        let mut context = self.context(epoch, (at, 0));
        match &node.operator {
            Operator::Filter(condition) => filter(condition, rows, &mut context),
            Operator::Project(exprs) => project(exprs, rows, &mut context),
            Operator::Assign(windows) => {
                let way = way.expect("windows are assigned here");
                copies::assign(*windows, rows, &way, &mut context)
            }
            operator => panic!("rows do not go through {operator:?}"),
        }
    }

    /// Rows are written by a sink.
    pub(super) fn write(&mut self, epoch: u64, at: usize, rows: Vec<Row>) {
        let plan = Arc::clone(&self.plan);
        let node = &plan.nodes[at];
        let Operator::Sink { topic, key } = &node.operator else { return };
        let topic: Arc<str> = topic.as_str().into();
        let most = self.record_bytes_max;
        let mut context = self.context(epoch, (at, 0));
        let (mut sink, mut put_out) = (Vec::with_capacity(rows.len()), 0);
        for row in rows {
            let (written, bytes) = match written(node, (&topic, *key), &row, most) {
                Ok(written) => written,
                Err(failure) => {
                    context.fail(&row, &failure);
                    continue;
                }
            };
            sink.push(written);
            put_out += bytes;
            context.put(bytes);
            context.wrote(bytes);
            if context.halt.is_some() {
                return;
            }
            context.fates.settle_row(row.origin.as_ref(), Fate::Passed);
        }
        let epoch = (epoch - self.over) as usize;
        self.bytes_written = self.bytes_written.wrapping_add(put_out);
        self.epochs[epoch].sinks.entry(at).or_default().append(&mut sink);
    }
}

/// A row as a record, and about its length.
///
/// # Errors
/// If no batch takes it.
pub(super) fn written(
    node: &Node,
    (topic, key): (&Arc<str>, Option<usize>),
    row: &Row,
    most: usize,
) -> Result<(Written, usize), Failure> {
    let key = key.map(|index| &row.values[index]).filter(|value| !value.is_null());
    let written = Written {
        topic: Arc::clone(topic),
        timestamp: row.time,
        key: key.map(|value| value.to_string().into()),
        headers: Vec::new(),
        value: Some(object(&node.columns, row)),
    };
    let bytes = output::bytes_of(&written);
    if bytes > most {
        let reason = format!("a record of {bytes} bytes, and a batch takes {most}");
        return Err(Failure::new(node.at, reason));
    }
    Ok((written, bytes))
}

fn context<'a>(
    (plan, pipeline, names): (&'a Plan, &'a str, &'a [ReaderName]),
    (epoch, behind): (&'a mut Epoch, &Behind),
    place: Where,
    layout: Layout,
) -> Context<'a> {
    let node = &plan.nodes[place.0];
    // Where rows are only looked at, they have the columns of the input.
    let is_plain = matches!(node.operator, Operator::Filter(_) | Operator::Project(_));
    let shown = if is_plain { &plan.nodes[node.inputs[0]] } else { node };
    let is_join = matches!(node.operator, Operator::WindowJoin { .. });
    let is_joined = is_join || behind.joins[place.0];
    Context {
        pipeline,
        names,
        fates: &mut epoch.tally,
        rule: &plan.sources[node.rule],
        columns: &shown.columns,
        beside: epoch.failed.entry(place).or_default(),
        failed_results: &mut epoch.failed_results,
        halt: &mut epoch.halt,
        put_out: (&mut epoch.put_out, node.at),
        joined: is_joined.then_some((&mut epoch.joined, node.at)),
        copies: behind.copies[place.0],
        is_ranked: layout.subtasks > 1,
        rank: Rank::Only,
    }
}

fn filter(condition: &Expr, rows: Vec<Row>, context: &mut Context<'_>) -> Vec<Row> {
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        pattern::begin_row(context.copies);
        match eval(condition, &row.values) {
            Ok(value) if value.is_true() => kept.push(row),
            Ok(_) => context.fates.settle_row(row.origin.as_ref(), Fate::Filtered),
            Err(failure) => context.fail(&row, &failure),
        }
    }
    kept
}

fn project(exprs: &[Expr], rows: Vec<Row>, context: &mut Context<'_>) -> Vec<Row> {
    let mut projected = Vec::with_capacity(rows.len());
    for row in rows {
        pattern::begin_row(context.copies);
        let values: Result<Vec<Value>, Failure> =
            exprs.iter().map(|expr| eval(expr, &row.values)).collect();
        match values {
            Ok(values) => projected.push(Row { values, ..row }),
            Err(failure) => context.fail(&row, &failure),
        }
    }
    projected
}

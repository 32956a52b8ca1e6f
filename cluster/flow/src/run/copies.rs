//! Rows in their windows: a copy for each of them.
//!
//! Copies have columns of their own, the window, so one may be computed and another one not. A record has one
//! fate, so before the copies of a row go on it is tried out whether all of them come to where rows are kept
//! or written: if one does not, the row is a bad one, and nothing comes of the others.
//!
//! Invariant: a row goes into all of its windows, or into none and to where bad rows go.

use super::context::Context;
use super::engine::Behind;
use super::record::Row;
use super::steps;
use crate::eval::{Failure, eval};
use crate::pattern;
use crate::plan::expr::Expr;
use crate::plan::{Node, Operator, Plan, Windows};
use crate::problem::Position;
use crate::value::{Value, time};

/// What the copies of a row may come to where they are written as they are, in bytes: an epoch has all copies of a row.
const COPIES_BYTES_MAX: usize = 16 << 20;

/// The nodes from where windows are assigned to the next one that keeps rows or writes them.
pub struct Way<'a> {
    /// Where the query stands.
    at: Position,
    /// The nodes, on which side of them rows come in, and how many copies of one are there.
    nodes: Vec<(&'a Node, usize, usize)>,
    /// Whether anything on it may have no value, or copies are written at its end.
    may_fail: bool,
    /// What a record may come to that is written, in bytes.
    record_bytes_max: usize,
}

impl<'a> Way<'a> {
    /// From a node on, which assigns windows.
    pub fn of(plan: &'a Plan, behind: &Behind, from: usize, record_bytes_max: usize) -> Self {
        let mut nodes = Vec::new();
        let mut next = behind.consumers[from];
        while let Some((at, side)) = next {
            let node = &plan.nodes[at];
            nodes.push((node, side, behind.copies[at]));
            let goes_on = matches!(
                node.operator,
                Operator::Filter(_) | Operator::Project(_) | Operator::Assign(_)
            );
            next = if goes_on { behind.consumers[at] } else { None };
        }
        let may_fail = nodes.iter().any(|(node, side, _)| {
            matches!(node.operator, Operator::Assign(_) | Operator::Sink { .. })
                || exprs(&node.operator, *side).iter().any(|expr| expr.may_fail())
        });
        Self { at: plan.nodes[from].at, nodes, may_fail, record_bytes_max }
    }

    /// Whether a copy comes to the end, or is left out; or why it cannot be computed. What is written counts, with what
    /// the copies before it are.
    fn check(
        &self,
        (mut values, time): (Vec<Value>, i64),
        from: usize,
        bytes: &mut usize,
    ) -> Result<(), Failure> {
        for (index, (node, side, copies)) in self.nodes.iter().enumerate().skip(from) {
            pattern::begin_row(*copies);
            match &node.operator {
                Operator::Filter(condition) if !eval(condition, &values)?.is_true() => {
                    return Ok(());
                }
                Operator::Filter(_) => {}
                Operator::Project(exprs) => {
                    values =
                        exprs.iter().map(|expr| eval(expr, &values)).collect::<Result<_, _>>()?;
                }
                Operator::Assign(windows) => {
                    for start in starts(*windows, time, node.at)? {
                        let copy = copied(&values, start, *windows);
                        self.check((copy, time), index + 1, bytes)?;
                    }
                    return Ok(());
                }
                Operator::Sink { topic, key } => {
                    let row = Row { values, time, origin: None };
                    let to = (&topic.as_str().into(), *key);
                    let (_, len) = steps::written(node, to, &row, self.record_bytes_max)?;
                    *bytes = bytes.saturating_add(len);
                    if *bytes > COPIES_BYTES_MAX {
                        let most = COPIES_BYTES_MAX >> 20;
                        let reason = format!("in all of its windows it takes more than {most} MiB");
                        return Err(Failure::new(self.at, reason));
                    }
                    return Ok(());
                }
                operator => {
                    for expr in exprs(operator, *side) {
                        eval(expr, &values)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a node computes of a row when it comes in.
fn exprs(operator: &Operator, side: usize) -> Vec<&Expr> {
    match operator {
        Operator::Filter(condition) => vec![condition],
        Operator::Project(exprs) => exprs.iter().collect(),
        Operator::Group(grouping) => {
            let arguments = grouping.aggregates.iter().filter_map(|a| a.argument.as_ref());
            grouping.keys.iter().chain(arguments).collect()
        }
        Operator::WindowJoin { joining, .. } if side == 0 => joining.left_keys.iter().collect(),
        Operator::WindowJoin { joining, .. } => joining.right_keys.iter().collect(),
        _ => Vec::new(),
    }
}

/// When the windows of a row begin.
fn starts(
    windows: Windows,
    row_time: i64,
    at: Position,
) -> Result<impl Iterator<Item = i64> + Clone, Failure> {
    let last = row_time - row_time.rem_euclid(windows.slide_ms);
    let first = last - windows.size_ms + windows.slide_ms;
    let (first, end) = (time::in_range(first), time::in_range(last + windows.size_ms));
    let (Some(first), Some(_)) = (first, end) else {
        return Err(Failure::new(at, "the window is outside of the years 1 to 9999"));
    };
    let next = move |start: &i64| Some(start + windows.slide_ms).filter(|start| *start <= last);
    Ok(std::iter::successors(Some(first), next))
}

fn copied(values: &[Value], start: i64, windows: Windows) -> Vec<Value> {
    let mut copy = Vec::with_capacity(values.len() + 2);
    copy.extend_from_slice(values);
    copy.push(Value::Timestamp(start));
    copy.push(Value::Timestamp(start + windows.size_ms));
    copy
}

/// Copies of each row, one for each of its windows; the fate of the record is that of the last copy.
pub fn assign(
    windows: Windows,
    rows: Vec<Row>,
    way: &Way<'_>,
    context: &mut Context<'_>,
) -> Vec<Row> {
    let mut assigned = Vec::new();
    let is_tried = way.may_fail && windows.slide_ms < windows.size_ms;
    for row in rows {
        let copy = |start: i64| copied(&row.values, start, windows);
        let starts = starts(windows, row.time, way.at).and_then(|starts| {
            if is_tried {
                let mut bytes = 0;
                starts
                    .clone()
                    .try_for_each(|start| way.check((copy(start), row.time), 0, &mut bytes))?;
            }
            Ok(starts)
        });
        let mut starts = match starts {
            Ok(starts) => starts.peekable(),
            Err(failure) => {
                context.fail(&row, &failure);
                continue;
            }
        };
        while let Some(start) = starts.next() {
            let mut origin = row.origin.clone();
            if let Some(origin) = &mut origin {
                origin.counts &= starts.peek().is_none();
            }
            assigned.push(Row { values: copy(start), time: row.time, origin });
        }
    }
    assigned
}

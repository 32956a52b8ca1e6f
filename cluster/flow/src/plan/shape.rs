//! The shape of a plan: a digest of everything that the meaning of its state depends on.
//!
//! State is kept by the places of nodes, sources and readers, and by the columns of rows. Two files with
//! one shape can go on from one another's state; what differs between them are names, topics that are
//! written, what has to hold for a record (`CHECK`), what becomes of bad and late ones, and what is computed
//! behind the last operator that keeps something. A `CHECK` says which rows come to the state, and never what
//! the state of a row is: what is in there stays as it was judged.
//!
//! Invariant: if two plans differ in something that state depends on, their shapes differ. The other way
//! round a difference that would not matter may be seen as one that does.

use super::expr::{Expr, Kind};
use super::source::{Source, SourceColumn};
use super::{Aggregate, Column, Grouping, Joining, Node, Operator, Plan};
use crate::pattern::Pattern;
use std::fmt::Write;

/// Changes when operators keep something else for the same plan.
const VERSION: u32 = 1;

impl Plan {
    /// The digest.
    pub fn shape(&self) -> [u8; 16] {
        let mut text = format!("shape {VERSION}\n");
        for source in &self.sources {
            write_source(source, &mut text);
        }
        let feeds_state = self.feeding_state();
        for (node, feeds_state) in self.nodes.iter().zip(feeds_state) {
            let _ = write!(text, "node {:?} ", node.inputs);
            write_node(node, feeds_state, &mut text);
            text.push('\n');
        }
        let _ = write!(text, "readers {:?}", self.readers);
        let _ = write!(text, " alike {:?}", self.alike());
        let digest = blake3::hash(text.as_bytes());
        *digest.as_bytes().first_chunk().expect("a digest has 32 bytes")
    }

    /// What about a file does not fit the state of the one before, for people. Nothing if the shapes are
    /// the same.
    pub fn misfits(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let (new, old) = (self.sources.len(), before.sources.len());
        if new != old {
            found.push(format!("it has {new} streams and tables made of topics, and not {old}"));
            return found;
        }
        for (source, before) in self.sources.iter().zip(&before.sources) {
            source_misfits(source, before, &mut found);
        }
        let nodes = |plan: &Self| -> Vec<(usize, String)> {
            let numbered = plan.nodes.iter().zip(plan.feeding_state()).enumerate();
            let text = |(at, (node, feeds_state)): (usize, (&Node, bool))| {
                let mut text = format!("{:?} ", node.inputs);
                write_node(node, feeds_state, &mut text);
                (at, text)
            };
            numbered.map(text).collect()
        };
        let (new, old) = (nodes(self), nodes(before));
        if new.len() != old.len() || self.readers != before.readers {
            found.push("its queries have other steps".to_owned());
        } else {
            let differ = new.iter().zip(&old).filter(|(new, old)| new != old);
            found.extend(differ.map(|((at, _), _)| {
                let node = &self.nodes[*at];
                format!("{} near line {}", what(&node.operator), node.at.line)
            }));
        }
        if found.is_empty() && self.alike() != before.alike() {
            found.push(
                "queries of one kind are told apart by what they write, and that differs"
                    .to_owned(),
            );
        }
        found.dedup();
        found
    }

    /// For each node, whether its rows come to a node that keeps something.
    pub(super) fn feeding_state(&self) -> Vec<bool> {
        let consumers = self.consumers();
        let mut feeds = vec![false; self.nodes.len()];
        for at in (0..self.nodes.len()).rev() {
            feeds[at] = consumers[at].is_some_and(|(to, _)| self.nodes[to].uses_time || feeds[to]);
        }
        feeds
    }
}

/// The nodes of a query, each with whether its rows come to one that keeps something.
pub(super) fn write_query(nodes: &[Node], feed_state: impl IntoIterator<Item = bool>) -> String {
    let mut text = String::new();
    for (node, feeds_state) in nodes.iter().zip(feed_state) {
        let _ = write!(text, "node {:?} ", node.inputs);
        write_node(node, feeds_state, &mut text);
        text.push('\n');
    }
    text
}

fn write_source(source: &Source, out: &mut String) {
    let _ = write!(out, "source {:?} {:?} (", source.topic, source.primary);
    for SourceColumn { column, origin, not_null, .. } in &source.columns {
        let Column { of, role, .. } = column;
        let _ = write!(out, "{of:?} {role:?} {origin:?} {not_null},");
    }
    let _ = writeln!(out, ") {:?}", source.watermark);
}

fn source_misfits(source: &Source, before: &Source, out: &mut Vec<String>) {
    let name = &source.name;
    if source.topic != before.topic {
        out.push(format!("{name} reads the topic {} and not {}", source.topic, before.topic));
    }
    if source.columns.len() != before.columns.len() {
        let (new, old) = (source.columns.len(), before.columns.len());
        out.push(format!("{name} has {new} columns and not {old}"));
    } else {
        let depends = |of: &SourceColumn| {
            let SourceColumn { column, origin, not_null, .. } = of;
            format!("{:?} {:?} {origin:?} {not_null}", column.of, column.role)
        };
        let both = source.columns.iter().zip(&before.columns);
        let differ = both.filter(|(column, before)| depends(column) != depends(before));
        out.extend(differ.map(|(of, _)| {
            let column = &of.column.name;
            format!("the type, the place or NOT NULL of the column {column} of {name}")
        }));
    }
    if source.primary != before.primary {
        out.push(format!("the PRIMARY KEY of {name}"));
    }
    if source.watermark != before.watermark {
        out.push(format!("the WATERMARK of {name}"));
    }
}

/// What an operator is called in a file.
fn what(operator: &Operator) -> &'static str {
    match operator {
        Operator::Read { .. } => "the FROM",
        Operator::Filter(_) => "the WHERE",
        Operator::Project(_) => "the SELECT in front of a window",
        Operator::Assign(_) => "the window",
        Operator::Group(_) => "the GROUP BY or an aggregate",
        Operator::TableJoin { .. } | Operator::WindowJoin { .. } => "the JOIN",
        Operator::Sink { .. } => "the output",
    }
}

fn write_node(node: &Node, feeds_state: bool, out: &mut String) {
    match &node.operator {
        Operator::Read { source, reader } => {
            let _ = write!(out, "read {source} {reader}");
        }
        // Rows behind the last state are gone at the end of their epoch.
        Operator::Filter(_) | Operator::Project(_) if !feeds_state => out.push_str("stateless"),
        Operator::Filter(condition) => {
            out.push_str("filter ");
            write_expr(condition, out);
        }
        Operator::Project(exprs) => {
            out.push_str("project");
            write_all(exprs, out);
        }
        Operator::Assign(windows) => {
            let _ = write!(out, "{windows:?}");
        }
        Operator::Group(grouping) => write_group(grouping, out),
        Operator::TableJoin { table, reader, joining } => {
            let _ = write!(out, "table {table} {reader} ");
            write_joining(joining, out);
        }
        Operator::WindowJoin { joining, left, right } => {
            let _ = write!(out, "windows {left:?} {right:?} ");
            write_joining(joining, out);
        }
        Operator::Sink { .. } => out.push_str("sink"),
    }
}

fn write_group(grouping: &Grouping, out: &mut String) {
    let Grouping { keys, start, end, session_gap_ms, aggregates } = grouping;
    let _ = write!(out, "group {start} {end} {session_gap_ms:?}");
    write_all(keys, out);
    for Aggregate { fold, argument, of, .. } in aggregates {
        let _ = write!(out, " {fold:?} {of:?}");
        write_all(argument, out);
    }
}

fn write_joining(joining: &Joining, out: &mut String) {
    let Joining { left_keys, right_keys, condition, keeps_left } = joining;
    let _ = write!(out, "{keeps_left}");
    write_all(left_keys, out);
    write_all(right_keys, out);
    write_all(condition, out);
}

fn write_all<'a>(exprs: impl IntoIterator<Item = &'a Expr>, out: &mut String) {
    out.push('[');
    for expr in exprs {
        write_expr(expr, out);
        out.push(',');
    }
    out.push(']');
}

/// What it computes, without where it stands.
fn write_expr(expr: &Expr, out: &mut String) {
    let _ = match &expr.kind {
        Kind::Column(index) => write!(out, "column {index}"),
        Kind::Literal(value) => write!(out, "literal {value:?}"),
        Kind::Not(_) => write!(out, "not"),
        Kind::And(..) => write!(out, "and"),
        Kind::Or(..) => write!(out, "or"),
        Kind::Compare(comparison, ..) => write!(out, "{comparison:?}"),
        Kind::Arithmetic(arithmetic, ..) => write!(out, "{arithmetic:?}"),
        Kind::Negate(_) => write!(out, "negate"),
        Kind::Shift(_, by) => write!(out, "shift {by}"),
        Kind::IsNull(_) => write!(out, "is null"),
        Kind::Is(_, wanted) => write!(out, "is {wanted}"),
        Kind::Same(..) => write!(out, "same"),
        Kind::In(..) => write!(out, "in"),
        Kind::Like(_, like) => write!(out, "like {:?}", like.as_regex()),
        Kind::Case(..) => write!(out, "case"),
        Kind::CaseOf(..) => write!(out, "case of"),
        Kind::Between(..) => write!(out, "between"),
        Kind::Cast(_, is_try) => write!(out, "cast {is_try}"),
        Kind::Call(function, _, pattern) => {
            let pattern = pattern.as_ref().map(Pattern::as_str);
            write!(out, "{function:?} {pattern:?}")
        }
    };
    let _ = write!(out, ": {:?}(", expr.of);
    expr.parts(&mut |part| {
        write_expr(part, out);
        out.push(',');
    });
    out.push(')');
}

//! Joins: of two streams within windows, and of a stream with a table as of event time.
//!
//! Invariant: where rows may wait, no row is there in several windows: one of its copies might be computed, and another
//! one not, after they have waited.

use super::bind::{Binder, Scope};
use super::expr::{Comparison, Expr, Kind};
use super::from::{Factor, Input, factor_begin};
use super::{Column, Joining, Operator, Planner, Role};
use crate::problem::{Position, Problem};
use crate::value::{Type, Value};
use sqlparser::ast::{Join, JoinConstraint, JoinOperator};
use std::collections::{BTreeMap, BTreeSet};

/// A join of which both sides are known.
struct Sides {
    left: Input,
    /// The columns of both, those of the left first.
    scope: Scope,
    /// How many columns the left has.
    width: usize,
    /// What has to hold.
    parts: Vec<Expr>,
    keeps_left: bool,
    at: Position,
}

impl Planner<'_> {
    /// What comes in on the left, joined with what follows.
    pub(super) fn join(&mut self, left: Input, join: &Join) -> Result<Input, Problem> {
        let at = factor_begin(&join.relation);
        let left_at = left.at;
        let (constraint, keeps_left) = match &join.join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) => (on, false),
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (on, true),
            _ => {
                return Err(Problem::expected(at, format!("`{join}`"), "JOIN or LEFT JOIN"));
            }
        };
        let JoinConstraint::On(condition) = constraint else {
            return Err(Problem::expected(at, format!("`{join}`"), "JOIN ... ON a condition"));
        };
        if join.global {
            return Err(Problem::expected(at, "GLOBAL", "JOIN or LEFT JOIN"));
        }
        let left = self.settle(left)?;
        if left.session_gap_ms.is_some() {
            let expected = "SESSION in a query of its own, with GROUP BY";
            return Err(Problem::expected(left_at, "a join of sessions", expected));
        }
        self.need_time(left.node, at)?;
        let (width, mut scope) = (left.scope.columns.len(), left.scope.clone());
        let right = match self.factor(&join.relation)? {
            Factor::Rows(right) if right.session_gap_ms.is_some() => {
                let expected = "SESSION in a query of its own, with GROUP BY";
                return Err(Problem::expected(right.at, "a join of sessions", expected));
            }
            Factor::Rows(right) => Factor::Rows(self.settle(right)?),
            table => table,
        };
        let right_columns = match &right {
            Factor::Rows(right) => &right.scope.columns,
            Factor::Table(_, scope) => &scope.columns,
        };
        let names: BTreeSet<&String> = scope.columns.iter().map(|(name, _)| name).collect();
        let same = right_columns.iter().find(|(name, _)| names.contains(name));
        if let Some((name, _)) = same {
            return Err(Problem::expected(at, format!("a second `{name}`"), "another alias"));
        }
        scope.columns.extend(right_columns.iter().cloned());
        let condition = Binder::new(&scope).condition(condition)?;
        let mut parts = Vec::new();
        condition.conjuncts(&mut parts);
        match right {
            Factor::Table(table, _) => {
                self.table_join(Sides { left, scope, width, parts, keeps_left, at }, table)
            }
            Factor::Rows(right) => {
                self.window_join(Sides { left, scope, width, parts, keeps_left, at }, right)
            }
        }
    }

    /// Whether a row may be there more than once: one of its copies might be computed, and another one not, after
    /// they have waited.
    fn is_hopping(&self, node: usize) -> bool {
        self.copies(node) > 1
    }

    fn table_join(&mut self, sides: Sides, table: usize) -> Result<Input, Problem> {
        let Sides { left, mut scope, width, parts, keeps_left, at } = sides;
        if self.is_hopping(left.node) {
            let expected = "the join in a query of its own, and HOP over that";
            return Err(Problem::expected(
                at,
                "a table joined with rows in several windows",
                expected,
            ));
        }
        let (pairs, rest) = equalities(parts, width);
        let source = &self.plan.sources[table];
        let primary = source.primary.clone().unwrap_or_default();
        let mut left_keys = Vec::new();
        let mut rest = rest;
        let mut pairs: Vec<Option<(Expr, Expr)>> = pairs.into_iter().map(Some).collect();
        for index in &primary {
            let is_key = |pair: &Option<(Expr, Expr)>| matches!(pair, Some((_, right)) if right.kind == Kind::Column(*index));
            let Some((left, _)) = pairs.iter_mut().find(|pair| is_key(pair)).and_then(Option::take)
            else {
                let name = &source.columns[*index].column.name;
                if let Some(problem) = pairs.iter().flatten().find_map(|p| other_type(p, *index)) {
                    return Err(problem);
                }
                let expected = format!("ON ... = {}.{name}, of the PRIMARY KEY", source.name);
                return Err(Problem::expected(at, "a join with a table", expected));
            };
            left_keys.push(left);
        }
        rest.extend(pairs.into_iter().flatten().map(|(left, right)| Expr {
            at: left.at,
            of: Type::Boolean,
            kind: Kind::Compare(
                Comparison::Equal,
                Box::new(left),
                // Back to where the columns of the right are in the joined row.
                Box::new(unshifted(right, width)),
            ),
        }));
        let reader = self.reader(table);
        let joining =
            Joining { left_keys, right_keys: Vec::new(), condition: Expr::all(rest), keeps_left };
        let operator = Operator::TableJoin { table, reader, joining };
        let node = self.node(operator, vec![left.node], told_apart(&scope), at)?;
        scope.columns[width..].iter_mut().for_each(|(_, column)| column.role = Role::Plain);
        Ok(Input { node, scope, windows: None, session_gap_ms: None, at })
    }

    fn window_join(&mut self, sides: Sides, right: Input) -> Result<Input, Problem> {
        let Sides { left, mut scope, width, parts, keeps_left, at } = sides;
        let expected = "two streams with windows, joined ON l.window_start = r.window_start AND \
                        l.window_end = r.window_end";
        let windows = left.scope.window().zip(right.scope.window());
        let Some((left_window, right_window)) = windows else {
            return Err(Problem::expected(at, "a join of streams without windows", expected));
        };
        let (mut pairs, rest) = equalities(parts, width);
        for (l, r) in [(left_window.0, right_window.0), (left_window.1, right_window.1)] {
            let is_window = |(left, right): &(Expr, Expr)| {
                left.kind == Kind::Column(l) && right.kind == Kind::Column(r)
            };
            let Some(found) = pairs.iter().position(is_window) else {
                return Err(Problem::expected(at, "a join across windows", expected));
            };
            pairs.remove(found);
        }
        let (left_keys, right_keys) = pairs.into_iter().unzip();
        let joining = Joining { left_keys, right_keys, condition: Expr::all(rest), keeps_left };
        scope.columns[width..].iter_mut().for_each(|(_, column)| column.role = Role::Plain);
        let operator = Operator::WindowJoin { joining, left: left_window, right: right_window };
        let node = self.node(operator, vec![left.node, right.node], told_apart(&scope), at)?;
        Ok(Input { node, scope, windows: None, session_gap_ms: None, at })
    }
}
/// The columns of both sides of a join: whoever reads what failed there has to tell those of one name apart.
fn told_apart(scope: &Scope) -> Vec<Column> {
    let mut times = BTreeMap::new();
    scope.columns.iter().for_each(|(_, column)| *times.entry(&column.name).or_insert(0) += 1);
    let told = |(relation, column): &(String, Column)| {
        let mut told = column.clone();
        if times[&column.name] > 1 {
            told.name = format!("{relation}.{}", column.name);
        }
        told
    };
    scope.columns.iter().map(told).collect()
}

fn unshifted(expr: Expr, width: usize) -> Expr {
    match expr.kind {
        Kind::Column(index) => Expr { kind: Kind::Column(index + width), ..expr },
        Kind::Cast(inner, is_try) => {
            let inner = Box::new(unshifted(*inner, width));
            Expr { kind: Kind::Cast(inner, is_try), of: expr.of, at: expr.at }
        }
        _ => expr,
    }
}

/// Pairs of expressions that have to be equal, one over each side (the right one over the columns of
/// the right side alone), and what is left.
fn equalities(parts: Vec<Expr>, width: usize) -> (Vec<(Expr, Expr)>, Vec<Expr>) {
    let (mut pairs, mut rest) = (Vec::new(), Vec::new());
    for part in parts {
        match part.kind {
            Kind::Compare(Comparison::Equal, a, b) => match (side(&a, width), side(&b, width)) {
                (Some(false), Some(true)) if is_plain(&b) => pairs.push(key(*a, b.shifted(width))),
                (Some(true), Some(false)) if is_plain(&a) => pairs.push(key(*b, a.shifted(width))),
                _ => rest.push(Expr { kind: Kind::Compare(Comparison::Equal, a, b), ..part }),
            },
            kind => rest.push(Expr { kind, of: part.of, at: part.at }),
        }
    }
    (pairs, rest)
}

/// Keys have one type. A number that is too large for it is larger than all that the other side has, since that has
/// as many digits behind the point as the type: it is NULL, which matches nothing.
fn key(left: Expr, right: Expr) -> (Expr, Expr) {
    let of = left.of.common(right.of).unwrap_or(left.of);
    let fitted = |side: Expr| match &side.kind {
        Kind::Literal(Value::Null) => side.into_type(of),
        _ if side.of == of => side,
        _ => Expr { at: side.at, of, kind: Kind::Cast(Box::new(side), true) },
    };
    (fitted(left), fitted(right))
}

/// What is wrong with a pair that has a column of the primary key, but as another type.
fn other_type((left, right): &(Expr, Expr), index: usize) -> Option<Problem> {
    // A cast that was not written stands where its inner part does.
    let mut written = left;
    while let Kind::Cast(inner, _) = &written.kind
        && inner.at == written.at
    {
        written = inner;
    }
    let mut column = right;
    while let Kind::Cast(inner, _) = &column.kind {
        column = inner;
    }
    if column.kind != Kind::Column(index) {
        return None;
    }
    let found = format!("{} = a column of the PRIMARY KEY that is {}", written.of, column.of);
    let expected = format!("{} on both sides, by CAST or TRY_CAST of the other", column.of);
    Some(Problem::expected(left.at.min(column.at), found, expected))
}

/// A column, or one that was converted.
fn is_plain(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Column(_) => true,
        Kind::Cast(inner, _) => is_plain(inner),
        _ => false,
    }
}

/// Whether all columns are on the right. `None` if there is none, or if they are on both sides.
fn side(expr: &Expr, width: usize) -> Option<bool> {
    let (mut left, mut right) = (false, false);
    expr.columns(&mut |index| if index < width { left = true } else { right = true });
    (left != right).then_some(right)
}

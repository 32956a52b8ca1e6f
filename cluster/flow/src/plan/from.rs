//! `FROM`: streams, windows, joins.
//!
//! Windows are assigned as late as possible, so that a condition that does not ask for the window is
//! tested before a row is multiplied.

use super::bind::{Binder, Scope};
use super::expr::{Comparison, Expr, Kind};
use super::query::query_begin;
use super::written::{begin, interval, place};
use super::{Column, Joining, Operator, Planner, Readable, Role, Windows};
use crate::problem::{Position, Problem};
use crate::sql::cursor::position;
use crate::value::{Type, Value};
use sqlparser::ast::{
    FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart,
    TableAlias, TableFactor, TableWithJoins,
};
use std::collections::BTreeSet;

/// The most windows that a row may be in.
const WINDOWS_MAX: i64 = 1_000;

/// What a `SELECT` reads.
#[derive(Debug)]
pub struct Input {
    /// The operator whose rows it gets.
    pub node: usize,
    /// The columns, those of the windows included.
    pub scope: Scope,
    /// Windows that are still to be assigned.
    pub windows: Option<Windows>,
    /// Sessions, which are known only when rows are grouped.
    pub session_gap_ms: Option<i64>,
    /// Where it stands.
    pub at: Position,
}

/// A factor of a `FROM`: rows, or a table that can be joined.
enum Factor {
    Rows(Input),
    Table(usize, Scope),
}

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

fn window_columns() -> [Column; 2] {
    [("window_start", Role::WindowStart), ("window_end", Role::WindowEnd)]
        .map(|(name, role)| Column { name: name.to_owned(), of: Type::Timestamp, role })
}

/// Arguments without names.
fn plain<'e>(
    arguments: &'e [FunctionArg],
    at: Position,
    expected: &str,
) -> Result<Vec<&'e sqlparser::ast::Expr>, Problem> {
    let plain = arguments.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        other => Err(Problem::expected(at, format!("`{other}`"), expected)),
    });
    plain.collect()
}

/// Intervals in milliseconds, none of them nothing.
fn lengths(intervals: &[&sqlparser::ast::Expr]) -> Result<Vec<i64>, Problem> {
    let lengths = intervals.iter().map(|parsed| match interval(parsed)? {
        0 => {
            let expected = "a longer interval, of 1 MILLISECOND at least";
            Err(Problem::expected(begin(parsed), format!("`{parsed}`"), expected))
        }
        ms => Ok(ms),
    });
    lengths.collect()
}

fn hop(slide_ms: i64, size_ms: i64, at: Position) -> Result<Windows, Problem> {
    let found = format!("windows of {size_ms} ms that begin every {slide_ms} ms");
    if size_ms % slide_ms != 0 {
        let expected = "a size that is a whole multiple of the time between starts";
        return Err(Problem::expected(at, found, expected));
    }
    if size_ms / slide_ms > WINDOWS_MAX {
        let found = format!("{found}: a row in {} of them", size_ms / slide_ms);
        return Err(Problem::expected(at, found, format!("at most {WINDOWS_MAX}")));
    }
    Ok(Windows { size_ms, slide_ms })
}

/// Where a factor begins, without a look at all of it.
fn factor_begin(factor: &TableFactor) -> Position {
    match factor {
        TableFactor::Derived { subquery, .. } => query_begin(subquery),
        TableFactor::Table { name, .. } => place(name),
        other => place(other),
    }
}

/// A name of one part.
pub fn single(name: &ObjectName) -> Result<&str, Problem> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Ok(&name.value),
        _ => Err(Problem::expected(place(name), format!("`{name}`"), "a name of one part")),
    }
}

fn alias_of(alias: Option<&TableAlias>, name: &str) -> Result<String, Problem> {
    match alias {
        None => Ok(name.to_owned()),
        Some(alias) if alias.columns.is_empty() && alias.at.is_none() => {
            Ok(alias.name.value.clone())
        }
        Some(alias) => Err(Problem::expected(
            position(alias.name.span.start),
            format!("`{alias}`"),
            "a name alone",
        )),
    }
}

impl<'a> Planner<'a> {
    /// A whole `FROM`.
    pub fn from(&mut self, from: &[TableWithJoins], at: Position) -> Result<Input, Problem> {
        let [from] = from else {
            let found = format!("{} relations in FROM", from.len());
            return Err(Problem::expected(at, found, "one, and others behind JOIN"));
        };
        let mut input = match self.factor(&from.relation)? {
            Factor::Rows(input) => input,
            Factor::Table(_, scope) => {
                let name = scope.columns.first().map_or("", |(name, _)| name).to_owned();
                let found = format!("the table `{name}`");
                let expected = "a stream; a table can only be joined to one";
                return Err(Problem::expected(factor_begin(&from.relation), found, expected));
            }
        };
        for join in &from.joins {
            input = self.join(input, join)?;
        }
        Ok(input)
    }

    fn factor(&mut self, factor: &TableFactor) -> Result<Factor, Problem> {
        let at = factor_begin(factor);
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                // What else may stand there would be shown behind the name and the alias.
                let mut shown = name.to_string();
                if let Some(args) = args {
                    let args: Vec<String> = args.args.iter().map(ToString::to_string).collect();
                    shown += &format!("({})", args.join(", "));
                }
                let rest = factor.to_string();
                let alias_text = alias.as_ref().map(ToString::to_string).unwrap_or_default();
                let rest = rest.strip_prefix(&shown).unwrap_or_default();
                if rest.trim() != alias_text.trim() {
                    let found = format!("`{}`", rest.trim());
                    return Err(Problem::expected(at, found, "a name and an alias"));
                }
                let name_text = single(name)?;
                match args {
                    None => self.relation(name_text, alias.as_ref(), at),
                    Some(args) => {
                        self.windowed(name_text, &args.args, alias.as_ref(), at).map(Factor::Rows)
                    }
                }
            }
            TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None } => {
                let node = self.query(subquery)?;
                let name = alias_of(Some(alias), "")?;
                let scope = Scope::of(&name, &self.plan.nodes[node].columns);
                Ok(Factor::Rows(Input { node, scope, windows: None, session_gap_ms: None, at }))
            }
            _ => {
                let expected = "a stream, TUMBLE(...), HOP(...), SESSION(...), or a query in \
                                parentheses with an alias";
                Err(Problem::expected(at, format!("`{factor}`"), expected))
            }
        }
    }

    fn relation(
        &mut self,
        name: &str,
        alias: Option<&TableAlias>,
        at: Position,
    ) -> Result<Factor, Problem> {
        let alias = alias_of(alias, name)?;
        self.read.insert(name.to_owned());
        let (source, query) = match self.names.get(name) {
            Some(Readable::Source(source)) => (Some(*source), None),
            Some(Readable::Query(named)) => (None, Some(*named)),
            Some(Readable::Broken) => return Err(Problem::consequence(at)),
            None => {
                let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
                let expected = match known.is_empty() {
                    true => "a stream that was created above".to_owned(),
                    false => format!("one of {}", known.join(", ")),
                };
                return Err(Problem::expected(at, format!("`{name}`"), expected));
            }
        };
        let node = match (source, query) {
            (Some(source), _) => {
                let columns = self.plan.sources[source].columns();
                if self.plan.sources[source].primary.is_some() {
                    return Ok(Factor::Table(source, Scope::of(&alias, &columns)));
                }
                let reader = self.reader(source);
                self.node(Operator::Read { source, reader }, Vec::new(), columns, at)?
            }
            (None, Some(named)) => self.query(&named.query)?,
            (None, None) => return Err(Problem::expected(at, name, "a stream")),
        };
        let scope = Scope::of(&alias, &self.plan.nodes[node].columns);
        Ok(Factor::Rows(Input { node, scope, windows: None, session_gap_ms: None, at }))
    }

    /// `TUMBLE(stream, size)`, `HOP(stream, slide, size)` or `SESSION(stream, gap)`.
    fn windowed(
        &mut self,
        function: &str,
        arguments: &[FunctionArg],
        alias: Option<&TableAlias>,
        at: Position,
    ) -> Result<Input, Problem> {
        let upper = function.to_ascii_uppercase();
        let expected = match upper.as_str() {
            "TUMBLE" => "TUMBLE(stream, INTERVAL ...)",
            "HOP" => "HOP(stream, INTERVAL ... between starts, INTERVAL ... of a window)",
            "SESSION" => "SESSION(stream, INTERVAL ... without a row)",
            _ => {
                return Err(Problem::expected(
                    at,
                    format!("`{function}`"),
                    "TUMBLE, HOP or SESSION",
                ));
            }
        };
        let plain = plain(arguments, at, expected)?;
        let Some((sqlparser::ast::Expr::Identifier(name), intervals)) = plain.split_first() else {
            return Err(Problem::expected(at, format!("`{function}`"), expected));
        };
        let name_at = position(name.span.start);
        let Factor::Rows(mut input) = self.relation(&name.value, None, name_at)? else {
            return Err(Problem::expected(
                name_at,
                format!("the table `{}`", name.value),
                "a stream",
            ));
        };
        let alias = alias_of(alias, &name.value)?;
        input.scope.columns.iter_mut().for_each(|(of, _)| of.clone_from(&alias));
        self.need_time(input.node, at)?;
        if input.scope.window().is_some() {
            let expected =
                "a stream without windows; its rows can be grouped by the ones they have";
            return Err(Problem::expected(name_at, format!("`{}`", name.value), expected));
        }
        let lengths = lengths(intervals)?;
        let clash = input
            .scope
            .columns
            .iter()
            .find(|(_, column)| matches!(column.name.as_str(), "window_start" | "window_end"));
        if let Some((_, column)) = clash {
            let found = format!("a column `{}`", column.name);
            return Err(Problem::expected(
                name_at,
                found,
                "another name, which windows do not use",
            ));
        }
        match (upper.as_str(), lengths.as_slice()) {
            ("TUMBLE", [size]) => {
                input.windows = Some(Windows { size_ms: *size, slide_ms: *size });
            }
            ("HOP", [slide, size]) => input.windows = Some(hop(*slide, *size, at)?),
            ("SESSION", [gap]) => input.session_gap_ms = Some(*gap),
            _ => return Err(Problem::expected(at, format!("`{function}`"), expected)),
        }
        let columns = window_columns().into_iter().map(|column| (alias.clone(), column));
        input.scope.columns.extend(columns);
        Ok(input)
    }

    /// Everything that is read below has to have an event time.
    pub fn need_time(&self, node: usize, at: Position) -> Result<(), Problem> {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            open.extend(&self.plan.nodes[node].inputs);
            if let Operator::Read { source, .. } = self.plan.nodes[node].operator {
                let source = &self.plan.sources[source];
                if source.watermark.is_none() {
                    let found = format!("`{}`, which has no WATERMARK", source.name);
                    return Err(Problem::expected(at, found, "a stream with an event time"));
                }
            }
        }
        Ok(())
    }

    /// Assigns the windows that are still to be assigned.
    pub fn settle(&mut self, mut input: Input) -> Result<Input, Problem> {
        if let Some(windows) = input.windows.take() {
            let copies = self.copies(input.node).saturating_mul(windows.copies());
            if copies > WINDOWS_MAX {
                let found = format!("a row in {copies} windows of windows");
                return Err(Problem::expected(input.at, found, format!("at most {WINDOWS_MAX}")));
            }
            let columns = input.scope.columns.iter().map(|(_, column)| column.clone()).collect();
            let operator = Operator::Assign(windows);
            input.node = self.node(operator, vec![input.node], columns, input.at)?;
        }
        Ok(input)
    }

    fn join(&mut self, left: Input, join: &Join) -> Result<Input, Problem> {
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

    /// How often a row may be there, in several windows, since it was last kept or read.
    fn copies(&self, node: usize) -> i64 {
        let of = &self.plan.nodes[node];
        match &of.operator {
            Operator::Assign(windows) => self.copies(of.inputs[0]) * windows.copies(),
            Operator::Filter(_) | Operator::Project(_) | Operator::TableJoin { .. } => {
                self.copies(of.inputs[0])
            }
            _ => 1,
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
        let columns = scope.columns.iter().map(|(_, column)| column.clone()).collect();
        let node = self.node(operator, vec![left.node], columns, at)?;
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
        let columns = scope.columns.iter().map(|(_, column)| column.clone()).collect();
        let operator = Operator::WindowJoin { joining, left: left_window, right: right_window };
        let node = self.node(operator, vec![left.node, right.node], columns, at)?;
        Ok(Input { node, scope, windows: None, session_gap_ms: None, at })
    }
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

/// Splits a condition into what needs no window and the rest, and filters by the first.
impl Planner<'_> {
    /// `WHERE`: before windows are assigned as far as it does not ask for them.
    pub fn filter(&mut self, input: Input, condition: Option<Expr>) -> Result<Input, Problem> {
        let mut parts = Vec::new();
        if let Some(condition) = condition {
            condition.conjuncts(&mut parts);
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let waits = input.windows.is_some() || input.session_gap_ms.is_some();
        let width = input.scope.columns.len() - if waits { 2 } else { 0 };
        for part in parts {
            let mut waits = false;
            part.columns(&mut |index| waits |= index >= width);
            // What stands on the left may keep rows away that have no value on the right, and is looked at first.
            let may_fail = |part: &Expr| part.may_fail();
            waits |= !after.is_empty() && (part.may_fail() || after.iter().any(may_fail));
            if waits { after.push(part) } else { before.push(part) }
        }
        if let (Some(part), true) = (after.first(), input.session_gap_ms.is_some()) {
            let expected = "HAVING: where a session ends is known only then";
            return Err(Problem::expected(part.at, "a session's window in WHERE", expected));
        }
        let mut input = input;
        if let Some(condition) = Expr::all(before) {
            let columns = self.plan.nodes[input.node].columns.clone();
            input.node =
                self.node(Operator::Filter(condition), vec![input.node], columns, input.at)?;
        }
        let mut input = self.settle(input)?;
        if let Some(condition) = Expr::all(after) {
            let columns = self.plan.nodes[input.node].columns.clone();
            let at = condition.at;
            input.node = self.node(Operator::Filter(condition), vec![input.node], columns, at)?;
        }
        Ok(input)
    }
}

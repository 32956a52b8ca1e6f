//! `FROM`: streams and windows.
//!
//! Windows are assigned as late as possible, so that a condition that does not ask for the window is
//! tested before a row is multiplied.

use super::bind::Scope;
use super::expr::Expr;
use super::query::query_begin;
use super::written::{begin, interval, place};
use super::{Column, Operator, Planner, Readable, Role, Windows};
use crate::problem::{Position, Problem};
use crate::sql::cursor::position;
use crate::value::Type;
use sqlparser::ast::{
    FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, TableAlias, TableFactor,
    TableWithJoins,
};

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
pub(super) enum Factor {
    Rows(Input),
    Table(usize, Scope),
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
pub(super) fn factor_begin(factor: &TableFactor) -> Position {
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

    pub(super) fn factor(&mut self, factor: &TableFactor) -> Result<Factor, Problem> {
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

    /// How often a row may be there, in several windows, since it was last kept or read.
    pub(super) fn copies(&self, node: usize) -> i64 {
        let of = &self.plan.nodes[node];
        match &of.operator {
            Operator::Assign(windows) => self.copies(of.inputs[0]) * windows.copies(),
            Operator::Filter(_) | Operator::Project(_) | Operator::TableJoin { .. } => {
                self.copies(of.inputs[0])
            }
            _ => 1,
        }
    }
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

//! `SELECT`: from a parsed query to operators.
//!
//! Invariant: a part of the grammar that is not understood is refused here; nothing is left out.

use super::bind::{Binder, Grouped, Scope};
use super::calls::fold;
use super::expr::{Expr, Kind};
use super::from::Input;
use super::written::{begin, place};
use super::{Aggregate, Column, Grouping, Operator, Planner, Role};
use crate::problem::{Position, Problem};
use crate::sql::cursor::position;
use crate::value::{Type, Value};
use sqlparser::ast::{
    Expr as Parsed, GroupByExpr, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr,
};
use std::collections::BTreeSet;

/// Parts of a query that there are in other dialects.
fn unsupported(query: &Query) -> Option<&'static str> {
    let parts = [
        (query.with.is_some(), "WITH"),
        (query.order_by.is_some(), "ORDER BY"),
        (query.limit_clause.is_some(), "LIMIT"),
        (query.fetch.is_some(), "FETCH"),
        (!query.locks.is_empty(), "FOR UPDATE"),
        (query.for_clause.is_some(), "FOR"),
        (query.settings.is_some(), "SETTINGS"),
        (query.format_clause.is_some(), "FORMAT"),
        (!query.pipe_operators.is_empty(), "|>"),
    ];
    parts.iter().find(|(is_there, _)| *is_there).map(|(_, name)| *name)
}

/// Parts of a `SELECT` that there are in other dialects.
fn unsupported_select(select: &Select) -> Option<&'static str> {
    let parts = [
        (select.distinct.is_some(), "DISTINCT"),
        (select.top.is_some(), "TOP"),
        (select.into.is_some(), "INTO"),
        (select.exclude.is_some(), "EXCLUDE"),
        (!select.lateral_views.is_empty(), "LATERAL VIEW"),
        (select.prewhere.is_some(), "PREWHERE"),
        (!select.connect_by.is_empty(), "CONNECT BY"),
        (!select.cluster_by.is_empty(), "CLUSTER BY"),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
        (!select.sort_by.is_empty(), "SORT BY"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.qualify.is_some(), "QUALIFY"),
        (select.value_table_mode.is_some(), "AS STRUCT"),
        (select.select_modifiers.is_some(), "a modifier"),
        (!select.optimizer_hints.is_empty(), "a hint"),
    ];
    parts.iter().find(|(is_there, _)| *is_there).map(|(_, name)| *name)
}

/// Where a query begins, without a look at all of it.
pub fn query_begin(query: &Query) -> Position {
    match &*query.body {
        SetExpr::Select(select) => position(select.select_token.0.span.start),
        _ => place(query),
    }
}

const CLAUSES: &str = "SELECT, FROM, JOIN, WHERE, GROUP BY and HAVING only";

impl Planner<'_> {
    /// A whole query.
    pub fn query(&mut self, query: &Query) -> Result<usize, Problem> {
        let at = query_begin(query);
        if let Some(found) = unsupported(query) {
            return Err(Problem::expected(at, format!("a query with {found}"), CLAUSES));
        }
        match &*query.body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { op, .. } => {
                let expected = "a SELECT; two INSERT INTO TOPIC can go to one topic";
                Err(Problem::expected(at, format!("{op}"), expected))
            }
            _ => Err(Problem::expected(at, "another query", "SELECT")),
        }
    }

    fn select(&mut self, select: &Select) -> Result<usize, Problem> {
        let at = position(select.select_token.0.span.start);
        if let Some(found) = unsupported_select(select) {
            return Err(Problem::expected(at, format!("a SELECT with {found}"), CLAUSES));
        }
        let input = self.from(&select.from, at)?;
        let condition = select
            .selection
            .as_ref()
            .map(|condition| Binder::new(&input.scope).condition(condition));
        let input = self.filter(input, condition.transpose()?)?;
        let GroupByExpr::Expressions(keys, modifiers) = &select.group_by else {
            return Err(Problem::expected(at, "GROUP BY ALL", "GROUP BY and columns"));
        };
        if !modifiers.is_empty() {
            return Err(Problem::expected(at, "GROUP BY with a modifier", "GROUP BY and columns"));
        }
        if keys.is_empty() && !asks_for_groups(select) {
            if let Some(having) = &select.having {
                return Err(Problem::expected(begin(having), "HAVING", "GROUP BY before it"));
            }
            return self.plain(select, input, at);
        }
        self.grouped(select, keys, input, at)
    }

    fn plain(&mut self, select: &Select, input: Input, at: Position) -> Result<usize, Problem> {
        if input.session_gap_ms.is_some() {
            return Err(Problem::expected(at, "SESSION without GROUP BY", "GROUP BY"));
        }
        let mut binder = Binder::new(&input.scope);
        let mut items = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                    items.extend(wildcard(item, &input.scope, at)?);
                }
                item => items.push(named(item, |parsed| binder.bind(parsed))?),
            }
        }
        let role = |expr: &Expr| match expr.kind {
            Kind::Column(index) => input.scope.columns[index].1.role,
            _ => Role::Plain,
        };
        let columns = columns(&items, role, at)?;
        let exprs = items.into_iter().map(|(_, expr)| expr).collect();
        self.node(Operator::Project(exprs), vec![input.node], columns, at)
    }

    fn grouped(
        &mut self,
        select: &Select,
        keys: &[Parsed],
        input: Input,
        at: Position,
    ) -> Result<usize, Problem> {
        let window = input.scope.window();
        let mut bound = bound_keys(keys, &input.scope)?;
        let expected = "window_start and window_end in GROUP BY, of a stream in TUMBLE, HOP or SESSION; \
                        without them a group would never end";
        let find = |index: usize| bound.iter().position(|key| key.kind == Kind::Column(index));
        let found = window.and_then(|(start, end)| Some((find(start)?, find(end)?)));
        let Some((start, end)) = found else {
            return Err(Problem::expected(at, "a GROUP BY without a window", expected));
        };
        self.need_time(input.node, at)?;
        if input.session_gap_ms.is_some() {
            let width = input.scope.columns.len() - 2;
            for (index, key) in bound.iter_mut().enumerate() {
                let mut asks = false;
                key.columns(&mut |column| asks |= column >= width);
                if asks && index != start && index != end {
                    let expected = "other keys without window_start and window_end";
                    return Err(Problem::expected(
                        key.at,
                        "a key over a session's window",
                        expected,
                    ));
                }
            }
        }
        let mut grouped = Grouped { keys: bound, aggregates: Vec::new() };
        let mut items = Vec::new();
        for item in &select.projection {
            let mut binder = Binder::grouped(&input.scope, &mut grouped);
            items.push(named(item, |parsed| binder.bind(parsed))?);
        }
        let having = select.having.as_ref();
        let having = having.map(|h| Binder::grouped(&input.scope, &mut grouped).condition(h));
        let having = having.transpose()?;
        let Grouped { keys, aggregates } = grouped;
        let columns_of_group =
            group_columns((&keys, &aggregates), (start, end), &input.scope, &items);
        let keys = session_keys(keys, (start, end), input.session_gap_ms.is_some());
        let session_gap_ms = input.session_gap_ms;
        for aggregate in &aggregates {
            self.check_argument(aggregate.argument.as_ref(), &input)?;
        }
        let grouping = Grouping { keys, start, end, session_gap_ms, aggregates };
        let group = Operator::Group(grouping);
        let mut node = self.node(group, vec![input.node], columns_of_group.clone(), at)?;
        if let Some(having) = having {
            let at = having.at;
            let filter = Operator::Filter(having);
            node = self.node(filter, vec![node], columns_of_group.clone(), at)?;
        }
        let role = |expr: &Expr| match expr.kind {
            Kind::Column(index) => columns_of_group[index].role,
            _ => Role::Plain,
        };
        let columns = columns(&items, role, at)?;
        let exprs = items.into_iter().map(|(_, expr)| expr).collect();
        self.node(Operator::Project(exprs), vec![node], columns, at)
    }

    /// A session's window is not known while its rows come in.
    fn check_argument(&self, argument: Option<&Expr>, input: &Input) -> Result<(), Problem> {
        let (Some(argument), Some(_)) = (argument, input.session_gap_ms) else { return Ok(()) };
        let width = input.scope.columns.len() - 2;
        let mut asks = false;
        argument.columns(&mut |column| asks |= column >= width);
        if asks {
            let expected = "an argument without window_start and window_end";
            return Err(Problem::expected(
                argument.at,
                "an aggregate over a session's window",
                expected,
            ));
        }
        Ok(())
    }
}

/// What stands in a `GROUP BY`.
fn bound_keys(keys: &[Parsed], scope: &Scope) -> Result<Vec<Expr>, Problem> {
    let mut bound = Vec::new();
    for key in keys {
        let key = Binder::new(scope).bind(key)?;
        if matches!(key.kind, Kind::Literal(_)) {
            let expected = "a column, or an expression over columns; a number names no column here";
            return Err(Problem::expected(
                key.at,
                "a group by something that is always the same",
                expected,
            ));
        }
        if !key.of.is_ordered() {
            return Err(Problem::expected(key.at, key.of, "a type that can be compared"));
        }
        bound.push(if key.of == Type::Null { key.into_type(Type::Boolean) } else { key });
    }
    Ok(bound)
}

/// The columns of groups: the keys, and behind them the aggregates. A bad result shows them, so they have the names
/// under which they are selected, or read.
fn group_columns(
    (keys, aggregates): (&[Expr], &[Aggregate]),
    (start, end): (usize, usize),
    scope: &Scope,
    items: &[(String, Expr)],
) -> Vec<Column> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut name_of = |at: usize, read: Option<&String>, or: String| {
        let selected = items.iter().find(|(_, item)| item.kind == Kind::Column(at));
        let mut names = selected.map(|(name, _)| name).into_iter().chain(read).cloned();
        // The last one is one of a kind.
        let name = names.find(|name| !taken.contains(name)).unwrap_or(or);
        taken.insert(name.clone());
        name
    };
    let mut columns = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let role = match index {
            index if index == start => Role::WindowStart,
            index if index == end => Role::WindowEnd,
            _ => Role::Plain,
        };
        let read = match key.kind {
            Kind::Column(at) => scope.columns.get(at).map(|(_, column)| &column.name),
            _ => None,
        };
        let name = name_of(index, read, format!("key {}", index + 1));
        columns.push(Column { name, of: key.of, role });
    }
    for (index, aggregate) in aggregates.iter().enumerate() {
        let name = name_of(keys.len() + index, None, format!("aggregate {}", index + 1));
        columns.push(Column { name, of: aggregate.of, role: Role::Plain });
    }
    columns
}

/// Start and end of a session are filled in when it is over.
fn session_keys(mut keys: Vec<Expr>, (start, end): (usize, usize), is_session: bool) -> Vec<Expr> {
    for index in [start, end].into_iter().filter(|_| is_session) {
        keys[index] = Expr::literal(Value::Null, Type::Timestamp, keys[index].at);
    }
    keys
}

/// Whether there is an aggregate function anywhere in the columns or in `HAVING`.
fn asks_for_groups(select: &Select) -> bool {
    let is_aggregate = |parsed: &Parsed| match parsed {
        // What stands with OVER is refused for that.
        Parsed::Function(called) => {
            called.over.is_none() && fold(&called.name.to_string()).is_some()
        }
        _ => false,
    };
    // An aggregate deeper in an expression is refused when it is read.
    select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            is_aggregate(expr)
        }
        _ => false,
    })
}

/// An expression with its name.
fn named(
    item: &SelectItem,
    bind: impl FnOnce(&Parsed) -> Result<Expr, Problem>,
) -> Result<(String, Expr), Problem> {
    let (name, parsed) = match item {
        SelectItem::ExprWithAlias { expr, alias } => (Some(alias.value.clone()), expr),
        SelectItem::UnnamedExpr(expr) => match expr {
            Parsed::Identifier(name) => (Some(name.value.clone()), expr),
            Parsed::CompoundIdentifier(names) => (names.last().map(|n| n.value.clone()), expr),
            _ => (None, expr),
        },
        _ => {
            let expected = "an expression with AS and a name";
            return Err(Problem::expected(place(item), format!("`{item}`"), expected));
        }
    };
    let expr = bind(parsed)?;
    let Some(name) = name else {
        let expected = "AS and a name behind it";
        return Err(Problem::expected(expr.at, format!("`{parsed}`"), expected));
    };
    if expr.of == Type::Null {
        return Err(Problem::expected(
            expr.at,
            "NULL",
            "a value with a type, like CAST(NULL AS ...)",
        ));
    }
    Ok((name, expr))
}

/// All columns, or those of one relation.
fn wildcard(
    item: &SelectItem,
    scope: &Scope,
    at: Position,
) -> Result<Vec<(String, Expr)>, Problem> {
    let (relation, options) = match item {
        SelectItem::Wildcard(options) => (None, options),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), options) => {
            (Some(super::from::single(of)?), options)
        }
        _ => return Err(Problem::expected(at, format!("`{item}`"), "`*` or relation.*")),
    };
    let is_plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none();
    if !is_plain {
        return Err(Problem::expected(at, format!("`{item}`"), "`*` and nothing else"));
    }
    let columns = scope.columns.iter().enumerate();
    let columns = columns.filter(|(_, (of, _))| relation.is_none_or(|relation| relation == of));
    let items: Vec<(String, Expr)> = columns
        .map(|(index, (_, column))| (column.name.clone(), Expr::column(index, column.of, at)))
        .collect();
    match items.is_empty() {
        true => Err(Problem::expected(at, format!("`{item}`"), "a relation of the FROM")),
        false => Ok(items),
    }
}

/// The columns of a projection; no two have one name.
fn columns(
    items: &[(String, Expr)],
    role: impl Fn(&Expr) -> Role,
    at: Position,
) -> Result<Vec<Column>, Problem> {
    let mut columns: Vec<Column> = Vec::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (name, expr) in items {
        let role = match role(expr) {
            Role::Plain => Role::Plain,
            role if columns.iter().any(|column| column.role == role) => Role::Plain,
            role => role,
        };
        if !names.insert(name) {
            let at = if expr.at == Position::default() { at } else { expr.at };
            let found = format!("a second column `{name}`");
            return Err(Problem::expected(at, found, "AS and another name"));
        }
        columns.push(Column { name: name.clone(), of: expr.of, role });
    }
    Ok(columns)
}

//! The plan of a pipeline: sources, a tree of operators for each output, and the tests of the file.
//!
//! | module | what |
//! |---|---|
//! | [`expr`] | expressions with types |
//! | [`functions`] | the functions there are, and what they take |
//! | [`bind`], [`calls`] | from parsed expressions to typed ones |
//! | [`written`], [`numbers`] | values and types as they are written, and what is computed of numbers |
//! | [`source`] | topics as streams and tables |
//! | [`query`], [`from`] | from parsed queries to operators |
//! | `patterns` | regular expressions |
//! | `effort` | how much is planned for one file |
//! | [`picture`] | the plan for people |
//! | `shape` | what its state depends on |
//! | [`order`] | which query is which |
//!
//! Nodes lie in one list, inputs before the node that they feed, and each feeds one other node: a named
//! query that is read twice is planned twice. So every record has one way from where it is read, and
//! one fate there.
//!
//! Invariant: a plan has no unknown name and no type error left.

pub mod bind;
mod calls;
mod effort;
pub mod expr;
pub mod from;
pub mod functions;
mod join;
mod numbers;
pub mod order;
mod patterns;
pub mod picture;
pub mod query;
mod shape;
pub mod source;
pub mod written;

use crate::problem::{Position, Problem};
use crate::sql::Statements;
use crate::sql::cursor::Name;
use crate::sql::fixture::Fixture;
use crate::sql::statement::{Late, Named, OnError, Statement};
use crate::value::Type;
use effort::spend;
use expr::Expr;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The most operators of a pipeline.
const NODES_MAX: usize = 1_000;

/// What a column says about the window of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    Plain,
    /// The first moment of the window.
    WindowStart,
    /// The first moment behind the window.
    WindowEnd,
}

/// A column of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub of: Type,
    /// What it says about the window.
    pub role: Role,
}

/// How rows get into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How long a window is, in milliseconds.
    pub size_ms: i64,
    /// How far apart windows begin, in milliseconds.
    pub slide_ms: i64,
}

impl Windows {
    /// In how many of them a row is.
    pub fn copies(self) -> i64 {
        self.size_ms / self.slide_ms
    }
}

/// What is made of the rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// How many rows, or how many values that are not NULL.
    Count,
    /// The sum.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The mean.
    Avg,
    /// The value of the earliest row.
    First,
    /// The value of the latest row.
    Last,
}

/// An aggregate function with its argument.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which one.
    pub fold: Fold,
    /// Its argument; `COUNT(*)` has none.
    pub argument: Option<Expr>,
    /// The type of the result.
    pub of: Type,
    /// Where it stands.
    pub at: Position,
}

/// Rows of a group become one row.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// What the group is made of; two of them are the window.
    pub keys: Vec<Expr>,
    /// Which key is the start of the window.
    pub start: usize,
    /// Which key is its end.
    pub end: usize,
    /// For sessions, how long nothing happens between two; their start and end come out of the rows.
    pub session_gap_ms: Option<i64>,
    /// What is computed.
    pub aggregates: Vec<Aggregate>,
}

/// Two inputs become one.
#[derive(Clone, Debug)]
pub struct Joining {
    /// What has to be equal, on the left.
    pub left_keys: Vec<Expr>,
    /// What has to be equal, on the right.
    pub right_keys: Vec<Expr>,
    /// What else has to hold, over the columns of both.
    pub condition: Option<Expr>,
    /// Whether a row on the left without a partner stays, with NULLs.
    pub keeps_left: bool,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Operator {
    /// Takes the rows of a stream.
    Read {
        /// Which source.
        source: usize,
        /// Which reader of the pipeline it is.
        reader: u32,
    },
    /// Lets rows pass for which a condition is TRUE.
    Filter(Expr),
    /// Computes columns.
    Project(Vec<Expr>),
    /// Puts each row into its windows: two more columns.
    Assign(Windows),
    /// Groups rows.
    Group(Grouping),
    /// Adds the latest row of a table as of the time of a row.
    TableJoin {
        /// Which source the table is.
        table: usize,
        /// Which reader of the pipeline it is.
        reader: u32,
        /// How.
        joining: Joining,
    },
    /// Joins rows of the same window; with the columns of the window's start and end on both sides.
    WindowJoin {
        /// How.
        joining: Joining,
        /// Start and end on the left.
        left: (usize, usize),
        /// Start and end on the right.
        right: (usize, usize),
    },
    /// Writes rows to a topic.
    Sink {
        /// The topic.
        topic: String,
        /// Which column is the key of the records.
        key: Option<usize>,
    },
}

/// An operator at its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub operator: Operator,
    /// Whose rows it gets, the left one first.
    pub inputs: Vec<usize>,
    /// What its rows hold.
    pub columns: Vec<Column>,
    /// Where the query stands.
    pub at: Position,
    /// The source whose rule holds for rows that cannot be computed.
    pub rule: usize,
    /// Whether rows wait in it for their time.
    pub uses_time: bool,
}

/// A pipeline that can be run.
#[derive(Debug, Default)]
pub struct Plan {
    /// The topics that are read, as streams and tables.
    pub sources: Vec<Source>,
    /// The operators.
    pub nodes: Vec<Node>,
    /// The source of each reader.
    pub readers: Vec<usize>,
    /// The tests.
    pub fixtures: Vec<Fixture>,
    /// Whether the file has regular expressions: a row may take long.
    pub has_patterns: bool,
}

/// Something that a query can read.
enum Readable<'a> {
    Source(usize),
    Query(&'a Named),
    /// Something that has a mistake, which is told where it is.
    Broken,
}

/// What is under way while a plan is made.
pub struct Planner<'a> {
    plan: Plan,
    names: BTreeMap<String, Readable<'a>>,
    /// The names that a query has read.
    read: BTreeSet<String>,
}

/// Makes the plan of a file, or finds everything that is wrong with it.
///
/// # Errors
/// All problems, in the order of the file.
pub fn plan(text: &str) -> Result<Plan, Vec<Problem>> {
    let Statements { read: statements, mut problems, broken } = crate::sql::statements(text);
    let patterns = patterns::Patterns::begin();
    let effort = effort::Effort::begin();
    let names = broken.into_iter().map(|name| (name, Readable::Broken)).collect();
    let mut planner = Planner { plan: Plan::default(), names, read: BTreeSet::new() };
    for statement in &statements {
        let (result, name) = match statement {
            Statement::Source(source) => (planner.source(source), Some(&source.name)),
            Statement::Query(named) => (planner.named(named), named.name.as_ref()),
            Statement::Test(_) => (Ok(()), None),
        };
        if let Err(problem) = result {
            if let Some(name) = name {
                planner.names.entry(name.text.clone()).or_insert(Readable::Broken);
            }
            problems.push(problem);
        }
        if effort.is_spent() {
            break;
        }
    }
    // Whatever a broken statement was to define would be missing everywhere else.
    if problems.is_empty() {
        problems.extend(planner.unread(&statements));
        problems.extend(planner.topics(&statements));
        let fixtures = statements.iter().filter_map(|statement| match statement {
            Statement::Test(fixture) => Some(fixture),
            _ => None,
        });
        for fixture in fixtures {
            problems.extend(planner.inputs(fixture));
        }
    }
    problems.retain(|problem| !problem.is_consequence());
    problems.sort();
    problems.dedup();
    let mut plan = planner.plan;
    plan.has_patterns = patterns.are_any();
    plan.fixtures.extend(statements.into_iter().filter_map(|statement| match statement {
        Statement::Test(fixture) => Some(fixture),
        _ => None,
    }));
    if problems.is_empty() { Ok(plan.in_order()) } else { Err(problems) }
}

impl<'a> Planner<'a> {
    fn define(&mut self, name: &Name, what: Readable<'a>) -> Result<(), Problem> {
        if matches!(self.names.get(&name.text), Some(Readable::Broken)) {
            return Err(Problem::consequence(name.at));
        }
        if self.names.contains_key(&name.text) {
            let found = format!("a second `{}`", name.text);
            return Err(Problem::expected(name.at, found, "a name that is not taken"));
        }
        self.names.insert(name.text.clone(), what);
        Ok(())
    }

    fn source(&mut self, written: &crate::sql::statement::Source) -> Result<(), Problem> {
        let source = source::source(written)?;
        let checks: usize = source.checks.iter().map(Expr::effort).sum();
        spend(source.columns.len() + checks, || source.at)?;
        self.define(&written.name, Readable::Source(self.plan.sources.len()))?;
        self.plan.sources.push(source);
        Ok(())
    }

    fn named(&mut self, named: &'a Named) -> Result<(), Problem> {
        match &named.topic {
            // It is looked at even if nobody reads it, and the operators are thrown away.
            None => {
                let nodes = self.plan.nodes.len();
                let readers = self.plan.readers.len();
                self.query(&named.query)?;
                self.plan.nodes.truncate(nodes);
                self.plan.readers.truncate(readers);
            }
            Some(topic) => {
                let input = self.query(&named.query)?;
                let columns = self.plan.nodes[input].columns.clone();
                let key = match &named.key {
                    None => None,
                    Some(key) => {
                        let found = columns.iter().position(|column| column.name == key.text);
                        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                        let found = found.ok_or_else(|| {
                            let expected = format!("one of the columns {}", names.join(", "));
                            Problem::expected(key.at, format!("`{}`", key.text), expected)
                        });
                        Some(found?)
                    }
                };
                let operator = Operator::Sink { topic: topic.text.clone(), key };
                self.node(operator, vec![input], columns, topic.at)?;
            }
        }
        match &named.name {
            Some(name) => self.define(name, Readable::Query(named)),
            None => Ok(()),
        }
    }

    /// Adds an operator.
    fn node(
        &mut self,
        operator: Operator,
        inputs: Vec<usize>,
        columns: Vec<Column>,
        at: Position,
    ) -> Result<usize, Problem> {
        if self.plan.nodes.len() >= NODES_MAX {
            return Err(Problem::expected(
                at,
                "more operators",
                format!("at most {NODES_MAX}; a named query counts wherever it is read"),
            ));
        }
        spend(1 + columns.len() + operator.effort(), || at)?;
        let rule = match &operator {
            Operator::Read { source, .. } => *source,
            _ => self.plan.nodes[inputs[0]].rule,
        };
        let uses_time = matches!(
            operator,
            Operator::Group(_) | Operator::TableJoin { .. } | Operator::WindowJoin { .. }
        );
        self.plan.nodes.push(Node { operator, inputs, columns, at, rule, uses_time });
        Ok(self.plan.nodes.len() - 1)
    }

    fn reader(&mut self, source: usize) -> u32 {
        self.plan.readers.push(source);
        (self.plan.readers.len() - 1) as u32
    }

    /// What nobody reads is a mistake, most likely in a name. Since names are used only below where they are created,
    /// each row of queries that comes to no output ends with one that nobody reads, and that one is told.
    fn unread(&self, statements: &[Statement]) -> Vec<Problem> {
        let is_output = |statement: &Statement| matches!(statement, Statement::Query(named) if named.topic.is_some());
        if !statements.iter().any(is_output) {
            let at = Position { line: 1, column: 1 };
            let expected = "a query that goes to a topic: INSERT INTO TOPIC or TO TOPIC";
            return vec![Problem::expected(at, "no output", expected)];
        }
        let names = statements.iter().filter_map(|statement| match statement {
            Statement::Source(source) => Some(&source.name),
            Statement::Query(named) if named.topic.is_none() => named.name.as_ref(),
            Statement::Query(_) | Statement::Test(_) => None,
        });
        let unread = names.filter(|name| !self.read.contains(&name.text));
        let problem = |name: &Name| {
            let found = format!("`{}`, which no output reads", name.text);
            Problem::expected(name.at, found, "a query that reads it")
        };
        unread.map(problem).collect()
    }

    /// What no site takes: an output that is an input of the same file.
    fn topics(&self, statements: &[Statement]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let read: BTreeSet<&str> = self.plan.sources.iter().map(|s| s.topic.as_str()).collect();
        for statement in statements {
            let (reads, writes) = match statement {
                Statement::Source(source) => {
                    let dead = match &source.on_error {
                        Some(OnError::DeadLetter(topic)) => Some(topic),
                        _ => None,
                    };
                    let late = match &source.late {
                        Some(Late::To(topic)) => Some(topic),
                        _ => None,
                    };
                    (Some(&source.topic), [dead, late])
                }
                Statement::Query(named) => (None, [named.topic.as_ref(), None]),
                Statement::Test(_) => (None, [None, None]),
            };
            for (topic, is_written) in reads
                .map(|topic| (topic, false))
                .into_iter()
                .chain(writes.into_iter().flatten().map(|topic| (topic, true)))
            {
                let text = topic.text.as_str();
                if is_written && read.contains(text) {
                    let found = format!("`{text}`, which is read");
                    let expected = "another topic; a pipeline does not read what it writes";
                    problems.push(Problem::expected(topic.at, found, expected));
                }
            }
        }
        problems
    }

    /// The topics of a test have to be those of the file.
    fn inputs(&self, fixture: &Fixture) -> Vec<Problem> {
        let read: BTreeSet<&str> = self.plan.sources.iter().map(|s| s.topic.as_str()).collect();
        let written = self.plan.written();
        let unknown = |name: &Name, known: &BTreeSet<&str>| {
            let known: Vec<&str> = known.iter().copied().collect();
            let is_known = known.contains(&name.text.as_str());
            let expected = format!("one of the topics {}", known.join(", "));
            (!is_known).then(|| Problem::expected(name.at, format!("`{}`", name.text), expected))
        };
        let mut problems: Vec<Problem> = Vec::new();
        for step in &fixture.steps {
            match step {
                crate::sql::fixture::Step::Input(input) => {
                    problems.extend(unknown(&input.topic, &read));
                }
                crate::sql::fixture::Step::Epoch(Some(after)) => {
                    problems.extend(written::interval(after).err());
                }
                crate::sql::fixture::Step::Epoch(None) => {}
            }
        }
        let expected = fixture.expected.iter();
        problems.extend(expected.filter_map(|e| unknown(&e.topic, &written)));
        problems
    }
}

impl Operator {
    /// How much it takes to make a plan of its expressions.
    fn effort(&self) -> usize {
        let all = |exprs: &[Expr]| exprs.iter().map(Expr::effort).sum::<usize>();
        let joining = |joining: &Joining| {
            let condition = joining.condition.as_ref().map_or(0, Expr::effort);
            all(&joining.left_keys) + all(&joining.right_keys) + condition
        };
        match self {
            Self::Filter(condition) => condition.effort(),
            Self::Project(exprs) => all(exprs),
            Self::Group(grouping) => {
                let arguments = grouping.aggregates.iter().filter_map(|a| a.argument.as_ref());
                all(&grouping.keys) + arguments.map(Expr::effort).sum::<usize>()
            }
            Self::TableJoin { joining: of, .. } | Self::WindowJoin { joining: of, .. } => {
                joining(of)
            }
            Self::Read { .. } | Self::Assign(_) | Self::Sink { .. } => 0,
        }
    }
}

impl Plan {
    /// The topics that it writes to, those of late and bad records included.
    pub fn written(&self) -> BTreeSet<&str> {
        let sinks = self.nodes.iter().filter_map(|node| match &node.operator {
            Operator::Sink { topic, .. } => Some(topic.as_str()),
            _ => None,
        });
        let beside = self.sources.iter().flat_map(Source::beside);
        sinks.chain(beside).collect()
    }

    /// The topics of its dead letters.
    pub fn dead_letters(&self) -> BTreeSet<&str> {
        self.sources.iter().filter_map(Source::dead_letters).collect()
    }

    /// The topics that it reads.
    pub fn read(&self) -> BTreeSet<&str> {
        self.sources.iter().map(|source| source.topic.as_str()).collect()
    }

    /// For each node, whether its rows come out of a join of streams, without a group in between.
    pub fn behind_joins(&self) -> Vec<bool> {
        let mut behind = vec![false; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            behind[at] = node.inputs.iter().any(|input| match self.nodes[*input].operator {
                Operator::WindowJoin { .. } => true,
                Operator::Group(_) => false,
                _ => behind[*input],
            });
        }
        behind
    }

    /// For each node, in how many windows at most a row is there since it was last kept or read.
    pub fn copies(&self) -> Vec<usize> {
        let mut copies: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let of_input =
                node.inputs.first().map_or(1, |input| match &self.nodes[*input].operator {
                    Operator::Assign(windows) => {
                        let more = usize::try_from(windows.copies()).unwrap_or(usize::MAX);
                        copies[*input].saturating_mul(more)
                    }
                    Operator::Filter(_) | Operator::Project(_) => copies[*input],
                    _ => 1,
                });
            copies.push(of_input);
        }
        copies
    }

    /// For each node the one that it feeds, and on which side.
    pub fn consumers(&self) -> Vec<Option<(usize, usize)>> {
        let mut consumers = vec![None; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            for (side, input) in node.inputs.iter().enumerate() {
                assert!(*input < at, "node {at} gets rows of node {input}, which comes later");
                assert_eq!(consumers[*input], None, "node {input} feeds two nodes");
                consumers[*input] = Some((at, side));
            }
        }
        consumers
    }
}

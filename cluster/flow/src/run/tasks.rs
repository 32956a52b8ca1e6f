//! The tasks of a plan: which subtasks there are, and the channels between them.
//!
//! ```text
//!   intake ──filter──┬─▶ group 0 ──┐
//!            (by key)├─▶ group 1 ──┼─▶ exchange ──project──▶ sink
//!                    └─▶ group 2 ──┘  (in order)
//! ```
//!
//! A task is a node that keeps something or writes, and one for all sources, the *intake*: its records come in
//! one order. Nodes that keep nothing have no task of their own and ride with what comes before them. A
//! task that keeps something has as many subtasks as was said. What comes out of several is put into one order
//! by an *exchange*, which aligns their barriers; so operators behind it are the same as behind one.
//!
//! Subtasks are numbered from the sources down: one with a higher number never feeds one with a lower number.

use super::channel::{Barrier, Channel, Rank};
use super::exchange::Outlet;
use super::record::Row;
use crate::plan::{Operator, Plan};
use std::collections::{BTreeSet, VecDeque};

/// How the work of a pipeline is cut. What comes out does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Subtasks of each task that keeps something.
    pub subtasks: usize,
    /// Rows that a channel holds before whoever writes to it has to wait. It may hold more by what comes out of
    /// one step: a row may be in a thousand windows.
    pub channel_rows: usize,
    /// Who works next is drawn with this seed; none: whoever is nearest to the sinks.
    pub order: Option<u64>,
}

impl Default for Layout {
    fn default() -> Self {
        Self { subtasks: 1, channel_rows: 1_024, order: None }
    }
}

/// What a subtask is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All sources.
    Intake,
    /// A share of an operator that keeps something.
    Keeping {
        /// Its number among those of its task.
        number: usize,
    },
    /// Puts what comes out of several subtasks into order.
    Exchange,
    /// Writes.
    Sink,
}

/// What a subtask reads.
#[derive(Debug)]
pub struct Input {
    /// The channel.
    pub channel: usize,
    /// Its barrier, which has come before those of others.
    pub arrived: Option<Barrier>,
    /// Of an exchange: rows that wait for rows of others.
    pub ready: VecDeque<(Rank, Row)>,
    /// Whether it was counted that it is left alone.
    pub is_held: bool,
    /// Barriers that come too late for the planted bug.
    pub owed: usize,
}

/// A subtask.
#[derive(Debug)]
pub struct Subtask {
    /// What it is.
    pub kind: Kind,
    /// Of which node; that whose rows it puts into order.
    pub node: usize,
    /// The epoch that it is in.
    pub epoch: u64,
    /// What it reads, by side or by subtask.
    pub inputs: Vec<Input>,
    /// Where its rows go.
    pub outlet: Option<usize>,
    /// The barrier that it is about to send on, while rows come out.
    pub firing: Option<Barrier>,
    /// The last watermark that it has promised, where a table is joined.
    pub promised: Option<i64>,
}

/// The subtasks of a pipeline.
#[derive(Debug)]
pub struct Tasks {
    /// How they are cut.
    pub layout: Layout,
    /// They themselves.
    pub subtasks: Vec<Subtask>,
    /// What lies between them.
    pub channels: Vec<Channel>,
    /// The ways out of them.
    pub outlets: Vec<Outlet>,
    /// How many sinks there are.
    pub sinks: usize,
    /// Those that may have something to do.
    ready: BTreeSet<usize>,
    /// For drawing who is next.
    drawn: u64,
}

/// A place where a source is read.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// Its number.
    pub number: u32,
    /// Whether it is the table of a join.
    pub is_table: bool,
    /// Whether a late row is of no use there.
    pub uses_time: bool,
    /// Where its rows go.
    pub outlet: usize,
}

/// The intake is the first of the subtasks.
pub const INTAKE: usize = 0;

impl Tasks {
    /// Of a plan; and its readers, by source.
    pub fn new(plan: &Plan, layout: Layout) -> (Self, Vec<Vec<Reader>>) {
        let layout = Layout {
            subtasks: layout.subtasks.max(1),
            channel_rows: layout.channel_rows.max(1),
            ..layout
        };
        let mut tasks = Self {
            layout,
            subtasks: vec![Subtask::new(Kind::Intake, 0)],
            channels: Vec::new(),
            outlets: Vec::new(),
            sinks: 0,
            ready: BTreeSet::new(),
            drawn: layout.order.unwrap_or_default() | 1,
        };
        let first: Vec<usize> = plan
            .nodes
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let first = tasks.subtasks.len();
                match node.operator {
                    Operator::Sink { .. } => {
                        tasks.sinks += 1;
                        tasks.subtasks.push(Subtask::new(Kind::Sink, at));
                    }
                    Operator::Group(_)
                    | Operator::TableJoin { .. }
                    | Operator::WindowJoin { .. } => {
                        let numbers = 0..layout.subtasks;
                        let keeping =
                            numbers.map(|number| Subtask::new(Kind::Keeping { number }, at));
                        tasks.subtasks.extend(keeping);
                        if layout.subtasks > 1 {
                            tasks.subtasks.push(Subtask::new(Kind::Exchange, at));
                        }
                    }
                    _ => {}
                }
                first
            })
            .collect();
        let readers = tasks.connect(plan, &first);
        (tasks, readers)
    }

    /// Makes the channels. The first subtask of each node that has any is known.
    fn connect(&mut self, plan: &Plan, first: &[usize]) -> Vec<Vec<Reader>> {
        let consumers = plan.consumers();
        let mut readers = vec![Vec::new(); plan.sources.len()];
        for (at, node) in plan.nodes.iter().enumerate() {
            match node.operator {
                Operator::Read { source, reader } => {
                    let uses_time = uses_time(plan, &consumers, at);
                    let outlet = self.outlet(plan, &consumers, at);
                    self.feed(plan, (INTAKE, outlet), first);
                    let is_table = false;
                    readers[source].push(Reader { number: reader, is_table, uses_time, outlet });
                }
                Operator::TableJoin { table, reader, .. } => {
                    let outlet = self.outlets.len();
                    self.outlets.push(Outlet::new(Vec::new(), (at, 1)));
                    self.feed(plan, (INTAKE, outlet), first);
                    let (is_table, uses_time) = (true, false);
                    readers[table].push(Reader { number: reader, is_table, uses_time, outlet });
                    self.leave(plan, &consumers, at, first);
                }
                Operator::Group(_) | Operator::WindowJoin { .. } => {
                    self.leave(plan, &consumers, at, first);
                }
                _ => {}
            }
        }
        readers
    }

    /// The ways out of a task that keeps something.
    fn leave(
        &mut self,
        plan: &Plan,
        consumers: &[Option<(usize, usize)>],
        at: usize,
        first: &[usize],
    ) {
        let count = self.layout.subtasks;
        let exchange = first[at] + count;
        let outlet = self.outlet(plan, consumers, at);
        if count == 1 {
            self.subtasks[first[at]].outlet = Some(outlet);
            return self.feed(plan, (first[at], outlet), first);
        }
        self.subtasks[exchange].outlet = Some(outlet);
        self.feed(plan, (exchange, outlet), first);
        for subtask in first[at]..exchange {
            let channel = self.channel(subtask, (exchange, subtask - first[at]));
            let mut out = Outlet::new(Vec::new(), (at, 0));
            (out.channels, out.is_gathered) = (vec![channel], true);
            self.subtasks[subtask].outlet = Some(self.outlets.len());
            self.outlets.push(out);
        }
    }

    /// The way from a node to the next task.
    fn outlet(&mut self, plan: &Plan, consumers: &[Option<(usize, usize)>], from: usize) -> usize {
        let (mut chain, mut copies) = (Vec::new(), 1usize);
        let mut next = consumers[from].expect("every node feeds another one, up to a sink");
        loop {
            match plan.nodes[next.0].operator {
                Operator::Assign(windows) => {
                    let more = usize::try_from(windows.copies()).unwrap_or(usize::MAX);
                    copies = copies.saturating_mul(more);
                }
                Operator::Filter(_) | Operator::Project(_) => {}
                _ => break,
            }
            chain.push(next.0);
            next = consumers[next.0].expect("every node feeds another one, up to a sink");
        }
        let mut outlet = Outlet::new(chain, next);
        outlet.copies = copies.max(1);
        self.outlets.push(outlet);
        self.outlets.len() - 1
    }

    /// Channels from a subtask to all that its outlet leads to.
    fn feed(&mut self, plan: &Plan, (from, outlet): (usize, usize), first: &[usize]) {
        let Outlet { to, side, .. } = self.outlets[outlet];
        let is_sink = matches!(plan.nodes[to].operator, Operator::Sink { .. });
        let count = if is_sink { 1 } else { self.layout.subtasks };
        for subtask in first[to]..first[to] + count {
            let channel = self.channel(from, (subtask, side));
            self.outlets[outlet].channels.push(channel);
        }
    }

    fn channel(&mut self, from: usize, (to, side): (usize, usize)) -> usize {
        let channel = self.channels.len();
        self.channels.push(Channel::new(from, to));
        let inputs = &mut self.subtasks[to].inputs;
        let input =
            Input { channel, arrived: None, ready: VecDeque::new(), is_held: false, owed: 0 };
        // Sides are connected in any order.
        inputs.insert(side.min(inputs.len()), input);
        channel
    }

    /// A subtask may have something to do.
    pub fn wake(&mut self, subtask: usize) {
        self.ready.insert(subtask);
    }

    /// It has nothing to do until it is woken.
    pub fn sleep(&mut self, subtask: usize) {
        self.ready.remove(&subtask);
    }

    /// Who is to work next.
    pub fn next(&mut self) -> Option<usize> {
        if self.layout.order.is_none() {
            // What lies nearest to the sinks, so that little lies in between.
            return self.ready.last().copied();
        }
        let at = self.draw(self.ready.len());
        self.ready.iter().nth(at).copied()
    }

    /// A number below another one; 0 if nothing is to be drawn.
    pub fn draw(&mut self, below: usize) -> usize {
        if self.layout.order.is_none() || below < 2 {
            return 0;
        }
        // Xorshift: it has to look different each time, and no more.
        self.drawn ^= self.drawn << 13;
        self.drawn ^= self.drawn >> 7;
        self.drawn ^= self.drawn << 17;
        ((self.drawn >> 33) % below as u64) as usize
    }

    /// How many rows a way out takes, as they are before they are in windows: one, if there is any room.
    pub fn room(&self, outlet: usize) -> usize {
        let rows_max = self.layout.channel_rows;
        let Outlet { channels, copies, .. } = &self.outlets[outlet];
        let rooms = channels.iter().map(|channel| self.channels[*channel].room(rows_max));
        let room = rooms.min().unwrap_or(rows_max);
        room.div_ceil(*copies)
    }
}

impl Subtask {
    fn new(kind: Kind, node: usize) -> Self {
        Self {
            kind,
            node,
            epoch: 0,
            inputs: Vec::new(),
            outlet: None,
            firing: None,
            promised: None,
        }
    }

    /// Whether all barriers of the epoch have come.
    pub fn is_aligned(&self) -> bool {
        self.inputs.iter().all(|input| input.arrived.is_some() && input.ready.is_empty())
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

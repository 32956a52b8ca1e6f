//! What lies between two subtasks: rows in their order, and between them barriers.
//!
//! A channel that is full makes whoever writes to it wait, so no operator runs away from the one behind it. A
//! barrier ends an epoch at its place, and takes no room.
//!
//! Invariant: what was put in comes out in the same order.

use super::record::Row;
use super::table_join::Version;
use crate::value::Value;
use std::collections::VecDeque;

/// The place of a row among those that come out of a task in an epoch, or that go into it: what comes out of
/// several subtasks is put into this order, which is the one in which a single subtask has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// There is one subtask, and so one order.
    #[default]
    Only,
    /// By its coming; for a join with a table, its number among the rows of its time.
    Came(u64),
    /// A row that waited: its time and its number.
    Waited(i64, u64),
    /// End and start of a window, and the keys.
    Window(i64, i64, Vec<Value>),
    /// End of a session, the keys, and its start.
    Session(i64, Vec<Value>, i64),
}

/// Rows, with their ranks if there are several subtasks at one end.
#[derive(Debug, Default)]
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// Nothing, or as many as there are rows.
    pub ranks: Vec<Rank>,
}

impl From<Vec<Row>> for Rows {
    fn from(rows: Vec<Row>) -> Self {
        Self { rows, ranks: Vec::new() }
    }
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One more.
    pub fn push(&mut self, row: Row, rank: Rank) {
        if rank != Rank::Only {
            self.ranks.push(rank);
        }
        self.rows.push(row);
    }

    /// Each with its rank.
    pub fn ranked(self) -> impl Iterator<Item = (Row, Rank)> {
        let ranks = self.ranks.into_iter().chain(std::iter::repeat_with(Rank::default));
        self.rows.into_iter().zip(ranks)
    }
}

/// What the topic of a table says of a row of it.
#[derive(Debug)]
pub struct Told {
    /// Its primary key.
    pub key: Vec<Value>,
    /// From when on.
    pub time: i64,
    /// What it is.
    pub version: Version,
}

/// The end of an epoch, at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Nothing older comes behind it; not known if there is no event time.
    pub watermark: Option<i64>,
    /// Whether the source, if it is one, is idle.
    pub is_idle: bool,
}

/// What a channel carries.
#[derive(Debug)]
pub enum Item {
    /// Rows of a stream.
    Rows(Rows),
    /// Versions of rows of a table.
    Table(Vec<Told>),
    /// The end of an epoch.
    Barrier(Barrier),
}

impl Item {
    fn rows(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Table(told) => told.len(),
            Self::Barrier(_) => 0,
        }
    }
}

/// A channel between two subtasks.
#[derive(Debug)]
pub struct Channel {
    /// Who writes.
    pub from: usize,
    /// Who reads.
    pub to: usize,
    queue: VecDeque<Item>,
    rows: usize,
}

impl Channel {
    /// Without anything in it.
    pub fn new(from: usize, to: usize) -> Self {
        Self { from, to, queue: VecDeque::new(), rows: 0 }
    }

    /// How many rows fit, if it may hold so many.
    pub fn room(&self, rows_max: usize) -> usize {
        rows_max.saturating_sub(self.rows)
    }

    /// Puts something in.
    pub fn push(&mut self, item: Item) {
        self.rows += item.rows();
        self.queue.push_back(item);
    }

    /// What comes out next.
    pub fn front(&self) -> Option<&Item> {
        self.queue.front()
    }

    /// Takes it out.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.rows -= item.rows();
        Some(item)
    }
}

//! Which subtask a row goes to, and what it is told of its place among the others.
//!
//! All that has one key goes to one subtask: the one that a digest of the key names. So the state of a subtask is
//! a share of the state of its task, and entry by entry the same as if there was one.
//!
//! Invariant: where a row goes, and its rank, follow from the rows before it and from nothing else.

use super::channel::{Rank, Rows};
use super::record::Row;
use crate::eval::eval;
use crate::pattern;
use crate::plan::expr::Expr;
use crate::plan::{Operator, Plan};
use crate::value::Value;
use crate::value::codec::Codec;
use std::collections::BTreeMap;

/// The key of a row. One that cannot be computed is none: whoever gets the row finds out.
pub fn keys<'a>(exprs: impl IntoIterator<Item = &'a Expr>, row: &Row) -> Vec<Value> {
    pattern::begin_row(1);
    let keys: Result<Vec<Value>, _> =
        exprs.into_iter().map(|expr| eval(expr, &row.values)).collect();
    keys.unwrap_or_default()
}

/// The subtask of a key, of so many.
pub fn subtask_of(keys: &[Value], count: usize) -> usize {
    if count == 1 {
        return 0;
    }
    // FNV-1a of 64 bits, whose upper half is the better one.
    let mut bytes = Vec::new();
    keys.iter().for_each(|key| key.put(&mut bytes));
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) % count as u64) as usize
}

/// The way out of a subtask: through nodes that keep nothing, and to all subtasks of the task behind them.
#[derive(Debug)]
pub struct Outlet {
    /// The nodes on the way.
    pub chain: Vec<usize>,
    /// How many rows one may become on it.
    pub copies: usize,
    /// To which node.
    pub to: usize,
    /// On which side of it.
    pub side: usize,
    /// By subtask.
    pub channels: Vec<usize>,
    /// Whether several subtasks write side by side, to one that puts them into order: then rows keep the ranks
    /// that they come out with.
    pub is_gathered: bool,
    /// How many rows went this way.
    came: u64,
    /// For a join with a table, the next number of a row of each time that can still come.
    numbers: BTreeMap<i64, u64>,
}

impl Outlet {
    /// To a side of a node, through others.
    pub fn new(chain: Vec<usize>, (to, side): (usize, usize)) -> Self {
        Self {
            chain,
            copies: 1,
            to,
            side,
            channels: Vec::new(),
            is_gathered: false,
            came: 0,
            numbers: BTreeMap::new(),
        }
    }

    /// The rows for each subtask, with the ranks that they have there.
    pub fn spread(&mut self, plan: &Plan, rows: Rows) -> Vec<Rows> {
        if self.channels.len() == 1 {
            let ranks = if self.is_gathered { rows.ranks } else { Vec::new() };
            return vec![Rows { rows: rows.rows, ranks }];
        }
        let mut out: Vec<Rows> = self.channels.iter().map(|_| Rows::default()).collect();
        let operator = &plan.nodes[self.to].operator;
        let exprs = key_exprs(operator, self.side);
        for row in rows.rows {
            let keys = keys(exprs.iter().copied(), &row);
            let at = subtask_of(&keys, self.channels.len());
            let number = match operator {
                Operator::TableJoin { .. } => self.numbers.entry(row.time).or_default(),
                _ => &mut self.came,
            };
            let rank = Rank::Came(*number);
            *number += 1;
            out[at].push(row, rank);
        }
        out
    }

    /// No row older than this comes any more.
    pub fn forget(&mut self, watermark: i64) {
        self.numbers = self.numbers.split_off(&watermark);
    }

    /// A row waits behind it, with this number among those of its time.
    pub fn waits(&mut self, time: i64, number: u64) {
        let next = self.numbers.entry(time).or_default();
        *next = (*next).max(number + 1);
    }
}

/// What makes the key of a row, at a side of an operator.
fn key_exprs(operator: &Operator, side: usize) -> Vec<&Expr> {
    match operator {
        Operator::Group(grouping) => {
            let keys = grouping.keys.iter().enumerate();
            let is_window = |at: usize| at == grouping.start || at == grouping.end;
            keys.filter(|(at, _)| !is_window(*at)).map(|(_, key)| key).collect()
        }
        Operator::WindowJoin { joining, .. } if side == 1 => joining.right_keys.iter().collect(),
        Operator::WindowJoin { joining, .. } | Operator::TableJoin { joining, .. } => {
            joining.left_keys.iter().collect()
        }
        _ => Vec::new(),
    }
}

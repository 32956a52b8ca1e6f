//! The operators that keep state, as one.

use super::channel::{Rows, Told};
use super::context::Context;
use super::exchange::subtask_of;
use super::group::Groups;
use super::kept::{Change, Part};
use super::table_join::TableJoin;
use super::window_join::WindowJoin;
use crate::plan::{Node, Operator, Plan};
use crate::value::codec::Malformed;

/// What a subtask keeps.
#[derive(Debug)]
pub enum State {
    /// Groups in windows.
    Groups(Groups),
    /// Rows and versions.
    TableJoin(TableJoin),
    /// Rows of both sides.
    WindowJoin(WindowJoin),
}

impl State {
    /// Of a node, if it keeps anything.
    pub fn of(plan: &Plan, node: &Node) -> Option<Self> {
        Some(match &node.operator {
            Operator::Group(grouping) => Self::Groups(Groups::new(grouping)),
            Operator::TableJoin { table, joining, .. } => {
                Self::TableJoin(TableJoin::new(joining, plan.sources[*table].columns.len()))
            }
            Operator::WindowJoin { joining, left, right } => {
                let width = plan.nodes[node.inputs[1]].columns.len();
                Self::WindowJoin(WindowJoin::new(joining, [*left, *right], width))
            }
            _ => return None,
        })
    }

    /// Rows come on a side.
    pub fn rows(&mut self, side: usize, rows: Rows, context: &mut Context<'_>) {
        match self {
            Self::Groups(groups) => groups.rows(rows, context),
            Self::TableJoin(join) => join.rows(rows, context),
            Self::WindowJoin(join) => join.rows(side, rows, context),
        }
    }

    /// A table says something.
    pub fn told(&mut self, told: Vec<Told>, context: &mut Context<'_>) {
        match self {
            Self::TableJoin(join) => join.told(told, context),
            Self::Groups(_) | Self::WindowJoin(_) => panic!("no table is joined here"),
        }
    }

    /// Lets rows out that are due, so many of them. Whether that was all.
    pub fn watermark(
        &mut self,
        watermark: i64,
        most: usize,
        context: &mut Context<'_>,
    ) -> (Rows, bool) {
        match self {
            Self::Groups(groups) => groups.watermark(watermark, most, context),
            Self::TableJoin(join) => join.watermark(watermark, most, context),
            Self::WindowJoin(join) => join.watermark(watermark, most, context),
        }
    }

    /// What it keeps.
    pub fn parts(&self) -> Vec<&dyn Part> {
        match self {
            Self::Groups(groups) => groups.parts(),
            Self::TableJoin(join) => join.parts(),
            Self::WindowJoin(join) => join.parts(),
        }
    }

    /// About how many bytes it takes in memory.
    pub fn weight(&self) -> usize {
        self.parts().iter().map(|part| part.weight()).sum()
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> Vec<&mut dyn Part> {
        match self {
            Self::Groups(groups) => groups.parts_mut(),
            Self::TableJoin(join) => join.parts_mut(),
            Self::WindowJoin(join) => join.parts_mut(),
        }
    }

    /// The subtask of an entry of a part, of so many; none if the entry does not say.
    pub fn subtask_of(
        &self,
        part: usize,
        change: &Change,
        count: usize,
    ) -> Result<Option<usize>, Malformed> {
        let keys = match self {
            Self::Groups(_) => Groups::keys_of(part, change).map(Some)?,
            Self::TableJoin(join) => join.keys_of(part, change)?,
            Self::WindowJoin(_) => WindowJoin::keys_of(change).map(Some)?,
        };
        Ok(keys.map(|keys| subtask_of(&keys, count)))
    }

    /// After everything was loaded.
    pub fn loaded(&mut self) {
        match self {
            Self::Groups(groups) => groups.loaded(),
            Self::TableJoin(join) => join.loaded(),
            Self::WindowJoin(_) => {}
        }
    }
}

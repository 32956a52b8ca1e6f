//! Two streams joined within windows: rows of both sides are kept, and when the watermark passes the end
//! of a window, its pairs come out, in the order of the keys and of their coming.
//!
//! A key may have as many pairs as the product of its rows on both sides, so they are made a few at a time:
//! others are let in between, and whoever takes the pairs can stop when they are too many.

use super::channel::{Rank, Rows};
use super::context::Context;
use super::fates::{Fate, place};
use super::kept::{Change, Kept, Part};
use super::record::Row;
use crate::eval::{Failure, eval};
use crate::pattern;
use crate::plan::Joining;
use crate::value::Value;
use crate::value::codec::{Codec, Malformed};
use fulmar_host::planted;
use fulmar_types::Plant;
use std::ops::Bound;

/// End and start of a window, the keys, the side, and the number of the row among those.
type Place = ((i64, i64), (Vec<Value>, (u8, u64)));

/// The columns of a row, and the reader and partition of the record that it stands for.
type Side = (Vec<Value>, Option<(u32, u32)>);

/// The state of a join.
#[derive(Debug)]
pub struct WindowJoin {
    joining: Joining,
    windows: [(usize, usize); 2],
    /// How many columns the right side has.
    width: usize,
    rows: Kept<Place, Side>,
    /// Where the first row, which is on the left, goes on, and whether it has found a partner. Only while an
    /// epoch ends: it ends as a whole.
    met: u64,
    has_met: bool,
}

impl WindowJoin {
    /// With the columns of the window on both sides, and a right side of so many columns.
    pub fn new(joining: &Joining, windows: [(usize, usize); 2], width: usize) -> Self {
        let (rows, met, has_met) = (Kept::default(), 0, false);
        Self { joining: joining.clone(), windows, width, rows, met, has_met }
    }

    /// Rows come on a side: 0 is the left one.
    pub fn rows(&mut self, side: usize, rows: Rows, context: &mut Context<'_>) {
        for (row, rank) in rows.ranked() {
            context.rank = rank;
            pattern::begin_row(context.copies);
            match self.place(side, &row) {
                Ok(Some(at)) => {
                    let held = place(row.origin.as_ref());
                    context.fates.hold(held);
                    self.rows.insert(at, (row.values, held));
                }
                Ok(None) => context.fates.settle_row(row.origin.as_ref(), Fate::Filtered),
                Err(failure) => context.fail(&row, &failure),
            }
        }
    }

    fn place(&self, side: usize, row: &Row) -> Result<Option<Place>, Failure> {
        let exprs = if side == 0 { &self.joining.left_keys } else { &self.joining.right_keys };
        let mut keys = Vec::new();
        for expr in exprs {
            keys.push(eval(expr, &row.values)?);
        }
        let (start, end) = self.windows[side];
        let (Value::Timestamp(start), Value::Timestamp(end)) =
            (&row.values[start], &row.values[end])
        else {
            // A window of NULL, which only an outer join can make.
            return Ok(None);
        };
        let mut at = ((*end, *start), (keys, (side as u8, u64::MAX)));
        let before = self.rows.entries().range((Bound::Unbounded, Bound::Included(&at)));
        let last = before.map(|(place, _)| place).next_back();
        let is_like =
            |place: &&Place| place.0 == at.0 && place.1.0 == at.1.0 && place.1.1.0 == side as u8;
        at.1.1.1 = last.filter(is_like).map_or(0, |place| place.1.1.1 + 1);
        Ok(Some(at))
    }

    /// Windows that end at the watermark or before it are over; about so many pairs are looked at now. Whether
    /// that was all.
    ///
    /// A row on the left goes when it has met all on its right, and one on the right when no row on the left is
    /// before it any more: so nothing is in memory twice, however many pairs a key has.
    pub fn watermark(
        &mut self,
        watermark: i64,
        most: usize,
        context: &mut Context<'_>,
    ) -> (Rows, bool) {
        let (mut out, mut left) = (Rows::default(), most.max(1));
        while let Some((first, _)) = self.rows.entries().first_key_value()
            && first.0.0 <= watermark
        {
            if left == 0 || context.halt.is_some() {
                return (out, false);
            }
            if first.1.1.0 == 0 && !self.meet(&mut left, (&mut out, context)) {
                return (out, false);
            }
            left = left.saturating_sub(1);
            let gone = self.rows.pop_first();
            let Some((place, (_, Some(record)))) = gone else { continue };
            if place.1.1.0 == 0 && planted(Plant::LeftRowsLate) {
                context.fates.release(Some(record));
                context.fates.settle(record, Fate::Late);
            } else {
                context.fates.absorb(record, 1);
            }
        }
        (out, true)
    }

    /// The first row, which is on the left, meets rows on the right, so many of them. Whether those were all.
    fn meet(&mut self, most: &mut usize, (out, context): (&mut Rows, &mut Context<'_>)) -> bool {
        let Some((first, (one, _))) = self.rows.entries().first_key_value() else { return true };
        let ((end, start), keys) = (first.0, &first.1.0);
        context.rank = match context.is_ranked {
            true => Rank::Window(end, start, keys.clone()),
            false => Rank::Only,
        };
        let row = |values: Vec<Value>| Row { values, time: end - 1, origin: None };
        let from = (first.0, (keys.clone(), (1, self.met)));
        let is_equal = !keys.iter().any(Value::is_null);
        let right = self.rows.entries().range(from..);
        let right = right.take_while(|(at, _)| is_equal && at.0 == first.0 && at.1.0 == *keys);
        for (at, (other, _)) in right {
            if *most == 0 || context.halt.is_some() {
                self.met = at.1.1.1;
                return false;
            }
            *most -= 1;
            pattern::begin_row(1);
            let joined = row(one.iter().chain(other).cloned().collect());
            let holds = match &self.joining.condition {
                None => Ok(true),
                Some(condition) => eval(condition, &joined.values).map(|value| value.is_true()),
            };
            self.has_met |= !matches!(holds, Ok(false));
            match holds {
                Ok(false) => {}
                Ok(true) => out.push(joined, context.rank.clone()),
                Err(failure) => context.fail(&joined, &failure),
            }
        }
        if !self.has_met && self.joining.keeps_left {
            let nulls = vec![Value::Null; self.width];
            out.push(row(one.iter().cloned().chain(nulls).collect()), context.rank.clone());
        }
        (self.met, self.has_met) = (0, false);
        true
    }

    /// The keys of an entry.
    pub fn keys_of(change: &Change) -> Result<Vec<Value>, Malformed> {
        Place::whole(&change.key).map(|(_, (keys, _))| keys)
    }

    /// What it keeps.
    pub fn parts(&self) -> Vec<&dyn Part> {
        vec![&self.rows]
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> Vec<&mut dyn Part> {
        vec![&mut self.rows]
    }
}

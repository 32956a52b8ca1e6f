//! Two streams joined within windows: rows of both sides are kept, and when the watermark passes the end
//! of a window, its pairs come out, in the order of the keys and of their coming.

use super::channel::{Rank, Rows};
use super::context::Context;
use super::fates::{Fate, place};
use super::kept::{Change, Kept, Part};
use super::record::Row;
use crate::eval::{Failure, eval};
use crate::plan::Joining;
use crate::value::Value;
use crate::value::codec::{Codec, Malformed};
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
}

impl WindowJoin {
    /// With the columns of the window on both sides, and a right side of so many columns.
    pub fn new(joining: &Joining, windows: [(usize, usize); 2], width: usize) -> Self {
        Self { joining: joining.clone(), windows, width, rows: Kept::default() }
    }

    /// Rows come on a side: 0 is the left one.
    pub fn rows(&mut self, side: usize, rows: Rows, context: &mut Context<'_>) {
        for (row, rank) in rows.ranked() {
            context.rank = rank;
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

    /// Windows that end at the watermark or before it are over; about so many pairs come out now. Whether
    /// that was all.
    pub fn watermark(
        &mut self,
        watermark: i64,
        most: usize,
        context: &mut Context<'_>,
    ) -> (Rows, bool) {
        let (mut out, mut seen) = (Rows::default(), 0);
        while let Some((first, _)) = self.rows.entries().first_key_value()
            && first.0.0 <= watermark
        {
            if seen.max(out.len()) >= most {
                return (out, false);
            }
            let (window, keys) = (first.0, first.1.0.clone());
            let mut sides: [Vec<Vec<Value>>; 2] = [Vec::new(), Vec::new()];
            while let Some((place, _)) = self.rows.entries().first_key_value()
                && place.0 == window
                && place.1.0 == keys
                && let Some((place, (values, record))) = self.rows.pop_first()
            {
                seen += 1;
                if let Some(record) = record {
                    context.fates.absorb(record, 1);
                }
                sides[usize::from(place.1.1.0)].push(values);
            }
            let is_equal = !keys.iter().any(Value::is_null);
            context.rank = match context.is_ranked {
                true => Rank::Window(window.0, window.1, keys),
                false => Rank::Only,
            };
            let [left, right] = sides;
            let right = if is_equal { right } else { Vec::new() };
            self.pairs(window.0, &left, &right, (&mut out, context));
        }
        (out, true)
    }

    fn pairs(
        &self,
        end: i64,
        left: &[Vec<Value>],
        right: &[Vec<Value>],
        (out, context): (&mut Rows, &mut Context<'_>),
    ) {
        let row = |values: Vec<Value>| Row { values, time: end - 1, origin: None };
        for one in left {
            let mut is_alone = true;
            for other in right {
                let joined = row(one.iter().chain(other).cloned().collect());
                let holds = match &self.joining.condition {
                    None => Ok(true),
                    Some(condition) => eval(condition, &joined.values).map(|value| value.is_true()),
                };
                match holds {
                    Ok(false) => {}
                    Ok(true) => {
                        is_alone = false;
                        out.push(joined, context.rank.clone());
                    }
                    Err(failure) => {
                        is_alone = false;
                        context.fail(&joined, &failure);
                    }
                }
            }
            if is_alone && self.joining.keeps_left {
                let nulls = vec![Value::Null; self.width];
                let row = row(one.iter().cloned().chain(nulls).collect());
                out.push(row, context.rank.clone());
            }
        }
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

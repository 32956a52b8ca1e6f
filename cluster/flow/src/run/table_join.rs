//! A stream joined with a table as of event time.
//!
//! A row of the stream waits until the watermark has passed its time; then everything that the table said up
//! to that time is known, and the row gets the latest version that is not younger than itself. So what
//! comes out does not depend on which topic was read first.
//!
//! Of each key the versions are kept that a row can still ask for.

use super::channel::{Rank, Rows, Told};
use super::context::Context;
use super::exchange::keys;
use super::fates::{Fate, place};
use super::kept::{Change, Kept, Part};
use super::record::Row;
use crate::eval::eval;
use crate::pattern;
use crate::plan::Joining;
use crate::value::Value;
use crate::value::codec::{Codec, Malformed};
use std::collections::BTreeSet;
use std::ops::Bound;

/// A version of a row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its columns; `None` if the row is gone from here on.
    pub values: Option<Vec<Value>>,
    /// Reader and partition of its record.
    pub record: (u32, u32),
}

impl Codec for Version {
    fn put(&self, out: &mut Vec<u8>) {
        self.values.put(out);
        self.record.put(out);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self { values: Option::read(from)?, record: Codec::read(from)? })
    }

    fn weight(&self) -> usize {
        self.values.weight() + self.record.weight()
    }
}

/// The state of a join.
#[derive(Debug)]
pub struct TableJoin {
    joining: Joining,
    /// How many columns the table has.
    width: usize,
    /// Rows of the stream, by time and, within a time, by their coming.
    waiting: Kept<(i64, u64), Row>,
    /// Versions by key and time.
    versions: Kept<(Vec<Value>, i64), Version>,
    /// Versions that are followed by others, by the time of the next one: from then on nobody can ask for them. It
    /// follows from the versions.
    followed: BTreeSet<(i64, (Vec<Value>, i64))>,
}

impl TableJoin {
    /// With a table of so many columns.
    pub fn new(joining: &Joining, width: usize) -> Self {
        Self {
            joining: joining.clone(),
            width,
            waiting: Kept::default(),
            versions: Kept::indexed(),
            followed: BTreeSet::new(),
        }
    }

    /// Rows of the stream come.
    pub fn rows(&mut self, rows: Rows, context: &mut Context<'_>) {
        for (row, rank) in rows.ranked() {
            context.fates.hold(place(row.origin.as_ref()));
            let number = match rank {
                Rank::Came(number) => number,
                _ => self.next_number(row.time),
            };
            self.waiting.insert((row.time, number), row.kept());
        }
    }

    /// The number of the next row of this time.
    fn next_number(&self, time: i64) -> u64 {
        let same_time = (time, 0)..=(time, u64::MAX);
        let last = self.waiting.entries().range(same_time).next_back();
        last.map_or(0, |((_, number), _)| number + 1)
    }

    /// The times and numbers of the rows that wait.
    pub fn waiting(&self) -> impl Iterator<Item = (i64, u64)> {
        self.waiting.entries().keys().copied()
    }

    /// The table says something.
    pub fn told(&mut self, told: Vec<Told>, context: &mut Context<'_>) {
        for Told { key, time, version } in told {
            self.version(key, time, version, context);
        }
    }

    fn version(&mut self, key: Vec<Value>, time: i64, version: Version, context: &mut Context<'_>) {
        context.fates.hold(Some(version.record));
        let replaced = self.versions.insert((key.clone(), time), version);
        match replaced {
            Some(replaced) => context.fates.absorb(replaced.record, 1),
            None => self.follow((key, time)),
        }
    }

    /// A version is new among those of its key.
    fn follow(&mut self, (key, time): (Vec<Value>, i64)) {
        let versions = self.versions.entries();
        let before = versions.range((key.clone(), i64::MIN)..(key.clone(), time)).next_back();
        let before = before.map(|((_, before), _)| *before);
        let behind =
            (Bound::Excluded((key.clone(), time)), Bound::Included((key.clone(), i64::MAX)));
        let behind = versions.range(behind).next().map(|((_, behind), _)| *behind);
        if let (Some(before), Some(behind)) = (before, behind) {
            self.followed.remove(&(behind, (key.clone(), before)));
        }
        if let Some(before) = before {
            self.followed.insert((time, (key.clone(), before)));
        }
        if let Some(behind) = behind {
            self.followed.insert((behind, (key, time)));
        }
    }

    /// Rows older than the watermark have waited long enough; so many of them go on now. Whether that was
    /// all.
    pub fn watermark(
        &mut self,
        watermark: i64,
        most: usize,
        context: &mut Context<'_>,
    ) -> (Rows, bool) {
        let (mut rows, mut gone) = (Rows::default(), 0);
        while let Some((at, _)) = self.waiting.entries().first_key_value()
            && at.0 < watermark
        {
            gone += 1;
            if gone > most {
                return (rows, false);
            }
            let at = *at;
            if let Some(row) = self.waiting.remove(&at) {
                context.fates.release(place(row.origin.as_ref()));
                context.rank = match context.is_ranked {
                    true => Rank::Waited(at.0, at.1),
                    false => Rank::Only,
                };
                if let Some(row) = self.join(row, context) {
                    rows.push(row, context.rank.clone());
                }
            }
        }
        let is_all = self.forget(watermark, most.saturating_sub(gone), context);
        (rows, is_all)
    }

    fn join(&self, row: Row, context: &mut Context<'_>) -> Option<Row> {
        pattern::begin_row(context.copies);
        let mut key = Vec::new();
        for expr in &self.joining.left_keys {
            match eval(expr, &row.values) {
                Ok(value) => key.push(value),
                Err(failure) => {
                    context.fail(&row, &failure);
                    return None;
                }
            }
        }
        let up_to = (key.clone(), i64::MIN)..=(key.clone(), row.time);
        let found = match key.iter().any(Value::is_null) {
            true => None,
            false => self.versions.entries().range(up_to).next_back(),
        };
        if let Some(values) = found.and_then(|(_, version)| version.values.as_ref()) {
            let joined: Vec<Value> = row.values.iter().chain(values).cloned().collect();
            let holds = match &self.joining.condition {
                None => Ok(true),
                Some(condition) => eval(condition, &joined).map(|value| value.is_true()),
            };
            match holds {
                Ok(true) => return Some(Row { values: joined, ..row }),
                Ok(false) => {}
                Err(failure) => {
                    context.fail(&row, &failure);
                    return None;
                }
            }
        }
        if !self.joining.keeps_left {
            context.fates.settle_row(row.origin.as_ref(), Fate::Filtered);
            return None;
        }
        let mut row = row;
        row.values.extend(vec![Value::Null; self.width]);
        Some(row)
    }

    /// Drops versions that no row can ask for any more, so many of them: rows to come are not older than the
    /// watermark. Whether those were all.
    ///
    /// The youngest that is not younger than the watermark is what holds there. It stays even if it says that the
    /// row is gone: an older record that comes late must not bring the row back.
    fn forget(&mut self, watermark: i64, most: usize, context: &mut Context<'_>) -> bool {
        let mut gone = 0;
        while let Some((next, _)) = self.followed.first()
            && *next <= watermark
        {
            gone += 1;
            if gone > most {
                return false;
            }
            let old = self.followed.pop_first().map(|(_, old)| old);
            if let Some(version) = old.and_then(|old| self.versions.remove(&old)) {
                context.fates.absorb(version.record, 1);
            }
        }
        true
    }

    /// What it keeps.
    pub fn parts(&self) -> Vec<&dyn Part> {
        vec![&self.waiting, &self.versions]
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> Vec<&mut dyn Part> {
        vec![&mut self.waiting, &mut self.versions]
    }

    /// The keys of an entry of a part, if it says them: that a row no longer waits does not.
    pub fn keys_of(&self, part: usize, change: &Change) -> Result<Option<Vec<Value>>, Malformed> {
        if part > 0 {
            return <(Vec<Value>, i64)>::whole(&change.key).map(|(keys, _)| Some(keys));
        }
        let row = change.value.as_deref().map(Row::whole).transpose()?;
        Ok(row.map(|row| keys(&self.joining.left_keys, &row)))
    }

    /// After everything was loaded.
    pub fn loaded(&mut self) {
        let versions = self.versions.entries().keys();
        let pairs = versions.clone().zip(versions.skip(1));
        let pairs = pairs.filter(|((key, _), (next, _))| key == next);
        self.followed = pairs.map(|(old, (_, next))| (*next, old.clone())).collect();
    }
}

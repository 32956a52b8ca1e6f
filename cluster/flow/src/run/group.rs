//! Groups in windows: rows go in, and when the watermark passes the end of a window, one row for each
//! group comes out, once.
//!
//! The timers are the keys of the state: the end of a window comes first in them, so what is due is what
//! lies in front, and no timer can be lost while its window is kept.
//!
//! Invariant: a window that has fired is gone, and no row comes for it any more, since rows older than the
//! watermark are late.

use super::channel::{Rank, Rows};
use super::context::Context;
use super::fates::{Fate, place};
use super::fold::Folded;
use super::kept::{Change, Kept, Part};
use super::record::Row;
use crate::eval::{Failure, eval};
use crate::pattern;
use crate::plan::Grouping;
use crate::value::codec::{Codec, LIST_WEIGHT, Malformed};
use crate::value::{Value, time};
use fulmar_host::planted;
use fulmar_types::Plant;
use std::collections::{BTreeMap, BTreeSet};

/// End and start of a window, and the other keys.
type Place = (i64, (i64, Vec<Value>));

/// The other keys, and the start of a session.
type SessionPlace = (Vec<Value>, i64);

/// A group of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    folds: Vec<Folded>,
    /// How many records it stands for, by reader and partition.
    records: BTreeMap<(u32, u32), u64>,
}

impl Codec for Group {
    fn put(&self, out: &mut Vec<u8>) {
        self.folds.put(out);
        let records: Vec<((u32, u32), u64)> = self.records.iter().map(|(p, n)| (*p, *n)).collect();
        records.put(out);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let folds = Vec::read(from)?;
        let records: Vec<((u32, u32), u64)> = Vec::read(from)?;
        Ok(Self { folds, records: records.into_iter().collect() })
    }

    fn weight(&self) -> usize {
        self.folds.weight() + LIST_WEIGHT * self.records.len()
    }
}

/// A row, computed as far as a group needs it: for one after the other, so that it is made once.
#[derive(Default)]
struct Item {
    /// Its keys, and its window if it has one.
    place: Place,
    has_window: bool,
    arguments: Vec<Value>,
}

/// The groups of a node.
#[derive(Debug)]
pub struct Groups {
    grouping: Grouping,
    windows: Kept<Place, Group>,
    sessions: Kept<SessionPlace, (i64, Group)>,
    /// Sessions by their end; they follow from the sessions.
    due: BTreeSet<(i64, SessionPlace)>,
}

impl Groups {
    /// Without a group.
    pub fn new(grouping: &Grouping) -> Self {
        Self {
            grouping: grouping.clone(),
            windows: Kept::default(),
            sessions: Kept::indexed(),
            due: BTreeSet::new(),
        }
    }

    /// Rows go in.
    pub fn rows(&mut self, rows: Rows, context: &mut Context<'_>) {
        let mut item = Item::default();
        for (row, rank) in rows.ranked() {
            context.rank = rank;
            pattern::begin_row(context.copies);
            match self.fill(&mut item, &row) {
                Ok(()) => self.take(&row, &mut item, context),
                Err(failure) => context.fail(&row, &failure),
            }
        }
    }

    fn fill(&self, item: &mut Item, row: &Row) -> Result<(), Failure> {
        let (_, (_, keys)) = &mut item.place;
        keys.clear();
        item.arguments.clear();
        let (mut start, mut end) = (None, None);
        for (index, key) in self.grouping.keys.iter().enumerate() {
            let value = eval(key, &row.values)?;
            match value {
                Value::Timestamp(ms) if index == self.grouping.start => start = Some(ms),
                Value::Timestamp(ms) if index == self.grouping.end => end = Some(ms),
                _ if index == self.grouping.start || index == self.grouping.end => {}
                value => keys.push(value),
            }
        }
        item.has_window = start.is_some() && end.is_some();
        (item.place.0, item.place.1.0) = (end.unwrap_or_default(), start.unwrap_or_default());
        if let Some(gap_ms) = self.grouping.session_gap_ms {
            let is_date = row.time.checked_add(gap_ms).and_then(time::in_range).is_some();
            if !is_date {
                let at = self.grouping.keys[self.grouping.end].at;
                let reason = "the session ends outside of the years 1 to 9999";
                return Err(Failure::new(at, reason));
            }
        }
        for aggregate in &self.grouping.aggregates {
            item.arguments.push(match &aggregate.argument {
                Some(argument) => eval(argument, &row.values)?,
                None => Value::Boolean(true),
            });
        }
        Ok(())
    }

    fn take(&mut self, row: &Row, item: &mut Item, context: &mut Context<'_>) {
        let held = place(row.origin.as_ref());
        context.fates.hold(held);
        if let Some(gap_ms) = self.grouping.session_gap_ms {
            self.take_session(row, item, gap_ms);
        } else if item.has_window {
            let (grouping, arguments) = (&self.grouping, &mut item.arguments);
            self.windows.change(&item.place, |group| add(grouping, group, row, arguments));
        } else {
            // A window of NULL, which only an outer join can make, ends never.
            context.fates.release(held);
            context.fates.settle_row(row.origin.as_ref(), Fate::Filtered);
        }
    }

    /// A row makes a session, and joins it with all that it overlaps.
    fn take_session(&mut self, row: &Row, item: &mut Item, gap_ms: i64) {
        let keys = std::mem::take(&mut item.place.1.1);
        let (mut start, mut end) = (row.time, row.time + gap_ms);
        let mut touched = Vec::new();
        // Sessions of a key lie apart, so those that overlap lie in a row, and the first of them begins
        // before this one ends. One that ends where this one begins may have come out already, so it is
        // never part of it: what comes out must not depend on where an epoch ended.
        let range = (keys.clone(), i64::MIN)..(keys.clone(), end);
        for (place, (other_end, _)) in self.sessions.entries().range(range).rev() {
            if *other_end <= start {
                break;
            }
            start = start.min(place.1);
            end = end.max(*other_end);
            touched.push(place.clone());
        }
        let mut merged = Group::default();
        for place in touched.into_iter().rev() {
            if let Some((old_end, group)) = self.sessions.remove(&place) {
                self.due.remove(&(old_end, place));
                merge(&self.grouping, &mut merged, group);
            }
        }
        add(&self.grouping, &mut merged, row, &mut item.arguments);
        let place = (keys, start);
        self.due.insert((end, place.clone()));
        self.sessions.insert(place, (end, merged));
    }

    /// Windows that end at the watermark or before it are over; so many of them now. Whether that was all.
    pub fn watermark(
        &mut self,
        watermark: i64,
        most: usize,
        context: &mut Context<'_>,
    ) -> (Rows, bool) {
        let (mut rows, mut closed) = (Rows::default(), 0);
        while let Some((place, _)) = self.windows.entries().first_key_value()
            && place.0 <= watermark
        {
            closed += 1;
            if closed > most {
                if planted(Plant::StepLosesGroup) {
                    self.windows.pop_first();
                }
                return (rows, false);
            }
            if let Some(((end, (start, keys)), group)) = self.windows.pop_first() {
                context.rank = match context.is_ranked {
                    true => Rank::Window(end, start, keys.clone()),
                    false => Rank::Only,
                };
                let row = self.close((start, end), keys, &group, context);
                let times = if planted(Plant::WindowFiresTwice) { 2 } else { 1 };
                for row in row.into_iter().flat_map(|row| std::iter::repeat_n(row, times)) {
                    rows.push(row, context.rank.clone());
                }
            }
        }
        while let Some((end, place)) = self.due.first()
            && *end <= watermark
        {
            closed += 1;
            if closed > most {
                return (rows, false);
            }
            let (end, place) = (*end, place.clone());
            self.due.remove(&(end, place.clone()));
            if let Some((_, group)) = self.sessions.remove(&place) {
                context.rank = match context.is_ranked {
                    true => Rank::Session(end, place.0.clone(), place.1),
                    false => Rank::Only,
                };
                if let Some(row) = self.close((place.1, end), place.0, &group, context) {
                    rows.push(row, context.rank.clone());
                }
            }
        }
        (rows, true)
    }

    fn close(
        &self,
        (start, end): (i64, i64),
        keys: Vec<Value>,
        group: &Group,
        context: &mut Context<'_>,
    ) -> Option<Row> {
        for (place, count) in &group.records {
            context.fates.absorb(*place, *count);
        }
        let mut keys = keys.into_iter();
        let mut values = Vec::new();
        for index in 0..self.grouping.keys.len() {
            values.push(match index {
                index if index == self.grouping.start => Value::Timestamp(start),
                index if index == self.grouping.end => Value::Timestamp(end),
                _ => keys.next().unwrap_or(Value::Null),
            });
        }
        let mut row = Row { values, time: end - 1, origin: None };
        for (aggregate, fold) in self.grouping.aggregates.iter().zip(&group.folds) {
            match fold.get(aggregate) {
                Ok(value) => row.values.push(value),
                Err(failure) => {
                    context.fail(&row, &failure);
                    return None;
                }
            }
        }
        Some(row)
    }

    /// What it keeps.
    pub fn parts(&self) -> Vec<&dyn Part> {
        vec![&self.windows, &self.sessions]
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> Vec<&mut dyn Part> {
        vec![&mut self.windows, &mut self.sessions]
    }

    /// The keys of an entry of a part.
    pub fn keys_of(part: usize, change: &Change) -> Result<Vec<Value>, Malformed> {
        match part {
            0 => Place::whole(&change.key).map(|(_, (_, keys))| keys),
            _ => SessionPlace::whole(&change.key).map(|(keys, _)| keys),
        }
    }

    /// After everything was loaded.
    pub fn loaded(&mut self) {
        if planted(Plant::TimerNotSaved) {
            return;
        }
        let sessions = self.sessions.entries().iter();
        self.due = sessions.map(|(place, (end, _))| (*end, place.clone())).collect();
    }
}

fn add(grouping: &Grouping, group: &mut Group, row: &Row, arguments: &mut Vec<Value>) {
    if group.folds.is_empty() {
        group.folds = grouping.aggregates.iter().map(Folded::new).collect();
    }
    let aggregates = grouping.aggregates.iter().zip(arguments.drain(..));
    for (fold, (aggregate, argument)) in group.folds.iter_mut().zip(aggregates) {
        fold.add(aggregate.fold, argument, row.time);
    }
    if let Some(place) = place(row.origin.as_ref()) {
        *group.records.entry(place).or_default() += 1;
    }
}

fn merge(grouping: &Grouping, into: &mut Group, from: Group) {
    if into.folds.is_empty() {
        into.folds = from.folds;
    } else {
        let aggregates = grouping.aggregates.iter().zip(from.folds);
        for (fold, (aggregate, other)) in into.folds.iter_mut().zip(aggregates) {
            fold.merge(aggregate.fold, other);
        }
    }
    for (place, count) in from.records {
        *into.records.entry(place).or_default() += count;
    }
}

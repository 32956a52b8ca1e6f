//! Records become rows, and the event time of a source.
//!
//! A watermark is the promise that nothing older is expected; a row that is older is late. For each
//! partition it stays behind the latest row, the smallest one of all partitions counts, and it only
//! moves at the end of an epoch. A partition from which nothing came for as long as the file says is
//! idle and does not count, so that it never holds up the others. If all are idle, time stands still.
//! Records that are there and have not been read are no silence: such a partition does not become idle.

use super::kept::{Kept, Part};
use super::record::{Record, Row};
use crate::eval::convert::{from_json, shorten};
use crate::eval::{Failure, eval};
use crate::pattern;
use crate::plan::source::{Origin, Source, Watermark};
use crate::value::codec::{Codec, Malformed};
use crate::value::json::Json;
use crate::value::{Value, time};
use fulmar_types::Plant;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

/// What a record is.
#[derive(Debug)]
pub enum Decoded {
    /// A row.
    Row(Row),
    /// For a table, the end of the row with this key, at this time.
    Gone(Vec<Value>, i64),
}

/// A record as a row, or why it is none.
pub fn decode(source: &Source, record: &Record) -> Result<Decoded, Failure> {
    if let Some(damage) = &record.damage {
        return Err(Failure::new(source.at, &**damage));
    }
    let json = match (&record.value, &source.primary) {
        (None, Some(_)) => None,
        (None, None) => return Err(Failure::new(source.at, "a record without a payload")),
        (Some(value), _) => Some(payload(source, value)?),
    };
    let mut values = Vec::with_capacity(source.columns.len());
    for column in &source.columns {
        let bad = |reason: String| {
            Failure::new(column.at, format!("column {}: {reason}", column.column.name))
        };
        let value = match &column.origin {
            Origin::Payload(path) => match json.as_ref().and_then(|json| json.at(path)) {
                Some(member) => from_json(member, column.column.of).map_err(bad)?,
                None => Value::Null,
            },
            Origin::Key => text(record.key.as_deref()).map_err(bad)?,
            Origin::Headers => headers(record).map_err(bad)?,
            Origin::Timestamp => match time::in_range(record.timestamp) {
                Some(ms) => Value::Timestamp(ms),
                None => return Err(bad("the timestamp is outside of the calendar".to_owned())),
            },
            Origin::Partition => Value::Bigint(record.partition.into()),
            Origin::Offset => Value::Bigint(record.offset),
        };
        if value.is_null() && column.not_null && json.is_some() {
            return Err(bad("it is NULL, and NOT NULL was said".to_owned()));
        }
        values.push(value);
    }
    if json.is_none() {
        return gone(source, record, &values);
    }
    pattern::begin_row(1);
    for check in &source.checks {
        if eval(check, &values)? == Value::Boolean(false) {
            return Err(Failure::new(check.at, "the CHECK does not hold"));
        }
    }
    let time = match &source.watermark {
        None => record.timestamp,
        Some(watermark) => match values[watermark.column] {
            Value::Timestamp(ms) => ms,
            _ => {
                let column = &source.columns[watermark.column];
                let reason = format!("column {}: the event time is NULL", column.column.name);
                return Err(Failure::new(column.at, reason));
            }
        },
    };
    Ok(Decoded::Row(Row { values, time, origin: None }))
}

/// A record without a payload ends the row of its key, if the key says which one.
fn gone(source: &Source, record: &Record, values: &[Value]) -> Result<Decoded, Failure> {
    let primary = source.primary.as_deref().unwrap_or_default();
    let key: Vec<Value> = primary.iter().map(|index| values[*index].clone()).collect();
    if key.iter().any(Value::is_null) {
        let reason = "a record without a payload: which row is gone can only be said by a PRIMARY KEY \
                      that is METADATA FROM 'key'";
        return Err(Failure::new(source.at, reason));
    }
    let time = source.watermark.map(|watermark| &source.columns[watermark.column]);
    if let Some(column) = time.filter(|column| column.origin != Origin::Timestamp) {
        let reason = "a record without a payload has no event time, unless that is METADATA FROM 'timestamp'";
        return Err(Failure::new(column.at, reason));
    }
    Ok(Decoded::Gone(key, record.timestamp))
}

fn payload(source: &Source, value: &[u8]) -> Result<Json, Failure> {
    let text = str::from_utf8(value).map_err(|error| {
        let reason = format!("the payload is no UTF-8 from byte {} on", error.valid_up_to());
        Failure::new(source.at, reason)
    })?;
    let json = Json::parse_wanted(text, &source.wanted).map_err(|error| {
        let before = &text.as_bytes()[..error.at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let expected = error.expected;
        let reason =
            format!("no JSON: line {line}, byte {column} of the payload: expected {expected}");
        Failure::new(source.at, reason)
    })?;
    match json {
        Json::Object(_) => Ok(json),
        _ => {
            // Of this not everything was kept.
            let whole = Json::parse(text).map_or_else(|_| String::new(), |json| json.text());
            let reason = format!("the payload is {} and no object", shorten(&whole));
            Err(Failure::new(source.at, reason))
        }
    }
}

fn text(bytes: Option<&[u8]>) -> Result<Value, String> {
    match bytes {
        None => Ok(Value::Null),
        Some(bytes) => match str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err("the key is no UTF-8".to_owned()),
        },
    }
}

fn headers(record: &Record) -> Result<Value, String> {
    let mut members = Vec::new();
    for (name, value) in &record.headers {
        let value = match value.as_deref().map(str::from_utf8) {
            None => Json::Null,
            Some(Ok(text)) => Json::String(text.into()),
            Some(Err(_)) => {
                let mut reason = String::new();
                let _ = write!(reason, "the header {} is no UTF-8", shorten(name));
                return Err(reason);
            }
        };
        members.push((Box::from(&**name), value));
    }
    Ok(Value::Json(Arc::new(Json::Object(members))))
}

/// What is known of the event time of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Partition {
    /// The latest event time of a row.
    top_ms: Option<i64>,
    /// The age at the end of the last epoch that had a row of it or left records of it unread, or of the first one.
    heard_ms: Option<u64>,
}

impl Codec for Partition {
    fn put(&self, out: &mut Vec<u8>) {
        self.top_ms.put(out);
        self.heard_ms.put(out);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self { top_ms: Option::read(from)?, heard_ms: Option::read(from)? })
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// The event time of a source.
#[derive(Debug)]
pub struct EventTime {
    rule: Watermark,
    partitions: Kept<u32, Partition>,
    /// Under the key 0.
    watermark: Kept<u32, i64>,
    /// The partitions from which a row came in this epoch.
    heard: BTreeSet<u32>,
    idle: bool,
}

impl EventTime {
    /// Of a source with so many partitions.
    pub fn new(rule: Watermark, partitions: u32) -> Self {
        let mut time = Self {
            rule,
            partitions: Kept::default(),
            watermark: Kept::default(),
            heard: BTreeSet::new(),
            idle: false,
        };
        for partition in 0..partitions {
            time.partitions.change(&partition, |_| ());
        }
        time
    }

    /// Nothing older than this is expected.
    pub fn watermark(&self) -> Option<i64> {
        self.watermark.get(&0).copied()
    }

    /// Whether no partition counts.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// Whether a row comes too late.
    pub fn is_late(&self, time: i64) -> bool {
        self.watermark().is_some_and(|watermark| time < watermark)
    }

    /// A row came from a partition, late or not. Nothing else keeps a partition awake: one with bad records
    /// only has no time, and would hold up the others for as long as they come. (Until they are read it does.)
    pub fn see(&mut self, partition: u32, time: i64) {
        self.heard.insert(partition);
        let known = self.partitions.get(&partition).and_then(|known| known.top_ms);
        if known.is_none_or(|top| top < time) {
            self.partitions.change(&partition, |known| known.top_ms = Some(time));
        }
    }

    /// The end of an epoch, when the pipeline is so old, which leaves some of these partitions unread. `last` is the
    /// end of the input.
    pub fn advance(&mut self, age_ms: u64, unread: &BTreeSet<u32>, last: bool) {
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend(unread);
        let all: Vec<u32> = self.partitions.entries().keys().copied().collect();
        for partition in all {
            let known = self.partitions.get(&partition).and_then(|known| known.heard_ms);
            if known.is_none() || (heard.contains(&partition) && known != Some(age_ms)) {
                self.partitions.change(&partition, |known| known.heard_ms = Some(age_ms));
            }
        }
        let known = self.partitions.entries().values();
        let active: Vec<Partition> =
            known.filter(|partition| !self.is_silent(partition, age_ms)).copied().collect();
        self.idle = active.is_empty();
        // One that has sent nothing yet holds up the others until it is idle.
        let tops: Option<Vec<i64>> = active.iter().map(|partition| partition.top_ms).collect();
        let least = match fulmar_host::planted(Plant::WatermarkFromFastestPartition) {
            true => active.iter().filter_map(|partition| partition.top_ms).max(),
            false => tops.and_then(|tops| tops.into_iter().min()),
        };
        let next = if last { Some(i64::MAX) } else { least.map(|top| top - self.rule.delay_ms) };
        if let Some(next) = next
            && self.watermark().is_none_or(|watermark| watermark < next)
        {
            self.watermark.insert(0, next);
        }
    }

    fn is_silent(&self, partition: &Partition, age_ms: u64) -> bool {
        let silent_ms = age_ms.saturating_sub(partition.heard_ms.unwrap_or(age_ms));
        self.rule.idle_ms.is_some_and(|idle_ms| silent_ms >= idle_ms.unsigned_abs())
    }

    /// The partitions that are idle at the end of an epoch at this age, if nothing is there of them.
    pub fn silent(&self, age_ms: u64) -> impl Iterator<Item = u32> {
        let known = self.partitions.entries().iter();
        let silent = known.filter(move |(_, partition)| self.is_silent(partition, age_ms));
        silent.map(|(number, _)| *number)
    }

    /// The next age behind `age_ms`, that of the last epoch, at which the end of an epoch without records
    /// would let time go on, since partitions are idle by then. Before the first epoch that is at once:
    /// silence counts from there on. `frees` says that it also matters when all of them are idle.
    pub fn next_idle_age(&self, age_ms: u64, frees: bool) -> Option<u64> {
        let idle_ms = self.rule.idle_ms?.unsigned_abs();
        let mut active: Vec<(u64, Option<i64>)> = Vec::new();
        for partition in self.partitions.entries().values() {
            let Some(heard_ms) = partition.heard_ms else { return Some(age_ms) };
            let until_ms = heard_ms.saturating_add(idle_ms);
            active.extend((until_ms > age_ms).then_some((until_ms, partition.top_ms)));
        }
        active.sort_unstable();
        let moves = |at: &usize| {
            let rest = &active[*at..];
            let tops: Option<Vec<i64>> = rest.iter().map(|(_, top)| *top).collect();
            match tops.and_then(|tops| tops.into_iter().min()) {
                Some(least) => self.watermark().is_none_or(|now| now < least - self.rule.delay_ms),
                None => frees && rest.is_empty(),
            }
        };
        // Those that are idle at an age are all before one place.
        let is_last = |at: &usize| active.get(*at).is_none_or(|next| next.0 > active[at - 1].0);
        let place = (1..=active.len()).filter(is_last).find(moves)?;
        Some(active[place - 1].0)
    }

    /// How far the partition is that is last of these; nothing, if there is none. It has no time if no row came from
    /// there yet.
    pub fn last_of(&self, unread: &BTreeSet<u32>) -> Option<Option<i64>> {
        let known = self.partitions.entries().keys().filter(|number| unread.contains(number));
        known.map(|number| self.mark_of(*number)).min()
    }

    /// The same of all others that are not idle at this age.
    pub fn last_waited(&self, age_ms: u64, unread: &BTreeSet<u32>) -> Option<Option<i64>> {
        let others = self.partitions.entries().iter().filter(|(number, partition)| {
            !unread.contains(number) && !self.is_silent(partition, age_ms)
        });
        others.map(|(number, _)| self.mark_of(*number)).min()
    }

    /// How far a partition lets time go on. That never goes back, whatever wakes up.
    pub fn mark_of(&self, partition: u32) -> Option<i64> {
        let known = self.partitions.get(&partition).and_then(|known| known.top_ms);
        known.map(|top_ms| top_ms - self.rule.delay_ms).max(self.watermark())
    }

    /// What it keeps.
    pub fn parts(&self) -> Vec<&dyn Part> {
        vec![&self.partitions, &self.watermark]
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> Vec<&mut dyn Part> {
        vec![&mut self.partitions, &mut self.watermark]
    }
}

//! The tests of a file: what goes in, what has to come out, and what comes out.
//!
//! Every record that comes out has to be expected, those for bad and late records included: a test that
//! passes says that nothing else happened.

use crate::plan::Plan;
use crate::plan::written::interval;
use crate::run::engine::Engine;
use crate::run::fates::Fates;
use crate::run::record::{Record, Written};
use crate::sql::fixture::{Expected, Fixture, Input, Step};
use crate::value::json::Json;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long an epoch of a test is, if it does not say.
const EPOCH_MS: u64 = 1_000;

/// How a test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// What differs from what was expected; nothing if it passed.
    pub differences: Vec<String>,
    /// What became of the records, by the name of the source: all readers and partitions together.
    pub fates: Vec<(String, Fates)>,
}

/// Runs the tests of a plan.
pub fn run_fixtures(plan: &Arc<Plan>) -> Vec<Verdict> {
    plan.fixtures.iter().map(|fixture| run(plan, fixture)).collect()
}

fn run(plan: &Arc<Plan>, fixture: &Fixture) -> Verdict {
    let mut partitions: BTreeMap<String, u32> = BTreeMap::new();
    for step in &fixture.steps {
        if let Step::Input(input) = step {
            let count = partitions.entry(input.topic.text.clone()).or_insert(1);
            *count = (*count).max(input.partition + 1);
        }
    }
    let mut engine = Engine::new(Arc::clone(plan), &partitions);
    let mut differences = Vec::new();
    let written = match drive(&mut engine, fixture) {
        Ok(written) => written,
        Err((written, why)) => {
            differences.push(why);
            written
        }
    };
    differences.extend(compare(plan, fixture, &written));
    let mut fates: Vec<(String, Fates)> = Vec::new();
    for (reader, _, of) in engine.fates() {
        let name = &plan.sources[plan.readers[reader as usize]].name;
        let at = fates.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            fates.push((name.clone(), Fates::default()));
            fates.len() - 1
        });
        fates[at].1.add(&of);
    }
    Verdict { name: fixture.name.text.clone(), differences, fates }
}

/// Everything that came out, and why it stopped if it did.
fn drive(engine: &mut Engine, fixture: &Fixture) -> Result<Vec<Written>, (Vec<Written>, String)> {
    let mut offsets: BTreeMap<(&str, u32), i64> = BTreeMap::new();
    let mut epoch: BTreeMap<(&str, u32), Vec<Arc<Record>>> = BTreeMap::new();
    let mut written = Vec::new();
    let mut age_ms: u64 = 0;
    for step in &fixture.steps {
        match step {
            Step::Input(input) => {
                let place = (input.topic.text.as_str(), input.partition);
                let offset = offsets.entry(place).or_default();
                epoch.entry(place).or_default().push(Arc::new(record(input, *offset)));
                *offset += 1;
            }
            Step::Epoch(after) => {
                // It was looked at when the plan was made.
                let after = after.as_ref().and_then(|after| interval(after).ok());
                age_ms += after.map_or(EPOCH_MS, i64::unsigned_abs);
                end(engine, std::mem::take(&mut epoch), (age_ms, false), &mut written)?;
            }
        }
    }
    let is_last = !fixture.stays_open;
    end(engine, epoch, (age_ms + EPOCH_MS, is_last), &mut written)?;
    Ok(written)
}

fn end(
    engine: &mut Engine,
    epoch: BTreeMap<(&str, u32), Vec<Arc<Record>>>,
    (age_ms, is_last): (u64, bool),
    written: &mut Vec<Written>,
) -> Result<(), (Vec<Written>, String)> {
    let mut stop = None;
    for ((topic, _), records) in epoch {
        stop = stop.or(engine.batch(topic, &records).err());
    }
    match stop.map_or_else(|| engine.end_epoch(age_ms, is_last), Err) {
        Ok(more) => {
            written.extend(more);
            Ok(())
        }
        Err(halt) => Err((std::mem::take(written), format!("the pipeline stopped at {halt}"))),
    }
}

fn record(input: &Input, offset: i64) -> Record {
    let bytes = |text: &Option<String>| text.as_ref().map(|text| Bytes::from(text.clone()));
    Record {
        partition: input.partition,
        offset,
        timestamp: input.timestamp,
        key: bytes(&input.key),
        headers: Vec::new(),
        value: bytes(&input.value),
        damage: None,
        is_retried: false,
    }
}

fn compare(plan: &Plan, fixture: &Fixture, written: &[Written]) -> Vec<String> {
    let mut differences = Vec::new();
    for topic in plan.written() {
        let came: Vec<&Written> = written.iter().filter(|w| *w.topic == *topic).collect();
        let expected: Vec<&Expected> =
            fixture.expected.iter().filter(|e| e.topic.text == topic).collect();
        for (at, expected) in expected.iter().enumerate() {
            let place = expected.at;
            match came.get(at) {
                None => differences.push(format!("{place}: topic {topic}: no more record came")),
                Some(came) => {
                    let why = difference(expected, came);
                    differences.extend(why.map(|why| format!("{place}: topic {topic}: {why}")));
                }
            }
        }
        for more in came.iter().skip(expected.len()) {
            let at = fixture.name.at;
            let more = shown(more);
            differences.push(format!("{at}: topic {topic}: not expected, and came: {more}"));
        }
    }
    differences
}

fn difference(expected: &Expected, came: &Written) -> Option<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let value = came.value.as_ref().map(text);
    let same = match (&expected.value, &value) {
        (Some(expected), Some(came)) => match (Json::parse(expected), Json::parse(came)) {
            (Ok(expected), Ok(came)) => expected.means(&came),
            _ => expected == came,
        },
        (expected, came) => expected == came,
    };
    let null = || "NULL".to_owned();
    if !same {
        let expected = expected.value.clone().unwrap_or_else(null);
        return Some(format!("\n    expected {expected}\n    came     {}", shown(came)));
    }
    let key = came.key.as_ref().map(text);
    if expected.key.as_ref().is_some_and(|expected| *expected != key) {
        let expected = expected.key.clone().flatten().unwrap_or_else(null);
        let came = key.unwrap_or_else(null);
        return Some(format!("expected the key {expected}, and {came} came"));
    }
    let reason = reason(came);
    let part = expected.reason.as_ref()?;
    let is_there = reason.as_ref().is_some_and(|reason| reason.contains(part.as_str()));
    let came = reason.unwrap_or_else(|| "no reason".to_owned());
    (!is_there).then(|| format!("expected a reason with `{part}`, and `{came}` came"))
}

fn reason(written: &Written) -> Option<String> {
    let header = written.headers.iter().find(|(name, _)| &**name == "fulmar.reason");
    header.and_then(|(_, value)| value.as_ref()).map(|r| String::from_utf8_lossy(r).into_owned())
}

fn shown(written: &Written) -> String {
    let value = written.value.as_ref();
    let value = value.map_or("NULL".into(), |value| String::from_utf8_lossy(value));
    match reason(written) {
        Some(reason) => format!("{value} ({reason})"),
        None => value.into_owned(),
    }
}

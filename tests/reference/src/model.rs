//! The reference: after each epoch it looks at all records again that can matter, with loops over lists
//! and nothing else, and says what is new.

mod joins;
mod times;
mod windows;

pub use times::idle;

use crate::spec::{Case, Input, RETRIED, Shape, hundredths};
use joins::{enrich, join, pairs};
use std::collections::BTreeMap;
use times::{step, stream_times};
use windows::group;

/// What became of the records that one reader read from one partition; the words are those of
/// docs/SQL.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// How many it read.
    pub read: u64,
    /// Written to an output.
    pub passed: u64,
    /// Left out by a condition, or without a partner in a join.
    pub filtered: u64,
    /// Too late for the event time.
    pub late: u64,
    /// Sent to the topic for bad records.
    pub dead_lettered: u64,
    /// Bad, and dropped as the file says.
    pub dropped: u64,
    /// Part of a window that is closed, or a row of a table that was replaced.
    pub absorbed: u64,
    /// Part of what is kept.
    pub held: u64,
}

/// Fates by reader, as [`Shape::readers`] has them, and partition.
pub type ByReader = BTreeMap<(u32, u32), Fates>;

/// A record that comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// The topic.
    pub topic: String,
    /// The key.
    pub key: Option<String>,
    /// The payload.
    pub value: String,
    /// The timestamp; that of a record as it came is its event time, as whoever makes cases has it.
    pub at: i64,
    /// Partition and offset of the record that it is, as that was given, if it is one as it came.
    pub from: Option<(u32, i64)>,
    /// Whether it could not be computed, which is for a division by zero here.
    pub is_by_zero: bool,
    /// The output of the query behind which that was.
    pub behind: Option<String>,
}

/// What a case has to give.
pub struct Expected {
    /// What comes out in each epoch.
    pub epochs: Vec<Vec<Came>>,
    /// What has become of the records in the end, for each reader.
    pub fates: ByReader,
}

/// A row of the stream that is neither bad nor late.
#[derive(Clone, Copy)]
struct Row<'a> {
    epoch: usize,
    input: &'a Input,
}

fn is_bad(input: &Input) -> bool {
    input.is_broken || input.v.is_some_and(|v| v >= 90)
}

/// Runs a case.
pub fn run(case: &Case) -> Expected {
    let uses_time = !matches!(case.shape, Shape::Plain | Shape::Several { .. });
    let mut epochs: Vec<Vec<Came>> = vec![Vec::new(); case.epochs.len()];
    let mut fates = ByReader::new();
    let mut rows = Vec::new();
    let times = stream_times(case);
    for (epoch, inputs) in case.epochs.iter().enumerate() {
        let before = step(&times, epoch).0;
        for input in &inputs.inputs {
            let of = fates.entry((0, input.partition)).or_default();
            of.read += 1;
            let raw = |topic: &str| Came {
                topic: case.topic(topic),
                key: input.record_key(),
                value: input.payload().unwrap_or_default(),
                at: input.at,
                from: Some((input.partition, input.offset)),
                is_by_zero: false,
                behind: None,
            };
            if is_bad(input) {
                if case.drops {
                    of.dropped += 1;
                } else {
                    of.dead_lettered += 1;
                    epochs[epoch].push(raw("dead"));
                }
            } else if uses_time && before.is_some_and(|before| input.at < before) {
                of.late += 1;
                epochs[epoch].push(raw("late"));
            } else {
                rows.push(Row { epoch, input });
            }
        }
    }
    others_of_stream(case, &mut fates);
    match case.shape {
        Shape::Plain => plain(case, &rows, &mut epochs, &mut fates),
        Shape::Several { drops } => several(case, drops, &rows, (&mut epochs, &mut fates)),
        Shape::Enrich { keeps } => enrich(case, keeps, &rows, (&mut epochs, &mut fates)),
        Shape::Group { windows, by_key, having } => {
            group(case, (windows, by_key, having), &rows, (&mut epochs, &mut fates));
        }
        Shape::Pairs { size, keeps } => {
            pairs(case, (size, keeps), &rows, (&mut epochs, &mut fates));
        }
        Shape::Join { size, keeps } => {
            join(case, (size, keeps), &rows, (&mut epochs, &mut fates));
        }
    }
    Expected { epochs, fates }
}

fn quoted(number: Option<impl ToString>) -> String {
    number.map_or("null".to_owned(), |number| number.to_string())
}

/// 100 / (v - 3) with six digits, half away from zero.
fn quotient(v: i64) -> Option<String> {
    divided(v - 3)
}

/// 100 divided by something, as [`quotient`].
fn divided(by: i64) -> Option<String> {
    let (above, below) = (100_000_000i64, by.abs());
    let number = (above.checked_div(below)? * 2 + i64::from(above % below * 2 >= below) * 2) / 2;
    let sign = if by < 0 && number != 0 { "-" } else { "" };
    Some(format!("{sign}{}.{:06}", number / 1_000_000, number % 1_000_000))
}

type Out<'a> = (&'a mut Vec<Vec<Came>>, &'a mut ByReader);

/// Where a topic has one reader: that of the stream is the first one.
fn fate<'a>(fates: &'a mut ByReader, input: &Input) -> &'a mut Fates {
    fates.entry((input.is_device.into(), input.partition)).or_default()
}

/// What is bad or late at the stream is so for all of its readers, and not only for the first one.
fn others_of_stream(case: &Case, fates: &mut ByReader) {
    let first: Vec<(u32, Fates)> =
        fates.iter().map(|((_, partition), of)| (*partition, *of)).collect();
    for (reader, _) in (0..).zip(case.shape.readers()).skip(1).filter(|(_, name)| **name == "s") {
        fates.extend(first.iter().map(|(partition, of)| ((reader, *partition), *of)));
    }
}

fn out(case: &Case, at: i64, key: Option<String>, value: String) -> Came {
    let topic = case.topic("out");
    Came { topic, key, value, at, from: None, is_by_zero: false, behind: None }
}

/// A row that cannot be computed.
fn bad(case: &Case, input: &Input, (epoch, fates): (&mut Vec<Came>, &mut ByReader)) {
    if case.drops {
        fate(fates, input).dropped += 1;
        return;
    }
    fate(fates, input).dead_lettered += 1;
    epoch.push(letter(input, case.topic("dead"), Some(case.topic("out"))));
}

/// A record that is bad, or cannot be computed behind a query with this output.
fn letter(input: &Input, topic: String, behind: Option<String>) -> Came {
    let (value, key) = (input.payload().unwrap_or_default(), input.record_key());
    let from = Some((input.partition, input.offset));
    Came { topic, key, value, at: input.at, from, is_by_zero: behind.is_some(), behind }
}

fn plain(case: &Case, rows: &[Row<'_>], epochs: &mut [Vec<Came>], fates: &mut ByReader) {
    // Bad records of an epoch come before what cannot be computed.
    for Row { epoch, input } in rows {
        let Some(v) = input.v.filter(|v| *v >= case.least) else {
            fate(fates, input).filtered += 1;
            continue;
        };
        let Some(q) = quotient(v) else {
            bad(case, input, (&mut epochs[*epoch], fates));
            continue;
        };
        fate(fates, input).passed += 1;
        let (k, d) = (input.key(), hundredths(input.d * 2));
        let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"q\":{q},\"d\":{d}}}");
        epochs[*epoch].push(out(case, input.at, Some(k), value));
    }
}

/// One of several queries: the topic that it writes, what it divides by, and the reader that is it.
struct Query {
    output: &'static str,
    less: i64,
    reader: u32,
}

/// Those over the stream, in the order of what they write; each letter is for the one that it failed behind.
const QUERIES: [Query; 2] =
    [Query { output: "more", less: 5, reader: 0 }, Query { output: "out", less: 3, reader: 1 }];

/// The one over the other stream, of which no letter comes once more.
const ASIDE: Query = Query { output: "side", less: 7, reader: 2 };

fn several(case: &Case, drops: bool, rows: &[Row<'_>], (epochs, fates): Out<'_>) {
    // Of the rows each of the two reads what is for it.
    for of in fates.values_mut() {
        of.read = of.dead_lettered + of.dropped;
    }
    for query in &QUERIES {
        for Row { epoch, input } in rows {
            let is_other = |other: &Query| other.output != query.output && failed(other, input);
            if input.partition == RETRIED && QUERIES.iter().any(is_other) {
                continue;
            }
            let of = fates.entry((query.reader, input.partition)).or_default();
            of.read += 1;
            let dead = if case.drops { None } else { Some("dead") };
            epochs[*epoch].extend(one_of_several(case, (query, input), dead, of));
        }
    }
    let rest = if drops { None } else { Some("rest") };
    for is_early in [true, false] {
        for (epoch, inputs) in case.epochs.iter().enumerate() {
            for input in inputs.inputs.iter().filter(|input| input.partition != RETRIED) {
                let is_bad = input.is_broken || input.v.is_some_and(|v| v >= 89);
                if is_bad != is_early {
                    continue;
                }
                let of = fates.entry((ASIDE.reader, input.partition)).or_default();
                of.read += 1;
                if !is_bad {
                    epochs[epoch].extend(one_of_several(case, (&ASIDE, input), rest, of));
                } else if let Some(rest) = rest {
                    of.dead_lettered += 1;
                    epochs[epoch].push(letter(input, case.topic(rest), None));
                } else {
                    of.dropped += 1;
                }
            }
        }
    }
}

fn failed(query: &Query, input: &Input) -> bool {
    input.v == Some(query.less)
}

/// What a query makes of a row.
fn one_of_several(
    case: &Case,
    (query, input): (&Query, &Input),
    dead: Option<&str>,
    of: &mut Fates,
) -> Option<Came> {
    let Some(v) = input.v.filter(|v| *v >= case.least) else {
        of.filtered += 1;
        return None;
    };
    let Some(q) = divided(v - query.less) else {
        let Some(dead) = dead else {
            of.dropped += 1;
            return None;
        };
        of.dead_lettered += 1;
        return Some(letter(input, case.topic(dead), Some(case.topic(query.output))));
    };
    of.passed += 1;
    let k = input.key();
    let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"q\":{q}}}");
    Some(Came { topic: case.topic(query.output), ..out(case, input.at, Some(k), value) })
}

//! The reference: after each epoch it looks at all records again that can matter, with loops over lists
//! and nothing else, and says what is new.

use crate::spec::{Case, Input, RETRIED, Shape, Windows, hundredths};
use std::collections::{BTreeMap, BTreeSet};

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

/// What makes the event time of a source.
#[derive(Clone, Copy)]
struct Clock {
    is_table: bool,
    partitions: u32,
    delay_ms: i64,
    idle_ms: Option<i64>,
}

/// What is known of the time of a source at the end of an epoch.
struct Time {
    /// The watermark.
    mark: Option<i64>,
    /// The partitions that are idle.
    idle: BTreeSet<u32>,
    /// Whether all of them are.
    is_idle: bool,
}

/// The time of a source at the end of each epoch.
fn times(case: &Case, clock: Clock) -> Vec<Time> {
    let begun_ms = case.epochs.first().map_or(0, |epoch| epoch.age_ms);
    let mut heard_ms = vec![begun_ms; clock.partitions as usize];
    let mut tops: Vec<Option<i64>> = vec![None; clock.partitions as usize];
    let (mut best, mut all) = (None, Vec::new());
    for (at, epoch) in case.epochs.iter().enumerate() {
        for input in if clock.is_table { &epoch.devices } else { &epoch.inputs } {
            // One that comes once more says nothing of the time of its partition.
            if input.partition == RETRIED {
                continue;
            }
            let partition = input.partition as usize;
            // The end of a row of the table says nothing about its event time, and what is bad neither.
            let counts = if clock.is_table { !input.is_broken } else { !is_bad(input) };
            if counts {
                heard_ms[partition] = epoch.age_ms;
                tops[partition] = tops[partition].max(Some(input.at));
            }
        }
        for (partition, heard_ms) in (0..).zip(&mut heard_ms) {
            // What is there unread is no silence.
            let is_left = match clock.is_table {
                true => epoch.leaves_devices,
                false => epoch.unread.contains(&partition),
            };
            if is_left {
                *heard_ms = epoch.age_ms;
            }
        }
        let is_idle = |partition: &u32| {
            let silent_ms = epoch.age_ms - heard_ms[*partition as usize];
            clock.idle_ms.is_some_and(|idle_ms| silent_ms >= idle_ms as u64)
        };
        let idle: BTreeSet<u32> = (0..clock.partitions).filter(is_idle).collect();
        let active = (0..clock.partitions).filter(|partition| !idle.contains(partition));
        let least: Option<Vec<i64>> = active.map(|partition| tops[partition as usize]).collect();
        if let Some(least) = least.and_then(|tops| tops.into_iter().min()) {
            best = best.max(Some(least - clock.delay_ms));
        }
        if case.ends && at + 1 == case.epochs.len() {
            best = Some(i64::MAX);
        }
        let is_idle = idle.len() == clock.partitions as usize;
        all.push(Time { mark: best, idle, is_idle });
    }
    all
}

fn stream(case: &Case) -> Clock {
    let (partitions, delay_ms, idle_ms) = (case.partitions, case.delay_ms, case.idle_ms);
    Clock { is_table: false, partitions, delay_ms, idle_ms }
}

/// The partitions of the stream that are idle at the end of each epoch.
pub fn idle(case: &Case) -> Vec<BTreeSet<u32>> {
    times(case, stream(case)).into_iter().map(|time| time.idle).collect()
}

/// The watermark of the stream at the end of each epoch.
fn stream_times(case: &Case) -> Vec<Option<i64>> {
    times(case, stream(case)).into_iter().map(|time| time.mark).collect()
}

/// The watermark of the join with the table at the end of each epoch.
fn join_times(case: &Case) -> Vec<Option<i64>> {
    let table = Clock { is_table: true, partitions: 1, delay_ms: 0, idle_ms: Some(3_000) };
    let tables = times(case, table);
    let (mut best, mut all) = (None, Vec::new());
    for (mut next, table) in stream_times(case).into_iter().zip(tables) {
        if case.table_time && !table.is_idle {
            next = next.min(table.mark);
        }
        best = best.max(next);
        all.push(best);
    }
    all
}

/// The times at the end of the epoch before, and of this one.
fn step(times: &[Option<i64>], at: usize) -> (Option<i64>, Option<i64>) {
    (at.checked_sub(1).and_then(|before| times[before]), times[at])
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

fn enrich(case: &Case, keeps: bool, rows: &[Row<'_>], (epochs, fates): Out<'_>) {
    let devices: Vec<(usize, &Input)> = case
        .epochs
        .iter()
        .enumerate()
        .flat_map(|(at, epoch)| epoch.devices.iter().map(move |input| (at, input)))
        .collect();
    let times = join_times(case);
    for at in 0..case.epochs.len() {
        let (before, now) = step(&times, at);
        let mut due: Vec<&Row<'_>> = rows
            .iter()
            .filter(|row| row.epoch <= at && now.is_some_and(|now| row.input.at < now))
            .filter(|row| row.epoch == at || before.is_none_or(|before| row.input.at >= before))
            .collect();
        due.sort_by_key(|row| row.input.at);
        for Row { input, .. } in due {
            let known = devices.iter().filter(|(epoch, device)| {
                *epoch <= at && device.device == input.device && device.at <= input.at
            });
            let latest = known.max_by_key(|(_, device)| device.at).map(|(_, device)| device);
            let device = latest.filter(|device| !device.is_broken);
            let has_left = device.is_some() || keeps;
            let Some(v) = input.v.filter(|v| *v >= case.least && has_left) else {
                fate(fates, input).filtered += 1;
                continue;
            };
            let Some(q) = quotient(v) else {
                bad(case, input, (&mut epochs[at], fates));
                continue;
            };
            fate(fates, input).passed += 1;
            let (k, r) = (input.key(), quoted(device.map(|device| device.d)));
            let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"r\":{r},\"q\":{q}}}");
            epochs[at].push(out(case, input.at, Some(k), value));
        }
    }
    let end = times.last().copied().flatten();
    for row in rows.iter().filter(|row| end.is_none_or(|end| row.input.at >= end)) {
        fate(fates, row.input).held += 1;
    }
    table_fates(&devices, end, fates);
}

/// A row of the table is kept as long as a row of the stream can still ask for it.
fn table_fates(devices: &[(usize, &Input)], end: Option<i64>, fates: &mut ByReader) {
    for (at, (_, device)) in devices.iter().enumerate() {
        let same = |other: &&(usize, &Input)| other.1.device == device.device;
        let is_replaced = devices[at + 1..].iter().filter(same).any(|(_, o)| o.at == device.at);
        let mut younger = devices.iter().filter(same).map(|(_, other)| other.at);
        let is_old = end.is_some_and(|end| {
            let is_past = |time: i64| time <= end;
            let followed = younger.any(|time| time > device.at && is_past(time));
            is_past(device.at) && followed
        });
        let of = fate(fates, device);
        of.read += 1;
        if is_replaced || is_old { of.absorbed += 1 } else { of.held += 1 }
    }
}

/// What `WHERE v >= least OR v IS NULL` lets pass.
fn passes(case: &Case, input: &Input) -> bool {
    input.v.is_none_or(|v| v >= case.least)
}

/// A window: its end, its start, its key.
type Window = (i64, i64, Option<String>);

/// The windows of rows, and the rows of each in the order in which they came.
fn windows_of<'a>(
    (windows, by_key): (Windows, bool),
    rows: impl Iterator<Item = &'a Input>,
) -> BTreeMap<Window, Vec<&'a Input>> {
    let key = |input: &Input| by_key.then(|| input.key());
    let mut found: BTreeMap<Window, Vec<&'a Input>> = BTreeMap::new();
    match windows {
        Windows::Tumble(size) => {
            for input in rows {
                let start = input.at.div_euclid(size) * size;
                found.entry((start + size, start, key(input))).or_default().push(input);
            }
        }
        Windows::Hop(slide, size) => {
            for input in rows {
                let mut start = input.at.div_euclid(slide) * slide;
                while start > input.at - size {
                    found.entry((start + size, start, key(input))).or_default().push(input);
                    start -= slide;
                }
            }
        }
        Windows::Session(gap) => {
            let rows: Vec<&Input> = rows.collect();
            let mut by_time: Vec<(Option<String>, i64)> =
                rows.iter().map(|input| (key(input), input.at)).collect();
            by_time.sort();
            // Rows of one key that overlap, one after the other: start and end of each session.
            let mut sessions: Vec<(Option<String>, i64, i64)> = Vec::new();
            for (key, at) in by_time {
                match sessions.last_mut().filter(|last| last.0 == key && at < last.2) {
                    Some(last) => last.2 = at + gap,
                    None => sessions.push((key, at, at + gap)),
                }
            }
            for input in rows {
                let key = key(input);
                let holds = |session: &&(Option<String>, i64, i64)| {
                    session.0 == key && (session.1..session.2).contains(&input.at)
                };
                let (key, start, end) = sessions.iter().find(holds).cloned().unwrap_or_default();
                found.entry((end, start, key)).or_default().push(input);
            }
        }
    }
    found
}

fn group(
    case: &Case,
    (windows, by_key, having): (Windows, bool, u64),
    rows: &[Row<'_>],
    (epochs, fates): Out<'_>,
) {
    let times = stream_times(case);
    for at in 0..case.epochs.len() {
        let (before, Some(now)) = step(&times, at) else { continue };
        // No window that ends now has rows from before that. A session may be of any length.
        let reaches = |input: &Input| match (windows, before) {
            (Windows::Tumble(size) | Windows::Hop(_, size), Some(before)) => {
                input.at >= before - size
            }
            _ => true,
        };
        let upto = rows.iter().filter(|row| row.epoch <= at).map(|row| row.input);
        let upto = upto.filter(|input| passes(case, input) && reaches(input));
        let found = windows_of((windows, by_key), upto);
        let mut fire: Vec<(Window, Vec<&Input>)> = found
            .into_iter()
            .filter(|((end, ..), _)| *end <= now && before.is_none_or(|before| *end > before))
            .collect();
        // Sessions that end together come in the order of their keys.
        if matches!(windows, Windows::Session(_)) {
            fire.sort_by(|((a_end, a, x), _), ((b_end, b, y), _)| {
                (a_end, x, a).cmp(&(b_end, y, b))
            });
        }
        for ((end, start, key), inputs) in fire {
            if inputs.len() as u64 > having {
                // The last moment of the window.
                let value = line((start, end), key.clone(), &inputs);
                epochs[at].push(out(case, end - 1, key, value));
            }
        }
    }
    let end = times.last().copied().flatten();
    let kept = rows.iter().map(|row| row.input).filter(|input| passes(case, input));
    let mut last: BTreeMap<(u32, i64), i64> = BTreeMap::new();
    for ((end, ..), inputs) in windows_of((windows, by_key), kept) {
        for input in inputs {
            let known = last.entry((input.partition, input.offset)).or_insert(end);
            *known = end.max(*known);
        }
    }
    for Row { input, .. } in rows {
        let of = fate(fates, input);
        match last.get(&(input.partition, input.offset)) {
            None => of.filtered += 1,
            Some(last) if end.is_some_and(|end| *last <= end) => of.absorbed += 1,
            Some(_) => of.held += 1,
        }
    }
}

fn line((start, end): (i64, i64), key: Option<String>, inputs: &[&Input]) -> String {
    let time = |ms: i64| {
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, ms) = (ms / 1_000 % 60, ms.rem_euclid(1_000));
        format!("\"1970-01-01T{hour:02}:{minute:02}:{second:02}.{ms:03}Z\"")
    };
    let values: Vec<(i64, i64)> = inputs.iter().filter_map(|i| i.v.map(|v| (i.at, v))).collect();
    let sum: i64 = values.iter().map(|(_, v)| v).sum();
    let sum_d: i64 = inputs.iter().map(|input| input.d).sum();
    let sum_f: i64 = inputs.iter().map(|input| input.f).sum();
    let high = inputs.iter().map(|input| input.d).max().unwrap_or_default();
    let first = values.iter().min_by_key(|(at, _)| *at).map(|(_, v)| v);
    let last = values.iter().max_by_key(|(at, _)| *at).map(|(_, v)| v);
    let count = inputs.len() as i64;
    // Millionths of the mean of hundredths.
    let (above, sign) = (sum_d.abs() * 10_000, if sum_d < 0 { "-" } else { "" });
    let mean = (above * 2 + count) / (count * 2);
    let sign = if mean == 0 { "" } else { sign };
    let mean = format!("{sign}{}.{:06}", mean / 1_000_000, mean % 1_000_000);
    let key = key.map_or(String::new(), |key| format!("\"k\":\"{key}\","));
    format!(
        "{{{key}\"window_start\":{},\"window_end\":{},\"n\":{count},\"nv\":{},\"sv\":{},\"sd\":{},\
         \"ad\":{mean},\"sf\":{:?},\"low\":{},\"high\":{},\"first\":{},\"last\":{}}}",
        time(start),
        time(end),
        values.len(),
        quoted((!values.is_empty()).then_some(sum)),
        hundredths(sum_d),
        sum_f as f64 / 4.0,
        quoted(values.iter().map(|(_, v)| v).min()),
        hundredths(high),
        quoted(first),
        quoted(last),
    )
}

/// The rows of the other topic that are neither bad nor late, and what became of all others.
fn others<'a>(case: &'a Case, times: &[Time], fates: &mut ByReader) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (at, epoch) in case.epochs.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| times[before].mark);
        for input in &epoch.devices {
            let of = fates.entry((1, input.partition)).or_default();
            of.read += 1;
            if input.is_broken {
                of.dropped += 1;
            } else if before.is_some_and(|before| input.at < before) {
                of.late += 1;
            } else {
                rows.push(Row { epoch: at, input });
            }
        }
    }
    rows
}

fn pairs(case: &Case, (size, keeps): (i64, bool), rows: &[Row<'_>], (epochs, fates): Out<'_>) {
    let clock = Clock { is_table: true, partitions: 1, ..stream(case) };
    let other_times = times(case, clock);
    let others = others(case, &other_times, fates);
    let both = stream_times(case).into_iter().zip(&other_times);
    // Neither is ever ahead of the other.
    let times: Vec<Option<i64>> = both.map(|(one, other)| one.min(other.mark)).collect();
    let end = |input: &Input| input.at.div_euclid(size) * size + size;
    for at in 0..case.epochs.len() {
        let (before, now) = step(&times, at);
        let is_due = |row: &&Row<'_>| {
            let end = end(row.input);
            let is_new = before.is_none_or(|before| end > before);
            row.epoch <= at && is_new && now.is_some_and(|now| end <= now)
        };
        let mut left: Vec<&Row<'_>> = rows.iter().filter(is_due).collect();
        left.sort_by_key(|row| (end(row.input), row.input.key()));
        for Row { input, .. } in left {
            let is_partner =
                |row: &&Row<'_>| row.input.device == input.device && end(row.input) == end(input);
            let partners: Vec<Option<i64>> =
                others.iter().filter(is_due).filter(is_partner).map(|r| Some(r.input.d)).collect();
            let nobody = if partners.is_empty() && keeps { vec![None] } else { Vec::new() };
            for r in partners.into_iter().chain(nobody) {
                let (k, v, r) = (input.key(), quoted(input.v), quoted(r));
                let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"r\":{r}}}");
                epochs[at].push(out(case, end(input) - 1, Some(k), value));
            }
        }
    }
    let now = times.last().copied().flatten();
    for row in rows.iter().chain(&others) {
        let of = fate(fates, row.input);
        if now.is_some_and(|now| end(row.input) <= now) { of.absorbed += 1 } else { of.held += 1 }
    }
}

fn join(case: &Case, (size, keeps): (i64, bool), rows: &[Row<'_>], (epochs, fates): Out<'_>) {
    let start = |input: &Input| input.at.div_euclid(size) * size;
    let times = stream_times(case);
    for at in 0..case.epochs.len() {
        let (before, now) = step(&times, at);
        let fires = |end: i64| {
            now.is_some_and(|now| end <= now) && before.is_none_or(|before| end > before)
        };
        let upto = rows.iter().filter(|row| row.epoch <= at).map(|row| row.input);
        let due: Vec<&Input> = upto.filter(|input| fires(start(input) + size)).collect();
        let mut starts: Vec<i64> = due.iter().map(|input| start(input)).collect();
        starts.sort_unstable();
        starts.dedup();
        for window in starts {
            let inside: Vec<&Input> =
                due.iter().copied().filter(|input| start(input) == window).collect();
            let most = inside.iter().filter_map(|input| input.v).max();
            let mut left: Vec<&&Input> =
                inside.iter().filter(|i| i.v.is_some_and(|v| v >= case.least)).collect();
            left.sort_by_key(|input| input.v);
            for input in left {
                let best = most.filter(|most| Some(*most) == input.v);
                if best.is_some() || keeps {
                    let (k, v, m) = (input.key(), quoted(input.v), quoted(best));
                    let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"m\":{m}}}");
                    epochs[at].push(out(case, window + size - 1, Some(k), value));
                }
            }
        }
    }
    let end = times.last().copied().flatten();
    for row in rows {
        let is_closed = end.is_some_and(|end| start(row.input) + size <= end);
        // The second reader looks for the most: nothing is left out on its way.
        for (reader, is_kept) in
            [row.input.v.is_some_and(|v| v >= case.least), true].iter().enumerate()
        {
            let of = fates.entry((reader as u32, row.input.partition)).or_default();
            match (is_kept, is_closed) {
                (false, _) => of.filtered += 1,
                (true, true) => of.absorbed += 1,
                (true, false) => of.held += 1,
            }
        }
    }
}

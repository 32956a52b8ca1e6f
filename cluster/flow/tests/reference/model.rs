//! The reference: after each epoch it looks at all records again from the start, with loops over lists and
//! nothing else, and says what is new.

use super::spec::{Case, Input, PARTITIONS, Shape, Windows, hundredths};
use fulmar_flow::Fates;
use std::collections::BTreeMap;

/// A record that comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// The topic.
    pub topic: String,
    /// The key.
    pub key: Option<String>,
    /// The payload.
    pub value: String,
}

/// What a case has to give.
pub struct Expected {
    /// What comes out in each epoch.
    pub epochs: Vec<Vec<Came>>,
    /// What has become of the records in the end, by source and partition, at the last reader of the
    /// source.
    pub fates: BTreeMap<(String, u32), Fates>,
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

/// The watermark at the end of an epoch, and whether all partitions are idle.
fn watermark(
    case: &Case,
    upto: usize,
    (of_devices, partitions, delay_ms, idle_ms): (bool, u32, i64, Option<i64>),
) -> (Option<i64>, bool) {
    let (mut best, mut idle) = (None, false);
    for at in 0..=upto {
        let age_ms = case.epochs[at].age_ms;
        let mut least: Option<i64> = None;
        let (mut active, mut unknown) = (0, 0);
        for partition in 0..partitions {
            let (mut heard_ms, mut top) = (case.epochs[0].age_ms, None);
            for epoch in &case.epochs[..=at] {
                let inputs = if of_devices { &epoch.devices } else { &epoch.inputs };
                for input in inputs.iter().filter(|input| input.partition == partition) {
                    heard_ms = epoch.age_ms;
                    // The end of a row of the table says nothing about its event time.
                    let counts = if of_devices { !input.is_broken } else { !is_bad(input) };
                    if counts {
                        top = top.max(Some(input.at));
                    }
                }
            }
            if idle_ms.is_some_and(|idle_ms| age_ms - heard_ms >= idle_ms as u64) {
                continue;
            }
            active += 1;
            match top {
                None => unknown += 1,
                Some(top) => least = Some(least.map_or(top, |least| least.min(top))),
            }
        }
        idle = active == 0;
        if unknown == 0
            && let Some(least) = least
        {
            best = best.max(Some(least - delay_ms));
        }
        if case.ends && at + 1 == case.epochs.len() {
            best = Some(i64::MAX);
        }
    }
    (best, idle)
}

fn stream_time(case: &Case, at: usize) -> (Option<i64>, bool) {
    watermark(case, at, (false, PARTITIONS, case.delay_ms, case.idle_ms))
}

/// The watermark of the join with the table.
fn join_time(case: &Case, upto: usize) -> Option<i64> {
    let mut best = None;
    for at in 0..=upto {
        let mut next = stream_time(case, at).0;
        if case.table_time {
            let (table, is_idle) = watermark(case, at, (true, 1, 0, Some(3_000)));
            if !is_idle {
                next = next.min(table);
            }
        }
        best = best.max(next);
    }
    best
}

/// Runs a case.
pub fn run(case: &Case) -> Expected {
    let uses_time = case.shape != Shape::Plain;
    let mut epochs: Vec<Vec<Came>> = vec![Vec::new(); case.epochs.len()];
    let mut fates: BTreeMap<(String, u32), Fates> = BTreeMap::new();
    let mut rows = Vec::new();
    for (epoch, inputs) in case.epochs.iter().enumerate() {
        let before = epoch.checked_sub(1).and_then(|before| stream_time(case, before).0);
        for input in &inputs.inputs {
            let of = fates.entry(("s".to_owned(), input.partition)).or_default();
            of.read += 1;
            let raw = |topic: &str| Came {
                topic: topic.to_owned(),
                key: Some(input.key()),
                value: input.payload().unwrap_or_default(),
            };
            if is_bad(input) {
                of.dead_lettered += 1;
                epochs[epoch].push(raw("dead"));
            } else if uses_time && before.is_some_and(|before| input.at < before) {
                of.late += 1;
                epochs[epoch].push(raw("late"));
            } else {
                rows.push(Row { epoch, input });
            }
        }
    }
    match case.shape {
        Shape::Plain => plain(case, &rows, &mut epochs, &mut fates),
        Shape::Enrich { keeps } => enrich(case, keeps, &rows, (&mut epochs, &mut fates)),
        Shape::Group { windows, by_key, having } => {
            group(case, (windows, by_key, having), &rows, (&mut epochs, &mut fates));
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
    let by = v - 3;
    let (above, below) = (100_000_000i64, by.abs());
    let number = (above.checked_div(below)? * 2 + i64::from(above % below * 2 >= below) * 2) / 2;
    let sign = if by < 0 && number != 0 { "-" } else { "" };
    Some(format!("{sign}{}.{:06}", number / 1_000_000, number % 1_000_000))
}

type Out<'a> = (&'a mut Vec<Vec<Came>>, &'a mut BTreeMap<(String, u32), Fates>);

fn fate<'a>(fates: &'a mut BTreeMap<(String, u32), Fates>, input: &Input) -> &'a mut Fates {
    let name = if input.is_device { "t" } else { "s" };
    fates.entry((name.to_owned(), input.partition)).or_default()
}

fn out(key: Option<String>, value: String) -> Came {
    Came { topic: "out".to_owned(), key, value }
}

fn dead(input: &Input) -> Came {
    let value = input.payload().unwrap_or_default();
    Came { topic: "dead".to_owned(), key: Some(input.key()), value }
}

fn plain(
    case: &Case,
    rows: &[Row<'_>],
    epochs: &mut [Vec<Came>],
    fates: &mut BTreeMap<(String, u32), Fates>,
) {
    // Bad records of an epoch come before what cannot be computed.
    for Row { epoch, input } in rows {
        let Some(v) = input.v.filter(|v| *v >= case.least) else {
            fate(fates, input).filtered += 1;
            continue;
        };
        let Some(q) = quotient(v) else {
            fate(fates, input).dead_lettered += 1;
            epochs[*epoch].push(dead(input));
            continue;
        };
        fate(fates, input).passed += 1;
        let (k, d) = (input.key(), hundredths(input.d * 2));
        let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"q\":{q},\"d\":{d}}}");
        epochs[*epoch].push(out(Some(k), value));
    }
}

fn enrich(case: &Case, keeps: bool, rows: &[Row<'_>], (epochs, fates): Out<'_>) {
    let devices: Vec<(usize, &Input)> = case
        .epochs
        .iter()
        .enumerate()
        .flat_map(|(at, epoch)| epoch.devices.iter().map(move |input| (at, input)))
        .collect();
    for at in 0..case.epochs.len() {
        let now = join_time(case, at);
        let before = at.checked_sub(1).and_then(|before| join_time(case, before));
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
                fate(fates, input).dead_lettered += 1;
                epochs[at].push(dead(input));
                continue;
            };
            fate(fates, input).passed += 1;
            let (k, r) = (input.key(), quoted(device.map(|device| device.d)));
            let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"r\":{r},\"q\":{q}}}");
            epochs[at].push(out(Some(k), value));
        }
    }
    let end = join_time(case, case.epochs.len() - 1);
    for row in rows.iter().filter(|row| end.is_none_or(|end| row.input.at >= end)) {
        fate(fates, row.input).held += 1;
    }
    table_fates(&devices, end, fates);
}

/// A row of the table is kept as long as a row of the stream can still ask for it.
fn table_fates(
    devices: &[(usize, &Input)],
    end: Option<i64>,
    fates: &mut BTreeMap<(String, u32), Fates>,
) {
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

/// The windows of the rows up to an epoch: start, end, key, rows in the order in which they came.
fn windows_of<'a>(
    case: &Case,
    windows: Windows,
    by_key: bool,
    rows: &[&Row<'a>],
) -> Vec<(i64, i64, Option<String>, Vec<&'a Input>)> {
    let key = |input: &Input| by_key.then(|| input.key());
    let mut found: Vec<(i64, i64, Option<String>, Vec<&'a Input>)> = Vec::new();
    let mut add = |start: i64, end: i64, input: &'a Input| {
        let known = found.iter_mut().find(|w| w.0 == start && w.1 == end && w.2 == key(input));
        match known {
            Some(window) => window.3.push(input),
            None => found.push((start, end, key(input), vec![input])),
        }
    };
    let inputs = rows.iter().map(|row| row.input).filter(|input| passes(case, input));
    match windows {
        Windows::Tumble(size) => {
            inputs.for_each(|input| {
                let start = input.at.div_euclid(size) * size;
                add(start, start + size, input);
            });
        }
        Windows::Hop(slide, size) => {
            for input in inputs {
                for start in (input.at - size + 1)..=input.at {
                    if start.rem_euclid(slide) == 0 {
                        add(start, start + size, input);
                    }
                }
            }
        }
        Windows::Session(gap) => {
            let inputs: Vec<&Input> = inputs.collect();
            for one in &inputs {
                let same: Vec<&&Input> = inputs.iter().filter(|o| key(o) == key(one)).collect();
                let (mut start, mut end) = (one.at, one.at + gap);
                // As long as another row touches, the session grows.
                loop {
                    let touch = same.iter().filter(|o| o.at <= end && o.at + gap >= start);
                    let (low, high) = touch
                        .fold((start, end), |(low, high), o| (low.min(o.at), high.max(o.at + gap)));
                    if (low, high) == (start, end) {
                        break;
                    }
                    (start, end) = (low, high);
                }
                add(start, end, one);
            }
        }
    }
    found.sort_by(|a, b| (a.1, a.0, &a.2).cmp(&(b.1, b.0, &b.2)));
    if matches!(windows, Windows::Session(_)) {
        found.sort_by(|a, b| (a.1, &a.2, a.0).cmp(&(b.1, &b.2, b.0)));
    }
    found
}

fn group(
    case: &Case,
    (windows, by_key, having): (Windows, bool, u64),
    rows: &[Row<'_>],
    (epochs, fates): Out<'_>,
) {
    for at in 0..case.epochs.len() {
        let now = stream_time(case, at).0;
        let before = at.checked_sub(1).and_then(|before| stream_time(case, before).0);
        let upto: Vec<&Row<'_>> = rows.iter().filter(|row| row.epoch <= at).collect();
        for (start, end, key, inputs) in windows_of(case, windows, by_key, &upto) {
            let fires =
                now.is_some_and(|now| end <= now) && before.is_none_or(|before| end > before);
            if fires && inputs.len() as u64 > having {
                epochs[at].push(out(key.clone(), line((start, end), key, &inputs)));
            }
        }
    }
    let end = stream_time(case, case.epochs.len() - 1).0;
    let all: Vec<&Row<'_>> = rows.iter().collect();
    let found = windows_of(case, windows, by_key, &all);
    for row in rows {
        let of = fate(fates, row.input);
        if !passes(case, row.input) {
            of.filtered += 1;
            continue;
        }
        let holds = |w: &&(i64, i64, Option<String>, Vec<&Input>)| {
            w.3.iter().any(|input| std::ptr::eq(*input, row.input))
        };
        let last = found.iter().filter(holds).map(|window| window.1).max();
        let is_closed = end.is_some_and(|end| last.is_some_and(|last| last <= end));
        if is_closed { of.absorbed += 1 } else { of.held += 1 }
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

fn join(case: &Case, (size, keeps): (i64, bool), rows: &[Row<'_>], (epochs, fates): Out<'_>) {
    let start = |input: &Input| input.at.div_euclid(size) * size;
    for at in 0..case.epochs.len() {
        let now = stream_time(case, at).0;
        let before = at.checked_sub(1).and_then(|before| stream_time(case, before).0);
        let upto = || rows.iter().filter(|row| row.epoch <= at).map(|row| row.input);
        let mut starts: Vec<i64> = upto().map(start).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|start| {
            let end = start + size;
            now.is_some_and(|now| end <= now) && before.is_none_or(|before| end > before)
        });
        for window in starts {
            let inside: Vec<&Input> = upto().filter(|input| start(input) == window).collect();
            let most = inside.iter().filter_map(|input| input.v).max();
            let mut left: Vec<&&Input> =
                inside.iter().filter(|i| i.v.is_some_and(|v| v >= case.least)).collect();
            left.sort_by_key(|input| input.v);
            for input in left {
                let best = most.filter(|most| Some(*most) == input.v);
                if best.is_some() || keeps {
                    let (k, v, m) = (input.key(), quoted(input.v), quoted(best));
                    let value = format!("{{\"k\":\"{k}\",\"v\":{v},\"m\":{m}}}");
                    epochs[at].push(out(Some(k), value));
                }
            }
        }
    }
    // The last reader is the one that looks for the most; nothing is left out on its way.
    let end = stream_time(case, case.epochs.len() - 1).0;
    for row in rows {
        let is_closed = end.is_some_and(|end| start(row.input) + size <= end);
        let of = fate(fates, row.input);
        if is_closed { of.absorbed += 1 } else { of.held += 1 }
    }
}

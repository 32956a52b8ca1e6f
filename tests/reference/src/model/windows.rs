//! Windows of the stream, and what is computed over each.

use super::times::{step, stream_times};
use super::{Out, Row, fate, out, quoted};
use crate::spec::{Case, Input, Windows, hundredths};
use std::collections::BTreeMap;

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

pub(super) fn group(
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

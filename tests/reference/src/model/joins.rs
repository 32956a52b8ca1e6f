//! Joins: of the stream with the table, with another stream, and with itself.

use super::times::{Clock, Time, join_times, step, stream, stream_times, times};
use super::{ByReader, Out, Row, bad, fate, out, quoted, quotient};
use crate::spec::{Case, Input};

pub(super) fn enrich(case: &Case, keeps: bool, rows: &[Row<'_>], (epochs, fates): Out<'_>) {
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

pub(super) fn pairs(
    case: &Case,
    (size, keeps): (i64, bool),
    rows: &[Row<'_>],
    (epochs, fates): Out<'_>,
) {
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

pub(super) fn join(
    case: &Case,
    (size, keeps): (i64, bool),
    rows: &[Row<'_>],
    (epochs, fates): Out<'_>,
) {
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

//! `fulmar-nexmark`: events as a file, and how much processor time the engine takes for them.
//!
//! ```text
//! fulmar-nexmark events N              the first N events, a line each
//! fulmar-nexmark side                  the rows of the table of q13
//! fulmar-nexmark run QUERY FILE MS     the engine over such a file, in epochs of so many milliseconds of event
//!                                      time; its output goes to the file OUT, if the environment names one
//! ```
//!
//! `run` prints one line of JSON: the events, what came out, and the processor time of the engine (`engine_s`)
//! and of the whole process, which also reads the file and makes batches of it (`process_s`); and for how long
//! outputs were made batches with their digest, and state was taken out (`commit_s`, part of `engine_s`).

use fulmar_nexmark::events::{self, Stored, time_of};
use fulmar_nexmark::queries;
use fulmar_nexmark::run::{Epoch, run};
use fulmar_wire::batch::Batch;
use std::fs;
use std::io::{self, BufWriter, Write};

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["events", count] => {
            let count = count.parse().map_err(|error| format!("{count}: {error}"))?;
            let events = events::events(count, events::PER_SECOND);
            print(events.map(|event| events::payload(&event)))
        }
        ["side"] => print(events::side_input()),
        ["run", query, file, epoch_ms] => {
            let epoch_ms = epoch_ms.parse().map_err(|error| format!("{epoch_ms}: {error}"))?;
            measure(query, file, epoch_ms)
        }
        _ => Err("usage: events N | side | run QUERY FILE MS".to_owned()),
    }
}

fn print(lines: impl Iterator<Item = String>) -> Result<(), String> {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(out, "{line}").map_err(|error| error.to_string())?;
    }
    out.flush().map_err(|error| error.to_string())
}

/// The processor time of this process so far, in seconds. It has one thread.
fn cpu_s() -> Result<f64, String> {
    let text = fs::read_to_string("/proc/self/schedstat").map_err(|error| error.to_string())?;
    let ns = text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
    ns.map(|ns| ns as f64 / 1e9).ok_or_else(|| "the system does not count".to_owned())
}

/// The batches of each epoch.
fn epochs(text: &[u8], epoch_ms: u64) -> (usize, Vec<Epoch>) {
    let lines: Vec<&[u8]> =
        text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let of = |line: &[u8]| (time_of(line) - events::BASE_TIME_MS) / epoch_ms;
    let (mut epochs, mut offset) = (Vec::new(), 0);
    for lines in lines.chunk_by(|one, next| of(one) == of(next)) {
        while (epochs.len() as u64) < of(lines[0]) {
            epochs.push(Vec::new());
        }
        let payloads = lines.iter().map(|line| (time_of(line), *line));
        let batches: Vec<Stored> = events::stored(offset, payloads);
        epochs.push(batches);
        offset += lines.len() as i64;
    }
    (lines.len(), epochs)
}

fn measure(query: &str, file: &str, epoch_ms: u64) -> Result<(), String> {
    let query = queries::named(query).ok_or_else(|| format!("there is no query {query}"))?;
    let text = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let (count, epochs) = epochs(&text, epoch_ms);
    drop(text);
    let rows: Vec<String> =
        if query.name == "q13" { events::side_input().collect() } else { Vec::new() };
    let side = events::stored(0, rows.iter().map(|row| (0, row.as_bytes())));
    let plan = fulmar_flow::plan(query.text).map_err(|problems| format!("{problems:?}"))?;
    let out = std::env::var_os("OUT").map(fs::File::create).transpose();
    let mut out = out.map_err(|error| error.to_string())?.map(BufWriter::new);
    let before_s = cpu_s()?;
    let outcome = run(plan, &side, &epochs, epoch_ms, |batch| {
        if let Some(out) = &mut out {
            write_records(out, batch);
        }
    });
    let after_s = cpu_s()?;
    println!(
        "{}",
        serde_json::json!({
            "query": query.name, "events": count, "epochs": epochs.len(), "epoch_ms": epoch_ms,
            "records": outcome.records, "output_bytes": outcome.output_bytes,
            "state_bytes": outcome.state_bytes, "state_entries": outcome.state_entries,
            "engine_s": after_s - before_s, "commit_s": outcome.commit_time.as_secs_f64(),
            "process_s": after_s,
        })
    );
    Ok(())
}

fn write_records(out: &mut impl Write, batch: &bytes::Bytes) {
    let batch = Batch::parse(batch.clone()).expect("the engine has made it");
    for record in batch.records().expect("it is not compressed") {
        let value = record.expect("it is whole").value.unwrap_or_default();
        let written = out.write_all(&value).and_then(|()| out.write_all(b"\n"));
        written.expect("the disk has room");
    }
}

//! Each query over some events gives what the reference says, whatever the epochs.

use bytes::Bytes;
use fulmar_nexmark::events::{self, BASE_TIME_MS, Stored};
use fulmar_nexmark::expected;
use fulmar_nexmark::queries::{self, Query};
use fulmar_nexmark::run::{Epoch, run};
use fulmar_wire::batch::Batch;
use nexmark::event::Event;
use serde_json::Value;

/// A minute of event time, so that each window opens and closes several times.
const EVENTS: usize = 30_000;
const PER_SECOND: usize = 500;

fn epochs(events: &[Event], epoch_ms: u64) -> Vec<Epoch> {
    let of = |event: &Event| (event.timestamp() - BASE_TIME_MS) / epoch_ms;
    let (mut epochs, mut offset) = (Vec::new(), 0);
    for events in events.chunk_by(|one, next| of(one) == of(next)) {
        let payloads: Vec<(u64, String)> =
            events.iter().map(|event| (event.timestamp(), events::payload(event))).collect();
        let records = payloads.iter().map(|(at, payload)| (*at, payload.as_bytes()));
        epochs.push(events::stored(offset, records));
        offset += events.len() as i64;
    }
    epochs
}

fn side() -> Vec<Stored> {
    let rows: Vec<String> = events::side_input().collect();
    events::stored(0, rows.iter().map(|row| (0, row.as_bytes())))
}

/// The rows that a query gives, each as JSON with its members in the order of their names, sorted.
fn came(query: Query, epochs: &[Epoch], epoch_ms: u64) -> Vec<String> {
    let plan = fulmar_flow::plan(query.text).expect("the query has no mistake");
    let side = if query.name == "q13" { side() } else { Vec::new() };
    let mut rows = Vec::new();
    run(plan, &side, epochs, epoch_ms, |batch: &Bytes| {
        let batch = Batch::parse(batch.clone()).expect("a batch");
        for record in batch.records().expect("not compressed") {
            let value = record.expect("whole").value.expect("a payload");
            let row: Value = serde_json::from_slice(&value).expect("JSON");
            rows.push(row.to_string());
        }
    });
    rows.sort();
    rows
}

#[test]
fn every_query_gives_what_the_reference_says() {
    let events: Vec<Event> = events::events(EVENTS, PER_SECOND).collect();
    for epoch_ms in [1_000, 70] {
        let epochs = epochs(&events, epoch_ms);
        for query in queries::ALL {
            let expected = expected::rows(query.name, &events);
            assert!(!expected.is_empty(), "{} says something", query.name);
            let came = came(*query, &epochs, epoch_ms);
            let differ = came.iter().zip(&expected).find(|(came, expected)| came != expected);
            assert_eq!(differ, None, "{} in epochs of {epoch_ms} ms", query.name);
            assert_eq!(came.len(), expected.len(), "{}", query.name);
        }
    }
}

#[test]
fn the_events_of_a_number_never_change() {
    let lines: Vec<String> =
        events::events(5, 10_000).map(|event| events::payload(&event)).collect();
    assert_eq!(lines[0].len(), 350, "{}", lines[0]);
    assert!(lines.iter().all(|line| events::time_of(line.as_bytes()) == BASE_TIME_MS));
}

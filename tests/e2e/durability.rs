//! Acknowledged means flushed on a majority, shown on real processes from outside.
//!
//! SIGKILL alone shows nothing: the page cache survives it. So one test watches the system calls
//! of a lone produce, and the other takes away what was not flushed after killing all three nodes.

use fulmar_tests::kafka::{Client, read_all};
use fulmar_tests::site::{How, NODES, Site, eventually};
use fulmar_tests::strace::{Call, calls};
use fulmar_tests::tools;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Long enough for a node to have nothing left to write.
const QUIET: Duration = Duration::from_secs(1);

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_micros()).expect("a clock before 586000")
}

/// When the record with this marker was flushed on a node: the end of the first flush that began
/// after the write had returned, of the same file.
fn flushed_us(calls: &[Call], data: &str, marker: &str) -> Option<u64> {
    let is_write = |call: &&Call| {
        call.target().starts_with(data) && call.arguments.contains(marker) && call.result > 0
    };
    let write = calls.iter().find(is_write)?;
    let covers = |call: &&Call| {
        call.is_flush()
            && call.result == 0
            && call.target() == write.target()
            && call.start_us >= write.end_us
    };
    calls.iter().filter(covers).map(|call| call.end_us).min()
}

#[test]
fn a_lone_produce_is_answered_after_two_nodes_have_flushed_it() {
    if !tools::is_there("strace") {
        return;
    }
    // A traced node is slow; it must not lose its leader to that.
    let mut site = Site::new("strace", "\n[consensus]\nprofile = \"slow-disk\"\n");
    site.start_all(How::Strace);
    site.wait_ready();
    site.create_topic("lone", 1);
    let (mut client, leader) = site.connect_to_leader("lone");
    client.produce("lone", 0, &[b"to warm up"]).expect("the site takes records");
    for round in 0..5 {
        sleep(QUIET);
        let marker = format!("fulmar-lone-{round}-{}", std::process::id());
        let sent_us = now_us();
        client.produce("lone", 0, &[marker.as_bytes()]).expect("the site takes records");
        let answered_us = now_us();
        assert!(sent_us < answered_us);
    }
    let client_end = format!("->{}]", client.local_address().expect("it is connected"));
    sleep(QUIET);
    site.kill_all();

    let traces: BTreeMap<i32, Vec<Call>> =
        NODES.into_iter().map(|id| (id, calls(&site.trace_prefix(id)))).collect();
    for round in 0..5 {
        let marker = format!("fulmar-lone-{round}-{}", std::process::id());
        let flushed: BTreeMap<i32, u64> = NODES
            .into_iter()
            .filter_map(|id| {
                let data = site.data(id).to_string_lossy().into_owned();
                Some((id, flushed_us(&traces[&id], &data, &marker)?))
            })
            .collect();
        // The answer is the first thing the client was sent after the leader wrote the record.
        let leader_calls = &traces[&leader];
        let written = leader_calls.iter().find(|call| call.arguments.contains(&marker));
        let written_us = written.expect("the leader writes the record").start_us;
        let answer = leader_calls
            .iter()
            .find(|call| call.start_us > written_us && call.target().ends_with(&client_end));
        let answer_us = answer.expect("the leader answers").start_us;
        let before = flushed.values().filter(|flushed_us| **flushed_us <= answer_us).count();
        assert!(
            before >= 2,
            "round {round}: the answer left at {answer_us}, flushes returned at {flushed:?}"
        );
    }
}

const TOPIC: &str = "kept";
const WRITERS: i32 = 4;

/// A record that was acknowledged, by partition and offset.
type Acknowledged = BTreeMap<(i32, i64), Vec<u8>>;

/// Writes one record after the other until the node dies or `stop` is set.
fn write(mut client: Client, partition: i32, round: u32, stop: &AtomicBool) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut number = 0usize;
    while !stop.load(Ordering::Relaxed) {
        let value = format!("{round} {partition} {number} {}", "x".repeat(number * 37 % 3_000));
        match client.produce(TOPIC, partition, &[value.as_bytes()]) {
            Ok(offset) => {
                let twice = acknowledged.insert((partition, offset), value.into_bytes());
                assert!(twice.is_none(), "offset {offset} was given twice");
            }
            // Whether it was written is unknown, and the node is dying.
            Err(_) => break,
        }
        number += 1;
    }
    acknowledged
}

/// Waits until the leader of the moment takes a record: right after an election it may still have
/// to prove that it leads, and says so.
fn settle(site: &Site) {
    let took = eventually(|| {
        let (mut client, _) = site.connect_to_leader(TOPIC);
        (0..WRITERS)
            .try_for_each(|partition| client.produce(TOPIC, partition, &[b"settled"]).map(|_| ()))
    });
    took.expect("a leader takes records");
}

/// Kills all nodes under load, cuts the power, and returns what had been acknowledged.
fn round_of_load(site: &mut Site, round: u32) -> Acknowledged {
    settle(site);
    let stop = AtomicBool::new(false);
    let clients: Vec<Client> = (0..WRITERS).map(|_| site.connect_to_leader(TOPIC).0).collect();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .zip(clients)
            .map(|(partition, client)| {
                let stop = &stop;
                scope.spawn(move || write(client, partition, round, stop))
            })
            .collect();
        // Of another length each time, so that the kill meets other moments.
        sleep(Duration::from_millis(400 + u64::from(round) * 97 % 500));
        site.kill_all();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    })
}

/// What was acknowledged and is not there, or is something else.
fn missing(site: &Site, acknowledged: &Acknowledged) -> Vec<(i32, i64)> {
    let mut there = Acknowledged::new();
    for partition in 0..WRITERS {
        let records = eventually(|| {
            let (mut client, _) = site.connect_to_leader(TOPIC);
            read_all(&mut client, TOPIC, partition)
        });
        let records = records.expect("a partition can be read");
        there.extend(records.into_iter().map(|record| ((partition, record.offset), record.value)));
    }
    let is_missing = |(place, value): &(&(i32, i64), &Vec<u8>)| there.get(place) != Some(value);
    acknowledged.iter().filter(is_missing).map(|(place, _)| *place).collect()
}

/// Small segments, so that sealing, recycling and snapshots happen during the load.
const SMALL_SEGMENTS: &str = "\n[log]\nsegment_bytes = \"1MiB\"\n";

#[test]
fn a_power_cut_of_all_nodes_loses_nothing_acknowledged() {
    let mut site = Site::new("power-cut", SMALL_SEGMENTS);
    let mut acknowledged = Acknowledged::new();
    let mut lost_writes = 0;
    for round in 0..20 {
        site.start_all(How::PowerCut);
        site.wait_ready();
        site.create_topic(TOPIC, WRITERS);
        assert_eq!(missing(&site, &acknowledged), [], "before round {round}");
        let fresh = round_of_load(&mut site, round);
        assert!(fresh.len() > 20, "round {round} acknowledged {} records only", fresh.len());
        acknowledged.extend(fresh);
        lost_writes += site.cut_power().writes;
    }
    // Otherwise the kills met nothing in flight, or the library was not loaded.
    assert!(lost_writes > 20, "{lost_writes} writes were lost in 20 power cuts");
    site.start_all(How::Plain);
    site.wait_ready();
    assert_eq!(missing(&site, &acknowledged), []);
}

#[test]
fn without_the_flush_a_power_cut_loses_acknowledged_records() {
    let mut site = Site::new("lying-flush", SMALL_SEGMENTS);
    site.start_all(How::PowerCut);
    site.wait_ready();
    site.create_topic(TOPIC, WRITERS);
    let kept = round_of_load(&mut site, 0);
    site.cut_power();
    // From here on flushes lie, and the nodes believe them.
    site.start_all(How::LyingFlush);
    site.wait_ready();
    let acknowledged = round_of_load(&mut site, 1);
    assert!(!acknowledged.is_empty());
    site.cut_power();
    site.start_all(How::Plain);
    site.wait_ready();
    assert_eq!(missing(&site, &kept), [], "what was flushed before is there");
    let lost = missing(&site, &acknowledged);
    assert!(!lost.is_empty(), "{} records survived without a flush", acknowledged.len());
}

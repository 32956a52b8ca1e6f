//! Scenario files from the outside: the example of the documentation, what people read when a file
//! is refused, and the promise that a drawn scenario replays alone.

use fulmar_sim::prng::Prng;
use fulmar_sim::scenario::{Fault, FixedTrigger, RECORDS_MIN, Scenario, Workload};
use proptest::prelude::*;

/// The example of docs/SIMULATION.md, with everything that a scenario can say in small.
const EXAMPLE: &str = r#"
title = "leader loss under load"
why   = "acknowledged records must survive a leader that loses its unflushed tail"
tags  = ["crash", "cut"]
must_hit = ["leader's unflushed tail lost", "deposed leader refused a read"]
run   = { warmup = "5s", chaos = "60s", heal_within = "30s" }
sites = { north = 3, south = 3 }
net   = { latency = "1ms..30ms", between_sites = "40ms..120ms", loss = "0..0.02",
          link = [{ from = "node 1 of north", to = "node 2 of north", latency = "50ms..80ms" }] }
disk  = { sync = "1ms..20ms", torn_tail = 0.05 }
clock = { offset = "-500ms..500ms" }
config.consensus.election_timeout_max = "600ms..900ms"
config.log.segment_bytes = "1MiB"
workload = [
  { kind = "produce_keyed", site = "north", topic = "orders", rate = "100/s..200/s",
    partitions = 2, clients = "2..4", value_bytes = "100B..1KiB", batch_records = "1..5" },
  { kind = "read", site = "north", topic = "orders", rate = "20/s", from = "anywhere" },
  { kind = "list_offsets", site = "north", topic = "orders", rate = "5/s" },
  { kind = "topic_churn", site = "south", prefix = "churn", rate = "0.5/s" },
]
fault = [
  { kind = "crash", target = "leader of north", every = "5s..15s", down = "1s..20s" },
  { kind = "cut", between = ["site north", "site south"], every = "10s..20s", for = "1s..8s" },
]
check = [{ kind = "acked_at_least", site = "north", topic = "orders", records = 500 }]
"#;

fn example(more_faults: &str) -> String {
    EXAMPLE.replace("for = \"1s..8s\" },\n]", &format!("for = \"1s..8s\" }},\n{more_faults}]"))
}

const EVERY_FAULT: &str = r#"
  { kind = "power_cut", target = "all of north", at = "20s", down = "1s..3s", stagger = "0ms..2s" },
  { kind = "power_cut", target = "minority of north", at = "30s..40s", down = "1s" },
  { kind = "pause", target = "any", every = "10s..15s", for = "1s", times = 2 },
  { kind = "isolate", target = "leader of north", after = { events = "200..300", of = "acked" },
    times = 2, for = "2s", direction = "one_way" },
  { kind = "isolate", target = "any of north", at = "12s", for = "2s", from = "everyone" },
  { kind = "cut", between = ["follower of north", "leader of north"], at = "13s", for = "1s",
    direction = "any" },
  { kind = "cut", between = ["any of north", "any of north"], at = "14s", for = "1s" },
  { kind = "latency_spike", between = ["all of north", "clients of north"], by = "50ms..500ms",
    every = "9s", for = "3s", chance = 0.5 },
  { kind = "loss", between = ["site north", "site north"], share = "0.1..0.5", at = "1s", for = "5s" },
  { kind = "reset", between = ["clients of north", "leader of north"], every = "5s..6s" },
  { kind = "refuse", between = ["all of north", "node 2 of north"], at = "3s", for = "4s" },
  { kind = "half_open", between = ["node 1 of north", "nodes 2, 3 of north"], at = "4s" },
  { kind = "slow_disk", target = "follower of south", by = "100ms", at = "5s", for = "10s" },
  { kind = "disk_full", target = "any of south", leaves = "0B..64KiB", at = "5s", for = "10s" },
  { kind = "fsync_error", target = "follower 2 of south", at = "6s", down = "2s" },
  { kind = "read_error", target = "node 3 of south", at = "7s", reads = "1..3", down = "2s" },
  { kind = "clock_step", target = "any of south", by = "-30s..30s", at = "8s" },
  { kind = "clock_step", target = "any of south", by = "5s", at = "9s", for = "3s" },
  { kind = "rot", target = "node 1 of south", at = "10s", file = "sealed_segment", bits = "1..8",
    down = "1s" },
  { kind = "wipe", target = "node 2 of south", at = "11s", down = "1s" },
  { kind = "slow_line", between = ["site north", "site south"], bandwidth = "512kbit/s",
    at = "10500ms", for = "1s" },
  { kind = "restore", target = "any of south", at = "11500ms", age = "1s..3s", down = "1s" },
  { kind = "stall", between = ["site north", "site south"], at = "12500ms", for = "1s" },
"#;

#[test]
fn the_example_says_what_it_says() {
    let scenario = Scenario::parse("example.toml", &example("")).expect("a good scenario");
    assert_eq!(scenario.sites.iter().count(), 2);
    assert_eq!(scenario.faults.len(), 2);
    assert!(scenario.records_at_least() >= RECORDS_MIN);
    let drawn = scenario.draw(1);
    let Workload::Produce(produce) = &drawn.workloads[0] else { panic!("produces first") };
    assert!(produce.idempotent);
    assert_eq!(produce.partitions.get(), 2);
    assert_eq!(drawn.config["log"]["segment_bytes"].as_str(), Some("1MiB"));
    assert!(drawn.faults.len() >= 5);
    assert!(drawn.faults.iter().all(|f| matches!(f.trigger, FixedTrigger::At(_))));
    assert_ne!(drawn, scenario.draw(2));
    assert_eq!(drawn, scenario.draw(1));
}

#[test]
fn lists_in_blocks_and_in_lines_are_the_same() {
    let line = "fault = [{ kind = \"crash\", target = \"leader of north\", every = \"5s\", down = \"1s\" }]";
    let block = "[[fault]]\nkind = \"crash\"\ntarget = \"leader of north\"\nevery = \"5s\"\ndown = \"1s\"\n";
    let head = "title = \"t\"\nwhy = \"w\"\nclass = \"smoke\"\nsites.north = 3\n";
    let parse = |text: &str| Scenario::parse("f.toml", text).expect("a good scenario");
    assert_eq!(parse(&format!("{head}{line}\n")), parse(&format!("{head}{block}")));
}

#[test]
fn a_fault_more_leaves_the_rest_of_the_run_as_it_was() {
    let one = Scenario::parse("f.toml", &example("")).expect("good").draw(5);
    let two = Scenario::parse("f.toml", &example(EVERY_FAULT)).expect("good").draw(5);
    assert_eq!(one.net, two.net);
    assert_eq!(one.disk, two.disk);
    assert_eq!(one.workloads, two.workloads);
    assert_eq!(one.stream_seed, two.stream_seed);
    assert!(one.faults.iter().all(|fault| two.faults.contains(fault)));
}

#[test]
fn every_kind_of_fault_is_drawn() {
    let scenario = Scenario::parse("f.toml", &example(EVERY_FAULT)).expect("good");
    let kinds: std::collections::BTreeSet<&str> =
        (0..20).flat_map(|seed| scenario.draw(seed).faults).map(|f| f.fault.kind()).collect();
    let known: std::collections::BTreeSet<&str> =
        Fault::<fulmar_sim::scenario::Drawn>::KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(kinds, known);
}

#[test]
fn a_drawn_scenario_for_people() {
    let scenario = Scenario::parse("f.toml", &example(EVERY_FAULT)).expect("good");
    insta::assert_snapshot!("drawn", scenario.draw(42).to_string());
}

#[test]
fn the_kinds_for_people() {
    let mut text = String::new();
    for kinds in [
        Workload::<fulmar_sim::scenario::Drawn>::KINDS,
        Fault::<fulmar_sim::scenario::Drawn>::KINDS,
        fulmar_sim::scenario::Check::<fulmar_sim::scenario::Drawn>::KINDS,
    ] {
        for kind in kinds {
            text.push_str(&format!("{}: {}\n", kind.name, kind.about));
            for (key, expected, about) in kind.parameters {
                text.push_str(&format!("    {key}: {about} ({expected})\n"));
            }
        }
    }
    insta::assert_snapshot!("kinds", text);
}

/// A scenario with parts left out and values changed, as a seed decides.
fn variation(seed: u64) -> String {
    let mut prng = Prng::new(seed, "variation");
    let mut lines: Vec<&str> = Vec::new();
    for entry in EVERY_FAULT.split("\n  {").map(str::trim).filter(|entry| !entry.is_empty()) {
        if prng.below(3) > 0 {
            lines.push(entry);
        }
    }
    prng.shuffle(&mut lines);
    let faults: String = lines.iter().map(|entry| format!("  {{{entry}\n")).collect();
    let mut text = example(&faults);
    if prng.below(2) == 0 {
        text = text.replace("tags  = [\"crash\", \"cut\"]\n", "");
        text = text.replace("clock = { offset = \"-500ms..500ms\" }\n", "");
    }
    if prng.below(2) == 0 {
        text = text.replace("south = 3 }", "south = 3, west = 1 }");
        text = text.replace("title =", "stream_seed = 99\ntitle =");
    }
    if prng.below(2) == 0 {
        text = text.replace("net   = { latency = \"1ms..30ms\",", "net   = { tail = \"0..0.1\",");
        text = text.replace("sync = \"1ms..20ms\"", "read = \"1us..2us\", tail = 0.25");
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The artefact of a failing run is the drawn scenario: with no seed and another build it must
    /// still be the same run.
    #[test]
    fn a_drawn_scenario_printed_and_read_draws_to_itself(
        variant: u64, seed: u64, other_seed: u64,
    ) {
        let scenario = Scenario::parse("f.toml", &variation(variant)).expect("good");
        let drawn = scenario.draw(seed);
        let printed = drawn.to_string();
        let read = Scenario::parse("drawn.toml", &printed);
        let read = read.unwrap_or_else(|error| panic!("{error}\n{printed}"));
        let again = read.draw(other_seed);
        prop_assert_eq!(&again, &drawn);
        prop_assert_eq!(again.to_string(), printed);
    }

    /// Whatever a file holds, the parser answers.
    #[test]
    fn a_damaged_file_is_refused_or_read_but_never_panics(
        variant: u64, cut in 0..3_000usize, with in "[ -~]{0,3}", take in 0..6usize,
    ) {
        let text = variation(variant);
        let start = cut.min(text.len());
        let damaged = format!("{}{with}{}", &text[..start], &text[(start + take).min(text.len())..]);
        match Scenario::parse("f.toml", &damaged) {
            Ok(scenario) => { let _ = scenario.draw(variant); }
            Err(error) => { let _ = error.to_string(); }
        }
    }
}

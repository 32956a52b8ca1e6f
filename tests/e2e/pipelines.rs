//! Pipelines on three real processes, fed by kcat: what one puts out although its owner is killed again and
//! again is what the reference (`tests/reference`) says, each record once and in order; and everything that
//! people do with pipelines does what it says.

use fulmar_reference::model;
use fulmar_reference::spec::{Case, Epoch, Input, Shape, Windows};
use fulmar_tests::kcat::Kcat;
use fulmar_tests::site::{How, NODES, Site, binary, eventually};
use fulmar_tests::tools;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

const PARTITIONS: u32 = 3;

/// How many records each partition gets, and in how many pieces.
const RECORDS: u64 = 6_000;
const PIECES: usize = 44;

/// So often the owner of the pipeline is killed, each time after so many pieces more.
const KILLS: usize = 10;
const PIECES_PER_KILL: usize = 4;

/// The reference writes times of the first day of 1970 only.
const BEGIN_MS: i64 = 60_000;

/// One test at a time: each has a site, and they would take the ports of one another between the choice of a
/// port and the start of its node.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fulmar(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary runs")
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What a command said that has to do what it is asked.
fn done(site: &Site, arguments: &[&str]) -> String {
    let bootstrap = site.bootstrap();
    let output = fulmar(&[arguments, &["--bootstrap", &bootstrap]].concat());
    assert!(output.status.success(), "fulmar {}: {}", arguments.join(" "), told(&output));
    told(&output)
}

/// Windows of 2.5 s over rows of which none is late: each device has one partition, whose time goes on.
fn case() -> Case {
    let windows = Windows::Tumble(2_500);
    let epoch = Epoch {
        unread: BTreeSet::new(),
        leaves_devices: false,
        age_ms: 1,
        inputs: (0..PARTITIONS).flat_map(inputs).collect(),
        devices: Vec::new(),
    };
    Case {
        shape: Shape::Group { windows, by_key: true, having: 0 },
        delay_ms: 1_000,
        idle_ms: None,
        drops: false,
        table_time: false,
        least: 0,
        ends: false,
        partitions: PARTITIONS,
        prefix: "x.".to_owned(),
        from: String::new(),
        epochs: vec![epoch],
    }
}

/// What is written to a partition; the last one is far behind all others, so that their windows end.
fn inputs(partition: u32) -> Vec<Input> {
    let input = |number: u64| Input {
        partition,
        offset: number.cast_signed(),
        number,
        device: (number % 4) as u32 * PARTITIONS + partition,
        v: (!number.is_multiple_of(11)).then_some((number % 17).cast_signed() - 1),
        d: (number * 37 % 1_000).cast_signed() - 500,
        f: (number % 18).cast_signed() - 9,
        at: BEGIN_MS + number.cast_signed() * 50 - (number * 7 % 900).cast_signed(),
        // A few are bad.
        is_broken: number % 501 == 500,
        is_device: false,
        batch: None,
    };
    let last = Input { at: BEGIN_MS + 10_000_000, is_broken: false, ..input(RECORDS) };
    (0..RECORDS).map(input).chain([last]).collect()
}

/// By topic and key: what the reference says.
fn expected() -> BTreeMap<(String, String), Vec<String>> {
    let mut out: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for came in model::run(&case()).epochs.into_iter().flatten() {
        out.entry((came.topic, came.key.unwrap_or_default())).or_default().push(came.value);
    }
    out
}

/// The same, as it lies in the site.
fn found(site: &Site, topic: &str) -> BTreeMap<(String, String), Vec<String>> {
    let arguments = ["-C", "-t", topic, "-o", "beginning", "-q", "-e", "-K\t"];
    let read = Kcat::start(&site.bootstrap(), &arguments).finish(Duration::from_secs(60));
    let mut out: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for line in fulmar_tests::kcat::lines(&read) {
        let (key, value) = line.split_once('\t').expect("a key and a value");
        out.entry((topic.to_owned(), key.to_owned())).or_default().push(value.to_owned());
    }
    out
}

/// A kcat that appends to a partition.
fn writer(site: &Site, (topic, partition): (&str, u32)) -> Kcat {
    let partition = partition.to_string();
    let of = ["-P", "-t", topic, "-p", &partition, "-K\t", "-X", "enable.idempotence=true"];
    Kcat::start(&site.bootstrap(), &of)
}

/// Appends records to a partition.
fn feed(site: &Site, to: (&str, u32), lines: &[String]) {
    let mut writer = writer(site, to);
    writer.feed((lines.join("\n") + "\n").as_bytes());
    writer.finish(Duration::from_secs(60));
}

fn status(site: &Site, name: &str) -> String {
    told(&fulmar(&["pipeline", "status", name, "--bootstrap", &site.bootstrap()]))
}

fn owner(site: &Site, name: &str) -> i32 {
    let running = eventually(|| {
        let status = status(site, name);
        let node = status.split_once("runs on node ").and_then(|(_, rest)| rest.lines().next());
        node.and_then(|node| node.trim().parse().ok()).ok_or_else(|| io::Error::other(status))
    });
    running.expect("a node runs it")
}

fn wait_for_another_owner(site: &Site, dead: i32) {
    let taken_over = eventually(|| match owner(site, "hot") {
        other if other == dead => Err(io::Error::other("the dead node still owns it")),
        _ => Ok(()),
    });
    taken_over.expect("another node takes it over");
}

fn wait_for(site: &Site, name: &str, what: &[&str]) -> String {
    let said = eventually(|| {
        let status = status(site, name);
        let is_it = what.iter().all(|what| status.contains(what));
        if is_it { Ok(status) } else { Err(io::Error::other(status)) }
    });
    said.unwrap_or_else(|status| panic!("not {what:?}: {status}"))
}

#[test]
fn the_demonstration_of_a_pipeline_holds() {
    let _alone = alone();
    let demonstration = fulmar(&["demo", "pipeline", "--records", "60000"]);
    let said = told(&demonstration);
    assert!(demonstration.status.success(), "{said}");
    assert!(said.contains("verdict   every alert came once"), "{said}");
    assert_eq!(said.matches("the next alert came").count(), 2, "{said}");
}

#[test]
fn the_bench_of_a_pipeline_measures_something() {
    let _alone = alone();
    let small = ["--rate", "200", "--seconds", "1", "--state", "1MiB", "--kills", "1"];
    let output = fulmar(&[&["bench", "pipeline", "--json"], &small[..]].concat());
    assert!(output.status.success(), "{}", told(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    for place in ["/latency/p50_us", "/latency/records", "/takeover/until_next_ms/0"] {
        let measured = report.pointer(place).and_then(serde_json::Value::as_u64);
        assert!(measured.is_some_and(|measured| measured > 0), "{place}: {report}");
    }
}

#[test]
fn what_comes_out_is_what_the_reference_says_however_often_the_owner_dies() {
    let _alone = alone();
    if !tools::is_there("kcat") {
        return;
    }
    let mut site = Site::new("pipelines", "");
    site.start_all(How::Plain);
    site.wait_ready();
    site.create_topic("x.in", PARTITIONS as i32);
    let file = site.directory().join("hot.sql");
    std::fs::write(&file, case().sql()).expect("the file is written");
    done(&site, &["pipeline", "deploy", &file.to_string_lossy()]);
    let line = |input: Input| format!("{}\t{}", input.key(), input.payload().unwrap_or_default());
    let all: Vec<Vec<String>> =
        (0..PARTITIONS).map(|at| inputs(at).into_iter().map(line).collect()).collect();
    let mut kills = 0;
    for piece in 0..PIECES {
        let kills_here = piece % PIECES_PER_KILL == PIECES_PER_KILL - 1 && kills < KILLS;
        let node = kills_here.then(|| owner(&site, "hot"));
        for (partition, lines) in (0..).zip(&all) {
            let lines = lines.chunks(lines.len().div_ceil(PIECES)).nth(piece).unwrap_or_default();
            let (before, after) = lines.split_at(lines.len() / 2);
            let mut writer = writer(&site, ("x.in", partition));
            writer.feed((before.join("\n") + "\n").as_bytes());
            // Every other time while kcat writes, and else once it is done.
            if let Some(node) = node.filter(|_| partition == 1 && kills % 2 == 0) {
                site.kill(node);
            }
            writer.feed((after.join("\n") + "\n").as_bytes());
            writer.finish(Duration::from_secs(60));
        }
        if let Some(node) = node {
            if kills % 2 == 1 {
                site.kill(node);
            }
            kills += 1;
            wait_for_another_owner(&site, node);
            site.start(node, How::Plain);
        }
    }
    assert_eq!(kills, KILLS);
    let status = wait_for(&site, "hot", &["behind       0 records"]);
    let mut came = found(&site, "x.out");
    came.extend(found(&site, "x.dead"));
    came.extend(found(&site, "x.late"));
    let expected = expected();
    assert!(expected.len() > 12, "{} topics and keys", expected.len());
    // One by one, so that a difference can be read.
    for (place, values) in &expected {
        assert_eq!(came.get(place), Some(values), "{place:?}: {status}");
    }
    assert_eq!(came.len(), expected.len(), "{:?}", came.keys());
    let fates = status.lines().filter(|line| line.contains(" read = ")).count();
    assert_eq!(fates, PARTITIONS as usize, "{status}");
    let read = all.iter().map(Vec::len).sum();
    metrics_outlive_the_owner(&mut site, read);
}

/// What has become of all records is told by whoever takes the pipeline over, before there is another one.
fn metrics_outlive_the_owner(site: &mut Site, read: usize) {
    let dead = owner(site, "hot");
    site.kill(dead);
    wait_for_another_owner(site, dead);
    let node = owner(site, "hot");
    let told = eventually(|| {
        let told = site.metrics(node);
        let fates = told.into_iter().filter(|(name, _)| name.contains("_pipeline_fate_records{"));
        let (all, others): (Vec<_>, Vec<_>) =
            fates.partition(|(name, _)| name.contains("fate=\"read\""));
        let sum = |of: &[(String, f64)]| of.iter().map(|(_, count)| *count as usize).sum::<usize>();
        match (sum(&all), sum(&others)) {
            sums if sums == (read, read) => Ok(()),
            sums => Err(io::Error::other(format!("{sums:?}, and {read} were read"))),
        }
    });
    told.expect("no fate is lost");
}

/// Has a command refused.
fn refuses(site: &Site, arguments: &[&str], why: &str) {
    let refused = fulmar(&[arguments, &["--bootstrap", &site.bootstrap()]].concat());
    assert!(!refused.status.success(), "{arguments:?}: {}", told(&refused));
    assert!(told(&refused).contains(why), "{arguments:?}: {}", told(&refused));
}

/// Divides by something, which may be nothing.
fn dividing(by: &str) -> String {
    format!(
        "CREATE STREAM s (k VARCHAR, v BIGINT) FROM TOPIC numbers ON ERROR DEAD LETTER numbers_bad;\n\
         INSERT INTO TOPIC quotients KEY k SELECT k, v, 60 / {by} AS q FROM s;\n"
    )
}

fn numbers(of: std::ops::Range<u32>) -> Vec<String> {
    of.map(|v| format!("key-{}\t{{\"k\":\"key-{}\",\"v\":{}}}", v % 3, v % 3, v % 5)).collect()
}

/// Waits until there are so many records in all.
fn wait_for_records(site: &Site, topic: &str, count: usize) {
    let count_of = || found(site, topic).values().map(Vec::len).sum::<usize>();
    let there = eventually(|| match count_of() {
        found if found == count => Ok(()),
        found => Err(io::Error::other(format!("{topic} has {found} records, and not {count}"))),
    });
    there.unwrap_or_else(|error| panic!("{error}: {}", status(site, "numbers")));
    sleep(Duration::from_millis(300));
    assert_eq!(count_of(), count, "and no more");
}

/// A file that lays down the pipeline.
fn laid_down(site: &Site) -> PathBuf {
    let file = site.directory().join("numbers.sql");
    std::fs::write(&file, dividing("v")).expect("the file is written");
    let site_file = site.directory().join("is.toml");
    let text = "[[topic]]\nname = \"numbers\"\npartitions = 2\n\n\
                [[pipeline]]\nname = \"numbers\"\nfile = \"numbers.sql\"\nlatency_ms = 10\n";
    std::fs::write(&site_file, text).expect("the file is written");
    let said = done(site, &["apply", &site_file.to_string_lossy(), "--yes"]);
    assert!(said.contains("+ pipeline numbers"), "{said}");
    let again = done(site, &["apply", &site_file.to_string_lossy(), "--yes"]);
    assert!(!again.contains("pipeline numbers"), "nothing differs: {again}");
    file
}

fn metrics_say_the_same(site: &Site) {
    let node = owner(site, "numbers");
    let told = site.metrics(node);
    let is = |name: &str| *told.get(name).unwrap_or_else(|| panic!("{name} in {told:?}"));
    assert!(is("fulmar_pipelines") > 0.5 && is("fulmar_pipelines_failed") < 0.5);
    let of = "{pipeline=\"numbers\"}";
    for (name, count) in [("read_records_total", 10), ("lag_records", 0), ("missed_records", 0)] {
        assert_eq!(is(&format!("fulmar_pipeline_{name}{of}")) as u64, count, "{name}");
    }
    assert!(is(&format!("fulmar_pipeline_epochs_total{of}")) > 0.0);
    let fates = told.iter().filter(|(name, _)| name.starts_with("fulmar_pipeline_fate_records{"));
    let of_fate = |fate: &str| {
        let is_it = |name: &str| name.contains(&format!("fate=\"{fate}\""));
        fates.clone().filter(|(name, _)| is_it(name)).map(|(_, count)| *count as u64).sum::<u64>()
    };
    assert_eq!((of_fate("read"), of_fate("passed"), of_fate("dead-lettered")), (10, 8, 2));
    let other = NODES.into_iter().find(|id| *id != node).expect("there are three");
    let foreign = format!("fulmar_pipeline_epochs_total{of}");
    assert!(!site.metrics(other).contains_key(&foreign), "only its owner tells of it");
}

#[test]
fn everything_that_people_do_with_pipelines_does_what_it_says() {
    let _alone = alone();
    if !tools::is_there("kcat") {
        return;
    }
    let mut site = Site::new("pipeline-commands", "");
    site.start_all(How::Plain);
    site.wait_ready();
    let file = laid_down(&site);
    let deploy = file.to_string_lossy().into_owned();
    feed(&site, ("numbers", 0), &numbers(0..10));
    wait_for_records(&site, "quotients", 8);
    let expected =
        ["behind       0 records", "trouble      2 dead-lettered", "s/0  10 read = 8 passed"];
    let said = wait_for(&site, "numbers", &expected);
    for field in ["epoch  ", "its state is in the log up to epoch", "rate  ", "state  "] {
        assert!(said.contains(field), "{field}: {said}");
    }
    metrics_say_the_same(&site);

    // What failed goes through once the file is mended, and once only.
    done(&site, &["pipeline", "savepoint", "numbers", "before"]);
    std::fs::write(&file, dividing("(v + 1)")).expect("the file is written");
    let said = done(&site, &["pipeline", "deploy", &deploy]);
    assert!(said.contains("it fits"), "{said}");
    let retry = ["pipeline", "retry-dead-letters", "numbers"];
    assert!(done(&site, &retry).contains("2 put through again\n"), "both");
    wait_for_records(&site, "quotients", 10);
    assert!(done(&site, &retry).contains("0 put through again\n"), "none is left");
    assert!(status(&site, "numbers").contains("s, put through again  2 read = 2 passed"));
    let foreign =
        fulmar(&[&retry[..], &["--topic", "numbers", "--bootstrap", &site.bootstrap()]].concat());
    assert!(!foreign.status.success(), "{}", told(&foreign));

    // Back to where it was: what came since comes again.
    feed(&site, ("numbers", 1), &numbers(10..14));
    wait_for_records(&site, "quotients", 14);
    let said = done(&site, &["pipeline", "restore", "numbers", "--from", "before"]);
    assert!(said.contains("begins with savepoint before"), "{said}");
    wait_for_records(&site, "quotients", 18);
    assert!(done(&site, &["pipeline", "list"]).contains("savepoint before: pipeline numbers"));

    // Another shape needs a beginning, and that reads everything.
    let shaped = dividing("(v + 1)").replace("v BIGINT", "v BIGINT NOT NULL CHECK (v < 4)");
    std::fs::write(&file, shaped).expect("the file is written");
    for (arguments, why) in [
        (&["pipeline", "deploy", &deploy][..], "Deploy it with --fresh"),
        (&["pipeline", "deploy", &deploy, "--name", "n"], "numbers writes numbers_bad, quotients"),
        (&["topic", "delete", "numbers"], "the pipeline numbers reads it, and would fail"),
    ] {
        refuses(&site, arguments, why);
    }
    done(&site, &["pipeline", "deploy", &deploy, "--fresh"]);
    wait_for_records(&site, "quotients", 18 + 12);
    assert!(done(&site, &retry).contains("2 put through again\n"), "those of this life");
    wait_for(&site, "numbers", &["s, put through again  2 read = 0 passed"]);

    done(&site, &["pipeline", "pause", "numbers"]);
    assert!(status(&site, "numbers").starts_with("pipeline numbers: paused"));
    feed(&site, ("numbers", 0), &numbers(15..16));
    wait_for(&site, "numbers", &["behind       1 record,"]);
    done(&site, &["pipeline", "resume", "numbers"]);
    wait_for_records(&site, "quotients", 18 + 13);
    let held = fulmar(&["pipeline", "delete", "numbers", "--bootstrap", &site.bootstrap()]);
    assert!(told(&held).contains("savepoints"), "{}", told(&held));
    let history = done(&site, &["pipeline", "history", "numbers"]);
    assert!(history.contains("retry-dead-letters"), "{history}");
    done(&site, &["pipeline", "delete", "numbers", "--savepoints"]);
    assert_eq!(done(&site, &["pipeline", "list"]).trim(), "no pipelines");
}

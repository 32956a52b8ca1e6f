//! A pipeline on three real processes, fed by kcat, whose owner is killed again and again: what it puts out
//! is what the engine puts out in memory over the same records, each record once and in order.

use fulmar_flow::{Engine, Record, plan};
use fulmar_tests::kcat::Kcat;
use fulmar_tests::site::{How, Site, binary, eventually};
use fulmar_tests::tools;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

const PARTITIONS: u32 = 3;

/// How many readings each partition gets, and in how many pieces.
const READINGS: usize = 6_000;
const PIECES: usize = 30;

/// After which pieces the owner of the pipeline is killed.
const KILLS: [usize; 5] = [3, 9, 14, 20, 26];

/// 2026-03-01T08:00:00Z
const BEGIN_MS: i64 = 1_772_352_000_000;

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

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pipelines/over_temperature.sql")
}

/// A reading: a machine has one partition, and its time goes on.
fn reading(partition: u32, number: usize) -> String {
    let machine = format!("m{partition}-{}", number % 4);
    let ms = BEGIN_MS + number as i64 * 250;
    let celsius = 60 + (number * 7 + number / 40 * 13 + partition as usize) % 70;
    // A few are bad.
    let celsius = if number % 501 == 500 { 4_000 } else { celsius };
    format!(r#"{{"machine":"{machine}","celsius":{celsius},"at":{ms}}}"#)
}

/// What is written to a partition; the last one is far behind all others, so that their windows end.
fn readings(partition: u32) -> Vec<String> {
    let mut all: Vec<String> = (0..READINGS).map(|number| reading(partition, number)).collect();
    let ms = BEGIN_MS + 10_000_000;
    all.push(format!(r#"{{"machine":"m{partition}-0","celsius":50,"at":{ms}}}"#));
    all
}

/// By topic and key: what comes out in memory.
fn expected() -> BTreeMap<(String, String), Vec<String>> {
    let text = std::fs::read_to_string(file()).expect("the file is there");
    let plan = Arc::new(plan(&text).expect("a pipeline"));
    let partitions = [("readings".to_owned(), PARTITIONS)].into();
    let mut engine = Engine::new(plan, &partitions);
    for partition in 0..PARTITIONS {
        let records = readings(partition).into_iter().enumerate().map(|(offset, value)| {
            Arc::new(Record {
                partition,
                offset: offset as i64,
                timestamp: 0,
                key: None,
                headers: Vec::new(),
                value: Some(value.into()),
                damage: None,
                is_retried: false,
            })
        });
        let records: Vec<Arc<Record>> = records.collect();
        engine.batch("readings", &records).expect("bad records do not stop it");
    }
    let mut out: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for written in engine.end_epoch(1, false).expect("no result stops it") {
        let text = |bytes: Option<bytes::Bytes>| {
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
        };
        let place = (written.topic.to_string(), text(written.key));
        out.entry(place).or_default().push(text(written.value));
    }
    out
}

/// The same, as it lies in the site.
fn found(bootstrap: &str, topic: &str) -> BTreeMap<(String, String), Vec<String>> {
    let arguments = ["-C", "-t", topic, "-o", "beginning", "-q", "-e", "-K\t"];
    let read = Kcat::start(bootstrap, &arguments).finish(Duration::from_secs(60));
    let mut out: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for line in fulmar_tests::kcat::lines(&read) {
        let (key, value) = line.split_once('\t').expect("a key and a value");
        out.entry((topic.to_owned(), key.to_owned())).or_default().push(value.to_owned());
    }
    out
}

fn status(bootstrap: &str) -> String {
    told(&fulmar(&["pipeline", "status", "hot", "--bootstrap", bootstrap]))
}

fn owner(bootstrap: &str) -> i32 {
    let running = eventually(|| {
        let status = status(bootstrap);
        let node = status.split_once("runs on node ").and_then(|(_, rest)| rest.lines().next());
        node.and_then(|node| node.trim().parse().ok()).ok_or_else(|| io::Error::other(status))
    });
    running.expect("a node runs it")
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
fn alerts_come_once_however_often_their_owner_dies() {
    let _alone = alone();
    if !tools::is_there("kcat") {
        return;
    }
    let mut site = Site::new("pipelines", "");
    site.start_all(How::Plain);
    site.wait_ready();
    site.create_topic("readings", PARTITIONS as i32);
    let bootstrap = site.bootstrap();
    let file = file().to_string_lossy().into_owned();
    let deploy = ["pipeline", "deploy", &file, "--name", "hot", "--bootstrap", &bootstrap];
    let deployed = fulmar(&deploy);
    assert!(deployed.status.success(), "{}", told(&deployed));
    let all: Vec<Vec<String>> = (0..PARTITIONS).map(readings).collect();
    for piece in 0..PIECES {
        for (partition, readings) in all.iter().enumerate() {
            let piece_len = readings.len().div_ceil(PIECES);
            let lines = readings.chunks(piece_len).nth(piece).unwrap_or_default();
            let partition = partition.to_string();
            let arguments =
                ["-P", "-t", "readings", "-p", &partition, "-X", "enable.idempotence=true"];
            let mut writer = Kcat::start(&bootstrap, &arguments);
            writer.feed((lines.join("\n") + "\n").as_bytes());
            writer.finish(Duration::from_secs(60));
        }
        if KILLS.contains(&piece) {
            let node = owner(&bootstrap);
            site.kill(node);
            let taken_over = eventually(|| match owner(&bootstrap) {
                other if other == node => Err(io::Error::other("the dead node still owns it")),
                _ => Ok(()),
            });
            taken_over.expect("another node takes it over");
            site.start(node, How::Plain);
        }
        sleep(Duration::from_millis(50));
    }
    let done = eventually(|| {
        let status = status(&bootstrap);
        let is_done = status.contains("behind       0 records");
        if is_done { Ok(()) } else { Err(io::Error::other(status)) }
    });
    done.expect("everything is read");
    let mut came = found(&bootstrap, "alerts");
    came.extend(found(&bootstrap, "readings_bad"));
    came.extend(found(&bootstrap, "readings_late"));
    let expected = expected();
    assert!(expected.len() > 10, "{} keys", expected.len());
    // Bad records have no key; those of a partition are in order, and partitions between each other not.
    let sorted = |mut all: BTreeMap<(String, String), Vec<String>>| {
        for ((topic, _), values) in &mut all {
            if topic == "readings_bad" {
                values.sort();
            }
        }
        all
    };
    assert_eq!(sorted(came), sorted(expected), "{}", status(&bootstrap));
    let status = status(&bootstrap);
    let fates = status.lines().filter(|line| line.contains(" read = ")).count();
    assert_eq!(fates, PARTITIONS as usize, "{status}");
}

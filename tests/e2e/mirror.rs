//! Two sites of three real nodes with a link between them, over TLS: kcat, unmodified, writes at one and
//! reads at the other while leaders of both die and all nodes of one; of what another producer has
//! compressed only that comes which a rule lets go; then the authority that the link pins is another
//! one, nothing passes, and both sides say why. A site that is put back to an older copy of itself waits for somebody.

use fulmar_tests::kcat::{Kcat, lines, produce};
use fulmar_tests::site::{How, NODES, Site, binary, eventually};
use fulmar_tests::tools;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// Partitions of the topic.
const PARTITIONS: i32 = 3;

/// One test at a time: each has two sites or more, and they would take the ports of one another between the
/// choice of a port and the start of its node.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command of `fulmar` and returns what it printed.
fn fulmar(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().expect("the binary was built");
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "fulmar {}: {out}{error}", arguments.join(" "));
    out.into_owned()
}

/// What is said to somebody whom the command refuses.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().expect("the binary was built");
    assert!(!output.status.success(), "fulmar {}", arguments.join(" "));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the directories of tests have plain names")
}

fn keys(site: &Site, directory: &str) -> PathBuf {
    let keys = site.directory().join(directory);
    fulmar(&["keys", "--config", text(&site.config()), "--dir", text(&keys)]);
    keys.join("authority.crt")
}

/// Everything that a consumer sees of a partition: offset, timestamp, key, headers, value.
fn seen(site: &Site, topic: &str, partition: i32) -> Vec<String> {
    let partition = partition.to_string();
    let format = "%o %T %k %h %s\n";
    let arguments =
        ["-C", "-t", topic, "-p", &partition, "-o", "beginning", "-e", "-q", "-f", format];
    lines(&Kcat::start(&site.bootstrap(), &arguments).finish(Duration::from_secs(60)))
}

/// Waits until a consumer sees the same in the copy as in the origin, and returns how many records.
fn converged(north: &Site, south: &Site) -> usize {
    let origin: Vec<_> = (0..PARTITIONS).map(|at| seen(north, "readings", at)).collect();
    let equal = eventually(|| {
        let copy: Vec<_> = (0..PARTITIONS).map(|at| seen(south, "north.readings", at)).collect();
        let count = |of: &[Vec<String>]| of.iter().map(Vec::len).sum::<usize>();
        for (origin, copy) in origin.iter().zip(&copy) {
            assert_eq!(copy[..], origin[..copy.len()], "a copy is a prefix of its origin");
        }
        if copy == origin {
            Ok(count(&copy))
        } else {
            Err(io::Error::other(format!("{} of {}", count(&copy), count(&origin))))
        }
    });
    equal.unwrap_or_else(|error| panic!("the copy does not come to its end: {error}"))
}

fn said(site: &Site, what: &str) {
    let look = || {
        let said = |id: &i32| {
            let log = site.directory().join(format!("node-{id}.log"));
            fs::read_to_string(log).is_ok_and(|log| log.contains(what))
        };
        if NODES.iter().any(said) { Ok(()) } else { Err(io::Error::other("not said")) }
    };
    eventually(look).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// What one site lays down about the other.
fn linked(site: &Site, other: (&str, &str, &Path), extra: &[&str]) {
    let (name, region, authority) = other;
    let bootstrap = site.bootstrap();
    let create = ["link", "create", name, "--region", region, "--authority", text(authority)];
    fulmar(&[&create[..], &["--bootstrap", &bootstrap], extra].concat());
}

fn pin(site: &Site, authority: &Path) {
    let file = site.directory().join("links.toml");
    let text_of_file = format!(
        "[[link]]\nname = \"south\"\nregion = \"eu\"\nauthority = \"{}\"\n",
        authority.display()
    );
    fs::write(&file, text_of_file).expect("the file is written");
    let said = fulmar(&["apply", text(&file), "--yes", "--bootstrap", &site.bootstrap()]);
    assert!(said.contains("~ link south\n    authority"), "{said}");
}

/// A topic of which not everything may leave.
fn withheld(north: &Site) {
    north.create_topic("people", 1);
    let rule = ["rule", "set", "people", "--regions", "eu", "--key", "drop", "--headers", "drop"];
    let fields = ["--field", "name=mask", "--field", "card=drop"];
    fulmar(&[&rule[..], &fields, &["--bootstrap", &north.bootstrap()]].concat());
    // One region more, and nothing is said of what was withheld.
    let bootstrap = north.bootstrap();
    let wider = ["rule", "set", "people", "--regions", "eu,us", "--bootstrap", &bootstrap];
    let said = refused(&wider);
    assert!(said.contains("say --yes"), "{said}");
}

/// Of what librdkafka compresses, with each of its codecs, what the rule lets go comes over, and what is
/// no JSON stays a gap.
fn only_what_may_leaves(north: &Site, south: &Site) {
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let person = format!(r#"{{"codec":"{codec}","name":"Ada","card":"4111"}}"#);
        produce(&north.bootstrap(), "people", codec, &[person, "Ada, 4111".to_owned()]);
    }
    let expected: Vec<String> = (0..)
        .zip(codecs)
        .map(|(at, codec)| format!(r#"{} {{"codec":"{codec}","name":"***"}}"#, 2 * at))
        .collect();
    let came = eventually(|| {
        let from = ["-C", "-t", "north.people", "-p", "0", "-o", "beginning", "-e", "-q"];
        let arguments = [&from[..], &["-f", "%o %s\n"]].concat();
        let came =
            lines(&Kcat::start(&south.bootstrap(), &arguments).finish(Duration::from_secs(60)));
        if came == expected { Ok(()) } else { Err(io::Error::other(came.join("; "))) }
    });
    came.unwrap_or_else(|error| panic!("what has come is not what may: {error}"));
    let gaps = eventually(|| {
        let gaps = fulmar(&["link", "gaps", "north", "--bootstrap", &south.bootstrap()]);
        if gaps.contains("withheld by a rule") { Ok(()) } else { Err(io::Error::other(gaps)) }
    });
    gaps.unwrap_or_else(|error| panic!("what is withheld is not told: {error}"));
    let explain = ["policy", "explain", "people", "--to", "south", "--bootstrap"];
    let said = fulmar(&[&explain[..], &[&north.bootstrap()]].concat());
    assert!(said.contains("people goes to south in the region eu"), "{said}");
    assert!(said.contains("withheld: its value is not JSON"), "{said}");
}

/// What `fulmar link status` says on both sides, once everything has arrived.
fn status_says_what_arrived(north: &Site, south: &Site) {
    let status = fulmar(&["link", "status", "--bootstrap", &south.bootstrap()]);
    assert!(status.contains("link north: up"), "{status}");
    assert!(status.contains("takes north.readings/2  up to"), "{status}");
    let arrived = eventually(|| {
        let status = fulmar(&["link", "status", "--bootstrap", &north.bootstrap()]);
        let is_behind = |line: &str| !line.contains("arrived") || line.contains("behind");
        let sends = |line: &&str| line.contains("sends readings/");
        if status.lines().filter(sends).any(is_behind) {
            Err(io::Error::other(status))
        } else {
            Ok(())
        }
    });
    arrived.expect("what has arrived is noted");
}

/// What the node that leads tells of the link, once everything has arrived.
fn metrics_say_the_same(north: &Site, records: usize) {
    let told = north.metrics(north.leader("readings"));
    let is = |name: &str| *told.get(name).unwrap_or_else(|| panic!("{name} in {told:?}"));
    let whole = |name: &str| is(name) as usize;
    assert_eq!(whole("fulmar_link_state{link=\"south\",state=\"up\"}"), 1);
    assert_eq!(whole("fulmar_link_state{link=\"south\",state=\"down\"}"), 0);
    assert_eq!(whole("fulmar_topic_records{topic=\"readings\"}"), records);
    assert_eq!(whole("fulmar_raft_role{role=\"leader\"}"), 1);
    assert_eq!(whole("fulmar_ready"), 1);
    let of = "{link=\"south\",topic=\"readings\"}";
    for lag in ["records", "bytes", "seconds"] {
        assert_eq!(whole(&format!("fulmar_link_lag_{lag}{of}")), 0);
    }
    assert!(is("fulmar_link_sent_bytes_total{link=\"south\"}") > 0.0);
    assert!(is("fulmar_flush_seconds_count") > 0.0);
    assert_eq!(is("fulmar_flush_seconds_bucket{le=\"+Inf\"}"), is("fulmar_flush_seconds_count"));
    assert!(is("fulmar_requests_total{api=\"Produce\"}") > 0.0);
}

#[test]
fn what_is_written_at_one_site_is_read_at_the_other_whoever_dies() {
    let _alone = alone();
    if !tools::is_there("kcat") {
        return;
    }
    let [mut north, mut south] = Site::pair(["north", "south"], "\n[tls]\nkeys = \"keys\"\n");
    let (of_north, of_south) = (keys(&north, "keys"), keys(&south, "keys"));
    let strangers = keys(&south, "strangers");
    north.start(1, How::Plain);
    north.wait_health(1, 503, "the node is starting");
    assert_eq!(north.http(1, "/healthz").expect("it lives").0, 200);
    north.start(2, How::Plain);
    north.start(3, How::Plain);
    south.start_all(How::Plain);
    north.wait_ready();
    NODES.iter().for_each(|id| north.wait_health(*id, 200, "ready"));
    south.wait_ready();
    north.create_topic("readings", PARTITIONS);
    fulmar(&["rule", "set", "readings", "--regions", "eu", "--bootstrap", &north.bootstrap()]);
    withheld(&north);
    linked(&north, ("south", "eu", &of_south), &[]);
    let dial = north.links();
    linked(&south, ("north", "us", &of_north), &["--dial", &dial, "--take", "readings,people"]);

    let arguments =
        ["-P", "-t", "readings", "-K:", "-H", "unit=bar", "-X", "enable.idempotence=true"];
    let mut writer = Kcat::start(&north.bootstrap(), &arguments);
    let written: Vec<String> = (0..4_000).map(|at| format!("sensor-{}:{at}", at % 50)).collect();
    for (number, chunk) in written.chunks(100).enumerate() {
        writer.feed((chunk.join("\n") + "\n").as_bytes());
        sleep(Duration::from_millis(50));
        match number {
            8 => north.kill(north.leader("readings")),
            16 => south.kill(south.leader("north.readings")),
            24 => south.kill_all(),
            30 => south.start_all(How::Plain),
            _ => {}
        }
    }
    writer.finish(Duration::from_secs(60));
    south.wait_ready();
    assert_eq!(converged(&north, &south), written.len(), "none lost, none twice");

    only_what_may_leaves(&north, &south);
    status_says_what_arrived(&north, &south);
    metrics_say_the_same(&north, written.len());

    // Whoever has south's certificate is a stranger now.
    pin(&north, &strangers);
    said(&north, "certificate-of-another-authority");
    said(&south, "certificate-of-another-authority");
    status_says(
        &north,
        "says that it is of this site, is refused: certificate-of-another-authority",
    );
    status_says(&south, "the other site refuses this one: certificate-of-another-authority");
    let mut writer = Kcat::start(&north.bootstrap(), &["-P", "-t", "readings", "-p", "0"]);
    writer.feed(b"not for strangers\n");
    writer.finish(Duration::from_secs(60));
    sleep(Duration::from_secs(2));
    let copy: usize = (0..PARTITIONS).map(|at| seen(&south, "north.readings", at).len()).sum();
    assert_eq!(copy, written.len(), "nothing goes to whom nobody vouches for");
    pin(&north, &of_south);
    assert_eq!(converged(&north, &south), written.len() + 1);

    let leader = south.leader("north.readings");
    let alone = NODES.into_iter().find(|id| *id != leader).expect("there are three");
    NODES.into_iter().filter(|id| *id != alone).for_each(|id| south.kill(id));
    south.wait_health(alone, 503, "no leader");
}

/// Copies the directories of all nodes, which must not run.
fn copied(from: impl Fn(i32) -> PathBuf, to: impl Fn(i32) -> PathBuf) {
    for id in NODES {
        let to = to(id);
        if to.exists() {
            fs::remove_dir_all(&to).expect("it is taken away");
        }
        copy_directory(&from(id), &to);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("it is there").is_dir() {
            true => copy_directory(&from, &to),
            false => drop(fs::copy(&from, &to).expect("it is copied")),
        }
    }
}

/// Waits until `fulmar link status` says something at a site.
fn status_says(site: &Site, what: &str) {
    let said = eventually(|| {
        let asked = ["link", "status", "--bootstrap", &site.bootstrap()];
        let output = Command::new(binary()).args(asked).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains(what) { Ok(()) } else { Err(io::Error::other(said)) }
    });
    said.unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_site_that_is_put_back_to_an_older_copy_waits_for_somebody() {
    let _alone = alone();
    if !tools::is_there("kcat") {
        return;
    }
    let [mut north, mut south] = Site::pair(["north", "south"], "\n[tls]\nkeys = \"keys\"\n");
    let (of_north, of_south) = (keys(&north, "keys"), keys(&south, "keys"));
    north.start_all(How::Plain);
    south.start_all(How::Plain);
    north.wait_ready();
    south.wait_ready();
    north.create_topic("readings", PARTITIONS);
    let bootstrap = north.bootstrap();
    fulmar(&["rule", "set", "readings", "--regions", "eu", "--bootstrap", &bootstrap]);
    linked(&north, ("south", "eu", &of_south), &[]);
    let dial = north.links();
    linked(&south, ("north", "us", &of_north), &["--dial", &dial, "--take", "readings"]);
    let write = |count: usize| {
        let records: Vec<String> = (0..count).map(|at| format!("record {at}")).collect();
        produce(&bootstrap, "readings", "none", &records);
    };
    write(60);
    assert_eq!(converged(&north, &south), 60);

    let keep = north.directory().join("copy");
    let kept = |id: i32| keep.join(id.to_string());
    north.kill_all();
    copied(|id| north.data(id), kept);
    north.start_all(How::Plain);
    north.wait_ready();
    write(90);
    assert_eq!(converged(&north, &south), 150);
    // What is withheld since then, the copy does not know.
    fulmar(&["rule", "delete", "readings", "--bootstrap", &bootstrap]);
    let again = ["rule", "set", "readings", "--regions", "eu", "--bootstrap", &bootstrap];
    let said = refused(&again);
    assert!(said.contains("the rule of readings was taken back"), "{said}");
    status_says(&north, "link south: up");

    north.kill_all();
    copied(kept, |id| north.data(id));
    north.start_all(How::Plain);
    north.wait_ready();
    status_says(&north, "link south: put-back");
    status_says(&south, "this site has heard more of the other one");
    assert!(
        north.metrics(north.leader("readings"))["fulmar_link_state{link=\"south\",state=\"put-back\"}"]
            > 0.0
    );
    let told = fulmar(&["rule", "list", "--bootstrap", &bootstrap]);
    assert!(told.contains("readings"), "the copy has the old rule: {told}");
    write(200);
    sleep(Duration::from_secs(2));
    let came: usize = (0..PARTITIONS).map(|at| seen(&south, "north.readings", at).len()).sum();
    assert_eq!(came, 150, "nothing passes before somebody has looked at it");

    fulmar(&["link", "pause", "south", "--bootstrap", &bootstrap]);
    fulmar(&["link", "resume", "south", "--bootstrap", &bootstrap]);
    status_says(&north, "link south: up");
    status_says(&south, "a fork");
}

#[test]
fn the_demonstration_of_a_mirror_holds() {
    let _alone = alone();
    let said = fulmar(&["demo", "mirror", "--records", "60000"]);
    assert!(said.contains("verdict   the copy is whole"), "{said}");
    let behind = said.lines().find(|line| line.contains("the link is down, 45,000 behind"));
    assert!(behind.is_some(), "what has arrived before the cut is known: {said}");
}

#[test]
fn the_bench_of_a_mirror_measures_something() {
    let _alone = alone();
    let small = ["--backlog", "1MiB", "--seconds", "1", "--idle-links", "2", "--idle-seconds", "1"];
    let said = fulmar(&[&["bench", "mirror", "--json"], &small[..]].concat());
    let report: serde_json::Value = serde_json::from_str(&said).expect("it is JSON");
    let above_zero = ["/ratio", "/caught_up/records_per_second", "/with_link/copied_per_second"];
    for place in above_zero {
        let measured = report.pointer(place).and_then(serde_json::Value::as_f64);
        assert!(measured.is_some_and(|measured| measured > 0.0), "{place}: {said}");
    }
    let idle = report.pointer("/idle/with").and_then(serde_json::Value::as_array);
    assert_eq!(idle.map(Vec::len), Some(3), "{said}");
}

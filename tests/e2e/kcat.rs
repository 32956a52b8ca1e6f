//! kcat, unmodified, against three real processes: what it wrote it reads back, across the death
//! of a leader too.
//!
//! Debian's kcat 1.7.1 (librdkafka 2.0.2) is also the floor of the protocol versions: it does not
//! even connect to a broker that gets ApiVersions or Fetch slightly wrong.

use fulmar_tests::kcat::{self, Kcat};
use fulmar_tests::site::{How, READY_TIMEOUT, Scratch, Site, binary, eventually, signal};
use fulmar_tests::tools;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Lines of many lengths, each of them once.
fn lines(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name} {n} {}", "fulmar-".repeat(n * n % 97))).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn every_codec_comes_back_byte_for_byte() {
    if !tools::is_there("kcat") {
        return;
    }
    let mut site = Site::new("kcat-codecs", "");
    site.start_all(How::Plain);
    site.wait_ready();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("plain-{codec}");
        site.create_topic(&topic, 3);
        let written = lines(codec, 2_000);
        kcat::produce(&site.bootstrap(), &topic, codec, &written);
        let read = kcat::consume(&site.bootstrap(), &topic);
        assert_eq!(sorted(read), sorted(written), "codec {codec}");
    }
}

/// Written by key, so that each key has an order of its own.
const KEYS: usize = 7;

fn by_key(lines: &[String]) -> BTreeMap<&str, Vec<usize>> {
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for line in lines {
        let (key, number) = line.split_once(':').expect("a key and a number");
        found.entry(key).or_default().push(number.parse().expect("a number"));
    }
    found
}

#[test]
fn the_death_of_a_leader_loses_and_doubles_nothing() {
    if !tools::is_there("kcat") {
        return;
    }
    let mut site = Site::new("kcat-failover", "");
    site.start_all(How::Plain);
    site.wait_ready();
    site.create_topic("orders", 3);
    let count = 6_000;
    let bootstrap = site.bootstrap();
    let arguments = ["-C", "-t", "orders", "-o", "beginning", "-q", "-E", "-c", "6000", "-K:"];
    let follower = Kcat::start(&bootstrap, &arguments);
    let arguments = ["-P", "-t", "orders", "-E", "-K:", "-X", "enable.idempotence=true"];
    let mut writer = Kcat::start(&bootstrap, &arguments);
    for chunk in 0..60 {
        let numbers = chunk * count / 60..(chunk + 1) * count / 60;
        let text: String = numbers.map(|n| format!("key-{}:{n}\n", n % KEYS)).collect();
        writer.feed(text.as_bytes());
        sleep(Duration::from_millis(100));
        if chunk == 15 || chunk == 40 {
            let leader = site.leader("orders");
            site.kill(leader);
            // The others have to do it alone before the dead one comes back.
            assert_ne!(site.leader("orders"), leader);
            site.start(leader, How::Plain);
        }
    }
    writer.finish(Duration::from_secs(60));
    let followed = kcat::lines(&follower.finish(Duration::from_secs(60)));
    let arguments = ["-C", "-t", "orders", "-o", "beginning", "-q", "-e", "-K:"];
    let read = Kcat::start(&bootstrap, &arguments).finish(Duration::from_secs(60));
    for (who, read) in [("afterwards", kcat::lines(&read)), ("meanwhile", followed)] {
        let found = by_key(&read);
        for key in 0..KEYS {
            let expected: Vec<usize> = (key..count).step_by(KEYS).collect();
            assert_eq!(found[format!("key-{key}").as_str()], expected, "read {who}");
        }
    }
}

/// A site in one command.
struct Up(Child);

impl Up {
    fn start(directory: &Path, output: &Path) -> Self {
        let output = fs::File::create(output).expect("an output file");
        let child = Command::new(binary())
            .arg("up")
            .arg("--dir")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second descriptor"))
            .stderr(output)
            .spawn()
            .expect("a site starts");
        Self(child)
    }

    /// The addresses that it prints.
    fn bootstrap(&mut self, output: &Path) -> String {
        let printed = eventually(|| {
            let status = self.0.try_wait()?;
            assert!(status.is_none(), "the site has ended: {status:?}");
            let text = fs::read_to_string(output)?;
            // Alone on a line, behind the words "Bootstrap addresses".
            let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':' | ',');
            let is_list = |line: &&str| line.contains(':') && line.chars().all(is_part);
            let addresses = text.lines().map(str::trim).find(is_list);
            Ok(addresses.ok_or_else(|| io::Error::other("no address"))?.to_owned())
        });
        printed.unwrap_or_else(|error| panic!("`fulmar up` prints no bootstrap: {error}"))
    }

    /// Ctrl-C, as a terminal would send it.
    fn stop(mut self) {
        signal(self.0.id(), libc::SIGINT);
        let begun = Instant::now();
        let status = loop {
            match self.0.try_wait().expect("a child can be asked") {
                Some(status) => break status,
                None if begun.elapsed() > READY_TIMEOUT => panic!("Ctrl-C does not stop the site"),
                None => sleep(Duration::from_millis(50)),
            }
        };
        assert!(status.success(), "a clean stop ends with 0, not {status}");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Not SIGKILL: the nodes are children of this process, and it must end them.
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(self.0.id(), libc::SIGINT);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn one_command_starts_a_site_and_starts_it_again() {
    if !tools::is_there("kcat") {
        return;
    }
    let scratch = Scratch::new("kcat-up");
    let (directory, output) = (scratch.path.join("site"), scratch.path.join("up.log"));
    let written = lines("up", 500);
    let mut up = Up::start(&directory, &output);
    let bootstrap = up.bootstrap(&output);
    assert_eq!(bootstrap.split(',').count(), 3, "{bootstrap}");
    kcat::produce(&bootstrap, "readings", "none", &written);
    up.stop();
    let mut up = Up::start(&directory, &output);
    let bootstrap = up.bootstrap(&output);
    assert_eq!(sorted(kcat::consume(&bootstrap, "readings")), sorted(written));
    up.stop();
}

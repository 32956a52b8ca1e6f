//! The measuring tools, measured: the hand-written client and the driver of kcat against the mock
//! brokers inside librdkafka. When an end-to-end test is red, it is not because of these.

use fulmar_tests::kafka::{Client, read_all};
use fulmar_tests::kcat;
use fulmar_tests::site::eventually;
use fulmar_tests::tools;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Three mock brokers, in a kcat that waits for input.
struct Mock {
    kcat: Child,
    output: PathBuf,
}

impl Mock {
    fn start() -> Self {
        let output = std::env::temp_dir().join(format!("fulmar-mock-{}", std::process::id()));
        let file = fs::File::create(&output).expect("an output file");
        let kcat = Command::new("kcat")
            .args(["-P", "-t", "unused", "-b", "unused:1", "-d", "mock"])
            .args(["-X", "test.mock.num.brokers=3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("kcat starts");
        Self { kcat, output }
    }

    fn bootstrap(&self) -> String {
        let printed = eventually(|| {
            let text = fs::read_to_string(&self.output)?;
            let line = text.split_once("bootstrap.servers=").map(|(_, behind)| behind);
            let line = line.and_then(|behind| behind.split_once('\n'));
            Ok(line.ok_or(io::ErrorKind::NotFound)?.0.trim().to_owned())
        });
        printed.expect("the mock prints its addresses")
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.kcat.kill();
        let _ = self.kcat.wait();
        let _ = fs::remove_file(&self.output);
    }
}

#[test]
fn our_client_and_kcat_understand_one_another() {
    if !tools::is_there("kcat") {
        return;
    }
    let mock = Mock::start();
    let bootstrap = mock.bootstrap();
    let first: SocketAddr =
        bootstrap.split(',').next().and_then(|a| a.parse().ok()).expect("an address");
    let mut client = Client::connect(first).expect("the mock listens");
    let versions = client.api_versions().expect("an answer");
    assert!(versions.iter().any(|(key, min, max)| *key == 0 && (*min..=*max).contains(&3)));

    // Ours to theirs.
    let metadata = client.metadata("ours").expect("an answer");
    assert_eq!(metadata.brokers.len(), 3);
    let partition = metadata.partitions[0];
    let mut leader = Client::connect(metadata.brokers[&partition.leader]).expect("it listens");
    for n in 0..50 {
        let values = [format!("one {n}"), format!("two {n}")];
        let values = values.each_ref().map(String::as_bytes);
        let offset = leader.produce("ours", partition.index, &values).expect("acknowledged");
        assert_eq!(offset, 2 * n);
    }
    let lines = kcat::consume(&bootstrap, "ours");
    let expected: Vec<String> =
        (0..50).flat_map(|n| [format!("one {n}"), format!("two {n}")]).collect();
    assert_eq!(lines, expected);

    // Theirs to ours.
    let written: Vec<String> = (0..500).map(|n| format!("line {n}")).collect();
    kcat::produce(&bootstrap, "theirs", "none", &written);
    let metadata = client.metadata("theirs").expect("an answer");
    let mut read = Vec::new();
    for partition in metadata.partitions {
        let mut leader = Client::connect(metadata.brokers[&partition.leader]).expect("it listens");
        let records = read_all(&mut leader, "theirs", partition.index).expect("records");
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{offsets:?}");
        read.extend(records.into_iter().map(|record| String::from_utf8(record.value)));
    }
    let mut read: Vec<String> = read.into_iter().map(|text| text.expect("text")).collect();
    let mut written = written;
    read.sort();
    written.sort();
    assert_eq!(read, written);
}

//! A node whose directory is lost: it is refused as it is, comes back by `fulmar rejoin`, has every
//! record again, and counts for the majority from then on.

use fulmar_tests::kafka::read_all;
use fulmar_tests::site::{How, NODES, Site, binary, eventually};
use std::fs;
use std::io;
use std::process::{Command, Output};

const TOPIC: &str = "orders";

fn fulmar(site: &Site, command: &str, id: i32) -> Output {
    Command::new(binary())
        .arg(command)
        .arg("--config")
        .arg(site.config())
        .args(["--id", &id.to_string()])
        .output()
        .expect("the binary runs")
}

fn produce(site: &Site, value: &str) {
    eventually(|| {
        let (mut client, _) = site.connect_to_leader(TOPIC);
        client.produce(TOPIC, 0, &[value.as_bytes()])
    })
    .unwrap_or_else(|error| panic!("{value} was not taken: {error}"));
}

fn read(site: &Site) -> io::Result<Vec<String>> {
    let (mut client, _) = site.connect_to_leader(TOPIC);
    let records = read_all(&mut client, TOPIC, 0)?;
    Ok(records.into_iter().map(|r| String::from_utf8_lossy(&r.value).into_owned()).collect())
}

fn votes_again(site: &Site, id: i32) -> io::Result<()> {
    let log = fs::read_to_string(site.directory().join(format!("node-{id}.log")))?;
    match log.contains("this node votes again") {
        true => Ok(()),
        false => Err(io::Error::other(format!("not yet: {log}"))),
    }
}

#[test]
fn a_node_that_lost_its_directory_comes_back_with_everything() {
    let mut site = Site::new("rejoin", "");
    site.start_all(How::Plain);
    site.wait_ready();
    site.create_topic(TOPIC, 1);
    produce(&site, "before");

    let lost = NODES.into_iter().find(|id| *id != site.leader(TOPIC)).expect("a follower");
    site.kill(lost);
    fs::remove_dir_all(site.data(lost)).expect("the disk is lost");
    produce(&site, "without it");

    let refused = fulmar(&site, "node", lost);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(43), "an empty directory must not be let in: {text}");
    assert!(text.contains("fulmar rejoin"), "it says what to do: {text}");
    // That start has drawn an incarnation and nothing else, so the directory counts as empty.
    for _ in 0..2 {
        let prepared = fulmar(&site, "rejoin", lost);
        assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    }
    site.start(lost, How::Plain);
    site.wait_ready();
    produce(&site, "with it again");
    eventually(|| votes_again(&site, lost)).expect("it gets its vote back");

    // Without one of the others nothing can be acknowledged unless the new life has a vote.
    let other = site.leader(TOPIC);
    site.kill(other);
    produce(&site, "on the two that are left");
    let expected = ["before", "without it", "with it again", "on the two that are left"];
    let read = eventually(|| read(&site)).expect("the log can be read");
    assert_eq!(read, expected);
}

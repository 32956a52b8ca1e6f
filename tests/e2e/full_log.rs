//! A log that cannot be written, as on a full disk, ends no node.

use fulmar_tests::site::{How, Site, eventually};

const TOPIC: &str = "orders";

#[test]
fn nodes_whose_log_is_full_go_on() {
    let mut site = Site::new("full-log", "");
    site.start_all(How::FullLog);
    site.wait_ready();
    site.create_topic(TOPIC, 1);
    // Each change of the leader is something that the others would write down.
    for value in ["one", "two", "three"] {
        let leader = site.leader(TOPIC);
        site.kill(leader);
        eventually(|| {
            let (mut client, _) = site.connect_to_leader(TOPIC);
            client.produce(TOPIC, 0, &[value.as_bytes()])
        })
        .unwrap_or_else(|error| panic!("{value} was not taken: {error}"));
        site.start(leader, How::FullLog);
    }
    site.wait_ready();
}

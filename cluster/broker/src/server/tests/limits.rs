//! What slow, greedy and departed clients can do to others: the clock is paused, so that waiting
//! for minutes takes no time.

use super::*;
use crate::limits::{
    ANSWER_BYTES_PER_NAME, CLOSED_WAIT_MS_MAX, CONNECTION_IDLE_MS_MAX, FRAME_STALL_MS_MAX,
    LARGE_ANSWERS_BYTES_MAX, MIDDLE_ANSWERS_BYTES_MAX,
};
use crate::testing::run_paused;
use fulmar_host::time::Instant;
use fulmar_types::limits::{CLIENT_FRAME_BYTES_MAX, REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX};

fn passed_s(since: Instant) -> u64 {
    (time::now() - since).as_secs()
}

async fn with_topic() -> (Fixture, Server) {
    let (fixture, server) = started().await;
    let mut client = Client::connect(&fixture, &server).await;
    client.request(&metadata(), 4, 0).await;
    let _: MetadataResponse = client.response(4, 0).await;
    (fixture, server)
}

fn fetch(topic: &str, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() };
    FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_wait_ms: wait_ms,
        topics: vec![FetchTopic { topic: topic.to_owned(), partitions: vec![partition] }],
        ..FetchRequest::default()
    }
}

/// Whoever asks for the topics is answered at once.
async fn is_answered_at_once(fixture: &Fixture, server: &Server) {
    let begun = time::now();
    let mut client = Client::connect(fixture, server).await;
    client.request(&metadata(), 4, 7).await;
    let _: MetadataResponse = client.response(4, 7).await;
    assert_eq!(passed_s(begun), 0);
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_cut_off() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        for announced in [100, 100_000] {
            let mut client = Client::connect(&fixture, &server).await;
            client.send(&i32::to_be_bytes(announced)).await;
            let begun = time::now();
            while client.connection.writer.write_all(b"x").await.is_ok() {
                time::sleep(Duration::from_secs(1)).await;
                assert!(passed_s(begun) < 60, "one byte a second is too slow");
            }
            assert!(passed_s(begun) >= FRAME_STALL_MS_MAX / 1_000);
        }
    });
}

#[test]
fn slow_senders_of_large_frames_keep_out_large_frames_only_and_not_for_ever() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let mut slow = Vec::new();
        for _ in 0..8 {
            let mut client = Client::connect(&fixture, &server).await;
            client.send(&u32::to_be_bytes(CLIENT_FRAME_BYTES_MAX as u32)).await;
            slow.push(client);
        }
        settle().await;
        is_answered_at_once(&fixture, &server).await;
        let begun = time::now();
        let mut honest = Client::connect(&fixture, &server).await;
        let mut request = produce(-1, 0);
        request.topic_data[0].partition_data[0].records = Some(batch(None, 20_000, 0));
        honest.request(&request, 9, 1).await;
        let answer: ProduceResponse = honest.response(9, 1).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::None);
        let waited = passed_s(begun);
        assert!(waited > 0, "the test has filled the room");
        assert!(waited < 20 * 60, "{waited} s");
    });
}

#[test]
fn produce_without_a_quorum_ends_in_time_and_what_was_given_up_is_not_done() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        fixture.group.hold(true);
        let begun = time::now();
        let mut clients = Vec::new();
        for n in 0..80 {
            let mut client = Client::connect(&fixture, &server).await;
            let mut request = produce(-1, 0);
            request.timeout_ms = 1_000;
            request.topic_data[0].partition_data[0].records = Some(batch(None, 50_000, n));
            // The receiving side may be full: then the client waits here, as a real one does.
            clients.push(task::spawn(async move {
                client.request(&request, 9, 1).await;
                let answer: ProduceResponse = client.response(9, 1).await;
                answer.responses[0].partition_responses[0].error_code
            }));
        }
        settle().await;
        is_answered_at_once(&fixture, &server).await;
        let known = [ErrorCode::RequestTimedOut, ErrorCode::NotLeaderOrFollower];
        for client in clients {
            let code = client.await.expect("no panic");
            assert!(known.contains(&code), "{code:?}");
        }
        assert!(passed_s(begun) < 120);
        let entries = fixture.group.entries();
        fixture.group.hold(false);
        settle().await;
        let mut client = Client::connect(&fixture, &server).await;
        let mut request = produce(-1, 0);
        request.topic_data[0].partition_data[0].records = Some(batch(None, 1, 0));
        client.request(&request, 9, 2).await;
        let answer: ProduceResponse = client.response(9, 2).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::None);
        let more = fixture.group.entries() - entries;
        assert!(more <= crate::limits::PROPOSALS_IN_FLIGHT_MAX + 1, "{more} entries");
    });
}

#[test]
fn fetches_that_wait_take_no_room_from_others() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let mut request = fetch("t", 50_000);
        let partition = FetchPartition { partition_max_bytes: 1, ..FetchPartition::default() };
        // About 56 KB: just a small frame.
        request.topics[0].partitions = vec![partition; 2_000];
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = Client::connect(&fixture, &server).await;
            let request = request.clone();
            clients.push(task::spawn_owned(async move {
                for id in 0..REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX {
                    client.request(&request, 11, id as i32).await;
                }
                std::future::pending::<()>().await;
            }));
        }
        settle().await;
        is_answered_at_once(&fixture, &server).await;
        drop(clients);
    });
}

#[test]
fn a_client_that_is_gone_is_not_kept_for_its_poll() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let mut client = Client::connect(&fixture, &server).await;
        client.request(&fetch("t", 55_000), 11, 1).await;
        settle().await;
        client.connection.writer.shutdown().await.expect("closes its side");
        let begun = time::now();
        assert_eq!(client.frame().await, None);
        assert_eq!(passed_s(begun), CLOSED_WAIT_MS_MAX / 1_000);
    });
}

#[test]
fn a_silent_connection_is_closed_and_one_that_polls_is_not() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let mut silent = Client::connect(&fixture, &server).await;
        let mut polling = Client::connect(&fixture, &server).await;
        let begun = time::now();
        let poller = task::spawn(async move {
            for id in 0..20 {
                polling.request(&fetch("t", 50_000), 11, id).await;
                let _: FetchResponse = polling.response(11, id).await;
            }
        });
        assert_eq!(silent.frame().await, None);
        let idle_s = CONNECTION_IDLE_MS_MAX / 1_000;
        assert!((idle_s..idle_s + 20).contains(&passed_s(begun)), "{}", passed_s(begun));
        poller.await.expect("was answered every time");
    });
}

/// A produce request for partitions that do not exist.
fn produce_to_none(partitions: i32) -> ProduceRequest {
    let mut request = produce(-1, 0);
    let none = |index| PartitionProduceData { index: 1_000_000 + index, records: None };
    request.topic_data[0].partition_data = (0..partitions).map(none).collect();
    request
}

#[test]
fn long_names_are_counted_or_refused() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let asking = |names: usize, bytes: usize| {
            let topic = |at: usize| MetadataRequestTopic {
                name: Some(format!("{at:0>bytes$}")),
                ..MetadataRequestTopic::default()
            };
            let topics = Some((0..names).map(topic).collect());
            MetadataRequest { topics, ..MetadataRequest::default() }
        };
        let longest = fulmar_wire::STRING_BYTES_MAX;
        for (names, bytes, answered) in [
            (1, longest, true),
            (1, longest + 1, false),
            (100, longest, true),
            (200, longest, false),
        ] {
            let mut client = Client::connect(&fixture, &server).await;
            client.request(&asking(names, bytes), 9, 1).await;
            settle().await;
            // A small one has been sent by now.
            if answered && names > 1 {
                let held = crate::limits::METADATA_BYTES_IN_FLIGHT_MAX / 1024
                    - fixture.broker.metadata_room.available_permits();
                assert!(
                    held >= 2 * names * bytes / 1024,
                    "{held} KiB for {names} of {bytes} bytes"
                );
            }
            assert_eq!(client.frame().await.is_some(), answered, "{names} of {bytes} bytes");
        }
    });
}

#[test]
fn a_request_that_names_too_much_ends_its_connection() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let most = crate::limits::REQUEST_PARTITIONS_MAX as i32;
        for (partitions, answered) in [(most, true), (most + 1, false)] {
            let mut client = Client::connect(&fixture, &server).await;
            client.request(&produce_to_none(partitions), 9, 1).await;
            assert_eq!(client.frame().await.is_some(), answered, "{partitions}");
        }
    });
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_keep_out_large_ones_only() {
    run_paused(async {
        let (fixture, server) = with_topic().await;
        let free = || fixture.broker.answer_room.free_bytes();
        let all = (MIDDLE_ANSWERS_BYTES_MAX, LARGE_ANSWERS_BYTES_MAX);
        assert_eq!(free(), all);
        let mut silent = Vec::new();
        for _ in 0..8 {
            let mut client = Client::connect(&fixture, &server).await;
            client.request(&produce_to_none(10_000), 9, 1).await;
            silent.push(client);
        }
        settle().await;
        assert!(free().1 < 10_000 * ANSWER_BYTES_PER_NAME, "the room is taken");
        is_answered_at_once(&fixture, &server).await;
        let begun = time::now();
        // One of middle size has room of its own, and one that gets no answer needs none.
        for (acks, partitions) in [(-1, 100), (0, 10_000)] {
            let mut honest = Client::connect(&fixture, &server).await;
            honest.request(&ProduceRequest { acks, ..produce_to_none(partitions) }, 9, 1).await;
            if acks == 0 {
                // It fails, so all that can be learnt is that the connection ends.
                assert!(honest.frame().await.is_none());
            } else {
                let answer: ProduceResponse = honest.response(9, 1).await;
                assert_eq!(answer.responses[0].partition_responses.len(), 100);
            }
        }
        let mut honest = Client::connect(&fixture, &server).await;
        let mut request = produce(-1, 0);
        request.topic_data[0].partition_data[0].records = Some(batch(None, 1, 0));
        honest.request(&request, 9, 1).await;
        let answer: ProduceResponse = honest.response(9, 1).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::None);
        assert_eq!(passed_s(begun), 0);
        // One that is large waits, but not for ever.
        let mut late = Client::connect(&fixture, &server).await;
        late.request(&produce_to_none(10_000), 9, 1).await;
        assert!(late.frame().await.is_none());
        assert!((30..60).contains(&passed_s(begun)), "{}", passed_s(begun));
        drop((silent, late));
        settle().await;
        assert_eq!(free(), all);
    });
}

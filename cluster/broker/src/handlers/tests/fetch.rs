//! Fetch: waiting, limits, leases, epochs.

use super::*;

#[test]
fn what_is_produced_is_fetched_byte_for_byte_but_for_offset_and_epoch() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        assert_eq!(produce(&fixture, batch(None, 3, 100)).await, (ErrorCode::None, 0));
        fixture.group.elect(Some(NodeId(1)));
        let sent = batch(None, 2, 200);
        assert_eq!(produce(&fixture, sent.clone()).await, (ErrorCode::None, 3));

        // An offset in the middle of a batch gives the whole batch.
        let data = fetch(&fixture, 4).await;
        assert_eq!(
            (data.high_watermark, data.last_stable_offset, data.log_start_offset),
            (5, 5, 0)
        );
        let got = records(&data);
        let header = BatchHeader::read(&got).expect("a header");
        assert_eq!((header.base_offset, header.partition_leader_epoch), (3, 2));
        assert_eq!(got[16..], sent[16..]);
        assert!(Batch::parse(got).is_ok());
        assert!(records(&fetch(&fixture, 5).await).is_empty());
        assert_eq!(fetch(&fixture, 6).await.error_code, ErrorCode::OffsetOutOfRange);
        assert_eq!(fetch(&fixture, -1).await.error_code, ErrorCode::OffsetOutOfRange);
    });
}

#[test]
fn a_fetch_waits_for_an_append_or_its_deadline() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let start = time::now();
        let response = ask!(&fixture, 4, Fetch, fetch_request(0, 60));
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(records(fetched(&response)).is_empty());

        let waiting = begin(&fixture, 4, fetch_request(0, 10_000).into()).await;
        let waiting = fulmar_host::task::spawn(waiting);
        settle().await;
        produce(&fixture, batch(None, 1, 0)).await;
        let Response::Fetch(response) = written(waiting.await.expect("answered"), 4) else {
            panic!("fetch")
        };
        assert_eq!(fetched(&response).high_watermark, 1);
        assert!(!records(fetched(&response)).is_empty());
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn fetches_that_wait_occupy_no_memory_of_others() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let request = FetchRequest { max_bytes: i32::MAX, ..fetch_request(0, 10_000) };
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let reply = begin(&fixture, 12, request.clone().into()).await;
            waiting.push(fulmar_host::task::spawn(reply));
        }
        settle().await;
        produce(&fixture, batch(None, 1, 0)).await;
        for one in waiting {
            let reply = one.await.expect("answered");
            let Response::Fetch(response) = written(reply, 12) else { panic!("fetch") };
            assert_eq!(fetched(&response).high_watermark, 1);
        }
        let free = fixture.broker.fetch_room.available_permits();
        assert_eq!(free * 1024, crate::limits::FETCH_BYTES_IN_FLIGHT_MAX);
    });
}

#[test]
fn a_waiting_fetch_learns_that_another_node_leads() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let waiting = begin(&fixture, 12, fetch_request(0, 10_000).into()).await;
        let waiting = fulmar_host::task::spawn(waiting);
        settle().await;
        fixture.group.elect(Some(NodeId(3)));
        let Response::Fetch(response) = written(waiting.await.expect("answered"), 12) else {
            panic!("fetch")
        };
        let data = fetched(&response);
        assert_eq!(data.error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!((data.current_leader.leader_id, data.current_leader.leader_epoch), (3, 2));
    });
}

#[test]
fn a_leader_without_lease_answers_no_read() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        produce(&fixture, batch(None, 1, 0)).await;
        fixture.group.set_lease(false);
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::NotLeaderOrFollower);
        fixture.group.set_lease(true);
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::None);
        fixture.group.set_lease(false);
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::NotLeaderOrFollower);
        let latest = list(&fixture, LATEST_TIMESTAMP).await;
        assert_eq!(latest.error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!(fixture.events.refused_reads(), [1, 1, 1]);
        fixture.group.elect(Some(NodeId(1)));
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!(fixture.events.refused_reads(), [1, 1, 1, 2]);
        fixture.group.elect(Some(NodeId(3)));
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!(fixture.events.refused_reads().len(), 4, "it does not say that it leads");
        fixture.group.elect(Some(NodeId(1)));
        fixture.group.set_lease(true);
        assert_eq!(fetch(&fixture, 0).await.error_code, ErrorCode::None);
    });
}

#[test]
fn the_lease_is_checked_after_the_data_was_read() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let waiting = begin(&fixture, 12, fetch_request(0, 100).into()).await;
        let waiting = fulmar_host::task::spawn(waiting);
        settle().await;
        // Still the leader, as far as this node knows.
        fixture.group.set_lease(false);
        let Response::Fetch(response) = written(waiting.await.expect("answered"), 12) else {
            panic!("fetch")
        };
        assert_eq!(fetched(&response).error_code, ErrorCode::NotLeaderOrFollower);
        assert_eq!(fixture.events.refused_reads(), [1]);
    });
}

#[test]
fn epochs_of_clients_are_compared_with_the_term() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.elect(Some(NodeId(1)));
        for (epoch, code) in [
            (-1, ErrorCode::None),
            (2, ErrorCode::None),
            (1, ErrorCode::FencedLeaderEpoch),
            (3, ErrorCode::UnknownLeaderEpoch),
        ] {
            let mut request = fetch_request(0, 0);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            assert_eq!(fetched(&ask!(&fixture, 9, Fetch, request)).error_code, code);
        }
    });
}

#[test]
fn the_first_batch_is_whole_and_the_rest_keeps_to_the_limits() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 2).await;
        let one = batch(None, 50, 0);
        for _ in 0..4 {
            produce(&fixture, one.clone()).await;
        }
        let sizes = |max_bytes: i32, partition_max_bytes: i32| {
            let mut request = fetch_request(0, 0);
            request.max_bytes = max_bytes;
            request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
            let mut second = request.topics[0].partitions[0].clone();
            second.fetch_offset = 50;
            request.topics[0].partitions.push(second);
            let fixture = &fixture;
            async move {
                let response = ask!(fixture, 11, Fetch, request);
                let partitions = &response.responses[0].partitions;
                [0, 1].map(|at| records(&partitions[at]).len() / one_len(fixture))
            }
        };
        fn one_len(_: &Fixture) -> usize {
            batch(None, 50, 0).len()
        }
        let len = i32::try_from(one.len()).expect("small");
        assert_eq!(sizes(1, 1).await, [1, 0]);
        assert_eq!(sizes(3 * len, 1 << 20).await, [3, 0]);
        assert_eq!(sizes(1 << 20, 2 * len).await, [2, 2]);
        assert_eq!(sizes(1 << 20, 1).await, [1, 0]);
        assert_eq!(sizes(-5, -5).await, [1, 0]);
    });
}

#[test]
fn fetch_sessions_are_never_opened() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let request = FetchRequest { session_id: 5, session_epoch: 1, ..fetch_request(0, 0) };
        let refused = ask!(&fixture, 12, Fetch, request);
        assert_eq!(refused.error_code, ErrorCode::FetchSessionIdNotFound);
        let versions = ask!(&fixture, 3, ApiVersions, ApiVersionsRequest::default());
        assert_eq!(versions.api_keys.len(), 11);
    });
}

//! Produce: commits, order, duplicates, refusals.

use super::*;

#[test]
fn every_acks_waits_for_the_commit_and_acks_0_for_nothing() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        for acks in [1, -1] {
            let request = produce_request(acks, batch(None, 1, 0));
            let mut reply = begin(&fixture, 9, request.into()).await;
            settle().await;
            let early = time::timeout(Duration::from_millis(30), &mut reply).await;
            assert!(early.is_err(), "answered before the commit");
        }
        let silent = begin(&fixture, 9, produce_request(0, batch(None, 1, 0)).into()).await.await;
        assert!(matches!(silent, Reply::Silent));
        let broken = begin(&fixture, 9, produce_request(0, Bytes::new()).into()).await.await;
        assert!(matches!(broken, Reply::Close), "a client without answers learns of errors");
        fixture.group.hold(false);
        settle().await;
        assert_eq!(fetch(&fixture, 0).await.high_watermark, 3);
        let odd = ask!(&fixture, 9, Produce, produce_request(2, batch(None, 1, 0)));
        assert_eq!(produced(&odd).0, ErrorCode::InvalidRequiredAcks);
    });
}

#[test]
fn what_is_proposed_or_a_small_part_of_its_frame_keeps_no_frame() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        // The test is another owner of each frame, and the only one once nothing keeps it.
        let frame = batch(None, 1, 0);
        let mut request = Request::from(produce_request(-1, frame.clone()));
        let _under_way = begin(&fixture, 9, request).await;
        settle().await;
        assert!(frame.is_unique(), "the entry has a copy");
        let frame = Bytes::from([&batch(None, 1, 0)[..], &[0; 100_000]].concat());
        let small = frame.slice(..frame.len() - 100_000);
        request = produce_request(-1, small).into();
        let room = Arc::new(tokio::sync::Semaphore::new(98)).try_acquire_many_owned(98);
        let _waits = start(
            fixture.broker.clone(),
            (&header(request.api(), 9), &stranger()),
            request,
            &mut Some(room.expect("all of it")),
        )
        .await;
        assert!(frame.is_unique(), "the queue has a copy");
    });
}

#[test]
fn full_disks_refuse_records_and_nothing_else() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.set_full(true);
        let entries = fixture.group.entries();
        let refused = ask!(&fixture, 9, Produce, produce_request(-1, batch(None, 1, 0)));
        assert_eq!(produced(&refused).0, ErrorCode::KafkaStorageError);
        assert_eq!(fixture.group.entries(), entries);
        assert_eq!(fixture.events.probes(Probe::RefusedForSpace), 1);
        create(&fixture, "u", 1).await;
        fixture.group.set_full(false);
        let stored = ask!(&fixture, 9, Produce, produce_request(-1, batch(None, 1, 0)));
        assert_eq!(produced(&stored), (ErrorCode::None, 0));
    });
}

#[test]
fn pipelined_batches_keep_their_order_and_share_entries() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let id = fixture.producer().await;
        fixture.group.set_flushing(true);
        fixture.group.hold(true);
        let entries = fixture.group.entries();
        let mut replies = Vec::new();
        for n in 0..20 {
            let request = produce_request(-1, batch(Some((id, 0, n)), 1, 0));
            replies.push(begin(&fixture, 9, request.into()).await);
            settle().await;
        }
        fixture.group.set_flushing(false);
        fixture.group.hold(false);
        for (n, reply) in (0..).zip(replies) {
            let Response::Produce(response) = written(reply.await, 9) else { panic!("produce") };
            assert_eq!(produced(&response), (ErrorCode::None, n));
        }
        // The first was proposed alone, the others while its flush ran.
        assert_eq!(fixture.group.entries() - entries, 2);
    });
}

#[test]
fn a_duplicate_after_a_leader_change_is_answered_with_its_offset() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let id = fixture.producer().await;
        let first = batch(Some((id, 0, 0)), 2, 0);
        assert_eq!(produce(&fixture, first.clone()).await, (ErrorCode::None, 0));
        assert_eq!(produce(&fixture, first.clone()).await, (ErrorCode::None, 0));
        assert_eq!(fixture.events.probes(Probe::DuplicateAnsweredAfterLeaderChange), 0);
        fixture.group.elect(Some(NodeId(1)));
        assert_eq!(produce(&fixture, first).await, (ErrorCode::None, 0));
        assert_eq!(fixture.events.probes(Probe::DuplicateAnsweredAfterLeaderChange), 1);
        let gap = produce(&fixture, batch(Some((id, 0, 5)), 1, 0)).await;
        assert_eq!(gap, (ErrorCode::OutOfOrderSequenceNumber, -1));
        assert_eq!(fixture.events.probes(Probe::SequenceRefused), 1);
        assert_eq!(fetch(&fixture, 0).await.high_watermark, 2);
    });
}

#[test]
fn a_lost_leadership_is_told_from_an_unknown_outcome() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        let reply = begin(&fixture, 9, produce_request(-1, batch(None, 1, 0)).into()).await;
        settle().await;
        fixture.group.elect(Some(NodeId(2)));
        let Response::Produce(response) = written(reply.await, 9) else { panic!("produce") };
        assert_eq!(produced(&response), (ErrorCode::RequestTimedOut, -1));
        let refused = produce(&fixture, batch(None, 1, 0)).await;
        assert_eq!(refused, (ErrorCode::NotLeaderOrFollower, -1));
    });
}

#[test]
fn a_batch_that_ran_out_of_time_is_unknown() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        fixture.group.hold(true);
        let mut request = produce_request(-1, batch(None, 1, 0));
        request.timeout_ms = 20;
        let response = ask!(&fixture, 9, Produce, request);
        assert_eq!(produced(&response).0, ErrorCode::RequestTimedOut);
    });
}

#[test]
fn an_id_that_was_not_handed_out_is_refused_and_hurts_nobody() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let unknown = (ErrorCode::UnknownProducerId, -1);
        assert_eq!(produce(&fixture, batch(Some((7, 0, 0)), 1, 0)).await, unknown);
        let id = fixture.producer().await;
        for other in [id + 1, i64::MAX] {
            assert_eq!(produce(&fixture, batch(Some((other, 0, 0)), 1, 0)).await, unknown);
        }
        assert_eq!(fixture.producer().await, id + 1);
        let first = batch(Some((id + 1, 0, 0)), 1, 0);
        assert_eq!(produce(&fixture, first).await, (ErrorCode::None, 0), "no duplicate");
        assert_eq!(fetch(&fixture, 0).await.high_watermark, 1);
    });
}

#[test]
fn batches_that_no_broker_stores_are_refused_before_they_are_proposed() {
    run(async {
        let fixture = Fixture::new();
        let small = CreatableTopic {
            name: "t".to_owned(),
            num_partitions: 1,
            replication_factor: 3,
            configs: vec![CreatableTopicConfig {
                name: "max.message.bytes".to_owned(),
                value: Some("200".to_owned()),
            }],
            ..CreatableTopic::default()
        };
        assert_eq!(create_as(&fixture, small).await.error_code, ErrorCode::None);
        let entries = fixture.group.entries();
        let mut rotten = batch(None, 1, 0).to_vec();
        *rotten.last_mut().expect("not empty") ^= 1;
        let mut old = batch(None, 1, 0).to_vec();
        old[16] = 1;
        for (bytes, code) in [
            (Bytes::from(rotten), ErrorCode::CorruptMessage),
            (Bytes::from(old), ErrorCode::UnsupportedForMessageFormat),
            (batch(None, 100, 0), ErrorCode::MessageTooLarge),
            (Bytes::new(), ErrorCode::InvalidRecord),
            (Bytes::from_static(&[0; 10]), ErrorCode::CorruptMessage),
        ] {
            assert_eq!(produce(&fixture, bytes).await, (code, -1));
        }
        let mut elsewhere = produce_request(-1, batch(None, 1, 0));
        elsewhere.topic_data[0].partition_data[0].index = -1;
        let response = ask!(&fixture, 3, Produce, elsewhere);
        assert_eq!(produced(&response).0, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(fixture.group.entries(), entries);
    });
}

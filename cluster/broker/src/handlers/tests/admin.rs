//! Topics, metadata, offsets and producer ids.

use super::*;

#[test]
fn offsets_are_found_by_place_and_by_time() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let of = |found: ListOffsetsPartitionResponse| {
            (found.error_code, found.offset, found.timestamp, found.leader_epoch)
        };
        let none = ErrorCode::None;
        assert_eq!(of(list(&fixture, LATEST_TIMESTAMP).await), (none, 0, -1, -1));
        assert_eq!(of(list(&fixture, MAX_TIMESTAMP).await), (none, -1, -1, -1));
        produce(&fixture, batch(None, 3, 1_000)).await;
        fixture.group.elect(Some(NodeId(1)));
        produce(&fixture, batch(None, 3, 2_000)).await;
        produce(&fixture, batch(None, 1, 500)).await;
        assert_eq!(of(list(&fixture, EARLIEST_TIMESTAMP).await), (none, 0, -1, 1));
        assert_eq!(of(list(&fixture, LATEST_TIMESTAMP).await), (none, 7, -1, 2));
        assert_eq!(of(list(&fixture, MAX_TIMESTAMP).await), (none, 3, 2_002, 2));
        assert_eq!(of(list(&fixture, 1_001).await), (none, 0, 1_002, 1));
        assert_eq!(of(list(&fixture, 1_003).await), (none, 3, 2_002, 2));
        assert_eq!(of(list(&fixture, 9_999).await), (none, -1, -1, -1));
        let unsupported = list_as(&fixture, 6, MAX_TIMESTAMP).await.error_code;
        assert_eq!(unsupported, ErrorCode::UnsupportedVersion);
        assert_eq!(list_as(&fixture, 1, LATEST_TIMESTAMP).await.offset, 7);
    });
}

#[test]
fn topics_are_checked_created_once_and_deleted_by_name_or_id() {
    run(async {
        let fixture = Fixture::new();
        let made = create(&fixture, "t", 3).await;
        assert_eq!((made.error_code, made.num_partitions), (ErrorCode::None, 3));
        assert_ne!(made.topic_id, Uuid::NIL);
        assert_eq!(create(&fixture, "t", 3).await.error_code, ErrorCode::TopicAlreadyExists);
        assert_eq!(create(&fixture, "a/b", 3).await.error_code, ErrorCode::InvalidTopicException);
        assert_eq!(create(&fixture, "b", 0).await.error_code, ErrorCode::InvalidPartitions);
        assert_eq!(create(&fixture, "b", -1).await.num_partitions, 2);
        let odd = |topic: CreatableTopic| CreatableTopic {
            name: "c".to_owned(),
            num_partitions: 1,
            ..topic
        };
        let factor = odd(CreatableTopic { replication_factor: 4, ..Default::default() });
        let code = create_as(&fixture, factor).await.error_code;
        assert_eq!(code, ErrorCode::InvalidReplicationFactor);
        let config = |value: &str| CreatableTopicConfig {
            name: "cleanup.policy".to_owned(),
            value: Some(value.to_owned()),
        };
        for (configs, why) in [
            (vec![config("compact")], "cleanup.policy=compact is not supported"),
            (vec![config("delete"), config("delete")], "cleanup.policy is given twice"),
        ] {
            let topic =
                odd(CreatableTopic { replication_factor: 1, configs, ..Default::default() });
            let refused = create_as(&fixture, topic).await;
            assert_eq!(refused.error_code, ErrorCode::InvalidConfig);
            let message = refused.error_message.expect("says why");
            assert!(message.contains(why), "{message}");
        }

        let by_id = DeleteTopicState { name: None, topic_id: made.topic_id };
        let by_name = DeleteTopicState { name: Some("b".to_owned()), topic_id: Uuid::NIL };
        let topics = vec![by_id.clone(), by_name, by_id];
        let request =
            DeleteTopicsRequest { topics, timeout_ms: 5_000, ..DeleteTopicsRequest::default() };
        let deleted = ask!(&fixture, 6, DeleteTopics, request).responses;
        let codes: Vec<ErrorCode> = deleted.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [ErrorCode::None, ErrorCode::None, ErrorCode::UnknownTopicId]);
        assert_eq!(deleted[0].name.as_deref(), Some("t"));
        let gone = produce(&fixture, batch(None, 1, 0)).await;
        assert_eq!(gone, (ErrorCode::UnknownTopicOrPartition, -1));
        let request = DeleteTopicsRequest {
            topic_names: vec!["t".to_owned()],
            timeout_ms: 5_000,
            ..DeleteTopicsRequest::default()
        };
        let deleted = ask!(&fixture, 1, DeleteTopics, request).responses;
        assert_eq!(deleted[0].error_code, ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn a_topic_that_is_only_validated_is_not_created() {
    run(async {
        let fixture = Fixture::new();
        let topic = CreatableTopic {
            name: "t".to_owned(),
            num_partitions: 1,
            replication_factor: 3,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            validate_only: true,
            ..CreateTopicsRequest::default()
        };
        let checked = ask!(&fixture, 5, CreateTopics, request.clone()).topics.remove(0);
        assert_eq!(checked.error_code, ErrorCode::None);
        assert_eq!(fixture.group.entries(), 0);
        create(&fixture, "t", 1).await;
        let checked = ask!(&fixture, 5, CreateTopics, request).topics.remove(0);
        assert_eq!(checked.error_code, ErrorCode::TopicAlreadyExists);
    });
}

#[test]
fn metadata_names_the_raft_leader_and_what_clients_may_dial() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 2).await;
        for version in 0..=12 {
            let all = metadata(&fixture, version, None.or((version == 0).then_some(&[][..])), true);
            let all = all.await;
            assert_eq!(all.brokers.len(), 3);
            assert_eq!(all.brokers[1].host, "node-2.example");
            assert_eq!(all.controller_id, 1);
            let topic = &all.topics[0];
            assert_eq!(topic.name.as_deref(), Some("t"));
            assert_ne!(topic.topic_id, Uuid::NIL);
            let partition = &topic.partitions[1];
            assert_eq!((partition.leader_id, partition.leader_epoch), (1, 1));
            assert_eq!(partition.isr_nodes, [1, 2, 3]);
        }
        fixture.group.elect(None);
        let none = metadata(&fixture, 12, Some(&["t"]), true).await;
        assert_eq!(none.controller_id, -1);
        let partition = &none.topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::LeaderNotAvailable);
        assert_eq!((partition.leader_id, partition.leader_epoch), (-1, 0));
    });
}

#[test]
fn a_node_that_has_just_started_calls_no_topic_unknown() {
    run(async {
        let fixture = Fixture::new();
        fixture.group.set_behind(true);
        let sent = produce(&fixture, batch(None, 1, 0)).await;
        assert_eq!(sent.0, ErrorCode::NotLeaderOrFollower, "the topic may be there");
        create(&fixture, "t", 1).await;
        // What it knows it answers at once.
        let began = time::now();
        let known = metadata(&fixture, 12, Some(&["t"]), false).await;
        assert_eq!(known.topics[0].error_code, ErrorCode::None);
        assert!(time::now() - began < Duration::from_secs(1));
        let unknown = metadata(&fixture, 12, Some(&["u"]), false).await;
        assert_eq!(unknown.topics[0].error_code, ErrorCode::LeaderNotAvailable);
        let all = metadata(&fixture, 12, None, false).await;
        assert_eq!(all.topics.len(), 1, "nobody is told nothing");
        let catching_up = async {
            time::sleep(Duration::from_millis(100)).await;
            fixture.group.set_behind(false);
        };
        let (unknown, ()) = tokio::join!(metadata(&fixture, 12, Some(&["u"]), false), catching_up);
        assert_eq!(unknown.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn metadata_creates_topics_if_both_sides_agree() {
    run(async {
        let fixture = Fixture::new();
        let unknown = metadata(&fixture, 12, Some(&["new"]), false).await;
        assert_eq!(unknown.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
        let invalid = metadata(&fixture, 12, Some(&["a b"]), true).await;
        assert_eq!(invalid.topics[0].error_code, ErrorCode::InvalidTopicException);
        let created = metadata(&fixture, 1, Some(&["new", "new"]), true).await;
        assert_eq!(created.topics[0].error_code, ErrorCode::None);
        assert_eq!(created.topics[0].partitions.len(), 2);
        assert_eq!(fixture.group.entries(), 1);

        let fixture =
            Fixture::with(crate::BrokerSettings { auto_create_topics: false, ..settings(1) });
        let unknown = metadata(&fixture, 12, Some(&["new"]), true).await;
        assert_eq!(unknown.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn producer_ids_are_handed_out_once_and_transactions_are_refused() {
    run(async {
        let fixture = Fixture::new();
        let first = ask!(&fixture, 4, InitProducerId, InitProducerIdRequest::default());
        assert_eq!(first.error_code, ErrorCode::None);
        for more in 1..4 {
            let got = ask!(&fixture, 4, InitProducerId, InitProducerIdRequest::default());
            assert_eq!(
                (got.error_code, got.producer_id),
                (ErrorCode::None, first.producer_id + more)
            );
        }
        let request = InitProducerIdRequest {
            transactional_id: Some("x".to_owned()),
            ..InitProducerIdRequest::default()
        };
        let refused = ask!(&fixture, 4, InitProducerId, request);
        assert_eq!(refused.error_code, ErrorCode::InvalidRequest);
        fixture.group.elect(None);
        let refused = ask!(&fixture, 4, InitProducerId, InitProducerIdRequest::default());
        assert_eq!(refused.error_code, ErrorCode::CoordinatorLoadInProgress);
    });
}

#[test]
fn what_only_the_leader_can_do_is_handed_over_to_it() {
    run(async {
        let network = crate::testing::Pipes::default();
        let leader = Fixture::on(network.clone(), settings(1));
        let server = crate::server::Server::start(leader.broker.clone()).await.expect("listens");
        let mut settings = settings(2);
        settings.nodes[0].internal = server.address();
        let follower = Fixture::on(network, settings);
        assert_eq!(create(&follower, "t", 1).await.error_code, ErrorCode::None);
        assert_eq!(leader.group.entries(), 1);
        let got = ask!(&follower, 1, InitProducerId, InitProducerIdRequest::default());
        assert_eq!((got.error_code, got.producer_epoch), (ErrorCode::None, 0));
        assert_eq!(leader.producer().await, got.producer_id + 1, "the leader handed it out");
        // Created, and not yet applied here.
        let created = metadata(&follower, 4, Some(&["new"]), true).await;
        assert_eq!(created.topics[0].error_code, ErrorCode::LeaderNotAvailable);
        assert!(leader.broker.site.read(|state| state.topics().by_name("new").is_some()));
        let request = DeleteTopicsRequest {
            topic_names: vec!["t".to_owned()],
            timeout_ms: 5_000,
            ..DeleteTopicsRequest::default()
        };
        let deleted = ask!(&follower, 3, DeleteTopics, request);
        assert_eq!(deleted.responses[0].error_code, ErrorCode::None);

        // A leader that has stepped down does not hand it on again.
        leader.group.elect(Some(NodeId(3)));
        let refused = create(&follower, "u", 1).await;
        assert_eq!(refused.error_code, ErrorCode::NotController);
        drop(server);
        settle().await;
        let refused = create(&follower, "u", 1).await;
        assert_eq!(refused.error_code, ErrorCode::NotController);
    });
}

#[test]
fn records_go_when_they_have_had_their_time() {
    run(async {
        let fixture = Fixture::new();
        for (name, kept) in [("short", "300"), ("long", "-1")] {
            let setting = CreatableTopicConfig {
                name: "retention.ms".to_owned(),
                value: Some(kept.to_owned()),
            };
            let topic = CreatableTopic {
                name: name.to_owned(),
                num_partitions: 1,
                replication_factor: -1,
                configs: vec![setting],
                ..CreatableTopic::default()
            };
            assert_eq!(create_as(&fixture, topic).await.error_code, ErrorCode::None, "{name}");
        }
        let start = |name: &str| {
            fixture.broker.site.read(|state| {
                let topic = state.topics().by_name(name).expect("created");
                state.partition(topic.first_stream).expect("its partition").log_start.get()
            })
        };
        for name in ["short", "long"] {
            let mut request = produce_request(-1, batch(None, 3, 0));
            name.clone_into(&mut request.topic_data[0].name);
            let done = produced(&ask!(&fixture, 9, Produce, request));
            assert_eq!(done, (ErrorCode::None, 0));
        }
        let begun = time::now();
        while start("short") == 0 {
            time::sleep(Duration::from_millis(20)).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
        assert_eq!((start("short"), start("long")), (3, 0));
        assert_eq!(fixture.events.probes(Probe::RecordsExpired), 1);
    });
}

#[test]
fn idle_producers_are_forgotten() {
    run(async {
        let fixture = Fixture::with(crate::BrokerSettings {
            producer_expiry: Duration::from_millis(300),
            ..settings(1)
        });
        create(&fixture, "t", 1).await;
        let id = fixture.producer().await;
        produce(&fixture, batch(Some((id, 0, 0)), 1, 0)).await;
        assert_eq!(fixture.broker.site.read(|state| state.producers().len()), 1);
        while fixture.broker.site.read(|state| !state.producers().is_empty()) {
            time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(Term(1), fixture.broker.group.leadership().term);
    });
}

//! The client against the fake site: what it does when the site misbehaves.

use crate::admin::{AlterTopicError, CreateTopicError, DeleteTopicError};
use crate::consumer::PollError;
use crate::fake::{Fake, Mischief, node, record};
use crate::fetch::Fetch;
use crate::producer::plain_batch;
use crate::*;
use fulmar_host::task::block_on;
use fulmar_host::time::{self, Duration};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Offset, PartitionIndex};
use fulmar_wire::{ErrorCode, MetadataRequest};

const SECOND: Duration = Duration::from_secs(1);

fn t(partition: u32) -> TopicPartition {
    TopicPartition::new("t", PartitionIndex(partition))
}

fn plain(delivery_ms: u64) -> ProducerSettings {
    ProducerSettings { idempotent: false, ..idempotent(delivery_ms) }
}

fn idempotent(delivery_ms: u64) -> ProducerSettings {
    ProducerSettings {
        delivery_timeout: Duration::from_millis(delivery_ms),
        ..ProducerSettings::default()
    }
}

/// Sends one record with a producer after arranging some mischief.
fn send_one(settings: ProducerSettings, mischief: &[Mischief]) -> (Outcome, Fake) {
    let fake = Fake::new(1);
    fake.site().mischief.extend(mischief);
    let outcome = block_on(async {
        let producer = Producer::new(fake.cluster(), settings);
        producer.send(&t(0), vec![record("a")]).await
    });
    (outcome, fake)
}

fn done(offset: u64, attempts: u32) -> Outcome {
    Outcome::Done { base_offset: Some(Offset(offset)), attempts }
}

#[test]
fn a_record_goes_there_and_back() {
    let fake = Fake::new(2);
    block_on(async {
        let cluster = fake.cluster();
        let producer = Producer::new(cluster.clone(), idempotent(1000));
        assert_eq!(producer.send(&t(1), vec![record("a"), record("b")]).await, done(0, 1));
        assert_eq!(producer.send(&t(1), vec![record("c")]).await, done(2, 1));
        let mut consumer = Consumer::new(&cluster, ConsumerSettings::default());
        consumer.assign(t(0), Start::Earliest);
        consumer.assign(t(1), Start::Offset(Offset(1)));
        let polled = consumer.poll(SECOND).await.expect("reads");
        assert_eq!(polled.len(), 1);
        assert_eq!(polled[0].partition, t(1));
        assert_eq!(polled[0].high_watermark, Offset(3));
        let values = polled[0].records.iter().map(|r| (r.offset.get(), r.value.clone()));
        let values: Vec<_> = values.map(|(at, value)| (at, value.expect("set"))).collect();
        assert_eq!(values, [(1, "b".into()), (2, "c".into())]);
        assert_eq!(consumer.position(&t(1)), Some(Offset(3)));
        assert_eq!(consumer.position(&t(0)), Some(Offset(0)));
    });
}

#[test]
fn an_older_broker_is_spoken_to_in_its_version() {
    let fake = Fake::new(1);
    fake.site().api_versions_max = 0;
    block_on(async {
        let cluster = fake.cluster();
        assert!(cluster.refresh_all(SECOND).await.is_ok_and(|m| m.nodes.len() == 3));
    });
}

#[test]
fn an_attempt_without_an_answer_is_unknown_unless_the_producer_is_idempotent() {
    for mischief in [Mischief::CloseBefore, Mischief::CloseAfter, Mischief::Silence] {
        let (outcome, fake) = send_one(plain(2000), &[mischief]);
        assert!(matches!(outcome, Outcome::Unknown(SendError::Call(_))), "{outcome:?}");
        assert_eq!(fake.site().produced.len(), 1, "sent again after {mischief:?}");

        let (outcome, fake) = send_one(idempotent(2000), &[mischief]);
        assert_eq!(outcome, done(0, 2), "after {mischief:?}");
        assert_eq!(fake.values(0), ["a"]);
        let site = fake.site();
        assert_eq!(site.produced[0], site.produced[1], "the batch was changed");
    }
}

#[test]
fn a_garbled_answer_is_an_attempt_without_an_answer() {
    let (outcome, _) = send_one(plain(2000), &[Mischief::Garbage]);
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert_eq!(send_one(idempotent(2000), &[Mischief::Garbage]).0, done(0, 2));
}

#[test]
fn a_definite_refusal_is_retried_by_everybody_and_ends_as_not_done() {
    let passing = Mischief::Refuse(ErrorCode::NotLeaderOrFollower);
    assert_eq!(send_one(plain(2000), &[passing, passing]).0, done(0, 3));
    let lasting = Mischief::Refuse(ErrorCode::MessageTooLarge);
    let refused = Outcome::NotDone(SendError::Refused(ErrorCode::MessageTooLarge));
    assert_eq!(send_one(plain(2000), &[lasting]).0, refused);
    assert_eq!(send_one(idempotent(2000), &[lasting]).0, refused);
    let (outcome, _) = send_one(idempotent(50), &[passing; 100]);
    assert!(matches!(outcome, Outcome::NotDone(_)), "{outcome:?}");
}

#[test]
fn a_timeout_of_the_broker_is_no_refusal() {
    let timed_out = Mischief::AppendAndSay(ErrorCode::RequestTimedOut);
    let (outcome, _) = send_one(plain(2000), &[timed_out]);
    assert_eq!(outcome, Outcome::Unknown(SendError::Refused(ErrorCode::RequestTimedOut)));
    let (outcome, fake) = send_one(idempotent(2000), &[timed_out]);
    assert_eq!(outcome, done(0, 2));
    assert_eq!(fake.values(0), ["a"]);
    // Not even a clear refusal later on makes it certain that the first attempt did nothing.
    let lasting = Mischief::Refuse(ErrorCode::MessageTooLarge);
    let (outcome, _) = send_one(idempotent(2000), &[timed_out, lasting]);
    assert_eq!(outcome, Outcome::Unknown(SendError::Refused(ErrorCode::MessageTooLarge)));
}

#[test]
fn a_new_leader_is_found() {
    let (outcome, fake) = send_one(plain(2000), &[Mischief::MoveTo(2)]);
    assert_eq!(outcome, done(0, 2));
    assert_eq!(fake.site().leader, 2);
    let began = time::now();
    let (outcome, _) = send_one(idempotent(2000), &[Mischief::SilenceAndMoveTo(3)]);
    assert_eq!(outcome, done(0, 2));
    // The metadata said so long before the request timed out.
    assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
    let (outcome, _) = send_one(plain(2000), &[Mischief::SilenceAndMoveTo(3)]);
    assert_eq!(outcome, Outcome::Unknown(SendError::Call(CallError::LeaderMoved)));
}

#[test]
fn batches_in_flight_keep_their_order_through_failures() {
    let troubles: [&[Mischief]; 5] = [
        &[Mischief::CloseAfter],
        &[Mischief::Refuse(ErrorCode::NotLeaderOrFollower)],
        &[Mischief::AppendAndSay(ErrorCode::RequestTimedOut), Mischief::CloseBefore],
        &[Mischief::MoveTo(2), Mischief::CloseAfter, Mischief::MoveTo(3)],
        &[Mischief::SilenceAndMoveTo(2)],
    ];
    for trouble in troubles {
        let fake = Fake::new(1);
        fake.site().mischief.extend(trouble);
        let values: Vec<String> = (0..30).map(|i| format!("v{i}")).collect();
        block_on(async {
            let producer = Producer::new(fake.cluster(), idempotent(3000));
            let mut tickets = Vec::new();
            for value in &values {
                tickets.push(producer.enqueue(&t(0), vec![record(value)]).await);
            }
            for (at, ticket) in tickets.into_iter().enumerate() {
                let outcome = ticket.await;
                let Outcome::Done { base_offset, .. } = outcome else {
                    panic!("{outcome:?} after {trouble:?}");
                };
                assert_eq!(base_offset, Some(Offset(at as u64)));
            }
        });
        assert_eq!(fake.values(0), values, "after {trouble:?}");
    }
}

/// Linear congruential generator (Knuth, MMIX): enough to vary the mischief.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

fn any_mischief(state: &mut u64) -> Mischief {
    match draw(state, 9) {
        0 => Mischief::CloseBefore,
        1 => Mischief::CloseAfter,
        2 => Mischief::Refuse(ErrorCode::NotLeaderOrFollower),
        3 => Mischief::Refuse(ErrorCode::InvalidRecord),
        4 => Mischief::AppendAndSay(ErrorCode::RequestTimedOut),
        5 => Mischief::SilenceAndMoveTo(1 + draw(state, 3)),
        6 => Mischief::MoveTo(1 + draw(state, 3)),
        7 => Mischief::Garbage,
        _ => Mischief::AppendAndSay(ErrorCode::NotEnoughReplicasAfterAppend),
    }
}

/// Twenty batches through a site that misbehaves as the seed says.
async fn troubled(seed: u64) {
    let mut state = seed;
    let fake = Fake::new(1);
    let troubles = 1 + draw(&mut state, 12);
    fake.site().mischief.extend((0..troubles).map(|_| any_mischief(&mut state)));
    let settings = if seed.is_multiple_of(3) { plain(400) } else { idempotent(400) };
    let producer = Producer::new(fake.cluster(), settings);
    let mut tickets = Vec::new();
    for at in 0..20 {
        tickets.push(producer.enqueue(&t(0), vec![record(&at.to_string())]).await);
    }
    let written_and_done = |outcomes: &[Outcome]| {
        let written = fake.values(0);
        let mut done = Vec::new();
        for (at, outcome) in outcomes.iter().enumerate() {
            let value = at.to_string();
            let times = written.iter().filter(|found| **found == value).count();
            match outcome {
                Outcome::Done { base_offset, .. } => {
                    assert_eq!(times, 1, "seed {seed}: {value} is there {times} times");
                    if let Some(offset) = base_offset {
                        assert_eq!(written[offset.get() as usize], value, "seed {seed}");
                    }
                    done.push(value);
                }
                Outcome::NotDone(_) => assert_eq!(times, 0, "seed {seed}: {value}: {outcome:?}"),
                Outcome::Unknown(_) => assert!(times <= 1, "seed {seed}: {value}"),
            }
        }
        (written, done)
    };
    let outcomes = futures_util::future::join_all(tickets).await;
    let (written, done) = written_and_done(&outcomes);
    let kept = written.into_iter().filter(|value| done.contains(value)).collect::<Vec<_>>();
    assert_eq!(kept, done, "seed {seed}: {outcomes:?}");
}

#[test]
fn whatever_happens_outcomes_are_true_and_done_batches_keep_their_order() {
    block_on(futures_util::future::join_all((0..300).map(troubled)));
}

#[test]
fn what_follows_a_refused_batch_is_numbered_anew() {
    let fake = Fake::new(1);
    fake.site().mischief.push_back(Mischief::Refuse(ErrorCode::InvalidRecord));
    block_on(async {
        let producer = Producer::new(fake.cluster(), idempotent(2000));
        let mut tickets = Vec::new();
        for value in ["a", "b", "c"] {
            tickets.push(producer.enqueue(&t(0), vec![record(value)]).await);
        }
        let mut outcomes = Vec::new();
        for ticket in tickets {
            outcomes.push(ticket.await);
        }
        assert!(matches!(outcomes[0], Outcome::NotDone(_)), "{outcomes:?}");
        assert!(matches!(outcomes[1], Outcome::Done { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[2], Outcome::Done { .. }), "{outcomes:?}");
    });
    assert_eq!(fake.values(0), ["b", "c"]);
}

#[test]
fn acks_zero_and_a_dropped_producer_leave_the_outcome_unknown() {
    let settings = ProducerSettings { acks: Acks::None, ..plain(500) };
    let (outcome, _) = send_one(settings, &[]);
    assert_eq!(outcome, Outcome::Unknown(SendError::NotAsked));
    let fake = Fake::new(1);
    fake.site().mischief.push_back(Mischief::Silence);
    block_on(async {
        let producer = Producer::new(fake.cluster(), idempotent(500));
        let ticket = producer.enqueue(&t(0), vec![record("a")]).await;
        drop(producer);
        assert_eq!(ticket.await, Outcome::Unknown(SendError::Closed));
    });
    let outcome = block_on(async {
        let producer = Producer::new(fake.cluster(), idempotent(500));
        producer.send(&t(0), Vec::new()).await
    });
    assert_eq!(outcome, Outcome::NotDone(SendError::Empty));
}

#[test]
fn a_missing_partition_ends_at_the_deadline() {
    let fake = Fake::new(1);
    block_on(async {
        let producer = Producer::new(fake.cluster(), plain(60));
        let outcome = producer.send(&t(9), vec![record("a")]).await;
        let missing = SendError::Leader(LeaderError::NoPartition);
        assert_eq!(outcome, Outcome::NotDone(missing));
    });
}

#[test]
fn a_fetch_may_go_to_a_node_of_the_callers_choice() {
    let fake = Fake::new(1);
    block_on(async {
        let cluster = fake.cluster();
        let producer = Producer::new(cluster.clone(), plain(1000));
        producer.send(&t(0), vec![record("a"), record("b")]).await;
        let fetch = Fetch::new(t(0), Offset(1));
        let fetched = cluster.fetch(Target::Leader, &fetch, SECOND).await.expect("reads");
        assert_eq!(fetched.node, node(1));
        assert_eq!(fetched.records().expect("plain").len(), 1);
        let refused = cluster.fetch(Target::Node(node(2)), &fetch, SECOND).await;
        let not_leader = FetchError::Refused(ErrorCode::NotLeaderOrFollower);
        assert_eq!(refused.err(), Some(not_leader));
        let unknown = cluster.fetch(Target::Node(node(9)), &fetch, SECOND).await;
        assert_eq!(unknown.err(), Some(CallError::UnknownNode(node(9)).into()));
        let found = cluster.find_offset(&t(0), OffsetAt::Latest, SECOND).await.expect("found");
        assert_eq!(found.offset, Some(Offset(2)));
        let found = cluster.find_offset(&t(0), OffsetAt::Time(5000), SECOND).await.expect("found");
        assert_eq!(found.offset, None);
    });
}

#[test]
fn a_batch_that_is_cut_off_is_fetched_again() {
    let fake = Fake::new(1);
    block_on(async {
        let cluster = fake.cluster();
        let producer = Producer::new(cluster.clone(), plain(1000));
        for value in ["a", "b", "c"] {
            producer.send(&t(0), vec![record(value)]).await;
        }
        // Room for one batch and a half.
        let bytes = plain_batch(&[record("a")]).expect("a batch").len() as i32;
        let partition_bytes_max = bytes * 3 / 2;
        let settings = ConsumerSettings { partition_bytes_max, ..Default::default() };
        let mut consumer = Consumer::new(&cluster, settings);
        consumer.assign(t(0), Start::Earliest);
        for offset in 0..3 {
            let polled = consumer.poll(SECOND).await.expect("reads");
            let offsets = polled[0].records.iter().map(|r| r.offset);
            assert_eq!(offsets.collect::<Vec<_>>(), [Offset(offset)]);
        }
        assert!(consumer.poll(Duration::from_millis(30)).await.expect("reads").is_empty());
    });
}

#[test]
fn a_topic_that_is_not_there_is_an_error_once_it_was_waited_for() {
    let fake = Fake::new(1);
    block_on(async {
        let mut consumer = Consumer::new(&fake.cluster(), ConsumerSettings::default());
        let missing = TopicPartition::new("missing", PartitionIndex(0));
        consumer.assign(missing.clone(), Start::Offset(Offset(0)));
        let error = consumer.poll(Duration::from_millis(30)).await.expect_err("no such topic");
        let expected = LeaderError::Topic(ErrorCode::UnknownTopicOrPartition);
        assert_eq!(error, PollError::Leader { partition: missing, error: expected });
    });
}

#[test]
fn an_offset_out_of_range_is_an_error_and_not_a_jump() {
    let fake = Fake::new(1);
    block_on(async {
        let mut consumer = Consumer::new(&fake.cluster(), ConsumerSettings::default());
        consumer.assign(t(0), Start::Offset(Offset(5)));
        let error = consumer.poll(SECOND).await.expect_err("out of range");
        let out_of_range = FetchError::Refused(ErrorCode::OffsetOutOfRange);
        assert_eq!(error, PollError::Fetch { partition: t(0), error: out_of_range });
        assert_eq!(consumer.position(&t(0)), Some(Offset(5)));
    });
}

#[test]
fn topics_are_made_and_deleted() {
    let fake = Fake::new(1);
    block_on(async {
        let cluster = fake.cluster();
        let id = cluster.create_topic("new", 3, SECOND).await.expect("made");
        assert_eq!(fake.site().topics["new"], id);
        let again = cluster.create_topic("new", 3, SECOND).await;
        assert_eq!(again, Err(CreateTopicError::Exists));
        assert_eq!(cluster.delete_topic("new", SECOND).await, Ok(()));
        assert_eq!(cluster.delete_topic("new", SECOND).await, Err(DeleteTopicError::NoTopic));
    });
}

#[test]
fn a_topic_of_the_same_name_is_not_deleted_by_a_request_that_comes_late() {
    let fake = Fake::new(1);
    block_on(async {
        let cluster = fake.cluster();
        cluster.create_topic("new", 3, SECOND).await.expect("made");
        fake.site().mischief.push_back(Mischief::CloseBefore);
        assert_eq!(cluster.delete_topic("new", SECOND).await, Ok(()));
        assert_eq!(fake.site().deleting.len(), 2, "it was asked for again");
        let id = cluster.create_topic("new", 3, SECOND).await.expect("made again");
        let late = fake.site().deleting[0].clone();
        let code = fake.site().delete(late).responses[0].error_code;
        assert_eq!(code, ErrorCode::UnknownTopicId);
        assert_eq!(fake.site().topics["new"], id);
        assert_eq!(cluster.delete_topic("new", SECOND).await, Ok(()));
    });
}

#[test]
fn pipelined_answers_reach_who_asked_and_a_late_one_breaks_the_connection() {
    let fake = Fake::new(1);
    block_on(async {
        let cluster = fake.cluster();
        cluster.refresh_all(SECOND).await.expect("answers");
        let deadline = time::now() + SECOND;
        let connection = cluster.connection(node(1), deadline).await.expect("connects");
        let connections = fake.site().connections;
        let mut answers = Vec::new();
        for _ in 0..20 {
            let request = MetadataRequest::default();
            answers.push(connection.start(&request, deadline).await.expect("queued"));
        }
        for answer in answers.into_iter().rev() {
            assert_eq!(answer.await.expect("answered").brokers.len(), 3);
        }
        assert!(connection.is_usable());
        assert_eq!(fake.site().connections, connections, "one connection does for all");

        fake.site().mischief.push_back(Mischief::Silence);
        let producer = Producer::new(cluster.clone(), plain(100));
        let outcome = producer.send(&t(0), vec![record("a")]).await;
        assert_eq!(outcome, Outcome::Unknown(SendError::Call(CallError::TimedOut)));
        assert!(!connection.is_usable());
        let refused = connection.call(&MetadataRequest::default(), SECOND).await;
        assert_eq!(refused.err(), Some(CallError::NotSent));
    });
}

#[test]
fn what_lacks_a_topic_is_refused_at_once_and_with_the_words_of_the_site() {
    let fake = Fake::new(1);
    fake.site().refusal = ErrorCode::UnknownTopicOrPartition;
    let wanted = PipelineSettings::of("reads in");
    let set = block_on(fake.cluster().set_pipeline("p", None, &wanted, SECOND));
    let message = Some("there is no topic in".to_owned());
    let code = ErrorCode::ResourceNotFound;
    assert_eq!(set, Err(AlterTopicError::Refused { code, message }));
    assert_eq!(fake.site().refused, 1);
}

#[test]
fn what_was_undone_is_not_done_by_a_request_that_comes_late() {
    let fake = Fake::new(1);
    let cluster = fake.cluster();
    let rule = RuleDefinition::verbatim(["eu".to_owned()]);
    block_on(async {
        // The first request does not get through, and is carried out at last.
        fake.site().mischief.push_back(Mischief::CloseBefore);
        assert_eq!(cluster.set_rule("t", Some(0), &rule, SECOND).await, Ok(()));
        assert_eq!(fake.site().altering.len(), 2, "it was asked for again");
        let none = RuleDefinition::default();
        assert_eq!(cluster.set_rule("t", None, &none, SECOND).await, Ok(()));
        let late = fake.site().altering[0].clone();
        let code = fake.site().alter(late).responses[0].error_code;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_eq!(fake.site().laid.things["t"].1, None, "it has gone, and stays so");
    });
}

#[test]
fn what_was_done_by_a_request_without_an_answer_is_done() {
    let fake = Fake::new(1);
    let cluster = fake.cluster();
    let rule = |region: &str| RuleDefinition::verbatim([region.to_owned()]);
    block_on(async {
        for expected in [Some(0), None] {
            fake.site().mischief.push_back(Mischief::CloseAfter);
            let region = if expected.is_none() { "us" } else { "eu" };
            assert_eq!(cluster.set_rule("t", expected, &rule(region), SECOND).await, Ok(()));
        }
        assert_eq!(fake.site().altering.len(), 4);
        assert_eq!(fake.site().refused, 2);
        assert_eq!(fake.site().laid.things["t"].0, 2, "each was done once");
        // Another one is refused, as it is to be where somebody says what he has seen.
        let code = ErrorCode::InvalidRequest;
        for expected in [0, 1] {
            let set = cluster.set_rule("t", Some(expected), &rule("us"), SECOND).await;
            assert!(matches!(set, Err(AlterTopicError::Refused { code: of, .. }) if of == code));
        }
    });
}

#[test]
fn rules_that_change_together_go_as_one_request() {
    let fake = Fake::new(1);
    let cluster = fake.cluster();
    let rule = |region: &str| RuleDefinition::verbatim([region.to_owned()]);
    block_on(async {
        let mut both = Definitions::default();
        both.rule("a", Some(0), &rule("eu")).rule("b", None, &rule("us"));
        // It is done, nobody says so, and what is asked for again is refused.
        fake.site().mischief.push_back(Mischief::CloseAfter);
        assert_eq!(cluster.lay_down(&both, SECOND).await, Ok(()));
        let asked: Vec<usize> = fake.site().altering.iter().map(|of| of.resources.len()).collect();
        assert_eq!(asked, [2, 2]);
        let numbers = ["a", "b"].map(|of| fake.site().laid.things[of].0);
        // One of them was changed by somebody else: none is changed.
        let mut stale = Definitions::default();
        stale.rule("a", Some(numbers[0]), &rule("us")).rule("b", Some(0), &rule("eu"));
        let refused = cluster.lay_down(&stale, SECOND).await;
        let code = ErrorCode::InvalidRequest;
        assert!(matches!(refused, Err(AlterTopicError::Refused { code: of, .. }) if of == code));
        assert_eq!(["a", "b"].map(|of| fake.site().laid.things[of].0), numbers);
        let nothing = cluster.lay_down(&Definitions::default(), SECOND).await;
        assert_eq!((nothing, fake.site().altering.len()), (Ok(()), 3));
    });
}

#[test]
fn a_deadline_does_not_hide_what_kept_failing() {
    let fake = Fake::new(1);
    let cluster = fake.cluster();
    block_on(async {
        cluster.refresh_all(SECOND).await.expect("it is up");
        let afresh = cluster.afresh();
        fake.site().is_down = true;
        let found = afresh.pipelines(Duration::from_millis(200)).await;
        let error = found.expect_err("nobody listens").to_string();
        assert!(error.contains("refused"), "{error}");
    });
}

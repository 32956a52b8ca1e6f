//! Pipelines and savepoints, which come in and are told as things with settings, and the topics with
//! their state.

use super::links::{NONE, replace, settings, told};
use super::*;
use crate::machine::outcome::{OperationResult, UnitResult};
use crate::planner::{Planned, Planner};
use crate::proposer::Answer;
use fulmar_store::entry::{EpochPlace, InputRange, Operation, PipelineOperation, Unit};
use fulmar_types::pipeline::internal_topic;
use fulmar_types::{Offset, PartitionIndex};

/// Files are `INPUT > OUTPUT`; the shape is the first letter of what stands behind a `#`.
struct Words;

impl Planner for Words {
    fn plan(&self, file: &str) -> Result<Planned, String> {
        let (flow, shape) = file.split_once('#').unwrap_or((file, "-"));
        let (input, output) = flow.split_once('>').ok_or("1:1: no `>`")?;
        let list = |text: &str| vec![text.trim().to_owned()];
        let shape = [shape.as_bytes().first().copied().unwrap_or_default(); 16];
        let dead_letters = list(output);
        Ok(Planned { inputs: list(input), outputs: list(output), dead_letters, shape })
    }
}

fn site() -> Fixture {
    let fixture = Fixture::new();
    fixture.broker.plan_with(std::sync::Arc::new(Words));
    fixture
}

async fn set(fixture: &Fixture, settings: &[(&str, &str)]) -> (ErrorCode, Option<String>) {
    replace(fixture, (RESOURCE_PIPELINE, "p"), settings).await
}

async fn of(fixture: &Fixture) -> Vec<(String, String)> {
    settings(&told(fixture, RESOURCE_PIPELINE, &["p"]).await)
}

fn value(settings: &[(String, String)], name: &str) -> String {
    let found = settings.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone()).expect("it is told")
}

async fn done(fixture: &Fixture, operation: PipelineOperation) -> OperationResult {
    let unit = Unit::of(Operation::Pipeline(operation));
    let Answer::Done { result: UnitResult::Done(results), .. } =
        fixture.broker.propose_anywhere(unit, time::now() + Duration::from_secs(5)).await
    else {
        panic!("it is refused")
    };
    results[0]
}

#[test]
fn a_pipeline_is_laid_down_looked_at_changed_and_removed() {
    run(async {
        let fixture = site();
        let (code, text) = set(&fixture, &[("file", "in > out")]).await;
        assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
        assert!(text.is_some_and(|text| text.contains("topic in,")));
        create(&fixture, "in", 3).await;
        assert_eq!(set(&fixture, &[("file", "in > out #a"), ("latency-ms", "5")]).await, NONE);
        let first = of(&fixture).await;
        for (name, is) in [
            ("file", "in > out #a"),
            ("inputs", "in"),
            ("outputs", "out"),
            ("paused", "false"),
            ("latency-ms", "5"),
            ("changed-by", "anonymous at 10.0.0.7"),
        ] {
            assert_eq!(value(&first, name), is);
        }
        let partitions = |name: &str| {
            fixture.broker.site.read(|state| state.topics().by_name(name).map(|t| t.partitions))
        };
        assert_eq!(partitions("out"), Some(3), "as many as the input has");
        assert_eq!(partitions(&internal_topic("p")), Some(1));
        let made_of = settings(&told(&fixture, RESOURCE_MADE_OF, &["out"]).await);
        assert_eq!(made_of, [("of/0".to_owned(), "in".to_owned())]);
        let all = told(&fixture, RESOURCE_MADE_OF, &[""]).await.results;
        assert_eq!(all.iter().map(|of| of.resource_name.as_str()).collect::<Vec<_>>(), ["out"]);
        let nothing = told(&fixture, RESOURCE_MADE_OF, &["in"]).await;
        assert_eq!(nothing.results[0].error_code, ErrorCode::ResourceNotFound);

        let stale = [("file", "in > out #a"), ("number", "99")];
        assert_eq!(set(&fixture, &stale).await.0, ErrorCode::InvalidRequest);
        let number = value(&first, "number");
        let paused = [("file", "in > out #a"), ("paused", "true"), ("number", &number)];
        assert_eq!(set(&fixture, &paused).await, NONE);
        assert_eq!(value(&of(&fixture).await, "paused"), "true");
        let other = [("file", "in > out #b")];
        assert_eq!(set(&fixture, &other).await.0, ErrorCode::InvalidRequest, "another shape");
        let other = [("file", "in > out #b"), ("start", "fresh")];
        assert_eq!(set(&fixture, &other).await, NONE);

        let list = told(&fixture, RESOURCE_PIPELINE, &[""]).await.results;
        assert_eq!(list.iter().map(|of| of.resource_name.as_str()).collect::<Vec<_>>(), ["p"]);
        let changes = settings(&told(&fixture, RESOURCE_CHANGES, &[""]).await);
        assert!(changes[0].1.starts_with("pipeline\tp\t"), "{changes:?}");
        assert_eq!(set(&fixture, &[]).await, NONE);
        let gone = told(&fixture, RESOURCE_PIPELINE, &["p"]).await;
        assert_eq!(gone.results[0].error_code, ErrorCode::ResourceNotFound);
        assert_eq!(partitions(&internal_topic("p")), None);
        assert_eq!(partitions("out"), Some(3));
    });
}

#[test]
fn what_is_wrong_with_a_pipeline_is_said() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "in", 1).await;
        let (code, _) = set(&fixture, &[("file", "in > out")]).await;
        assert_eq!(code, ErrorCode::InvalidRequest, "nobody reads files here");
        fixture.broker.plan_with(std::sync::Arc::new(Words));
        let long = "x".repeat((256 << 10) + 1);
        let bad: &[(&[(&str, &str)], &str)] = &[
            (&[("file", "nothing")], "1:1"),
            (&[("file", &long)], "at most"),
            (&[("file", "in > out"), ("paused", "maybe")], "paused"),
            (&[("file", "in > out"), ("latency-ms", "0")], "latency-ms"),
            (&[("file", "in > out"), ("start", "again")], "start"),
            (&[("file", "in > out"), ("inputs", "other")], "inputs"),
            (&[("file", "in > out"), ("number", "x")], "number"),
            (&[("paused", "true")], "paused"),
        ];
        for (settings, says) in bad {
            let (code, text) = set(&fixture, settings).await;
            assert_eq!(code, ErrorCode::InvalidConfig, "{says}");
            assert!(text.as_ref().is_some_and(|text| text.contains(says)), "{says}: {text:?}");
        }
        let (code, text) = set(&fixture, &[("file", "in > in")]).await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(text.is_some_and(|text| text.contains("writes")));
        assert_eq!(fixture.broker.site.read(|state| state.pipelines().count()), 0);
    });
}

#[test]
fn nobody_but_its_pipeline_writes_to_the_topic_with_its_state() {
    run(async {
        let fixture = site();
        create(&fixture, "in", 1).await;
        let name = internal_topic("p");
        let code = ErrorCode::InvalidTopicException;
        assert_eq!(create(&fixture, &name, 1).await.error_code, code, "the name is taken");
        assert_eq!(set(&fixture, &[("file", "in > out")]).await, NONE);
        let data = PartitionProduceData { index: 0, records: Some(batch(None, 1, 0)) };
        let topic = TopicProduceData { name: name.clone(), partition_data: vec![data] };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 1_000,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        let answer = ask!(&fixture, 9, Produce, request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, code);
        let request = DeleteTopicsRequest {
            topic_names: vec![name.clone()],
            timeout_ms: 1_000,
            ..DeleteTopicsRequest::default()
        };
        let answer = ask!(&fixture, 5, DeleteTopics, request);
        assert_eq!(answer.responses[0].error_code, code);
        let keep = [("retention.ms", "1")];
        assert_eq!(replace(&fixture, (RESOURCE_TOPIC, &name), &keep).await.0, code);
        let rule = replace(&fixture, (RESOURCE_RULE, &name), &[("regions", "eu")]).await;
        assert_eq!(rule.0, ErrorCode::InvalidRequest);

        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let answer = ask!(&fixture, 9, Metadata, request);
        let internal = answer.topics.iter().filter(|topic| topic.is_internal);
        let internal: Vec<_> = internal.map(|topic| topic.name.clone()).collect();
        assert_eq!(internal, [Some(name)]);
        assert_eq!(answer.topics.len(), 3);
    });
}

/// An epoch of the pipeline that reads the first record of a topic.
async fn epoch_over(fixture: &Fixture, topic: &str) -> EpochPlace {
    let name = || "p".to_owned();
    let (fence, topic) = fixture.broker.site.read(|state| {
        let topic = state.topics().by_name(topic).expect("it is there").id;
        (state.run("p").expect("it is there").fence, topic)
    });
    let claim =
        PipelineOperation::Claim { pipeline: name(), expected: fence, node: Some(NodeId(2)) };
    let OperationResult::Claimed { fence } = done(fixture, claim).await else { panic!() };
    let at = EpochPlace { pipeline: name(), fence, epoch: 1 };
    let (from, to) = (Offset(0), Offset(1));
    let range = InputRange { topic, partition: PartitionIndex(0), from, to, has_more: false };
    let commit = PipelineOperation::Commit {
        at: at.clone(),
        age_ms: 5,
        hash: [1; 16],
        appends: 0,
        ranges: vec![range],
        facts: Bytes::from_static(b"facts"),
    };
    assert_eq!(done(fixture, commit).await, OperationResult::EpochCommitted);
    at
}

/// What an owner does who is asked for a delta.
async fn delta_when_wanted(broker: std::sync::Arc<Broker>, at: EpochPlace) -> Answer {
    let watch = broker.site.watch_pipelines();
    while broker.site.read(|state| state.run("p").and_then(|run| run.wants_delta)).is_none() {
        watch.changed().await;
    }
    let (first, end, keep_from) = (Offset(0), Offset(0), 0);
    let done = PipelineOperation::Done { at, first, end, keep_from };
    let unit = Unit::of(Operation::Pipeline(done));
    broker.propose_anywhere(unit, time::now() + Duration::from_secs(5)).await
}

#[test]
fn a_topic_whose_letters_were_just_read_is_deleted_once_the_state_is_stored() {
    run(async {
        let fixture = site();
        create(&fixture, "in", 1).await;
        assert_eq!(set(&fixture, &[("file", "in > out")]).await, NONE);
        assert_eq!(produce_to(&fixture, "out").await, ErrorCode::None);
        assert_eq!(set(&fixture, &[("retry-dead-letters", "out")]).await, NONE);
        let at = epoch_over(&fixture, "out").await;
        let delete = |timeout_ms| DeleteTopicsRequest {
            topic_names: vec!["out".to_owned()],
            timeout_ms,
            ..DeleteTopicsRequest::default()
        };
        let answer = ask!(&fixture, 5, DeleteTopics, delete(300));
        let refused = &answer.responses[0];
        assert_eq!(refused.error_code, ErrorCode::ThrottlingQuotaExceeded);
        assert!(refused.error_message.as_ref().is_some_and(|text| text.contains("dead letters")));
        let owner = fulmar_host::task::spawn(delta_when_wanted(fixture.broker.clone(), at));
        let answer = ask!(&fixture, 5, DeleteTopics, delete(5_000));
        assert_eq!(answer.responses[0].error_code, ErrorCode::None);
        assert!(matches!(owner.await, Ok(Answer::Done { result: UnitResult::Done(_), .. })));
    });
}

#[test]
fn only_what_the_file_names_for_bad_records_is_put_through_again() {
    run(async {
        let fixture = site();
        create(&fixture, "in", 1).await;
        assert_eq!(set(&fixture, &[("file", "in > out")]).await, NONE);
        let (code, text) = set(&fixture, &[("retry-dead-letters", "out,in")]).await;
        assert_eq!(code, ErrorCode::InvalidConfig);
        assert_eq!(text.as_deref(), Some("the file sends no bad records to in, but to out"));
        assert_eq!(set(&fixture, &[("retry-dead-letters", "out")]).await, NONE);
    });
}

#[test]
fn a_circle_of_pipelines_is_refused_with_their_names() {
    run(async {
        let fixture = site();
        create(&fixture, "x", 1).await;
        assert_eq!(set(&fixture, &[("file", "x > y")]).await, NONE);
        let (code, text) = replace(&fixture, (RESOURCE_PIPELINE, "q"), &[("file", "y > x")]).await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        let told = "for ever: q writes x, which feeds p, which writes y, which feeds q";
        assert!(text.as_ref().is_some_and(|text| text.ends_with(told)), "{text:?}");
    });
}

#[test]
fn a_savepoint_waits_for_a_delta_and_holds_the_pipeline() {
    run(async {
        let fixture = site();
        create(&fixture, "in", 1).await;
        assert_eq!(set(&fixture, &[("file", "in > out")]).await, NONE);
        let save = [("pipeline", "p")];
        assert_eq!(replace(&fixture, (RESOURCE_SAVEPOINT, "s"), &save).await, NONE, "of nothing");
        assert_eq!(produce_to(&fixture, "in").await, ErrorCode::None);

        let name = || "p".to_owned();
        let at = epoch_over(&fixture, "in").await;
        let owner = fulmar_host::task::spawn(delta_when_wanted(fixture.broker.clone(), at));
        assert_eq!(replace(&fixture, (RESOURCE_SAVEPOINT, "s"), &save).await, NONE);
        assert!(matches!(owner.await, Ok(Answer::Done { result: UnitResult::Done(_), .. })));
        let saved = settings(&told(&fixture, RESOURCE_SAVEPOINT, &["s"]).await);
        assert_eq!((value(&saved, "pipeline"), value(&saved, "epoch")), (name(), "1".to_owned()));

        let (code, text) = set(&fixture, &[]).await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(text.is_some_and(|text| text.contains("savepoints")));
        assert_eq!(set(&fixture, &[("savepoints", "true")]).await, NONE);
        assert_eq!(fixture.broker.site.read(|state| state.savepoints().count()), 0);
    });
}

async fn produce_to(fixture: &Fixture, name: &str) -> ErrorCode {
    let data = PartitionProduceData { index: 0, records: Some(batch(None, 1, 0)) };
    let topic = TopicProduceData { name: name.to_owned(), partition_data: vec![data] };
    let (acks, timeout_ms) = (-1, 1_000);
    let topic_data = vec![topic];
    let request = ProduceRequest { acks, timeout_ms, topic_data, ..ProduceRequest::default() };
    ask!(fixture, 9, Produce, request).responses[0].partition_responses[0].error_code
}

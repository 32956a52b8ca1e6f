//! Pipelines that are paused, changed, mended, saved and begun again.

use super::pipelines::*;
use super::*;
use fulmar_store::entry::PipelineOperation;
use fulmar_types::NodeId;
use fulmar_types::pipeline::{PipelineDefinition, Start};

#[test]
fn pausing_changing_and_failing() {
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    site.epoch(fence, 2);
    let paused = |paused, file: &str| {
        let definition = definition(&[1], &[2], 0);
        PipelineDefinition { paused, file: file.to_owned(), ..definition }
    };
    let file = definition(&[1], &[2], 0).file;
    site.set(paused(true, &file), Start::Keep).expect("paused");
    assert_eq!((site.run().fence, site.run().owner), (fence, Some(NodeId(2))), "it settles it");
    assert_eq!(site.set(paused(false, "other"), Start::Keep), Err(Refusal::NotSettled));
    let other = site.claim(1);
    site.delta(other, 0);
    let given_up = site.claim(0);
    assert_eq!(site.one(claim(given_up, 1)), Err(Refusal::NotRunning));
    site.set(paused(false, "other"), Start::Keep).expect("changed");
    assert!(site.run().fence > given_up);
    assert_eq!((site.run().epoch, site.position(0).next), (1, Offset(2)), "it goes on");

    let fence = site.claim(3);
    site.one(halt(fence)).expect("halted");
    assert_eq!(site.run().failed.as_deref(), Some("a bad record"));
    site.set(paused(true, "other"), Start::Keep).expect("paused");
    assert!(site.run().failed.is_some());
    site.set(paused(false, "other"), Start::Keep).expect("resumed");
    assert!(site.run().failed.is_none());
    site.claim(1);
}

#[test]
fn what_expires_before_the_first_epoch_of_a_mended_file_is_missed() {
    let mut site = Site::with_pipeline();
    site.one(keep(1, &[("retention.bytes", Some("0"))])).expect("altered");
    let fence = site.claim(2);
    site.one(halt(fence)).expect("halted");
    site.fill(1, 0, 2);
    site.one(advance(1, 0, 11)).expect("moved");
    let mended = PipelineDefinition { file: "mended".to_owned(), ..definition(&[1], &[2], 0) };
    site.set(mended, Start::Keep).expect("set");
    assert_eq!((site.run().epoch, site.position(0).next), (0, Offset(0)));
    let fence = site.claim(2);
    assert_eq!(site.one(commit(at(fence, 1), 0, vec![range(1, 0, 11, 12)])), COMMITTED);
    assert_eq!(site.position(0).missed, 11);
    site.set(definition(&[1], &[2], 0), Start::Fresh).expect("set");
    assert_eq!((site.position(0).next, site.position(0).missed), (Offset(11), 0), "anew");
}

#[test]
fn a_savepoint_of_another_pipeline_is_not_replaced() {
    let mut site = Site::with_pipeline();
    site.set(definition(&[1], &[2], 0), Start::Keep).expect("there");
    site.one(set("q", definition(&[1], &[3], 0), Start::Keep)).expect("set");
    site.one(save(Some("q"))).expect("saved");
    assert_eq!(site.one(save(Some(P))), Err(Refusal::SavepointOfAnother));
    assert_eq!(site.state.savepoint("s").map(|of| of.pipeline.as_str()), Some("q"));
    site.one(save(Some("q"))).expect("its own it replaces");
    site.one(save(None)).expect("forgotten");
    site.one(save(Some(P))).expect("the name is free");
}

#[test]
fn beginning_fresh_forgets_the_state_and_a_savepoint_brings_it_back() {
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    site.epoch(fence, 3);
    let (first, end) = site.delta(fence, 0);
    site.epoch(fence, 4);
    assert_eq!(site.one(save(Some("other"))), Err(Refusal::UnknownPipeline));
    assert!(matches!(site.one(save(Some(P))), Ok(OperationResult::SavepointSet { .. })));
    let saved = site.state.savepoint("s").expect("it is there").clone();
    assert_eq!(
        (saved.epoch, saved.age_ms),
        (1, 10),
        "that of the delta, and not of the last epoch"
    );
    assert_eq!(saved.positions[0], (StreamId(0), Offset(3)));
    assert_eq!(saved.deltas, [(1, Offset(first), Offset(end))]);

    site.set(definition(&[1], &[3], 7), Start::Fresh).expect("set");
    let run = site.run();
    assert_eq!((run.epoch, run.delta_epoch, run.owner), (0, 0, None));
    assert_eq!((site.position(0).next, site.state.deltas(P).count()), (Offset(0), 0));
    assert_eq!(site.internal().1, first, "the savepoint needs its parts");
    assert_eq!(site.one(remove(false)), Err(Refusal::SavepointHeld));
    let fence = site.claim(1);
    site.epoch(fence, 1);
    site.delta(fence, 0);

    let from = || Start::Savepoint("s".to_owned());
    assert_eq!(site.set(definition(&[1], &[2], 7), from()), Err(Refusal::OtherShape));
    site.set(definition(&[1], &[2], 0), from()).expect("restored");
    let run = site.run();
    assert_eq!((run.epoch, run.delta_epoch, run.age_ms), (1, 1, 10));
    assert_eq!((site.position(0).next, site.position(0).floor), (Offset(3), Offset(3)));
    let deltas: Vec<_> = site.state.deltas(P).map(|delta| (delta.first.0, delta.end.0)).collect();
    assert_eq!(deltas, [(first, end)]);
    site.set(definition(&[1], &[2], 0), Start::Fresh).expect("set");
    assert_eq!(site.one(save(None)), Ok(OperationResult::SavepointSet { number: site.next - 1 }));
    assert!(site.one(save(None)).is_ok(), "what is not there can be removed");
    let long = PipelineOperation::SetSavepoint {
        name: "n".repeat(10_000),
        expected: None,
        who: String::new(),
        pipeline: None,
    };
    assert_eq!(site.one(Operation::Pipeline(long)), Err(Refusal::InvalidPipeline));
    site.set(definition(&[1], &[2], 0), Start::Fresh).expect("set");
    let (_, start, next) = site.internal();
    assert_eq!(start, next, "nobody needs anything");
}

#[test]
fn a_topic_that_goes_takes_its_positions_along() {
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    site.epoch(fence, 3);
    site.one(Operation::DeleteTopic { topic: topic_id(1) }).expect("deleted");
    site.one(Operation::DeleteTopic { topic: topic_id(2) }).expect("deleted");
    assert!(site.state.inputs(P).is_none() && site.state.outputs(P).is_none());
    let sections = site.state.snapshot();
    State::restore(&sections).expect("restores");
    site.delta(fence, 0);
    site.one(create(1, 2)).expect("created");
    assert!(site.state.inputs(P).is_none(), "another one of the same name");
    let internal = topic_id(200 + b'p' % 32);
    let delete = Operation::DeleteTopic { topic: internal };
    assert_eq!(site.one(delete), Err(Refusal::IsInternal));
    let foreign = Operation::Append {
        topic: internal,
        partition: PartitionIndex(0),
        batch: batch(-1, -1, -1, 1, 5).into(),
    };
    assert_eq!(site.one(foreign), Err(Refusal::IsInternal));
    site.one(create(2, 2)).expect("created");
    let again = site.set(definition(&[1], &[2], 0), Start::Keep);
    assert_eq!(again, Err(Refusal::OtherInput), "the state is of the topic that is gone");
    site.set(definition(&[1], &[2], 0), Start::Fresh).expect("set");
    assert_eq!(site.position(0).next, Offset(0));
    let fence = site.claim(2);
    site.fill(1, 0, 3);
    site.epoch(fence, 3);
    site.delta(fence, 0);
    site.one(save(Some(P))).expect("saved");
    site.one(Operation::DeleteTopic { topic: topic_id(2) }).expect("deleted");
    site.one(create(2, 1)).expect("created");
    site.set(definition(&[1], &[2], 0), Start::Keep).expect("an output has no state");
    site.one(Operation::DeleteTopic { topic: topic_id(1) }).expect("deleted");
    site.one(create(1, 2)).expect("created");
    let from = Start::Savepoint("s".to_owned());
    assert_eq!(site.set(definition(&[1], &[2], 0), from), Err(Refusal::OtherInput));
}

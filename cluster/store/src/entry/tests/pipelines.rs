//! Operations about pipelines.

use super::*;
use fulmar_types::NodeId;
use fulmar_types::pipeline::{PipelineDefinition, Start};

fn any_at() -> impl Strategy<Value = EpochPlace> {
    (".{0,9}", any::<u64>(), any::<u64>()).prop_map(|(pipeline, fence, epoch)| EpochPlace {
        pipeline,
        fence,
        epoch,
    })
}

fn any_range() -> impl Strategy<Value = InputRange> {
    let place = (any_topic(), any::<u32>());
    (place, any::<[u64; 2]>(), any::<bool>()).prop_map(|((topic, partition), [from, to], more)| {
        let (partition, from, to) = (PartitionIndex(partition), Offset(from), Offset(to));
        InputRange { topic, partition, from, to, has_more: more }
    })
}

fn any_change() -> impl Strategy<Value = PipelineChange> {
    let texts = || vec(".{0,6}", 0..3);
    let start =
        prop_oneof![Just(Start::Keep), Just(Start::Fresh), ".{0,6}".prop_map(Start::Savepoint),];
    let shape = (any::<[u8; 16]>(), any::<bool>(), any::<u32>());
    let definition = (".{0,40}", texts(), texts(), shape).prop_map(
        |(file, inputs, outputs, (shape, paused, latency_ms))| PipelineDefinition {
            file,
            inputs,
            outputs,
            shape,
            paused,
            latency_ms,
        },
    );
    prop_oneof![
        4 => (any_topic(), any::<[u8; 32]>(), definition, start).prop_map(
            |(topic, secret, definition, start)| {
                PipelineChange::Set(NewPipeline { topic, secret, definition, start })
            }
        ),
        1 => any::<bool>().prop_map(|savepoints| PipelineChange::Remove { savepoints }),
    ]
}

pub(super) fn any_pipeline_operation() -> impl Strategy<Value = PipelineOperation> {
    let expected = || proptest::option::of(0..u64::MAX);
    let batch = || vec(any::<u8>(), 0..50).prop_map(|bytes| Batch::new(bytes.into()));
    let node = proptest::option::of((1u64..).prop_map(NodeId));
    let bytes = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    prop_oneof![
        2 => (".{0,9}", expected(), ".{0,5}", any_change()).prop_map(
            |(name, expected, who, change)| {
                let change = Box::new(change);
                PipelineOperation::Set { name, expected, who, change }
            }
        ),
        1 => (".{0,9}", any::<u64>(), node).prop_map(|(pipeline, expected, node)| {
            PipelineOperation::Claim { pipeline, expected, node }
        }),
        2 => (any_at(), any::<u64>(), any::<[u8; 16]>(), any::<u32>(), vec(any_range(), 0..4), bytes())
            .prop_map(|(at, age_ms, hash, appends, ranges, facts)| {
                PipelineOperation::Commit { at, age_ms, hash, appends, ranges, facts }
            }),
        1 => (any_at(), any::<u32>(), any_topic(), any::<u32>(), batch()).prop_map(
            |(at, seq, topic, partition, batch)| {
                let partition = PartitionIndex(partition);
                PipelineOperation::Append { at, seq, topic, partition, batch }
            }
        ),
        1 => (any_at(), batch()).prop_map(|(at, batch)| PipelineOperation::Part { at, batch }),
        1 => (any_at(), any::<[u64; 3]>()).prop_map(|(at, [first, end, keep_from])| {
            let (first, end) = (Offset(first), Offset(end));
            PipelineOperation::Done { at, first, end, keep_from }
        }),
        1 => (".{0,9}", any::<u64>(), ".{0,9}").prop_map(|(pipeline, fence, reason)| {
            PipelineOperation::Halt { pipeline, fence, reason }
        }),
        1 => ".{0,9}".prop_map(|pipeline| PipelineOperation::WantDelta { pipeline }),
        1 => (".{0,9}", expected(), ".{0,5}", proptest::option::of(".{0,9}")).prop_map(
            |(name, expected, who, pipeline)| {
                PipelineOperation::SetSavepoint { name, expected, who, pipeline }
            }
        ),
        1 => (".{0,9}", ".{0,5}", ".{0,9}").prop_map(|(pipeline, who, topic)| {
            PipelineOperation::Retry { pipeline, who, topic }
        }),
    ]
}

/// One of each.
fn operations() -> Vec<PipelineOperation> {
    let text = |text: &str| text.to_owned();
    let at = || EpochPlace { pipeline: text("p"), fence: 7, epoch: 3 };
    let definition = PipelineDefinition {
        file: text("f"),
        inputs: vec![text("i")],
        outputs: vec![text("o")],
        shape: [0x33; 16],
        paused: true,
        latency_ms: 20,
    };
    let set = |name: &str, change| PipelineOperation::Set {
        name: text(name),
        expected: Some(5),
        who: text("w"),
        change: Box::new(change),
    };
    let start = Start::Savepoint(text("s"));
    let new = NewPipeline { topic: TOPIC, secret: [0x22; 32], definition, start };
    let (partition, batch) = (PartitionIndex(2), || Batch::new(Bytes::from_static(b"batch")));
    let (from, to) = (Offset(4), Offset(6));
    let range = InputRange { topic: TOPIC, partition, from, to, has_more: true };
    vec![
        set("p", PipelineChange::Set(new)),
        set("p", PipelineChange::Remove { savepoints: true }),
        PipelineOperation::Claim { pipeline: text("p"), expected: 6, node: Some(NodeId(2)) },
        PipelineOperation::Commit {
            at: at(),
            age_ms: 9,
            hash: [0x44; 16],
            appends: 1,
            ranges: vec![range],
            facts: Bytes::from_static(b"x"),
        },
        PipelineOperation::Append { at: at(), seq: 1, topic: TOPIC, partition, batch: batch() },
        PipelineOperation::Part { at: at(), batch: batch() },
        PipelineOperation::Done { at: at(), first: Offset(1), end: Offset(2), keep_from: 3 },
        PipelineOperation::Halt { pipeline: text("p"), fence: 7, reason: text("r") },
        PipelineOperation::WantDelta { pipeline: text("p") },
        PipelineOperation::SetSavepoint {
            name: text("s"),
            expected: None,
            who: text("w"),
            pipeline: Some(text("p")),
        },
        PipelineOperation::Retry { pipeline: text("p"), who: text("w"), topic: text("t") },
    ]
}

#[test]
fn golden_bytes_of_the_operations_about_pipelines() {
    let operations = operations().into_iter().map(Operation::Pipeline).collect();
    let bytes = build(EntryHeader::default(), &[Unit { preconditions: Vec::new(), operations }]);
    let topic = "11".repeat(16);
    let at = "010070".to_owned() + "0700000000000000" + "0300000000000000";
    let expected = [
        "0f0163000000",
        "010070",
        "0500000000000000",
        "010077",
        "01",
        &topic,
        &"22".repeat(32),
        &"33".repeat(16),
        "01",
        "14000000",
        "0100010069",
        "010001006f",
        "02010073",
        "66", // set pipeline
        "0f0110000000",
        "010070",
        "0500000000000000",
        "010077",
        "0001", // remove pipeline
        "100113000000",
        "010070",
        "0600000000000000",
        "0200000000000000", // claim
        "110157000000",
        &at,
        "0900000000000000",
        &"44".repeat(16),
        "01000000",
        "0100",
        &topic,
        "02000000",
        "0400000000000000",
        "060000000000000001",
        "78", // commit
        "120130000000",
        &at,
        "01000000",
        &topic,
        "02000000",
        "6261746368", // append
        "130118000000",
        &at,
        "6261746368", // part
        "14012b000000",
        &at,
        "0100000000000000",
        "0200000000000000",
        "0300000000000000", // done
        "15010e000000",
        "010070",
        "0700000000000000",
        "010072", // halt
        "160103000000",
        "010070", // want delta
        "170112000000",
        "010073",
        &"ff".repeat(8),
        "010077",
        "01",
        "010070",                         // set savepoint
        "1a0109000000010070010077010074", // retry letters
    ];
    assert_eq!(hex(&bytes[ENTRY_HEADER_BYTES + UNIT_HEADER_BYTES..]), expected.concat());
}

#[test]
fn what_is_too_long_to_be_written_down_is_not_encodable() {
    let long = || "n".repeat(70_000);
    let at = || EpochPlace { pipeline: long(), fence: 1, epoch: 1 };
    let unit = |operation| Unit::of(Operation::Pipeline(operation));
    let mut builder = EntryBuilder::new(SEGMENT_BYTES_DEFAULT);
    for operation in [
        PipelineOperation::WantDelta { pipeline: long() },
        PipelineOperation::Part { at: at(), batch: Batch::new(Bytes::new()) },
        PipelineOperation::Halt { pipeline: "p".into(), fence: 1, reason: long() },
        PipelineOperation::Claim { pipeline: "p".into(), expected: 1, node: Some(NodeId(0)) },
    ] {
        assert_eq!(builder.push(&unit(operation)), Err(PushError::NotEncodable));
    }
    let records: Vec<bool> = operations().into_iter().map(|of| unit(of).has_records()).collect();
    assert_eq!(records.iter().filter(|has| **has).count(), 2, "appends and parts");
}

//! The bytes of one of each operation, written down.

use super::*;

#[test]
fn golden_bytes_of_an_append_and_a_noop() {
    let header = EntryHeader { wall_ms: 0x0102_0304, claim: 9, age_ms: 10 };
    let guarded = Unit {
        preconditions: vec![
            Precondition::ExpectedOffset {
                topic: TOPIC,
                partition: PartitionIndex(2),
                offset: Offset(7),
            },
            Precondition::Fence { name: "m".into(), number: 5 },
        ],
        operations: vec![append(2, b"batch")],
    };
    let bytes = build(header, &[guarded, Unit::of(Operation::Noop)]);
    let topic = "11".repeat(16);
    let expected = [
        "02000000",         // version, zeros
        "02000000",         // units
        "0403020100000000", // wall_ms
        "0900000000000000", // claim
        "0a00000000000000", // age_ms
        "54000000",         // unit: 84 bytes behind this field
        "02000100",         // two preconditions, one operation
        "01011c000000",     // expected offset v1, 28 bytes
        &topic,             //
        "02000000",         // partition
        "0700000000000000", // offset
        "020109000000",     // fence v1, 9 bytes
        "0500000000000000", // number
        "6d",               // name
        "040119000000",     // append v1, 25 bytes
        &topic,             //
        "02000000",         // partition
        "6261746368",       // batch
        "0a000000",         // unit: 10 bytes behind this field
        "00000100",         // no precondition, one operation
        "010100000000",     // noop v1
    ];
    assert_eq!(hex(&bytes), expected.concat());
}

#[test]
fn golden_bytes_of_the_other_operations() {
    let operations = vec![
        Operation::CreateTopic {
            topic: TOPIC,
            name: "t".into(),
            partitions: 3,
            configs: vec![("k".into(), "v".into())],
        },
        Operation::DeleteTopic { topic: TOPIC },
        Operation::InitProducer { request: Uuid([0x22; 16]) },
        Operation::AdvanceStart { topic: TOPIC, partition: PartitionIndex(1), offset: Offset(4) },
        Operation::ExpireProducers { idle_ms: 5 },
        Operation::AlterTopic {
            topic: TOPIC,
            replaces: true,
            changes: vec![("k".into(), Some("v".into())), ("l".into(), None)],
        },
    ];
    let bytes = build(EntryHeader::default(), &[Unit { preconditions: Vec::new(), operations }]);
    let topic = "11".repeat(16);
    let expected = [
        "02011f000000",
        &topic,
        "03000000",
        "0100",
        "010074",
        "01006b",
        "010076", // create
        "030110000000",
        &topic, // delete
        "050110000000",
        &"22".repeat(16), // init producer
        "06011c000000",
        &topic,
        "01000000",
        "0400000000000000", // advance start
        "070108000000",
        "0500000000000000", // expire producers
        "08011e000000",
        &topic,
        "01",
        "0200",
        "01006b",
        "01",
        "010076",
        "01006c",
        "00", // alter
    ];
    assert_eq!(hex(&bytes[ENTRY_HEADER_BYTES + UNIT_HEADER_BYTES..]), expected.concat());
}

fn a_link() -> LinkDefinition {
    let text = |text: &str| text.to_owned();
    LinkDefinition {
        site: text("s"),
        region: text("r"),
        authority: vec![0xaa],
        dial: vec![text("d")],
        take: vec![text("*")],
        paused: true,
        cap: Some(1),
        connections: 4,
        copies: CopyLimits { partitions_max: 5, retention_bytes_max: Some(6) },
    }
}

/// One of each.
pub(super) fn link_operations() -> Vec<LinkOperation> {
    let place = MirrorPlace {
        link: 7,
        topic: TOPIC,
        partition: PartitionIndex(2),
        offset: Offset(3),
        tag: [0x44; 16],
    };
    let text = |text: &str| text.to_owned();
    vec![
        LinkOperation::SetLink {
            name: text("l"),
            expected: Some(5),
            who: text("w"),
            definition: Some(a_link()),
        },
        LinkOperation::SetLink {
            name: text("l"),
            expected: None,
            who: text("w"),
            definition: None,
        },
        LinkOperation::SetRule {
            topic: text("t"),
            expected: Some(0),
            who: text("w"),
            definition: RuleDefinition::from_settings([
                ("regions", "r"),
                ("key", "hash"),
                ("headers", "h=drop"),
                ("fields", "a.*=round:-2"),
            ])
            .expect("it is a rule"),
            secret: RuleSecret([7; 32]),
        },
        LinkOperation::CreateMirror(NewMirror {
            topic: TOPIC,
            name: text("s.t"),
            partitions: 3,
            configs: vec![(text("k"), text("v"))],
            link: text("l"),
            origin: TopicId(Uuid([0x22; 16])),
            origin_name: text("t"),
            via: vec![text("s")],
        }),
        LinkOperation::MirrorAppend { place, batch: Batch::new(Bytes::from_static(b"batch")) },
        LinkOperation::MirrorSkip {
            place,
            to: Offset(5),
            missing: Missing { reason: GapReason::Budget, count: 2, first_ms: 7, last_ms: 8 },
        },
        LinkOperation::PeerHas { place },
        LinkOperation::AlignMirror {
            link: 7,
            topic: TOPIC,
            via: vec![text("s")],
            configs: vec![(text("k"), text("v"))],
        },
        LinkOperation::PeerDeclines { link: 7, topics: vec![(TOPIC, Decline::Loop)] },
        LinkOperation::GiveBond { link: 7, shown: 3 },
        LinkOperation::HearBond { link: 7, number: 4 },
        LinkOperation::PeerParted { link: 7, topic: TOPIC, partition: PartitionIndex(2) },
        LinkOperation::PutBackNoticed { link: 7, shown: 5 },
    ]
}

/// Those of the operations about links that bring and take nothing.
fn golden_notes(topic: &str) -> String {
    [
        "180125000000",
        &["0700000000000000", topic, "0100010073"].concat(),
        "010001006b010076", // align mirror
        "19011b000000",
        "0700000000000000",
        &["0100", topic, "02"].concat(), // peer declines
        "1b0110000000",
        "0700000000000000",
        "0300000000000000", // give bond
        "1c0110000000",
        "0700000000000000",
        "0400000000000000", // hear bond
        "1d011c000000",
        "0700000000000000",
        topic,
        "02000000", // peer parted
        "1e0110000000",
        "0700000000000000",
        "0500000000000000", // put back noticed
    ]
    .concat()
}

#[test]
fn golden_bytes_of_the_operations_about_links() {
    let operations = link_operations();
    let operations = operations.into_iter().map(Operation::Link).collect();
    let bytes = build(EntryHeader::default(), &[Unit { preconditions: Vec::new(), operations }]);
    let topic = "11".repeat(16);
    let mirror_place =
        ["0700000000000000", &topic, "02000000", "0300000000000000", &"44".repeat(16)].concat();
    let expected = [
        "090138000000",
        "01006c",
        "0500000000000000",
        "010077",
        "0101",
        "010073",
        "010072",
        "0100aa",
        "0100010064",
        "010001002a",
        "0100000000000000",
        "04",
        "05000000",
        "0600000000000000", // set link
        "09010f000000",
        "01006c",
        &"ff".repeat(8),
        "010077",
        "00", // remove link
        "0a0146000000",
        "010074",
        "0000000000000000",
        "010077",
        &"07".repeat(32),
        "0100010072",
        "01",
        "0100010068",
        "02",
        "01000300612e2a",
        "05fe000000", // set rule
        "0b013c000000",
        &topic,
        &"22".repeat(16),
        "03000000",
        "01006c",
        "010074",
        "0300732e74",
        "0100010073",
        "0100",
        "01006b",
        "010076", // create mirror
        "0c0139000000",
        &mirror_place,
        "6261746368", // mirror append
        "0d0155000000",
        &mirror_place,
        "0500000000000000",
        "02",
        "0200000000000000",
        "0700000000000000",
        "0800000000000000", // mirror skip
        "0e0134000000",
        &mirror_place, // peer has
    ];
    let expected = [expected.concat(), golden_notes(&topic)];
    assert_eq!(hex(&bytes[ENTRY_HEADER_BYTES + UNIT_HEADER_BYTES..]), expected.concat());
}

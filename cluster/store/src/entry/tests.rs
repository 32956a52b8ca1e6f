//! Round trips, refusals, golden bytes and a mutation run of the entry format.

use super::*;
use crate::mutation::{mutate, random};
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use fulmar_types::link::{CopyLimits, Decline, LinkDefinition};
use fulmar_types::rule::{FieldAction, Passage, RuleDefinition};
use fulmar_types::{Offset, PartitionIndex, TopicId, Uuid};
use proptest::collection::vec;
use proptest::prelude::*;

mod golden;
mod pipelines;

const TOPIC: TopicId = TopicId(Uuid([0x11; 16]));

fn append(partition: u32, batch: &[u8]) -> Operation {
    Operation::Append {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        batch: Batch::new(Bytes::copy_from_slice(batch)),
    }
}

fn build(header: EntryHeader, units: &[Unit]) -> Bytes {
    let mut builder = EntryBuilder::new(SEGMENT_BYTES_DEFAULT);
    for unit in units {
        builder.push(unit).expect("fits");
    }
    builder.finish(header)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn any_topic() -> impl Strategy<Value = TopicId> {
    any::<[u8; 16]>().prop_map(|bytes| TopicId(Uuid(bytes)))
}

fn any_precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        (any_topic(), any::<u32>(), any::<u64>()).prop_map(|(topic, partition, offset)| {
            let (partition, offset) = (PartitionIndex(partition), Offset(offset));
            Precondition::ExpectedOffset { topic, partition, offset }
        }),
        (".{0,20}", any::<u64>()).prop_map(|(name, number)| Precondition::Fence { name, number }),
    ]
}

fn any_rule() -> impl Strategy<Value = RuleDefinition> {
    let passage = || prop::sample::select(vec![Passage::Pass, Passage::Hash, Passage::Drop]);
    let action = prop_oneof![
        prop::sample::select(vec![FieldAction::Drop, FieldAction::Mask, FieldAction::Hash]),
        (0u32..1_000).prop_map(FieldAction::Truncate),
        (-18i8..=18).prop_map(FieldAction::Round),
    ];
    let path = "[a-z.*,=\\\\]{1,8}".prop_filter_map("no path", |text| text.parse().ok());
    let headers = prop::collection::btree_map(".{0,4}", passage(), 0..3);
    let fields = prop::collection::btree_map(path, action, 0..4);
    (vec(".{0,6}", 0..3), passage(), headers, fields).prop_map(|(regions, key, headers, fields)| {
        RuleDefinition { regions, key, headers, fields }
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let config = (".{0,10}", ".{0,10}");
    prop_oneof![
        Just(Operation::Noop),
        (any_topic(), ".{0,20}", any::<u32>(), vec(config, 0..4)).prop_map(
            |(topic, name, partitions, configs)| {
                Operation::CreateTopic { topic, name, partitions, configs }
            }
        ),
        any_topic().prop_map(|topic| Operation::DeleteTopic { topic }),
        (any_topic(), any::<u32>(), vec(any::<u8>(), 0..100)).prop_map(
            |(topic, partition, batch)| Operation::Append {
                topic,
                partition: PartitionIndex(partition),
                batch: Batch::new(Bytes::from(batch)),
            }
        ),
        any::<[u8; 16]>().prop_map(|id| Operation::InitProducer { request: Uuid(id) }),
        (any_topic(), any::<u32>(), any::<u64>()).prop_map(|(topic, partition, offset)| {
            let (partition, offset) = (PartitionIndex(partition), Offset(offset));
            Operation::AdvanceStart { topic, partition, offset }
        }),
        any::<u64>().prop_map(|idle_ms| Operation::ExpireProducers { idle_ms }),
        (any_topic(), any::<bool>(), vec((".{0,10}", proptest::option::of(".{0,10}")), 0..4))
            .prop_map(|(topic, replaces, changes)| Operation::AlterTopic {
                topic,
                replaces,
                changes
            }),
        any_link_operation().prop_map(Operation::Link),
        pipelines::any_pipeline_operation().prop_map(Operation::Pipeline),
    ]
}

fn any_place() -> impl Strategy<Value = MirrorPlace> {
    (any::<u64>(), any_topic(), any::<u32>(), any::<u64>(), any::<[u8; 16]>()).prop_map(
        |(link, topic, partition, offset, tag)| MirrorPlace {
            link,
            topic,
            partition: PartitionIndex(partition),
            offset: Offset(offset),
            tag,
        },
    )
}

fn any_link() -> impl Strategy<Value = LinkDefinition> {
    let texts = || vec(".{0,6}", 0..3);
    let place = (".{0,6}", ".{0,6}", vec(any::<u8>(), 0..9), texts(), texts());
    let copies = (any::<u32>(), proptest::option::of(1u64..));
    let line = (any::<bool>(), proptest::option::of(1u64..), any::<u8>());
    (place, line, copies).prop_map(|(place, (paused, cap, connections), copies)| {
        let (site, region, authority, dial, take) = place;
        let (partitions_max, retention_bytes_max) = copies;
        let copies = CopyLimits { partitions_max, retention_bytes_max };
        LinkDefinition { site, region, authority, dial, take, paused, cap, connections, copies }
    })
}

fn any_link_operation() -> impl Strategy<Value = LinkOperation> {
    let texts = || vec(".{0,6}", 0..3);
    let expected = || proptest::option::of(0..u64::MAX);
    let definition = any_link();
    prop_oneof![
        (".{0,9}", expected(), ".{0,5}", proptest::option::of(definition)).prop_map(
            |(name, expected, who, definition)| LinkOperation::SetLink {
                name,
                expected,
                who,
                definition
            }
        ),
        (".{0,9}", expected(), ".{0,5}", any_rule(), any::<[u8; 32]>()).prop_map(
            |(topic, expected, who, definition, secret)| LinkOperation::SetRule {
                topic,
                expected,
                who,
                definition,
                secret: RuleSecret(secret)
            }
        ),
        ((any_topic(), any_topic(), any::<u32>()), texts(), vec((".{0,5}", ".{0,5}"), 0..3))
            .prop_map(|((topic, origin, partitions), mut texts, configs)| {
                texts.resize(3, "x".to_owned());
                let [link, origin_name, name] = texts.try_into().expect("three");
                LinkOperation::CreateMirror(NewMirror {
                    topic,
                    name,
                    partitions,
                    configs,
                    link,
                    origin,
                    origin_name,
                    via: vec!["v".to_owned()],
                })
            }),
        (any::<u64>(), any_topic(), texts(), vec((".{0,5}", ".{0,5}"), 0..3)).prop_map(
            |(link, topic, via, configs)| LinkOperation::AlignMirror { link, topic, via, configs }
        ),
        (any::<u64>(), vec((any_topic(), 0usize..3), 0..3)).prop_map(|(link, topics)| {
            let topics = topics.into_iter().map(|(topic, at)| (topic, Decline::ALL[at])).collect();
            LinkOperation::PeerDeclines { link, topics }
        }),
        (any_place(), vec(any::<u8>(), 0..50)).prop_map(|(place, batch)| {
            LinkOperation::MirrorAppend { place, batch: Batch::new(batch.into()) }
        }),
        (any_place(), any::<u64>(), 0usize..4, any::<[u64; 3]>()).prop_map(
            |(place, to, reason, [count, first_ms, last_ms])| {
                let reason = GapReason::ALL[reason];
                let missing = Missing { reason, count, first_ms, last_ms };
                LinkOperation::MirrorSkip { place, to: Offset(to), missing }
            }
        ),
        any_place().prop_map(|place| LinkOperation::PeerHas { place }),
        any::<[u64; 2]>().prop_map(|[link, shown]| LinkOperation::GiveBond { link, shown }),
        any::<[u64; 2]>().prop_map(|[link, number]| LinkOperation::HearBond { link, number }),
        any::<[u64; 2]>().prop_map(|[link, shown]| LinkOperation::PutBackNoticed { link, shown }),
        any_place().prop_map(|MirrorPlace { link, topic, partition, .. }| {
            LinkOperation::PeerParted { link, topic, partition }
        }),
    ]
}

fn any_unit() -> impl Strategy<Value = Unit> {
    (vec(any_precondition(), 0..3), vec(any_operation(), 1..4))
        .prop_map(|(preconditions, operations)| Unit { preconditions, operations })
}

#[test]
fn what_brings_batches_leaves_the_reserve_alone() {
    let has_records =
        |operation: &LinkOperation| Unit::of(Operation::Link(operation.clone())).has_records();
    let bring = golden::link_operations().into_iter().filter(has_records);
    let bring: Vec<LinkOperation> = bring.collect();
    assert!(matches!(bring[..], [LinkOperation::MirrorAppend { .. }]), "{bring:?}");
    assert!(Unit::of(append(0, b"batch")).has_records());
    assert!(!Unit::of(Operation::DeleteTopic { topic: TOPIC }).has_records());
}

#[test]
fn a_batch_says_where_it_lies() {
    let units = [
        Unit { preconditions: Vec::new(), operations: vec![append(0, b"one"), append(1, b"two")] },
        Unit::of(append(2, b"three")),
    ];
    let payload = build(EntryHeader::default(), &units);
    let entry = Entry::decode(payload.clone()).expect("valid");
    let mut found = Vec::new();
    for unit in entry.units() {
        for operation in unit.operations() {
            let Operation::Append { partition, batch, .. } = operation else { continue };
            let at = batch.at() as usize;
            let stored = &payload[at..at + batch.len() as usize];
            assert_eq!(stored, &batch.bytes()[..]);
            assert_eq!(stored.as_ptr(), batch.bytes().as_ptr(), "it is not a copy");
            assert_eq!(batch.crc(), crc32c::crc32c(stored));
            found.push((partition.0, stored.to_vec()));
        }
    }
    assert_eq!(found, [(0, b"one".to_vec()), (1, b"two".to_vec()), (2, b"three".to_vec())]);
}

#[test]
fn the_header_can_be_read_alone() {
    let header = EntryHeader { wall_ms: 5, claim: 6, age_ms: 7 };
    let payload = build(header, &[Unit::of(Operation::Noop)]);
    assert_eq!(EntryHeader::peek(&payload[..ENTRY_HEADER_BYTES]), Some(header));
    assert_eq!(EntryHeader::peek(&payload[..ENTRY_HEADER_BYTES - 1]), None);
    assert_eq!(EntryHeader::peek(b""), None);
}

#[test]
fn the_unknown_has_a_name_and_a_code() {
    let good = build(EntryHeader::default(), &[Unit::of(Operation::Noop)]);
    let decode = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        Entry::decode(Bytes::from(bytes)).expect_err("refused")
    };
    let item = ENTRY_HEADER_BYTES + UNIT_HEADER_BYTES;

    let error = decode(&|bytes| bytes[0] = 3);
    assert_eq!(error, EntryError::UnknownVersion(3));
    assert_eq!(error.exit_code(), ExitCode::UnknownEntry);
    let error = decode(&|bytes| bytes[item] = 99);
    assert_eq!(error, EntryError::UnknownOperation { kind: 99, version: 1, at: item });
    assert_eq!(error.exit_code(), ExitCode::UnknownEntry);
    let error = decode(&|bytes| bytes[item + 1] = 2);
    assert_eq!(error, EntryError::UnknownOperation { kind: 1, version: 2, at: item });
    let error = decode(&|bytes| {
        // The same item taken for a precondition, with a noop behind it.
        bytes[ENTRY_HEADER_BYTES] += 6;
        bytes[ENTRY_HEADER_BYTES + 4] = 1;
        bytes[item] = 9;
        bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0]);
    });
    assert_eq!(error, EntryError::UnknownPrecondition { kind: 9, version: 1, at: item });
    assert_eq!(error.exit_code(), ExitCode::UnknownEntry);
}

#[test]
fn what_is_malformed_is_damage() {
    const ITEM: usize = ENTRY_HEADER_BYTES + UNIT_HEADER_BYTES;
    let good = build(EntryHeader::default(), &[Unit::of(append(1, b"x"))]);
    type Change = (&'static str, &'static dyn Fn(&mut Vec<u8>));
    let changes: &[Change] = &[
        ("nothing", &|bytes| bytes.clear()),
        ("a byte less", &|bytes| bytes.truncate(bytes.len() - 1)),
        ("a byte more", &|bytes| bytes.push(0)),
        ("no units", &|bytes| bytes[4] = 0),
        ("more units", &|bytes| bytes[4] = 2),
        ("2^32 - 1 units", &|bytes| bytes[4..8].fill(0xff)),
        ("zeros that are not", &|bytes| bytes[2] = 1),
        ("a longer unit", &|bytes| bytes[ENTRY_HEADER_BYTES] += 1),
        ("a unit of 4 GiB", &|bytes| bytes[ENTRY_HEADER_BYTES..][..4].fill(0xff)),
        ("a shorter unit", &|bytes| bytes[ENTRY_HEADER_BYTES] -= 1),
        ("no operation", &|bytes| bytes[ENTRY_HEADER_BYTES + 6] = 0),
        ("more operations", &|bytes| bytes[ENTRY_HEADER_BYTES + 6] = 2),
        ("a longer item", &|bytes| bytes[ITEM + 2] += 1),
        ("an item of 4 GiB", &|bytes| bytes[ITEM + 2..ITEM + 6].fill(0xff)),
        ("a shorter item", &|bytes| bytes[ITEM + 2] -= 1),
    ];
    for (what, change) in changes {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        let error = Entry::decode(Bytes::from(bytes)).expect_err(what);
        assert_eq!(error.exit_code(), ExitCode::Damaged, "{what}: {error}");
    }
    let huge = Bytes::from(vec![0; limits::ENTRY_BYTES_MAX + 1]);
    assert!(Entry::decode(huge).is_err());
}

#[test]
fn text_that_is_not_utf8_is_damage() {
    let unit = Unit {
        preconditions: vec![Precondition::Fence { name: "abc".into(), number: 1 }],
        operations: vec![Operation::Noop],
    };
    let mut bytes = build(EntryHeader::default(), &[unit]).to_vec();
    let name = bytes.windows(3).position(|window| window == b"abc").expect("there");
    bytes[name] = 0xff;
    assert!(matches!(Entry::decode(Bytes::from(bytes)), Err(EntryError::Malformed { .. })));
}

#[test]
fn a_builder_stops_at_its_target_and_never_passes_the_limit() {
    for segment_bytes in [SEGMENT_BYTES_MIN, 1 << 20, SEGMENT_BYTES_DEFAULT] {
        let batch_max = limits::batch_bytes_max(segment_bytes);
        let mut builder = EntryBuilder::new(segment_bytes);
        assert!(builder.is_empty() && !builder.is_full());
        // One byte below the target, then the largest batch that a client may send.
        let rest = limits::entry_target_bytes(segment_bytes)
            - ENTRY_HEADER_BYTES
            - Unit::of(append(0, b"")).encoded_len()
            - 1;
        builder.push(&Unit::of(append(0, &vec![1; rest]))).expect("room");
        assert!(!builder.is_full());
        builder.push(&Unit::of(append(0, &vec![2; batch_max]))).expect("one more");
        assert!(builder.is_full());
        assert_eq!(builder.push(&Unit::of(Operation::Noop)), Err(PushError::Full));
        assert_eq!(builder.unit_count(), 2);
        let len = builder.len_bytes();
        let payload = builder.finish(EntryHeader::default());
        assert_eq!(payload.len(), len);
        assert!(len <= limits::entry_bytes_max(segment_bytes));
        assert_eq!(Entry::decode(payload).expect("valid").unit_count(), 2);
    }
}

#[test]
fn units_that_fit_no_entry_are_refused_and_leave_it_alone() {
    let mut builder = EntryBuilder::new(SEGMENT_BYTES_MIN);
    let max = unit_bytes_max(SEGMENT_BYTES_MIN);
    let unit = Unit::of(append(0, &vec![0; max]));
    let bytes = unit.encoded_len();
    assert_eq!(builder.push(&unit), Err(PushError::TooLarge { bytes, max }));
    assert_eq!(builder.push(&Unit::default()), Err(PushError::NotEncodable));
    let name = "n".repeat(70_000);
    let create = Operation::CreateTopic { topic: TOPIC, name, partitions: 1, configs: Vec::new() };
    assert_eq!(builder.push(&Unit::of(create)), Err(PushError::NotEncodable));
    assert!(builder.is_empty());
    assert_eq!(builder.len_bytes(), ENTRY_HEADER_BYTES);
}

#[test]
fn no_mutation_panics_and_what_decodes_encodes_to_the_same_bytes() {
    let units = [
        Unit {
            preconditions: vec![Precondition::Fence { name: "link".into(), number: 3 }],
            operations: vec![append(1, b"some bytes"), Operation::Noop],
        },
        Unit::of(Operation::CreateTopic {
            topic: TOPIC,
            name: "topic".into(),
            partitions: 4,
            configs: vec![("cleanup.policy".into(), "delete".into())],
        }),
    ];
    let good = build(EntryHeader { wall_ms: 1, claim: 2, age_ms: 3 }, &units);
    let mut random = random(0x5eed);
    let mut decoded = 0;
    for _ in 0..200_000 {
        let mut bytes = good.to_vec();
        mutate(&mut bytes, &mut random);
        let Ok(entry) = Entry::decode(Bytes::from(bytes)) else { continue };
        let units: Vec<Unit> = entry.units().map(|unit| unit.to_unit()).collect();
        assert_eq!(&build(entry.header(), &units), entry.payload());
        decoded += 1;
    }
    // Changes inside a batch or a number leave a valid entry: both outcomes must have been seen.
    assert!((1_000..199_000).contains(&decoded), "{decoded}");
}

proptest! {
    #[test]
    fn entries_read_back(units in vec(any_unit(), 1..8), header: (u64, u64, u64)) {
        let (wall_ms, claim, age_ms) = header;
        let header = EntryHeader { wall_ms, claim, age_ms };
        let payload = build(header, &units);
        prop_assert_eq!(&build(header, &units), &payload, "same input, same bytes");
        let entry = Entry::decode(payload.clone()).expect("valid");
        prop_assert_eq!(entry.header(), header);
        prop_assert_eq!(EntryHeader::peek(&payload), Some(header));
        prop_assert_eq!(entry.units().len(), units.len());
        for (read, unit) in entry.units().zip(&units) {
            prop_assert_eq!(usize::from(read.precondition_count()), unit.preconditions.len());
            prop_assert_eq!(usize::from(read.operation_count()), unit.operations.len());
            prop_assert_eq!(&read.to_unit(), unit);
        }
    }

    #[test]
    fn every_cut_of_an_entry_is_refused(units in vec(any_unit(), 1..4)) {
        let payload = build(EntryHeader::default(), &units);
        for len in 0..payload.len() {
            prop_assert!(Entry::decode(payload.slice(..len)).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Entry::decode(Bytes::from(bytes.clone()));
        // Behind a good header, so that the units are reached.
        let mut entry = vec![ENTRY_VERSION, 0, 0, 0, 1, 0, 0, 0];
        entry.extend_from_slice(&bytes);
        let _ = Entry::decode(Bytes::from(entry));
    }
}

#[test]
fn an_entry_whose_size_was_announced_keeps_no_spare_memory() {
    for batch_bytes in [1, 200, 5_000, 300_000] {
        let unit = Unit::of(append(0, &vec![1; batch_bytes]));
        let mut builder = EntryBuilder::new(SEGMENT_BYTES_DEFAULT);
        builder.reserve(unit.encoded_len());
        builder.push(&unit).expect("fits");
        let payload = builder.finish(EntryHeader::default());
        let len = payload.len();
        let kept = payload.try_into_mut().expect("nobody else has it").capacity();
        assert!(kept <= len + ENTRY_HEADER_BYTES + 64, "{len} bytes keep {kept}");
    }
}

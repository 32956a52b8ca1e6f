//! Random histories: properties that hold whatever is asked for, and proofs that the histories do something.

use super::*;
use proptest::strategy::ValueTree;

/// A change of a setting: mostly of one that lets records go, at times of one that is refused.
fn setting() -> impl Strategy<Value = (String, Option<String>)> {
    let text = |text: &str| text.to_owned();
    prop_oneof![
        6 => (0u64..500).prop_map(move |bytes| (text("retention.bytes"), Some(bytes.to_string()))),
        6 => (0u64..2_000).prop_map(move |ms| (text("retention.ms"), Some(ms.to_string()))),
        4 => (0usize..3).prop_map(move |at| {
            let policy = budget::BudgetPolicy::ALL[at].name();
            (text(budget::BUDGET_POLICY), Some(text(policy)))
        }),
        2 => Just((text("retention.bytes"), None)),
        2 => Just((text("retention.ms"), None)),
        1 => Just((text(topics::CHAIN_KEY_CONFIG), Some(text("other")))),
        1 => Just((text("retention.ms"), Some("9".repeat(topics::TOPIC_CONFIG_BYTES_MAX + 1)))),
    ]
}

/// What a place of a random history means in a state: `link` is how far off the number of the link is,
/// `offset` how far off the next offset.
fn resolved(state: &State, mut unit: Unit) -> Unit {
    let number = state.link("north").map_or(0, |link| link.number);
    for operation in &mut unit.operations {
        if let Operation::Pipeline(operation) = operation {
            pipelines::resolve(state, operation);
        }
        let Operation::Link(
            LinkOperation::MirrorAppend { place, .. }
            | LinkOperation::MirrorSkip { place, .. }
            | LinkOperation::PeerHas { place },
        ) = operation
        else {
            continue;
        };
        let topic = state.topics().get(place.topic);
        let known = topic.and_then(|topic| state.partition(topic.stream(place.partition)?));
        place.link += number;
        let next = known.map_or(0, |known| known.next.0);
        place.offset.0 = place.offset.0.wrapping_add(next).min(next + 9);
        let at = place.offset;
        if let Operation::Link(LinkOperation::MirrorSkip { to, missing, .. }) = operation {
            missing.count = to.0;
            to.0 += at.0;
        }
    }
    unit
}

/// Mostly none.
pub(super) fn off() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0u64), 1 => 1u64..4]
}

/// A step about a link, a rule or one of two mirrors.
fn mirroring() -> impl Strategy<Value = Operation> {
    let place = || {
        (off(), 0u8..2, off(), any::<u8>())
            .prop_map(|(number, n, offset, tag)| mirrors::place(number, 10 + n, offset, tag))
    };
    prop_oneof![
        1 => proptest::option::of(any::<bool>()).prop_map(mirrors::set_link),
        1 => (0u8..3).prop_map(|n| mirrors::rule(n, &["eu"])),
        1 => (0u8..2).prop_map(|n| mirrors::create_mirror(10 + n)),
        6 => (place(), 1i32..3)
            .prop_map(|(place, records)| mirrors::mirror_append(place, batch(-1, -1, -1, records, 3))),
        2 => (place(), 0u64..12).prop_map(|(place, to)| mirrors::skip(place, to)),
        1 => place().prop_map(mirrors::peer_has),
        // Of topics that are no mirrors, and may go.
        3 => (0u8..3, off(), any::<u8>(), off()).prop_map(|(n, number, tag, behind)| {
            let place = mirrors::place(number, n, behind.wrapping_sub(3), tag);
            mirrors::peer_has(place)
        }),
        1 => (0u8..2).prop_map(|n| Operation::DeleteTopic { topic: topic_id(10 + n) }),
    ]
}

/// A step of a random history, over few names so that steps meet.
fn operation() -> impl Strategy<Value = Operation> {
    let small = 0u8..3;
    prop_oneof![
        2 => (small.clone(), 0u32..4).prop_map(|(n, partitions)| create(n, partitions)),
        1 => small.clone().prop_map(|n| Operation::DeleteTopic { topic: topic_id(n) }),
        12 => (small.clone(), 0u32..3, 0i64..3, 0i16..2, 0i32..6, 1i32..3).prop_map(
            |(n, partition, producer, epoch, first, records)| {
                append(n, partition, batch(producer, epoch, first, records, i64::from(first)))
            }
        ),
        4 => (small.clone(), 0u32..3, 1i32..9)
            .prop_map(|(n, partition, records)| append(n, partition, batch(-1, -1, -1, records, 3))),
        1 => Just(Operation::InitProducer { request: Uuid::NIL }),
        1 => Just(Operation::Noop),
        1 => (0u64..1_000).prop_map(|idle_ms| Operation::ExpireProducers { idle_ms }),
        1 => proptest::collection::vec(any::<u8>(), 0..80)
            .prop_map(|bytes| append(0, 0, bytes.into())),
        3 => (small.clone(), 0u32..3, 0u64..20)
            .prop_map(|(n, partition, offset)| advance(n, partition, offset)),
        2 => mirroring(),
        3 => pipelines::piping(),
        2 => (small, any::<bool>(), proptest::collection::vec(setting(), 0..3)).prop_map(
            |(n, replaces, changes)| {
                Operation::AlterTopic { topic: topic_id(n), replaces, changes }
            }
        ),
    ]
}

fn unit() -> impl Strategy<Value = Unit> {
    let preconditions = prop_oneof![
        4 => Just(Vec::new()),
        1 => (0u64..4).prop_map(|number| {
            vec![Precondition::Fence { name: "link".to_owned(), number }]
        }),
        1 => (0u8..3, 0u64..10).prop_map(|(n, offset)| vec![Precondition::ExpectedOffset {
            topic: topic_id(n),
            partition: PartitionIndex(0),
            offset: Offset(offset),
        }]),
    ];
    (preconditions, proptest::collection::vec(operation(), 1..4))
        .prop_map(|(preconditions, operations)| Unit { preconditions, operations })
}

/// The histories below do what they are there for.
#[test]
fn random_histories_fill_mirrors() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut site = Site::with_producers();
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for _ in 0..3_000 {
        let step = mirroring().new_tree(&mut runner).expect("a step").current();
        let unit = resolved(&site.state, Unit::of(step));
        let UnitResult::Done(results) = site.unit(unit) else { continue };
        for result in results {
            let what = match result {
                OperationResult::Appended { .. } => "appended",
                OperationResult::Skipped => "skipped",
                OperationResult::PeerNoted => "noted",
                _ => continue,
            };
            *seen.entry(what).or_default() += 1;
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|times| *times >= 5), "{seen:?}");
}

#[test]
fn random_histories_run_pipelines() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut site = Site::with_producers();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for at in 0..12_000 {
        let step = match at % 4 {
            0 => operation().new_tree(&mut runner).expect("a step").current(),
            _ => pipelines::piping().new_tree(&mut runner).expect("a step").current(),
        };
        let Operation::Pipeline(operation) = &step else {
            site.unit(resolved(&site.state, Unit::of(step)));
            continue;
        };
        let kind = format!("{operation:?}");
        let kind = kind.split([' ', '{']).next().unwrap_or_default().to_owned();
        if let UnitResult::Done(_) = site.unit(resolved(&site.state, Unit::of(step))) {
            *seen.entry(kind).or_default() += 1;
        }
    }
    assert!(seen.len() == 10 && seen.values().all(|times| *times >= 5), "{seen:?}");
}

#[test]
fn random_histories_reach_budgets() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut site = Site::with_producers();
    site.one(mirrors::set_link(Some(false))).expect("set");
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for _ in 0..36_000 {
        let step = operation().new_tree(&mut runner).expect("a step").current();
        let unit = resolved(&site.state, Unit::of(step));
        let what = match site.unit(unit) {
            UnitResult::Refused(Refusal::BudgetReached) => "refused",
            UnitResult::Done(results) => match results[0] {
                OperationResult::NotKept { .. } => "not kept",
                OperationResult::StartMoved { missing: 1.., .. } => "went unsent",
                _ => continue,
            },
            UnitResult::Refused(_) => continue,
        };
        *seen.entry(what).or_default() += 1;
    }
    assert!(seen.len() == 3 && seen.values().all(|times| *times >= 2), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Two machines, one of which is replaced by its own snapshot at random moments, answer alike
    /// and are alike.
    #[test]
    fn a_restored_machine_is_the_same_machine(
        entries in proptest::collection::vec(
            (proptest::collection::vec(unit(), 1..4), 0u64..3, any::<bool>(), 0u64..2_000),
            1..40,
        ),
    ) {
        let mut one = Site::with_producers();
        let mut other = Site::with_producers();
        for (units, term_step, restore, wall_ms) in entries {
            for site in [&mut one, &mut other] {
                site.term += term_step / 2;
                site.wall_ms = wall_ms;
            }
            let units: Vec<Unit> =
                units.into_iter().map(|unit| resolved(&one.state, unit)).collect();
            let applied = one.entry(units.clone());
            prop_assert_eq!(applied, other.entry(units));
            if restore {
                let sections = other.state.snapshot();
                other.state.replace(State::restore(&sections).expect("restores"));
            }
            prop_assert_eq!(one.state.hash(), other.state.hash());
            prop_assert_eq!(one.state.snapshot(), other.state.snapshot());
        }
    }

    /// A unit that is refused leaves the very same sections behind, apart from the time.
    #[test]
    fn a_refused_unit_leaves_no_trace(units in proptest::collection::vec(unit(), 1..60)) {
        let mut site = Site::with_producers();
        for unit in units {
            let unit = resolved(&site.state, unit);
            let before = site.state.snapshot();
            if let UnitResult::Refused(_) = site.unit(unit) {
                let after = site.state.snapshot();
                for (before, after) in before.iter().zip(&after).filter(|(b, _)| b.id != META) {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    /// Whoever proposes it and whenever, a start moves no further than what the settings and the age
    /// at its own entry allow.
    #[test]
    fn nothing_goes_that_retention_keeps(
        operations in proptest::collection::vec((operation(), 0u64..300), 1..80),
    ) {
        let mut site = Site::with_producers();
        for (operation, ms) in operations {
            site.wall_ms += ms;
            let before = site.state.clone();
            let unit = resolved(&before, Unit::of(operation));
            for (stream, start) in site.entry(vec![unit]).moved_starts {
                // A mirror that has nothing begins behind its first gap.
                let is_empty = |known: &partitions::Partition| known.log_start == known.next;
                if before.tag(stream).is_some() && before.partition(stream).is_some_and(is_empty) {
                    continue;
                }
                let mut topics = before.topics().iter();
                let topic = topics.find(|topic| topic.streams().any(|known| known == stream));
                let topic = topic.expect("its start was moved");
                // The state of a pipeline goes when its deltas do.
                if fulmar_types::pipeline::is_internal(&topic.name) {
                    continue;
                }
                let allowed = before.due_start(topic, stream, site.state.age_ms());
                // What has a budget makes room, of what was delivered.
                let room = topic.keeping.bytes_max().map(|_| before.delivered(topic, stream));
                prop_assert!(allowed.max(room).is_some_and(|allowed| start <= allowed));
            }
        }
    }

    /// Offsets are dense, and no sequence number of a producer is stored twice.
    #[test]
    fn offsets_are_dense_and_nothing_is_stored_twice(
        units in proptest::collection::vec(unit(), 1..80),
    ) {
        let mut site = Site::with_producers();
        let mut next = std::collections::BTreeMap::<StreamId, u64>::new();
        for unit in units {
            let unit = resolved(&site.state, unit);
            let mirrors: Vec<StreamId> = site.state.mirrored().collect();
            for row in site.entry(vec![unit]).rows {
                let end = next.entry(row.stream).or_default();
                // Mirrors have gaps, and so has what was not kept.
                let is_mirror =
                    mirrors.contains(&row.stream) || site.state.tag(row.stream).is_some();
                let marked: Vec<_> = site.state.gaps(row.stream).collect();
                let is_marked = |at| marked.iter().any(|gap| (gap.first.0..gap.end.0).contains(&at));
                // What was deleted in the same unit has taken its markers along.
                if !is_mirror && site.state.partition(row.stream).is_some() {
                    prop_assert!((*end..row.base_offset.0).all(is_marked));
                }
                prop_assert!(row.base_offset.0 >= *end);
                *end = row.base_offset.0 + u64::from(row.records);
            }
        }
    }

    #[test]
    fn hostile_sections_never_panic(
        id in 1u32..=22,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut sections = State::default().snapshot();
        sections[id as usize - 1].bytes = bytes.into();
        drop(State::restore(&sections));
    }
}

//! Operators against a plain, slow reference: random pipelines over random epochs give the same records in
//! the same order, and the same fates, whatever the batches are and however often the state is taken out
//! and put into a new engine.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | random pipelines and inputs, and their SQL |
//! | [`model`] | the reference: after each epoch it looks at everything again from the start |
//!
//! Invariant: the reference shares no code with the operators, not even the parser.

mod model;
mod spec;

use fulmar_flow::{Change, Engine, Fates, Record, Written, plan};
use model::Came;
use proptest::prelude::*;
use spec::{Case, Input};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the engine gives, in the form of the reference.
fn came(written: &Written) -> Came {
    let text = |bytes: &Option<bytes::Bytes>| {
        bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    Came {
        topic: written.topic.to_string(),
        key: text(&written.key),
        value: text(&written.value).unwrap_or_else(|| "NULL".to_owned()),
    }
}

fn record(input: &Input) -> Arc<Record> {
    Arc::new(Record {
        partition: input.partition,
        offset: input.offset,
        timestamp: input.at,
        key: Some(input.key().into()),
        headers: Vec::new(),
        value: input.payload().map(Into::into),
    })
}

/// By topic, since the order between topics says nothing.
fn by_topic(came: Vec<Came>) -> BTreeMap<String, Vec<Came>> {
    let mut topics: BTreeMap<String, Vec<Came>> = BTreeMap::new();
    for one in came {
        topics.entry(one.topic.clone()).or_default().push(one);
    }
    topics
}

/// How an engine is driven.
#[derive(Clone, Copy, Debug)]
struct Driving {
    /// Records of a batch.
    batch: usize,
    /// After every epoch a new engine goes on from a snapshot at the start and the deltas since then.
    taken_over: bool,
}

struct Driven {
    /// What came in each epoch.
    came: Vec<Vec<Written>>,
    fates: BTreeMap<(String, u32), Fates>,
    state: Vec<Change>,
}

fn drive(case: &Case, driving: Driving) -> Driven {
    let text = case.sql();
    let plan = plan(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    let plan = Arc::new(plan);
    let partitions: BTreeMap<String, u32> =
        [("in".to_owned(), spec::PARTITIONS), ("devices".to_owned(), 1)].into();
    let mut engine = Engine::new(Arc::clone(&plan), &partitions);
    let mut log: Vec<Change> = engine.snapshot();
    let mut all = Vec::new();
    for (at, epoch) in case.epochs.iter().enumerate() {
        for (topic, inputs) in [("devices", &epoch.devices), ("in", &epoch.inputs)] {
            let records: Vec<Arc<Record>> = inputs.iter().map(record).collect();
            for batch in records.chunks(driving.batch) {
                engine.batch(topic, batch).expect("no record stops it");
            }
        }
        let is_last = at + 1 == case.epochs.len() && case.ends;
        all.push(engine.end_epoch(epoch.age_ms, is_last).expect("no result stops it"));
        if driving.taken_over {
            log.extend(engine.delta());
            let mut next = Engine::new(Arc::clone(&plan), &partitions);
            next.load(&log).expect("what was stored");
            assert_eq!(next.snapshot(), engine.snapshot());
            engine = next;
        }
    }
    let fates = engine.fates().map(|(reader, partition, fates)| {
        let name = &plan.sources[plan.readers[reader as usize]].name;
        ((name.clone(), partition), fates)
    });
    let fates = fates.collect();
    Driven { came: all, fates, state: engine.snapshot() }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let whole = drive(case, Driving { batch: usize::MAX, taken_over: false });
    let expected = model::run(case);
    for (at, (came_now, expected)) in whole.came.iter().zip(&expected.epochs).enumerate() {
        let came_now = by_topic(came_now.iter().map(came).collect());
        prop_assert_eq!(&came_now, &by_topic(expected.clone()), "epoch {} of\n{}", at, case.sql());
    }
    for (place, fates) in &whole.fates {
        prop_assert_eq!(fates.sum(), fates.read, "{:?}", place);
        let expected = expected.fates.get(place).copied().unwrap_or_default();
        prop_assert_eq!(*fates, expected, "{:?} of\n{}", place, case.sql());
    }
    for driving in [
        Driving { batch: 1, taken_over: false },
        Driving { batch: 3, taken_over: true },
        Driving { batch: usize::MAX, taken_over: true },
    ] {
        let other = drive(case, driving);
        prop_assert_eq!(&other.came, &whole.came, "{:?}", driving);
        prop_assert_eq!(&other.fates, &whole.fates, "{:?}", driving);
        prop_assert_eq!(&other.state, &whole.state, "{:?}", driving);
    }
    Ok(())
}

/// Not many unless told, since this runs at every change: `PROPTEST_CASES=50000` looks longer.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .map_or(128, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn operators_equal_the_reference(case in spec::case()) {
        check(&case)?;
    }
}

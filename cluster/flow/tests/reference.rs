//! Operators against a plain, slow reference: random pipelines over random epochs give the same records in
//! the same order, and the same fates, whatever the batches are and however often the state is taken out
//! and put into a new engine; and so they do however the work is cut into subtasks, how little the channels between them
//! hold, in which order they work, and how far the sources have gone on while an epoch is still under way.
//!
//! The reference is `tests/reference`, which shares no code with the operators, not even the parser.

use fulmar_flow::{
    Change, Cursor, Cutter, Cutting, Engine, Fates, Layout, OutputBatch, Plan, Record, Written,
    plan,
};
use fulmar_reference::model::{self, ByReader, Came};
use fulmar_reference::spec::{Case, Epoch, Input, Shape, Windows};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Partitions of the stream.
const PARTITIONS: u32 = 3;

/// What the engine gives, in the form of the reference.
fn came(written: &Written) -> Came {
    let text = |bytes: &Option<bytes::Bytes>| {
        bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let told = |name: &str| {
        let found = written.headers.iter().find(|(known, _)| &**known == name);
        found.and_then(|(_, value)| text(value))
    };
    let place = told("fulmar.partition").zip(told("fulmar.offset"));
    let number = |text: String| text.parse::<u32>().expect("a number");
    Came {
        topic: written.topic.to_string(),
        key: text(&written.key),
        value: text(&written.value).unwrap_or_else(|| "NULL".to_owned()),
        at: written.timestamp,
        from: place.map(|(partition, offset)| (number(partition), number(offset).into())),
        is_by_zero: told("fulmar.reason").as_deref() == Some("division by zero"),
        behind: told("fulmar.reader").and_then(|name| Some(name.split(' ').next()?.to_owned())),
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
        damage: None,
        is_retried: false,
    })
}

/// What the engine counts, in the form of the reference.
fn in_words(fates: &Fates) -> model::Fates {
    model::Fates {
        read: fates.read,
        passed: fates.passed,
        filtered: fates.filtered,
        late: fates.late,
        dead_lettered: fates.dead_lettered,
        dropped: fates.dropped,
        absorbed: fates.absorbed,
        held: fates.held,
    }
}

/// By topic, since the order between topics says nothing.
fn by_topic(came: Vec<Came>) -> BTreeMap<String, Vec<Came>> {
    let mut topics: BTreeMap<String, Vec<Came>> = BTreeMap::new();
    for one in came {
        topics.entry(one.topic.clone()).or_default().push(one);
    }
    topics
}

fn in_batches(written: &[Written]) -> Vec<OutputBatch> {
    let partitions = [("out".to_owned(), 3)].into();
    let cutting = Cutting { partitions: &partitions, epoch: 7, batch_bytes_max: 600 };
    let mut cutter = Cutter::new(cutting);
    written.iter().for_each(|one| cutter.push(one));
    cutter.batches().collect()
}

/// How an engine is driven.
#[derive(Clone, Copy, Debug)]
struct Driving {
    /// Records of a batch.
    batch: usize,
    /// After every epoch a new engine goes on from what was stored of the state.
    taken_over: Option<Storing>,
    /// How the work of the first engine is cut.
    layout: Layout,
    /// How that of every other one is.
    other: Layout,
}

impl Driving {
    fn new(batch: usize, taken_over: Option<Storing>) -> Self {
        Self { batch, taken_over, layout: Layout::default(), other: Layout::default() }
    }
}

/// What is stored of the state after every epoch.
#[derive(Clone, Copy, Debug)]
enum Storing {
    /// A delta, behind a snapshot at the start.
    Deltas,
    /// A delta and a slice of so many bytes, taken out in pieces; what was stored before the slices that have
    /// come around goes.
    Slices(usize),
}

/// What is stored of the state.
#[derive(Default)]
struct Stored {
    /// What was stored after each epoch.
    parts: Vec<Vec<Change>>,
    /// Where the last slice ended, and with which epoch the slices began.
    round: Option<(Option<Cursor>, usize)>,
}

impl Stored {
    fn store(&mut self, engine: &mut Engine, storing: Storing) {
        let Storing::Slices(bytes_max) = storing else {
            if self.parts.is_empty() {
                self.parts.push(engine.snapshot());
            }
            return self.parts.push(engine.delta(usize::MAX));
        };
        let mut part = Vec::new();
        loop {
            let piece = engine.delta(bytes_max / 3);
            if piece.is_empty() {
                break;
            }
            part.extend(piece);
        }
        let now = self.parts.len();
        let (after, begun) = self.round.take().unwrap_or((None, now));
        let (piece, cursor) = engine.slice(after.as_ref(), bytes_max);
        part.extend(piece);
        self.parts.push(part);
        match cursor {
            Some(cursor) => self.round = Some((Some(cursor), begun)),
            None => self.parts[..begun].iter_mut().for_each(Vec::clear),
        }
    }
}

fn engine(plan: &Arc<Plan>, layout: Layout) -> Engine {
    let partitions = [("in".to_owned(), PARTITIONS), ("devices".to_owned(), 1)].into();
    Engine::new(Arc::clone(plan), &partitions).laid_out(layout)
}

fn taken_over<'a>(
    plan: &Arc<Plan>,
    layout: Layout,
    parts: impl IntoIterator<Item = &'a Vec<Change>>,
) -> Engine {
    let mut next = engine(plan, layout);
    for part in parts {
        next.load(part).expect("what was stored");
    }
    next.loaded();
    next
}

/// Nothing happens before the age that an engine says, and something does then.
fn check_idle(plan: &Arc<Plan>, now: &Engine, age_ms: u64) {
    let Some(next) = now.next_idle_age(age_ms) else { return };
    let watermarks = |engine: &Engine| -> Vec<Option<i64>> {
        (0..plan.sources.len()).map(|source| engine.watermark(source)).collect()
    };
    let state = now.snapshot();
    if next > age_ms + 1 {
        let mut early = taken_over(plan, Layout::default(), [&state]);
        let written = early.end_epoch(next - 1, false).expect("no result stops it");
        assert_eq!(written, Vec::new(), "at {} after {age_ms}", next - 1);
        assert_eq!(watermarks(&early), watermarks(now));
    }
    let mut then = taken_over(plan, Layout::default(), [&state]);
    then.end_epoch(next, false).expect("no result stops it");
    let is_freed = plan.sources.iter().any(|source| source.primary.is_some());
    assert!(watermarks(&then) != watermarks(now) || is_freed, "at {next} after {age_ms}");
    assert!(then.next_idle_age(next).is_none_or(|later| later > next), "once");
}

struct Driven {
    /// What came in each epoch.
    came: Vec<Vec<Written>>,
    /// By reader and partition.
    fates: BTreeMap<(u32, u32), Fates>,
    state: Vec<Change>,
}

impl Driven {
    fn new(engine: &Engine, came: Vec<Vec<Written>>) -> Self {
        let fates = engine.fates().map(|(reader, partition, of)| ((reader, partition), of));
        Self { came, fates: fates.collect(), state: engine.snapshot() }
    }
}

fn plan_of(case: &Case) -> Arc<Plan> {
    let text = case.sql();
    Arc::new(plan(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}")))
}

/// The records of an epoch, in batches.
fn batches(epoch: &Epoch, batch: usize) -> Vec<(&'static str, Vec<Arc<Record>>)> {
    let mut batches = Vec::new();
    for (topic, inputs) in [("devices", &epoch.devices), ("in", &epoch.inputs)] {
        for inputs in inputs.chunks(batch) {
            batches.push((topic, inputs.iter().map(record).collect()));
        }
    }
    batches
}

/// Numbers that follow from a seed.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, count: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % count as u64) as usize
    }
}

/// Says what an epoch leaves unread.
fn leave(engine: &mut Engine, epoch: &Epoch) {
    epoch.unread.iter().for_each(|partition| engine.leave("in", *partition));
    if epoch.leaves_devices {
        engine.leave("devices", 0);
    }
}

/// Records are given while up to three epochs are under way, and the engine works a little in between.
fn overlap(case: &Case, layout: Layout, seed: u64) -> Driven {
    fn collect(engine: &mut Engine, rows: usize, all: &mut Vec<Vec<Written>>) {
        let ended = engine.end_some(rows).expect("no result stops it");
        all.extend(ended.map(Iterator::collect));
    }
    let plan = plan_of(case);
    let (mut engine, mut drawn) = (engine(&plan, layout), Drawn(seed));
    let (mut all, mut ended) = (Vec::new(), 0);
    for (at, epoch) in case.epochs.iter().enumerate() {
        for (topic, records) in batches(epoch, 1 + drawn.below(5)) {
            engine.give(topic, &records);
            let rows = drawn.below(6);
            match ended > all.len() {
                true => collect(&mut engine, rows, &mut all),
                false => drop(engine.work(rows)),
            }
        }
        leave(&mut engine, epoch);
        engine.begin_end(epoch.age_ms, at + 1 == case.epochs.len() && case.ends);
        ended += 1;
        let most = drawn.below(4);
        while ended - all.len() > most {
            collect(&mut engine, 1 + drawn.below(9), &mut all);
        }
    }
    while ended > all.len() {
        collect(&mut engine, 1 + drawn.below(9), &mut all);
    }
    Driven::new(&engine, all)
}

fn drive(case: &Case, driving: Driving) -> Driven {
    let plan = plan_of(case);
    let mut engine = engine(&plan, driving.layout);
    let mut stored = Stored::default();
    let mut all = Vec::new();
    for (at, epoch) in case.epochs.iter().enumerate() {
        for (topic, records) in batches(epoch, driving.batch) {
            engine.batch(topic, &records).expect("no record stops it");
        }
        let is_last = at + 1 == case.epochs.len() && case.ends;
        leave(&mut engine, epoch);
        engine.begin_end(epoch.age_ms, is_last);
        all.push(loop {
            // As many rows at a time as records.
            if let Some(written) = engine.end_some(driving.batch).expect("no result stops it") {
                break written.collect();
            }
        });
        if let Some(storing) = driving.taken_over {
            stored.store(&mut engine, storing);
            let layout = if at % 2 == 0 { driving.other } else { driving.layout };
            let next = taken_over(&plan, layout, &stored.parts);
            assert_eq!(next.snapshot(), engine.snapshot());
            assert_eq!(next.weight(), engine.weight());
            engine = next;
        } else if !is_last {
            check_idle(&plan, &engine, epoch.age_ms);
        }
    }
    Driven::new(&engine, all)
}

fn equal(other: &Driven, whole: &Driven, how: &impl std::fmt::Debug) -> Result<(), TestCaseError> {
    prop_assert_eq!(&other.came, &whole.came, "{:?}", how);
    prop_assert_eq!(&other.fates, &whole.fates, "{:?}", how);
    prop_assert_eq!(&other.state, &whole.state, "{:?}", how);
    for (one, other) in whole.came.iter().zip(&other.came) {
        prop_assert_eq!(in_batches(one), in_batches(other), "{:?}", how);
    }
    Ok(())
}

/// Each reader says what it should of each partition, and none says anything else.
fn check_fates(case: &Case, whole: &Driven, expected: &ByReader) -> Result<(), TestCaseError> {
    let plan = plan_of(case);
    let sources = plan.readers.iter().map(|source| plan.sources[*source].name.as_str());
    prop_assert_eq!(sources.collect::<Vec<_>>(), case.shape.readers(), "{}", case.sql());
    for (place, fates) in &whole.fates {
        prop_assert_eq!(fates.sum(), fates.read, "{:?}", place);
    }
    for place in whole.fates.keys().chain(expected.keys()) {
        let told = whole.fates.get(place).map(in_words).unwrap_or_default();
        let expected = expected.get(place).copied().unwrap_or_default();
        prop_assert_eq!(told, expected, "reader and partition {:?} of\n{}", place, case.sql());
    }
    Ok(())
}

fn check(case: &Case, layouts: [Layout; 3], seed: u64) -> Result<(), TestCaseError> {
    let whole = drive(case, Driving::new(usize::MAX, None));
    let expected = model::run(case);
    for (at, (came_now, expected)) in whole.came.iter().zip(&expected.epochs).enumerate() {
        let came_now = by_topic(came_now.iter().map(came).collect());
        prop_assert_eq!(&came_now, &by_topic(expected.clone()), "epoch {} of\n{}", at, case.sql());
    }
    check_fates(case, &whole, &expected.fates)?;
    let [layout, other, third] = layouts;
    for driving in [
        Driving::new(1, None),
        Driving::new(3, Some(Storing::Deltas)),
        Driving::new(usize::MAX, Some(Storing::Deltas)),
        Driving::new(2, Some(Storing::Slices(100))),
        Driving::new(7, Some(Storing::Slices(2_000))),
        Driving { layout, ..Driving::new(usize::MAX, None) },
        Driving { layout, other, ..Driving::new(2, Some(Storing::Deltas)) },
        Driving { layout: third, other: layout, ..Driving::new(3, Some(Storing::Slices(200))) },
    ] {
        equal(&drive(case, driving), &whole, &driving)?;
    }
    for layout in [Layout::default(), layout, other, third] {
        equal(&overlap(case, layout, seed), &whole, &(layout, seed))?;
    }
    Ok(())
}

/// Some ways to cut the work.
fn layout() -> impl Strategy<Value = Layout> {
    let channel_rows = prop::sample::select(vec![1, 2, 5, 1_000]);
    (1usize..5, channel_rows, prop::option::weighted(0.8, any::<u64>()))
        .prop_map(|(subtasks, channel_rows, order)| Layout { subtasks, channel_rows, order })
}

fn shape() -> impl Strategy<Value = Shape> {
    let windows = prop_oneof![
        prop::sample::select(vec![1_000, 2_500, 7_000]).prop_map(Windows::Tumble),
        (prop::sample::select(vec![500, 1_000]), 1i64..5).prop_map(|(s, n)| Windows::Hop(s, s * n)),
        prop::sample::select(vec![300, 1_000, 2_000]).prop_map(Windows::Session),
    ];
    prop_oneof![
        1 => Just(Shape::Plain),
        1 => any::<bool>().prop_map(|drops| Shape::Several { drops }),
        2 => any::<bool>().prop_map(|keeps| Shape::Enrich { keeps }),
        4 => (windows, any::<bool>(), 0u64..3)
            .prop_map(|(windows, by_key, having)| Shape::Group { windows, by_key, having }),
        2 => (prop::sample::select(vec![1_000, 3_000]), any::<bool>())
            .prop_map(|(size, keeps)| Shape::Join { size, keeps }),
        2 => (prop::sample::select(vec![1_000, 3_000]), any::<bool>())
            .prop_map(|(size, keeps)| Shape::Pairs { size, keeps }),
    ]
}

/// A record, with its time relative to the epoch.
fn input(is_device: bool) -> impl Strategy<Value = Input> {
    let v = prop_oneof![1 => Just(None), 9 => (-2i64..12).prop_map(Some), 1 => (88i64..92).prop_map(Some)];
    let broken = prop::bool::weighted(if is_device { 0.25 } else { 0.05 });
    (0..PARTITIONS, 0u32..3, v, (-500i64..500, -9i64..9), -4_000i64..3_000, broken).prop_map(
        move |(partition, device, v, (d, f), at, is_broken)| Input {
            partition: if is_device { 0 } else { partition },
            offset: 0,
            number: 0,
            device,
            v,
            d,
            f,
            at,
            is_broken,
            is_device,
            batch: None,
        },
    )
}

/// A pipeline with its input.
fn case() -> impl Strategy<Value = Case> {
    let inputs = prop::collection::vec(input(false), 0..12);
    let devices = prop::collection::vec(input(true), 0..4);
    // Of the partitions, and of the table, as the last one.
    let unread = prop::collection::btree_set(0..=PARTITIONS, 0..2);
    let silent = (0..=PARTITIONS, unread);
    let epoch = (inputs, devices, 1u64..4_000, 0i64..4_000, silent);
    let epochs = prop::collection::vec(epoch, 1..8);
    let idle = prop_oneof![Just(None), Just(Some(500)), Just(Some(5_000))];
    // On a coarse grid times are equal, and sessions touch.
    let grid = prop_oneof![3 => Just(1i64), 1 => Just(100), 1 => Just(500)];
    let drops = prop::bool::weighted(0.2);
    (shape(), (0i64..2_000, idle, any::<bool>(), grid, drops), 0i64..5, any::<bool>(), epochs)
        .prop_map(|(shape, (delay_ms, idle_ms, table_time, grid, drops), least, ends, raw)| {
            let (mut age_ms, mut now) = (0, 10_000);
            let (mut offsets, mut device_offset) = ([0; PARTITIONS as usize], 0);
            let mut epochs = Vec::new();
            for (mut inputs, mut devices, step_ms, ahead, (silent, mut unread)) in raw {
                age_ms += step_ms;
                now += ahead;
                // A partition falls silent now and then.
                inputs.retain(|input| input.partition != silent);
                inputs.sort_by_key(|input| input.partition);
                for input in &mut inputs {
                    let offset = &mut offsets[input.partition as usize];
                    (input.offset, input.at) = (*offset, (now + input.at) / grid * grid);
                    input.number = input.offset.cast_unsigned();
                    *offset += 1;
                }
                for input in &mut devices {
                    (input.offset, input.at) = (device_offset, (now + input.at) / grid * grid);
                    device_offset += 1;
                }
                let leaves_devices = unread.remove(&PARTITIONS);
                epochs.push(Epoch { age_ms, inputs, devices, unread, leaves_devices });
            }
            let (partitions, prefix, from) = (PARTITIONS, String::new(), String::new());
            Case {
                shape,
                delay_ms,
                idle_ms,
                drops,
                table_time,
                least,
                ends,
                partitions,
                prefix,
                from,
                epochs,
            }
        })
}

/// Not many unless told, since this runs at every change: `PROPTEST_CASES=50000` looks longer.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .map_or(128, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn operators_equal_the_reference(
        case in case(),
        layouts in prop::array::uniform3(layout()),
        seed in any::<u64>(),
    ) {
        check(&case, layouts, seed)?;
    }
}

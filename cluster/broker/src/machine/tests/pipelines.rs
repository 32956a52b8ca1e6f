//! Pipelines: what they are, who owns them, their epochs and their state.

use super::random::off;
use super::*;
use crate::machine::changes::ChangeOf;
use crate::machine::pipelines::{Position, Run};
use fulmar_store::entry::{EpochPlace, InputRange, NewPipeline, PipelineChange, PipelineOperation};
use fulmar_types::NodeId;
use fulmar_types::pipeline::{PipelineDefinition, Start, internal_topic};

pub(super) const P: &str = "p";

pub(super) fn definition(inputs: &[u8], outputs: &[u8], shape: u8) -> PipelineDefinition {
    let names = |of: &[u8]| of.iter().map(|n| format!("topic-{n}")).collect();
    PipelineDefinition {
        file: format!("{inputs:?} {outputs:?} {shape}"),
        inputs: names(inputs),
        outputs: names(outputs),
        shape: [shape; 16],
        paused: false,
        latency_ms: 20,
    }
}

pub(super) fn change(name: &str, expected: Option<u64>, change: PipelineChange) -> Operation {
    let (name, who, change) = (name.to_owned(), "erin".to_owned(), Box::new(change));
    Operation::Pipeline(PipelineOperation::Set { name, expected, who, change })
}

pub(super) fn set(name: &str, definition: PipelineDefinition, start: Start) -> Operation {
    let topic = topic_id(200 + name.as_bytes()[0] % 32);
    let new = NewPipeline { topic, secret: [9; 32], definition, start };
    change(name, None, PipelineChange::Set(new))
}

pub(super) fn remove(savepoints: bool) -> Operation {
    change(P, None, PipelineChange::Remove { savepoints })
}

pub(super) fn claim(expected: u64, node: u64) -> Operation {
    let node = Some(NodeId(node)).filter(|node| node.get() > 0);
    Operation::Pipeline(PipelineOperation::Claim { pipeline: P.to_owned(), expected, node })
}

pub(super) fn at(fence: u64, epoch: u64) -> EpochPlace {
    EpochPlace { pipeline: P.to_owned(), fence, epoch }
}

pub(super) fn range(n: u8, partition: u32, from: u64, to: u64) -> InputRange {
    let (topic, partition) = (topic_id(n), PartitionIndex(partition));
    InputRange { topic, partition, from: Offset(from), to: Offset(to), has_more: false }
}

pub(super) fn commit(at: EpochPlace, appends: u32, ranges: Vec<InputRange>) -> Operation {
    let facts = Bytes::from_static(b"facts");
    let (age_ms, hash) = (at.epoch * 10, [at.epoch as u8; 16]);
    Operation::Pipeline(PipelineOperation::Commit { at, age_ms, hash, appends, ranges, facts })
}

pub(super) fn plain(records: i32) -> fulmar_store::entry::Batch {
    batch(-1, -1, -1, records, 5).into()
}

pub(super) fn output(at: EpochPlace, seq: u32, n: u8) -> Operation {
    let (topic, partition, batch) = (topic_id(n), PartitionIndex(0), plain(1));
    Operation::Pipeline(PipelineOperation::Append { at, seq, topic, partition, batch })
}

pub(super) fn part(at: EpochPlace, records: i32) -> Operation {
    Operation::Pipeline(PipelineOperation::Part { at, batch: plain(records) })
}

pub(super) fn done(at: EpochPlace, first: u64, end: u64, keep_from: u64) -> Operation {
    let (first, end) = (Offset(first), Offset(end));
    Operation::Pipeline(PipelineOperation::Done { at, first, end, keep_from })
}

pub(super) fn halt(fence: u64) -> Operation {
    let (pipeline, reason) = (P.to_owned(), "a bad record".to_owned());
    Operation::Pipeline(PipelineOperation::Halt { pipeline, fence, reason })
}

pub(super) fn save(pipeline: Option<&str>) -> Operation {
    let (name, who, pipeline) = ("s".to_owned(), "erin".to_owned(), pipeline.map(str::to_owned));
    Operation::Pipeline(PipelineOperation::SetSavepoint { name, expected: None, who, pipeline })
}

pub(super) fn retry(n: u8) -> Operation {
    let (pipeline, who, topic) = (P.to_owned(), "erin".to_owned(), format!("topic-{n}"));
    Operation::Pipeline(PipelineOperation::Retry { pipeline, who, topic })
}

/// A pipeline with an epoch behind its delta.
pub(super) fn begin_one(site: &mut Site) {
    site.one(create(3, 1)).expect("created");
    site.fill(1, 0, 3);
    site.set(definition(&[1], &[3], 0), Start::Keep).expect("set");
    let fence = site.claim(2);
    site.epoch(fence, 1);
    site.delta(fence, 0);
    site.epoch(fence, 1);
}

/// What a place of a random history means in a state: each number says how far it is off.
pub(super) fn resolve(state: &State, operation: &mut PipelineOperation) {
    let run = state.run(P).cloned().unwrap_or_default();
    let own = |at: &mut EpochPlace, epoch: u64| {
        at.fence += run.fence;
        at.epoch += epoch;
    };
    match operation {
        PipelineOperation::Claim { expected, .. } => *expected += run.fence,
        PipelineOperation::Commit { at, age_ms, ranges, .. } => {
            *age_ms += run.age_ms;
            own(at, run.epoch + 1);
            for range in ranges {
                let stream =
                    state.topics().get(range.topic).and_then(|topic| topic.stream(range.partition));
                let inputs = state.inputs(P).unwrap_or_default();
                let input = inputs.iter().find(|input| Some(input.stream) == stream);
                let start = stream.and_then(|stream| state.partition(stream)).map(|p| p.log_start);
                let letters = state.letters(P).into_iter().map(|of| of.letters);
                let mut letters = letters.filter(|of| Some(of.stream) == stream).map(|of| of.next);
                let at = input.map(|input| input.position.next).or(letters.next_back());
                let next = at.max(start).unwrap_or_default();
                range.from.0 += next.0;
                range.to.0 += range.from.0;
            }
        }
        PipelineOperation::Append { at, seq, .. } => {
            own(at, run.epoch);
            *seq += run.appended;
        }
        PipelineOperation::Part { at, .. } => own(at, run.epoch),
        PipelineOperation::Done { at, first, end, keep_from } => {
            own(at, run.epoch);
            *keep_from += run.delta_epoch;
            let internal = state.topics().by_name(&internal_topic(P));
            let next = internal.and_then(|topic| state.partition(topic.first_stream));
            let next = next.map_or(Offset(0), |partition| partition.next);
            let parts = run.parts.map_or((next, next), |parts| (parts.first, parts.end));
            (first.0, end.0) = (first.0 + parts.0.0, end.0 + parts.1.0);
        }
        PipelineOperation::Halt { fence, .. } => *fence += run.fence,
        PipelineOperation::Set { .. }
        | PipelineOperation::WantDelta { .. }
        | PipelineOperation::SetSavepoint { .. }
        | PipelineOperation::Retry { .. } => {}
    }
}

/// A step about a pipeline from some topics to others, for [`resolve`].
pub(super) fn piping() -> impl Strategy<Value = Operation> {
    let place = || (off(), off()).prop_map(|(fence, epoch)| at(fence, epoch));
    let start = prop_oneof![
        6 => Just(Start::Keep),
        1 => Just(Start::Fresh),
        2 => Just(Start::Savepoint("s".to_owned())),
    ];
    let definition =
        (0u8..3, 0u8..4, off(), any::<bool>()).prop_map(|(input, to, shape, paused)| {
            let definition = definition(&[input], &[(input + to) % 3], shape.min(1) as u8);
            PipelineDefinition { paused: paused && shape > 0, ..definition }
        });
    let reads = (0u8..3, 0u32..2, off(), 0u64..4)
        .prop_map(|(n, partition, from, records)| range(n, partition, from, records));
    prop_oneof![
        3 => (definition, start).prop_map(|(definition, start)| set(P, definition, start)),
        1 => (0u8..8, any::<bool>()).prop_map(|(rarely, savepoints)| match rarely {
            0 => remove(savepoints),
            _ => claim(0, 1),
        }),
        4 => (off(), 0u64..4).prop_map(|(expected, node)| claim(expected, node)),
        12 => (place(), 0u32..3, proptest::collection::vec(reads, 0..2)).prop_map(
            |(at, appends, ranges)| {
                let mut operation = commit(at, appends, ranges);
                if let Operation::Pipeline(PipelineOperation::Commit { age_ms, .. }) = &mut operation
                {
                    *age_ms = 3;
                }
                operation
            }
        ),
        12 => (place(), off(), 0u8..3).prop_map(|(at, seq, n)| output(at, seq as u32, n)),
        4 => (place(), 1i32..4).prop_map(|(at, records)| part(at, records)),
        4 => (place(), off(), off(), 0u64..3)
            .prop_map(|(at, first, end, keep_from)| done(at, first, end, keep_from)),
        1 => off().prop_map(halt),
        1 => Just(Operation::Pipeline(PipelineOperation::WantDelta { pipeline: P.to_owned() })),
        1 => proptest::option::of(Just(P)).prop_map(save),
        2 => (0u8..3).prop_map(retry),
    ]
}

pub(super) fn unit(operations: Vec<Operation>) -> Unit {
    Unit { preconditions: Vec::new(), operations }
}

pub(super) const COMMITTED: Result<OperationResult, Refusal> = Ok(OperationResult::EpochCommitted);

impl Site {
    /// Topics 1 to 3 of two partitions, of which the first has ten records in each, and a pipeline from
    /// topic 1 to topic 2.
    pub(super) fn with_pipeline() -> Self {
        let mut site = Self::new();
        for n in 1..=3 {
            site.one(create(n, 2)).expect("created");
        }
        for partition in 0..2 {
            site.fill(1, partition, 10);
        }
        site.set(definition(&[1], &[2], 0), Start::Keep).expect("set");
        site
    }

    pub(super) fn fill(&mut self, n: u8, partition: u32, records: i32) {
        for _ in 0..records {
            self.one(append(n, partition, batch(-1, -1, -1, 1, 5))).expect("appended");
        }
    }

    pub(super) fn set(
        &mut self,
        definition: PipelineDefinition,
        start: Start,
    ) -> Result<OperationResult, Refusal> {
        self.one(set(P, definition, start))
    }

    pub(super) fn run(&self) -> Run {
        self.state.run(P).expect("it is there").clone()
    }

    /// Makes a node the owner.
    pub(super) fn claim(&mut self, node: u64) -> u64 {
        let expected = self.run().fence;
        match self.one(claim(expected, node)) {
            Ok(OperationResult::Claimed { fence }) => fence,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn position(&self, partition: u32) -> Position {
        let inputs = self.state.inputs(P).expect("they are there");
        inputs[partition as usize].position.clone()
    }

    /// An epoch that reads so many records of partition 0.
    pub(super) fn epoch(&mut self, fence: u64, records: u64) {
        let (epoch, from) = (self.run().epoch + 1, self.position(0).next.0);
        let reads = range(1, 0, from, from + records);
        assert_eq!(self.one(commit(at(fence, epoch), 0, vec![reads])), COMMITTED);
    }

    /// A delta of one part at the last epoch.
    pub(super) fn delta(&mut self, fence: u64, keep_from: u64) -> (u64, u64) {
        let epoch = self.run().epoch;
        let Ok(OperationResult::Appended { base_offset }) = self.one(part(at(fence, epoch), 2))
        else {
            panic!("the part is refused")
        };
        let (first, end) = (base_offset.0, base_offset.0 + 2);
        let result = self.one(done(at(fence, epoch), first, end, keep_from));
        assert_eq!(result, Ok(OperationResult::DeltaDone));
        (first, end)
    }

    pub(super) fn internal(&self) -> (StreamId, u64, u64) {
        let topic = self.state.topics().by_name(&internal_topic(P)).expect("it is there");
        let partition = self.state.partition(topic.first_stream).expect("it is there");
        (topic.first_stream, partition.log_start.0, partition.next.0)
    }
}

#[test]
fn a_pipeline_has_a_number_a_topic_a_history_and_goes_with_all_of_it() {
    let mut site = Site::with_pipeline();
    let number = site.state.pipeline(P).expect("it is there").number;
    assert_eq!(site.internal(), (StreamId(6), 0, 0));
    assert_eq!(site.run(), Run { pipeline: P.to_owned(), fence: number, ..Run::default() });
    let stale = change(P, Some(number + 1), PipelineChange::Remove { savepoints: false });
    assert_eq!(site.one(stale), Err(Refusal::Changed));
    let fence = site.claim(2);
    site.epoch(fence, 3);
    site.delta(fence, 0);
    site.epoch(fence, 3);
    let sections = site.state.snapshot();
    site.state = State::restore(&sections).expect("restores");
    assert_eq!(site.state.snapshot(), sections);

    let applied = site.entry(vec![Unit::of(remove(false))]);
    assert_eq!(applied.dropped_streams, [StreamId(6)]);
    let asked = site.state.number_of((ChangeOf::Pipeline, P));
    assert!(site.one(remove(false)).is_ok(), "what is not there can be removed");
    let late = change(P, Some(asked), PipelineChange::Remove { savepoints: false });
    assert_eq!(site.one(late), Err(Refusal::Changed));
    let left = State::default().snapshot();
    let now = site.state.snapshot();
    for id in (15..=21).chain([24]) {
        assert_eq!(now[id - 1], left[id - 1], "section {id}");
    }
    let changes: Vec<_> = site.state.changes().map(|change| (change.of, &*change.text)).collect();
    assert!(matches!(
        changes[..],
        [
            (ChangeOf::Pipeline, _),
            (ChangeOf::Pipeline, "removed"),
            (ChangeOf::Pipeline, "there was none")
        ]
    ));
    let long = "n".repeat(10_000);
    let none = PipelineChange::Remove { savepoints: false };
    assert_eq!(site.one(change(&long, None, none)), Err(Refusal::InvalidPipeline));
    site.set(definition(&[1], &[2], 0), Start::Keep).expect("set again");
    assert_eq!(site.position(0).next, Offset(0), "nothing is left of the first one");
}

#[test]
fn what_may_not_be_laid_down_is_refused() {
    let mut site = Site::with_pipeline();
    let mut refused = |name: &str, definition: PipelineDefinition, start| {
        site.one(set(name, definition, start)).expect_err("refused")
    };
    let of = definition;
    let long = "n".repeat(201);
    for name in ["a b", &long, ".."] {
        assert_eq!(refused(name, of(&[1], &[2], 0), Start::Keep), Refusal::InvalidPipeline);
    }
    assert_eq!(refused("q", of(&[9], &[2], 0), Start::Keep), Refusal::UnknownTopic);
    assert_eq!(refused("q", of(&[1], &[9], 0), Start::Keep), Refusal::UnknownTopic);
    assert_eq!(refused("q", of(&[1, 2], &[2], 0), Start::Keep), Refusal::OwnInput);
    assert_eq!(refused("q", of(&[], &[2], 0), Start::Keep), Refusal::InvalidPipeline);
    let mut internal = of(&[1], &[2], 0);
    internal.outputs = vec![internal_topic(P)];
    assert_eq!(refused("q", internal.clone(), Start::Keep), Refusal::IsInternal);
    (internal.inputs, internal.outputs) = (internal.outputs, Vec::new());
    assert_eq!(refused("q", internal, Start::Keep), Refusal::IsInternal);
    let start = Start::Savepoint("s".to_owned());
    assert_eq!(refused(P, of(&[1], &[2], 0), start), Refusal::UnknownSavepoint);
    assert_eq!(refused(P, of(&[1], &[2], 1), Start::Keep), Refusal::OtherShape);
    let create = Operation::CreateTopic {
        topic: topic_id(77),
        name: internal_topic("other"),
        partitions: 1,
        configs: Vec::new(),
    };
    assert_eq!(site.one(create), Err(Refusal::InvalidTopicName));
    site.one(mirrors::set_link(Some(false))).expect("set");
    site.one(mirrors::create_mirror(4)).expect("created");
    let mut to_mirror = of(&[1], &[], 0);
    to_mirror.outputs = vec!["north.topic-4".to_owned()];
    assert_eq!(site.one(set("q", to_mirror, Start::Keep)), Err(Refusal::IsMirror));
}

#[test]
fn an_epoch_begins_where_the_last_one_ended_in_every_partition() {
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    let both = vec![range(1, 0, 0, 4), range(1, 1, 0, 10)];
    assert_eq!(
        site.one(commit(at(fence, 2), 0, both.clone())),
        Err(Refusal::UnexpectedEpoch { next: 1 })
    );
    assert_eq!(site.one(commit(at(fence, 1), 0, both)), COMMITTED);
    let mut refused = |ranges: &[InputRange]| {
        site.one(commit(at(fence, 2), 0, ranges.to_vec())).expect_err("refused")
    };
    let next = Refusal::UnexpectedOffset { next: Offset(4) };
    assert_eq!(refused(&[range(1, 0, 3, 5)]), next);
    assert_eq!(refused(&[range(1, 0, 5, 6)]), next, "nothing may be left out");
    let end = Refusal::OffsetOutOfRange { next: Offset(10) };
    assert_eq!(refused(&[range(1, 0, 4, 11)]), end);
    assert_eq!(refused(&[range(1, 0, 4, 4)]), Refusal::InvalidPipeline, "an empty range");
    let more = |range| InputRange { has_more: true, ..range };
    assert_eq!(refused(&[more(range(1, 0, 5, 5))]), next, "what is left is what comes next");
    assert_eq!(refused(&[more(range(1, 1, 10, 10))]), end, "nothing is there that is left");
    assert_eq!(refused(&[more(range(1, 0, 4, 10))]), end, "nor behind what is read");
    assert_eq!(refused(&[range(2, 0, 0, 1)]), Refusal::NotAnInput);
    assert_eq!(refused(&[range(1, 2, 0, 1)]), Refusal::UnknownPartition);
    let twice = [range(1, 0, 4, 5), range(1, 0, 5, 6)];
    assert_eq!(refused(&twice), Refusal::InvalidPipeline);
    site.fill(1, 1, 1);
    let backwards = [range(1, 1, 10, 11), range(1, 0, 4, 5)];
    let refusal = site.one(commit(at(fence, 2), 0, backwards.to_vec()));
    assert_eq!(refusal, Err(Refusal::InvalidPipeline), "in the order of partitions");
    let young = PipelineOperation::Commit {
        at: at(fence, 2),
        age_ms: 9,
        hash: [0; 16],
        appends: 0,
        ranges: Vec::new(),
        facts: Bytes::new(),
    };
    let goes_back = Err(Refusal::AgeGoesBack { age_ms: 10 });
    assert_eq!(site.one(Operation::Pipeline(young)), goes_back);
    assert_eq!(site.one(commit(at(fence, 2), 0, vec![range(1, 0, 4, 10)])), COMMITTED);
    assert_eq!((site.position(0).next, site.position(0).floor), (Offset(10), Offset(0)));
    let logged: Vec<u64> = site.state.logged_epochs(P).map(|epoch| epoch.epoch).collect();
    assert_eq!(logged, [1, 2]);
}

#[test]
fn what_has_gone_before_it_was_read_is_passed_over_and_counted() {
    let mut site = Site::with_pipeline();
    site.one(keep(1, &[("retention.bytes", Some("0"))])).expect("altered");
    let fence = site.claim(2);
    site.fill(1, 0, 2);
    let start = OperationResult::StartMoved { log_start: Offset(11), missing: 0 };
    assert_eq!(site.one(advance(1, 0, 11)), Ok(start), "nobody has read any of it");
    let next = Err(Refusal::UnexpectedOffset { next: Offset(11) });
    assert_eq!(site.one(commit(at(fence, 1), 0, vec![range(1, 0, 0, 12)])), next);
    assert_eq!(site.one(commit(at(fence, 1), 0, vec![range(1, 0, 11, 12)])), COMMITTED);
    assert_eq!((site.position(0).next, site.position(0).missed), (Offset(12), 11));
}

#[test]
fn an_epoch_and_its_appends_are_one_or_follow_one_another() {
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    let ranges = || vec![range(1, 0, 0, 4)];
    let first = || at(fence, 1);
    let bad =
        unit(vec![commit(first(), 2, ranges()), output(first(), 0, 2), output(first(), 1, 3)]);
    let hash = site.state.hash();
    let (meta, time) = (site.state.entry_ms(), site.wall_ms);
    assert_eq!(meta, time);
    assert_eq!(site.unit(bad), UnitResult::Refused(Refusal::NotAnOutput));
    assert_eq!(site.state.hash(), hash, "all of it or nothing");

    let some = unit(vec![commit(first(), 3, ranges()), output(first(), 0, 2)]);
    assert!(matches!(site.unit(some), UnitResult::Done(_)));
    assert_eq!(site.run().appends_missing(), 2);
    let next = vec![range(1, 0, 4, 5)];
    let incomplete = Err(Refusal::EpochIncomplete { appended: 1 });
    assert_eq!(site.one(commit(at(fence, 2), 0, next.clone())), incomplete);
    assert_eq!(site.one(done(first(), 0, 0, 0)), incomplete);
    for seq in [0, 2] {
        let turn = Err(Refusal::UnexpectedAppend { next: 1 });
        assert_eq!(site.one(output(first(), seq, 2)), turn);
    }
    let epoch = Err(Refusal::UnexpectedEpoch { next: 1 });
    assert_eq!(site.one(output(at(fence, 2), 1, 2)), epoch);
    // Another owner makes the rest.
    let other = site.claim(3);
    assert_eq!(site.one(output(first(), 1, 2)), Err(Refusal::StaleOwner { fence: other }));
    assert_eq!(site.one(output(at(other, 1), 1, 2)), appended(1));
    assert_eq!(site.one(output(at(other, 1), 2, 2)), appended(2));
    let turn = Err(Refusal::UnexpectedAppend { next: 3 });
    assert_eq!(site.one(output(at(other, 1), 3, 2)), turn, "there are no more");
    assert_eq!(site.one(commit(at(other, 2), 0, next)), COMMITTED);
}

#[test]
fn a_full_output_refuses_the_epoch_and_what_is_not_kept_counts() {
    let mut site = Site::with_pipeline();
    site.one(mirrors::set_link(Some(false))).expect("set");
    site.one(mirrors::rule(2, &["eu"])).expect("set");
    let policy =
        |policy| keep(2, &[("retention.bytes", Some("1")), (budget::BUDGET_POLICY, Some(policy))]);
    site.one(policy("block")).expect("altered");
    site.fill(2, 0, 1);
    let fence = site.claim(2);
    let epoch = || {
        let commit = commit(at(fence, 1), 1, vec![range(1, 0, 0, 4)]);
        unit(vec![commit, output(at(fence, 1), 0, 2)])
    };
    assert_eq!(site.unit(epoch()), UnitResult::Refused(Refusal::BudgetReached));
    assert_eq!(site.run().epoch, 0);
    site.one(policy("keep-oldest")).expect("altered");
    let UnitResult::Done(results) = site.unit(epoch()) else { panic!("refused") };
    assert_eq!(results[1], OperationResult::NotKept { base_offset: Offset(1) });
    assert_eq!(site.run().appends_missing(), 0);
}

#[test]
fn a_claim_ends_what_an_earlier_owner_may_do() {
    let mut site = Site::with_pipeline();
    let nobody = site.run().fence;
    let refused = Err(Refusal::StaleOwner { fence: nobody });
    assert_eq!(site.one(commit(at(nobody, 1), 0, Vec::new())), refused, "it has no owner");
    let old = site.claim(1);
    assert_eq!(site.run().owner, Some(NodeId(1)));
    assert_eq!(site.one(claim(nobody, 2)), Err(Refusal::StaleOwner { fence: old }));
    site.epoch(old, 2);
    site.one(part(at(old, 1), 1)).expect("appended");
    let new = site.claim(2);
    let stale = Err(Refusal::StaleOwner { fence: new });
    for late in [
        commit(at(old, 2), 0, vec![range(1, 0, 2, 3)]),
        output(at(old, 1), 0, 2),
        part(at(old, 1), 1),
        done(at(old, 1), 0, 1, 0),
        halt(old),
    ] {
        assert_eq!(site.one(late), stale);
    }
    // The delta that the first one began is nobody's.
    let nothing = Err(Refusal::UnexpectedPart { first: Offset(1), end: Offset(1) });
    assert_eq!(site.one(done(at(new, 1), 0, 1, 0)), nothing);
    assert_eq!(site.delta(new, 0), (1, 3));
    assert_eq!(site.one(claim(new, 0)), Ok(OperationResult::Claimed { fence: site.next - 1 }));
    assert_eq!(site.run().owner, None);
}

#[test]
fn a_delta_covers_epochs_and_lets_old_ones_go() {
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    let wish = PipelineOperation::WantDelta { pipeline: P.to_owned() };
    let wish = || Operation::Pipeline(wish.clone());
    assert_eq!(site.one(wish()), Ok(OperationResult::DeltaWanted { epoch: 0 }));
    assert_eq!(site.run().wants_delta, None, "there is nothing to cover");
    site.epoch(fence, 2);
    site.epoch(fence, 2);
    assert_eq!(site.one(wish()), Ok(OperationResult::DeltaWanted { epoch: 2 }));
    assert_eq!(site.run().wants_delta, Some(2));
    // A delta of an epoch before the last one, in two parts; one of another epoch begins anew.
    site.one(part(at(fence, 2), 1)).expect("appended");
    site.one(part(at(fence, 1), 1)).expect("appended");
    site.one(part(at(fence, 1), 3)).expect("appended");
    let elsewhere = Err(Refusal::UnexpectedPart { first: Offset(1), end: Offset(5) });
    assert_eq!(site.one(done(at(fence, 1), 0, 5, 0)), elsewhere);
    let too_new = Err(Refusal::UnexpectedEpoch { next: 1 });
    assert_eq!(site.one(done(at(fence, 1), 1, 5, 2)), too_new, "it would not keep itself");
    assert_eq!(site.one(done(at(fence, 1), 1, 5, 0)), Ok(OperationResult::DeltaDone));
    assert_eq!((site.position(0).next, site.position(0).floor), (Offset(4), Offset(2)));
    assert_eq!(site.run().wants_delta, Some(2), "a later one is wanted");
    assert_eq!(site.internal().1, 1, "what no delta has goes");
    let covered = Err(Refusal::UnexpectedEpoch { next: 2 });
    assert_eq!(site.one(part(at(fence, 1), 1)), covered);

    assert_eq!(site.delta(fence, 0), (5, 7));
    assert!(site.run().is_settled() && site.run().wants_delta.is_none());
    assert_eq!(site.state.logged_epochs(P).count(), 0);
    site.epoch(fence, 1);
    site.delta(fence, 2);
    let deltas: Vec<u64> = site.state.deltas(P).map(|delta| delta.epoch).collect();
    assert_eq!((deltas, site.internal().1), (vec![2, 3], 5));
}

#[test]
fn what_would_be_read_again_stays_and_nothing_else() {
    let mut site = Site::with_pipeline();
    site.one(keep(1, &[("retention.bytes", Some("0"))])).expect("altered");
    // Each batch is a span of its own from here on.
    site.fill(1, 0, 5);
    let fence = site.claim(2);
    let due = |site: &Site| {
        let topic = site.state.topics().get(topic_id(1)).expect("it is there");
        site.state.due_start(topic, StreamId(0), 99_999)
    };
    assert_eq!(due(&site), Some(Offset(15)), "nothing was read");
    site.epoch(fence, 12);
    assert_eq!(due(&site), None);
    let stays = Ok(OperationResult::StartMoved { log_start: Offset(0), missing: 0 });
    assert_eq!(site.one(advance(1, 0, 11)), stays);
    site.delta(fence, 0);
    site.epoch(fence, 1);
    assert_eq!(due(&site), Some(Offset(12)), "up to what the delta knows");
    // What stands still keeps nothing but that, and what has failed nothing at all.
    site.one(halt(fence)).expect("halted");
    assert_eq!(due(&site), Some(Offset(15)));
    assert_eq!(site.one(claim(site.run().fence, 1)), Err(Refusal::NotRunning));
}

//! The state machine as a whole: units, plants excepted, and the properties that hold for any
//! sequence of operations.

use super::outcome::{OperationResult, Refusal, UnitResult};
use super::producers::ProducerId;
use super::sections::{
    EPOCHS, META, MIRRORS, PARTITIONS, PIPELINES, PROGRESS, RUNS, SPANS, TOPICS,
};
use super::*;
use bytes::Bytes;
use fulmar_store::StreamId;
use fulmar_store::entry::{
    Entry, EntryBuilder, EntryHeader, LinkOperation, Operation, Precondition, Unit,
};
use fulmar_types::{LogIndex, LogPosition, Offset, PartitionIndex, Term, TopicId, Uuid};
use proptest::prelude::*;

mod bonds;
mod budgets;
mod chains;
mod changing;
mod letters;
mod mirrors;
mod outputs;
mod pipelines;
mod random;
mod settings;

/// A batch as a producer sends it; only the header matters to the state machine.
pub(crate) fn batch(producer: i64, epoch: i16, first: i32, records: i32, ms: i64) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(&0i64.to_be_bytes());
    out.extend_from_slice(&(49 + 8i32).to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.push(2);
    out.extend_from_slice(&[0; 4 + 2]);
    out.extend_from_slice(&(records - 1).to_be_bytes());
    out.extend_from_slice(&ms.to_be_bytes());
    out.extend_from_slice(&ms.to_be_bytes());
    out.extend_from_slice(&producer.to_be_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&records.to_be_bytes());
    out.extend_from_slice(&[0xab; 8]);
    out.into()
}

fn topic_id(n: u8) -> TopicId {
    TopicId(Uuid([n; 16]))
}

fn create(n: u8, partitions: u32) -> Operation {
    Operation::CreateTopic {
        topic: topic_id(n),
        name: format!("topic-{n}"),
        partitions,
        configs: vec![(topics::CHAIN_KEY_CONFIG.to_owned(), "secret".to_owned())],
    }
}

/// Sets how long the records of a topic are kept.
fn keep(n: u8, settings: &[(&str, Option<&str>)]) -> Operation {
    let change =
        |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
    let changes = settings.iter().map(change).collect();
    Operation::AlterTopic { topic: topic_id(n), replaces: false, changes }
}

fn advance(n: u8, partition: u32, offset: u64) -> Operation {
    Operation::AdvanceStart {
        topic: topic_id(n),
        partition: PartitionIndex(partition),
        offset: Offset(offset),
    }
}

fn append(n: u8, partition: u32, bytes: Bytes) -> Operation {
    Operation::Append {
        topic: topic_id(n),
        partition: PartitionIndex(partition),
        batch: bytes.into(),
    }
}

#[derive(Clone)]
struct Site {
    state: State,
    next: u64,
    term: u64,
    wall_ms: u64,
}

impl Site {
    fn new() -> Self {
        Self { state: State::default(), next: 0, term: 1, wall_ms: 1_000 }
    }

    /// A site that has handed out the ids from 0 to 7.
    fn with_producers() -> Self {
        let mut site = Self::new();
        for _ in 0..8 {
            site.one(Operation::InitProducer { request: Uuid::NIL }).expect("assigned");
        }
        site
    }

    fn entry(&mut self, units: Vec<Unit>) -> Applied {
        let mut builder = EntryBuilder::new(64 << 20);
        units.iter().for_each(|unit| builder.push(unit).expect("fits"));
        let wall_ms = self.wall_ms;
        let header = EntryHeader { wall_ms, claim: self.next, age_ms: wall_ms };
        let payload = builder.finish(header);
        let position = LogPosition { term: Term(self.term), index: LogIndex(self.next) };
        self.next += 1;
        self.state.apply(position, &Entry::decode(payload).expect("an entry"))
    }

    fn unit(&mut self, unit: Unit) -> UnitResult {
        results(&self.entry(vec![unit])).remove(0)
    }

    fn one(&mut self, operation: Operation) -> Result<OperationResult, Refusal> {
        match self.unit(Unit::of(operation)) {
            UnitResult::Done(results) => Ok(results[0]),
            UnitResult::Refused(refusal) => Err(refusal),
        }
    }
}

fn results(applied: &Applied) -> Vec<UnitResult> {
    outcome::decode(&applied.outcome).expect("an outcome")
}

fn appended(offset: u64) -> Result<OperationResult, Refusal> {
    Ok(OperationResult::Appended { base_offset: Offset(offset) })
}

#[test]
fn a_topic_is_created_written_to_and_deleted() {
    let mut site = Site::new();
    assert_eq!(site.one(create(1, 2)), Ok(OperationResult::TopicCreated));
    assert_eq!(site.one(create(1, 2)), Err(Refusal::TopicExists));
    assert_eq!(site.one(append(1, 0, batch(-1, -1, -1, 3, 5))), appended(0));
    assert_eq!(site.one(append(1, 0, batch(-1, -1, -1, 1, 5))), appended(3));
    assert_eq!(site.one(append(1, 1, batch(-1, -1, -1, 1, 5))), appended(0));
    assert_eq!(site.one(append(1, 2, batch(-1, -1, -1, 1, 5))), Err(Refusal::UnknownPartition));
    assert_eq!(site.one(append(2, 0, batch(-1, -1, -1, 1, 5))), Err(Refusal::UnknownTopic));
    let topic = site.state.topics().by_name("topic-1").expect("there").clone();
    assert!(topic.configs.is_empty(), "the key of the chains is not a setting that anybody sees");

    let applied = site.entry(vec![Unit::of(Operation::DeleteTopic { topic: topic_id(1) })]);
    assert_eq!(applied.dropped_streams, [StreamId(0), StreamId(1)]);
    assert_eq!(site.one(create(1, 1)), Ok(OperationResult::TopicCreated));
    let again = site.state.topics().by_name("topic-1").expect("there");
    assert_eq!(again.first_stream, StreamId(2), "streams are never used again");
}

#[test]
fn rows_name_the_place_of_each_batch_in_the_entry() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    let (a, b) = (batch(-1, -1, -1, 2, 7), batch(-1, -1, -1, 1, 9));
    let units = [&a, &b].map(|bytes| Unit::of(append(1, 0, bytes.clone())));
    let mut builder = EntryBuilder::new(64 << 20);
    units.iter().for_each(|unit| builder.push(unit).expect("fits"));
    let payload = builder.finish(EntryHeader::default());
    let position = LogPosition { term: Term(1), index: LogIndex(9) };
    let applied = site.state.apply(position, &Entry::decode(payload.clone()).expect("an entry"));
    assert_eq!(applied.rows.len(), 2);
    for (row, bytes) in applied.rows.iter().zip([a, b]) {
        let from = row.at as usize;
        assert_eq!(payload.slice(from..from + row.len as usize), bytes);
        assert_eq!(row.crc, crc32c::crc32c(&bytes));
        assert_eq!(row.index, LogIndex(9));
    }
    assert_eq!(applied.rows[1].base_offset, Offset(2));
}

#[test]
fn a_duplicate_is_answered_with_its_first_offset_and_term_also_after_a_restore() {
    let mut site = Site::with_producers();
    site.one(create(1, 1)).expect("created");
    let bytes = batch(4, 0, 0, 3, 5);
    assert_eq!(site.one(append(1, 0, bytes.clone())), appended(0));
    assert_eq!(site.one(append(1, 0, batch(-1, -1, -1, 1, 5))), appended(3));
    site.term = 2;
    let duplicate = OperationResult::Duplicate { base_offset: Offset(0), term: Term(1) };
    let applied = site.entry(vec![Unit::of(append(1, 0, bytes.clone()))]);
    assert_eq!(results(&applied), [UnitResult::Done(vec![duplicate])]);
    assert!(applied.rows.is_empty());
    let sections = site.state.snapshot();
    site.state = State::restore(&sections).expect("restores");
    assert_eq!(site.one(append(1, 0, bytes)), Ok(duplicate));
    let gap = Err(Refusal::SequenceOutOfOrder { expected: 3 });
    assert_eq!(site.one(append(1, 0, batch(4, 0, 9, 1, 5))), gap);
}

#[test]
fn a_unit_takes_effect_as_a_whole_or_not_at_all() {
    let mut site = Site::with_producers();
    site.one(create(1, 1)).expect("created");
    site.one(append(1, 0, batch(4, 0, 0, 3, 5))).expect("appended");
    let hash = site.state.hash();
    let snapshot = site.state.snapshot();
    let refused = site.entry(vec![Unit {
        preconditions: vec![Precondition::Fence { name: "link".to_owned(), number: 7 }],
        operations: vec![
            append(1, 0, batch(4, 0, 3, 1, 5)),
            create(2, 4),
            append(2, 3, batch(5, 0, 0, 1, 5)),
            Operation::DeleteTopic { topic: topic_id(1) },
            Operation::InitProducer { request: Uuid::NIL },
            append(9, 0, batch(-1, -1, -1, 1, 5)),
        ],
    }]);
    assert_eq!(results(&refused), [UnitResult::Refused(Refusal::UnknownTopic)]);
    assert!(refused.rows.is_empty() && refused.dropped_streams.is_empty());
    assert_eq!(site.state.hash(), hash);
    assert_eq!(site.state.snapshot(), snapshot);

    let done = site.unit(Unit {
        preconditions: vec![],
        operations: vec![create(2, 1), append(2, 0, batch(-1, -1, -1, 2, 5))],
    });
    let results = vec![OperationResult::TopicCreated, appended(0).expect("appended")];
    assert_eq!(done, UnitResult::Done(results));
}

#[test]
fn preconditions_hold_or_the_unit_is_refused() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    let at = |offset| Unit {
        preconditions: vec![Precondition::ExpectedOffset {
            topic: topic_id(1),
            partition: PartitionIndex(0),
            offset: Offset(offset),
        }],
        operations: vec![append(1, 0, batch(-1, -1, -1, 2, 5))],
    };
    assert!(matches!(site.unit(at(0)), UnitResult::Done(_)));
    let next = Refusal::UnexpectedOffset { next: Offset(2) };
    assert_eq!(site.unit(at(0)), UnitResult::Refused(next));
    assert!(matches!(site.unit(at(2)), UnitResult::Done(_)));

    let fenced = |number| Unit {
        preconditions: vec![Precondition::Fence { name: "link".to_owned(), number }],
        operations: vec![Operation::Noop],
    };
    assert!(matches!(site.unit(fenced(5)), UnitResult::Done(_)));
    let refusal = Refusal::Fenced { number: 5 };
    assert_eq!(site.unit(fenced(4)), UnitResult::Refused(refusal));
}

#[test]
fn the_start_moves_forward_only_and_within_the_partition() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    // Each batch is a span of its own.
    site.one(keep(1, &[("retention.bytes", Some("0"))])).expect("altered");
    for records in [3, 2, 5] {
        site.one(append(1, 0, batch(-1, -1, -1, records, 5))).expect("appended");
    }
    let to = |offset| advance(1, 0, offset);
    let applied = site.entry(vec![Unit::of(to(4)), Unit::of(to(2))]);
    assert_eq!(applied.moved_starts, [(StreamId(0), Offset(3))], "what goes goes in spans");
    let out = Err(Refusal::OffsetOutOfRange { next: Offset(10) });
    assert_eq!(site.one(to(11)), out);
    assert_eq!(
        site.one(to(10)),
        Ok(OperationResult::StartMoved { log_start: Offset(10), missing: 0 })
    );
}

#[test]
fn spans_follow_what_is_appended_expired_and_deleted() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    let spans = |site: &Site| -> Vec<(u64, u64, u64)> {
        let spans = site.state.spans(StreamId(0));
        spans.map(|span| (span.first.0, span.end.0, span.last_age_ms)).collect()
    };
    site.one(append(1, 0, batch(-1, -1, -1, 10, 5))).expect("appended");
    site.wall_ms += 1;
    site.one(append(1, 0, batch(-1, -1, -1, 2, 5))).expect("appended");
    assert_eq!(spans(&site), [(0, 12, 1_001)]);
    site.wall_ms += 3_600_000;
    site.one(append(1, 0, batch(-1, -1, -1, 1, 5))).expect("appended");
    assert_eq!(spans(&site), [(0, 12, 1_001), (12, 13, 3_601_001)]);
    // The age of the site does not go back with the clock of a leader.
    site.wall_ms = 5;
    site.one(append(1, 0, batch(-1, -1, -1, 1, 5))).expect("appended");
    assert_eq!(spans(&site)[1], (12, 14, 3_601_001));
    let sections = site.state.snapshot();
    assert_eq!(
        spans(&Site { state: State::restore(&sections).expect("restores"), ..Site::new() }).len(),
        2
    );

    site.one(keep(1, &[("retention.bytes", Some("0"))])).expect("altered");
    let to = |offset| advance(1, 0, offset);
    site.one(to(11)).expect("moved");
    assert_eq!(spans(&site).len(), 2, "the first one ends later");
    site.one(to(12)).expect("moved");
    assert_eq!(spans(&site), [(12, 14, 3_601_001)]);
    site.one(Operation::DeleteTopic { topic: topic_id(1) }).expect("deleted");
    assert_eq!(spans(&site), []);
}

#[test]
fn a_producer_older_than_a_deleted_topic_of_the_name_may_go_on_with_its_numbers() {
    let mut site = Site::new();
    let old = site.one(Operation::InitProducer { request: Uuid::NIL }).expect("assigned");
    assert_eq!(old, OperationResult::ProducerAssigned { producer: ProducerId(0) });
    site.one(create(1, 1)).expect("created");
    let refused = Err(Refusal::SequenceOutOfOrder { expected: 0 });
    assert_eq!(site.one(append(1, 0, batch(0, 0, 8, 1, 5))), refused);
    site.one(Operation::DeleteTopic { topic: topic_id(1) }).expect("deleted");
    site.one(create(2, 1)).expect("created");
    assert_eq!(site.one(append(2, 0, batch(0, 0, 8, 1, 5))), refused, "another name");
    site.one(create(1, 1)).expect("created");
    assert_eq!(site.one(append(1, 0, batch(0, 0, 8, 1, 5))), appended(0));
    assert_eq!(site.one(append(1, 0, batch(1, 0, 0, 1, 5))), Err(Refusal::UnknownProducer));
    site.one(Operation::InitProducer { request: Uuid::NIL }).expect("assigned");
    assert_eq!(site.one(append(1, 0, batch(1, 0, 8, 1, 5))), refused);
}

#[test]
fn sections_that_do_not_belong_together_are_refused() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    site.one(mirrors::set_link(Some(false))).expect("set");
    site.one(mirrors::create_mirror(2)).expect("created");
    pipelines::begin_one(&mut site);
    let sections = site.state.snapshot();
    let empty = State::default().snapshot();
    for at in 0..sections.len() {
        let mut mixed = sections.clone();
        mixed[at] = empty[at].clone();
        // Without topics, partitions, numbers, spans, either half of a mirror or of a pipeline, or its
        // epochs the state is not a possible one; without the rest it is.
        let possible = !matches!(
            mixed[at].id,
            TOPICS | PARTITIONS | META | SPANS | MIRRORS | PROGRESS | PIPELINES | RUNS | EPOCHS
        );
        assert_eq!(State::restore(&mixed).is_ok(), possible, "section {}", mixed[at].id);
        mixed.remove(at);
        // As a build leaves it that did not know the last section yet.
        let is_last = at + 1 == sections.len();
        match State::restore(&mixed) {
            Ok(_) => assert!(is_last, "section {} is missing", sections[at].id),
            Err(missing) => assert_eq!(missing, RestoreError::Missing { id: sections[at].id }),
        }
    }
    let mut newer = sections;
    newer[0].version += 1;
    assert_eq!(State::restore(&newer).expect_err("newer").exit_code(), ExitCode::UnknownEntry);
}

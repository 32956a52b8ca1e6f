//! The state of a site and how an entry changes it.
//!
//! Invariants: what apply does depends on the state and the entry alone; a unit takes effect as a
//! whole or leaves no trace; offsets, duplicates and limits are settled here and nowhere before;
//! an operation that is refused has changed nothing; a start moves no further than the retention of
//! the topic allows when the entry is applied.
//!
//! Never: read a clock, draw a random number, or look at this node's configuration.

use super::Applied;
use super::batch::BatchFacts;
use super::budget::Keeping;
use super::outcome::{self, OperationResult, Refusal, UnitResult};
use super::partitions::{Appending, Partition};
use super::producers::{Forgotten, Producers, Verdict};
use super::retention::Retention;
use super::spans::{Piece, Span, spans_max};
use super::topics::{
    CHAIN_KEY_CONFIG, TOPIC_CONFIG_BYTES_MAX, TOPIC_CONFIGS_MAX, Topic, Topics, is_valid_name,
    split_chain_key,
};
use fulmar_store::entry::{Batch, Entry, Operation, Precondition, UnitView};
use fulmar_store::{Row, StreamId};
use fulmar_types::limits::{PARTITIONS_PER_SITE_MAX, PARTITIONS_PER_TOPIC_MAX};
use fulmar_types::pipeline::is_internal;
use fulmar_types::{Event, LogPosition, Offset, PartitionIndex, Plant, TopicId};

pub use super::sections::State;

/// Producers that one entry forgets at most, so that applying it takes no longer than others.
const PRODUCERS_EXPIRED_MAX: usize = 4_096;

/// What an entry brought about so far.
pub(super) struct Step {
    position: LogPosition,
    entry_ms: u64,
    age_ms: u64,
    rows: Vec<Row>,
    dropped_streams: Vec<StreamId>,
    moved_starts: Vec<(StreamId, Offset)>,
    passed_streams: Vec<StreamId>,
    events: Vec<Event>,
}

impl Step {
    /// The number of what the entry defines.
    pub(super) fn number(&self) -> u64 {
        self.position.index.0
    }

    pub(super) fn entry_ms(&self) -> u64 {
        self.entry_ms
    }

    pub(super) fn age_ms(&self) -> u64 {
        self.age_ms
    }

    /// Tells the store that the first offset of a stream has moved.
    pub(super) fn start_moved(&mut self, stream: StreamId, start: Offset) {
        self.moved_starts.push((stream, start));
    }

    /// Tells whoever waits for it that a stream goes on without a batch.
    pub(super) fn passed(&mut self, stream: StreamId) {
        self.passed_streams.push(stream);
    }

    /// Tells what has happened.
    pub(super) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// An append on its way through the checks.
pub(super) struct Append<'a> {
    pub(super) topic: TopicId,
    pub(super) stream: StreamId,
    pub(super) chain_key: [u8; 32],
    pub(super) retention: Retention,
    pub(super) batch: &'a Batch,
    pub(super) facts: BatchFacts,
}

fn check_configs(configs: &[(String, String)]) -> Result<(), Refusal> {
    let long = |text: &String| text.len() > TOPIC_CONFIG_BYTES_MAX;
    if configs.len() > TOPIC_CONFIGS_MAX || configs.iter().any(|(k, v)| long(k) || long(v)) {
        return Err(Refusal::InvalidConfig);
    }
    Ok(())
}

impl State {
    /// The topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// A partition.
    pub fn partition(&self, stream: StreamId) -> Option<&Partition> {
        self.partitions.get(&stream)
    }

    /// The streams that exist, with the first offset that can be read in each, in order.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, Offset)> {
        self.partitions.iter().map(|partition| (partition.stream, partition.log_start))
    }

    /// The stream that the next new partition gets.
    pub fn next_stream(&self) -> StreamId {
        StreamId(self.meta.current().next_stream)
    }

    /// The producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// The time of the last entry, in milliseconds since 1970.
    pub fn entry_ms(&self) -> u64 {
        self.meta.current().wall_ms
    }

    /// How long the site had existed at the last entry, in milliseconds.
    pub fn age_ms(&self) -> u64 {
        self.meta.current().age_ms
    }

    /// The records of a partition that can be read, in spans, oldest first. The first one may have
    /// begun earlier.
    pub fn spans(&self, stream: StreamId) -> impl DoubleEndedIterator<Item = &Span> {
        self.spans.of_stream(stream)
    }

    /// Takes over a state that was restored. What a planted bug keeps beside the state stays.
    pub(crate) fn replace(&mut self, restored: Self) {
        let memory = std::mem::take(&mut self.memory);
        let pipeline_turns = self.pipeline_turns + 1;
        *self = Self { memory, pipeline_turns, ..restored };
    }

    /// Applies an entry.
    pub fn apply(&mut self, position: LogPosition, entry: &Entry) -> Applied {
        let (entry_ms, age_ms) = self.meta.advance(entry.header());
        let mut step = Step {
            position,
            entry_ms,
            age_ms,
            rows: Vec::new(),
            dropped_streams: Vec::new(),
            moved_starts: Vec::new(),
            passed_streams: Vec::new(),
            events: Vec::new(),
        };
        let mut results = Vec::with_capacity(entry.unit_count() as usize);
        for unit in entry.units() {
            results.push(self.apply_unit(&mut step, &unit));
        }
        assert_eq!(results.len(), entry.unit_count() as usize, "every unit has a result");
        Applied {
            outcome: outcome::encode(&results),
            rows: step.rows,
            dropped_streams: step.dropped_streams,
            moved_starts: step.moved_starts,
            passed_streams: step.passed_streams,
            events: step.events,
        }
    }

    fn apply_unit(&mut self, step: &mut Step, unit: &UnitView<'_>) -> UnitResult {
        // A lone operation checks everything before it changes anything, so nearly all units do
        // without first images.
        let undoable = unit.operation_count() > 1 || unit.precondition_count() > 0;
        if !undoable {
            let hash = cfg!(debug_assertions).then(|| self.hash());
            let operation = unit.operations().next().expect("a unit has an operation");
            let result = self
                .check_unchanged(&operation)
                .and_then(|()| self.apply_operation(step, operation));
            return match result {
                Ok(result) => UnitResult::Done(vec![result]),
                Err(refusal) => {
                    assert!(hash.is_none_or(|h| h == self.hash()), "a refusal leaves no trace");
                    UnitResult::Refused(refusal)
                }
            };
        }
        let kept = (step.rows.len(), step.dropped_streams.len(), step.moved_starts.len());
        let (passed, told) = (step.passed_streams.len(), step.events.len());
        self.begin();
        match self.try_unit(step, unit) {
            Ok(results) => {
                self.commit();
                UnitResult::Done(results)
            }
            Err(refusal) => {
                self.rollback();
                step.rows.truncate(kept.0);
                step.dropped_streams.truncate(kept.1);
                step.moved_starts.truncate(kept.2);
                step.passed_streams.truncate(passed);
                step.events.truncate(told);
                UnitResult::Refused(refusal)
            }
        }
    }

    fn try_unit(
        &mut self,
        step: &mut Step,
        unit: &UnitView<'_>,
    ) -> Result<Vec<OperationResult>, Refusal> {
        for precondition in unit.preconditions() {
            match precondition {
                Precondition::ExpectedOffset { topic, partition, offset } => {
                    let stream = self.stream(topic, partition)?.1;
                    let next = self.known(stream).next;
                    if next != offset {
                        return Err(Refusal::UnexpectedOffset { next });
                    }
                }
                Precondition::Fence { name, number } => {
                    self.fences.check(&name, number)?;
                    self.fences.raise(name, number);
                }
            }
        }
        unit.operations().try_for_each(|operation| self.check_unchanged(&operation))?;
        unit.operations().map(|operation| self.apply_operation(step, operation)).collect()
    }

    /// The topic and the stream of a partition.
    pub(super) fn stream(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Result<(&Topic, StreamId), Refusal> {
        let topic = self.topics.get(topic).ok_or(Refusal::UnknownTopic)?;
        let stream = topic.stream(partition).ok_or(Refusal::UnknownPartition)?;
        Ok((topic, stream))
    }

    pub(super) fn known(&self, stream: StreamId) -> &Partition {
        self.partitions.get(&stream).expect("every stream of a topic has a partition")
    }

    fn apply_operation(
        &mut self,
        step: &mut Step,
        operation: Operation,
    ) -> Result<OperationResult, Refusal> {
        match operation {
            Operation::Noop => Ok(OperationResult::Noop),
            Operation::CreateTopic { topic, name, partitions, configs } => {
                self.create_topic(topic, name, partitions, configs)
            }
            Operation::DeleteTopic { topic } => self.delete_topic(step, topic),
            Operation::Append { topic, partition, batch } => {
                let (topic, stream) = self.stream(topic, partition)?;
                if self.mirrors.get(&topic.id).is_some() {
                    return Err(Refusal::IsMirror);
                }
                if is_internal(&topic.name) {
                    return Err(Refusal::IsInternal);
                }
                let (topic, chain_key, retention) =
                    (topic.id, topic.chain_key, topic.keeping.retention);
                let facts = BatchFacts::read(batch.bytes(), step.entry_ms);
                let facts =
                    facts.filter(|facts| facts.missing == 0).ok_or(Refusal::InvalidBatch)?;
                let batch = &batch;
                let append = Append { topic, stream, chain_key, retention, batch, facts };
                let done = self.append(step, &append)?;
                self.note_foreign(topic);
                Ok(done)
            }
            // An id that nobody uses costs nothing, so a request that comes twice gets two.
            Operation::InitProducer { request } => {
                let producer = self.meta.take_producer(request);
                Ok(OperationResult::ProducerAssigned { producer })
            }
            Operation::AdvanceStart { topic, partition, offset } => {
                let (topic, stream) = self.stream(topic, partition)?;
                let topic = topic.id;
                self.advance_start(step, (topic, stream), offset)
            }
            Operation::AlterTopic { topic, replaces, changes } => {
                self.alter_topic(topic, replaces, changes)
            }
            Operation::ExpireProducers { idle_ms } => {
                let before_ms = step.age_ms.saturating_sub(idle_ms);
                let forgotten = self.producers.expire(before_ms, PRODUCERS_EXPIRED_MAX);
                self.note_forgotten(&forgotten);
                let count = u32::try_from(forgotten.len()).expect("bounded by its limit");
                Ok(OperationResult::ProducersExpired { count })
            }
            Operation::Link(operation) => self.apply_link(step, operation),
            Operation::Pipeline(operation) => self.apply_pipeline(step, operation),
        }
    }

    pub(super) fn create_topic(
        &mut self,
        id: TopicId,
        name: String,
        partitions: u32,
        configs: Vec<(String, String)>,
    ) -> Result<OperationResult, Refusal> {
        if is_internal(&name) {
            return Err(Refusal::InvalidTopicName);
        }
        self.new_topic(id, name, partitions, configs)
    }

    /// The same, also for the state of a pipeline.
    pub(super) fn new_topic(
        &mut self,
        id: TopicId,
        name: String,
        partitions: u32,
        configs: Vec<(String, String)>,
    ) -> Result<OperationResult, Refusal> {
        if !is_valid_name(&name) {
            return Err(Refusal::InvalidTopicName);
        }
        if self.topics.get(id).is_some() || self.topics.by_name(&name).is_some() {
            return Err(Refusal::TopicExists);
        }
        if partitions == 0 || partitions > PARTITIONS_PER_TOPIC_MAX {
            return Err(Refusal::InvalidPartitions);
        }
        check_configs(&configs)?;
        if self.topics.partition_count() + partitions as usize > PARTITIONS_PER_SITE_MAX {
            return Err(Refusal::LimitReached);
        }
        let first_stream = self.meta.take_streams(partitions).ok_or(Refusal::LimitReached)?;
        let (chain_key, configs) = split_chain_key(id, configs);
        let strict_from = self.deleted.created(&name, &self.meta);
        let keeping = Keeping::of(&configs);
        let topic = Topic { id, name, partitions, first_stream, chain_key, configs, keeping };
        for stream in topic.streams() {
            let before = self.partitions.put(Partition::new(stream, strict_from));
            assert!(before.is_none(), "a stream is handed out once");
        }
        let name = topic.name.clone();
        self.topics.insert(topic);
        self.note_new_topic(&name);
        Ok(OperationResult::TopicCreated)
    }

    pub(super) fn alter_topic(
        &mut self,
        id: TopicId,
        replaces: bool,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<OperationResult, Refusal> {
        let topic = self.topics.get(id).ok_or(Refusal::UnknownTopic)?;
        if is_internal(&topic.name) {
            return Err(Refusal::IsInternal);
        }
        let mut configs = if replaces { Vec::new() } else { topic.configs.clone() };
        for (name, value) in changes {
            // The key of the hash chains is not a setting: a chain that goes on with another would
            // look like a fork.
            if name == CHAIN_KEY_CONFIG {
                return Err(Refusal::InvalidConfig);
            }
            configs.retain(|(known, _)| *known != name);
            configs.extend(value.map(|value| (name, value)));
        }
        check_configs(&configs)?;
        self.topics.set_configs(id, configs);
        Ok(OperationResult::TopicAltered)
    }

    fn delete_topic(&mut self, step: &mut Step, id: TopicId) -> Result<OperationResult, Refusal> {
        let topic = self.topics.get(id).ok_or(Refusal::UnknownTopic)?;
        if is_internal(&topic.name) {
            return Err(Refusal::IsInternal);
        }
        if !self.needed_by(topic).is_empty() {
            return Err(Refusal::NeededAgain);
        }
        self.drop_topic(step, id);
        Ok(OperationResult::TopicDeleted)
    }

    /// Removes a topic that is there, with everything that belongs to it.
    pub(super) fn drop_topic(&mut self, step: &mut Step, id: TopicId) {
        let topic = self.topics.remove(id).expect("it was found a moment ago");
        for stream in topic.streams() {
            let partition = self.partitions.remove(&stream);
            assert!(partition.is_some(), "every stream of a topic has a partition");
            self.producers.drop_stream(stream);
            self.spans.drop_stream(stream);
            self.progress.remove(&stream);
            self.gaps.drop_stream(stream);
            self.peers.drop_stream(stream);
            self.positions.drop_stream(stream);
            self.letters.drop_stream(stream);
            step.dropped_streams.push(stream);
        }
        self.mirrors.remove(&id);
        self.declined.drop_topic(id);
        self.makings.remove(&id);
        self.note_gone_topic(&topic.name);
        self.pipeline_turns += 1;
        self.deleted.deleted(topic.name, &mut self.meta);
    }

    pub(super) fn append(
        &mut self,
        step: &mut Step,
        append: &Append<'_>,
    ) -> Result<OperationResult, Refusal> {
        let (stream, facts) = (append.stream, &append.facts);
        let partition = self.known(stream);
        let (next, strict_from) = (partition.next, partition.strict_producers_from);
        let chain = partition.chain;
        if !partition.has_room(facts.records) {
            return Err(Refusal::OffsetOutOfRange { next });
        }
        if let Some(base) = self.duplicate(append, strict_from)? {
            self.memory_moves(stream, next, facts.records);
            return Ok(base);
        }
        match self.make_room(step, append) {
            Ok(true) => {}
            Ok(false) => {
                self.remember(step, append, next);
                return Ok(self.not_keep(step, append));
            }
            Err(Refusal::BudgetReached) if fulmar_host::planted(Plant::BlockAcknowledges) => {
                return Ok(OperationResult::Appended { base_offset: next });
            }
            Err(refusal) => return Err(refusal),
        }
        let base = self.memory_moves(stream, next, facts.records);
        let appending = Appending {
            term: step.position.term,
            records: facts.records,
            max_timestamp_ms: facts.max_timestamp_ms,
            bytes: append.batch.bytes(),
        };
        let appended = self
            .partitions
            .modify(&stream, |partition| partition.append(base, &append.chain_key, &appending));
        assert!(appended.is_some(), "the partition was there a moment ago");
        self.remember(step, append, base);
        self.span(step, append, base, chain);
        step.rows.push(Row {
            stream,
            base_offset: base,
            records: facts.records,
            max_timestamp_ms: facts.max_timestamp_ms,
            index: step.position.index,
            term: step.position.term,
            at: append.batch.at(),
            len: append.batch.len(),
            crc: append.batch.crc(),
        });
        Ok(OperationResult::Appended { base_offset: base })
    }

    /// What is answered to a batch that is there already; an error to one that may not come now.
    fn duplicate(
        &self,
        append: &Append<'_>,
        strict_from: u64,
    ) -> Result<Option<OperationResult>, Refusal> {
        let Some(sequenced) = &append.facts.sequenced else { return Ok(None) };
        // Whoever gets the id later would be told that its batches are duplicates.
        if !self.meta.has_handed_out(sequenced.producer)
            && !fulmar_host::planted(Plant::AnyProducerId)
        {
            return Err(Refusal::UnknownProducer);
        }
        match self.producers.check(append.stream, sequenced, strict_from)? {
            Verdict::Duplicate(old) if !fulmar_host::planted(Plant::NoDuplicateCheck) => {
                let (base_offset, term) = (old.base_offset, old.term);
                Ok(Some(OperationResult::Duplicate { base_offset, term }))
            }
            Verdict::Duplicate(_) | Verdict::Next => Ok(None),
        }
    }

    /// Remembers a batch of an idempotent producer, which gets this offset.
    fn remember(&mut self, step: &Step, append: &Append<'_>, base: Offset) {
        let Some(sequenced) = &append.facts.sequenced else { return };
        if fulmar_host::planted(Plant::NoDuplicateCheck) {
            let strict_from = self.known(append.stream).strict_producers_from;
            let verdict = self.producers.check(append.stream, sequenced, strict_from);
            if matches!(verdict, Ok(Verdict::Duplicate(_))) {
                return;
            }
        }
        let at = (base, step.position.term);
        let forgotten = self.producers.remember(append.stream, sequenced, at, step.age_ms);
        self.note_forgotten(&forgotten);
    }

    /// Takes note of how much and how old a partition is with a batch. `chain` is what it was before.
    fn span(&mut self, step: &Step, append: &Append<'_>, first: Offset, chain: [u8; 16]) {
        let (records, bytes) = (append.facts.records, u64::from(append.batch.len()));
        let (age_ms, at_ms) = (step.age_ms, step.entry_ms);
        let piece = Piece { first, records, bytes, age_ms, at_ms, chain };
        let most = spans_max(self.topics.partition_count());
        self.spans.append(append.stream, &piece, append.retention.grain(most), most);
    }

    /// The base offset of a batch: the next offset of the partition. With
    /// [`Plant::OffsetFromMemory`] it is a counter beside the state instead, which also counts
    /// what turns out to be a duplicate, and starts anew with the process.
    fn memory_moves(&mut self, stream: StreamId, next: Offset, records: u32) -> Offset {
        if !fulmar_host::planted(Plant::OffsetFromMemory) {
            return next;
        }
        let counter = self.memory.entry(stream).or_insert(next);
        let base = (*counter).max(next);
        *counter = base.plus(u64::from(records));
        base
    }

    /// A producer that was forgotten may come back with any sequence number.
    fn note_forgotten(&mut self, forgotten: &[Forgotten]) {
        for (stream, producer) in forgotten {
            let above = producer.0.unsigned_abs() + 1;
            self.partitions.modify(stream, |partition| {
                partition.strict_producers_from = partition.strict_producers_from.max(above);
            });
        }
    }
}

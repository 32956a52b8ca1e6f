//! Idempotent producers: the last batches of each, per partition, so that one that is sent again
//! is answered and not appended (KIP-98; Kafka's `ProducerStateManager`).
//!
//! Invariants: what is remembered is part of the replicated state, so a new leader, a restarted
//! node and one that was built from a snapshot answer alike; sequence numbers wrap from `i32::MAX`
//! to 0; the numbers of producers stay within their limits, and who is forgotten for that depends
//! on the age of the site and ids alone.
//!
//! Unlike Kafka, a first batch whose sequence number is not 0 is refused where this partition is
//! known never to have forgotten its producer: the batch before it was not appended, and taking
//! this one would reorder them. Where it may have been forgotten, any number is taken, as in Kafka.

use super::codec::{CodecError, Reader, Writer};
use super::outcome::Refusal;
use super::table::{Element, Table, TableError};
use bytes::Bytes;
use fulmar_store::StreamId;
use fulmar_types::limits::{PRODUCER_BATCHES_REMEMBERED, PRODUCERS_PER_PARTITION_MAX};
use fulmar_types::{Offset, Term};
use std::collections::{BTreeMap, BTreeSet};

/// Pairs of producer and partition that a site remembers, at about 300 bytes each.
pub const PRODUCERS_PER_SITE_MAX: usize = 65_536;

const _: () = assert!(PRODUCERS_PER_SITE_MAX >= PRODUCERS_PER_PARTITION_MAX);

/// The id of an idempotent producer: handed out by the site, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl std::fmt::Display for ProducerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Who sent a batch, and its place in what they sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// The producer.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: u16,
    /// The sequence number of the first record, at most `i32::MAX`.
    pub first: u32,
    /// How many records there are, at least one.
    pub records: u32,
}

/// Sequence numbers run from 0 to `i32::MAX` and start again.
const SEQUENCES: u64 = 1 << 31;

fn later(sequence: u32, by: u32) -> u32 {
    let sum = (u64::from(sequence) + u64::from(by)) % SEQUENCES;
    u32::try_from(sum).expect("below 2^31")
}

impl Sequenced {
    fn last(&self) -> u32 {
        later(self.first, self.records - 1)
    }
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its first sequence number.
    pub first: u32,
    /// Its last sequence number.
    pub last: u32,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The term in which it was appended.
    pub term: Term,
}

/// What is remembered of one producer in one partition.
///
/// ```text
/// stream u32 | producer i64 | epoch u16 | last used ms u64 | batches u32
/// | (first u32 | last u32 | base offset u64 | term u64) per batch, oldest first
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The partition.
    pub stream: StreamId,
    /// The producer.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: u16,
    /// The age of the site at its last batch, in milliseconds.
    pub last_used_ms: u64,
    /// Its last batches, oldest first, at least one.
    pub batches: Vec<Remembered>,
}

impl Element for ProducerState {
    type Key = (StreamId, ProducerId);
    const SEED: u64 = 3;
    const BYTES_MIN: usize = 50;

    fn key(&self) -> Self::Key {
        (self.stream, self.producer)
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.i64(self.producer.0);
        out.u16(self.epoch);
        out.u64(self.last_used_ms);
        out.count(self.batches.len());
        for batch in &self.batches {
            out.u32(batch.first);
            out.u32(batch.last);
            out.u64(batch.base_offset.0);
            out.u64(batch.term.0);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let stream = StreamId(input.u32()?);
        let producer = ProducerId(input.i64()?);
        let epoch = input.u16()?;
        let last_used_ms = input.u64()?;
        let count = input.count(24)?;
        if count == 0 || count > PRODUCER_BATCHES_REMEMBERED || producer.0 < 0 {
            return Err(CodecError::Tag);
        }
        let batches = (0..count)
            .map(|_| {
                Ok(Remembered {
                    first: input.u32()?,
                    last: input.u32()?,
                    base_offset: Offset(input.u64()?),
                    term: Term(input.u64()?),
                })
            })
            .collect::<Result<_, CodecError>>()?;
        Ok(Self { stream, producer, epoch, last_used_ms, batches })
    }
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: append it.
    Next,
    /// It was appended before.
    Duplicate(Remembered),
}

/// A producer that was forgotten, and where.
pub type Forgotten = (StreamId, ProducerId);

/// All producers of a site.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    table: Table<ProducerState>,
    /// Derived: who was used least recently.
    oldest: BTreeSet<(u64, StreamId, ProducerId)>,
    /// Derived: how many a partition has.
    per_partition: BTreeMap<StreamId, usize>,
}

impl Producers {
    /// What is to be done with a batch, without doing it. `strict_from`: producers from this id on
    /// have never been forgotten in this partition.
    ///
    /// # Errors
    /// [`Refusal::ProducerFenced`] for an old epoch, [`Refusal::SequenceOutOfOrder`] for a batch
    /// that is neither next nor remembered.
    pub fn check(
        &self,
        stream: StreamId,
        batch: &Sequenced,
        strict_from: u64,
    ) -> Result<Verdict, Refusal> {
        let starts_at_0 = if batch.first == 0 {
            Ok(Verdict::Next)
        } else {
            Err(Refusal::SequenceOutOfOrder { expected: 0 })
        };
        let Some(state) = self.table.get(&(stream, batch.producer)) else {
            let forgotten = batch.producer.0.unsigned_abs() < strict_from;
            return if forgotten { Ok(Verdict::Next) } else { starts_at_0 };
        };
        if batch.epoch < state.epoch {
            return Err(Refusal::ProducerFenced { epoch: state.epoch });
        }
        if batch.epoch > state.epoch {
            return starts_at_0;
        }
        let same = |old: &&Remembered| old.first == batch.first && old.last == batch.last();
        if let Some(old) = state.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*old));
        }
        let newest = state.batches.last().expect("a state is made of at least one batch");
        let expected = later(newest.last, 1);
        if batch.first == expected {
            Ok(Verdict::Next)
        } else {
            Err(Refusal::SequenceOutOfOrder { expected })
        }
    }

    /// Remembers a batch that was appended. Returns who had to be forgotten for it.
    pub fn remember(
        &mut self,
        stream: StreamId,
        batch: &Sequenced,
        at: (Offset, Term),
        age_ms: u64,
    ) -> Vec<Forgotten> {
        assert!(batch.producer.0 >= 0, "a batch without producer is not remembered");
        assert!(batch.records > 0, "a batch has records");
        let new =
            Remembered { first: batch.first, last: batch.last(), base_offset: at.0, term: at.1 };
        let key = (stream, batch.producer);
        let mut forgotten = Vec::new();
        let mut state = match self.table.get(&key) {
            Some(state) if state.epoch == batch.epoch => state.clone(),
            Some(_) => self.new_state(key, batch.epoch),
            None => {
                self.make_room(stream, &mut forgotten);
                self.new_state(key, batch.epoch)
            }
        };
        if state.batches.len() >= PRODUCER_BATCHES_REMEMBERED {
            state.batches.remove(0);
        }
        state.batches.push(new);
        state.last_used_ms = age_ms;
        self.put(state);
        assert!(self.table.len() <= PRODUCERS_PER_SITE_MAX, "room was made before");
        forgotten
    }

    fn new_state(&self, (stream, producer): Forgotten, epoch: u16) -> ProducerState {
        ProducerState { stream, producer, epoch, last_used_ms: 0, batches: Vec::new() }
    }

    fn make_room(&mut self, stream: StreamId, forgotten: &mut Vec<Forgotten>) {
        if self.per_partition.get(&stream).is_some_and(|n| *n >= PRODUCERS_PER_PARTITION_MAX) {
            let oldest = self
                .of_stream(stream)
                .map(|state| (state.last_used_ms, state.producer))
                .min()
                .expect("a full partition has producers");
            self.forget(&(stream, oldest.1));
            forgotten.push((stream, oldest.1));
        }
        if self.table.len() >= PRODUCERS_PER_SITE_MAX {
            let (_, stream, producer) = *self.oldest.first().expect("a full site has producers");
            self.forget(&(stream, producer));
            forgotten.push((stream, producer));
        }
    }

    fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = &ProducerState> {
        self.table.range((stream, ProducerId(i64::MIN))..=(stream, ProducerId(i64::MAX)))
    }

    /// The age of the site at which the longest idle producer was last used.
    pub fn oldest_used_ms(&self) -> Option<u64> {
        self.oldest.first().map(|(ms, _, _)| *ms)
    }

    /// Forgets everybody who was last used before the site was of this age, at most `max` of
    /// them and the longest idle first. Returns who.
    pub fn expire(&mut self, before_ms: u64, max: usize) -> Vec<Forgotten> {
        let idle: Vec<Forgotten> = self
            .oldest
            .iter()
            .take_while(|(ms, _, _)| *ms < before_ms)
            .take(max)
            .map(|(_, stream, producer)| (*stream, *producer))
            .collect();
        idle.iter().for_each(|key| self.forget(key));
        idle
    }

    /// Forgets everybody who wrote to a partition that is gone.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let keys: Vec<Forgotten> = self.of_stream(stream).map(Element::key).collect();
        keys.iter().for_each(|key| self.forget(key));
        assert!(!self.per_partition.contains_key(&stream), "nobody is left");
    }

    /// What is remembered of a producer in a partition.
    pub fn get(&self, stream: StreamId, producer: ProducerId) -> Option<&ProducerState> {
        self.table.get(&(stream, producer))
    }

    /// The partitions in which anybody is remembered.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.per_partition.keys().copied()
    }

    /// How many pairs of producer and partition are remembered.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn put(&mut self, state: ProducerState) {
        let after = (state.last_used_ms, state.stream, state.producer);
        let before = self.table.put(state);
        let gone = before.as_ref().map(place);
        follow(&mut self.oldest, &mut self.per_partition, gone, Some(after));
    }

    fn forget(&mut self, key: &Forgotten) {
        let before = self.table.remove(key);
        let gone = before.as_ref().map(place);
        follow(&mut self.oldest, &mut self.per_partition, gone, None);
    }

    /// From here on changes can be undone.
    pub fn begin(&mut self) {
        self.table.begin();
    }

    /// Keeps the changes since [`Producers::begin`].
    pub fn commit(&mut self) {
        self.table.commit();
    }

    /// Undoes the changes since [`Producers::begin`].
    pub fn rollback(&mut self) {
        let (oldest, per_partition) = (&mut self.oldest, &mut self.per_partition);
        self.table.rollback(|after, before| {
            follow(oldest, per_partition, after.map(place), before.map(place));
        });
    }

    /// The hash of all that is remembered.
    pub fn hash(&self) -> u128 {
        self.table.hash()
    }

    /// The bytes of the section.
    pub fn snapshot(&self) -> Bytes {
        let mut out = Writer::new();
        self.table.snapshot(&mut out);
        out.finish()
    }

    /// Reads the section back.
    ///
    /// # Errors
    /// If the bytes are not producers, or do not have the hash that is stored with them.
    pub fn restore(bytes: &[u8]) -> Result<Self, TableError> {
        let mut input = Reader::new(bytes);
        let table = Table::<ProducerState>::restore(&mut input)?;
        input.end()?;
        let mut producers = Self::default();
        for state in table.iter() {
            let come = Some(place(state));
            follow(&mut producers.oldest, &mut producers.per_partition, None, come);
        }
        producers.table = table;
        Ok(producers)
    }
}

type Place = (u64, StreamId, ProducerId);

fn place(state: &ProducerState) -> Place {
    (state.last_used_ms, state.stream, state.producer)
}

/// Keeps what is derived in step with the table.
fn follow(
    oldest: &mut BTreeSet<Place>,
    per_partition: &mut BTreeMap<StreamId, usize>,
    gone: Option<Place>,
    come: Option<Place>,
) {
    if let Some(place) = gone {
        assert!(oldest.remove(&place), "every producer has its place in time");
        let count = per_partition.get_mut(&place.1).expect("its partition is counted");
        *count -= 1;
        if *count == 0 {
            per_partition.remove(&place.1);
        }
    }
    if let Some(place) = come {
        assert!(oldest.insert(place), "a place in time belongs to one producer");
        *per_partition.entry(place.1).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(7);

    fn batch(first: u32, records: u32) -> Sequenced {
        Sequenced { producer: ProducerId(9), epoch: 0, first, records }
    }

    fn remember(producers: &mut Producers, batch: &Sequenced, base: u64, ms: u64) {
        let forgotten = producers.remember(STREAM, batch, (Offset(base), Term(2)), ms);
        assert!(forgotten.is_empty());
    }

    #[test]
    fn a_duplicate_has_its_first_offset_as_long_as_five_batches_remember_it() {
        let mut producers = Producers::default();
        for n in 0..6 {
            let batch = batch(n * 10, 10);
            assert_eq!(producers.check(STREAM, &batch, 0), Ok(Verdict::Next));
            remember(&mut producers, &batch, u64::from(n) * 10, 1);
        }
        let first_known = producers.check(STREAM, &batch(10, 10), 0).expect("remembered");
        let Verdict::Duplicate(old) = first_known else { panic!("{first_known:?}") };
        assert_eq!((old.base_offset, old.term), (Offset(10), Term(2)));
        let refused = Err(Refusal::SequenceOutOfOrder { expected: 60 });
        assert_eq!(producers.check(STREAM, &batch(0, 10), 0), refused);
        assert_eq!(producers.check(STREAM, &batch(10, 9), 0), refused);
        assert_eq!(producers.check(STREAM, &batch(70, 1), 0), refused);
        assert_eq!(producers.check(STREAM, &batch(60, 1), 0), Ok(Verdict::Next));
    }

    #[test]
    fn sequence_numbers_wrap_inside_a_batch_and_between_two() {
        let mut producers = Producers::default();
        let max = i32::MAX as u32;
        remember(&mut producers, &batch(max - 1, 4), 0, 1);
        let state = producers.get(STREAM, ProducerId(9)).expect("remembered");
        assert_eq!(state.batches[0].last, 1);
        assert_eq!(producers.check(STREAM, &batch(2, 1), 0), Ok(Verdict::Next));
        let again = producers.check(STREAM, &batch(max - 1, 4), 0);
        assert!(matches!(again, Ok(Verdict::Duplicate(_))), "{again:?}");
        let mut producers = Producers::default();
        remember(&mut producers, &batch(max, 1), 0, 1);
        assert_eq!(producers.check(STREAM, &batch(0, 1), 0), Ok(Verdict::Next));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_0() {
        let mut producers = Producers::default();
        let of = |epoch, first| Sequenced { epoch, ..batch(first, 1) };
        remember(&mut producers, &of(3, 0), 0, 1);
        let fenced = Err(Refusal::ProducerFenced { epoch: 3 });
        assert_eq!(producers.check(STREAM, &of(2, 1), 0), fenced);
        let refused = Err(Refusal::SequenceOutOfOrder { expected: 0 });
        assert_eq!(producers.check(STREAM, &of(4, 1), 0), refused);
        assert_eq!(producers.check(STREAM, &of(4, 0), 0), Ok(Verdict::Next));
        remember(&mut producers, &of(4, 0), 1, 1);
        assert_eq!(producers.get(STREAM, ProducerId(9)).map(|s| s.batches.len()), Some(1));
    }

    #[test]
    fn a_first_batch_starts_at_0_unless_its_producer_may_have_been_forgotten() {
        let producers = Producers::default();
        let refused = Err(Refusal::SequenceOutOfOrder { expected: 0 });
        assert_eq!(producers.check(STREAM, &batch(5, 1), 9), refused);
        assert_eq!(producers.check(STREAM, &batch(5, 1), 10), Ok(Verdict::Next));
        assert_eq!(producers.check(STREAM, &batch(0, 1), 0), Ok(Verdict::Next));
    }

    #[test]
    fn a_full_partition_forgets_the_longest_idle_producer() {
        let mut producers = Producers::default();
        let of = |id: usize| Sequenced { producer: ProducerId(id as i64), ..batch(0, 1) };
        for id in 0..PRODUCERS_PER_PARTITION_MAX {
            remember(&mut producers, &of(id), id as u64, 100 - (id as u64 % 50));
        }
        let forgotten = producers.remember(STREAM, &of(99_999), (Offset(0), Term(1)), 100);
        assert_eq!(forgotten, [(STREAM, ProducerId(49))]);
        assert_eq!(producers.len(), PRODUCERS_PER_PARTITION_MAX);
    }

    #[test]
    fn idle_producers_expire_by_entry_time() {
        let mut producers = Producers::default();
        let of = |id| Sequenced { producer: ProducerId(id), ..batch(0, 1) };
        remember(&mut producers, &of(1), 0, 100);
        remember(&mut producers, &of(2), 1, 200);
        assert_eq!(producers.oldest_used_ms(), Some(100));
        assert_eq!(producers.expire(100, 10), []);
        assert_eq!(producers.expire(201, 1), [(STREAM, ProducerId(1))]);
        assert_eq!(producers.expire(201, 10), [(STREAM, ProducerId(2))]);
        assert!(producers.is_empty());
        assert_eq!(producers.hash(), 0);
    }
}

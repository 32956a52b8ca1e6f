//! The partitions of a site: where they begin and end, who led them from which offset, and a hash
//! chain over everything that was ever appended.
//!
//! Invariants: `log_start <= next`; `next` only grows, and by as many as a batch has records, so
//! offsets are dense; the terms of `epochs` and their offsets both strictly increase.
//!
//! Never: take an offset from anywhere but `next`.

use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use fulmar_store::StreamId;
use fulmar_types::{Offset, Term};

/// Leader epochs that are remembered per partition. A consumer that was away for more leader
/// changes than that is sent to the oldest one.
pub const LEADER_EPOCHS_MAX: usize = 64;

/// Where in a record batch that begins which is covered by its checksum, and by the chain: behind
/// base offset, length and leader epoch, which the broker may set.
const CHAINED_FROM: usize = 16;

/// A partition.
///
/// ```text
/// stream u32 | log start u64 | next u64 | chain [u8; 16] | strict producers from u64
/// | max timestamp ms i64 | its offset u64 | epochs u32 | (term u64 | first offset u64) per epoch
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the log.
    pub stream: StreamId,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The offset that the next record gets. With it everything before is committed: the high
    /// watermark.
    pub next: Offset,
    /// Keyed hash over all batches so far, in order.
    pub chain: [u8; 16],
    /// Producer ids from here on have never been forgotten in this partition, so that their first
    /// batch must have sequence number 0.
    pub strict_producers_from: u64,
    /// The largest timestamp of a batch that can still be read, -1 if there is none.
    pub max_timestamp_ms: i64,
    /// The base offset of the first batch with that timestamp.
    pub max_timestamp_offset: Offset,
    /// The first offset of each term that appended something, oldest first.
    pub epochs: Vec<(Term, Offset)>,
}

/// What a partition must know of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Appending<'a> {
    /// The term of the entry that holds it.
    pub term: Term,
    /// How many offsets it takes, at least one.
    pub records: u32,
    /// The largest timestamp of its records, -1 for none.
    pub max_timestamp_ms: i64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The hash chain behind a batch.
pub fn chained(key: &[u8; 32], chain: &[u8; 16], base: Offset, batch: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(chain);
    hasher.update(&base.0.to_le_bytes());
    hasher.update(batch.get(CHAINED_FROM..).unwrap_or_default());
    let mut after = [0; 16];
    after.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    after
}

impl Partition {
    /// A partition without records.
    pub fn new(stream: StreamId, strict_producers_from: u64) -> Self {
        Self {
            stream,
            log_start: Offset(0),
            next: Offset(0),
            chain: [0; 16],
            strict_producers_from,
            max_timestamp_ms: -1,
            max_timestamp_offset: Offset(0),
            epochs: Vec::new(),
        }
    }

    /// Whether so many records still have offsets that Kafka can name.
    pub fn has_room(&self, records: u32) -> bool {
        records > 0 && self.next.0 + u64::from(records) <= i64::MAX as u64
    }

    /// Appends a batch at `base`, which is `next` unless a bug is planted.
    pub fn append(&mut self, base: Offset, chain_key: &[u8; 32], batch: &Appending<'_>) {
        assert!(batch.records > 0, "a batch has records");
        self.chain = chained(chain_key, &self.chain, base, batch.bytes);
        let newest = self.epochs.last().map(|(term, _)| *term);
        assert!(newest.is_none_or(|term| term <= batch.term), "terms never go back");
        if newest != Some(batch.term) {
            if self.epochs.len() >= LEADER_EPOCHS_MAX {
                self.epochs.remove(0);
            }
            self.epochs.push((batch.term, base));
        }
        if batch.max_timestamp_ms > self.max_timestamp_ms {
            self.max_timestamp_ms = batch.max_timestamp_ms;
            self.max_timestamp_offset = base;
        }
        self.next = base.plus(u64::from(batch.records));
    }

    /// Goes on at a later offset, with nothing before it that was not there yet.
    pub fn skip_to(&mut self, to: Offset) {
        assert!(to > self.next, "offsets never go back");
        if self.log_start == self.next {
            self.log_start = to;
        }
        self.next = to;
    }

    /// Moves the first offset that can be read. Returns whether anything moved.
    pub fn advance_start(&mut self, offset: Offset) -> bool {
        if offset <= self.log_start || offset > self.next {
            return false;
        }
        self.log_start = offset;
        if self.max_timestamp_offset < offset {
            // The batch may be gone; batches that come will set it again.
            self.max_timestamp_ms = -1;
        }
        // The newest epoch that begins at or before the start is still needed.
        let keep = self.epochs.iter().rposition(|(_, from)| *from <= offset).unwrap_or(0);
        self.epochs.drain(..keep);
        true
    }
}

impl Element for Partition {
    type Key = StreamId;
    const SEED: u64 = 2;
    const BYTES_MIN: usize = 64;

    fn key(&self) -> StreamId {
        self.stream
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.u64(self.log_start.0);
        out.u64(self.next.0);
        out.raw(&self.chain);
        out.u64(self.strict_producers_from);
        out.i64(self.max_timestamp_ms);
        out.u64(self.max_timestamp_offset.0);
        out.count(self.epochs.len());
        for (term, offset) in &self.epochs {
            out.u64(term.0);
            out.u64(offset.0);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut partition = Self::new(StreamId(input.u32()?), 0);
        partition.log_start = Offset(input.u64()?);
        partition.next = Offset(input.u64()?);
        partition.chain = input.array()?;
        partition.strict_producers_from = input.u64()?;
        partition.max_timestamp_ms = input.i64()?;
        partition.max_timestamp_offset = Offset(input.u64()?);
        let epochs = input.count(16)?;
        partition.epochs = (0..epochs)
            .map(|_| Ok((Term(input.u64()?), Offset(input.u64()?))))
            .collect::<Result<_, CodecError>>()?;
        if partition.log_start > partition.next || partition.next.0 > i64::MAX as u64 {
            return Err(CodecError::Tag);
        }
        Ok(partition)
    }
}

/// All partitions, by stream.
pub type Partitions = Table<Partition>;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(term: u64, records: u32, bytes: &[u8]) -> Appending<'_> {
        Appending { term: Term(term), records, max_timestamp_ms: 5, bytes }
    }

    fn append(partition: &mut Partition, batch: &Appending<'_>) {
        let base = partition.next;
        partition.append(base, &[7; 32], batch);
    }

    #[test]
    fn offsets_are_dense_and_epochs_begin_where_a_term_first_appended() {
        let mut partition = Partition::new(StreamId(1), 0);
        append(&mut partition, &batch(1, 3, b""));
        append(&mut partition, &batch(1, 1, b""));
        append(&mut partition, &batch(4, 2, b""));
        assert_eq!(partition.next, Offset(6));
        assert_eq!(partition.epochs, [(Term(1), Offset(0)), (Term(4), Offset(4))]);
        assert!(!partition.advance_start(Offset(7)));
        assert!(partition.advance_start(Offset(5)));
        assert!(!partition.advance_start(Offset(5)));
        assert_eq!(partition.epochs, [(Term(4), Offset(4))]);
    }

    #[test]
    fn the_chain_ignores_what_a_broker_may_set_and_nothing_else() {
        let bytes = [1u8; 61];
        let chain = |bytes: &[u8], key: u8| {
            let mut partition = Partition::new(StreamId(1), 0);
            partition.append(Offset(0), &[key; 32], &batch(1, 1, bytes));
            partition.chain
        };
        let mut other = bytes;
        other[..8].fill(9);
        other[12..16].fill(9);
        assert_eq!(chain(&bytes, 1), chain(&other, 1));
        other[16] = 9;
        assert_ne!(chain(&bytes, 1), chain(&other, 1));
        assert_ne!(chain(&bytes, 1), chain(&bytes, 2));
    }

    #[test]
    fn old_epochs_are_forgotten() {
        let mut partition = Partition::new(StreamId(1), 0);
        for term in 1..=100 {
            append(&mut partition, &batch(term, 1, b""));
        }
        assert_eq!(partition.epochs.len(), LEADER_EPOCHS_MAX);
        assert_eq!(partition.epochs.last(), Some(&(Term(100), Offset(99))));
    }
}

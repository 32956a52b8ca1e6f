//! How much a partition holds, and how old it is: its records in spans of neighbours.
//!
//! Retention needs the offset behind everything that is older than so much or more than so many
//! bytes. Looking through the log for it would take reads, on every node and after every restart;
//! so the state keeps a few marks, finer where the retention of the topic is shorter.
//!
//! A span is closed when it would grow beyond its grain, a part of what the topic keeps. So while
//! retention keeps up, what is kept has fewer spans than there may be. If there are too many, because
//! it did not or because there are more partitions now, the two neighbours become one that stay
//! smallest together: never always the oldest, which would take in one young record after another and
//! never have had its time.
//!
//! Invariants: the spans of a partition follow one another, and the last one ends where the
//! partition does; their number is bounded; they depend on the entries alone.
//!
//! Never: take an age from a client's timestamp.

use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use fulmar_store::StreamId;
use fulmar_types::Offset;

/// Spans of one partition, at most.
pub const SPANS_PER_PARTITION_MAX: usize = 64;

/// Spans that a partition may have however many others there are.
const SPANS_PER_PARTITION_MIN: usize = 8;

/// Spans of a site, about, at some hundred bytes each.
const SPANS_PER_SITE: usize = 65_536;

/// Spans that a partition of a site with so many of them may have.
pub fn spans_max(partitions: usize) -> usize {
    (SPANS_PER_SITE / partitions.max(1)).clamp(SPANS_PER_PARTITION_MIN, SPANS_PER_PARTITION_MAX)
}

/// Neighbouring records of a partition.
///
/// ```text
/// stream u32 | first u64 | end u64 | bytes u64 | first age ms u64 | last age ms u64
/// | first ms u64 | last ms u64 | chain [u8; 16]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub stream: StreamId,
    /// The first offset.
    pub first: Offset,
    /// The offset behind the last one.
    pub end: Offset,
    /// Bytes of the batches.
    pub bytes: u64,
    /// The age of the site when the first batch was appended, in milliseconds.
    pub first_age_ms: u64,
    /// The same of the last batch.
    pub last_age_ms: u64,
    /// The time of the entry that brought the first batch, in ms since 1970.
    pub first_ms: u64,
    /// The same of the last batch.
    pub last_ms: u64,
    /// The hash chain of the partition before the first batch: from here on it can be computed
    /// again.
    pub chain: [u8; 16],
}

impl Span {
    fn joined(&self, newer: &Self) -> Self {
        let bytes = self.bytes.saturating_add(newer.bytes);
        let Self { end, last_age_ms, last_ms, .. } = *newer;
        Self { end, bytes, last_age_ms, last_ms, ..*self }
    }
}

/// Up to where a span grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// In bytes, not 0.
    pub bytes: u64,
    /// In milliseconds between the first batch and the last, not 0.
    pub age_ms: u64,
}

impl Grain {
    /// How much of it a span is, in thousandths.
    fn part(&self, span: &Span) -> u128 {
        let age_ms = span.last_age_ms.saturating_sub(span.first_age_ms);
        let thousandths = |of: u64, grain: u64| u128::from(of) * 1_000 / u128::from(grain.max(1));
        thousandths(span.bytes, self.bytes).max(thousandths(age_ms, self.age_ms))
    }
}

/// What a batch adds.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Its base offset.
    pub first: Offset,
    /// How many offsets it takes.
    pub records: u32,
    /// Its length.
    pub bytes: u64,
    /// The age of the site.
    pub age_ms: u64,
    /// The time of its entry, in ms since 1970.
    pub at_ms: u64,
    /// The hash chain before it.
    pub chain: [u8; 16],
}

impl Element for Span {
    type Key = (StreamId, Offset);
    const SEED: u64 = 7;
    const BYTES_MIN: usize = 76;

    fn key(&self) -> Self::Key {
        (self.stream, self.first)
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.u64(self.first.0);
        out.u64(self.end.0);
        out.u64(self.bytes);
        out.u64(self.first_age_ms);
        out.u64(self.last_age_ms);
        out.u64(self.first_ms);
        out.u64(self.last_ms);
        out.raw(&self.chain);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let span = Self {
            stream: StreamId(input.u32()?),
            first: Offset(input.u64()?),
            end: Offset(input.u64()?),
            bytes: input.u64()?,
            first_age_ms: input.u64()?,
            last_age_ms: input.u64()?,
            first_ms: input.u64()?,
            last_ms: input.u64()?,
            chain: input.array()?,
        };
        let is_backwards = span.first_age_ms > span.last_age_ms || span.first_ms > span.last_ms;
        if span.first >= span.end || is_backwards {
            return Err(CodecError::Tag);
        }
        Ok(span)
    }
}

impl Table<Span> {
    /// The spans of a partition, oldest first.
    pub fn of_stream(&self, stream: StreamId) -> impl DoubleEndedIterator<Item = &Span> {
        self.range((stream, Offset(0))..=(stream, Offset(u64::MAX)))
    }

    /// Takes note of a batch. A span that would grow beyond `grain` is followed by a new one; as long
    /// as there are more than `most`, two neighbours become one.
    pub fn append(&mut self, stream: StreamId, piece: &Piece, grain: Grain, most: usize) {
        let end = piece.first.plus(u64::from(piece.records));
        let last = self.of_stream(stream).next_back().copied();
        assert!(last.is_none_or(|last| last.end <= piece.first), "offsets never go back");
        let grows = |last: &Span| {
            last.bytes.saturating_add(piece.bytes) <= grain.bytes
                && piece.age_ms.saturating_sub(last.first_age_ms) <= grain.age_ms
        };
        match last.filter(grows) {
            Some(last) => {
                let bytes = last.bytes + piece.bytes;
                let (last_age_ms, last_ms) = (piece.age_ms, piece.at_ms);
                self.put(Span { end, bytes, last_age_ms, last_ms, ..last });
            }
            None => {
                let (first, bytes) = (piece.first, piece.bytes);
                self.put(Span {
                    stream,
                    first,
                    end,
                    bytes,
                    first_age_ms: piece.age_ms,
                    last_age_ms: piece.age_ms,
                    first_ms: piece.at_ms,
                    last_ms: piece.at_ms,
                    chain: piece.chain,
                });
                while self.of_stream(stream).count() > most {
                    self.join_smallest(stream, grain);
                }
            }
        }
    }

    /// Makes one span of the two neighbours that stay smallest together, the newest of equals.
    fn join_smallest(&mut self, stream: StreamId, grain: Grain) {
        let pairs = self.of_stream(stream).zip(self.of_stream(stream).skip(1));
        let joined = pairs.map(|(older, newer)| (older.joined(newer), newer.key()));
        // Of equals `min_by_key` takes the first.
        let newest_first = joined.collect::<Vec<_>>().into_iter().rev();
        let smallest = newest_first.min_by_key(|(joined, _)| grain.part(joined));
        let (joined, newer) = smallest.expect("there are two neighbours");
        self.remove(&newer);
        self.put(joined);
    }

    /// Takes note that a partition goes on at an offset with nothing before it: the newest span
    /// reaches up to there.
    pub fn skip_to(&mut self, stream: StreamId, to: Offset) {
        let last = self.of_stream(stream).next_back().copied();
        if let Some(last) = last {
            assert!(last.end <= to, "offsets never go back");
            self.put(Span { end: to, ..last });
        }
    }

    /// Forgets the spans that end at or before the new start of a partition.
    pub fn advance_start(&mut self, stream: StreamId, start: Offset) {
        let gone = self.of_stream(stream).take_while(|span| span.end <= start);
        let gone: Vec<_> = gone.map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Forgets a partition.
    pub fn drop_stream(&mut self, stream: StreamId) {
        self.advance_start(stream, Offset(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(4);
    const GRAIN: Grain = Grain { bytes: 100, age_ms: 10 };

    fn table(pieces: &[(u64, u64)]) -> Table<Span> {
        let mut table = Table::default();
        for other in [StreamId(3), StreamId(5)] {
            let (first, chain) = (Offset(0), [0; 16]);
            let piece = Piece { first, records: 1, bytes: 1, age_ms: 0, at_ms: 0, chain };
            table.append(other, &piece, GRAIN, 8);
        }
        for (at, (bytes, age_ms)) in pieces.iter().enumerate() {
            let first = Offset(2 * at as u64);
            let chain = [at as u8; 16];
            let (bytes, age_ms) = (*bytes, *age_ms);
            let piece = Piece { first, records: 2, bytes, age_ms, at_ms: age_ms, chain };
            table.append(STREAM, &piece, GRAIN, 8);
        }
        table
    }

    fn shown(table: &Table<Span>) -> Vec<(u64, u64, u64, u64, u64)> {
        let shown = table.of_stream(STREAM).map(|span| {
            (span.first.0, span.end.0, span.bytes, span.first_age_ms, span.last_age_ms)
        });
        shown.collect()
    }

    #[test]
    fn a_span_grows_up_to_its_grain() {
        let table = table(&[(60, 1), (40, 5), (1, 6), (1, 16), (1, 17), (500, 17)]);
        let expected =
            [(0, 4, 100, 1, 5), (4, 8, 2, 6, 16), (8, 10, 1, 17, 17), (10, 12, 500, 17, 17)];
        assert_eq!(shown(&table), expected);
    }

    #[test]
    fn the_smallest_neighbours_become_one_when_there_are_too_many() {
        let mut nine: Vec<(u64, u64)> = (0..9).map(|at| (80, at)).collect();
        nine[4].0 = 70;
        let table = table(&nine);
        let spans: Vec<_> = shown(&table).iter().map(|span| (span.0, span.2)).collect();
        let expected = [(0, 80), (2, 80), (4, 80), (6, 80), (8, 150), (12, 80), (14, 80), (16, 80)];
        assert_eq!(spans, expected);
        assert_eq!(table.of_stream(StreamId(3)).count(), 1);
    }

    #[test]
    fn what_ends_before_the_start_is_forgotten() {
        let mut table = table(&[(80, 1), (80, 2), (80, 3)]);
        table.advance_start(STREAM, Offset(3));
        assert_eq!(shown(&table).first(), Some(&(2, 4, 80, 2, 2)));
        table.drop_stream(STREAM);
        assert_eq!((shown(&table).len(), table.len()), (0, 2));
    }

    #[test]
    fn many_partitions_share_the_spans_of_a_site() {
        assert_eq!((spans_max(0), spans_max(1_024)), (64, 64));
        assert_eq!((spans_max(4_096), spans_max(16_384)), (16, 8));
    }
}

//! The rows of one stream in one segment.
//!
//! ```text
//! part     blocks (see `blocks.rs`); the table keeps, per block:
//!              base offset u64         of its first row
//!              max timestamp i64       of its rows
//! row      head varint                 index difference << 2 | has a gap << 1 | has a new term
//!          gap varint                  if so: offsets left out since the row before, at least 1
//!          term varint                 if so: term difference, at least 1
//!          records varint              at least 1
//!          timestamp zigzag            difference, modulo 2^64
//!          at varint
//!          len varint
//!          crc u32
//! ```
//! Differences are to the row before in the same block. Before the first row of a block stand the
//! base index of the segment, term 0, timestamp 0, and the base offset in the table.
//!
//! Invariants: base offsets, indices and terms never go back, and offsets of two rows never
//! overlap. A [`RowsPart`] exists only if every row of it has been decoded and checked, so lookups
//! in it cannot fail.

use super::blocks::{Blocks, BlocksEncoder};
use super::{FooterError, StreamSummary};
use crate::reader::{Reader, put_varint, put_zigzag};
use crate::row::{Row, StreamId};
use bytes::Bytes;
use fulmar_types::{LogIndex, Offset, Term};

const HEAD_BYTES: usize = 16;
const CHECKED: &str = "every row of the part was decoded when it was parsed";

/// What the next row is written as a difference to.
#[derive(Clone, Copy, Debug)]
struct Before {
    end: Offset,
    timestamp_ms: i64,
    index: LogIndex,
    term: Term,
}

impl Before {
    fn block(base_offset: Offset, segment: LogIndex) -> Self {
        Self { end: base_offset, timestamp_ms: 0, index: segment, term: Term(0) }
    }

    fn after(row: &Row) -> Self {
        Self {
            end: row.end_offset(),
            timestamp_ms: row.max_timestamp_ms,
            index: row.index,
            term: row.term,
        }
    }

    fn put(&self, out: &mut Vec<u8>, row: &Row) {
        let gap = row.base_offset.0 - self.end.0;
        let term = row.term.0 - self.term.0;
        let index = row.index.0 - self.index.0;
        put_varint(out, index << 2 | u64::from(gap > 0) << 1 | u64::from(term > 0));
        if gap > 0 {
            put_varint(out, gap);
        }
        if term > 0 {
            put_varint(out, term);
        }
        put_varint(out, u64::from(row.records));
        put_zigzag(out, row.max_timestamp_ms.wrapping_sub(self.timestamp_ms));
        put_varint(out, u64::from(row.at));
        put_varint(out, u64::from(row.len));
        out.extend_from_slice(&row.crc.to_le_bytes());
    }

    fn read(&self, reader: &mut Reader<'_>, stream: StreamId) -> Option<Row> {
        let head = reader.varint()?;
        // A flag without a value would be a second encoding of the same row.
        let mut flagged = |flag: u64| {
            if head & flag == 0 { Some(0) } else { reader.varint().filter(|value| *value > 0) }
        };
        let (gap, term) = (flagged(2)?, flagged(1)?);
        let row = Row {
            stream,
            base_offset: Offset(self.end.0.checked_add(gap)?),
            records: reader.varint_u32()?,
            max_timestamp_ms: self.timestamp_ms.wrapping_add(reader.zigzag()?),
            index: LogIndex(self.index.0.checked_add(head >> 2)?),
            term: Term(self.term.0.checked_add(term)?),
            at: reader.varint_u32()?,
            len: reader.varint_u32()?,
            crc: reader.u32()?,
        };
        row.has_valid_offsets().then_some(row)
    }
}

/// The rows of one stream, being written.
#[derive(Debug)]
pub(super) struct RowsEncoder {
    segment: LogIndex,
    first: Offset,
    before: Before,
    max_timestamp_ms: i64,
    /// Base offset and maximum timestamp of each block.
    heads: Vec<(Offset, i64)>,
    blocks: BlocksEncoder,
}

impl RowsEncoder {
    pub(super) fn new(segment: LogIndex, first: Offset) -> Self {
        Self {
            segment,
            first,
            before: Before::block(first, segment),
            max_timestamp_ms: i64::MIN,
            heads: Vec::new(),
            blocks: BlocksEncoder::default(),
        }
    }

    pub(super) fn push(&mut self, row: &Row) {
        let before = &self.before;
        assert!(row.has_valid_offsets(), "row without valid offsets: {row:?}");
        assert!(row.base_offset >= before.end, "{row:?} goes back behind {}", before.end);
        assert!(row.index >= before.index, "{row:?} goes back behind {}", before.index);
        assert!(row.term >= before.term, "{row:?} goes back behind term {}", before.term);
        if self.blocks.begin_item() {
            self.heads.push((row.base_offset, i64::MIN));
            self.before = Before::block(row.base_offset, self.segment);
        }
        let head = self.heads.last_mut().expect("a block has begun");
        head.1 = head.1.max(row.max_timestamp_ms);
        self.max_timestamp_ms = self.max_timestamp_ms.max(row.max_timestamp_ms);
        self.before.put(&mut self.blocks.data, row);
        self.before = Before::after(row);
    }

    /// The part, and what the summary says about it: where it lies is not known yet.
    pub(super) fn finish(self, stream: StreamId) -> (StreamSummary, Vec<u8>) {
        let (first, end, max_timestamp_ms) = (self.first, self.before.end, self.max_timestamp_ms);
        let rows = self.blocks.items();
        let heads = self.heads;
        let bytes = self.blocks.finish(|block, out| {
            let (base_offset, max_timestamp_ms) = heads[block];
            out.extend_from_slice(&base_offset.0.to_le_bytes());
            out.extend_from_slice(&max_timestamp_ms.to_le_bytes());
        });
        let part = super::Part::at(0, &bytes);
        (StreamSummary { stream, first, end, max_timestamp_ms, rows, part }, bytes)
    }
}

/// The rows of one stream in one segment, every one of them checked.
#[derive(Clone, Debug)]
pub struct RowsPart {
    stream: StreamId,
    segment: LogIndex,
    blocks: Blocks,
}

impl RowsPart {
    /// Decodes every row and compares them with the summary.
    ///
    /// # Errors
    /// [`FooterError::Damaged`] if the bytes are not the rows that the summary describes.
    pub fn parse(
        summary: &StreamSummary,
        segment: LogIndex,
        last: LogIndex,
        bytes: Bytes,
    ) -> Result<Self, FooterError> {
        if !summary.part.holds(&bytes) {
            return Err(FooterError::Damaged("checksum of rows"));
        }
        Self::checked(summary, segment, last, bytes).ok_or(FooterError::Damaged("rows"))
    }

    fn checked(
        summary: &StreamSummary,
        segment: LogIndex,
        last: LogIndex,
        bytes: Bytes,
    ) -> Option<Self> {
        let blocks = Blocks::parse(bytes, summary.rows, HEAD_BYTES)?;
        let part = Self { stream: summary.stream, segment, blocks };
        let mut before = Before::block(summary.first, segment);
        let mut max_timestamp_ms = i64::MIN;
        for block in 0..part.blocks.count() {
            let (base_offset, head_max_ms) = part.head(block)?;
            let mut reader = Reader::new(part.blocks.data(block)?);
            let mut state = Before::block(base_offset, segment);
            let mut block_max_ms = i64::MIN;
            for ordinal in 0..part.blocks.items_in(block) {
                let row = state.read(&mut reader, part.stream)?;
                // The first row begins where the table says, and each goes on from the one before.
                let begins = ordinal > 0 || row.base_offset == base_offset;
                let goes_on = row.base_offset >= before.end
                    && row.index >= before.index
                    && row.index <= last
                    && row.term >= before.term;
                if !begins || !goes_on {
                    return None;
                }
                block_max_ms = block_max_ms.max(row.max_timestamp_ms);
                state = Before::after(&row);
                before = state;
            }
            if !reader.is_at_end() || block_max_ms != head_max_ms {
                return None;
            }
            max_timestamp_ms = max_timestamp_ms.max(block_max_ms);
        }
        let as_summarised = part.head(0)?.0 == summary.first
            && before.end == summary.end
            && max_timestamp_ms == summary.max_timestamp_ms;
        as_summarised.then_some(part)
    }

    /// The stream whose rows these are.
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// How many rows there are, at least one.
    pub const fn row_count(&self) -> u32 {
        self.blocks.items()
    }

    /// Bytes that it keeps in memory.
    pub fn len_bytes(&self) -> usize {
        self.blocks.len_bytes()
    }

    /// All rows, in order of their offsets.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.rows_of_blocks(0)
    }

    /// The rows that end after `from`, in order of their offsets. The first one is found by a
    /// binary search over the blocks.
    pub fn rows_from(&self, from: Offset) -> impl Iterator<Item = Row> + '_ {
        self.rows_of_blocks(self.block_of(from)).skip_while(move |row| row.end_offset() <= from)
    }

    /// The first row that ends after `from` and whose maximum timestamp is at least this. Reads
    /// one maximum per block, and the rows of two blocks at most.
    pub fn by_timestamp(&self, from: Offset, timestamp_ms: i64) -> Option<Row> {
        let wanted = |row: &Row| row.end_offset() > from && row.max_timestamp_ms >= timestamp_ms;
        (self.block_of(from)..self.blocks.count())
            .filter(|block| self.head(*block).expect(CHECKED).1 >= timestamp_ms)
            // The maximum of the first block may belong to a row below `from`.
            .find_map(|block| self.rows_of_block(block).find(wanted))
    }

    /// The last block that begins at or below `from`; the first block if there is none.
    fn block_of(&self, from: Offset) -> usize {
        let (mut low, mut high) = (0, self.blocks.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.head(middle).expect(CHECKED).0 <= from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }

    fn head(&self, block: usize) -> Option<(Offset, i64)> {
        let mut head = self.blocks.head(block)?;
        Some((Offset(head.u64()?), head.u64()?.cast_signed()))
    }

    fn rows_of_blocks(&self, first: usize) -> impl Iterator<Item = Row> + '_ {
        (first..self.blocks.count()).flat_map(|block| self.rows_of_block(block))
    }

    fn rows_of_block(&self, block: usize) -> impl Iterator<Item = Row> + '_ {
        let (base_offset, _) = self.head(block).expect(CHECKED);
        let mut before = Before::block(base_offset, self.segment);
        let mut reader = Reader::new(self.blocks.data(block).expect(CHECKED));
        (0..self.blocks.items_in(block)).map(move |_| {
            let row = before.read(&mut reader, self.stream).expect(CHECKED);
            before = Before::after(&row);
            row
        })
    }
}

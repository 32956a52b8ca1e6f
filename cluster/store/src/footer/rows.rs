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

use super::blocks::{Blocks, BlocksEncoder, BlocksView};
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
    const fn block(base_offset: Offset, segment: LogIndex) -> Self {
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

/// Rows wherever their bytes are: in memory while the segment is open, in its footer afterwards.
#[derive(Clone, Copy, Debug)]
struct RowList<'a> {
    stream: StreamId,
    segment: LogIndex,
    blocks: BlocksView<'a>,
}

impl<'a> RowList<'a> {
    /// Base offset and maximum timestamp of a block.
    fn head(&self, block: usize) -> Option<(Offset, i64)> {
        let mut head = self.blocks.head(block)?;
        Some((Offset(head.u64()?), head.u64()?.cast_signed()))
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

    fn rows_of_block(self, block: usize) -> impl Iterator<Item = Row> + 'a {
        let (base_offset, _) = self.head(block).expect(CHECKED);
        let mut before = Before::block(base_offset, self.segment);
        let mut reader = Reader::new(self.blocks.data(block).expect(CHECKED));
        (0..self.blocks.items_in(block)).map(move |_| {
            let row = before.read(&mut reader, self.stream).expect(CHECKED);
            before = Before::after(&row);
            row
        })
    }

    fn rows_of_blocks(self, first: usize) -> impl Iterator<Item = Row> + 'a {
        (first..self.blocks.count()).flat_map(move |block| self.rows_of_block(block))
    }

    fn rows_from(self, from: Offset) -> impl Iterator<Item = Row> + 'a {
        self.rows_of_blocks(self.block_of(from)).skip_while(move |row| row.end_offset() <= from)
    }

    fn by_timestamp(self, from: Offset, timestamp_ms: i64) -> Option<Row> {
        let wanted = |row: &Row| row.end_offset() > from && row.max_timestamp_ms >= timestamp_ms;
        (self.block_of(from)..self.blocks.count())
            .filter(|block| self.head(*block).expect(CHECKED).1 >= timestamp_ms)
            // The maximum of the first block may belong to a row below `from`.
            .find_map(|block| self.rows_of_block(block).find(wanted))
    }
}

/// The rows of one stream in a segment that still grows, already encoded: about a dozen bytes per
/// row.
#[derive(Debug)]
pub(crate) struct OpenRows {
    stream: StreamId,
    segment: LogIndex,
    first: Offset,
    before: Before,
    max_timestamp_ms: i64,
    blocks: BlocksEncoder,
}

impl OpenRows {
    pub(crate) const fn new(stream: StreamId, segment: LogIndex, first: Offset) -> Self {
        Self {
            stream,
            segment,
            first,
            before: Before::block(first, segment),
            max_timestamp_ms: i64::MIN,
            blocks: BlocksEncoder::new(HEAD_BYTES),
        }
    }

    pub(crate) fn push(&mut self, row: &Row) {
        let before = &self.before;
        assert!(row.has_valid_offsets(), "row without valid offsets: {row:?}");
        assert_eq!(row.stream, self.stream, "{row:?} belongs to another stream");
        assert!(row.base_offset >= before.end, "{row:?} goes back behind {}", before.end);
        assert!(row.index >= before.index, "{row:?} goes back behind {}", before.index);
        assert!(row.term >= before.term, "{row:?} goes back behind term {}", before.term);
        if self.blocks.begin_item() {
            self.put_head(row.base_offset, row.max_timestamp_ms);
            self.before = Before::block(row.base_offset, self.segment);
        } else {
            let last = self.blocks.view().count() - 1;
            let (base_offset, max_timestamp_ms) = self.list().head(last).expect(CHECKED);
            self.put_head(base_offset, max_timestamp_ms.max(row.max_timestamp_ms));
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(row.max_timestamp_ms);
        self.before.put(self.blocks.data_mut(), row);
        self.before = Before::after(row);
    }

    fn put_head(&mut self, base_offset: Offset, max_timestamp_ms: i64) {
        let (base, max) = self.blocks.last_head_mut().split_at_mut(8);
        base.copy_from_slice(&base_offset.0.to_le_bytes());
        max.copy_from_slice(&max_timestamp_ms.to_le_bytes());
    }

    /// Takes off the rows of this entry and of those after it. Whether any row is left.
    pub(crate) fn truncate_from(&mut self, index: LogIndex) -> bool {
        while self.blocks.view().items() > 0 && self.before.index >= index {
            let last = self.blocks.view().count() - 1;
            let rows: Vec<Row> = self.list().rows_of_block(last).collect();
            self.blocks.pop_block();
            let row_before =
                last.checked_sub(1).and_then(|block| self.list().rows_of_block(block).last());
            self.before = row_before
                .map_or(Before::block(self.first, self.segment), |row| Before::after(&row));
            rows.iter().take_while(|row| row.index < index).for_each(|row| self.push(row));
            let heads = 0..self.blocks.view().count();
            let maxima = heads.map(|block| self.list().head(block).expect(CHECKED).1);
            self.max_timestamp_ms = maxima.max().unwrap_or(i64::MIN);
        }
        self.blocks.view().items() > 0
    }

    fn list(&self) -> RowList<'_> {
        RowList { stream: self.stream, segment: self.segment, blocks: self.blocks.view() }
    }

    pub(crate) const fn first(&self) -> Offset {
        self.first
    }

    pub(crate) const fn end(&self) -> Offset {
        self.before.end
    }

    pub(crate) const fn last_index(&self) -> LogIndex {
        self.before.index
    }

    pub(crate) const fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    pub(crate) fn rows_from(&self, from: Offset) -> impl Iterator<Item = Row> + '_ {
        self.list().rows_from(from)
    }

    pub(crate) fn by_timestamp(&self, from: Offset, timestamp_ms: i64) -> Option<Row> {
        self.list().by_timestamp(from, timestamp_ms)
    }

    /// The part, and what the summary says about it: where it lies is not known yet.
    pub(crate) fn finish(self) -> (StreamSummary, Vec<u8>) {
        let Self { stream, first, before, max_timestamp_ms, .. } = self;
        let rows = self.blocks.view().items();
        assert!(rows > 0, "a stream in a footer has a row");
        let bytes = self.blocks.finish();
        let (end, part) = (before.end, super::Part::at(0, &bytes));
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
    /// Decodes every row and compares them with the summary. The first and the last index of the
    /// segment bound those of the rows.
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
        let list = part.list();
        let mut before = Before::block(summary.first, segment);
        let mut max_timestamp_ms = i64::MIN;
        for block in 0..list.blocks.count() {
            let (end, block_max_ms) = check_block(&list, block, before, last)?;
            before = end;
            max_timestamp_ms = max_timestamp_ms.max(block_max_ms);
        }
        let as_summarised = list.head(0)?.0 == summary.first
            && before.end == summary.end
            && max_timestamp_ms == summary.max_timestamp_ms;
        as_summarised.then_some(part)
    }

    fn list(&self) -> RowList<'_> {
        RowList { stream: self.stream, segment: self.segment, blocks: self.blocks.view() }
    }

    /// The stream whose rows these are.
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// How many rows there are, at least one.
    pub fn row_count(&self) -> u32 {
        self.blocks.view().items()
    }

    /// Bytes that it keeps in memory.
    pub fn len_bytes(&self) -> usize {
        self.blocks.bytes().len()
    }

    /// All rows, in order of their offsets.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.list().rows_of_blocks(0)
    }

    /// The rows that end after `from`, in order of their offsets. The first one is found by a
    /// binary search over the blocks.
    pub fn rows_from(&self, from: Offset) -> impl Iterator<Item = Row> + '_ {
        self.list().rows_from(from)
    }

    /// The first row that ends after `from` and whose maximum timestamp is at least this. Reads
    /// one maximum per block, and the rows of two blocks at most.
    pub fn by_timestamp(&self, from: Offset, timestamp_ms: i64) -> Option<Row> {
        self.list().by_timestamp(from, timestamp_ms)
    }
}

/// Decodes one block of a part that nobody vouches for: its rows must go on from `before`, and be
/// what the table says. Gives the state after it, and its maximum timestamp.
fn check_block(
    list: &RowList<'_>,
    block: usize,
    mut before: Before,
    last: LogIndex,
) -> Option<(Before, i64)> {
    let (base_offset, head_max_ms) = list.head(block)?;
    let mut reader = Reader::new(list.blocks.data(block)?);
    let mut state = Before::block(base_offset, list.segment);
    let mut block_max_ms = i64::MIN;
    for ordinal in 0..list.blocks.items_in(block) {
        let row = state.read(&mut reader, list.stream)?;
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
    (reader.is_at_end() && block_max_ms == head_max_ms).then_some((before, block_max_ms))
}

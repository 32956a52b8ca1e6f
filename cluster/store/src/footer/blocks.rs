//! A list of items of varying length in blocks of 64, so that one item is found without decoding
//! those before its block. Every part of a footer but the summary is such a list.
//!
//! ```text
//! part     table    per block: what the part keeps about it | start u32, in the data
//!          data     the items, one after the other; the first of a block stands alone, the others
//!                   may be written as differences to the one before
//! ```
//!
//! Invariant: the number of items is known from outside and decides the length of the table; the
//! first block starts at 0, and each one after it further on than the one before.

use crate::reader::Reader;
use bytes::Bytes;
use std::ops::Range;

/// Items in a block, but for the last.
pub(super) const BLOCK_ITEMS: u32 = 64;

/// Bytes of the start of a block, the last field of its row in the table.
const START_BYTES: usize = 4;

/// A list that is being written.
#[derive(Debug, Default)]
pub(super) struct BlocksEncoder {
    starts: Vec<u32>,
    pub(super) data: Vec<u8>,
    items: u32,
}

impl BlocksEncoder {
    /// Begins an item. Whether it is the first of a block.
    pub(super) fn begin_item(&mut self) -> bool {
        let first = self.items.is_multiple_of(BLOCK_ITEMS);
        if first {
            let start = u32::try_from(self.data.len()).expect("a part of a footer is below 4 GiB");
            self.starts.push(start);
        }
        self.items = self.items.checked_add(1).expect("a segment has fewer than 2^32 items");
        first
    }

    pub(super) const fn items(&self) -> u32 {
        self.items
    }

    /// The part; `head` writes what the table keeps about a block.
    pub(super) fn finish(self, mut head: impl FnMut(usize, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.starts.len() * 24 + self.data.len());
        for (block, start) in self.starts.iter().enumerate() {
            head(block, &mut out);
            out.extend_from_slice(&start.to_le_bytes());
        }
        out.extend_from_slice(&self.data);
        out
    }
}

/// A list that is being read, its table checked.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    bytes: Bytes,
    items: u32,
    head_bytes: usize,
}

impl Blocks {
    /// Checks the table of a part with `items` items, whose table keeps `head_bytes` for each
    /// block besides its start.
    pub(super) fn parse(bytes: Bytes, items: u32, head_bytes: usize) -> Option<Self> {
        let blocks = Self { bytes, items, head_bytes };
        let len = blocks.bytes.len().checked_sub(blocks.data_at()?)?;
        let mut end = len;
        for block in (0..blocks.count()).rev() {
            let start = blocks.start(block)?;
            // An item takes at least one byte, so no block is empty.
            if start >= end || (block == 0 && start != 0) {
                return None;
            }
            end = start;
        }
        (items > 0 || len == 0).then_some(blocks)
    }

    pub(super) const fn items(&self) -> u32 {
        self.items
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> usize {
        self.items.div_ceil(BLOCK_ITEMS) as usize
    }

    /// How many items the block has.
    pub(super) fn items_in(&self, block: usize) -> u32 {
        let before = u32::try_from(block).map_or(u32::MAX, |b| b.saturating_mul(BLOCK_ITEMS));
        self.items.saturating_sub(before).min(BLOCK_ITEMS)
    }

    /// What the table keeps about the block.
    pub(super) fn head(&self, block: usize) -> Option<Reader<'_>> {
        let at = block.checked_mul(self.row_bytes())?;
        Some(Reader::new(self.bytes.get(at..at.checked_add(self.head_bytes)?)?))
    }

    /// Where the items of the block lie in [`Blocks::bytes`].
    pub(super) fn range(&self, block: usize) -> Option<Range<usize>> {
        let data_at = self.data_at()?;
        let start = data_at.checked_add(self.start(block)?)?;
        let next = block + 1;
        let end = if next < self.count() {
            data_at.checked_add(self.start(next)?)?
        } else {
            self.bytes.len()
        };
        (start <= end && end <= self.bytes.len()).then_some(start..end)
    }

    /// The items of the block.
    pub(super) fn data(&self, block: usize) -> Option<&[u8]> {
        self.bytes.get(self.range(block)?)
    }

    /// The whole part.
    pub(super) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn row_bytes(&self) -> usize {
        self.head_bytes + START_BYTES
    }

    fn data_at(&self) -> Option<usize> {
        self.count().checked_mul(self.row_bytes())
    }

    fn start(&self, block: usize) -> Option<usize> {
        let at = block.checked_mul(self.row_bytes())?.checked_add(self.head_bytes)?;
        usize::try_from(Reader::starting_at(&self.bytes, at).u32()?).ok()
    }
}

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

/// Items in a block, but for the last.
pub(super) const BLOCK_ITEMS: u32 = 64;

/// Bytes of the start of a block, the last field of its row in the table.
const START_BYTES: usize = 4;

/// A list, wherever its bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlocksView<'a> {
    table: &'a [u8],
    data: &'a [u8],
    items: u32,
    head_bytes: usize,
}

impl<'a> BlocksView<'a> {
    pub(super) const fn items(&self) -> u32 {
        self.items
    }

    /// How many blocks there are.
    pub(super) const fn count(&self) -> usize {
        self.items.div_ceil(BLOCK_ITEMS) as usize
    }

    /// How many items the block has.
    pub(super) fn items_in(&self, block: usize) -> u32 {
        let before = u32::try_from(block).map_or(u32::MAX, |b| b.saturating_mul(BLOCK_ITEMS));
        self.items.saturating_sub(before).min(BLOCK_ITEMS)
    }

    /// What the table keeps about the block.
    pub(super) fn head(&self, block: usize) -> Option<Reader<'a>> {
        let at = block.checked_mul(self.head_bytes + START_BYTES)?;
        Some(Reader::new(self.table.get(at..at.checked_add(self.head_bytes)?)?))
    }

    /// The items of the block.
    pub(super) fn data(&self, block: usize) -> Option<&'a [u8]> {
        let next = block + 1;
        let end = if next < self.count() { self.start(next)? } else { self.data.len() };
        self.data.get(self.start(block)?..end)
    }

    fn start(&self, block: usize) -> Option<usize> {
        let at = block.checked_mul(self.head_bytes + START_BYTES)?.checked_add(self.head_bytes)?;
        usize::try_from(Reader::starting_at(self.table, at).u32()?).ok()
    }
}

/// A list that is being written.
#[derive(Debug)]
pub(super) struct BlocksEncoder {
    table: Vec<u8>,
    data: Vec<u8>,
    items: u32,
    head_bytes: usize,
}

impl BlocksEncoder {
    /// A list without items, whose table keeps `head_bytes` for each block besides its start.
    pub(super) const fn new(head_bytes: usize) -> Self {
        Self { table: Vec::new(), data: Vec::new(), items: 0, head_bytes }
    }

    /// Begins an item. Whether it is the first of a block, whose head is zero until it is set.
    pub(super) fn begin_item(&mut self) -> bool {
        let first = self.items.is_multiple_of(BLOCK_ITEMS);
        if first {
            let start = u32::try_from(self.data.len()).expect("a part of a footer is below 4 GiB");
            self.table.resize(self.table.len() + self.head_bytes, 0);
            self.table.extend_from_slice(&start.to_le_bytes());
        }
        self.items = self.items.checked_add(1).expect("a segment has fewer than 2^32 items");
        first
    }

    /// Where the item that was begun is written to.
    pub(super) const fn data_mut(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// What the table keeps about the last block.
    pub(super) fn last_head_mut(&mut self) -> &mut [u8] {
        let end = self.table.len() - START_BYTES;
        &mut self.table[end - self.head_bytes..end]
    }

    /// Takes the last block off.
    pub(super) fn pop_block(&mut self) {
        let last = self.view().count() - 1;
        let start = self.view().start(last).expect("the table has a row for every block");
        self.data.truncate(start);
        self.table.truncate(last * (self.head_bytes + START_BYTES));
        self.items -= self.view().items_in(last);
    }

    pub(super) fn view(&self) -> BlocksView<'_> {
        let Self { table, data, items, head_bytes } = self;
        BlocksView { table, data, items: *items, head_bytes: *head_bytes }
    }

    /// The part.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = self.table;
        out.extend_from_slice(&self.data);
        out
    }
}

/// A list that was read, its table checked.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    bytes: Bytes,
    table_len: usize,
    items: u32,
    head_bytes: usize,
}

impl Blocks {
    /// Checks the table of a part with `items` items, whose table keeps `head_bytes` for each
    /// block besides its start.
    pub(super) fn parse(bytes: Bytes, items: u32, head_bytes: usize) -> Option<Self> {
        let count = usize::try_from(items.div_ceil(BLOCK_ITEMS)).ok()?;
        let table_len = count.checked_mul(head_bytes + START_BYTES)?;
        let data_len = bytes.len().checked_sub(table_len)?;
        let blocks = Self { bytes, table_len, items, head_bytes };
        let view = blocks.view();
        let mut end = data_len;
        for block in (0..count).rev() {
            let start = view.start(block)?;
            // An item takes at least one byte, so no block is empty.
            if start >= end || (block == 0 && start != 0) {
                return None;
            }
            end = start;
        }
        (items > 0 || data_len == 0).then_some(blocks)
    }

    pub(super) fn view(&self) -> BlocksView<'_> {
        let (table, data) = self.bytes.split_at(self.table_len);
        BlocksView { table, data, items: self.items, head_bytes: self.head_bytes }
    }

    /// The whole part.
    pub(super) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

//! Where the entries of a segment lie, and what came of them.
//!
//! ```text
//! places       blocks (see `blocks.rs`), one item per entry, in order of their indices
//!              place varint            difference of file position / 512 << 1 | has a new term
//!              term varint             if so: term difference, at least 1
//! outcomes     blocks, one item per entry
//!              len varint
//!              outcome                 as the state machine wrote it
//! ```
//! Differences are to the entry before in the same block; before the first stand place 0, term 0.
//!
//! Invariant: places rise from entry to entry, terms never fall. Both parts exist in memory only
//! if every item was decoded, so lookups in them cannot fail.

use super::blocks::{BLOCK_ITEMS, Blocks, BlocksEncoder};
use super::{FooterError, Part};
use crate::reader::{Reader, put_varint};
use bytes::Bytes;
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{LogIndex, Term};

const CHECKED: &str = "every item of the part was decoded when it was parsed";

/// Where an entry lies in its segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPlace {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Where its frame begins in the segment file, in bytes; a multiple of the sector size.
    pub position: u64,
}

/// What the next entry is written as a difference to.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    place: u32,
    term: u64,
}

impl Before {
    fn read(&self, reader: &mut Reader<'_>) -> Option<Self> {
        let head = reader.varint()?;
        let place = self.place.checked_add(u32::try_from(head >> 1).ok()?)?;
        let term = if head & 1 == 0 { 0 } else { reader.varint().filter(|term| *term > 0)? };
        let term = self.term.checked_add(term)?;
        (place > self.place).then_some(Self { place, term })
    }
}

/// The places of entries, being written.
#[derive(Debug)]
pub(super) struct PlacesEncoder {
    last: Before,
    blocks: BlocksEncoder,
}

impl PlacesEncoder {
    pub(super) fn new() -> Self {
        Self { last: Before::default(), blocks: BlocksEncoder::new(0) }
    }

    pub(super) fn push(&mut self, place: &EntryPlace) {
        assert!(place.position.is_multiple_of(SECTOR_BYTES as u64), "{place:?} off its sector");
        let sector = u32::try_from(place.position / SECTOR_BYTES as u64)
            .expect("a segment is far below 2^32 sectors");
        assert!(sector > self.last.place, "{place:?} is not behind sector {}", self.last.place);
        assert!(place.term.0 >= self.last.term, "{place:?} goes back behind {:?}", self.last);
        let before = if self.blocks.begin_item() { Before::default() } else { self.last };
        let term = place.term.0 - before.term;
        let data = self.blocks.data_mut();
        put_varint(data, u64::from(sector - before.place) << 1 | u64::from(term > 0));
        if term > 0 {
            put_varint(data, term);
        }
        self.last = Before { place: sector, term: place.term.0 };
    }

    pub(super) fn entries(&self) -> u32 {
        self.blocks.view().items()
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.blocks.finish()
    }
}

/// The places of all entries of a segment, checked.
#[derive(Clone, Debug)]
pub struct PlacesPart {
    base: LogIndex,
    blocks: Blocks,
}

impl PlacesPart {
    pub(super) fn parse(
        base: LogIndex,
        entries: u32,
        part: Part,
        bytes: Bytes,
    ) -> Result<Self, FooterError> {
        if !part.holds(&bytes) {
            return Err(FooterError::Damaged("checksum of places"));
        }
        Self::checked(base, entries, bytes).ok_or(FooterError::Damaged("places"))
    }

    fn checked(base: LogIndex, entries: u32, bytes: Bytes) -> Option<Self> {
        let blocks = Blocks::parse(bytes, entries, 0)?;
        let view = blocks.view();
        let mut last = Before::default();
        for block in 0..view.count() {
            let mut reader = Reader::new(view.data(block)?);
            let mut before = Before::default();
            for _ in 0..view.items_in(block) {
                before = before.read(&mut reader)?;
                if before.place <= last.place || before.term < last.term {
                    return None;
                }
                last = before;
            }
            if !reader.is_at_end() {
                return None;
            }
        }
        Some(Self { base, blocks })
    }

    /// Where this entry lies. `None` if the segment does not hold it.
    pub fn get(&self, index: LogIndex) -> Option<EntryPlace> {
        let ordinal = ordinal(self.base, self.blocks.view().items(), index)?;
        self.places_of_block((ordinal / BLOCK_ITEMS) as usize).nth((ordinal % BLOCK_ITEMS) as usize)
    }

    /// Where every entry lies, in order.
    pub fn iter(&self) -> impl Iterator<Item = EntryPlace> + '_ {
        (0..self.blocks.view().count()).flat_map(|block| self.places_of_block(block))
    }

    /// Bytes that it keeps in memory.
    pub fn len_bytes(&self) -> usize {
        self.blocks.bytes().len()
    }

    fn places_of_block(&self, block: usize) -> impl Iterator<Item = EntryPlace> + '_ {
        let view = self.blocks.view();
        let mut reader = Reader::new(view.data(block).expect(CHECKED));
        let mut before = Before::default();
        let first = self.base.0 + block as u64 * u64::from(BLOCK_ITEMS);
        (first..first + u64::from(view.items_in(block))).map(move |index| {
            before = before.read(&mut reader).expect(CHECKED);
            EntryPlace {
                index: LogIndex(index),
                term: Term(before.term),
                position: u64::from(before.place) * SECTOR_BYTES as u64,
            }
        })
    }
}

/// Outcomes, being written.
#[derive(Debug)]
pub(super) struct OutcomesEncoder {
    blocks: BlocksEncoder,
}

impl OutcomesEncoder {
    pub(super) const fn new() -> Self {
        Self { blocks: BlocksEncoder::new(0) }
    }

    pub(super) fn push(&mut self, outcome: &[u8]) {
        self.blocks.begin_item();
        let data = self.blocks.data_mut();
        put_varint(data, outcome.len() as u64);
        data.extend_from_slice(outcome);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.blocks.finish()
    }
}

/// The outcomes of all entries of a segment, checked.
#[derive(Clone, Debug)]
pub struct OutcomesPart {
    base: LogIndex,
    blocks: Blocks,
}

impl OutcomesPart {
    pub(super) fn parse(
        base: LogIndex,
        entries: u32,
        part: Part,
        bytes: Bytes,
    ) -> Result<Self, FooterError> {
        if !part.holds(&bytes) {
            return Err(FooterError::Damaged("checksum of outcomes"));
        }
        Self::checked(base, entries, bytes).ok_or(FooterError::Damaged("outcomes"))
    }

    fn checked(base: LogIndex, entries: u32, bytes: Bytes) -> Option<Self> {
        let blocks = Blocks::parse(bytes, entries, 0)?;
        let view = blocks.view();
        for block in 0..view.count() {
            let mut reader = Reader::new(view.data(block)?);
            for _ in 0..view.items_in(block) {
                read_outcome(&mut reader)?;
            }
            if !reader.is_at_end() {
                return None;
            }
        }
        Some(Self { base, blocks })
    }

    /// What came of this entry. `None` if the segment does not hold it.
    pub fn get(&self, index: LogIndex) -> Option<Bytes> {
        let ordinal = ordinal(self.base, self.blocks.view().items(), index)?;
        self.outcomes_of_block((ordinal / BLOCK_ITEMS) as usize)
            .nth((ordinal % BLOCK_ITEMS) as usize)
    }

    /// What came of every entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        (0..self.blocks.view().count()).flat_map(|block| self.outcomes_of_block(block))
    }

    /// Bytes that it keeps in memory.
    pub fn len_bytes(&self) -> usize {
        self.blocks.bytes().len()
    }

    fn outcomes_of_block(&self, block: usize) -> impl Iterator<Item = Bytes> + '_ {
        let view = self.blocks.view();
        let mut reader = Reader::new(view.data(block).expect(CHECKED));
        let bytes = self.blocks.bytes();
        (0..view.items_in(block))
            .map(move |_| bytes.slice_ref(read_outcome(&mut reader).expect(CHECKED)))
    }
}

fn read_outcome<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(reader.varint()?).ok()?;
    reader.take(len)
}

fn ordinal(base: LogIndex, entries: u32, index: LogIndex) -> Option<u32> {
    let ordinal = u32::try_from(index.0.checked_sub(base.0)?).ok()?;
    (ordinal < entries).then_some(ordinal)
}

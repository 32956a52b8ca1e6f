//! Parts of footers that were read from sealed segments, the least recently used given up first.
//!
//! Invariants: the parts take at most the budget, but the two used last always stay: a lookup by
//! timestamp may need two at once, and must not lose the one while it fetches the other. Which
//! parts are held depends on the calls alone.

use super::PartId;
use crate::footer::{OutcomesPart, PlacesPart, RowsPart};
use crate::row::StreamId;
use fulmar_types::LogIndex;
use std::collections::BTreeMap;

/// What a part takes besides its bytes: two tree nodes' share, keys, and the part's own fields.
const PART_OVERHEAD_BYTES: usize = 256;

/// Parts that stay however large they are.
const ALWAYS_KEPT: usize = 2;

type Key = (LogIndex, PartId);

/// A part of a footer in memory.
#[derive(Debug)]
pub(super) enum CachedPart {
    Rows(RowsPart),
    Places(PlacesPart),
    Outcomes(OutcomesPart),
}

impl CachedPart {
    fn cost_bytes(&self) -> usize {
        PART_OVERHEAD_BYTES
            + match self {
                Self::Rows(part) => part.len_bytes(),
                Self::Places(part) => part.len_bytes(),
                Self::Outcomes(part) => part.len_bytes(),
            }
    }
}

#[derive(Debug)]
struct Slot {
    part: CachedPart,
    used: u64,
}

/// The parts that are held.
#[derive(Debug)]
pub(super) struct PartCache {
    budget_bytes: usize,
    held_bytes: usize,
    /// Counts uses, to tell which was later.
    uses: u64,
    slots: BTreeMap<Key, Slot>,
    by_use: BTreeMap<u64, Key>,
}

impl PartCache {
    pub(super) const fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            held_bytes: 0,
            uses: 0,
            slots: BTreeMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// A part that is held; it counts as used.
    fn get(&mut self, key: Key) -> Option<&CachedPart> {
        let slot = self.slots.get_mut(&key)?;
        self.uses += 1;
        self.by_use.remove(&slot.used);
        self.by_use.insert(self.uses, key);
        slot.used = self.uses;
        Some(&slot.part)
    }

    pub(super) fn rows(&mut self, segment: LogIndex, stream: StreamId) -> Option<&RowsPart> {
        match self.get((segment, PartId::Rows(stream)))? {
            CachedPart::Rows(part) => Some(part),
            CachedPart::Places(_) | CachedPart::Outcomes(_) => None,
        }
    }

    pub(super) fn places(&mut self, segment: LogIndex) -> Option<&PlacesPart> {
        match self.get((segment, PartId::Places))? {
            CachedPart::Places(part) => Some(part),
            CachedPart::Rows(_) | CachedPart::Outcomes(_) => None,
        }
    }

    pub(super) fn outcomes(&mut self, segment: LogIndex) -> Option<&OutcomesPart> {
        match self.get((segment, PartId::Outcomes))? {
            CachedPart::Outcomes(part) => Some(part),
            CachedPart::Rows(_) | CachedPart::Places(_) => None,
        }
    }

    /// Holds a part, and gives up others until the budget is kept.
    pub(super) fn insert(&mut self, segment: LogIndex, id: PartId, part: CachedPart) {
        let key = (segment, id);
        self.remove(key);
        self.uses += 1;
        self.held_bytes += part.cost_bytes();
        self.slots.insert(key, Slot { part, used: self.uses });
        self.by_use.insert(self.uses, key);
        while self.held_bytes > self.budget_bytes && self.slots.len() > ALWAYS_KEPT {
            let oldest = self.by_use.first_key_value().map(|(_, key)| *key);
            self.remove(oldest.expect("every slot has a use"));
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(slot) = self.slots.remove(&key) {
            self.by_use.remove(&slot.used);
            self.held_bytes -= slot.part.cost_bytes();
        }
    }

    pub(super) fn remove_rows(&mut self, segment: LogIndex, stream: StreamId) {
        self.remove((segment, PartId::Rows(stream)));
    }

    /// Gives up every part of a segment.
    pub(super) fn remove_segment(&mut self, segment: LogIndex) {
        let all = (segment, PartId::Rows(StreamId(0)))..=(segment, PartId::Outcomes);
        let keys: Vec<Key> = self.slots.range(all).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }
}

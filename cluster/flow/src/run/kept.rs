//! State that is kept by key, and what changed in it since it was last asked.
//!
//! A snapshot is all entries, a delta is those that changed, a slice is some entries in the order of their
//! keys. All are lists of [`Change`]s; a snapshot, or slices that follow one another, with the deltas
//! taken together with them and after them, one after the other, is the state.
//!
//! Invariant: taking any of them changes nothing that a later row could notice.

use crate::value::codec::{Codec, Malformed};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Bound;

/// What an entry takes in memory besides its key and its value.
const ENTRY_WEIGHT: usize = 48;

/// An entry of the state that is new, different or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which part of the pipeline it belongs to.
    pub part: u32,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` if it is gone.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// The bytes of its key and its value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Changes that are being taken out, up to so many bytes.
#[derive(Debug)]
pub struct Taking {
    /// What was taken out.
    pub changes: Vec<Change>,
    left: usize,
}

impl Taking {
    /// At most about so many bytes, and one entry at least.
    pub fn new(bytes_max: usize) -> Self {
        Self { changes: Vec::new(), left: bytes_max.max(1) }
    }

    /// Whether there is room for another one.
    pub fn has_room(&self) -> bool {
        self.left > 0
    }

    /// What is still to be taken, about.
    pub fn left(&self) -> usize {
        self.left
    }

    /// One more.
    pub fn push(&mut self, change: Change) {
        self.left = self.left.saturating_sub(change.bytes().max(1));
        self.changes.push(change);
    }
}

/// A part of the state, whatever its keys and values are.
pub trait Part: Debug {
    /// Takes out what changed since the last time, as far as there is room.
    fn delta(&mut self, part: u32, out: &mut Taking);

    /// Takes out entries behind a key, or from the first one on, as far as there is room.
    fn slice(&self, part: u32, after: Option<&[u8]>, out: &mut Taking) -> Result<(), Malformed>;

    /// Entries of several shares of a part, in the order of their keys.
    fn in_order(&self, changes: Vec<Change>) -> Result<Vec<Change>, Malformed>;

    /// Takes in what was taken out.
    fn load(&mut self, change: &Change) -> Result<(), Malformed>;

    /// About how many bytes it takes in memory.
    fn weight(&self) -> usize;
}

/// Entries by key, in the order of the keys.
#[derive(Debug)]
pub struct Kept<K, V> {
    entries: BTreeMap<K, V>,
    changed: BTreeSet<K>,
    weight: usize,
    /// How often a key is in memory.
    times: usize,
}

impl<K: Ord, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), changed: BTreeSet::new(), weight: 0, times: 1 }
    }
}

impl<K: Ord, V> Kept<K, V> {
    /// Entries whose keys are also in an index beside them, which weighs something too.
    pub fn indexed() -> Self {
        Self { times: 2, ..Self::default() }
    }
}

impl<K: Codec + Ord + Clone, V: Codec> Kept<K, V> {
    /// The entries.
    pub fn entries(&self) -> &BTreeMap<K, V> {
        &self.entries
    }

    /// An entry.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Changes an entry; the default if there was none.
    pub fn change(&mut self, key: &K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        self.note(key);
        if let Some(value) = self.entries.get_mut(key) {
            let before = value.weight();
            change(value);
            self.weight = self.weight + value.weight() - before;
        } else {
            let mut value = V::default();
            change(&mut value);
            self.put(key.clone(), value);
        }
    }

    /// Takes note that an entry has changed. Most change again before anybody asks.
    fn note(&mut self, key: &K) {
        if !self.changed.contains(key) {
            self.changed.insert(key.clone());
        }
    }

    /// Sets an entry.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        // Most are new.
        self.changed.insert(key.clone());
        self.put(key, value)
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.take(key);
        if removed.is_some() {
            self.note(key);
        }
        removed
    }

    /// Removes the first entry.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let (key, value) = self.entries.pop_first()?;
        self.weight -= self.key_weight(&key) + value.weight();
        self.note(&key);
        Some((key, value))
    }

    fn put(&mut self, key: K, value: V) -> Option<V> {
        let weight = self.key_weight(&key);
        self.weight += weight + value.weight();
        let before = self.entries.insert(key, value)?;
        self.weight -= weight + before.weight();
        Some(before)
    }

    fn take(&mut self, key: &K) -> Option<V> {
        let removed = self.entries.remove(key)?;
        self.weight -= self.key_weight(key) + removed.weight();
        Some(removed)
    }

    fn key_weight(&self, key: &K) -> usize {
        (ENTRY_WEIGHT + key.weight()) * self.times
    }
}

impl<K: Codec + Ord + Clone + Debug, V: Codec + Debug> Part for Kept<K, V> {
    fn delta(&mut self, part: u32, out: &mut Taking) {
        while out.has_room()
            && let Some(key) = self.changed.pop_first()
        {
            let value = self.entries.get(&key).map(Codec::bytes);
            out.push(Change { part, key: key.bytes(), value });
        }
    }

    fn slice(&self, part: u32, after: Option<&[u8]>, out: &mut Taking) -> Result<(), Malformed> {
        let after = after.map(K::whole).transpose()?;
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.entries.range((from, Bound::Unbounded)) {
            if !out.has_room() {
                break;
            }
            out.push(Change { part, key: key.bytes(), value: Some(value.bytes()) });
        }
        Ok(())
    }

    fn in_order(&self, changes: Vec<Change>) -> Result<Vec<Change>, Malformed> {
        let keyed = changes.into_iter().map(|change| Ok((K::whole(&change.key)?, change)));
        let mut keyed = keyed.collect::<Result<Vec<(K, Change)>, Malformed>>()?;
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(keyed.into_iter().map(|(_, change)| change).collect())
    }

    fn load(&mut self, change: &Change) -> Result<(), Malformed> {
        let key = K::whole(&change.key)?;
        match &change.value {
            Some(value) => self.put(key, V::whole(value)?),
            None => self.take(&key),
        };
        Ok(())
    }

    fn weight(&self) -> usize {
        self.weight
    }
}

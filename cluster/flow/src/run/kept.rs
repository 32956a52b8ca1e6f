//! State that is kept by key, and what changed in it since it was last asked.
//!
//! A snapshot is all entries, a delta is those that changed. Both are lists of [`Change`]s; a snapshot
//! with the deltas after it, one after the other, is the state.
//!
//! Invariant: taking a snapshot or a delta changes nothing that a later row could notice.

use crate::value::codec::{Codec, Malformed};
use std::collections::{BTreeMap, BTreeSet};

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

/// Entries by key, in the order of the keys.
#[derive(Debug)]
pub struct Kept<K, V> {
    entries: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: Ord, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), changed: BTreeSet::new() }
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

    /// An entry that is going to be different; the default if there was none.
    pub fn change(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        self.changed.insert(key.clone());
        self.entries.entry(key.clone()).or_default()
    }

    /// Sets an entry.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.changed.insert(key.clone());
        self.entries.insert(key, value)
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.entries.remove(key);
        if removed.is_some() {
            self.changed.insert(key.clone());
        }
        removed
    }

    /// What changed since the last time.
    pub fn delta(&mut self, part: u32, out: &mut Vec<Change>) {
        for key in std::mem::take(&mut self.changed) {
            let value = self.entries.get(&key).map(Codec::bytes);
            out.push(Change { part, key: key.bytes(), value });
        }
    }

    /// Everything.
    pub fn snapshot(&self, part: u32, out: &mut Vec<Change>) {
        for (key, value) in &self.entries {
            out.push(Change { part, key: key.bytes(), value: Some(value.bytes()) });
        }
    }

    /// Takes in what was taken out.
    pub fn load(&mut self, change: &Change) -> Result<(), Malformed> {
        let key = K::whole(&change.key)?;
        match &change.value {
            Some(value) => self.entries.insert(key, V::whole(value)?),
            None => self.entries.remove(&key),
        };
        Ok(())
    }
}

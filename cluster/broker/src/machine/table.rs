//! A sorted map whose contents have a hash at every moment, and whose last changes can be undone.
//!
//! The hash is a multiset hash: the sum, modulo 2^128, of the xxh3-128 hashes of all elements, so
//! that adding, replacing and removing one element costs one hash whatever the size of the table
//! (Clarke et al. 2003, "Incremental multiset hash functions", section 5, with a fast hash in
//! place of a cryptographic one: it guards against bugs, not against people).
//!
//! Invariants: `sum` is the sum over the elements as they are encoded right now; between
//! [`Table::begin`] and [`Table::commit`] or [`Table::rollback`] every first image is kept.
//!
//! Never: change an element other than through [`Table::put`], [`Table::modify`] and
//! [`Table::remove`].

use super::codec::{CodecError, Reader, Writer};
use std::collections::BTreeMap;
use std::ops::RangeBounds;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Something that a table holds.
pub trait Element: Clone {
    /// What it is found by.
    type Key: Ord + Clone;

    /// Mixed into the hash of each element, so that equal bytes in two tables differ.
    const SEED: u64;

    /// The fewest bytes that an element is encoded in.
    const BYTES_MIN: usize;

    /// What this one is found by.
    fn key(&self) -> Self::Key;

    /// Appends its bytes; equal elements give equal bytes.
    fn encode(&self, out: &mut Writer);

    /// Takes one off.
    ///
    /// # Errors
    /// If the bytes are not an element.
    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError>;
}

#[derive(Clone, Debug)]
struct Slot<E> {
    element: E,
    hash: u128,
}

/// The sorted map.
#[derive(Clone, Debug)]
pub struct Table<E: Element> {
    slots: BTreeMap<E::Key, Slot<E>>,
    sum: u128,
    /// First images of what changed since `begin`, newest last. `None` while no one asked.
    journal: Option<Vec<(E::Key, Option<E>)>>,
}

impl<E: Element> Default for Table<E> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), sum: 0, journal: None }
    }
}

fn hash_of<E: Element>(element: &E) -> u128 {
    let mut out = Writer::new();
    element.encode(&mut out);
    xxh3_128_with_seed(out.as_slice(), E::SEED)
}

impl<E: Element> Table<E> {
    /// The element with this key.
    pub fn get(&self, key: &E::Key) -> Option<&E> {
        self.slots.get(key).map(|slot| &slot.element)
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All elements, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &E> {
        self.slots.values().map(|slot| &slot.element)
    }

    /// The elements whose keys are in a range, by key.
    pub fn range<R: RangeBounds<E::Key>>(&self, range: R) -> impl DoubleEndedIterator<Item = &E> {
        self.slots.range(range).map(|(_, slot)| &slot.element)
    }

    /// The hash of everything in the table.
    pub fn hash(&self) -> u128 {
        self.sum
    }

    fn remember(&mut self, key: &E::Key) {
        if let Some(journal) = &mut self.journal {
            journal.push((key.clone(), self.slots.get(key).map(|slot| slot.element.clone())));
        }
    }

    fn set(&mut self, key: E::Key, element: Option<E>) -> Option<E> {
        let before = match element {
            Some(element) => {
                let hash = hash_of(&element);
                self.sum = self.sum.wrapping_add(hash);
                self.slots.insert(key, Slot { element, hash })
            }
            None => self.slots.remove(&key),
        };
        before.map(|slot| {
            self.sum = self.sum.wrapping_sub(slot.hash);
            slot.element
        })
    }

    /// Adds an element, or replaces the one with the same key, which is returned.
    pub fn put(&mut self, element: E) -> Option<E> {
        let key = element.key();
        self.remember(&key);
        self.set(key, Some(element))
    }

    /// Removes the element with this key and returns it.
    pub fn remove(&mut self, key: &E::Key) -> Option<E> {
        self.remember(key);
        self.set(key.clone(), None)
    }

    /// Changes the element with this key in place and returns what `change` returned; `None` if
    /// there is no such element. The key must stay as it is.
    pub fn modify<T>(&mut self, key: &E::Key, change: impl FnOnce(&mut E) -> T) -> Option<T> {
        self.remember(key);
        let slot = self.slots.get_mut(key)?;
        let result = change(&mut slot.element);
        assert!(slot.element.key() == *key, "a change in place must not move an element");
        let hash = hash_of(&slot.element);
        self.sum = self.sum.wrapping_sub(slot.hash).wrapping_add(hash);
        slot.hash = hash;
        Some(result)
    }

    /// From here on changes can be undone.
    pub fn begin(&mut self) {
        assert!(self.journal.is_none(), "changes are already being remembered");
        self.journal = Some(Vec::new());
    }

    /// Keeps the changes since [`Table::begin`].
    pub fn commit(&mut self) {
        assert!(self.journal.take().is_some(), "no changes are being remembered");
    }

    /// Undoes the changes since [`Table::begin`], newest first. `undone` sees each key with the
    /// element that is taken away and the one that comes back, so that an index can follow.
    pub fn rollback(&mut self, mut undone: impl FnMut(Option<&E>, Option<&E>)) {
        let journal = self.journal.take().expect("begin was called");
        for (key, before) in journal.into_iter().rev() {
            let after = self.set(key, before.clone());
            undone(after.as_ref(), before.as_ref());
        }
    }

    /// The whole table: count, elements by key, and the hash.
    ///
    /// ```text
    /// count u32 | element ... | hash u128
    /// ```
    pub fn snapshot(&self, out: &mut Writer) {
        out.count(self.slots.len());
        for element in self.iter() {
            element.encode(out);
        }
        out.u128(self.sum);
    }

    /// Reads a table back and compares its hash, computed anew, with the stored one.
    ///
    /// # Errors
    /// If the bytes are not a table, a key occurs twice, or the hashes differ.
    pub fn restore(input: &mut Reader<'_>) -> Result<Self, TableError> {
        let mut table = Self::default();
        let count = input.count(E::BYTES_MIN)?;
        for _ in 0..count {
            if table.put(E::decode(input)?).is_some() {
                return Err(TableError::Twice);
            }
        }
        let stored = input.u128()?;
        if stored == table.sum { Ok(table) } else { Err(TableError::Hash) }
    }
}

/// Why a table could not be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The bytes are not a table.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A key occurs twice.
    #[error("a key occurs twice")]
    Twice,
    /// The elements do not have the hash that was stored with them.
    #[error("the elements do not have the hash that was stored with them")]
    Hash,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(u8, u8);

    impl Element for Pair {
        type Key = u8;
        const SEED: u64 = 9;
        const BYTES_MIN: usize = 2;
        fn key(&self) -> u8 {
            self.0
        }
        fn encode(&self, out: &mut Writer) {
            out.u8(self.0);
            out.u8(self.1);
        }
        fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
            Ok(Self(input.u8()?, input.u8()?))
        }
    }

    fn act(table: &mut Table<Pair>, (key, value): (u8, u8)) {
        match value {
            0 => drop(table.remove(&key)),
            1..=99 => drop(table.modify(&key, |pair| pair.1 = value)),
            _ => drop(table.put(Pair(key, value))),
        }
    }

    proptest! {
        #[test]
        fn the_hash_depends_on_the_contents_alone(
            first in proptest::collection::vec((0u8..8, any::<u8>()), 0..40),
            then in proptest::collection::vec((0u8..8, any::<u8>()), 0..40),
        ) {
            let mut table = Table::default();
            first.into_iter().for_each(|step| act(&mut table, step));
            let before: Vec<Pair> = table.iter().cloned().collect();
            let hash = table.hash();
            table.begin();
            then.iter().for_each(|step| act(&mut table, *step));
            table.rollback(|_, _| ());
            prop_assert_eq!(table.hash(), hash);
            prop_assert_eq!(table.iter().cloned().collect::<Vec<_>>(), before);

            then.iter().for_each(|step| act(&mut table, *step));
            let mut out = Writer::new();
            table.snapshot(&mut out);
            let bytes = out.finish();
            let again = Table::<Pair>::restore(&mut Reader::new(&bytes)).expect("restores");
            prop_assert_eq!(again.hash(), table.hash());
            let sum = table.iter().fold(0u128, |sum, pair| sum.wrapping_add(hash_of(pair)));
            prop_assert_eq!(sum, table.hash());
        }
    }

    #[test]
    fn a_table_with_another_hash_is_refused() {
        let mut table = Table::default();
        table.put(Pair(1, 2));
        let mut out = Writer::new();
        table.snapshot(&mut out);
        let mut bytes = out.finish().to_vec();
        bytes[5] ^= 1;
        let error = Table::<Pair>::restore(&mut Reader::new(&bytes)).expect_err("refused");
        assert_eq!(error, TableError::Hash);
    }
}

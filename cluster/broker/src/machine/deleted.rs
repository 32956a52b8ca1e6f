//! Names of deleted topics, for producers that go on with their sequence numbers when a topic of
//! the same name is created (clients number by the name of a topic, not by its id).
//!
//! Invariants: a producer that may have written to a deleted topic of some name is known to be
//! older than a number that is kept for that name; the names are bounded, and what is forgotten of
//! them makes the site more lenient, never stricter.

use super::codec::{CodecError, Reader, Writer};
use super::meta::Meta;
use super::table::{Element, Table};

/// Names that are kept.
pub const DELETED_NAMES_MAX: usize = 1_024;

/// A name, and which producers may have written to it.
///
/// ```text
/// name len u32, UTF-8 | producers below u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedName {
    /// The name of the topic.
    pub name: String,
    /// Producer ids below this one were handed out before the topic was deleted.
    pub producers_below: u64,
}

impl Element for DeletedName {
    type Key = String;
    const SEED: u64 = 6;
    const BYTES_MIN: usize = 12;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.name);
        out.u64(self.producers_below);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { name: input.text()?, producers_below: input.u64()? })
    }
}

impl Table<DeletedName> {
    /// Takes note that a topic of this name was deleted. The oldest name goes if there are too
    /// many; then every topic to come takes it for its own.
    pub fn deleted(&mut self, name: String, meta: &mut Table<Meta>) {
        self.put(DeletedName { name, producers_below: meta.current().next_producer });
        if self.len() > DELETED_NAMES_MAX {
            let oldest = self.iter().min_by_key(|deleted| deleted.producers_below);
            let oldest = oldest.expect("there are many").clone();
            self.remove(&oldest.name);
            meta.forget_deleted_name(oldest.producers_below);
        }
    }

    /// A topic of this name is created: producers with ids below the returned one may have written
    /// to an earlier topic of the name.
    pub fn created(&mut self, name: &str, meta: &Table<Meta>) -> u64 {
        let same = self.remove(&name.to_owned()).map_or(0, |deleted| deleted.producers_below);
        same.max(meta.current().producers_before_deletion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Uuid;

    #[test]
    fn only_a_topic_of_the_same_name_is_lenient() {
        let (mut meta, mut names) = (Table::new_site(), Table::<DeletedName>::default());
        meta.take_producer(Uuid::NIL);
        names.deleted("a".to_owned(), &mut meta);
        assert_eq!(names.created("b", &meta), 0);
        assert_eq!(names.created("a", &meta), 1);
        assert_eq!(names.created("a", &meta), 0, "the partition remembers it now");
    }

    #[test]
    fn what_is_forgotten_makes_every_topic_lenient() {
        let (mut meta, mut names) = (Table::new_site(), Table::<DeletedName>::default());
        for n in 0..=DELETED_NAMES_MAX {
            meta.take_producer(Uuid::NIL);
            names.deleted(format!("topic-{n}"), &mut meta);
        }
        assert_eq!(names.len(), DELETED_NAMES_MAX);
        assert_eq!(names.created("another", &meta), 1);
        assert_eq!(names.created("topic-7", &meta), 8);
    }
}

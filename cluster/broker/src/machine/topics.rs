//! The topics of a site: names, identifiers that never change, and the streams of their partitions.
//!
//! Invariants: a name belongs to one topic at a time, a topic id to one topic for ever (the leader
//! draws it at random); the streams of a topic are consecutive and belong to no other topic.
//!
//! Never: derive an identifier here. Apply has no randomness.

use super::budget::Keeping;
use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use bytes::Bytes;
use fulmar_store::StreamId;
use fulmar_types::link::{PRIORITY, Priority};
use fulmar_types::{PartitionIndex, Plant, TopicId};
use std::collections::BTreeMap;

/// The longest name of a topic, as in Kafka (`Topic.MAX_NAME_LENGTH`).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Settings of one topic, at most.
pub const TOPIC_CONFIGS_MAX: usize = 64;

/// The longest name or value of a setting, in bytes.
pub const TOPIC_CONFIG_BYTES_MAX: usize = 1_024;

/// The setting under which the leader hands over the key of the hash chains. It is kept apart from
/// what clients can see.
pub const CHAIN_KEY_CONFIG: &str = "fulmar.chain.key";

/// Whether a topic may have this name (Kafka, `Topic.validate`).
pub fn is_valid_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty()
        && name.len() <= TOPIC_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(plain)
}

/// A topic.
///
/// ```text
/// id [u8; 16] | name len u32, UTF-8 | partitions u32 | first stream u32 | chain key [u8; 32]
/// | configs u32 | (key len u32, UTF-8 | value len u32, UTF-8) per config
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Stable for the life of the topic.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// The stream of partition 0; the others follow.
    pub first_stream: StreamId,
    /// The key of the hash chains of its partitions.
    pub chain_key: [u8; 32],
    /// Its settings, in the order in which they were given.
    pub configs: Vec<(String, String)>,
    /// How much of it is kept, and what goes first. Derived from the settings.
    pub keeping: Keeping,
}

impl Topic {
    /// The stream of a partition; `None` if there is no such partition.
    pub fn stream(&self, partition: PartitionIndex) -> Option<StreamId> {
        let within = partition.0 < self.partitions;
        within.then(|| StreamId(self.first_stream.0 + partition.0))
    }

    /// The streams of all partitions, in order.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> + use<> {
        let first = self.first_stream.0;
        (first..first + self.partitions).map(StreamId)
    }

    /// The value of a setting, if it was given.
    pub fn config(&self, key: &str) -> Option<&str> {
        self.configs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// How urgent its records are on a link. A text that says nothing was refused before it was
    /// proposed.
    pub fn priority(&self) -> Priority {
        self.config(PRIORITY).and_then(Priority::by_name).unwrap_or_default()
    }
}

impl Element for Topic {
    type Key = TopicId;
    const SEED: u64 = 1;
    const BYTES_MIN: usize = 64;

    fn key(&self) -> TopicId {
        self.id
    }

    fn encode(&self, out: &mut Writer) {
        out.uuid(self.id.0);
        out.text(&self.name);
        out.u32(self.partitions);
        out.u32(self.first_stream.0);
        out.raw(&self.chain_key);
        out.count(self.configs.len());
        for (key, value) in &self.configs {
            out.text(key);
            out.text(value);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let id = TopicId(input.uuid()?);
        let name = input.text()?;
        let partitions = input.u32()?;
        let first_stream = StreamId(input.u32()?);
        let chain_key = input.array()?;
        let count = input.count(8)?;
        let configs = (0..count)
            .map(|_| Ok((input.text()?, input.text()?)))
            .collect::<Result<Vec<_>, CodecError>>()?;
        if first_stream.0.checked_add(partitions).is_none() {
            return Err(CodecError::Tag);
        }
        let keeping = Keeping::of(&configs);
        Ok(Self { id, name, partitions, first_stream, chain_key, configs, keeping })
    }
}

/// Splits the key of the hash chains off the settings of a new topic. Without one the key is made
/// from the topic id, which anybody can see.
pub fn split_chain_key(
    id: TopicId,
    configs: Vec<(String, String)>,
) -> ([u8; 32], Vec<(String, String)>) {
    let mut key = blake3::derive_key("fulmar 2026 partition chain of a topic without key", &id.0.0);
    let mut rest = Vec::with_capacity(configs.len());
    for (name, value) in configs {
        if name == CHAIN_KEY_CONFIG {
            key = blake3::derive_key("fulmar 2026 partition chain", value.as_bytes());
        } else {
            rest.push((name, value));
        }
    }
    (key, rest)
}

/// All topics, found by id and by name.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    table: Table<Topic>,
    /// Derived from the table.
    by_name: BTreeMap<String, TopicId>,
    /// The sum of their partitions, derived from the table.
    partitions: usize,
}

impl Topics {
    /// The topic with this id.
    pub fn get(&self, id: TopicId) -> Option<&Topic> {
        self.table.get(&id)
    }

    /// The topic with this name.
    pub fn by_name(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name).and_then(|id| self.table.get(id))
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values().filter_map(|id| self.table.get(id))
    }

    /// How many partitions the site has.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Adds a topic whose id and name are new.
    pub fn insert(&mut self, topic: Topic) {
        assert!(self.get(topic.id).is_none(), "a topic id is used once");
        assert!(self.by_name(&topic.name).is_none(), "a name belongs to one topic");
        let after = topic.clone();
        let before = self.table.put(topic);
        follow(&mut self.by_name, &mut self.partitions, before.as_ref(), Some(&after));
    }

    /// Replaces the settings of a topic, if it is there.
    pub fn set_configs(&mut self, id: TopicId, configs: Vec<(String, String)>) {
        let Some(topic) = self.table.get(&id) else { return };
        // Name and partitions stay, so nothing that is derived from them changes.
        let is_old = fulmar_host::planted(Plant::KeepOldRetention);
        let keeping = if is_old { topic.keeping } else { Keeping::of(&configs) };
        let topic = Topic { configs, keeping, ..topic.clone() };
        self.table.put(topic);
    }

    /// Removes a topic and returns it.
    pub fn remove(&mut self, id: TopicId) -> Option<Topic> {
        let before = self.table.remove(&id);
        follow(&mut self.by_name, &mut self.partitions, before.as_ref(), None);
        before
    }

    /// From here on changes can be undone.
    pub fn begin(&mut self) {
        self.table.begin();
    }

    /// Keeps the changes since [`Topics::begin`].
    pub fn commit(&mut self) {
        self.table.commit();
    }

    /// Undoes the changes since [`Topics::begin`].
    pub fn rollback(&mut self) {
        let (by_name, partitions) = (&mut self.by_name, &mut self.partitions);
        self.table.rollback(|after, before| follow(by_name, partitions, after, before));
    }

    /// The hash of all topics.
    pub fn hash(&self) -> u128 {
        self.table.hash()
    }

    /// The bytes of the section.
    pub fn snapshot(&self) -> Bytes {
        let mut out = Writer::new();
        self.table.snapshot(&mut out);
        out.finish()
    }

    /// Reads the section back.
    ///
    /// # Errors
    /// If the bytes are not topics, or do not have the hash that is stored with them.
    pub fn restore(bytes: &[u8]) -> Result<Self, super::table::TableError> {
        let mut input = Reader::new(bytes);
        let table = Table::restore(&mut input)?;
        input.end()?;
        let mut topics = Self::default();
        for topic in Table::<Topic>::iter(&table) {
            if topics.by_name.contains_key(&topic.name) {
                return Err(super::table::TableError::Twice);
            }
            follow(&mut topics.by_name, &mut topics.partitions, None, Some(topic));
        }
        topics.table = table;
        Ok(topics)
    }
}

/// Keeps what is derived in step with the table.
fn follow(
    by_name: &mut BTreeMap<String, TopicId>,
    partitions: &mut usize,
    gone: Option<&Topic>,
    come: Option<&Topic>,
) {
    if let Some(topic) = gone {
        by_name.remove(&topic.name);
        *partitions -= topic.partitions as usize;
    }
    if let Some(topic) = come {
        by_name.insert(topic.name.clone(), topic.id);
        *partitions += topic.partitions as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Uuid;

    fn topic(id: u8, name: &str, first: u32) -> Topic {
        Topic {
            id: TopicId(Uuid([id; 16])),
            name: name.to_owned(),
            partitions: 3,
            first_stream: StreamId(first),
            chain_key: [id; 32],
            configs: vec![("max.message.bytes".to_owned(), "1000".to_owned())],
            keeping: Keeping::default(),
        }
    }

    #[test]
    fn names_follow_kafka() {
        assert!(is_valid_name("plant.sensor_1-a"));
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_derived_follows_a_rollback_and_a_restore() {
        let mut topics = Topics::default();
        topics.insert(topic(1, "a", 0));
        let hash = topics.hash();
        topics.begin();
        topics.remove(TopicId(Uuid([1; 16])));
        topics.insert(topic(2, "a", 3));
        topics.insert(topic(3, "b", 6));
        assert_eq!(topics.partition_count(), 6);
        topics.rollback();
        assert_eq!(topics.hash(), hash);
        assert_eq!(topics.partition_count(), 3);
        assert_eq!(topics.by_name("a").map(|t| t.id.0.0[0]), Some(1));
        assert!(topics.by_name("b").is_none());

        let again = Topics::restore(&topics.snapshot()).expect("restores");
        assert_eq!(again.hash(), hash);
        assert_eq!(again.by_name("a"), topics.by_name("a"));
        assert_eq!(again.partition_count(), 3);
    }

    #[test]
    fn a_stream_exists_for_each_partition_and_no_other() {
        let topic = topic(1, "a", 7);
        assert_eq!(topic.stream(PartitionIndex(2)), Some(StreamId(9)));
        assert_eq!(topic.stream(PartitionIndex(3)), None);
        assert_eq!(topic.streams().count(), 3);
    }
}

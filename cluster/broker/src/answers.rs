//! The memory that the answers to clients may take, also to those who do not read them.
//!
//! An answer is made when the answers before it on its connection are on their way, so there is at
//! most one for each connection. Those that name a few topics or partitions are small enough for
//! that to be the bound; whatever names more takes room before it is made, and keeps it until it is
//! sent. Answers of middle size have a share of their own, which those that name thousands of
//! partitions cannot take. Records of Fetch and descriptions of Metadata have room of their own.
//!
//! Invariants: nothing in an answer is larger than what was counted for it; nobody waits for room
//! longer than a client waits for an answer.

use crate::counters::Pool;
use crate::limits::{
    ANSWER_BYTES_FREE_MAX, ANSWER_BYTES_PER_NAME, ANSWER_ROOM_WAIT_MS_MAX,
    DESCRIBED_LINK_BYTES_MAX, DESCRIBED_PIPELINE_BYTES_MAX, LARGE_ANSWERS_BYTES_MAX,
    LINK_STATUS_VALUES_MAX, MIDDLE_ANSWER_BYTES_MAX, MIDDLE_ANSWERS_BYTES_MAX,
    REQUEST_NAME_BYTES_MAX, REQUEST_PARTITIONS_MAX, TOPIC_SETTINGS,
};
use crate::machine::changes::{CHANGE_TEXT_BYTES_MAX, CHANGES_MAX};
use crate::machine::mirroring::RULES_MAX;
use crate::machine::topics::TOPIC_NAME_BYTES_MAX;
use crate::room::{room, take};
use fulmar_host::time;
use fulmar_types::link::{LINK_TEXT_BYTES_MAX, LINKS_PER_SITE_MAX};
use fulmar_types::pipeline::{
    PIPELINE_FACTS_BYTES_MAX, PIPELINE_NAME_BYTES_MAX, PIPELINE_REASON_BYTES_MAX,
    PIPELINES_PER_SITE_MAX, SAVEPOINTS_PER_SITE_MAX,
};
use fulmar_wire::{
    FetchRequest, RESOURCE_CHANGES, RESOURCE_LINK, RESOURCE_LINK_STATUS, RESOURCE_MADE_OF,
    RESOURCE_MIRRORS, RESOURCE_PIPELINE, RESOURCE_PIPELINE_STATUS, RESOURCE_RULE,
    RESOURCE_SAVEPOINT, Request,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What an answer occupies until it is sent.
pub type Held = Vec<OwnedSemaphorePermit>;

/// What a request names, and so its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Topics.
    pub topics: usize,
    /// Partitions, or settings, of all topics.
    pub inside: usize,
    /// Bytes of names and settings.
    pub name_bytes: usize,
}

impl Named {
    /// Of a request. Fetch, which takes room when it looks, and Metadata, whose answers depend on
    /// more than the request, count for themselves.
    pub fn by(request: &Request) -> Self {
        let mut named = Self::default();
        match request {
            Request::Produce(request) => {
                let topics = request.topic_data.iter();
                topics.for_each(|topic| named.add(&topic.name, topic.partition_data.len()));
            }
            Request::ListOffsets(request) => {
                let topics = request.topics.iter();
                topics.for_each(|topic| named.add(&topic.name, topic.partitions.len()));
            }
            Request::CreateTopics(request) => {
                for topic in &request.topics {
                    let settings = topic.configs.iter();
                    let settings = settings.map(|c| (c.name.as_str(), c.value.as_deref()));
                    named.add_with_settings(&topic.name, settings);
                }
            }
            Request::DeleteTopics(request) => {
                request.topic_names.iter().for_each(|name| named.add(name, 0));
                for topic in &request.topics {
                    named.add(topic.name.as_deref().unwrap_or_default(), 0);
                    if topic.name.is_none() {
                        // The answer names a topic that was given by its id.
                        named.name_bytes += TOPIC_NAME_BYTES_MAX;
                    }
                }
            }
            Request::DescribeConfigs(request) => {
                for resource in &request.resources {
                    named.add_described(resource.resource_type, &resource.resource_name);
                }
            }
            Request::AlterConfigs(request) => {
                for resource in &request.resources {
                    let settings = resource.configs.iter();
                    let settings = settings.map(|c| (c.name.as_str(), c.value.as_deref()));
                    named.add_with_settings(&resource.resource_name, settings);
                }
            }
            Request::IncrementalAlterConfigs(request) => {
                for resource in &request.resources {
                    let settings = resource.configs.iter();
                    let settings = settings.map(|c| (c.name.as_str(), c.value.as_deref()));
                    named.add_with_settings(&resource.resource_name, settings);
                }
            }
            Request::Fetch(_)
            | Request::Metadata(_)
            | Request::ApiVersions(_)
            | Request::InitProducerId(_) => {}
        }
        named
    }

    /// Of a Fetch.
    pub fn by_fetch(request: &FetchRequest) -> Self {
        let mut named = Self::default();
        let topics = request.topics.iter();
        topics.for_each(|topic| named.add(&topic.topic, topic.partitions.len()));
        named
    }

    fn add_with_settings<'a>(
        &mut self,
        name: &str,
        settings: impl ExactSizeIterator<Item = (&'a str, Option<&'a str>)>,
    ) {
        self.add(name, settings.len());
        for (name, value) in settings {
            self.name_bytes += name.len() + value.map_or(0, str::len);
        }
    }

    /// What is described, which may be more than is named.
    fn add_described(&mut self, resource_type: i8, name: &str) {
        // Every setting, and as much again for what it may be besides.
        self.add(name, 2 * TOPIC_SETTINGS);
        match resource_type {
            RESOURCE_LINK | RESOURCE_RULE if name.is_empty() => {
                self.topics += RULES_MAX.max(LINKS_PER_SITE_MAX);
                self.name_bytes += RULES_MAX * TOPIC_NAME_BYTES_MAX;
            }
            RESOURCE_LINK | RESOURCE_RULE => self.name_bytes += DESCRIBED_LINK_BYTES_MAX,
            RESOURCE_PIPELINE | RESOURCE_SAVEPOINT if name.is_empty() => {
                self.topics += PIPELINES_PER_SITE_MAX.max(SAVEPOINTS_PER_SITE_MAX);
                self.name_bytes += PIPELINES_PER_SITE_MAX * PIPELINE_NAME_BYTES_MAX;
            }
            RESOURCE_PIPELINE => self.name_bytes += DESCRIBED_PIPELINE_BYTES_MAX,
            RESOURCE_CHANGES => {
                self.inside += CHANGES_MAX;
                self.name_bytes += CHANGES_MAX * (2 * LINK_TEXT_BYTES_MAX + CHANGE_TEXT_BYTES_MAX);
            }
            RESOURCE_PIPELINE_STATUS => {
                self.inside += LINK_STATUS_VALUES_MAX;
                self.name_bytes += LINK_STATUS_VALUES_MAX * TOPIC_NAME_BYTES_MAX;
                self.name_bytes += PIPELINE_REASON_BYTES_MAX + 2 * PIPELINE_FACTS_BYTES_MAX;
            }
            RESOURCE_LINK_STATUS | RESOURCE_MADE_OF | RESOURCE_MIRRORS => {
                self.inside += LINK_STATUS_VALUES_MAX;
                self.name_bytes += LINK_STATUS_VALUES_MAX * TOPIC_NAME_BYTES_MAX;
            }
            _ => {}
        }
    }

    fn add(&mut self, name: &str, inside: usize) {
        self.topics += 1;
        self.inside += inside;
        self.name_bytes += name.len();
    }

    /// Whether it names more than one request may.
    pub const fn is_too_much(self) -> bool {
        self.topics > REQUEST_PARTITIONS_MAX
            || self.inside > REQUEST_PARTITIONS_MAX
            || self.name_bytes > REQUEST_NAME_BYTES_MAX
    }

    /// Whether its answer is small enough to be made without room.
    pub const fn is_small(self) -> bool {
        self.answer_bytes() <= ANSWER_BYTES_FREE_MAX
    }

    /// The most that the answer takes, as structures and on the wire. A name is there in both.
    const fn answer_bytes(self) -> usize {
        (self.topics + self.inside) * ANSWER_BYTES_PER_NAME + 2 * self.name_bytes
    }
}

/// The room for answers of a node, in KiB.
pub struct AnswerRoom {
    middle: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl AnswerRoom {
    pub fn new() -> Self {
        Self { middle: room(MIDDLE_ANSWERS_BYTES_MAX), large: room(LARGE_ANSWERS_BYTES_MAX) }
    }

    /// Takes room for an answer; waits while there is none. A small answer needs none. `None` if
    /// there was none for so long that nobody waits for the answer any more.
    ///
    /// # Panics
    /// If the request names too much.
    pub async fn take(&self, named: Named) -> Option<Held> {
        if named.is_small() {
            return Some(Held::new());
        }
        let bytes = named.answer_bytes();
        assert!(bytes <= LARGE_ANSWERS_BYTES_MAX, "too much is refused before: {named:?}");
        let share = if bytes <= MIDDLE_ANSWER_BYTES_MAX { &self.middle } else { &self.large };
        let patience = Duration::from_millis(ANSWER_ROOM_WAIT_MS_MAX);
        time::timeout(patience, take(share, bytes)).await.ok().map(|room| vec![room])
    }

    /// What is in use for middle-sized and for large answers.
    pub fn pools(&self) -> [Pool; 2] {
        [
            Pool::of("answers-middle", &self.middle, MIDDLE_ANSWERS_BYTES_MAX),
            Pool::of("answers-large", &self.large, LARGE_ANSWERS_BYTES_MAX),
        ]
    }

    /// What is free for middle-sized and for large answers.
    #[cfg(test)]
    pub fn free_bytes(&self) -> (usize, usize) {
        (self.middle.available_permits() * 1024, self.large.available_permits() * 1024)
    }
}

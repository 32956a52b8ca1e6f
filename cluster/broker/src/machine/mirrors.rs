//! Copies of topics of other sites: what they are copies of, and how far they have come.
//!
//! Invariants: a mirror has the offsets of its origin; how far it has come is the next offset of its
//! partition, so progress and records cannot part; the tag belongs to that offset; what is missing
//! below it has a marker (`gaps.rs`).
//!
//! Never: append to a mirror what its link did not bring.

use super::codec::{CodecError, Reader, Writer};
use super::table::Element;
use fulmar_store::StreamId;
use fulmar_store::entry::Tag;
use fulmar_types::TopicId;

/// What a topic is a copy of.
///
/// ```text
/// topic [u8; 16] | origin [u8; 16] | link, origin name: len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The topic on this site.
    pub topic: TopicId,
    /// The topic at the other site.
    pub origin: TopicId,
    /// The link that brings it, by name. It may be gone.
    pub link: String,
    /// What the topic is called there.
    pub origin_name: String,
}

impl Element for Mirror {
    type Key = TopicId;
    const SEED: u64 = 10;
    const BYTES_MIN: usize = 40;

    fn key(&self) -> TopicId {
        self.topic
    }

    fn encode(&self, out: &mut Writer) {
        out.uuid(self.topic.0);
        out.uuid(self.origin.0);
        out.text(&self.link);
        out.text(&self.origin_name);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (topic, origin) = (TopicId(input.uuid()?), TopicId(input.uuid()?));
        Ok(Self { topic, origin, link: input.text()?, origin_name: input.text()? })
    }
}

/// The origin's tag at the next offset of a mirrored partition.
///
/// ```text
/// stream u32 | tag [u8; 16]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The partition.
    pub stream: StreamId,
    /// The tag; zeros before the first record.
    pub tag: Tag,
}

impl Element for Progress {
    type Key = StreamId;
    const SEED: u64 = 11;
    const BYTES_MIN: usize = 20;

    fn key(&self) -> StreamId {
        self.stream
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.raw(&self.tag);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { stream: StreamId(input.u32()?), tag: input.array()? })
    }
}

//! Copies of topics of other sites: what they are copies of, and how far they have come.
//!
//! Invariants: a mirror has the offsets of its origin; how far it has come is the next offset of its
//! partition, so progress and records cannot part; the tag belongs to that offset; what is missing
//! below it has a marker (`gaps.rs`).
//!
//! Never: append to a mirror what its link did not bring.

use super::codec::{CodecError, Reader, Writer};
use super::table::Element;
use super::topics::TOPIC_CONFIGS_MAX;
use fulmar_store::StreamId;
use fulmar_store::entry::Tag;
use fulmar_types::TopicId;
use fulmar_types::link::{LinkDefinition, VIA_MAX};

/// What a topic is a copy of.
///
/// ```text
/// topic [u8; 16] | origin [u8; 16] | link, origin name: len u32, UTF-8
/// | via u32, each len u32, UTF-8 | configs u32, each key and value: len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The topic on this site.
    pub topic: TopicId,
    /// The topic at its origin.
    pub origin: TopicId,
    /// The link that brings it, by name. It may be gone.
    pub link: String,
    /// What the topic is called at the site that the link leads to.
    pub origin_name: String,
    /// The sites that it comes through, the one with the origin first, the one that the link leads to last.
    pub via: Vec<String>,
    /// The settings of its origin, as this site has taken them over last. It may have others since.
    pub configs: Vec<(String, String)>,
}

impl Mirror {
    /// Whether a link leads to the site that gives it.
    pub fn is_given_by(&self, link: &LinkDefinition) -> bool {
        self.via.last() == Some(&link.site)
    }
}

impl Element for Mirror {
    type Key = TopicId;
    const SEED: u64 = 10;
    const BYTES_MIN: usize = 48;

    fn key(&self) -> TopicId {
        self.topic
    }

    fn encode(&self, out: &mut Writer) {
        out.uuid(self.topic.0);
        out.uuid(self.origin.0);
        out.text(&self.link);
        out.text(&self.origin_name);
        out.count(self.via.len());
        self.via.iter().for_each(|site| out.text(site));
        out.count(self.configs.len());
        for (key, value) in &self.configs {
            out.text(key);
            out.text(value);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (topic, origin) = (TopicId(input.uuid()?), TopicId(input.uuid()?));
        let (link, origin_name) = (input.text()?, input.text()?);
        let sites = input.count(4)?;
        if sites > VIA_MAX {
            return Err(CodecError::Tag);
        }
        let via = (0..sites).map(|_| input.text()).collect::<Result<_, _>>()?;
        let settings = input.count(8)?;
        if settings > TOPIC_CONFIGS_MAX {
            return Err(CodecError::Tag);
        }
        let pairs = (0..settings).map(|_| Ok((input.text()?, input.text()?)));
        let configs = pairs.collect::<Result<_, CodecError>>()?;
        Ok(Self { topic, origin, link, origin_name, via, configs })
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

//! Links to other sites, where topics may go, and how far the peers have them.
//!
//! Invariants: a definition has a number of its own, the index of the entry that made it, and what
//! acts under an earlier number has no effect; a topic goes to no region that no rule names.
//!
//! Never: take what a peer is from the peer.

use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use fulmar_store::StreamId;
use fulmar_store::entry::Tag;
use fulmar_types::Offset;
use fulmar_types::link::{
    LINK_AUTHORITY_BYTES_MAX, LINK_DIALS_MAX, LINK_TOPICS_MAX, LinkDefinition, RULE_REGIONS_MAX,
};

/// A link.
///
/// ```text
/// name len u32, UTF-8 | number u64 | paused u8 | site, region: len u32, UTF-8 | authority len u32, DER
/// | dials u32, each len u32, UTF-8 | topics u32, each len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is called on this site.
    pub name: String,
    /// The index of the entry that defined it as it is.
    pub number: u64,
    /// What it is.
    pub definition: LinkDefinition,
}

fn put_texts(out: &mut Writer, texts: &[String]) {
    out.count(texts.len());
    texts.iter().for_each(|text| out.text(text));
}

fn texts(input: &mut Reader<'_>, most: usize) -> Result<Vec<String>, CodecError> {
    let count = input.count(4)?;
    if count > most {
        return Err(CodecError::Tag);
    }
    (0..count).map(|_| input.text()).collect()
}

impl Element for Link {
    type Key = String;
    const SEED: u64 = 8;
    const BYTES_MIN: usize = 33;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self, out: &mut Writer) {
        let link = &self.definition;
        out.text(&self.name);
        out.u64(self.number);
        out.u8(u8::from(link.paused));
        out.text(&link.site);
        out.text(&link.region);
        out.bytes(&link.authority);
        put_texts(out, &link.dial);
        put_texts(out, &link.take);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let name = input.text()?;
        let number = input.u64()?;
        let paused = match input.u8()? {
            0 => false,
            1 => true,
            _ => return Err(CodecError::Tag),
        };
        let (site, region) = (input.text()?, input.text()?);
        let authority = input.bytes()?.to_vec();
        if authority.len() > LINK_AUTHORITY_BYTES_MAX {
            return Err(CodecError::Tag);
        }
        let dial = texts(input, LINK_DIALS_MAX)?;
        let take = texts(input, LINK_TOPICS_MAX)?;
        let definition = LinkDefinition { site, region, authority, dial, take, paused };
        Ok(Self { name, number, definition })
    }
}

/// Where the records of a topic may go.
///
/// ```text
/// topic len u32, UTF-8 | number u64 | regions u32, each len u32, UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The topic, by name.
    pub topic: String,
    /// The index of the entry that made the rule.
    pub number: u64,
    /// The regions that may have it.
    pub regions: Vec<String>,
}

impl Element for Rule {
    type Key = String;
    const SEED: u64 = 9;
    const BYTES_MIN: usize = 16;

    fn key(&self) -> String {
        self.topic.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.topic);
        out.u64(self.number);
        put_texts(out, &self.regions);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (topic, number) = (input.text()?, input.u64()?);
        Ok(Self { topic, number, regions: texts(input, RULE_REGIONS_MAX)? })
    }
}

/// How far the peer of a link has a partition of this site.
///
/// ```text
/// link len u32, UTF-8 | stream u32 | offset u64 | tag [u8; 16] | age ms u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The link, by name.
    pub link: String,
    /// The partition.
    pub stream: StreamId,
    /// The offset that the peer waits for.
    pub offset: Offset,
    /// The tag that it holds.
    pub tag: Tag,
    /// The age of this site when that was noted, in milliseconds.
    pub age_ms: u64,
}

impl Element for PeerProgress {
    type Key = (String, StreamId);
    const SEED: u64 = 13;
    const BYTES_MIN: usize = 40;

    fn key(&self) -> Self::Key {
        (self.link.clone(), self.stream)
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.link);
        out.u32(self.stream.0);
        out.u64(self.offset.0);
        out.raw(&self.tag);
        out.u64(self.age_ms);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            link: input.text()?,
            stream: StreamId(input.u32()?),
            offset: Offset(input.u64()?),
            tag: input.array()?,
            age_ms: input.u64()?,
        })
    }
}

impl Table<PeerProgress> {
    /// Forgets everything about the peer of a link.
    pub fn drop_link(&mut self, link: &str) {
        let of_link = |at: u32| (link.to_owned(), StreamId(at));
        let gone: Vec<_> = self.range(of_link(0)..=of_link(u32::MAX)).map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Forgets who has a partition that is gone.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let of_stream = self.iter().filter(|peer| peer.stream == stream);
        let gone: Vec<_> = of_stream.map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

//! Links to other sites, where topics may go, and how far the peers have them.
//!
//! Invariants: a definition has a number of its own, the index of the entry that made it, and what
//! acts under an earlier number has no effect; a topic goes to no region that no rule names.
//!
//! Never: take what a peer is from the peer.

use super::changes::Changed;
use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use fulmar_store::StreamId;
use fulmar_store::entry::{RuleSecret, Tag};
use fulmar_types::link::{
    CopyLimits, Decline, LINK_AUTHORITY_BYTES_MAX, LINK_DIALS_MAX, LINK_TOPICS_MAX, LinkDefinition,
};
use fulmar_types::rule::{
    FieldAction, FieldPath, Passage, RULE_FIELDS_MAX, RULE_HEADERS_MAX, RULE_REGIONS_MAX,
    RuleDefinition,
};
use fulmar_types::{Offset, TopicId, Uuid};
use std::collections::BTreeMap;

/// A link.
///
/// ```text
/// name len u32, UTF-8 | number u64 | who len u32, UTF-8 | wall ms u64 | paused u8 | site, region: len u32, UTF-8 | authority len u32, DER
/// | dials u32, each len u32, UTF-8 | topics u32, each len u32, UTF-8 | cap u64 | connections u8
/// | partitions max u32 | retention bytes max u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is called on this site.
    pub name: String,
    /// The index of the entry that defined it as it is.
    pub number: u64,
    /// Who did, and when.
    pub changed: Changed,
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
    const BYTES_MIN: usize = 66;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self, out: &mut Writer) {
        let link = &self.definition;
        out.text(&self.name);
        out.u64(self.number);
        self.changed.encode(out);
        out.u8(u8::from(link.paused));
        out.text(&link.site);
        out.text(&link.region);
        out.bytes(&link.authority);
        put_texts(out, &link.dial);
        put_texts(out, &link.take);
        out.u64(link.cap.unwrap_or(0));
        out.u8(link.connections);
        out.u32(link.copies.partitions_max);
        out.u64(link.copies.retention_bytes_max.unwrap_or(0));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let name = input.text()?;
        let number = input.u64()?;
        let changed = Changed::decode(input)?;
        let paused = input.flag()?;
        let (site, region) = (input.text()?, input.text()?);
        let authority = input.bytes()?.to_vec();
        if authority.len() > LINK_AUTHORITY_BYTES_MAX {
            return Err(CodecError::Tag);
        }
        let dial = texts(input, LINK_DIALS_MAX)?;
        let take = texts(input, LINK_TOPICS_MAX)?;
        let cap = Some(input.u64()?).filter(|cap| *cap > 0);
        let connections = input.u8()?;
        let copies = CopyLimits {
            partitions_max: input.u32()?,
            retention_bytes_max: Some(input.u64()?).filter(|bytes| *bytes > 0),
        };
        let definition = LinkDefinition {
            site,
            region,
            authority,
            dial,
            take,
            paused,
            cap,
            connections,
            copies,
        };
        Ok(Self { name, number, changed, definition })
    }
}

/// Where the records of a topic may go, and in which form.
///
/// ```text
/// topic len u32, UTF-8 | number u64 | who len u32, UTF-8 | wall ms u64 | secret [u8; 32]
/// | regions u32, each len u32, UTF-8 | key u8 | headers u32, each len u32, UTF-8, passage u8
/// | fields u32, each len u32, UTF-8, action u8, argument u32
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The topic, by name.
    pub topic: String,
    /// The index of the entry that made the rule.
    pub number: u64,
    /// Who did, and when.
    pub changed: Changed,
    /// The key of hashes in place of values, the same in all rules of a site.
    pub secret: RuleSecret,
    /// What it says.
    pub definition: RuleDefinition,
}

impl Element for Rule {
    type Key = String;
    const SEED: u64 = 9;
    const BYTES_MIN: usize = 69;

    fn key(&self) -> String {
        self.topic.clone()
    }

    fn encode(&self, out: &mut Writer) {
        let rule = &self.definition;
        out.text(&self.topic);
        out.u64(self.number);
        self.changed.encode(out);
        out.raw(&self.secret.0);
        put_texts(out, &rule.regions);
        out.u8(rule.key.number());
        out.count(rule.headers.len());
        for (name, passage) in &rule.headers {
            out.text(name);
            out.u8(passage.number());
        }
        out.count(rule.fields.len());
        for (path, action) in &rule.fields {
            let (kind, argument) = action.numbers();
            out.text(&path.to_string());
            out.u8(kind);
            out.u32(argument);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (topic, number) = (input.text()?, input.u64()?);
        let (changed, secret) = (Changed::decode(input)?, RuleSecret(input.array()?));
        let regions = texts(input, RULE_REGIONS_MAX)?;
        let key = passage(input)?;
        let headers = input.count(5)?;
        if headers > RULE_HEADERS_MAX {
            return Err(CodecError::Tag);
        }
        let headers =
            (0..headers).map(|_| Ok((input.text()?, passage(input)?))).collect::<Result<_, _>>()?;
        let fields = input.count(9)?;
        if fields > RULE_FIELDS_MAX {
            return Err(CodecError::Tag);
        }
        let fields = (0..fields).map(|_| field(input)).collect::<Result<BTreeMap<_, _>, _>>()?;
        let definition = RuleDefinition { regions, key, headers, fields };
        Ok(Self { topic, number, changed, secret, definition })
    }
}

fn passage(input: &mut Reader<'_>) -> Result<Passage, CodecError> {
    Passage::from_number(input.u8()?).ok_or(CodecError::Tag)
}

fn field(input: &mut Reader<'_>) -> Result<(FieldPath, FieldAction), CodecError> {
    let path = input.text()?.parse().map_err(|_| CodecError::Tag)?;
    let (kind, argument) = (input.u8()?, input.u32()?);
    let action = FieldAction::from_numbers(kind, argument).ok_or(CodecError::Tag)?;
    Ok((path, action))
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

/// A topic of this site that the peer of a link does not take.
///
/// ```text
/// link len u32, UTF-8 | topic [u8; 16] | reason u8
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The link, by name.
    pub link: String,
    /// The topic.
    pub topic: TopicId,
    /// Why, as the peer says.
    pub why: Decline,
}

impl Element for Declined {
    type Key = (String, TopicId);
    const SEED: u64 = 23;
    const BYTES_MIN: usize = 21;

    fn key(&self) -> Self::Key {
        (self.link.clone(), self.topic)
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.link);
        out.uuid(self.topic.0);
        out.u8(self.why.number());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (link, topic) = (input.text()?, TopicId(input.uuid()?));
        let why = Decline::from_number(input.u8()?).ok_or(CodecError::Tag)?;
        Ok(Self { link, topic, why })
    }
}

impl Table<Declined> {
    /// What the peer of a link does not take.
    pub fn of_link(&self, link: &str) -> impl Iterator<Item = &Declined> {
        let of = |byte: u8| (link.to_owned(), TopicId(Uuid([byte; 16])));
        self.range(of(0)..=of(u8::MAX))
    }

    /// Forgets everything that the peer of a link does not take.
    pub fn drop_link(&mut self, link: &str) {
        let gone: Vec<_> = self.of_link(link).map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Forgets who does not take a topic that is gone.
    pub fn drop_topic(&mut self, topic: TopicId) {
        let gone = self.iter().filter(|declined| declined.topic == topic);
        let gone: Vec<_> = gone.map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
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

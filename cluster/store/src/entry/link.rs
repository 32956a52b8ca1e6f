//! Operations about links and mirrors, and how their bodies are written.
//!
//! ```text
//! operation    9 v1  set link          name text | expected u64 | who text | there u8 = 1 | paused u8
//!                                      | site text | region text | authority bytes
//!                                      | dials texts | topics texts | cap u64 | connections u8
//!                                      | partitions max u32 | retention bytes max u64, 0 for none
//!                                      or name text | expected u64 | who text | there u8 = 0
//!             10 v1  set rule          topic text | expected u64 | who text | the rule, see `rule.rs`
//!             11 v1  create mirror     topic [u8; 16] | origin [u8; 16] | partitions u32
//!                                      | link text | origin name text | name text | via texts
//!                                      | configs u16 | (key text, value text) per config
//!             12 v1  mirror append     link u64 | topic [u8; 16] | partition u32 | offset u64
//!                                      | tag [u8; 16] | the batch, to the end
//!             13 v1  mirror skip       link u64 | topic [u8; 16] | partition u32 | offset u64
//!                                      | tag [u8; 16] | to u64 | missing
//!             14 v1  peer has          link u64 | topic [u8; 16] | partition u32 | offset u64
//!                                      | tag [u8; 16]
//!             24 v1  align mirror      link u64 | topic [u8; 16] | via texts
//!                                      | configs u16 | (key text, value text) per config
//!             25 v1  peer declines     link u64 | topics u16 | (topic [u8; 16], reason u8) per topic
//!             27 v1  give bond         link u64 | shown u64
//!             28 v1  hear bond         link u64 | number u64
//!             29 v1  peer parted       link u64 | topic [u8; 16] | partition u32
//!             30 v1  put back noticed  link u64 | shown u64
//! text                len u16 | UTF-8
//! texts               count u16 | text per element
//! bytes               len u16 | bytes
//! missing             reason u8 | count u64 | first ms u64 | last ms u64
//! ```
//!
//! `link` is the number of the definition under which the sender acts, so that nothing that was on
//! its way takes effect when the link has another definition, or none. `expected` is the number that a
//! link or a rule has had when its change was thought out: 0 if there was none, 2^64 - 1 if that does
//! not matter. `who` made the change, as the node knew him that took the request. `cap` is in bytes
//! per second, 0 for none.
//!
//! Invariants: as in `operation.rs`.

use super::EntryError;
use super::operation::{
    Batch, Item, PLACE_BYTES, Place, fits_text, put_place, put_text, read_flag, read_place,
    read_text, read_topic, text_bytes,
};
use super::rule::{RuleSecret, fits_rule, put_rule, read_rule, rule_bytes};
use crate::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::Uuid;
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::link::{CopyLimits, Decline, LinkDefinition};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Offset, PartitionIndex, TopicId};

pub(super) const SET_LINK: u8 = 9;
pub(super) const SET_RULE: u8 = 10;
pub(super) const CREATE_MIRROR: u8 = 11;
pub(super) const MIRROR_APPEND: u8 = 12;
pub(super) const MIRROR_SKIP: u8 = 13;
pub(super) const PEER_HAS: u8 = 14;
pub(super) const ALIGN_MIRROR: u8 = 24;
pub(super) const PEER_DECLINES: u8 = 25;
pub(super) const GIVE_BOND: u8 = 27;
pub(super) const HEAR_BOND: u8 = 28;
pub(super) const PEER_PARTED: u8 = 29;
pub(super) const PUT_BACK_NOTICED: u8 = 30;

/// What stands for a number that does not matter: no entry has this index.
const WHATEVER: u64 = u64::MAX;

/// The hash chain of the origin up to an offset, as the origin tells it. Nobody else can compute it.
pub type Tag = [u8; 16];

/// Where in a mirror something goes, under which definition of its link, and what the origin's chain
/// is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorPlace {
    /// The number of the definition.
    pub link: u64,
    /// The topic on this site.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The offset, the same on both sites.
    pub offset: Offset,
    /// The origin's chain.
    pub tag: Tag,
}

/// The copy of a topic of another site that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMirror {
    /// Drawn by the leader.
    pub topic: TopicId,
    /// Its name here.
    pub name: String,
    /// How many partitions the topic has there.
    pub partitions: u32,
    /// Its settings there.
    pub configs: Vec<(String, String)>,
    /// The link that it comes over, by name.
    pub link: String,
    /// The topic at its origin.
    pub origin: TopicId,
    /// Its name at the site that it comes from, which may have it from elsewhere.
    pub origin_name: String,
    /// The sites that it comes through, the one with the origin first, the one that the link leads to last.
    pub via: Vec<String>,
}

/// What a unit does about links and mirrors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOperation {
    /// Defines a link anew, or removes it.
    SetLink {
        /// Its name.
        name: String,
        /// The number that it must have, 0 if there must be none; `None` if that does not matter.
        expected: Option<u64>,
        /// Who made it so.
        who: String,
        /// What it is from now on.
        definition: Option<LinkDefinition>,
    },
    /// Says where the records of a topic may go, and in which form.
    SetRule {
        /// The topic, by name: a rule may be there before it.
        topic: String,
        /// As for a link.
        expected: Option<u64>,
        /// Who made it so.
        who: String,
        /// The rule; one without regions takes it back.
        definition: RuleDefinition,
        /// The key of hashes, drawn by the leader. It counts if the site has never had a rule.
        secret: RuleSecret,
    },
    /// Creates the copy of a topic of another site.
    CreateMirror(NewMirror),
    /// Appends a batch to a mirror. Its first record must have the offset that is next, and the tag
    /// is the one behind its last record.
    MirrorAppend {
        /// Where.
        place: MirrorPlace,
        /// The batch as the origin stores it.
        batch: Batch,
    },
    /// Notes that a mirror will never have the records from an offset, which must be next, to another.
    MirrorSkip {
        /// Where, and the tag behind what is missing.
        place: MirrorPlace,
        /// The offset behind the last missing record.
        to: Offset,
        /// What that is.
        missing: Missing,
    },
    /// Notes how far the peer of a link has a topic of this site.
    PeerHas {
        /// Up to where, and the tag that it holds there.
        place: MirrorPlace,
    },
    /// Makes of a mirror what has changed of its origin since it was made.
    AlignMirror {
        /// The number of the definition of its link.
        link: u64,
        /// The mirror.
        topic: TopicId,
        /// The sites that it comes through now.
        via: Vec<String>,
        /// The settings of its origin, as far as this site honours them.
        configs: Vec<(String, String)>,
    },
    /// Notes which topics of this site the peer of a link does not take, all of them.
    PeerDeclines {
        /// The number of the definition of the link.
        link: u64,
        /// The topics, and why.
        topics: Vec<(TopicId, Decline)>,
    },
    /// Draws the next number that the peer of a link is to be given.
    GiveBond {
        /// The number of the definition of the link.
        link: u64,
        /// The number that the peer has heard last, as it says.
        shown: u64,
    },
    /// Notes the number that the peer of a link has given.
    HearBond {
        /// The number of the definition of the link.
        link: u64,
        /// What it has given.
        number: u64,
    },
    /// Notes that what the peer of a link holds of a partition has another history.
    PeerParted {
        /// The number of the definition of the link.
        link: u64,
        /// The topic.
        topic: TopicId,
        /// Its partition.
        partition: PartitionIndex,
    },
    /// Notes that this site was put back: the peer of a link has heard a number which it has not given.
    PutBackNoticed {
        /// The number of the definition of the link.
        link: u64,
        /// The number that the peer has heard.
        shown: u64,
    },
}

fn configs_bytes(configs: &[(String, String)]) -> usize {
    2 + configs.iter().map(|(key, value)| text_bytes(key) + text_bytes(value)).sum::<usize>()
}

fn fit_configs(configs: &[(String, String)]) -> bool {
    configs.len() <= usize::from(u16::MAX)
        && configs.iter().all(|(key, value)| fits_text(key) && fits_text(value))
}

fn put_configs(out: &mut BytesMut, configs: &[(String, String)]) {
    put_count(out, configs.len());
    for (key, value) in configs {
        put_text(out, key);
        put_text(out, value);
    }
}

fn read_configs(reader: &mut Reader<'_>) -> Option<Vec<(String, String)>> {
    let count = reader.u16()?;
    let mut configs = Vec::new();
    for _ in 0..count {
        configs.push((read_text(reader)?, read_text(reader)?));
    }
    Some(configs)
}

pub(super) fn texts_bytes(texts: &[String]) -> usize {
    2 + texts.iter().map(|text| text_bytes(text)).sum::<usize>()
}

pub(super) fn fit_texts(texts: &[String]) -> bool {
    texts.len() <= usize::from(u16::MAX) && texts.iter().all(|text| fits_text(text))
}

pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u16_le(u16::try_from(count).expect("lengths are checked before encoding"));
}

pub(super) fn put_texts(out: &mut BytesMut, texts: &[String]) {
    put_count(out, texts.len());
    texts.iter().for_each(|text| put_text(out, text));
}

/// Each text takes two bytes at least, so the list grows no faster than what is really there.
pub(super) fn read_texts(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let count = reader.u16()?;
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(read_text(reader)?);
    }
    Some(texts)
}

const MIRROR_PLACE_BYTES: usize = 8 + PLACE_BYTES + 8 + 16;

fn put_mirror_place(out: &mut BytesMut, place: &MirrorPlace) {
    out.put_u64_le(place.link);
    put_place(out, place.topic, place.partition);
    out.put_u64_le(place.offset.0);
    out.put_slice(&place.tag);
}

fn read_mirror_place(reader: &mut Reader<'_>) -> Option<MirrorPlace> {
    let link = reader.u64()?;
    let (topic, partition): Place = read_place(reader)?;
    let offset = Offset(reader.u64()?);
    Some(MirrorPlace { link, topic, partition, offset, tag: reader.array()? })
}

/// A topic that a peer does not take.
const DECLINED_BYTES: usize = 16 + 1;

const MISSING_BYTES: usize = 1 + 3 * 8;

fn put_missing(out: &mut BytesMut, missing: &Missing) {
    out.put_u8(missing.reason.number());
    out.put_u64_le(missing.count);
    out.put_u64_le(missing.first_ms);
    out.put_u64_le(missing.last_ms);
}

fn read_missing(reader: &mut Reader<'_>) -> Option<Missing> {
    let reason = GapReason::from_number(reader.u8()?)?;
    let (count, first_ms, last_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
    Some(Missing { reason, count, first_ms, last_ms })
}

fn put_declines(out: &mut BytesMut, link: u64, topics: &[(TopicId, Decline)]) {
    out.put_u64_le(link);
    put_count(out, topics.len());
    for (topic, why) in topics {
        out.put_slice(&topic.0.0);
        out.put_u8(why.number());
    }
}

impl LinkOperation {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::SetLink { .. } => SET_LINK,
            Self::SetRule { .. } => SET_RULE,
            Self::CreateMirror(_) => CREATE_MIRROR,
            Self::MirrorAppend { .. } => MIRROR_APPEND,
            Self::MirrorSkip { .. } => MIRROR_SKIP,
            Self::PeerHas { .. } => PEER_HAS,
            Self::AlignMirror { .. } => ALIGN_MIRROR,
            Self::PeerDeclines { .. } => PEER_DECLINES,
            Self::GiveBond { .. } => GIVE_BOND,
            Self::HearBond { .. } => HEAR_BOND,
            Self::PeerParted { .. } => PEER_PARTED,
            Self::PutBackNoticed { .. } => PUT_BACK_NOTICED,
        }
    }

    pub(super) fn body_len(&self) -> usize {
        match self {
            Self::SetLink { name, who, definition, .. } => {
                let of = |link: &LinkDefinition| {
                    let texts = texts_bytes(&link.dial) + texts_bytes(&link.take);
                    1 + text_bytes(&link.site)
                        + text_bytes(&link.region)
                        + texts
                        + 2
                        + link.authority.len()
                        + 8
                        + 1
                        + 4
                        + 8
                };
                text_bytes(name) + 8 + text_bytes(who) + 1 + definition.as_ref().map_or(0, of)
            }
            Self::SetRule { topic, who, definition, .. } => {
                text_bytes(topic) + 8 + text_bytes(who) + rule_bytes(definition)
            }
            Self::CreateMirror(NewMirror { name, configs, link, origin_name, via, .. }) => {
                let texts = text_bytes(link) + text_bytes(origin_name) + text_bytes(name);
                16 + 16 + 4 + texts + texts_bytes(via) + configs_bytes(configs)
            }
            Self::MirrorAppend { batch, .. } => MIRROR_PLACE_BYTES + batch.bytes().len(),
            Self::MirrorSkip { .. } => MIRROR_PLACE_BYTES + 8 + MISSING_BYTES,
            Self::PeerHas { .. } => MIRROR_PLACE_BYTES,
            Self::AlignMirror { via, configs, .. } => {
                8 + 16 + texts_bytes(via) + configs_bytes(configs)
            }
            Self::PeerDeclines { topics, .. } => 8 + 2 + topics.len() * DECLINED_BYTES,
            Self::GiveBond { .. } | Self::HearBond { .. } | Self::PutBackNoticed { .. } => 8 + 8,
            Self::PeerParted { .. } => 8 + PLACE_BYTES,
        }
    }

    pub(super) fn is_encodable(&self) -> bool {
        match self {
            Self::SetLink { name, who, definition, .. } => {
                let fits = |link: &LinkDefinition| {
                    fits_text(&link.site)
                        && fits_text(&link.region)
                        && link.authority.len() <= usize::from(u16::MAX)
                        && fit_texts(&link.dial)
                        && fit_texts(&link.take)
                };
                fits_text(name) && fits_text(who) && definition.as_ref().is_none_or(fits)
            }
            Self::SetRule { topic, who, definition, .. } => {
                fits_text(topic) && fits_text(who) && fits_rule(definition)
            }
            Self::CreateMirror(NewMirror { name, configs, link, origin_name, via, .. }) => {
                [name, link, origin_name].into_iter().all(|text| fits_text(text))
                    && fit_texts(via)
                    && fit_configs(configs)
            }
            Self::AlignMirror { via, configs, .. } => fit_texts(via) && fit_configs(configs),
            Self::PeerDeclines { topics, .. } => topics.len() <= usize::from(u16::MAX),
            Self::MirrorAppend { .. }
            | Self::MirrorSkip { .. }
            | Self::PeerHas { .. }
            | Self::GiveBond { .. }
            | Self::HearBond { .. }
            | Self::PeerParted { .. }
            | Self::PutBackNoticed { .. } => true,
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::SetLink { name, expected, who, definition } => {
                put_text(out, name);
                put_expected(out, *expected);
                put_text(out, who);
                out.put_u8(u8::from(definition.is_some()));
                let Some(link) = definition else { return };
                out.put_u8(u8::from(link.paused));
                put_text(out, &link.site);
                put_text(out, &link.region);
                put_count(out, link.authority.len());
                out.put_slice(&link.authority);
                put_texts(out, &link.dial);
                put_texts(out, &link.take);
                out.put_u64_le(link.cap.unwrap_or(0));
                out.put_u8(link.connections);
                out.put_u32_le(link.copies.partitions_max);
                out.put_u64_le(link.copies.retention_bytes_max.unwrap_or(0));
            }
            Self::SetRule { topic, expected, who, definition, secret } => {
                put_text(out, topic);
                put_expected(out, *expected);
                put_text(out, who);
                put_rule(out, definition, secret);
            }
            Self::CreateMirror(new) => {
                out.put_slice(&new.topic.0.0);
                out.put_slice(&new.origin.0.0);
                out.put_u32_le(new.partitions);
                let texts = [&new.link, &new.origin_name, &new.name];
                texts.into_iter().for_each(|text| put_text(out, text));
                put_texts(out, &new.via);
                put_configs(out, &new.configs);
            }
            Self::MirrorAppend { place, batch } => {
                put_mirror_place(out, place);
                out.put_slice(batch.bytes());
            }
            Self::MirrorSkip { place, to, missing } => {
                put_mirror_place(out, place);
                out.put_u64_le(to.0);
                put_missing(out, missing);
            }
            Self::PeerHas { place } => put_mirror_place(out, place),
            Self::AlignMirror { link, topic, via, configs } => {
                out.put_u64_le(*link);
                out.put_slice(&topic.0.0);
                put_texts(out, via);
                put_configs(out, configs);
            }
            Self::PeerDeclines { link, topics } => put_declines(out, *link, topics),
            Self::GiveBond { link, shown: number }
            | Self::HearBond { link, number }
            | Self::PutBackNoticed { link, shown: number } => {
                out.put_u64_le(*link);
                out.put_u64_le(*number);
            }
            Self::PeerParted { link, topic, partition } => {
                out.put_u64_le(*link);
                put_place(out, *topic, *partition);
            }
        }
    }

    /// Reads the body of an operation of version 1.
    pub(super) fn decode(payload: &Bytes, kind: u8, item: &Item) -> Result<Self, EntryError> {
        match kind {
            SET_LINK => item.whole(payload, "a link", read_set_link),
            SET_RULE => item.whole(payload, "a rule", |reader| {
                let (topic, expected) = (read_text(reader)?, read_expected(reader)?);
                let who = read_text(reader)?;
                let (definition, secret) = read_rule(reader)?;
                Some(Self::SetRule { topic, expected, who, definition, secret })
            }),
            CREATE_MIRROR => item.whole(payload, "a new mirror", read_create_mirror),
            MIRROR_APPEND => {
                let (place, batch) = item.before_batch(payload, read_mirror_place)?;
                Ok(Self::MirrorAppend { place, batch })
            }
            MIRROR_SKIP => item.whole(payload, "a gap", |reader| {
                let place = read_mirror_place(reader)?;
                let to = Offset(reader.u64()?);
                Some(Self::MirrorSkip { place, to, missing: read_missing(reader)? })
            }),
            PEER_HAS => item.whole(payload, "the progress of a peer", |reader| {
                Some(Self::PeerHas { place: read_mirror_place(reader)? })
            }),
            ALIGN_MIRROR => item.whole(payload, "what a mirror is to be", |reader| {
                let (link, topic) = (reader.u64()?, read_topic(reader)?);
                let via = read_texts(reader)?;
                Some(Self::AlignMirror { link, topic, via, configs: read_configs(reader)? })
            }),
            PEER_DECLINES => item.whole(payload, "what a peer does not take", read_declines),
            GIVE_BOND => item.whole(payload, "a bond to give", |reader| {
                Some(Self::GiveBond { link: reader.u64()?, shown: reader.u64()? })
            }),
            HEAR_BOND => item.whole(payload, "a bond that was given", |reader| {
                Some(Self::HearBond { link: reader.u64()?, number: reader.u64()? })
            }),
            PUT_BACK_NOTICED => item.whole(payload, "a site that was put back", |reader| {
                Some(Self::PutBackNoticed { link: reader.u64()?, shown: reader.u64()? })
            }),
            PEER_PARTED => item.whole(payload, "a fork", |reader| {
                let link = reader.u64()?;
                let (topic, partition): Place = read_place(reader)?;
                Some(Self::PeerParted { link, topic, partition })
            }),
            _ => Err(item.unknown()),
        }
    }
}

pub(super) fn put_expected(out: &mut BytesMut, expected: Option<u64>) {
    out.put_u64_le(expected.unwrap_or(WHATEVER));
}

pub(super) fn read_expected(reader: &mut Reader<'_>) -> Option<Option<u64>> {
    let number = reader.u64()?;
    Some((number != WHATEVER).then_some(number))
}

fn read_set_link(reader: &mut Reader<'_>) -> Option<LinkOperation> {
    let (name, expected) = (read_text(reader)?, read_expected(reader)?);
    let who = read_text(reader)?;
    if !read_flag(reader)? {
        return Some(LinkOperation::SetLink { name, expected, who, definition: None });
    }
    let paused = read_flag(reader)?;
    let site = read_text(reader)?;
    let region = read_text(reader)?;
    let len = usize::from(reader.u16()?);
    let authority = reader.take(len)?.to_vec();
    let dial = read_texts(reader)?;
    let take = read_texts(reader)?;
    let cap = Some(reader.u64()?).filter(|cap| *cap > 0);
    let connections = reader.u8()?;
    let partitions_max = reader.u32()?;
    let retention_bytes_max = Some(reader.u64()?).filter(|bytes| *bytes > 0);
    let copies = CopyLimits { partitions_max, retention_bytes_max };
    let definition =
        LinkDefinition { site, region, authority, dial, take, paused, cap, connections, copies };
    Some(LinkOperation::SetLink { name, expected, who, definition: Some(definition) })
}

fn read_create_mirror(reader: &mut Reader<'_>) -> Option<LinkOperation> {
    let topic = read_topic(reader)?;
    let origin = TopicId(Uuid(reader.array()?));
    let partitions = reader.u32()?;
    let (link, origin_name, name) = (read_text(reader)?, read_text(reader)?, read_text(reader)?);
    let via = read_texts(reader)?;
    let configs = read_configs(reader)?;
    let new = NewMirror { topic, name, partitions, configs, link, origin, origin_name, via };
    Some(LinkOperation::CreateMirror(new))
}

fn read_declines(reader: &mut Reader<'_>) -> Option<LinkOperation> {
    let link = reader.u64()?;
    let count = reader.u16()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push((read_topic(reader)?, Decline::from_number(reader.u8()?)?));
    }
    Some(LinkOperation::PeerDeclines { link, topics })
}

//! What the two ends of a link say to each other.
//!
//! ```text
//! kind  message    fields
//!    1  hello      magic [u8; 4] | version u16 | site text | node u64 | to text
//!                  | session [u8; 16] | stripe u8 | batch bytes u32 | heard u64
//!    2  welcome    node u64 | session [u8; 16] | connections u8 | batch bytes u32 | heard u64
//!    3  refused    reason u8
//!    4  offer      topics u32 | per topic: id [u8; 16], origin [u8; 16], name text, partitions u32,
//!                  via u32 of text, settings u32 of (key text, value text)
//!    5  take       topic [u8; 16] | partition u32 | offset u64 | tag [u8; 16]
//!    6  batch      topic [u8; 16] | partition u32 | offset u64 | tag [u8; 16] | the batch, to the end
//!    7  gap        topic [u8; 16] | partition u32 | offset u64 | tag [u8; 16] | to u64 | missing
//!    8  fork       topic [u8; 16] | partition u32 | offset u64
//!    9  room       priority u8 | bytes u32
//!   10  has        topic [u8; 16] | partition u32 | offset u64 | tag [u8; 16]
//!   11  declines   topics u32 | per topic: id [u8; 16], reason u8
//!   12  stuck      topic [u8; 16] | partition u32
//!   13  bond       number u64
//! text             len u32, UTF-8
//! missing          reason u8 | count u64 | first ms u64 | last ms u64
//! ```
//!
//! Topics are named by the id that they have at the site that gives; `origin` is the one that they have
//! where they come from, and `via` the sites that they have come through, the origin first, nothing for a
//! topic of the site itself. All numbers are little-endian. A session
//! of zeros in a hello begins one; another one joins it as one of its stripes. A priority is 0 urgent,
//! 1 normal, 2 bulk. `batch bytes` are those of the largest batch that the side takes which says so.
//! `heard` is the number of the last bond that came from the other side, 0 if none did.
//!
//! Invariants: decoding is total, takes nothing on trust, and accepts one encoding of every message; a name
//! that is read is one that a topic can have, an offer names no topic and no name twice, other texts are short and without control characters, and an
//! offset is far from the end of the numbers.

use bytes::Bytes;
use fulmar_broker::machine::bonds::BOND_MAX;
use fulmar_broker::machine::codec::{CodecError, Reader, Writer};
use fulmar_broker::machine::topics::{TOPIC_CONFIGS_MAX, is_valid_name};
use fulmar_host::net::Distrust;
use fulmar_store::entry::Tag;
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::link::{
    Decline, LINK_CONNECTIONS_MAX, LINK_OFFSET_MAX, LINK_TEXT_BYTES_MAX, Priority, VIA_MAX,
};
use fulmar_types::{NodeId, Offset, PartitionIndex, TopicId};
use std::collections::BTreeSet;

/// How a link begins.
pub const MAGIC: [u8; 4] = *b"FLMK";

/// The version of everything in this file.
pub const VERSION: u16 = 6;

/// The longest hello.
pub const GREETING_BYTES_MAX: usize = 1_024;

/// Topics of one offer, at most.
pub const OFFERED_MAX: usize = 16_384;

/// Bytes of one offer, at most: it fits into a frame with what may stand before it there.
pub const OFFER_BYTES_MAX: usize = 6 << 20;

/// Messages of one frame, at most.
pub const MESSAGES_MAX: usize = 1_024;

/// What a session is known by. Nobody can guess it; it is said to nobody but the other side.
pub type SessionId = [u8; 16];

/// In a hello: one that is to begin.
pub const NEW_SESSION: SessionId = [0; 16];

/// A partition of a topic at the site that gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
}

/// A place in a partition, and the origin's tag there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The offset.
    pub offset: Offset,
    /// The hash chain of the origin before it.
    pub tag: Tag,
}

/// Why a link was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another version of what is spoken here.
    Version,
    /// The node does not lead its site; another one may.
    NotLeader,
    /// The site has no link to the one that calls.
    UnknownSite,
    /// The one who calls wants another site.
    OtherSite,
    /// The link is paused.
    Paused,
    /// There is no such session here, or not with this node.
    NoSession,
    /// The one who says this was put back to an older copy of itself: the other one has heard more of it than it knows.
    PutBack,
    /// What the other side showed does not prove that it is who it says.
    Distrusted(Distrust),
}

impl Refusal {
    fn all() -> impl Iterator<Item = Self> {
        [Self::Version, Self::NotLeader, Self::UnknownSite, Self::OtherSite, Self::Paused]
            .into_iter()
            .chain([Self::NoSession, Self::PutBack])
            .chain(Distrust::ALL.map(Self::Distrusted))
    }

    /// Its name, for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "other-version",
            Self::NotLeader => "not-leader",
            Self::UnknownSite => "unknown-site",
            Self::OtherSite => "other-site",
            Self::Paused => "paused",
            Self::NoSession => "no-session",
            Self::PutBack => "put-back",
            Self::Distrusted(distrust) => distrust.name(),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::NotLeader => 2,
            Self::UnknownSite => 3,
            Self::OtherSite => 4,
            Self::Paused => 5,
            Self::Distrusted(Distrust::OtherAuthority) => 6,
            Self::Distrusted(Distrust::Expired) => 7,
            Self::Distrusted(Distrust::NotYetValid) => 8,
            Self::Distrusted(Distrust::OtherUse) => 9,
            Self::Distrusted(Distrust::OtherNode) => 10,
            Self::Distrusted(Distrust::Missing) => 11,
            Self::Distrusted(Distrust::Malformed) => 12,
            Self::NoSession => 13,
            Self::PutBack => 14,
        }
    }
}

/// The first words of whoever dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that is spoken.
    pub version: u16,
    /// The site that calls.
    pub site: String,
    /// Its node.
    pub node: NodeId,
    /// The site that is called.
    pub to: String,
    /// The session that this is to be a connection of, or [`NEW_SESSION`].
    pub session: SessionId,
    /// Which of its connections; 0 for the one that begins it.
    pub stripe: u8,
    /// The bytes of the largest batch that the site takes.
    pub batch_bytes: u32,
    /// The number of the last bond that it has heard.
    pub heard: u64,
}

/// A topic that may go to the other site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its id at the site that gives.
    pub topic: TopicId,
    /// Its id at its origin.
    pub origin: TopicId,
    /// Its name at the site that gives.
    pub name: String,
    /// The sites that it has come through, its origin first; none if it is of the site that gives.
    pub via: Vec<String>,
    /// How many partitions it has.
    pub partitions: u32,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who dials.
    Hello(Hello),
    /// Come in.
    Welcome {
        /// The node that was reached.
        node: NodeId,
        /// The session that began, or was joined.
        session: SessionId,
        /// How many connections it may have, as far as the side that was reached is concerned.
        connections: u8,
        /// The bytes of the largest batch that the site takes.
        batch_bytes: u32,
        /// The number of the last bond that it has heard.
        heard: u64,
    },
    /// No.
    Refused(Refusal),
    /// All topics that may go to the other site now. What is missing may not any more.
    Offer(Vec<Offered>),
    /// Asks for everything from a place on.
    Take(Part, Mark),
    /// A batch. The offset is that of its first record, the tag the one behind its last.
    Batch(Part, Mark, Bytes),
    /// Nothing more will come from the offset to another; the tag is the one there.
    Gap {
        /// The partition.
        part: Part,
        /// The first missing offset, and the tag behind the last.
        mark: Mark,
        /// The offset behind the last missing one.
        to: Offset,
        /// What that is.
        missing: Missing,
    },
    /// What was asked for with [`Message::Take`] does not go on from what this site has.
    Fork(Part, Offset),
    /// So many bytes of batches of a priority more may be sent.
    Room(Priority, u32),
    /// Everything before a place is committed here.
    Has(Part, Mark),
    /// What of the last offer this side does not take, and will not while nobody changes that; all of it.
    Declines(Vec<(TopicId, Decline)>),
    /// A batch of a partition came that this side cannot take: nothing more of it is of use in this session.
    Stuck(Part),
    /// The number by which this side is known from now on. It is in the log of this side.
    Bond(u64),
}

fn put_part(out: &mut Writer, part: &Part) {
    out.uuid(part.topic.0);
    out.u32(part.partition.0);
}

fn put_mark(out: &mut Writer, mark: &Mark) {
    out.u64(mark.offset.0);
    out.raw(&mark.tag);
}

fn part(input: &mut Reader<'_>) -> Result<Part, CodecError> {
    Ok(Part { topic: TopicId(input.uuid()?), partition: PartitionIndex(input.u32()?) })
}

fn offset(input: &mut Reader<'_>) -> Result<Offset, CodecError> {
    let offset = input.u64()?;
    if offset <= LINK_OFFSET_MAX { Ok(Offset(offset)) } else { Err(CodecError::Tag) }
}

fn bond(input: &mut Reader<'_>) -> Result<u64, CodecError> {
    let number = input.u64()?;
    if number <= BOND_MAX { Ok(number) } else { Err(CodecError::Tag) }
}

fn mark(input: &mut Reader<'_>) -> Result<Mark, CodecError> {
    Ok(Mark { offset: offset(input)?, tag: input.array()? })
}

fn put_missing(out: &mut Writer, missing: &Missing) {
    out.u8(missing.reason.number());
    out.u64(missing.count);
    out.u64(missing.first_ms);
    out.u64(missing.last_ms);
}

fn missing(input: &mut Reader<'_>) -> Result<Missing, CodecError> {
    let reason = GapReason::from_number(input.u8()?).ok_or(CodecError::Tag)?;
    let (count, first_ms, last_ms) = (input.u64()?, input.u64()?, input.u64()?);
    Ok(Missing { reason, count, first_ms, last_ms })
}

/// What is told to people, and kept: short, and nothing that a terminal obeys.
fn short_text(input: &mut Reader<'_>) -> Result<String, CodecError> {
    let text = input.text()?;
    let is_plain = text.len() <= LINK_TEXT_BYTES_MAX && !text.contains(char::is_control);
    if is_plain { Ok(text) } else { Err(CodecError::Tag) }
}

fn topic_name(input: &mut Reader<'_>) -> Result<String, CodecError> {
    let name = input.text()?;
    if is_valid_name(&name) { Ok(name) } else { Err(CodecError::Tag) }
}

/// What a message, and each thing in it, takes in memory beside its bytes.
const HELD_BYTES: usize = 128;

/// The bytes of a text.
const fn text_bytes(text: &str) -> usize {
    4 + text.len()
}

impl Offered {
    /// The bytes of it in an offer.
    fn bytes(&self) -> usize {
        let via: usize = self.via.iter().map(|site| text_bytes(site)).sum();
        let configs = self.configs.iter();
        let configs: usize = configs.map(|(key, value)| text_bytes(key) + text_bytes(value)).sum();
        2 * size_of::<TopicId>() + text_bytes(&self.name) + 3 * size_of::<u32>() + via + configs
    }

    fn held_bytes(&self) -> usize {
        let texts = self.configs.iter().flat_map(|(key, value)| [key, value]).chain(&self.via);
        HELD_BYTES + self.name.len() + texts.map(|text| 32 + text.len()).sum::<usize>()
    }
}

/// As many topics as one offer holds, from the first on, and whether there are more.
pub fn fitting(topics: impl Iterator<Item = Offered>) -> (Vec<Offered>, bool) {
    let (mut fit, mut bytes) = (Vec::new(), size_of::<u32>());
    for topic in topics {
        bytes += topic.bytes();
        if fit.len() == OFFERED_MAX || bytes > OFFER_BYTES_MAX {
            return (fit, true);
        }
        fit.push(topic);
    }
    (fit, false)
}

impl Message {
    /// Whose records it has, and their bytes, if it has some.
    pub fn records(&self) -> Option<(Part, usize)> {
        match self {
            Self::Batch(part, _, bytes) => Some((*part, bytes.len())),
            _ => None,
        }
    }

    /// About what it takes in memory, whatever it says.
    pub fn held_bytes(&self) -> usize {
        let more = match self {
            Self::Batch(_, _, bytes) => bytes.len(),
            Self::Offer(topics) => topics.iter().map(Offered::held_bytes).sum(),
            Self::Declines(topics) => topics.len() * size_of::<(TopicId, Decline)>(),
            _ => 0,
        };
        HELD_BYTES + more
    }

    /// Its number.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome { .. } => 2,
            Self::Refused(_) => 3,
            Self::Offer(_) => 4,
            Self::Take(..) => 5,
            Self::Batch(..) => 6,
            Self::Gap { .. } => 7,
            Self::Fork(..) => 8,
            Self::Room(..) => 9,
            Self::Has(..) => 10,
            Self::Declines(_) => 11,
            Self::Stuck(_) => 12,
            Self::Bond(_) => 13,
        }
    }

    /// Its fields but for the bytes of a batch, which stand behind them.
    pub fn encode(&self) -> (Bytes, Option<&Bytes>) {
        let mut out = Writer::new();
        let mut batch = None;
        match self {
            Self::Hello(hello) => {
                out.raw(&MAGIC);
                out.u16(hello.version);
                out.text(&hello.site);
                out.u64(hello.node.0);
                out.text(&hello.to);
                out.raw(&hello.session);
                out.u8(hello.stripe);
                out.u32(hello.batch_bytes);
                out.u64(hello.heard);
            }
            Self::Welcome { node, session, connections, batch_bytes, heard } => {
                out.u64(node.0);
                out.raw(session);
                out.u8(*connections);
                out.u32(*batch_bytes);
                out.u64(*heard);
            }
            Self::Refused(reason) => out.u8(reason.number()),
            Self::Offer(topics) => {
                out.count(topics.len());
                topics.iter().for_each(|topic| put_offered(&mut out, topic));
            }
            Self::Take(part, mark) | Self::Has(part, mark) => {
                put_part(&mut out, part);
                put_mark(&mut out, mark);
            }
            Self::Batch(part, mark, bytes) => {
                put_part(&mut out, part);
                put_mark(&mut out, mark);
                batch = Some(bytes);
            }
            Self::Gap { part, mark, to, missing } => {
                put_part(&mut out, part);
                put_mark(&mut out, mark);
                out.u64(to.0);
                put_missing(&mut out, missing);
            }
            Self::Fork(part, offset) => {
                put_part(&mut out, part);
                out.u64(offset.0);
            }
            Self::Declines(topics) => {
                out.count(topics.len());
                for (topic, why) in topics {
                    out.uuid(topic.0);
                    out.u8(why.number());
                }
            }
            Self::Stuck(part) => put_part(&mut out, part),
            Self::Bond(number) => out.u64(*number),
            Self::Room(lane, bytes) => {
                out.u8(priority_number(*lane));
                out.u32(*bytes);
            }
        }
        (out.finish(), batch)
    }

    /// Reads a message of a kind.
    ///
    /// # Errors
    /// If the bytes are not one.
    pub fn decode(kind: u8, bytes: &Bytes) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes);
        let message = match kind {
            1 => Self::Hello(hello(&mut input)?),
            2 => Self::Welcome {
                node: NodeId(input.u64()?),
                session: input.array()?,
                connections: connections(&mut input)?,
                batch_bytes: input.u32()?,
                heard: bond(&mut input)?,
            },
            3 => {
                let number = input.u8()?;
                let reason = Refusal::all().find(|reason| reason.number() == number);
                Self::Refused(reason.ok_or(CodecError::Tag)?)
            }
            4 => Self::Offer(offer(&mut input)?),
            5 => Self::Take(part(&mut input)?, mark(&mut input)?),
            6 => {
                let (part, mark) = (part(&mut input)?, mark(&mut input)?);
                return Ok(Self::Batch(part, mark, bytes.slice(bytes.len() - input.left()..)));
            }
            7 => {
                let (part, mark) = (part(&mut input)?, mark(&mut input)?);
                let to = offset(&mut input)?;
                Self::Gap { part, mark, to, missing: missing(&mut input)? }
            }
            8 => Self::Fork(part(&mut input)?, offset(&mut input)?),
            9 => Self::Room(priority(input.u8()?)?, input.u32()?),
            10 => Self::Has(part(&mut input)?, mark(&mut input)?),
            11 => Self::Declines(declines(&mut input)?),
            12 => Self::Stuck(part(&mut input)?),
            13 => Self::Bond(bond(&mut input)?),
            _ => return Err(CodecError::Tag),
        };
        input.end()?;
        Ok(message)
    }
}

/// The number of a priority.
pub fn priority_number(priority: Priority) -> u8 {
    u8::try_from(priority.rank()).unwrap_or(u8::MAX)
}

/// The priority of a number.
///
/// # Errors
/// If there is none.
pub fn priority(number: u8) -> Result<Priority, CodecError> {
    Priority::ALL.get(usize::from(number)).copied().ok_or(CodecError::Tag)
}

fn connections(input: &mut Reader<'_>) -> Result<u8, CodecError> {
    let connections = input.u8()?;
    let is_one = (1..=LINK_CONNECTIONS_MAX).contains(&connections);
    if is_one { Ok(connections) } else { Err(CodecError::Tag) }
}

fn hello(input: &mut Reader<'_>) -> Result<Hello, CodecError> {
    if input.array::<4>()? != MAGIC {
        return Err(CodecError::Tag);
    }
    Ok(Hello {
        version: input.u16()?,
        site: short_text(input)?,
        node: NodeId(input.u64()?),
        to: short_text(input)?,
        session: input.array()?,
        stripe: input.u8()?,
        batch_bytes: input.u32()?,
        heard: bond(input)?,
    })
}

fn put_offered(out: &mut Writer, topic: &Offered) {
    out.uuid(topic.topic.0);
    out.uuid(topic.origin.0);
    out.text(&topic.name);
    out.u32(topic.partitions);
    out.count(topic.via.len());
    topic.via.iter().for_each(|site| out.text(site));
    out.count(topic.configs.len());
    for (key, value) in &topic.configs {
        out.text(key);
        out.text(value);
    }
}

fn offer(input: &mut Reader<'_>) -> Result<Vec<Offered>, CodecError> {
    let count = input.count(48)?;
    if count > OFFERED_MAX {
        return Err(CodecError::Tag);
    }
    let mut topics = Vec::with_capacity(count);
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..count {
        let topic = TopicId(input.uuid()?);
        let origin = TopicId(input.uuid()?);
        let name = topic_name(input)?;
        // A site has each once. What is made of one, and said of it, is so for each.
        if !ids.insert(topic) || !names.insert(name.clone()) {
            return Err(CodecError::Tag);
        }
        let partitions = input.u32()?;
        let sites = input.count(4)?;
        if sites > VIA_MAX {
            return Err(CodecError::Tag);
        }
        let via = (0..sites).map(|_| short_text(input)).collect::<Result<_, _>>()?;
        let settings = input.count(8)?;
        if settings > TOPIC_CONFIGS_MAX {
            return Err(CodecError::Tag);
        }
        let pairs = (0..settings).map(|_| Ok((short_text(input)?, short_text(input)?)));
        let configs = pairs.collect::<Result<Vec<_>, CodecError>>()?;
        topics.push(Offered { topic, origin, name, via, partitions, configs });
    }
    Ok(topics)
}

fn declines(input: &mut Reader<'_>) -> Result<Vec<(TopicId, Decline)>, CodecError> {
    let count = input.count(17)?;
    if count > OFFERED_MAX {
        return Err(CodecError::Tag);
    }
    let one = |_| {
        let topic = TopicId(input.uuid()?);
        Ok((topic, Decline::from_number(input.u8()?).ok_or(CodecError::Tag)?))
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
mod tests;

//! Copies of topics of other sites: what they are copies of, how far they have come, and what they
//! will never have.
//!
//! Invariants: a mirror has the offsets of its origin; how far it has come is the next offset of its
//! partition, so progress and records cannot part; the tag belongs to that offset; what is missing
//! below it is a gap.
//!
//! Never: append to a mirror what its link did not bring.

use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use fulmar_store::StreamId;
use fulmar_store::entry::Tag;
use fulmar_types::link::GapReason;
use fulmar_types::{Offset, TopicId};

/// Gaps of one partition that are told apart, at most. Beyond that the two oldest become one, which
/// spans what lies between them.
pub const GAPS_PER_PARTITION_MAX: usize = 64;

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

/// Offsets that a mirror will never have.
///
/// ```text
/// stream u32 | first u64 | end u64 | reason u8 | age ms u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub stream: StreamId,
    /// The first missing offset.
    pub first: Offset,
    /// The offset behind the last one.
    pub end: Offset,
    /// Why.
    pub reason: GapReason,
    /// The age of this site when it learnt that, in milliseconds.
    pub age_ms: u64,
}

impl Element for Gap {
    type Key = (StreamId, Offset);
    const SEED: u64 = 12;
    const BYTES_MIN: usize = 29;

    fn key(&self) -> Self::Key {
        (self.stream, self.first)
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.u64(self.first.0);
        out.u64(self.end.0);
        out.u8(self.reason.number());
        out.u64(self.age_ms);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let stream = StreamId(input.u32()?);
        let (first, end) = (Offset(input.u64()?), Offset(input.u64()?));
        let reason = GapReason::from_number(input.u8()?).ok_or(CodecError::Tag)?;
        if first >= end {
            return Err(CodecError::Tag);
        }
        Ok(Self { stream, first, end, reason, age_ms: input.u64()? })
    }
}

impl Table<Gap> {
    /// The gaps of a partition, oldest first.
    pub fn of_stream(&self, stream: StreamId) -> impl DoubleEndedIterator<Item = &Gap> {
        self.range((stream, Offset(0))..=(stream, Offset(u64::MAX)))
    }

    /// Takes note of a gap behind all others. One that goes on where the last one ends, for the same
    /// reason, makes it longer.
    pub fn skipped(&mut self, gap: Gap) {
        let last = self.of_stream(gap.stream).next_back().copied();
        match last.filter(|last| last.end == gap.first && last.reason == gap.reason) {
            Some(last) => drop(self.put(Gap { end: gap.end, age_ms: gap.age_ms, ..last })),
            None => drop(self.put(gap)),
        }
        while self.of_stream(gap.stream).count() > GAPS_PER_PARTITION_MAX {
            let oldest: Vec<Gap> = self.of_stream(gap.stream).take(2).copied().collect();
            let (first, second) = (oldest[0], oldest[1]);
            self.remove(&second.key());
            self.put(Gap { end: second.end, ..first });
        }
    }

    /// Forgets a partition.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let gone: Vec<_> = self.of_stream(stream).map(Element::key).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, end: u64) -> Gap {
        let (first, end) = (Offset(first), Offset(end));
        Gap { stream: StreamId(1), first, end, reason: GapReason::Expired, age_ms: end.0 }
    }

    #[test]
    fn neighbouring_gaps_are_one_and_there_are_never_too_many() {
        let mut gaps = Table::default();
        gaps.skipped(gap(0, 5));
        gaps.skipped(gap(5, 9));
        assert_eq!(gaps.iter().map(|gap| (gap.first.0, gap.end.0)).collect::<Vec<_>>(), [(0, 9)]);
        for at in 1..=GAPS_PER_PARTITION_MAX as u64 {
            gaps.skipped(gap(at * 10, at * 10 + 1));
        }
        assert_eq!(gaps.len(), GAPS_PER_PARTITION_MAX);
        let oldest = gaps.iter().next().expect("there are gaps");
        assert_eq!((oldest.first.0, oldest.end.0), (0, 11), "the two oldest became one");
    }
}

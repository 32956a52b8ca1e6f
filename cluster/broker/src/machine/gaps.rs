//! Gap markers: which records of a partition are missing, and why.
//!
//! On a mirror they say what it will never have. On the site with the origin they say what went
//! before some other site was known to have it, and what was not kept in the first place.
//!
//! Invariants: the markers of a partition do not overlap, and end where it ends at the latest; their
//! number is bounded; a marker counts at least one record and at most as many as it has offsets, and
//! no count is lost when markers are put together.

use super::codec::{CodecError, Reader, Writer};
use super::table::{Element, Table};
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_store::entry::Tag;
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::{Offset, Plant};

/// Markers of one partition, at most.
pub const GAPS_PER_PARTITION_MAX: usize = 64;

/// Markers that a partition may have however many others there are.
const GAPS_PER_PARTITION_MIN: usize = 8;

/// Markers of a site, about, at some hundred bytes each.
const GAPS_PER_SITE: usize = 65_536;

/// Markers that a partition of a site with so many of them may have. Beyond that two neighbours become
/// one, which spans what lies between them: see [`Table::bound`].
pub fn gaps_max(partitions: usize) -> usize {
    (GAPS_PER_SITE / partitions.max(1)).clamp(GAPS_PER_PARTITION_MIN, GAPS_PER_PARTITION_MAX)
}

/// A marker.
///
/// ```text
/// stream u32 | first u64 | end u64 | reason u8 | count u64 | first ms u64 | last ms u64
/// | tag [u8; 16] | age ms u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub stream: StreamId,
    /// The first missing offset.
    pub first: Offset,
    /// The offset behind the last one.
    pub end: Offset,
    /// What is missing.
    pub missing: Missing,
    /// The hash chain of the partition at `end`.
    pub tag: Tag,
    /// The age of this site when it learnt that, in milliseconds.
    pub age_ms: u64,
}

impl Gap {
    /// This one and a later one as one, which spans what lies between them.
    fn with(&self, later: &Self) -> Self {
        assert!(self.end <= later.first, "markers do not overlap");
        Self {
            first: self.first,
            missing: self.missing.with(&later.missing),
            age_ms: self.age_ms.max(later.age_ms),
            ..*later
        }
    }

    /// How much is lost where this one and its later neighbour become one. What a rule withholds is still where it
    /// came from, and may come again and again, so it is not to cost the reason and the place of what is lost for
    /// good: as long as less than half of the markers are losses, two withheld ones are neighbours.
    fn loss_with(&self, later: &Self) -> u8 {
        match (self.missing.reason, later.missing.reason) {
            _ if planted(Plant::MarkersMergedBlindly) => 0,
            (GapReason::Withheld, GapReason::Withheld) => 0,
            (one, other) if one == other => 1,
            _ => 2,
        }
    }

    /// Whether a later one is a part of the same.
    fn goes_on_with(&self, later: &Self) -> bool {
        self.end == later.first && self.missing.reason == later.missing.reason
    }
}

impl Element for Gap {
    type Key = (StreamId, Offset);
    const SEED: u64 = 12;
    const BYTES_MIN: usize = 69;

    fn key(&self) -> Self::Key {
        (self.stream, self.first)
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.stream.0);
        out.u64(self.first.0);
        out.u64(self.end.0);
        out.u8(self.missing.reason.number());
        out.u64(self.missing.count);
        out.u64(self.missing.first_ms);
        out.u64(self.missing.last_ms);
        out.raw(&self.tag);
        out.u64(self.age_ms);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let stream = StreamId(input.u32()?);
        let (first, end) = (Offset(input.u64()?), Offset(input.u64()?));
        let reason = GapReason::from_number(input.u8()?).ok_or(CodecError::Tag)?;
        let (count, first_ms, last_ms) = (input.u64()?, input.u64()?, input.u64()?);
        let missing = Missing { reason, count, first_ms, last_ms };
        if !missing.fits(first, end) {
            return Err(CodecError::Tag);
        }
        Ok(Self { stream, first, end, missing, tag: input.array()?, age_ms: input.u64()? })
    }
}

impl Table<Gap> {
    /// The markers of a partition, oldest first.
    pub fn of_stream(&self, stream: StreamId) -> impl DoubleEndedIterator<Item = &Gap> {
        self.range((stream, Offset(0))..=(stream, Offset(u64::MAX)))
    }

    /// The marker that spans an offset.
    pub fn at(&self, stream: StreamId, offset: Offset) -> Option<&Gap> {
        let last = self.range((stream, Offset(0))..=(stream, offset)).next_back();
        last.filter(|gap| gap.end > offset)
    }

    /// The first marker behind an offset.
    pub fn behind(&self, stream: StreamId, offset: Offset) -> Option<&Gap> {
        self.range((stream, offset)..=(stream, Offset(u64::MAX))).next()
    }

    /// The parts of a range of offsets that no marker spans, oldest first.
    pub fn unmarked(&self, stream: StreamId, from: Offset, to: Offset) -> Vec<(Offset, Offset)> {
        let (mut parts, mut at) = (Vec::new(), from);
        while at < to {
            if let Some(gap) = self.at(stream, at) {
                at = gap.end;
                continue;
            }
            let end = self.behind(stream, at).map_or(to, |gap| gap.first.min(to));
            parts.push((at, end));
            at = end;
        }
        parts
    }

    /// Notes a marker that overlaps no other. It becomes one with its neighbours if it goes on where
    /// they end, or the other way round, for the same reason. [`Self::bound`] has to follow.
    pub fn add(&mut self, gap: Gap) {
        assert!(gap.missing.fits(gap.first, gap.end), "a marker counts what it spans: {gap:?}");
        let (stream, mut gap) = (gap.stream, gap);
        let earlier = self.range((stream, Offset(0))..=(stream, gap.first)).next_back().copied();
        let later = self.behind(stream, gap.first).copied();
        assert!(later.is_none_or(|later| gap.end <= later.first), "markers do not overlap");
        if let Some(later) = later.filter(|later| gap.goes_on_with(later)) {
            self.remove(&later.key());
            gap = gap.with(&later);
        }
        if let Some(earlier) = earlier {
            assert!(earlier.end <= gap.first, "markers do not overlap");
            if earlier.goes_on_with(&gap) {
                gap = earlier.with(&gap);
            }
        }
        self.put(gap);
    }

    /// As long as a partition has more markers than `most`, two neighbours become one: the oldest of which both are
    /// withheld, or else of which both have one reason, or else the oldest. It spans what lies between them, so
    /// what was found to be [unmarked](Self::unmarked) before may not be any more.
    pub fn bound(&mut self, stream: StreamId, most: usize) {
        while self.of_stream(stream).count() > most.max(1) {
            let pairs = self.of_stream(stream).zip(self.of_stream(stream).skip(1));
            let pair = pairs.min_by_key(|(one, other)| one.loss_with(other));
            let (first, second) = pair.map(|(one, other)| (*one, *other)).expect("there are two");
            self.remove(&second.key());
            self.put(first.with(&second));
        }
    }

    /// Notes a marker that overlaps no other, within the bound.
    pub fn note(&mut self, gap: Gap, most: usize) {
        self.add(gap);
        self.bound(gap.stream, most);
    }

    /// Records of a range go that some site lacks: those that markers span without counting them, since
    /// they were still there, are counted from now on. Returns how many. Where only a part of what a marker
    /// spans goes, it is not known which of its records those are, so at most as many as may be are counted;
    /// once all of it has gone, the count is what it spans.
    pub fn count_spanned(
        &mut self,
        stream: StreamId,
        (from, to): (Offset, Offset),
        missing: Missing,
    ) -> u64 {
        let spanning = self.of_stream(stream).filter(|gap| gap.end > from && gap.first < to);
        let spanning: Vec<Gap> = spanning.copied().collect();
        let mut counted = 0;
        for gap in spanning {
            let kept = gap.end.0 - gap.first.0 - gap.missing.count;
            let count = kept.min(gap.end.min(to).0 - gap.first.max(from).0);
            if count > 0 {
                counted += count;
                let missing = gap.missing.with(&Missing { count, ..missing });
                self.put(Gap { missing, ..gap });
            }
        }
        counted
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
    use proptest::prelude::*;

    const STREAM: StreamId = StreamId(1);

    fn gap(first: u64, end: u64, reason: GapReason) -> Gap {
        let missing = Missing { reason, count: end - first, first_ms: first + 1, last_ms: end };
        let (first, end) = (Offset(first), Offset(end));
        Gap { stream: STREAM, first, end, missing, tag: [end.0 as u8; 16], age_ms: end.0 }
    }

    fn expired(first: u64, end: u64) -> Gap {
        gap(first, end, GapReason::Expired)
    }

    fn shown(gaps: &Table<Gap>) -> Vec<(u64, u64, u64)> {
        gaps.of_stream(STREAM).map(|gap| (gap.first.0, gap.end.0, gap.missing.count)).collect()
    }

    #[test]
    fn neighbours_of_one_reason_are_one_marker_whichever_came_first() {
        let mut gaps = Table::default();
        for other in [StreamId(0), StreamId(2)] {
            gaps.note(Gap { stream: other, ..expired(0, 100) }, 64);
        }
        gaps.note(expired(0, 5), 64);
        gaps.note(expired(9, 12), 64);
        gaps.note(expired(5, 9), 64);
        assert_eq!(shown(&gaps), [(0, 12, 12)]);
        let one = *gaps.at(STREAM, Offset(7)).expect("a marker");
        assert_eq!((one.missing.first_ms, one.missing.last_ms, one.tag), (1, 12, [12; 16]));
        gaps.note(gap(12, 14, GapReason::Budget), 64);
        assert_eq!(shown(&gaps), [(0, 12, 12), (12, 14, 2)]);
        gaps.drop_stream(STREAM);
        assert_eq!(gaps.len(), 2);
    }

    #[test]
    fn the_oldest_become_one_and_the_count_stays() {
        let mut gaps = Table::default();
        for at in 0..=GAPS_PER_PARTITION_MAX as u64 {
            gaps.note(expired(at * 10, at * 10 + 1), gaps_max(1));
        }
        assert_eq!(gaps.len(), GAPS_PER_PARTITION_MAX);
        assert_eq!(shown(&gaps)[..2], [(0, 11, 2), (20, 21, 1)]);
        assert_eq!((gaps_max(0), gaps_max(2_048), gaps_max(16_384)), (64, 32, 8));
    }

    #[test]
    fn what_is_withheld_costs_no_reason_of_what_is_lost() {
        let mut gaps = Table::default();
        let lost = [(40, 44, GapReason::Budget), (90, 95, GapReason::Expired)];
        for at in (0..400).step_by(2) {
            let is_of = |(first, end, _): &(u64, u64, GapReason)| (*first..*end).contains(&at);
            match lost.into_iter().find(is_of) {
                Some((first, end, reason)) if first == at => gaps.note(gap(first, end, reason), 8),
                Some(_) => {}
                None => gaps.note(gap(at, at + 1, GapReason::Withheld), 8),
            }
        }
        assert_eq!(gaps.len(), 8);
        for (first, end, reason) in lost {
            let found = gaps.at(STREAM, Offset(first)).expect("a marker");
            assert_eq!((found.first.0, found.end.0, found.missing.reason), (first, end, reason));
            assert_eq!(found.missing.count, end - first);
        }
    }

    #[test]
    fn what_a_marker_spans_is_counted_when_it_goes() {
        let mut gaps = Table::default();
        for (first, end) in [(0, 2), (10, 12), (20, 22)] {
            gaps.note(expired(first, end), 2);
        }
        assert_eq!(shown(&gaps), [(0, 12, 4), (20, 22, 2)], "eight of the first are still there");
        let budget = Missing::untimed(GapReason::Budget, 0);
        let mut goes = |from, to| gaps.count_spanned(STREAM, (Offset(from), Offset(to)), budget);
        assert_eq!(goes(2, 5), 3);
        assert_eq!(goes(5, 15), 5);
        assert_eq!(goes(15, 30), 0, "what it spans was missing before");
        assert_eq!(shown(&gaps), [(0, 12, 12), (20, 22, 2)]);
        let first = *gaps.at(STREAM, Offset(0)).expect("a marker");
        assert_eq!(first.missing.reason, GapReason::Several);
    }

    #[test]
    fn what_no_marker_spans_is_found() {
        let mut gaps = Table::default();
        gaps.note(expired(10, 20), 64);
        gaps.note(expired(30, 40), 64);
        let unmarked = |from, to| -> Vec<(u64, u64)> {
            let parts = gaps.unmarked(STREAM, Offset(from), Offset(to));
            parts.into_iter().map(|(from, to)| (from.0, to.0)).collect()
        };
        assert_eq!(unmarked(0, 50), [(0, 10), (20, 30), (40, 50)]);
        assert_eq!(unmarked(15, 35), [(20, 30)]);
        assert_eq!(unmarked(10, 20), []);
        assert_eq!(unmarked(5, 5), []);
    }

    proptest! {
        #[test]
        fn whatever_is_noted_is_counted_once(
            parts in proptest::collection::vec((0u64..300, 1u64..30, 0usize..4), 0..60),
            most in 1usize..8,
        ) {
            let mut gaps = Table::default();
            let mut counted = 0;
            for (from, len, reason) in parts {
                for (first, end) in gaps.unmarked(STREAM, Offset(from), Offset(from + len)) {
                    gaps.add(gap(first.0, end.0, GapReason::ALL[reason]));
                    counted += end.0 - first.0;
                }
                gaps.bound(STREAM, most);
                let all: Vec<Gap> = gaps.of_stream(STREAM).copied().collect();
                prop_assert!(all.len() <= most);
                prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].first));
                prop_assert!(all.iter().all(|gap| gap.missing.fits(gap.first, gap.end)));
                prop_assert_eq!(all.iter().map(|gap| gap.missing.count).sum::<u64>(), counted);
            }
        }
    }
}

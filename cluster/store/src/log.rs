//! Where every entry of the unsealed segments lies, and where the next one goes. Pure: no I/O.
//!
//! Invariants: there is always an open segment; segments follow one another without gaps; where a
//! segment ends is a function of the frames alone (the first frame that would pass
//! `segment_bytes` begins the next one), so that all nodes cut alike. For the same reason a
//! segment that lost its only reason to exist, its first frame, goes with it, unless the segment
//! before it is sealed: then that frame was committed, and another one will begin it again.
//!
//! Never: forget that entries at or above the flush may still be taken back.

use crate::format::SECTOR;
use crate::format::frame::{Chain, FrameHeader, LogEntry, frame_bytes};
use crate::format::header::{FRAMES_AT, SegmentHeader};
use fulmar_types::{LogIndex, LogPosition, Term};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// What is remembered of an entry in an unsealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub sector: u32,
    pub payload_len: u32,
    pub term: Term,
    /// The chain after the entry.
    pub chain: Chain,
}

impl Meta {
    pub fn at(&self) -> u64 {
        u64::from(self.sector) * SECTOR
    }

    pub fn end(&self) -> u64 {
        self.at() + frame_bytes(self.payload_len as usize)
    }
}

/// A segment that is not sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenSegment {
    pub header: SegmentHeader,
    pub metas: Vec<Meta>,
}

impl OpenSegment {
    pub fn new(header: SegmentHeader) -> Self {
        Self { header, metas: Vec::new() }
    }

    /// The index that it takes next.
    pub fn next(&self) -> LogIndex {
        LogIndex(self.header.base.0 + self.metas.len() as u64)
    }

    /// Where its next frame goes.
    pub fn end(&self) -> u64 {
        self.metas.last().map_or(FRAMES_AT, Meta::end)
    }

    /// The chain after its last frame.
    pub fn chain(&self) -> Chain {
        self.metas.last().map_or(self.header.chain, |meta| meta.chain)
    }

    /// The last entry up to its end.
    pub fn last(&self) -> Option<LogPosition> {
        match self.metas.last() {
            Some(meta) => Some(LogPosition {
                term: meta.term,
                index: LogIndex(self.header.base.0 + self.metas.len() as u64 - 1),
            }),
            None => self.header.predecessor,
        }
    }

    pub fn meta(&self, index: LogIndex) -> Option<&Meta> {
        let ordinal = usize::try_from(index.0.checked_sub(self.header.base.0)?).ok()?;
        self.metas.get(ordinal)
    }

    /// The chain at a position, if a frame begins or ends there.
    pub fn chain_at(&self, position: u64) -> Option<Chain> {
        if position == FRAMES_AT {
            return Some(self.header.chain);
        }
        let ordinal = self.metas.binary_search_by_key(&position, Meta::end).ok()?;
        self.metas.get(ordinal).map(|meta| meta.chain)
    }

    /// The header of the segment that would follow.
    pub fn successor(&self) -> SegmentHeader {
        SegmentHeader {
            site: self.header.site,
            base: self.next(),
            chain: self.chain(),
            predecessor: self.last(),
        }
    }
}

/// Where an entry was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// The segment that the entry begins, if it does.
    pub starts: Option<SegmentHeader>,
    pub frame: FrameHeader,
    /// Where the frame goes, in bytes.
    pub at: u64,
    /// The chain before it.
    pub before: Chain,
}

/// What the disk must do to forget entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The segment that is the last one then.
    pub base: LogIndex,
    /// Where its frames end then.
    pub at: u64,
    /// Where they ended before.
    pub old_end: u64,
    /// The chain there.
    pub chain: Chain,
    /// Segments that go as a whole, newest first.
    pub dropped: Vec<LogIndex>,
    /// The first index that is gone.
    pub from: LogIndex,
}

/// The unsealed segments.
#[derive(Clone, Debug)]
pub(crate) struct OpenLog {
    segment_bytes: u64,
    segments: BTreeMap<LogIndex, OpenSegment>,
}

impl OpenLog {
    /// An empty log that goes on from `header`.
    pub fn new(segment_bytes: u64, header: SegmentHeader) -> Self {
        Self { segment_bytes, segments: BTreeMap::from([(header.base, OpenSegment::new(header))]) }
    }

    /// The recovered segments of a log.
    pub fn recovered(segment_bytes: u64, segments: BTreeMap<LogIndex, OpenSegment>) -> Self {
        let log = Self { segment_bytes, segments };
        let mut due: Option<SegmentHeader> = None;
        for segment in log.segments.values() {
            assert!(due.is_none_or(|due| due == segment.header), "segments follow one another");
            due = Some(segment.successor());
        }
        assert!(due.is_some(), "a log has an open segment");
        log
    }

    pub fn segments(&self) -> &BTreeMap<LogIndex, OpenSegment> {
        &self.segments
    }

    pub fn tail(&self) -> &OpenSegment {
        self.segments.values().next_back().expect("a log has an open segment")
    }

    pub fn head(&self) -> &OpenSegment {
        self.segments.values().next().expect("a log has an open segment")
    }

    pub fn next(&self) -> LogIndex {
        self.tail().next()
    }

    pub fn last(&self) -> Option<LogPosition> {
        self.tail().last()
    }

    /// The open segment that holds this index, or would.
    pub fn segment_of(&self, index: LogIndex) -> Option<&OpenSegment> {
        self.segments.range(..=index).next_back().map(|(_, segment)| segment)
    }

    pub fn meta(&self, index: LogIndex) -> Option<&Meta> {
        self.segment_of(index)?.meta(index)
    }

    /// The position of an entry of an open segment, or of the one just before them.
    pub fn position(&self, index: LogIndex) -> Option<LogPosition> {
        match self.meta(index) {
            Some(meta) => Some(LogPosition { term: meta.term, index }),
            None => self.head().header.predecessor.filter(|p| p.index == index),
        }
    }

    /// Finds the place of the next entry and remembers it.
    ///
    /// # Panics
    /// If the entry is not the next one, its term falls, or it is too large for a segment.
    pub fn append(&mut self, entry: &LogEntry) -> Placed {
        let payload_len = entry.payload.len();
        let bytes = frame_bytes(payload_len);
        let next = self.next();
        assert_eq!(entry.position.index, next, "entries are appended without gaps");
        let last_term = self.last().map_or(Term(0), |last| last.term);
        assert!(
            entry.position.term >= last_term,
            "{} goes back behind {last_term}",
            entry.position
        );
        assert!(FRAMES_AT + bytes <= self.segment_bytes, "a frame of {bytes} bytes fits nowhere");

        let starts = (self.tail().end() + bytes > self.segment_bytes).then(|| {
            let header = self.tail().successor();
            self.segments.insert(header.base, OpenSegment::new(header));
            header
        });
        let mut last = self.segments.last_entry().expect("a log has an open segment");
        let tail = last.get_mut();
        let (at, before) = (tail.end(), tail.chain());
        let len = u32::try_from(payload_len).expect("a segment is at most 1 GiB");
        let content = xxh3_64(&entry.payload);
        let chain = before.then(entry.position, entry.kind, content, len);
        let sector = u32::try_from(at / SECTOR).expect("a segment is at most 1 GiB");
        tail.metas.push(Meta { sector, payload_len: len, term: entry.position.term, chain });
        let frame = FrameHeader {
            position: entry.position,
            kind: entry.kind,
            claim: entry.claim,
            content,
            chain,
            base: tail.header.base,
            payload_len: len,
            place: sector,
        };
        Placed { starts, frame, at, before }
    }

    /// Forgets the entries from `from` on. `None` if there are none.
    ///
    /// # Panics
    /// If one of them lies in a sealed segment: it was committed.
    pub fn truncate(&mut self, from: LogIndex) -> Option<Cut> {
        let head = self.head().header.base;
        assert!(from >= head, "{from} lies in a sealed segment, the open ones begin at {head}");
        if from >= self.next() {
            return None;
        }
        let mut dropped = Vec::new();
        while self.segments.len() > 1 {
            let last = self.segments.last_entry().expect("there are two");
            if *last.key() < from {
                break;
            }
            dropped.push(last.remove().header.base);
        }
        let mut last = self.segments.last_entry().expect("a log has an open segment");
        let tail = last.get_mut();
        let old_end = tail.end();
        let kept = usize::try_from(from.0 - tail.header.base.0).expect("below the entries it has");
        tail.metas.truncate(kept);
        let (base, at, chain) = (tail.header.base, tail.end(), tail.chain());
        Some(Cut { base, at, old_end, chain, dropped, from })
    }

    /// Lets go of the first segment, which was sealed.
    ///
    /// # Panics
    /// If it is the last one too, or not the first.
    pub fn sealed(&mut self, base: LogIndex) {
        assert!(self.segments.len() > 1, "the segment at {base} has no successor");
        let (first, _) = self.segments.pop_first().expect("there are two");
        assert_eq!(first, base, "segments are sealed in order");
    }

    /// Forgets everything up to the last entry of a snapshot, where the log goes on.
    pub fn install(&mut self, header: SegmentHeader, keep_tail: bool) {
        if keep_tail {
            self.segments = self.segments.split_off(&header.base);
            assert_eq!(self.head().header, header, "the tail goes on where the snapshot ends");
        } else {
            self.segments = BTreeMap::from([(header.base, OpenSegment::new(header))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::EntryKind;
    use bytes::Bytes;
    use fulmar_types::{SiteId, Uuid};

    /// The size of a segment for four entries of 1 KiB.
    const FULL: u64 = FRAMES_AT + 4096;

    fn entry(term: u64, index: u64, len: usize) -> LogEntry {
        LogEntry {
            position: LogPosition { term: Term(term), index: LogIndex(index) },
            kind: EntryKind::Normal,
            claim: 0,
            payload: Bytes::from(vec![index as u8; len]),
        }
    }

    fn log() -> OpenLog {
        let site = SiteId(Uuid([1; 16]));
        let header = SegmentHeader {
            site,
            base: LogIndex(0),
            chain: Chain::genesis(site),
            predecessor: None,
        };
        OpenLog::new(FULL, header)
    }

    /// Three segments: 0..=3 (1 KiB each), 4..=7, 8.
    fn filled() -> OpenLog {
        let mut log = log();
        for index in 0..9 {
            log.append(&entry(1, index, 900));
        }
        log
    }

    #[test]
    fn a_segment_ends_before_the_frame_that_would_pass_its_size() {
        let log = filled();
        let bases: Vec<u64> = log.segments().keys().map(|base| base.0).collect();
        assert_eq!(bases, [0, 4, 8]);
        assert_eq!(log.segment_of(LogIndex(3)).unwrap().end(), FULL);
        assert_eq!(log.meta(LogIndex(5)).unwrap().at(), FRAMES_AT + 1024);
        assert_eq!(log.segment_of(LogIndex(4)).unwrap().header.predecessor.unwrap().index.0, 3);
    }

    #[test]
    fn truncating_drops_segments_that_lost_their_first_frame() {
        let mut log = filled();
        let cut = log.truncate(LogIndex(4)).expect("there were entries");
        assert_eq!(cut.dropped, [LogIndex(8), LogIndex(4)]);
        assert_eq!((cut.base, cut.at, cut.old_end), (LogIndex(0), FULL, FULL));
        assert_eq!(log.next(), LogIndex(4));
        let cut = log.truncate(LogIndex(2)).expect("there were entries");
        assert_eq!((cut.at, cut.old_end), (FRAMES_AT + 2048, FULL));
        assert_eq!(cut.chain, log.tail().chain());
        assert_eq!(log.truncate(LogIndex(2)), None);
        // A smaller entry fits where the larger one did not.
        assert_eq!(log.append(&entry(2, 2, 10)).starts, None);
    }

    #[test]
    fn a_segment_behind_a_sealed_one_stays_when_it_is_emptied() {
        let mut log = filled();
        log.sealed(LogIndex(0));
        log.sealed(LogIndex(4));
        let cut = log.truncate(LogIndex(8)).expect("there was one");
        assert_eq!((cut.base, cut.at), (LogIndex(8), FRAMES_AT));
        assert_eq!(log.last().unwrap().index, LogIndex(7));
        assert_eq!(log.position(LogIndex(7)).unwrap().term, Term(1));
    }

    #[test]
    fn the_chain_is_known_at_every_frame_border() {
        let log = filled();
        let segment = log.segment_of(LogIndex(4)).unwrap();
        assert_eq!(segment.chain_at(FRAMES_AT), Some(segment.header.chain));
        assert_eq!(segment.chain_at(FRAMES_AT + 1024), Some(segment.metas[0].chain));
        assert_eq!(segment.chain_at(FRAMES_AT + 512), None);
        assert_eq!(segment.chain_at(segment.end()), Some(segment.chain()));
    }

    #[test]
    #[should_panic(expected = "without gaps")]
    fn a_gap_is_a_bug() {
        filled().append(&entry(1, 12, 10));
    }

    #[test]
    #[should_panic(expected = "sealed segment")]
    fn a_sealed_entry_is_never_truncated() {
        let mut log = filled();
        log.sealed(LogIndex(0));
        log.truncate(LogIndex(3));
    }
}

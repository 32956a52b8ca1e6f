//! Finds batches: (stream, offset) -> [`Row`], and timestamp -> [`Row`].
//!
//! A pure machine. Rows of open segments are in memory, encoded. Of a sealed segment one line per
//! stream is in memory (64 bytes); its rows are in its footer, and the index asks for them
//! part by part: an [`Answer::Load`] says which bytes of which footer it needs, the caller reads
//! them, hands them to [`Index::fill`] and asks the same question again.
//!
//! ```text
//! caller                 index
//!   rows(...)       ->   Load { segment, part }     not in memory
//!   reads the part
//!   fill(load, bytes) -> checked, kept among the parts used last
//!   rows(...)       ->   Ready(rows)                no await between fill and this
//! ```
//!
//! Invariants: a lookup by offset takes two binary searches and decodes one block of 64 rows. A
//! lookup by timestamp reads one maximum per segment and one per 64 rows of at most two segments.
//! Everything here can be rebuilt from the log and the footers. Streams that were dropped and
//! parts below a stream's start hold no segment alive.
//!
//! Never: answer with a row that was truncated, dropped, or lies below the start.

mod cache;
mod stream;

#[cfg(test)]
mod tests;

use crate::footer::{
    EntryPlace, FooterError, FooterHeader, OpenRows, Part, RowsPart, StreamSummary, Summary,
};
use crate::row::{Row, StreamId};
use bytes::Bytes;
use cache::{CachedPart, PartCache};
use fulmar_types::{LogIndex, Offset};
use std::collections::BTreeMap;
use stream::{PartRows, StreamPart, StreamParts};

/// Memory for parts of footers, unless told otherwise.
pub const INDEX_CACHE_BYTES: usize = 8 << 20;

const TRACKED: &str = "every segment with a part is tracked";

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Here it is.
    Ready(T),
    /// Read this first, [`Index::fill`] it in, and ask again.
    Load(Load),
}

/// Which part of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartId {
    /// The rows of a stream.
    Rows(StreamId),
    /// Where the entries lie.
    Places,
    /// What came of the entries.
    Outcomes,
}

/// Bytes that the index needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The base index of the segment.
    pub segment: LogIndex,
    /// Which bytes of its footer.
    pub part: Part,
    id: PartId,
}

#[derive(Debug)]
struct Segment {
    /// There is a footer.
    sealed: Option<FooterHeader>,
    /// Streams with a part in it.
    live_streams: usize,
}

/// The rows of all streams of a log.
#[derive(Debug)]
pub struct Index {
    streams: BTreeMap<StreamId, StreamParts>,
    segments: BTreeMap<LogIndex, Segment>,
    cache: PartCache,
}

impl Index {
    /// An index of an empty log that keeps up to this many bytes of footers in memory.
    pub const fn new(cache_bytes: usize) -> Self {
        Self {
            streams: BTreeMap::new(),
            segments: BTreeMap::new(),
            cache: PartCache::new(cache_bytes),
        }
    }

    /// Adds the rows of an entry that was applied, in the segment with this base index.
    ///
    /// # Panics
    /// If the segment is sealed, or a row goes back in its stream.
    pub fn append(&mut self, segment: LogIndex, rows: &[Row]) {
        for row in rows {
            let tracked =
                self.segments.entry(segment).or_insert(Segment { sealed: None, live_streams: 0 });
            assert!(tracked.sealed.is_none(), "{row:?} comes after {segment} was sealed");
            let stream = self.streams.entry(row.stream).or_default();
            if stream.parts.back().is_none_or(|part| part.segment != segment) {
                let open = OpenRows::new(row.stream, segment, row.base_offset);
                let rows = PartRows::Open(Box::new(open));
                stream.push(StreamPart { segment, rows });
                tracked.live_streams += 1;
            }
            match stream.parts.back_mut().map(|part| &mut part.rows) {
                Some(PartRows::Open(rows)) => rows.push(row),
                _ => unreachable!("the part of an open segment is open"),
            }
        }
    }

    /// Takes note of the footer of a segment: one that was open, and whose rows leave memory now,
    /// or one that was found on disk or came from a peer, in the order of the log.
    ///
    /// # Panics
    /// If the segment was open and its footer says something else about a stream than the rows
    /// that were appended: this node would differ from the others.
    pub fn seal(&mut self, summary: &Summary) {
        let segment = summary.header.base;
        let before = self.segments.get(&segment);
        let was_open = before.is_some();
        let open_streams = before.map_or(0, |tracked| tracked.live_streams);
        assert!(
            before.is_none_or(|tracked| tracked.sealed.is_none()),
            "{segment} is sealed a second time"
        );
        let (mut closed_streams, mut live_streams) = (0, 0);
        for sealed in &summary.streams {
            let stream = self.streams.entry(sealed.stream).or_default();
            let is_live = sealed.end > stream.start;
            match stream.position(segment) {
                Ok(at) => {
                    let open = stream.parts.remove(at).map(|part| part.rows);
                    let Some(PartRows::Open(open)) = open else { unreachable!("sealed once") };
                    let part = close(*open, sealed, &summary.header);
                    closed_streams += 1;
                    if is_live {
                        let rows = PartRows::Sealed(*sealed);
                        stream.parts.insert(at, StreamPart { segment, rows });
                        // Whoever reads at the end of the log goes on without touching the file.
                        let id = PartId::Rows(sealed.stream);
                        self.cache.insert(segment, id, CachedPart::Rows(part));
                        live_streams += 1;
                    }
                }
                // Dropped since it was appended.
                Err(_) if was_open => {}
                Err(_) if is_live => {
                    stream.push(StreamPart { segment, rows: PartRows::Sealed(*sealed) });
                    live_streams += 1;
                }
                Err(_) => {}
            }
        }
        assert_eq!(closed_streams, open_streams, "the footer of {segment} lacks a stream");
        self.segments.insert(segment, Segment { sealed: Some(summary.header), live_streams });
        self.streams.retain(|_, stream| !stream.is_unknown());
    }

    /// Takes off the rows of this entry and of all after it.
    ///
    /// # Panics
    /// If one of them is in a sealed segment: a sealed segment holds committed entries only.
    pub fn truncate_from(&mut self, index: LogIndex) {
        for stream in self.streams.values_mut() {
            while let Some(part) = stream.parts.back_mut() {
                let PartRows::Open(rows) = &mut part.rows else { break };
                if rows.last_index() < index || rows.truncate_from(index) {
                    break;
                }
                let segment = part.segment;
                self.segments.get_mut(&segment).expect(TRACKED).live_streams -= 1;
                stream.parts.pop_back();
            }
        }
        let gone: Vec<LogIndex> = self.segments.range(index..).map(|(base, _)| *base).collect();
        for base in gone {
            let segment = self.segments.remove(&base).expect("it was listed just now");
            assert_eq!(segment.live_streams, 0, "{base} has rows after a truncation at {index}");
            assert!(segment.sealed.is_none(), "{base} is sealed and truncated at {index}");
        }
        let reaches = self.sealed_to();
        assert!(reaches.is_none_or(|last| last < index), "truncation at {index} of {reaches:?}");
        self.streams.retain(|_, stream| !stream.is_unknown());
    }

    /// The last index of the last sealed segment.
    fn sealed_to(&self) -> Option<LogIndex> {
        let headers = self.segments.values().rev().filter_map(|segment| segment.sealed.as_ref());
        headers.map(FooterHeader::last).next()
    }

    /// Forgets the rows of a stream that end at or below `start`. A start never moves back.
    pub fn advance_start(&mut self, stream: StreamId, start: Offset) {
        let dead = self.streams.entry(stream).or_default().advance_start(start);
        self.release(stream, &dead);
    }

    /// Forgets a stream.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let Some(dropped) = self.streams.remove(&stream) else { return };
        let dead: Vec<LogIndex> = dropped.parts.iter().map(|part| part.segment).collect();
        self.release(stream, &dead);
    }

    /// Forgets the streams that `keep` does not want: after a restart the footers still name those
    /// that were dropped before. It must want every stream that a snapshot does not know yet.
    pub fn retain_streams(&mut self, mut keep: impl FnMut(StreamId) -> bool) {
        let dropped: Vec<StreamId> =
            self.streams.keys().copied().filter(|stream| !keep(*stream)).collect();
        dropped.into_iter().for_each(|stream| self.drop_stream(stream));
    }

    fn release(&mut self, stream: StreamId, segments: &[LogIndex]) {
        for segment in segments {
            let tracked = self.segments.get_mut(segment).expect(TRACKED);
            assert!(tracked.live_streams > 0, "{segment} has no live stream to lose");
            tracked.live_streams -= 1;
            self.cache.remove_rows(*segment, stream);
        }
    }

    /// The sealed segments without a live row, in order: nothing in them will be read again.
    pub fn dead_segments(&self) -> impl Iterator<Item = LogIndex> + '_ {
        self.segments
            .iter()
            .filter(|(_, segment)| segment.sealed.is_some() && segment.live_streams == 0)
            .map(|(base, _)| *base)
    }

    /// Forgets a dead segment, whose file is about to be removed.
    ///
    /// # Panics
    /// If it has live rows.
    pub fn remove_segment(&mut self, segment: LogIndex) {
        if let Some(removed) = self.segments.remove(&segment) {
            assert_eq!(removed.live_streams, 0, "{segment} is removed and has live rows");
            assert!(removed.sealed.is_some(), "{segment} is removed before it was sealed");
        }
        self.cache.remove_segment(segment);
    }

    /// The offset after the last row. `None` if the stream has no live row.
    pub fn end(&self, stream: StreamId) -> Option<Offset> {
        let stream = self.streams.get(&stream)?;
        stream.parts.back().map(StreamPart::end).filter(|end| *end > stream.start)
    }

    /// The row that holds `offset`, or the next one if no row does.
    pub fn lookup(&mut self, stream: StreamId, offset: Offset) -> Answer<Option<Row>> {
        match self.rows(stream, offset, Offset(u64::MAX), 0) {
            Answer::Ready(rows) => Answer::Ready(rows.first().copied()),
            Answer::Load(load) => Answer::Load(load),
        }
    }

    /// The row that holds `from` (or the next one), and those after it, as long as they end at or
    /// below `below` and their batches stay within `max_bytes` together. The first one is given
    /// whatever its size. Fewer may be given where a part would have to be loaded.
    pub fn rows(
        &mut self,
        stream: StreamId,
        from: Offset,
        below: Offset,
        max_bytes: usize,
    ) -> Answer<Vec<Row>> {
        let mut taken = Taken { rows: Vec::new(), bytes: 0, below, max_bytes };
        let Some(known) = self.streams.get(&stream) else { return Answer::Ready(taken.rows) };
        let from = from.max(known.start);
        for part in known.parts_from(from) {
            let more = match &part.rows {
                _ if part.first() >= below => false,
                PartRows::Open(rows) => taken.take(rows.rows_from(from)),
                PartRows::Sealed(summary) => match self.cache.rows(part.segment, stream) {
                    Some(rows) => taken.take(rows.rows_from(from)),
                    None if taken.rows.is_empty() => {
                        let (segment, id) = (part.segment, PartId::Rows(stream));
                        return Answer::Load(Load { segment, part: summary.part, id });
                    }
                    None => false,
                },
            };
            if !more {
                break;
            }
        }
        Answer::Ready(taken.rows)
    }

    /// The first row, in the order of offsets, whose maximum timestamp is at least this: Kafka's
    /// ListOffsets, exact to the batch.
    pub fn by_timestamp(&mut self, stream: StreamId, timestamp_ms: i64) -> Answer<Option<Row>> {
        let Some(known) = self.streams.get(&stream) else { return Answer::Ready(None) };
        let start = known.start;
        for part in known.parts_from(start).filter(|part| part.max_timestamp_ms() >= timestamp_ms) {
            let found = match &part.rows {
                PartRows::Open(rows) => rows.by_timestamp(start, timestamp_ms),
                PartRows::Sealed(summary) => match self.cache.rows(part.segment, stream) {
                    Some(rows) => rows.by_timestamp(start, timestamp_ms),
                    None => {
                        let (segment, id) = (part.segment, PartId::Rows(stream));
                        return Answer::Load(Load { segment, part: summary.part, id });
                    }
                },
            };
            // Only the first part may have a maximum that belongs to a row below the start.
            if found.is_some() {
                return Answer::Ready(found);
            }
        }
        Answer::Ready(None)
    }

    /// Where an entry of a sealed segment lies in its file. `None` if no sealed segment holds it.
    pub fn place(&mut self, index: LogIndex) -> Answer<Option<EntryPlace>> {
        let Some(header) = self.sealed_with(index) else { return Answer::Ready(None) };
        match self.cache.places(header.base) {
            Some(places) => Answer::Ready(places.get(index)),
            None => {
                let (segment, part, id) = (header.base, header.places, PartId::Places);
                Answer::Load(Load { segment, part, id })
            }
        }
    }

    /// What came of an entry of a sealed segment. `None` if no sealed segment holds it.
    pub fn outcome(&mut self, index: LogIndex) -> Answer<Option<Bytes>> {
        let Some(header) = self.sealed_with(index) else { return Answer::Ready(None) };
        match self.cache.outcomes(header.base) {
            Some(outcomes) => Answer::Ready(outcomes.get(index)),
            None => {
                let (segment, part, id) = (header.base, header.outcomes, PartId::Outcomes);
                Answer::Load(Load { segment, part, id })
            }
        }
    }

    /// The header of the footer of the sealed segment that holds an entry.
    fn sealed_with(&self, index: LogIndex) -> Option<FooterHeader> {
        let (_, segment) = self.segments.range(..=index).next_back()?;
        segment.sealed.filter(|header| index <= header.last())
    }

    /// Takes in what was asked for. Bytes of a stream or a segment that went away meanwhile are
    /// not kept. The bytes should own no more memory than they show.
    ///
    /// # Errors
    /// [`FooterError::Damaged`] if they are not what the summary describes: the segment is rotten.
    pub fn fill(&mut self, load: &Load, bytes: Bytes) -> Result<(), FooterError> {
        let sealed = self.segments.get(&load.segment).and_then(|segment| segment.sealed);
        let Some(header) = sealed else { return Ok(()) };
        let part = match load.id {
            PartId::Places => CachedPart::Places(header.parse_places(bytes)?),
            PartId::Outcomes => CachedPart::Outcomes(header.parse_outcomes(bytes)?),
            PartId::Rows(stream) => {
                let part = self.streams.get(&stream).and_then(|known| {
                    known.parts.get(known.position(load.segment).ok()?).map(|part| &part.rows)
                });
                let Some(PartRows::Sealed(summary)) = part else { return Ok(()) };
                let (base, last) = (header.base, header.last());
                CachedPart::Rows(RowsPart::parse(summary, base, last, bytes)?)
            }
        };
        self.cache.insert(load.segment, load.id, part);
        Ok(())
    }

    /// Bytes of footers that are in memory now.
    pub const fn cached_bytes(&self) -> usize {
        self.cache.held_bytes()
    }
}

/// The rows that were in memory, as they are in the footer now.
fn close(open: OpenRows, sealed: &StreamSummary, header: &FooterHeader) -> RowsPart {
    let (mut appended, bytes) = open.finish();
    appended.part.at = sealed.part.at;
    assert_eq!(appended, *sealed, "the footer of {} has other rows", header.base);
    RowsPart::parse(sealed, header.base, header.last(), Bytes::from(bytes))
        .expect("the rows were encoded by this process")
}

/// The rows of one answer.
struct Taken {
    rows: Vec<Row>,
    bytes: usize,
    below: Offset,
    max_bytes: usize,
}

impl Taken {
    /// Takes rows as long as the limits allow. Whether they allow more.
    fn take(&mut self, rows: impl Iterator<Item = Row>) -> bool {
        for row in rows {
            let bytes = self.bytes.saturating_add(row.len as usize);
            let fits = self.rows.is_empty() || bytes <= self.max_bytes;
            if row.end_offset() > self.below || !fits {
                return false;
            }
            self.bytes = bytes;
            self.rows.push(row);
        }
        true
    }
}

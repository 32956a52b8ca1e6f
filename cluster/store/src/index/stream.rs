//! What the index knows of one stream: a part per segment that has live rows of it.
//!
//! Invariants: parts are in the order of their segments and of their offsets, which is the same.
//! No sealed one is dead, that is, every one ends after the start of the stream. An open one may
//! be: its rows have to go into the footer all the same, and more of them may follow.

use crate::footer::{OpenRows, StreamSummary};
use fulmar_types::{LogIndex, Offset};
use std::collections::VecDeque;

/// The rows of a stream in one segment.
#[derive(Debug)]
pub(super) struct StreamPart {
    pub(super) segment: LogIndex,
    pub(super) rows: PartRows,
}

/// Where those rows are.
#[derive(Debug)]
pub(super) enum PartRows {
    /// In memory: the segment has no footer yet.
    Open(Box<OpenRows>),
    /// In the footer of the segment.
    Sealed(StreamSummary),
}

/// What a stream costs in memory per sealed segment, and the reason for the box above.
const _: () = assert!(size_of::<StreamPart>() <= 64);

impl StreamPart {
    pub(super) fn first(&self) -> Offset {
        match &self.rows {
            PartRows::Open(rows) => rows.first(),
            PartRows::Sealed(summary) => summary.first,
        }
    }

    pub(super) fn end(&self) -> Offset {
        match &self.rows {
            PartRows::Open(rows) => rows.end(),
            PartRows::Sealed(summary) => summary.end,
        }
    }

    pub(super) fn max_timestamp_ms(&self) -> i64 {
        match &self.rows {
            PartRows::Open(rows) => rows.max_timestamp_ms(),
            PartRows::Sealed(summary) => summary.max_timestamp_ms,
        }
    }
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct StreamParts {
    /// No offset below it is read any more.
    pub(super) start: Offset,
    pub(super) parts: VecDeque<StreamPart>,
}

impl StreamParts {
    /// Whether nothing is known of it that would have to be remembered.
    pub(super) fn is_unknown(&self) -> bool {
        self.parts.is_empty() && self.start == Offset(0)
    }

    /// The part of a segment, and the place for it where there is none.
    pub(super) fn position(&self, segment: LogIndex) -> Result<usize, usize> {
        self.parts.binary_search_by_key(&segment, |part| part.segment)
    }

    /// The live parts with an offset at or after `from`.
    pub(super) fn parts_from(&self, from: Offset) -> impl Iterator<Item = &StreamPart> {
        let first = self.parts.partition_point(|part| part.end() <= from);
        self.parts.range(first..)
    }

    /// Adds a part behind the others.
    pub(super) fn push(&mut self, part: StreamPart) {
        if let Some(last) = self.parts.back() {
            assert!(last.segment < part.segment, "a part of {} comes too late", part.segment);
            assert!(last.end() <= part.first(), "the part of {} goes back", part.segment);
        }
        self.parts.push_back(part);
    }

    /// Moves the start and takes off the sealed parts that died of it: their segments.
    pub(super) fn advance_start(&mut self, start: Offset) -> Vec<LogIndex> {
        self.start = self.start.max(start);
        let is_dead = |part: &StreamPart| {
            matches!(part.rows, PartRows::Sealed(_)) && part.end() <= self.start
        };
        let dead = self.parts.partition_point(is_dead);
        self.parts.drain(..dead).map(|part| part.segment).collect()
    }
}

//! Writes the footer of a segment, entry by entry.
//!
//! Invariants: entries come in order and without gaps; what is written depends on the arguments
//! alone, so every node writes the same bytes. What it keeps is already encoded: about a dozen
//! bytes per batch.

use super::entries::{EntryPlace, OutcomesEncoder, PlacesEncoder};
use super::rows::OpenRows;
use super::{FOOTER_HEADER_BYTES, FooterHeader, Part, put_summary};
use crate::row::{Row, StreamId};
use bytes::Bytes;
use fulmar_types::LogIndex;
use std::collections::BTreeMap;

/// The footer of a segment that is not sealed yet.
#[derive(Debug)]
pub struct FooterBuilder {
    base: LogIndex,
    places: PlacesEncoder,
    outcomes: OutcomesEncoder,
    streams: BTreeMap<StreamId, OpenRows>,
}

impl FooterBuilder {
    /// A footer without entries, for the segment whose first entry has this index.
    pub fn new(base: LogIndex) -> Self {
        Self {
            base,
            places: PlacesEncoder::new(),
            outcomes: OutcomesEncoder::new(),
            streams: BTreeMap::new(),
        }
    }

    /// The index of the entry that it takes next.
    pub fn next_index(&self) -> LogIndex {
        LogIndex(self.base.0 + u64::from(self.places.entries()))
    }

    /// Adds the next entry: where it lies, what came of it, and the rows of its batches.
    ///
    /// # Panics
    /// If the entry is not the next one, its frame does not lie behind the one before, or a row
    /// belongs to another entry or goes back in its stream. All are bugs that would make this
    /// node's segments differ from the others'.
    pub fn push(&mut self, place: EntryPlace, outcome: &[u8], rows: &[Row]) {
        assert_eq!(place.index, self.next_index(), "the entries of a footer follow one another");
        self.places.push(&place);
        self.outcomes.push(outcome);
        for row in rows {
            assert_eq!(row.index, place.index, "{row:?} belongs to another entry");
            assert_eq!(row.term, place.term, "{row:?} belongs to another entry");
            self.streams
                .entry(row.stream)
                .or_insert_with(|| OpenRows::new(row.stream, self.base, row.base_offset))
                .push(row);
        }
    }

    /// The bytes of the footer, without padding.
    ///
    /// # Panics
    /// If there is no entry, or the footer would be 4 GiB or more.
    pub fn finish(self) -> Bytes {
        let entries = self.places.entries();
        assert!(entries > 0, "a segment that is sealed has an entry");
        let mut streams = Vec::with_capacity(self.streams.len());
        let mut rows = Vec::new();
        for open in self.streams.into_values() {
            let (summary, bytes) = open.finish();
            streams.push(summary);
            rows.extend_from_slice(&bytes);
        }
        let summary = put_summary(&streams);
        let (places, outcomes) = (self.places.finish(), self.outcomes.finish());
        let at = FOOTER_HEADER_BYTES + summary.len() + rows.len();
        let header = FooterHeader {
            base: self.base,
            entries,
            streams: u32::try_from(streams.len()).expect("stream ids are 32 bits"),
            summary: Part::at(FOOTER_HEADER_BYTES, &summary),
            places: Part::at(at, &places),
            outcomes: Part::at(at + places.len(), &outcomes),
        };
        let mut out = Vec::with_capacity(at + places.len() + outcomes.len());
        header.put(&mut out);
        for part in [summary, rows, places, outcomes] {
            out.extend_from_slice(&part);
        }
        assert_eq!(out.len() as u64, header.len_bytes(), "a footer is as long as it says");
        Bytes::from(out)
    }
}

//! The footer of a sealed segment: what the index knows about its entries and batches.
//!
//! A pure codec. It lies behind the last frame, and everything in it could be had again by
//! applying the log. All numbers are little-endian; varints are drawn in `reader.rs`.
//!
//! ```text
//! footer       0  magic [u8; 4] = "FFTR"
//!              4  version u8 = 1 | zero [u8; 3]
//!              8  base index u64
//!             16  entries u32            at least one
//!             20  streams u32
//!             24  summary len u32  | places len u32  | outcomes len u32 | rows len u32
//!             40  summary crc u32  | places crc u32  | outcomes crc u32     crc32c
//!             52  zero u64
//!             60  header crc u32         crc32c of bytes 0..60
//!             64  summary                per stream, in ascending order of the ids:
//!                   stream varint        id minus the first id that was possible
//!                   first varint         base offset of the first row
//!                   span varint          end offset of the last row - first, at least 1
//!                   max timestamp zigzag
//!                   rows varint          at least 1
//!                   len varint           of the stream's part of the rows
//!                   crc u32              crc32c of it
//!              .  rows                   the part of each stream, in the order of the summary
//!              .  places | outcomes      see `entries.rs`
//! ```
//!
//! Invariants: header and summary can be read without the rest, and the rows of one stream without
//! those of another. Every part has its own checksum. Parsing is total, and exactly one sequence
//! of bytes parses to a given content.

mod blocks;
mod builder;
mod entries;
mod rows;

#[cfg(test)]
mod tests;

pub use builder::FooterBuilder;
pub use entries::{EntryPlace, OutcomesPart, PlacesPart};
pub(crate) use rows::OpenRows;
pub use rows::RowsPart;

use crate::reader::{Reader, put_varint, put_zigzag};
use crate::row::{OFFSET_MAX, StreamId};
use bytes::Bytes;
use fulmar_types::{LogIndex, Offset};
use std::ops::Range;
use thiserror::Error;

/// The version of the footer format that this build writes, and the only one that it reads.
pub const FOOTER_VERSION: u8 = 1;

/// Bytes of the header, which says how long the rest is.
pub const FOOTER_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"FFTR";
const CRC_AT: usize = FOOTER_HEADER_BYTES - 4;

/// Why bytes are not a footer, or not the part of it that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FooterError {
    /// A version that this build does not know.
    #[error("footer version {0} is not known to this build")]
    UnknownVersion(u8),
    /// The bytes are not what was written.
    #[error("damaged footer: {0}")]
    Damaged(&'static str),
}

/// Where a part lies in its footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins, in bytes from the start of the footer.
    pub at: u32,
    /// Its length in bytes.
    pub len: u32,
    /// crc32c of its bytes.
    pub crc: u32,
}

impl Part {
    fn at(at: usize, bytes: &[u8]) -> Self {
        let small = |value| u32::try_from(value).expect("a footer is far below 4 GiB");
        Self { at: small(at), len: small(bytes.len()), crc: crc32c::crc32c(bytes) }
    }

    /// Where it lies, in bytes from the start of the footer.
    pub fn range(&self) -> Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len as usize && crc32c::crc32c(bytes) == self.crc
    }
}

/// The first bytes of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterHeader {
    /// The index of the first entry of the segment.
    pub base: LogIndex,
    /// How many entries it has, at least one.
    pub entries: u32,
    /// How many streams have rows in it.
    pub streams: u32,
    /// Where the summary lies.
    pub summary: Part,
    /// Where the places of the entries lie.
    pub places: Part,
    /// Where the outcomes of the entries lie.
    pub outcomes: Part,
}

impl FooterHeader {
    /// Reads the header from the first [`FOOTER_HEADER_BYTES`] of a footer; more do no harm.
    ///
    /// # Errors
    /// [`FooterError`], also if the lengths in it do not fit together.
    pub fn read(bytes: &[u8]) -> Result<Self, FooterError> {
        let damaged = FooterError::Damaged("header");
        let header = bytes.get(..FOOTER_HEADER_BYTES).ok_or(damaged)?;
        let crc = Reader::starting_at(header, CRC_AT).u32().ok_or(damaged)?;
        let mut reader = Reader::new(header);
        let magic: [u8; 4] = reader.array().ok_or(damaged)?;
        if magic != MAGIC || crc != crc32c::crc32c(header.get(..CRC_AT).unwrap_or_default()) {
            return Err(damaged);
        }
        let version = reader.u8().ok_or(damaged)?;
        if version != FOOTER_VERSION {
            return Err(FooterError::UnknownVersion(version));
        }
        Self::read_fields(&mut reader).ok_or(damaged)
    }

    fn read_fields(reader: &mut Reader<'_>) -> Option<Self> {
        let zero: [u8; 3] = reader.array()?;
        let (base, entries, streams) = (LogIndex(reader.u64()?), reader.u32()?, reader.u32()?);
        let mut lens = || Some([reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?]);
        let [summary_len, places_len, outcomes_len, rows_len] = lens()?;
        let (summary_crc, places_crc, outcomes_crc) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let rows_at = (FOOTER_HEADER_BYTES as u32).checked_add(summary_len)?;
        let places_at = rows_at.checked_add(rows_len)?;
        let outcomes_at = places_at.checked_add(places_len)?;
        outcomes_at.checked_add(outcomes_len)?;
        base.0.checked_add(u64::from(entries))?;
        let header = Self {
            base,
            entries,
            streams,
            summary: Part { at: FOOTER_HEADER_BYTES as u32, len: summary_len, crc: summary_crc },
            places: Part { at: places_at, len: places_len, crc: places_crc },
            outcomes: Part { at: outcomes_at, len: outcomes_len, crc: outcomes_crc },
        };
        (entries > 0 && zero == [0; 3] && reader.u64()? == 0).then_some(header)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FOOTER_VERSION, 0, 0, 0]);
        out.extend_from_slice(&self.base.0.to_le_bytes());
        let rows_len = self.places.at - self.summary.at - self.summary.len;
        let numbers = [
            self.entries,
            self.streams,
            self.summary.len,
            self.places.len,
            self.outcomes.len,
            rows_len,
            self.summary.crc,
            self.places.crc,
            self.outcomes.crc,
            0,
            0,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(out.len() - start, FOOTER_HEADER_BYTES, "the header is as long as drawn");
    }

    /// The index of the last entry of the segment.
    pub const fn last(&self) -> LogIndex {
        LogIndex(self.base.0 + self.entries as u64 - 1)
    }

    /// Length of the whole footer, without padding.
    pub const fn len_bytes(&self) -> u64 {
        self.outcomes.at as u64 + self.outcomes.len as u64
    }

    /// How many bytes from the start of the footer [`Summary::read`] needs.
    pub const fn summary_end(&self) -> usize {
        self.summary.at as usize + self.summary.len as usize
    }
}

/// What a segment holds of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream.
    pub stream: StreamId,
    /// The base offset of its first row.
    pub first: Offset,
    /// The offset after its last row.
    pub end: Offset,
    /// The largest timestamp of its rows, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// How many rows there are, at least one.
    pub rows: u32,
    /// Where they lie in the footer.
    pub part: Part,
}

/// Header and summary of a footer: what stays in memory of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The header.
    pub header: FooterHeader,
    /// Every stream with rows in the segment, in ascending order.
    pub streams: Vec<StreamSummary>,
}

impl Summary {
    /// Reads header and summary from the first bytes of a footer, at least
    /// [`FooterHeader::summary_end`] of them.
    ///
    /// # Errors
    /// [`FooterError`].
    pub fn read(bytes: &[u8]) -> Result<Self, FooterError> {
        let header = FooterHeader::read(bytes)?;
        let summary =
            bytes.get(header.summary.range()).ok_or(FooterError::Damaged("length of summary"))?;
        if !header.summary.holds(summary) {
            return Err(FooterError::Damaged("checksum of summary"));
        }
        let streams = read_summary(&header, summary).ok_or(FooterError::Damaged("summary"))?;
        Ok(Self { header, streams })
    }

    /// What the segment holds of a stream.
    pub fn stream(&self, stream: StreamId) -> Option<&StreamSummary> {
        let at = self.streams.binary_search_by_key(&stream, |summary| summary.stream).ok()?;
        self.streams.get(at)
    }
}

fn put_summary(streams: &[StreamSummary]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut possible = 0;
    for summary in streams {
        let id = u64::from(summary.stream.0);
        put_varint(&mut out, id - possible);
        put_varint(&mut out, summary.first.0);
        put_varint(&mut out, summary.end.0 - summary.first.0);
        put_zigzag(&mut out, summary.max_timestamp_ms);
        put_varint(&mut out, u64::from(summary.rows));
        put_varint(&mut out, u64::from(summary.part.len));
        out.extend_from_slice(&summary.part.crc.to_le_bytes());
        possible = id + 1;
    }
    out
}

fn read_summary(header: &FooterHeader, bytes: &[u8]) -> Option<Vec<StreamSummary>> {
    let mut reader = Reader::new(bytes);
    let mut streams = Vec::new();
    let mut possible = 0u64;
    let mut at = header.summary.at.checked_add(header.summary.len)?;
    // The list grows by what was really read; the count in the header reserves nothing.
    for _ in 0..header.streams {
        let id = u32::try_from(possible.checked_add(reader.varint()?)?).ok()?;
        let first = Offset(reader.varint()?);
        let end = Offset(first.0.checked_add(reader.varint()?)?);
        let max_timestamp_ms = reader.zigzag()?;
        let (rows, len, crc) = (reader.varint_u32()?, reader.varint_u32()?, reader.u32()?);
        if rows == 0 || end <= first || end.0 > OFFSET_MAX.0 + 1 {
            return None;
        }
        let part = Part { at, len, crc };
        let stream = StreamId(id);
        streams.push(StreamSummary { stream, first, end, max_timestamp_ms, rows, part });
        at = at.checked_add(len)?;
        possible = u64::from(id) + 1;
    }
    (reader.is_at_end() && at == header.places.at).then_some(streams)
}

/// A whole footer, every byte of it checked.
#[derive(Clone, Debug)]
pub struct Footer {
    summary: Summary,
    places: PlacesPart,
    outcomes: OutcomesPart,
    rows: Vec<RowsPart>,
}

impl Footer {
    /// Checks a whole footer: its checksums, every item, and that the parts agree.
    ///
    /// # Errors
    /// [`FooterError`], for all bytes that [`FooterBuilder`] of this version could not have
    /// written.
    pub fn parse(bytes: Bytes) -> Result<Self, FooterError> {
        let summary = Summary::read(&bytes)?;
        let header = &summary.header;
        if header.len_bytes() != bytes.len() as u64 {
            return Err(FooterError::Damaged("length"));
        }
        let places = header.parse_places(slice(&bytes, header.places)?)?;
        let outcomes = header.parse_outcomes(slice(&bytes, header.outcomes)?)?;
        let rows = summary
            .streams
            .iter()
            .map(|stream| {
                let bytes = slice(&bytes, stream.part)?;
                RowsPart::parse(stream, header.base, header.last(), bytes)
            })
            .collect::<Result<Vec<_>, FooterError>>()?;
        let terms_agree = |part: &RowsPart| {
            part.rows().all(|row| places.get(row.index).is_some_and(|place| place.term == row.term))
        };
        if !rows.iter().all(terms_agree) {
            return Err(FooterError::Damaged("terms of rows"));
        }
        Ok(Self { summary, places, outcomes, rows })
    }

    /// What it says in short.
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Where its entries lie.
    pub const fn places(&self) -> &PlacesPart {
        &self.places
    }

    /// What came of its entries.
    pub const fn outcomes(&self) -> &OutcomesPart {
        &self.outcomes
    }

    /// The rows of a stream.
    pub fn rows(&self, stream: StreamId) -> Option<&RowsPart> {
        let at = self.rows.binary_search_by_key(&stream, RowsPart::stream).ok()?;
        self.rows.get(at)
    }
}

impl FooterHeader {
    /// Checks the places of the entries, read alone.
    ///
    /// # Errors
    /// [`FooterError::Damaged`].
    pub fn parse_places(&self, bytes: Bytes) -> Result<PlacesPart, FooterError> {
        PlacesPart::parse(self.base, self.entries, self.places, bytes)
    }

    /// Checks the outcomes of the entries, read alone.
    ///
    /// # Errors
    /// [`FooterError::Damaged`].
    pub fn parse_outcomes(&self, bytes: Bytes) -> Result<OutcomesPart, FooterError> {
        OutcomesPart::parse(self.base, self.entries, self.outcomes, bytes)
    }
}

fn slice(bytes: &Bytes, part: Part) -> Result<Bytes, FooterError> {
    let range = part.range();
    if range.end > bytes.len() {
        return Err(FooterError::Damaged("length"));
    }
    Ok(bytes.slice(range))
}

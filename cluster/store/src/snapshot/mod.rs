//! Snapshots of the state machine: one file per snapshot, written whole and never changed.
//!
//! ```text
//! file         0  magic [u8; 8] = "FULMSNAP"
//!              8  version u32 = 1
//!             12  sections u32
//!             16  last term u64
//!             24  last index u64
//!             32  wall_ms u64           time of the last entry that it covers
//!             40  state u128            hash of the whole state
//!             56  membership len u32
//!             60  membership crc u32    crc32c
//!             64  directory crc u32     crc32c of the directory
//!             68  header crc u32        crc32c of bytes 0..68
//!             72  directory             per section: id u32 | version u32 | len u32 | crc u32
//!              .  membership
//!              .  sections, one after the other
//!             -16 total u128            xxh3-128 of every byte before it
//! ```
//!
//! Invariants: sections are in ascending order of their ids, so equal snapshots have equal bytes
//! on every node. [`Snapshot::decode`] is total and copies nothing. A file gets its name only when
//! its content is flushed, and [`Snapshots::save`] returns only when the name is durable too.
//!
//! Never: remove or overwrite a damaged snapshot while it might be the newest evidence; a file is
//! pruned only once two newer ones are known to be good.

mod files;

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;

pub use files::{DamagedSnapshot, SnapshotFileError, Snapshots, file_name};

use crate::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::{LogIndex, LogPosition, Term};
use std::ops::Range;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// The version of the file format that this build writes, and the only one that it reads.
pub const SNAPSHOT_VERSION: u32 = 1;

/// The largest snapshot, in bytes. The state is kilobytes per partition; what is larger than this
/// is a bug, or not a snapshot.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"FULMSNAP";
const HEADER_BYTES: usize = 72;
const DIRECTORY_ROW_BYTES: usize = 16;
const TOTAL_BYTES: usize = 16;

/// One registered part of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Which part. Never given to another one.
    pub id: u32,
    /// How its bytes are written.
    pub version: u32,
    /// What it saved.
    pub bytes: Bytes,
}

/// The state after an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub last: LogPosition,
    /// The membership that held there, as the consensus crate writes it.
    pub membership: Bytes,
    /// The time of that entry, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Hash of the whole state, of all sections.
    pub state: u128,
    /// The sections, in ascending order of their ids.
    pub sections: Vec<Section>,
}

/// Why bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// A version that this build does not know.
    #[error("snapshot version {0} is not known to this build")]
    UnknownVersion(u32),
    /// The bytes are not what was saved.
    #[error("damaged snapshot: {0}")]
    Damaged(&'static str),
}

/// What the header says, its checksum verified.
struct Header {
    sections: usize,
    last: LogPosition,
    wall_ms: u64,
    state: u128,
    membership_len: usize,
    membership_crc: u32,
    directory_crc: u32,
}

impl Snapshot {
    /// The section with this id.
    pub fn section(&self, id: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.id == id)
    }

    /// Its length once encoded, in bytes.
    pub fn encoded_len(&self) -> u64 {
        let sections: u64 = self.sections.iter().map(|section| section.bytes.len() as u64).sum();
        let fixed = HEADER_BYTES + self.sections.len() * DIRECTORY_ROW_BYTES + TOTAL_BYTES;
        fixed as u64 + self.membership.len() as u64 + sections
    }

    /// Its bytes, the same on every node.
    ///
    /// # Panics
    /// If the sections are not in ascending order of their ids, or above [`SNAPSHOT_BYTES_MAX`]
    /// altogether: both are bugs of the state machine.
    pub fn encode(&self) -> Bytes {
        let len = self.encoded_len();
        assert!(len <= SNAPSHOT_BYTES_MAX, "a snapshot of {len} bytes is above its limit");
        let ascending = self.sections.windows(2).all(|pair| pair[0].id < pair[1].id);
        assert!(ascending, "the sections of a snapshot are in ascending order");

        let directory = self.directory();
        let mut out = BytesMut::with_capacity(usize::try_from(len).expect("bounded above"));
        out.put_slice(&MAGIC);
        out.put_u32_le(SNAPSHOT_VERSION);
        out.put_u32_le(len_u32(self.sections.len()));
        out.put_u64_le(self.last.term.0);
        out.put_u64_le(self.last.index.0);
        out.put_u64_le(self.wall_ms);
        out.put_u128_le(self.state);
        out.put_u32_le(len_u32(self.membership.len()));
        out.put_u32_le(crc32c::crc32c(&self.membership));
        out.put_u32_le(crc32c::crc32c(&directory));
        let header_crc = crc32c::crc32c(&out);
        out.put_u32_le(header_crc);
        assert_eq!(out.len(), HEADER_BYTES, "the header is as long as drawn");
        out.put_slice(&directory);
        out.put_slice(&self.membership);
        for section in &self.sections {
            out.put_slice(&section.bytes);
        }
        let total = xxh3_128(&out);
        out.put_u128_le(total);
        assert_eq!(out.len() as u64, len, "a snapshot is as long as it said");
        out.freeze()
    }

    fn directory(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.sections.len() * DIRECTORY_ROW_BYTES);
        for section in &self.sections {
            out.put_u32_le(section.id);
            out.put_u32_le(section.version);
            out.put_u32_le(len_u32(section.bytes.len()));
            out.put_u32_le(crc32c::crc32c(&section.bytes));
        }
        out
    }

    /// Reads a snapshot. The sections share the memory of `bytes`.
    ///
    /// # Errors
    /// [`SnapshotError`], for all bytes that [`Snapshot::encode`] of this version could not have
    /// written.
    pub fn decode(bytes: &Bytes) -> Result<Self, SnapshotError> {
        if bytes.len() as u64 > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::Damaged("longer than a snapshot may be"));
        }
        let header = Header::read(bytes)?;
        let sections = header.read_directory(bytes)?;
        let mut at = HEADER_BYTES + sections.len() * DIRECTORY_ROW_BYTES;
        let mut part = |len: usize, crc: u32, what| {
            let range = part_range(bytes, at, len).ok_or(SnapshotError::Damaged(what))?;
            at = range.end;
            let part = bytes.slice(range);
            if crc32c::crc32c(&part) == crc { Ok(part) } else { Err(SnapshotError::Damaged(what)) }
        };
        let membership = part(header.membership_len, header.membership_crc, "membership")?;
        let sections = sections
            .into_iter()
            .map(|row| {
                let bytes = part(row.len, row.crc, "section")?;
                Ok(Section { id: row.id, version: row.version, bytes })
            })
            .collect::<Result<Vec<_>, SnapshotError>>()?;
        let total = Reader::starting_at(bytes, at).u128();
        let before = bytes.get(..at).unwrap_or_default();
        if at + TOTAL_BYTES != bytes.len() || total != Some(xxh3_128(before)) {
            return Err(SnapshotError::Damaged("total"));
        }
        let Header { last, wall_ms, state, .. } = header;
        Ok(Self { last, membership, wall_ms, state, sections })
    }
}

/// Where a part of `len` bytes at `at` lies, if it ends before the total.
fn part_range(bytes: &Bytes, at: usize, len: usize) -> Option<Range<usize>> {
    let end = at.checked_add(len)?;
    (end.checked_add(TOTAL_BYTES)? <= bytes.len()).then_some(at..end)
}

struct DirectoryRow {
    id: u32,
    version: u32,
    len: usize,
    crc: u32,
}

impl Header {
    fn read(bytes: &Bytes) -> Result<Self, SnapshotError> {
        let damaged = SnapshotError::Damaged("header");
        let mut reader = Reader::new(bytes);
        let magic: [u8; 8] = reader.array().ok_or(damaged)?;
        let version = reader.u32().ok_or(damaged)?;
        if magic != MAGIC {
            return Err(damaged);
        }
        // The checksum comes before the version: a rotten version is damage, not the future.
        let crc = Reader::starting_at(bytes, HEADER_BYTES - 4).u32().ok_or(damaged)?;
        if crc != crc32c::crc32c(bytes.get(..HEADER_BYTES - 4).unwrap_or_default()) {
            return Err(damaged);
        }
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::UnknownVersion(version));
        }
        let mut fields = || {
            Some(Self {
                sections: usize::try_from(reader.u32()?).ok()?,
                last: LogPosition { term: Term(reader.u64()?), index: LogIndex(reader.u64()?) },
                wall_ms: reader.u64()?,
                state: reader.u128()?,
                membership_len: usize::try_from(reader.u32()?).ok()?,
                membership_crc: reader.u32()?,
                directory_crc: reader.u32()?,
            })
        };
        fields().ok_or(damaged)
    }

    fn read_directory(&self, bytes: &Bytes) -> Result<Vec<DirectoryRow>, SnapshotError> {
        let damaged = SnapshotError::Damaged("directory");
        // Bounds the list by the bytes that are there before anything is allocated for it.
        let len = self.sections.checked_mul(DIRECTORY_ROW_BYTES).ok_or(damaged)?;
        let range = part_range(bytes, HEADER_BYTES, len).ok_or(damaged)?;
        let directory = bytes.get(range).ok_or(damaged)?;
        if crc32c::crc32c(directory) != self.directory_crc {
            return Err(damaged);
        }
        let mut reader = Reader::new(directory);
        let mut rows: Vec<DirectoryRow> = Vec::with_capacity(self.sections);
        let mut row = || {
            let (id, version) = (reader.u32()?, reader.u32()?);
            let len = usize::try_from(reader.u32()?).ok()?;
            Some(DirectoryRow { id, version, len, crc: reader.u32()? })
        };
        for _ in 0..self.sections {
            let row = row().ok_or(damaged)?;
            if rows.last().is_some_and(|before| before.id >= row.id) {
                return Err(damaged);
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a snapshot is at most 1 GiB")
}

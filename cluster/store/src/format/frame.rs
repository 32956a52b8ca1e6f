//! A frame: one entry of the log as it lies in a segment file.
//!
//! ```text
//!   0  magic u16 = 0x4C46
//!   2  version u8 = 1
//!   3  kind u8              1 blank, 2 normal, 3 membership
//!   4  header crc u32       crc32c of bytes 8..64
//!   8  index u64
//!  16  term u64
//!  24  claim u64            index + 1 of the last entry that the leader had applied, and so knew to
//!                           be committed, when it proposed this one; 0: none
//!  32  content u64          xxh3-64 of the payload
//!  40  chain u64            xxh3-64 of {chain before, term, index, kind, content, payload len}
//!  48  base index u64       the first index of the segment file
//!  56  payload len u32
//!  60  place u32            position in the file / 512
//!  64  payload
//!   .  zeros to the end of the sector
//! ```
//!
//! Invariants: nothing in a frame is local to a node. A frame is believed only where its base,
//! place, index and chain say that it belongs; base and place tell a frame of an earlier life of a
//! recycled file, the chain tells a frame of another history. The padding is zero, because sealed
//! segments are compared byte by byte.

use super::{ZERO_SECTOR, to_sectors};
use crate::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{LogIndex, LogPosition, SiteId, Term};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 64;

const MAGIC: u16 = 0x4C46;
const VERSION: u8 = 1;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A leader's first entry of its term; no payload.
    Blank = 1,
    /// Operations for the state machine; the payload is a [`crate::entry::Entry`].
    Normal = 2,
    /// A membership of the Raft group, as the consensus crate writes it.
    Membership = 3,
}

impl EntryKind {
    /// The kind with this number, which frames and messages carry.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Blank),
            2 => Some(Self::Normal),
            3 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the log.
    pub position: LogPosition,
    /// What it is for.
    pub kind: EntryKind,
    /// The committed index that the leader knew when it proposed the entry, plus one; 0 for none.
    pub claim: u64,
    /// What it carries.
    pub payload: Bytes,
}

/// The hash by which a payload is known: in its frame, in the chain, and in events.
pub fn content_hash(payload: &[u8]) -> u64 {
    xxh3_64(payload)
}

/// The hash chain over the entries of a log: equal values mean equal logs up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain(pub u64);

impl Chain {
    /// The chain before the first entry of a site, so that logs of two sites never join.
    pub fn genesis(site: SiteId) -> Self {
        Self(xxh3_64(&site.0.0))
    }

    /// The chain after an entry.
    pub fn then(self, position: LogPosition, kind: EntryKind, content: u64, len: u32) -> Self {
        let mut link = [0u8; 40];
        let mut out = &mut link[..];
        out.put_u64_le(self.0);
        out.put_u64_le(position.term.0);
        out.put_u64_le(position.index.0);
        out.put_u64_le(content);
        out.put_u32_le(len);
        out.put_u32_le(u32::from(kind as u8));
        Self(xxh3_64(&link))
    }
}

/// The bytes before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The place of the entry in the log.
    pub position: LogPosition,
    /// What the entry is for.
    pub kind: EntryKind,
    /// See [`LogEntry::claim`].
    pub claim: u64,
    /// xxh3-64 of the payload.
    pub content: u64,
    /// The chain after this entry.
    pub chain: Chain,
    /// The first index of the segment.
    pub base: LogIndex,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// Position in the file, in sectors.
    pub place: u32,
}

/// Bytes of a frame with this payload, padding included.
pub const fn frame_bytes(payload_len: usize) -> u64 {
    to_sectors((FRAME_HEADER_BYTES + payload_len) as u64)
}

/// The zeros behind a payload.
pub fn padding(payload_len: usize) -> Bytes {
    let len = (FRAME_HEADER_BYTES + payload_len).next_multiple_of(SECTOR_BYTES)
        - FRAME_HEADER_BYTES
        - payload_len;
    Bytes::from_static(&ZERO_SECTOR[..len])
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub const fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_len as usize)
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = [0u8; FRAME_HEADER_BYTES - 8];
        let mut fields = &mut body[..];
        fields.put_u64_le(self.position.index.0);
        fields.put_u64_le(self.position.term.0);
        fields.put_u64_le(self.claim);
        fields.put_u64_le(self.content);
        fields.put_u64_le(self.chain.0);
        fields.put_u64_le(self.base.0);
        fields.put_u32_le(self.payload_len);
        fields.put_u32_le(self.place);
        out.put_u16_le(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u32_le(crc32c::crc32c(&body));
        out.put_slice(&body);
    }

    /// Reads a header. `None` if these bytes do not begin a frame of this version. It says nothing
    /// yet about the payload, nor whether the frame belongs where it was found.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (magic, version, kind) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let crc = reader.u32()?;
        let body = bytes.get(8..FRAME_HEADER_BYTES)?;
        if magic != MAGIC || version != VERSION || crc != crc32c::crc32c(body) {
            return None;
        }
        let index = LogIndex(reader.u64()?);
        Some(Self {
            position: LogPosition { index, term: Term(reader.u64()?) },
            kind: EntryKind::from_byte(kind)?,
            claim: reader.u64()?,
            content: reader.u64()?,
            chain: Chain(reader.u64()?),
            base: LogIndex(reader.u64()?),
            payload_len: reader.u32()?,
            place: reader.u32()?,
        })
    }
}

/// What a frame must agree with to be believed at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The first index of the segment.
    pub base: LogIndex,
    /// The index that is due.
    pub index: LogIndex,
    /// Position in the file, in bytes.
    pub at: u64,
    /// The chain before the entry, where the reader knows it.
    pub chain: Option<Chain>,
}

/// Why bytes are not the frame that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// There is no header, or its checksum is wrong.
    #[error("no frame header")]
    NoHeader,
    /// A good header that belongs elsewhere: another segment or an earlier life of this file.
    #[error("a frame of the segment at {0}")]
    OtherBase(LogIndex),
    /// A good header of this segment that belongs to another place of it.
    #[error("a frame that belongs to position {0}")]
    OtherPlace(u64),
    /// A good header at its place, with an index that is not due.
    #[error("index {0} is not due")]
    OtherIndex(LogIndex),
    /// The frame does not follow from the ones before it.
    #[error("the chain is broken")]
    Chain,
    /// The payload is not the one that was written, or ends early.
    #[error("the payload is damaged")]
    Payload,
}

/// Checks the header against what is due, before anything is read on the strength of its length.
///
/// # Errors
/// [`FrameError`], never `Payload`.
pub fn check_header(bytes: &[u8], expected: &Expected) -> Result<FrameHeader, FrameError> {
    let header = FrameHeader::decode(bytes).ok_or(FrameError::NoHeader)?;
    if header.base != expected.base {
        return Err(FrameError::OtherBase(header.base));
    }
    let place = u64::from(header.place) * SECTOR_BYTES as u64;
    if place != expected.at {
        return Err(FrameError::OtherPlace(place));
    }
    if header.position.index != expected.index {
        return Err(FrameError::OtherIndex(header.position.index));
    }
    if let Some(before) = expected.chain {
        let chain = before.then(header.position, header.kind, header.content, header.payload_len);
        if chain != header.chain {
            return Err(FrameError::Chain);
        }
    }
    Ok(header)
}

/// Checks payload and padding of a frame whose header was checked. `frame` begins with the header.
///
/// # Errors
/// [`FrameError::Payload`].
pub fn check_payload(frame: &Bytes, header: &FrameHeader) -> Result<LogEntry, FrameError> {
    let end = FRAME_HEADER_BYTES + header.payload_len as usize;
    let padded = usize::try_from(header.frame_bytes()).map_err(|_| FrameError::Payload)?;
    let padding = frame.get(end..padded).ok_or(FrameError::Payload)?;
    let payload = frame.slice(FRAME_HEADER_BYTES..end);
    if xxh3_64(&payload) != header.content || padding.iter().any(|byte| *byte != 0) {
        return Err(FrameError::Payload);
    }
    Ok(LogEntry { position: header.position, kind: header.kind, claim: header.claim, payload })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, each_flipped};
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8], expected: &Expected) -> Bytes {
        let content = xxh3_64(payload);
        let position = at(7, expected.index.0);
        let payload_len = payload.len() as u32;
        let chain = expected.chain.expect("given");
        let header = FrameHeader {
            position,
            kind: EntryKind::Normal,
            claim: 3,
            content,
            chain: chain.then(position, EntryKind::Normal, content, payload_len),
            base: expected.base,
            payload_len,
            place: (expected.at / 512) as u32,
        };
        let mut out = BytesMut::new();
        header.encode(&mut out);
        out.put_slice(payload);
        out.put_slice(&padding(payload.len()));
        assert_eq!(out.len() as u64, header.frame_bytes());
        out.freeze()
    }

    fn read(bytes: &Bytes, expected: &Expected) -> Result<LogEntry, FrameError> {
        let header = check_header(bytes, expected)?;
        check_payload(bytes, &header)
    }

    fn due() -> Expected {
        Expected { base: LogIndex(5), index: LogIndex(9), at: 4096, chain: Some(Chain(77)) }
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let bytes = frame(b"payload", &due());
        assert_eq!(bytes.len(), 512);
        for (bit, flipped) in each_flipped(&bytes) {
            assert!(read(&flipped.into(), &due()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(read(&bytes.slice(..len), &due()).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_frame_is_believed_only_where_it_belongs() {
        let bytes = frame(b"payload", &due());
        let with = |change: fn(&mut Expected)| {
            let mut expected = due();
            change(&mut expected);
            read(&bytes, &expected).expect_err("elsewhere")
        };
        assert_eq!(with(|e| e.base = LogIndex(6)), FrameError::OtherBase(LogIndex(5)));
        assert_eq!(with(|e| e.at = 8192), FrameError::OtherPlace(4096));
        assert_eq!(with(|e| e.index = LogIndex(10)), FrameError::OtherIndex(LogIndex(9)));
        assert_eq!(with(|e| e.chain = Some(Chain(78))), FrameError::Chain);
    }

    #[test]
    fn the_layout_is_as_drawn() {
        let bytes = frame(b"", &due());
        assert_eq!(&bytes[..4], &[0x46, 0x4c, 1, 2]);
        assert_eq!(&bytes[8..16], &9u64.to_le_bytes());
        assert_eq!(&bytes[16..24], &7u64.to_le_bytes());
        assert_eq!(&bytes[24..32], &3u64.to_le_bytes());
        assert_eq!(&bytes[48..56], &5u64.to_le_bytes());
        assert_eq!(&bytes[60..64], &8u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn frames_read_back(payload: Vec<u8>, base: u64, step in 0u64..1000, sector in 8u32.., chain: u64) {
            let expected = Expected {
                base: LogIndex(base),
                index: LogIndex(base.saturating_add(step)),
                at: u64::from(sector) * 512,
                chain: Some(Chain(chain)),
            };
            let bytes = frame(&payload, &expected);
            prop_assert_eq!(bytes.len() as u64, frame_bytes(payload.len()));
            let entry = read(&bytes, &expected).expect("as written");
            prop_assert_eq!(entry.payload, payload);
            prop_assert_eq!(entry.claim, 3);
        }

        #[test]
        fn arbitrary_bytes_are_no_frame(bytes: Vec<u8>) {
            prop_assert!(read(&bytes.into(), &due()).is_err());
        }
    }
}

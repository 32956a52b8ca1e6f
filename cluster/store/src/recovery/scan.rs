//! Reads a segment that is not sealed from front to back and says what is there; it judges
//! nothing and changes nothing.
//!
//! Invariants: memory is bounded by one window, whatever the file holds; no length is believed
//! before its header verified and it fits into a segment; sectors that the disk cannot read are
//! met as bytes that no checksum accepts, unless a flush mark holds what was flushed there.

use super::table::Behind;
use crate::files::{read_around, read_noting};
use crate::format::SECTOR;
use crate::format::frame::{
    self, Chain, Expected, FRAME_HEADER_BYTES, FrameError, FrameHeader, LogEntry,
};
use crate::format::header::{FRAMES_AT, SegmentHeader};
use crate::format::mark::{TailCopy, block_of};
use crate::log::{Meta, OpenSegment};
use bytes::{Bytes, BytesMut};
use fulmar_host::disk::File;
use fulmar_types::LogIndex;
use fulmar_types::limits::BLOCK_BYTES;
use std::io;

/// How much is read at a time, in bytes.
const WINDOW_BYTES: u64 = 4 << 20;

/// What an unfinished group can have reached beyond the better flush mark: that mark may be of the
/// group before, and a group is at most [`crate::writer::GROUP_BYTES_MAX`] long.
const LOOK_AHEAD_BYTES: u64 = 2 * crate::writer::GROUP_BYTES_MAX;

/// What a segment holds, its torn blocks mended from the copies in its marks.
pub(super) struct Scanned {
    /// Its good frames.
    pub segment: OpenSegment,
    /// Entries below this index are committed: the leaders who wrote the good frames had applied
    /// them.
    pub claim: LogIndex,
    /// What lies behind them.
    pub behind: Behind,
    /// The end of the last frame of this life, or of the last unreadable sector, that was found
    /// further behind.
    pub remnant_end: Option<u64>,
    /// What of their last block the good frames fill.
    pub tail: Bytes,
    /// Blocks that say something else in the file than what was flushed, as they have to be.
    pub repairs: Vec<TailCopy>,
}

/// A file, read through one window.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    /// How much is read at a time.
    ahead: u64,
    /// Whether a sector that cannot be read is read around. Only recovery may: while a node runs,
    /// no power cut has torn one, so a failed read says something of the disk and not of the bytes.
    around: bool,
    /// What was flushed at some places, whatever the file says.
    copies: Vec<TailCopy>,
    /// The end of the last sector met that cannot be read.
    unreadable_end: Option<u64>,
    at: u64,
    bytes: Bytes,
}

impl<'a> Window<'a> {
    /// A window for a node that runs: a failed read fails.
    pub async fn new(file: &'a dyn File) -> io::Result<Self> {
        Self::with_ahead(file, WINDOW_BYTES).await
    }

    /// A window for somebody who knows how much will be wanted.
    pub async fn with_ahead(file: &'a dyn File, ahead: u64) -> io::Result<Self> {
        let len = file.len_bytes().await?;
        let (copies, bytes) = (Vec::new(), Bytes::new());
        Ok(Self { file, len, ahead, around: false, copies, unreadable_end: None, at: 0, bytes })
    }

    /// A window for recovery, which reads around what a power cut has left unreadable and shows the
    /// copies that were flushed before in its place.
    async fn around(file: &'a dyn File, copies: &[TailCopy]) -> io::Result<Self> {
        Ok(Self { around: true, copies: copies.to_vec(), ..Self::new(file).await? })
    }

    /// The bytes at a position, fewer than `len` only where the file ends.
    pub async fn get(&mut self, at: u64, len: u64) -> io::Result<Bytes> {
        let len = len.min(self.len.saturating_sub(at));
        let end = self.at + self.bytes.len() as u64;
        if at < self.at || at + len > end {
            let read = len.max(self.ahead).min(self.len.saturating_sub(at));
            let read = usize::try_from(read).expect("a window and a frame fit into memory");
            self.bytes = match self.file.read(at, read).await {
                Ok(bytes) => bytes,
                Err(_) if self.around => {
                    let (bytes, unreadable_end) = read_noting(self.file, at, read).await?;
                    self.unreadable_end = self.unreadable_end.max(unreadable_end);
                    bytes
                }
                // What lies further on is nobody's yet, and may be torn.
                Err(_) => self.file.read(at, len as usize).await?,
            };
            self.at = at;
            self.lay_over();
        }
        let from = usize::try_from(at - self.at).expect("within the window");
        let to = from.saturating_add(len as usize).min(self.bytes.len());
        Ok(self.bytes.slice(from.min(to)..to))
    }

    fn lay_over(&mut self) {
        for TailCopy { at, bytes } in &self.copies {
            let (from, to) = (self.at.max(*at), at + bytes.len() as u64);
            let to = to.min(self.at + self.bytes.len() as u64);
            if from >= to {
                continue;
            }
            let copy = &bytes[(from - at) as usize..(to - at) as usize];
            let place = (from - self.at) as usize..(to - self.at) as usize;
            if self.bytes[place.clone()] != *copy {
                let mut mended = BytesMut::from(std::mem::take(&mut self.bytes));
                mended[place].copy_from_slice(copy);
                self.bytes = mended.freeze();
            }
        }
    }

    /// Reads the frame that is due at a place.
    pub async fn frame(
        &mut self,
        expected: &Expected,
        segment_bytes: u64,
    ) -> io::Result<Result<(FrameHeader, LogEntry), FrameError>> {
        let head = self.get(expected.at, FRAME_HEADER_BYTES as u64).await?;
        let header = match frame::check_header(&head, expected) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        // Bounds the length before anything is read for it.
        if expected.at + header.frame_bytes() > segment_bytes {
            return Ok(Err(FrameError::Payload));
        }
        let frame = self.get(expected.at, header.frame_bytes()).await?;
        Ok(frame::check_payload(&frame, &header).map(|entry| (header, entry)))
    }
}

/// Scans the segment that begins with `header`, up to its successor where there is one. `copies` are
/// those of its marks.
pub(super) async fn scan(
    file: &dyn File,
    (header, copies): (SegmentHeader, &[TailCopy]),
    segment_bytes: u64,
    successor: Option<LogIndex>,
) -> io::Result<Scanned> {
    let mut window = Window::around(file, copies).await?;
    let mut segment = OpenSegment::new(header);
    let mut claim = LogIndex(0);
    let behind = loop {
        if successor == Some(segment.next()) {
            break Behind::Complete;
        }
        let expected = due(&segment);
        if expected.at + SECTOR > segment_bytes {
            break Behind::Zeros;
        }
        match window.frame(&expected, segment_bytes).await? {
            Ok((header, _)) if may_follow(&segment, &header) => {
                // Whoever proposed an entry had not applied it.
                claim = claim.max(LogIndex(header.claim).min(header.position.index));
                segment.metas.push(meta(&header));
            }
            Ok(_) => break Behind::Bad(FrameError::Chain),
            Err(error) => {
                let sector = window.get(expected.at, SECTOR).await?;
                break classify(error, &sector, header.base);
            }
        }
    };
    let remnant_end = match behind {
        Behind::Complete => None,
        _ => {
            let remnant_end = last_remnant(&mut window, &segment, segment_bytes).await?;
            // Nothing can be written into a part of a block that cannot be read.
            remnant_end.max(window.unreadable_end.filter(|unreadable| *unreadable > segment.end()))
        }
    };
    let end = segment.end();
    let tail = window.get(block_of(end), end - block_of(end)).await?;
    let repairs = repairs(&mut window, copies, end).await?;
    Ok(Scanned { segment, claim, behind, remnant_end, tail, repairs })
}

/// The blocks below `end` in which the file does not say what the copies do, whole: a block that
/// cannot be read can only be written as a whole.
async fn repairs(
    window: &mut Window<'_>,
    copies: &[TailCopy],
    end: u64,
) -> io::Result<Vec<TailCopy>> {
    let mut repairs = Vec::new();
    for TailCopy { at, bytes } in copies.iter().filter(|copy| copy.at < end) {
        let len = (BLOCK_BYTES as u64).min(window.len - at);
        let has = window.file.read(*at, len as usize).await;
        if has.is_ok_and(|has| has.starts_with(bytes)) {
            continue;
        }
        let mut block = window.get(*at, len.min(end - at)).await?.to_vec();
        block.resize(len as usize, 0);
        repairs.push(TailCopy { at: *at, bytes: block.into() });
    }
    Ok(repairs)
}

fn due(segment: &OpenSegment) -> Expected {
    Expected {
        base: segment.header.base,
        index: segment.next(),
        at: segment.end(),
        chain: Some(segment.chain()),
    }
}

/// Terms never fall along a log; a frame with a good chain that says otherwise was not written by
/// this program.
fn may_follow(segment: &OpenSegment, header: &FrameHeader) -> bool {
    segment.last().is_none_or(|last| last.term <= header.position.term)
}

pub(super) fn meta(header: &FrameHeader) -> Meta {
    Meta {
        sector: header.place,
        payload_len: header.payload_len,
        term: header.position.term,
        chain: header.chain,
    }
}

/// Tells a torn frame of this life from what was there before it.
fn classify(error: FrameError, sector: &[u8], base: LogIndex) -> Behind {
    match error {
        FrameError::NoHeader if sector.iter().all(|byte| *byte == 0) => Behind::Zeros,
        FrameError::NoHeader => Behind::Stale(error),
        FrameError::OtherBase(other) if other != base => Behind::Stale(error),
        _ => Behind::Bad(error),
    }
}

/// Looks for frames of this life behind the good ones, as far as the last groups can have reached.
async fn last_remnant(
    window: &mut Window<'_>,
    segment: &OpenSegment,
    segment_bytes: u64,
) -> io::Result<Option<u64>> {
    let from = segment.end();
    let to = segment_bytes.min(window.len).min(from + LOOK_AHEAD_BYTES);
    let mut found = None;
    let mut at = from;
    while at + SECTOR <= to {
        let head = window.get(at, FRAME_HEADER_BYTES as u64).await?;
        if let Some(header) = FrameHeader::decode(&head)
            && header.base == segment.header.base
            && u64::from(header.place) * SECTOR == at
        {
            found = found.max(Some((at + header.frame_bytes()).min(to)));
        }
        at += SECTOR;
    }
    Ok(found)
}

/// A frame of an earlier life of the file as it would look as the next entry of this one: what a
/// recovery that does not ask for base, index and chain would believe.
pub(super) async fn adopt_stale(
    file: &dyn File,
    segment: &OpenSegment,
    segment_bytes: u64,
) -> io::Result<Option<FrameHeader>> {
    let mut window = Window::around(file, &[]).await?;
    let due = due(segment);
    let head = window.get(due.at, FRAME_HEADER_BYTES as u64).await?;
    let Some(stale) = FrameHeader::decode(&head) else { return Ok(None) };
    let fits = due.at + stale.frame_bytes() <= segment_bytes;
    if u64::from(stale.place) * SECTOR != due.at || !fits {
        return Ok(None);
    }
    let frame = window.get(due.at, stale.frame_bytes()).await?;
    if frame::check_payload(&frame, &stale).is_err() {
        return Ok(None);
    }
    let mut position = stale.position;
    position.index = due.index;
    position.term = segment.last().map_or(position.term, |last| last.term.max(position.term));
    let before = segment.chain();
    let chain: Chain = before.then(position, stale.kind, stale.content, stale.payload_len);
    Ok(Some(FrameHeader { position, chain, base: due.base, ..stale }))
}

/// The blocks in front of the frames.
pub(super) async fn read_page(file: &dyn File) -> io::Result<Bytes> {
    read_around(file, 0, usize::try_from(FRAMES_AT).expect("three blocks")).await
}

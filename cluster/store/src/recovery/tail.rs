//! The segments that are not sealed: read and judged first ([`Tail::read`]), settled afterwards
//! ([`Tail::settle`]).

use super::scan::{self, Scanned, adopt_stale, read_page, scan};
use super::sealed::follows;
use super::table::{Behind, Stop, TailSeen, TailVerdict, judge_tail};
use super::{SealedSegment, SegmentFile, next_spare, report_stop, retire};
use crate::error::{Damage, DiskError, Failure, is_full};
use crate::files::{
    forget_cached, open_if_there, read_around, remove_if_there, replace, sync_dir, zero_range,
    zeros,
};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use crate::format::header::{FRAMES_AT, SegmentHeader};
use crate::format::identity::Identity;
use crate::format::manifest::Manifest;
use crate::format::mark::{FlushMark, Marks, block_of};
use crate::log::{OpenLog, OpenSegment};
use crate::paths::Paths;
use crate::space::{Ballast, with_ballast};
use crate::spare::fill;
use crate::writer::OpenFile;
use bytes::{Bytes, BytesMut};
use fulmar_host::disk::{File, Flush, Write};
use fulmar_host::{Host, planted};
use fulmar_types::limits::{BLOCK_BYTES, SECTOR_BYTES};
use fulmar_types::{LogIndex, LogPosition, Plant, Probe};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What is known before the unsealed segments are read.
pub(super) struct Known<'a> {
    pub identity: Identity,
    pub manifest: &'a Manifest,
    pub sealed: &'a [SealedSegment],
    pub segments: &'a [LogIndex],
    pub snapshot: Option<LogPosition>,
}

/// One unsealed segment, read and judged.
struct Read {
    path: PathBuf,
    file: SegmentFile,
    scanned: Scanned,
    mark: Option<FlushMark>,
    wipe_to: Option<u64>,
}

impl Read {
    fn cut_bytes(&self) -> u64 {
        self.wipe_to.map_or(0, |to| to.saturating_sub(self.scanned.segment.end()))
    }

    /// Writes back what a power cut has taken from blocks that were flushed. The marks keep the
    /// copies until that is durable.
    async fn repair(&self, host: &Host) -> io::Result<()> {
        let repairs = &self.scanned.repairs;
        if repairs.is_empty() {
            return Ok(());
        }
        host.probe(Probe::TornBlockMended);
        let writes = repairs.iter().map(|block| Write::one(block.at, block.bytes.clone()));
        self.file.write(writes.collect(), Flush::Data).await
    }
}

/// All of them.
pub(super) struct Tail {
    segment_bytes: u64,
    read: Vec<Read>,
    /// Segments behind a cut that only a planted bug makes.
    dropped: Vec<LogIndex>,
}

/// The log that the node goes on with.
pub(super) struct Settled {
    pub log: OpenLog,
    pub files: BTreeMap<LogIndex, OpenFile>,
    /// Entries below this index are committed, as the log itself says.
    pub claim: LogIndex,
    pub cut_bytes: u64,
}

/// Whether the first segment of a log has a frame, for a directory without an identity.
pub(super) async fn has_first_frame(host: &Host, paths: &Paths) -> Result<bool, DiskError> {
    let path = paths.segment(LogIndex(0));
    let Some(file) = open_if_there(host.disk.as_ref(), &path).await? else { return Ok(false) };
    let head = read_around(file.as_ref(), FRAMES_AT, FRAME_HEADER_BYTES)
        .await
        .map_err(DiskError::with("read", &path))?;
    Ok(FrameHeader::decode(&head).is_some_and(|header| header.base == LogIndex(0)))
}

impl Tail {
    /// Reads and judges the unsealed segments. Changes nothing.
    pub async fn read(host: &Host, paths: &Paths, known: &Known<'_>) -> Result<Self, Failure> {
        let segment_bytes = known.identity.segment_bytes;
        let bases = named(paths, known)?;
        let mut headers = Vec::with_capacity(bases.len());
        for base in &bases {
            headers.push(open(host, paths, *base, known).await?);
        }
        let mut tail = Self { segment_bytes, read: Vec::new(), dropped: Vec::new() };
        let mut opened = headers.into_iter().peekable();
        while let Some((path, file, header, page)) = opened.next() {
            let successor = opened.peek().map(|(_, _, header, _)| *header);
            let marks = Marks::read(&page, header.base);
            let (mark, begins) = (marks.best, (header, marks.copies.as_slice()));
            let scanned = scan(file.as_ref(), begins, segment_bytes, successor.map(|s| s.base))
                .await
                .map_err(DiskError::with("read", &path))?;
            let seen = seen(&scanned, mark, successor, known.snapshot);
            let wipe_to = match judge_tail(&seen) {
                TailVerdict::Whole => None,
                TailVerdict::Cut { wipe_to } => Some(wipe_to),
                TailVerdict::Stop(stop) => {
                    if !planted(Plant::CutAtAnyDamage) {
                        report_stop(host, &stop);
                        return Err(stopped(paths, &path, &scanned, &stop).into());
                    }
                    tail.dropped = opened.map(|(_, _, header, _)| header.base).collect();
                    let wipe_to = Some(segment_bytes);
                    tail.read.push(Read { path, file, scanned, mark, wipe_to });
                    return Ok(tail);
                }
            };
            if matches!(scanned.behind, Behind::Stale(FrameError::OtherBase(_))) {
                host.probe(Probe::StaleFrameRefused);
            }
            tail.read.push(Read { path, file, scanned, mark, wipe_to });
        }
        Ok(tail)
    }

    /// Does what was decided, and makes what was read durable before it is trusted.
    pub async fn settle(
        mut self,
        host: &Host,
        paths: &Paths,
        manifest: &mut Manifest,
        spares: &mut Vec<u64>,
    ) -> Result<Settled, Failure> {
        let cut_bytes = self.read.iter().map(Read::cut_bytes).sum();
        let claim = self.read.iter().map(|read| read.scanned.claim).max().unwrap_or_default();
        if cut_bytes > 0 {
            host.probe(Probe::TornTailCut);
        }
        for read in &self.read {
            read.repair(host).await.map_err(DiskError::with("write", &read.path))?;
        }
        if planted(Plant::TrustRecycledTail)
            && let Some(read) = self.read.last_mut()
        {
            let adopted =
                adopt_all(read.file.as_ref(), &mut read.scanned.segment, self.segment_bytes);
            adopted.await.map_err(DiskError::with("write", &read.path))?;
            let end = read.scanned.segment.end();
            let tail = read.file.read(block_of(end), (end - block_of(end)) as usize).await;
            read.scanned.tail = tail.map_err(DiskError::with("read", &read.path))?;
        }
        let mut drop: Vec<LogIndex> = std::mem::take(&mut self.dropped);
        drop.reverse();
        // A segment without a frame has no reason to be there, and the next entry may fit into the
        // one before it. Only behind a sealed one it stays.
        while self.read.len() > 1
            && self.read.last().is_some_and(|read| read.scanned.segment.metas.is_empty())
            && let Some(read) = self.read.pop()
        {
            drop.push(read.scanned.segment.header.base);
        }
        let last = self.read.last().expect("a log has an open segment");
        let active = last.scanned.segment.header.base;
        // Before its successors go: without them, and without the marks that an unfinished seal
        // has erased, nothing would say that its frames were flushed.
        let sequence = settle_active(last).await.map_err(DiskError::with("write", &last.path))?;
        if !drop.is_empty() {
            manifest.active = active;
            manifest.generation += 1;
            let (disk, path) = (host.disk.as_ref(), paths.manifest());
            let bytes = manifest.encode();
            let len = bytes.len() as u64;
            let ballast = Ballast::new(paths);
            with_ballast(disk, &ballast, len, || replace(disk, &path, bytes.clone())).await?;
            // Newest first, one at a time, so that a crash leaves no gap.
            for base in drop {
                spares.push(retire(host, paths, base, next_spare(spares)).await?);
            }
        }
        refill(host, paths, (last, self.segment_bytes), spares).await?;
        let mut files = BTreeMap::new();
        let mut segments = BTreeMap::new();
        for read in self.read {
            let base = read.scanned.segment.header.base;
            // A completed segment gets no further mark.
            let before = read.mark.map_or(0, |mark| mark.sequence);
            let sequence = if base == active { sequence } else { before };
            let tail = read.scanned.tail.to_vec();
            files.insert(base, OpenFile { file: read.file, sequence, tail });
            segments.insert(base, read.scanned.segment);
        }
        let log = OpenLog::recovered(self.segment_bytes, segments);
        Ok(Settled { log, files, claim, cut_bytes })
    }
}

/// The bases of the unsealed segments, if all that must be there are.
fn named(paths: &Paths, known: &Known<'_>) -> Result<Vec<LogIndex>, Damage> {
    let manifest = known.manifest;
    let end = manifest.end().unwrap_or_default();
    let bases: Vec<LogIndex> = known.segments.iter().filter(|b| **b >= end).copied().collect();
    for must in [end, manifest.active] {
        if !bases.contains(&must) {
            let what = "this segment was begun, and it is missing";
            return Err(Damage::new(&paths.segment(must), None, what));
        }
    }
    Ok(bases)
}

type Opened = (PathBuf, SegmentFile, SegmentHeader, Bytes);

async fn open(
    host: &Host,
    paths: &Paths,
    base: LogIndex,
    known: &Known<'_>,
) -> Result<Opened, Failure> {
    let path = paths.segment(base);
    let Some(file) = open_if_there(host.disk.as_ref(), &path).await? else {
        return Err(Damage::new(&path, None, "it is missing").into());
    };
    // A flush that failed in an earlier life may have left what only the page cache has.
    forget_cached(file.as_ref()).await.map_err(DiskError::with("flush", &path))?;
    let page = read_page(file.as_ref()).await.map_err(DiskError::with("read", &path))?;
    let header = page.get(..SECTOR_BYTES).and_then(SegmentHeader::decode);
    let Some(header) = header.filter(|h| h.base == base && h.site == known.identity.site) else {
        let what = "the header of the segment is not readable, or of another segment or site";
        return Err(Damage::new(&path, Some(0), what).into());
    };
    if let Some(before) = known.sealed.last()
        && before.info.last.index.next() == base
        && !follows(&header, before)
    {
        let what = "it does not continue the segment before it";
        return Err(Damage::new(&path, Some(0), what).into());
    }
    Ok((path, file, header, page))
}

fn seen(
    scanned: &Scanned,
    mark: Option<FlushMark>,
    successor: Option<SegmentHeader>,
    snapshot: Option<LogPosition>,
) -> TailSeen {
    let segment = &scanned.segment;
    TailSeen {
        end: segment.end(),
        next: segment.next(),
        behind: scanned.behind,
        remnant_end: scanned.remnant_end,
        mark,
        chain_at_mark: mark.and_then(|mark| segment.chain_at(mark.flushed)),
        successor: successor.map(|header| header.base),
        successor_agrees: successor.is_some_and(|header| header == segment.successor()),
        snapshot,
    }
}

fn stopped(paths: &Paths, path: &Path, scanned: &Scanned, stop: &Stop) -> Damage {
    let segment: &OpenSegment = &scanned.segment;
    let mut what = format!("entry {}: {stop}", segment.next());
    if let Stop::CompletedFrame(_) = stop
        && !matches!(scanned.behind, Behind::Bad(_))
    {
        // Where a segment ends is not written in it, so one that is missing looks like this too.
        let missing = paths.segment(segment.next());
        what = format!("{what}; or a segment is missing, {}", missing.display());
    }
    Damage::new(path, Some(segment.end()), what)
}

/// Gives a segment that is appended to again its full size back, which an unfinished seal has cut:
/// whoever has a segment has the space for it. If there is none left, the file that was retired
/// just now gives it.
async fn refill(
    host: &Host,
    paths: &Paths,
    (read, segment_bytes): (&Read, u64),
    spares: &mut Vec<u64>,
) -> Result<(), DiskError> {
    loop {
        match fill(read.file.as_ref(), &read.path, segment_bytes).await {
            Err(error) if is_full(&error.source) => {
                let Some(spare) = spares.pop() else { return Err(error) };
                remove_if_there(host.disk.as_ref(), &paths.spare(spare)).await?;
                sync_dir(host.disk.as_ref(), &paths.log).await?;
            }
            filled => return filled,
        }
    }
}

/// Wipes what was cut, flushes what was read, and only then says so in a mark. Returns the
/// sequence number of that mark.
async fn settle_active(read: &Read) -> io::Result<u64> {
    let file = read.file.as_ref();
    let segment = &read.scanned.segment;
    if let Some(wipe_to) = read.wipe_to {
        // Whole blocks, for a torn one may be unreadable.
        let whole = wipe_to.next_multiple_of(BLOCK_BYTES as u64);
        let end = file.len_bytes().await?.min(whole);
        let (border, tail) = (block_of(segment.end()), read.scanned.tail.clone());
        let first = (border + BLOCK_BYTES as u64).min(end.max(segment.end()));
        let mut pieces = vec![tail];
        pieces.extend(zeros(first - segment.end()));
        file.write(vec![Write { at: border, pieces }], Flush::No).await?;
        zero_range(file, first, end).await?;
    }
    // Apart from the mark: were they flushed together, a crash could leave a mark that speaks of
    // frames which were only in the page cache.
    file.sync().await?;
    let mark = FlushMark {
        base: segment.header.base,
        flushed: segment.end(),
        chain: segment.chain(),
        sequence: read.mark.map_or(0, |mark| mark.sequence) + 1,
        end: segment.end(),
    };
    let block = mark.encode(&read.scanned.tail);
    file.write(vec![Write::one(mark.slot_at(), block)], Flush::Data).await?;
    Ok(mark.sequence)
}

/// The planted bug: what lies behind the log is believed if only its own checksums are right.
async fn adopt_all(
    file: &dyn File,
    segment: &mut OpenSegment,
    segment_bytes: u64,
) -> io::Result<()> {
    while let Some(header) = adopt_stale(file, segment, segment_bytes).await? {
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        let at = segment.end();
        file.write(vec![Write::one(at, bytes.freeze())], Flush::No).await?;
        segment.metas.push(scan::meta(&header));
    }
    Ok(())
}

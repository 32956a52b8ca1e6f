//! Reading entries and batches: from memory where they are recent, else from the file, where every
//! checksum is verified.
//!
//! Invariants: a reader holds no lock while the disk works. What it then finds may have been cut,
//! removed or recycled meanwhile: bytes that do not verify are damage only if nothing was taken
//! away since the reader looked (`Core::epoch`); otherwise it looks again. An installation takes
//! files away before it tells, so its end is waited for. Damage closes the store; it is never
//! served.

use crate::core::{Core, Inner};
use crate::error::{Damage, DiskError, Failure, Poisoned, ReadError};
use crate::format::SECTOR;
use crate::format::frame::{Chain, Expected, FRAME_HEADER_BYTES, LogEntry};
use crate::index::{Answer, Index, Load};
use crate::recovery::scan::Window;
use crate::row::{Row, StreamId};
use bytes::Bytes;
use fulmar_host::disk::File;
use fulmar_host::task::yield_now;
use fulmar_types::{LogIndex, Offset, Term};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Batches that lie this close together are read at once.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// Batches are read at once up to this many bytes.
const SPAN_BYTES_MAX: u64 = 4 << 20;

/// A record batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The term of its entry, which is its Kafka leader epoch.
    pub term: Term,
    /// How many offsets it takes.
    pub records: u32,
    /// The batch, verbatim.
    pub bytes: Bytes,
}

/// A file to read from, as it was at one moment.
struct Source {
    epoch: u64,
    base: LogIndex,
    /// `None` for a sealed segment, whose handle is looked up.
    file: Option<Arc<dyn File>>,
}

/// Where entries are.
enum Found {
    Cached(Vec<LogEntry>),
    /// In a file, from this place on.
    File {
        source: Source,
        at: u64,
        end: LogIndex,
        chains: Option<Vec<Chain>>,
    },
    Load(Load),
}

impl Inner {
    fn path(&self, base: LogIndex) -> PathBuf {
        self.paths.segment(base)
    }

    async fn open(&self, source: &Source) -> Result<Option<Arc<dyn File>>, Poisoned> {
        if let Some(file) = &source.file {
            return Ok(Some(file.clone()));
        }
        let path = self.path(source.base);
        match self.handles.get(self.host.disk.as_ref(), source.base, &path).await {
            Ok(file) => Ok(Some(file)),
            Err(error) => self.broken(source.epoch, error.into()).await.map(|()| None),
        }
    }

    /// Judges a failure of a read: `Ok` if something was taken away since the reader looked, so
    /// that it must look again.
    pub async fn broken(&self, epoch: u64, failure: Failure) -> Result<(), Poisoned> {
        loop {
            let progress = self.progress.notified();
            {
                let core = self.usable()?;
                if core.epoch != epoch {
                    return Ok(());
                }
                if !core.installing {
                    break;
                }
            }
            progress.await;
        }
        self.fail(&failure, Vec::new());
        Err(Poisoned)
    }

    /// Reads entries from `range`, at least one if it is not empty, until `max_bytes` of payload
    /// or the end of the log.
    pub async fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, ReadError> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let (mut next, mut bytes) = (range.start, 0);
        let mut epoch = self.usable()?.epoch;
        while next < range.end && (entries.is_empty() || bytes < max_bytes) {
            let left = max_bytes.saturating_sub(bytes).max(1);
            let found = {
                let mut core = self.usable()?;
                if core.epoch != epoch {
                    // A cut in between: what was read and what comes may be of different logs.
                    entries.clear();
                    (epoch, next, bytes) = (core.epoch, range.start, 0);
                }
                match find(&mut core, next..range.end, left) {
                    Err(ReadError::Missing(_)) if !entries.is_empty() => break,
                    found => found?,
                }
            };
            let more = match found {
                Found::Cached(more) => more,
                Found::Load(load) => {
                    self.load(&load).await?;
                    continue;
                }
                Found::File { source, at, end, chains } => {
                    let wanted = Wanted { range: next..end, at, max_bytes: left, chains };
                    self.read_entries(&source, &wanted).await?
                }
            };
            for entry in more {
                assert_eq!(entry.position.index, next, "entries are read without gaps");
                next = next.next();
                bytes += entry.payload.len();
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// Reads entries of one segment. Empty if the reader must look again.
    async fn read_entries(
        &self,
        source: &Source,
        wanted: &Wanted,
    ) -> Result<Vec<LogEntry>, Poisoned> {
        let Some(file) = self.open(source).await? else { return Ok(Vec::new()) };
        let path = self.path(source.base);
        let failed = |error| Failure::from(DiskError::with("read", &path)(error));
        let mut entries = Vec::new();
        let (mut at, mut bytes, mut index) = (wanted.at, 0, wanted.range.start);
        let mut window = match Window::with_ahead(file.as_ref(), wanted.ahead()).await {
            Ok(window) => window,
            Err(error) => {
                return self.broken(source.epoch, failed(error)).await.map(|()| Vec::new());
            }
        };
        while index < wanted.range.end && (entries.is_empty() || bytes < wanted.max_bytes) {
            let due = Expected { base: source.base, index, at, chain: None };
            let failure = match window.frame(&due, u64::MAX).await {
                Ok(Ok((header, entry))) if wanted.agrees(index, header.chain) => {
                    at += header.frame_bytes();
                    bytes += entry.payload.len();
                    index = index.next();
                    entries.push(entry);
                    continue;
                }
                Ok(Ok(_)) => {
                    let what = format!("entry {index} is not the one that was written");
                    Damage::new(&path, Some(at), what).into()
                }
                Ok(Err(error)) => {
                    Damage::new(&path, Some(at), format!("entry {index}: {error}")).into()
                }
                Err(error) => failed(error),
            };
            self.broken(source.epoch, failure).await?;
            return Ok(Vec::new());
        }
        Ok(entries)
    }

    /// Reads a part of a footer that the index asked for.
    async fn load(&self, load: &Load) -> Result<(), Poisoned> {
        let (source, at) = {
            let core = self.usable()?;
            // Gone meanwhile: the index will not ask for it again.
            let Some(segment) = core.sealed.get(&load.segment) else { return Ok(()) };
            let at = segment.trailer.frames_end + u64::from(load.part.at);
            (Source { epoch: core.epoch, base: load.segment, file: None }, at)
        };
        let Some(file) = self.open(&source).await? else { return Ok(()) };
        let path = self.path(load.segment);
        let failure = match file.read(at, load.part.len as usize).await {
            Ok(bytes) => match self.usable()?.index.fill(load, bytes) {
                Ok(()) => return Ok(()),
                Err(error) => Damage::new(&path, Some(at), error).into(),
            },
            Err(error) => DiskError::with("read", &path)(error).into(),
        };
        self.broken(source.epoch, failure).await
    }

    /// Asks the index until it has all that it needs.
    pub async fn ask<T>(
        &self,
        mut question: impl FnMut(&mut Index) -> Answer<T>,
    ) -> Result<T, Poisoned> {
        loop {
            let answer = question(&mut self.usable()?.index);
            match answer {
                Answer::Ready(found) => return Ok(found),
                Answer::Load(load) => self.load(&load).await?,
            }
        }
    }

    /// Reads batches of a stream; the first one is given whatever its size.
    pub async fn read_stream(
        &self,
        stream: StreamId,
        offsets: Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<StoredBatch>, Poisoned> {
        let Range { start, end } = offsets;
        'again: loop {
            let rows = self.ask(|index| index.rows(stream, start, end, max_bytes)).await?;
            let mut batches = Vec::with_capacity(rows.len());
            let mut rows = rows.as_slice();
            while let Some(row) = rows.first() {
                let Some(located) = self.locate(row).await? else {
                    // Taken away meanwhile; whoever does that gets to finish it.
                    yield_now().await;
                    continue 'again;
                };
                let (source, at) = match located {
                    Located::Cached(bytes) => {
                        batches.push(self.checked(row, bytes, None).await?.ok_or(Poisoned)?);
                        rows = rows.get(1..).unwrap_or_default();
                        continue;
                    }
                    Located::File(source, at) => (source, at),
                };
                let mut span = vec![(*row, at)];
                self.extend_span(&source, &mut span, rows).await?;
                let Some(read) = self.read_span(&source, &span).await? else { continue 'again };
                batches.extend(read);
                rows = rows.get(span.len()..).unwrap_or_default();
            }
            return Ok(batches);
        }
    }

    /// Adds the rows that lie close behind the first one.
    async fn extend_span(
        &self,
        source: &Source,
        span: &mut Vec<(Row, u64)>,
        rows: &[Row],
    ) -> Result<(), Poisoned> {
        for row in rows.iter().skip(1) {
            let (Some((_, first)), Some((last, at))) = (span.first(), span.last()) else { break };
            let end = at + u64::from(last.len);
            let reach = first + SPAN_BYTES_MAX;
            match self.locate(row).await? {
                Some(Located::File(other, at))
                    if other.base == source.base
                        && other.epoch == source.epoch
                        && at >= end
                        && at - end <= GAP_BYTES_MAX
                        && at + u64::from(row.len) <= reach =>
                {
                    span.push((*row, at));
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Reads batches of one file at once. `None` if the reader must look again.
    async fn read_span(
        &self,
        source: &Source,
        span: &[(Row, u64)],
    ) -> Result<Option<Vec<StoredBatch>>, Poisoned> {
        let Some(file) = self.open(source).await? else { return Ok(None) };
        let (Some((_, from)), Some((last, at))) = (span.first(), span.last()) else {
            return Ok(Some(Vec::new()));
        };
        let len = usize::try_from(at + u64::from(last.len) - from).expect("bounded by the span");
        let bytes = match file.read(*from, len).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let path = self.path(source.base);
                self.broken(source.epoch, DiskError::with("read", &path)(error).into()).await?;
                return Ok(None);
            }
        };
        let mut batches = Vec::with_capacity(span.len());
        for (row, at) in span {
            let begin = usize::try_from(at - from).unwrap_or(usize::MAX);
            let end = begin.saturating_add(row.len as usize);
            let batch = if end <= bytes.len() { bytes.slice(begin..end) } else { Bytes::new() };
            match self.checked(row, batch, Some((source, *at))).await? {
                Some(batch) => batches.push(batch),
                None => return Ok(None),
            }
        }
        Ok(Some(batches))
    }

    /// Verifies a batch. `None` if the reader must look again.
    async fn checked(
        &self,
        row: &Row,
        bytes: Bytes,
        source: Option<(&Source, u64)>,
    ) -> Result<Option<StoredBatch>, Poisoned> {
        if bytes.len() == row.len as usize && crc32c::crc32c(&bytes) == row.crc {
            let Row { base_offset, term, records, .. } = *row;
            return Ok(Some(StoredBatch { base_offset, term, records, bytes }));
        }
        let what = format!("the batch at offset {} of entry {}", row.base_offset, row.index);
        let (epoch, path, at) = match source {
            Some((source, at)) => (source.epoch, self.path(source.base), Some(at)),
            // What was wrong in memory before it was written is wrong everywhere.
            None => (self.usable()?.epoch, self.paths.log.clone(), None),
        };
        self.broken(epoch, Damage::new(&path, at, what).into()).await.map(|()| None)
    }

    /// Where a batch is. `None` if its row is no longer there.
    async fn locate(&self, row: &Row) -> Result<Option<Located>, Poisoned> {
        loop {
            let load = {
                let mut core = self.usable()?;
                match locate(&mut core, row) {
                    Answer::Ready(located) => return Ok(located),
                    Answer::Load(load) => load,
                }
            };
            self.load(&load).await?;
        }
    }
}

/// Which entries to read, and from where.
struct Wanted {
    range: Range<LogIndex>,
    at: u64,
    max_bytes: usize,
    /// The chain after each entry, where it is in memory.
    chains: Option<Vec<Chain>>,
}

impl Wanted {
    /// About how many bytes will be read.
    fn ahead(&self) -> u64 {
        let entries = self.range.end.0 - self.range.start.0;
        // A header, its share of padding, and the term of a payload that is a little too large.
        let frames = entries.saturating_mul(FRAME_HEADER_BYTES as u64 + SECTOR);
        (self.max_bytes as u64).saturating_add(frames).min(SPAN_BYTES_MAX)
    }

    fn agrees(&self, index: LogIndex, chain: Chain) -> bool {
        let Some(chains) = &self.chains else { return true };
        let ordinal = usize::try_from(index.0 - self.range.start.0).unwrap_or(usize::MAX);
        chains.get(ordinal) == Some(&chain)
    }
}

enum Located {
    Cached(Bytes),
    File(Source, u64),
}

fn locate(core: &mut Core, row: &Row) -> Answer<Option<Located>> {
    let end = (row.at as usize).saturating_add(row.len as usize);
    if let Some(entry) = core.cache.get(row.index)
        && entry.position.term == row.term
        && end <= entry.payload.len()
    {
        let bytes = entry.payload.slice(row.at as usize..end);
        return Answer::Ready(Some(Located::Cached(bytes)));
    }
    let in_frame = FRAME_HEADER_BYTES as u64 + u64::from(row.at);
    let epoch = core.epoch;
    if let Some(segment) = core.log.as_ref().and_then(|log| log.segment_of(row.index)) {
        let base = segment.header.base;
        let located = segment.meta(row.index).zip(core.files.get(&base)).map(|(meta, file)| {
            let source = Source { epoch, base, file: Some(file.clone()) };
            Located::File(source, meta.at() + in_frame)
        });
        return Answer::Ready(located);
    }
    match core.index.place(row.index) {
        Answer::Load(load) => Answer::Load(load),
        Answer::Ready(place) => {
            let sealed = core.sealed.range(..=row.index).next_back();
            Answer::Ready(place.zip(sealed).map(|(place, (base, _))| {
                let source = Source { epoch, base: *base, file: None };
                Located::File(source, place.position + in_frame)
            }))
        }
    }
}

/// Where the entries from the start of a range are.
fn find(core: &mut Core, range: Range<LogIndex>, max_bytes: usize) -> Result<Found, ReadError> {
    let start = range.start;
    if let Some(floor) = core.floor
        && start <= floor.index
    {
        return Err(ReadError::Purged { floor });
    }
    let missing = ReadError::Missing(start);
    let log = core.log.as_ref().ok_or(missing)?;
    if start >= log.next() {
        return Err(missing);
    }
    let cached = core.cache.first();
    if cached.is_some_and(|first| first <= start) {
        return Ok(Found::Cached(cached_entries(core, range, max_bytes)));
    }
    let end = cached.unwrap_or(range.end).min(range.end);
    let epoch = core.epoch;
    if let Some(segment) = log.segment_of(start) {
        let base = segment.header.base;
        let file = core.files.get(&base).cloned();
        let meta = segment.meta(start).ok_or(missing)?;
        let end = end.min(segment.next());
        let from = usize::try_from(start.0 - base.0).map_err(|_| missing)?;
        let count = usize::try_from(end.0 - start.0).map_err(|_| missing)?;
        let chains = segment.metas.iter().skip(from).take(count).map(|meta| meta.chain).collect();
        let source = Source { epoch, base, file: Some(file.ok_or(missing)?) };
        return Ok(Found::File { source, at: meta.at(), end, chains: Some(chains) });
    }
    let (base, last) = match core.sealed.range(..=start).next_back() {
        Some((base, segment)) if start <= segment.info.last.index => {
            (*base, segment.info.last.index)
        }
        _ => return Err(missing),
    };
    match core.index.place(start) {
        Answer::Load(load) => Ok(Found::Load(load)),
        Answer::Ready(place) => {
            let at = place.ok_or(missing)?.position;
            let source = Source { epoch, base, file: None };
            Ok(Found::File { source, at, end: end.min(last.next()), chains: None })
        }
    }
}

fn cached_entries(core: &Core, range: Range<LogIndex>, max_bytes: usize) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    let (mut index, mut bytes) = (range.start, 0);
    while index < range.end && (entries.is_empty() || bytes < max_bytes) {
        let Some(entry) = core.cache.get(index) else { break };
        bytes += entry.payload.len();
        index = index.next();
        entries.push(entry.clone());
    }
    entries
}

//! Seals segments in the background: verifies their frames once more, adds footer and trailer, and
//! cuts the file to its length.
//!
//! ```text
//! wait until  the first entry of the next segment is committed   (else this one may be reopened)
//!             every entry of this one was applied                (the footer needs the outcomes)
//!             the file of the next one is on disk
//! then        read and verify every frame, hash
//!             a mark with a copy of the last block; flush        (the footer begins in that block)
//!             footer, trailer, length; flush
//!             marks <- 0; flush
//!             the manifest names the segment                     (in the queue of the writer)
//! ```
//!
//! Crash rule: until the manifest names it the segment is an open one; recovery ignores what lies
//! behind its frames, and it is sealed again when its entries were applied again.
//!
//! A seal that finds the disk full is done again later; snapshots wait for it.
//!
//! Never: seal bytes that do not verify. Other nodes would trust their hash.

use crate::core::{Core, Inner};
use crate::error::{Damage, DiskError, Failure, is_full};
use crate::files::{read_around, zeros};
use crate::footer::Summary;
use crate::format::frame::Expected;
use crate::format::header::{FRAMES_AT, SegmentHeader};
use crate::format::manifest::SealedInfo;
use crate::format::mark::{FlushMark, MARK_SLOTS_AT, Marks, block_of};
use crate::format::to_sectors;
use crate::format::trailer::Trailer;
use crate::log::OpenSegment;
use crate::recovery::SealedSegment;
use crate::recovery::scan::Window;
use crate::space::release;
use crate::writer::Job;
use bytes::Bytes;
use fulmar_host::disk::{File, Flush, Write};
use fulmar_host::task::yield_now;
use fulmar_host::time;
use fulmar_types::LogIndex;
use fulmar_types::limits::{BLOCK_BYTES, SECTOR_BYTES, SEGMENT_HEADER_BYTES};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

/// After this long a full disk is asked again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Other tasks run after this many bytes were verified.
const YIELD_BYTES: u64 = 1 << 20;

#[derive(Clone)]
struct Due {
    segment: OpenSegment,
    footer: Bytes,
    file: Arc<dyn File>,
}

/// The next segment that can be sealed, with its finished footer.
fn next_due(core: &mut Core) -> Option<Due> {
    let log = core.log.as_ref()?;
    let head = log.head();
    let (base, next) = (head.header.base, head.next());
    let is_closed = log.segments().len() > 1;
    let is_committed = core.committed_below > next;
    let is_applied = core.footers.get(&base).is_some_and(|footer| footer.next_index() == next);
    let is_behind = core.rolled.is_some_and(|rolled| rolled > base);
    if core.poisoned || !(is_closed && is_committed && is_applied && is_behind) {
        return None;
    }
    let file = core.files.get(&base)?.clone();
    let segment = head.clone();
    let footer = core.footers.remove(&base)?.finish();
    Some(Due { segment, footer, file })
}

/// Whether a segment that found the disk full is still to be sealed, and as it was: a snapshot that
/// was taken over meanwhile may have replaced it, or has its entries applied again.
fn still_due(core: &Core, due: &Due) -> bool {
    let base = due.segment.header.base;
    let is_head = core.log.as_ref().is_some_and(|log| log.head().header == due.segment.header);
    is_head
        && !core.footers.contains_key(&base)
        && core.applied.map(LogIndex::next) >= Some(due.segment.next())
}

/// A seal needs more space than there is: gives up some ballast for it, or waits a little.
async fn wait_for_space(
    inner: &Inner,
    error: &DiskError,
    footer_bytes: u64,
) -> Result<(), DiskError> {
    let ballast = (footer_bytes, inner.settings.ballast_kept_bytes());
    if release(inner.host.disk.as_ref(), &inner.ballast, ballast).await? {
        inner.ballast_released();
        return Ok(());
    }
    tracing::warn!(path = %error.path.display(), "no space to seal a segment now");
    time::sleep(FULL_DISK_PAUSE).await;
    Ok(())
}

/// Seals what can be sealed, until the store is dropped or fails.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut again: Option<Due> = None;
    loop {
        let sealing = inner.sealing.lock().await;
        let due = {
            let mut core = inner.core();
            let again = again.take().filter(|due| still_due(&core, due));
            again.or_else(|| next_due(&mut core))
        };
        let Some(due) = due else {
            drop(sealing);
            inner.seal_due.notified().await;
            if inner.core().poisoned {
                return;
            }
            continue;
        };
        match seal(&inner, due.clone()).await {
            // The footer is longer than the file. Nothing was promised yet: it is written again
            // when there is space.
            Err(Failure::Disk(error)) if is_full(&error.source) => {
                let footer_bytes = due.footer.len() as u64;
                again = Some(due);
                drop(sealing);
                if let Err(error) = wait_for_space(&inner, &error, footer_bytes).await {
                    inner.fail(&Failure::Disk(error), Vec::new());
                }
                if inner.core().poisoned {
                    return;
                }
            }
            Ok(segment) => {
                let (done, sealed) = oneshot::channel();
                let job = Job::Sealed { segment: Box::new(segment), done };
                if inner.enqueue(job).is_err() || sealed.await.is_err() {
                    return;
                }
            }
            Err(failure) => {
                inner.fail(&failure, Vec::new());
                return;
            }
        }
    }
}

async fn seal(inner: &Inner, due: Due) -> Result<SealedSegment, Failure> {
    let Due { segment, footer, file } = due;
    let base = segment.header.base;
    let path = inner.paths.segment(base);
    let segment_bytes = inner.settings.segment_bytes;
    let mut hash = Xxh3::new();
    let tail = verify(file.as_ref(), &path, &segment, segment_bytes, &mut hash).await?;
    let mark = last_mark(file.as_ref(), &segment).await.map_err(DiskError::with("read", &path))?;
    let padding = to_sectors(footer.len() as u64) - footer.len() as u64;
    hash.update(&footer);
    zeros(padding).iter().for_each(|piece| hash.update(piece));
    let last = segment.last().expect("a closed segment has an entry");
    let trailer = Trailer {
        base,
        frames_end: segment.end(),
        footer_len: footer.len() as u64,
        last,
        chain: segment.chain(),
        hash: hash.digest128(),
    };
    let written = async {
        file.write(vec![Write::one(mark.slot_at(), mark.encode(&tail))], Flush::Data).await?;
        let mut pieces = vec![footer.clone()];
        pieces.extend(zeros(padding));
        pieces.push(Bytes::from(trailer.encode()));
        // Whole blocks, for one that is torn may be unreadable.
        let end = trailer.file_bytes();
        pieces.extend(zeros(end.next_multiple_of(BLOCK_BYTES as u64) - end));
        file.write(vec![Write { at: trailer.frames_end, pieces }], Flush::No).await?;
        file.set_len(trailer.file_bytes()).await?;
        file.sync().await?;
        let no_mark = MARK_SLOTS_AT.map(|at| Write { at, pieces: zeros(BLOCK_BYTES as u64) });
        file.write(no_mark.to_vec(), Flush::Data).await
    };
    written.await.map_err(DiskError::with("write", &path))?;
    let summary = Summary::read(&footer).expect("the footer was encoded here");
    let info = SealedInfo { base, last, file_bytes: trailer.file_bytes(), hash: trailer.hash };
    Ok(SealedSegment { info, header: segment.header, trailer, summary })
}

/// A mark behind the last frame, whatever the marks say: a seal that power cut short may have left
/// none.
async fn last_mark(file: &dyn File, segment: &OpenSegment) -> io::Result<FlushMark> {
    let base = segment.header.base;
    let page = read_around(file, 0, SEGMENT_HEADER_BYTES).await?;
    let sequence = Marks::read(&page, base).best.map_or(0, |mark| mark.sequence) + 1;
    let (flushed, chain, end) = (segment.end(), segment.chain(), segment.end());
    Ok(FlushMark { base, flushed, chain, sequence, end })
}

/// Reads a segment back and checks every frame against what is in memory. Returns what of its last
/// block the frames fill.
async fn verify(
    file: &dyn File,
    path: &Path,
    segment: &OpenSegment,
    segment_bytes: u64,
    hash: &mut Xxh3,
) -> Result<Bytes, Failure> {
    let failed = |error| Failure::from(DiskError::with("read", path)(error));
    let sector = file.read(0, SECTOR_BYTES).await.map_err(failed)?;
    let header = SegmentHeader::decode(&sector);
    if header != Some(segment.header) {
        return Err(Damage::new(path, Some(0), "the header of the segment has changed").into());
    }
    let mut page = segment.header.encode();
    page.resize(SEGMENT_HEADER_BYTES, 0);
    hash.update(&page);
    let mut window = Window::new(file).await.map_err(failed)?;
    let mut chain = segment.header.chain;
    let mut yielded = FRAMES_AT;
    for (ordinal, meta) in segment.metas.iter().enumerate() {
        let index = LogIndex(segment.header.base.0 + ordinal as u64);
        let at = meta.at();
        let due = Expected { base: segment.header.base, index, at, chain: Some(chain) };
        let frame = window.frame(&due, segment_bytes).await.map_err(failed)?;
        if let Err(error) = frame.map(|(header, _)| chain = header.chain) {
            return Err(Damage::new(path, Some(at), format!("entry {index}: {error}")).into());
        }
        hash.update(&window.get(at, meta.end() - at).await.map_err(failed)?);
        if at - yielded >= YIELD_BYTES {
            yielded = at;
            yield_now().await;
        }
    }
    if chain != segment.chain() {
        return Err(Damage::new(path, None, "its frames are not the ones that were written").into());
    }
    let border = block_of(segment.end());
    window.get(border, segment.end() - border).await.map_err(failed)
}

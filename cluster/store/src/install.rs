//! Takes over a snapshot and the sealed segments below it from a peer.
//!
//! ```text
//! incoming/: segments and snapshot complete, verified, flushed
//!   -> install          the record: from here on it will be finished
//!   -> log/             segments moved, others become spares, the log goes on in a new segment
//!   -> snap/            the snapshot
//!   -> manifest
//!   -> install removed  from here on it is over
//! ```
//!
//! Invariants: every step can be done again, so a crash at any point leaves the old state (before
//! the record) or the new one (the next start finishes it). Local entries behind the snapshot are
//! kept if the local log agrees with it: they may have been acknowledged. Otherwise none of them
//! can ever be committed.

use crate::core::{Core, Inner};
use crate::error::{Damage, DiskError, Failure, IncomingError};
use crate::files::{create, open_if_there, read_small, remove_if_there, replace, sync_dir};
use crate::footer::Summary;
use crate::format::header::SegmentHeader;
use crate::format::install::InstallRecord;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest, SealedInfo};
use crate::index::Index;
use crate::paths::Paths;
use crate::recovery::{SealedSegment, follows, list, next_spare, open_sealed, retire};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, Snapshots};
use crate::space::{BLOCK_BYTES, Ballast, release, with_ballast};
use crate::spare;
use crate::writer::{OpenFile, Writer, begin_segment};
use fulmar_host::Host;
use fulmar_host::disk::{Flush, Write};
use fulmar_types::{Event, LogIndex, LogPosition, Probe};
use std::collections::BTreeMap;

/// What was checked and is ready to be taken over.
pub(crate) struct Installation {
    pub snapshot: LogPosition,
    /// All segments that will be there, in order.
    pub segments: Vec<SealedSegment>,
    /// How many of them lie in `incoming/`.
    pub moved: u32,
}

/// Checks that segments follow one another up to the snapshot, with gaps only where the peer has
/// removed some.
pub(crate) fn check(last: LogPosition, segments: &[SealedSegment]) -> Result<(), IncomingError> {
    let refuse = |what: String| Err(IncomingError::Incomplete(what));
    for pair in segments.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let due = before.info.last.index.next();
        if after.info.base < due {
            return refuse(format!("segment {} begins before {due}", after.info.base));
        }
        if after.info.base == due && !follows(&after.header, before) {
            return refuse(format!("segment {} continues another log", after.info.base));
        }
    }
    match segments.last() {
        Some(segment) if segment.info.last == last => Ok(()),
        Some(segment) => {
            refuse(format!("the segments end at {}, the snapshot at {last}", segment.info.last))
        }
        None => refuse("there is no segment".to_owned()),
    }
}

/// Saves the snapshot of an installation beside the segments.
pub(crate) async fn stage_snapshot(inner: &Inner, snapshot: &Snapshot) -> Result<(), DiskError> {
    let disk = inner.host.disk.as_ref();
    let path = inner.paths.incoming_snapshot();
    let bytes = snapshot.encode();
    let stage = || async {
        let file = create(disk, &path).await?;
        file.write(vec![Write::one(0, bytes.clone())], Flush::Data)
            .await
            .map_err(DiskError::with("write", &path))
    };
    with_ballast(disk, &inner.ballast, snapshot.encoded_len(), stage).await?;
    sync_dir(disk, &inner.paths.incoming).await
}

/// Finishes an installation that a crash interrupted, if there is one.
pub(crate) async fn resume(host: &Host, paths: &Paths, segment_bytes: u64) -> Result<(), Failure> {
    let disk = host.disk.as_ref();
    let path = paths.install();
    let Some(bytes) = read_small(disk, &path, MANIFEST_BYTES_MAX).await? else {
        return crate::recovery::clean_incoming(host, paths).await.map_err(Failure::from);
    };
    let Some(record) = InstallRecord::decode(&bytes) else {
        return Err(Damage::new(&path, None, "its checksum is wrong").into());
    };
    let ballast = Ballast::new(paths);
    let mut snapshots = Snapshots::open(host, paths.snapshots.clone()).await?;
    let segments = move_segments(host, paths, &record).await?;
    let header = next_header(&record, &segments, &path)?;
    retire_others(host, paths, &record).await?;
    if !record.keep_tail {
        // A file that is there already needs no space.
        let spares = list(host, paths).await?.spares;
        let longest = spare::longest(disk, paths, &spares).await?;
        let spare = longest.map_or((next_spare(&spares), true), |longest| (longest.number, false));
        begin_next(host, (paths, &ballast), (spare, segment_bytes), &header).await?;
    }
    finish(host, (paths, &ballast), &record, &mut snapshots).await?;
    let InstallRecord { last, moved, keep_tail, .. } = record;
    host.report(Event::SnapshotInstalled { last, segments: moved, tail_kept: keep_tail });
    host.probe(Probe::SegmentsInstalled);
    Ok(())
}

/// Moves the segments to where they belong, and checks that all are there.
async fn move_segments(
    host: &Host,
    paths: &Paths,
    record: &InstallRecord,
) -> Result<Vec<SealedSegment>, Failure> {
    let disk = host.disk.as_ref();
    let mut segments = Vec::with_capacity(record.manifest.sealed.len());
    for info in record.manifest.sealed.values() {
        let (from, to) = (paths.incoming_segment(info.base), paths.segment(info.base));
        if open_if_there(disk, &from).await?.is_some() {
            disk.rename(&from, &to).await.map_err(DiskError::with("rename", &from))?;
        }
        let Some(file) = open_if_there(disk, &to).await? else {
            let what = "an installation names this segment, and it is missing";
            return Err(Damage::new(&to, None, what).into());
        };
        segments.push(open_sealed(file.as_ref(), &to, info).await?);
    }
    sync_dir(disk, &paths.log).await?;
    sync_dir(disk, &paths.incoming).await?;
    Ok(segments)
}

/// The header of the segment behind the snapshot.
fn next_header(
    record: &InstallRecord,
    segments: &[SealedSegment],
    path: &std::path::Path,
) -> Result<SegmentHeader, Damage> {
    let last = segments.last().filter(|segment| segment.info.last == record.last);
    let Some(last) = last else {
        return Err(Damage::new(path, None, "its segments do not end where its snapshot ends"));
    };
    Ok(header_behind(last))
}

fn header_behind(last: &SealedSegment) -> SegmentHeader {
    SegmentHeader {
        site: last.header.site,
        base: last.info.last.index.next(),
        chain: last.trailer.chain,
        predecessor: Some(last.info.last),
    }
}

/// Whether a segment file stays where it is.
fn stays(record: &InstallRecord, base: LogIndex) -> bool {
    record.manifest.sealed.contains_key(&base) || (record.keep_tail && base > record.last.index)
}

/// Makes spares of the segments that the installation replaces.
async fn retire_others(
    host: &Host,
    paths: &Paths,
    record: &InstallRecord,
) -> Result<Vec<u64>, DiskError> {
    let listing = list(host, paths).await?;
    let mut spares = listing.spares;
    let mut retired = Vec::new();
    for base in listing.segments.into_iter().rev().filter(|base| !stays(record, *base)) {
        let number = retire(host, paths, base, next_spare(&spares)).await?;
        spares.push(number);
        retired.push(number);
    }
    Ok(retired)
}

/// The last steps: snapshot, manifest, and the end of the record.
async fn finish(
    host: &Host,
    (paths, ballast): (&Paths, &Ballast),
    record: &InstallRecord,
    snapshots: &mut Snapshots,
) -> Result<(), Failure> {
    let disk = host.disk.as_ref();
    let staged = paths.incoming_snapshot();
    let max = usize::try_from(SNAPSHOT_BYTES_MAX).expect("a snapshot fits into memory");
    let bytes = read_small(disk, &staged, max).await?.unwrap_or_default();
    let snapshot =
        Snapshot::decode(&bytes).map_err(|error| Damage::new(&staged, None, error.to_string()))?;
    // Asked for before anything was taken over; met all the same, the ballast is for it.
    let len = snapshot.encoded_len();
    while !snapshots.save(host, snapshot.clone()).await? {
        if !release(disk, ballast, (len, 0)).await? {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(DiskError::with("write", &paths.snapshots)(full).into());
        }
    }
    let (path, bytes) = (paths.manifest(), record.manifest.encode());
    let len = bytes.len() as u64;
    with_ballast(disk, ballast, len, || replace(disk, &path, bytes.clone())).await?;
    remove_if_there(disk, &paths.install()).await?;
    // Before anything else changes: a record that came back would undo it.
    sync_dir(disk, &paths.root).await?;
    remove_if_there(disk, &staged).await?;
    sync_dir(disk, &paths.incoming).await.map_err(Failure::from)
}

/// The gaps between segments.
fn removed_between(segments: &BTreeMap<LogIndex, SealedInfo>) -> BTreeMap<LogIndex, LogIndex> {
    let mut removed = BTreeMap::new();
    let mut due = LogIndex(0);
    for info in segments.values() {
        if info.base > due {
            removed.insert(due, LogIndex(info.base.0 - 1));
        }
        due = info.last.index.next();
    }
    removed
}

/// Begins the segment behind the snapshot. A spare that was a segment may lack the last bytes of its
/// size; on a full disk the ballast is for them, since an installation cannot stop half way.
async fn begin_next(
    host: &Host,
    (paths, ballast): (&Paths, &Ballast),
    ((number, is_new), segment_bytes): ((u64, bool), u64),
    header: &SegmentHeader,
) -> Result<OpenFile, DiskError> {
    let (disk, path) = (host.disk.as_ref(), paths.spare(number));
    let begin = || async {
        // A second try finds the file of the first.
        let is_new = is_new && open_if_there(disk, &path).await?.is_none();
        begin_segment(host, paths, ((number, is_new), segment_bytes), header).await
    };
    let (open, _) = with_ballast(disk, ballast, BLOCK_BYTES, begin).await?;
    Ok(open)
}

/// A file for the segment behind the snapshot, and whether it must be created.
async fn take_spare(inner: &Inner) -> Result<(u64, bool), DiskError> {
    loop {
        let numbers = inner.core().spares.numbers();
        let longest = spare::longest(inner.host.disk.as_ref(), &inner.paths, &numbers).await?;
        let mut core = inner.core();
        match longest {
            None => return Ok((core.spares.next_number(), true)),
            Some(longest) if core.spares.take_this(longest.number) => {
                return Ok((longest.number, false));
            }
            // The task that keeps spares was faster.
            Some(_) => {}
        }
    }
}

impl Writer {
    /// Takes over what was checked.
    pub async fn install(&mut self, installation: Installation) -> Result<(), Failure> {
        let Installation { snapshot: last, segments, moved } = installation;
        let header = segments.last().map(header_behind).expect("checked: there are segments");
        let keep_tail = {
            let core = self.inner.core();
            let log = core.log();
            log.position(last.index) == Some(last) && log.segments().contains_key(&header.base)
        };
        let sealed: BTreeMap<_, _> =
            segments.iter().map(|segment| (segment.info.base, segment.info)).collect();
        let manifest = Manifest {
            generation: self.manifest.generation + 1,
            floor: Some(last),
            active: if keep_tail { self.manifest.active } else { header.base },
            removed: removed_between(&sealed),
            sealed,
        };
        let record = InstallRecord { keep_tail, last, chain: header.chain, moved, manifest };
        let inner = self.inner.clone();
        let (host, paths, ballast) = (&inner.host, &inner.paths, &inner.ballast);
        let (disk, path) = (host.disk.as_ref(), paths.install());
        let bytes = record.encode();
        let len = bytes.len() as u64;
        with_ballast(disk, ballast, len, || replace(disk, &path, bytes.clone())).await?;
        self.files.retain(|base, _| keep_tail && *base > last.index);
        inner.handles.clear();
        let segments = move_segments(host, paths, &record).await?;
        for number in retire_others(host, paths, &record).await? {
            inner.core().spares.add(number);
        }
        if !keep_tail {
            let spare = take_spare(&inner).await?;
            let spare = (spare, inner.settings.segment_bytes);
            let open = begin_next(host, (paths, ballast), spare, &header).await?;
            self.files.insert(header.base, open);
        }
        let mut snapshots = inner.snapshots.lock().await;
        finish(host, (paths, ballast), &record, &mut snapshots).await?;
        drop(snapshots);
        self.manifest = record.manifest;
        self.adopt(&mut inner.core(), header, keep_tail, segments);
        // The task that keeps it looks whether it is still there.
        inner.ballast_released();
        inner.handles.clear();
        inner.progress.notify_waiters();
        host.report(Event::SnapshotInstalled { last, segments: moved, tail_kept: keep_tail });
        host.probe(Probe::SegmentsInstalled);
        Ok(())
    }

    /// Makes memory agree with the disk again.
    fn adopt(
        &self,
        core: &mut Core,
        header: SegmentHeader,
        keep_tail: bool,
        segments: Vec<SealedSegment>,
    ) {
        let last = header.predecessor;
        core.log_mut().install(header, keep_tail);
        if !keep_tail {
            core.cache.clear();
            core.flushed = last;
        }
        if core.flushed.map(|p| p.index) < last.map(|p| p.index) {
            core.flushed = last;
        }
        core.floor = last;
        core.applied = last.map(|p| p.index);
        core.committed_below = header.base;
        core.footers.clear();
        core.epoch += 1;
        core.index = index_of(segments.iter().map(|segment| &segment.summary));
        core.sealed = segments.into_iter().map(|s| (s.info.base, s)).collect();
        core.files = self.files.iter().map(|(base, open)| (*base, open.file.clone())).collect();
        core.rolled = core.files.keys().next_back().copied();
    }
}

/// An index of these sealed segments.
pub(crate) fn index_of<'a>(summaries: impl Iterator<Item = &'a Summary>) -> Index {
    let mut index = Index::new(crate::index::INDEX_CACHE_BYTES);
    summaries.for_each(|summary| index.seal(summary));
    index
}

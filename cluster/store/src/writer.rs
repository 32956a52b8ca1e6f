//! The one task that changes the log, the vote and the manifest, in the order in which it was
//! asked.
//!
//! ```text
//! append, append, vote, truncate, append      the queue
//! |-- group --|   |       |       |-- group
//!   one write and one flush: everything that arrived during the last one
//! ```
//!
//! Invariants: one change is under way at a time. The frames of a group and its flush mark go in
//! one call of `File::write`, so a group costs one thread hop; the last group before a pause or a
//! clean stop gets a mark behind it, so that rot in it is told from a torn write. Whenever a block
//! with flushed frames is written to again, a mark that was flushed before holds a copy of them. A
//! segment is named, and its predecessor flushed, before its first frame is written. A cut is durable before anything that
//! was asked for after it.
//!
//! Never: retry. Any error closes the store.

use crate::core::{FlushCallback, Inner};
use crate::error::{DiskError, Failure};
use crate::files::{CHUNK_BYTES, create, replace, sync_rename, zero_range};
use crate::format::frame::{Chain, frame_bytes};
use crate::format::header::{FRAMES_AT, SegmentHeader};
use crate::format::identity::Identity;
use crate::format::manifest::Manifest;
use crate::format::mark::{FlushMark, block_of};
use crate::format::vote::{SavedVote, VOTE_SLOTS_AT, VoteSlot};
use crate::gc::Removal;
use crate::install::Installation;
use crate::log::{Cut, OpenLog};
use crate::paths::Paths;
use crate::recovery::SealedSegment;
use crate::spare::{fill, open_spare};
use bytes::Bytes;
use fulmar_host::disk::{File, Flush, Open, Write};
use fulmar_host::{Host, planted, time};
use fulmar_types::limits::{ENTRY_BYTES_MAX, SECTOR_BYTES, SEGMENT_HEADER_BYTES};
use fulmar_types::{Event, LogIndex, LogPosition, Plant, Probe};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A group takes further runs until it has this many bytes.
const GROUP_TARGET_BYTES: u64 = 4 << 20;

/// A run takes further frames until it has this many bytes.
pub(crate) const RUN_TARGET_BYTES: u64 = 1 << 20;

/// The largest group: recovery looks this far for what an unfinished one left.
pub(crate) const GROUP_BYTES_MAX: u64 =
    GROUP_TARGET_BYTES + RUN_TARGET_BYTES + frame_bytes(ENTRY_BYTES_MAX);

/// After this long without work the last group gets its mark.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// A segment file that is written to.
pub(crate) struct OpenFile {
    pub file: Arc<dyn File>,
    /// Of the last flush mark.
    pub sequence: u64,
    /// What the block that the next frame goes to holds already: the bytes from its border up to
    /// where the frames end.
    pub tail: Vec<u8>,
}

impl OpenFile {
    /// Takes note of what is written at the end of the frames.
    fn extend(&mut self, at: u64, pieces: &[Bytes]) {
        debug_assert_eq!(self.tail.len() as u64, at - block_of(at), "the tail ends where they do");
        let end = at + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let mut before = block_of(end).saturating_sub(at) as usize;
        if block_of(end) >= at {
            self.tail.clear();
        }
        for piece in pieces {
            let skipped = before.min(piece.len());
            before -= skipped;
            self.tail.extend_from_slice(&piece[skipped..]);
        }
    }

    /// The write of a mark. A bug that can be planted leaves the copy out of it.
    fn mark(&self, mark: &FlushMark) -> Write {
        let mut block = mark.encode(&self.tail);
        if planted(Plant::NoTailCopy) {
            block[SECTOR_BYTES..].fill(0);
        }
        Write::one(mark.slot_at(), block)
    }
}

/// Frames that lie one behind the other in one segment.
pub(crate) struct Run {
    /// The segment, if these are its first frames.
    pub starts: Option<SegmentHeader>,
    /// The first index of the segment.
    pub base: LogIndex,
    /// Where the first frame goes.
    pub at: u64,
    /// The chain before it.
    pub before: Chain,
    /// Headers, payloads and padding.
    pub pieces: Vec<Bytes>,
    /// Bytes of all of them.
    pub bytes: u64,
    pub entries: u32,
    pub last: LogPosition,
    /// Whom to tell when everything up to here is flushed.
    pub flushed: Option<FlushCallback>,
}

/// Something to be done in order. The senders answer when it is durable, and are dropped if it
/// never will be.
pub(crate) enum Job {
    Run(Run),
    Initialise {
        identity: Identity,
        done: oneshot::Sender<()>,
    },
    Vote {
        vote: SavedVote,
        done: oneshot::Sender<()>,
    },
    Cut {
        cut: Cut,
        done: oneshot::Sender<()>,
    },
    Floor {
        to: LogPosition,
        done: oneshot::Sender<()>,
    },
    Sealed {
        segment: Box<SealedSegment>,
        done: oneshot::Sender<()>,
    },
    Remove {
        removal: Removal,
        done: oneshot::Sender<()>,
    },
    Install {
        installation: Box<Installation>,
        done: oneshot::Sender<()>,
    },
    /// Answers when everything before it is done.
    Barrier {
        done: oneshot::Sender<()>,
    },
}

enum Work {
    Group(Vec<Run>),
    Job(Job),
}

/// What only the writing task knows.
pub(crate) struct Writer {
    pub inner: Arc<Inner>,
    pub files: BTreeMap<LogIndex, OpenFile>,
    pub vote: Option<Arc<dyn File>>,
    pub vote_generation: u64,
    pub manifest: Manifest,
    /// The segment whose last group no mark covers yet.
    pub unmarked: Option<LogIndex>,
}

/// Takes what comes next: one job, or all runs that one write can carry.
fn next_work(inner: &Inner) -> Option<Work> {
    let mut core = inner.core();
    let mut group: Vec<Run> = Vec::new();
    let mut bytes = 0;
    loop {
        let joins = match core.queue.front() {
            Some(Job::Run(run)) => match group.first() {
                None => true,
                Some(first) => run.base == first.base && bytes < GROUP_TARGET_BYTES,
            },
            Some(_) if group.is_empty() => return core.queue.pop_front().map(Work::Job),
            _ => false,
        };
        if !joins {
            return (!group.is_empty()).then_some(Work::Group(group));
        }
        if let Some(Job::Run(run)) = core.queue.pop_front() {
            bytes += run.bytes;
            group.push(run);
        }
    }
}

/// Works until the store is dropped or fails.
pub(crate) async fn run(mut writer: Writer) {
    let inner = writer.inner.clone();
    loop {
        if inner.core().poisoned {
            return;
        }
        let done = match next_work(&inner) {
            None => match writer.rest().await {
                Ok(()) => continue,
                Err(error) => Err((error.into(), Vec::new())),
            },
            Some(Work::Group(group)) => writer.group(group).await,
            Some(Work::Job(job)) => writer.job(job).await.map_err(|error| (error, Vec::new())),
        };
        if let Err((failure, waiting)) = done {
            inner.fail(&failure, waiting);
            return;
        }
    }
}

impl Writer {
    async fn job(&mut self, job: Job) -> Result<(), Failure> {
        let done = match job {
            Job::Run(_) => unreachable!("runs are taken as groups"),
            Job::Initialise { identity, done } => {
                self.initialise(identity).await?;
                done
            }
            Job::Vote { vote, done } => {
                self.save_vote(vote).await?;
                done
            }
            Job::Cut { cut, done } => {
                self.cut(cut).await?;
                done
            }
            Job::Floor { to, done } => {
                self.manifest.floor = Some(to);
                self.write_manifest().await?;
                self.inner.host.report(Event::Purged { to });
                done
            }
            Job::Sealed { segment, done } => {
                self.sealed(*segment).await?;
                done
            }
            Job::Remove { removal, done } => {
                self.remove(removal).await?;
                done
            }
            Job::Install { installation, done } => {
                self.install(*installation).await?;
                done
            }
            Job::Barrier { done } => {
                self.mark_last().await?;
                done
            }
        };
        // Whoever asked may have gone away; what was asked for is done all the same.
        let _ = done.send(());
        Ok(())
    }

    /// Writes and flushes a group.
    async fn group(&mut self, group: Vec<Run>) -> Result<(), (Failure, Vec<FlushCallback>)> {
        let mut callbacks = Vec::new();
        let mut pieces = Vec::with_capacity(group.iter().map(|run| run.pieces.len()).sum());
        let (Some(first), Some(last)) = (group.first(), group.last().map(|run| run.last)) else {
            return Ok(());
        };
        let (starts, base, at, before) = (first.starts, first.base, first.at, first.before);
        let (mut bytes, mut entries) = (0, 0);
        for run in group {
            assert_eq!(run.at, at + bytes, "the runs of a group lie one behind the other");
            bytes += run.bytes;
            entries += run.entries;
            pieces.extend(run.pieces);
            callbacks.extend(run.flushed);
        }
        assert!(bytes <= GROUP_BYTES_MAX, "a group of {bytes} bytes");
        if planted(Plant::AckBeforeFlush) {
            self.acknowledge(last, std::mem::take(&mut callbacks));
        }
        let written = async {
            if let Some(header) = starts {
                self.roll(&header).await?;
            }
            let open = self.files.get_mut(&base).expect("the segment was begun");
            open.sequence += 1;
            open.extend(at, &pieces);
            let (sequence, end) = (open.sequence, at + bytes);
            let mark = FlushMark { base, flushed: at, chain: before, sequence, end };
            let writes = vec![Write { at, pieces }, open.mark(&mark)];
            let written = writes.iter().map(Write::bytes).sum();
            let result = open.file.write(writes, Flush::Data).await;
            let path = self.inner.paths.segment(base);
            result.map_err(DiskError::with("write", &path))?;
            self.unmarked = Some(base);
            Ok(written)
        };
        let begun = time::now();
        match written.await {
            Ok(written) => {
                self.inner.flush_times.add(begun.elapsed(), entries, written);
                self.inner.host.report(Event::Flushed { last, entries, bytes: written });
                {
                    let mut core = self.inner.core();
                    core.note_flushed(last);
                    core.evict(last);
                    core.queue_bytes -= bytes;
                }
                self.inner.room.notify_waiters();
                self.acknowledge(last, callbacks);
                Ok(())
            }
            Err(failure) => Err((failure, callbacks)),
        }
    }

    /// Waits for work. After a pause the last group gets its mark.
    async fn rest(&mut self) -> Result<(), DiskError> {
        let inner = self.inner.clone();
        if self.unmarked.is_none() {
            inner.work.notified().await;
            return Ok(());
        }
        match time::timeout(IDLE_PAUSE, inner.work.notified()).await {
            Ok(()) => Ok(()),
            Err(_) => self.mark_last().await,
        }
    }

    /// Writes a mark that covers the last group, if nothing else has come meanwhile.
    async fn mark_last(&mut self) -> Result<(), DiskError> {
        let Some(base) = self.unmarked else { return Ok(()) };
        let (tail, flushed, chain) = {
            let core = self.inner.core();
            if !core.queue.is_empty() {
                // Memory is ahead of the disk.
                return Ok(());
            }
            let tail = core.log().tail();
            (tail.header.base, tail.end(), tail.chain())
        };
        self.unmarked = None;
        let Some(open) = self.files.get_mut(&base).filter(|_| tail == base) else {
            // A snapshot was taken over since.
            return Ok(());
        };
        open.sequence += 1;
        let mark = FlushMark { base, flushed, chain, sequence: open.sequence, end: flushed };
        let written = open.file.write(vec![open.mark(&mark)], Flush::Data);
        let path = self.inner.paths.segment(base);
        written.await.map_err(DiskError::with("write", &path))
    }

    fn acknowledge(&self, last: LogPosition, callbacks: Vec<FlushCallback>) {
        self.inner.core().note_flushed(last);
        self.inner.progress.notify_waiters();
        for callback in callbacks {
            callback(Ok(()));
        }
    }

    /// Begins a segment: its file is complete, named and known to the manifest before any frame.
    pub async fn roll(&mut self, header: &SegmentHeader) -> Result<(), Failure> {
        let base = header.base;
        let spare = {
            let mut core = self.inner.core();
            core.space.rolling = true;
            core.spares.take()
        };
        let segment_bytes = self.inner.settings.segment_bytes;
        let (host, paths) = (&self.inner.host, &self.inner.paths);
        let open = begin_segment(host, paths, (spare, segment_bytes), header).await?;
        self.manifest.active = base;
        self.write_manifest().await?;
        {
            let mut core = self.inner.core();
            core.files.insert(base, open.file.clone());
            core.rolled = Some(base);
            core.space.rolling = false;
        }
        self.files.insert(base, open);
        self.inner.spare_taken.notify_one();
        self.inner.seal_due.notify_one();
        Ok(())
    }

    pub async fn write_manifest(&mut self) -> Result<(), DiskError> {
        self.manifest.generation += 1;
        let bytes = self.manifest.encode();
        assert!(self.manifest.end().is_some(), "a manifest leaves no gap: {:?}", self.manifest);
        self.inner.replace_with_ballast(&self.inner.paths.manifest(), bytes).await
    }

    async fn write_identity(&self, identity: &Identity) -> Result<(), DiskError> {
        let path = self.inner.paths.identity();
        replace(self.inner.host.disk.as_ref(), &path, identity.encode()).await
    }

    /// Makes an empty directory a node's. The identity comes last: until it is there, the next
    /// start finds an empty directory.
    async fn initialise(&mut self, identity: Identity) -> Result<(), Failure> {
        let disk = self.inner.host.disk.clone();
        let path = self.inner.paths.vote();
        let slot = VoteSlot { generation: 0, vote: None };
        let file = create(disk.as_ref(), &path).await?;
        let writes = VOTE_SLOTS_AT.map(|at| Write::one(at, slot.encode())).to_vec();
        file.write(writes, Flush::Data).await.map_err(DiskError::with("write", &path))?;
        let header = SegmentHeader {
            site: identity.site,
            base: LogIndex(0),
            chain: Chain::genesis(identity.site),
            predecessor: None,
        };
        self.vote = Some(file);
        self.roll(&header).await?;
        self.write_identity(&identity).await?;
        {
            let mut core = self.inner.core();
            core.log = Some(OpenLog::new(identity.segment_bytes, header));
            core.identity = Some(identity);
        }
        self.inner.spare_taken.notify_one();
        Ok(())
    }

    /// Saves a vote, one slot after the other, so that a torn write leaves the other slot.
    async fn save_vote(&mut self, vote: SavedVote) -> Result<(), Failure> {
        let path = self.inner.paths.vote();
        let file = self.vote.as_ref().expect("a node that votes is initialised");
        self.vote_generation += 1;
        let slot = VoteSlot { generation: self.vote_generation, vote: Some(vote) };
        let flush = if planted(Plant::SkipVoteFlush) { Flush::No } else { Flush::Data };
        for at in VOTE_SLOTS_AT {
            let write = vec![Write::one(at, slot.encode())];
            file.write(write, flush).await.map_err(DiskError::with("write", &path))?;
        }
        self.inner.core().vote = Some(vote);
        let SavedVote { term, voted_for, committed } = vote;
        self.inner.host.report(Event::VoteSaved { term, voted_for, committed });
        Ok(())
    }

    /// Takes entries back, durably.
    async fn cut(&mut self, cut: Cut) -> Result<(), Failure> {
        self.inner.host.report(Event::Truncating { from: cut.from });
        if !cut.dropped.is_empty() {
            // What the manifest says must exist has to be there at every moment.
            self.manifest.active = cut.base;
            self.write_manifest().await?;
            for base in &cut.dropped {
                // Newest first and one at a time: a crash leaves no gap.
                self.retire(*base).await?;
            }
            self.inner.core().rolled = Some(cut.base);
            self.inner.host.probe(Probe::TruncatedAcrossSegments);
        }
        let path = self.inner.paths.segment(cut.base);
        let open = self.files.get_mut(&cut.base).expect("the segment was begun");
        let border = block_of(cut.at);
        let kept = usize::try_from(cut.at - border).expect("less than a block");
        let tail = open.file.read(border, kept).await.map_err(DiskError::with("read", &path))?;
        open.tail = tail.to_vec();
        let result = wipe(open, &cut).await;
        result.map_err(DiskError::with("write", &path))?;
        // The cut has said itself what is flushed.
        self.unmarked = None;
        {
            let mut core = self.inner.core();
            let first = core.cutting.pop_front();
            assert_eq!(first, Some(cut.from), "cuts are done in order");
        }
        self.inner.host.report(Event::Truncated { from: cut.from });
        self.inner.host.probe(Probe::ConflictingSuffixTruncated);
        Ok(())
    }

    /// Makes the file of a segment a spare.
    pub async fn retire(&mut self, base: LogIndex) -> Result<(), DiskError> {
        self.files.remove(&base);
        let number = {
            let mut core = self.inner.core();
            core.files.remove(&base);
            core.spares.next_number()
        };
        self.inner.handles.forget(base);
        crate::recovery::retire(&self.inner.host, &self.inner.paths, base, number).await?;
        self.inner.core().spares.add(number);
        self.inner.spare_taken.notify_one();
        Ok(())
    }

    /// Takes note of a segment whose file was sealed.
    async fn sealed(&mut self, segment: SealedSegment) -> Result<(), Failure> {
        let info = segment.info;
        self.manifest.sealed.insert(info.base, info);
        self.write_manifest().await?;
        self.files.remove(&info.base);
        {
            let mut core = self.inner.core();
            core.log_mut().sealed(info.base);
            core.files.remove(&info.base);
            core.index.seal(&segment.summary);
            core.sealed.insert(info.base, segment);
        }
        let (base, last, hash) = (info.base, info.last.index, info.hash);
        self.inner.host.report(Event::SegmentSealed { base, last, hash });
        self.inner.progress.notify_waiters();
        Ok(())
    }
}

/// Lowers the flush mark, and only then wipes: otherwise a crash in between would look like rot in
/// what the mark says was flushed. Both slots are lowered in the end, so that one rotten slot does
/// not bring the old mark back.
async fn wipe(open: &mut OpenFile, cut: &Cut) -> std::io::Result<()> {
    let mut mark = FlushMark {
        base: cut.base,
        flushed: cut.at,
        chain: cut.chain,
        sequence: open.sequence + 1,
        end: cut.at,
    };
    open.file.write(vec![open.mark(&mark)], Flush::Data).await?;
    let end = open.file.len_bytes().await?.min(cut.old_end);
    zero_range(open.file.as_ref(), cut.at, end).await?;
    mark.sequence += 1;
    open.file.write(vec![open.mark(&mark)], Flush::Data).await?;
    open.sequence = mark.sequence;
    Ok(())
}

/// Makes the file of a segment out of a spare (its number, and whether it must be created), and
/// names it durably. The file gets its full size before it gets its name: whoever has a segment
/// has the space for it.
pub(crate) async fn begin_segment(
    host: &Host,
    paths: &Paths,
    ((number, is_new), segment_bytes): ((u64, bool), u64),
    header: &SegmentHeader,
) -> Result<OpenFile, DiskError> {
    let disk = host.disk.as_ref();
    let spare = paths.spare(number);
    let file = open_spare(disk, &spare, is_new).await?;
    fill(file.as_ref(), &spare, segment_bytes).await?;
    let (base, chain) = (header.base, header.chain);
    let mark = FlushMark { base, flushed: FRAMES_AT, chain, sequence: 0, end: FRAMES_AT };
    let mut page = header.encode();
    page.resize(SEGMENT_HEADER_BYTES, 0);
    let at = usize::try_from(mark.slot_at()).expect("a slot lies in the page");
    let block = mark.encode(&[]);
    page[at..at + block.len()].copy_from_slice(&block);
    file.write(vec![Write::one(0, page)], Flush::Data)
        .await
        .map_err(DiskError::with("write", &spare))?;
    let path = paths.segment(base);
    disk.rename(&spare, &path).await.map_err(DiskError::with("rename", &spare))?;
    sync_rename(disk, &paths.log).await?;
    let file = disk.open(&path, Open::Existing).await.map_err(DiskError::with("open", &path))?;
    Ok(OpenFile { file, sequence: mark.sequence, tail: Vec::new() })
}

const _: () = assert!(RUN_TARGET_BYTES <= GROUP_TARGET_BYTES);
const _: () = assert!(CHUNK_BYTES.is_multiple_of(fulmar_types::limits::SECTOR_BYTES as u64));

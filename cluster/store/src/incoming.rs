//! Segments on their way from a peer: written to `incoming/`, verified whole, and only then
//! offered to an installation.
//!
//! Invariants: nothing of the log changes here. A segment is finished only if its length, its
//! hash, every frame, the footer and the trailer are right; what a peer sent is never believed
//! before. Chunks come in order, so a transfer goes on where it stopped, also from another peer
//! that offers the same segment. What is remembered of a segment and its file change together,
//! under `Inner::staging`: whoever waited for it looks again.

use crate::core::Inner;
use crate::error::{Damage, DiskError, Failure, IncomingError, Poisoned, is_full};
use crate::files::{create, remove_if_there, sync_dir};
use crate::footer::Footer;
use crate::format::frame::{Chain, Expected};
use crate::format::header::{FRAMES_AT, SegmentHeader};
use crate::format::identity::Identity;
use crate::format::manifest::SealedInfo;
use crate::format::trailer::Trailer;
use crate::format::{SECTOR, to_sectors};
use crate::recovery::scan::Window;
use bytes::Bytes;
use fulmar_host::disk::{File, Flush, Write};
use fulmar_host::task::yield_now;
use fulmar_types::limits::{ENTRY_BYTES_MAX, SECTOR_BYTES};
use fulmar_types::{LogIndex, LogPosition};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Other tasks run after this many bytes were verified.
const YIELD_BYTES: u64 = 1 << 20;

/// A segment on its way from a peer.
#[derive(Clone)]
pub(crate) struct Incoming {
    pub info: SealedInfo,
    /// Open from the first chunk until the segment is verified: a peer may offer many at once.
    file: Option<Arc<dyn File>>,
    /// Where the next chunk goes.
    next: u64,
    pub finished: bool,
}

impl Inner {
    /// Begins, or goes on with, a segment. Returns where the next chunk goes; at the end of the
    /// file the segment is finished already.
    pub async fn begin_incoming(&self, info: SealedInfo) -> Result<u64, IncomingError> {
        // A footer is much smaller than the frames it is about.
        let most = 2 * self.settings.segment_bytes;
        if info.file_bytes > most || info.file_bytes < FRAMES_AT {
            let what = format!("a file of {} bytes", info.file_bytes);
            return Err(IncomingError::Refused { base: info.base, what });
        }
        let _staging = self.staging.lock().await;
        let mut core = self.usable()?;
        match core.incoming.get(&info.base) {
            Some(known) if known.info == info => return Ok(known.next),
            Some(_) if core.prepared > 0 => {
                let what = "an installation counts on another one".to_owned();
                return Err(IncomingError::Refused { base: info.base, what });
            }
            _ => {}
        }
        let incoming = Incoming { info, file: None, next: 0, finished: false };
        core.incoming.insert(info.base, incoming);
        Ok(0)
    }

    /// Forgets the segments on their way that are not among these, with their files, unless an
    /// installation may count on them.
    pub async fn keep_incoming(&self, wanted: &BTreeSet<LogIndex>) -> Result<(), IncomingError> {
        // Nobody looks for the files meanwhile.
        let _sealing = self.sealing.lock().await;
        let leftover: Vec<LogIndex> = {
            let core = self.usable()?;
            let bases = core.incoming.keys().filter(|base| !wanted.contains(base));
            if core.prepared > 0 { Vec::new() } else { bases.copied().collect() }
        };
        self.forget_incoming(&leftover).await
    }

    /// Forgets segments on their way, with their files.
    pub async fn forget_incoming(&self, bases: &[LogIndex]) -> Result<(), IncomingError> {
        let _staging = self.staging.lock().await;
        self.forget(bases).await
    }

    /// The same for who holds `staging`. The files first: one that is left behind would be nobody's.
    async fn forget(&self, bases: &[LogIndex]) -> Result<(), IncomingError> {
        if bases.is_empty() {
            return Ok(());
        }
        let disk = self.host.disk.as_ref();
        let removed = async {
            for base in bases {
                remove_if_there(disk, &self.paths.incoming_segment(*base)).await?;
            }
            sync_dir(disk, &self.paths.incoming).await
        };
        removed.await.map_err(|error| self.poison(error))?;
        self.usable()?.incoming.retain(|base, _| !bases.contains(base));
        Ok(())
    }

    /// A segment could not be written. If only for want of space, it is forgotten, so that what
    /// came of it takes none; anything else closes the store.
    async fn stop(&self, base: LogIndex, error: DiskError) -> IncomingError {
        if !is_full(&error.source) {
            return self.poison(error);
        }
        match self.forget(&[base]).await {
            Ok(()) => IncomingError::NoSpace(base),
            Err(error) => error,
        }
    }

    fn poison(&self, error: DiskError) -> IncomingError {
        self.fail(&Failure::Disk(error), Vec::new());
        Poisoned.into()
    }

    fn incoming(&self, base: LogIndex) -> Result<Incoming, IncomingError> {
        let core = self.usable()?;
        core.incoming.get(&base).cloned().ok_or(IncomingError::NotBegun(base))
    }

    /// Writes the next chunk.
    pub async fn write_incoming(
        &self,
        base: LogIndex,
        at: u64,
        bytes: Bytes,
    ) -> Result<(), IncomingError> {
        let _staging = self.staging.lock().await;
        let end = at.saturating_add(bytes.len() as u64);
        let file = {
            let mut core = self.usable()?;
            let incoming = core.incoming.get_mut(&base).ok_or(IncomingError::NotBegun(base))?;
            if at != incoming.next || end > incoming.info.file_bytes {
                return Err(IncomingError::OutOfOrder { base, at, expected: incoming.next });
            }
            // Whoever is stopped half way leaves a write behind that may still happen: the segment
            // begins anew then, in another file.
            incoming.next = 0;
            incoming.file.take()
        };
        let path = self.paths.incoming_segment(base);
        let written = async {
            let file = match file {
                Some(file) => file,
                None => create(self.host.disk.as_ref(), &path).await?,
            };
            let written = file.write(vec![Write::one(at, bytes)], Flush::No).await;
            written.map(|()| file).map_err(DiskError::with("write", &path))
        };
        let file = match written.await {
            Ok(file) => file,
            Err(error) => return Err(self.stop(base, error).await),
        };
        if let Some(incoming) = self.usable()?.incoming.get_mut(&base) {
            incoming.next = end;
            incoming.file = Some(file);
        }
        Ok(())
    }

    /// Flushes and verifies a segment whose bytes have all arrived.
    pub async fn finish_incoming(&self, base: LogIndex) -> Result<(), IncomingError> {
        let _staging = self.staging.lock().await;
        let incoming = self.incoming(base)?;
        if incoming.finished {
            return Ok(());
        }
        let (at, expected) = (incoming.info.file_bytes, incoming.next);
        if at != expected {
            return Err(IncomingError::OutOfOrder { base, at, expected });
        }
        let identity = self.usable()?.identity;
        let identity = identity.expect("a node that takes segments is initialised");
        let path = self.paths.incoming_segment(base);
        let Some(file) = incoming.file.as_deref() else {
            return Err(IncomingError::NotBegun(base));
        };
        let verified = async {
            file.sync().await.map_err(DiskError::with("write", &path))?;
            verify(file, &incoming.info, &identity).await.map_err(DiskError::with("read", &path))
        };
        match verified.await {
            Err(error) => Err(self.stop(base, error).await),
            Ok(Err(what)) => {
                // It begins anew, perhaps from another peer, or is not offered any more.
                self.forget(&[base]).await?;
                Err(IncomingError::Refused { base, what })
            }
            Ok(Ok(())) => {
                if let Some(incoming) = self.usable()?.incoming.get_mut(&base) {
                    incoming.finished = true;
                    incoming.file = None;
                }
                Ok(())
            }
        }
    }
}

impl Inner {
    /// Bytes of a sealed segment, `None` if it is not there any more.
    pub async fn read_sealed_chunk(
        &self,
        base: LogIndex,
        at: u64,
        len: usize,
    ) -> Result<Option<Bytes>, Poisoned> {
        let epoch = {
            let core = self.usable()?;
            if !core.sealed.contains_key(&base) {
                return Ok(None);
            }
            core.epoch
        };
        let path = self.paths.segment(base);
        let read = async {
            let file = self.handles.get(self.host.disk.as_ref(), base, &path).await?;
            file.read(at, len).await.map_err(DiskError::with("read", &path))
        };
        match read.await {
            // The file may have been recycled while it was read; the peer would refuse it.
            Ok(_) if self.usable()?.epoch != epoch => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => self.broken(epoch, error.into()).await.map(|()| None),
        }
    }

    /// Reads a sealed segment whole: damage ends this node. Nothing happens if it is not there any
    /// more.
    pub async fn verify_sealed(&self, base: LogIndex) -> Result<(), Poisoned> {
        let (epoch, info, identity) = {
            let core = self.usable()?;
            let Some(segment) = core.sealed.get(&base) else { return Ok(()) };
            let identity = core.identity.expect("a node with a segment is initialised");
            (core.epoch, segment.info, identity)
        };
        let path = self.paths.segment(base);
        let verified = async {
            let file = self.handles.get(self.host.disk.as_ref(), base, &path).await?;
            verify(file.as_ref(), &info, &identity).await.map_err(DiskError::with("read", &path))
        };
        let failure = match verified.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(what)) => Damage::new(&path, None, what).into(),
            Err(error) => error.into(),
        };
        self.broken(epoch, failure).await
    }
}

/// Checks every byte of a sealed segment. The inner error says what is wrong with it.
async fn verify(
    file: &dyn File,
    info: &SealedInfo,
    identity: &Identity,
) -> io::Result<Result<(), String>> {
    let mut window = Window::new(file).await?;
    let sector = window.get(info.file_bytes.saturating_sub(SECTOR), SECTOR).await?;
    let Some(trailer) = Trailer::decode(&sector, info.file_bytes) else {
        return Ok(Err("no trailer".to_owned()));
    };
    if trailer.footer_len > identity.segment_bytes {
        return Ok(Err("the footer is too large".to_owned()));
    }
    if trailer.base != info.base || trailer.last != info.last || trailer.hash != info.hash {
        return Ok(Err("the trailer is of another segment".to_owned()));
    }
    let page = window.get(0, FRAMES_AT).await?;
    let header = page.get(..SECTOR_BYTES).and_then(SegmentHeader::decode);
    let Some(header) = header.filter(|h| h.base == info.base && h.site == identity.site) else {
        return Ok(Err("the header is of another segment or site".to_owned()));
    };
    if page.iter().skip(SECTOR_BYTES).any(|byte| *byte != 0) {
        return Ok(Err("the page behind the header is not empty".to_owned()));
    }
    let mut hash = Xxh3::new();
    hash.update(&page);
    let bounds = Bounds { trailer, segment_bytes: identity.segment_bytes };
    let places = match verify_frames(&mut window, &header, &bounds, &mut hash).await? {
        Ok(places) => places,
        Err(what) => return Ok(Err(what)),
    };
    let padded = to_sectors(trailer.footer_len);
    let bytes = window.get(trailer.frames_end, padded).await?;
    hash.update(&bytes);
    if hash.digest128() != info.hash {
        return Ok(Err("the hash is another one".to_owned()));
    }
    let footer_len = usize::try_from(trailer.footer_len).unwrap_or(usize::MAX);
    let footer = bytes.slice(..footer_len.min(bytes.len()));
    Ok(match Footer::parse(footer) {
        Err(error) => Err(error.to_string()),
        Ok(footer) => {
            let same = footer.places().iter().map(|place| (place.index, place.position));
            if same.eq(places) { Ok(()) } else { Err("the footer names other places".to_owned()) }
        }
    })
}

struct Bounds {
    trailer: Trailer,
    segment_bytes: u64,
}

type Places = Vec<(LogIndex, u64)>;

/// Checks the frames, and returns where each lies.
async fn verify_frames(
    window: &mut Window<'_>,
    header: &SegmentHeader,
    bounds: &Bounds,
    hash: &mut Xxh3,
) -> io::Result<Result<Places, String>> {
    let Bounds { trailer, segment_bytes } = bounds;
    let mut places = Vec::new();
    let mut chain: Chain = header.chain;
    let mut last: Option<LogPosition> = header.predecessor;
    let (mut at, mut yielded) = (FRAMES_AT, 0);
    while at < trailer.frames_end {
        let index = last.map_or(LogIndex(0), |last| last.index.next());
        let due = Expected { base: header.base, index, at, chain: Some(chain) };
        let limit = trailer.frames_end.min(*segment_bytes);
        let frame = match window.frame(&due, limit).await? {
            Ok((frame, _)) if frame.payload_len as usize <= ENTRY_BYTES_MAX => frame,
            Ok(_) => return Ok(Err(format!("entry {index} is too large"))),
            Err(error) => return Ok(Err(format!("entry {index} at byte {at}: {error}"))),
        };
        if last.is_some_and(|last| last.term > frame.position.term) {
            return Ok(Err(format!("entry {index} goes back in its term")));
        }
        hash.update(&window.get(at, frame.frame_bytes()).await?);
        places.push((index, at));
        (chain, last) = (frame.chain, Some(frame.position));
        at += frame.frame_bytes();
        if at - yielded >= YIELD_BYTES {
            yielded = at;
            yield_now().await;
        }
    }
    let whole = chain == trailer.chain && last == Some(trailer.last) && at == trailer.frames_end;
    Ok(if whole { Ok(places) } else { Err("the frames do not end as the trailer says".to_owned()) })
}

//! Whole segments on their way to and from peers, and taking over what came.

use super::Store;
use crate::core::Inner;
use crate::error::{Damage, Failure, IncomingError, Poisoned};
use crate::files::open_if_there;
use crate::format::manifest::SealedInfo;
use crate::install::{self, Installation};
use crate::recovery::{SealedSegment, open_sealed};
use crate::snapshot::Snapshot;
use crate::writer::Job;
use bytes::Bytes;
use fulmar_types::{LogIndex, LogPosition};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// While it is held, the segments that an installation counts on stay. See
/// [`Store::prepare_install`].
pub struct Prepared(Arc<Inner>);

/// What becomes of a segment that has rotted after it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotten {
    /// It is fetched again.
    Again,
    /// The node ends: the core was told already that it is there.
    Fatal,
}

impl Prepared {
    fn new(inner: &Arc<Inner>) -> Self {
        inner.core().prepared += 1;
        Self(inner.clone())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.0.core().prepared -= 1;
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared")
    }
}

impl Store {
    /// Every sealed segment that is kept, in order.
    pub fn sealed(&self) -> Vec<SealedInfo> {
        self.inner.core().sealed_infos()
    }

    /// Bytes of a sealed segment, for a peer. Fewer than `len` only at the end of the file; `None`
    /// if the segment is not there any more.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn read_sealed_chunk(
        &self,
        base: LogIndex,
        at: u64,
        len: usize,
    ) -> Result<Option<Bytes>, Poisoned> {
        self.inner.read_sealed_chunk(base, at, len).await
    }

    /// Reads a sealed segment whole and checks every byte: a peer says that what it got of it is
    /// not what it should be. Nothing happens if it is not there any more.
    ///
    /// # Errors
    /// If it is damaged, which closes the store, or the store is closed.
    pub async fn verify_sealed(&self, base: LogIndex) -> Result<(), Poisoned> {
        self.inner.verify_sealed(base).await
    }

    /// Whether a segment is in place, or has come from a peer and was verified.
    pub fn has_segment(&self, info: &SealedInfo) -> bool {
        let core = self.inner.core();
        core.sealed.get(&info.base).is_some_and(|segment| segment.info == *info)
            || core
                .incoming
                .get(&info.base)
                .is_some_and(|incoming| incoming.finished && incoming.info == *info)
    }

    /// Forgets the segments on their way from a peer that are not among these, and removes their
    /// files.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn keep_incoming(&self, wanted: &BTreeSet<LogIndex>) -> Result<(), IncomingError> {
        self.inner.keep_incoming(wanted).await
    }

    /// Begins a segment that comes from a peer, or goes on with it. Returns where the next chunk
    /// goes: at the end of the file all bytes are there already.
    ///
    /// # Errors
    /// If the segment cannot be one, or the store is closed.
    pub async fn begin_incoming(&self, info: SealedInfo) -> Result<u64, IncomingError> {
        self.inner.begin_incoming(info).await
    }

    /// Writes the next chunk of a segment that comes from a peer.
    ///
    /// # Errors
    /// If it was not begun, the chunk is not the next one, or the store is closed.
    pub async fn write_incoming(
        &self,
        base: LogIndex,
        at: u64,
        bytes: Bytes,
    ) -> Result<(), IncomingError> {
        self.inner.write_incoming(base, at, bytes).await
    }

    /// Verifies a segment that has arrived whole: hash, every frame, footer and trailer.
    ///
    /// # Errors
    /// If it is not what it should be (it begins anew then), or the store is closed.
    pub async fn finish_incoming(&self, base: LogIndex) -> Result<(), IncomingError> {
        self.inner.finish_incoming(base).await
    }

    /// Looks whether [`Store::install`] could be done with a snapshot that ends at `last`. As long
    /// as the answer is held, nothing that it counts on goes away.
    ///
    /// # Errors
    /// If a segment is missing or is not what was verified (it begins anew then), they do not
    /// belong together, or the store is closed.
    pub async fn prepare_install(
        &self,
        last: LogPosition,
        segments: &[SealedInfo],
    ) -> Result<Prepared, IncomingError> {
        let _sealing = self.inner.sealing.lock().await;
        let prepared = Prepared::new(&self.inner);
        // Removals that were asked for before have happened then.
        self.close().await?;
        self.gather(last, segments, Rotten::Again).await?;
        Ok(prepared)
    }

    /// Replaces everything up to the end of a snapshot by the segments of a peer, those that came
    /// in and those that are here already; `segments` are all that the peer keeps up to there. The
    /// log goes on behind the snapshot: with the local entries if they agree with it, else empty.
    /// A crash leaves the old state or the new one. Durable on return.
    ///
    /// # Errors
    /// If a segment is missing or they do not belong together (nothing has changed then), or the
    /// store is closed.
    pub async fn install(
        &self,
        snapshot: Snapshot,
        segments: Vec<SealedInfo>,
    ) -> Result<(), IncomingError> {
        let _sealing = self.inner.sealing.lock().await;
        self.inner.usable()?.installing = true;
        let installed = self.install_alone(snapshot, segments).await;
        self.inner.usable()?.installing = false;
        // Readers may wait for the end of it.
        self.inner.progress.notify_waiters();
        installed?;
        // Those that were not for this snapshot too: the next offer begins anew.
        let leftover: Vec<LogIndex> = self.inner.usable()?.incoming.keys().copied().collect();
        self.inner.forget_incoming(&leftover).await
    }

    async fn install_alone(
        &self,
        snapshot: Snapshot,
        segments: Vec<SealedInfo>,
    ) -> Result<(), IncomingError> {
        // Removals that were asked for before have happened then.
        self.close().await?;
        let installation = self.gather(snapshot.last, &segments, Rotten::Fatal).await?;
        let staged = install::stage_snapshot(&self.inner, &snapshot).await;
        if let Err(error) = staged {
            self.inner.fail(&Failure::Disk(error), Vec::new());
            return Err(Poisoned.into());
        }
        let installation = Box::new(installation);
        Ok(self.wait(|done| Job::Install { installation, done }).await?)
    }

    /// Finds the segments of an installation, here or among those that came in.
    async fn gather(
        &self,
        last: LogPosition,
        infos: &[SealedInfo],
        rotten: Rotten,
    ) -> Result<Installation, IncomingError> {
        let mut segments = Vec::with_capacity(infos.len());
        let mut moved = 0;
        for info in infos {
            let local = self.inner.usable()?.sealed.get(&info.base).cloned();
            if let Some(segment) = local.filter(|segment| segment.info == *info) {
                segments.push(segment);
                continue;
            }
            let came = self.inner.usable()?.incoming.get(&info.base).cloned();
            if !came.is_some_and(|incoming| incoming.finished && incoming.info == *info) {
                let what = format!("segment {} is not here", info.base);
                return Err(IncomingError::Incomplete(what));
            }
            segments.push(self.staged(info, rotten).await?);
            moved += 1;
        }
        install::check(last, &segments)?;
        Ok(Installation { snapshot: last, segments, moved })
    }

    /// Opens a segment that came in. One that is not what was verified is a copy, and fetched again
    /// if nobody counts on it but who asks.
    async fn staged(
        &self,
        info: &SealedInfo,
        rotten: Rotten,
    ) -> Result<SealedSegment, IncomingError> {
        let path = self.inner.paths.incoming_segment(info.base);
        let opened = async {
            match open_if_there(self.inner.host.disk.as_ref(), &path).await? {
                Some(file) => open_sealed(file.as_ref(), &path, info).await,
                None => Err(Damage::new(&path, None, "it is missing").into()),
            }
        };
        match opened.await {
            Ok(segment) => Ok(segment),
            Err(Failure::Damaged(Damage { what, .. }))
                if rotten == Rotten::Again && self.inner.core().prepared == 1 =>
            {
                self.inner.forget_incoming(&[info.base]).await?;
                Err(IncomingError::Refused { base: info.base, what })
            }
            Err(failure) => {
                self.inner.fail(&failure, Vec::new());
                Err(Poisoned.into())
            }
        }
    }
}

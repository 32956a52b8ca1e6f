//! Removes sealed segments in which nothing live is left.
//!
//! A segment goes when none of its batches can be read any more (retention moved the start of
//! their partitions, or the topics are gone), when the Raft floor is not below it, and when it ends
//! before every snapshot that is kept: the older one is still something to fall back to, and the
//! segment that ends where a snapshot does has to travel with it (`install::check`).
//!
//! Crash rule: first the manifest says that the segment is removed, then the file becomes a spare;
//! a file that is left over in between is met by recovery and becomes a spare then.

use crate::core::Core;
use crate::error::Failure;
use crate::writer::Writer;
use fulmar_host::planted;
use fulmar_types::{LogIndex, Plant};

/// Segments that nobody will read again.
pub(crate) struct Removal {
    pub bases: Vec<LogIndex>,
}

/// What can be removed now. `oldest_snapshot` is the oldest good one that is kept.
pub(crate) fn removable(core: &Core, oldest_snapshot: Option<LogIndex>) -> Removal {
    if core.installing || core.prepared > 0 {
        // The installation counts on the segments that are here.
        return Removal { bases: Vec::new() };
    }
    let covered = if planted(Plant::PurgeBeforeSnapshot) {
        core.floor.map(|floor| floor.index)
    } else {
        // An `Option` orders `None` first: without a floor or a snapshot nothing goes.
        core.floor.map(|floor| floor.index).min(oldest_snapshot)
    };
    let is_covered = |base: &LogIndex| {
        core.sealed.get(base).is_some_and(|segment| {
            let last = Some(segment.info.last.index);
            last <= covered && last != oldest_snapshot
        })
    };
    Removal { bases: core.index.dead_segments().filter(is_covered).collect() }
}

impl Writer {
    /// Removes segments.
    pub async fn remove(&mut self, removal: Removal) -> Result<(), Failure> {
        if removal.bases.is_empty() {
            return Ok(());
        }
        for base in &removal.bases {
            self.manifest.remove(*base);
        }
        self.write_manifest().await?;
        {
            let mut core = self.inner.core();
            core.epoch += 1;
            for base in &removal.bases {
                core.sealed.remove(base);
                core.index.remove_segment(*base);
            }
        }
        for base in removal.bases {
            self.retire(base).await?;
        }
        Ok(())
    }
}

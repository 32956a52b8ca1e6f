//! Open files of sealed segments, a bounded number of them.
//!
//! Invariant: a handle is dropped before the name of its file may come to mean another segment,
//! so nobody opens one life of a file and believes it is another. (Readers verify what they read in
//! any case.)

use crate::error::DiskError;
use fulmar_host::disk::{Disk, File, Open};
use fulmar_types::LogIndex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files of sealed segments that are kept open.
const OPEN_FILES_MAX: usize = 64;

/// Open files of sealed segments.
#[derive(Default)]
pub(crate) struct Handles(Mutex<Opened>);

#[derive(Default)]
struct Opened {
    /// The file, and when it was last asked for.
    files: BTreeMap<LogIndex, (Arc<dyn File>, u64)>,
    uses: u64,
    /// Counts what was forgotten: a file that was opened before that is not kept.
    forgotten: u64,
}

impl Handles {
    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a sealed segment.
    pub async fn get(
        &self,
        disk: &dyn Disk,
        base: LogIndex,
        path: &Path,
    ) -> Result<Arc<dyn File>, DiskError> {
        let forgotten = {
            let mut opened = self.opened();
            if let Some(file) = opened.touch(base) {
                return Ok(file);
            }
            opened.forgotten
        };
        let opened = disk.open(path, Open::Existing).await;
        let file = opened.map_err(DiskError::with("open", path))?;
        let mut opened = self.opened();
        if opened.forgotten == forgotten {
            opened.insert(base, file.clone());
        }
        Ok(file)
    }

    /// Forgets a segment.
    pub fn forget(&self, base: LogIndex) {
        let mut opened = self.opened();
        opened.forgotten += 1;
        opened.files.remove(&base);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut opened = self.opened();
        opened.forgotten += 1;
        opened.files.clear();
    }
}

impl Opened {
    fn touch(&mut self, base: LogIndex) -> Option<Arc<dyn File>> {
        self.uses += 1;
        let uses = self.uses;
        let (file, used) = self.files.get_mut(&base)?;
        *used = uses;
        Some(file.clone())
    }

    fn insert(&mut self, base: LogIndex, file: Arc<dyn File>) {
        if self.files.len() >= OPEN_FILES_MAX
            && let Some(oldest) =
                self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(base, _)| *base)
        {
            self.files.remove(&oldest);
        }
        self.uses += 1;
        self.files.insert(base, (file, self.uses));
    }
}

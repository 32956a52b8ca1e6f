//! Reading and replacing the `life` file of a directory.
//!
//! Invariant: what [`Store::save_life`] and [`Store::note_life`] have confirmed survives a power cut.

use crate::error::{Damage, DiskError, Failure, Poisoned, is_full};
use crate::files::read_small;
use crate::format::life::{LIFE_BYTES_MAX, Life};
use crate::store::Store;

impl Store {
    /// Which life of its directory this is; `None` before the first one was saved.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read: the store is closed then.
    pub async fn life(&self) -> Result<Option<Life>, Poisoned> {
        let path = self.inner.paths.life();
        let disk = self.inner.host.disk.as_ref();
        let read = match read_small(disk, &path, LIFE_BYTES_MAX).await {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => Life::decode(&bytes).ok_or_else(|| {
                Failure::from(Damage::new(&path, None, "it is not what was written"))
            }),
            Err(error) => Err(Failure::Disk(error)),
        };
        read.map(Some).map_err(|failure| self.close_for(&failure))
    }

    /// Replaces the life file, if need be with a part of the ballast. Durable on return.
    ///
    /// # Errors
    /// If the disk fails, or has no room at all: the store is closed then.
    pub async fn save_life(&self, life: &Life) -> Result<(), Poisoned> {
        self.replace_life(life).await.map_err(|error| self.close_for(&Failure::Disk(error)))
    }

    /// The same for what can wait: says no if the disk has no room at all.
    ///
    /// # Errors
    /// If the disk fails otherwise: the store is closed then.
    pub async fn note_life(&self, life: &Life) -> Result<bool, Poisoned> {
        match self.replace_life(life).await {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error.source) => Ok(false),
            Err(error) => Err(self.close_for(&Failure::Disk(error))),
        }
    }

    async fn replace_life(&self, life: &Life) -> Result<(), DiskError> {
        self.inner.replace_with_ballast(&self.inner.paths.life(), life.encode()).await
    }

    fn close_for(&self, failure: &Failure) -> Poisoned {
        self.inner.fail(failure, Vec::new());
        Poisoned
    }
}

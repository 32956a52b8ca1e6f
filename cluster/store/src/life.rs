//! Reading and replacing the `life` file of a directory.
//!
//! Invariant: what [`Store::save_life`] has confirmed survives a power cut.

use crate::error::{Damage, DiskError, Failure, Poisoned};
use crate::files::{read_small, replace};
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

    /// Replaces the life file. Durable on return.
    ///
    /// # Errors
    /// If the disk fails: the store is closed then.
    pub async fn save_life(&self, life: &Life) -> Result<(), Poisoned> {
        let path = self.inner.paths.life();
        let saved: Result<(), DiskError> =
            replace(self.inner.host.disk.as_ref(), &path, life.encode()).await;
        saved.map_err(|error| self.close_for(&Failure::Disk(error)))
    }

    fn close_for(&self, failure: &Failure) -> Poisoned {
        self.inner.fail(failure, Vec::new());
        Poisoned
    }
}

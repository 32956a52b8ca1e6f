//! Rooms: memory that is taken before it is used, counted in KiB.
//!
//! Invariant: a room is never asked for more than it has, or whoever asks waits for ever.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A room of so many bytes.
pub(crate) fn room(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes / 1024))
}

/// Takes so many bytes of a room; waits while they are not there.
pub(crate) async fn take(room: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let kib = u32::try_from(bytes.div_ceil(1024)).expect("rooms are far below 2^32 KiB");
    room.clone().acquire_many_owned(kib).await.expect("never closed")
}

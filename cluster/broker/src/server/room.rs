//! The memory that client requests may take, shared by all connections of a node.
//!
//! Small frames have a share of their own, so that whoever announces a large frame and sends it
//! slowly, or never, keeps out only other large frames, and those only until it is cut off.

use crate::limits::{LARGE_FRAMES_BYTES_MAX, SMALL_FRAME_BYTES_MAX, SMALL_FRAMES_BYTES_MAX};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The two shares, in KiB.
pub(super) struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Self {
        let share = |bytes: usize| Arc::new(Semaphore::new(bytes / 1024));
        Self { small: share(SMALL_FRAMES_BYTES_MAX), large: share(LARGE_FRAMES_BYTES_MAX) }
    }

    /// Takes room for a frame; waits while there is none.
    pub(super) async fn take(&self, frame_bytes: usize) -> OwnedSemaphorePermit {
        let share = if is_small(frame_bytes) { &self.small } else { &self.large };
        let kib = u32::try_from(frame_bytes.div_ceil(1024)).expect("frames are bounded");
        share.clone().acquire_many_owned(kib).await.expect("never closed")
    }
}

/// Whether a frame may be read before it is counted.
pub(super) const fn is_small(frame_bytes: usize) -> bool {
    frame_bytes <= SMALL_FRAME_BYTES_MAX
}

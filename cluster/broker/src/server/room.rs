//! The memory that client requests may take, shared by all connections of a node.
//!
//! Three shares, so that none of these keeps out the others: large frames, which somebody may
//! announce and send slowly; small ones with records, which wait as long as the site has no
//! quorum; and the other small ones, with which clients find out whom to ask instead.

use crate::counters::Pool;
use crate::limits::{
    LARGE_FRAMES_BYTES_MAX, OTHER_FRAMES_BYTES_MAX, SMALL_FRAME_BYTES_MAX, SMALL_FRAMES_BYTES_MAX,
};
use crate::room::{room, take};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who may take room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Frames that are counted before they are read.
    Large,
    /// Small frames with records.
    Records,
    /// Small frames without.
    Others,
}

/// The shares, in KiB.
pub struct Room {
    large: Arc<Semaphore>,
    records: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            large: room(LARGE_FRAMES_BYTES_MAX),
            records: room(SMALL_FRAMES_BYTES_MAX),
            others: room(OTHER_FRAMES_BYTES_MAX),
        }
    }

    /// What is in use of each.
    pub(crate) fn pools(&self) -> [Pool; 3] {
        [
            Pool::of("requests-large", &self.large, LARGE_FRAMES_BYTES_MAX),
            Pool::of("requests-records", &self.records, SMALL_FRAMES_BYTES_MAX),
            Pool::of("requests-other", &self.others, OTHER_FRAMES_BYTES_MAX),
        ]
    }

    /// Takes room for a frame; waits while there is none.
    pub(super) async fn take(&self, share: Share, frame_bytes: usize) -> OwnedSemaphorePermit {
        let share = match share {
            Share::Large => &self.large,
            Share::Records => &self.records,
            Share::Others => &self.others,
        };
        take(share, frame_bytes).await
    }
}

/// Whether a frame may be read before it is counted.
pub(super) const fn is_small(frame_bytes: usize) -> bool {
    frame_bytes <= SMALL_FRAME_BYTES_MAX
}

//! How what is long gives the thread of the node back.
//!
//! Everything of a node runs on one thread. What a rule makes of one batch may take a second, and there may
//! be many of them at a time; meanwhile nobody would hear whether the node still leads.
//!
//! Invariant: between two times that the thread is given back no more is done than [`SLICE_BYTES`] of
//! work and one step of it, however many batches that concerns.

use fulmar_host::task;

/// Bytes that are read or made before the thread is given back: some ms of the slowest codec.
const SLICE_BYTES: usize = 256 << 10;

/// What may be done before the thread is given back. Whoever has it works, and nobody else.
#[derive(Debug)]
pub struct Pace {
    left: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { left: SLICE_BYTES }
    }
}

impl Pace {
    /// Counts work on so many bytes, and gives the thread back if that was enough.
    pub(super) async fn worked(&mut self, bytes: usize) {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return;
        }
        self.left = SLICE_BYTES;
        task::yield_now().await;
    }
}

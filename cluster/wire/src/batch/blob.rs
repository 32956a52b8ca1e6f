//! The records field of a Fetch response: batches one after the other, the last perhaps cut off.
//!
//! A broker fills its answer up to a number of bytes and may cut through a batch; the consumer
//! fetches that batch again from its start. The first batch is always whole.

use super::{Batch, BatchError, BatchHeader, HEADER_BYTES};
use bytes::Bytes;

/// Iterates over the whole batches of a blob; ends before a batch that is cut off, and after the
/// first error.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// The batches of `blob`.
    pub fn new(blob: Bytes) -> Self {
        Self { rest: blob }
    }

    /// What has not been returned: once the iteration has ended, the bytes of the batch that is
    /// cut off.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    fn step(&mut self) -> Result<Option<Batch>, BatchError> {
        if self.rest.len() < HEADER_BYTES {
            return Ok(None);
        }
        let bytes = BatchHeader::read(&self.rest)?.batch_bytes()?;
        if self.rest.len() < bytes {
            return Ok(None);
        }
        Batch::parse(self.rest.split_to(bytes)).map(Some)
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.rest = Bytes::new();
        }
        result.transpose()
    }
}

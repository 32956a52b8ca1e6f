//! The codecs of record batches: for whoever has to look into one.
//!
//! ```text
//! codec   what the records of a batch are, compressed
//! gzip    members of RFC 1952
//! snappy  one block of the Snappy format, or, as the Java clients write it, in pieces:
//!         82 53 4e 41 50 50 59 00 | version u32 BE | compatible with u32 BE
//!         | per piece: len u32 BE, a block of the Snappy format
//! lz4     frames of LZ4 whose blocks do not refer to one another
//! zstd    frames of RFC 8878
//! ```
//!
//! Invariants: reading is total, and takes no more memory than the limit that it is given and the
//! window of the codec; writing gives the same bytes for the same bytes.
//!
//! Both are done in steps, so that whoever has no thread to spare can do other things in between; what comes
//! out does not depend on who steps.
//!
//! Never: take a length from the bytes on trust. A few KB can announce, and become, 500 MB.

mod apply;
#[cfg(test)]
mod tests;
mod undo;

pub use apply::{Compressing, compress};
pub use undo::{Decompressing, decompress};

use crate::batch::Compression;

/// How Snappy in pieces begins.
const SNAPPY_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// Bytes before the first piece.
const SNAPPY_HEADER_BYTES: usize = 16;

/// Bytes that one step takes or gives, or a little more: what a block holds that is not cut.
pub const STEP_BYTES: usize = 64 << 10;

/// Why bytes cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// They become more than is allowed.
    #[error("more than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// What is allowed.
        bytes_max: usize,
    },
    /// They are not of the codec.
    #[error("no {0:?} that can be read")]
    Damaged(Compression),
}

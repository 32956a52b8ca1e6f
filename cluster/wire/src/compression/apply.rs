//! Applying a codec, step by step.
//!
//! Invariants: the bytes are those that come out in one piece; a step takes at most [`STEP_BYTES`], but for
//! zstd, whose encoder takes all at once.

use super::{SNAPPY_MAGIC, STEP_BYTES};
use crate::batch::Compression;
use bytes::Bytes;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::Write;

/// Bytes of a piece before it is compressed: what the Java clients take.
const SNAPPY_PIECE_BYTES: usize = 32 << 10;

const IN_MEMORY: &str = "memory takes everything";

/// Applies a codec.
pub fn compress(compression: Compression, plain: &[u8]) -> Vec<u8> {
    let mut out = Out::new(compression, plain.len());
    plain.chunks(STEP_BYTES).for_each(|chunk| out.put(chunk));
    out.finish(plain)
}

/// Bytes that are being compressed.
pub struct Compressing {
    plain: Bytes,
    at: usize,
    out: Option<Out>,
}

impl Compressing {
    /// Begins.
    pub fn new(compression: Compression, plain: Bytes) -> Self {
        let out = Some(Out::new(compression, plain.len()));
        Self { plain, at: 0, out }
    }

    /// Goes on, and returns what the bytes have become once that is all.
    ///
    /// # Panics
    /// If they had before.
    pub fn step(&mut self) -> Option<Vec<u8>> {
        let chunk = &self.plain[self.at..self.plain.len().min(self.at + STEP_BYTES)];
        self.at += chunk.len();
        if chunk.is_empty() {
            let out = self.out.take().expect("it ends once");
            return Some(out.finish(&self.plain));
        }
        self.out.as_mut().expect("it has not ended").put(chunk);
        None
    }
}

enum Out {
    None(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Snappy(Vec<u8>),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd,
}

impl Out {
    fn new(compression: Compression, plain_bytes: usize) -> Self {
        match compression {
            Compression::None => Self::None(Vec::with_capacity(plain_bytes)),
            Compression::Gzip => {
                Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default()))
            }
            Compression::Snappy => {
                let mut bytes = SNAPPY_MAGIC.to_vec();
                for version in [1u32, 1] {
                    bytes.extend(version.to_be_bytes());
                }
                Self::Snappy(bytes)
            }
            Compression::Lz4 => {
                // It would take a size that suits the first bytes that it is given.
                let info = FrameInfo::new().block_size(match plain_bytes {
                    0..=0x1_0000 => BlockSize::Max64KB,
                    0x1_0001..=0x4_0000 => BlockSize::Max256KB,
                    _ => BlockSize::Max4MB,
                });
                Self::Lz4(Box::new(FrameEncoder::with_frame_info(info, Vec::new())))
            }
            Compression::Zstd => Self::Zstd,
        }
    }

    /// Takes the next bytes: as many as are whole pieces, but for the last.
    fn put(&mut self, chunk: &[u8]) {
        match self {
            Self::None(bytes) => bytes.extend_from_slice(chunk),
            Self::Gzip(gzip) => gzip.write_all(chunk).expect(IN_MEMORY),
            Self::Snappy(bytes) => {
                for piece in chunk.chunks(SNAPPY_PIECE_BYTES) {
                    let block =
                        snap::raw::Encoder::new().compress_vec(piece).expect("a piece is short");
                    let len = u32::try_from(block.len())
                        .expect("a block is little longer than its piece");
                    bytes.extend(len.to_be_bytes());
                    bytes.extend(block);
                }
            }
            Self::Lz4(frame) => frame.write_all(chunk).expect(IN_MEMORY),
            Self::Zstd => {}
        }
    }

    fn finish(self, plain: &[u8]) -> Vec<u8> {
        match self {
            Self::None(bytes) | Self::Snappy(bytes) => bytes,
            Self::Gzip(gzip) => gzip.finish().expect(IN_MEMORY),
            Self::Lz4(frame) => frame.finish().expect(IN_MEMORY),
            Self::Zstd => compress_to_vec(plain, CompressionLevel::Fastest),
        }
    }
}

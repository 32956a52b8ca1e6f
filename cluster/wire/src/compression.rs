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
//! Never: take a length from the bytes on trust. A few KB can announce, and become, 500 MB.

use crate::batch::Compression;
use bytes::Bytes;
use flate2::read::{GzEncoder, MultiGzDecoder};
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::{Read, Write};

/// How Snappy in pieces begins.
const SNAPPY_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// Bytes before the first piece.
const SNAPPY_HEADER_BYTES: usize = 16;

/// Bytes of a piece before it is compressed: what the Java clients take.
const SNAPPY_PIECE_BYTES: usize = 32 << 10;

/// The widest window that a zstd frame may ask for: what the clients use at most by themselves.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

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

/// Undoes a codec.
///
/// # Errors
/// The bytes are not of the codec, or would become more than `bytes_max`.
pub fn decompress(
    compression: Compression,
    bytes: &Bytes,
    bytes_max: usize,
) -> Result<Bytes, CompressionError> {
    let damaged = CompressionError::Damaged(compression);
    let plain = match compression {
        Compression::None if bytes.len() > bytes_max => {
            return Err(CompressionError::TooLarge { bytes_max });
        }
        Compression::None => return Ok(bytes.clone()),
        Compression::Gzip => read_to(MultiGzDecoder::new(bytes.as_ref()), bytes_max, damaged)?,
        Compression::Snappy => unsnap(bytes, bytes_max)?,
        Compression::Lz4 => read_to(FrameDecoder::new(bytes.as_ref()), bytes_max, damaged)?,
        Compression::Zstd => unzstd(bytes, bytes_max)?,
    };
    Ok(plain.into())
}

/// Reads to the end, or to the limit.
fn read_to(
    source: impl Read,
    bytes_max: usize,
    damaged: CompressionError,
) -> Result<Vec<u8>, CompressionError> {
    let mut plain = Vec::new();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    source.take(most).read_to_end(&mut plain).map_err(|_| damaged)?;
    if plain.len() > bytes_max {
        return Err(CompressionError::TooLarge { bytes_max });
    }
    Ok(plain)
}

fn unzstd(mut bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let damaged = CompressionError::Damaged(Compression::Zstd);
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        let frame = StreamingDecoder::new_with_max_window_size(&mut bytes, ZSTD_WINDOW_BYTES_MAX);
        let left = bytes_max - plain.len();
        plain.append(&mut read_to(frame.map_err(|_| damaged)?, left, damaged).map_err(
            |error| match error {
                CompressionError::TooLarge { .. } => CompressionError::TooLarge { bytes_max },
                error => error,
            },
        )?);
    }
    Ok(plain)
}

fn unsnap(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut plain = Vec::new();
    if !bytes.starts_with(&SNAPPY_MAGIC) {
        unsnap_block(bytes, bytes_max, &mut plain)?;
        return Ok(plain);
    }
    let damaged = CompressionError::Damaged(Compression::Snappy);
    let mut rest = bytes.get(SNAPPY_HEADER_BYTES..).ok_or(damaged)?;
    while !rest.is_empty() {
        let (len, pieces) = rest.split_first_chunk::<4>().ok_or(damaged)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (piece, behind) = pieces.split_at_checked(len).ok_or(damaged)?;
        unsnap_block(piece, bytes_max, &mut plain)?;
        rest = behind;
    }
    Ok(plain)
}

/// Appends what one block holds.
fn unsnap_block(
    block: &[u8],
    bytes_max: usize,
    plain: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let damaged = CompressionError::Damaged(Compression::Snappy);
    let len = snap::raw::decompress_len(block).map_err(|_| damaged)?;
    let (before, after) = (plain.len(), plain.len().saturating_add(len));
    if after > bytes_max {
        return Err(CompressionError::TooLarge { bytes_max });
    }
    // No block becomes more than this: a copy of 64 bytes takes two.
    if len / 64 > block.len() {
        return Err(damaged);
    }
    plain.resize(after, 0);
    let read = snap::raw::Decoder::new().decompress(block, &mut plain[before..]);
    if read.ok() == Some(len) { Ok(()) } else { Err(damaged) }
}

/// Applies a codec.
pub fn compress(compression: Compression, plain: &[u8]) -> Vec<u8> {
    const IN_MEMORY: &str = "memory takes everything";
    match compression {
        Compression::None => plain.to_vec(),
        Compression::Gzip => {
            let mut bytes = Vec::new();
            let mut gzip = GzEncoder::new(plain, flate2::Compression::default());
            gzip.read_to_end(&mut bytes).expect(IN_MEMORY);
            bytes
        }
        Compression::Snappy => snap_pieces(plain),
        Compression::Lz4 => {
            let mut frame = FrameEncoder::new(Vec::new());
            frame.write_all(plain).expect(IN_MEMORY);
            frame.finish().expect(IN_MEMORY)
        }
        Compression::Zstd => compress_to_vec(plain, CompressionLevel::Fastest),
    }
}

fn snap_pieces(plain: &[u8]) -> Vec<u8> {
    let mut bytes = SNAPPY_MAGIC.to_vec();
    for version in [1u32, 1] {
        bytes.extend(version.to_be_bytes());
    }
    for piece in plain.chunks(SNAPPY_PIECE_BYTES) {
        let block = snap::raw::Encoder::new().compress_vec(piece).expect("a piece is short");
        let len = u32::try_from(block.len()).expect("a block is little longer than its piece");
        bytes.extend(len.to_be_bytes());
        bytes.extend(block);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn any_codec() -> impl Strategy<Value = Compression> {
        prop::sample::select(CODECS.to_vec())
    }

    /// What telemetry looks like.
    fn telemetry(rows: usize) -> Vec<u8> {
        let row = |at: usize| {
            format!(
                r#"{{"device":"press-{:03}","temp":{}.{},"ok":true}}"#,
                at % 7,
                at % 90,
                at % 10
            )
        };
        (0..rows).flat_map(|at| row(at).into_bytes()).collect()
    }

    #[test]
    fn what_would_become_too_much_is_refused() {
        let plain = vec![b'x'; 1 << 20];
        for codec in CODECS {
            let bytes = Bytes::from(compress(codec, &plain));
            let error = decompress(codec, &bytes, plain.len() - 1).expect_err("it is too much");
            assert_eq!(
                error,
                CompressionError::TooLarge { bytes_max: plain.len() - 1 },
                "{codec:?}"
            );
            assert_eq!(decompress(codec, &bytes, plain.len()).expect("it fits"), plain);
        }
    }

    #[test]
    fn telemetry_becomes_a_fraction() {
        let plain = telemetry(1_000);
        for codec in &CODECS[1..] {
            let bytes = compress(*codec, &plain);
            assert!(bytes.len() * 3 < plain.len(), "{codec:?}: {} bytes", bytes.len());
        }
    }

    #[test]
    fn snappy_without_pieces_is_read_and_its_length_is_not_believed() {
        let block = snap::raw::Encoder::new().compress_vec(b"hello, hello").expect("it is short");
        let read = decompress(Compression::Snappy, &block.into(), 100);
        assert_eq!(read.expect("it is a block"), "hello, hello");
        // A block that announces 2 GiB, in six bytes.
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x07, 0x00]);
        let damaged = CompressionError::Damaged(Compression::Snappy);
        assert_eq!(decompress(Compression::Snappy, &bomb, usize::MAX), Err(damaged));
    }

    proptest! {
        #[test]
        fn what_was_compressed_reads_back(
            codec in any_codec(), plain in prop::collection::vec(0u8..4, 0..100_000)
        ) {
            let bytes = Bytes::from(compress(codec, &plain));
            prop_assert_eq!(decompress(codec, &bytes, plain.len()).expect("it is ours"), plain);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            codec in any_codec(), bytes in prop::collection::vec(any::<u8>(), 0..500)
        ) {
            let _ = decompress(codec, &bytes.into(), 1 << 16);
        }

        #[test]
        fn damaged_bytes_are_read_or_refused(
            codec in any_codec(), at in any::<prop::sample::Index>(), with in any::<u8>()
        ) {
            let mut bytes = compress(codec, &telemetry(50));
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let _ = decompress(codec, &bytes.into(), 1 << 16);
        }
    }
}

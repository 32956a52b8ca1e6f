//! Undoing a codec, step by step.
//!
//! Invariants: a step reads and gives at most [`STEP_BYTES`], or what one block of the codec holds: 128 KiB
//! with zstd, up to 8 MiB with LZ4 and with Snappy that is not in pieces; both copy more than a gigabyte a
//! second. Whatever the bytes are, every step comes nearer to their end.

use super::{CompressionError, SNAPPY_HEADER_BYTES, SNAPPY_MAGIC, STEP_BYTES};
use crate::batch::Compression;
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder as ZstdDecoder};
use std::io::{self, BufRead, Read};

/// The widest window that a zstd frame may ask for: what the clients use at most by themselves.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Undoes a codec.
///
/// # Errors
/// The bytes are not of the codec, or would become more than `bytes_max`.
pub fn decompress(
    compression: Compression,
    bytes: &Bytes,
    bytes_max: usize,
) -> Result<Bytes, CompressionError> {
    let mut decompressing = Decompressing::new(compression, bytes.clone(), bytes_max)?;
    loop {
        if let Some(plain) = decompressing.step()? {
            return Ok(plain);
        }
    }
}

/// Bytes that are being decompressed.
pub struct Decompressing {
    of: Compression,
    bytes_max: usize,
    plain: Vec<u8>,
    source: Source,
}

enum Source {
    None(Bytes),
    Gzip(MultiGzDecoder<Rationed>),
    Snappy { rest: Bytes, in_pieces: bool },
    Lz4(FrameDecoder<Reader<Bytes>>),
    Zstd(Box<ZstdDecoder>, Reader<Bytes>),
}

/// Bytes of which so many are given until more are let go.
struct Rationed {
    bytes: Bytes,
    left: usize,
}

impl BufRead for Rationed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 && !self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = self.left.min(self.bytes.len());
        Ok(&self.bytes[..most])
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.left -= bytes;
    }
}

impl Read for Rationed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl Decompressing {
    /// Begins with bytes that may become `bytes_max`.
    ///
    /// # Errors
    /// As [`decompress`].
    pub fn new(of: Compression, bytes: Bytes, bytes_max: usize) -> Result<Self, CompressionError> {
        let source = match of {
            Compression::None if bytes.len() > bytes_max => {
                return Err(CompressionError::TooLarge { bytes_max });
            }
            Compression::None => Source::None(bytes),
            Compression::Gzip => Source::Gzip(MultiGzDecoder::new(Rationed { bytes, left: 0 })),
            Compression::Snappy if bytes.starts_with(&SNAPPY_MAGIC) => {
                if bytes.len() < SNAPPY_HEADER_BYTES {
                    return Err(CompressionError::Damaged(of));
                }
                Source::Snappy { rest: bytes.slice(SNAPPY_HEADER_BYTES..), in_pieces: true }
            }
            Compression::Snappy => Source::Snappy { rest: bytes, in_pieces: false },
            Compression::Lz4 => Source::Lz4(FrameDecoder::new(bytes.reader())),
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::new();
                decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
                Source::Zstd(Box::new(decoder), bytes.reader())
            }
        };
        Ok(Self { of, bytes_max, plain: Vec::new(), source })
    }

    /// Goes on, and returns what the bytes have become once that is all.
    ///
    /// # Errors
    /// As [`decompress`]; then it is over.
    pub fn step(&mut self) -> Result<Option<Bytes>, CompressionError> {
        let damaged = CompressionError::Damaged(self.of);
        let (plain, bytes_max) = (&mut self.plain, self.bytes_max);
        let is_whole = match &mut self.source {
            Source::None(bytes) => return Ok(Some(bytes.clone())),
            Source::Gzip(source) => {
                source.get_mut().left = STEP_BYTES;
                match read_some(source, plain, bytes_max) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                    read => read.map_err(|_| damaged)? == 0,
                }
            }
            Source::Lz4(source) => read_some(source, plain, bytes_max).map_err(|_| damaged)? == 0,
            Source::Snappy { rest, in_pieces: true } => unsnap_some(rest, plain, bytes_max)?,
            Source::Snappy { rest, in_pieces: false } => {
                unsnap_block(rest, plain, bytes_max)?;
                true
            }
            Source::Zstd(decoder, rest) => unzstd_some(decoder, rest, plain, bytes_max)?,
        };
        if self.plain.len() > bytes_max {
            return Err(CompressionError::TooLarge { bytes_max });
        }
        Ok(is_whole.then(|| std::mem::take(&mut self.plain).into()))
    }
}

/// Appends what comes next, and at most one byte more than there may be. Returns how much that was.
fn read_some(source: &mut impl Read, plain: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
    let before = plain.len();
    let most = (bytes_max - before).saturating_add(1).min(STEP_BYTES);
    plain.resize(before + most, 0);
    let read = source.read(&mut plain[before..]);
    plain.truncate(before + *read.as_ref().unwrap_or(&0));
    read
}

/// Takes the head of a frame, or one block of it. Returns whether that was all.
fn unzstd_some(
    decoder: &mut ZstdDecoder,
    rest: &mut Reader<Bytes>,
    plain: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<bool, CompressionError> {
    let damaged = CompressionError::Damaged(Compression::Zstd);
    // Before the first frame it says so as well.
    if decoder.is_finished() && rest.get_ref().is_empty() {
        return Ok(true);
    }
    if decoder.is_finished() {
        decoder.init(&mut *rest).map_err(|_| damaged)?;
        return Ok(false);
    }
    decoder.decode_blocks(rest, BlockDecodingStrategy::UptoBlocks(1)).map_err(|_| damaged)?;
    if decoder.can_collect() > bytes_max - plain.len() {
        return Err(CompressionError::TooLarge { bytes_max });
    }
    plain.append(&mut decoder.collect().unwrap_or_default());
    Ok(false)
}

/// Appends what the next pieces hold. Returns whether they were the last.
fn unsnap_some(
    rest: &mut Bytes,
    plain: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<bool, CompressionError> {
    let damaged = CompressionError::Damaged(Compression::Snappy);
    let (read, given) = (rest.len(), plain.len());
    while !rest.is_empty() {
        if read - rest.len() >= STEP_BYTES || plain.len() - given >= STEP_BYTES {
            return Ok(false);
        }
        let len = rest.try_get_u32().map_err(|_| damaged)? as usize;
        if len > rest.len() {
            return Err(damaged);
        }
        unsnap_block(&rest.split_to(len), plain, bytes_max)?;
    }
    Ok(true)
}

/// Appends what one block holds.
fn unsnap_block(
    block: &[u8],
    plain: &mut Vec<u8>,
    bytes_max: usize,
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

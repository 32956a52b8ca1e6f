//! Writing primitive values, and taking shared byte strings along without a copy.
//!
//! ```text
//! written bytes   [ length, header, fields ..... | more fields ... ]      one BytesMut
//! spliced bytes                                  ^ records (Bytes)        shared, not copied
//! frame           [ slice ][ records ][ slice ]                           chunks for writev
//! ```
//!
//! Invariant: the chunks of a frame, one after the other, are the bytes that the copying writer
//! would have written.
//!
//! Never: panic, or fail halfway: a value that has no form on the wire is refused before
//! anything is written for it.

use super::EncodeError;
use bytes::{BufMut, Bytes, BytesMut};
use fulmar_types::Uuid;

/// Byte strings shorter than this are copied even by a splicing writer: one more element in a
/// vectored write, with its reference count, costs more than moving a few cache lines.
const SPLICE_BYTES_MIN: usize = 1024;

/// The writer of one frame or message.
#[derive(Debug)]
pub struct Writer {
    own: BytesMut,
    /// Shared byte strings, each with the length of `own` when it was its turn.
    splices: Vec<(usize, Bytes)>,
    spliced_bytes: usize,
    splice_bytes_min: usize,
}

impl Writer {
    /// A writer that appends everything to `out`.
    pub fn copying(out: BytesMut) -> Self {
        Self { own: out, splices: Vec::new(), spliced_bytes: 0, splice_bytes_min: usize::MAX }
    }

    /// A writer that takes long byte strings along as shared chunks.
    pub fn splicing() -> Self {
        Self { splice_bytes_min: SPLICE_BYTES_MIN, ..Self::copying(BytesMut::new()) }
    }

    /// The bytes written so far, spliced ones included.
    pub fn len(&self) -> usize {
        self.own.len() + self.spliced_bytes
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer of a writer made by [`Self::copying`].
    pub fn into_bytes(self) -> BytesMut {
        assert!(self.splices.is_empty(), "a copying writer has no splices");
        self.own
    }

    /// The chunks of what was written.
    pub fn into_frame(self) -> Frame {
        let bytes = self.len();
        let mut own = self.own.freeze();
        let mut chunks = Vec::with_capacity(2 * self.splices.len() + 1);
        let mut taken = 0;
        for (at, shared) in self.splices {
            if at > taken {
                chunks.push(own.split_to(at - taken));
                taken = at;
            }
            chunks.push(shared);
        }
        if !own.is_empty() {
            chunks.push(own);
        }
        Frame { chunks, bytes }
    }

    /// Overwrites four bytes that were written at `at`, as a length is that is known last.
    pub(crate) fn patch_int32(&mut self, at: usize, value: i32) {
        self.own[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// An 8-bit integer.
    pub fn int8(&mut self, value: i8) {
        self.own.put_i8(value);
    }

    /// A 16-bit integer.
    pub fn int16(&mut self, value: i16) {
        self.own.put_i16(value);
    }

    /// A 32-bit integer.
    pub fn int32(&mut self, value: i32) {
        self.own.put_i32(value);
    }

    /// A 64-bit integer.
    pub fn int64(&mut self, value: i64) {
        self.own.put_i64(value);
    }

    /// An unsigned 32-bit integer (checksums).
    pub fn uint32(&mut self, value: u32) {
        self.own.put_u32(value);
    }

    /// A boolean.
    pub fn boolean(&mut self, value: bool) {
        self.own.put_u8(value.into());
    }

    /// A UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.own.put_slice(&value.0);
    }

    /// An unsigned number in groups of 7 bits, lowest group first.
    pub fn uvarint(&mut self, value: u32) {
        self.groups(value.into());
    }

    /// A zigzag number of 32 bits.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// A zigzag number of 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.groups(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Bytes as they are, copied.
    pub fn slice(&mut self, bytes: &[u8]) {
        self.own.put_slice(bytes);
    }

    /// Bytes as they are, shared if that is worth it.
    pub fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < self.splice_bytes_min {
            return self.slice(bytes);
        }
        self.spliced_bytes += bytes.len();
        self.splices.push((self.own.len(), bytes.clone()));
    }

    /// A tagged field: the tag, and the length of what `value` writes, and that.
    ///
    /// # Errors
    /// Those of `value`, and [`EncodeError::TooLong`].
    pub fn tagged_field(
        &mut self,
        tag: u32,
        value: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut inner = Writer::copying(BytesMut::new());
        value(&mut inner)?;
        let len = u32::try_from(inner.len()).map_err(|_| EncodeError::TooLong(inner.len()))?;
        self.uvarint(tag);
        self.uvarint(len);
        self.slice(&inner.own);
        Ok(())
    }

    /// The length of a string that may be null.
    pub(crate) fn string_len(
        &mut self,
        len: Option<usize>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match len {
            _ if flexible => self.compact_len(len)?,
            None => self.int16(-1),
            Some(len) => self.int16(i16::try_from(len).map_err(|_| EncodeError::TooLong(len))?),
        }
        Ok(())
    }

    /// The length of a byte string, or the count of an array, that may be null.
    pub(super) fn long_len(
        &mut self,
        len: Option<usize>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match len {
            _ if flexible => self.compact_len(len)?,
            None => self.int32(-1),
            Some(len) => self.int32(i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?),
        }
        Ok(())
    }

    fn compact_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        let Some(len) = len else {
            self.uvarint(0);
            return Ok(());
        };
        // Kafka reads the number back as a signed one, so the top bit is out of reach.
        let len = i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?;
        self.uvarint(len.cast_unsigned() + 1);
        Ok(())
    }

    fn groups(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.own.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.own.put_u8(value as u8);
    }
}

/// A finished frame, length prefix included, in chunks to be sent one after the other.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Frame {
    /// The chunks, for a vectored write. None of them is empty.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The chunks, owned.
    pub fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }

    /// The bytes of all chunks together.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// One contiguous copy.
    pub fn to_bytes(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.bytes);
        for chunk in &self.chunks {
            all.put_slice(chunk);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_byte_strings_are_shared_and_short_ones_copied() {
        let long = Bytes::from(vec![7; SPLICE_BYTES_MIN]);
        let short = long.slice(..SPLICE_BYTES_MIN - 1);
        let write = |mut w: Writer| {
            w.bytes(&long);
            w.int32(1);
            w.bytes(&short);
            w.bytes(&long);
            w.bytes(&long);
            w
        };
        let spliced = write(Writer::splicing());
        assert_eq!(spliced.len(), 4 * SPLICE_BYTES_MIN + 3);
        let frame = spliced.into_frame();
        assert_eq!(frame.chunks().len(), 4);
        assert!(frame.chunks().iter().filter(|c| c.as_ptr() == long.as_ptr()).count() == 3);
        assert_eq!(frame.to_bytes(), write(Writer::copying(BytesMut::new())).into_bytes());
        assert_eq!(frame.len(), frame.to_bytes().len());
    }

    #[test]
    fn an_empty_writer_makes_an_empty_frame() {
        let frame = Writer::splicing().into_frame();
        assert!(frame.is_empty());
        assert!(frame.chunks().is_empty());
    }

    #[test]
    fn lengths_beyond_the_wire_are_refused() {
        let mut w = Writer::copying(BytesMut::new());
        let too_long = i16::MAX as usize + 1;
        assert_eq!(w.string_len(Some(too_long), false), Err(EncodeError::TooLong(too_long)));
        assert_eq!(w.string_len(Some(too_long), true), Ok(()));
        let too_many = i32::MAX as usize + 1;
        assert_eq!(w.long_len(Some(too_many), false), Err(EncodeError::TooLong(too_many)));
        assert_eq!(w.long_len(Some(too_many), true), Err(EncodeError::TooLong(too_many)));
    }
}

//! Reading primitive values from the front of a shared buffer.
//!
//! Invariant: every read checks the bytes that remain before it takes or allocates anything.
//!
//! Never: copy a byte string; [`Reader::bytes`] hands out slices of the buffer it was given.

use super::DecodeError;
use bytes::{Buf, Bytes};
use fulmar_types::Uuid;

/// The longest string, in bytes: what the classic form can say. Kafka refuses longer ones in the
/// flexible form, too.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Memory for the elements of arrays that any message may take, in bytes.
pub const ELEMENT_MEMORY_BYTES_FREE: usize = 1 << 20;

/// Memory for the elements of arrays that a message may take for each of its bytes on the wire.
///
/// An element in memory is larger than its form on the wire: an empty compact string is one byte
/// there and 24 here. Without a limit, an 8 MiB frame of empty names would take 200 MB.
pub const ELEMENT_MEMORY_BYTES_PER_BYTE: usize = 4;

/// A cursor that consumes a message from its front.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
    /// What is left of the memory that this message may take for elements of arrays.
    element_memory_bytes: usize,
}

macro_rules! integers {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty;)*) => {
        $($(#[doc = $doc])*
        ///
        /// # Errors
        /// [`DecodeError::Truncated`].
        pub fn $name(&mut self) -> Result<$type, DecodeError> {
            self.array().map(<$type>::from_be_bytes)
        })*
    };
}

impl Reader {
    /// A reader of all of `message`.
    pub fn new(message: Bytes) -> Self {
        let element_memory_bytes = message
            .len()
            .saturating_mul(ELEMENT_MEMORY_BYTES_PER_BYTE)
            .saturating_add(ELEMENT_MEMORY_BYTES_FREE);
        Self { rest: message, element_memory_bytes }
    }

    /// The bytes that have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// What has not been read, as a shared slice.
    pub fn into_rest(self) -> Bytes {
        self.rest
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] if anything is left: the sender and we do not mean the same
    /// message, so what was understood of it cannot be trusted either.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.rest.len())) }
    }

    integers! {
        /// An 8-bit integer.
        int8: i8;
        /// A 16-bit integer.
        int16: i16;
        /// A 32-bit integer.
        int32: i32;
        /// A 64-bit integer.
        int64: i64;
        /// An unsigned 32-bit integer (checksums).
        uint32: u32;
    }

    /// A boolean; like Kafka, any byte but zero is true.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        Ok(self.int8()? != 0)
    }

    /// A UUID.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.array().map(Uuid)
    }

    /// An unsigned number in groups of 7 bits, lowest group first, of at most 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::VarintTooLong`].
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let value = self.groups(32)?;
        u32::try_from(value).map_err(|_| DecodeError::VarintTooLong(32))
    }

    /// A zigzag number of at most 32 bits, as records use it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::VarintTooLong`].
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let folded = self.uvarint()?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    /// A zigzag number of at most 64 bits, as records use it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::VarintTooLong`].
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let folded = self.groups(64)?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    /// The next `len` bytes, shared with the message.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// The next `len` bytes as text.
    ///
    /// The text is a copy: a name that outlives its request must not keep a whole frame alive.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::NotUtf8`].
    pub fn text(&mut self, len: usize) -> Result<String, DecodeError> {
        let bytes = self.rest.get(..len).ok_or(self.truncated(len))?;
        let text = str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)?.to_owned();
        self.rest.advance(len);
        Ok(text)
    }

    /// The length of a string that may be null.
    ///
    /// # Errors
    /// [`DecodeError::StringTooLong`] above what the classic form can say, as in Kafka.
    pub(crate) fn string_len(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let len = if flexible { self.compact_len() } else { classic_len(self.int16()?.into()) }?;
        match len {
            Some(len) if len > STRING_BYTES_MAX => Err(DecodeError::StringTooLong(len)),
            len => Ok(len),
        }
    }

    /// The length of a byte string, or the count of an array, that may be null.
    pub(super) fn long_len(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible { self.compact_len() } else { classic_len(self.int32()?.into()) }
    }

    /// An empty vector with room for `count` elements of at least `element_bytes_min` bytes each.
    ///
    /// The only place where a count from the wire turns into memory: the rest of the message must
    /// be able to hold the elements, and the message must not have spent its memory.
    ///
    /// # Errors
    /// [`DecodeError::CountTooLarge`], [`DecodeError::TooMuchMemory`].
    pub fn elements<T>(
        &mut self,
        count: usize,
        element_bytes_min: usize,
    ) -> Result<Vec<T>, DecodeError> {
        let remaining = self.rest.len();
        if count > remaining / element_bytes_min.max(1) {
            return Err(DecodeError::CountTooLarge { count, remaining });
        }
        self.element_memory_bytes = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| self.element_memory_bytes.checked_sub(bytes))
            .ok_or(DecodeError::TooMuchMemory)?;
        Ok(Vec::with_capacity(count))
    }

    /// Reads a section of tagged fields, handing each to `take` with a reader of its value.
    ///
    /// What `take` leaves unread is skipped: a tag that we do not know belongs to a newer peer
    /// and is never an error (KIP-482). A hostile count costs nothing, since each field takes two
    /// bytes at least.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::VarintTooLong`], and whatever `take` returns.
    pub fn tagged_fields(
        &mut self,
        mut take: impl FnMut(u32, &mut Reader) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let len = self.uvarint()? as usize;
            take(tag, &mut Reader::new(self.bytes(len)?))?;
        }
        Ok(())
    }

    /// Skips a section of tagged fields.
    ///
    /// # Errors
    /// As [`Self::tagged_fields`].
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()? as usize;
            self.need(len)?;
            self.rest.advance(len);
        }
        Ok(())
    }

    fn compact_len(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.uvarint()?.checked_sub(1).map(|len| len as usize))
    }

    fn groups(&mut self, bits: u32) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        let mut shift = 0;
        for (at, byte) in self.rest.iter().enumerate() {
            let group = u64::from(byte & 0x7f);
            if shift >= bits || (group << shift) >> shift != group {
                return Err(DecodeError::VarintTooLong(bits));
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                self.rest.advance(at + 1);
                return Ok(value);
            }
            shift += 7;
        }
        Err(self.truncated(self.rest.len() + 1))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = *self.rest.first_chunk().ok_or(self.truncated(N))?;
        self.rest.advance(N);
        Ok(bytes)
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        if self.rest.len() < needed { Err(self.truncated(needed)) } else { Ok(()) }
    }

    fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::Truncated { needed, remaining: self.rest.len() }
    }
}

fn classic_len(len: i64) -> Result<Option<usize>, DecodeError> {
    match usize::try_from(len) {
        Ok(len) => Ok(Some(len)),
        Err(_) if len == -1 => Ok(None),
        Err(_) => Err(DecodeError::NegativeLength(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::Writer;
    use proptest::prelude::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn integers_are_big_endian() {
        let mut r = reader(&[0xff, 0x01, 0x02, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(r.int8(), Ok(-1));
        assert_eq!(r.int16(), Ok(0x0102));
        assert_eq!(r.int32(), Ok(7));
        assert_eq!(r.int64(), Ok(9));
        assert_eq!(r.int8(), Err(DecodeError::Truncated { needed: 1, remaining: 0 }));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn numbers_with_too_many_bits_are_refused() {
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).uvarint(), Ok(u32::MAX));
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(reader(bytes).uvarint(), Err(DecodeError::VarintTooLong(32)));
        }
        let mut longest = [0xff; 10];
        longest[9] = 0x01;
        assert_eq!(reader(&longest).varlong(), Ok(i64::MIN));
        longest[9] = 0x02;
        assert_eq!(reader(&longest).varlong(), Err(DecodeError::VarintTooLong(64)));
        assert!(matches!(reader(&[0x80]).uvarint(), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn a_failed_read_of_text_or_bytes_takes_nothing() {
        let mut r = reader(&[0xc3, 0x28]);
        assert_eq!(r.text(2), Err(DecodeError::NotUtf8));
        assert_eq!(r.text(3), Err(DecodeError::Truncated { needed: 3, remaining: 2 }));
        assert!(matches!(r.bytes(usize::MAX), Err(DecodeError::Truncated { .. })));
        assert_eq!(r.remaining(), 2);
    }

    #[test]
    fn unknown_tags_are_skipped_and_a_hostile_count_of_tags_ends_with_the_bytes() {
        let mut r = reader(&[2, 5, 1, 0xaa, 0xff, 0x01, 0, 42]);
        assert_eq!(r.clone().skip_tagged_fields(), Ok(()));
        let mut seen = Vec::new();
        r.tagged_fields(|tag, value| {
            seen.push((tag, value.remaining()));
            Ok(())
        })
        .expect("well formed");
        assert_eq!(seen, [(5, 1), (255, 0)]);
        assert_eq!(r.int8(), Ok(42));
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert!(matches!(reader(&bomb).skip_tagged_fields(), Err(DecodeError::Truncated { .. })));
    }

    proptest! {
        #[test]
        fn variable_length_numbers_round_trip(a: u32, b: i32, c: i64) {
            let mut w = Writer::copying(Default::default());
            w.uvarint(a);
            w.varint(b);
            w.varlong(c);
            let mut r = Reader::new(w.into_bytes().freeze());
            prop_assert_eq!(r.uvarint(), Ok(a));
            prop_assert_eq!(r.varint(), Ok(b));
            prop_assert_eq!(r.varlong(), Ok(c));
            prop_assert_eq!(r.finish(), Ok(()));
        }
    }
}

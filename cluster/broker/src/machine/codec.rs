//! The bytes of snapshot sections and outcomes: fixed-width little-endian numbers, and byte
//! strings behind a four-byte length.
//!
//! Invariants: what [`Writer`] wrote, [`Reader`] reads back; the same value always gives the same
//! bytes, because the state hash is taken over them; a reader never allocates more than the bytes
//! that remain could hold, and never panics, whatever the bytes are.

use bytes::Bytes;
use fulmar_types::Uuid;
use thiserror::Error;

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// They end too early.
    #[error("the bytes end before the value does")]
    Short,
    /// They hold something after the last value.
    #[error("bytes are left over after the last value")]
    Long,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A tag, flag or count has a value that does not exist.
    #[error("a tag has a value that does not exist")]
    Tag,
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

macro_rules! numbers {
    ($($ty:ident),*) => {
        impl Writer {
            $(
                #[doc = concat!("Appends one `", stringify!($ty), "`.")]
                pub fn $ty(&mut self, value: $ty) {
                    self.0.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }
        impl Reader<'_> {
            $(
                #[doc = concat!("Takes one `", stringify!($ty), "`.")]
                ///
                /// # Errors
                /// If the bytes end before it does.
                pub fn $ty(&mut self) -> Result<$ty, CodecError> {
                    self.array().map($ty::from_le_bytes)
                }
            )*
        }
    };
}
numbers!(u8, u16, u32, u64, i16, i32, i64, u128);

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a byte string of at most 4 GiB behind its length.
    pub fn bytes(&mut self, value: &[u8]) {
        let len = u32::try_from(value.len()).expect("no stored value is as long as 4 GiB");
        self.u32(len);
        self.0.extend_from_slice(value);
    }

    /// Appends bytes whose length the reader knows.
    pub fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// Appends a text behind its length.
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Appends a count of the elements that follow.
    pub fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("limits keep every count below 2^32"));
    }

    /// Appends a UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(&value.0);
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What has been written.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// What has been written, as a value of its own.
    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// Takes values off a buffer.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of some bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes bytes whose length is known.
    ///
    /// # Errors
    /// If fewer remain.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes an array.
    ///
    /// # Errors
    /// If the bytes end before it does.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Takes a byte string behind its length.
    ///
    /// # Errors
    /// If the bytes end before it does.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.u32()?;
        self.raw(usize::try_from(len).map_err(|_| CodecError::Short)?)
    }

    /// Takes a text behind its length.
    ///
    /// # Errors
    /// If the bytes end before it does, or it is not UTF-8.
    pub fn text(&mut self) -> Result<String, CodecError> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| CodecError::Text)
    }

    /// Takes a count of elements of at least `element_bytes_min` bytes each.
    ///
    /// # Errors
    /// If fewer bytes remain than so many elements need: a vector with this capacity is safe.
    pub fn count(&mut self, element_bytes_min: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u32()?).map_err(|_| CodecError::Short)?;
        match count.checked_mul(element_bytes_min.max(1)) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            Some(_) | None => Err(CodecError::Short),
        }
    }

    /// Reads a byte that says yes or no.
    ///
    /// # Errors
    /// If it says something else, or is missing.
    pub fn flag(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Tag),
        }
    }

    /// Takes a UUID.
    ///
    /// # Errors
    /// If the bytes end before it does.
    pub fn uuid(&mut self) -> Result<Uuid, CodecError> {
        self.array().map(Uuid)
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Confirms that nothing is left.
    ///
    /// # Errors
    /// If something is.
    pub fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Long) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back() {
        let mut out = Writer::new();
        out.u16(7);
        out.i64(-1);
        out.text("plant");
        out.uuid(Uuid([3; 16]));
        out.u128(u128::MAX - 1);
        let bytes = out.finish();
        let mut input = Reader::new(&bytes);
        assert_eq!(input.u16(), Ok(7));
        assert_eq!(input.i64(), Ok(-1));
        assert_eq!(input.text(), Ok("plant".to_owned()));
        assert_eq!(input.uuid(), Ok(Uuid([3; 16])));
        assert_eq!(input.u128(), Ok(u128::MAX - 1));
        assert_eq!(input.end(), Ok(()));
        assert_eq!(input.u8(), Err(CodecError::Short));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let mut input = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1, 2]);
        assert_eq!(input.clone().bytes(), Err(CodecError::Short));
        assert_eq!(input.count(8), Err(CodecError::Short));
    }
}

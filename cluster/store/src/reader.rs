//! Reading untrusted bytes front to back, and the variable-length numbers of the footers.
//!
//! Invariants: a reader never panics and never reads past the slice it was given; every method
//! answers `None` where the bytes end too early. A number has exactly one encoding, and the other
//! ones are refused, so that what decodes encodes back to the same bytes.
//!
//! ```text
//! varint   LEB128: seven bits a byte, low bits first, the top bit says that another byte follows;
//!          at most ten bytes, the last one not zero (unless it is the only one)
//! zigzag   a signed number as a varint: 0, -1, 1, -2, 2 ... become 0, 1, 2, 3, 4 ...
//! ```

/// The longest varint of 64 bits, in bytes.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// A position in bytes that nobody vouches for.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A reader that starts at `at`, which may lie behind the end.
    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.remaining() == 0
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..VARINT_BYTES_MAX as u32).map(|byte| byte * 7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds the one bit that is left of 64.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A zero in front of nothing would be a second encoding of the same number.
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(crate) fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_has_one_encoding() {
        let varint = |bytes: &[u8]| Reader::new(bytes).varint();
        assert_eq!(varint(&[0]), Some(0));
        assert_eq!(varint(&[0x80, 0x00]), None, "a second zero");
        assert_eq!(varint(&[0x80, 0x01]), Some(128));
        assert_eq!(varint(&[0x80]), None, "cut");
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(varint(&largest), Some(u64::MAX));
        largest[9] = 2;
        assert_eq!(varint(&largest), None, "65 bits");
        assert_eq!(varint(&[0xff; 11]), None);
    }

    proptest! {
        #[test]
        fn numbers_read_back(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            put_zigzag(&mut bytes, signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert_eq!(reader.zigzag(), Some(signed));
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn what_reads_as_a_number_is_how_it_is_written(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            if let Some(value) = reader.varint() {
                let mut again = Vec::new();
                put_varint(&mut again, value);
                prop_assert_eq!(&bytes[..reader.position()], &again[..]);
            }
        }
    }
}

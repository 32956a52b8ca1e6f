//! The envelope of the small files: they are replaced whole, so one checksum is enough.
//!
//! ```text
//!   0  magic [u8; 8]        which file it is
//!   8  version u32
//!  12  body len u32
//!  16  body
//!   .  crc u32              crc32c of every byte before it
//! ```

use crate::reader::Reader;
use bytes::BufMut;

const HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// Puts a body into its envelope.
pub(super) fn seal(magic: [u8; 8], version: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len() + CRC_BYTES);
    out.put_slice(&magic);
    out.put_u32_le(version);
    out.put_u32_le(u32::try_from(body.len()).expect("a small file is far below 4 GiB"));
    out.put_slice(body);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out
}

/// The body, if the bytes are exactly one undamaged envelope of this kind and version.
pub(super) fn open(magic: [u8; 8], version: u32, bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    let found: [u8; 8] = reader.array()?;
    let found_version = reader.u32()?;
    let len = usize::try_from(reader.u32()?).ok()?;
    let body = reader.take(len)?;
    let before = bytes.get(..reader.position())?;
    let crc = reader.u32()?;
    let whole = reader.is_at_end() && crc == crc32c::crc32c(before);
    (whole && found == magic && found_version == version).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::super::testing::each_flipped;
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        let bytes = seal(*b"TESTTEST", 3, b"what is inside");
        assert_eq!(open(*b"TESTTEST", 3, &bytes), Some(&b"what is inside"[..]));
        assert_eq!(open(*b"TESTTEST", 4, &bytes), None);
        assert_eq!(open(*b"OTHEROTH", 3, &bytes), None);
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(open(*b"TESTTEST", 3, &flipped), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(open(*b"TESTTEST", 3, &bytes[..len]), None, "cut at {len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(open(*b"TESTTEST", 3, &longer), None, "a byte too many");
    }
}

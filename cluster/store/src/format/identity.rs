//! The file `identity`: which node of which site a directory belongs to.
//!
//! ```text
//! body of the envelope, magic "FULMIDEN", version 1
//!   0  site uuid [u8; 16]
//!  16  node u64
//!  24  incarnation [u8; 16]
//!  40  segment_bytes u64
//! ```

use super::envelope;
use crate::reader::Reader;
use bytes::BufMut;
use fulmar_types::{Incarnation, NodeId, SiteId, Uuid};

const MAGIC: [u8; 8] = *b"FULMIDEN";
const VERSION: u32 = 1;

/// The largest identity file that is read, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 4096;

/// Which node of which site a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The site.
    pub site: SiteId,
    /// The node.
    pub node: NodeId,
    /// This life of the directory: a wiped node comes back with another one.
    pub incarnation: Incarnation,
    /// The size of a segment, fixed for the life of the site.
    pub segment_bytes: u64,
}

impl Identity {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_slice(&self.site.0.0);
        body.put_u64_le(self.node.0);
        body.put_slice(&self.incarnation.0.0);
        body.put_u64_le(self.segment_bytes);
        envelope::seal(MAGIC, VERSION, &body)
    }

    /// Reads the file. `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(envelope::open(MAGIC, VERSION, bytes)?);
        let identity = Self {
            site: SiteId(Uuid(reader.array()?)),
            node: NodeId(reader.u64()?),
            incarnation: Incarnation(Uuid(reader.array()?)),
            segment_bytes: reader.u64()?,
        };
        reader.is_at_end().then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::each_flipped;
    use super::*;

    #[test]
    fn identities_read_back_and_damage_is_refused() {
        let identity = Identity {
            site: SiteId(Uuid([1; 16])),
            node: NodeId(3),
            incarnation: Incarnation(Uuid([2; 16])),
            segment_bytes: 1 << 20,
        };
        let bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes), Some(identity));
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(Identity::decode(&flipped), None, "bit {bit}");
        }
    }
}

//! The file `install`: a snapshot and segments of a peer are being taken over.
//!
//! ```text
//! body of the envelope, magic "FULMINST", version 1
//!   0  keep_tail u8            1: the local log goes on unchanged behind the snapshot
//!   1  snapshot                u8, term u64, index u64: the last entry that it covers
//!  18  chain u64               after that entry
//!  26  moved u32               segments that came over the network
//!  30  the manifest that will hold, laid out as the body of the file `manifest`
//! ```
//!
//! Crash rule: before the record is durable nothing of the log has changed; once it is, the next
//! start finishes what it says, so a crash leaves the old or the new state and never a mixture.

use super::manifest::Manifest;
use super::{envelope, put_position, read_position};
use crate::format::frame::Chain;
use crate::reader::Reader;
use bytes::BufMut;
use fulmar_types::LogPosition;

const MAGIC: [u8; 8] = *b"FULMINST";
const VERSION: u32 = 1;

/// What an interrupted installation must finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallRecord {
    /// Whether the local log goes on behind the snapshot, because it agrees with it.
    pub keep_tail: bool,
    /// The last entry that the snapshot covers.
    pub last: LogPosition,
    /// The chain after it.
    pub chain: Chain,
    /// How many segments came over the network.
    pub moved: u32,
    /// The manifest that will hold.
    pub manifest: Manifest,
}

impl InstallRecord {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u8(u8::from(self.keep_tail));
        put_position(&mut body, Some(self.last));
        body.put_u64_le(self.chain.0);
        body.put_u32_le(self.moved);
        body.extend_from_slice(&self.manifest.encode_body());
        envelope::seal(MAGIC, VERSION, &body)
    }

    /// Reads the file. `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(envelope::open(MAGIC, VERSION, bytes)?);
        let record = Self {
            keep_tail: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            last: read_position(&mut reader)??,
            chain: Chain(reader.u64()?),
            moved: reader.u32()?,
            manifest: Manifest::decode_body(&mut reader)?,
        };
        reader.is_at_end().then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, each_flipped};
    use super::*;
    use fulmar_types::LogIndex;

    #[test]
    fn records_read_back_and_damage_is_refused() {
        let record = InstallRecord {
            keep_tail: true,
            last: at(3, 9),
            chain: Chain(5),
            moved: 1,
            manifest: Manifest {
                active: LogIndex(10),
                removed: [(LogIndex(0), LogIndex(9))].into(),
                ..Manifest::default()
            },
        };
        let bytes = record.encode();
        assert_eq!(InstallRecord::decode(&bytes), Some(record));
        for (bit, flipped) in each_flipped(&bytes) {
            assert_eq!(InstallRecord::decode(&flipped), None, "bit {bit}");
        }
    }
}

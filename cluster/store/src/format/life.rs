//! The file `life`: which life of its directory a node leads, and whom it has met. It is there
//! before the node belongs to a site, and tells a wiped directory from the one that was there.
//!
//! ```text
//! body of the envelope, magic "FULMLIFE", version 2
//!   0  incarnation [u8; 16]
//!  16  flags u8               bit 0: has a site, bit 1: came back to a site that existed,
//!                             bit 2: has had an identity
//!  17  site uuid [u8; 16]     zeros without one
//!  33  lease_ms u64           0 before the first one
//!  41  count u32
//!  45  per node: node u64 | incarnation [u8; 16]
//! ```

use super::envelope;
use crate::reader::Reader;
use bytes::BufMut;
use fulmar_types::{Incarnation, NodeId, SiteId, Uuid};
use std::collections::BTreeMap;

const MAGIC: [u8; 8] = *b"FULMLIFE";
const VERSION: u32 = 2;

const HAS_SITE: u8 = 1;
const REJOINS: u8 = 2;
const INITIALISED: u8 = 4;

/// The largest life file that is read, in bytes.
pub const LIFE_BYTES_MAX: usize = 64 << 10;

/// A life of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Drawn once, when the directory was empty.
    pub incarnation: Incarnation,
    /// The site, once there is one.
    pub site: Option<SiteId>,
    /// This directory began empty when the site existed already: it never writes the first entry
    /// of the log, and it has no vote until the site has given it one.
    pub rejoins: bool,
    /// The identity of this directory was durable, so it has promised something: without an
    /// identity it is not empty, but has lost it.
    pub initialised: bool,
    /// The longest that a lease holds which this node may have granted, in milliseconds.
    pub lease_ms: u64,
    /// The lives of the nodes of the site, once there is one.
    pub known: BTreeMap<NodeId, Incarnation>,
}

impl Life {
    /// The life of a directory that belongs to no site yet.
    pub fn new(incarnation: Incarnation) -> Self {
        let known = BTreeMap::new();
        Self { incarnation, site: None, rejoins: false, initialised: false, lease_ms: 0, known }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_slice(&self.incarnation.0.0);
        let flags = [
            (self.site.is_some(), HAS_SITE),
            (self.rejoins, REJOINS),
            (self.initialised, INITIALISED),
        ];
        body.put_u8(flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
        body.put_slice(&self.site.unwrap_or_default().0.0);
        body.put_u64_le(self.lease_ms);
        body.put_u32_le(u32::try_from(self.known.len()).expect("a site has a handful of nodes"));
        for (node, incarnation) in &self.known {
            body.put_u64_le(node.0);
            body.put_slice(&incarnation.0.0);
        }
        envelope::seal(MAGIC, VERSION, &body)
    }

    /// Reads the file. `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(envelope::open(MAGIC, VERSION, bytes)?);
        let incarnation = Incarnation(Uuid(reader.array()?));
        let flags = reader.u8()?;
        if flags & !(HAS_SITE | REJOINS | INITIALISED) != 0 {
            return None;
        }
        let site = SiteId(Uuid(reader.array()?));
        let site = match flags & HAS_SITE {
            0 if site == SiteId::default() => None,
            0 => return None,
            _ => Some(site),
        };
        let (rejoins, initialised) = (flags & REJOINS != 0, flags & INITIALISED != 0);
        let lease_ms = reader.u64()?;
        let mut known = BTreeMap::new();
        for _ in 0..reader.u32()? {
            known.insert(NodeId(reader.u64()?), Incarnation(Uuid(reader.array()?)));
        }
        let life = Self { incarnation, site, rejoins, initialised, lease_ms, known };
        reader.is_at_end().then_some(life)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::each_flipped;
    use super::*;

    #[test]
    fn lives_read_back_and_damage_is_refused() {
        let young = Life::new(Incarnation(Uuid([2; 16])));
        let back = Life { rejoins: true, ..young.clone() };
        let known = (1..=3).map(|node| (NodeId(node), Incarnation(Uuid([7; 16])))).collect();
        let grown = Life { site: Some(SiteId(Uuid([1; 16]))), known, ..young.clone() };
        let settled = Life { initialised: true, lease_ms: 600, ..grown.clone() };
        for life in [young, back, grown, settled] {
            let bytes = life.encode();
            assert_eq!(Life::decode(&bytes), Some(life));
            for (bit, flipped) in each_flipped(&bytes) {
                assert_eq!(Life::decode(&flipped), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_count_without_its_nodes_is_refused() {
        let mut body = vec![0; 41];
        body.put_u32_le(u32::MAX);
        assert_eq!(Life::decode(&envelope::seal(MAGIC, VERSION, &body)), None);
    }
}

//! The membership of the group, as it stands in the log and in snapshots.
//!
//! ```text
//! version u8 = 1
//! configs u8     | per config: voters u8, voter ids u64 LE ...
//! nodes u16 LE   | per node: id u64 LE, incarnation [u8; 16]
//! ```
//!
//! More than one config is a change in progress (joint consensus, Ongaro 2014, section 4.3).
//! A node that is listed and votes in no config is a learner.
//!
//! Invariant: decoding accepts exactly what encoding produces. Never: trust a count before the
//! bytes that it promises are there.

use crate::types::{Member, Membership};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fulmar_types::{Incarnation, NodeId, Uuid};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

const VERSION: u8 = 1;
const NODE_BYTES: usize = 24;

/// Why a membership could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// It ends too early, or bytes are left over.
    #[error("its length is wrong")]
    Length,
    /// It was written by a newer version.
    #[error("version {0} is not known")]
    Version(u8),
    /// The voters are not among the nodes, or a config is empty.
    #[error("its voters and nodes do not fit together")]
    Inconsistent,
}

pub(crate) fn encode(membership: &Membership) -> Bytes {
    let configs = membership.get_joint_config();
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(u8::try_from(configs.len()).expect("joint consensus has two configs at most"));
    for config in configs {
        out.put_u8(u8::try_from(config.len()).expect("a site has a handful of voters"));
        for voter in config {
            out.put_u64_le(voter.get());
        }
    }
    let nodes: Vec<(NodeId, Member)> = membership.nodes().map(|(id, m)| (*id, *m)).collect();
    out.put_u16_le(u16::try_from(nodes.len()).expect("a site has a handful of nodes"));
    for (node, member) in nodes {
        out.put_u64_le(node.get());
        out.put_slice(&member.incarnation.0.0);
    }
    out.freeze()
}

fn nodes(bytes: &mut &[u8], count: usize) -> Result<BTreeMap<NodeId, Member>, MembershipError> {
    if bytes.remaining() < count * NODE_BYTES {
        return Err(MembershipError::Length);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..count {
        let id = NodeId(bytes.get_u64_le());
        let mut incarnation = [0; 16];
        bytes.copy_to_slice(&mut incarnation);
        nodes.insert(id, Member { incarnation: Incarnation(Uuid(incarnation)) });
    }
    if nodes.len() == count { Ok(nodes) } else { Err(MembershipError::Inconsistent) }
}

fn ids(bytes: &mut &[u8], count: usize) -> Result<Vec<NodeId>, MembershipError> {
    if bytes.remaining() < count * 8 {
        return Err(MembershipError::Length);
    }
    Ok((0..count).map(|_| NodeId(bytes.get_u64_le())).collect())
}

pub(crate) fn decode(mut bytes: &[u8]) -> Result<Membership, MembershipError> {
    let bytes = &mut bytes;
    let version = bytes.try_get_u8().map_err(|_| MembershipError::Length)?;
    if version != VERSION {
        return Err(MembershipError::Version(version));
    }
    let config_count = bytes.try_get_u8().map_err(|_| MembershipError::Length)?;
    let mut configs = Vec::new();
    for _ in 0..config_count {
        let voters = bytes.try_get_u8().map_err(|_| MembershipError::Length)?;
        let config: BTreeSet<NodeId> = ids(bytes, usize::from(voters))?.into_iter().collect();
        configs.push(config);
    }
    let node_count = bytes.try_get_u16_le().map_err(|_| MembershipError::Length)?;
    let nodes = nodes(bytes, usize::from(node_count))?;
    if bytes.has_remaining() {
        return Err(MembershipError::Length);
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| MembershipError::Inconsistent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(configs: &[&[u64]], nodes: &[u64]) -> Membership {
        let configs =
            configs.iter().map(|c| c.iter().map(|id| NodeId(*id)).collect()).collect::<Vec<_>>();
        let voters = configs.iter().flatten().copied();
        let nodes: BTreeMap<NodeId, Member> = nodes
            .iter()
            .map(|id| NodeId(*id))
            .chain(voters)
            .map(|id| (id, Member { incarnation: Incarnation(Uuid([id.get() as u8; 16])) }))
            .collect();
        Membership::new(configs, nodes).expect("every voter is a node")
    }

    #[test]
    fn a_membership_reads_back() {
        for m in [
            Membership::default(),
            membership(&[&[1, 2, 3]], &[]),
            membership(&[&[1, 2]], &[3]),
            membership(&[&[1, 2], &[1, 2, 3]], &[]),
        ] {
            assert_eq!(decode(&encode(&m)), Ok(m));
        }
    }

    #[test]
    fn what_was_not_encoded_is_refused() {
        let good = encode(&membership(&[&[1, 2, 3]], &[]));
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = good.to_vec();
        long.push(0);
        assert_eq!(decode(&long), Err(MembershipError::Length));
        let mut newer = good.to_vec();
        newer[0] = 9;
        assert_eq!(decode(&newer), Err(MembershipError::Version(9)));
        // A voter that is not among the nodes.
        assert_eq!(
            decode(&[1, 1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(MembershipError::Inconsistent)
        );
    }
}

//! What openraft carries as "the data of a snapshot": our snapshot, and the sealed segments below
//! it. No bulk bytes: those are on disk on the leader, and staged on disk on the other node before
//! openraft hears of the snapshot.

use crate::membership;
use crate::types::{StoredMembership, TypeConfig, log_id};
use fulmar_store::{Prepared, SealedInfo, Snapshot};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use std::io;
use std::sync::Arc;

/// A snapshot and the sealed segments that it covers.
#[derive(Clone, Debug)]
pub struct SnapshotData {
    /// The state.
    pub snapshot: Snapshot,
    /// Every sealed segment up to its last entry.
    pub segments: Vec<SealedInfo>,
    /// At the node that takes it over: keeps what came for it until it is installed, however long
    /// openraft takes.
    pub prepared: Option<Arc<Prepared>>,
}

pub(crate) fn meta_of(snapshot: &Snapshot) -> io::Result<SnapshotMetaOf<TypeConfig>> {
    Ok(SnapshotMetaOf::<TypeConfig> {
        last_log_id: Some(log_id(snapshot.last)),
        last_membership: membership_of(snapshot)?,
    })
}

/// The membership as of a snapshot: where it was logged, then what it is.
///
/// ```text
/// term u64 LE | index u64 LE | membership (see the module `membership`)
/// ```
/// A snapshot without one, as at the very beginning, holds no bytes here.
pub(crate) fn membership_of(snapshot: &Snapshot) -> io::Result<StoredMembership> {
    let bytes = &snapshot.membership;
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let malformed = |what: String| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the membership in snapshot {} is malformed: {what}", snapshot.last),
        )
    };
    let (place, body) =
        bytes.split_at_checked(16).ok_or_else(|| malformed("it is too short".to_owned()))?;
    let number = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&place[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let position = fulmar_types::LogPosition {
        term: fulmar_types::Term(number(0)),
        index: fulmar_types::LogIndex(number(8)),
    };
    let membership = membership::decode(body).map_err(|error| malformed(error.to_string()))?;
    Ok(StoredMembership::new(Some(log_id(position)), membership))
}

pub(crate) fn membership_bytes(stored: &StoredMembership) -> bytes::Bytes {
    use bytes::BufMut;
    let mut out = bytes::BytesMut::new();
    if let Some(id) = stored.log_id() {
        let position = crate::types::position(id);
        out.put_u64_le(position.term.get());
        out.put_u64_le(position.index.get());
        out.put_slice(&membership::encode(stored.membership()));
    }
    out.freeze()
}

pub(crate) fn to_openraft(data: SnapshotData) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
    Ok(SnapshotOf::<TypeConfig, SnapshotData> { meta: meta_of(&data.snapshot)?, snapshot: data })
}

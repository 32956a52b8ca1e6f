//! The producer id, shared by the lanes of a producer.
//!
//! Invariant: an identity that a lane has lost count with is never given to that lane again, since
//! its sequence numbers would begin at 0 a second time.

use super::SendError;
use crate::admin::ProducerIdentity;
use crate::cluster::Cluster;
use fulmar_host::time::{self, Instant};
use tokio::sync::Mutex;

/// The newest identity of a producer.
pub(super) struct Identities {
    cluster: Cluster,
    newest: Mutex<Option<ProducerIdentity>>,
}

impl Identities {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, newest: Mutex::const_new(None) }
    }

    /// The newest identity, or a new one if that is the one that the lane has used up.
    pub(super) async fn other_than(
        &self,
        used: Option<ProducerIdentity>,
        deadline: Instant,
    ) -> Result<ProducerIdentity, SendError> {
        let newest = time::timeout_at(deadline, self.newest.lock()).await;
        let Ok(mut newest) = newest else { return Err(SendError::Deadline) };
        if let Some(identity) = newest.filter(|newest| used != Some(*newest)) {
            return Ok(identity);
        }
        let identity = self.cluster.init_producer_id(deadline).await?;
        *newest = Some(identity);
        Ok(identity)
    }
}

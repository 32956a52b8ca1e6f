//! The producer id, shared by the lanes of a producer.
//!
//! Invariant: an identity that a lane has lost count with is never given to that lane again, since
//! its sequence numbers would begin at 0 a second time.

use super::SendError;
use crate::cluster::Cluster;
use fulmar_host::time::{self, Instant};
use fulmar_wire::InitProducerIdRequest;
use tokio::sync::Mutex;

/// A producer id with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
}

/// The newest identity of a producer.
pub(super) struct Identities {
    cluster: Cluster,
    newest: Mutex<Option<Identity>>,
}

impl Identities {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, newest: Mutex::const_new(None) }
    }

    /// The newest identity, or a new one if that is the one that the lane has used up.
    pub(super) async fn other_than(
        &self,
        used: Option<Identity>,
        deadline: Instant,
    ) -> Result<Identity, SendError> {
        let newest = time::timeout_at(deadline, self.newest.lock()).await;
        let Ok(mut newest) = newest else { return Err(SendError::Deadline) };
        if let Some(identity) = newest.filter(|newest| used != Some(*newest)) {
            return Ok(identity);
        }
        let request = InitProducerIdRequest::default();
        let asked = self.cluster.ask_controller(&request, |answer| answer.error_code, deadline);
        let answer = asked.await.map_err(|error| SendError::NoProducerId(error.reason))?;
        if !answer.error_code.is_none() {
            return Err(SendError::Refused(answer.error_code));
        }
        let identity = Identity { producer_id: answer.producer_id, epoch: answer.producer_epoch };
        *newest = Some(identity);
        Ok(identity)
    }
}

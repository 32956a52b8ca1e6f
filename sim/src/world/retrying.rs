//! Whoever asks for the dead letters of a pipeline to be put through again while it runs.
//!
//! What fails again is a dead letter again, and is asked for with the next time. That each goes through once
//! shows in two places: the epochs read the topic without a gap and never twice, and the outputs have what the
//! reference makes of those epochs.
//!
//! Invariant checked here: everything that a site said it would put through again has been put through once
//! everything has healed (`pipeline_converges`).

use super::whole::end;
use crate::epochs::EpochLog;
use fulmar_client::{Cluster, TopicPartition};
use fulmar_types::{Offset, PartitionIndex, TopicId};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one attempt at anything may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The only partition of a topic for dead letters.
const PARTITION: PartitionIndex = PartitionIndex(0);

/// Up to where the dead letters of a pipeline were asked for.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Offset>>);

impl Asked {
    /// Asks time and again, until it is told to stop.
    pub(super) async fn ask(
        self,
        (cluster, pipeline, topic): (Cluster, String, String),
        every: Duration,
        stopped: impl Fn() -> bool,
    ) {
        let letters = TopicPartition::new(&topic, PARTITION);
        while !stopped() {
            madsim::time::sleep(every).await;
            // What is there by now is what is asked for, and perhaps some more.
            let Some(end) = end(&cluster, &letters).await else { continue };
            let topics = [topic.clone()];
            if cluster.retry_letters(&pipeline, &topics, LIMIT).await.is_ok() {
                let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                *asked = end.max(*asked);
            }
        }
    }

    /// What was asked for, and has not been put through.
    pub(super) fn lacks(&self, log: &EpochLog, topic: TopicId) -> Option<String> {
        let asked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = log.positions().get(&(topic, PARTITION)).copied().unwrap_or_default();
        let lacks = position < asked;
        lacks.then(|| format!("dead letters are put through again to {position}, of {asked}"))
    }
}

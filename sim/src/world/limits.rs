//! Who changes how long the records of a topic are kept.
//!
//! ```text
//! all ──retention_from──► the limit ◄──retention_for──► twice as much, or all
//! ```
//!
//! Before a change and once it is acknowledged its client asks where the log begins: what is there
//! after one change stays until the next as long as was promised.
//!
//! Invariants: one client changes a topic, one change after the other. Each is sent once: a client
//! that sends it again by itself would not know of the first that it may still take effect, after
//! what came later. One without an answer is unknown, and is followed by another of the same kind.

use super::client::Client;
use super::series::{Series, settings};
use crate::history::{Action, ChangeOutcome, Kept, OperationId};
use fulmar_client::TopicPartition;
use fulmar_host::time::{self, Duration};
use fulmar_types::PartitionIndex;
use fulmar_wire::{
    CONFIG_DELETE, CONFIG_SET, ErrorCode, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse, IncrementalAlterableConfig,
    RESOURCE_TOPIC,
};
use std::sync::Arc;

/// How long a client waits for a leader and for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long it waits after a change that came to nothing.
const PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Lets the records of a topic go from some time on, which were kept for good, and changes that
    /// from time to time.
    pub(super) async fn limit(mut self, series: Arc<Series>, from: Duration) {
        madsim::time::sleep(from).await;
        let limit = series.kept.unwrap_or_default();
        let mut kept = limit;
        while !self.stopped() {
            if !self.change(&series, kept).await {
                madsim::time::sleep(PAUSE).await;
                continue;
            }
            let Some(every) = series.kept_for else { return };
            self.turn(every).await;
            kept = if kept == limit { self.longer(limit) } else { limit };
        }
    }

    /// More than a limit.
    fn longer(&mut self, Kept { for_ns, bytes, budget }: Kept) -> Kept {
        if self.prng.below(2) == 0 {
            return Kept { budget, ..Kept::default() };
        }
        Kept { for_ns: for_ns.map(|ns| ns * 2), bytes: bytes.map(|bytes| bytes * 2), budget }
    }

    /// Changes how long records are kept. Says whether it is known to be done.
    async fn change(&self, series: &Series, kept: Kept) -> bool {
        let topic = series.current();
        self.starts(series, &topic).await;
        let ids: Vec<OperationId> = {
            let (now, mut history) = (self.now(), self.history());
            let begin = |partition| {
                let name = self.name(&topic, partition);
                history.begin(self.id, name, now, Action::keep(kept))
            };
            (0..series.partitions).map(PartitionIndex).map(begin).collect()
        };
        let outcome = self.change_once(&topic, kept).await;
        {
            let (now, mut history) = (self.now(), self.history());
            ids.into_iter().for_each(|id| history.changed(id, now, outcome));
        }
        if outcome == ChangeOutcome::Done {
            self.starts(series, &topic).await;
        }
        outcome == ChangeOutcome::Done
    }

    /// Asks where the log begins, for the history.
    async fn starts(&self, series: &Series, topic: &str) {
        for partition in (0..series.partitions).map(PartitionIndex) {
            self.earliest(topic, partition).await;
        }
    }

    async fn change_once(&self, topic: &str, kept: Kept) -> ChangeOutcome {
        let of = TopicPartition::new(topic, PartitionIndex(0));
        let Ok(leader) = self.cluster.leader(&of, time::now() + TIMEOUT).await else {
            return ChangeOutcome::Failed;
        };
        let outcome = match leader.connection.call(&request(topic, kept), TIMEOUT).await {
            Ok(answer) => outcome(&answer),
            Err(error) if error.may_have_happened() => ChangeOutcome::Unknown,
            Err(_) => ChangeOutcome::Failed,
        };
        if outcome != ChangeOutcome::Done {
            self.cluster.forget_leader(&of, leader.epoch);
        }
        outcome
    }
}

fn request(topic: &str, kept: Kept) -> IncrementalAlterConfigsRequest {
    let config = |(name, value): (String, Option<String>)| {
        let config_operation = if value.is_some() { CONFIG_SET } else { CONFIG_DELETE };
        IncrementalAlterableConfig { name, config_operation, value }
    };
    let resource = IncrementalAlterConfigsResource {
        resource_type: RESOURCE_TOPIC,
        resource_name: topic.to_owned(),
        configs: settings(kept).into_iter().map(config).collect(),
    };
    IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
}

fn outcome(answer: &IncrementalAlterConfigsResponse) -> ChangeOutcome {
    match answer.responses.first().map(|topic| topic.error_code) {
        Some(ErrorCode::None) => ChangeOutcome::Done,
        // The node does not lead, or has no room: both are said before anything is proposed.
        Some(ErrorCode::NotController | ErrorCode::KafkaStorageError) => ChangeOutcome::Failed,
        _ => ChangeOutcome::Unknown,
    }
}

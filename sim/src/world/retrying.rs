//! Whoever asks for the dead letters of a pipeline to be put through again while it runs.
//!
//! What fails again is a dead letter again, and is asked for with the next time. That each goes through once
//! shows in two places: the epochs read the topic without a gap and never twice, and the outputs have what the
//! reference makes of those epochs.
//!
//! Invariants checked here: everything that a site said it would put through again has been put through once
//! everything has healed (`pipeline_converges`); epochs read dead letters without a gap, none twice, and none that
//! lay there when the pipeline began, anew or with a savepoint, whatever files it had meanwhile
//! (`pipeline_exact`); what a dead letter says of where its record was read is so.

use super::whole::end;
use crate::epochs::EpochLog;
use fulmar_client::{Cluster, ReadRecord, TopicPartition};
use fulmar_reference::model::Came;
use fulmar_types::event::CommittedEpoch;
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

    /// What was asked for, and has not been put through. What lay there when the pipeline began the last time is
    /// left.
    pub(super) fn lacks(&self, log: &EpochLog, topic: TopicId, begun: Offset) -> Option<String> {
        let asked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = log.positions().get(&(topic, PARTITION)).copied().unwrap_or_default();
        let position = position.max(begun);
        let lacks = position < asked;
        lacks.then(|| format!("dead letters are put through again to {position}, of {asked}"))
    }
}

/// What is wrong with the dead letters that epochs behind a number have read. When the first of these began, what
/// lay in their topic ended at `begun`.
pub(super) fn misread<'a>(
    topic: TopicId,
    (epochs, kept): (impl IntoIterator<Item = &'a CommittedEpoch>, u64),
    begun: Offset,
) -> Option<String> {
    let mut next = begun;
    let behind = epochs.into_iter().filter(|epoch| epoch.epoch > kept);
    for (epoch, range) in behind.flat_map(|epoch| epoch.ranges.iter().map(|of| (epoch.epoch, of))) {
        if range.topic != topic {
            continue;
        }
        if range.from != next {
            let from = range.from;
            return Some(format!(
                "epoch {epoch} reads dead letters from {from} on, and not {next}"
            ));
        }
        next = range.to;
    }
    None
}

/// What is wrong with what a record says of where it was read from and why it is not used.
pub(super) fn mistold(
    (came, topic): (&Came, &str),
    from: (u32, i64),
    record: &ReadRecord,
) -> Option<String> {
    let told = |name: &str| {
        let found = record.headers.iter().find(|header| header.key == name.as_bytes());
        let value = found.and_then(|header| header.value.as_deref());
        value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let (partition, offset) = from;
    let wanted = [
        ("fulmar.topic", topic.to_owned()),
        ("fulmar.partition", partition.to_string()),
        ("fulmar.offset", offset.to_string()),
    ];
    for (name, wanted) in wanted {
        let told = told(name);
        if told != wanted {
            return Some(format!("{name} is {told}, and not {wanted}"));
        }
    }
    // Who puts it through again has to know for whom.
    let (reader, behind) = (told("fulmar.reader"), came.behind.as_deref().unwrap_or_default());
    if reader.split(' ').next() != Some(behind) {
        return Some(format!("fulmar.reader is {reader:?}, and it failed behind {behind:?}"));
    }
    let reason = told("fulmar.reason");
    let is_right = (reason == "division by zero") == came.is_by_zero && !reason.is_empty();
    (!is_right).then(|| format!("the reason is {reason:?}"))
}

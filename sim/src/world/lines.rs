//! How much of a line between two sites the copies over it used while they had a backlog.
//!
//! Once a second the ends of the origins and of their copies are asked for, at their own sites, so that
//! nothing of it crosses the line.
//!
//! ```text
//! origin ends at   120 ──── 140 ──── 160     A second counts if a copy has not come, at its end, to where
//! copy ends at      20 ───── 90 ──── 150     its origin was at its beginning: here the first one.
//! ```
//!
//! Invariants: a second counts only if there was work in all of it; one in which the line was cut does not.
//! What is counted as carried is the batches that are committed at the other site, each once, whatever was
//! sent again.

use super::reading::Sizes;
use super::stage::Stage;
use super::workload::READ_TIMEOUT;
use crate::net::Crossed;
use crate::report::LineUse;
use crate::scenario::{NodeAddress, SiteName, Target as Nodes};
use fulmar_client::error::LeaderError;
use fulmar_client::offsets::{OffsetAt, OffsetError};
use fulmar_client::{Cluster, Target, TopicPartition};
use fulmar_types::{Offset, PartitionIndex};
use fulmar_wire::ErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the ends are asked for.
const EVERY: Duration = Duration::from_secs(1);

/// The site of some origins, and the one that has their copies.
pub(super) type Pair = (SiteName, SiteName);

/// A partition of a copy, by the name of its topic.
pub(super) type Copy = (String, PartitionIndex);

/// Where an origin ends, and where its copy does.
#[derive(Clone, Copy, Debug)]
struct Ends {
    origin: Offset,
    copy: Offset,
}

/// How it stood at one moment.
#[derive(Clone, Debug)]
struct Sample {
    at_ns: u64,
    crossed: Crossed,
    is_cut: bool,
    ends: BTreeMap<Copy, Ends>,
}

/// What is known of all lines of a run.
#[derive(Clone, Default)]
pub(super) struct Lines {
    samples: Arc<Mutex<BTreeMap<Pair, Vec<Sample>>>>,
    is_over: Arc<AtomicBool>,
}

impl Lines {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<Pair, Vec<Sample>>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copies have come to their end: nobody needs to watch any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// What the copies of a pair of sites used, by the sizes of their batches. `None` if there is no limit
    /// to what lies between them.
    pub(super) fn used(
        &self,
        stage: &Stage,
        pair: &Pair,
        sizes: &BTreeMap<Copy, Sizes>,
    ) -> Option<LineUse> {
        let (bits_per_s, _) = stage.between_sites(&pair.0, &pair.1);
        let lines = self.locked();
        Some(used(lines.get(pair).map_or(&[], Vec::as_slice), bits_per_s?, sizes))
    }
}

fn used(samples: &[Sample], bits_per_s: u64, sizes: &BTreeMap<Copy, Sizes>) -> LineUse {
    let mut used = LineUse::default();
    for pair in samples.windows(2) {
        let [before, after] = pair else { continue };
        let was_cut = before.is_cut || before.crossed.cut_changes != after.crossed.cut_changes;
        let has_work = |(copy, ends): (&Copy, &Ends)| {
            after.ends.get(copy).is_some_and(|then| then.copy < ends.origin)
        };
        if was_cut || !before.ends.iter().any(has_work) {
            continue;
        }
        let ns = after.at_ns - before.at_ns;
        used.backlog_ms += ns / 1_000_000;
        let capacity = u128::from(bits_per_s) * u128::from(ns) / 8_000_000_000;
        used.capacity_bytes += u64::try_from(capacity).unwrap_or(u64::MAX);
        used.delivered_bytes += after.crossed.delivered_bytes - before.crossed.delivered_bytes;
        for (copy, ends) in &before.ends {
            let (Some(then), Some(sizes)) = (after.ends.get(copy), sizes.get(copy)) else {
                continue;
            };
            // A copy that was made anew begins again.
            let from = if then.copy < ends.copy { Offset(0) } else { ends.copy };
            used.batch_bytes += sizes.range(from..then.copy).map(|(_, bytes)| bytes).sum::<u64>();
        }
    }
    used
}

/// Whoever asks for the ends of the copies of one pair of sites.
pub(super) struct Watching {
    pub(super) pair: Pair,
    /// The topics of the origins, with their partitions.
    pub(super) topics: BTreeMap<String, u32>,
    pub(super) origins: Cluster,
    pub(super) copies: Cluster,
    pub(super) stage: Arc<Stage>,
    pub(super) lines: Lines,
}

impl Watching {
    /// Goes on until the copies have come to their end, which is after the clients have stopped.
    pub(super) async fn run(self) {
        while !self.lines.is_over.load(Ordering::Relaxed) {
            if let Some(sample) = self.sample().await {
                self.lines.locked().entry(self.pair.clone()).or_default().push(sample);
            }
            madsim::time::sleep(EVERY).await;
        }
    }

    /// How it stands; `None` if somebody does not answer.
    async fn sample(&self) -> Option<Sample> {
        let mut ends = BTreeMap::new();
        for (topic, partitions) in &self.topics {
            let copied = format!("{}.{topic}", self.pair.0);
            for partition in (0..*partitions).map(PartitionIndex) {
                let origin = end(&self.origins, topic, partition).await?;
                let copy = end(&self.copies, &copied, partition).await?;
                ends.insert((copied.clone(), partition), Ends { origin, copy });
            }
        }
        let (_, crossed) = self.stage.between_sites(&self.pair.0, &self.pair.1);
        let at_ns = self.stage.machines.now_ns();
        Some(Sample { at_ns, crossed, is_cut: self.is_cut(), ends })
    }

    /// Whether some node of one site does not reach some node of the other one.
    fn is_cut(&self) -> bool {
        let nodes = |site: &SiteName| self.stage.resolve(&Nodes::All(site.clone()));
        let machine = |node: &NodeAddress| self.stage.machine(node);
        let network = self.stage.machines.network();
        let (of, site) = (nodes(&self.pair.0), nodes(&self.pair.1));
        let mut ways = of.iter().flat_map(|from| site.iter().map(move |to| (from, to)));
        ways.any(|(from, to)| {
            let (from, to) = (machine(from), machine(to));
            network.is_cut(from, to) || network.is_cut(to, from)
        })
    }
}

/// Where a partition ends; at its start if it was not made yet. `None` if nobody knows.
async fn end(cluster: &Cluster, topic: &str, partition: PartitionIndex) -> Option<Offset> {
    let of = TopicPartition::new(topic, partition);
    match cluster.list_offset(Target::Leader, &of, OffsetAt::Latest, READ_TIMEOUT).await {
        Ok(found) => found.offset,
        Err(
            OffsetError::Refused(ErrorCode::UnknownTopicOrPartition)
            | OffsetError::Leader(LeaderError::Topic(ErrorCode::UnknownTopicOrPartition))
            | OffsetError::Leader(LeaderError::NoPartition),
        ) => Some(Offset(0)),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, (origin, copy): (u64, u64), delivered_bytes: u64) -> Sample {
        let ends = Ends { origin: Offset(origin), copy: Offset(copy) };
        Sample {
            at_ns: at_s * 1_000_000_000,
            crossed: Crossed { delivered_bytes, ..Crossed::default() },
            is_cut: false,
            ends: BTreeMap::from([(("north.orders".to_owned(), PartitionIndex(0)), ends)]),
        }
    }

    #[test]
    fn only_seconds_with_a_backlog_count_and_batches_count_once() {
        // Batches of ten records and 1,000 bytes.
        let batches = (0..20).map(|number| (Offset(number * 10), 1_000)).collect();
        let sizes = BTreeMap::from([(("north.orders".to_owned(), PartitionIndex(0)), batches)]);
        let mut samples = vec![
            sample(1, (100, 20), 0),
            sample(2, (120, 50), 4_000),
            // It came to the end meanwhile.
            sample(3, (120, 120), 11_000),
            sample(4, (140, 130), 12_000),
        ];
        let use_of = |samples: &[Sample]| used(samples, 80_000, &sizes);
        let wanted = LineUse {
            backlog_ms: 1_000,
            capacity_bytes: 10_000,
            batch_bytes: 3_000,
            delivered_bytes: 4_000,
        };
        assert_eq!(use_of(&samples), wanted);
        samples[1].crossed.cut_changes = 1;
        assert_eq!(use_of(&samples), LineUse::default(), "it was cut meanwhile");
        samples[0].crossed.cut_changes = 1;
        samples[0].is_cut = true;
        assert_eq!(use_of(&samples), LineUse::default(), "it was cut all the time");
    }
}

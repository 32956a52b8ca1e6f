//! What the nodes of a site say of the epochs of its pipelines, put together.
//!
//! Every node reports an epoch when it applies the entry that commits it, and once more when it applies it
//! again after a restart. A pipeline that begins anew, or goes on from a savepoint, has a new owner's number,
//! and counts on from there; what it leaves behind is kept, since its outputs stay.
//!
//! Invariant: all nodes say the same of an epoch of one owner, epochs follow one another, and each reads on
//! where the one before had come to, or further if records are gone.

use fulmar_types::event::{CommittedEpoch, RecordRange};
use fulmar_types::{Offset, PartitionIndex, TopicId};
use std::collections::BTreeMap;

/// A partition that is read.
pub type Part = (TopicId, PartitionIndex);

/// What a pipeline has left behind by going back.
#[derive(Clone, Debug)]
pub struct Left {
    /// All epochs that it had by then.
    pub epochs: Vec<CommittedEpoch>,
    /// The last one that it went on behind; 0 if it began anew.
    pub kept: u64,
    /// When the one before each was told, in virtual nanoseconds since the start.
    pub behind_ns: BTreeMap<u64, u64>,
}

/// The epochs of one pipeline, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct EpochLog {
    epochs: BTreeMap<u64, CommittedEpoch>,
    /// How often it went back, the first time first.
    left: Vec<Left>,
    /// Made of the epochs.
    positions: BTreeMap<Part, Offset>,
    /// When the epoch that was told before each was told first, by whatever owner.
    behind_ns: BTreeMap<u64, u64>,
    /// When the last one was.
    told_ns: u64,
}

impl EpochLog {
    /// The epochs, in order.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = &CommittedEpoch> {
        self.epochs.values()
    }

    /// What was left behind, each time that the pipeline went back.
    pub fn left(&self) -> &[Left] {
        &self.left
    }

    /// Whether an epoch is one of those that were left behind.
    fn has_left(&self, said: &CommittedEpoch) -> bool {
        let newest = self.epochs.values().next_back();
        newest.is_some_and(|newest| said.fence < newest.fence)
            && self.left.iter().any(|left| left.epochs.contains(said))
    }

    /// How far every partition has been read.
    pub fn positions(&self) -> &BTreeMap<Part, Offset> {
        &self.positions
    }

    /// When the epoch that was told before each was told first: what was acknowledged before, its owner knew.
    pub fn behind_ns(&self) -> &BTreeMap<u64, u64> {
        &self.behind_ns
    }

    /// Takes note of what a node said, and when. Whether it was new.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn note(&mut self, said: &CommittedEpoch, time_ns: u64) -> Result<bool, String> {
        let newest = self.epochs.values().next_back().map_or(0, |newest| newest.fence);
        match self.epochs.get(&said.epoch) {
            Some(known) if known == said => return Ok(false),
            // A node that lags behind, or reads its log again.
            _ if self.has_left(said) => return Ok(false),
            Some(known) if known.fence >= said.fence => {
                return Err(format!("{} was told before as {}", told(said), told(known)));
            }
            _ if said.fence < newest => {
                return Err(format!("{} comes after one of owner {newest}", told(said)));
            }
            _ => {}
        }
        if self.epochs.contains_key(&said.epoch) {
            let epochs = self.epochs.values().cloned().collect();
            let behind_ns = self.behind_ns.clone();
            self.left.push(Left { epochs, kept: said.epoch - 1, behind_ns });
            self.epochs.split_off(&said.epoch);
            self.behind_ns.split_off(&said.epoch);
            let ranges = self.epochs.values().flat_map(|epoch| &epoch.ranges);
            let positions = ranges.map(|range| ((range.topic, range.partition), range.to));
            self.positions = positions.collect();
        }
        let last = self.epochs.last_key_value().map_or(0, |(number, _)| *number);
        if said.epoch != last + 1 {
            return Err(format!("{} follows epoch {last}", told(said)));
        }
        for range in &said.ranges {
            if let Some(text) = goes_wrong(range, &self.positions) {
                return Err(format!("{} {text}", told(said)));
            }
            self.positions.insert((range.topic, range.partition), range.to);
        }
        self.epochs.insert(said.epoch, said.clone());
        self.behind_ns.insert(said.epoch, self.told_ns);
        self.told_ns = time_ns;
        Ok(true)
    }
}

fn goes_wrong(range: &RecordRange, positions: &BTreeMap<Part, Offset>) -> Option<String> {
    let RecordRange { topic, partition, from, to, has_more } = range;
    let before = positions.get(&(*topic, *partition)).copied().unwrap_or(Offset(0));
    let is_wrong = *from < before || to < from || (to == from && (!has_more || *from > before));
    is_wrong.then(|| format!("reads {topic}/{partition} from {from} to {to}, which is at {before}"))
}

fn told(epoch: &CommittedEpoch) -> String {
    let CommittedEpoch { pipeline, fence, epoch: number, appends, .. } = epoch;
    let read: u64 = epoch.ranges.iter().map(|range| range.to.get() - range.from.get()).sum();
    format!(
        "epoch {number} of {pipeline}, by owner {fence}, of {read} records and {appends} batches"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Uuid;

    fn epoch(number: u64, fence: u64, (from, to): (u64, u64)) -> CommittedEpoch {
        let topic = TopicId(Uuid([1; 16]));
        let range = RecordRange {
            topic,
            partition: PartitionIndex(0),
            from: Offset(from),
            to: Offset(to),
            has_more: false,
        };
        CommittedEpoch {
            pipeline: "alerts".to_owned(),
            fence,
            epoch: number,
            age_ms: 10 * number,
            hash: [0; 16],
            appends: 0,
            ranges: vec![range],
        }
    }

    #[test]
    fn epochs_follow_one_another_and_are_told_alike() {
        let mut log = EpochLog::default();
        assert_eq!(log.note(&epoch(1, 7, (0, 5)), 0), Ok(true));
        assert_eq!(log.note(&epoch(1, 7, (0, 5)), 0), Ok(false), "by another node");
        assert!(log.note(&epoch(1, 7, (0, 6)), 0).is_err(), "another node says something else");
        assert!(log.note(&epoch(3, 7, (5, 6)), 0).is_err(), "one is missing");
        assert!(log.note(&epoch(2, 7, (4, 6)), 0).is_err(), "a record is read twice");
        assert_eq!(log.note(&epoch(2, 8, (9, 12)), 0), Ok(true), "records went, owners too");
        assert_eq!(log.positions().values().copied().collect::<Vec<_>>(), [Offset(12)]);
    }

    #[test]
    fn a_pipeline_that_goes_back_counts_on_from_there() {
        let mut log = EpochLog::default();
        for number in 1..=3 {
            let read = (5 * number - 5, 5 * number);
            assert_eq!(log.note(&epoch(number, 7, read), 0), Ok(true));
        }
        assert_eq!(log.note(&epoch(2, 9, (5, 8)), 0), Ok(true), "from a savepoint");
        assert_eq!(log.note(&epoch(2, 7, (5, 10)), 0), Ok(false), "a node that lags behind");
        assert_eq!(log.note(&epoch(3, 7, (10, 15)), 0), Ok(false), "it still does");
        assert_eq!(log.epochs().count(), 2);
        let [left] = log.left() else { panic!("it went back once") };
        assert_eq!((left.kept, left.epochs.len()), (1, 3));
        assert!(log.note(&epoch(4, 7, (15, 20)), 0).is_err(), "nobody said so before");
        assert_eq!(log.note(&epoch(1, 10, (0, 4)), 0), Ok(true), "anew");
        assert_eq!(log.left()[1].kept, 0);
    }
}

//! Copies whose origin was put back to an older copy of itself: two histories, of which a copy may have
//! one or the other.
//!
//! Invariant checked here (`mirror_merged`): a copy has what its origin has in the end, or from some
//! offset on only what its origin had before it was put back, all of it; never first the one and then the
//! other. One that has parted from its origin says that it is a fork (`fork_told`, liveness).
//!
//! ```text
//! origin before   0 1 2 3 4 5 6 7          put back to 0..3, then
//! origin after    0 1 2 3 a b c d
//! right           0 1 2 3 4 5              stands still, and says why
//! right           0 1 2 3 a b c d          it had not come further than the older copy
//! wrong           0 1 2 3 4 5 c d          merged
//! ```

use super::origins::Origin;
use super::workload::Workloads;
use crate::history::{Action, History, PartitionName, Payload, ReadBack, Time};
use crate::scenario::SiteName;
use fulmar_client::{Cluster, TopicPartition};
use fulmar_types::{Offset, PartitionIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How a copy begins to say that it is a fork.
const FORK: &str = "a fork";

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What was sent to a partition whose site was put back to older copies of itself, by when: the first life of the site
/// ends when it is put back for the first time.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives {
    /// What was sent and answered in one life.
    of: BTreeMap<Payload, usize>,
    /// What was sent and answered after the copy was made that ended its life: no later one has it.
    lost: BTreeSet<Payload>,
}

impl Lives {
    pub(super) fn of(history: &History, name: &PartitionName) -> Self {
        let put_backs = history.put_backs(&name.site);
        let mut lives = Self::default();
        for operation in history.operations().iter().filter(|of| of.partition == *name) {
            let Action::Produce { batch, .. } = &operation.action else { continue };
            let life = |at: Time| put_backs.iter().filter(|(_, now)| *now <= at).count();
            let began = life(operation.invoked);
            // What was under way when the site went may be of either life.
            if operation.returned.map(life) != Some(began) {
                continue;
            }
            lives.of.extend(batch.payloads.iter().map(|payload| (*payload, began)));
            if put_backs.get(began).is_some_and(|(copied, _)| operation.invoked > *copied) {
                lives.lost.extend(&batch.payloads);
            }
        }
        lives
    }
}

/// Where a copy has parted from its origin, which was put back, if it has. What a copy that may lack something lacks is
/// told by its markers.
///
/// # Errors
/// What is wrong with the copy.
pub(super) fn parted(copy: &ReadBack, origin: &Origin) -> Result<Option<Offset>, String> {
    let there = &origin.ever;
    let now: BTreeSet<Payload> = there.values().copied().collect();
    let (mut parted, mut lost, mut had) = (None, None, BTreeSet::new());
    let mut next = copy.start;
    for record in &copy.records {
        let (offset, payload) = (record.offset, record.payload);
        if offset != next && origin.kept.is_none() {
            return Err(format!("lacks offset {next}, and has offset {offset}"));
        }
        next = offset.plus(1);
        if !had.insert(payload) {
            return Err(format!("has {payload} twice, at offset {offset} again"));
        }
        let life = origin.lives.of.get(&payload);
        if let (Some((at, before)), Some(life)) = (lost, life)
            && life > before
        {
            return Err(format!(
                "has at offset {at} what its origin lost when it was put back, and {payload} at offset {offset}, \
                 which came to the origin later: two histories are merged"
            ));
        }
        if origin.lives.lost.contains(&payload) {
            lost = lost.or(life.map(|life| (offset, life)));
        }
        let is_unknown = offset < origin.read.start && !there.contains_key(&offset);
        let is_gone = is_unknown && !origin.lives.lost.contains(&payload);
        if !is_gone && there.get(&offset) != Some(&payload) {
            parted.get_or_insert(offset);
        }
        if let Some(parted) = parted
            && now.contains(&payload)
        {
            return Err(format!(
                "has parted from its origin at offset {parted}, and has {payload} at offset {offset}, \
                 which its origin has now: two histories are merged"
            ));
        }
    }
    Ok(parted)
}

/// Whether the site with a copy says that the copy is a fork.
pub(super) async fn is_told(
    workloads: &Workloads,
    (site, of): (&SiteName, &SiteName),
    (topic, partition): (&str, PartitionIndex),
) -> bool {
    tells(&workloads.cluster(site), of.as_str(), &TopicPartition::new(topic, partition)).await
}

/// Whether a site says of a copy that comes over a link that it is a fork.
pub(super) async fn tells(cluster: &Cluster, link: &str, copy: &TopicPartition) -> bool {
    let Ok(Some(status)) = cluster.link_status(link, LIMIT).await else { return false };
    status.stopped.get(copy).is_some_and(|why| why.starts_with(FORK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Kept, SeenRecord};

    fn log(payloads: &[u64]) -> ReadBack {
        let record = |(at, payload): (u64, &u64)| SeenRecord {
            offset: Offset(at),
            payload: Payload(*payload),
        };
        let records = (0..).zip(payloads).map(record).collect();
        ReadBack { records, ..ReadBack::default() }
    }

    #[test]
    fn a_copy_has_one_history_or_the_other() {
        let origin = Origin::of(log(&[0, 1, 2, 13, 14, 15]));
        let parted = |copy: &[u64]| parted(&log(copy), &origin);
        assert_eq!(parted(&[0, 1, 2]), Ok(None));
        assert_eq!(parted(&[0, 1, 2, 13, 14, 15]), Ok(None));
        assert_eq!(parted(&[0, 1, 2, 3, 4, 5, 6]), Ok(Some(Offset(3))));
        let merged = parted(&[0, 1, 2, 3, 14]).expect_err("the end is of the other history");
        assert!(merged.contains("parted from its origin at offset 3"), "{merged}");
        let twice = parted(&[0, 1, 2, 2]).expect_err("a record is there once");
        assert!(twice.contains("twice"), "{twice}");
        let mut lacking = log(&[0, 1, 2, 3]);
        lacking.records.remove(1);
        let text = super::parted(&lacking, &origin).expect_err("nothing says that it is missing");
        assert!(text.contains("lacks offset 1"), "{text}");
    }

    #[test]
    fn what_its_origin_has_lost_is_known_when_all_else_has_had_its_time() {
        // 3 to 5 were lost, 13 to 19 came in the next life, of which 18 and 19 are left.
        let mut origin = Origin::of(log(&[0, 1, 2, 13, 14, 15, 16, 17, 18, 19]));
        origin.read.records.drain(..8);
        origin.ever = origin.ever.split_off(&Offset(8));
        origin.read.start = Offset(8);
        origin.kept = Some(Kept::default());
        origin.lives.lost = [3, 4, 5].map(Payload).into();
        origin.lives.of = [3, 4, 5].map(|of| (Payload(of), 0)).into();
        origin.lives.of.extend((13..20).map(|of| (Payload(of), 1)));
        let gone = |copy: &[u64], gaps: std::ops::Range<usize>| {
            let mut copy = log(copy);
            copy.records.drain(gaps);
            parted(&copy, &origin)
        };
        assert_eq!(gone(&[0, 1, 2, 13, 14, 15, 16, 17, 18], 1..4), Ok(None), "late, and whole");
        assert_eq!(gone(&[0, 1, 2, 3, 4], 0..0), Ok(Some(Offset(3))));
        for merged in [[0, 1, 2, 3, 4, 5, 6, 7, 18], [0, 1, 2, 3, 4, 5, 16, 17, 18]] {
            let text = gone(&merged, 6..8).expect_err("two histories");
            assert!(text.contains("two histories are merged"), "{text}");
        }
        assert!(
            gone(&[0, 1, 2, 3, 4, 5, 16], 0..0).is_err(),
            "16 has had its time, and is of the next life"
        );
    }
}

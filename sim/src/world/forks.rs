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

use super::workload::Workloads;
use crate::history::{Payload, ReadBack};
use crate::scenario::SiteName;
use fulmar_client::TopicPartition;
use fulmar_types::{Offset, PartitionIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How a copy begins to say that it is a fork.
pub(super) const FORK: &str = "a fork";

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Where a copy has parted from its origin, which was put back, if it has.
///
/// # Errors
/// What is wrong with the copy.
pub(super) fn parted(copy: &ReadBack, origin: &ReadBack) -> Result<Option<Offset>, String> {
    let there: BTreeMap<Offset, Payload> =
        origin.records.iter().map(|record| (record.offset, record.payload)).collect();
    let now: BTreeSet<Payload> = there.values().copied().collect();
    let (mut parted, mut had, mut next) = (None, BTreeSet::new(), copy.start);
    for record in &copy.records {
        let (offset, payload) = (record.offset, record.payload);
        if offset != next {
            return Err(format!("lacks offset {next}, and has offset {offset}"));
        }
        next = offset.plus(1);
        if !had.insert(payload) {
            return Err(format!("has {payload} twice, at offset {offset} again"));
        }
        if there.get(&offset) != Some(&payload) {
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
    let asked = workloads.cluster(site).link_status(of.as_str(), LIMIT).await;
    let Ok(Some(status)) = asked else { return false };
    let copy = TopicPartition::new(topic, partition);
    status.stopped.get(&copy).is_some_and(|why| why.starts_with(FORK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::SeenRecord;

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
        let origin = log(&[0, 1, 2, 13, 14, 15]);
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
}

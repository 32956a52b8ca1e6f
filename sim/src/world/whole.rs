//! Whole partitions, read from front to back once everything has healed.
//!
//! What is in a compressed batch that cannot be read: see `packing.rs`.

use super::packing;
use fulmar_client::fetch::Fetch;
use fulmar_client::{Cluster, OffsetAt, ReadRecord, Target, TopicPartition};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Where a partition ends, if somebody says so now.
pub(super) async fn end(cluster: &Cluster, of: &TopicPartition) -> Option<Offset> {
    cluster.find_offset(of, OffsetAt::Latest, LIMIT).await.ok()?.offset
}

/// Every record of a partition up to an offset, if all of it can be read now.
pub(super) async fn whole(
    cluster: &Cluster,
    of: &TopicPartition,
    end: Offset,
) -> Option<BTreeMap<Offset, ReadRecord>> {
    since(cluster, of, Offset(0), end).await
}

/// The same from an offset on, or from where the partition begins now if that is later.
pub(super) async fn since(
    cluster: &Cluster,
    of: &TopicPartition,
    from: Offset,
    end: Offset,
) -> Option<BTreeMap<Offset, ReadRecord>> {
    let mut read = BTreeMap::new();
    let start = cluster.find_offset(of, OffsetAt::Earliest, LIMIT).await.ok()?.offset?;
    let mut at = start.max(from);
    while at < end {
        let fetch = Fetch { max_wait: Duration::ZERO, ..Fetch::new(of.clone(), at) };
        let fetched = cluster.fetch(Target::Leader, &fetch, LIMIT).await.ok()?;
        // What is withheld at the end is no record, and never comes.
        if fetched.next_offset() == at {
            return (fetched.high_watermark >= end).then_some(read);
        }
        at = fetched.next_offset();
        for batch in &fetched.batches {
            let records = packing::records(&fetched, batch)?;
            read.extend(records.into_iter().map(|record| (record.offset, record)));
        }
    }
    Some(read)
}

//! What the sites say of records that are missing: the site with the origin, for the history, and the one
//! with the copy, compared with the copy.
//!
//! Checked here, where the copy keeps all (`keeps_all`), or its site takes no large batches (`batch_bytes`): an offset without a record on the copy is spanned by
//! a marker there, and by one at the origin; each marker of the copy counts exactly what is missing; the
//! reason is one that the settings of the topic have. Where a budget keeps the oldest, the first record that
//! is missing lies behind as much as the budget holds.
//!
//! A marker of the origin may span more: what had not been noted as delivered.

use super::mirroring::topic_of;
use super::workload::Workloads;
use crate::history::{
    Action, Budget, History, Kept, Marker, PartitionName, Payload, ReadBack, SeenRecord,
};
use crate::scenario::workload::Mirror;
use crate::scenario::{Drawn, SiteName};
use fulmar_client::TopicPartition;
use fulmar_client::links::{Gap, LinkStatus};
use fulmar_types::{Offset, PartitionIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How often it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a site says of its link to another one.
///
/// # Errors
/// If it does not say so in time.
pub(super) async fn status(
    workloads: &Workloads,
    (site, link): (&SiteName, &SiteName),
    deadline_ns: u64,
) -> Result<LinkStatus, String> {
    loop {
        let asked = workloads.cluster(site).link_status(link.as_str(), LIMIT).await;
        if let Ok(Some(status)) = asked {
            return Ok(status);
        }
        if workloads.stage().machines.now_ns() > deadline_ns {
            return Err(format!("{site} does not say what becomes of its link to {link}"));
        }
        madsim::time::sleep(PAUSE).await;
    }
}

/// The markers of a partition.
pub(super) fn markers(status: &LinkStatus, topic: &str, partition: PartitionIndex) -> Vec<Marker> {
    let gaps = status.gaps.get(&TopicPartition::new(topic, partition));
    let marker = |gap: &Gap| Marker {
        first: Offset(gap.first),
        end: Offset(gap.end),
        count: gap.missing.count,
        reason: gap.missing.reason.name().to_owned(),
    };
    gaps.into_iter().flatten().map(marker).collect()
}

/// Notes what the site with the origin of a mirror says to be missing there.
pub(super) fn note(history: &mut History, mirror: &Mirror<Drawn>, status: &LinkStatus) {
    let (site, topic) = (mirror.of.as_str(), mirror.topic.as_str());
    let is_of = |name: &&PartitionName| name.site == site && name.topic == topic;
    let names: Vec<PartitionName> = history.read_backs().keys().filter(is_of).cloned().collect();
    for name in names {
        let markers = markers(status, topic, name.partition);
        history.mark(name, markers);
    }
}

/// A copy that keeps all, with what is said of it.
pub(super) struct Marked<'a> {
    pub(super) copy: &'a ReadBack,
    /// What its site says to be missing.
    pub(super) here: Vec<Marker>,
    /// What the other one says, asked after the copy was read: more may have gone there meanwhile.
    pub(super) there: Vec<Marker>,
    pub(super) kept: Kept,
    /// Bytes of each record that was produced, at most.
    pub(super) bytes: BTreeMap<Payload, u64>,
    /// Whether the site with the copy takes no batches that are as large as some of them.
    pub(super) has_too_large: bool,
}

impl<'a> Marked<'a> {
    pub(super) fn new(
        history: &History,
        (mirror, partition): (&Mirror<Drawn>, PartitionIndex),
        copy: &'a ReadBack,
        (here, there): (&LinkStatus, &LinkStatus),
    ) -> Self {
        let (site, topic) = (mirror.of.as_str().to_owned(), mirror.topic.as_str().to_owned());
        let origin = PartitionName { site, topic, partition };
        let mut bytes = BTreeMap::new();
        for operation in history.operations().iter().filter(|of| of.partition == origin) {
            let Action::Produce { batch, .. } = &operation.action else { continue };
            let each = batch.bytes_max.div_ceil(batch.count().max(1));
            bytes.extend(batch.payloads.iter().map(|payload| (*payload, each)));
        }
        Self {
            copy,
            here: markers(here, &topic_of(mirror), partition),
            there: markers(there, mirror.topic.as_str(), partition),
            kept: history.kept().get(&origin).copied().unwrap_or_default(),
            bytes,
            has_too_large: mirror.batch_bytes.is_some(),
        }
    }

    /// What is wrong with the markers.
    pub(super) fn wrong(&self) -> Option<String> {
        let there: BTreeSet<Offset> = self.copy.records.iter().map(|of| of.offset).collect();
        let all = (0..self.copy.end().0).map(Offset);
        let missing: BTreeSet<Offset> = all.filter(|at| !there.contains(at)).collect();
        for marker in &self.here {
            let count = missing.range(marker.first..marker.end).count() as u64;
            if count != marker.count {
                return Some(format!("{marker}: {count} are missing"));
            }
            let has_reason = match &*marker.reason {
                "expired" => self.kept.for_ns.is_some(),
                "budget" => self.kept.bytes.is_some() && self.kept.budget != Budget::Block,
                "too-large" => self.has_too_large,
                _ => false,
            };
            if !has_reason {
                return Some(format!("{marker}: the topic gives no such reason"));
            }
        }
        let unmarked = |markers: &[Marker]| {
            let spanned = |at: &Offset| markers.iter().any(|marker| marker.spans(*at));
            missing.iter().find(|at| !spanned(at)).copied()
        };
        if let Some(at) = unmarked(&self.here) {
            return Some(format!("offset {at} is missing, and no marker says so"));
        }
        // What is too large the origin has.
        let unmarked = unmarked(&self.there).filter(|_| !self.has_too_large);
        if let Some(at) = unmarked {
            return Some(format!("offset {at} is missing, and the origin does not know it"));
        }
        self.dropped_early(&missing)
    }

    /// The first record that the budget had no room for lies behind as much as it holds.
    fn dropped_early(&self, missing: &BTreeSet<Offset>) -> Option<String> {
        let limit = self.kept.bytes.filter(|_| self.kept.budget == Budget::KeepOldest)?;
        let first = *missing.first()?;
        let of = |record: &SeenRecord| self.bytes.get(&record.payload).copied().unwrap_or(0);
        let before = self.copy.records.iter().filter(|record| record.offset < first);
        let kept: u64 = before.map(of).sum();
        let largest = self.bytes.values().max().copied().unwrap_or(0);
        (kept + largest < limit).then(|| {
            format!("offset {first} was not kept, and {kept} bytes at most were, of {limit}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(first: u64, end: u64, count: u64, reason: &str) -> Marker {
        let (first, end) = (Offset(first), Offset(end));
        Marker { first, end, count, reason: reason.to_owned() }
    }

    /// A copy of ten records of 100 bytes, without those at offsets 4 and 5.
    fn copy() -> ReadBack {
        let record = |at| SeenRecord { offset: Offset(at), payload: Payload(at) };
        let records = (0..10).filter(|at| !(4..6).contains(at)).map(record).collect();
        ReadBack { records, told_end: Offset(10), ..ReadBack::default() }
    }

    fn wrong(here: &[Marker], there: &[Marker], bytes: u64, budget: Budget) -> Option<String> {
        let marked = Marked {
            copy: &copy(),
            here: here.to_vec(),
            there: there.to_vec(),
            kept: Kept { for_ns: None, bytes: Some(bytes), budget },
            bytes: (0..10).map(|at| (Payload(at), 100)).collect(),
            has_too_large: false,
        };
        marked.wrong()
    }

    #[test]
    fn markers_have_to_say_what_is_missing() {
        let right = [marker(4, 6, 2, "budget")];
        let wider = [marker(2, 8, 6, "budget")];
        for budget in [Budget::KeepNewest, Budget::KeepOldest] {
            assert_eq!(wrong(&right, &right, 400, budget), None);
            assert_eq!(wrong(&right, &wider, 400, budget), None, "the origin knows less");
        }
        let cases: [(&[Marker], &[Marker], &str); 5] = [
            (&[], &right, "no marker says so"),
            (&right, &[], "the origin does not know it"),
            (&wider, &wider, "2 are missing"),
            (&[marker(4, 5, 1, "budget")], &right, "offset 5 is missing"),
            (&[marker(4, 6, 2, "expired")], &right, "no such reason"),
        ];
        for (here, there, text) in cases {
            let found = wrong(here, there, 400, Budget::KeepNewest).expect(text);
            assert!(found.contains(text), "{found}");
        }
        let blocked = wrong(&right, &right, 400, Budget::Block).expect("it may only block");
        assert!(blocked.contains("no such reason"), "{blocked}");
        let early = wrong(&right, &right, 900, Budget::KeepOldest).expect("there was room");
        assert!(early.contains("offset 4 was not kept, and 400 bytes at most were"), "{early}");
    }
}

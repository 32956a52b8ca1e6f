//! One copy against its origin: what the origin has and had, and how the copy differs from it.
//!
//! Invariants: what a copy may lack is what its origin may have let go, and nothing else; markers are
//! asked for at both sites, and have to tell of everything that a copy that keeps all does not have.

use super::forks::{self, Lives};
use super::marking::{self, Marked};
use super::mirroring::{LOOK, Part, topic_of};
use super::reading::{Reader, Sizes};
use super::workload::Workloads;
use crate::history::{
    Action, Batch, Besides, ClientId, History, Kept, PartitionName, Payload, ProduceOutcome,
    ReadBack, Time,
};
use crate::report::Verdict;
use crate::scenario::workload::Mirror;
use crate::scenario::{Drawn, SiteName};
use fulmar_types::{Offset, PartitionIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What an origin has, and what it had.
pub(super) struct Origin {
    pub(super) read: ReadBack,
    /// What is known of every offset, that of records included whose time is over.
    pub(super) ever: BTreeMap<Offset, Payload>,
    /// When the producer was told of it.
    pub(super) acked: BTreeMap<Offset, Time>,
    /// How long records are kept, if not for good.
    pub(super) kept: Option<Kept>,
    /// All that anybody ever sent to it, if its site was put back to an older copy of itself: what it had
    /// before is not known otherwise.
    pub(super) sent: Option<BTreeSet<Payload>>,
    /// The same by the lives of the site, as far as that is known.
    pub(super) lives: Lives,
    /// What lies in batches that may be too large for the site with the copy.
    pub(super) too_large: BTreeSet<Payload>,
    /// What may have been appended after the origin was read: nobody was told what became of it.
    pub(super) unsettled: BTreeSet<Payload>,
}

impl Origin {
    /// One that has just these records.
    #[cfg(test)]
    pub(super) fn of(read: ReadBack) -> Self {
        Self {
            ever: read.records.iter().map(|of| (of.offset, of.payload)).collect(),
            read,
            acked: BTreeMap::new(),
            kept: None,
            sent: None,
            lives: Lives::default(),
            too_large: BTreeSet::new(),
            unsettled: BTreeSet::new(),
        }
    }

    /// What is wrong with a record at an offset. Of one that has expired since, and whose producer
    /// was never told where it is, nothing is known; nor of one behind the end that may have come later.
    pub(super) fn contradicts(&self, offset: Offset, payload: Payload) -> Option<String> {
        if self.sent.as_ref().is_some_and(|sent| sent.contains(&payload)) {
            return None;
        }
        let known = self.ever.get(&offset);
        let has = match known {
            Some(known) if *known == payload => return None,
            None if offset < self.read.start => return None,
            None if offset >= self.read.end() && self.unsettled.contains(&payload) => return None,
            Some(known) => known.to_string(),
            None => "nothing".to_owned(),
        };
        Some(format!("{payload} at offset {offset}, where its origin has {has}"))
    }
}

/// The partitions of the origin of a mirror.
pub(super) fn origins(
    history: &Mutex<History>,
    mirror: &Mirror<Drawn>,
) -> Vec<(PartitionIndex, Origin)> {
    let history = history.lock().unwrap_or_else(PoisonError::into_inner);
    let is_of = |name: &PartitionName| {
        name.site == mirror.of.as_str() && name.topic == mirror.topic.as_str()
    };
    let mut found = Vec::new();
    for (name, read) in history.read_backs().iter().filter(|(name, _)| is_of(name)) {
        let acked = history.operations().iter().filter(|of| of.partition == *name);
        let sent = history.was_put_back(&name.site).then(|| payloads(&history, name, |_, _| true));
        let lives = Lives::of(&history, name);
        let (mut ever, mut told) = (BTreeMap::new(), BTreeMap::new());
        for operation in acked {
            let Some((batch, base)) = operation.acked() else { continue };
            for (offset, payload) in (base.get()..).map(Offset).zip(&batch.payloads) {
                ever.insert(offset, *payload);
                told.insert(offset, operation.returned.unwrap_or(Time::END));
            }
        }
        ever.extend(read.records.iter().map(|record| (record.offset, record.payload)));
        let kept = history.kept().get(name).copied();
        let most = mirror.batch_bytes.map_or(u64::MAX, |most| most.0);
        let too_large = payloads(&history, name, |batch, _| batch.bytes_max > most);
        let unsettled =
            payloads(&history, name, |_, outcome| matches!(outcome, ProduceOutcome::Unknown));
        let (read, acked) = (read.clone(), told);
        let origin = Origin { read, ever, acked, kept, sent, lives, too_large, unsettled };
        found.push((name.partition, origin));
    }
    found
}

/// All that anybody ever sent to a partition in some batches.
fn payloads(
    history: &History,
    name: &PartitionName,
    is_one: impl Fn(&Batch, &ProduceOutcome) -> bool,
) -> BTreeSet<Payload> {
    let of_partition = history.operations().iter().filter(|of| of.partition == *name);
    let batches = of_partition.filter_map(|operation| match &operation.action {
        Action::Produce { batch, outcome } if is_one(batch, outcome) => Some(&batch.payloads),
        _ => None,
    });
    batches.flatten().copied().collect()
}

/// Reads a mirror until it has come to the end of its origin, and compares the two. Returns the sizes of
/// its batches.
pub(super) async fn whole(
    workloads: &Workloads,
    (of, (site, topic, partition)): (&SiteName, &Part),
    origin: &Origin,
    deadline_ns: u64,
) -> Result<(ReadBack, Sizes), Verdict> {
    let (site_name, partition) = (site.as_str().to_owned(), *partition);
    let name = PartitionName { site: site_name, topic: topic.clone(), partition };
    let cluster = workloads.cluster(site);
    let reader = Reader {
        id: ClientId::LAST_READER,
        site,
        cluster: &cluster,
        stage: workloads.stage(),
        history: workloads.history(),
    };
    loop {
        let read = reader.whole(&name).await;
        let mut is_fork = false;
        if let Ok((mirror, sizes)) = &read {
            if origin.sent.is_some() {
                is_fork = match forks::parted(mirror, origin) {
                    Ok(parted) => parted.is_some(),
                    Err(text) => {
                        let (check, text) = ("mirror_merged".to_owned(), format!("{name} {text}"));
                        return Err(Verdict::Safety { check, text });
                    }
                };
            }
            if is_fork {
                if forks::is_told(workloads, (site, of), (topic, partition)).await {
                    return Ok((mirror.clone(), sizes.clone()));
                }
            } else if let Some(text) = differs(mirror, origin) {
                let text = format!("{name} {text}");
                return Err(Verdict::Safety { check: "mirror_equal".to_owned(), text });
            }
            if !is_fork && mirror.end() >= origin.read.end() {
                return Ok((mirror.clone(), sizes.clone()));
            }
        }
        if workloads.stage().machines.now_ns() > deadline_ns {
            if is_fork {
                let text = format!("{name} has parted from its origin, and nobody says so");
                return Err(Verdict::Liveness { check: "fork_told".to_owned(), text });
            }
            let at =
                read.map_or_else(|text| text, |(mirror, _)| format!("it ends at {}", mirror.end()));
            let text = format!("{name} has not come to offset {}: {at}", origin.read.end());
            return Err(Verdict::Liveness { check: "mirror_converges".to_owned(), text });
        }
        madsim::time::sleep(LOOK).await;
    }
}

/// What is wrong with the markers of a copy that keeps all, or whose site takes no large batches.
pub(super) async fn marked(
    workloads: &Workloads,
    mirror: &Mirror<Drawn>,
    (partition, copy): (PartitionIndex, &ReadBack),
    deadline_ns: u64,
) -> Option<Verdict> {
    if !mirror.keeps_all && mirror.batch_bytes.is_none() {
        return None;
    }
    let told = async {
        let here = marking::status(workloads, (&mirror.site, &mirror.of), deadline_ns).await?;
        let there = marking::status(workloads, (&mirror.of, &mirror.site), deadline_ns).await?;
        Ok((here, there))
    };
    let (here, there) = match told.await {
        Ok(told) => told,
        Err(text) => {
            return Some(Verdict::Liveness { check: "mirror_converges".to_owned(), text });
        }
    };
    let history = workloads.history().lock().unwrap_or_else(PoisonError::into_inner);
    let text = Marked::new(&history, (mirror, partition), copy, (&here, &there)).wrong()?;
    let text = format!("{}/{partition} at {}: {text}", topic_of(mirror), mirror.site);
    Some(Verdict::Safety { check: "gap_markers".to_owned(), text })
}

/// Where a record of a mirror has another time than at its origin, or other headers than are to be there.
pub(super) fn besides_differ(
    mirror: &ReadBack,
    origin: &ReadBack,
    drops_headers: bool,
) -> Option<String> {
    let there: BTreeMap<Offset, Payload> =
        origin.records.iter().map(|record| (record.offset, record.payload)).collect();
    let same = mirror.records.iter().filter(|of| there.get(&of.offset) == Some(&of.payload));
    same.map(|record| record.offset).find_map(|offset| {
        let (has, had) = (mirror.besides.get(&offset)?, *origin.besides.get(&offset)?);
        let headers = if drops_headers { 0 } else { had.headers };
        let wanted = Besides { headers, ..had };
        (*has != wanted).then(|| format!("has {has:?} at offset {offset}, not {wanted:?}"))
    })
}

/// How a mirror differs from its origin, apart from where it ends. It may lack what has had its time
/// since somebody was told of it: the mirror has it later, and so keeps it longer; and what is too large for its
/// site.
fn differs(mirror: &ReadBack, origin: &Origin) -> Option<String> {
    for record in &mirror.records {
        if let Some(text) = origin.contradicts(record.offset, record.payload) {
            return Some(format!("has {text}"));
        }
    }
    let has: BTreeSet<Offset> = mirror.records.iter().map(|record| record.offset).collect();
    let has_its_time = |offset: &Offset| match origin.kept {
        None => true,
        Some(Kept { for_ns: Some(ns), bytes: None, .. }) => {
            origin.acked.get(offset).is_some_and(|told| told.0.saturating_add(ns) > mirror.at.0)
        }
        Some(_) => false,
    };
    let there = origin.read.records.iter().filter(|record| record.offset < mirror.end());
    let there = there.filter(|record| !origin.too_large.contains(&record.payload));
    let mut there = there.filter(|record| has_its_time(&record.offset));
    let missing = there.find(|record| !has.contains(&record.offset))?;
    Some(format!("lacks offset {}, which its origin still has", missing.offset))
}

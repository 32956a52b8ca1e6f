//! The end of a run: the site must make progress, its nodes must become equal, everything is read
//! back, and then it is judged.
//!
//! Liveness is asked for only here, after everything has been healed: while the faults last a site
//! may well stand still.

use super::Shared;
use super::stage::Stage;
use super::workload::Workloads;
use crate::history::{self, Action, History, ProduceOutcome, Time};
use crate::report::{RunReport, Verdict};
use crate::scenario::check::LineShareAtLeast;
use crate::scenario::{Check, Drawn, NodeAddress, SiteName};
use fulmar_types::LogPosition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often the harness looks whether the sites have converged.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for progress and convergence, reads everything back and judges.
pub(super) async fn finish(
    stage: &Arc<Stage>,
    shared: &Arc<Shared>,
    workloads: &Workloads,
) -> Verdict {
    let healed = Time(stage.machines.now_ns());
    let within = stage.drawn.run.heal_within.0;
    let deadline = healed.0 + u64::try_from(within.as_nanos()).unwrap_or(u64::MAX / 2);
    if let Some(verdict) = progress(stage, shared, workloads, (healed, deadline)).await {
        return verdict;
    }
    if madsim::time::timeout(within, workloads.stop()).await.is_err() {
        let text = format!("clients still wait {} s after", within.as_secs());
        return violated(shared).unwrap_or_else(|| liveness("clients_end", text));
    }
    if let Some(verdict) = equal(stage, shared, deadline).await {
        return verdict;
    }
    // What the clients saw is judged with the whole log at hand, which explains it best.
    if let Some(verdict) = reported(shared) {
        return verdict;
    }
    if let Err(text) = workloads.read_back().await {
        return violated(shared).unwrap_or_else(|| liveness("read_back", text));
    }
    stage.sink.say(stage.machines.now_ns(), || "everything is read back".to_owned());
    if let Some(verdict) = workloads.compare(deadline).await {
        return violated(shared).unwrap_or(verdict);
    }
    let late = urgent(stage, shared, workloads, healed);
    late.map_or_else(|| judge(stage, shared), |late| violated(shared).unwrap_or(late))
}

fn liveness(check: &str, text: String) -> Verdict {
    Verdict::Liveness { check: check.to_owned(), text }
}

/// Every topic must have a record acknowledged that was sent after the healing.
async fn progress(
    stage: &Stage,
    shared: &Shared,
    workloads: &Workloads,
    times: (Time, u64),
) -> Option<Verdict> {
    let (healed, deadline) = times;
    loop {
        let missing = {
            let history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
            let mut missing = workloads.topics();
            for operation in history.operations().iter().rev() {
                if operation.invoked < healed {
                    break;
                }
                let acked = matches!(
                    &operation.action,
                    Action::Produce { outcome: ProduceOutcome::Acked(_), .. }
                );
                if acked {
                    missing.retain(|(site, topic)| {
                        site.as_str() != operation.partition.site
                            || *topic != operation.partition.topic
                    });
                }
            }
            missing
        };
        if missing.is_empty() {
            return None;
        }
        if stage.sink.violation().is_some() {
            return violated(shared);
        }
        if stage.machines.now_ns() > deadline {
            let (site, topic) = missing.into_iter().next()?;
            return violated(shared).or_else(|| {
                Some(liveness(
                    "progress",
                    format!("topic {topic} of {site} took no record within the time to heal"),
                ))
            });
        }
        madsim::time::sleep(LOOK).await;
    }
}

/// Where each living node of a site stands.
fn standing(
    stage: &Stage,
    site: &SiteName,
) -> BTreeMap<NodeAddress, (Option<LogPosition>, Option<u128>)> {
    let nodes = stage.nodes().filter(|node| node.site == *site && !stage.is_gone(node));
    nodes
        .map(|node| {
            let view = stage.sink.view(stage.site_node(node));
            (node.clone(), (view.applied, view.state))
        })
        .collect()
}

/// Without work, all nodes of a site must come to the same entry and the same state.
async fn equal(stage: &Stage, shared: &Shared, deadline: u64) -> Option<Verdict> {
    for site in stage.sites() {
        loop {
            let standing = standing(stage, site);
            let first = standing.values().next().copied();
            let same_place = standing.values().all(|at| Some(at.0) == first.map(|at| at.0));
            if same_place {
                // A node that took a snapshot has reported no state since; the check of applied
                // entries compares its next one.
                let states: BTreeSet<u128> = standing.values().filter_map(|at| at.1).collect();
                if states.len() > 1 {
                    let text = format!("the nodes of {site} are in {} states", states.len());
                    return Some(Verdict::Safety { check: "equal_replicas".to_owned(), text });
                }
                break;
            }
            if stage.machines.now_ns() > deadline {
                let text: Vec<String> = standing
                    .iter()
                    .map(|(node, (applied, _))| {
                        let at = applied.map_or("nothing".to_owned(), |at| at.to_string());
                        format!("{node} applied {at}")
                    })
                    .collect();
                return violated(shared)
                    .or_else(|| Some(liveness("equal_replicas", text.join(", "))));
            }
            madsim::time::sleep(LOOK).await;
        }
    }
    None
}

/// The verdict on a run of which everything was read back: what is wrong, or what the scenario asks
/// for and did not get.
fn judge(stage: &Stage, shared: &Shared) -> Verdict {
    let asked = || {
        let history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        stage.drawn.checks.iter().find_map(|check| asked_for(stage, &history, check))
    };
    violated(shared).or_else(asked).unwrap_or(Verdict::Pass)
}

/// What is asked of the line between two sites, while the chaos lasted.
fn urgent(stage: &Stage, shared: &Shared, workloads: &Workloads, healed: Time) -> Option<Verdict> {
    let history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
    stage.drawn.checks.iter().find_map(|check| match check {
        Check::UrgentOvertakes(asked) => workloads.line().judge(&history, asked, healed).err(),
        _ => None,
    })
}

/// What is wrong, if anything is: the harness first, then what the nodes reported, then what the
/// clients saw. It comes before everything that a run did not bring about.
pub(super) fn violated(shared: &Shared) -> Option<Verdict> {
    reported(shared).or_else(|| {
        let history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        let violation = history::checks::check(&history).into_iter().next()?;
        let text = violation.to_string();
        Some(Verdict::Safety { check: violation.check().to_owned(), text })
    })
}

/// Whether the harness could not go on, or a check over the nodes found something.
fn reported(shared: &Shared) -> Option<Verdict> {
    if let Some(text) = shared.sink.failure() {
        return Some(Verdict::Harness { text });
    }
    let violation = shared.sink.violation()?;
    let text = violation.to_string();
    Some(Verdict::Safety { check: violation.check.to_owned(), text })
}

fn asked_for(stage: &Stage, history: &History, check: &Check<Drawn>) -> Option<Verdict> {
    match check {
        Check::AckedAtLeast(asked) => {
            let acked = acked_of(history, &asked.site, asked.topic.as_str());
            let count: u64 = acked.iter().map(|(_, records)| records).sum();
            let wanted = u64::from(asked.records.get());
            (count < wanted).then(|| {
                let topic = &asked.topic;
                liveness(check.kind(), format!("{count} records of {topic}, {wanted} wanted"))
            })
        }
        Check::ExpiredAtLeast(asked) => {
            let of_topic = history.read_backs().iter().filter(|(name, _)| {
                name.site == asked.site.as_str() && name.topic == asked.topic.as_str()
            });
            let gone: u64 = of_topic.map(|(_, read)| read.start.get()).sum();
            let wanted = u64::from(asked.records.get());
            (gone < wanted).then(|| {
                let text = format!("{gone} records had their time and went, {wanted} wanted");
                liveness(check.kind(), text)
            })
        }
        Check::BusyAtLeast(asked) => {
            let (records, faults) = (history.acked_records(), stage.sink.faults());
            let wanted = (u64::from(asked.records.get()), u64::from(asked.faults.get()));
            (records < wanted.0 || faults < wanted.1).then(|| {
                let text = format!(
                    "a quiet run: {records} records acknowledged and {faults} faults, {} and {} \
                     wanted",
                    wanted.0, wanted.1
                );
                liveness(check.kind(), text)
            })
        }
        Check::SilenceAtMost(asked) => {
            let acked = acked_of(history, &asked.site, asked.topic.as_str());
            let gaps = acked.windows(2).map(|pair| (pair[1].0.0 - pair[0].0.0, pair[0].0.0));
            let (longest_ns, from_ns) = gaps.max().unwrap_or_default();
            let longest = Duration::from_nanos(longest_ns);
            (longest > asked.lasts.0).then(|| {
                let text = format!(
                    "no record of topic {} of {} acknowledged for {} ms from {} on, {} allowed",
                    asked.topic,
                    asked.site,
                    longest.as_millis(),
                    Time(from_ns),
                    asked.lasts
                );
                liveness(check.kind(), text)
            })
        }
        // Judged with what was seen of the mirrors.
        Check::UrgentOvertakes(_) => None,
        Check::LineShareAtLeast(asked) => line_share(stage, asked),
        Check::LeaderChangesAtLeast(asked) => {
            let changes = stage.sink.leader_changes(stage.site_number(&asked.site));
            let wanted = u64::from(asked.times.get());
            (changes < wanted)
                .then(|| liveness(check.kind(), format!("{changes} changes, {wanted} wanted")))
        }
    }
}

fn line_share(stage: &Stage, asked: &LineShareAtLeast<Drawn>) -> Option<Verdict> {
    let used = stage.sink.line_use((&asked.of, &asked.site));
    let is_less = |bytes, share_ppm: u32| used.share_ppm(bytes) < u64::from(share_ppm);
    let is_idle = is_less(used.batch_bytes, asked.share.ppm());
    (is_idle || is_less(used.delivered_bytes, asked.delivered.ppm())).then(|| {
        let (of, site, share) = (&asked.of, &asked.site, asked.share);
        let text = format!(
            "of the line from {of} to {site} {used}; shares of {share} and {} wanted",
            asked.delivered
        );
        liveness("line_share_at_least", text)
    })
}

/// The acknowledgements of a topic in the order of their times, with their numbers of records.
fn acked_of(history: &History, site: &SiteName, topic: &str) -> Vec<(Time, u64)> {
    let mut acked: Vec<(Time, u64)> = history
        .operations()
        .iter()
        .filter(|o| o.partition.site == site.as_str() && o.partition.topic == topic)
        .filter_map(|operation| {
            let (batch, _) = operation.acked()?;
            Some((operation.returned?, batch.count()))
        })
        .collect();
    acked.sort();
    acked
}

/// Counts what the clients did.
pub(super) fn fill(history: &History, report: &mut RunReport) {
    report.acked_records = history.acked_records();
    report.unknown = history.unknown_outcomes();
    for operation in history.operations() {
        report.read_records += operation.seen().len() as u64;
        if matches!(&operation.action, Action::Produce { outcome: ProduceOutcome::Failed, .. }) {
            report.not_done += 1;
        }
    }
    let read_back: usize = history.read_backs().values().map(|read| read.records.len()).sum();
    report.read_records += read_back as u64;
}

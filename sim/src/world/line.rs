//! What is to hold of the line between two sites: its cap, and that what is urgent overtakes.
//!
//! Invariants checked here: over any second a site hands its connections to another one no more bytes
//! than the cap of the link (`cap_kept`, in every run with a cap); while records of another topic wait
//! by the hundred, an urgent one is in its mirror within a bound (`urgent_overtakes`).
//!
//! ```text
//! acknowledged at the origin ---- a client of the mirror is told of an end behind it
//!            +---- no longer than the bound ----+
//! ```

use super::stage::Stage;
use crate::history::{History, Time};
use crate::report::Verdict;
use crate::scenario::check::UrgentOvertakes;
use crate::scenario::{Drawn, SiteName};
use fulmar_types::{Offset, PartitionIndex};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The ends that clients of a mirror were told, by partition, in the order of their times.
type Ends = BTreeMap<PartitionIndex, Vec<(Time, Offset)>>;

/// What was seen of mirrors, by site and topic.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<BTreeMap<(SiteName, String), Ends>>>);

impl Line {
    /// A client was told where a partition of a mirror ends.
    pub(super) fn came(
        &self,
        mirror: (SiteName, String),
        partition: PartitionIndex,
        (at, end): (Time, Offset),
    ) {
        let mut mirrors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = mirrors.entry(mirror).or_default().entry(partition).or_default();
        // A leader that was just chosen may know less, and a copy may be made anew.
        if ends.last().is_none_or(|(_, before)| *before < end) {
            ends.push((at, end));
        }
    }

    fn of(&self, site: &SiteName, topic: String) -> Ends {
        let mirrors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mirrors.get(&(site.clone(), topic)).cloned().unwrap_or_default()
    }

    /// Whether the urgent records were there soon.
    pub(super) fn judge(
        &self,
        history: &History,
        asked: &UrgentOvertakes<Drawn>,
        until: Time,
    ) -> Result<(), Verdict> {
        let mirror_of = |topic: &str| self.of(&asked.site, format!("{}.{topic}", asked.of));
        let (urgent, over) = (mirror_of(asked.topic.as_str()), mirror_of(asked.over.as_str()));
        let waiting = acked(history, &asked.of, asked.over.as_str());
        let bound_ns = u64::try_from(asked.lasts.0.as_nanos()).unwrap_or(u64::MAX);
        let mut times = 0;
        for (told, partition, offset) in acked(history, &asked.of, asked.topic.as_str()) {
            // What is told after this cannot be seen in time by anybody.
            if told.0.saturating_add(bound_ns) > until.0 {
                continue;
            }
            let backlog = missing(&waiting, &over, told);
            if backlog < u64::from(asked.backlog.get()) {
                continue;
            }
            times += 1;
            let seen = urgent.get(&partition).and_then(|ends| {
                ends.iter().find(|(at, end)| *end > offset && *at >= told).map(|(at, _)| *at)
            });
            let late = seen.is_none_or(|seen| seen.0 - told.0 > bound_ns);
            if late {
                let seen = seen.map_or_else(|| "never".to_owned(), |seen| format!("at {seen}"));
                return Err(Verdict::Safety {
                    check: "urgent_overtakes".to_owned(),
                    text: format!(
                        "offset {offset} of {} was acknowledged at {told}, when {backlog} records of \
                         {} waited, and was seen in its mirror {seen}; {} allowed",
                        asked.topic, asked.over, asked.lasts
                    ),
                });
            }
        }
        if times < u64::from(asked.times.get()) {
            let text = format!("{times} urgent records met a backlog, {} wanted", asked.times);
            return Err(Verdict::Liveness { check: "busy_at_least".to_owned(), text });
        }
        Ok(())
    }
}

/// The last record of each batch that was acknowledged, and when, in the order of the times.
fn acked(history: &History, site: &SiteName, topic: &str) -> Vec<(Time, PartitionIndex, Offset)> {
    let of = history.operations().iter().filter(|operation| {
        operation.partition.site == site.as_str() && operation.partition.topic == topic
    });
    let mut acked: Vec<_> = of
        .filter_map(|operation| {
            let (batch, base) = operation.acked()?;
            let last = Offset(base.get() + batch.count().saturating_sub(1));
            Some((operation.returned?, operation.partition.partition, last))
        })
        .collect();
    acked.sort();
    acked
}

/// How many records of a topic were acknowledged before a time and not in its mirror then.
fn missing(acked: &[(Time, PartitionIndex, Offset)], mirror: &Ends, at: Time) -> u64 {
    let mut ends: BTreeMap<PartitionIndex, u64> = BTreeMap::new();
    for (_, partition, last) in acked.iter().take_while(|(told, ..)| *told <= at) {
        let end = ends.entry(*partition).or_default();
        *end = (*end).max(last.get() + 1);
    }
    let there = |partition: &PartitionIndex| {
        let ends = mirror.get(partition)?;
        ends.iter().take_while(|(seen, _)| *seen <= at).last().map(|(_, end)| end.get())
    };
    let missing = |(partition, end): (PartitionIndex, u64)| {
        end.saturating_sub(there(&partition).unwrap_or(0))
    };
    ends.into_iter().map(missing).sum()
}

/// Where a site sent another one more than a cap within a second.
pub(super) fn exceeds(
    stage: &Stage,
    (from, to): (&SiteName, &SiteName),
    cap: u64,
) -> Option<String> {
    let (_, crossed) = stage.between_sites(from, to);
    let (bytes, at_ns) = (crossed.given_per_s_max, crossed.given_per_s_max_at_ns);
    (bytes > cap).then(|| {
        format!(
            "{from} handed {bytes} bytes for {to} to its connections in the second before {}, and its \
             cap is {cap}",
            Time(at_ns)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_what_nobody_has_seen_yet() {
        let part = PartitionIndex;
        let acked = [
            (Time(1), part(0), Offset(0)),
            (Time(2), part(1), Offset(3)),
            (Time(5), part(0), Offset(9)),
        ];
        let mirror = Ends::from([(part(0), vec![(Time(3), Offset(1)), (Time(6), Offset(10))])]);
        assert_eq!(missing(&acked, &mirror, Time(2)), 5);
        assert_eq!(missing(&acked, &mirror, Time(4)), 4);
        assert_eq!(missing(&acked, &mirror, Time(5)), 13);
        assert_eq!(missing(&acked, &mirror, Time(6)), 4);
    }
}

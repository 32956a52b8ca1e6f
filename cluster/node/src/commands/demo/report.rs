//! What the demo says at its end.

use super::load::{PRODUCERS, Tally};
use super::plant::{PARTITIONS, SENSORS};
use super::verify::Findings;
use crate::commands::output::{count, grouped, seconds};
use fulmar_host::time::Duration;
use fulmar_types::NodeId;
use std::fmt::Write;

/// A leader that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The node.
    pub node: NodeId,
    /// Batches that were in flight to it.
    pub in_flight: u64,
    /// From the kill to the next acknowledgement.
    pub until_next: Duration,
    /// Who acknowledged it.
    pub next_leader: Option<NodeId>,
}

/// What the demo did and found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed of the data set.
    pub seed: u64,
    /// The records of the data set.
    pub records: u64,
    /// The outcomes.
    pub tally: Tally,
    /// How long writing took.
    pub writing: Duration,
    /// Who was killed.
    pub kills: Vec<Kill>,
    /// What was read back.
    pub findings: Findings,
}

impl Report {
    /// Why the demo failed; empty if it holds all that it promises.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.tally.failures.iter().take(5).cloned().collect::<Vec<_>>();
        let more = self.tally.failures.len().saturating_sub(failures.len());
        if more > 0 {
            failures.push(format!("and {more} more of this kind"));
        }
        if self.tally.acknowledged != self.records {
            let acknowledged = grouped(self.tally.acknowledged);
            failures.push(format!("only {acknowledged} records were acknowledged"));
        }
        let killed = self.kills.iter().map(|kill| kill.node).collect::<Vec<_>>();
        if !matches!(killed[..], [one, other] if one != other) {
            failures.push("no two different leaders were killed".to_owned());
        }
        if self.kills.iter().any(|kill| kill.in_flight == 0) {
            failures.push("a leader was killed while nothing was in flight".to_owned());
        }
        let found = &self.findings;
        let kinds = [
            (found.missing, "record", "missing"),
            (found.twice, "record", "there more than once"),
            (found.out_of_order, "record", "out of order"),
            (found.changed, "record", "changed"),
            (found.foreign, "record", "that we never wrote"),
            (found.gaps, "offset", "without a record"),
        ];
        let bad = kinds.into_iter().filter(|(number, ..)| *number > 0);
        failures.extend(bad.map(|(number, noun, what)| format!("{} {what}", count(number, noun))));
        failures
    }

    /// The report, for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |head: &str, rest: String| {
            writeln!(text, "{head:<13} {rest}").expect("a string takes everything");
        };
        line(
            "data set",
            format!(
                "{} of {} sensors in {PARTITIONS} partitions, seed {}",
                count(self.records, "record"),
                grouped(SENSORS as u64),
                self.seed
            ),
        );
        line(
            "acknowledged",
            format!(
                "{} in {} by {PRODUCERS} idempotent producers with acks=all ({}, {} sent again)",
                count(self.tally.acknowledged, "record"),
                seconds(self.writing),
                batches(self.tally.batches),
                grouped(self.tally.sent_again),
            ),
        );
        for kill in &self.kills {
            let next = kill.next_leader.map_or_else(String::new, |node| format!(" by node {node}"));
            line(
                "killed",
                format!(
                    "node {}, the leader, with {} in flight; acknowledged again{next} after {}",
                    kill.node,
                    batches(kill.in_flight),
                    seconds(kill.until_next)
                ),
            );
        }
        let found = &self.findings;
        line(
            "read back",
            format!(
                "{} by a fresh process: {} missing, {} twice, {} out of order, {} changed",
                count(found.read, "record"),
                grouped(found.missing),
                grouped(found.twice),
                grouped(found.out_of_order),
                grouped(found.changed + found.foreign),
            ),
        );
        let failures = self.failures();
        if failures.is_empty() {
            line(
                "",
                "Everything that was acknowledged is there, once, in order, unchanged.".into(),
            );
        }
        for failure in failures {
            line("FAILED", failure);
        }
        text
    }
}

fn batches(number: u64) -> String {
    if number == 1 { "1 batch".to_owned() } else { format!("{} batches", grouped(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let kill = |node, next| Kill {
            node: NodeId(node),
            in_flight: 12,
            until_next: Duration::from_millis(710),
            next_leader: Some(NodeId(next)),
        };
        Report {
            seed: 7,
            records: 200_000,
            tally: Tally {
                acknowledged: 200_000,
                batches: 9_612,
                sent_again: 31,
                ..Tally::default()
            },
            writing: Duration::from_millis(21_400),
            kills: vec![kill(2, 3), kill(3, 1)],
            findings: Findings { read: 200_000, ..Findings::default() },
        }
    }

    #[test]
    fn a_demo_that_holds() {
        assert!(report().failures().is_empty());
        insta::assert_snapshot!(report().text());
    }

    #[test]
    fn a_demo_that_does_not() {
        let mut report = report();
        report.tally.acknowledged = 199_950;
        report.tally.failures = vec!["a batch of 50 records was not written: no leader".into(); 7];
        report.kills[1].node = NodeId(2);
        report.kills[1].in_flight = 0;
        report.findings = Findings {
            read: 199_900,
            missing: 101,
            twice: 1,
            out_of_order: 2,
            changed: 3,
            foreign: 4,
            gaps: 5,
        };
        insta::assert_snapshot!(report.text());
        for (at, findings) in [
            Findings { missing: 1, ..Findings::default() },
            Findings { gaps: 1, ..Findings::default() },
        ]
        .into_iter()
        .enumerate()
        {
            let bad = Report { findings, ..super::tests::report() };
            assert_eq!(bad.failures().len(), 1, "{at}");
        }
    }
}

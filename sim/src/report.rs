//! What a run says of itself: for people as text, for the other commands as JSON.
//!
//! Invariant: everything but `cpu_ms` is a function of scenario, seed, plant and build, so two
//! reports of the same run can be compared field by field.

use fulmar_types::ExitCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// A safety property was violated.
    Safety {
        /// The name of the check.
        check: String,
        /// What contradicts what.
        text: String,
    },
    /// No progress, or no convergence, within the declared time.
    Liveness {
        /// The name of the check.
        check: String,
        /// What was waited for.
        text: String,
    },
    /// The harness could not do its work.
    Harness {
        /// Why.
        text: String,
    },
    /// The process of the run ended without a report.
    Crash {
        /// How it ended.
        text: String,
    },
}

impl Verdict {
    /// The exit code of a process that ends with this verdict.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Pass => ExitCode::Ok,
            Self::Safety { .. } => ExitCode::Safety,
            Self::Liveness { .. } => ExitCode::Liveness,
            Self::Harness { .. } => ExitCode::Harness,
            Self::Crash { .. } => ExitCode::Crash,
        }
    }

    /// The worst of some: safety before crash before liveness before harness.
    pub fn worst<'a>(verdicts: impl Iterator<Item = &'a Self>) -> &'a Self {
        let rank = |verdict: &Self| match verdict {
            Self::Safety { .. } => 4,
            Self::Crash { .. } => 3,
            Self::Liveness { .. } => 2,
            Self::Harness { .. } => 1,
            Self::Pass => 0,
        };
        verdicts.max_by_key(|verdict| rank(verdict)).unwrap_or(&Self::Pass)
    }

    /// The name of the check that failed, if one did.
    pub fn check(&self) -> Option<&str> {
        match self {
            Self::Safety { check, .. } | Self::Liveness { check, .. } => Some(check),
            Self::Pass | Self::Harness { .. } | Self::Crash { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Safety { check, text } => write!(f, "SAFETY, {check}: {text}"),
            Self::Liveness { check, text } => write!(f, "LIVENESS, {check}: {text}"),
            Self::Harness { text } => write!(f, "HARNESS: {text}"),
            Self::Crash { text } => write!(f, "CRASH: {text}"),
        }
    }
}

/// How much of a line copies used while they had a backlog and it was not cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineUse {
    /// How long that was, in milliseconds.
    pub backlog_ms: u64,
    /// What the line could have carried in that time, headers of packets included.
    pub capacity_bytes: u64,
    /// Record batches that were committed at the other site in that time.
    pub batch_bytes: u64,
    /// Everything that came out of connections there.
    pub delivered_bytes: u64,
}

impl LineUse {
    /// Bytes as a share of what the line could have carried, in millionths; 0 if there was no backlog.
    pub fn share_ppm(&self, bytes: u64) -> u64 {
        let share = u128::from(bytes) * 1_000_000 / u128::from(self.capacity_bytes.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Adds what was used at another time.
    pub fn add(&mut self, other: &Self) {
        self.backlog_ms += other.backlog_ms;
        self.capacity_bytes += other.capacity_bytes;
        self.batch_bytes += other.batch_bytes;
        self.delivered_bytes += other.delivered_bytes;
    }
}

impl fmt::Display for LineUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.backlog_ms == 0 {
            return f.write_str("there was no backlog");
        }
        let percent = |bytes| self.share_ppm(bytes) as f64 / 10_000.0;
        write!(
            f,
            "{:.1} % used for record batches, {:.1} % for anything, in {:.1} s with a backlog",
            percent(self.batch_bytes),
            percent(self.delivered_bytes),
            self.backlog_ms as f64 / 1_000.0
        )
    }
}

/// What was at stake where a rule withholds something, and what crossed that may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canaries {
    /// Tokens that a rule withheld on the way, each searched for in every byte that crossed: of records that are at the
    /// copy in the form of the rule, or that it has a marker of as withheld.
    pub withheld: u64,
    /// Tokens of fields that may go, found in what crossed.
    pub markers: u64,
}

impl Canaries {
    /// The least of two runs, each by itself.
    pub fn least(self, other: Self) -> Self {
        Self {
            withheld: self.withheld.min(other.withheld),
            markers: self.markers.min(other.markers),
        }
    }

    /// Those of another run as well.
    pub fn add(&mut self, other: Self) {
        self.withheld += other.withheld;
        self.markers += other.markers;
    }
}

impl fmt::Display for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} withheld and searched for, {} markers crossed", self.withheld, self.markers)
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The scenario file.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// The seed that it was drawn with.
    pub seed: u64,
    /// The planted bug, if one was.
    pub plant: Option<String>,
    /// How it ended.
    pub verdict: Verdict,
    /// The hash chain over everything that happened, 32 hexadecimal digits.
    pub trace_hash: String,
    /// How many links the chain has.
    pub trace_events: u64,
    /// Virtual time, in milliseconds.
    pub simulated_ms: u64,
    /// Processor time of the run, in milliseconds.
    pub cpu_ms: u64,
    /// Faults that fired, by kind.
    pub faults: BTreeMap<String, u64>,
    /// How often a site got another leader.
    pub leader_changes: u64,
    /// Records whose append was acknowledged.
    pub acked_records: u64,
    /// Appends whose outcome the client never learnt.
    pub unknown: u64,
    /// Appends that were certainly not done.
    pub not_done: u64,
    /// Records that clients read.
    pub read_records: u64,
    /// Times that a node stopped by itself, by exit code.
    pub exits: BTreeMap<String, u64>,
    /// Probes and how often they were hit.
    pub probes: BTreeMap<String, u64>,
    /// Checks and how many comparisons they made.
    pub compared: BTreeMap<String, u64>,
    /// Lines between sites, and how much of them was used.
    #[serde(default)]
    pub lines: BTreeMap<String, LineUse>,
    /// Canaries, if there were any.
    #[serde(default)]
    pub canaries: Option<Canaries>,
}

impl RunReport {
    /// The report of a run of which nothing is known yet but how it ended.
    pub fn new(title: &str, plant: Option<String>, verdict: Verdict) -> Self {
        Self {
            scenario: String::new(),
            title: title.to_owned(),
            seed: 0,
            plant,
            verdict,
            trace_hash: String::new(),
            trace_events: 0,
            simulated_ms: 0,
            cpu_ms: 0,
            faults: BTreeMap::new(),
            leader_changes: 0,
            acked_records: 0,
            unknown: 0,
            not_done: 0,
            read_records: 0,
            exits: BTreeMap::new(),
            probes: BTreeMap::new(),
            compared: BTreeMap::new(),
            lines: BTreeMap::new(),
            canaries: None,
        }
    }

    /// The same report without what may differ from one execution to the next.
    pub fn without_timing(&self) -> Self {
        Self { cpu_ms: 0, ..self.clone() }
    }
}

fn counts(f: &mut fmt::Formatter<'_>, name: &str, of: &BTreeMap<String, u64>) -> fmt::Result {
    if of.is_empty() {
        return Ok(());
    }
    let items: Vec<String> = of.iter().map(|(what, count)| format!("{what} {count}")).collect();
    writeln!(f, "  {name:<15} {}", items.join(", "))
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (seed {}): {}", self.scenario, self.seed, self.verdict)?;
        writeln!(f, "  {:<15} {}", "title", self.title)?;
        if let Some(plant) = &self.plant {
            writeln!(f, "  {:<15} {plant}", "planted bug")?;
        }
        writeln!(
            f,
            "  {:<15} {}.{:03} s simulated, {} ms of processor time",
            "time",
            self.simulated_ms / 1_000,
            self.simulated_ms % 1_000,
            self.cpu_ms
        )?;
        writeln!(
            f,
            "  {:<15} {} records acknowledged, {} appends unknown, {} not done, {} records read",
            "clients", self.acked_records, self.unknown, self.not_done, self.read_records
        )?;
        writeln!(
            f,
            "  {:<15} {} faults, {} leader changes",
            "chaos",
            self.faults.values().sum::<u64>(),
            self.leader_changes
        )?;
        counts(f, "faults", &self.faults)?;
        counts(f, "node stops", &self.exits)?;
        counts(f, "probes", &self.probes)?;
        counts(f, "comparisons", &self.compared)?;
        for (line, used) in &self.lines {
            writeln!(f, "  {:<15} {line}: {used}", "line")?;
        }
        if let Some(canaries) = &self.canaries {
            writeln!(f, "  {:<15} {canaries}", "canaries")?;
        }
        writeln!(f, "  {:<15} {} ({} events)", "trace", self.trace_hash, self.trace_events)
    }
}

#[cfg(test)]
pub(crate) fn example() -> RunReport {
    let count = |name: &str, n| (name.to_owned(), n);
    let used = LineUse {
        backlog_ms: 41_000,
        capacity_bytes: 10_250_000,
        batch_bytes: 1_742_500,
        delivered_bytes: 1_845_123,
    };
    RunReport {
        scenario: "scenarios/fast/leader_loss.toml".to_owned(),
        title: "leader loss".to_owned(),
        seed: 7,
        plant: None,
        verdict: Verdict::Safety {
            check: "acked_not_lost".to_owned(),
            text: "offset 17 of orders/0 was acknowledged and is gone".to_owned(),
        },
        trace_hash: "00ff".to_owned(),
        trace_events: 1_234,
        simulated_ms: 95_250,
        cpu_ms: 840,
        faults: BTreeMap::from([count("crash", 5), count("cut", 7)]),
        leader_changes: 9,
        acked_records: 11_000,
        unknown: 12,
        not_done: 3,
        read_records: 52_000,
        exits: BTreeMap::new(),
        probes: BTreeMap::from([count("torn tail cut", 4)]),
        compared: BTreeMap::from([count("log_matching", 90_000)]),
        lines: BTreeMap::from([("north to south".to_owned(), used)]),
        canaries: Some(Canaries { withheld: 1_520, markers: 870 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_from_json() {
        let json = serde_json::to_string(&example()).expect("encodes");
        assert_eq!(serde_json::from_str::<RunReport>(&json).expect("decodes"), example());
    }

    #[test]
    fn a_report_is_readable() {
        insta::assert_snapshot!(example());
    }

    #[test]
    fn a_line_without_a_backlog_has_no_share() {
        assert_eq!(LineUse::default().share_ppm(0), 0);
        assert_eq!(LineUse::default().to_string(), "there was no backlog");
        let mut used = example().lines["north to south"];
        assert_eq!(used.share_ppm(used.batch_bytes), 170_000);
        used.add(&LineUse { capacity_bytes: 10_250_000, ..LineUse::default() });
        assert_eq!(used.share_ppm(used.batch_bytes), 85_000);
    }

    #[test]
    fn canaries_of_runs_add_up() {
        let (one, other) =
            (Canaries { withheld: 9, markers: 4 }, Canaries { withheld: 7, markers: 5 });
        assert_eq!(one.least(other), Canaries { withheld: 7, markers: 4 });
        let mut sum = one;
        sum.add(other);
        assert_eq!(sum, Canaries { withheld: 16, markers: 9 });
    }

    #[test]
    fn verdicts_map_to_exit_codes() {
        assert_eq!(example().verdict.exit_code(), ExitCode::Safety);
        assert_eq!(Verdict::Pass.exit_code(), ExitCode::Ok);
        assert_eq!(example().without_timing().cpu_ms, 0);
    }
}

//! Many seeds of many scenarios.
//!
//! Seeds are the outer loop, so a sweep that is stopped early has seen all scenarios alike.

use super::child::{Job, Pool};
use super::{RunnerError, files};
use crate::output::tell;
use crate::report::{Canaries, LineUse, RunReport, Verdict};
use fulmar_types::{ExitCode, Probe};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A probe that a scenario demands must be seen this often in a sweep, or the sweep proves little
/// about it.
pub const PROBE_HITS_MIN: u64 = 20;

/// What to sweep.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// Scenario files and directories.
    pub paths: Vec<PathBuf>,
    /// How many seeds of each.
    pub seeds: u64,
    /// The first seed.
    pub first_seed: u64,
    /// Runs at a time.
    pub jobs: usize,
    /// Start no further run after this long.
    pub limit: Option<Duration>,
    /// Where failures leave their folders.
    pub failures: PathBuf,
    /// Stop at the first failure.
    pub stop_at_failure: bool,
}

/// What a sweep found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that ended.
    pub runs: u64,
    /// Runs that were asked for.
    pub wanted: u64,
    /// Those that did not pass.
    pub failed: Vec<RunReport>,
    /// Probes and how often they were hit, over all runs.
    pub probes: BTreeMap<String, u64>,
    /// Probes that the scenarios demand and that were not hit often enough.
    pub missed: BTreeSet<String>,
    faults: u64,
    leader_changes: u64,
    acked: u64,
    unknown: u64,
    read: u64,
    simulated_ms: u64,
    cpu_ms: u64,
    wall: Duration,
    hashes: BTreeSet<String>,
    /// By scenario and line: what all runs used, and the least share of a run, in millionths.
    lines: BTreeMap<String, (LineUse, u64)>,
    /// By scenario: those of all runs, and the least of a run.
    canaries: BTreeMap<String, (Canaries, Canaries)>,
}

impl Summary {
    fn add(&mut self, report: RunReport) {
        self.runs += 1;
        for (probe, hits) in &report.probes {
            *self.probes.entry(probe.clone()).or_default() += hits;
        }
        self.faults += report.faults.values().sum::<u64>();
        self.leader_changes += report.leader_changes;
        self.acked += report.acked_records;
        self.unknown += report.unknown;
        self.read += report.read_records;
        self.simulated_ms += report.simulated_ms;
        self.cpu_ms += report.cpu_ms;
        self.hashes.insert(report.trace_hash.clone());
        for (line, used) in report.lines.iter().filter(|(_, used)| used.backlog_ms > 0) {
            let name = format!("{}, {line}", report.scenario);
            let (sum, least) = self.lines.entry(name).or_insert((LineUse::default(), u64::MAX));
            sum.add(used);
            *least = (*least).min(used.share_ppm(used.batch_bytes));
        }
        if let Some(canaries) = report.canaries {
            let known = self.canaries.entry(report.scenario.clone());
            let (sum, least) = known.or_insert((Canaries::default(), canaries));
            sum.add(canaries);
            *least = least.least(canaries);
        }
        if report.verdict != Verdict::Pass {
            self.failed.push(report);
        }
    }

    /// The exit code of the sweep: of the worst failure, or of a missed probe.
    pub fn exit_code(&self) -> ExitCode {
        match Verdict::worst(self.failed.iter().map(|report| &report.verdict)) {
            Verdict::Pass if !self.missed.is_empty() => ExitCode::ProbeMissed,
            worst => worst.exit_code(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = self.wall.as_secs_f64().max(0.001);
        let short = if self.runs < self.wanted {
            format!(" of {}, stopped early", self.wanted)
        } else {
            String::new()
        };
        writeln!(
            f,
            "{}{short} runs, {} failed, {} distinct traces",
            self.runs,
            self.failed.len(),
            self.hashes.len()
        )?;
        writeln!(
            f,
            "  {} faults, {} leader changes, {} records acknowledged, {} appends unknown, {} \
             records read",
            self.faults, self.leader_changes, self.acked, self.unknown, self.read
        )?;
        writeln!(
            f,
            "  {:.1} s of real time, {:.2} seeds per second, {:.1} simulated seconds per processor \
             second",
            wall,
            self.runs as f64 / wall,
            self.simulated_ms as f64 / self.cpu_ms.max(1) as f64
        )?;
        for (line, (used, least)) in &self.lines {
            let least = *least as f64 / 10_000.0;
            writeln!(f, "  {line}: {used}; at least {least:.1} % in each run")?;
        }
        for (scenario, (canaries, least)) in &self.canaries {
            let Canaries { withheld, markers } = least;
            writeln!(
                f,
                "  {scenario}, canaries: {canaries}; at least {withheld} and {markers} in each run"
            )?;
        }
        writeln!(f, "probes")?;
        for probe in Probe::ALL {
            let hits = self.probes.get(probe.name()).copied().unwrap_or(0);
            let mark = if self.missed.contains(probe.name()) { "  MISSED" } else { "" };
            writeln!(f, "  {hits:>8}  {}{mark}", probe.name())?;
        }
        for report in self.failed.iter().take(20) {
            writeln!(f, "failed: {} --seed {}: {}", report.scenario, report.seed, report.verdict)?;
        }
        if self.failed.len() > 20 {
            writeln!(f, "and {} more", self.failed.len() - 20)?;
        }
        Ok(())
    }
}

/// Runs a sweep. Progress goes to standard error.
///
/// # Errors
/// If a scenario is bad (with the text for people) or a process cannot be started.
pub fn sweep(options: &SweepOptions) -> Result<Summary, RunnerError> {
    let mut scenarios = Vec::new();
    let mut demanded = BTreeSet::new();
    for (path, scenario) in files::find_good(&options.paths).map_err(RunnerError::Scenario)? {
        scenarios.push(path);
        demanded.extend(scenario.must_hit.iter().map(|probe| probe.name().to_owned()));
    }
    let folders = files::failure_parents(&options.failures, &scenarios);
    let mut pool = Pool::new(options.jobs)?;
    for seed in options.first_seed..options.first_seed.saturating_add(options.seeds) {
        for (path, failures) in scenarios.iter().zip(&folders) {
            pool.push(Job { failures: Some(failures.clone()), ..Job::new(path, seed) });
        }
    }
    let total = pool.waiting();
    let mut summary = Summary { wanted: total as u64, ..Summary::default() };
    let begun = Instant::now();
    let mut said = begun;
    while let Some((_, report)) = pool.next_ended()? {
        if report.verdict != Verdict::Pass {
            tell(format_args!("{} --seed {}: {}", report.scenario, report.seed, report.verdict));
            if options.stop_at_failure {
                pool.cancel_waiting();
            }
        }
        summary.add(report);
        if options.limit.is_some_and(|limit| begun.elapsed() > limit) {
            pool.cancel_waiting();
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            tell(format_args!(
                "{} of {total} runs, {} failed, {:.0} s",
                summary.runs,
                summary.failed.len(),
                begun.elapsed().as_secs_f64()
            ));
        }
    }
    summary.wall = begun.elapsed();
    for probe in demanded {
        if summary.probes.get(&probe).copied().unwrap_or(0) < PROBE_HITS_MIN {
            summary.missed.insert(probe);
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_ends_with_the_code_of_its_worst_failure() {
        let text = String::new;
        let mut summary = Summary::default();
        summary.add(RunReport::new("", None, Verdict::Pass));
        assert_eq!(summary.exit_code(), ExitCode::Ok);
        summary.missed.insert("torn tail cut".to_owned());
        assert_eq!(summary.exit_code(), ExitCode::ProbeMissed);
        let worse = [
            (Verdict::Harness { text: text() }, ExitCode::Harness),
            (Verdict::Liveness { check: text(), text: text() }, ExitCode::Liveness),
            (Verdict::Crash { text: text() }, ExitCode::Crash),
            (Verdict::Safety { check: text(), text: text() }, ExitCode::Safety),
        ];
        for (verdict, code) in worse {
            summary.add(RunReport::new("", None, verdict));
            assert_eq!(summary.exit_code(), code);
        }
    }

    #[test]
    fn what_cannot_be_swept_is_the_fault_of_whoever_asked() {
        let options = SweepOptions {
            paths: vec![PathBuf::from("no/such/scenario.toml")],
            seeds: 1,
            first_seed: 0,
            jobs: 1,
            limit: None,
            failures: PathBuf::from("failures"),
            stop_at_failure: false,
        };
        let error = sweep(&options).expect_err("there is nothing to sweep");
        assert_eq!(error.exit_code(), ExitCode::Usage);
        let full = RunnerError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.exit_code(), ExitCode::Harness);
    }
}

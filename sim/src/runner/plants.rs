//! The table of planted bugs: how many seeds it takes to catch each, and which check does.
//!
//! A plant counts as found when a named check fails. A crash of the node or a failure of the
//! harness is not a find: it would prove the plant clumsy and not the simulator sharp. Nor is a run
//! that did too little ([`QUIET`]): it says that something is wrong and not what. Every run that
//! caught a plant is made again without it and must pass.

use super::child::{Job, Pool};
use super::{RunnerError, files};
use crate::output::tell;
use crate::report::{RunReport, Verdict};
use fulmar_types::{ExitCode, Plant};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A plant that takes more seeds than this is found by luck.
pub const MEDIAN_MAX: u64 = 50;

/// The checks that a run did enough to prove something. They name no promise of a site.
pub const QUIET: [&str; 4] =
    ["ready", "busy_at_least", "acked_at_least", "leader_changes_at_least"];

/// The check by which a run found the plant in it, if it did.
fn find(verdict: &Verdict) -> Option<&str> {
    verdict.check().filter(|check| !QUIET.contains(check))
}

/// What became of one plant.
#[derive(Clone, Debug)]
pub struct Row {
    /// The plant.
    pub plant: Plant,
    /// For each scenario that caught it, the seeds at which it did, in order.
    pub seeds: BTreeMap<String, Vec<u64>>,
    /// The checks that caught it and how often.
    pub checks: BTreeMap<String, u64>,
    /// Runs that failed without a named check.
    pub unnamed: u64,
    /// Runs of which is known only that they did too little.
    pub quiet: u64,
    /// Runs that were made.
    pub runs: u64,
    /// Seeds that were tried.
    pub tried: u64,
}

/// The whole table.
#[derive(Clone, Debug, Default)]
pub struct PlantTable {
    /// One row a plant.
    pub rows: Vec<Row>,
    /// Runs without a plant, and how many of them failed.
    pub clean: (u64, u64),
    /// How runs failed that may not: those without a plant, and those without a named check.
    pub failed: Vec<Verdict>,
}

impl Row {
    fn new(plant: Plant) -> Self {
        Self {
            plant,
            seeds: BTreeMap::new(),
            checks: BTreeMap::new(),
            unnamed: 0,
            quiet: 0,
            runs: 0,
            tried: 0,
        }
    }

    /// The scenario that caught it most often, with the seeds; `None` if none did.
    pub fn best(&self) -> Option<(&str, &[u64])> {
        let mut best: Option<(&str, &[u64])> = None;
        for (scenario, seeds) in &self.seeds {
            if best.is_none_or(|(_, most)| seeds.len() > most.len()) {
                best = Some((scenario, seeds));
            }
        }
        best
    }

    /// How many seeds a fresh sweep of the best scenario alone needs: the median gap between the
    /// seeds that caught the plant there. The seeds tried in vain after the last one are a gap whose
    /// end nobody has seen, so it counts as longer than all others; `None` if it is the median.
    pub fn median_seeds(&self) -> Option<u64> {
        let (_, seeds) = self.best()?;
        let mut gaps: Vec<u64> = Vec::new();
        let mut next = 0;
        for seed in seeds {
            gaps.push(seed + 1 - next);
            next = seed + 1;
        }
        gaps.sort_unstable();
        let open = usize::from(next < self.tried);
        gaps.get((gaps.len() + open) / 2).copied()
    }

    fn add(&mut self, seed: u64, report: &RunReport) {
        self.runs += 1;
        match find(&report.verdict) {
            Some(check) => {
                *self.checks.entry(check.to_owned()).or_insert(0) += 1;
                let seeds = self.seeds.entry(report.scenario.clone()).or_default();
                seeds.push(seed);
                seeds.sort_unstable();
            }
            None if report.verdict == Verdict::Pass => {}
            None => {
                match report.verdict.check() {
                    Some(_) => self.quiet += 1,
                    None => self.unnamed += 1,
                }
                tell(format_args!("  {} seed {seed}: {}", report.scenario, report.verdict));
            }
        }
    }
}

impl fmt::Display for PlantTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22} {:>5} {:>5} {:>7}  {:<29} caught by",
            "plant", "found", "runs", "median", "in the best scenario"
        )?;
        for row in &self.rows {
            let found: u64 = row.checks.values().sum();
            let mut by: Vec<(&String, &u64)> = row.checks.iter().collect();
            by.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
            let by: Vec<String> =
                by.iter().map(|(check, count)| format!("{check} {count}")).collect();
            let median = match row.median_seeds() {
                Some(seeds) => seeds.to_string(),
                None if found == 0 => "never".to_owned(),
                None => format!(">{}", row.tried),
            };
            writeln!(
                f,
                "{:<22} {found:>5} {:>5} {median:>7}  {:<29} {}",
                row.plant.name(),
                row.runs,
                row.best().map_or("", |(scenario, _)| scenario),
                by.join(", "),
            )?;
            if row.unnamed > 0 {
                writeln!(f, "{:<22} {:>5} runs failed without a named check", "", row.unnamed)?;
            }
            if row.quiet > 0 {
                writeln!(f, "{:<22} {:>5} runs only did too little", "", row.quiet)?;
            }
        }
        writeln!(
            f,
            "the runs that caught one, without it: {}, {} failed",
            self.clean.0, self.clean.1
        )
    }
}

impl PlantTable {
    /// Whether every plant was found by a named check, within [`MEDIAN_MAX`] seeds of one scenario
    /// in the median, and no run failed without one.
    pub fn holds(&self) -> bool {
        let soon = |row: &Row| row.median_seeds().is_some_and(|median| median <= MEDIAN_MAX);
        self.rows.iter().all(|row| soon(row) && row.unnamed == 0) && self.clean.1 == 0
    }

    /// The exit code: of the worst run that may not fail, or that of a plant which was not found.
    pub fn exit_code(&self) -> ExitCode {
        match Verdict::worst(self.failed.iter()) {
            Verdict::Pass if self.holds() => ExitCode::Ok,
            Verdict::Pass => ExitCode::Safety,
            worst => worst.exit_code(),
        }
    }
}

/// What the table is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The plants, in the order of the table.
    pub plants: Vec<Plant>,
    /// Seeds of each scenario, at most.
    pub seeds: u64,
    /// A plant that one scenario caught at this many seeds is not tried at further ones.
    pub enough: u64,
    /// Runs at a time.
    pub jobs: usize,
}

/// Makes the table.
///
/// # Errors
/// If there is no scenario, or a bad one, or a process cannot be started.
pub fn plants(paths: &[PathBuf], plan: &Plan) -> Result<PlantTable, RunnerError> {
    let scenarios: Vec<PathBuf> = files::find_good(paths)
        .map_err(RunnerError::Scenario)?
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let mut table = PlantTable::default();
    let mut caught = BTreeSet::new();
    for plant in &plan.plants {
        tell(format_args!("{}: {}", plant.name(), plant.about().trim()));
        let row = one(*plant, &scenarios, plan, (&mut caught, &mut table.failed))?;
        let found = row.best().map_or(0, |(_, seeds)| seeds.len());
        tell(format_args!("  {} runs, at most {found} finds in one scenario", row.runs));
        table.rows.push(row);
    }
    tell(format_args!("the {} runs that caught a plant, without it", caught.len()));
    let mut pool = Pool::new(plan.jobs)?;
    for (path, seed) in &caught {
        pool.push(Job::new(path, *seed));
    }
    while let Some((job, report)) = pool.next_ended()? {
        table.clean.0 += 1;
        if report.verdict != Verdict::Pass {
            table.clean.1 += 1;
            table.failed.push(report.verdict.clone());
            tell(format_args!(
                "  {} seed {}: {}",
                job.scenario.display(),
                job.seed,
                report.verdict
            ));
        }
    }
    Ok(table)
}

/// Runs one plant, seed after seed, until one scenario caught it often enough.
fn one(
    plant: Plant,
    scenarios: &[PathBuf],
    plan: &Plan,
    (caught, failed): (&mut BTreeSet<(PathBuf, u64)>, &mut Vec<Verdict>),
) -> io::Result<Row> {
    let mut row = Row::new(plant);
    let mut pool = Pool::new(plan.jobs)?;
    for seed in 0..plan.seeds {
        for path in scenarios {
            pool.push(Job { plant: Some(plant.name().to_owned()), ..Job::new(path, seed) });
        }
        while let Some((job, report)) = pool.next_ended()? {
            row.tried = seed + 1;
            row.add(seed, &report);
            if find(&report.verdict).is_some() {
                caught.insert((job.scenario, seed));
            } else if report.verdict != Verdict::Pass && report.verdict.check().is_none() {
                failed.push(report.verdict);
            }
        }
        if row.best().is_some_and(|(_, seeds)| seeds.len() as u64 >= plan.enough) {
            break;
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_scenario_that_catches_most() {
        let mut row = Row::new(Plant::LoseRename);
        assert_eq!(row.median_seeds(), None, "never found");
        row.seeds.insert("a".to_owned(), vec![0]);
        assert_eq!(row.median_seeds(), Some(1), "found at once");
        row.seeds.insert("b".to_owned(), vec![4, 9, 39]);
        assert_eq!(row.best().map(|(scenario, _)| scenario), Some("b"));
        assert_eq!(row.median_seeds(), Some(5), "gaps of 5, 5 and 30");
        row.tried = 50;
        assert_eq!(row.median_seeds(), Some(30), "gaps of 5, 5 and 30, and one of 10 or more");
        row.seeds = BTreeMap::from([("a".to_owned(), vec![0])]);
        assert_eq!(row.median_seeds(), None, "gaps of 1, and one of 49 or more");
    }

    fn failed(verdict: Verdict) -> RunReport {
        RunReport { scenario: "a".to_owned(), ..RunReport::new("", None, verdict) }
    }

    fn table(verdict: Verdict) -> PlantTable {
        let mut row = Row::new(Plant::LoseRename);
        let named = Verdict::Safety { check: "linearizable".to_owned(), text: String::new() };
        row.add(0, &failed(named));
        row.add(1, &failed(verdict));
        PlantTable { rows: vec![row], clean: (1, 0), failed: Vec::new() }
    }

    #[test]
    fn a_plant_must_be_found_by_a_check_that_says_what_is_wrong() {
        assert!(table(Verdict::Pass).holds());
        let text = String::new;
        assert!(!table(Verdict::Crash { text: text() }).holds());
        assert!(!table(Verdict::Harness { text: text() }).holds());
        let quiet = |check: &str| Verdict::Liveness { check: check.to_owned(), text: text() };
        for check in QUIET {
            assert!(table(quiet(check)).holds());
            let mut row = Row::new(Plant::LoseRename);
            row.add(0, &failed(quiet(check)));
            assert_eq!((row.quiet, row.median_seeds()), (1, None), "{check} is no find");
        }
        assert_eq!(table(quiet("progress")).rows[0].checks.len(), 2);
        let unclean = PlantTable { clean: (1, 1), ..table(Verdict::Pass) };
        assert!(!unclean.holds());
    }

    #[test]
    fn the_table_ends_with_the_code_of_what_failed() {
        assert_eq!(table(Verdict::Pass).exit_code(), ExitCode::Ok);
        let lost = PlantTable { rows: vec![Row::new(Plant::LoseRename)], ..PlantTable::default() };
        assert_eq!(lost.exit_code(), ExitCode::Safety, "a plant was not found");
        let text = String::new;
        let failures = [
            (Verdict::Harness { text: text() }, ExitCode::Harness),
            (Verdict::Liveness { check: text(), text: text() }, ExitCode::Liveness),
            (Verdict::Crash { text: text() }, ExitCode::Crash),
        ];
        for (verdict, code) in failures {
            let failed = PlantTable { failed: vec![verdict], ..lost.clone() };
            assert_eq!(failed.exit_code(), code);
        }
    }
}

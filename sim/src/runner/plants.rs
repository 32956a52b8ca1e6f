//! The table of planted bugs: how many seeds it takes to catch each, and which check does.
//!
//! A plant counts as found when a named check fails. A crash of the node or a failure of the
//! harness is not a find: it would prove the plant clumsy and not the simulator sharp. The same
//! seeds must pass without the plant.

use super::child::{Job, Pool};
use super::files;
use crate::report::Verdict;
use fulmar_types::Plant;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What became of one plant.
#[derive(Clone, Debug)]
pub struct Row {
    /// The plant.
    pub plant: Plant,
    /// Runs until it was caught, over all scenarios, in the order of the seeds; `None` if never.
    pub runs_to_find: Option<u64>,
    /// The seeds at which it was caught, in order.
    pub seeds: Vec<u64>,
    /// The checks that caught it and how often.
    pub checks: Vec<(String, u64)>,
    /// The scenario of the first find.
    pub scenario: String,
    /// Runs that failed without a named check.
    pub unnamed: u64,
    /// Runs that were made.
    pub runs: u64,
}

/// The whole table.
#[derive(Clone, Debug, Default)]
pub struct PlantTable {
    /// One row a plant.
    pub rows: Vec<Row>,
    /// Runs without a plant, and how many of them failed.
    pub clean: (u64, u64),
}

impl Row {
    /// The median gap between the seeds that caught the plant: how many seeds a fresh sweep needs.
    pub fn median_seeds(&self) -> Option<u64> {
        let mut gaps: Vec<u64> = Vec::new();
        let mut before = None;
        for seed in &self.seeds {
            gaps.push(match before {
                None => seed + 1,
                Some(before) => seed - before,
            });
            before = Some(*seed);
        }
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }
}

impl fmt::Display for PlantTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22} {:>6} {:>7} {:>8}  {:<34} scenario",
            "plant", "found", "of runs", "median", "caught by"
        )?;
        for row in &self.rows {
            let found: u64 = row.checks.iter().map(|(_, count)| count).sum();
            let by: Vec<String> =
                row.checks.iter().map(|(check, count)| format!("{check} {count}")).collect();
            let median = row.median_seeds().map_or("never".to_owned(), |seeds| seeds.to_string());
            writeln!(
                f,
                "{:<22} {found:>6} {:>7} {median:>8}  {:<34} {}",
                row.plant.name(),
                row.runs,
                by.join(", "),
                row.scenario
            )?;
            if row.unnamed > 0 {
                writeln!(f, "{:<22} {:>6} runs failed without a named check", "", row.unnamed)?;
            }
        }
        writeln!(f, "without a plant: {} runs, {} failed", self.clean.0, self.clean.1)
    }
}

/// Makes the table.
///
/// # Errors
/// If there is no scenario, or a process cannot be started.
pub fn plants(
    paths: &[PathBuf],
    plants: &[Plant],
    seeds: u64,
    jobs: usize,
) -> io::Result<PlantTable> {
    let scenarios = files::find(paths)?;
    let mut table = PlantTable::default();
    for plant in plants {
        eprintln!("{}: {}", plant.name(), plant.about().trim());
        let mut pool = Pool::new(jobs)?;
        for seed in 0..seeds {
            for path in &scenarios {
                pool.push(Job { plant: Some(plant.name().to_owned()), ..Job::new(path, seed) });
            }
        }
        table.rows.push(one(*plant, &mut pool)?);
    }
    let mut pool = Pool::new(jobs)?;
    for seed in 0..seeds {
        for path in &scenarios {
            pool.push(Job::new(path, seed));
        }
    }
    while let Some((_, report)) = pool.next_ended()? {
        table.clean.0 += 1;
        table.clean.1 += u64::from(report.verdict != Verdict::Pass);
    }
    Ok(table)
}

fn one(plant: Plant, pool: &mut Pool) -> io::Result<Row> {
    let mut row = Row {
        plant,
        runs_to_find: None,
        seeds: Vec::new(),
        checks: Vec::new(),
        scenario: String::new(),
        unnamed: 0,
        runs: 0,
    };
    let mut found: Vec<(u64, String)> = Vec::new();
    while let Some((job, report)) = pool.next_ended()? {
        row.runs += 1;
        match report.verdict.check() {
            Some(check) => {
                found.push((job.seed, report.scenario.clone()));
                match row.checks.iter_mut().find(|(name, _)| name == check) {
                    Some((_, count)) => *count += 1,
                    None => row.checks.push((check.to_owned(), 1)),
                }
            }
            None if report.verdict == Verdict::Pass => {}
            None => {
                row.unnamed += 1;
                eprintln!("  seed {}: {}", report.seed, report.verdict);
            }
        }
    }
    found.sort();
    row.checks.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    row.seeds = found.iter().map(|(seed, _)| *seed).collect();
    row.seeds.dedup();
    row.runs_to_find = row.seeds.first().map(|seed| seed + 1);
    row.scenario = found.first().map(|(_, scenario)| scenario.clone()).unwrap_or_default();
    Ok(row)
}

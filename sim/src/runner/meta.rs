//! Is the simulator deterministic? Every seed runs in two processes whose surroundings differ in
//! environment, working directory, time zone, load and log level. Both reports must be equal,
//! trace hash included.
//!
//! The second one has a busy process beside it, which takes processor time from it, and logs more. It
//! also runs a short simulation before in the same
//! process, because what hides in process-wide counters is the same in two fresh processes.

use super::child::{Job, Pool};
use super::{RunnerError, files};
use crate::output::tell;
use crate::report::{RunReport, Verdict};
use fulmar_types::ExitCode;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Two runs of one seed that differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The scenario.
    pub scenario: PathBuf,
    /// The seed.
    pub seed: u64,
    /// In which fields, for people.
    pub text: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct MetaSummary {
    /// Seeds that ran twice.
    pub pairs: u64,
    /// Those whose runs differ.
    pub differences: Vec<Difference>,
    /// Runs that did not pass: two that fail alike are equal, and prove little.
    pub failed: Vec<RunReport>,
}

impl MetaSummary {
    /// The exit code: of a difference, or else of the worst failure.
    pub fn exit_code(&self) -> ExitCode {
        if !self.differences.is_empty() {
            return ExitCode::Nondeterminism;
        }
        Verdict::worst(self.failed.iter().map(|report| &report.verdict)).exit_code()
    }
}

impl fmt::Display for MetaSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (differ, failed) = (self.differences.len(), self.failed.len());
        write!(f, "{} pairs, {differ} differ, {failed} runs failed", self.pairs)
    }
}

fn surroundings(job: Job, second: bool) -> Job {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    if second {
        Job {
            environment: vec![
                pair("TZ", "Pacific/Chatham"),
                pair("FULMAR_LOG", "info"),
                pair("LANG", "de_DE.UTF-8"),
                pair("FULMAR_SIM_PADDING", &"x".repeat(4_000)),
                pair("FULMAR_SIM_AFTER_ANOTHER", "1"),
            ],
            directory: Some(PathBuf::from("/")),
            loaded: true,
            ..job
        }
    } else {
        Job { environment: vec![pair("TZ", "UTC"), pair("FULMAR_LOG", "error")], ..job }
    }
}

fn difference(first: &RunReport, second: &RunReport) -> Option<String> {
    let (a, b) = (first.without_timing(), second.without_timing());
    if a == b {
        return None;
    }
    let value = |report: &RunReport| serde_json::to_value(report).unwrap_or_default();
    let (a, b) = (value(&a), value(&b));
    let fields = a.as_object().map(|fields| {
        fields
            .iter()
            .filter(|(name, value)| b.get(name.as_str()) != Some(value))
            .map(|(name, value)| {
                format!("{name}: {value} and {}", b.get(name.as_str()).unwrap_or_default())
            })
            .collect::<Vec<_>>()
            .join("; ")
    });
    Some(fields.unwrap_or_default())
}

/// Runs every seed of every scenario twice and compares.
///
/// # Errors
/// If there is no scenario, or a bad one, or a process cannot be started.
pub fn meta(
    paths: &[PathBuf],
    seeds: std::ops::Range<u64>,
    jobs: usize,
    extra: &[(String, String)],
) -> Result<MetaSummary, RunnerError> {
    let scenarios = files::find_good(paths).map_err(RunnerError::Scenario)?;
    let mut pool = Pool::new(jobs)?;
    for seed in seeds {
        for (path, _) in &scenarios {
            for second in [false, true] {
                let mut job = surroundings(Job::new(path, seed), second);
                job.environment.extend_from_slice(extra);
                pool.push(job);
            }
        }
    }
    let mut half: BTreeMap<(PathBuf, u64), RunReport> = BTreeMap::new();
    let mut summary = MetaSummary::default();
    while let Some((job, report)) = pool.next_ended()? {
        let key = (job.scenario.clone(), job.seed);
        if report.verdict != Verdict::Pass {
            tell(format_args!("{} --seed {}: {}", report.scenario, report.seed, report.verdict));
            summary.failed.push(report.clone());
        }
        let Some(other) = half.remove(&key) else {
            half.insert(key, report);
            continue;
        };
        summary.pairs += 1;
        if let Some(text) = difference(&other, &report) {
            tell(format_args!("{} --seed {}: {text}", job.scenario.display(), job.seed));
            summary.differences.push(Difference { scenario: job.scenario, seed: job.seed, text });
        }
    }
    Ok(summary)
}

/// For `replay`: whether a run repeats a recorded one.
pub fn repeats(recorded: &RunReport, again: &RunReport) -> bool {
    recorded.trace_hash == again.trace_hash && recorded.verdict == again.verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn only_timing_may_differ() {
        let slower = RunReport { cpu_ms: 9_999, ..example() };
        assert_eq!(difference(&example(), &slower), None);
        let other = RunReport { trace_hash: "00fe".to_owned(), ..example() };
        let text = difference(&example(), &other).expect("differs");
        assert_eq!(text, "trace_hash: \"00ff\" and \"00fe\"");
    }
}

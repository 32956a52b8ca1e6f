//! What can be said of a file without a site: its mistakes, how its tests go, what it does.

use super::super::Stop;
use super::super::output::{complain, count, say};
use clap::Args;
use fulmar_flow::{Plan, Problem, Verdict};
use fulmar_types::ExitCode;
use fulmar_types::pipeline::PIPELINE_FILE_BYTES_MAX;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug, Args)]
pub struct Files {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct One {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, Stop> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Stop::usage(format!("cannot read {shown}: {error}.")))?;
    if text.len() > PIPELINE_FILE_BYTES_MAX {
        let most = PIPELINE_FILE_BYTES_MAX >> 10;
        let message =
            format!("{shown} has {} bytes, and a pipeline has {most} KiB at most.", text.len());
        return Err(Stop::usage(message));
    }
    Ok(text)
}

/// The plan of a text. What is wrong with it goes to standard error.
pub fn planned(path: &Path, text: &str) -> Option<Arc<Plan>> {
    match fulmar_flow::plan(text) {
        Ok(plan) => Some(Arc::new(plan)),
        Err(problems) => {
            problems.iter().for_each(|problem| eprint(path, text, problem));
            None
        }
    }
}

fn eprint(path: &Path, text: &str, problem: &Problem) {
    complain(shown(path, text, problem));
}

/// A mistake, the line where it is, and a mark below the place.
fn shown(path: &Path, text: &str, problem: &Problem) -> String {
    let mut out = format!("{}:{problem}", path.display());
    let line = text.lines().nth(problem.at.line.saturating_sub(1) as usize);
    if let Some(line) = line.filter(|line| !line.trim().is_empty()) {
        let before = line.chars().take(problem.at.column.saturating_sub(1) as usize);
        // A tab stays one, so that the mark is below its place.
        let gap: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        out += &format!("\n    {line}\n    {gap}^");
    }
    out
}

/// Looks for mistakes.
pub fn check(files: &Files) -> Result<ExitCode, Stop> {
    let mut is_good = true;
    for path in &files.files {
        let text = read(path)?;
        let Some(plan) = planned(path, &text) else {
            is_good = false;
            continue;
        };
        let topics = |names: std::collections::BTreeSet<&str>| {
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        let (read, written) = (topics(plan.read()), topics(plan.written()));
        say(format!("{}: reads {read}; writes {written}", path.display()));
    }
    Ok(if is_good { ExitCode::Ok } else { ExitCode::Failed })
}

/// Runs tests.
pub fn test(files: &Files) -> Result<ExitCode, Stop> {
    let (mut passed, mut failed, mut is_broken) = (0, 0, false);
    for path in &files.files {
        let text = read(path)?;
        let Some(plan) = planned(path, &text) else {
            is_broken = true;
            continue;
        };
        let verdicts = fulmar_flow::run_fixtures(&plan);
        if verdicts.is_empty() {
            say(format!("{}: no tests", path.display()));
        }
        for verdict in &verdicts {
            let is_good = verdict.differences.is_empty();
            *if is_good { &mut passed } else { &mut failed } += 1;
            say(told(path, verdict));
        }
    }
    if failed > 0 {
        say(format!("{}, {} failed", count(passed + failed, "test"), failed));
    } else {
        say(format!("{} passed", count(passed, "test")));
    }
    Ok(if failed > 0 || is_broken { ExitCode::Failed } else { ExitCode::Ok })
}

/// Refuses a file whose tests fail.
pub fn tested(path: &Path, plan: &Arc<Plan>) -> Result<(), Stop> {
    let verdicts = fulmar_flow::run_fixtures(plan);
    let failed: Vec<&Verdict> = verdicts.iter().filter(|of| !of.differences.is_empty()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    failed.iter().for_each(|verdict| complain(told(path, verdict)));
    let file = path.display();
    Err(Stop::failed(format!(
        "{} of the tests in {file} fail; mend it, or them: `fulmar pipeline test {file}`.",
        failed.len()
    )))
}

/// How a test went. Of one that failed also what became of its records, which often says why.
fn told(path: &Path, verdict: &Verdict) -> String {
    if verdict.differences.is_empty() {
        return format!("ok      {}", verdict.name);
    }
    let mut out = format!("FAILED  {}", verdict.name);
    for difference in &verdict.differences {
        out += &format!("\n  {}:{difference}", path.display());
    }
    for (source, fates) in &verdict.fates {
        out += &format!("\n  {source}: {fates}");
    }
    out
}

/// Shows what a file does.
pub fn picture(of: &One) -> Result<ExitCode, Stop> {
    let text = read(&of.file)?;
    let Some(plan) = planned(&of.file, &text) else { return Ok(ExitCode::Failed) };
    say(plan.picture().trim_end());
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_at_its_place() {
        let text = "CREATE STREAM s (\n\tv BIGINTT\n) FROM TOPIC t ON ERROR DROP;\n";
        let problems = fulmar_flow::plan(text).expect_err("there is no such type");
        let told = shown(Path::new("dir/a.sql"), text, &problems[0]);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("dir/a.sql:2:"), "{told}");
        assert_eq!(lines[1], "    \tv BIGINTT");
        assert_eq!(lines[2], "    \t  ^");
    }
}

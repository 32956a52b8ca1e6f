//! Scenario files, and the folders that failures leave behind.
//!
//! ```text
//! FAILURES/leader_loss-seed-7/
//!   report.json      the report, with seed, verdict and trace hash
//!   scenario.toml    the scenario as the seed drew it: it replays without the original file
//!   history.jsonl    what every client saw
//!   trace.txt        every event of every node, with its virtual time
//!   replay.txt       the command that runs it again, and the revision of the build
//! ```

use crate::report::RunReport;
use crate::scenario::Scenario;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The revision of the sources in the working directory, or "unknown" where there is none.
pub fn revision() -> String {
    let described = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .stderr(std::process::Stdio::null())
        .output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// Every scenario file among these files and directories, sorted.
///
/// # Errors
/// If a path does not exist or cannot be listed, or there is no scenario at all.
pub fn find(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        collect(path, &mut found)?;
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no scenario file there"));
    }
    Ok(found)
}

/// Every scenario among these files and directories, sorted by path.
///
/// # Errors
/// As [`find`], or if one of them is bad, with the text for people.
pub fn find_good(paths: &[PathBuf]) -> io::Result<Vec<(PathBuf, Scenario)>> {
    let bad = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
    let load = |path: PathBuf| load(&path).map(|scenario| (path, scenario)).map_err(bad);
    find(paths)?.into_iter().map(load).collect()
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if !std::fs::metadata(path).map_err(named)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(named)? {
        let path = entry.map_err(named)?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "toml") {
            collect(&path, found)?;
        }
    }
    Ok(())
}

/// Reads and parses a scenario file.
///
/// # Errors
/// For people: what is wrong, with file, line and column.
pub fn load(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Scenario::parse(&path.display().to_string(), &text).map_err(|error| error.to_string())
}

/// The name of a scenario file without directory and extension.
pub fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(|| "scenario".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// What a failure folder holds.
pub struct Failure<'a> {
    /// The report.
    pub report: &'a RunReport,
    /// The drawn scenario as TOML.
    pub scenario: &'a str,
    /// The client history as JSON lines.
    pub history: &'a str,
}

/// The folder for a run below `parent`. One that holds what came of another run, of other sources
/// or another scenario of that name, stays: then it is the next number.
pub fn folder(parent: &Path, scenario: &Path, run: &RunReport) -> PathBuf {
    let plant = run.plant.as_ref().map_or_else(String::new, |plant| format!("-{plant}"));
    let name = format!("{}{plant}-seed-{}", stem(scenario), run.seed);
    let is_ours = |folder: &PathBuf| {
        !folder.exists() || read_failure(folder).is_ok_and(|old| old.trace_hash == run.trace_hash)
    };
    let numbered = (2..).map(|number| parent.join(format!("{name}-{number}")));
    let mut folders = std::iter::once(parent.join(&name)).chain(numbered);
    folders.find(is_ours).expect("there is always another number")
}

/// Where the failure folders of each of these scenarios go: below `parent`, and where two files have
/// one name, below a folder for each of their directories. Different files never share a folder.
pub fn failure_parents(parent: &Path, scenarios: &[PathBuf]) -> Vec<PathBuf> {
    let mut named: BTreeMap<String, u32> = BTreeMap::new();
    for path in scenarios {
        *named.entry(stem(path)).or_default() += 1;
    }
    let apart = |path: &PathBuf| {
        if named[&stem(path)] == 1 {
            return parent.to_owned();
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let plain = directory.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy()),
            Component::ParentDir => Some("up".into()),
            _ => None,
        });
        parent.join(plain.collect::<Vec<_>>().join("-"))
    };
    let mut owners: BTreeMap<(PathBuf, String), &PathBuf> = BTreeMap::new();
    let mut parents = Vec::with_capacity(scenarios.len());
    for path in scenarios {
        let wanted = apart(path);
        let numbered = (2..).map(|n| {
            let name = wanted.file_name().unwrap_or_default().to_string_lossy().into_owned();
            wanted.with_file_name(format!("{name}-{n}"))
        });
        let is_free =
            |folder: &PathBuf| *owners.entry((folder.clone(), stem(path))).or_insert(path) == path;
        let folder = std::iter::once(wanted.clone()).chain(numbered).find(is_free);
        parents.push(folder.expect("there is always another number"));
    }
    parents
}

/// Writes a failure folder; the trace is added by the run that recorded it.
///
/// # Errors
/// The file system's.
pub fn write_failure(folder: &Path, failure: &Failure<'_>) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let report = serde_json::to_string_pretty(failure.report).map_err(io::Error::other)?;
    std::fs::write(folder.join("report.json"), report + "\n")?;
    std::fs::write(folder.join("scenario.toml"), failure.scenario)?;
    std::fs::write(folder.join("history.jsonl"), failure.history)?;
    let replay = format!(
        "{}\n\nAgain:     cargo sim replay {}\nRevision:  {}\nSeed:      {}\nScenario:  {}\n",
        failure.report.verdict,
        folder.display(),
        revision(),
        failure.report.seed,
        failure.report.scenario,
    );
    std::fs::write(folder.join("replay.txt"), replay)
}

/// Reads the report of a failure folder.
///
/// # Errors
/// For people.
pub fn read_failure(folder: &Path) -> Result<RunReport, String> {
    let path = folder.join("report.json");
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{} is no folder of a failed run: it has no report.json", folder.display())
        }
        _ => format!("{} cannot be read: {error}", path.display()),
    })?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Processor time of this process so far, in milliseconds.
pub fn cpu_ms() -> u64 {
    // Fields 14 and 15 of /proc/self/stat, counted behind the name in parentheses; a tick is 10 ms
    // on every Linux that Fulmar runs on.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks * 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    #[test]
    fn what_came_of_another_run_is_not_replaced() {
        let parent = std::env::temp_dir().join(format!("fulmar-folders-{}", std::process::id()));
        let run = |trace_hash: &str| RunReport {
            seed: 3,
            trace_hash: trace_hash.to_owned(),
            ..RunReport::new("cuts", None, Verdict::Pass)
        };
        let leave = |run: &RunReport| {
            let folder = folder(&parent, Path::new("fast/cuts.toml"), run);
            let failure = Failure { report: run, scenario: "", history: "" };
            write_failure(&folder, &failure).expect("written");
            folder
        };
        let names = ["a", "b", "a", "c", "b"].map(|hash| leave(&run(hash)));
        std::fs::remove_dir_all(&parent).expect("removed");
        let wanted = ["", "-2", "", "-3", "-2"];
        assert_eq!(names, wanted.map(|n| parent.join(format!("cuts-seed-3{n}"))));
    }

    #[test]
    fn failures_of_two_files_with_one_name_lie_apart() {
        let paths = [
            "fast/cuts.toml",
            "mine/old/cuts.toml",
            "mine-old/cuts.toml",
            "/fast/cuts.toml",
            "cuts.toml",
            "fast/rot.toml",
        ];
        let found = failure_parents(Path::new("failures"), &paths.map(PathBuf::from));
        let wanted = [
            "failures/fast",
            "failures/mine-old",
            "failures/mine-old-2",
            "failures/fast-2",
            "failures",
            "failures",
        ];
        assert_eq!(found, wanted.map(PathBuf::from));
    }
}

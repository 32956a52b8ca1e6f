//! Runs as processes of their own, several at a time.
//!
//! A child is this very program with `run … --report FILE`. There are no threads: the parent looks
//! after its children in turn.

use super::load::Load;
use crate::report::{RunReport, Verdict};
use fulmar_types::ExitCode;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often the parent looks after its children. Each look takes processor time from them.
const LOOK: Duration = Duration::from_millis(10);

/// A run that takes longer than this in real time hangs: a minute of chaos takes a few seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// A run to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The scenario file.
    pub scenario: PathBuf,
    /// The seed.
    pub seed: u64,
    /// The bug to plant.
    pub plant: Option<String>,
    /// Where to leave a failure folder.
    pub failures: Option<PathBuf>,
    /// Environment variables in which this run differs.
    pub environment: Vec<(String, String)>,
    /// Working directory in which this run differs.
    pub directory: Option<PathBuf>,
    /// Whether a busy process runs beside it.
    pub loaded: bool,
}

impl Job {
    /// A plain run of a seed.
    pub fn new(scenario: &Path, seed: u64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            seed,
            plant: None,
            failures: None,
            environment: Vec::new(),
            directory: None,
            loaded: false,
        }
    }
}

struct Running {
    job: Job,
    child: Child,
    report: PathBuf,
    errors: PathBuf,
    since: Instant,
    /// Ends with it.
    _load: Option<Load>,
}

/// Children under way.
pub struct Pool {
    program: PathBuf,
    scratch: PathBuf,
    at_once: usize,
    number: u64,
    running: Vec<Running>,
    waiting: VecDeque<Job>,
}

impl Pool {
    /// Room for this many runs at a time.
    ///
    /// # Errors
    /// If this program's own path or a temporary directory cannot be had.
    pub fn new(at_once: usize) -> io::Result<Self> {
        let scratch = std::env::temp_dir().join(format!("fulmar-sim-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        Ok(Self {
            program: std::env::current_exe()?,
            scratch,
            at_once: at_once.max(1),
            number: 0,
            running: Vec::new(),
            waiting: VecDeque::new(),
        })
    }

    /// Queues a run.
    pub fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Forgets what has not been started.
    pub fn cancel_waiting(&mut self) {
        self.waiting.clear();
    }

    /// How many runs are queued and not started.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next run that ends; `None` when all have.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn next_ended(&mut self) -> io::Result<Option<(Job, RunReport)>> {
        loop {
            while self.running.len() < self.at_once {
                let Some(job) = self.waiting.pop_front() else { break };
                self.start(job)?;
            }
            if self.running.is_empty() {
                return Ok(None);
            }
            for at in 0..self.running.len() {
                if let Some(ended) = self.look(at)? {
                    return Ok(Some(ended));
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    fn start(&mut self, job: Job) -> io::Result<()> {
        self.number += 1;
        let report = self.scratch.join(format!("{}.json", self.number));
        let errors = self.scratch.join(format!("{}.err", self.number));
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg(std::fs::canonicalize(&job.scenario)?)
            .args(["--seed", &job.seed.to_string()])
            .arg("--name")
            .arg(&job.scenario)
            .arg("--report")
            .arg(&report)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors)?);
        if let Some(plant) = &job.plant {
            command.args(["--plant", plant]);
        }
        if let Some(failures) = &job.failures {
            std::fs::create_dir_all(failures)?;
            command.arg("--failures").arg(std::fs::canonicalize(failures)?);
        }
        for (name, value) in &job.environment {
            command.env(name, value);
        }
        if let Some(directory) = &job.directory {
            command.current_dir(directory);
        }
        let load = if job.loaded { Some(Load::start(&self.program)?) } else { None };
        let child = command.spawn()?;
        let since = Instant::now();
        self.running.push(Running { job, child, report, errors, since, _load: load });
        Ok(())
    }

    fn look(&mut self, at: usize) -> io::Result<Option<(Job, RunReport)>> {
        let running = &mut self.running[at];
        let ended = match running.child.try_wait()? {
            Some(status) => Ended::By(status),
            None if running.since.elapsed() > PATIENCE => {
                running.child.kill()?;
                running.child.wait()?;
                Ended::Late
            }
            None => return Ok(None),
        };
        let Running { job, report, errors, .. } = self.running.swap_remove(at);
        let parsed = std::fs::read_to_string(&report)
            .ok()
            .and_then(|text| serde_json::from_str::<RunReport>(&text).ok());
        let said = std::fs::read_to_string(&errors).unwrap_or_default();
        let _ = std::fs::remove_file(&report);
        let _ = std::fs::remove_file(&errors);
        let report = parsed.unwrap_or_else(|| without_report(&job, ended, &said));
        Ok(Some((job, report)))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for running in &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    By(ExitStatus),
    /// It was killed, because no run takes so long.
    Late,
}

/// A report for a process that left none. One that says so itself could not do its work, which is no
/// crash.
fn without_report(job: &Job, ended: Ended, said: &str) -> RunReport {
    let harness = i32::from(ExitCode::Harness.code());
    let (how, is_harness) = match ended {
        Ended::By(status) => (status.to_string(), status.code() == Some(harness)),
        Ended::Late => (format!("no end after {} s of real time", PATIENCE.as_secs()), false),
    };
    let tail: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = tail.iter().take(6).copied().collect::<Vec<_>>().join(" | ");
    let text = format!("{how}: {shown}");
    let verdict = if is_harness { Verdict::Harness { text } } else { Verdict::Crash { text } };
    RunReport {
        scenario: job.scenario.display().to_string(),
        seed: job.seed,
        ..RunReport::new("", job.plant.clone(), verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_process_without_a_report_crashed_or_could_not_write_one() {
        let job = Job::new(Path::new("a.toml"), 3);
        let exited = |code: i32| Ended::By(ExitStatus::from_raw(code << 8));
        let full = without_report(&job, exited(14), "no space left\n\n").verdict;
        assert_eq!(full.exit_code(), ExitCode::Harness);
        assert_eq!(full.to_string(), "HARNESS: exit status: 14: no space left");
        for ended in [exited(101), Ended::By(ExitStatus::from_raw(9)), Ended::Late] {
            assert_eq!(without_report(&job, ended, "").verdict.exit_code(), ExitCode::Crash);
        }
    }
}

//! Commands, options and what they print.

use clap::{Args, Parser, Subcommand};
use fulmar_sim::output::{say, tell};
use fulmar_sim::runner::{files, load};
use fulmar_types::ExitCode;
use std::path::PathBuf;

/// Runs scenario files against real Fulmar nodes in a deterministic simulation.
#[derive(Debug, Parser)]
#[command(name = "fulmar-sim", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed of a scenario.
    Run(RunArguments),
    /// Run many seeds of many scenarios and sum up.
    Sweep(SweepArguments),
    /// Run what a failure folder recorded, and compare.
    Replay(ReplayArguments),
    /// Run every seed twice in different surroundings and compare.
    Meta(MetaArguments),
    /// Plant known bugs one by one and print what catches them.
    Plants(PlantsArguments),
    /// Take processor time; `meta` runs it beside one run of each pair.
    #[command(hide = true)]
    Spin,
    /// Read scenario files and report what is wrong with them.
    Check {
        /// Scenario files and directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The scenario file.
    pub file: PathBuf,
    /// The seed.
    #[arg(long)]
    pub seed: u64,
    /// Plant a bug; `fulmar-sim plants --list` names them.
    #[arg(long)]
    pub plant: Option<String>,
    /// Leave a folder here if the run fails.
    #[arg(long, default_value = "failures")]
    pub failures: PathBuf,
    /// Write every event to this file.
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Write the report as JSON to this file and print nothing.
    #[arg(long, hide = true)]
    pub report: Option<PathBuf>,
    /// Call the scenario this in the report.
    #[arg(long, hide = true)]
    pub name: Option<PathBuf>,
}

/// Options of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArguments {
    /// Scenario files and directories.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Seeds of each scenario.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub first_seed: u64,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Start no further run after this many minutes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub minutes: Option<u64>,
    /// Leave folders of failures here.
    #[arg(long, default_value = "failures")]
    pub failures: PathBuf,
    /// Stop at the first failure.
    #[arg(long)]
    pub fail_fast: bool,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// The failure folder.
    pub folder: PathBuf,
}

/// Options of `meta`.
#[derive(Debug, Args)]
pub struct MetaArguments {
    /// Scenario files and directories.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Seeds of each scenario.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Plant a source of nondeterminism, which must be noticed: `map` or `select`.
    #[arg(long, value_parser = ["map", "select"])]
    pub leak: Option<String>,
}

/// Options of `plants`.
#[derive(Debug, Args)]
pub struct PlantsArguments {
    /// Scenario files and directories.
    pub paths: Vec<PathBuf>,
    /// Seeds of each scenario, at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Go on to the next plant when one scenario has caught this one at so many seeds.
    #[arg(long, default_value_t = 5)]
    pub enough: u64,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Only these plants.
    #[arg(long)]
    pub only: Vec<String>,
    /// Name the plants and stop.
    #[arg(long)]
    pub list: bool,
}

/// Runs the command; the exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Check { paths } => check(&paths),
        Command::Spin => {
            load::spin();
            ExitCode::Ok
        }
        Command::Run(arguments) => simulate::run(&arguments),
        Command::Sweep(arguments) => simulate::sweep(&arguments),
        Command::Replay(arguments) => simulate::replay(&arguments),
        Command::Meta(arguments) => simulate::meta(&arguments),
        Command::Plants(arguments) => simulate::plants(&arguments),
    }
}

fn check(paths: &[PathBuf]) -> ExitCode {
    let found = match files::find(paths) {
        Ok(found) => found,
        Err(error) => return usage(&error.to_string()),
    };
    let mut bad = 0;
    for path in &found {
        if let Err(text) = files::load(path) {
            tell(format_args!("{text}"));
            bad += 1;
        }
    }
    say(format_args!("{} scenario files, {bad} bad", found.len()));
    if bad == 0 { ExitCode::Ok } else { ExitCode::Usage }
}

fn usage(text: &str) -> ExitCode {
    tell(format_args!("fulmar-sim: {text}"));
    ExitCode::Usage
}

#[cfg(not(madsim))]
mod simulate {
    //! The answers of a build that cannot simulate.

    use super::{
        ExitCode, MetaArguments, PlantsArguments, ReplayArguments, RunArguments, SweepArguments,
        usage,
    };

    fn refuse() -> ExitCode {
        usage(
            "this build has no simulator in it, because it was made without `--cfg madsim`.\n\
             Use `cargo sim ...` instead. (An exported RUSTFLAGS overrides the flag: unset it.)",
        )
    }

    pub fn run(_: &RunArguments) -> ExitCode {
        refuse()
    }
    pub fn sweep(_: &SweepArguments) -> ExitCode {
        refuse()
    }
    pub fn replay(_: &ReplayArguments) -> ExitCode {
        refuse()
    }
    pub fn meta(_: &MetaArguments) -> ExitCode {
        refuse()
    }
    pub fn plants(_: &PlantsArguments) -> ExitCode {
        refuse()
    }
}

#[cfg(madsim)]
mod simulate {
    //! The answers of a simulator build.

    use super::{
        ExitCode, MetaArguments, PlantsArguments, ReplayArguments, RunArguments, SweepArguments,
        files, usage,
    };
    use fulmar_sim::output::{say, tell};
    use fulmar_sim::report::{RunReport, Verdict};
    use fulmar_sim::runner::{RunnerError, meta, plants, sweep};
    use fulmar_sim::world::{self, Finished, Leak, Options};
    use fulmar_types::Plant;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// The environment variable by which `meta` hands a planted leak to its children.
    const LEAK: &str = "FULMAR_SIM_LEAK";
    /// Set for the second run of a pair: another simulation runs before it in the same process.
    const AFTER: &str = "FULMAR_SIM_AFTER_ANOTHER";

    fn options(plant: Option<&str>, trace: bool) -> Result<Options, String> {
        let plant = match plant {
            None => None,
            Some(name) => Some(Plant::by_name(name).ok_or_else(|| {
                let known: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
                format!("there is no plant `{name}`; there are: {}", known.join(", "))
            })?),
        };
        let leak = match std::env::var(LEAK).ok().as_deref() {
            None => None,
            Some("map") => Some(Leak::Map),
            Some("select") => Some(Leak::Select),
            Some(other) => return Err(format!("there is no leak `{other}`: `map` or `select`")),
        };
        Ok(Options { plant, trace, leak, after_another: std::env::var_os(AFTER).is_some() })
    }

    fn execute(path: &Path, name: &Path, seed: u64, options: &Options) -> Result<Finished, String> {
        let drawn = files::load(path)?.draw(seed);
        let before = files::cpu_ms();
        let mut finished = world::simulate(&drawn, options);
        finished.report.cpu_ms = files::cpu_ms().saturating_sub(before);
        finished.report.scenario = name.display().to_string();
        finished.report.seed = seed;
        Ok(finished)
    }

    /// Logs to standard error what `FULMAR_LOG` asks for; nothing by default.
    fn log() {
        let filter = tracing_subscriber::EnvFilter::try_from_env("FULMAR_LOG");
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .without_time()
            .try_init();
    }

    pub fn run(arguments: &RunArguments) -> ExitCode {
        log();
        let plant = arguments.plant.as_deref();
        let options = match options(plant, arguments.trace.is_some()) {
            Ok(options) => options,
            Err(text) => return usage(&text),
        };
        let name = arguments.name.as_deref().unwrap_or(&arguments.file);
        let finished = match execute(&arguments.file, name, arguments.seed, &options) {
            Ok(finished) => finished,
            Err(text) => return usage(&text),
        };
        let report = &finished.report;
        if let (Some(path), Some(text)) = (&arguments.trace, &finished.trace)
            && let Err(error) = std::fs::write(path, text)
        {
            return unwritten(path, &error);
        }
        let wants_folder = arguments.report.is_none() || plant.is_none();
        if report.verdict != Verdict::Pass && wants_folder && !options.trace {
            let folder = files::folder(&arguments.failures, name, report);
            if let Err(error) = leave(&folder, &finished, &options) {
                tell(format_args!("fulmar-sim: {} cannot be written: {error}", folder.display()));
            } else if arguments.report.is_none() {
                tell(format_args!("left in {}", folder.display()));
            }
        }
        match &arguments.report {
            None => say(report.to_string().trim_end()),
            Some(path) => {
                let written = serde_json::to_string(report)
                    .map_err(std::io::Error::other)
                    .and_then(|text| std::fs::write(path, text));
                if let Err(error) = written {
                    return unwritten(path, &error);
                }
            }
        }
        report.verdict.exit_code()
    }

    /// The system did not take what a run has to leave: no fault of whoever asked for it.
    fn unwritten(path: &Path, error: &std::io::Error) -> ExitCode {
        tell(format_args!("fulmar-sim: {} cannot be written: {error}", path.display()));
        ExitCode::Harness
    }

    fn refused(error: &RunnerError) -> ExitCode {
        tell(format_args!("fulmar-sim: {error}"));
        error.exit_code()
    }

    /// Writes the failure folder. The run is repeated to record its trace, which is the same.
    fn leave(folder: &Path, finished: &Finished, options: &Options) -> std::io::Result<()> {
        let failure = files::Failure {
            report: &finished.report,
            scenario: &finished.scenario,
            history: &finished.history.to_json_lines(),
        };
        files::write_failure(folder, &failure)?;
        let again = Options { trace: true, ..options.clone() };
        let traced = world::simulate(&finished.drawn, &again);
        std::fs::write(folder.join("trace.txt"), traced.trace.as_deref().unwrap_or_default())?;
        if traced.report.trace_hash != finished.report.trace_hash {
            tell(format_args!(
                "fulmar-sim: the run did not repeat itself while its trace was recorded"
            ));
        }
        Ok(())
    }

    pub fn sweep(arguments: &SweepArguments) -> ExitCode {
        let options = sweep::SweepOptions {
            paths: arguments.paths.clone(),
            seeds: arguments.seeds,
            first_seed: arguments.first_seed,
            jobs: arguments.jobs,
            limit: arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
            failures: arguments.failures.clone(),
            stop_at_failure: arguments.fail_fast,
        };
        match sweep::sweep(&options) {
            Ok(summary) => {
                say(summary.to_string().trim_end());
                summary.exit_code()
            }
            Err(error) => refused(&error),
        }
    }

    pub fn replay(arguments: &ReplayArguments) -> ExitCode {
        let recorded: RunReport = match files::read_failure(&arguments.folder) {
            Ok(recorded) => recorded,
            Err(text) => return usage(&text),
        };
        let options = match options(recorded.plant.as_deref(), false) {
            Ok(options) => options,
            Err(text) => return usage(&text),
        };
        let scenario = arguments.folder.join("scenario.toml");
        match execute(&scenario, Path::new(&recorded.scenario), recorded.seed, &options) {
            Err(text) => usage(&text),
            Ok(finished) => {
                say(finished.report.to_string().trim_end());
                if meta::repeats(&recorded, &finished.report) {
                    say(format_args!("the same run: trace {}", recorded.trace_hash));
                    return finished.report.verdict.exit_code();
                }
                say(format_args!(
                    "another run: trace {} was recorded, this build gives {}",
                    recorded.trace_hash, finished.report.trace_hash
                ));
                match finished.report.verdict {
                    Verdict::Pass => ExitCode::Nondeterminism,
                    failed => failed.exit_code(),
                }
            }
        }
    }

    pub fn meta(arguments: &MetaArguments) -> ExitCode {
        let leak = arguments.leak.iter().map(|leak| (LEAK.to_owned(), leak.clone()));
        let extra: Vec<(String, String)> = leak.collect();
        match meta::meta(&arguments.paths, 0..arguments.seeds, arguments.jobs, &extra) {
            Err(error) => refused(&error),
            Ok(summary) => {
                say(format_args!("{summary}"));
                summary.exit_code()
            }
        }
    }

    pub fn plants(arguments: &PlantsArguments) -> ExitCode {
        if arguments.list {
            for plant in Plant::ALL {
                say(format_args!("{:<22} {}", plant.name(), plant.about().trim()));
            }
            return ExitCode::Ok;
        }
        let mut chosen = Vec::new();
        for name in &arguments.only {
            match Plant::by_name(name) {
                Some(plant) => chosen.push(plant),
                None => return usage(&format!("there is no plant `{name}`")),
            }
        }
        if chosen.is_empty() {
            chosen.extend_from_slice(Plant::ALL);
        }
        let paths = if arguments.paths.is_empty() {
            vec![PathBuf::from("scenarios/fast")]
        } else {
            arguments.paths.clone()
        };
        let plan = plants::Plan {
            plants: chosen,
            seeds: arguments.seeds,
            enough: arguments.enough,
            jobs: arguments.jobs,
        };
        match plants::plants(&paths, &plan) {
            Err(error) => refused(&error),
            Ok(table) => {
                say(table.to_string().trim_end());
                table.exit_code()
            }
        }
    }
}

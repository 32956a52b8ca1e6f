//! `fulmar pipeline`: SQL that runs inside a site.
//!
//! | module | what |
//! |---|---|
//! | [`mod@file`] | what can be said of a file without a site |
//! | [`deploy`] | pipelines and savepoints of a site are changed |
//! | [`letters`] | dead letters are put through again |
//! | [`status`] | what becomes of them |
//!
//! Invariants: a file that is refused is refused with the first mistake of each of its statements, with its
//! place; a change takes effect only on the pipeline that was looked at.

pub mod deploy;
mod file;
mod letters;
mod status;

use super::Stop;
use super::client::Reaching;
use super::link::{History, changed, history};
use super::output::say;
use clap::{Args, Subcommand};
use fulmar_client::{Cluster, LaidDown, SavepointTold};
use fulmar_host::time::Duration;
use fulmar_types::ExitCode;
use fulmar_types::pipeline::PipelineDefinition;
use std::collections::BTreeMap;

/// Pipelines: SQL that cleans, counts and joins the topics of a site, inside it.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Look for mistakes in files: the first one of each statement. Needs no site.
    Check(file::Files),
    /// Run the tests that are in files. Needs no site.
    Test(file::Files),
    /// Show what a file does, as a picture. Needs no site.
    Plan(file::One),
    /// Let a site run a file from now on.
    Deploy(deploy::Deploy),
    /// Name the pipelines of a site, and its savepoints.
    List(Of),
    /// Show what becomes of pipelines: who runs them, how far they are, what became of every record.
    Status(status::Asked),
    /// Show what a pipeline is: its settings, and its file.
    Describe(Named),
    /// Let a pipeline rest, once its state is in the log.
    Pause(Named),
    /// Let a pipeline go on that is paused or has failed.
    Resume(Named),
    /// Keep the state of a pipeline under a name. It goes on meanwhile.
    Savepoint(deploy::Savepoint),
    /// Put a pipeline back to a savepoint: its state, and how far it has read. What it has written stays.
    Restore(deploy::Restore),
    /// Put dead letters through again, each once: after the file has been mended.
    RetryDeadLetters(letters::Retry),
    /// Remove a pipeline with its state. The topics that it has written stay.
    Delete(deploy::Delete),
    /// Remove a savepoint.
    Forget(Named),
    /// Show who changed pipelines, when, and what; of one pipeline or of all.
    History(History),
}

#[derive(Clone, Debug, Args)]
struct Of {
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
pub struct Named {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    reaching: Reaching,
}

const CLIENT: &str = "fulmar-pipeline";

/// How long a question or a change may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Pipelines, by name.
pub type Pipelines = BTreeMap<String, LaidDown<PipelineDefinition>>;

type Savepoints = BTreeMap<String, LaidDown<SavepointTold>>;

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.command {
        Command::Check(files) => file::check(&files),
        Command::Test(files) => file::test(&files),
        Command::Plan(of) => file::picture(&of),
        Command::Deploy(asked) => deploy::deploy(asked).await,
        Command::List(of) => status::list(&of.reaching.reached(CLIENT).await?).await,
        Command::Status(asked) => status::status(asked).await,
        Command::Describe(of) => describe(of).await,
        Command::Pause(of) => deploy::set_paused(of, true).await,
        Command::Resume(of) => deploy::set_paused(of, false).await,
        Command::Savepoint(asked) => deploy::savepoint(asked).await,
        Command::Restore(asked) => deploy::restore(asked).await,
        Command::RetryDeadLetters(asked) => letters::retry(asked).await,
        Command::Delete(asked) => deploy::delete(asked).await,
        Command::Forget(of) => deploy::forget(of).await,
        Command::History(asked) => history("pipeline", asked).await,
    }
}

async fn describe(of: Named) -> Result<ExitCode, Stop> {
    let LaidDown { changed: by, is, .. } =
        pipeline(&of.reaching.reached(CLIENT).await?, &of.name).await?;
    say(format!("pipeline {}", of.name));
    let settings = [
        ("reads", is.inputs.join(", ")),
        ("writes", is.outputs.join(", ")),
        ("paused", is.paused.to_string()),
        ("latency", format!("{} ms", is.latency_ms)),
        ("changed", changed(&by)),
    ];
    for (key, value) in settings {
        say(format!("    {key:<11}  {value}"));
    }
    say(format!("\n{}", is.file.trim_end()));
    Ok(ExitCode::Ok)
}

/// The pipelines of a site, by name.
pub async fn pipelines(cluster: &Cluster) -> Result<Pipelines, Stop> {
    cluster
        .pipelines(TIMEOUT)
        .await
        .map_err(|error| Stop::failed(format!("the pipelines of the site are not known: {error}.")))
}

/// The savepoints of a site, by name.
async fn savepoints(cluster: &Cluster) -> Result<Savepoints, Stop> {
    let savepoints = cluster.savepoints(TIMEOUT).await;
    savepoints.map_err(|error| {
        Stop::failed(format!("the savepoints of the site are not known: {error}."))
    })
}

/// A pipeline that is there.
async fn pipeline(cluster: &Cluster, name: &str) -> Result<LaidDown<PipelineDefinition>, Stop> {
    let none =
        || Stop::usage(format!("there is no pipeline {name}; `fulmar pipeline list` names them."));
    pipelines(cluster).await?.remove(name).ok_or_else(none)
}

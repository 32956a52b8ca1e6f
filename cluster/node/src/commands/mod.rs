//! The commands of `fulmar`.
//!
//! | module | what |
//! |---|---|
//! | [`node`] | one node of a site, until it is told to stop |
//! | [`rejoin`] | the way back for a node that lost its directory |
//! | [`up`] | a whole site on this machine |
//! | [`status`] | who leads, and what is in the topics |
//! | [`mod@apply`], [`link`], [`rule`], [`topic`] | what a site is to be: links to other sites, rules, topics |
//! | [`policy`], [`ways`], [`made_of`], [`makings`] | what of a topic would leave, over which link, and why |
//! | [`pipeline`] | SQL that runs inside the site |
//! | [`demo`] | kills leaders under load and proves that nothing was lost |
//! | [`mod@bench`] | how fast, and at what cost |
//! | [`site`], [`child`] | nodes as child processes |
//! | [`stats`], [`counters`] | what a node counts, and what the system counts about it |
//!
//! Invariant: a command ends with a code of the table and, if it failed, one message in plain
//! sentences that says what to do.

mod apply;
mod bench;
mod child;
mod client;
mod config_file;
mod counters;
mod demo;
mod exit_text;
mod keys;
mod link;
mod link_status;
mod made_of;
mod makings;
mod node;
pub mod output;
mod pipeline;
mod policy;
mod rejoin;
mod rule;
mod site;
mod stats;
mod status;
mod topic;
mod up;
mod ways;

use clap::{Parser, Subcommand};
use fulmar_types::ExitCode;

/// A three-node log that keeps what it acknowledged.
#[derive(Debug, Parser)]
#[command(name = "fulmar", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Node(node::Options),
    Rejoin(rejoin::Options),
    Keys(keys::Options),
    Up(up::Options),
    Status(status::Options),
    Apply(apply::Options),
    Topic(topic::Options),
    Link(link::Options),
    Rule(rule::Options),
    Policy(policy::Options),
    Pipeline(pipeline::Options),
    Demo(demo::Options),
    Bench(bench::Options),
    #[command(hide = true)]
    DemoVerify(demo::VerifyOptions),
    #[command(hide = true)]
    BenchLoad(bench::LoadOptions),
}

/// Why a command ends before it is done, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The exit code.
    pub code: ExitCode,
    /// What happened and what to do, in plain sentences.
    pub message: String,
}

impl Stop {
    fn usage(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Usage, message: message.into() }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Failed, message: message.into() }
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// Why it could not be done.
pub async fn run(cli: Cli) -> Result<ExitCode, Stop> {
    match cli.command {
        Command::Node(options) => node::run(options).await,
        Command::Rejoin(options) => rejoin::run(options).await,
        Command::Keys(options) => keys::run(options),
        Command::Up(options) => up::run(options).await,
        Command::Status(options) => status::run(options).await,
        Command::Apply(options) => apply::run(options).await,
        Command::Topic(options) => topic::run(options).await,
        Command::Link(options) => link::run(options).await,
        Command::Rule(options) => rule::run(options).await,
        Command::Policy(options) => policy::run(options).await,
        Command::Pipeline(options) => pipeline::run(options).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Bench(options) => bench::run(options).await,
        Command::DemoVerify(options) => demo::verify(options).await,
        Command::BenchLoad(options) => bench::load(options).await,
    }
}

#[cfg(test)]
mod tests;

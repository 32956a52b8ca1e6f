//! `fulmar pipeline`: SQL that runs inside a site.
//!
//! | module | what |
//! |---|---|
//! | [`mod@file`] | what can be said of a file without a site |
//!
//! Invariant: a file that is refused is refused with every mistake in it, each with its place.

mod file;

use super::Stop;
use clap::{Args, Subcommand};
use fulmar_types::ExitCode;

/// Pipelines: SQL that cleans, counts and joins the topics of a site, inside it.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Look for mistakes in files. Needs no site.
    Check(file::Files),
    /// Run the tests that are in files. Needs no site.
    Test(file::Files),
    /// Show what a file does, as a picture. Needs no site.
    Plan(file::One),
}

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.command {
        Command::Check(files) => file::check(&files),
        Command::Test(files) => file::test(&files),
        Command::Plan(of) => file::picture(&of),
    }
}

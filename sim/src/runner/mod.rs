//! The commands of `fulmar-sim`: one process for every run, so that no run can leave a trace in
//! another one.
//!
//! | module | command |
//! |---|---|
//! | [`files`] | finding scenario files, writing and reading failure folders |
//! | [`child`] | starting runs as processes of their own |
//! | [`load`] | keeping the machine busy meanwhile |
//! | [`sweep`] | many seeds of many scenarios, with a summary |
//! | [`meta`] | every seed twice, in surroundings that differ, compared byte by byte |
//! | [`plants`] | the table of planted bugs and what caught them |
//!
//! Invariant: this module and its children are the only ones of the simulator that touch real
//! files, processes and clocks; nothing here runs inside a simulation.

use fulmar_types::ExitCode;
use std::io;
use thiserror::Error;

pub mod child;
pub mod files;
pub mod load;
pub mod meta;
pub mod plants;
pub mod sweep;

/// Why a command of many runs could not be carried out.
#[derive(Debug, Error)]
pub enum RunnerError {
    /// There is no scenario, or a bad one; with the text for people.
    #[error("{0}")]
    Scenario(io::Error),
    /// The system refused a process, a file or a directory.
    #[error("the runs cannot be made: {0}")]
    System(#[from] io::Error),
}

impl RunnerError {
    /// The exit code of a command that ends with it.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Scenario(_) => ExitCode::Usage,
            Self::System(_) => ExitCode::Harness,
        }
    }
}

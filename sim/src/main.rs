//! The command line of `fulmar-sim`.
//!
//! Simulations exist only in a build with `--cfg madsim`, which `cargo sim` makes. Any other build
//! can check scenario files, and says so when asked for more.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = cli::run(cli::Arguments::parse());
    ExitCode::from(code.code())
}

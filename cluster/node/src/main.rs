//! The binary `fulmar`: a node, and the commands around it.
//!
//! Invariants: data goes to standard output, everything else to standard error; the exit code is
//! one of [`fulmar_types::ExitCode`]; one current-thread runtime, so that production has no
//! interleaving that the simulator cannot have.

mod commands;

use clap::Parser;
use commands::{Cli, output};
use fulmar_types::ExitCode;
use std::io::IsTerminal;
use std::process;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The variable that says what is logged, in the form of `RUST_LOG`.
const LOG_VARIABLE: &str = "FULMAR_LOG";

/// openraft warns at every failed message to a node that is down, which is no news after the first.
const LOG_DEFAULT: &str = "warn,openraft=error";

fn main() -> process::ExitCode {
    let cli = Cli::parse();
    if let Err(message) = start_logging() {
        output::complain(&message);
        return process::ExitCode::from(ExitCode::Usage.code());
    }
    let code = fulmar_host::task::block_on(commands::run(cli)).unwrap_or_else(|stop| {
        output::complain(&stop.message);
        stop.code
    });
    process::ExitCode::from(code.code())
}

fn start_logging() -> Result<(), String> {
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let unclear = |why: String| {
        format!(
            "{LOG_VARIABLE}={wanted} cannot be understood: {why}. \
             Write a level (error, warn, info, debug, trace) or `module=level,...`."
        )
    };
    // The filter would take a mistyped level for a module, and silence all others.
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let mut parts = wanted.split(',').map(str::trim).filter(|part| !part.is_empty());
    if let Some(word) = parts.find(|part| !part.contains('=') && !is_level(part)) {
        return Err(unclear(format!("`{word}` is no level")));
    }
    let filter = EnvFilter::try_new(&wanted).map_err(|error| unclear(error.to_string()))?;
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    // Told of a full disk below a log file it would panic.
    let subscriber = subscriber.log_internal_errors(false);
    subscriber.with_writer(std::io::stderr).init();
    Ok(())
}

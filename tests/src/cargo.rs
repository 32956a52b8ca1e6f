//! Child `cargo` processes.
//!
//! Invariant: a child works in the root of the repository, so that the aliases of
//! `.cargo/config.toml` hold.

use crate::tidy::repository::root;
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// Runs an alias, with its output on ours.
///
/// # Panics
/// If it cannot be started, or fails.
pub fn run(arguments: &[&str]) {
    let code = status_of(arguments);
    assert_eq!(code, Some(0), "`cargo {}` failed", arguments.join(" "));
}

/// Runs an alias, with its output on ours, and returns its exit code; `None` if a signal ended it.
///
/// # Panics
/// If it cannot be started.
pub fn status_of(arguments: &[&str]) -> Option<i32> {
    let mut command = cargo();
    // They would take precedence over those that the alias asks for, and the simulator would be
    // built as a node.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    let status = command.args(arguments).stdin(Stdio::null()).status().expect("cargo starts");
    status.code()
}

/// Builds a package and returns its binary, or its dynamic library where it is one.
///
/// # Panics
/// If it does not build.
pub fn build(package: &str, target: &str) -> PathBuf {
    let output = cargo()
        .args(["build", "--quiet", "--message-format=json-render-diagnostics", "-p", package])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{package} does not build");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = messages.filter_map(|message| artifact(&message, target)).next_back();
    found.unwrap_or_else(|| panic!("{package} has no binary or library `{target}`"))
}

fn artifact(message: &Value, target: &str) -> Option<PathBuf> {
    if message["target"]["name"] != target {
        return None;
    }
    let libraries = message["filenames"].as_array().into_iter().flatten();
    let library = libraries.filter_map(Value::as_str).find(|name| name.ends_with(".so"));
    message["executable"].as_str().or(library).map(PathBuf::from)
}

//! Foreign programs that a test needs.
//!
//! On a desk without them a test says so and passes. Where `FULMAR_CI` is set it fails, because a
//! test that is skipped in CI is skipped for good.

use std::process::{Command, Stdio};

/// Whether a program is there.
///
/// # Panics
/// If it is not there and `FULMAR_CI` is set.
pub fn is_there(program: &str) -> bool {
    let version = if program == "strace" { "-V" } else { "-h" };
    let found = Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    let is_set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    let in_ci = is_set("FULMAR_CI");
    assert!(found || !in_ci, "`{program}` is not installed, and FULMAR_CI is set");
    if !found {
        println!("skipped: `{program}` is not installed");
    }
    found
}

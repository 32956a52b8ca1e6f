//! Foreign programs that a test needs.
//!
//! On a desk without them a test says so and passes. Where `FULMAR_CI` is set it fails, because a
//! test that is skipped in CI is skipped for good.
//!
//! Invariant: every skipped test is seen, a line each, in the output of the README's command.

use std::io::Write;
use std::process::{Command, Stdio};

/// Whether a program is there.
///
/// # Panics
/// If it is not there and `FULMAR_CI` is set.
#[track_caller]
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
        // The test harness names the thread of a test after it, unless it has one thread only.
        let (thread, place) = (std::thread::current(), std::panic::Location::caller());
        let test = thread.name().filter(|name| *name != "main").unwrap_or(place.file());
        let line = skipped(test, program);
        // Not `println!`, nor `eprintln!`: the harness keeps their output of a test that passes.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found
}

/// What a user reads of a test that did not run.
fn skipped(test: &str, program: &str) -> String {
    format!("SKIPPED {test}: `{program}` is not installed, so nothing was tested\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set for the copy of this test that is looked at from outside.
    const MISSING: &str = "FULMAR_TEST_OF_A_MISSING_TOOL";

    #[test]
    fn a_skipped_test_is_seen_though_it_passes() {
        let tool = "fulmar-no-such-tool";
        if std::env::var_os(MISSING).is_some() {
            assert!(!is_there(tool));
            return;
        }
        let run = |ci: &str| {
            let name = "tools::tests::a_skipped_test_is_seen_though_it_passes";
            let itself = std::env::current_exe().expect("a test is a program");
            let arguments = ["--exact", name, "--test-threads=2"];
            let command = Command::new(&itself)
                .args(arguments)
                .env(MISSING, "1")
                .env("FULMAR_CI", ci)
                .env_remove("RUST_TEST_NOCAPTURE")
                .output();
            command.expect("it runs")
        };
        let output = run("");
        let seen = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{seen}");
        let name = "tools::tests::a_skipped_test_is_seen_though_it_passes";
        assert_eq!(seen, skipped(name, tool));
        assert!(!run("1").status.success(), "in CI a skip is a failure");
    }
}

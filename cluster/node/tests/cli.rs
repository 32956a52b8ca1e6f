//! The binary as a shell sees it: exit codes, and what goes to which stream. No site is started.

use fulmar_types::ExitCode;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn fulmar(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    command.args(arguments).env_remove("FULMAR_LOG").output().expect("the binary runs")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn error(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "an error goes to standard error alone");
    String::from_utf8(output.stderr.clone()).expect("text")
}

const USAGE: Option<i32> = Some(ExitCode::Usage as i32);
const FAILED: Option<i32> = Some(ExitCode::Failed as i32);

/// A file of its own for a test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a temporary file");
    path
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [&["--help"][..], &["--version"], &["demo", "--help"]] {
        let output = fulmar(arguments);
        assert_eq!(code(&output), Some(0));
        assert!(output.stderr.is_empty());
        assert!(!output.stdout.is_empty());
    }
    let version = String::from_utf8(fulmar(&["--version"]).stdout).expect("text");
    assert_eq!(version.trim(), concat!("fulmar ", env!("CARGO_PKG_VERSION")));
    let help = String::from_utf8(fulmar(&["--help"]).stdout).expect("text");
    assert!(!help.contains("bench-load"), "what is only for ourselves is hidden");
}

#[test]
fn a_wrong_command_line_is_refused() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["node"],
        &["node", "--config", "x"],
        &["node", "--config", "x", "--id", "one"],
        &["status", "--bootstrap", "localhost"],
        &["demo", "--records", "10"],
        &["bench", "--seconds", "0"],
        &["up", "--dir", env!("CARGO_TARGET_TMPDIR"), "--base-port", "65500"],
    ] {
        let output = fulmar(arguments);
        assert_eq!(code(&output), USAGE, "{arguments:?}: {}", error(&output));
        assert!(!error(&output).is_empty());
    }
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_touched() {
    let missing = fulmar(&["node", "--config", "/does/not/exist.toml", "--id", "1"]);
    assert_eq!(code(&missing), USAGE);
    assert!(error(&missing).contains("fulmar up"), "{}", error(&missing));

    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("never");
    let good = format!(
        "site = \"a\"\n[[node]]\nid = 1\ndata = \"{}\"\nkafka = \"127.0.0.1:1\"\n\
         peer = \"127.0.0.1:2\"\n",
        data.display()
    );
    let config = file("typo.toml", &format!("{good}kafak = 1\n"));
    let typo = fulmar(&["node", "--config", &config.to_string_lossy(), "--id", "1"]);
    assert_eq!(code(&typo), USAGE);
    assert!(error(&typo).contains("line 7, column 1"), "{}", error(&typo));

    let config = file("good.toml", &good);
    let other = fulmar(&["node", "--config", &config.to_string_lossy(), "--id", "4"]);
    assert_eq!(code(&other), USAGE);
    assert!(error(&other).contains("has no node 4"), "{}", error(&other));
    assert!(!data.exists());
}

#[test]
fn a_site_that_does_not_answer_is_a_failure_that_says_what_to_check() {
    let output = fulmar(&["status", "--bootstrap", "127.0.0.1:1,127.0.0.1:2"]);
    assert_eq!(code(&output), FAILED);
    assert!(error(&output).contains("Check --bootstrap"), "{}", error(&output));
}

#[test]
fn a_bench_or_a_demo_takes_no_directory_that_holds_something() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("full");
    fs::create_dir_all(&dir).expect("a temporary directory");
    fs::write(dir.join("precious"), "data").expect("a temporary file");
    for arguments in [["demo", "--keep"], ["bench", "--dir"]] {
        let dir = dir.to_string_lossy().into_owned();
        let output = fulmar(&[arguments[0], arguments[1], &dir]);
        assert_eq!(code(&output), USAGE);
        assert!(error(&output).contains("is not empty"), "{}", error(&output));
    }
    assert!(dir.join("precious").exists());
}

#[test]
fn a_node_that_may_open_too_few_files_does_not_start() {
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("never-opened");
    let config = file(
        "few-files.toml",
        &format!(
            "site = \"a\"\n[[node]]\nid = 1\ndata = \"{}\"\nkafka = \"127.0.0.1:1\"\n\
             peer = \"127.0.0.1:2\"\n",
            data.display()
        ),
    );
    let script = format!(
        "ulimit -n 100; exec '{}' node --config '{}' --id 1",
        env!("CARGO_BIN_EXE_fulmar"),
        config.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert_eq!(code(&output), USAGE, "{}", error(&output));
    assert!(error(&output).contains("may open 100 files"), "{}", error(&output));
    assert!(!data.exists());
}

#[test]
fn a_wrong_log_filter_is_refused() {
    // A word that is no level would be taken for a module, and silence all others.
    for filter in ["loud=very", "inof", "warn,inof"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
        command.args(["status", "--bootstrap", "127.0.0.1:1"]).env("FULMAR_LOG", filter);
        let output = command.output().expect("the binary runs");
        assert_eq!(code(&output), USAGE, "{filter}");
        assert!(error(&output).contains("FULMAR_LOG"), "{}", error(&output));
    }
}

const PIPELINE: &str = "CREATE STREAM s (
    v BIGINT NOT NULL
) FROM TOPIC numbers ON ERROR DROP;
INSERT INTO TOPIC large SELECT v FROM s WHERE v > 10;
TEST 'large ones'
  INPUT numbers '{\"v\": 5}'
  INPUT numbers '{\"v\": 50}'
  EXPECT large '{\"v\": 50}';
";

#[test]
fn a_pipeline_is_checked_tested_and_drawn_without_a_site() {
    let good = file("good.sql", PIPELINE).to_string_lossy().into_owned();
    let told = |arguments: &[&str]| {
        let output = fulmar(arguments);
        let text = String::from_utf8(output.stdout.clone()).expect("text");
        (code(&output), text, String::from_utf8(output.stderr).expect("text"))
    };
    let (done, text, _) = told(&["pipeline", "check", &good]);
    assert_eq!((done, text), (Some(0), format!("{good}: reads numbers; writes large\n")));
    let (done, text, _) = told(&["pipeline", "test", &good]);
    assert_eq!((done, text.as_str()), (Some(0), "ok      large ones\n1 test passed\n"));
    let (done, text, _) = told(&["pipeline", "plan", &good]);
    assert_eq!(done, Some(0));
    assert!(text.starts_with("topic large, no key\n"), "{text}");

    let failing = PIPELINE.replace("EXPECT large '{\"v\": 50}'", "EXPECT large '{\"v\": 51}'");
    let failing = file("failing.sql", &failing).to_string_lossy().into_owned();
    let (done, text, _) = told(&["pipeline", "test", &failing]);
    assert_eq!(done, FAILED);
    assert!(text.contains("FAILED  large ones") && text.contains("expected {\"v\": 51}"), "{text}");
    assert!(text.contains("2 read = 1 passed + 1 filtered"), "{text}");

    let wrong = PIPELINE.replace("BIGINT", "BIGINTT").replace("ON ERROR DROP", "");
    let wrong = file("wrong.sql", &wrong).to_string_lossy().into_owned();
    for what in ["check", "test", "plan"] {
        let (done, _, error) = told(&["pipeline", what, &wrong]);
        assert_eq!(done, FAILED, "{what}");
        assert!(error.contains(&format!("{wrong}:2:")), "{what}: {error}");
    }
    let (done, _, _) = told(&["pipeline", "check", "/does/not/exist.sql"]);
    assert_eq!(done, USAGE);
}

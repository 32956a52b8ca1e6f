//! What may not be imported or called, where it may, and what to write instead.
//!
//! Names are found in the code, not in comments or strings, and `use` trees are unfolded, so that
//! `use std::{fs, io}` is found as `std::fs`.
//!
//! Invariant: an allowance is a path in this file. There is no marker in a source that switches a
//! rule off, except where a rule names one, with a reason behind it.

use super::Finding;
use super::lexer::{Source, closing};

/// The crate that is the seam to the outside.
const HOST: &[&str] = &["cluster/host/"];

/// A command line needs files, processes and its environment.
const COMMAND_LINE: &[&str] =
    &["cluster/node/src/main.rs", "cluster/node/src/commands/", "cluster/node/src/cli/"];

/// The parts of the simulator that start children, read scenarios and write reports.
const SIM_OUTSIDE: &[&str] = &[
    "sim/src/main.rs",
    "sim/src/cli.rs",
    "sim/src/cli/",
    "sim/src/runner.rs",
    "sim/src/runner/",
    "sim/src/report.rs",
    "sim/src/report/",
];

/// Where a simulation gets a fresh thread, so that nothing of the one before it is left.
const SIM_THREAD: &[&str] = &["sim/src/world/mod.rs"];

/// A rule about names.
pub struct Rule {
    /// Paths; a path in the code breaks the rule if it holds the segments of one of these in a row.
    names: &'static [&'static str],
    /// Where it is allowed.
    allowed: &'static [&'static [&'static str]],
    /// Whether it holds for tests, too.
    in_tests: bool,
    /// The comment right above that excuses it, where one can.
    excuse: Option<&'static str>,
    /// What to write instead, and why.
    teach: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        names: &["std::fs", "tokio::fs"],
        allowed: &[HOST, COMMAND_LINE, SIM_OUTSIDE],
        in_tests: false,
        excuse: None,
        teach: "take a `fulmar_host::disk::Disk`: the simulator cannot cut the power of any other",
    },
    Rule {
        names: &[
            "tokio::net",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "ToSocketAddrs",
        ],
        allowed: &[HOST],
        in_tests: false,
        excuse: None,
        teach: "take a `fulmar_host::net::Network`: the simulator cannot cut any other connection",
    },
    Rule {
        names: &["Instant::now", "Instant::elapsed"],
        allowed: &[HOST, SIM_OUTSIDE],
        in_tests: false,
        excuse: None,
        teach: "call `fulmar_host::time::now()`: it is simulated time in the simulator",
    },
    Rule {
        names: &["SystemTime", "UNIX_EPOCH", "chrono"],
        allowed: &[HOST, SIM_OUTSIDE],
        in_tests: false,
        excuse: None,
        teach: "take a `fulmar_host::clock::Clock`: every simulated node has a wall clock of its own",
    },
    Rule {
        names: &[
            "thread::spawn",
            "thread::Builder",
            "thread::scope",
            "thread::sleep",
            "spawn_blocking",
            "block_in_place",
        ],
        allowed: &[HOST, SIM_OUTSIDE, SIM_THREAD],
        in_tests: false,
        excuse: None,
        teach: "spawn a task with `fulmar_host::task`: a thread makes interleavings that the \
                simulator cannot have",
    },
    Rule {
        names: &[
            "rand::rng",
            "rand::random",
            "thread_rng",
            "ThreadRng",
            "OsRng",
            "SysRng",
            "getrandom",
            "RandomState",
        ],
        allowed: &[HOST],
        in_tests: false,
        excuse: Some("random on purpose:"),
        teach: "draw from `fulmar_host::random` (in the simulator: from a `Prng` stream), so that a \
                seed says everything",
    },
    Rule {
        names: &["std::process", "tokio::process", "tokio::signal"],
        allowed: &[HOST, COMMAND_LINE, SIM_OUTSIDE],
        in_tests: false,
        excuse: None,
        teach: "end a node with `Host::fatal`; only a command line starts and ends processes",
    },
    Rule {
        names: &["std::env"],
        allowed: &[HOST, COMMAND_LINE, SIM_OUTSIDE],
        in_tests: false,
        excuse: None,
        teach: "take a configuration value: two runs with one seed may differ in environment",
    },
    Rule {
        names: &["collections::HashMap", "collections::HashSet", "hash_map::HashMap", "hashbrown"],
        allowed: &[HOST],
        in_tests: false,
        excuse: Some("order never visible:"),
        teach: "use a `BTreeMap`, `BTreeSet` or `Vec`: the order of a hash map differs from run to \
                run. Where nothing ever iterates, say so on the line before the import: \
                `// order never visible: <reason>`",
    },
    Rule {
        names: &["openraft", "openraft_rt", "openraft_rt_sim", "openraft_rt_tokio"],
        allowed: &[&["cluster/consensus/"]],
        in_tests: true,
        excuse: None,
        teach: "go through `fulmar_consensus`: it is the only crate that knows openraft",
    },
    Rule {
        names: &["madsim"],
        allowed: &[HOST, &["sim/"]],
        in_tests: true,
        excuse: None,
        teach: "production code never asks whether it is simulated: put the difference behind \
                `fulmar_host`",
    },
    Rule {
        names: &["kafka_protocol"],
        allowed: &[],
        in_tests: false,
        excuse: None,
        teach: "use `fulmar_wire`: that crate aborts on hostile lengths and is the other side in \
                differential tests only",
    },
];

fn allows(allowed: &[&[&str]], path: &str) -> bool {
    allowed.iter().flat_map(|paths| paths.iter()).any(|prefix| {
        if prefix.ends_with('/') { path.starts_with(prefix) } else { path == *prefix }
    })
}

/// Names that stand where they may not.
pub fn names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in paths(source) {
        for rule in RULES {
            let Some(found) = rule.names.iter().find(|pattern| holds(&name.segments, pattern))
            else {
                continue;
            };
            let exempt = (name.in_test && !rule.in_tests)
                || allows(rule.allowed, &source.path)
                || rule.excuse.is_some_and(|excuse| source.excused(name.line, excuse));
            if !exempt {
                let message = format!("`{found}` has no place here: {}", rule.teach);
                findings.push(Finding::new(&source.path, name.line, message));
            }
        }
    }
    findings.dedup();
    findings
}

/// Whether the segments of `pattern` stand in a row in a path. A glob import stands for any name.
fn holds(segments: &[String], pattern: &str) -> bool {
    let wanted: Vec<&str> = pattern.split("::").collect();
    segments.windows(wanted.len()).any(|window| {
        let matches = |(have, want): (&String, &&str)| have == want || have == "*";
        window[0] == wanted[0] && window.iter().zip(&wanted).all(matches)
    })
}

/// A path in the code.
struct Name {
    segments: Vec<String>,
    line: usize,
    in_test: bool,
}

/// Every path of the code, `use` trees unfolded.
fn paths(source: &Source) -> Vec<Name> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < source.tokens.len() {
        if source.text(at) == "use" {
            at = unfold(source, at + 1, &[], &mut names);
        } else if is_word(source.text(at)) {
            at = expression(source, at, &mut names);
        } else {
            at += 1;
        }
    }
    names
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A path outside an import; returns the position behind it.
fn expression(source: &Source, from: usize, names: &mut Vec<Name>) -> usize {
    let token = &source.tokens[from];
    let mut segments = vec![token.text.clone()];
    let mut at = from + 1;
    while source.text(at) == "::" && is_word(source.text(at + 1)) {
        segments.push(source.text(at + 1).to_owned());
        at += 2;
    }
    // A method or a field is not a path of its own, and what is defined here is not called here.
    let is_other = from > 0 && matches!(source.text(from - 1), "." | "fn");
    if !is_other {
        names.push(Name { segments, line: token.line, in_test: token.in_test });
    }
    at
}

/// One branch of a `use` tree; returns the position behind it.
fn unfold(source: &Source, from: usize, above: &[String], names: &mut Vec<Name>) -> usize {
    let mut segments = above.to_vec();
    let mut at = from;
    while at < source.tokens.len() {
        match source.text(at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(source.text(at), "}" | "") {
                    at = unfold(source, at, &segments, names);
                    if source.text(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "self" if !above.is_empty() => at += 1,
            text if text == "*" || is_word(text) => {
                segments.push(text.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    if let Some(token) = source.tokens.get(at.saturating_sub(1)) {
        names.push(Name { segments, line: token.line, in_test: token.in_test });
    }
    // Always beyond where it began, whatever the text is.
    at.max(from + 1)
}

/// `select!` that is not `biased;`, and `select!` of other crates.
pub fn selects(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in 0..source.tokens.len() {
        let is_call = matches!(source.text(at), "select" | "select_biased" | "join_unordered")
            && source.text(at + 1) == "!"
            && matches!(source.text(at + 2), "{" | "(" | "[");
        let token = &source.tokens[at];
        if !is_call || source.starts_with(at + 3, &["biased", ";"]) {
            continue;
        }
        if token.in_test || source.excused(token.line, "unbiased on purpose:") {
            continue;
        }
        let message = "`select!` must begin with `biased;`: else it draws from a generator that no \
                       seed reaches, and the branch that wins differs from run to run";
        findings.push(Finding::new(&source.path, token.line, message));
    }
    findings
}

/// How often a file says `cfg(madsim)`, in whatever form.
pub fn madsim_cfgs(source: &Source) -> usize {
    let tokens = &source.tokens;
    (0..tokens.len())
        .filter(|at| matches!(source.text(*at), "cfg" | "cfg_attr"))
        .filter_map(|at| {
            let open = if source.text(at + 1) == "!" { at + 2 } else { at + 1 };
            Some(&tokens[open..closing(tokens, open)?])
        })
        .filter(|inside| inside.iter().any(|token| token.text == "madsim"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let source = Source::new(path, text);
        let mut findings = names(&source);
        findings.extend(selects(&source));
        let mut lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        lines.dedup();
        lines
    }

    const STORE: &str = "cluster/store/src/log.rs";

    #[test]
    fn each_forbidden_name_is_found() {
        for text in [
            "use std::fs;",
            "use std::fs::File;",
            "use std::{io, fs::{self, File}};",
            "use std::*;",
            "fn a() { std::fs::read(b) }",
            "use tokio::fs;",
            "use tokio::net::TcpStream;",
            "use std::net::{SocketAddr, TcpListener};",
            "fn a() { Instant::now() }",
            "fn a() { std::time::Instant::now() }",
            "use std::time::SystemTime;",
            "fn a() { std::thread::spawn(b) }",
            "fn a() { thread::Builder::new() }",
            "fn a() { tokio::task::spawn_blocking(b) }",
            "fn a() { rand::rng() }",
            "use rand::thread_rng as b;",
            "fn a() { getrandom::fill(b) }",
            "use std::process::Command;",
            "fn a() { std::env::var(b) }",
            "use std::collections::HashMap;",
            "use std::collections::{BTreeMap, HashSet};",
            "use std::collections::*;",
            "use openraft::Raft;",
            "use madsim::runtime::Handle;",
            "#[cfg(madsim)] fn a() {}",
            "#[cfg(not(madsim))] mod a;",
            "fn a() { if cfg!(madsim) {} }",
            "use kafka_protocol::messages;",
            "async fn a() { tokio::select! { _ = b => {} } }",
            "async fn a() { futures::select! { _ = b => {} } }",
        ] {
            assert_eq!(found(STORE, text), [1], "{text}");
        }
    }

    #[test]
    fn what_only_looks_alike_is_left_alone() {
        for text in [
            "// std::fs\nfn a() { b(\"std::fs\") }",
            "use std::net::SocketAddr;",
            "use std::time::{Duration, Instant};",
            "use std::collections::BTreeMap;",
            "use crate::fs::std;",
            "fn a() { b.getrandom }",
            "impl A for B { fn thread_rng() -> C {} }",
            "async fn a() { tokio::select! { biased; _ = b => {} } }",
            "#[cfg(test)] mod tests { use std::fs; }",
        ] {
            assert_eq!(found(STORE, text), [0; 0], "{text}");
        }
    }

    #[test]
    fn allowances_are_by_place() {
        assert_eq!(found("cluster/host/src/real/disk.rs", "use std::fs;"), [0; 0]);
        assert_eq!(found("cluster/node/src/main.rs", "use std::fs;"), [0; 0]);
        assert_eq!(found("cluster/node/src/commands/up.rs", "use std::process;"), [0; 0]);
        assert_eq!(found("cluster/node/src/start.rs", "use std::fs;"), [1]);
        assert_eq!(found("sim/src/runner/child.rs", "use std::process::Command;"), [0; 0]);
        assert_eq!(found("sim/src/disk/mod.rs", "use std::fs;"), [1]);
        assert_eq!(found("cluster/consensus/src/types.rs", "use openraft::Raft;"), [0; 0]);
        assert_eq!(found(STORE, "#[cfg(test)] mod tests { use openraft::Raft; }"), [1]);
        assert_eq!(found("sim/src/world.rs", "use madsim::net;"), [0; 0]);
    }

    #[test]
    fn an_excuse_needs_a_reason() {
        let import = "use std::collections::HashMap;";
        let with = |comment: &str| found(STORE, &format!("{comment}\n{import}"));
        assert_eq!(with("// order never visible: only looked up by key"), [0; 0]);
        assert_eq!(with("// order never visible:"), [2]);
        assert_eq!(with("// fast"), [2]);
        let select = "// unbiased on purpose: the planted leak that `meta` has to catch\n\
                      async fn a() { tokio::select! { _ = b => {} } }";
        assert_eq!(found("sim/src/leak.rs", select), [0; 0]);
    }

    #[test]
    fn every_way_to_say_cfg_is_counted() {
        let text = "#[cfg(madsim)] #[cfg(all(not(madsim), test))] #[cfg_attr(madsim, x)]
                    fn a() { cfg!(madsim) } #[cfg(test)] // cfg(madsim)";
        assert_eq!(madsim_cfgs(&Source::new("a.rs", text)), 4);
    }
}

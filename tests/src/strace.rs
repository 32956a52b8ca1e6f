//! The system calls of a node, with their times.
//!
//! One file per thread (`-ff`), so that no call is split by another thread's, with wall-clock time
//! at the start and the time that it took:
//!
//! ```text
//! 1700000000.123456 fdatasync(9</data/log/00.seg>) = 0 <0.001234>
//! ```
//!
//! Times of several processes can be compared, because they are on one machine.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Changes of files and whatever can send an answer.
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sendto,sendmsg";

/// How much of what is written is shown: enough for a marker at the start of a record.
const SHOWN_BYTES: &str = "4096";

/// A system call that has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Descriptors with their paths, and the first bytes of what was written.
    pub arguments: String,
    /// When it began, microseconds since 1970.
    pub start_us: u64,
    /// When it returned.
    pub end_us: u64,
    /// What it returned.
    pub result: i64,
}

impl Call {
    /// Whether it flushes a file.
    pub fn is_flush(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }

    /// What its descriptor is open on: `/path` or `TCP:[from->to]`.
    pub fn target(&self) -> &str {
        let behind = self.arguments.split_once('<').map_or("", |(_, behind)| behind);
        // The end of a connection has an arrow in it.
        let end = behind.match_indices('>').find(|(at, _)| !behind[..*at].ends_with('-'));
        end.map_or("", |(at, _)| &behind[..at])
    }
}

/// A command that runs a program under strace.
pub fn command(program: &Path, prefix: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-ff", "--seccomp-bpf", "-ttt", "-T", "-yy", "-s", SHOWN_BYTES, "-e", CALLS]);
    command.arg("-o").arg(prefix).arg("--").arg(program);
    command
}

/// The calls of all threads, in the order in which they began.
///
/// # Panics
/// If there is no trace.
pub fn calls(prefix: &Path) -> Vec<Call> {
    let directory = prefix.parent().expect("a trace lies in a directory");
    let name = prefix.file_name().expect("a trace has a name").to_string_lossy();
    let mut calls = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("it can be listed").path();
        let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if file.starts_with(&format!("{name}.")) {
            let bytes = fs::read(&path).expect("a trace can be read");
            calls.extend(String::from_utf8_lossy(&bytes).lines().filter_map(call));
        }
    }
    assert!(!calls.is_empty(), "strace has written nothing to {}", prefix.display());
    calls.sort_by_key(|call| call.start_us);
    calls
}

/// A line of a trace; `None` for signals, ends and calls that never returned.
fn call(line: &str) -> Option<Call> {
    let (start, rest) = line.split_once(' ')?;
    let start_us = microseconds(start)?;
    let (name, rest) = rest.split_once('(')?;
    // Short calls are filled up with blanks before the `=`.
    let (arguments, rest) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let (result, took) = rest.rsplit_once(" <")?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    let end_us = start_us + microseconds(took.strip_suffix('>')?)?;
    let arguments = arguments.to_owned();
    Some(Call { name: name.to_owned(), arguments, start_us, end_us, result })
}

/// `1.000020` as 1,000,020.
fn microseconds(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.')?;
    if part.len() != 6 {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 1_000_000 + part.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = "1700000000.500000 fdatasync(9</d/log/00.seg>) = 0 <0.001234>";
        let flush = call(line).expect("a call");
        assert!(flush.is_flush());
        assert_eq!(flush.target(), "/d/log/00.seg");
        assert_eq!((flush.start_us, flush.end_us - flush.start_us), (1_700_000_000_500_000, 1_234));
        let line = "1.000000 sendto(12<TCP:[127.0.0.1:9092->127.0.0.1:5000]>, \"a) = <b>\"..., 9, \
                    MSG_NOSIGNAL, NULL, 0) = 9 <0.000010>";
        let sent = call(line).expect("a call");
        assert_eq!(sent.target(), "TCP:[127.0.0.1:9092->127.0.0.1:5000]");
        assert_eq!((sent.name.as_str(), sent.result), ("sendto", 9));
        let line = "1.000000 write(3</d/x>, \"\", 0) = -1 EIO (Input/output error) <0.000010>";
        assert_eq!(call(line).expect("a call").result, -1);
        let line = "1.000000 fsync(3</d>)     = 0 <0.003987>";
        assert_eq!(call(line).expect("a call").target(), "/d");
    }

    #[test]
    fn what_is_no_call_is_left_out() {
        assert_eq!(call("1.000000 +++ killed by SIGKILL +++"), None);
        assert_eq!(call("1.000000 fdatasync(9</d/x> <unfinished ...>"), None);
        assert_eq!(call("1.000000 --- SIGCHLD {si_signo=SIGCHLD} ---"), None);
    }
}

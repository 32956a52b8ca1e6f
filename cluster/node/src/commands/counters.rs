//! What is counted about a running node: by itself (its stats file) and by the system (`/proc`).

use super::stats::NAMES;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::Path;

/// What a node used and did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Flushes of the log.
    pub flushes: u64,
    /// Raft entries that they covered.
    pub entries: u64,
    /// Bytes that they wrote.
    pub flushed_bytes: u64,
    /// Bytes that the process caused to be written to the disk.
    pub written_bytes: u64,
    /// CPU time in user and kernel mode.
    pub cpu_ms: u64,
    /// Resident memory at the moment.
    pub resident_bytes: u64,
}

/// The numbers of a `name value` file; what is missing is zero.
fn named(text: &str, name: &str, separator: char) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(separator));
    let mut found = lines.filter(|(key, _)| key.trim() == name);
    let value = found.next().and_then(|(_, value)| value.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The fields 14 and 15 of `/proc/PID/stat`, in clock ticks. The name of the program, field 2, may
/// hold blanks and brackets, so fields are counted behind its last bracket.
fn cpu_ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = behind_name.split_whitespace();
    // Field 3 is the first behind the name.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn ticks_per_second() -> u64 {
    // SAFETY: reads a constant of the system.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Reads the counters of a process and of its stats file.
///
/// # Errors
/// If the process is gone, or is not ours.
pub fn read(pid: u32, stats_file: &Path) -> io::Result<Counters> {
    let proc = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    // Written a second after the start at the latest.
    let stats = fs::read_to_string(stats_file).unwrap_or_default();
    let (io, stat, status) = (proc("io")?, proc("stat")?, proc("status")?);
    let [flushes, entries, flushed_bytes] = NAMES.map(|name| named(&stats, name, ' '));
    Ok(Counters {
        flushes,
        entries,
        flushed_bytes,
        written_bytes: named(&io, "write_bytes", ':'),
        cpu_ms: cpu_ticks(&stat) * 1000 / ticks_per_second(),
        resident_bytes: named(&status, "VmRSS", ':') * 1024,
    })
}

impl Counters {
    /// What was added since an earlier reading; the memory is that of now.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            flushes: self.flushes.saturating_sub(before.flushes),
            entries: self.entries.saturating_sub(before.entries),
            flushed_bytes: self.flushed_bytes.saturating_sub(before.flushed_bytes),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            cpu_ms: self.cpu_ms.saturating_sub(before.cpu_ms),
            resident_bytes: self.resident_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_read() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_ticks(stat), 12);
        assert_eq!(cpu_ticks(""), 0);
        let io = "rchar: 1\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(named(io, "write_bytes", ':'), 8192);
        assert_eq!(named("VmRSS:\t  1024 kB\n", "VmRSS", ':'), 1024);
        assert_eq!(named("flushes 3\nbytes 5\n", "bytes", ' '), 5);
        assert_eq!(named("", "bytes", ' '), 0);
    }

    #[test]
    fn this_process_is_read() {
        let counters = read(std::process::id(), Path::new("/none")).expect("it runs");
        assert!(counters.resident_bytes > 0);
        assert_eq!(counters.since(&counters).written_bytes, 0);
    }
}

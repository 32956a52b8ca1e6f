//! A node as a child process.
//!
//! Invariants: a child dies with its parent (PR_SET_PDEATHSIG), also if the parent is killed; it is
//! in a process group of its own, so that Ctrl-C reaches the parent alone, which then stops its
//! children in order. What a node says about itself goes to a log file beside its data; that it
//! serves its clients it says on its standard output, which we read.

use super::Stop;
use fulmar_host::task::{self, Owned};
use fulmar_host::time::{self, Duration};
use fulmar_types::NodeId;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

/// The end of a log that is shown with a message, at most.
const LOG_TAIL_BYTES: u64 = 4096;

/// What happens to a child when its parent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnParentDeath {
    /// It stops in order: what it holds is to be kept.
    Stop,
    /// It is killed: its directory is temporary.
    Kill,
}

/// How a node is run.
#[derive(Clone, Debug)]
pub struct NodeCommand {
    /// The configuration.
    pub config: PathBuf,
    /// Which of its nodes.
    pub id: NodeId,
    /// Where its messages go.
    pub log: PathBuf,
    /// Where it writes its counters.
    pub stats_file: Option<PathBuf>,
    /// What becomes of it without us.
    pub on_parent_death: OnParentDeath,
}

/// A running node.
pub struct ChildNode {
    /// Its number.
    pub id: NodeId,
    /// Where its messages go.
    pub log: PathBuf,
    /// How long the log was when the process started: what earlier ones said is not its word.
    log_begins: u64,
    child: Child,
    pid: u32,
    ready: watch::Receiver<bool>,
    _listening: Owned<()>,
}

/// This program, to be run again with other arguments.
pub fn this_program() -> Result<PathBuf, Stop> {
    std::env::current_exe()
        .map_err(|error| Stop::failed(format!("cannot find the program that runs: {error}.")))
}

/// Ties a child to its parent.
pub fn die_with_parent(command: &mut Command, on_parent_death: OnParentDeath) {
    let signal = match on_parent_death {
        OnParentDeath::Stop => libc::SIGTERM,
        OnParentDeath::Kill => libc::SIGKILL,
    };
    let parent = std::process::id();
    // SAFETY: between fork and exec only these system calls are made, both async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::ErrorKind::NotConnected.into());
            }
            Ok(())
        });
    }
}

impl ChildNode {
    /// The last lines that this process has logged.
    pub fn last_words(&self) -> String {
        log_tail(&self.log, self.log_begins)
    }

    /// Starts a node.
    pub fn start(how: &NodeCommand) -> Result<Self, Stop> {
        let cannot =
            |error: io::Error| Stop::failed(format!("cannot start node {}: {error}.", how.id));
        let log = fs::OpenOptions::new().create(true).append(true).open(&how.log);
        let log = log.map_err(|error| {
            Stop::failed(format!("cannot open the log {}: {error}.", how.log.display()))
        })?;
        let log_begins = log.metadata().map_or(0, |log| log.len());
        let mut command = Command::new(this_program()?);
        command.arg("node").arg("--config").arg(&how.config);
        command.arg("--id").arg(how.id.to_string());
        if let Some(stats_file) = &how.stats_file {
            command.arg("--stats-file").arg(stats_file);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.process_group(0).kill_on_drop(true);
        die_with_parent(&mut command, how.on_parent_death);
        let mut child = command.spawn().map_err(cannot)?;
        let pid = child.id().ok_or_else(|| Stop::failed("a child ended before it began."))?;
        let (said, ready) = watch::channel(false);
        let listening = task::spawn_owned(listen(child.stdout.take(), said));
        let (id, log) = (how.id, how.log.clone());
        Ok(Self { id, log, log_begins, child, pid, ready, _listening: listening })
    }

    /// Whether it has bound its addresses and serves clients: then it, and nobody else, is who
    /// answers there.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it with SIGKILL and waits until it is dead.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let pid = libc::pid_t::try_from(self.pid).map_err(io::Error::other)?;
        // SAFETY: no memory is involved, and a child that was not waited for keeps its id.
        match unsafe { libc::kill(pid, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Asks it to stop, and kills it if it has not stopped in time. Returns how it ended.
    pub async fn stop(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(libc::SIGTERM)?;
        match time::timeout(timeout, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await
            }
        }
    }
}

/// Waits for the line with which a node says that it serves.
async fn listen(stdout: Option<ChildStdout>, said: watch::Sender<bool>) {
    let Some(stdout) = stdout else { return };
    let mut lines = BufReader::new(stdout).lines();
    // It says nothing else, but whatever it writes must be taken from it.
    while let Ok(Some(_)) = lines.next_line().await {
        said.send_replace(true);
    }
}

/// The last lines of a log, for a message. Nothing before `begins` is shown.
fn log_tail(path: &Path, begins: u64) -> String {
    let read = || {
        let mut file = fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_TAIL_BYTES).max(begins)))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&tail).into_owned())
    };
    let tail = read().unwrap_or_default();
    let lines = tail.lines().rev().take(5).collect::<Vec<_>>();
    lines.into_iter().rev().map(|line| format!("    {line}\n")).collect()
}

//! The exit codes of the binaries, one table for both (docs/RUNBOOK.md explains what to do).
//!
//! Invariant: a code never changes its meaning, because supervisors and CI decide on it.

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for was done.
    Ok = 0,
    /// The command ran, and what it was to verify does not hold.
    Failed = 1,
    /// Wrong usage, a bad configuration or a bad scenario file: nothing was started.
    Usage = 2,

    /// Simulator: a safety property was violated.
    Safety = 11,
    /// Simulator: no progress or no convergence within the declared time.
    Liveness = 12,
    /// Simulator: the same seed gave two different runs.
    Nondeterminism = 13,
    /// Simulator: the harness itself failed.
    Harness = 14,
    /// Simulator: a probe that had to be hit was not.
    ProbeMissed = 15,

    /// Node: the disk returned an error on a write or a flush. Never retried: what the page cache
    /// holds after a failed flush is unknown.
    DiskWrite = 40,
    /// Node: the disk returned an error on a read.
    DiskRead = 41,
    /// Node: stored bytes are damaged where they may have been acknowledged. Nothing was deleted.
    Damaged = 42,
    /// Node: the directory does not belong to this node, or it is empty and the site is not.
    Identity = 43,
    /// Node: an entry that this version does not know was committed. Upgrade this node.
    UnknownEntry = 44,
    /// Node: the consensus core stopped.
    CoreDead = 45,
    /// Node: the directory is in use by another process.
    Locked = 46,
    /// Node: an address could not be bound.
    Bind = 47,
    /// Node: the state of this node differs from the state that the log implies, or a snapshot from
    /// the state that it was taken of.
    Diverged = 48,
    /// Node: the disk is full where a write could not wait. Space is taken ahead of need, so this is
    /// met only at the first start, or where somebody takes space that was promised.
    DiskFull = 49,

    /// A bug: an assertion failed.
    Crash = 127,
}

impl ExitCode {
    /// Every code.
    pub const ALL: [Self; 19] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Safety,
        Self::Liveness,
        Self::Nondeterminism,
        Self::Harness,
        Self::ProbeMissed,
        Self::DiskWrite,
        Self::DiskRead,
        Self::Damaged,
        Self::Identity,
        Self::UnknownEntry,
        Self::CoreDead,
        Self::Locked,
        Self::Bind,
        Self::Diverged,
        Self::DiskFull,
        Self::Crash,
    ];

    /// Whether only the simulator ends with it.
    pub const fn is_of_simulator(self) -> bool {
        matches!(
            self,
            Self::Safety
                | Self::Liveness
                | Self::Nondeterminism
                | Self::Harness
                | Self::ProbeMissed
        )
    }

    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

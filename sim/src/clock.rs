//! The wall clocks of the machines: wrong by an offset, by a drift, or after a step.
//!
//! Monotonic time is the same for all; only what a machine believes about the date differs.
//!
//! Invariant: the true time of a simulation begins at [`EPOCH_MS`], whatever the seed, so that a
//! trace shows no date of its making.

use fulmar_host::clock::Clock;
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The true time at the beginning of every simulation: 2030-01-01T00:00:00Z, in milliseconds.
pub const EPOCH_MS: u64 = 1_893_456_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Wrong {
    /// What the clock was ahead when the drift began.
    offset_ns: i128,
    drift_ppm: i32,
    since_ns: u64,
}

impl Wrong {
    fn ahead_ns(&self, now_ns: u64) -> i128 {
        let passed = i128::from(now_ns.saturating_sub(self.since_ns));
        self.offset_ns + passed * i128::from(self.drift_ppm) / 1_000_000
    }
}

struct Shared {
    time: TimeHandle,
    clocks: Mutex<BTreeMap<NodeId, Wrong>>,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.time.elapsed().as_nanos()).expect("a run of less than 500 years")
    }

    fn change(&self, machine: NodeId, change: impl FnOnce(&mut Wrong)) {
        let now_ns = self.now_ns();
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = clocks.entry(machine).or_default();
        *wrong = Wrong { offset_ns: wrong.ahead_ns(now_ns), since_ns: now_ns, ..*wrong };
        change(wrong);
    }

    fn wall_ms(&self, machine: NodeId) -> u64 {
        let now_ns = self.now_ns();
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead_ns = clocks.get(&machine).map_or(0, |wrong| wrong.ahead_ns(now_ns));
        let wall_ns = i128::from(EPOCH_MS) * 1_000_000 + i128::from(now_ns) + ahead_ns;
        u64::try_from(wall_ns.div_euclid(1_000_000)).unwrap_or(0)
    }
}

/// The wall clocks of all machines.
#[derive(Clone)]
pub struct Clocks {
    shared: Arc<Shared>,
}

impl Clocks {
    /// Clocks that are right. To be made inside the simulation.
    pub fn new() -> Self {
        let clocks = Mutex::default();
        Self { shared: Arc::new(Shared { time: TimeHandle::current(), clocks }) }
    }

    /// The true time, in milliseconds since 1970.
    pub fn true_ms(&self) -> u64 {
        EPOCH_MS + self.shared.now_ns() / 1_000_000
    }

    /// Sets what a clock is ahead of the true time, in milliseconds; negative is behind.
    pub fn set_offset_ms(&self, machine: NodeId, offset_ms: i64) {
        let offset_ns = i128::from(offset_ms) * 1_000_000;
        self.shared.change(machine, |wrong| wrong.offset_ns = offset_ns);
    }

    /// Lets a clock jump, in milliseconds; negative is backwards.
    pub fn step_ms(&self, machine: NodeId, by_ms: i64) {
        self.shared.change(machine, |wrong| wrong.offset_ns += i128::from(by_ms) * 1_000_000);
    }

    /// Sets by how much a clock runs fast, in millionths; negative is slow.
    pub fn set_drift_ppm(&self, machine: NodeId, drift_ppm: i32) {
        self.shared.change(machine, |wrong| wrong.drift_ppm = drift_ppm);
    }

    /// The clock of a machine.
    pub fn clock(&self, machine: NodeId) -> SimClock {
        SimClock { shared: Arc::clone(&self.shared), machine }
    }
}

impl Default for Clocks {
    fn default() -> Self {
        Self::new()
    }
}

/// The wall clock of one machine. It goes on when the process ends.
#[derive(Clone)]
pub struct SimClock {
    shared: Arc<Shared>,
    machine: NodeId,
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        self.shared.wall_ms(self.machine)
    }
}

//! Whether a bug is planted. Outside a simulator build the answer is the constant `false`, so a
//! release build of the node cannot even be told to misbehave.

use fulmar_types::Plant;

#[cfg(madsim)]
static PLANTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Whether this bug is planted.
#[cfg(madsim)]
pub fn planted(plant: Plant) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) & (1 << plant as u64) != 0
}

/// Whether this bug is planted: never in this build.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn planted(_: Plant) -> bool {
    false
}

/// Plants a bug for the rest of the process.
#[cfg(madsim)]
pub fn plant(plant: Plant) {
    PLANTED.fetch_or(1 << plant as u64, std::sync::atomic::Ordering::Relaxed);
}

/// Removes every planted bug.
#[cfg(madsim)]
pub fn clear_plants() {
    PLANTED.store(0, std::sync::atomic::Ordering::Relaxed);
}

//! Whether a bug is planted. Outside a simulator build the answer is the constant `false`, so a
//! release build of the node cannot even be told to misbehave.

use fulmar_types::Plant;
#[cfg(madsim)]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(madsim)]
static PLANTED: [AtomicBool; Plant::ALL.len()] =
    [const { AtomicBool::new(false) }; Plant::ALL.len()];

/// Whether this bug is planted.
#[cfg(madsim)]
pub fn planted(plant: Plant) -> bool {
    PLANTED[plant as usize].load(Ordering::Relaxed)
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
    PLANTED[plant as usize].store(true, Ordering::Relaxed);
}

/// Removes every planted bug.
#[cfg(madsim)]
pub fn clear_plants() {
    PLANTED.iter().for_each(|planted| planted.store(false, Ordering::Relaxed));
}

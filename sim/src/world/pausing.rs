//! How whoever does one thing after another waits between them.
//!
//! Invariant: nobody is waited for longer than a step once it is time to stop.

use std::time::Duration;

/// How soon what has failed is tried again, and how often it is looked whether it is time to stop.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// Waits so long, or until it is time to stop.
pub(super) async fn pause(all: Duration, stopped: &impl Fn() -> bool) {
    let mut left = all;
    while !left.is_zero() && !stopped() {
        let step = left.min(STEP);
        madsim::time::sleep(step).await;
        left -= step;
    }
}

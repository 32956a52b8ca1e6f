//! The end of a lease, and what it takes along.
//!
//! A leader that its site cannot reach any more does not hear when a rule is taken back there, and the site waits
//! for nobody but the lease. What it has written to a connection by then leaves bit by bit, as the line takes it:
//!
//! ```text
//! this node    writes ...... [lies in the buffers of its connections, leaves when the line takes it]
//! lease        ---------------------| runs out: what has not left does not
//! its site                            elects ---- takes a rule back, answers
//! ```
//!
//! Invariant: nothing of a record leaves after the lease under which it was written, as long as this process runs.
//!
//! Never: wait for a new lease while records are under way.

use crate::session::{Ended, Parts};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::Plant;

/// How long before the lease ends: timers come late, and a connection takes a moment to end.
const EARLY: Duration = Duration::from_millis(10);

/// How often somebody looks while there is no lease.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Parts {
    /// Whether this node leads, and the others of its site have granted that nobody else does.
    pub(crate) fn holds_lease(&self) -> bool {
        self.lease_until().is_some() || fulmar_host::planted(Plant::LinkWithoutLease)
    }

    /// Until when, with some time to spare.
    fn lease_until(&self) -> Option<Instant> {
        let until = self.context.broker.group().lease_until()?.checked_sub(EARLY)?;
        (time::now() < until).then_some(until)
    }
}

/// Waits until the lease is over while records are under way.
pub(crate) async fn wait(parts: &Parts) -> Ended {
    let is_heeded = !fulmar_host::planted(Plant::LinkWithoutLease)
        && !fulmar_host::planted(Plant::LapseUnheeded);
    loop {
        match parts.lease_until() {
            Some(until) => time::sleep_until(until).await,
            None if is_heeded && parts.outbox.has_records_underway() => {
                return Ended::Deposed;
            }
            None => time::sleep(LOOK_EVERY).await,
        }
    }
}

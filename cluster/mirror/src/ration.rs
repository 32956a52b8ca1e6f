//! How often the other site of a link may bring about an entry of this site's log that carries nothing: each is
//! flushed to the disks of all nodes, whoever else waits for them.
//!
//! Invariant: some at once, as a line that flaps needs them or a site whose settings change together, and then one
//! in each interval; each link by itself, and over all its sessions.
//!
//! Never: refuse anything for it. Whoever is too fast waits.

use crate::locked;
use fulmar_host::time::{self, Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What is rationed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rationed {
    /// Sessions that the other side begins: each is given a bond.
    Session,
    /// That this site was put back, as the other side says each time anew.
    Notice,
    /// What an offer changes of copies that there are, or would make and may not.
    Change,
}

impl Rationed {
    /// How many at once, and the interval after that.
    const fn bounds(self) -> (u32, Duration) {
        match self {
            Self::Session => (16, Duration::from_millis(500)),
            Self::Notice => (4, Duration::from_secs(30)),
            Self::Change => (256, Duration::from_millis(125)),
        }
    }
}

/// What is left to each link.
#[derive(Default)]
pub(crate) struct Rations(Mutex<BTreeMap<(Rationed, String), Instant>>);

impl Rations {
    /// Takes one for a link.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub(crate) fn take(&self, what: Rationed, link: &str, now: Instant) -> Result<(), Duration> {
        let (at_once, interval) = what.bounds();
        let mut links = locked(&self.0);
        // When all that may go at once is there again.
        let full = links.entry((what, link.to_owned())).or_insert(now);
        let used = (*full).max(now) + interval;
        let over = used.saturating_duration_since(now).checked_sub(interval * at_once);
        match over.filter(|over| !over.is_zero()) {
            Some(over) => Err(over),
            None => {
                *full = used;
                Ok(())
            }
        }
    }

    /// Waits until there is one for a link, and takes it.
    pub(crate) async fn wait(&self, what: Rationed, link: &str) {
        while let Err(pause) = self.take(what, link, time::now()) {
            time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_go_at_once_and_then_one_in_each_interval() {
        let (rations, begun) = (Rations::default(), time::now());
        for what in [Rationed::Session, Rationed::Notice, Rationed::Change] {
            let (at_once, interval) = what.bounds();
            let taken = |now| rations.take(what, "plant", now).is_ok();
            assert_eq!((0..1_000).filter(|_| taken(begun)).count(), at_once as usize);
            assert_eq!(rations.take(what, "plant", begun), Err(interval));
            assert_eq!((0..1_000).filter(|_| taken(begun + interval)).count(), 1);
            let later = begun + interval * 4;
            assert_eq!((0..1_000).filter(|_| taken(later)).count(), 3);
            assert!(rations.take(what, "other", begun).is_ok(), "each link by itself");
            let rested = later + interval * 2 * at_once;
            assert_eq!((0..1_000).filter(|_| taken(rested)).count(), at_once as usize);
        }
    }
}

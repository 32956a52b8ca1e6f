//! What becomes of the links of a node: said by whoever carries them, asked by whoever wants to know.
//!
//! Invariant: everything in here is of this process and of the term in which it leads; what has to
//! outlive it stands in the log.

use fulmar_host::time::Instant;
use fulmar_types::{Offset, PartitionIndex, TopicId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Over how many seconds a rate is taken.
const RATE_SECONDS: usize = 10;

/// The state of a link, and the kind of its trouble, whose site was put back to an older copy of itself: it waits for
/// somebody.
pub const PUT_BACK: &str = "put-back";

/// Bytes that have passed, and how many of them each second lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// All of them.
    pub bytes: u64,
    /// The second of the process in which something passed last, counted from `begun`.
    second: u64,
    begun: Option<Instant>,
    /// What passed in that second and those before it, by the second modulo their number.
    lately: [u64; RATE_SECONDS],
}

impl Passed {
    /// Some more have passed.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.turn(now);
        self.bytes += bytes;
        self.lately[self.second as usize % RATE_SECONDS] += bytes;
    }

    /// Bytes per second over the last ten seconds, or over as many as there were.
    pub fn per_second(mut self, now: Instant) -> u64 {
        let Some(begun) = self.begun else { return 0 };
        self.turn(now);
        let lived = now.saturating_duration_since(begun).as_secs().clamp(1, RATE_SECONDS as u64);
        self.lately.iter().sum::<u64>() / lived
    }

    /// Forgets what passed too long ago.
    fn turn(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let second = now.saturating_duration_since(begun).as_secs();
        for passed in (self.second + 1..=second).take(RATE_SECONDS) {
            self.lately[passed as usize % RATE_SECONDS] = 0;
        }
        self.second = second.max(self.second);
    }
}

/// A link as the node that carries it sees it.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Since when records can pass, if they can.
    pub up_since: Option<Instant>,
    /// When the other site is dialled again, if nobody is dialling now.
    pub next_attempt: Option<Instant>,
    /// What went wrong last, and when.
    pub trouble: Option<(String, Instant)>,
    /// Its kind: one of a few names.
    pub trouble_kind: &'static str,
    /// Bytes of records that went out since the node leads.
    pub sent: Passed,
    /// Bytes of the frames that held them.
    pub line_bytes: u64,
    /// Bytes of records that came in.
    pub received: Passed,
    /// Sessions that there were since the node leads.
    pub sessions: u64,
    /// Partitions of the other site, by the name of the topic there, of which nothing more is taken in
    /// this session, and why.
    pub stopped: BTreeMap<(String, PartitionIndex), &'static str>,
    /// Topics that the other site offers and this one does not take, and why.
    pub declines: BTreeMap<String, &'static str>,
    /// The offset that the other site waits for in partitions of this one, and when it said so. What is
    /// noted in the log is a few seconds older.
    pub has: BTreeMap<(TopicId, PartitionIndex), (Offset, Instant)>,
}

/// The links of a node, by name.
#[derive(Debug, Default)]
pub struct LinkStates(Mutex<BTreeMap<String, LinkState>>);

impl LinkStates {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, LinkState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has become of a link.
    pub fn note(&self, link: &str, change: impl FnOnce(&mut LinkState)) {
        let mut links = self.locked();
        match links.get_mut(link) {
            // Noted with every batch.
            Some(known) => change(known),
            None => change(links.entry(link.to_owned()).or_default()),
        }
    }

    /// What has become of a link.
    pub fn of(&self, link: &str) -> LinkState {
        self.locked().get(link).cloned().unwrap_or_default()
    }

    /// Forgets every link but those that are wanted.
    pub fn keep(&self, is_wanted: impl Fn(&str) -> bool) {
        self.locked().retain(|link, _| is_wanted(link));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_host::time::{self, Duration};

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let begun = time::now();
        let at = |s: u64| begun + Duration::from_secs(s);
        let mut passed = Passed::default();
        assert_eq!(passed.per_second(at(0)), 0);
        passed.add(500, at(0));
        assert_eq!(passed.per_second(at(0)), 500, "less than a second counts as one");
        passed.add(500, at(3));
        assert_eq!(passed.per_second(at(4)), 250);
        passed.add(1_000, at(12));
        assert_eq!(passed.per_second(at(12)), 150, "what passed at first is too long ago");
        assert_eq!(passed.per_second(at(30)), 0);
        assert_eq!(passed.bytes, 2_000);
    }
}

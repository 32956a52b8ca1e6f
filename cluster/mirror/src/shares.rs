//! Which of those that wait goes next, by their priority.
//!
//! Invariants: the most urgent of those that wait goes first, but for what the others are owed: for
//! every [`PART`] bytes that pass while something less urgent waits, that is owed one. So whoever
//! waits keeps a ninth of what he shares at least, and what is urgent waits for no more than
//! [`TURN_BYTES`] of each of the others.

use fulmar_types::link::Priority;

/// How many bytes may pass by for each that is owed.
const PART: i64 = 8;

/// What is owed is paid in turns of so many bytes.
const TURN_BYTES: i64 = 16 << 10;

/// For each priority, whether something waits.
pub(crate) type Waits = [bool; Priority::ALL.len()];

/// Who is owed what.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// In bytes; below zero for who had more than his part.
    owed: [i64; Priority::ALL.len()],
}

impl Shares {
    fn is_due(&self, lane: Priority) -> bool {
        self.owed[lane.rank()] >= TURN_BYTES
    }

    /// Who goes next of those that wait.
    pub(crate) fn next(&self, waits: Waits) -> Option<Priority> {
        let waiting = || Priority::ALL.into_iter().filter(|lane| waits[lane.rank()]);
        waiting().find(|lane| self.is_due(*lane)).or_else(|| waiting().next())
    }

    /// Bytes of one have passed, while others waited.
    pub(crate) fn spent(&mut self, lane: Priority, bytes: u64, waits: Waits) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        if self.is_due(lane) {
            self.owed[lane.rank()] -= bytes;
            return;
        }
        for other in Priority::ALL.into_iter().filter(|other| *other > lane) {
            let owed = &mut self.owed[other.rank()];
            // Who does not wait is owed nothing.
            *owed = if waits[other.rank()] { *owed + bytes / PART } else { (*owed).min(0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each gets of so many turns if all of some priorities wait all the time, and the longest
    /// that the first has waited.
    fn shared(waits: Waits, bytes: u64, turns: u64) -> ([u64; 3], i64) {
        let (mut shares, mut got) = (Shares::default(), [0; 3]);
        let (mut waited, mut longest) = (0, 0);
        for _ in 0..turns {
            let lane = shares.next(waits).expect("somebody waits");
            got[lane.rank()] += bytes;
            shares.spent(lane, bytes, waits);
            waited = if lane == Priority::Urgent { 0 } else { waited + bytes as i64 };
            longest = longest.max(waited);
        }
        (got, longest)
    }

    #[test]
    fn the_urgent_go_first_and_the_others_keep_their_part() {
        for bytes in [500, 4_000, 60_000] {
            let (got, longest) = shared([true, true, true], bytes, 10_000);
            let all: u64 = got.iter().sum();
            let part = |lane: Priority| got[lane.rank()] * 100 / all;
            assert!((75..82).contains(&part(Priority::Urgent)), "{got:?}");
            assert!((9..12).contains(&part(Priority::Normal)), "{got:?}");
            assert!((9..14).contains(&part(Priority::Bulk)), "{got:?}");
            assert!(longest <= 2 * (TURN_BYTES + bytes as i64), "{longest}");
        }
        let (got, _) = shared([false, true, true], 1_000, 9_000);
        assert!((7_900_000..8_100_000).contains(&got[1]), "{got:?}");
    }

    #[test]
    fn who_is_alone_has_everything_and_nothing_is_owed_to_the_absent() {
        let mut shares = Shares::default();
        assert_eq!(shares.next([false; 3]), None);
        let alone = [true, false, false];
        for _ in 0..1_000 {
            assert_eq!(shares.next(alone), Some(Priority::Urgent));
            shares.spent(Priority::Urgent, 60_000, alone);
        }
        assert_eq!(shares.next([true, true, true]), Some(Priority::Urgent));
    }
}

//! What crossed a trunk, in one direction: counted, not kept.
//!
//! | count | what | where |
//! |---|---|---|
//! | given | bytes that nodes gave to connections with each other on the metered port | when a socket takes them |
//! | delivered | bytes that came out at the other end, in order | when a reader may have them |
//!
//! Invariants: counting changes nothing; what was given is remembered for a second, in which a line, or the cap of
//! a link, lets only so many writes pass.

use std::collections::VecDeque;

const SECOND_NS: u64 = 1_000_000_000;

/// What crossed a trunk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// The most bytes that were given to metered connections within a second.
    pub given_per_s_max: u64,
    /// When such a second ended, in nanoseconds.
    pub given_per_s_max_at_ns: u64,
    /// Bytes that came out at the other end.
    pub delivered_bytes: u64,
    /// How often a way over it was cut or healed.
    pub cut_changes: u64,
}

/// The count of one trunk.
#[derive(Debug, Default)]
pub struct Meter {
    pub crossed: Crossed,
    /// What was given in the last second, and when.
    recent: VecDeque<(u64, u64)>,
    recent_bytes: u64,
}

impl Meter {
    /// A writer gave bytes to a connection.
    pub fn given(&mut self, now_ns: u64, bytes: u64) {
        while let Some((at_ns, old_bytes)) = self.recent.front().copied()
            && now_ns - at_ns >= SECOND_NS
        {
            self.recent_bytes -= old_bytes;
            self.recent.pop_front();
        }
        self.recent.push_back((now_ns, bytes));
        self.recent_bytes += bytes;
        let crossed = &mut self.crossed;
        if self.recent_bytes > crossed.given_per_s_max {
            crossed.given_per_s_max = self.recent_bytes;
            crossed.given_per_s_max_at_ns = now_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_worst_second_is_found_wherever_it_begins() {
        let mut meter = Meter::default();
        // 100 bytes each 100 ms, and 500 more at 2.75 s: 10 * 100 + 500 in the second around it.
        for at_ms in (0..5_000).step_by(50) {
            match at_ms {
                2_750 => meter.given(at_ms * MS, 500),
                _ if at_ms % 100 == 0 => meter.given(at_ms * MS, 100),
                _ => {}
            }
        }
        assert_eq!(meter.crossed.given_per_s_max, 1_500);
        assert_eq!(meter.crossed.given_per_s_max_at_ns, 2_750 * MS);
        assert_eq!(meter.recent.len(), 10, "no more than the last second");
    }

    #[test]
    fn a_second_ends_before_the_nanosecond_that_makes_it_longer() {
        let worst = |sent: &[(u64, u64)]| {
            let mut meter = Meter::default();
            sent.iter().for_each(|(at_ns, bytes)| meter.given(*at_ns, *bytes));
            (meter.crossed.given_per_s_max, meter.crossed.given_per_s_max_at_ns)
        };
        assert_eq!(worst(&[(0, 50), (600 * MS, 50), (1_000 * MS, 50)]), (100, 600 * MS));
        let sent = [(0, 50), (600 * MS, 50), (1_000 * MS, 50), (1_600 * MS - 1, 1)];
        assert_eq!(worst(&sent), (101, 1_600 * MS - 1));
    }
}

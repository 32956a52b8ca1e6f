//! What crossed a trunk, in one direction: counted, not kept.
//!
//! | count | what | where |
//! |---|---|---|
//! | given | bytes that writers gave to connections | when a socket takes them |
//! | carried | packets with their headers, those included that are sent again | when they leave the transmitter |
//! | delivered | bytes that came out at the other end, in order | when a reader may have them |
//!
//! Invariants: counting changes nothing; of the last second is remembered what was given in each
//! millisecond, so at most a thousand numbers.

use std::collections::VecDeque;

const SECOND_MS: u64 = 1_000;

/// What crossed a trunk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// Bytes that writers gave to connections.
    pub given_bytes: u64,
    /// The most that they gave within a second.
    pub given_per_s_max: u64,
    /// When such a second ended, in nanoseconds.
    pub given_per_s_max_at_ns: u64,
    /// Bytes of packets that left, with their headers; 0 where there is no line.
    pub carried_bytes: u64,
    /// Bytes that came out at the other end.
    pub delivered_bytes: u64,
    /// How often a way over it was cut or healed.
    pub cut_changes: u64,
}

/// The count of one trunk.
#[derive(Debug, Default)]
pub struct Meter {
    pub crossed: Crossed,
    /// What was given lately, by the millisecond.
    recent: VecDeque<(u64, u64)>,
    recent_bytes: u64,
}

impl Meter {
    /// A writer gave bytes to a connection.
    pub fn given(&mut self, now_ns: u64, bytes: u64) {
        let now_ms = now_ns / 1_000_000;
        while let Some((at_ms, old_bytes)) = self.recent.front().copied()
            && at_ms + SECOND_MS <= now_ms
        {
            self.recent_bytes -= old_bytes;
            self.recent.pop_front();
        }
        match self.recent.back_mut() {
            Some((at_ms, known)) if *at_ms == now_ms => *known += bytes,
            _ => self.recent.push_back((now_ms, bytes)),
        }
        self.recent_bytes += bytes;
        let crossed = &mut self.crossed;
        crossed.given_bytes += bytes;
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
        assert_eq!(meter.crossed.given_bytes, 5_500);
        assert_eq!(meter.crossed.given_per_s_max, 1_500);
        assert_eq!(meter.crossed.given_per_s_max_at_ns, 2_750 * MS);
        assert_eq!(meter.recent.len(), 10, "no more than the last second");
    }

    #[test]
    fn a_thousand_numbers_are_enough() {
        let mut meter = Meter::default();
        for at_us in (0..5_000_000).step_by(100) {
            meter.given(at_us * 1_000, 1);
        }
        assert_eq!(meter.recent.len(), 1_000);
        assert_eq!(meter.crossed.given_per_s_max, 10_000);
    }
}

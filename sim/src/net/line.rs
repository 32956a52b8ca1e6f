//! A line between two sites: a transmitter that takes its time for every bit, behind a queue that
//! drops what it has no room for (drop-tail, RFC 7567 section 1).
//!
//! ```text
//! packets of all machines of a site ──► queue ──► transmitter ──► latency ──► loss ──► the other site
//!                                         │ full
//!                                         └──► dropped
//! ```
//!
//! Invariant: in any time no more bits leave a line than its rate allows.

/// Which line: what crosses links with the same number goes through one transmitter.
pub type Trunk = u32;

/// How much a line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bits per second, headers included; more than 0.
    pub bits_per_s: u64,
    /// How long what is at the end of the full queue waits, in nanoseconds.
    pub queue_ns: u64,
}

impl Line {
    /// How long the transmitter is busy with so many bytes.
    pub fn busy_ns(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_s.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// The transmitter of a line, and what waits for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transmitter {
    free_at_ns: u64,
}

impl Transmitter {
    /// Takes a packet. When its last bit has left; `None` if the queue has no room for it.
    pub fn take(&mut self, now_ns: u64, line: &Line, bytes: u64) -> Option<u64> {
        let begins_ns = self.free_at_ns.max(now_ns);
        if begins_ns - now_ns > line.queue_ns {
            return None;
        }
        self.free_at_ns = begins_ns.saturating_add(line.busy_ns(bytes));
        Some(self.free_at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_line_takes_its_time_and_drops_what_does_not_fit() {
        // 1,500 bytes take 6 ms, and four packets wait for at most 24 ms.
        let line = Line { bits_per_s: 2_000_000, queue_ns: 24 * MS };
        let mut transmitter = Transmitter::default();
        let left: Vec<Option<u64>> = (0..6).map(|_| transmitter.take(MS, &line, 1_500)).collect();
        let at = |ms: u64| Some(ms * MS);
        assert_eq!(left, [at(7), at(13), at(19), at(25), at(31), None]);
        assert_eq!(transmitter.take(7 * MS, &line, 1_500), at(37), "one has left");
        assert_eq!(transmitter.take(900 * MS, &line, 1_500), at(906), "it was idle");
    }
}

//! How long something takes: evenly spread between two durations.

use crate::prng::Prng;
use std::time::Duration;

/// Durations between two ends, both included, each nanosecond equally likely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    low_ns: u64,
    high_ns: u64,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Spread {
    /// From `low` to `high`; the larger one is the high end, whichever it is.
    pub fn new(low: Duration, high: Duration) -> Self {
        let (low_ns, high_ns) = (nanoseconds(low), nanoseconds(high));
        Self { low_ns: low_ns.min(high_ns), high_ns: low_ns.max(high_ns) }
    }

    /// From so many microseconds to so many.
    pub const fn from_micros(low_us: u64, high_us: u64) -> Self {
        assert!(low_us <= high_us, "a spread runs upwards");
        Self { low_ns: low_us * 1_000, high_ns: high_us * 1_000 }
    }

    /// The same spread, later by a duration.
    pub fn longer_by(self, by: Duration) -> Self {
        let by_ns = nanoseconds(by);
        Self {
            low_ns: self.low_ns.saturating_add(by_ns),
            high_ns: self.high_ns.saturating_add(by_ns),
        }
    }

    /// One of the durations, in nanoseconds.
    pub fn draw_ns(&self, prng: &mut Prng) -> u64 {
        prng.between(self.low_ns, self.high_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_lies_between_the_ends() {
        let mut prng = Prng::new(1, "spread");
        let spread = Spread::new(Duration::from_nanos(9), Duration::from_nanos(7));
        let mut seen = [false; 3];
        for _ in 0..100 {
            seen[usize::try_from(spread.draw_ns(&mut prng) - 7).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(Spread::from_micros(5, 5).draw_ns(&mut prng), 5_000);
    }
}

//! One directed link between two machines: how long a segment takes, and what happens when it is
//! lost.
//!
//! A link with a [`Line`] carries packets, which are lost for good: whoever sent them sees to it
//! (`flow.rs`). Without one there is no limit to what it carries, and the network itself sends again what
//! is lost.

use super::line::{Line, Trunk};
use crate::prng::Prng;
use crate::spread::Spread;

/// A directed link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The time that a segment takes.
    pub latency: Spread,
    /// How likely a segment takes longer than that, in millionths.
    pub tail_ppm: u32,
    /// How much longer it takes then.
    pub tail: Spread,
    /// How likely a segment is lost, in millionths. It is sent again, and all behind it wait.
    pub loss_ppm: u32,
    /// How long after it was sent a lost segment is sent again. Doubles with every further loss
    /// of the same segment (RFC 6298, section 5.5).
    pub retransmit: Spread,
    /// The line that it is, among others: links with the same number share its transmitter, and are
    /// counted together.
    pub trunk: Option<Trunk>,
    /// How much that carries, if there is a limit; it needs a number then.
    pub line: Option<Line>,
}

impl Default for Link {
    /// A local network: half a millisecond, nothing lost.
    fn default() -> Self {
        Self {
            latency: Spread::from_micros(200, 800),
            tail_ppm: 0,
            tail: Spread::default(),
            loss_ppm: 0,
            retransmit: Spread::from_micros(200_000, 300_000),
            trunk: None,
            line: None,
        }
    }
}

/// The longest pause between two retransmissions (`TCP_RTO_MAX` in Linux).
const RETRANSMIT_MAX_NS: u64 = 120_000_000_000;

/// Losses in a row that one segment can meet on a link that is not cut.
const LOSSES_MAX: u32 = 8;

/// How a segment crosses a link.
pub struct Crossing {
    /// How long until it arrives.
    pub delay_ns: u64,
    /// How long until the transmission leaves that arrives.
    pub wait_ns: u64,
    /// Whether it was lost at least once on the way, and thus sent again.
    pub resent: bool,
}

impl Link {
    /// The link of a machine to itself: fast, and never cut.
    pub const LOOPBACK: Self = Self {
        latency: Spread::from_micros(5, 30),
        tail_ppm: 0,
        tail: Spread::from_micros(0, 0),
        loss_ppm: 0,
        retransmit: Spread::from_micros(200_000, 200_000),
        trunk: None,
        line: None,
    };

    /// The time that a segment takes if it is not lost.
    pub fn transit_ns(&self, prng: &mut Prng) -> u64 {
        let latency_ns = self.latency.draw_ns(prng);
        if prng.chance(self.tail_ppm) {
            return latency_ns.saturating_add(self.tail.draw_ns(prng));
        }
        latency_ns
    }

    /// The way of one segment.
    pub fn cross(&self, prng: &mut Prng) -> Crossing {
        let transit_ns = self.transit_ns(prng);
        let (mut wait_ns, mut losses) = (0u64, 0);
        while losses < LOSSES_MAX && prng.chance(self.loss_ppm) {
            let pause_ns = self.retransmit.draw_ns(prng).saturating_mul(1 << losses);
            wait_ns = wait_ns.saturating_add(pause_ns.min(RETRANSMIT_MAX_NS));
            losses += 1;
        }
        Crossing { delay_ns: transit_ns.saturating_add(wait_ns), wait_ns, resent: losses > 0 }
    }

    /// When a segment that was first lost at `lost_ns` is sent again after `healed_ns`. The sender
    /// does not know that the way is free; it tries at growing intervals.
    pub fn resend_at_ns(&self, prng: &mut Prng, lost_ns: u64, healed_ns: u64) -> u64 {
        let mut pause_ns = self.retransmit.draw_ns(prng).max(1_000_000);
        let mut at_ns = lost_ns.saturating_add(pause_ns);
        while at_ns < healed_ns {
            pause_ns = pause_ns.saturating_mul(2).min(RETRANSMIT_MAX_NS);
            at_ns = at_ns.saturating_add(pause_ns);
        }
        at_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_retransmission_backs_off_and_comes_after_the_healing() {
        let mut prng = Prng::new(1, "link");
        let link = Link { retransmit: Spread::from_micros(200_000, 200_000), ..Link::default() };
        // Tries at 200, 600, 1400 and 3000 ms.
        for (healed_ms, at_ms) in [(0, 200), (200, 200), (201, 600), (1_500, 3_000)] {
            assert_eq!(link.resend_at_ns(&mut prng, 0, healed_ms * MS), at_ms * MS);
        }
    }

    #[test]
    fn losses_cost_retransmission_pauses() {
        let mut prng = Prng::new(1, "link");
        let link = Link { loss_ppm: 100_000, ..Link::default() };
        let crossings: Vec<Crossing> = (0..10_000).map(|_| link.cross(&mut prng)).collect();
        let resent = crossings.iter().filter(|crossing| crossing.resent).count();
        assert!((900..1_100).contains(&resent), "{resent}");
        assert!(crossings.iter().all(|c| (c.delay_ns >= 200 * MS) == c.resent));
    }

    #[test]
    fn the_tail_is_rare_and_long() {
        let mut prng = Prng::new(1, "link");
        let tail = Spread::from_micros(50_000, 60_000);
        let link = Link { tail_ppm: 10_000, tail, ..Link::default() };
        let long = (0..10_000).filter(|_| link.transit_ns(&mut prng) >= 50 * MS).count();
        assert!((60..140).contains(&long), "{long}");
    }
}

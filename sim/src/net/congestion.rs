//! How much a connection may have on its way: the congestion window of CUBIC (RFC 9438), which is
//! what Linux uses unless told otherwise.
//!
//! | when | what | source |
//! |---|---|---|
//! | at the start | ten packets | RFC 6928 section 2 |
//! | slow start | one packet more for each that arrived | RFC 5681 section 3.1, RFC 3465 |
//! | congestion avoidance | along the cubic curve, or as Reno would if that is more | RFC 9438 section 4.2 to 4.5 |
//! | a loss was noticed | seven tenths; the curve bends at where it was | RFC 9438 section 4.6, 4.7 |
//! | nothing was heard for long | one packet, and slow start | RFC 9438 section 4.8 |
//! | nothing was sent for long | as at the start | RFC 5681 section 4.1 |
//!
//! Invariants: the window is never below one packet, and never below two after a loss that was
//! noticed in time. Only sums, products and quotients of floating numbers are taken, which are the same on
//! every machine; hence the cube root of our own.
//!
//! Left out: leaving slow start before a loss (HyStart++, RFC 9406), explicit congestion notification.

/// The steepness of the curve (RFC 9438, section 4.1), in packets per second cubed.
const C: f64 = 0.4;

/// What is left of the window after a loss (RFC 9438, section 4.6).
const BETA: f64 = 0.7;

/// By how much a Reno flow with that factor grows in a round trip (RFC 9438, section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The window of a new connection, in packets (RFC 6928).
pub const INITIAL_PACKETS: f64 = 10.0;

/// The congestion window of one direction of a connection, in packets.
#[derive(Clone, Debug)]
pub struct Window {
    packets: f64,
    /// Below this the window is in slow start.
    threshold: f64,
    /// Where the curve bends: the window before the last loss.
    bend: f64,
    /// The window before the last loss, as it was.
    prior: f64,
    avoiding: Option<Avoidance>,
}

/// A stage of congestion avoidance: from one loss to the next.
#[derive(Clone, Copy, Debug)]
struct Avoidance {
    begun_ns: u64,
    /// How long until the curve bends, in seconds.
    bends_after_s: f64,
    /// What the window of Reno would be.
    reno: f64,
}

/// The cube root of a number that is not negative, by Newton's method.
fn cube_root(of: f64) -> f64 {
    if of <= 0.0 {
        return 0.0;
    }
    let mut root = of.max(1.0);
    for _ in 0..100 {
        let next = (2.0 * root + of / (root * root)) / 3.0;
        if next >= root {
            break;
        }
        root = next;
    }
    root
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Default for Window {
    fn default() -> Self {
        let (packets, threshold) = (INITIAL_PACKETS, f64::MAX);
        Self { packets, threshold, bend: 0.0, prior: 0.0, avoiding: None }
    }
}

impl Window {
    /// How many packets may be on their way.
    pub fn packets(&self) -> u64 {
        self.packets as u64
    }

    /// So many packets arrived, while the window was what held the sender back.
    pub fn arrived(&mut self, count: u64, now_ns: u64, round_trip_ns: u64) {
        let mut count = count as f64;
        if self.packets < self.threshold {
            let grown = (self.packets + count).min(self.threshold);
            count -= grown - self.packets;
            self.packets = grown;
            if count <= 0.0 {
                return;
            }
        }
        self.avoid(count, now_ns, round_trip_ns);
    }

    fn avoid(&mut self, count: f64, now_ns: u64, round_trip_ns: u64) {
        let mut stage = match self.avoiding {
            Some(stage) => stage,
            None => {
                self.bend = self.bend.max(self.packets);
                let bends_after_s = cube_root((self.bend - self.packets) / C);
                Avoidance { begun_ns: now_ns, bends_after_s, reno: self.packets }
            }
        };
        let curve = |at_s: f64| {
            let from_bend_s = at_s - stage.bends_after_s;
            C * from_bend_s * from_bend_s * from_bend_s + self.bend
        };
        let at_s = seconds(now_ns.saturating_sub(stage.begun_ns));
        let alpha = if stage.reno < self.prior { ALPHA } else { 1.0 };
        stage.reno += alpha * count / self.packets;
        if curve(at_s) < stage.reno {
            self.packets = self.packets.max(stage.reno);
        } else {
            let target = curve(at_s + seconds(round_trip_ns));
            let target = target.clamp(self.packets, self.packets * 1.5);
            self.packets += (target - self.packets) * (count / self.packets).min(1.0);
        }
        self.avoiding = Some(stage);
    }

    /// A loss was noticed, by what arrived after it.
    pub fn lost(&mut self) {
        self.bend_here(self.packets);
        self.packets = (self.packets * BETA).max(2.0);
        self.threshold = self.packets;
    }

    /// Nothing was heard for so long that everything on its way, so many packets, counts as lost.
    pub fn timed_out(&mut self, under_way: u64) {
        self.bend_here(self.packets);
        self.threshold = (under_way as f64 * BETA).max(2.0);
        // The next stage begins where slow start ends, and its curve bends there.
        self.bend = 0.0;
        self.packets = 1.0;
    }

    fn bend_here(&mut self, packets: f64) {
        // Fast convergence: a flow that has less than before makes room for others.
        let converges = packets < self.bend;
        self.bend = if converges { packets * (1.0 + BETA) / 2.0 } else { packets };
        self.prior = packets;
        self.avoiding = None;
    }

    /// Nothing was sent for longer than a retransmission timeout.
    pub fn idle(&mut self) {
        self.packets = self.packets.min(INITIAL_PACKETS);
        self.avoiding = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT_NS: u64 = 100_000_000;

    /// Lets round trips pass in which every packet arrives.
    fn pass(window: &mut Window, from_ns: u64, round_trips: u64) -> u64 {
        for trip in 0..round_trips {
            window.arrived(window.packets(), from_ns + trip * RTT_NS, RTT_NS);
        }
        from_ns + round_trips * RTT_NS
    }

    #[test]
    fn cube_roots_are_roots() {
        for root in [0.0, 0.1, 1.0, 2.5, 10.0, 1_000.0] {
            assert!((cube_root(root * root * root) - root).abs() < 1e-6, "{root}");
        }
    }

    #[test]
    fn slow_start_doubles_and_a_timeout_begins_it_again() {
        let mut window = Window::default();
        let now_ns = pass(&mut window, 0, 3);
        assert_eq!(window.packets(), 80);
        window.timed_out(80);
        assert_eq!(window.packets(), 1);
        let now_ns = pass(&mut window, now_ns, 5);
        assert_eq!(window.packets(), 32);
        pass(&mut window, now_ns, 1);
        assert_eq!(window.packets(), 56, "the threshold is seven tenths of what was under way");
        window.idle();
        assert_eq!(window.packets(), 10);
    }

    #[test]
    fn the_window_comes_back_to_where_it_was_and_lingers_there() {
        let mut window = Window::default();
        let now_ns = pass(&mut window, 0, 4);
        assert_eq!(window.packets(), 160);
        window.lost();
        assert_eq!(window.packets(), 112);
        // K = cbrt(160 * 0.3 / 0.4) = 4.93 s (RFC 9438, figure 2).
        let half = pass(&mut window, now_ns, 25);
        assert!((146..157).contains(&window.packets()), "{}", window.packets());
        let bent = pass(&mut window, half, 25);
        assert!((158..163).contains(&window.packets()), "{}", window.packets());
        pass(&mut window, bent, 49);
        assert!((195..215).contains(&window.packets()), "{}", window.packets());
    }

    #[test]
    fn a_small_window_grows_as_that_of_reno() {
        let mut window = Window { packets: 10.0, threshold: 1.0, ..Window::default() };
        window.lost();
        assert_eq!(window.packets(), 7);
        // From 7 to 10 by 0.53 a round trip, then by 1.
        let mut now_ns = 0;
        for _ in 0..10 {
            window.arrived(window.packets(), now_ns, RTT_NS / 20);
            now_ns += RTT_NS / 20;
        }
        assert!((11..=14).contains(&window.packets()), "{}", window.packets());
    }
}

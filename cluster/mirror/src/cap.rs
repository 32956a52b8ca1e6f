//! The cap of a link: how much this side sends over it in any second.
//!
//! ```text
//! 15/16 of the cap  come back in every second
//!  1/32             may be saved up for a moment
//!  1/32             is left for what cannot be paid in time: the greetings of who is dialled
//! ```
//!
//! What is counted are the bytes that are handed to a connection, each piece with what TLS adds to it
//! ([`RECORD_BYTES`]), and for each connection what its beginning takes ([`GREETING_BYTES`]). What the
//! system adds to them below (headers of TCP and IP, what it sends again) is not.
//!
//! Invariants: over any second no more than the cap is paid for; the most urgent pays first, and the
//! others keep their part ([`crate::shares`]); a link that comes back has saved up nothing
//! meanwhile that it had not before.

use crate::locked;
use crate::shares::{Shares, Waits};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::Plant;
use fulmar_types::link::Priority;
use std::sync::Mutex;

/// What TLS adds to a piece that is written at once: a header of 5 bytes, the kind, and a tag of 16.
pub(crate) const RECORD_BYTES: usize = 22;

/// What the beginning of a connection takes on each side, with the certificates.
pub(crate) const GREETING_BYTES: u64 = 4 << 10;

/// The largest piece that is written at once, if there is a cap: one record of TLS.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// The same without a cap.
const PIECE_BYTES_UNCAPPED: usize = 64 << 10;

/// The least that anybody waits.
const WAIT_MIN: Duration = Duration::from_millis(1);

const NS: i128 = 1_000_000_000;

struct State {
    /// In bytes per second.
    cap: Option<u64>,
    /// What may be paid for now, in bytes times [`NS`]. Below zero if something was owed.
    saved: i128,
    at: Instant,
    shares: Shares,
    /// How many of each priority wait.
    waiting: [usize; Priority::ALL.len()],
}

impl State {
    fn saved_max(cap: u64) -> i128 {
        i128::from(cap) * NS / 32
    }

    fn catch_up(&mut self, cap: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let earned = i128::try_from(elapsed).unwrap_or(NS) * i128::from(cap) * 15 / 16;
        self.saved = (self.saved + earned).min(Self::saved_max(cap));
        self.at = now;
    }

    fn waits(&self) -> Waits {
        self.waiting.map(|waiting| waiting > 0)
    }
}

/// The cap of one link on this side.
pub(crate) struct Cap(Mutex<State>);

impl Cap {
    /// One that has saved up nothing.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            cap: None,
            saved: 0,
            at: time::now(),
            shares: Shares::default(),
            waiting: [0; Priority::ALL.len()],
        }))
    }

    /// The link has this cap from now on.
    pub(crate) fn set(&self, cap: Option<u64>) {
        let mut state = locked(&self.0);
        if state.cap != cap {
            (state.cap, state.at) = (cap, time::now());
            state.saved = state.saved.min(0);
        }
    }

    /// How much may be written at once, and whether it has to be sent at once as well.
    pub(crate) fn piece_bytes(&self) -> (usize, bool) {
        let Some(cap) = locked(&self.0).cap else { return (PIECE_BYTES_UNCAPPED, false) };
        let saved_max = usize::try_from(cap / 32).unwrap_or(PIECE_BYTES_MAX);
        (saved_max.min(PIECE_BYTES_MAX).saturating_sub(RECORD_BYTES).max(1), true)
    }

    /// Something was sent that was not asked for first.
    pub(crate) fn owe(&self, bytes: u64) {
        let mut state = locked(&self.0);
        if let Some(cap) = state.cap {
            state.catch_up(cap, time::now());
            state.saved -= i128::from(bytes) * NS;
        }
    }

    /// Waits until a connection may begin. It is paid for before, in which time nobody sends, and
    /// once more afterwards: otherwise a second that begins with it, or ends with it, would be too full.
    pub(crate) async fn pay_for_greeting(&self) {
        self.owe(GREETING_BYTES);
        self.pay(Priority::Urgent, 0).await;
        self.owe(GREETING_BYTES);
    }

    /// Waits until a piece may be sent.
    pub(crate) async fn pay(&self, lane: Priority, bytes: u64) {
        let wanted = i128::from(bytes) * NS;
        let mut place: Option<Waiting<'_>> = None;
        loop {
            let wait = {
                let mut state = locked(&self.0);
                let Some(cap) = state.cap else { return };
                if fulmar_host::planted(Plant::CapIgnored) {
                    return;
                }
                state.catch_up(cap, time::now());
                if place.is_none() {
                    state.waiting[lane.rank()] += 1;
                    place = Some(Waiting { cap: self, lane });
                }
                let waits = state.waits();
                let missing = wanted.min(State::saved_max(cap)) - state.saved;
                if missing <= 0 && state.shares.next(waits) == Some(lane) {
                    state.saved -= wanted;
                    state.shares.spent(lane, bytes, waits);
                    return drop((state, place));
                }
                let per_ns = (15 * i128::from(cap)).max(1);
                let ns = (missing.max(0) * 16 + per_ns - 1) / per_ns;
                Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX >> 1))
            };
            time::sleep(wait.max(WAIT_MIN)).await;
        }
    }
}

/// Somebody who waits, until he has paid or goes away.
struct Waiting<'c> {
    cap: &'c Cap,
    lane: Priority,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        locked(&self.cap.0).waiting[self.lane.rank()] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Runs something on a clock that goes on whenever everybody waits.
    fn on_paused_clock<F: Future>(test: F) -> F::Output {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(test)
    }

    /// Who paid for how much, and how long after the beginning.
    type Paid = Arc<Mutex<Vec<(Duration, Priority, u64)>>>;

    /// Somebody who has always something to send.
    async fn sender(cap: Arc<Cap>, lane: Priority, begun: Instant, paid: Paid) {
        loop {
            let bytes = (cap.piece_bytes().0 + RECORD_BYTES) as u64;
            cap.pay(lane, bytes).await;
            locked(&paid).push(((time::now() - begun), lane, bytes));
            // As long as writing takes.
            fulmar_host::task::yield_now().await;
        }
    }

    /// What senders of these priorities get through a cap within 20 s.
    fn sent(bytes_per_second: u64, lanes: &[Priority]) -> Vec<(Duration, Priority, u64)> {
        on_paused_clock(async {
            let (cap, paid) = (Arc::new(Cap::new()), Paid::default());
            cap.set(Some(bytes_per_second));
            let begun = time::now();
            let each = lanes.iter().map(|lane| {
                let sending = sender(Arc::clone(&cap), *lane, begun, Arc::clone(&paid));
                fulmar_host::task::spawn_owned(sending)
            });
            let _senders: Vec<_> = each.collect();
            time::sleep(Duration::from_secs(5)).await;
            cap.pay_for_greeting().await;
            locked(&paid).push(((time::now() - begun), Priority::Bulk, GREETING_BYTES));
            time::sleep(Duration::from_secs(15)).await;
            locked(&paid).clone()
        })
    }

    #[test]
    fn what_is_paid_for_comes_close_to_the_cap_and_never_over_it() {
        for cap in [16 << 10, 256 << 10, 4 << 20] {
            let sent = sent(cap, &[Priority::Normal, Priority::Bulk, Priority::Normal]);
            let all: u64 = sent.iter().map(|(_, _, bytes)| bytes).sum();
            assert!(all > cap * 20 * 9 / 10, "{} of {}", all / 20, cap);
            for (first, (from, ..)) in sent.iter().enumerate() {
                let second = sent[first..].iter();
                let within = second.take_while(|(at, ..)| *at < *from + Duration::from_secs(1));
                let bytes: u64 = within.map(|(_, _, bytes)| bytes).sum();
                assert!(bytes <= cap, "{bytes} in the second from {from:?} on, and {cap} may");
            }
        }
    }

    #[test]
    fn the_urgent_pay_first_and_the_others_keep_their_part() {
        let sent = sent(1 << 20, &[Priority::Bulk, Priority::Normal, Priority::Urgent]);
        let of = |wanted: Priority| -> u64 {
            sent.iter().filter(|(_, lane, _)| *lane == wanted).map(|(_, _, bytes)| bytes).sum()
        };
        let all: u64 = sent.iter().map(|(_, _, bytes)| bytes).sum();
        assert!(of(Priority::Urgent) * 100 / all > 70);
        assert!(of(Priority::Normal) * 100 / all > 8);
        assert!(of(Priority::Bulk) * 100 / all > 8);
    }

    #[test]
    fn without_a_cap_nobody_waits_and_a_new_one_begins_with_nothing() {
        on_paused_clock(async {
            let cap = Cap::new();
            let begun = time::now();
            cap.pay(Priority::Bulk, 1 << 40).await;
            cap.owe(1 << 40);
            assert_eq!((time::now() - begun), Duration::ZERO);
            cap.set(Some(64 << 10));
            cap.pay(Priority::Urgent, 2 << 10).await;
            assert!((time::now() - begun) > Duration::from_millis(30));
        });
    }
}

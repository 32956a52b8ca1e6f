//! The cap of a link: how much this side sends over it in any second.
//!
//! ```text
//! 15/16 of the cap  come back in every second
//!  1/32             may be saved up for a moment
//!  1/32             is left for what cannot be paid in time: the greetings of who is dialled
//! ```
//!
//! A greeting is some bytes at one moment, and nobody can ask for less of it. So it is paid for twice, in
//! the second before it and in the one after it, or one that begins or ends with it would be too
//! full. It is paid for in instalments of half of what comes back: the other half is for who waits.
//!
//! ```text
//!            instalments   greeting   instalments
//! ---------|=============|----*-----|=============|----->
//!              at most a second each
//! ```
//!
//! What is counted are the bytes that are handed to a connection, each piece with what TLS adds to it
//! ([`RECORD_BYTES`]), and for each connection what its beginning takes ([`GREETING_BYTES`]). What the
//! system adds to them below (headers of TCP and IP, what it sends again) is not.
//!
//! Invariants: over any second no more than the cap is paid for; who has something to send waits for no
//! greeting, but half of the cap is his meanwhile; the most urgent pays first, and the
//! others keep their part ([`crate::shares`]); a link that comes back has saved up nothing
//! meanwhile that it had not before.

use crate::locked;
use crate::shares::{Shares, Waits};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::Plant;
use fulmar_types::link::{LINK_CAP_MIN, Priority};
use std::sync::Mutex;

/// What TLS adds to a piece that is written at once: a header of 5 bytes, the kind, and a tag of 16.
pub(crate) const RECORD_BYTES: usize = 22;

/// What the beginning of a connection takes on each side, with the certificates.
pub(crate) const GREETING_BYTES: u64 = 4 << 10;

// Half of the least that comes back in a second pays for one, and for no less than all of it.
const _: () = assert!(LINK_CAP_MIN * 15 / 16 / 2 >= GREETING_BYTES);

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
    /// What may be paid for now, in bytes times [`NS`]. Below zero if a piece was larger than what may
    /// be saved up.
    saved: i128,
    /// What is to be paid in instalments.
    debt: i128,
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
        let per_second = Self::per_second(cap);
        let earned = i128::try_from(elapsed).unwrap_or(NS) * per_second / NS;
        // More than the half of a second would pay is more than one greeting: all at once.
        let part = if self.debt > per_second / 2 { earned } else { earned / 2 };
        let instalment = part.min(self.debt);
        self.saved += earned - instalment;
        self.debt -= instalment;
        // What nobody else wants.
        let over = (self.saved - Self::saved_max(cap)).max(0);
        self.saved -= over;
        self.debt = (self.debt - over).max(0);
        self.at = now;
    }

    /// What comes back in a second.
    fn per_second(cap: u64) -> i128 {
        i128::from(cap) * NS * 15 / 16
    }

    fn waits(&self) -> Waits {
        self.waiting.map(|waiting| waiting > 0)
    }
}

/// The cap of one link on this side.
pub(crate) struct Cap {
    state: Mutex<State>,
    /// Who is to be greeted next waits here, in turn.
    greeting: tokio::sync::Mutex<()>,
}

impl Cap {
    /// One that has saved up nothing.
    pub(crate) fn new() -> Self {
        let state = State {
            cap: None,
            saved: 0,
            debt: 0,
            at: time::now(),
            shares: Shares::default(),
            waiting: [0; Priority::ALL.len()],
        };
        Self { state: Mutex::new(state), greeting: tokio::sync::Mutex::default() }
    }

    /// The link has this cap from now on.
    pub(crate) fn set(&self, cap: Option<u64>) {
        let mut state = locked(&self.state);
        if state.cap != cap {
            (state.cap, state.at) = (cap, time::now());
            state.saved = state.saved.min(0);
        }
    }

    /// How much may be written at once, and whether it has to be sent at once as well.
    pub(crate) fn piece_bytes(&self) -> (usize, bool) {
        let Some(cap) = locked(&self.state).cap else { return (PIECE_BYTES_UNCAPPED, false) };
        let saved_max = usize::try_from(cap / 32).unwrap_or(PIECE_BYTES_MAX);
        (saved_max.min(PIECE_BYTES_MAX).saturating_sub(RECORD_BYTES).max(1), true)
    }

    /// Something was sent that was not asked for first.
    pub(crate) fn owe(&self, bytes: u64) {
        let mut state = locked(&self.state);
        if let Some(cap) = state.cap {
            state.catch_up(cap, time::now());
            state.debt += i128::from(bytes) * NS;
        }
    }

    /// Waits until a connection may begin: until everything is paid for that is owed, and this one as
    /// well. What is to be paid afterwards is owed then.
    pub(crate) async fn pay_for_greeting(&self) {
        let _turn = self.greeting.lock().await;
        self.owe(GREETING_BYTES);
        while let Some(wait) = self.debt_lasts() {
            time::sleep(wait.max(WAIT_MIN)).await;
        }
        self.owe(GREETING_BYTES);
    }

    /// How long it takes until nothing is owed, if nothing else comes; `None` if nothing is.
    fn debt_lasts(&self) -> Option<Duration> {
        let mut state = locked(&self.state);
        let cap = state.cap.filter(|_| !fulmar_host::planted(Plant::CapIgnored))?;
        state.catch_up(cap, time::now());
        let per_ns = (State::per_second(cap) / NS).max(1);
        let lasts = (state.debt + per_ns - 1) / per_ns;
        (state.debt > 0)
            .then(|| Duration::from_nanos(u64::try_from(lasts).unwrap_or(u64::MAX >> 1)))
    }

    /// Waits until a piece may be sent.
    pub(crate) async fn pay(&self, lane: Priority, bytes: u64) {
        let wanted = i128::from(bytes) * NS;
        let mut place: Option<Waiting<'_>> = None;
        loop {
            let wait = {
                let mut state = locked(&self.state);
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
        locked(&self.cap.state).waiting[self.lane.rank()] -= 1;
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
    fn what_is_urgent_does_not_wait_for_greetings() {
        let longest = on_paused_clock(async {
            let (cap, paid) = (Arc::new(Cap::new()), Paid::default());
            cap.set(Some(LINK_CAP_MIN));
            let begun = time::now();
            let backlog = sender(Arc::clone(&cap), Priority::Normal, begun, paid);
            let dialler = Arc::clone(&cap);
            let dialling = async move {
                loop {
                    dialler.pay_for_greeting().await;
                }
            };
            let _others =
                [fulmar_host::task::spawn_owned(backlog), fulmar_host::task::spawn_owned(dialling)];
            let mut longest = Duration::ZERO;
            for _ in 0..200 {
                time::sleep(Duration::from_millis(97)).await;
                let asked = time::now();
                cap.pay(Priority::Urgent, 260).await;
                longest = longest.max(time::now() - asked);
            }
            longest
        });
        // A piece of the others is paid for already, and half of the income is for this one.
        assert!(longest < Duration::from_millis(120), "{longest:?}");
    }

    #[test]
    fn greetings_come_one_after_the_other_and_the_cap_is_kept() {
        let times = on_paused_clock(async {
            let (cap, paid) = (Arc::new(Cap::new()), Paid::default());
            cap.set(Some(LINK_CAP_MIN));
            let begun = time::now();
            let backlog = sender(Arc::clone(&cap), Priority::Normal, begun, Arc::clone(&paid));
            let _sender = fulmar_host::task::spawn_owned(backlog);
            let dialling = (0..4).map(|_| {
                let (cap, paid) = (Arc::clone(&cap), Arc::clone(&paid));
                fulmar_host::task::spawn_owned(async move {
                    cap.pay_for_greeting().await;
                    locked(&paid).push((time::now() - begun, Priority::Bulk, GREETING_BYTES));
                })
            });
            let _dialling: Vec<_> = dialling.collect();
            time::sleep(Duration::from_secs(10)).await;
            locked(&paid).clone()
        });
        assert_eq!(times.iter().filter(|(_, lane, _)| *lane == Priority::Bulk).count(), 4);
        for (first, (from, ..)) in times.iter().enumerate() {
            let second = times[first..].iter();
            let within = second.take_while(|(at, ..)| *at < *from + Duration::from_secs(1));
            let bytes: u64 = within.map(|(_, _, bytes)| bytes).sum();
            assert!(bytes <= LINK_CAP_MIN, "{bytes} in the second from {from:?} on");
        }
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

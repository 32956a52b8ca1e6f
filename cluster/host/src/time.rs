//! Monotonic time and timers.
//!
//! Invariants: an [`Instant`] never goes back; time passes while a process is paused.
//!
//! In a simulation the clock is virtual. The simulator's own `sleep` has a floor of a millisecond
//! and registers a new timer at every poll, so [`Sleep`] resets one timer instead and asks for a
//! wake-up only when its deadline or its waker changed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
pub use std::time::{Duration, Instant};

/// The current instant. It is the clock of the timers, so that a test which pauses that clock sees
/// the time that its timers have waited.
pub fn now() -> Instant {
    timer::now()
}

/// Waits for a duration.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Waits until an instant.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep::new(deadline)
}

/// The deadline passed before the future completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// Waits for a future, at most for a duration.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    timeout_at(now() + duration, future)
}

/// Waits for a future, at most until an instant.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), sleep: sleep_until(deadline) }
}

/// A future with a deadline. The future is polled first, so a result that is there is never lost.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(not(madsim))]
mod timer {
    use super::{Context, Future, Instant, Pin, Poll};

    pub(super) fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// A timer.
    pub struct Sleep(Pin<Box<tokio::time::Sleep>>);

    impl Sleep {
        pub(super) fn new(deadline: Instant) -> Self {
            Self(Box::pin(tokio::time::sleep_until(deadline.into())))
        }
    }

    impl Future for Sleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().poll(cx)
        }
    }
}

#[cfg(madsim)]
mod timer {
    use super::{Context, Duration, Future, Instant, Pin, Poll};
    use std::cell::RefCell;
    use std::task::Waker;

    type Tap = Box<dyn Fn(u64)>;

    thread_local! {
        // A simulation has a thread of its own.
        static TAP: RefCell<Option<Tap>> = const { RefCell::new(None) };
    }

    /// Tells of every timer that fires on this thread from now on, with its time in nanoseconds
    /// since the simulation began: for the trace. For the simulator only.
    pub fn on_timer(tap: impl Fn(u64) + 'static) {
        TAP.with_borrow_mut(|place| *place = Some(Box::new(tap)));
    }

    fn fired() {
        TAP.with_borrow(|tap| {
            if let Some(tap) = tap {
                let elapsed = madsim::time::TimeHandle::current().elapsed().as_nanos();
                tap(u64::try_from(elapsed).unwrap_or(u64::MAX));
            }
        });
    }

    pub(super) fn now() -> Instant {
        Instant::now()
    }

    /// A timer.
    pub struct Sleep {
        inner: Pin<Box<madsim::time::Sleep>>,
        waker: Option<Waker>,
    }

    impl Sleep {
        pub(super) fn new(deadline: Instant) -> Self {
            let mut inner = Box::pin(madsim::time::sleep(Duration::ZERO));
            // `reset` has no floor, unlike `sleep`.
            inner.as_mut().reset(deadline);
            Self { inner, waker: None }
        }
    }

    impl Future for Sleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.inner.is_elapsed() {
                fired();
                return Poll::Ready(());
            }
            // Each poll of the inner timer registers another wake-up, so it is polled only for a
            // waker that has none yet.
            if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            self.waker = Some(cx.waker().clone());
            let polled = self.inner.as_mut().poll(cx);
            if polled.is_ready() {
                fired();
            }
            polled
        }
    }
}

pub use timer::Sleep;
#[cfg(madsim)]
pub use timer::on_timer;

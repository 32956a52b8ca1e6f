//! openraft's runtime on top of the seam: one implementation for both worlds, because tasks,
//! timers and randomness already come from `fulmar_host`.
//!
//! Channels and mutexes are tokio's, which are deterministic, with one exception: tokio's watch
//! channel wakes its waiters in an order drawn from process-wide randomness, so openraft gets the
//! watch channel of its own simulation runtime instead, in production too.
//!
//! Invariant: a select takes the first that is ready, in the order in which they stand. A panic of
//! openraft's core is out of reach for that (`docs/decisions/openraft-purge-and-apply.md`).
//!
//! Never: anything that the simulator does not control.

use fulmar_host::{random, task, time};
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::SimWatch;
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

/// The runtime that openraft is compiled for.
#[derive(Debug)]
pub struct HostRuntime;

/// A random number generator that draws from the seam.
#[derive(Debug)]
pub struct HostRng;

impl rand::TryRng for HostRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half of one draw; the cast keeps exactly those bits.
        Ok((random::random_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(random::random_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let word = random::random_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for HostRuntime {
    type JoinError = task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = task::JoinHandle<T>;
    type Sleep = time::Sleep;
    type Instant = time::Instant;
    type TimeoutError = time::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = time::Timeout<T>;
    type ThreadLocalRng = HostRng;
    type Mpsc = TokioMpsc;
    type Watch = SimWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        task::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        time::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        HostRng
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        task::block_on(future)
    }

    // The default starts a thread, which neither world wants.
    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        std::future::ready(Ok(f()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft_rt::Select4;
    use std::future::{pending, ready};

    #[test]
    fn of_several_that_are_ready_the_first_is_taken() {
        let selected = task::block_on(HostRuntime::select4(
            pending::<()>(),
            ready("a notification"),
            ready("a snapshot"),
            ready("a request"),
        ));
        assert!(matches!(selected, Select4::Second("a notification")));
    }
}

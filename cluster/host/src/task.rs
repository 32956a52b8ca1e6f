//! Tasks. On a real machine they run on the node's one current-thread runtime, so production has
//! no interleaving that the simulator cannot have.

use std::future::Future;

/// A handle to a spawned task.
pub type JoinHandle<T> = tokio::task::JoinHandle<T>;
/// Why a task did not finish.
pub type JoinError = tokio::task::JoinError;

/// Starts a task on the runtime, and in a simulation on the node, of the caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::task::spawn(future)
}

/// Lets other tasks run.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// Runs a future to its end on a new runtime of this thread: how `main` and tests begin.
///
/// # Panics
/// If the operating system gives no resources for a runtime, or if called from within one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    #[cfg(not(madsim))]
    {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs little more than a file descriptor")
            .block_on(future)
    }
    #[cfg(madsim)]
    {
        madsim::runtime::Runtime::new().block_on(future)
    }
}

/// A task that is stopped when this is dropped.
pub struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a task that ends when the returned guard is dropped.
pub fn spawn_owned<F>(future: F) -> Owned<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Owned(spawn(future))
}

//! I/O threads: a bounded queue of jobs and a few threads that take from it.
//!
//! Invariant: a job holds a permit from before it is queued until it has run, so the queue cannot
//! grow beyond [`JOBS_MAX`]. One wake-up per job: `notify_one` wakes the thread that runs it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Threads of one pool.
const THREADS: usize = 4;

/// Jobs of a pool that wait or run. A node has one writer and a bounded number of readers; this
/// bounds the memory that they pin.
pub const JOBS_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Jobs run outside the lock, so a panic in one leaves the queue whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue();
            let job = loop {
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None if queue.closed => return,
                    None => {
                        queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(queue);
            job();
        }
    }
}

/// Some I/O threads. Dropping it lets them finish what is queued, and end.
pub struct Pool {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

impl Pool {
    /// Starts the threads of a pool, `name` in the names of all of them.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let pool = Self { shared: Arc::default(), permits: Arc::new(Semaphore::new(JOBS_MAX)) };
        for at in 0..THREADS {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("fulmar-{name}-{at}"))
                .spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Runs a job on an I/O thread and waits for its answer.
    pub async fn run<T, F>(&self, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let result = job();
            drop(permit);
            // Nobody waits any more if the caller was dropped; the job has run all the same.
            let _ = answer.send(result);
        });
        self.shared.queue().jobs.push_back(job);
        self.shared.arrived.notify_one();
        // The answer is lost only if the job panicked. What it did to the disk is unknown.
        answered.await.unwrap_or_else(|_| Err(io::Error::other("an I/O job panicked")))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.arrived.notify_all();
    }
}

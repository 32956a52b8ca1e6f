//! Snapshots of a leader on their way into openraft's core, one at a time.
//!
//! A core that takes over a second snapshot while it installs a first one may have appends queued
//! between the two, and then applies entries that the second one has purged already, which ends it
//! (`docs/decisions/openraft-purge-and-apply.md`).
//!
//! Invariants: the core is handed a snapshot only after it has answered for every earlier one, also
//! if whoever handed that over is gone by then.

use fulmar_host::task;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::sync::{Mutex, oneshot};

/// Who is being installed.
#[derive(Default)]
pub struct Installing {
    turn: Arc<Mutex<()>>,
}

impl Installing {
    /// Runs `install` once all earlier ones are over, to its end whatever becomes of the caller.
    ///
    /// # Errors
    /// If it panicked.
    pub(crate) async fn after_earlier_ones<F>(&self, install: F) -> io::Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let turn = self.turn.clone().lock_owned().await;
        let (done, over) = oneshot::channel();
        task::spawn(async move {
            // A caller whose connection broke does not take the answer.
            let _ = done.send(install.await);
            drop(turn);
        });
        over.await.map_err(|_| io::Error::other("the installation of a snapshot broke off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_host::task::{Owned, block_on, spawn_owned, yield_now};

    type Seen = Arc<std::sync::Mutex<Vec<&'static str>>>;

    fn say(seen: &Seen, what: &'static str) {
        seen.lock().expect("no holder of this lock panics").push(what);
    }

    /// A caller whose installation takes until it is told to end.
    fn call(
        installing: &Arc<Installing>,
        seen: &Seen,
        [begun, over]: [&'static str; 2],
    ) -> (Owned<()>, oneshot::Sender<()>) {
        let (end, ended) = oneshot::channel::<()>();
        let (installing, seen) = (installing.clone(), seen.clone());
        let caller = spawn_owned(async move {
            let inside = seen.clone();
            let install = async move {
                say(&inside, begun);
                let _ = ended.await;
            };
            installing.after_earlier_ones(install).await.expect("it ends");
            say(&seen, over);
        });
        (caller, end)
    }

    #[test]
    fn a_snapshot_waits_for_one_whose_connection_is_gone() {
        block_on(async {
            let (installing, seen) = (Arc::new(Installing::default()), Seen::default());
            let settled = async || {
                for _ in 0..20 {
                    yield_now().await;
                }
                seen.lock().expect("no holder of this lock panics").clone()
            };
            let (first, end_first) = call(&installing, &seen, ["first begun", "first over"]);
            assert_eq!(settled().await, ["first begun"]);
            let (_second, end_second) = call(&installing, &seen, ["second begun", "second over"]);
            drop(first);
            assert_eq!(settled().await, ["first begun"], "the core is still at it");
            end_first.send(()).expect("it goes on without its caller");
            assert_eq!(settled().await, ["first begun", "second begun"]);
            end_second.send(()).expect("somebody waits");
            assert_eq!(settled().await, ["first begun", "second begun", "second over"]);
        });
    }
}

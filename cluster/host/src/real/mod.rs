//! The implementations for a real machine.
//!
//! | module | what |
//! |---|---|
//! | [`net`] | TCP on the node's one current-thread runtime |
//! | [`tls`] | the same with proof of who is there |
//! | [`disk`] | files, on I/O threads of our own |
//! | [`clock`], [`process`] | the wall clock and the end of the process |
//! | [`trace`] | events as lines of the log |
//!
//! Invariant: everything that can block runs on the I/O threads of [`disk`] or of tokio (looking names
//! up), never on the runtime.

pub mod clock;
pub mod disk;
pub mod net;
mod pool;
pub mod process;
pub mod tls;
pub mod trace;

use crate::{Host, NoLinks, Observer};
use std::io;
use std::sync::Arc;

pub use clock::RealClock;
pub use disk::RealDisk;
pub use net::RealNetwork;
pub use process::RealProcess;
pub use trace::TracingObserver;

impl Host {
    /// The machine that this process runs on.
    ///
    /// # Errors
    /// If the operating system gives no thread for I/O.
    pub fn real(observer: Arc<dyn Observer>) -> io::Result<Self> {
        Ok(Self {
            network: Arc::new(RealNetwork),
            http: Arc::new(RealNetwork),
            peers: Arc::new(RealNetwork),
            links: Arc::new(NoLinks),
            disk: Arc::new(RealDisk::new()?),
            clock: Arc::new(RealClock),
            process: Arc::new(RealProcess),
            observer,
        })
    }
}

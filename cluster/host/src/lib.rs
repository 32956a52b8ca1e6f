//! The seam between Fulmar and the world it runs in.
//!
//! A node gets one [`Host`] and reaches everything outside itself through it: the network, the
//! disk, the wall clock, the process, and whoever listens to its events. Time, tasks and random
//! numbers are functions, because they are the same for every node of a process: [`time`],
//! [`task`], [`random`].
//!
//! | module | what |
//! |---|---|
//! | [`net`], [`disk`], [`clock`], [`process`] | the traits |
//! | `real` | the implementations for a real machine |
//! | [`conformance`] | one test body that the real and the simulated implementations must pass |
//! | [`time`], [`task`], [`random`] | timers, tasks and randomness in both worlds |
//! | [`planted`] | whether a bug is planted: never, outside the simulator |
//!
//! Invariant: this is the only crate of `cluster/` that may touch sockets, files, threads, clocks
//! or the randomness of the operating system, and the only one that may say `cfg(madsim)`.
//!
//! Never: ask whether the node is simulated in order to behave differently.

pub mod clock;
pub mod conformance;
pub mod disk;
pub mod net;
pub mod places;
pub mod process;
pub mod random;
#[cfg(not(madsim))]
pub mod real;
pub mod task;
pub mod time;

mod no_links;
mod plant;
pub use no_links::NoLinks;
pub use plant::planted;
#[cfg(madsim)]
pub use plant::{clear_plants, plant};

use fulmar_types::Event;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future, the form in which object-safe traits are async.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything outside a node. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    /// Sockets for Kafka clients, and to be one.
    pub network: Arc<dyn net::Network>,
    /// Sockets for those who ask for metrics and health.
    pub http: Arc<dyn net::Network>,
    /// Sockets for the other nodes of the site.
    pub peers: Arc<dyn net::Network>,
    /// Sockets for other sites.
    pub links: Arc<dyn net::LinkNetwork>,
    /// Files.
    pub disk: Arc<dyn disk::Disk>,
    /// The wall clock.
    pub clock: Arc<dyn clock::Clock>,
    /// The process that the node runs in.
    pub process: Arc<dyn process::Process>,
    /// Who listens to what happens.
    pub observer: Arc<dyn Observer>,
}

impl Host {
    /// Reports a fact about this node.
    pub fn report(&self, event: Event) {
        self.observer.observe(&event);
    }

    /// Reports that a rare state was reached.
    pub fn probe(&self, probe: fulmar_types::Probe) {
        self.observer.observe(&Event::Probe(probe));
    }

    /// Ends the process of this node. Nothing of this node leaves the process any more once this
    /// has been called; the future never completes.
    pub async fn fatal(&self, code: fulmar_types::ExitCode, message: String) -> ! {
        self.report(Event::Fatal { code, message: message.clone() });
        self.process.exit(code, &message);
        std::future::pending::<std::convert::Infallible>().await;
        unreachable!("a pending future does not complete")
    }
}

/// Who listens to the events of a node. Listening must not change what the node does.
pub trait Observer: Send + Sync {
    /// Takes note of an event.
    fn observe(&self, event: &Event);
}

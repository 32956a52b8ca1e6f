//! One test body for the real and the simulated implementations of the seam.
//!
//! What is simulated is only worth something as long as it behaves like what it stands for, so
//! both run these same bodies: this crate's tests against the machine, the simulator's tests
//! against its plugins. What they cannot test is a power cut; the simulator's own tests do.
//!
//! Every function panics with a sentence that says which promise was broken.

mod disk;
mod links;
mod network;

pub use disk::disk;
pub use links::links;
pub use network::network;

use std::fmt::Display;
use std::io;

/// The value, or a panic that says what was tried.
fn good<T>(tried: &str, result: Result<T, impl Display>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{tried}: {error}"),
    }
}

/// Panics unless the call failed in this way.
fn fails<T>(tried: &str, kind: io::ErrorKind, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("{tried}: succeeded instead of failing with {kind:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{tried}: {error}"),
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use crate::real::TracingObserver;
    use crate::{Host, task};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    #[test]
    fn the_real_disk_conforms() {
        let directory = std::env::temp_dir().join(format!("fulmar-disk-{}", std::process::id()));
        task::block_on(async {
            let host = Host::real(Arc::new(TracingObserver::default())).unwrap();
            super::disk(&host, &directory).await;
        });
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_real_network_conforms() {
        task::block_on(async {
            let host = Host::real(Arc::new(TracingObserver::default())).unwrap();
            let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            super::network(&host, &host, any_port).await;
        });
    }
}

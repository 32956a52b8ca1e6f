//! A store on a real disk for the unit tests of this crate, and a process that only remembers its
//! end.
//!
//! Invariant: each test names another directory, which goes with the test.

use crate::suite::fresh_store;
use fulmar_host::Host;
use fulmar_host::process::Process;
use fulmar_host::real::TracingObserver;
use fulmar_store::Store;
use fulmar_types::ExitCode;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Remembers how the process would have ended.
#[derive(Default)]
pub struct End(Mutex<Option<(ExitCode, String)>>);

impl Process for End {
    fn exit(&self, code: ExitCode, message: &str) {
        self.0.lock().unwrap().get_or_insert((code, message.to_owned()));
    }
}

impl End {
    pub fn seen(&self) -> Option<(ExitCode, String)> {
        self.0.lock().unwrap().clone()
    }
}

/// What a test works with.
pub struct Bench {
    pub host: Host,
    pub end: Arc<End>,
    pub directory: PathBuf,
}

impl Bench {
    pub fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("fulmar-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let end = Arc::new(End::default());
        let real = Host::real(Arc::new(TracingObserver::default())).expect("threads");
        Self { host: Host { process: end.clone(), ..real }, end, directory }
    }

    /// The store of an initialised node.
    pub async fn store(&self) -> Arc<Store> {
        fresh_store(self.host.clone(), self.directory.clone()).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

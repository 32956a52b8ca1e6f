//! openraft's own suites on real timers and a real disk. The simulator runs them on simulated
//! ones.

use fulmar_host::real::TracingObserver;
use fulmar_host::{Host, task};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn the_log_store_and_the_state_machine_pass_the_suite_of_openraft() {
    let root = std::env::temp_dir().join(format!("fulmar-suite-{}", std::process::id()));
    let (number, below) = (AtomicU32::new(0), root.clone());
    let directory = move || below.join(number.fetch_add(1, Ordering::Relaxed).to_string());
    let ran = task::block_on(async {
        let host =
            Host::real(Arc::new(TracingObserver::default())).expect("threads for input and output");
        fulmar_consensus::suite::run(host, directory).await
    });
    assert_eq!(ran, 45);
    std::fs::remove_dir_all(&root).expect("it was made here");
}

#[test]
fn the_runtime_passes_the_suite_of_openraft() {
    fulmar_consensus::suite::run_runtime();
}

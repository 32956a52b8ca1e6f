//! The simulator is part of `cargo test --workspace`: its own tests, and a sweep over `smoke`.
//!
//! It is another build of the same sources, so it runs as a child `cargo`, through the aliases
//! that people use.

use fulmar_tests::cargo::run;

/// Enough for every smoke scenario to meet different draws; the long sweeps run by hand.
const SEEDS: &str = "10";

// One test, because both halves want the whole machine.
#[test]
fn the_simulator_passes_its_tests_and_a_smoke_sweep() {
    run(&["sim-test"]);
    run(&["sim", "sweep", "scenarios/smoke", "--seeds", SEEDS, "--jobs", "2"]);
    run(&["sim", "meta", "scenarios/smoke", "--seeds", "2"]);
}

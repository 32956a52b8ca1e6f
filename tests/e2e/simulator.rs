//! The simulator is part of `cargo test --workspace`: its own tests, a sweep over `smoke`, some
//! seeds of every scenario of `fast`, a planted bug that has to be caught and its replay.
//!
//! It is another build of the same sources, so it runs as a child `cargo`, through the aliases
//! that people use.

use fulmar_tests::cargo::{run, status_of};
use fulmar_tests::tidy::repository::root;
use std::sync::Mutex;
use std::thread;

/// Enough for every smoke scenario to meet different draws; the long sweeps run by hand.
const SMOKE_SEEDS: &str = "10";

/// Seeds of each scenario of `fast`: a look, not a sweep, which would have to hit every probe.
const FAST_SEEDS: u64 = 3;

/// The exit code of a run that violates safety.
const SAFETY: i32 = 11;

/// The exit code of a run that does not repeat.
const NONDETERMINISM: i32 = 13;

/// Scenarios that run side by side, one process each: as many as CI has cores.
const AT_A_TIME: usize = 2;

// One test, because every part of it wants the whole machine.
#[test]
fn the_simulator_passes_its_tests_and_finds_what_it_has_to_find() {
    // Its optimised build is linked by one core for minutes, in a directory of its own: the other core has the tests meanwhile.
    thread::scope(|scope| {
        scope.spawn(|| run(&["sim", "--version"]));
        run(&["sim-test"]);
    });
    run(&["sim", "sweep", "scenarios/smoke", "--seeds", SMOKE_SEEDS, "--jobs", "2"]);
    run(&["sim", "meta", "scenarios/smoke", "--seeds", "5"]);
    for leak in ["map", "select"] {
        let meta = ["sim", "meta", "scenarios/smoke", "--seeds", "20", "--leak", leak];
        assert_eq!(status_of(&meta), Some(NONDETERMINISM), "the leak `{leak}` was not noticed");
    }
    let failures = std::env::temp_dir().join(format!("fulmar-failures-{}", std::process::id()));
    let failures = failures.to_str().expect("a temporary directory has a plain name");
    each_of_fast(failures);
    let planted = ["--seed", "1", "--plant", "no-duplicate-check", "--failures", failures];
    let file = "scenarios/fast/crashes.toml";
    assert_eq!(status_of(&[&["sim", "run", file], &planted[..]].concat()), Some(SAFETY));
    let folder = format!("{failures}/crashes-no-duplicate-check-seed-1");
    assert_eq!(status_of(&["sim", "replay", &folder]), Some(SAFETY), "the replay fails alike");
    std::fs::remove_dir_all(failures).expect("the failure left its folder");
}

/// Runs some seeds of every scenario of `fast`.
fn each_of_fast(failures: &str) {
    let files = scenarios("fast").into_iter();
    let runs =
        Mutex::new(files.flat_map(|file| (0..FAST_SEEDS).map(move |seed| (file.clone(), seed))));
    let next = || runs.lock().expect("nobody panics with it").next();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((file, seed)) = next() {
                    let seed = seed.to_string();
                    run(&["sim", "run", &file, "--seed", &seed, "--failures", failures]);
                }
            });
        }
    });
}

fn scenarios(folder: &str) -> Vec<String> {
    let directory = root().join("scenarios").join(folder);
    let listed = std::fs::read_dir(directory).expect("the scenarios are there");
    let names = listed.map(|entry| entry.expect("it can be read").file_name());
    let mut files: Vec<String> =
        names.map(|name| format!("scenarios/{folder}/{}", name.to_string_lossy())).collect();
    files.sort();
    files
}

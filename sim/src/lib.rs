//! The deterministic simulator: world, scenarios, faults, checks, reports.
//!
//! | module | holds |
//! |---|---|
//! | [`check`] | what must hold of what the nodes report, one property a file |
//! | [`epochs`] | what the nodes of a site say of the epochs of its pipelines |
//! | [`history`] | what the clients saw, and the checks that need nothing else |
//! | [`linear`] | the linearizability checker for a partition's log |
//! | [`prng`] | random numbers out of a seed and a salt, one stream for every purpose |
//! | [`scenario`] | scenario files: reading, drawing, the timetable of the faults |
//! | [`trace`], [`spread`] | the hash over everything that happens; how long things take |
//! | `machine` | in a simulator build: the machines, each with a `Host` |
//! | `world` | in a simulator build: one run, from the first election to the verdict |
//! | [`report`], [`runner`], [`output`] | what a run says of itself; runs as processes of their own; words for people |
//! | `net`, `disk`, `clock` | in a simulator build: what the hosts are made of |
//!
//! Invariant: the modules of every build, apart from the runner and the output, are pure. They
//! read strings and values, draw only from the seed that they are given, and touch no clock, file,
//! socket or task.

pub mod check;
#[cfg(madsim)]
pub mod clock;
#[cfg(madsim)]
pub mod disk;
pub mod epochs;
pub mod history;
pub mod linear;
#[cfg(madsim)]
pub mod machine;
#[cfg(madsim)]
pub mod net;
pub mod output;
pub mod prng;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod spread;
pub mod trace;
#[cfg(madsim)]
pub mod world;

#[cfg(all(test, madsim))]
mod testing;

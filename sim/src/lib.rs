//! The deterministic simulator: world, scenarios, faults, checks, reports.
//!
//! | module | holds |
//! |---|---|
//! | [`check`] | what must hold of what the nodes report, one property a file |
//! | [`history`] | what the clients saw, and the checks that need nothing else |
//! | [`linear`] | the linearizability checker for a partition's log |
//! | [`prng`] | random numbers out of a seed and a salt, one stream for every purpose |
//! | [`scenario`] | scenario files: reading, drawing, the timetable of the faults |
//!
//! Invariant: these modules are pure. They read strings and values, draw only from the seed that
//! they are given, and touch no clock, file, socket or task.

pub mod check;
pub mod history;
pub mod linear;
pub mod prng;
pub mod scenario;

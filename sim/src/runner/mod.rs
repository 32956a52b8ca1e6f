//! The commands of `fulmar-sim`: one process for every run, so that no run can leave a trace in
//! another one.
//!
//! | module | command |
//! |---|---|
//! | [`files`] | finding scenario files, writing and reading failure folders |
//! | [`child`] | starting runs as processes of their own |
//! | [`sweep`] | many seeds of many scenarios, with a summary |
//! | [`meta`] | every seed twice, in surroundings that differ, compared byte by byte |
//! | [`plants`] | the table of planted bugs and what caught them |
//!
//! Invariant: this module and its children are the only ones of the simulator that touch real
//! files, processes and clocks; nothing here runs inside a simulation.

pub mod child;
pub mod files;
pub mod meta;
pub mod plants;
pub mod sweep;

//! Repository checks, conformance and end-to-end tests with real processes and foreign clients.
//!
//! | module | holds |
//! |---|---|
//! | [`tidy`] | the checks of the sources: layers, forbidden calls, sizes, links, words |
//! | [`cargo`] | child `cargo` processes: building a binary, running an alias |
//! | [`kafka`] | a Kafka client of a few requests, written by hand, that shares no code with ours |
//! | [`site`] | real nodes on loopback: start, wait, kill, restart |
//! | [`kcat`] | the foreign client |
//! | [`power_cut`] | SIGKILL made equal to a power cut |
//! | [`strace`] | the system calls of a node, with their times |
//! | [`tools`] | what a test does when a foreign program is missing |
//!
//! Invariant: nothing here is used by production code, and nothing here imports it, apart from
//! the parser of scenario files in one test. What the tests know about a node they know from its
//! command line and its sockets.

pub mod cargo;
pub mod kafka;
pub mod kcat;
pub mod power_cut;
pub mod site;
pub mod strace;
pub mod tidy;
pub mod tools;

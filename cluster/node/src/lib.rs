//! Composition: from a configuration to a running node.
//!
//! [`start`] is the only way up: the binary, the tests and every node of a simulation use it.
//!
//! Never: ask here or below whether the node is simulated.

mod start;

pub use start::{RunningNode, StartError, start};

//! Composition: from a configuration to a running node.
//!
//! [`start`] is the only way up: the binary, the tests and every node of a simulation use it; and
//! [`prepare_rejoin`] is the only way back for a node that lost its directory.
//!
//! Never: ask here or below whether the node is simulated.

mod health;
mod http;
mod metrics;
mod node_view;
mod start;

pub use start::{RejoinError, RunningNode, StartError, prepare_rejoin, start};

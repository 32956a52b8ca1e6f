//! The Raft group of a site. This is the only crate that knows openraft.
//!
//! | module | what |
//! |---|---|
//! | [`group`] | the handle that everything above uses: propose, read barrier, leadership |
//! | [`machine`] | the trait of the state machine that the log drives |
//! | [`runtime`] | openraft's runtime on top of the seam |
//! | `types`, `membership` | openraft's type parameters, and our forms of what it stores and sends |
//! | `log_store`, `state_machine`, `snapshot_data` | openraft's storage on top of the store |
//! | [`peer`] | messages between nodes, handshake, pipelined appends, shipping of segments |
//! | `lease` | how long nobody else can have been elected |
//! | [`bootstrap`] | how three empty nodes become a site, once |
//! | `maintenance` | snapshots, purge, garbage |
//!
//! Invariants: what is acknowledged is flushed on a majority; nothing of openraft's own formats is
//! stored or sent; a core that stopped ends the process.
//!
//! Never: name openraft outside this crate.

pub mod bootstrap;
mod catch_up;
pub mod group;
mod lease;
mod log_store;
pub mod machine;
mod maintenance;
mod membership;
pub mod peer;
mod rejoin;
pub mod runtime;
mod snapshot_data;
pub mod space;
mod state_machine;
pub mod suite;
#[cfg(test)]
mod testing;
mod types;

pub use bootstrap::prepare_rejoin;
pub use group::{
    Group, GroupSettings, Leadership, NodeSeen, ProposeError, Proposed, ReadError, ReadPoint,
    StartError,
};
pub use machine::{Applied, ApplyError, Machine, RestoreError, SharedMachine};
pub use peer::asking::{Answerer, AskError};

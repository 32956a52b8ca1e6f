//! Kafka semantics on top of the replicated log.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | what the entries of the log mean: topics, offsets, duplicates |
//! | [`site`] | the state machine as the apply loop and the handlers share it |
//! | [`group`] | what is needed of the Raft group and of the stored records |
//! | `raft`, [`stored`] | the two of them, out of the consensus crate and the store |
//! | [`proposer`] | units into entries: group commit without a timer |
//! | [`planner`] | what files of pipelines mean, by whoever knows |
//! | [`broker`], [`settings`], [`handlers`] | the APIs |
//! | [`server`] | connections |
//! | [`counters`] | what is counted |
//! | [`link_states`], [`link_figures`] | what becomes of the links to other sites |
//! | `anywhere` | units that any node may want in the log |
//! | `age`, `upkeep` | how old the site is, and what goes for its age |
//! | `principal` | who asks |
//! | `error_map` | every error as a Kafka code |
//!
//! Invariants: an answer "appended" means flushed on a majority and applied; nothing above the
//! commit is ever served; no panic and no unbounded allocation is reachable from a socket.
//!
//! Never: decide about an offset, a duplicate or a limit anywhere but in the state machine.

mod age;
mod answers;
mod anywhere;
pub mod broker;
pub mod counters;
mod error_map;
pub mod group;
pub mod handlers;
pub mod limits;
pub mod link_figures;
pub mod link_states;
pub mod machine;
pub mod planner;
mod principal;
pub mod proposer;
mod raft;
mod room;
pub mod server;
pub mod settings;
pub mod site;
pub mod stored;
mod unapplied;
mod upkeep;

#[cfg(test)]
mod testing;

pub use broker::Broker;
pub use principal::Principal;
pub use settings::BrokerSettings;
pub use site::Site;

//! The vocabulary of Fulmar: identifiers, positions, limits, configuration, exit codes and events.
//!
//! Invariants: no I/O, no async, no clock, no randomness. Everything here is plain data that every
//! other crate may import, so a word that is defined here means the same thing everywhere
//! (docs/GLOSSARY.md).
//!
//! Never: a dependency on any other Fulmar crate.

pub mod config;
pub mod event;
pub mod exit;
pub mod gap;
pub mod id;
pub mod limits;
pub mod link;
pub mod pipeline;
pub mod plant;
pub mod probe;
pub mod rule;
pub mod units;

pub use event::{Event, Role};
pub use exit::ExitCode;
pub use id::{
    Incarnation, LogIndex, LogPosition, NodeId, Offset, PartitionIndex, SiteId, Term, TopicId, Uuid,
};
pub use plant::Plant;
pub use probe::Probe;

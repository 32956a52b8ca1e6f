//! A small Kafka client: producer, consumer, admin. Demo, bench and the workloads of the simulator
//! use it, so what they prove is proved over real bytes and the listener that every client meets.
//!
//! | module | what |
//! |---|---|
//! | [`connection`] | one connection: handshake, pipelined requests, answers in order |
//! | [`cluster`] | the site: metadata, who leads, connections by node, when to try again |
//! | [`producer`] | batches in order, one outcome each |
//! | [`consumer`] | reading by assignment |
//! | [`admin`], [`links`], [`pipelines`] | topics and producer ids; links to other sites and their rules; pipelines |
//! | [`fetch`], [`offsets`] | single requests, to the leader or to a node of the caller's choice |
//!
//! Invariants: a write whose outcome is not known is [`Outcome::Unknown`] and is never guessed;
//! every wait has a deadline; every queue has a bound.
//!
//! Never: a socket, a clock, or a random number of its own. The network comes from the host, so
//! the same client runs in a simulation.

pub mod admin;
pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod fetch;
pub mod links;
pub mod metadata;
pub mod offsets;
pub mod pipelines;
pub mod producer;
mod replace;
mod settings;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Target};
pub use connection::Connection;
pub use consumer::{Consumer, ConsumerSettings, Start};
pub use error::{CallError, ConnectError, LeaderError};
pub use fetch::{FetchError, Fetched, ReadRecord};
pub use links::{ChangeTold, DescribeError, LaidDown, LinkStatus, MadeOf};
pub use metadata::{Metadata, Place, TopicPartition};
pub use offsets::OffsetAt;
pub use pipelines::{PipelineSettings, PipelineStatus, SavepointTold};
pub use producer::{Acks, Outcome, Producer, ProducerSettings, SendError, WriteRecord};
pub use replace::Definitions;
pub use settings::Settings;

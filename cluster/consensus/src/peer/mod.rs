//! What the nodes of a site say to one another.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | how a message lies in the byte stream |
//! | [`message`] | the messages, and the codec that openraft's types never reach |
//! | [`connection`] | a connection after its handshake |
//! | [`control`] | questions over one connection that stays open |
//! | [`asking`] | what nodes ask the one that leads for those above |
//! | [`client`] | openraft's network on top of it: votes, pipelined appends, shipping |
//! | [`server`] | the listening side |
//! | [`installing`] | snapshots on their way into the core |
//! | [`ship`] | snapshots and whole segments on their way to a node behind the purge point |
//!
//! Invariants: every connection starts with a handshake that both sides can refuse by name; every
//! request has a deadline; answers come in the order of the requests.
//!
//! Never: allocate for a length that a peer claims before it is checked against its limit.

pub mod asking;
pub mod client;
pub mod connection;
pub mod control;
pub mod frame;
pub mod installing;
pub mod message;
pub mod server;
pub mod ship;

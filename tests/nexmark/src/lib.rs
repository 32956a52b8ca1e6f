//! The queries of Nexmark, a benchmark about auctions, as pipelines.
//!
//! | module | what |
//! |---|---|
//! | [`events`] | the events of a seed, and how they lie in a topic |
//! | [`queries`] | the queries |
//! | [`expected`] | what they must give, found out the slow way |
//! | [`run`] | the engine over the events, as an owner of a pipeline would run it |
//!
//! Invariant: a number of events gives the same bytes on every machine of 64 bits; the generator draws each
//! event from its number, and its first moment is fixed here.
//!
//! Never: share code between what the engine gives and what is expected of it.

pub mod events;
pub mod expected;
pub mod queries;
pub mod run;

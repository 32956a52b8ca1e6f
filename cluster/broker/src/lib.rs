//! Kafka semantics on top of the replicated log.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | what the entries of the log mean: topics, offsets, duplicates |

pub mod machine;

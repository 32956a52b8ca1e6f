//! What a pipeline has to give, found out the plain and slow way, for tests and for the simulator.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | some kinds of pipelines, their SQL, and records for them |
//! | [`model`] | after each epoch it looks at everything again, and says what is new |
//!
//! Invariant: nothing here shares code with the operators, not even the parser.
//!
//! Never: a state that goes from one epoch to the next, apart from watermarks, which are defined that way.

pub mod model;
pub mod spec;

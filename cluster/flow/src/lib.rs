//! Pipelines: SQL, its plan, and operators.
//!
//! | module | what |
//! |---|---|
//! | `problem` | what is wrong with a file, and where |
//! | `value` | values, exact numbers, points in time, JSON |
//! | `sql` | from text to statements |
//! | `plan` | from statements to typed operators |
//! | `eval` | computing expressions |
//! | `run` | operators and their state, over records that are given to them |
//! | `check` | the tests of a file |
//!
//! Everything here is pure: no clock, no thread, no random number, no I/O, no unordered iteration, no
//! number that depends on the machine. The same file gives the same plan, and the same epochs the same
//! bytes, however they are cut into batches.

mod check;
mod eval;
mod like;
mod pattern;
mod plan;
mod problem;
mod run;
mod sql;
mod value;

pub use check::{Verdict, run_fixtures};
pub use eval::Failure;
pub use plan::{Plan, plan};
pub use problem::{Position, Problem};
pub use run::Halt;
pub use run::awaited::Horizon;
pub use run::engine::Engine;
pub use run::epoch::CameOut;
pub use run::fates::Fates;
pub use run::kept::Change;
pub use run::letters::{Letters, Unfit};
pub use run::output::{Cutter, Cutting, OutputBatch, bytes_of};
pub use run::record::{Header, RETRIED, Record, Written};
pub use run::stored::records;
pub use run::taken::Cursor;
pub use run::tasks::Layout;
pub use value::codec::Malformed;

//! Is the history of a partition linearizable?
//!
//! The object is a log: `append` puts a batch at its end and tells the first offset, `latest` tells
//! the end, `read` tells the end and the records from an offset on. A history is linearizable if
//! every operation can be given one point between its call and its answer such that the operations,
//! taken in the order of their points, are what a log in one place would have answered
//! (Herlihy, Wing 1990). An append of unknown outcome has its point at any time after its call, or
//! none; a failed one has none.
//!
//! For objects in general the question is NP-complete (Gibbons, Korach 1997; checkers search over
//! orders: Wing, Gong 1993; Lowe 2017). A log gives its order away, because answers hold offsets:
//!
//! 1. An acknowledged append has its offsets, and so has every append of which a record was read
//!    (`place`). Two appends on one offset, or one on two, or an unknown record: no order exists.
//! 2. All other operations told an end: they stand between the append that reaches it and the next
//!    one. So the order is known up to operations that told the same end, which commute.
//! 3. With the order known, the earliest points are forced: each operation takes the later of its
//!    call and the point before it. None of these may lie after the answer (`order`). One pass.
//! 4. Offsets that no read covers and no acknowledgement names must be filled by unknown appends;
//!    which, is searched by dynamic programming, among those of one size the earliest call first,
//!    since any solution can be exchanged into that one.
//!
//! So the check is exact, and takes n log n time when every offset was read or acknowledged.
//!
//! Never: a verdict that depends on the order in which operations are handed in.

mod order;
mod place;
mod violation;

pub use violation::{Rule, Spot, Violation};

use crate::history::Operation;

/// Checks the operations of one partition.
///
/// # Errors
/// The operations that cannot have happened on one log, and why.
///
/// # Panics
/// If a payload is produced by two operations: what was read could then not be told apart.
pub fn check(operations: &[&Operation]) -> Result<(), Violation> {
    let placed = place::place(operations)?;
    order::order(&placed)
}

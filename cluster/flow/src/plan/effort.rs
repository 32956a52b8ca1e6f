//! How much is planned for one file.
//!
//! A file is planned on the one thread of a node, by its leader and again by every owner. So all that is looked at
//! counts, also what turns out to be wrong or is thrown away again, and whoever looks at expressions counts on the same
//! account.
//!
//! Invariant: what was spent is gone when the planner is done, and nothing but a refusal depends on it.

use crate::problem::{Position, Problem};
use std::cell::Cell;

/// A column or a look at a part of an expression is 1.
const EFFORT_MAX: usize = 300_000;

thread_local! {
    static SPENT: Cell<usize> = const { Cell::new(0) };
}

/// While there is one, a file is being planned.
#[derive(Debug)]
pub struct Effort(());

impl Effort {
    /// From here on it counts.
    pub fn begin() -> Self {
        SPENT.set(0);
        Self(())
    }

    /// Whether nothing is left: then the rest of the file need not be looked at.
    pub fn is_spent(&self) -> bool {
        SPENT.get() > EFFORT_MAX
    }
}

impl Drop for Effort {
    fn drop(&mut self) {
        SPENT.set(0);
    }
}

/// So much is looked at, at a place.
///
/// # Errors
/// If it is too much for one file.
pub fn spend(effort: usize, at: impl FnOnce() -> Position) -> Result<(), Problem> {
    let spent = SPENT.get().saturating_add(effort);
    SPENT.set(spent);
    if spent > EFFORT_MAX {
        let expected = "fewer columns, expressions and patterns; a named query counts wherever it is read, and what stands behind a \
             GROUP BY once for each operator around it";
        return Err(Problem::expected(at(), "too much for one file", expected));
    }
    Ok(())
}

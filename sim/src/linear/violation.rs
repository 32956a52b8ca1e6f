//! Why a history is not linearizable, for people: the two or three operations that contradict one
//! another, and the sentence that says how.

use crate::history::{Operation, Payload};
use fulmar_types::Offset;
use std::fmt;

/// Where an operation stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// It appended the records at these offsets, the second excluded.
    Holds(Offset, Offset),
    /// It is the best that can have appended the records at these offsets, which nobody read.
    Fills(Offset, Offset),
    /// It saw the log end here.
    SawEnd(Offset),
    /// It saw the log end before this offset.
    SawNo(Offset),
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds(from, to) => write!(f, "holds the offsets {from} to {}", to.get() - 1),
            Self::Fills(from, to) => {
                write!(f, "is the best to hold the offsets {from} to {}", to.get() - 1)
            }
            Self::SawEnd(end) => write!(f, "saw the log end at {end}"),
            Self::SawNo(offset) => write!(f, "saw the log end before {offset}"),
        }
    }
}

/// What is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A record was read that nobody produced.
    NeverAppended {
        /// Where.
        offset: Offset,
        /// What.
        payload: Payload,
    },
    /// A record was read whose append had failed for good.
    FailedAppendSeen {
        /// Where.
        offset: Offset,
    },
    /// One append stands at two places.
    TwoPlaces {
        /// The one.
        first: Offset,
        /// The other.
        second: Offset,
    },
    /// Two appends stand at one place.
    Overlap {
        /// An offset that both hold.
        offset: Offset,
    },
    /// A batch was seen in part.
    TornBatch {
        /// The offset at which it is torn.
        offset: Offset,
    },
    /// A read skipped or repeated an offset.
    NotConsecutive {
        /// The offset that had to come.
        expected: Offset,
        /// The one that came.
        found: Offset,
    },
    /// A read begins or ends above the end of the log that itself tells.
    BeyondEnd {
        /// The end that it tells.
        end: Offset,
    },
    /// A read from the first offset was out of range.
    NothingBeforeZero,
    /// The log went on, but nothing can have been appended here.
    Hole {
        /// The first offset of the hole.
        from: Offset,
        /// The first after it.
        to: Offset,
    },
    /// In the log one operation comes before another that was over before it began.
    TooLate {
        /// Where the first in the log stands: it began too late.
        before: Spot,
        /// Where the second in the log stands: it was over too early.
        after: Spot,
    },
}

/// A history that no log can have given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    rule: Rule,
    operations: Vec<Operation>,
}

impl Violation {
    /// A violation with the operations that show it; repeated ones are left out.
    pub(super) fn new(rule: Rule, shown_by: &[&Operation]) -> Self {
        let mut operations: Vec<Operation> = Vec::new();
        for operation in shown_by {
            if !operations.contains(operation) {
                operations.push((*operation).clone());
            }
        }
        Self { rule, operations }
    }

    /// What is impossible.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The operations that show it.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Rule::NeverAppended { offset, payload } => {
                write!(f, "the record {payload} at offset {offset} was never produced")?;
            }
            Rule::FailedAppendSeen { offset } => {
                write!(f, "the record at offset {offset} was read, but its append had failed")?;
            }
            Rule::TwoPlaces { first, second } => {
                write!(f, "one append stands at offset {first} and also at {second}")?;
            }
            Rule::Overlap { offset } => write!(f, "two appends hold offset {offset}")?,
            Rule::TornBatch { offset } => write!(f, "a batch is torn at offset {offset}")?,
            Rule::NotConsecutive { expected, found } => {
                write!(f, "a read returned offset {found} where {expected} had to come")?;
            }
            Rule::BeyondEnd { end } => {
                write!(f, "a read goes beyond the end at {end} that it tells itself")?;
            }
            Rule::NothingBeforeZero => {
                write!(f, "a read from offset 0 was out of range, which no log is too short for")?;
            }
            Rule::Hole { from, to } => write!(
                f,
                "the log reached offset {to}, but nothing can have been appended from offset {from}"
            )?,
            Rule::TooLate { before, after } => write!(
                f,
                "(1) {before}, (2) {after}: so (1) came first, but (2) was over before (1) began"
            )?,
        }
        for (at, operation) in self.operations.iter().enumerate() {
            write!(f, "\n  ({}) {operation}", at + 1)?;
        }
        Ok(())
    }
}

//! What must hold of every history, one property a file, its source named.
//!
//! | check | what must hold |
//! |---|---|
//! | [`DamagedAnswer`] | no answer is damaged |
//! | [`AckedLost`] | no acknowledged record is lost |
//! | [`Invented`] | no record was never produced, or had failed for good |
//! | [`UncommittedRead`] | only what is committed is read |
//! | [`OutOfOrder`] | the records of a producer lie in the order of their numbers |
//! | [`Duplicate`] | no record of an idempotent producer lies in the log twice |
//! | [`Changed`] | one offset has one content for ever, whoever reads it |
//! | [`NotDense`] | no offset is skipped, but for what was declared not to be kept |
//! | [`Expired`] | no record goes before it has had its time, and none comes back |
//! | [`Miscounted`] | what is missing is declared, and counted |
//! | [`OverBudget`] | no partition holds more than its budget |
//! | [`NotLinearizable`] | every partition answers as one log in one place would |
//!
//! Invariants: a check draws no random number and changes nothing; it reports the first violation
//! of each partition that it finds, with the operations that show it.

mod acked_lost;
mod changed;
mod damaged_answer;
mod duplicate;
mod expired;
mod invented;
mod miscounted;
mod not_dense;
mod not_linearizable;
mod out_of_order;
mod over_budget;
mod uncommitted_read;

pub use acked_lost::AckedLost;
pub use changed::Changed;
pub use damaged_answer::DamagedAnswer;
pub use duplicate::Duplicate;
pub use expired::{Expired, Promise, Why};
pub use invented::Invented;
pub use miscounted::Miscounted;
pub use not_dense::NotDense;
pub use not_linearizable::NotLinearizable;
pub use out_of_order::OutOfOrder;
pub use over_budget::OverBudget;
pub use uncommitted_read::{Instead, UncommittedRead};

use super::{
    Action, Batch, Budget, History, Kept, Marker, Operation, PartitionName, Payload, ReadBack,
    SeenRecord,
};
use fulmar_types::Offset;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// Who saw a record at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// The client to whom the record was acknowledged, or one that read it.
    Operation(Box<Operation>),
    /// The reader of the whole log, at the end of the run.
    ReadBack,
}

impl Witness {
    fn of(operation: &Operation) -> Self {
        Self::Operation(Box::new(operation.clone()))
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(operation) => operation.fmt(f),
            Self::ReadBack => f.write_str("the reader of the whole log at the end of the run"),
        }
    }
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// See [`DamagedAnswer`].
    #[error(transparent)]
    DamagedAnswer(#[from] DamagedAnswer),
    /// See [`AckedLost`].
    #[error(transparent)]
    AckedLost(#[from] AckedLost),
    /// See [`Invented`].
    #[error(transparent)]
    Invented(#[from] Invented),
    /// See [`UncommittedRead`].
    #[error(transparent)]
    UncommittedRead(#[from] UncommittedRead),
    /// See [`OutOfOrder`].
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    /// See [`Duplicate`].
    #[error(transparent)]
    Duplicate(#[from] Duplicate),
    /// See [`Changed`].
    #[error(transparent)]
    Changed(#[from] Changed),
    /// See [`NotDense`].
    #[error(transparent)]
    NotDense(#[from] NotDense),
    /// See [`Expired`].
    #[error(transparent)]
    Expired(#[from] Expired),
    /// See [`Miscounted`].
    #[error(transparent)]
    Miscounted(#[from] Miscounted),
    /// See [`OverBudget`].
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// See [`NotLinearizable`].
    #[error(transparent)]
    NotLinearizable(#[from] NotLinearizable),
}

impl Violation {
    /// The name of the check that found it.
    pub fn check(&self) -> &'static str {
        match self {
            Self::DamagedAnswer(_) => "damaged_answer",
            Self::AckedLost(_) => "no_acked_record_lost",
            Self::Invented(_) => "nothing_invented",
            Self::UncommittedRead(_) => "uncommitted_read",
            Self::OutOfOrder(_) => "producer_order",
            Self::Duplicate(_) => "retry_once",
            Self::Changed(_) => "one_offset_one_content",
            Self::NotDense(_) => "offsets_dense",
            Self::Expired(_) => "kept_as_declared",
            Self::Miscounted(_) => "gaps_counted",
            Self::OverBudget(_) => "budget_kept",
            Self::NotLinearizable(_) => "linearizable",
        }
    }
}

/// Runs every check over every partition. The checks that explain most come first, because one bug
/// often violates several properties.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations: Vec<Violation> = Vec::new();
    for log in PartitionHistory::all(history) {
        violations.extend(damaged_answer::check(&log).map(Violation::from));
        violations.extend(acked_lost::check(&log).map(Violation::from));
        violations.extend(invented::check(&log).map(Violation::from));
        violations.extend(uncommitted_read::check(&log).map(Violation::from));
        violations.extend(duplicate::check(&log).map(Violation::from));
        violations.extend(changed::check(&log).map(Violation::from));
        violations.extend(not_dense::check(&log).map(Violation::from));
        violations.extend(expired::check(&log).map(Violation::from));
        violations.extend(miscounted::check(&log).map(Violation::from));
        violations.extend(over_budget::check(&log).map(Violation::from));
        violations.extend(out_of_order::check(&log).map(Violation::from));
        violations.extend(not_linearizable::check(&log).map(Violation::from));
    }
    violations
}

/// Where a payload comes from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    operation: &'a Operation,
    batch: &'a Batch,
    /// The number that its producer gave to it.
    sequence: u64,
}

/// One partition: what was done to it, and what was in it at the end.
struct PartitionHistory<'a> {
    name: &'a PartitionName,
    operations: Vec<&'a Operation>,
    read_back: Option<&'a ReadBack>,
    /// How long its records are kept from its creation on, if they may go at some time.
    kept: Option<Kept>,
    /// What its site says to be missing, if it was asked.
    markers: Option<&'a [Marker]>,
    origins: BTreeMap<Payload, Origin<'a>>,
}

impl<'a> PartitionHistory<'a> {
    fn all(history: &'a History) -> Vec<Self> {
        let mut partitions = history.by_partition();
        for name in history.read_backs().keys() {
            partitions.entry(name).or_default();
        }
        let with_origins = |(name, operations): (&'a PartitionName, Vec<&'a Operation>)| {
            let origins = operations.iter().copied().flat_map(origins).collect();
            let read_back = history.read_backs().get(name);
            let kept = history.kept().get(name).copied();
            let markers = history.markers().get(name).map(Vec::as_slice);
            Self { name, operations, read_back, kept, markers, origins }
        };
        partitions.into_iter().map(with_origins).collect()
    }

    /// What its topic says of its budget. The scenarios that change what is kept say nothing else.
    fn budget(&self) -> Budget {
        self.kept.unwrap_or_default().budget
    }

    /// Whether an offset may lack its record, although others before and behind it are kept. As long as
    /// the site was not asked, that may be any.
    fn may_lack(&self, offset: Offset) -> bool {
        let is_marked = |markers: &[Marker]| {
            markers.iter().any(|marker| marker.is_for_budget() && marker.spans(offset))
        };
        self.budget() == Budget::KeepOldest && self.markers.is_none_or(is_marked)
    }

    /// Whether that is so of each in a range.
    fn may_lack_all(&self, from: Offset, to: Offset) -> bool {
        (from.0..to.0).all(|offset| self.may_lack(Offset(offset)))
    }

    /// Every record that was ever seen, and by whom; those of the reader of the whole log last.
    fn seen(&self) -> impl Iterator<Item = (SeenRecord, Option<&'a Operation>)> {
        let reads = self.operations.iter().copied().flat_map(|operation| {
            operation.seen().iter().map(move |record| (*record, Some(operation)))
        });
        let whole = self.read_back.into_iter().flat_map(|read| &read.records);
        reads.chain(whole.map(|record| (*record, None)))
    }

    /// Every record that was acknowledged, where, and by which operation.
    fn acked(&self) -> impl Iterator<Item = (SeenRecord, &'a Operation)> {
        self.operations.iter().copied().flat_map(|operation| {
            operation.acked().into_iter().flat_map(move |(batch, base)| {
                (0..).map(move |at| base.plus(at)).zip(&batch.payloads).map(
                    move |(offset, payload)| (SeenRecord { offset, payload: *payload }, operation),
                )
            })
        })
    }

    /// Who saw it, for the report.
    fn witness(seen_by: Option<&Operation>) -> Witness {
        seen_by.map_or(Witness::ReadBack, Witness::of)
    }

    /// The content of every offset that was acknowledged or seen, as first told.
    fn contents(&self) -> BTreeMap<Offset, (Payload, Option<&'a Operation>)> {
        let mut contents = BTreeMap::new();
        let acked = self.acked().map(|(record, operation)| (record, Some(operation)));
        for (record, told_by) in acked.chain(self.seen()) {
            contents.entry(record.offset).or_insert((record.payload, told_by));
        }
        contents
    }
}

fn origins(operation: &Operation) -> Vec<(Payload, Origin<'_>)> {
    let Action::Produce { batch, .. } = &operation.action else { return Vec::new() };
    let numbered = (batch.sequence..).zip(&batch.payloads);
    numbered.map(|(sequence, payload)| (*payload, Origin { operation, batch, sequence })).collect()
}

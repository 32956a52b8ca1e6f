//! What is missing of a partition is declared, and counted exactly: a marker of its site, above the start of
//! the log, spans as many offsets without a record as it says (issue of mirrors, point 5: no gap without a
//! marker). Nothing is missing for the budget where the budget may only hold producers back.

use super::PartitionHistory;
use crate::history::{Budget, Marker, PartitionName};
use fulmar_types::Offset;
use std::collections::BTreeSet;
use thiserror::Error;

/// A marker that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{partition}: {marker}, and {why}")]
pub struct Miscounted {
    /// Where.
    pub partition: PartitionName,
    /// The marker.
    pub marker: Marker,
    /// What is wrong with it.
    pub why: String,
}

pub(super) fn check(log: &PartitionHistory<'_>) -> Option<Miscounted> {
    let read = log.read_back?;
    let there: BTreeSet<Offset> = read.records.iter().map(|record| record.offset).collect();
    log.markers?.iter().find_map(|marker| {
        let lacks = |at: &u64| !there.contains(&Offset(*at));
        let missing = (marker.first.0..marker.end.0).filter(lacks).count() as u64;
        // Elsewhere more may have gone since the log was read back.
        let keeps_rest = log.budget() == Budget::KeepOldest && log.kept?.for_ns.is_none();
        let is_above_start = keeps_rest && marker.first >= read.start;
        let why = if log.budget() == Budget::Block && marker.is_for_budget() {
            "the budget may only hold producers back".to_owned()
        } else if is_above_start && missing != marker.count {
            format!("{missing} are missing in the log that was read back")
        } else {
            return None;
        };
        Some(Miscounted { partition: log.name.clone(), marker: marker.clone(), why })
    })
}

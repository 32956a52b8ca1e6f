//! What a node reported as flushed is still there when it comes back (docs/ARCHITECTURE.md: an
//! acknowledgement counts flushes, so a flush that did not happen is a lie to the whole site).
//! Only a conflicting leader may remove a flushed entry, and the node says so before it begins: if it
//! ends before it is done, all of them may be there, some, or none.

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, LogIndex, LogPosition};
use std::collections::BTreeMap;

/// The last entry that each node reported as flushed.
#[derive(Default)]
pub struct FlushedSurvives {
    flushed: BTreeMap<SiteNode, LogPosition>,
    compared: u64,
}

impl Check for FlushedSurvives {
    fn name(&self) -> &'static str {
        "flushed_survives"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen.event {
            Event::SnapshotInstalled { last, tail_kept: false, .. } => {
                self.flushed.insert(seen.at, *last);
            }
            Event::Flushed { last, .. } | Event::SnapshotInstalled { last, .. } => {
                let flushed = self.flushed.entry(seen.at).or_insert(*last);
                *flushed = (*flushed).max(*last);
            }
            Event::Truncating { from } => {
                // What remains is at least as old; its term is not known here, and not needed.
                if let Some(flushed) = self.flushed.get_mut(&seen.at)
                    && flushed.index >= *from
                {
                    match from.get().checked_sub(1) {
                        Some(index) => flushed.index = LogIndex(index),
                        None => {
                            self.flushed.remove(&seen.at);
                        }
                    }
                }
            }
            Event::Recovered { last, .. } => {
                let Some(flushed) = self.flushed.get(&seen.at) else { return Ok(()) };
                self.compared += 1;
                let is_lost =
                    |last: LogPosition| last.index < flushed.index && last.term <= flushed.term;
                if last.is_none_or(is_lost) {
                    let found = last.map_or("nothing".to_owned(), |last| last.to_string());
                    return Err(format!(
                        "{} had flushed up to index {}, and found {found} when it came back",
                        seen.at, flushed.index
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wiped(&mut self, node: SiteNode) {
        self.flushed.remove(&node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{position, run};
    use super::*;

    fn flushed(index: u64) -> Event {
        Event::Flushed { last: position(1, index), entries: 1, bytes: 512 }
    }

    fn recovered(index: Option<u64>) -> Event {
        Event::Recovered {
            last: index.map(|index| position(1, index)),
            snapshot: None,
            cut_bytes: 0,
        }
    }

    #[test]
    fn what_was_flushed_must_be_found_again() {
        let mut check = FlushedSurvives::default();
        assert_eq!(run(&mut check, &[(1, flushed(4)), (1, recovered(Some(4)))]), None);
        assert_eq!(
            run(
                &mut check,
                &[(1, Event::Truncating { from: LogIndex(2) }), (1, recovered(Some(1)))]
            ),
            None
        );
        assert!(run(&mut check, &[(1, flushed(6)), (1, recovered(Some(5)))]).is_some());
        assert!(run(&mut check, &[(2, flushed(0)), (2, recovered(None))]).is_some());
    }

    #[test]
    fn an_installation_may_take_a_tail_that_the_leader_has_not() {
        let installed =
            |tail_kept| Event::SnapshotInstalled { last: position(1, 6), segments: 1, tail_kept };
        let mut check = FlushedSurvives::default();
        let events = [(1, flushed(9)), (1, installed(false)), (1, recovered(Some(6)))];
        assert_eq!(run(&mut check, &events), None);
        let events = [(1, flushed(9)), (1, installed(true)), (1, recovered(Some(6)))];
        assert!(run(&mut check, &events).is_some());
    }

    #[test]
    fn an_installation_may_be_cut_short_before_its_report() {
        let recovered = |term| {
            let last = Some(position(term, 6));
            (1, Event::Recovered { last, snapshot: last, cut_bytes: 0 })
        };
        let mut check = FlushedSurvives::default();
        assert_eq!(run(&mut check, &[(1, flushed(9)), recovered(2)]), None);
        assert!(run(&mut check, &[(1, flushed(9)), recovered(1)]).is_some());
    }

    #[test]
    fn a_truncation_that_was_begun_leaves_all_some_or_nothing_to_find() {
        let mut check = FlushedSurvives::default();
        let events =
            [(1, flushed(4)), (1, Event::Truncating { from: LogIndex(0) }), (1, recovered(None))];
        assert_eq!(run(&mut check, &events), None);
        let begun = |found| [(1, flushed(6)), (1, Event::Truncating { from: LogIndex(3) }), found];
        for found in 2..=6 {
            let mut check = FlushedSurvives::default();
            assert_eq!(run(&mut check, &begun((1, recovered(Some(found))))), None, "{found}");
        }
        let mut check = FlushedSurvives::default();
        assert!(run(&mut check, &begun((1, recovered(Some(1))))).is_some(), "not asked for");
    }
}

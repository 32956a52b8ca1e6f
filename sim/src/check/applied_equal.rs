//! State machine safety: once a node has applied an entry at an index, no node applies another one
//! there (Ongaro 2014, figure 3.2), and the whole state after it is the same on all nodes, by
//! hash. A node applies without gaps; only a restart or a snapshot moves it.

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, LogIndex, LogPosition};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Step {
    position: LogPosition,
    content: u64,
    state: u128,
}

/// What was applied where.
#[derive(Default)]
pub struct AppliedEqual {
    applied: BTreeMap<(u16, LogIndex), (Step, SiteNode)>,
    last: BTreeMap<SiteNode, LogIndex>,
    compared: u64,
}

impl AppliedEqual {
    fn state_at(
        &mut self,
        seen: &Observation<'_>,
        last: LogPosition,
        state: u128,
    ) -> Result<(), String> {
        let Some((known, by)) = self.applied.get(&(seen.at.site, last.index)) else {
            return Ok(());
        };
        self.compared += 1;
        if known.position != last || known.state != state {
            return Err(format!(
                "{} has a snapshot of {last} with state {state:032x}; {by} applied {} there and \
                 had state {:032x}",
                seen.at, known.position, known.state
            ));
        }
        Ok(())
    }
}

impl Check for AppliedEqual {
    fn name(&self) -> &'static str {
        "applied_equal"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let (position, content, state) = match seen.event {
            Event::Applied { position, content, state } => (*position, *content, *state),
            Event::SnapshotSaved { last, state } => return self.state_at(seen, *last, *state),
            Event::SnapshotInstalled { last, .. } => {
                self.last.insert(seen.at, last.index);
                return Ok(());
            }
            Event::Recovered { .. } => {
                self.last.remove(&seen.at);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if let Some(last) = self.last.insert(seen.at, position.index)
            && position.index != last.next()
        {
            return Err(format!("{} applied {position} right after index {last}", seen.at));
        }
        let mine = Step { position, content, state };
        let key = (seen.at.site, position.index);
        let (first, by) = *self.applied.entry(key).or_insert((mine, seen.at));
        self.compared += 1;
        if first == mine {
            return Ok(());
        }
        Err(format!(
            "index {}: {by} applied {} with content {:016x} and came to state {:032x}; {} applied \
             {position} with content {content:016x} and came to state {state:032x}",
            position.index, first.position, first.content, first.state, seen.at
        ))
    }

    fn wiped(&mut self, node: SiteNode) {
        self.last.remove(&node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, position, run};
    use super::*;

    #[test]
    fn equal_logs_and_states_pass() {
        let mut check = AppliedEqual::default();
        let events = [
            (1, applied(1, 0, 1)),
            (2, applied(1, 0, 1)),
            (1, applied(1, 1, 2)),
            (1, Event::Recovered { last: Some(position(1, 1)), snapshot: None, cut_bytes: 0 }),
            (1, applied(1, 0, 1)),
            (2, Event::SnapshotInstalled { last: position(1, 1), segments: 1, tail_kept: true }),
            (2, Event::SnapshotSaved { last: position(1, 1), state: 2 }),
            (2, applied(1, 2, 3)),
        ];
        assert_eq!(run(&mut check, &events), None);
        assert_eq!(check.compared(), 6);
    }

    #[test]
    fn another_entry_another_state_and_a_gap_are_caught() {
        let start = [(1, applied(1, 0, 1)), (1, applied(1, 1, 2))];
        for bad in [
            (2, applied(2, 1, 2)),
            (2, Event::Applied { position: position(1, 1), content: 2, state: 9 }),
            (1, applied(1, 3, 4)),
            (2, Event::SnapshotSaved { last: position(1, 1), state: 9 }),
        ] {
            let mut check = AppliedEqual::default();
            assert_eq!(run(&mut check, &start), None);
            assert!(run(&mut check, std::slice::from_ref(&bad)).is_some(), "{bad:?}");
        }
    }
}

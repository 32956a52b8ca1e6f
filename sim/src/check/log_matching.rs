//! Log matching: two entries with the same index and term have the same content, and so have all
//! entries before them (Ongaro 2014, section 3.5 and figure 3.2). The second half follows, entry by
//! entry, if the same entry always has the same one before it.

use super::node_log::NodeLogs;
use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Term};
use std::collections::BTreeMap;

/// What was first appended at which place of which site's log, and by whom.
struct First {
    content: u64,
    by: NodeId,
    /// The term of the entry before it, once a node had that one.
    before: Option<(Term, NodeId)>,
}

/// The entries of each site, and the terms of each node's log.
#[derive(Default)]
pub struct LogMatching {
    entries: BTreeMap<(u16, LogPosition), First>,
    logs: NodeLogs,
    compared: u64,
}

impl LogMatching {
    fn content(&mut self, at: SiteNode, position: LogPosition, content: u64) -> Result<(), String> {
        let first = First { content, by: at.node, before: None };
        let first = self.entries.entry((at.site, position)).or_insert(first);
        self.compared += 1;
        if first.content == content {
            return Ok(());
        }
        let (node, First { content: other, by, .. }) = (at.node, first);
        Err(format!(
            "entry {position} is {other:016x} on node {by} and {content:016x} on node {node}"
        ))
    }

    fn appended(&mut self, at: SiteNode, position: LogPosition) -> Result<(), String> {
        let before = position.index.get().checked_sub(1).map(LogIndex);
        let log = self.logs.of(at);
        let Some(before) = before.and_then(|index| log.term_at(index)) else { return Ok(()) };
        let Some(first) = self.entries.get_mut(&(at.site, position)) else { return Ok(()) };
        let (term, by) = *first.before.get_or_insert((before, at.node));
        self.compared += 1;
        if term == before {
            return Ok(());
        }
        let node = at.node;
        Err(format!(
            "entry {position} follows one of term {term} on node {by} and one of term {before} on \
             node {node}"
        ))
    }
}

impl Check for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let at = seen.at;
        self.logs.follow(seen);
        match seen.event {
            Event::Appended { position, content } => {
                self.content(at, *position, *content)?;
                self.appended(at, *position)
            }
            Event::Applied { position, content, .. } => self.content(at, *position, *content),
            _ => Ok(()),
        }
    }

    fn wiped(&mut self, node: SiteNode) {
        self.logs.wiped(node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{appended, applied, run};
    use super::*;

    #[test]
    fn the_same_place_must_hold_the_same_content() {
        let mut check = LogMatching::default();
        let good = [(1, appended(1, 0, 7)), (2, appended(1, 0, 7)), (2, appended(2, 0, 8))];
        assert_eq!(run(&mut check, &good), None);
        assert!(run(&mut check, &[(3, applied(1, 0, 9))]).is_some());
    }

    #[test]
    fn the_same_entry_must_follow_the_same_one() {
        let mut check = LogMatching::default();
        let good = [
            (1, appended(1, 0, 7)),
            (1, appended(2, 1, 8)),
            (2, appended(1, 0, 7)),
            (2, appended(2, 1, 8)),
            (3, appended(1, 0, 7)),
            (3, Event::Truncated { from: LogIndex(0) }),
            (3, appended(2, 0, 6)),
        ];
        assert_eq!(run(&mut check, &good), None);
        let text = run(&mut check, &[(3, appended(2, 1, 8))]).expect("another one before it");
        assert!(text.contains("follows one of term 1 on node 1 and one of term 2 on node 3"));
    }
}

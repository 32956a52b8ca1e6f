//! The logs of the nodes, as their events tell them: which term has the entry at which index.
//!
//! What lies below an installed snapshot is taken as present: the snapshot's state is compared by
//! `applied_equal`. So is what a node finds that was never heard of: its site was put back to an older copy
//! of itself.

use super::{Observation, SiteNode};
use fulmar_types::{Event, LogIndex, LogPosition, Term};
use std::collections::BTreeMap;

/// The log of one node.
#[derive(Default)]
pub struct NodeLog {
    /// Entries below this index are covered by a snapshot.
    start: LogIndex,
    /// The last of them, unless it was cut off.
    covered: Option<LogPosition>,
    terms: BTreeMap<LogIndex, Term>,
    /// Something was heard of it, other than that the node could not start.
    is_heard: bool,
}

impl NodeLog {
    /// Entries below this index are covered by a snapshot.
    pub fn start(&self) -> LogIndex {
        self.start
    }

    /// The term of the entry at an index, where that is known.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        let covered = self.covered.filter(|covered| covered.index == index);
        self.terms.get(&index).copied().or(covered.map(|covered| covered.term))
    }

    /// Whether the entry is there, or covered.
    pub fn has(&self, position: LogPosition) -> bool {
        position.index < self.start() || self.terms.get(&position.index) == Some(&position.term)
    }

    fn install(&mut self, last: LogPosition, tail_kept: bool) {
        self.covered = Some(last);
        self.start = last.index.next();
        self.terms = self.terms.split_off(&self.start);
        if !tail_kept {
            self.terms.clear();
        }
    }

    fn follow(&mut self, event: &Event) {
        match event {
            Event::Appended { position, .. } => {
                self.terms.insert(position.index, position.term);
            }
            Event::Truncated { from } => {
                self.terms.split_off(from);
                self.start = self.start.min(*from);
                self.covered = self.covered.filter(|covered| covered.index < *from);
            }
            Event::Recovered { last, snapshot, .. } => {
                self.terms.split_off(&last.map_or(LogIndex(0), |last| last.index.next()));
                // A snapshot that ends where this log has no such entry was installed, and power
                // went before the report of that.
                if let Some(covered) = snapshot
                    && !self.has(*covered)
                {
                    self.install(*covered, true);
                }
            }
            Event::SnapshotInstalled { last, tail_kept, .. } => self.install(*last, *tail_kept),
            _ => {}
        }
    }
}

/// The logs of all nodes.
#[derive(Default)]
pub struct NodeLogs(BTreeMap<SiteNode, NodeLog>);

impl NodeLogs {
    /// Takes note of an event, and returns the log of its node.
    pub fn follow(&mut self, seen: &Observation<'_>) -> &NodeLog {
        let log = self.0.entry(seen.at).or_default();
        let is_new = !log.is_heard;
        log.is_heard |= !matches!(seen.event, Event::Fatal { .. });
        log.follow(seen.event);
        if let Event::Recovered { last: Some(last), .. } = seen.event
            && is_new
        {
            log.install(*last, false);
        }
        log
    }

    /// The log of a node.
    pub fn of(&mut self, node: SiteNode) -> &NodeLog {
        self.0.entry(node).or_default()
    }

    /// The disk of a node was emptied.
    pub fn wiped(&mut self, node: SiteNode) {
        self.0.remove(&node);
    }
}

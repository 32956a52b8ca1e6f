//! A node that tells which topics there are knows at least what it knew before, in an earlier life
//! too: a client that is told of a topic no more takes it for deleted. It is what Kafka has of a
//! broker that registers anew: it serves nobody before it has caught up (KIP-631, "fenced").
//!
//! What was installed on its disk it knows when its state is that, or when it comes back: it has told nobody before.

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, LogIndex};
use std::collections::BTreeMap;

/// How far each node has ever come.
#[derive(Default)]
pub struct TopicsCurrent {
    known: BTreeMap<SiteNode, LogIndex>,
    /// What was installed in this life.
    installed: BTreeMap<SiteNode, LogIndex>,
    compared: u64,
}

impl TopicsCurrent {
    fn knows(&mut self, at: SiteNode, index: LogIndex) {
        let known = self.known.entry(at).or_default();
        *known = (*known).max(index);
    }
}

impl Check for TopicsCurrent {
    fn name(&self) -> &'static str {
        "topics_current"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen.event {
            Event::Applied { position, .. } => self.knows(seen.at, position.index),
            Event::SnapshotInstalled { last, .. } => {
                self.installed.insert(seen.at, last.index);
            }
            Event::Recovered { .. } => {
                if let Some(index) = self.installed.remove(&seen.at) {
                    self.knows(seen.at, index);
                }
            }
            Event::TopicsTold { applied } => {
                self.compared += 1;
                let known = self.known.get(&seen.at).copied().unwrap_or_default();
                if applied.index < known {
                    return Err(format!(
                        "{} told which topics there are as of {applied}, and had once applied index \
                         {known}",
                        seen.at
                    ));
                }
                self.knows(seen.at, applied.index);
            }
            _ => {}
        }
        Ok(())
    }

    fn wiped(&mut self, node: SiteNode) {
        self.known.remove(&node);
        self.installed.remove(&node);
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, position, run};
    use super::*;

    fn told(index: u64) -> Event {
        Event::TopicsTold { applied: position(1, index) }
    }

    #[test]
    fn what_was_installed_counts_when_it_was_told_or_the_node_came_back() {
        let installed = |index| Event::SnapshotInstalled {
            last: position(1, index),
            segments: 1,
            tail_kept: false,
        };
        let mut check = TopicsCurrent::default();
        let begin = [(1, applied(1, 3, 7)), (1, installed(9)), (1, told(3)), (1, told(9))];
        assert_eq!(run(&mut check, &begin), None);
        assert!(run(&mut check, &[(1, told(3))]).is_some(), "it has told of 9");
        let mut check = TopicsCurrent::default();
        let recovered = Event::Recovered { last: None, snapshot: None, cut_bytes: 0 };
        let begin = [(1, applied(1, 3, 7)), (1, installed(9)), (1, recovered)];
        assert_eq!(run(&mut check, &begin), None);
        assert!(run(&mut check, &[(1, told(3))]).is_some(), "it came back with 9");
    }

    #[test]
    fn nothing_is_forgotten_by_a_restart_but_by_a_wipe() {
        let mut check = TopicsCurrent::default();
        let recovered = Event::Recovered { last: None, snapshot: None, cut_bytes: 0 };
        let before = [(1, applied(1, 0, 7)), (1, applied(1, 1, 8)), (2, told(0)), (1, told(1))];
        assert_eq!(run(&mut check, &before), None);
        let after = [(1, recovered), (1, applied(1, 0, 7)), (1, told(0))];
        let text = run(&mut check, &after).expect("it knew index 1");
        assert_eq!(
            text,
            "node 1 of site 0 told which topics there are as of 1.0, and had once applied index 1"
        );
        check.wiped(SiteNode { site: 0, node: fulmar_types::NodeId(1) });
        assert_eq!(run(&mut check, &[(1, told(0))]), None);
        assert_eq!(check.compared(), 4);
    }
}

//! Log matching: two entries with the same index and term have the same content (Ongaro 2014,
//! section 3.5 and figure 3.2).

use super::{Check, Observation};
use fulmar_types::{Event, LogPosition, NodeId};
use std::collections::BTreeMap;

/// What was first appended at which place of which site's log, and by whom.
#[derive(Default)]
pub struct LogMatching {
    contents: BTreeMap<(u16, LogPosition), (u64, NodeId)>,
    compared: u64,
}

impl Check for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let (Event::Appended { position, content } | Event::Applied { position, content, .. }) =
            seen.event
        else {
            return Ok(());
        };
        let node = seen.at.node;
        let (first, by) =
            *self.contents.entry((seen.at.site, *position)).or_insert((*content, node));
        self.compared += 1;
        if first == *content {
            Ok(())
        } else {
            Err(format!(
                "entry {position} is {first:016x} on node {by} and {content:016x} on node {node}"
            ))
        }
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
}

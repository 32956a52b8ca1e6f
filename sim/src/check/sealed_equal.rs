//! Sealed segments are byte-identical on all nodes: same first index, same last index, same hash
//! (docs/design/store.md: shipping is "compare hashes, copy the file").

use super::{Check, Observation};
use fulmar_types::{Event, LogIndex, NodeId};
use std::collections::BTreeMap;

/// The first seal of each segment.
#[derive(Default)]
pub struct SealedEqual {
    sealed: BTreeMap<(u16, LogIndex), (LogIndex, u128, NodeId)>,
    compared: u64,
}

impl Check for SealedEqual {
    fn name(&self) -> &'static str {
        "sealed_equal"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Event::SegmentSealed { base, last, hash } = seen.event else { return Ok(()) };
        let node = seen.at.node;
        let first = *self.sealed.entry((seen.at.site, *base)).or_insert((*last, *hash, node));
        self.compared += 1;
        if (first.0, first.1) == (*last, *hash) {
            return Ok(());
        }
        Err(format!(
            "segment {base} ends at {} with hash {:032x} on node {}, and at {last} with hash \
             {hash:032x} on node {node}",
            first.0, first.1, first.2
        ))
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    #[test]
    fn segments_that_differ_are_caught() {
        let seal =
            |last, hash| Event::SegmentSealed { base: LogIndex(0), last: LogIndex(last), hash };
        let mut check = SealedEqual::default();
        assert_eq!(run(&mut check, &[(1, seal(9, 1)), (2, seal(9, 1))]), None);
        assert!(run(&mut check, &[(3, seal(9, 2))]).is_some());
        assert!(run(&mut check, &[(3, seal(8, 1))]).is_some());
    }
}

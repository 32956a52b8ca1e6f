//! How far the other site of a link is gets into the log of its origin while sessions last, however short each
//! of them is (design of mirrors: the position that the other side has acknowledged is logged at least every
//! five seconds).
//!
//! ```text
//! session         -1-|      -1-----|     -1-------|         seconds of a session count but for the first
//! said            X                                         before something as far is noted
//! noted                                      at least X
//! ```
//!
//! A node that is paused or does nothing does not age: half a second counts between two of its events at most.

use super::{Check, Observation, SiteNode};
use fulmar_types::{Event, Offset, PartitionIndex, TopicId};
use std::collections::BTreeMap;

/// How long the sessions of a link may last, taken together, until what was said is noted: as often as it is
/// tried when the site is disturbed.
const PATIENCE_NS: u64 = 16_000_000_000;

/// How long a session has to last until it is noted.
const AT_FIRST_NS: u64 = 1_000_000_000;

/// How long a node ages between two events at most.
const STEP_NS: u64 = 500_000_000;

/// A partition at the other site of a link: site, number of the link, topic, partition.
type Part = (u16, u64, TopicId, PartitionIndex);

/// What was said and is not noted.
struct Said {
    offset: Offset,
    /// How long sessions have lasted since.
    spent_ns: u64,
    /// The node with the session, and its age when that began.
    since: Option<(SiteNode, u64)>,
}

/// Follows what is said and what is noted.
#[derive(Default)]
pub struct PeerNoted {
    /// The age of each node, and when it was seen last.
    ages: BTreeMap<SiteNode, (u64, u64)>,
    noted: BTreeMap<Part, Offset>,
    said: BTreeMap<Part, Said>,
    compared: u64,
}

impl Said {
    fn lasted_ns(&self, age_ns: u64) -> u64 {
        let session = self.since.map_or(0, |(_, since)| age_ns - since);
        self.spent_ns + session.saturating_sub(AT_FIRST_NS)
    }
}

impl PeerNoted {
    fn age(&mut self, seen: &Observation<'_>) -> u64 {
        let (age, last) = self.ages.entry(seen.at).or_insert((0, seen.time_ns));
        *age += seen.time_ns.saturating_sub(*last).min(STEP_NS);
        *last = seen.time_ns;
        *age
    }

    fn confirmed(&mut self, part: Part, offset: Offset, at: (SiteNode, u64)) -> Result<(), String> {
        if self.noted.get(&part).is_some_and(|noted| *noted >= offset) {
            return Ok(());
        }
        let said = self.said.entry(part).or_insert(Said { offset, spent_ns: 0, since: None });
        if said.since.is_some_and(|(node, _)| node != at.0) {
            // Nobody has seen how the session before it ended.
            said.since = None;
        }
        said.since.get_or_insert(at);
        let lasted_ns = said.lasted_ns(at.1);
        if lasted_ns <= PATIENCE_NS {
            return Ok(());
        }
        let (_, link, topic, partition) = part;
        Err(format!(
            "{}: the other site of the link {link} has said that it has partition {partition} of topic {topic} up to \
             {}, and sessions of {} ms later nothing of that is in the log",
            at.0,
            said.offset,
            lasted_ns / 1_000_000
        ))
    }

    /// A session of a node has ended, or may have.
    fn ended(&mut self, at: SiteNode, age_ns: u64) {
        for said in self.said.values_mut() {
            if said.since.is_some_and(|(node, _)| node == at) {
                (said.spent_ns, said.since) = (said.lasted_ns(age_ns), None);
            }
        }
    }
}

impl Check for PeerNoted {
    fn name(&self) -> &'static str {
        "peer_noted"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let age = self.age(seen);
        match seen.event {
            Event::LinkConfirmed { link, topic, partition, offset } => {
                let part = (seen.at.site, *link, *topic, *partition);
                self.confirmed(part, *offset, (seen.at, age))?;
            }
            Event::LinkNoted { link, topic, partition, offset } => {
                self.compared += 1;
                let part = (seen.at.site, *link, *topic, *partition);
                let noted = self.noted.entry(part).or_default();
                *noted = (*noted).max(*offset);
                if self.said.get(&part).is_some_and(|said| said.offset <= *noted) {
                    self.said.remove(&part);
                }
            }
            Event::LinkDown { .. } => self.ended(seen.at, age),
            // The one before it may have ended with its process.
            Event::LinkUp { .. } => self.said.values_mut().for_each(|said| {
                said.since.take_if(|(node, _)| *node == seen.at);
            }),
            // Nothing is noted of it any more.
            Event::LinkForked { topic, partition, .. } => {
                self.said.retain(|of, _| (of.2, of.3) != (*topic, *partition));
            }
            _ => {}
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::{NodeId, Uuid};

    const SECOND: u64 = 1_000_000_000;

    /// What is wrong with sessions that last for so long each, when what is said in the first is noted in the last.
    fn wrong(sessions: u64, lasting_ns: u64) -> Option<String> {
        let mut check = PeerNoted::default();
        let (topic, partition) = (TopicId(Uuid([1; 16])), PartitionIndex(2));
        let said = Event::LinkConfirmed { link: 5, topic, partition, offset: Offset(7) };
        let down = Event::LinkDown { link: "hub".to_owned(), reason: "lost" };
        let mut time_ns = 0;
        let mut see = |event: &Event, time_ns| {
            let at = SiteNode { site: 0, node: NodeId(2) };
            check.observe(&Observation { at, time_ns, event }).err()
        };
        for _ in 0..sessions {
            let end = time_ns + lasting_ns;
            while time_ns < end {
                if let Some(wrong) = see(&said, time_ns) {
                    return Some(wrong);
                }
                time_ns += SECOND / 4;
            }
            see(&down, time_ns);
            // For an hour there is no line.
            time_ns += 3_600 * SECOND;
        }
        see(&Event::LinkNoted { link: 5, topic, partition, offset: Offset(8) }, time_ns);
        (0..100).find_map(|_| see(&said, time_ns))
    }

    #[test]
    fn what_is_said_and_never_noted_is_reported() {
        assert_eq!(wrong(1, 16 * SECOND), None);
        assert_eq!(wrong(5, 4 * SECOND), None);
        assert_eq!(wrong(50, SECOND), None, "too short for anything");
        for (sessions, lasting) in [(1, 18), (7, 4)] {
            let text = wrong(sessions, lasting * SECOND).expect("nothing is noted");
            assert!(text.contains("node 2 of site 0") && text.contains("up to 7"), "{text}");
        }
    }
}

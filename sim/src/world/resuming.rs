//! What a link had under way when another node took it over.
//!
//! Whichever node leads carries a link. What the one before had sent, or received, and nobody had committed at the
//! mirror, comes again then: the takeover was in the middle of something.
//!
//! Invariants: of one partition over one definition of a link only a change of the node counts, and only if a
//! batch (or a gap) that had passed the node before passes the new one as well. A copy that was made anew, or that goes
//! on where everything had come, is none.

use crate::check::SiteNode;
use fulmar_types::{Event, NodeId, Offset, PartitionIndex, Probe, TopicId};
use std::collections::BTreeMap;

/// Where a partition was on the giving side.
struct Given {
    node: NodeId,
    /// What the other side has said last that it has.
    has: Offset,
    /// The last that was sent and not known to be there.
    sent: Option<Offset>,
    /// What the node before had sent comes again, if this one sends something.
    repeats: bool,
}

/// Where a mirror was on the taking side, and who had received it.
struct Taken {
    node: NodeId,
    last: Offset,
}

/// What is known of all links.
#[derive(Default)]
pub struct Resuming {
    given: BTreeMap<(u16, u64, TopicId, PartitionIndex), Given>,
    taken: BTreeMap<(u16, TopicId, PartitionIndex), Taken>,
}

impl Resuming {
    /// Takes note of an event; returns the probe that it hits.
    pub fn observe(&mut self, at: SiteNode, event: &Event) -> Option<Probe> {
        let SiteNode { site, node } = at;
        match *event {
            Event::LinkConfirmed { link, topic, partition, offset } => {
                let new = Given { node, has: offset, sent: None, repeats: false };
                let given = self.given.entry((site, link, topic, partition)).or_insert(new);
                // A copy that has less than before was made anew.
                let is_same = offset >= given.has;
                let lacks = is_same && given.sent.is_some_and(|sent| offset <= sent);
                given.repeats = if given.node == node { given.repeats } else { lacks };
                given.sent = given.sent.filter(|_| given.node == node && lacks);
                (given.node, given.has) = (node, offset);
                None
            }
            Event::LinkShipped { link, topic, partition, from } => {
                let given = self.given.get_mut(&(site, link, topic, partition))?;
                if given.node != node {
                    return None;
                }
                given.sent = given.sent.max(Some(from));
                let repeats = std::mem::take(&mut given.repeats);
                repeats.then_some(Probe::OriginResumedMidBatch)
            }
            Event::LinkReceived { topic, partition, from } => {
                let new = Taken { node, last: from };
                let before = self.taken.insert((site, topic, partition), new)?;
                let repeats = before.node != node && from <= before.last;
                repeats.then_some(Probe::CopyResumedMidBatch)
            }
            _ => None,
        }
    }

    /// A site was put back to an older copy of itself.
    pub fn put_back(&mut self, site: u16) {
        self.given.retain(|(of, ..), _| *of != site);
        self.taken.retain(|(of, ..), _| *of != site);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Uuid;

    const TOPIC: TopicId = TopicId(Uuid([7; 16]));

    fn probes(events: &[(u64, char, u64)]) -> Vec<Probe> {
        let mut resuming = Resuming::default();
        let observed = events.iter().filter_map(|(node, what, offset)| {
            let (link, topic, partition) = (1, TOPIC, PartitionIndex(0));
            let offset = Offset(*offset);
            let event = match what {
                'h' => Event::LinkConfirmed { link, topic, partition, offset },
                's' => Event::LinkShipped { link, topic, partition, from: offset },
                _ => Event::LinkReceived { topic, partition, from: offset },
            };
            resuming.observe(SiteNode { site: 0, node: NodeId(*node) }, &event)
        });
        observed.collect()
    }

    #[test]
    fn what_another_node_had_sent_in_vain_counts_once_it_is_sent_again() {
        let before = [(1, 'h', 0), (1, 's', 0), (1, 's', 10), (1, 'h', 10), (1, 's', 20)];
        let then = |events: &[(u64, char, u64)]| probes(&[&before[..], events].concat());
        assert_eq!(then(&[(2, 'h', 20), (2, 's', 20)]), [Probe::OriginResumedMidBatch]);
        assert_eq!(then(&[(2, 'h', 10), (2, 's', 10), (2, 's', 20)]).len(), 1);
        assert_eq!(then(&[(2, 'h', 20)]), [], "nothing is sent yet");
        assert_eq!(then(&[(1, 'h', 10), (1, 's', 10)]), [], "the same node");
        assert_eq!(then(&[(2, 'h', 30), (2, 's', 30)]), [], "everything had come");
        assert_eq!(then(&[(2, 'h', 0), (2, 's', 0)]), [], "a new copy");
        assert_eq!(then(&[(1, 'h', 0), (2, 'h', 10), (2, 's', 10)]), [], "a new copy before");
    }

    #[test]
    fn what_another_node_had_received_and_not_committed_counts_when_it_comes_again() {
        assert_eq!(
            probes(&[(1, 'r', 0), (1, 'r', 10), (2, 'r', 10)]),
            [Probe::CopyResumedMidBatch]
        );
        assert_eq!(probes(&[(1, 'r', 0), (1, 'r', 10), (2, 'r', 20)]), []);
        assert_eq!(probes(&[(1, 'r', 10), (1, 'r', 10)]), []);
    }
}

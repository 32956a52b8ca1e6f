//! Events as lines of the log.

use crate::Observer;
use crate::time::{self, Duration, Instant};
use fulmar_types::event::NO_SITE_YET;
use fulmar_types::{Event, NodeId, TopicId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// A peer that is refused comes again several times a second, for days if nobody looks.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// A link that was up in between may be refused again so soon: its other side decides on both.
const LINK_REFUSED_AGAIN: Duration = Duration::from_secs(15);

/// A refusal that was logged.
#[derive(Debug)]
struct Logged {
    at: Instant,
    /// Whether it was logged since that it is over.
    is_over: bool,
}

/// What lines are about, for whoever wants to see more of one thing: the crate that reports the event, since
/// all of them are written here.
const LINKS: &str = "fulmar_mirror";

/// The same for the nodes of the site among themselves.
const PEERS: &str = "fulmar_consensus";

/// The same for what lies on the disk.
const STORE: &str = "fulmar_store";

/// Hands every event to `tracing`: what an operator wants to see at `info`, what happens per entry
/// at `trace`.
#[derive(Debug, Default)]
pub struct TracingObserver {
    /// The refusals of the last minute.
    refused: Mutex<BTreeMap<(Refused, &'static str), Logged>>,
}

/// Who is refused, or refuses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    /// A peer names itself, but a site has few numbers.
    Node(Option<NodeId>),
    /// Whoever is at an address; the port is another one each time. And whether he refuses this node.
    Address(IpAddr, bool),
    /// Who says at an address that he is of a site.
    Site(IpAddr, String),
    /// The other site of a link. And whether it refuses this one.
    Link(String, bool),
    /// What another site has, or says that it has, of a topic of this one. A site that is known can say so of
    /// any topic, and of each as often as it likes.
    Fork(TopicId),
}

/// Who can bring it about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Anybody who reaches a port of this node.
    Stranger,
    /// The other site of a link, by what it says.
    OtherSite,
    /// Nobody beyond the site and its links.
    Own,
}

impl By {
    fn of((who, reason): &(Refused, &'static str)) -> Self {
        match who {
            Refused::Address(..) | Refused::Site(..) => Self::Stranger,
            Refused::Node(_) if *reason != UNREACHABLE => Self::Stranger,
            Refused::Fork(_) => Self::OtherSite,
            Refused::Node(_) | Refused::Link(..) => Self::Own,
        }
    }

    const fn most(self) -> usize {
        match self {
            Self::Stranger => STRANGERS_MAX,
            Self::OtherSite => FORKS_MAX,
            Self::Own => OWN_MAX,
        }
    }
}

/// How many refusals of strangers are told apart; beyond that they are making names up.
const STRANGERS_MAX: usize = 64;

/// The same for topics with a fork. The state of the link names them all.
const FORKS_MAX: usize = 64;

/// The same for the nodes of the site and its links, of which there are so many and no more.
const OWN_MAX: usize = 4_096;

impl TracingObserver {
    /// Whether a refusal is to be logged now.
    fn is_due(&self, who: Refused, reason: &'static str) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::now();
        refused.retain(|_, logged| now.saturating_duration_since(logged.at) < REFUSED_AGAIN);
        let refusal = (who, reason);
        let by = By::of(&refusal);
        let alike = refused.keys().filter(|of| By::of(of) == by).count();
        if alike >= by.most() || refused.contains_key(&refusal) {
            return false;
        }
        refused.insert(refusal, Logged { at: now, is_over: false });
        true
    }

    /// Who does not come through to this node, or to whom it does not.
    fn observe_others(&self, event: &Event) {
        match event {
            // Part of every first start, and over in a moment.
            Event::PeerRefused { peer, reason: reason @ NO_SITE_YET } => {
                tracing::debug!(target: PEERS, ?peer, reason, "peer refused");
            }
            Event::PeerRefused { peer, reason } if self.is_due(Refused::Node(*peer), reason) => {
                tracing::warn!(target: PEERS, ?peer, reason, "peer refused");
            }
            Event::Distrusted { address, reason, by_peer } => {
                let is_due = self.is_due(Refused::Address(address.ip(), *by_peer), reason);
                match (is_due, by_peer) {
                    (false, _) => {}
                    (true, true) => {
                        tracing::warn!(%address, reason, "the other side does not trust this node");
                    }
                    (true, false) => {
                        tracing::warn!(%address, reason, "the other side is not trusted");
                    }
                }
            }
            Event::PeerUnreachable { peer, address, error }
                if self.is_due(Refused::Node(Some(*peer)), UNREACHABLE) =>
            {
                tracing::warn!(target: PEERS, %peer, %address, %error, "a node of the site cannot be reached");
            }
            // Whoever read that it could not be reached waits for this, at the same level.
            Event::PeerReached { peer } => {
                self.forget(Refused::Node(Some(*peer)), UNREACHABLE);
                tracing::warn!(target: PEERS, %peer, "the node can be reached again");
            }
            _ => {}
        }
    }

    /// What becomes of the links to other sites. What a stranger says of himself is printed as code.
    fn observe_links(&self, event: &Event) {
        match event {
            Event::LinkUp { link } if self.forget_link(link) => {
                tracing::warn!(target: LINKS, link, "the link is up again");
            }
            Event::LinkUp { link } => tracing::info!(target: LINKS, link, "the link is up"),
            Event::LinkDown { link, reason } => {
                tracing::info!(target: LINKS, link, reason, "the link is down")
            }
            Event::LinkUnreachable { link, error }
                if self.is_due(Refused::Link(link.clone(), false), UNREACHABLE) =>
            {
                tracing::warn!(target: LINKS, link, %error, "the other site of the link cannot be reached");
            }
            Event::LinkRefused { link, reason, by_peer }
                if self.is_due(Refused::Link(link.clone(), *by_peer), reason) =>
            {
                if *by_peer {
                    tracing::warn!(target: LINKS, link, reason, "the other site of the link refuses this one");
                } else {
                    tracing::warn!(target: LINKS, link, reason, "the other site of the link is refused");
                }
            }
            Event::SiteRefused { address, site, reason }
                if self.is_due(Refused::Site(address.ip(), site.clone()), reason) =>
            {
                tracing::warn!(target: LINKS, %address, ?site, reason, "a site that dialled is refused");
            }
            Event::SitePutBack { link }
                if self.is_due(Refused::Link(link.clone(), false), PUT_BACK) =>
            {
                tracing::error!(target: LINKS, link,
                    "the other site of the link has heard more of this one than it knows: this site was put back to an older copy \
                     of itself, or begun anew; look at its rules and links, then pause and resume the link"
                );
            }
            Event::LinkForked { topic, partition, offset }
                if self.is_due(Refused::Fork(*topic), FORK) =>
            {
                tracing::error!(target: LINKS,
                    %topic, %partition, %offset,
                    "a mirror and its origin differ: nothing more is copied"
                );
            }
            _ => {}
        }
    }

    /// The next such refusal is to be logged again.
    fn forget(&self, who: Refused, reason: &'static str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&(who, reason));
    }

    /// The next trouble with a link is to be logged again, if the last was not logged just now. Whether any was
    /// since it was up.
    fn forget_link(&self, link: &str) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, mut was_down) = (time::now(), false);
        refused.retain(|(who, _), logged| {
            if !matches!(who, Refused::Link(name, _) if name == link) {
                return true;
            }
            was_down |= !logged.is_over;
            logged.is_over = true;
            now.saturating_duration_since(logged.at) < LINK_REFUSED_AGAIN
        });
        was_down
    }
}
const PUT_BACK: &str = "put-back";

/// The same for a fork.
const FORK: &str = "fork";

/// Under which name a node that cannot be reached stands among the refusals.
const UNREACHABLE: &str = "unreachable";

impl Observer for TracingObserver {
    fn observe(&self, event: &Event) {
        match event {
            Event::Fatal { code, message } => {
                tracing::error!(code = code.code(), "{message}");
            }
            Event::PeerRefused { .. }
            | Event::Distrusted { .. }
            | Event::PeerUnreachable { .. }
            | Event::PeerReached { .. } => self.observe_others(event),
            Event::LinkUp { .. }
            | Event::LinkDown { .. }
            | Event::LinkRefused { .. }
            | Event::LinkUnreachable { .. }
            | Event::SiteRefused { .. }
            | Event::SitePutBack { .. }
            | Event::LinkForked { .. } => self.observe_links(event),
            Event::Recovered { last, snapshot, cut_bytes } => {
                tracing::info!(target: STORE, ?last, ?snapshot, cut_bytes, "recovered");
            }
            Event::Ready => tracing::info!("ready"),
            Event::RoleChanged { role, term, leader } => {
                tracing::info!(target: PEERS, ?role, %term, ?leader, "role changed");
            }
            // Somebody waits for it, and the level that is on by default is this one.
            Event::Rejoined => tracing::warn!(target: PEERS, "this node votes again"),
            Event::SnapshotInstalled { last, segments, .. } => {
                tracing::info!(target: STORE, %last, segments, "snapshot installed");
            }
            Event::VoteSaved { term, voted_for, committed } => {
                tracing::debug!(target: PEERS, %term, %voted_for, committed, "vote saved");
            }
            Event::Truncating { from } => tracing::debug!(target: STORE, %from, "truncating"),
            Event::Truncated { from } => tracing::debug!(target: STORE, %from, "truncated"),
            Event::Purged { to } => tracing::debug!(target: STORE, %to, "purged"),
            Event::SnapshotSaved { last, state } => {
                tracing::debug!(target: STORE, %last, state = format_args!("{state:032x}"), "snapshot saved");
            }
            Event::SegmentSealed { base, last, hash } => {
                tracing::debug!(target: STORE, %base, %last, hash = format_args!("{hash:032x}"), "segment sealed");
            }
            Event::Probe(probe) => tracing::debug!(probe = probe.name(), "probe"),
            Event::Appended { .. }
            | Event::Flushed { .. }
            | Event::Applied { .. }
            | Event::LeadProved { .. }
            | Event::TopicsTold { .. }
            | Event::EpochCommitted(_)
            | Event::LinkShipped { .. }
            | Event::LinkConfirmed { .. }
            | Event::LinkNoted { .. }
            | Event::LinkReceived { .. }
            | Event::QueueDepth { .. } => tracing::trace!(?event),
            // The vocabulary grows; an event that has no line of its own is still worth one.
            other => tracing::debug!(event = ?other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_logged_once_a_minute_and_names_are_not_kept_without_bound() {
        let observer = TracingObserver::default();
        assert!(observer.is_due(Refused::Node(Some(NodeId(1))), "other-site"));
        assert!(!observer.is_due(Refused::Node(Some(NodeId(1))), "other-site"));
        assert!(observer.is_due(Refused::Node(Some(NodeId(1))), "other-node"));
        assert!(observer.is_due(Refused::Node(Some(NodeId(2))), "other-site"));
        let told = (3..1_000)
            .filter(|node| observer.is_due(Refused::Node(Some(NodeId(*node))), "other-site"));
        assert_eq!(told.count(), STRANGERS_MAX - 3);
        let own = Refused::Node(Some(NodeId(1)));
        assert!(observer.is_due(own, UNREACHABLE), "strangers do not drown what is our own");
        assert!(observer.is_due(Refused::Link("hub".to_owned(), true), "paused"));
    }

    #[test]
    fn a_peer_that_refuses_and_welcomes_by_turns_does_not_fill_the_log() {
        let observer = TracingObserver::default();
        let hub = || Refused::Link("hub".to_owned(), true);
        let refused = (0..100).filter(|_| {
            let refused = observer.is_due(hub(), "paused");
            assert_eq!(
                observer.forget_link("hub"),
                refused,
                "what was logged is logged to be over"
            );
            refused
        });
        assert_eq!(refused.count(), 1);
        assert!(observer.is_due(Refused::Link("other".to_owned(), true), "paused"));
    }
}

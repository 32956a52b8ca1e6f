//! What becomes of the links of a node: said by whoever carries them, asked by whoever wants to know.
//!
//! Invariant: everything in here is of this process and of the term in which it leads; what has to
//! outlive it stands in the log.

use fulmar_host::time::Instant;
use fulmar_types::{Offset, PartitionIndex, TopicId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A link as the node that carries it sees it.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Since when records can pass, if they can.
    pub up_since: Option<Instant>,
    /// When the other site is dialled again, if nobody is dialling now.
    pub next_attempt: Option<Instant>,
    /// What went wrong last, and when.
    pub trouble: Option<(String, Instant)>,
    /// Bytes of records that went out since the node leads.
    pub sent_bytes: u64,
    /// Bytes of records that came in.
    pub received_bytes: u64,
    /// Partitions of the other site, by the name of the topic there, of which nothing more is taken in
    /// this session, and why.
    pub stopped: BTreeMap<(String, PartitionIndex), &'static str>,
    /// The offset that the other site waits for in partitions of this one, and when it said so. What is
    /// noted in the log is a few seconds older.
    pub has: BTreeMap<(TopicId, PartitionIndex), (Offset, Instant)>,
}

/// The links of a node, by name.
#[derive(Debug, Default)]
pub struct LinkStates(Mutex<BTreeMap<String, LinkState>>);

impl LinkStates {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, LinkState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has become of a link.
    pub fn note(&self, link: &str, change: impl FnOnce(&mut LinkState)) {
        let mut links = self.locked();
        match links.get_mut(link) {
            // Noted with every batch.
            Some(known) => change(known),
            None => change(links.entry(link.to_owned()).or_default()),
        }
    }

    /// What has become of a link.
    pub fn of(&self, link: &str) -> LinkState {
        self.locked().get(link).cloned().unwrap_or_default()
    }

    /// Forgets every link but those that are wanted.
    pub fn keep(&self, is_wanted: impl Fn(&str) -> bool) {
        self.locked().retain(|link, _| is_wanted(link));
    }
}

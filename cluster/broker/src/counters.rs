//! What a broker counts, for whoever wants to look at it.
//!
//! Invariants: a counter never goes back while the process lives, and begins at 0 with it; what is counted
//! by a name is counted by one of a fixed set, so nothing here grows with what clients send.
//!
//! Never: a name, a key, a value or anything else out of a record.

use fulmar_wire::{ApiKey, ErrorCode, SUPPORTED};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What it has come to.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of a broker.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections of clients that were accepted.
    pub connections: Counter,
    /// Connections that are over.
    pub connections_ended: Counter,
    /// Connections that were closed at once, because there were too many.
    pub connections_refused: Counter,
    /// Connections that were closed for what they sent: no request, one that cannot be answered, or a
    /// frame that did not come to its end.
    pub connections_faulty: Counter,
    /// Bytes of record batches that clients sent and that were good enough to be proposed.
    pub produce_bytes: Counter,
    /// Such batches.
    pub produce_batches: Counter,
    /// Bytes of record batches that clients were sent.
    pub fetch_bytes: Counter,
    requests: [Counter; SUPPORTED.len()],
    errors: Mutex<BTreeMap<(ApiKey, ErrorCode), u64>>,
}

impl Counters {
    /// A request was decoded.
    pub(crate) fn request(&self, api: ApiKey) {
        let at = SUPPORTED.iter().position(|range| range.api == api);
        if let Some(counter) = at.and_then(|at| self.requests.get(at)) {
            counter.add(1);
        }
    }

    /// A request, or what it says about one partition, was answered so.
    pub(crate) fn answered(&self, api: ApiKey, code: ErrorCode) {
        if !code.is_none() {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry((api, code)).or_default() += 1;
        }
    }

    /// How many requests there were of each API.
    pub fn requests(&self) -> impl Iterator<Item = (ApiKey, u64)> + '_ {
        SUPPORTED.iter().zip(&self.requests).map(|(range, counter)| (range.api, counter.get()))
    }

    /// How often requests were answered with each error, for the APIs that records go through.
    pub fn errors(&self) -> BTreeMap<(ApiKey, ErrorCode), u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Memory that is kept for one use, and how much of it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What for.
    pub name: &'static str,
    /// How much is in use.
    pub used_bytes: u64,
    /// How much there is.
    pub bytes: u64,
}

impl Pool {
    /// A pool that is a semaphore of so many bytes, in KiB.
    pub(crate) fn of(name: &'static str, room: &Arc<Semaphore>, bytes: usize) -> Self {
        let used_kib = (bytes / 1024).saturating_sub(room.available_permits());
        Self { name, used_bytes: used_kib as u64 * 1024, bytes: bytes as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_errors_are_counted_by_name() {
        let counters = Counters::default();
        counters.request(ApiKey::Fetch);
        counters.request(ApiKey::Fetch);
        counters.answered(ApiKey::Produce, ErrorCode::None);
        counters.answered(ApiKey::Produce, ErrorCode::RequestTimedOut);
        let fetches = counters.requests().find(|(api, _)| *api == ApiKey::Fetch);
        assert_eq!(fetches, Some((ApiKey::Fetch, 2)));
        let errors = counters.errors().into_iter().collect::<Vec<_>>();
        assert_eq!(errors, [((ApiKey::Produce, ErrorCode::RequestTimedOut), 1)]);
    }

    #[test]
    fn a_pool_says_what_is_taken() {
        let room = crate::room::room(8 << 10);
        let _some = room.try_acquire_many(3).expect("it is there");
        let pool = Pool::of("x", &room, 8 << 10);
        assert_eq!((pool.used_bytes, pool.bytes), (3 << 10, 8 << 10));
    }
}

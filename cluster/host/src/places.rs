//! A bounded number of places for connections on which nobody has proved anything yet.
//!
//! Invariant: whoever comes gets a place at once; if there is none left, the oldest goes of the address that has
//! most of them. So whoever takes many, and says nothing, takes them from himself.
//!
//! Never: make somebody wait for a stranger.

use crate::task::{self, Owned};
use crate::time::{self, Duration, Instant};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often it is said that there were too many.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Who takes a place, as far as he cannot choose it: a machine has the last half of an IPv6 address to itself.
fn source(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64,
    }
}

/// Who has to go so that somebody can have a place.
fn oldest_of_most<T>(taken: &BTreeMap<u64, (SocketAddr, T)>, newcomer: SocketAddr) -> Option<u64> {
    let mut counts = BTreeMap::from([(source(newcomer.ip()), 1)]);
    for (of, _) in taken.values() {
        *counts.entry(source(of.ip())).or_insert(0) += 1;
    }
    let most = counts.values().copied().max()?;
    // If several have as many, the oldest of all of theirs.
    let is_of_most = |of: &SocketAddr| counts.get(&source(of.ip())) == Some(&most);
    let oldest = taken.iter().find(|(_, (of, _))| is_of_most(of)).or(taken.iter().next());
    oldest.map(|(number, _)| *number)
}

#[derive(Default)]
struct Inner {
    next: u64,
    taken: BTreeMap<u64, (SocketAddr, Owned<()>)>,
    /// Who had to go and is not said yet, and when that was said last.
    dropped: u64,
    said: Option<Instant>,
}

/// Who had to go for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Where he is.
    pub address: SocketAddr,
    /// How many had to since that was said last, if it is to be said again.
    pub untold: Option<u64>,
}

/// The places of one listener. Dropping it ends what is done in them.
pub struct Places {
    most: usize,
    inner: Arc<Mutex<Inner>>,
}

impl Drop for Places {
    fn drop(&mut self) {
        // Tasks hold what holds them.
        let taken = std::mem::take(&mut locked(&self.inner).taken);
        drop(taken);
    }
}

fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// So many.
    pub fn new(most: usize) -> Self {
        Self { most, inner: Arc::default() }
    }

    /// Does something in a place for whoever is at an address. Returns who had to go for it.
    pub fn take(
        &self,
        address: SocketAddr,
        serve: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Gone> {
        let mut inner = locked(&self.inner);
        let goes = match inner.taken.len() >= self.most {
            true => oldest_of_most(&inner.taken, address),
            false => None,
        };
        let gone = goes.and_then(|number| inner.taken.remove(&number));
        inner.next += 1;
        let number = inner.next;
        let places = Arc::clone(&self.inner);
        // It cannot be over before it stands here: the lock is held.
        let serving = task::spawn_owned(async move {
            serve.await;
            let done = locked(&places).taken.remove(&number);
            // Dropping one's own task from within only marks it.
            drop(done);
        });
        inner.taken.insert(number, (address, serving));
        let (address, _) = gone?;
        Some(Gone { address, untold: inner.drop_one(time::now()) })
    }
}

impl Inner {
    /// Somebody had to go. How many did, if that is to be said now.
    fn drop_one(&mut self, now: Instant) -> Option<u64> {
        self.dropped += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < SAY_EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::block_on;
    use std::future::pending;
    use tokio::sync::oneshot;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn at(text: &str) -> SocketAddr {
        SocketAddr::new(ip(text), 7)
    }

    #[test]
    fn whoever_takes_many_places_takes_them_from_himself() {
        block_on(async {
            let places = Places::new(8);
            let (stranger, honest) = (at("10.0.0.1"), at("10.0.0.2"));
            for _ in 0..8 {
                assert_eq!(places.take(stranger, pending()), None);
            }
            let (done, served) = oneshot::channel();
            let (go, goes) = oneshot::channel::<()>();
            let gone = places.take(honest, async move {
                let _ = goes.await;
                let _ = done.send(());
            });
            assert_eq!(gone.map(|gone| gone.address), Some(stranger));
            for _ in 0..420 {
                let gone = places.take(stranger, pending());
                assert_eq!(gone.map(|gone| gone.address), Some(stranger));
            }
            go.send(()).expect("it is still there");
            served.await.expect("nobody has taken its place");
            time::sleep(Duration::from_millis(20)).await;
            assert_eq!(places.take(honest, pending()), None, "a place that is left is free");
        });
    }

    #[test]
    fn what_is_done_in_a_place_ends_with_it_and_with_all_of_them() {
        block_on(async {
            let places = Places::new(1);
            let address = at("10.0.0.1");
            let one = || {
                let (held, gone) = oneshot::channel::<()>();
                let hold = async move {
                    pending::<()>().await;
                    drop(held);
                };
                (hold, gone)
            };
            let ((first, first_gone), (second, second_gone)) = (one(), one());
            places.take(address, first);
            assert!(places.take(address, second).is_some());
            first_gone.await.expect_err("it had to go");
            drop(places);
            second_gone.await.expect_err("all of them went");
        });
    }

    #[test]
    fn the_halves_of_an_address_that_one_machine_has_are_one_source() {
        assert_eq!(source(ip("2001:db8::1")), source(ip("2001:db8::ffff:1")));
        assert_ne!(source(ip("2001:db8::1")), source(ip("2001:db8:0:1::1")));
        assert_ne!(source(ip("10.0.0.1")), source(ip("10.0.0.2")));
        assert_eq!(source(ip("::ffff:10.0.0.1")), source(ip("10.0.0.1")));
    }

    #[test]
    fn too_many_are_told_of_once_in_a_while() {
        let (mut inner, begun) = (Inner::default(), time::now());
        assert_eq!(inner.drop_one(begun), Some(1));
        for _ in 0..9 {
            assert_eq!(inner.drop_one(begun), None);
        }
        assert_eq!(inner.drop_one(begun + SAY_EVERY), Some(10));
    }
}

//! How long the site has existed: the clock that ages and expiries go by.
//!
//! A leader writes into each entry how old the site is. It goes on from what it has applied, by
//! its monotonic clock, so no wall clock has a say: setting one forward expires nothing. The price:
//! time in which all nodes are down does not count, nor (after a start) the time since the last
//! entry. What is kept for a week is kept for a week in which the site was up.
//!
//! Nodes differ in how late they hear of an entry, so each is behind the leader by another bit, and
//! a site may grow older a little later than time passes. Never sooner:
//!
//! ```text
//! leader of term 4    age 100 . . . . 103 . . . . 106            e4(t) = 100 + what has passed
//! follower             told 100 late: 102 . . . . 105            never ahead of e4
//! leader of term 5                                  105 . . .    goes on from there
//! the one of term 4                                 told 105: not 108, as it would go on by itself
//! ```
//!
//! Invariants: between two entries the age grows by no more than the time between their proposals,
//! whoever proposed them, so nothing is ever taken for older than it is. To that end the first entry
//! of a term decides, also where a node would be ahead of it; a leader that has not applied what
//! came before its term adds no time, and does not add it later either: within its term it goes on
//! from the first age that it gave, as fast as time does and no faster. Until that comes past the
//! oldest age that was ever given, the site stands still, and so does whoever follows: a node goes on
//! from what the entries of the term say, never from the age that they leave the site at.

use crate::site::Site;
use fulmar_host::time::{self, Instant};
use fulmar_host::{Host, planted};
use fulmar_types::{Plant, Term};

/// The age of the site now, in milliseconds, for the leader of this term.
pub(crate) fn age_ms(host: &Host, site: &Site, term: Term) -> u64 {
    if planted(Plant::AgeByWallClock) { host.clock.wall_ms() } else { site.age_ms(term) }
}

/// The age of the site as one node knows it.
#[derive(Debug, Default)]
pub(crate) struct AgeClock {
    told: Option<Told>,
    /// What this node said first as the leader of a term.
    gave: Option<Told>,
    /// The term of the last entry that was applied.
    term: Term,
}

/// What the log told.
#[derive(Clone, Copy, Debug)]
struct Told {
    age_ms: u64,
    /// In this term.
    term: Term,
    /// When this node came to know it, which is not before it was proposed.
    at: Instant,
}

impl Told {
    fn goes_on(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at);
        self.age_ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}

impl AgeClock {
    /// The age now, for the leader of a term; `applied_ms` is that of the last applied entry.
    pub(crate) fn now_ms(&mut self, term: Term, applied_ms: u64) -> u64 {
        self.at_ms(term, applied_ms, time::now())
    }

    fn at_ms(&mut self, term: Term, applied_ms: u64, at: Instant) -> u64 {
        // Within a term it goes on as fast as time does. What the own entries tell is late by as much
        // as it took to flush them: to follow that would make up later for a disk that was slow.
        if let Some(gave) = self.gave.filter(|gave| gave.term == term) {
            return gave.goes_on(at);
        }
        let told = self.told.filter(|_| self.term == term);
        let age_ms = told.map_or(applied_ms, |told| told.goes_on(at).max(applied_ms));
        self.gave = Some(Told { age_ms, term, at });
        age_ms
    }

    /// An entry of this term was applied that says this of the age.
    pub(crate) fn learn(&mut self, term: Term, said_ms: u64) {
        self.learn_at(term, said_ms, time::now());
    }

    /// A snapshot took the place of the state: the site was so old at its last entry, of this term.
    pub(crate) fn restored(&mut self, term: Term, age_ms: u64) {
        self.restored_at(term, age_ms, time::now());
    }

    /// An entry of this term was applied that says nothing of it.
    pub(crate) fn pass(&mut self, term: Term) {
        self.term = term;
    }

    fn restored_at(&mut self, term: Term, age_ms: u64, at: Instant) {
        self.term = term;
        // That may be more than the leader of this term says: its next entry decides (none is of
        // term 0, in which a site is founded).
        self.told = Some(Told { age_ms, term: Term(0), at });
    }

    fn learn_at(&mut self, term: Term, said_ms: u64, at: Instant) {
        self.term = term;
        let is_ahead = |told: &Told| {
            let same_term = told.term == term || planted(Plant::AgeRunsAhead);
            same_term && told.goes_on(at) >= said_ms
        };
        if !self.told.as_ref().is_some_and(is_ahead) {
            self.told = Some(Told { age_ms: said_ms, term, at });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn on_from(clock: &AgeClock, at: Instant) -> u64 {
        clock.told.expect("told").goes_on(at)
    }

    #[test]
    fn it_goes_on_from_what_the_log_told() {
        let start = time::now();
        let s = |s| start + Duration::from_secs(s);
        let mut clock = AgeClock::default();
        assert_eq!(clock.now_ms(Term(1), 7), 7, "nobody has told it anything");
        clock.learn_at(Term(1), 100, s(0));
        assert_eq!(on_from(&clock, s(2)), 2_100);
        // What the leader proposed a moment ago takes nothing back.
        clock.learn_at(Term(1), 1_900, s(2));
        assert_eq!(on_from(&clock, s(3)), 3_100);
        // This node was late with the entry before.
        clock.learn_at(Term(1), 5_000, s(4));
        assert_eq!(on_from(&clock, s(5)), 6_000);
    }

    #[test]
    fn the_first_entry_of_a_term_decides() {
        let start = time::now();
        let s = |s| start + Duration::from_secs(s);
        let mut clock = AgeClock::default();
        clock.learn_at(Term(1), 9_000, s(0));
        clock.learn_at(Term(2), 9_500, s(3));
        assert_eq!(on_from(&clock, s(4)), 10_500, "it would be at 13,000 by itself");
    }

    #[test]
    fn a_slow_disk_of_the_leader_is_not_made_up_for() {
        let start = time::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut clock = AgeClock::default();
        clock.pass(Term(1));
        // Entries come back after a second each at first, and then at once. The records of the third
        // would be older than they are if the first ones had been counted late.
        let gave =
            [(0, 1_000), (1_000, 2_000), (2_000, 2_001), (3_000, 3_001)].map(|(at, back)| {
                let age_ms = clock.at_ms(Term(1), 0, ms(at));
                clock.learn_at(Term(1), age_ms, ms(back));
                age_ms
            });
        assert_eq!(gave, [0, 1_000, 2_000, 3_000]);
    }

    #[test]
    fn a_leader_that_has_not_caught_up_adds_no_time_and_does_not_make_up_for_it() {
        let start = time::now();
        let s = |s| start + Duration::from_secs(s);
        let mut clock = AgeClock::default();
        clock.learn_at(Term(1), 9_000, s(0));
        assert_eq!(clock.at_ms(Term(1), 9_000, s(5)), 14_000);
        assert_eq!(clock.at_ms(Term(2), 9_000, s(5)), 9_000);
        // Else the record that it has just taken would be five seconds old.
        clock.pass(Term(2));
        assert_eq!(clock.at_ms(Term(2), 9_000, s(6)), 10_000);
        clock.learn_at(Term(2), 9_000, s(7));
        assert_eq!(clock.at_ms(Term(2), 9_000, s(8)), 12_000, "three seconds after the first");
        // One that has caught up before it is asked knows of the time before.
        clock.pass(Term(3));
        assert_eq!(clock.at_ms(Term(3), 9_000, s(9)), 11_000);
    }

    /// What may happen to three nodes that share a log.
    #[derive(Clone, Debug)]
    enum Happens {
        Wait(u64),
        Apply(usize, usize),
        Elect(usize),
        Propose,
        Restore(usize, usize),
        Restart(usize),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => (1_u64..100).prop_map(Happens::Wait),
            4 => (0..3_usize, 1..4_usize).prop_map(|(node, count)| Happens::Apply(node, count)),
            1 => (0..3_usize).prop_map(Happens::Elect),
            6 => Just(Happens::Propose),
            3 => (0..3_usize, 0..3_usize).prop_map(|(node, from)| Happens::Restore(node, from)),
            1 => (0..3_usize).prop_map(Happens::Restart),
        ]
    }

    /// Nodes that hear late of what the log says, and the log.
    struct Nodes {
        start: Instant,
        now_ms: u64,
        term: Term,
        leader: usize,
        /// The term, and what the entry says of the age.
        log: Vec<(Term, Option<u64>)>,
        /// The clock, how many entries were applied, and how old the site is by them.
        nodes: [(AgeClock, usize, u64); 3],
        /// When the last age was given, and what it came to.
        last: (u64, u64),
    }

    impl Nodes {
        fn at(&self) -> Instant {
            self.start + Duration::from_millis(self.now_ms)
        }

        fn apply(&mut self, node: usize, count: usize) {
            let at = self.at();
            let (clock, applied, age_ms) = &mut self.nodes[node];
            for (term, said_ms) in self.log.iter().skip(*applied).take(count) {
                *applied += 1;
                match said_ms {
                    Some(said_ms) => {
                        *age_ms = (*age_ms).max(*said_ms);
                        clock.learn_at(*term, *said_ms, at);
                    }
                    None => clock.pass(*term),
                }
            }
        }

        fn propose(&mut self) -> Result<(), TestCaseError> {
            let at = self.at();
            let (clock, _, applied_ms) = &mut self.nodes[self.leader];
            let said_ms = clock.at_ms(self.term, *applied_ms, at);
            self.log.push((self.term, Some(said_ms)));
            let age_ms = self.log.iter().filter_map(|(_, said)| *said).max().unwrap_or_default();
            let (grown_ms, passed_ms) = (age_ms - self.last.1, self.now_ms - self.last.0);
            prop_assert!(grown_ms <= passed_ms, "{grown_ms} ms in {passed_ms} ms: {:?}", self.log);
            self.last = (self.now_ms, age_ms);
            Ok(())
        }

        fn happens(&mut self, what: &Happens) -> Result<(), TestCaseError> {
            match *what {
                Happens::Wait(ms) => self.now_ms += ms,
                Happens::Apply(node, count) => self.apply(node, count),
                Happens::Propose => return self.propose(),
                Happens::Elect(node) => {
                    (self.term, self.leader) = (Term(self.term.0 + 1), node);
                    self.log.push((self.term, None));
                }
                Happens::Restore(node, from) => {
                    let (_, applied, age_ms) = self.nodes[from];
                    if applied > self.nodes[node].1 {
                        let term = self.log[applied - 1].0;
                        self.nodes[node].0.restored_at(term, age_ms, self.at());
                        (self.nodes[node].1, self.nodes[node].2) = (applied, age_ms);
                    }
                }
                Happens::Restart(node) => {
                    self.nodes[node] = Default::default();
                    if node == self.leader {
                        return self.happens(&Happens::Elect((node + 1) % 3));
                    }
                }
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn no_entry_makes_the_site_older_than_time_does(
            steps in prop::collection::vec(happens(), 1..120)
        ) {
            let mut nodes = Nodes {
                start: time::now(),
                now_ms: 0,
                term: Term(1),
                leader: 0,
                log: vec![(Term(1), None)],
                nodes: Default::default(),
                last: (0, 0),
            };
            for step in &steps {
                nodes.happens(step)?;
            }
        }
    }
}

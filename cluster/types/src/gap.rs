//! What a mirror will never have: which records, how many, of which time, and why.
//!
//! Invariant: a marker counts the records that are missing, not the offsets that it spans, and loses
//! none of them however often markers are put together.

use crate::Offset;
use std::fmt;

/// Why some records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// Their time was over at the origin before they were shipped.
    Expired,
    /// The budget of their partition was reached at the origin before they were shipped.
    Budget,
    /// A rule holds them back.
    Withheld,
    /// Markers with several reasons were put together, since there were too many.
    Several,
    /// They were gone at the origin before this copy came to them, and nobody had lacked them then: the copy was
    /// made later, or anew.
    Gone,
    /// They lie in a batch that is larger than the site takes that the copy was to come to.
    TooLarge,
}

impl GapReason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::Budget, Self::Withheld, Self::Several, Self::Gone, Self::TooLarge];

    /// Its number in the log and on a link.
    pub const fn number(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::Budget => 2,
            Self::Withheld => 3,
            Self::Several => 4,
            Self::Gone => 5,
            Self::TooLarge => 6,
        }
    }

    /// The reason with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }

    /// The one word for it, by which it is known to programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Budget => "budget",
            Self::Withheld => "withheld",
            Self::Several => "several",
            Self::Gone => "gone",
            Self::TooLarge => "too-large",
        }
    }

    /// The reason with a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    const fn with(self, other: Self) -> Self {
        if self.number() == other.number() { self } else { Self::Several }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired at the origin",
            Self::Budget => "the budget was reached at the origin",
            Self::Withheld => "withheld by a rule",
            Self::Several => "several reasons",
            Self::Gone => "gone at the origin before this copy came to them",
            Self::TooLarge => "too large for the site that they were to come to",
        })
    }
}

/// Records that are missing, of one range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Why.
    pub reason: GapReason,
    /// How many: never more than the range has offsets, and less if it spans records that are there.
    pub count: u64,
    /// When the first of them was appended at the origin at the earliest, by the time of its entry, in
    /// ms since 1970; 0 if nobody knows any more.
    pub first_ms: u64,
    /// When the last one was at the latest; 0 if nobody knows any more.
    pub last_ms: u64,
}

impl Missing {
    /// So many records of which the time is not known.
    pub const fn untimed(reason: GapReason, count: u64) -> Self {
        Self { reason, count, first_ms: 0, last_ms: 0 }
    }

    /// Whether it can be said of the offsets from `first` to before `end`.
    pub fn fits(&self, first: Offset, end: Offset) -> bool {
        let offsets = end.0.saturating_sub(first.0);
        (1..=offsets).contains(&self.count) && self.first_ms <= self.last_ms
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let known = |ms: u64| (ms > 0).then_some(ms);
        let firsts = [self.first_ms, other.first_ms].into_iter().filter_map(known);
        Self {
            reason: self.reason.with(other.reason),
            count: self.count.saturating_add(other.count),
            first_ms: firsts.min().unwrap_or(0),
            last_ms: self.last_ms.max(other.last_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_by_number_and_name() {
        for reason in GapReason::ALL {
            assert_eq!(GapReason::from_number(reason.number()), Some(reason));
            assert_eq!(GapReason::by_name(reason.name()), Some(reason));
        }
        assert_eq!((GapReason::from_number(0), GapReason::from_number(7)), (None, None));
    }

    #[test]
    fn together_nothing_is_lost_in_the_counts() {
        let budget = Missing { reason: GapReason::Budget, count: 3, first_ms: 10, last_ms: 20 };
        let later = Missing { count: 4, first_ms: 15, last_ms: 30, ..budget };
        let both = Missing { count: 7, last_ms: 30, ..budget };
        assert_eq!((budget.with(&later), later.with(&budget)), (both, both));
        let expired = Missing::untimed(GapReason::Expired, 1);
        let several = Missing { reason: GapReason::Several, count: 4, ..budget };
        assert_eq!((budget.with(&expired), expired.with(&budget)), (several, several));
    }

    #[test]
    fn a_marker_counts_at_least_one_and_at_most_its_offsets() {
        let missing = |count| Missing::untimed(GapReason::Expired, count);
        assert!(missing(1).fits(Offset(4), Offset(6)) && missing(2).fits(Offset(4), Offset(6)));
        assert!(!missing(0).fits(Offset(4), Offset(6)) && !missing(3).fits(Offset(4), Offset(6)));
        assert!(!missing(1).fits(Offset(6), Offset(4)));
        let backwards = Missing { first_ms: 2, last_ms: 1, ..missing(1) };
        assert!(!backwards.fits(Offset(0), Offset(9)));
    }
}

//! How long the records of a topic are kept, and which of them have had their time.
//!
//! Age is the age of the site and not wall time: a clock that is set forward by years, as on a box
//! that boots without knowing the date, makes no record older.
//!
//! Invariants: what is younger than `retention.ms` and within `retention.bytes` stays; the records
//! that go are the oldest of their partition; both are minima, and up to a sixteenth more is kept.
//!
//! Never: decide here that something goes. A leader proposes it, and the log says so.

use super::spans::{Grain, Span};
use fulmar_host::planted;
use fulmar_types::{Offset, Plant};

/// The setting with the age, in milliseconds, from which on records may go; -1 for never.
pub const RETENTION_MS: &str = "retention.ms";

/// The setting with the bytes of a partition beyond which the oldest may go; -1 for never.
pub const RETENTION_BYTES: &str = "retention.bytes";

/// A span covers this part of what is kept, at most.
const GRAINS: u64 = 16;

/// The grain of a topic that keeps everything.
const GRAIN_MAX: Grain = Grain { bytes: 64 << 20, age_ms: 3_600_000 };

/// How long the records of a topic are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds; `None` for ever.
    pub age_ms: Option<u64>,
    /// Bytes of each partition; `None` for all.
    pub bytes: Option<u64>,
}

impl Retention {
    /// What the settings of a topic say. A text that is no number limits nothing: such a setting is
    /// refused before it is proposed.
    pub fn of(configs: &[(String, String)]) -> Self {
        let number = |key: &str| {
            let (_, value) = configs.iter().rev().find(|(name, _)| name == key)?;
            value.parse::<u64>().ok()
        };
        Self { age_ms: number(RETENTION_MS), bytes: number(RETENTION_BYTES) }
    }

    /// Whether records may go at all.
    pub fn is_limited(&self) -> bool {
        self.age_ms.is_some() || self.bytes.is_some()
    }

    /// How finely the records of the topic are told apart.
    pub fn grain(&self) -> Grain {
        let part = |limit: Option<u64>, most: u64| {
            limit.map_or(most, |limit| (limit / GRAINS).clamp(1, most))
        };
        Grain {
            bytes: part(self.bytes, GRAIN_MAX.bytes),
            age_ms: part(self.age_ms, GRAIN_MAX.age_ms),
        }
    }

    /// The offset at which a partition may begin, of which these are the spans, oldest first, in a
    /// site of this age. `None` if nothing has had its time.
    pub fn start<'a, I: Iterator<Item = &'a Span>>(
        &self,
        spans: impl Fn() -> I,
        age_ms: u64,
    ) -> Option<Offset> {
        let mut bytes = spans().fold(0, |sum: u64, span| sum.saturating_add(span.bytes));
        let has_had_its_time = |span: &&Span| {
            let rest = bytes.saturating_sub(span.bytes);
            let first = planted(Plant::ExpireByFirst);
            let age =
                age_ms.saturating_sub(if first { span.first_age_ms } else { span.last_age_ms });
            let is_old = self.age_ms.is_some_and(|limit| age > limit);
            let kept = if planted(Plant::ExpireTooMuch) { bytes } else { rest };
            let is_too_much = self.bytes.is_some_and(|limit| kept >= limit);
            bytes = rest;
            is_old || is_too_much
        };
        spans().take_while(has_had_its_time).last().map(|span| span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_store::StreamId;

    fn of(pairs: &[(&str, &str)]) -> Retention {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Retention::of(&pairs.iter().map(own).collect::<Vec<_>>())
    }

    /// Spans of ten offsets, each with its bytes and its last age.
    fn spans(each: &[(u64, u64)]) -> Vec<Span> {
        let span = |(at, (bytes, age)): (usize, &(u64, u64))| Span {
            stream: StreamId(0),
            first: Offset(10 * at as u64),
            end: Offset(10 * at as u64 + 10),
            bytes: *bytes,
            first_age_ms: 0,
            last_age_ms: *age,
        };
        each.iter().enumerate().map(span).collect()
    }

    fn start(retention: Retention, each: &[(u64, u64)], age_ms: u64) -> Option<u64> {
        let spans = spans(each);
        retention.start(|| spans.iter(), age_ms).map(|offset| offset.0)
    }

    #[test]
    fn settings_say_what_is_kept() {
        assert!(!of(&[]).is_limited());
        assert!(!of(&[("retention.ms", "-1"), ("retention.bytes", "-1")]).is_limited());
        let both = of(&[("retention.ms", "1600"), ("retention.bytes", "3200")]);
        assert_eq!(both, Retention { age_ms: Some(1_600), bytes: Some(3_200) });
        assert_eq!(both.grain(), Grain { bytes: 200, age_ms: 100 });
        assert_eq!(of(&[("retention.ms", "0")]).grain(), Grain { age_ms: 1, ..GRAIN_MAX });
    }

    #[test]
    fn what_is_older_than_the_limit_goes() {
        let kept = of(&[("retention.ms", "100")]);
        let each = [(1, 10), (1, 20), (1, 30)];
        assert_eq!(start(kept, &each, 110), None, "at most as old as the limit");
        assert_eq!(start(kept, &each, 111), Some(10));
        assert_eq!(start(kept, &each, 125), Some(20));
        assert_eq!(start(kept, &each, 131), Some(30));
        assert_eq!(start(kept, &[], 999), None);
    }

    #[test]
    fn at_least_so_many_bytes_stay() {
        let kept = of(&[("retention.bytes", "100")]);
        assert_eq!(start(kept, &[(60, 0), (99, 0)], 0), None);
        assert_eq!(start(kept, &[(60, 0), (50, 0), (50, 0)], 0), Some(10));
        assert_eq!(start(kept, &[(60, 0), (50, 0), (100, 0)], 0), Some(20));
        assert_eq!(start(of(&[("retention.bytes", "0")]), &[(60, 0)], 0), Some(10));
    }

    #[test]
    fn either_limit_is_enough() {
        let kept = of(&[("retention.ms", "100"), ("retention.bytes", "100")]);
        assert_eq!(start(kept, &[(60, 0), (60, 50), (60, 90)], 120), Some(10));
        assert_eq!(start(kept, &[(90, 0), (10, 50), (100, 90)], 10), Some(20));
    }
}

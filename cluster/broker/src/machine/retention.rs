//! How long the records of a topic are kept, and which of them have had their time.
//!
//! Age is the age of the site and not wall time: a clock that is set forward by years, as on a box
//! that boots without knowing the date, makes no record older.
//!
//! Invariants: what is younger than `retention.ms` and within `retention.bytes` stays; the records
//! that go are the oldest of their partition; both are minima, and about a sixteenth more is kept, up
//! to a half in a site of so many partitions that each has few spans.
//!
//! Never: decide here that something goes. A leader proposes it, and the log says so.

use super::spans::{Grain, Span};
use fulmar_host::planted;
use fulmar_types::{Offset, Plant};

/// The setting with the age, in milliseconds, from which on records may go; -1 for never.
pub const RETENTION_MS: &str = "retention.ms";

/// The setting with the bytes of a partition beyond which the oldest may go; -1 for never.
pub const RETENTION_BYTES: &str = "retention.bytes";

/// What is kept has this part of the spans that there may be as its grains: neighbours may be half
/// full, and both limits cut.
const SPANS_PER_GRAIN: u64 = 4;

/// The grain of a topic that keeps everything. It may get a limit later.
const GRAIN_OF_ALL: Grain = Grain { bytes: 64 << 20, age_ms: 3_600_000 };

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

    /// How finely the records of the topic are told apart, with so many spans at most.
    pub fn grain(&self, spans_max: usize) -> Grain {
        if !self.is_limited() {
            return GRAIN_OF_ALL;
        }
        let grains = (spans_max as u64 / SPANS_PER_GRAIN).max(1);
        let part = |limit: Option<u64>| limit.map_or(u64::MAX, |limit| (limit / grains).max(1));
        Grain { bytes: part(self.bytes), age_ms: part(self.age_ms) }
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
    use super::super::spans::Piece;
    use super::super::table::Table;
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
        assert_eq!(both.grain(64), Grain { bytes: 200, age_ms: 100 });
        assert_eq!(both.grain(8), Grain { bytes: 1_600, age_ms: 800 });
        assert_eq!(of(&[("retention.ms", "0")]).grain(64), Grain { age_ms: 1, bytes: u64::MAX });
        assert_eq!(of(&[]).grain(64), GRAIN_OF_ALL);
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

    /// How much is kept at worst while a partition is written to for long: age in ms, and bytes.
    fn kept_at_worst(
        retention: Retention,
        (spans_max, step_ms): (usize, u64),
        bytes: impl Fn(u64) -> u64,
    ) -> (u64, u64) {
        let (stream, mut table) = (StreamId(1), Table::<Span>::default());
        let mut worst = (0, 0);
        for at in 0..20_000 {
            let age_ms = at * step_ms;
            let piece = Piece { first: Offset(at), records: 1, bytes: bytes(at), age_ms };
            table.append(stream, &piece, retention.grain(spans_max), spans_max);
            if let Some(start) = retention.start(|| table.of_stream(stream), age_ms) {
                table.advance_start(stream, start);
            }
            let oldest = table.of_stream(stream).next().map_or(age_ms, |span| span.first_age_ms);
            let kept = table.of_stream(stream).map(|span| span.bytes).sum();
            worst = (worst.0.max(age_ms - oldest), worst.1.max(kept));
        }
        worst
    }

    #[test]
    fn little_more_than_the_limit_is_kept_however_long_it_goes_on() {
        let (day, gib) = (86_400_000, 1u64 << 30);
        let age = |days: u64| Retention { age_ms: Some(days * day), bytes: None };
        let size = |limit: u64| Retention { age_ms: None, bytes: Some(limit) };
        let both = Retention { age_ms: Some(day), bytes: Some(gib) };
        // The limit, the bytes of a batch, and what is kept of it at worst, in hundredths.
        for (days, spans_max, at_most) in [(30, 64, 113), (7, 64, 113), (1, 64, 113), (30, 8, 200)]
        {
            let limit = days * day;
            for bytes in [1, 32 << 20] {
                let (kept, _) = kept_at_worst(age(days), (spans_max, limit / 1_000), |_| bytes);
                assert!(kept <= limit / 100 * at_most, "{days} d, {spans_max}: {kept} of {limit}");
                assert!(kept > limit, "it is a minimum");
            }
        }
        for (limit, spans_max, at_most) in [(gib, 64, 120), (10 * gib, 64, 120), (gib, 8, 200)] {
            // Batches that fill a grain badly, and small ones between.
            let bytes = |at: u64| if at.is_multiple_of(3) { limit / 30 } else { limit / 500 };
            let (_, kept) = kept_at_worst(size(limit), (spans_max, 1), bytes);
            assert!(kept <= limit / 100 * at_most, "{limit}, {spans_max}: {kept}");
            assert!(kept > limit, "it is a minimum");
        }
        for spans_max in [8, 64] {
            let quiet_and_busy =
                |at: u64| if (at / 2_000).is_multiple_of(2) { 1_000 } else { gib / 300 };
            let (old, kept) = kept_at_worst(both, (spans_max, day / 400), quiet_and_busy);
            let at_most = if spans_max == 64 { 120 } else { 250 };
            assert!(old <= day / 100 * at_most && kept <= gib / 100 * at_most, "{old} {kept}");
        }
    }
}

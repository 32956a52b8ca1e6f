//! How long the records of a topic are kept, and which of them have had their time.
//!
//! Age is the age of the site and not wall time: a clock that is set forward by years, as on a box
//! that boots without knowing the date, makes no record older.
//!
//! Invariants: what is younger than `retention.ms` and within `retention.bytes` stays; the records
//! that go are the oldest of their partition. Both are minima: beyond a limit at most one span of a
//! partition is kept, which is a sixteenth of the limit, or one batch if that is larger; with more than
//! 1,024 partitions in the site up to a half of the limit, and up to all of it for a topic with both
//! limits. Records from before a limit was set or changed go in the spans that they have: without
//! one an hour or 64 MiB, and beyond 64 of these a thirty-second of an evenly written partition.
//!
//! Never: let something go because of what one node knows. A leader looks and proposes; what goes is
//! what has had its time by the settings and the age that stand where its entry is applied.

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

    fn is_old(&self, span: &Span, age_ms: u64) -> bool {
        let first = planted(Plant::ExpireByFirst);
        let age = age_ms.saturating_sub(if first { span.first_age_ms } else { span.last_age_ms });
        self.age_ms.is_some_and(|limit| age > limit)
    }

    /// Up to where the records of a partition are older than they have to be, of which these are the
    /// spans, oldest first; 0 if none are.
    pub fn aged<'a>(&self, spans: impl Iterator<Item = &'a Span>, age_ms: u64) -> Offset {
        let old = spans.take_while(|span| self.is_old(span, age_ms)).last();
        old.map(|span| span.end).unwrap_or_default()
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
            let is_old = self.is_old(span, age_ms);
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
            first_ms: 0,
            last_ms: 0,
            chain: [0; 16],
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

    const DAY: u64 = 86_400_000;
    const GIB: u64 = 1 << 30;
    const STREAM: StreamId = StreamId(1);

    /// A partition that is written to: each batch with its bytes, after so many ms.
    #[derive(Default)]
    struct Written {
        table: Table<Span>,
        batches: u64,
        age_ms: u64,
    }

    impl Written {
        /// One batch more, and what had its time by then goes. What is kept: age in ms, and bytes.
        fn batch(
            &mut self,
            retention: Retention,
            spans_max: usize,
            (bytes, after_ms): (u64, u64),
        ) -> (u64, u64) {
            self.age_ms += after_ms;
            let (first, age_ms) = (Offset(self.batches), self.age_ms);
            let (at_ms, chain) = (0, [0; 16]);
            let piece = Piece { first, records: 1, bytes, age_ms, at_ms, chain };
            self.batches += 1;
            self.table.append(STREAM, &piece, retention.grain(spans_max), spans_max);
            if let Some(start) = retention.start(|| self.table.of_stream(STREAM), age_ms) {
                self.table.advance_start(STREAM, start);
            }
            let spans = || self.table.of_stream(STREAM);
            let oldest = spans().next().map_or(age_ms, |span| span.first_age_ms);
            (age_ms - oldest, spans().map(|span| span.bytes).sum())
        }

        /// The most that is kept at a time over many batches.
        fn kept_at_worst(
            retention: Retention,
            (spans_max, after_ms): (usize, u64),
            bytes: impl Fn(u64) -> u64,
        ) -> (u64, u64) {
            let (mut written, mut worst) = (Self::default(), (0, 0));
            for at in 0..20_000 {
                let kept = written.batch(retention, spans_max, (bytes(at), after_ms));
                worst = (worst.0.max(kept.0), worst.1.max(kept.1));
            }
            worst
        }
    }

    #[test]
    fn a_span_more_than_the_age_is_kept_however_long_it_goes_on() {
        for (days, spans_max, part) in [(30, 64, 16), (7, 64, 16), (1, 63, 15), (30, 8, 2)] {
            let limit = days * DAY;
            let retention = Retention { age_ms: Some(limit), bytes: None };
            for bytes in [1, 32 << 20] {
                let step = (spans_max, limit / 1_000);
                let (kept, _) = Written::kept_at_worst(retention, step, |_| bytes);
                assert!(kept <= limit + limit / part, "{days} d, {spans_max}: {kept} of {limit}");
                assert!(kept > limit, "it is a minimum");
            }
        }
    }

    #[test]
    fn a_span_or_a_batch_more_than_the_bytes_is_kept_however_long_it_goes_on() {
        for (limit, spans_max, part) in [(GIB, 64, 16), (10 * GIB, 63, 15), (GIB, 8, 2)] {
            // Batches that fill a span badly, and small ones between; and some larger than a span.
            for (large, small) in [(limit / 30, limit / 500), (limit / 10, limit / 500)] {
                let bytes = |at: u64| if at.is_multiple_of(3) { large } else { small };
                let retention = Retention { age_ms: None, bytes: Some(limit) };
                let (_, kept) = Written::kept_at_worst(retention, (spans_max, 1), bytes);
                let more = large.max(limit / part);
                assert!(kept <= limit + more, "{limit}, {spans_max}, {large}: {kept}");
                assert!(kept > limit, "it is a minimum");
            }
        }
    }

    #[test]
    fn with_both_limits_up_to_twice_as_much_is_kept_where_spans_are_few() {
        let both = Retention { age_ms: Some(DAY), bytes: Some(GIB) };
        for (spans_max, part) in [(64, 16), (8, 1)] {
            for turn in [20, 100, 300, 2_000] {
                for busy in [GIB / 300, GIB / 50, GIB / 20] {
                    let quiet_and_busy =
                        |at: u64| if (at / turn).is_multiple_of(2) { 1_000 } else { busy };
                    for step in [DAY / 400, DAY / 40, 1_000] {
                        let kept = Written::kept_at_worst(both, (spans_max, step), quiet_and_busy);
                        let case = format!("{spans_max}, {turn}, {busy}, {step}: {kept:?}");
                        assert!(kept.0 <= DAY + DAY / part, "{case}");
                        assert!(kept.1 <= GIB + busy.max(GIB / part), "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_there_before_a_limit_goes_in_the_spans_that_it_has() {
        let hour = 3_600_000;
        let (all, day) = (Retention::default(), Retention { age_ms: Some(DAY), bytes: None });
        for hours in [60, 1_000, 10_000] {
            let mut written = Written::default();
            for _ in 0..hours * 10 {
                written.batch(all, 64, (1_000, hour / 10));
            }
            let spans: Vec<Span> = written.table.of_stream(STREAM).copied().collect();
            let longest = spans.iter().map(|span| span.last_age_ms - span.first_age_ms).max();
            let longest = longest.expect("a span");
            assert!(longest <= hour.max(hours * hour / 32), "{hours}: {longest}");
            let mut kept = Vec::new();
            for _ in 0..20 * DAY / hour * 10 {
                kept.push(written.batch(day, 64, (1_000, hour / 10)).0);
            }
            let worst = kept.iter().copied().max().expect("some");
            assert!(worst <= DAY + longest.max(DAY / 16), "{hours}: {worst}");
            let in_the_end = kept[kept.len() - 100..].iter().copied().max().expect("some");
            assert!(in_the_end <= DAY + DAY / 16, "{hours}: {in_the_end}");
        }
    }
}

//! Which partitions event time waits for, and up to where they are to be read.
//!
//! Where streams are joined, time goes on with the one that is furthest behind, and in a stream with the
//! partition that is. To read of any other one makes state larger and lets no window end. So a pipeline that
//! has no memory left for more state reads of these alone, and one that has little reads none of them much further
//! than the others: what it has of one that is far ahead stays until all others have come as far, and what these
//! need on their way there must not be taken by then. What nothing is kept of is always read. A table without a watermark holds up nobody; it is read as far as
//! what it is joined with, since its versions stay until that has come as far.
//!
//! A partition with something to read is never idle, whether that is read or not: it counts, and holds up the
//! others if it is the one that is furthest behind. So nothing is late for that it was not read.
//!
//! Never: decide anything that changes what comes out of an epoch. Which records an epoch has stands in the log.

use super::engine::Engine;
use crate::plan::Operator;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Records of a table that say together how far it has been read: what one of them says alone may be any time, and is
/// not to keep the others from being read.
const TOLD_BY: usize = 8;

/// The times of the last records of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Lately(VecDeque<i64>);

impl Lately {
    fn note(&mut self, time: i64) {
        if self.0.len() == TOLD_BY {
            self.0.pop_front();
        }
        self.0.push_back(time);
    }

    /// How far it has been read.
    fn top(&self) -> Option<i64> {
        self.0.iter().min().copied()
    }
}

/// Up to where sources are read in event time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// By source; without a time up to the first row.
    of: BTreeMap<usize, Option<i64>>,
}

/// How far a source is where it is last.
#[derive(Clone, Copy, Debug, Default)]
struct Lasts {
    /// Of what there is something to read of.
    unread: Option<Option<i64>>,
    /// Of what is waited for, and there is nothing.
    waited: Option<Option<i64>>,
}

impl Lasts {
    fn last(&self) -> Option<Option<i64>> {
        self.unread.into_iter().chain(self.waited).min()
    }
}

impl Engine {
    /// So much beyond what is furthest behind of what ends in one sink: of the partitions with something to read and, if
    /// an age is given, of those that are not idle then either. It is not beyond any of the latter: to come that far
    /// would be of no use before something is there of it.
    pub fn horizon(
        &self,
        age_ms: Option<u64>,
        unread: &BTreeSet<(&str, u32)>,
        reach_ms: i64,
    ) -> Horizon {
        let lasts: Vec<Lasts> =
            (0..self.times.len()).map(|source| self.lasts(source, age_ms, unread)).collect();
        let mut horizon = Horizon::default();
        for sources in self.meeting().values() {
            let of_all = || sources.iter().map(|source| &lasts[*source]);
            let waited = of_all().filter_map(|lasts| lasts.waited).min();
            let least = of_all().filter_map(Lasts::last).min().flatten();
            let up_to = least.map(|least| least.saturating_add(reach_ms));
            let up_to = waited.map_or(up_to, |waited| up_to.min(waited));
            let counting: Vec<usize> =
                sources.iter().copied().filter(|source| lasts[*source].last().is_some()).collect();
            let counts = |source: usize| counting.contains(&source);
            let follows = |source: usize| !counting.is_empty() && self.follows(source);
            for source in
                sources.iter().copied().filter(|source| counts(*source) || follows(*source))
            {
                let of_source = horizon.of.entry(source).or_default();
                *of_source = up_to.max(*of_source);
            }
        }
        horizon
    }

    fn lasts(&self, source: usize, age_ms: Option<u64>, unread: &BTreeSet<(&str, u32)>) -> Lasts {
        let Some(time) = &self.times[source] else { return Lasts::default() };
        let of = &self.plan.sources[source];
        let unread = unread.iter().filter(|(topic, _)| *topic == of.topic);
        let unread = unread.map(|(_, partition)| *partition).collect();
        let mut lasts = Lasts { unread: time.last_of(&unread), waited: None };
        if let Some(age_ms) = age_ms {
            lasts.waited = time.last_waited(age_ms, &unread);
            // A stream that is idle holds up what it is joined with, and a table does not.
            if lasts.last().is_none() && of.primary.is_none() {
                lasts.waited = Some(time.watermark());
            }
        }
        lasts
    }

    /// Whether a source is a table without a watermark.
    fn follows(&self, source: usize) -> bool {
        self.times[source].is_none() && self.plan.sources[source].primary.is_some()
    }

    /// Takes note of how far a source has been read, if it is such a table.
    pub(super) fn note_top(&mut self, source: usize, partition: u32, time: i64) {
        if self.follows(source) {
            self.tops.entry((source, partition)).or_default().note(time);
        }
    }

    /// The sources that meet on their way to a sink.
    fn meeting(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut meeting: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (at, node) in self.plan.nodes.iter().enumerate() {
            let source = match node.operator {
                Operator::Read { source, .. } => source,
                Operator::TableJoin { table, .. } => table,
                _ => continue,
            };
            meeting.entry(self.sink(at)).or_default().insert(source);
        }
        meeting
    }

    /// Whether a partition has not come up to the horizon, in one of the sources that have one.
    pub fn is_behind(&self, horizon: &Horizon, topic: &str, partition: u32) -> bool {
        self.come_up(horizon, topic, partition).any(|has_come| !has_come)
    }

    /// Whether it has come beyond, in all sources that have one.
    pub fn is_ahead(&self, horizon: &Horizon, topic: &str, partition: u32) -> bool {
        let mut come_up = self.come_up(horizon, topic, partition).peekable();
        come_up.peek().is_some() && come_up.all(|has_come| has_come)
    }

    fn come_up(
        &self,
        horizon: &Horizon,
        topic: &str,
        partition: u32,
    ) -> impl Iterator<Item = bool> {
        let bounded = horizon.of.iter();
        let bounded = bounded.filter(move |(source, _)| self.plan.sources[**source].topic == topic);
        bounded.map(move |(source, up_to)| match &self.times[*source] {
            Some(time) => time.mark_of(partition) > *up_to,
            None => self.tops.get(&(*source, partition)).and_then(Lately::top) > *up_to,
        })
    }

    /// Whether whatever reads a topic keeps nothing of it: it makes no state larger.
    pub fn keeps_nothing(&self, topic: &str) -> bool {
        let nodes = self.plan.nodes.iter().enumerate();
        let mut reads = nodes.filter(|(_, node)| match node.operator {
            Operator::Read { source, .. } => self.plan.sources[source].topic == topic,
            Operator::TableJoin { table, .. } => self.plan.sources[table].topic == topic,
            _ => false,
        });
        reads.all(|(at, node)| matches!(node.operator, Operator::Read { .. }) && self.passes(at))
    }

    /// Whether the rows of a node come out as they come in, and nothing waits.
    fn passes(&self, mut node: usize) -> bool {
        while let Some((next, _)) = self.behind.consumers[node] {
            let operator = &self.plan.nodes[next].operator;
            if !matches!(
                operator,
                Operator::Filter(_) | Operator::Project(_) | Operator::Sink { .. }
            ) {
                return false;
            }
            node = next;
        }
        true
    }

    /// Where the rows of a node come out at last.
    fn sink(&self, mut node: usize) -> usize {
        while let Some((next, _)) = self.behind.consumers[node] {
            node = next;
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::Record;
    use std::sync::Arc;

    const SIDES: &str = "
        CREATE STREAM s (v BIGINT, at TIMESTAMP(3)) FROM TOPIC s
            WATERMARK at IDLE INTERVAL '10' SECOND ON ERROR FAIL LATE DROP;
        CREATE STREAM t (v BIGINT, at TIMESTAMP(3)) FROM TOPIC t
            WATERMARK at - INTERVAL '2' SECOND ON ERROR FAIL LATE DROP;";

    /// An engine over two partitions of `s` and one of `t`.
    fn engine(rest: &str) -> Engine {
        let text = format!("{SIDES}{rest}");
        let plan = crate::plan(&text).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let partitions = [("s", 2), ("t", 1)].map(|(topic, count)| (topic.to_owned(), count));
        Engine::new(Arc::new(plan), &partitions.into())
    }

    /// An epoch with one record of each of these partitions, at these times.
    fn epoch(engine: &mut Engine, age_ms: u64, records: &[(&str, u32, i64)]) {
        for (topic, partition, at) in records {
            let value = Some(format!("{{\"v\":1,\"at\":{at}}}").into());
            let blank = blank(age_ms.cast_signed());
            let record = Record { partition: *partition, value, ..blank };
            engine.batch(topic, &[Arc::new(record)]).expect("a good record");
        }
        engine.end_epoch(age_ms, false).expect("nothing fails");
    }

    fn blank(offset: i64) -> Record {
        Record {
            partition: 0,
            offset,
            timestamp: 0,
            key: None,
            headers: Vec::new(),
            value: None,
            damage: None,
            is_retried: false,
        }
    }

    fn counts() -> Engine {
        engine(
            "CREATE STREAM a AS SELECT COUNT(*) AS n FROM TUMBLE(s, INTERVAL '1' SECOND)
                 GROUP BY window_start, window_end;
             CREATE STREAM b AS SELECT COUNT(*) AS n FROM TUMBLE(t, INTERVAL '1' SECOND)
                 GROUP BY window_start, window_end;
             INSERT INTO TOPIC one SELECT n FROM a;
             INSERT INTO TOPIC two SELECT n FROM b;",
        )
    }

    fn joined() -> Engine {
        engine(
            "CREATE STREAM a AS SELECT v, window_start AS ws, window_end AS we FROM TUMBLE(s, INTERVAL '1' SECOND);
             CREATE STREAM b AS SELECT v, window_start AS ws, window_end AS we FROM TUMBLE(t, INTERVAL '1' SECOND);
             INSERT INTO TOPIC one SELECT a.v AS v, b.v AS w FROM a JOIN b ON a.ws = b.ws AND a.we = b.we;",
        )
    }

    fn told(engine: &Engine, age_ms: u64) -> Vec<(&str, u32)> {
        with(engine, age_ms, &[])
    }

    fn with<'a>(engine: &'a Engine, age_ms: u64, unread: &[(&'a str, u32)]) -> Vec<(&'a str, u32)> {
        let unread: BTreeSet<(&str, u32)> = unread.iter().copied().collect();
        let horizon = engine.horizon(Some(age_ms), &unread, 0);
        let silent = engine.silent(age_ms);
        let mut all = vec![("s", 0), ("s", 1), ("t", 0)];
        let sources = || engine.plan.sources.iter().zip(&engine.times);
        all.retain(|(topic, partition)| {
            let mut times = sources().filter(|(source, _)| source.topic == *topic);
            times.any(|(_, time)| {
                time.as_ref().is_some_and(|time| time.last_of(&[*partition].into()).is_some())
            })
        });
        all.retain(|of| unread.contains(of) || !silent.contains(of));
        all.retain(|(topic, partition)| engine.is_behind(&horizon, topic, *partition));
        all
    }

    #[test]
    fn each_query_waits_for_its_last_partition() {
        let mut engine = counts();
        assert_eq!(told(&engine, 0), [("s", 0), ("s", 1), ("t", 0)]);
        epoch(&mut engine, 1, &[("s", 0, 5_000), ("t", 0, 90_000)]);
        assert_eq!(told(&engine, 2), [("s", 1), ("t", 0)]);
        epoch(&mut engine, 2, &[("s", 1, 6_000)]);
        assert_eq!(told(&engine, 3), [("s", 0), ("t", 0)]);
        epoch(&mut engine, 3, &[("s", 0, 6_001)]);
        assert_eq!(told(&engine, 4), [("s", 1), ("t", 0)]);
    }

    #[test]
    fn none_is_read_much_further_than_the_others() {
        let mut engine = joined();
        let all = BTreeSet::from([("s", 0), ("s", 1), ("t", 0)]);
        let ahead = |engine: &Engine, horizon: &Horizon| -> Vec<(&str, u32)> {
            let all = all.iter().copied();
            all.filter(|(topic, at)| engine.is_ahead(horizon, topic, *at)).collect()
        };
        let first = engine.horizon(None, &all, 500);
        assert_eq!(ahead(&engine, &first), [], "up to the first row of each");
        epoch(&mut engine, 1, &[("s", 0, 5_000), ("s", 1, 6_000), ("t", 0, 7_500)]);
        assert_eq!(ahead(&engine, &first), [("s", 0), ("s", 1), ("t", 0)]);
        // What counts is how far each lets time go on: 5,000, 6,000 and 5,500.
        let horizon = engine.horizon(None, &all, 500);
        assert_eq!(ahead(&engine, &horizon), [("s", 1)]);
        epoch(&mut engine, 2, &[("s", 0, 5_501)]);
        assert_eq!(ahead(&engine, &horizon), [("s", 0), ("s", 1)]);
        // One of which nothing is there to read holds up nobody, as long as there is room.
        let without: BTreeSet<_> = [("s", 0), ("s", 1)].into();
        assert_eq!(engine.horizon(None, &without, 0).of, [(0, Some(5_501))].into());
        let waited_for = engine.horizon(Some(3), &without, 0);
        assert_eq!(waited_for.of, [(0, Some(5_500)), (1, Some(5_500))].into());
        assert_eq!(engine.horizon(Some(3), &without, 500), waited_for, "further is of no use");
        assert_eq!(engine.horizon(Some(3), &all, 500).of[&0], Some(6_000));
        assert!(!engine.is_ahead(&Horizon::default(), "s", 1), "without a time nothing is");
    }

    #[test]
    fn a_table_without_a_watermark_is_read_as_far_as_its_stream() {
        let text = "
            CREATE STREAM s (k VARCHAR, at TIMESTAMP(3)) FROM TOPIC s WATERMARK at ON ERROR FAIL LATE DROP;
            CREATE TABLE t (k VARCHAR PRIMARY KEY, v BIGINT, at TIMESTAMP(3) METADATA FROM 'timestamp')
                FROM TOPIC t ON ERROR FAIL;
            INSERT INTO TOPIC one SELECT s.k, t.v FROM s JOIN t ON s.k = t.k;";
        let plan = crate::plan(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let mut engine = Engine::new(Arc::new(plan), &BTreeMap::new());
        let record = |at: i64| {
            let value = format!("{{\"k\":\"a\",\"v\":1,\"at\":{at}}}");
            Arc::new(Record { value: Some(value.into()), timestamp: at, ..blank(at) })
        };
        let unread = BTreeSet::from([("s", 0), ("t", 0)]);
        engine.batch("s", &[record(9_000)]).expect("a good record");
        engine.end_epoch(1, false).expect("nothing fails");
        let horizon = engine.horizon(None, &unread, 100);
        assert!(engine.is_behind(&horizon, "t", 0), "nothing is known of it");
        engine.batch("t", &[record(9_000)]).expect("a good record");
        engine.end_epoch(2, false).expect("nothing fails");
        assert!(!engine.is_ahead(&horizon, "t", 0));
        // One of any time says nothing of the others.
        engine.batch("t", &[record(9_000_000_000)]).expect("a good record");
        engine.end_epoch(3, false).expect("nothing fails");
        assert!(!engine.is_ahead(&horizon, "t", 0));
        let beyond: Vec<_> = (9_101..9_109).map(record).collect();
        engine.batch("t", &beyond).expect("good records");
        engine.end_epoch(3, false).expect("nothing fails");
        assert!(engine.is_ahead(&horizon, "t", 0));
        let alone = engine.horizon(None, &[("t", 0)].into(), 100);
        assert!(!engine.is_ahead(&alone, "t", 0), "it has nobody to follow");
    }

    #[test]
    fn what_nothing_is_kept_of_is_known() {
        let engine = counts();
        assert!(!engine.keeps_nothing("s") && !engine.keeps_nothing("t"));
        let engine = engine_of_both();
        assert!(!engine.keeps_nothing("s"), "one of its readers groups it");
        assert!(engine.keeps_nothing("t"));
    }

    /// One that counts `s`, and passes on rows of both.
    fn engine_of_both() -> Engine {
        engine(
            "CREATE STREAM a AS SELECT COUNT(*) AS n FROM TUMBLE(s, INTERVAL '1' SECOND)
                 GROUP BY window_start, window_end;
             INSERT INTO TOPIC one SELECT n FROM a;
             INSERT INTO TOPIC two SELECT v FROM s WHERE v > 0;
             INSERT INTO TOPIC three SELECT v + 1 AS v FROM t;",
        )
    }

    #[test]
    fn a_join_waits_for_the_side_that_is_behind() {
        let mut engine = joined();
        epoch(&mut engine, 1, &[("s", 0, 5_000), ("s", 1, 6_000), ("t", 0, 6_500)]);
        assert_eq!(told(&engine, 2), [("t", 0)]);
        epoch(&mut engine, 2, &[("t", 0, 7_500)]);
        assert_eq!(told(&engine, 3), [("s", 0)]);
        epoch(&mut engine, 3, &[("s", 0, 5_500)]);
        assert_eq!(told(&engine, 4), [("s", 0), ("t", 0)], "both are as far");
    }

    #[test]
    fn what_has_something_to_read_counts_whatever_its_age() {
        let mut engine = joined();
        epoch(&mut engine, 1_000, &[("s", 0, 9_000), ("s", 1, 6_000), ("t", 0, 9_000)]);
        assert_eq!(told(&engine, 10_999), [("s", 1)]);
        // One alone is idle, and does not count, unless something is there.
        epoch(&mut engine, 6_000, &[("s", 0, 9_500)]);
        assert_eq!(told(&engine, 11_000), [("t", 0)]);
        assert_eq!(with(&engine, 11_000, &[("s", 1)]), [("s", 1)]);
        // All are idle, and a stream that is holds up the other.
        epoch(&mut engine, 31_000, &[]);
        assert_eq!(told(&engine, 31_000), []);
        assert_eq!(with(&engine, 31_000, &[("s", 0), ("t", 0)]), [("t", 0)]);
        assert_eq!(with(&engine, 31_000, &[("s", 0), ("s", 1)]), [("s", 1)]);
    }

    #[test]
    fn what_an_epoch_leaves_unread_is_not_silent() {
        let mut engine = joined();
        epoch(&mut engine, 1_000, &[("s", 0, 9_000), ("s", 1, 6_000)]);
        assert_eq!(engine.silent(10_999).len(), 0);
        assert_eq!(engine.silent(11_000), [("s", 0), ("s", 1)].into());
        engine.leave("s", 1);
        epoch(&mut engine, 40_000, &[("s", 0, 50_000)]);
        assert_eq!(engine.watermark(0), Some(6_000));
        assert_eq!(engine.silent(49_999).len(), 0);
        // It wakes up before it is read, and time waits for it again.
        epoch(&mut engine, 50_000, &[("s", 0, 50_000)]);
        assert_eq!(engine.watermark(0), Some(50_000));
        engine.leave("s", 1);
        epoch(&mut engine, 60_000, &[("s", 0, 60_000)]);
        assert_eq!(engine.watermark(0), Some(50_000));
    }

    #[test]
    fn a_table_holds_up_time_until_it_is_idle() {
        let text = "
            CREATE STREAM s (k VARCHAR, at TIMESTAMP(3)) FROM TOPIC s WATERMARK at ON ERROR FAIL LATE DROP;
            CREATE TABLE t (k VARCHAR PRIMARY KEY, v BIGINT, at TIMESTAMP(3)) FROM TOPIC t
                WATERMARK at IDLE INTERVAL '10' SECOND ON ERROR FAIL;
            INSERT INTO TOPIC one SELECT s.k, t.v FROM s JOIN t ON s.k = t.k;";
        let plan = crate::plan(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let mut engine = Engine::new(Arc::new(plan), &BTreeMap::new());
        let record = |at: i64| {
            let value = format!("{{\"k\":\"a\",\"v\":1,\"at\":{at}}}");
            Arc::new(Record { value: Some(value.into()), ..blank(at) })
        };
        engine.batch("s", &[record(9_000)]).expect("a good record");
        engine.batch("t", &[record(7_000)]).expect("a good record");
        engine.end_epoch(1_000, false).expect("nothing fails");
        assert_eq!(told(&engine, 1_001), [("t", 0)]);
        assert_eq!(told(&engine, 11_000), [("s", 0)], "it is idle");
        assert_eq!(
            with(&engine, 11_000, &[("t", 0)]),
            [("t", 0)],
            "and is not with something to read"
        );
    }
}

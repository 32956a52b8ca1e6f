//! Which partitions event time waits for.
//!
//! Where streams are joined, time goes on with the one that is furthest behind, and in a stream with the
//! partition that is. To read of any other one makes state larger and lets no window end. So a pipeline that
//! has no memory left for more state reads of these alone.
//!
//! A partition with something to read is never idle, whether that is read or not: it counts, and holds up the
//! others if it is the one that is furthest behind. So nothing is late for that it was not read.
//!
//! Never: decide anything that changes what comes out of an epoch. Which records an epoch has stands in the log.

use super::engine::Engine;
use crate::plan::Operator;
use std::collections::{BTreeMap, BTreeSet};

/// What event time waits for, in one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// How far it has come.
    pub mark: Option<i64>,
    /// The partitions that are furthest behind; none, if all are idle.
    pub last: Vec<u32>,
    /// Whether all are idle.
    pub is_idle: bool,
}

impl Engine {
    /// The partitions, with their topics, that have to be read so that event time goes on, when the pipeline
    /// is so old and there is something to read of these.
    pub fn awaited(&self, age_ms: u64, unread: &BTreeSet<(&str, u32)>) -> BTreeSet<(&str, u32)> {
        let sources = self.plan.sources.iter().zip(&self.times);
        let times = sources.map(|(source, time)| {
            let of_source = unread.iter().filter(|(topic, _)| *topic == source.topic);
            let unread = of_source.map(|(_, partition)| *partition).collect();
            time.as_ref().map(|time| time.awaited(age_ms, &unread))
        });
        let times: Vec<Option<Awaited>> = times.collect();
        // What ends in one sink meets on its way.
        let mut meeting: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (at, node) in self.plan.nodes.iter().enumerate() {
            let source = match node.operator {
                Operator::Read { source, .. } => source,
                Operator::TableJoin { table, .. } => table,
                _ => continue,
            };
            meeting.entry(self.sink(at)).or_default().insert(source);
        }
        let mut awaited = BTreeSet::new();
        for sources in meeting.values() {
            let counting = sources.iter().filter_map(|source| {
                let time = times[*source].as_ref()?;
                let is_table = self.plan.sources[*source].primary.is_some();
                // A stream that is idle holds up what it is joined with, and a table does not.
                (!is_table || !time.is_idle).then_some((*source, time))
            });
            let counting: Vec<(usize, &Awaited)> = counting.collect();
            let least = counting.iter().map(|(_, time)| time.mark).min();
            for (source, time) in counting.into_iter().filter(|(_, time)| Some(time.mark) == least)
            {
                self.extend(&mut awaited, source, &time.last);
            }
        }
        awaited
    }

    fn extend<'a>(
        &'a self,
        awaited: &mut BTreeSet<(&'a str, u32)>,
        source: usize,
        partitions: &[u32],
    ) {
        let topic = self.plan.sources[source].topic.as_str();
        awaited.extend(partitions.iter().map(|partition| (topic, *partition)));
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

    fn with<'a>(engine: &'a Engine, age_ms: u64, unread: &[(&str, u32)]) -> Vec<(&'a str, u32)> {
        let unread = unread.iter().copied().collect();
        engine.awaited(age_ms, &unread).into_iter().collect()
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

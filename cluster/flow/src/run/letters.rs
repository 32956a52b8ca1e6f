//! Dead letters become the records that they were, and are put through again.
//!
//! ```text
//! headers of a dead letter    those that the record had | fulmar.pipeline | fulmar.stream
//!                             | fulmar.reader, if it failed behind one query: see `plan/order.rs`
//!                             | fulmar.topic | fulmar.partition | fulmar.offset | fulmar.reason
//!                             | fulmar.line | fulmar.column | fulmar.cut, if the payload is cut
//! ```
//!
//! One for which the file has no stream or no query is written once more as it is, and so waits behind the others
//! until somebody asks again, with another file.
//!
//! A retried record goes to its stream alone, and if only one query has failed with it, to that one alone:
//! the others had it. It says nothing of the time of its partition, and its fate goes to an account of its
//! own ([`RETRIED`](super::record::RETRIED)).
//!
//! Invariants: whatever lies in a topic of dead letters is put through or counted as what it is instead;
//! what clients write there can do no more than a record of the stream can.

use super::engine::Engine;
use super::epoch::NO_SOURCE;
use super::record::{Header, Record, Written};
use crate::plan::order;
use fulmar_host::planted;
use fulmar_types::Plant;
use std::sync::Arc;

/// The pipeline; what is before the last one of these the record had.
pub const PIPELINE: &str = "fulmar.pipeline";
/// The stream or table that it is a record of.
pub const STREAM: &str = "fulmar.stream";
/// The reader behind which it failed.
pub const READER: &str = "fulmar.reader";
/// Its topic.
pub const TOPIC: &str = "fulmar.topic";
/// Its partition.
pub const PARTITION: &str = "fulmar.partition";
/// Its offset.
pub const OFFSET: &str = "fulmar.offset";
/// How long the payload was, of which not everything is there.
pub const CUT: &str = "fulmar.cut";

/// Why something in a topic of dead letters cannot be put through again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Its payload is cut.
    Cut = 1,
    /// It is no dead letter: a late record, a result, a batch that cannot be read, or of a client.
    NoLetter = 2,
    /// It is one of another pipeline.
    OfAnother = 3,
    /// Its stream, or the query behind which it failed, is not in the file: it waits again.
    NoStream = 4,
}

/// What became of dead letters that were to be put through again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// Put through again.
    pub retried: u64,
    /// See [`Unfit::Cut`].
    pub cut: u64,
    /// See [`Unfit::NoLetter`].
    pub no_letters: u64,
    /// See [`Unfit::OfAnother`].
    pub of_others: u64,
    /// See [`Unfit::NoStream`].
    pub no_stream: u64,
}

/// Where [`Letters::retried`] is counted, beside each [`Unfit`].
const RETRIED_AT: u32 = 0;

/// A record that is put through again, and for whom.
#[derive(Debug, PartialEq, Eq)]
struct Again {
    source: usize,
    reader: Option<u32>,
    record: Record,
}

/// The value of a header that is a text.
fn text<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(known, _)| &**known == name);
    found.and_then(|(_, value)| str::from_utf8(value.as_deref()?).ok())
}

fn number<N: std::str::FromStr>(headers: &[Header], name: &str) -> Result<N, Unfit> {
    text(headers, name).and_then(|text| text.parse().ok()).ok_or(Unfit::NoLetter)
}

impl Engine {
    /// Gives it what lies in a topic of dead letters. It is read when it works.
    ///
    /// # Panics
    /// As [`Engine::give`].
    pub fn give_letters(&mut self, topic: &str, letters: &[Arc<Record>]) {
        self.in_order(topic, letters);
        for letter in letters {
            let at = match self.again(letter) {
                Ok(Again { source, reader, record }) => {
                    self.give_to((source, reader), vec![Arc::new(record)]);
                    RETRIED_AT
                }
                Err(unfit) => unfit as u32,
            };
            if let Some(epoch) = self.epochs.back_mut() {
                *epoch.letters.entry(at).or_default() += 1;
                if at == Unfit::NoStream as u32 {
                    epoch.dead.entry(NO_SOURCE).or_default().push(Written {
                        topic: topic.into(),
                        timestamp: letter.timestamp,
                        key: letter.key.clone(),
                        headers: letter.headers.clone(),
                        value: letter.value.clone(),
                    });
                }
            }
        }
    }

    /// What became of dead letters that were to be put through again.
    pub fn letters(&self) -> Letters {
        let of = |at: u32| self.letters.get(&at).copied().unwrap_or_default();
        Letters {
            retried: of(RETRIED_AT),
            cut: of(Unfit::Cut as u32),
            no_letters: of(Unfit::NoLetter as u32),
            of_others: of(Unfit::OfAnother as u32),
            no_stream: of(Unfit::NoStream as u32),
        }
    }

    /// The reader of a source that is called so.
    fn reader(&self, source: usize, name: &str) -> Result<u32, Unfit> {
        // Of a table every query has every row.
        let streams = self.readers[source].iter().filter(|reader| !reader.is_table);
        let streams: Vec<u32> = streams.map(|reader| reader.number).collect();
        let found = order::called(name, streams.iter().map(|number| &self.names[*number as usize]));
        let is_off = usize::from(planted(Plant::LetterForAnother));
        let found = found.map(|at| (at + is_off) % streams.len());
        found.map(|at| streams[at]).ok_or(Unfit::NoStream)
    }

    /// The record that a dead letter was.
    fn again(&self, letter: &Record) -> Result<Again, Unfit> {
        let ours = letter.headers.iter().rposition(|(name, _)| &**name == PIPELINE);
        let ours = ours.filter(|_| letter.damage.is_none()).ok_or(Unfit::NoLetter)?;
        let (headers, told) = letter.headers.split_at(ours);
        let stream = text(told, STREAM).ok_or(Unfit::NoLetter)?;
        if text(told, PIPELINE) != Some(&*self.name) {
            return Err(Unfit::OfAnother);
        }
        if told.iter().any(|(name, _)| &**name == CUT) {
            return Err(Unfit::Cut);
        }
        let topic = text(told, TOPIC).ok_or(Unfit::NoLetter)?;
        let sources = &self.plan.sources;
        let source = sources.iter().position(|known| known.name == stream && known.topic == topic);
        let source = source.ok_or(Unfit::NoStream)?;
        let reader = match told.iter().any(|(name, _)| &**name == READER) {
            false => None,
            true => Some(self.reader(source, text(told, READER).ok_or(Unfit::NoLetter)?)?),
        };
        let record = Record {
            partition: number(told, PARTITION)?,
            offset: number(told, OFFSET)?,
            timestamp: letter.timestamp,
            key: letter.key.clone(),
            headers: headers.to_vec(),
            value: letter.value.clone(),
            damage: None,
            is_retried: true,
        };
        Ok(Again { source, reader, record })
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::RETRIED;
    use super::*;
    use crate::{Fates, plan};
    use bytes::Bytes;

    fn retry(engine: &mut Engine, letters: &[Arc<Record>]) {
        engine.give_letters("dead", letters);
        engine.work(usize::MAX);
        engine.halted().expect("nothing stops it");
    }

    const FILE: &str = "CREATE STREAM s (v BIGINT NOT NULL CHECK (v < 90)) FROM TOPIC in \
                        ON ERROR DEAD LETTER dead;\n\
                        CREATE STREAM other (v BIGINT) FROM TOPIC in ON ERROR DEAD LETTER dead;\n\
                        INSERT INTO TOPIC a SELECT v FROM s;\n\
                        INSERT INTO TOPIC b SELECT 10 / v AS q FROM s;\n\
                        INSERT INTO TOPIC c SELECT v FROM other;";

    fn engine(file: &str, name: &str) -> Engine {
        let plan = plan(file).expect("a pipeline");
        Engine::new(Arc::new(plan), &[("in".to_owned(), 1)].into()).named(name)
    }

    fn record(offset: i64, value: &str) -> Arc<Record> {
        Arc::new(Record {
            partition: 0,
            offset,
            timestamp: 1_000 + offset,
            key: Some("k".into()),
            headers: vec![("h".into(), Some("x".into())), (PIPELINE.into(), Some("older".into()))],
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            damage: None,
            is_retried: false,
        })
    }

    /// What lies in the topic of dead letters after these records.
    fn dead(written: &[Written]) -> Vec<Arc<Record>> {
        let dead = written.iter().filter(|written| &*written.topic == "dead");
        let letter = |(offset, written): (i64, &Written)| {
            Arc::new(Record {
                partition: 0,
                offset,
                timestamp: written.timestamp,
                key: written.key.clone(),
                headers: written.headers.clone(),
                value: written.value.clone(),
                damage: None,
                is_retried: false,
            })
        };
        (0..).zip(dead).map(letter).collect()
    }

    fn came(written: &[Written], topic: &str) -> Vec<String> {
        let of = written.iter().filter(|written| &*written.topic == topic);
        of.map(|w| String::from_utf8_lossy(w.value.as_deref().unwrap_or_default()).into()).collect()
    }

    #[test]
    fn a_letter_goes_to_whom_it_failed_and_to_nobody_else() {
        let mut engine = engine(FILE, "p");
        let records = [record(0, r#"{"v":95}"#), record(1, r#"{"v":0}"#), record(2, r#"{"v":5}"#)];
        engine.batch("in", &records).expect("bad records do not stop it");
        let first = engine.end_epoch(1, false).expect("it goes on");
        assert_eq!(came(&first, "a"), [r#"{"v":0}"#, r#"{"v":5}"#]);
        let letters = dead(&first);
        assert_eq!(letters.len(), 2, "{letters:?}");

        // A file of the same shape would be too strict for this; what is at hand is one that is not.
        let mended = FILE.replace("v < 90", "v < 99").replace("10 / v", "10 / (v + 1)");
        let mut engine = super::tests::engine(&mended, "p");
        retry(&mut engine, &letters);
        let again = engine.end_epoch(2, false).expect("it goes on");
        assert_eq!(came(&again, "a"), [r#"{"v":95}"#], "the other had passed there");
        assert_eq!(came(&again, "b").len(), 2);
        assert_eq!(came(&again, "c").len(), 0, "the other stream had both");
        assert_eq!(dead(&again).len(), 0);
        assert_eq!(engine.letters(), Letters { retried: 2, ..Letters::default() });
        let fates: Vec<_> = engine.fates().map(|(_, at, fates)| (at, fates)).collect();
        let passed = |read| (RETRIED, Fates { read, passed: read, ..Fates::default() });
        assert_eq!(fates, [passed(1), passed(2)]);
    }

    #[test]
    fn a_letter_that_fails_again_is_the_same_letter() {
        let mut engine = engine(FILE, "p");
        engine
            .batch("in", &[record(7, r#"{"v":95}"#), record(8, r#"{"v":0}"#)])
            .expect("it goes on");
        let letters = dead(&engine.end_epoch(1, false).expect("it goes on"));
        retry(&mut engine, &letters);
        let again = dead(&engine.end_epoch(2, false).expect("it goes on"));
        assert_eq!(again, letters, "with all headers");
        assert!(engine.fates().all(|(_, _, fates)| fates.sum() == fates.read));
    }

    #[test]
    fn what_cannot_be_put_through_is_counted() {
        let mut engine = engine(FILE, "p");
        engine.batch("in", &[record(0, r#"{"v":95}"#)]).expect("it goes on");
        let letters = dead(&engine.end_epoch(1, false).expect("it goes on"));
        let letter = &letters[0];
        let with = |offset: i64, change: &dyn Fn(&mut Record)| {
            let mut changed = Record { offset, ..(**letter).clone() };
            change(&mut changed);
            Arc::new(changed)
        };
        let set = |record: &mut Record, name: &str, value: &'static str| {
            let at = record.headers.iter().rposition(|(known, _)| &**known == name);
            match at {
                Some(at) => record.headers[at].1 = Some(value.into()),
                None => record.headers.push((name.into(), Some(value.into()))),
            }
        };
        let all = [
            with(0, &|record| set(record, CUT, "9")),
            with(1, &|record| record.headers.clear()),
            with(2, &|record| set(record, PARTITION, "-1")),
            with(3, &|record| set(record, READER, "x")),
            with(4, &|record| set(record, PIPELINE, "q")),
            with(5, &|record| set(record, STREAM, "gone")),
            with(6, &|record| set(record, READER, "gone 0 00")),
            with(7, &|record| record.damage = Some("a batch".into())),
        ];
        retry(&mut engine, &all);
        // Those that another file has a stream and a query for wait again, as they are.
        let returned = dead(&engine.end_epoch(2, false).expect("it goes on"));
        let headers = |letters: &[Arc<Record>]| -> Vec<_> {
            letters.iter().map(|letter| letter.headers.clone()).collect()
        };
        assert_eq!(headers(&returned), headers(&[&all[3..4], &all[5..7]].concat()));
        let counted = Letters { retried: 0, cut: 1, no_letters: 3, of_others: 1, no_stream: 3 };
        assert_eq!(engine.letters(), counted);
    }

    #[test]
    fn a_letter_finds_its_query_wherever_it_stands() {
        let file = |queries: &str| {
            let stream = "CREATE STREAM s (v BIGINT) FROM TOPIC in ON ERROR DEAD LETTER dead;";
            format!("{stream} {queries}")
        };
        let plain = "INSERT INTO TOPIC a SELECT v FROM s;";
        let ten = "INSERT INTO TOPIC b SELECT 10 / v AS q FROM s;";
        let mended = "INSERT INTO TOPIC b SELECT 10 / (v + 1) AS q FROM s;";
        let letters = |queries: &str| {
            let mut engine = engine(&file(queries), "p");
            engine.batch("in", &[record(1, r#"{"v":0}"#)]).expect("it goes on");
            dead(&engine.end_epoch(1, false).expect("it goes on"))
        };
        let again = |letters: &[Arc<Record>], queries: &str| {
            let mut engine = engine(&file(queries), "p");
            retry(&mut engine, letters);
            let written = engine.end_epoch(2, false).expect("it goes on");
            let counts = ["a", "b", "dead"].map(|topic| came(&written, topic).len());
            (counts, engine.letters().retried)
        };
        let one = letters(&format!("{plain} {ten}"));
        assert_eq!(one.len(), 1);
        for queries in [format!("{plain} {mended}"), format!("{mended} {plain}")] {
            assert_eq!(again(&one, &queries), ([0, 1, 0], 1), "{queries}");
        }
        // Where two queries write one topic, it has to be the query itself.
        let other = "INSERT INTO TOPIC b SELECT v FROM s;";
        assert_eq!(again(&one, &format!("{other} {ten}")), ([0, 0, 1], 1), "it fails again");
        assert_eq!(again(&one, &format!("{other} {mended}")), ([0, 0, 1], 0), "it waits");
        assert_eq!(again(&one, plain), ([0, 0, 1], 0), "it waits");
        // Whoever reads a stream twice says which time it was.
        let twice =
            "CREATE STREAM l AS SELECT 10 / v AS q, v FROM s; CREATE STREAM r AS SELECT v FROM s;
                     INSERT INTO TOPIC b SELECT q, v FROM l;
                     INSERT INTO TOPIC b SELECT 10 / v AS q, v FROM r;";
        let both = letters(twice);
        assert_eq!(both.len(), 2);
        assert_eq!(again(&both[..1], twice), ([0, 0, 1], 1));
    }
}

//! What an operator may touch besides its own state: the fates, and the records that go beside.

use super::Halt;
use super::channel::Rank;
use super::epoch::Beside;
use super::fates::{Fate, Tally};
use super::letters::{OFFSET, PARTITION, PIPELINE, READER, STREAM, TOPIC};
use super::output;
use super::record::{Header, Record, Row, Written};
use crate::eval::Failure;
use crate::plan::Column;
use crate::plan::order::ReaderName;
use crate::plan::source::Source;
use crate::problem::Position;
use crate::sql::statement::OnError;
use crate::value::json;
use bytes::Bytes;
use std::sync::Arc;

/// What is the same for all rows of a batch at an operator.
#[derive(Debug)]
pub struct Context<'a> {
    /// The pipeline, by name.
    pub pipeline: &'a str,
    /// What its readers are called.
    pub names: &'a [ReaderName],
    /// What becomes of records.
    pub fates: &'a mut Tally,
    /// The source whose rule holds.
    pub rule: &'a Source,
    /// The columns that rows have here.
    pub columns: &'a [Column],
    /// Where bad rows go.
    pub beside: &'a mut Vec<Beside>,
    /// Results that could not be computed, of no single record.
    pub failed_results: &'a mut u64,
    /// Set if the pipeline has to stop.
    pub halt: &'a mut Option<Halt>,
    /// What was written in this epoch, in bytes, and where the query stands.
    pub put_out: (&'a mut usize, Position),
    /// At a join of streams and behind it, up to the next group: what joins have put out in this epoch, in
    /// bytes, and where the query stands.
    pub joined: Option<(&'a mut usize, Position)>,
    /// In how many windows a row is here.
    pub copies: usize,
    /// Whether what comes out needs a rank.
    pub is_ranked: bool,
    /// The place of the row that is looked at.
    pub rank: Rank,
}

/// What joins of streams may put out in one epoch, with what they leave in the state of operators behind them:
/// an epoch is in memory as a whole, and goes into the log as a whole, and the pairs of a window may be as
/// many as the product of its rows.
const JOINED_BYTES_MAX: usize = 64 << 20;

/// What an epoch may put out in all: it goes through memory as a whole. What windows keep has a bound of its own, and
/// comes to less, unless texts are made that are much longer.
const PUT_OUT_BYTES_MAX: usize = 512 << 20;

fn header(name: &str, value: impl ToString) -> Header {
    (name.into(), Some(Bytes::from(value.to_string())))
}

fn reasons(failure: &Failure) -> [Header; 3] {
    [
        header("fulmar.reason", &failure.reason),
        header("fulmar.line", failure.at.line),
        header("fulmar.column", failure.at.column),
    ]
}

/// What says of a record beside who may put it through again.
pub fn retriable(pipeline: &str, source: &Source, reader: Option<&ReaderName>) -> Vec<Header> {
    let mut headers = vec![header(PIPELINE, pipeline), header(STREAM, &source.name)];
    headers.extend(reader.map(|reader| header(READER, reader)));
    headers
}

/// A record as it came, with where it came from and why it goes there.
pub fn beside(
    source: &Source,
    (topic, before): (&str, Vec<Header>),
    record: &Record,
    failure: &Failure,
) -> Written {
    let mut headers = record.headers.clone();
    headers.extend(before);
    headers.push(header(TOPIC, &source.topic));
    headers.push(header(PARTITION, record.partition));
    let is_off = fulmar_host::planted(fulmar_types::Plant::LetterNamesNextOffset);
    headers.push(header(OFFSET, record.offset + i64::from(is_off)));
    headers.extend(reasons(failure));
    Written {
        topic: topic.into(),
        timestamp: record.timestamp,
        key: record.key.clone(),
        headers,
        value: record.value.clone(),
    }
}

impl Context<'_> {
    /// A row cannot be computed.
    pub fn fail(&mut self, row: &Row, failure: &Failure) {
        let fate = match self.rule.on_error {
            OnError::DeadLetter(_) => Fate::DeadLettered,
            OnError::Drop => Fate::Dropped,
            OnError::Fail => return self.stop(row, failure),
        };
        self.fates.settle_row(row.origin.as_ref(), fate);
        if row.origin.is_none() {
            *self.failed_results += 1;
        }
        let OnError::DeadLetter(topic) = &self.rule.on_error else { return };
        let written = match &row.origin {
            Some(origin) => {
                let reader = self.names.get(origin.reader as usize);
                let before = retriable(self.pipeline, self.rule, reader);
                beside(self.rule, (&topic.text, before), &origin.record, failure)
            }
            None => self.result(&topic.text, row, failure),
        };
        let is_record = row.origin.is_some();
        let is_told = self.beside.last().is_some_and(|last| is_record && last.written == written);
        if !is_told {
            if !is_record {
                self.put(output::bytes_of(&written));
            }
            self.wrote(output::bytes_of(&written));
            self.beside.push(Beside { rank: self.rank.clone(), is_record, written });
        }
    }

    /// So many bytes are put out, or kept. If they are of pairs, and too many, the pipeline has to stop.
    pub fn put(&mut self, bytes: usize) {
        let Some((joined, at)) = &mut self.joined else { return };
        **joined = joined.saturating_add(bytes);
        let (is_much, at) = (**joined > JOINED_BYTES_MAX, *at);
        if is_much {
            let most = JOINED_BYTES_MAX >> 20;
            self.too_much(at, format!("the pairs that come out at once take more than {most} MiB"));
        }
    }

    /// So many bytes are written. If that is too much for one epoch, the pipeline has to stop.
    pub fn wrote(&mut self, bytes: usize) {
        let (put_out, at) = &mut self.put_out;
        **put_out = put_out.saturating_add(bytes);
        let (is_much, at) = (**put_out > PUT_OUT_BYTES_MAX, *at);
        if is_much {
            let most = PUT_OUT_BYTES_MAX >> 20;
            self.too_much(at, format!("what comes out at once takes more than {most} MiB"));
        }
    }

    fn too_much(&mut self, at: Position, reason: String) {
        let (failure, topic) = (Failure::new(at, reason), self.rule.topic.clone());
        self.halt.get_or_insert(Halt { failure, topic, record: None });
    }

    /// A result that is of no single record.
    fn result(&self, topic: &str, row: &Row, failure: &Failure) -> Written {
        let value = object(self.columns, row);
        Written {
            topic: topic.into(),
            timestamp: row.time,
            key: None,
            headers: reasons(failure).into(),
            value: Some(value),
        }
    }

    fn stop(&mut self, row: &Row, failure: &Failure) {
        if self.halt.is_none() {
            let record = row.origin.as_ref().map(|origin| Arc::clone(&origin.record));
            let topic = self.rule.topic.clone();
            *self.halt = Some(Halt { failure: failure.clone(), topic, record });
        }
    }
}

/// A row as a payload.
pub fn object(columns: &[Column], row: &Row) -> Bytes {
    // Enough for most: names, numbers and short texts.
    let mut out = String::with_capacity(32 * columns.len() + 64);
    out.push('{');
    for (index, (column, value)) in columns.iter().zip(&row.values).enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        json::write_text(&column.name, &mut out);
        out.push(':');
        value.write_json(&mut out);
    }
    out.push('}');
    Bytes::from(out)
}

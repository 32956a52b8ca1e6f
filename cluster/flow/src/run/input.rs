//! From records to the operators that read them.

use super::Halt;
use super::context::{beside, retriable};
use super::engine::{Engine, Reader, State};
use super::fates::Fate;
use super::record::{Origin, Record, Row};
use super::source::{self, Decoded};
use super::table_join::Version;
use crate::eval::Failure;
use crate::sql::statement::{Late, OnError};
use crate::value::{Value, time};
use fulmar_types::Plant;
use std::sync::Arc;

/// Whether a record is for a reader.
fn is_for(only: Option<u32>, reader: &Reader) -> bool {
    only.is_none_or(|only| only == reader.number)
}

impl Engine {
    /// Records of a source come in, for all of its readers or for one.
    pub(super) fn read(&mut self, (index, only): (usize, Option<u32>), records: &[Arc<Record>]) {
        let plan = Arc::clone(&self.plan);
        let source = &plan.sources[index];
        let mut batches: Vec<Vec<Row>> = vec![Vec::new(); self.readers[index].len()];
        for record in records {
            for reader in self.readers[index].iter().filter(|reader| is_for(only, reader)) {
                self.fates.read((reader.number, record.account()));
            }
            match source::decode(source, record) {
                Ok(Decoded::Row(row)) if source.primary.is_some() => {
                    self.version(index, record, row);
                }
                Ok(Decoded::Gone(key, time)) => self.gone(index, record, key, time),
                Ok(Decoded::Row(row)) => self.row((index, only), record, row, &mut batches),
                Err(failure) => self.bad((index, only), record, failure),
            }
            if self.halt.is_some() {
                return;
            }
        }
        for (reader, rows) in batches.into_iter().enumerate() {
            let node = self.readers[index][reader].node;
            self.push(node, rows);
        }
    }

    fn row(
        &mut self,
        (index, only): (usize, Option<u32>),
        record: &Arc<Record>,
        row: Row,
        batches: &mut [Vec<Row>],
    ) {
        let (time, mut is_late) = (row.time, false);
        if let Some(known) = &mut self.times[index] {
            is_late = known.is_late(time);
            // Of one that comes once more its partition says nothing.
            if !record.is_retried {
                known.see(record.partition, time);
            }
        }
        let mut was_needed = false;
        // The last reader gets the row itself.
        let mut left = Some(row);
        let readers = self.readers[index].len();
        for (number, (reader, batch)) in self.readers[index].iter().zip(batches).enumerate() {
            if !is_for(only, reader) {
                continue;
            }
            if is_late && reader.uses_time {
                was_needed = true;
                self.fates.settle((reader.number, record.account()), Fate::Late);
                continue;
            }
            let row = if number + 1 == readers { left.take() } else { left.clone() };
            let Some(row) = row else { continue };
            let record = Arc::clone(record);
            let origin = Some(Origin { reader: reader.number, record, counts: true });
            batch.push(Row { origin, ..row });
        }
        let source = &self.plan.sources[index];
        let is_told = was_needed && !fulmar_host::planted(Plant::LateRowDropped);
        if let (true, Late::To(topic)) = (is_told, &source.late) {
            let reason = format!("its event time {} is before the watermark", time::format(time));
            let failure = Failure::new(source.at, reason);
            self.late[index].push(beside(source, (&topic.text, Vec::new()), record, &failure));
        }
    }

    fn bad(&mut self, (index, only): (usize, Option<u32>), record: &Arc<Record>, failure: Failure) {
        let source = &self.plan.sources[index];
        let fate = match &source.on_error {
            OnError::DeadLetter(topic) => {
                // What cannot even be read stays so, whatever the file says.
                let before = match record.damage {
                    None => retriable(&self.name, source, only),
                    Some(_) => Vec::new(),
                };
                self.dead[index].push(beside(source, (&topic.text, before), record, &failure));
                Fate::DeadLettered
            }
            OnError::Drop => Fate::Dropped,
            OnError::Fail => {
                let (topic, record) = (source.topic.clone(), Some(Arc::clone(record)));
                self.halt = Some(Halt { failure, topic, record });
                return;
            }
        };
        for reader in self.readers[index].iter().filter(|reader| is_for(only, reader)) {
            self.fates.settle((reader.number, record.account()), fate);
        }
    }

    fn version(&mut self, index: usize, record: &Arc<Record>, row: Row) {
        if let Some(time) = self.times[index].as_mut().filter(|_| !record.is_retried) {
            time.see(record.partition, row.time);
        }
        let primary = self.plan.sources[index].primary.clone().unwrap_or_default();
        let key: Vec<Value> = primary.iter().map(|index| row.values[*index].clone()).collect();
        self.tell(index, record, (key, row.time), Some(row.values));
    }

    fn gone(&mut self, index: usize, record: &Arc<Record>, key: Vec<Value>, time: i64) {
        self.tell(index, record, (key, time), None);
    }

    /// Tells every join with a table what its topic says.
    fn tell(
        &mut self,
        index: usize,
        record: &Arc<Record>,
        (key, time): (Vec<Value>, i64),
        values: Option<Vec<Value>>,
    ) {
        for at in 0..self.readers[index].len() {
            let reader = self.readers[index][at];
            assert!(reader.is_table, "reader {} reads a table as a stream", reader.number);
            let version =
                Version { values: values.clone(), record: (reader.number, record.account()) };
            let (state, mut context) = self.at(reader.node);
            if let State::TableJoin(join) = state {
                join.version(key.clone(), time, version, &mut context);
            }
        }
    }
}

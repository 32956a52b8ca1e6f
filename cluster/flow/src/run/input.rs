//! From records to rows: what the intake does.

use super::Halt;
use super::channel::{Item, Rows, Told};
use super::context::{beside, retriable};
use super::engine::{Engine, Given};
use super::exchange::subtask_of;
use super::fates::Fate;
use super::record::{Origin, Record, Row};
use super::source::{self, Decoded};
use super::table_join::Version;
use super::tasks::{INTAKE, Reader};
use crate::eval::Failure;
use crate::sql::statement::{Late, OnError};
use crate::value::{Value, time};
use fulmar_host::planted;
use fulmar_types::Plant;
use std::sync::Arc;

/// Whether a record is for a reader.
fn is_for(only: Option<u32>, reader: &Reader) -> bool {
    only.is_none_or(|only| only == reader.number)
}

/// What comes out of records, by reader of their source.
struct Batches {
    epoch: u64,
    rows: Vec<Vec<Row>>,
    told: Vec<Vec<Told>>,
}

impl Engine {
    /// Takes in some of what was given. How many records; none if there is nothing, or no room behind.
    pub(super) fn take_in(&mut self, most: usize) -> Option<usize> {
        match self.given.pop_front()? {
            Given::End { age_ms, unread, last } => {
                self.leave_sources(age_ms, &unread, last);
                Some(1)
            }
            Given::Records { source, only, records, from } => {
                let outlets = self.readers[source].iter().map(|reader| reader.outlet);
                let room = outlets.clone().map(|outlet| self.tasks.room(outlet)).min();
                let copies: usize = outlets.map(|outlet| self.tasks.outlets[outlet].copies).sum();
                let most = (most / copies.max(1)).max(1);
                let count = (records.len() - from).min(most).min(room.unwrap_or(usize::MAX));
                let next = from + count;
                self.read((source, only), &records[from..next]);
                if next < records.len() {
                    self.given.push_front(Given::Records { source, only, records, from: next });
                }
                (count > 0 || next == 0).then_some(count * copies)
            }
        }
    }

    /// Records of a source come in, for all of its readers or for one.
    fn read(&mut self, (index, only): (usize, Option<u32>), records: &[Arc<Record>]) {
        let plan = Arc::clone(&self.plan);
        let source = &plan.sources[index];
        let epoch = self.tasks.subtasks[INTAKE].epoch;
        let readers = self.readers[index].len();
        let (mut rows, mut told) = (Vec::new(), Vec::new());
        rows.resize_with(readers, Vec::new);
        told.resize_with(readers, Vec::new);
        let mut batches = Batches { epoch, rows, told };
        for record in records {
            if self.epoch(epoch).halt.is_some() {
                return;
            }
            let tally = &mut self.epochs[(epoch - self.over) as usize].tally;
            for reader in self.readers[index].iter().filter(|reader| is_for(only, reader)) {
                tally.read((reader.number, record.account()));
            }
            match source::decode(source, record) {
                Ok(Decoded::Row(row)) if source.primary.is_some() => {
                    self.version(index, record, row, &mut batches);
                }
                Ok(Decoded::Gone(key, time)) => {
                    self.tell(index, record, (key, time, None), &mut batches);
                }
                Ok(Decoded::Row(row)) => self.row((index, only), record, row, &mut batches),
                Err(failure) => self.bad((index, only), record, failure, epoch),
            }
        }
        for (reader, (rows, told)) in batches.rows.into_iter().zip(batches.told).enumerate() {
            let outlet = self.readers[index][reader].outlet;
            self.send(epoch, outlet, rows.into());
            self.send_told(outlet, told);
        }
    }

    fn row(
        &mut self,
        (index, only): (usize, Option<u32>),
        record: &Arc<Record>,
        row: Row,
        batches: &mut Batches,
    ) {
        let epoch = (batches.epoch - self.over) as usize;
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
        for (number, (reader, batch)) in
            self.readers[index].iter().zip(&mut batches.rows).enumerate()
        {
            if !is_for(only, reader) {
                continue;
            }
            if is_late && reader.uses_time {
                was_needed = true;
                let place = (reader.number, record.account());
                self.epochs[epoch].tally.settle(place, Fate::Late);
                continue;
            }
            let row = if number + 1 == readers { left.take() } else { left.clone() };
            let Some(row) = row else { continue };
            let record = Arc::clone(record);
            let origin = Some(Origin { reader: reader.number, record, counts: true });
            batch.push(Row { origin, ..row });
        }
        let source = &self.plan.sources[index];
        let is_told = was_needed && !planted(Plant::LateRowDropped);
        if let (true, Late::To(topic)) = (is_told, &source.late) {
            let reason = format!("its event time {} is before the watermark", time::format(time));
            let failure = Failure::new(source.at, reason);
            let late = beside(source, (&topic.text, Vec::new()), record, &failure);
            self.epochs[epoch].late.entry(index).or_default().push(late);
        }
    }

    fn bad(
        &mut self,
        (index, only): (usize, Option<u32>),
        record: &Arc<Record>,
        failure: Failure,
        epoch: u64,
    ) {
        let source = &self.plan.sources[index];
        let epoch = &mut self.epochs[(epoch - self.over) as usize];
        let fate = match &source.on_error {
            OnError::DeadLetter(topic) => {
                // What cannot even be read stays so, whatever the file says.
                let before = match record.damage {
                    None => {
                        let reader = only.and_then(|only| self.names.get(only as usize));
                        retriable(&self.name, source, reader)
                    }
                    Some(_) => Vec::new(),
                };
                let dead = beside(source, (&topic.text, before), record, &failure);
                epoch.dead.entry(index).or_default().push(dead);
                Fate::DeadLettered
            }
            OnError::Drop => Fate::Dropped,
            OnError::Fail if planted(Plant::PoisonPassedOver) => Fate::Dropped,
            OnError::Fail => {
                let (topic, record) = (source.topic.clone(), Some(Arc::clone(record)));
                epoch.halt = Some(Halt { failure, topic, record });
                return;
            }
        };
        for reader in self.readers[index].iter().filter(|reader| is_for(only, reader)) {
            epoch.tally.settle((reader.number, record.account()), fate);
        }
    }

    fn version(&mut self, index: usize, record: &Arc<Record>, row: Row, batches: &mut Batches) {
        if let Some(time) = self.times[index].as_mut().filter(|_| !record.is_retried) {
            time.see(record.partition, row.time);
        }
        let primary = self.plan.sources[index].primary.as_deref().unwrap_or_default();
        let key: Vec<Value> = primary.iter().map(|index| row.values[*index].clone()).collect();
        self.tell(index, record, (key, row.time, Some(row.values)), batches);
    }

    /// Every join with a table is told what its topic says.
    fn tell(
        &mut self,
        index: usize,
        record: &Arc<Record>,
        (key, time, values): (Vec<Value>, i64, Option<Vec<Value>>),
        batches: &mut Batches,
    ) {
        if !record.is_retried {
            self.note_top(index, record.partition, time);
        }
        for (reader, told) in self.readers[index].iter().zip(&mut batches.told) {
            assert!(reader.is_table, "reader {} reads a table as a stream", reader.number);
            let version =
                Version { values: values.clone(), record: (reader.number, record.account()) };
            told.push(Told { key: key.clone(), time, version });
        }
    }

    /// What a table says goes to the subtasks of a join.
    fn send_told(&mut self, outlet: usize, told: Vec<Told>) {
        let count = self.tasks.outlets[outlet].channels.len();
        let mut spread: Vec<Vec<Told>> = Vec::new();
        spread.resize_with(count, Vec::new);
        for told in told {
            spread[subtask_of(&told.key, count)].push(told);
        }
        for (at, told) in spread.into_iter().enumerate().filter(|(_, told)| !told.is_empty()) {
            let channel = self.tasks.outlets[outlet].channels[at];
            self.put(channel, Item::Table(told));
        }
    }

    /// Rows go out, through the nodes on the way.
    pub(super) fn send(&mut self, epoch: u64, outlet: usize, mut rows: Rows) {
        for at in 0..self.tasks.outlets[outlet].chain.len() {
            if rows.is_empty() || self.epoch(epoch).halt.is_some() {
                return;
            }
            let node = self.tasks.outlets[outlet].chain[at];
            rows = self.through(epoch, node, rows.rows).into();
        }
        if rows.is_empty() {
            return;
        }
        let spread = self.tasks.outlets[outlet].spread(&self.plan, rows);
        for (at, rows) in spread.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let channel = self.tasks.outlets[outlet].channels[at];
            self.put(channel, Item::Rows(rows));
        }
    }
}

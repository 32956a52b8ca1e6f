//! What pipelines gave, compared with what they have to give.
//!
//! The records that are in the inputs, in the epochs that the nodes said they committed, go through the
//! reference; what a pipeline had given before it went back to an earlier state is there still.
//!
//! Invariants: nothing is wrong that may only be late: while a pipeline goes on, what is read of it
//! belongs to no one moment, and is looked at again.

use super::due;
use super::fates;
use super::packing::is_nothing;
use super::pipelines::{LIMIT, LOOK, Piping, Places, Rows};
use super::retrying::{misread, mistold};
use super::stage::Stage;
use super::tending::OnError;
use super::whole::{end, whole};
use crate::epochs::{EpochLog, Part};
use crate::report::Verdict;
use bytes::Bytes;
use fulmar_client::{Cluster, ReadRecord, TopicPartition};
use fulmar_reference::model::{self, Came};
use fulmar_reference::spec::{Case, Epoch, Input, RETRIED, Shape, partition_of};
use fulmar_types::event::{CommittedEpoch, RecordRange};
use fulmar_types::{Offset, PartitionIndex, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

impl Piping {
    /// Waits until everything is read and has come out, and compares it with the reference.
    pub(super) async fn compare(
        &self,
        places: &Places,
        stage: &Stage,
        deadline_ns: u64,
    ) -> Option<Verdict> {
        let site = stage.site_number(&self.of.site);
        loop {
            let epochs = stage.sink.epochs(site, self.of.name.as_str());
            let found = self.found(places, &epochs).await;
            let is_settled = {
                let now = stage.sink.epochs(site, self.of.name.as_str());
                now.epochs().count() == epochs.epochs().count()
            };
            let text = match found {
                Ok(Differs::Equal(count)) if is_settled => {
                    stage.sink.compared("pipeline_exact", count);
                    stage.sink.compared("memory_kept", self.tended().full());
                    return None;
                }
                Ok(Differs::Wrong(text)) if is_settled => {
                    return Some(Verdict::Safety { check: "pipeline_exact".to_owned(), text });
                }
                Ok(Differs::Fates(text)) if is_settled => {
                    return Some(Verdict::Safety { check: "fates_exact".to_owned(), text });
                }
                Ok(Differs::Tended(check, text)) => {
                    return Some(Verdict::Safety { check: check.to_owned(), text });
                }
                Ok(Differs::Lacks(text)) if is_settled => text,
                Ok(_) => "it commits epochs without input".to_owned(),
                Err(text) => text,
            };
            if stage.machines.now_ns() > deadline_ns {
                let text = format!("pipeline {}: {text}", self.of.name);
                return Some(Verdict::Liveness { check: "pipeline_converges".to_owned(), text });
            }
            madsim::time::sleep(LOOK).await;
        }
    }

    /// How the outputs differ from what they have to be.
    async fn found(&self, places: &Places, log: &EpochLog) -> Result<Differs, String> {
        let (cluster, _) = places.outputs.first().ok_or("it is nowhere")?;
        let known = cluster.refresh_all(LIMIT).await.map_err(|error| error.to_string())?;
        let id = |name: &str| {
            let topic = known.topics.get(&self.case.topic(name));
            topic.map(|topic| TopicId(topic.id)).ok_or("a topic is gone".to_owned())
        };
        let (input, devices, dead) = (id("in")?, id("devices")?, id("dead")?);
        let mut rows = self.rows(places, log, (input, devices)).await?;
        let letters = TopicPartition::new(&self.case.topic("dead"), PartitionIndex(0));
        rows.insert((dead, letters.partition), self.read(cluster, &letters).await?.1);
        let of = ([input, dead], &rows);
        if let Some(text) = self.passed_over(log, dead) {
            return Ok(Differs::Tended("pipeline_exact", text));
        }
        let bad = self.bad_records((input, &rows))?;
        if let Some((check, text)) = self.tended().wrong(log, &bad) {
            return Ok(Differs::Tended(check, text));
        }
        let History { expected, case, given } = match self.history(log, of)? {
            Ok(history) => history,
            Err(differs) => return Ok(differs),
        };
        let places_of = letter_places((input, dead), &rows);
        let told = (self.case.topic("in"), &places_of);
        let mut count = 0;
        for (cluster, prefix) in &places.outputs {
            for ((topic, partition), expected) in &expected {
                let topic = format!("{prefix}{topic}");
                let of = TopicPartition::new(&topic, PartitionIndex(*partition));
                let (_, records) = self.read(cluster, &of).await?;
                let differs = differs(&of, expected, &records);
                if let Some(differs) = differs.or_else(|| untrue(&told, (&of, expected), &records))
                {
                    return Ok(differs);
                }
                count += expected.len() as u64;
            }
        }
        let status = cluster.pipeline_status(self.of.name.as_str(), LIMIT).await;
        let status = status.map_err(|error| error.to_string())?.ok_or("it is gone")?;
        let last = log.epochs().next_back().map_or(0, |epoch| epoch.epoch);
        if status.epoch != last {
            return Err("it goes on".to_owned());
        }
        let drops = self.tended().has_dropped();
        let fates = (case.shape.readers(), &given.fates);
        let wrong = (last > 0).then(|| fates::wrong(&status.facts, fates, drops)).flatten();
        let missed = status.inputs.values().map(|input| input.missed).sum();
        if let Some(text) = wrong.or_else(|| due::missed(log, [input, devices], missed)) {
            return Ok(Differs::Fates(text));
        }
        due::idle(&case, &given).map_or(Ok(Differs::Equal(count)), Err)
    }

    /// What all epochs have to have given, those that were left behind too.
    fn history(
        &self,
        log: &EpochLog,
        of: ([TopicId; 2], &Rows),
    ) -> Result<Result<History, Differs>, String> {
        let ([_, dead], _) = of;
        let letters = (self.case.topic("dead"), 0);
        let end =
            |expected: &BTreeMap<(String, u32), Vec<Came>>| Offset(expected[&letters].len() as u64);
        let (mut expected, mut from) = (self.expected(), 0);
        for left in log.left() {
            if let Some(text) = misread(dead, (&left.epochs, from), end(&expected)) {
                return Ok(Err(Differs::Wrong(text)));
            }
            let case = self.case_of(left.epochs.iter(), of)?;
            if let Some(text) = self.slept(&case, (&left.epochs, &left.behind_ns), of) {
                return Ok(Err(Differs::Wrong(text)));
            }
            let given = model::run(&case);
            self.expect(&mut expected, (&given, from), &left.epochs);
            from = left.kept;
        }
        let begun = end(&expected);
        if let Some(text) = misread(dead, (log.epochs(), from), begun) {
            return Ok(Err(Differs::Wrong(text)));
        }
        if let Some(text) = self.asked.lacks(log, dead, begun) {
            return Err(text);
        }
        let case = self.case_of(log.epochs(), of)?;
        let epochs: Vec<CommittedEpoch> = log.epochs().cloned().collect();
        if let Some(text) = self.slept(&case, (&epochs, log.behind_ns()), of) {
            return Ok(Err(Differs::Wrong(text)));
        }
        let given = model::run(&case);
        self.expect(&mut expected, (&given, from), log.epochs());
        Ok(Ok(History { expected, case, given }))
    }

    /// What was in the inputs, if all of it has been read.
    async fn rows(
        &self,
        places: &Places,
        log: &EpochLog,
        (input, devices): (TopicId, TopicId),
    ) -> Result<Rows, String> {
        let (cluster, _) = places.outputs.first().ok_or("it is nowhere")?;
        let mut rows = Rows::new();
        let mut sources = vec![(input, "in", self.case.partitions)];
        if matches!(self.case.shape, Shape::Enrich { .. } | Shape::Pairs { .. }) {
            sources.push((devices, "devices", 1));
        }
        for (topic, name, partitions) in sources {
            for partition in (0..partitions).map(PartitionIndex) {
                let of = TopicPartition::new(&self.case.topic(name), partition);
                let (mut end, mut records) = self.read(cluster, &of).await?;
                if let Some(origin) = &places.origin {
                    let of = TopicPartition::new(self.own_name(&of.topic), partition);
                    end = self.read(origin, &of).await?.0;
                }
                let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
                records.extend(remembered.get(&of).cloned().unwrap_or_default());
                let position = log.positions().get(&(topic, partition)).copied();
                let position = position.unwrap_or(Offset(0));
                if position < end {
                    return Err(format!("it has read {of:?} to {position}, of {end}"));
                }
                rows.insert((topic, partition), records);
            }
        }
        Ok(rows)
    }

    async fn read(
        &self,
        cluster: &Cluster,
        of: &TopicPartition,
    ) -> Result<(Offset, BTreeMap<Offset, ReadRecord>), String> {
        let unread = || format!("{of:?} cannot be read");
        let end = end(cluster, of).await.ok_or_else(unread)?;
        Ok((end, whole(cluster, of, end).await.ok_or_else(unread)?))
    }

    /// The epochs with their records, as the reference has them.
    fn case_of<'a>(
        &self,
        log: impl IntoIterator<Item = &'a CommittedEpoch>,
        ([input, dead], rows): ([TopicId; 2], &Rows),
    ) -> Result<Case, String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut epochs = Vec::new();
        for committed in log {
            let mut epoch = Epoch {
                age_ms: committed.age_ms,
                inputs: Vec::new(),
                devices: Vec::new(),
                unread: BTreeSet::new(),
                leaves_devices: false,
            };
            for RecordRange { topic, partition, from, to, has_more } in &committed.ranges {
                match *has_more {
                    true if *topic == input => drop(epoch.unread.insert(partition.get())),
                    true => epoch.leaves_devices |= *topic != dead,
                    false => {}
                }
                let records = rows.get(&(*topic, *partition)).ok_or("it reads a foreign topic")?;
                if records.range(*from..*to).count() as u64 != to.get() - from.get() {
                    return Err(format!("a record from {from} to {to} went before it was seen"));
                }
                for (offset, record) in records.range(*from..*to) {
                    let place = (partition.get(), offset.get().cast_signed());
                    if *topic == input || *topic == dead {
                        let payload = record.value.as_deref().unwrap_or_default();
                        if is_nothing(record) {
                            continue;
                        }
                        let input = made.get(payload).ok_or("a record that nobody made")?;
                        let (partition, offset) = place;
                        let partition = if *topic == dead { RETRIED } else { partition };
                        // What cannot be read is no record when it is put through again.
                        if *topic != dead || input.batch.is_none() {
                            epoch.inputs.push(Input { partition, offset, ..input.clone() });
                        }
                    } else {
                        epoch.devices.push(device(place, record)?);
                    }
                }
            }
            epochs.push(epoch);
        }
        Ok(Case { epochs, ..self.case.clone() })
    }

    /// Where a partition became idle of which records were there.
    fn slept(
        &self,
        case: &Case,
        (epochs, behind_ns): (&[CommittedEpoch], &BTreeMap<u64, u64>),
        ([input, _], _): ([TopicId; 2], &Rows),
    ) -> Option<String> {
        // What has gone need not be read, and what a mirror is still to bring is not there.
        if self.of.retention.is_some() || self.of.fed_from.is_some() {
            return None;
        }
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        due::slept(case, (input, epochs, behind_ns), &acked)
    }

    /// What was left unread, in an input that keeps everything.
    fn passed_over(&self, log: &EpochLog, dead: TopicId) -> Option<String> {
        let histories = log.left().iter().map(|left| left.epochs.iter().collect());
        let histories = histories.chain([log.epochs().collect::<Vec<_>>()]);
        for epochs in histories.filter(|_| self.of.retention.is_none()) {
            let mut read: BTreeMap<Part, Offset> = BTreeMap::new();
            for (epoch, range) in
                epochs.iter().flat_map(|of| of.ranges.iter().map(|r| (of.epoch, r)))
            {
                // Some dead letters are left on purpose, see `misread`.
                if range.topic == dead {
                    continue;
                }
                let before = read.insert((range.topic, range.partition), range.to);
                let before = before.unwrap_or(Offset(0));
                if range.from != before {
                    let (from, partition) = (range.from, range.partition);
                    return Some(format!(
                        "epoch {epoch} reads partition {partition} from {from} on, after {before}"
                    ));
                }
            }
        }
        None
    }

    /// How it is said of each bad record of the stream that it is one, as it begins.
    fn bad_records(&self, (input, rows): (TopicId, &Rows)) -> Result<BTreeSet<String>, String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = self.case.topic("in");
        let mut bad = BTreeSet::new();
        for ((_, partition), records) in rows.iter().filter(|((of, _), _)| *of == input) {
            for (offset, record) in records.iter().filter(|(_, record)| !is_nothing(record)) {
                let payload = record.value.as_deref().unwrap_or_default();
                let input = made.get(payload).ok_or("a record that nobody made")?;
                // What fails behind the source fails by a division by zero.
                if input.is_broken || input.v.is_some_and(|v| v >= 90 || v == 3) {
                    bad.insert(format!("record {offset} of {topic}/{partition}: "));
                }
            }
        }
        Ok(bad)
    }

    /// All partitions of all outputs, without records.
    fn expected(&self) -> BTreeMap<(String, u32), Vec<Came>> {
        let partitions: BTreeMap<String, u32> = self.topics().into_iter().collect();
        let outputs = self.case.shape.outputs().iter().map(|name| self.case.topic(name));
        let parts = |topic: String| {
            (0..partitions[&topic]).map(move |partition| ((topic.clone(), partition), Vec::new()))
        };
        outputs.flat_map(parts).collect()
    }

    /// What comes out of epochs behind a number.
    fn expect<'a>(
        &self,
        all: &mut BTreeMap<(String, u32), Vec<Came>>,
        (given, from): (&model::Expected, u64),
        log: impl IntoIterator<Item = &'a CommittedEpoch>,
    ) {
        let partitions: BTreeMap<String, u32> = self.topics().into_iter().collect();
        let dead = self.case.topic("dead");
        for ((epoch, came), committed) in given.epochs.iter().enumerate().zip(log) {
            if committed.epoch <= from {
                continue;
            }
            let drops = self.tended().on_error(committed.fence) == OnError::Drop;
            for came in came.iter().filter(|came| !drops || came.topic != dead) {
                let count = partitions[&came.topic];
                let partition = match &came.key {
                    Some(key) => partition_of(key.as_bytes(), count),
                    None => (epoch as u32 + 1) % count,
                };
                all.entry((came.topic.clone(), partition)).or_default().push(came.clone());
            }
        }
    }
}

/// What a pipeline has to have given.
struct History {
    /// In each partition of each output.
    expected: BTreeMap<(String, u32), Vec<Came>>,
    /// What it has read since it began the last time, and before that as far as its state has it.
    case: Case,
    /// What came of that.
    given: model::Expected,
}

/// How the outputs differ from the reference.
enum Differs {
    /// Not at all; so many records were compared.
    Equal(u64),
    /// It has something that it must not have there.
    Wrong(String),
    /// Not at all, and the pipeline says something else of the records that it read.
    Fates(String),
    /// It did something that it was not told to do: the check, and what.
    Tended(&'static str, String),
    /// It has not come to its end.
    Lacks(String),
}

fn differs(
    of: &TopicPartition,
    expected: &[Came],
    records: &BTreeMap<Offset, ReadRecord>,
) -> Option<Differs> {
    let text = |bytes: &Option<Bytes>| {
        bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let at = format!("{}/{}", of.topic, of.partition);
    let of_key = |key: &Option<String>| match key {
        Some(key) => format!("of key {key}"),
        None => "without a key".to_owned(),
    };
    let mut expected = expected.iter();
    for (offset, record) in records {
        let (key, value) = (text(&record.key), text(&record.value).unwrap_or("NULL".to_owned()));
        let Some(came) = expected.next() else {
            let value = shown(&value);
            return Some(Differs::Wrong(format!("{at} has one more at {offset}: {value}")));
        };
        let ms = record.timestamp_ms;
        if came.key != key || came.value != value || came.at != ms {
            let (wanted, key, with) = (shown(&came.value), of_key(&key), of_key(&came.key));
            let value = shown(&value);
            let due = came.at;
            return Some(Differs::Wrong(format!(
                "{at} has {value} {key} of time {ms} at {offset}, and not {wanted} {with} of time {due}"
            )));
        }
    }
    let lacks = expected.count();
    (lacks > 0).then(|| Differs::Lacks(format!("{at} lacks the last {lacks} records")))
}

/// For whoever reads it: a batch that cannot be read is no text.
fn shown(value: &str) -> String {
    let is_odd = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    value.replace(is_odd, ".")
}

/// Where the record of each dead letter was read, by the offset of the letter.
fn letter_places((input, dead): (TopicId, TopicId), rows: &Rows) -> BTreeMap<i64, (u32, i64)> {
    let mut places = BTreeMap::new();
    for ((_, partition), records) in rows.iter().filter(|((topic, _), _)| *topic == input) {
        for (offset, record) in records {
            places.insert(&record.value, (partition.get(), offset.get().cast_signed()));
        }
    }
    let letters = rows.iter().filter(|((topic, _), _)| *topic == dead);
    let letters = letters.flat_map(|(_, records)| records);
    let place = |(offset, record): (&Offset, &ReadRecord)| {
        Some((offset.get().cast_signed(), *places.get(&record.value)?))
    };
    letters.filter_map(place).collect()
}

/// What records that are there as they came do not say as it is, of where they were read.
fn untrue(
    (input, places): &(String, &BTreeMap<i64, (u32, i64)>),
    (of, expected): (&TopicPartition, &[Came]),
    records: &BTreeMap<Offset, ReadRecord>,
) -> Option<Differs> {
    for (came, (offset, record)) in expected.iter().zip(records) {
        let Some(from) = came.from else { continue };
        let from = if from.0 == RETRIED { places.get(&from.1).copied() } else { Some(from) };
        if let Some(text) = from.and_then(|from| mistold((came, input), from, record)) {
            return Some(Differs::Wrong(format!("{of:?} has a record at {offset}: {text}")));
        }
    }
    None
}

/// A record of the table as it is in its topic.
fn device((partition, offset): (u32, i64), record: &ReadRecord) -> Result<Input, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let key = text(record.key.as_deref().unwrap_or_default());
    let device = key.strip_prefix("dev-").and_then(|number| number.parse().ok());
    let value = record.value.as_deref().map(text);
    let r = value.as_deref().map(|value| {
        value.strip_prefix("{\"r\":").and_then(|rest| rest.strip_suffix('}')?.parse().ok())
    });
    let (Some(device), r) = (device, r) else { return Err(format!("a device called {key}")) };
    Ok(Input {
        partition,
        offset,
        number: 0,
        device,
        v: None,
        d: r.flatten().unwrap_or_default(),
        f: 0,
        at: record.timestamp_ms,
        is_broken: value.is_none(),
        is_device: true,
        batch: None,
    })
}

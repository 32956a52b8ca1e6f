//! The second half of the demo, in a process of its own that knows nothing but the seed: it reads
//! everything back and compares it with the data set.

use super::plant::{PARTITIONS, Plant, SENSORS, Sensor, TOPIC, reading_number};
use crate::commands::Stop;
use crate::commands::child::{self, OnParentDeath};
use crate::commands::client::{self, Bootstrap, parse_bootstrap};
use crate::commands::output::{grouped, note, say};
use crate::commands::site::Site;
use clap::Args;
use fulmar_client::{
    Cluster, Consumer, ConsumerSettings, OffsetAt, ReadRecord, Start, TopicPartition,
};
use fulmar_host::time::{self, Duration};
use fulmar_types::{ExitCode, Offset, PartitionIndex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Stdio;

/// How long the site may take to say where a partition ends.
const OFFSET_TIMEOUT: Duration = Duration::from_secs(30);

/// How long reading may stand still before it is given up.
const STILL_MAX: Duration = Duration::from_secs(30);

/// How often the progress is told.
const TELL_EVERY: u64 = 100_000;

/// Read the data set of the demo back and compare it.
#[derive(Clone, Debug, Args)]
pub struct VerifyOptions {
    /// The addresses of some nodes.
    #[arg(long, value_parser = parse_bootstrap)]
    bootstrap: Bootstrap,
    /// The seed of the data set.
    #[arg(long)]
    seed: u64,
    /// How many records it has.
    #[arg(long)]
    records: u64,
    /// The topic that has them.
    #[arg(long, default_value = TOPIC)]
    topic: String,
}

/// What the comparison found; all but the first are to be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Records that were read.
    pub read: u64,
    /// Records of the data set that are not there.
    pub missing: u64,
    /// Records that are there once more.
    pub twice: u64,
    /// Records that come after a later reading of the same sensor.
    pub out_of_order: u64,
    /// Records with another content, time or partition than the data set has.
    pub changed: u64,
    /// Records that are not of the data set.
    pub foreign: u64,
    /// Offsets without a record.
    pub gaps: u64,
}

impl Findings {
    /// Whether everything is there, once, in order, unchanged, and nothing else.
    pub fn is_clean(&self) -> bool {
        let Self { read: _, missing, twice, out_of_order, changed, foreign, gaps } = *self;
        [missing, twice, out_of_order, changed, foreign, gaps] == [0; 6]
    }
}

/// The data set and what has been seen of it.
struct Comparison {
    plant: Plant,
    sensors: BTreeMap<String, Sensor>,
    /// Which readings were seen, by sensor.
    seen: Vec<Vec<bool>>,
    /// The highest reading that was seen, by sensor.
    last: Vec<Option<u64>>,
    next_offset: BTreeMap<PartitionIndex, Offset>,
    findings: Findings,
}

impl Comparison {
    fn new(plant: Plant, records: u64) -> Self {
        let readings = plant.readings_by_sensor(records).into_iter();
        Self {
            plant,
            sensors: (0..SENSORS).map(|at| (Sensor(at).key(), Sensor(at))).collect(),
            seen: readings.map(|count| vec![false; count as usize]).collect(),
            last: vec![None; SENSORS],
            next_offset: BTreeMap::new(),
            findings: Findings::default(),
        }
    }

    fn take(&mut self, partition: PartitionIndex, record: &ReadRecord) {
        self.findings.read += 1;
        let next = self.next_offset.entry(partition).or_default();
        self.findings.gaps += record.offset.get().saturating_sub(next.get());
        *next = record.offset.plus(1);
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let sensor = key.and_then(|key| self.sensors.get(key)).copied();
        let number = record.value.as_deref().and_then(reading_number);
        let (Some(sensor), Some(number)) = (sensor, number) else {
            self.findings.foreign += 1;
            return;
        };
        let Some(seen) = self.seen[sensor.0].get_mut(number as usize) else {
            self.findings.foreign += 1;
            return;
        };
        if std::mem::replace(seen, true) {
            self.findings.twice += 1;
            return;
        }
        if self.last[sensor.0].is_some_and(|last| number < last) {
            self.findings.out_of_order += 1;
        }
        self.last[sensor.0] = self.last[sensor.0].max(Some(number));
        let expected = self.plant.reading(sensor, number);
        let same = expected.key == record.key
            && expected.value == record.value
            && expected.timestamp_ms == record.timestamp_ms
            && record.headers.is_empty()
            && sensor.partition() == partition;
        self.findings.changed += u64::from(!same);
    }

    fn finish(mut self) -> Findings {
        let unseen = self.seen.iter().flatten().filter(|seen| !**seen).count();
        self.findings.missing = unseen as u64;
        self.findings
    }
}

/// Reads everything back and prints the findings as JSON.
pub async fn run(options: VerifyOptions) -> Result<ExitCode, Stop> {
    let cluster = client::cluster(client::plain(), options.bootstrap.0, "fulmar-demo-verify");
    let mut comparison = Comparison::new(Plant::new(options.seed), options.records);
    let ends = ends(&cluster, &options.topic).await?;
    read_all(&cluster, &ends, |partition, record| comparison.take(partition, record)).await?;
    let findings = comparison.finish();
    let text = serde_json::to_string(&findings);
    say(text.map_err(|error| Stop::failed(format!("cannot print the findings: {error}.")))?);
    Ok(if findings.is_clean() { ExitCode::Ok } else { ExitCode::Failed })
}

/// Has a fresh process read the data set of a seed, with so many records, from a topic of a site.
pub async fn by_fresh_process(
    site: &Site,
    topic: &str,
    (seed, records): (u64, u64),
) -> Result<Findings, Stop> {
    let mut command = tokio::process::Command::new(child::this_program()?);
    command.args(["demo-verify", "--bootstrap", &site.bootstrap_text(), "--topic", topic]);
    command.args(["--seed", &seed.to_string(), "--records", &records.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    child::die_with_parent(&mut command, OnParentDeath::Kill);
    let reader = command.spawn();
    let reader = reader.map_err(|error| Stop::failed(format!("cannot read back: {error}.")))?;
    let output = reader.wait_with_output().await;
    let output = output.map_err(|error| Stop::failed(format!("cannot read back: {error}.")))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| Stop::failed("reading back failed; its own message is above."))
}

/// The end of every partition.
pub(super) async fn ends(
    cluster: &Cluster,
    topic: &str,
) -> Result<BTreeMap<TopicPartition, Offset>, Stop> {
    let mut ends = BTreeMap::new();
    for partition in (0..PARTITIONS).map(|at| TopicPartition::new(topic, PartitionIndex(at))) {
        let found = cluster.find_offset(&partition, OffsetAt::Latest, OFFSET_TIMEOUT).await;
        let found = found.map_err(|error| {
            Stop::failed(format!("cannot find the end of {partition}: {error}."))
        })?;
        ends.insert(partition, found.offset.unwrap_or_default());
    }
    Ok(ends)
}

/// Reads every partition from its beginning to its end.
pub(super) async fn read_all(
    cluster: &Cluster,
    ends: &BTreeMap<TopicPartition, Offset>,
    mut take: impl FnMut(PartitionIndex, &ReadRecord),
) -> Result<(), Stop> {
    let mut consumer = Consumer::new(cluster, ConsumerSettings::default());
    for partition in ends.keys() {
        consumer.assign(partition.clone(), Start::Offset(Offset(0)));
    }
    let mut read = 0_u64;
    let mut moved_at = time::now();
    loop {
        let position = |partition| consumer.position(partition).unwrap_or_default();
        let mut unfinished = ends.iter().filter(|(partition, end)| position(partition) < **end);
        let Some((behind, end)) = unfinished.next_back() else { return Ok(()) };
        if moved_at + STILL_MAX < time::now() {
            let at = position(behind);
            return Err(Stop::failed(format!(
                "reading stands still at offset {at} of {behind}, which ends at {end}."
            )));
        }
        let polled = consumer.poll(Duration::from_secs(1)).await;
        for polled in polled.map_err(|error| Stop::failed(format!("{error}.")))? {
            for record in &polled.records {
                take(polled.partition.partition, record);
                read += 1;
                if read.is_multiple_of(TELL_EVERY) {
                    note(format!("{} records read back", grouped(read)));
                }
            }
            moved_at = time::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first records of a data set as a site would hold them.
    fn held(plant: Plant, records: u64) -> Vec<(PartitionIndex, ReadRecord)> {
        let mut readings = vec![0; SENSORS];
        let mut next: BTreeMap<PartitionIndex, u64> = BTreeMap::new();
        let mut held = Vec::new();
        for at in 0..records {
            let sensor = plant.speaker(at);
            let record = plant.reading(sensor, readings[sensor.0]);
            readings[sensor.0] += 1;
            let offset = next.entry(sensor.partition()).or_default();
            held.push((
                sensor.partition(),
                ReadRecord {
                    offset: Offset(*offset),
                    timestamp_ms: record.timestamp_ms,
                    key: record.key,
                    value: record.value,
                    headers: Vec::new(),
                },
            ));
            *offset += 1;
        }
        held
    }

    fn compare(
        records: u64,
        change: impl FnOnce(&mut Vec<(PartitionIndex, ReadRecord)>),
    ) -> Findings {
        let plant = Plant::new(3);
        let mut held = held(plant, records);
        change(&mut held);
        let mut comparison = Comparison::new(plant, records);
        for (partition, record) in &held {
            comparison.take(*partition, record);
        }
        comparison.finish()
    }

    /// The places of two readings of the same sensor.
    fn same_sensor(held: &[(PartitionIndex, ReadRecord)]) -> (usize, usize) {
        let key = &held[0].1.key;
        let later = held.iter().skip(1).position(|(_, record)| &record.key == key);
        (0, later.expect("it speaks again") + 1)
    }

    #[test]
    fn what_is_whole_is_clean() {
        let findings = compare(20_000, |_| {});
        assert!(findings.is_clean());
        assert_eq!(findings.read, 20_000);
    }

    #[test]
    fn each_kind_of_damage_is_found() {
        let lost = compare(20_000, |held| drop(held.pop()));
        assert_eq!(lost, Findings { read: 19_999, missing: 1, ..Findings::default() });
        let hole = compare(20_000, |held| drop(held.remove(0)));
        assert_eq!((hole.missing, hole.gaps), (1, 1));
        let twice = compare(20_000, |held| {
            let mut again = held[0].clone();
            again.1.offset = Offset(99_999);
            held.push(again);
        });
        assert_eq!(twice.twice, 1);
        let swapped = compare(20_000, |held| {
            let (a, b) = same_sensor(held);
            let value = held[a].1.value.clone();
            let time = held[a].1.timestamp_ms;
            held[a].1.value = std::mem::replace(&mut held[b].1.value, value);
            held[a].1.timestamp_ms = std::mem::replace(&mut held[b].1.timestamp_ms, time);
        });
        assert_eq!(swapped.out_of_order, 1);
        assert_eq!((swapped.missing, swapped.changed), (0, 0));
        let changed = compare(20_000, |held| held[5].1.timestamp_ms += 1);
        assert_eq!(changed.changed, 1);
        let foreign = compare(20_000, |held| held[5].1.key = Some("somebody".into()));
        assert_eq!((foreign.foreign, foreign.missing), (1, 1));
        assert!(![lost, hole, twice, swapped, changed, foreign].iter().any(Findings::is_clean));
    }
}

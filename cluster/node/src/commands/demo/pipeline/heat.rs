//! The readings of the thermometers of the plant, and the alerts that have to come of them, found out
//! from the seed alone: integers, no SQL, no windows that open and close.
//!
//! ```text
//! reading n  = machine drawn | time: 2026-01-01T00:00:00Z + 6 ms x n + up to 1.9 s
//!            | 50 to 86 degrees, and 35 more in the stretches of 20 s in which the machine is hot
//! ```
//!
//! One of 2,000 is bad. No reading is late: the times of a partition go back by less than the 2 s that the
//! pipeline waits. At the end one reading of each partition, ten minutes later, ends all windows.
//!
//! Invariant: as in `plant.rs`, nothing but integers.

use crate::commands::demo::load::DataSet;
use crate::commands::demo::plant::{HALLS, LINES, MACHINES, PARTITIONS, START_MS, draw};
use fulmar_client::{ReadRecord, WriteRecord};
use fulmar_types::PartitionIndex;
use std::collections::BTreeMap;

/// From one reading to the next.
const STEP_MS: u64 = 6;

/// How much later than others a reading may be written, of which the pipeline lets 2 s pass.
const JITTER_MS: u64 = 1_900;

/// A machine is hot or not for so long, and so many of a hundred are.
const STRETCH_MS: u64 = 20_000;
const HOT_PERCENT: u64 = 8;

/// Of so many readings one is bad.
const BAD_OF: u64 = 2_000;

/// The windows of the pipeline.
const WINDOW_MS: u64 = 10_000;

/// How far the last readings are behind all others.
const SILENCE_MS: u64 = 600_000;

/// As many as fit one day, with the last ones.
pub const RECORDS_MAX: u64 = (86_400_000 - 2 * SILENCE_MS) / STEP_MS;

/// The thermometers of a plant, and how many readings they give before the last ones.
#[derive(Clone, Copy, Debug)]
pub struct Heat {
    /// The seed.
    pub seed: u64,
    /// The readings, without the last ones.
    pub records: u64,
}

/// A reading.
struct Reading {
    machine: u64,
    /// Since the beginning.
    ms: u64,
    /// In hundredths; none, if it is bad.
    celsius: Option<u64>,
}

impl Reading {
    fn partition(&self) -> PartitionIndex {
        PartitionIndex((self.machine % u64::from(PARTITIONS)) as u32)
    }

    fn key(&self) -> String {
        let (lines, machines) = (LINES as u64, MACHINES as u64);
        let line = self.machine / machines;
        let hall = line / lines + 1;
        format!("hall-{hall}/line-{}/machine-{}", line % lines + 1, self.machine % machines + 1)
    }

    fn value(&self) -> String {
        let celsius = self.celsius.map_or_else(|| "4000".to_owned(), hundredths);
        let (machine, at) = (self.key(), START_MS.unsigned_abs() + self.ms);
        format!(r#"{{"machine":"{machine}","celsius":{celsius},"at":{at}}}"#)
    }
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

/// A time of the first day, as the pipeline writes it.
fn at(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("2026-01-01T{hours:02}:{minutes:02}:{:02}.{ms:03}Z", seconds % 60)
}

impl Heat {
    /// All records, with the last ones.
    pub fn all(&self) -> u64 {
        self.records + u64::from(PARTITIONS)
    }

    fn reading(&self, number: u64) -> Reading {
        if number >= self.records {
            // Machines of different partitions.
            let ms = self.records * STEP_MS + SILENCE_MS;
            return Reading { machine: number - self.records, ms, celsius: Some(2_000) };
        }
        let seed = self.seed ^ 0x4ea7;
        let drawn = |what: u64, below| draw(seed, 4 * number + what, below);
        let machine = drawn(0, (HALLS * LINES * MACHINES) as u64);
        let ms = number * STEP_MS + drawn(1, JITTER_MS);
        let stretch = (ms / STRETCH_MS).wrapping_mul(1 << 32) + machine;
        let is_hot = draw(seed ^ 0x1407, stretch, 100) < HOT_PERCENT;
        let celsius = 5_000 + drawn(2, 3_600) + if is_hot { 3_500 } else { 0 };
        let is_bad = drawn(3, BAD_OF) == 0;
        Reading { machine, ms, celsius: (!is_bad).then_some(celsius) }
    }

    /// What has to come.
    pub fn expected(&self) -> Expected {
        // By machine and window: how many, their sum, the highest.
        let mut windows: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
        let mut expected = Expected::default();
        // The windows of the last readings stay open.
        for reading in (0..self.records).map(|number| self.reading(number)) {
            match reading.celsius {
                Some(celsius) => {
                    let window = windows.entry((reading.machine, reading.ms / WINDOW_MS));
                    let (count, sum, highest) = window.or_default();
                    (*count, *sum, *highest) = (*count + 1, *sum + celsius, celsius.max(*highest));
                }
                None => *expected.bad.entry(reading.value()).or_default() += 1,
            }
        }
        for ((machine, window), (count, sum, highest)) in windows {
            if sum <= 9_000 * count {
                continue;
            }
            let machine = Reading { machine, ms: 0, celsius: None }.key();
            let (begin, end) = (at(window * WINDOW_MS), at((window + 1) * WINDOW_MS));
            // To the nearest hundredth.
            let (average, highest_text) = ((2 * sum + count) / (2 * count), hundredths(highest));
            let average = hundredths(average);
            let advice = if highest >= 12_000 { "stop" } else { "warn" };
            let alert = format!(
                r#"{{"machine":"{machine}","window_start":"{begin}","window_end":"{end}","readings":{count},"average":{average},"highest":{highest_text},"advice":"{advice}"}}"#
            );
            expected.alerts.entry(machine).or_default().push(alert);
        }
        expected
    }
}

impl DataSet for Heat {
    fn record(
        &mut self,
        number: u64,
        is_mine: impl Fn(PartitionIndex) -> bool,
    ) -> Option<(PartitionIndex, WriteRecord)> {
        let reading = self.reading(number);
        let partition = reading.partition();
        let record = || WriteRecord {
            timestamp_ms: START_MS + number.cast_signed(),
            key: Some(reading.key().into()),
            value: Some(reading.value().into()),
            headers: Vec::new(),
        };
        is_mine(partition).then(|| (partition, record()))
    }
}

/// What has to come, and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// By machine, in the order of time.
    alerts: BTreeMap<String, Vec<String>>,
    /// How often each bad reading was written.
    bad: BTreeMap<String, u64>,
}

/// What the comparison found; all but `read` is to be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that were read.
    pub read: u64,
    /// What has to be there, and is not.
    pub missing: u64,
    /// What is there once more.
    pub twice: u64,
    /// What comes after a later one of the same machine.
    pub out_of_order: u64,
    /// What does not have to be there, or not like that.
    pub foreign: u64,
}

impl Findings {
    /// Whether everything is there, once, in order, and nothing else.
    pub fn is_clean(&self) -> bool {
        *self == Self { read: self.read, ..Self::default() }
    }
}

fn text(bytes: Option<&bytes::Bytes>) -> String {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

impl Expected {
    /// How many alerts.
    pub fn alerts(&self) -> u64 {
        self.alerts.values().map(|of| of.len() as u64).sum()
    }

    /// How many dead letters.
    pub fn bad(&self) -> u64 {
        self.bad.values().sum()
    }

    /// Compares alerts that were read, those of a machine in the order in which they lie.
    pub fn compare_alerts(&self, found: &[ReadRecord]) -> Findings {
        let mut findings = Findings { read: found.len() as u64, ..Findings::default() };
        // By machine: which are there, and the latest of them.
        let mut seen: BTreeMap<String, (Vec<bool>, usize)> = BTreeMap::new();
        for record in found {
            let (machine, alert) = (text(record.key.as_ref()), text(record.value.as_ref()));
            let all = self.alerts.get(&machine).map_or(&[][..], Vec::as_slice);
            let Some(place) = all.iter().position(|expected| *expected == alert) else {
                findings.foreign += 1;
                continue;
            };
            let (seen, latest) = seen.entry(machine).or_insert_with(|| (vec![false; all.len()], 0));
            if std::mem::replace(&mut seen[place], true) {
                findings.twice += 1;
                continue;
            }
            findings.out_of_order += u64::from(place < *latest);
            *latest = place.max(*latest);
        }
        let there = seen.values().flat_map(|(seen, _)| seen).filter(|seen| **seen).count();
        findings.missing = self.alerts() - there as u64;
        findings
    }

    /// Compares dead letters that were read.
    pub fn compare_bad(&self, found: &[ReadRecord]) -> Findings {
        let mut findings = Findings { read: found.len() as u64, ..Findings::default() };
        let mut left = self.bad.clone();
        for value in found.iter().map(|record| text(record.value.as_ref())) {
            match left.get_mut(&value) {
                Some(0) => findings.twice += 1,
                Some(left) => *left -= 1,
                None => findings.foreign += 1,
            }
        }
        findings.missing = left.values().sum();
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::Offset;

    const HEAT: Heat = Heat { seed: 7, records: 20_000 };

    fn found(expected: &Expected) -> Vec<ReadRecord> {
        let all = expected.alerts.iter().flat_map(|(key, of)| of.iter().map(move |at| (key, at)));
        let record = |(key, value): (&String, &String)| ReadRecord {
            offset: Offset(0),
            timestamp_ms: 0,
            key: Some(key.clone().into()),
            value: Some(value.clone().into()),
            headers: Vec::new(),
        };
        all.map(record).collect()
    }

    #[test]
    fn the_pipeline_gives_what_is_expected() {
        use fulmar_flow::{Engine, Record, plan};
        let plan = plan(super::super::FILE).expect("a pipeline");
        let topics = [("readings".to_owned(), PARTITIONS)].into();
        let mut engine = Engine::new(std::sync::Arc::new(plan), &topics);
        let mut came: Vec<ReadRecord> = Vec::new();
        let mut heat = HEAT;
        for partition in (0..PARTITIONS).map(PartitionIndex) {
            let all =
                (0..HEAT.all()).filter_map(|number| heat.record(number, |of| of == partition));
            let records: Vec<_> = (0..)
                .zip(all)
                .map(|(offset, (_, record))| {
                    std::sync::Arc::new(Record {
                        partition: partition.get(),
                        offset,
                        timestamp: record.timestamp_ms,
                        key: record.key,
                        headers: Vec::new(),
                        value: record.value,
                        damage: None,
                        is_retried: false,
                    })
                })
                .collect();
            engine.batch("readings", &records).expect("nothing stops it");
        }
        let (mut alerts, mut bad) = (Vec::new(), Vec::new());
        for written in engine.end_epoch(1, false).expect("nothing stops it") {
            let record = ReadRecord {
                offset: Offset(0),
                timestamp_ms: written.timestamp,
                key: written.key,
                value: written.value,
                headers: Vec::new(),
            };
            match &*written.topic {
                "alerts" => alerts.push(record),
                "readings_bad" => bad.push(record),
                _ => came.push(record),
            }
        }
        let expected = HEAT.expected();
        assert!(expected.alerts() > 100 && expected.bad() > 2, "{expected:?}");
        assert_eq!(came.len(), 0, "none is late");
        let whole = |read: u64| Findings { read, ..Findings::default() };
        assert_eq!(expected.compare_alerts(&alerts), whole(expected.alerts()));
        assert_eq!(expected.compare_bad(&bad), whole(expected.bad()));
    }

    #[test]
    fn each_kind_of_damage_is_found() {
        let expected = HEAT.expected();
        let compare = |change: &dyn Fn(&mut Vec<ReadRecord>)| {
            let mut found = found(&expected);
            change(&mut found);
            let findings = expected.compare_alerts(&found);
            assert!(!findings.is_clean());
            findings
        };
        assert!(expected.compare_alerts(&found(&expected)).is_clean());
        assert_eq!(compare(&|found| drop(found.pop())).missing, 1);
        assert_eq!(compare(&|found| found.push(found[0].clone())).twice, 1);
        let changed = compare(&|found| found[0].value = Some("{}".into()));
        assert_eq!((changed.missing, changed.foreign), (1, 1));
        let swapped = compare(&|found| {
            let second = found.windows(2).position(|two| two[0].key == two[1].key);
            let second = second.expect("a machine with two alerts");
            found.swap(second, second + 1);
        });
        assert_eq!(swapped.out_of_order, 1);
    }
}

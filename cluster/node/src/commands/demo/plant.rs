//! The data set of the demo: the readings of the sensors of a plant, all of it from one seed.
//!
//! A plant has 6 halls with 8 lines of 24 machines, and each machine has 4 sensors: 4,608 keys.
//! Which sensor speaks next is drawn, so some say more than others. Reading `n` of a sensor is a
//! function of (seed, sensor, n) alone:
//!
//! ```text
//! value      = base + triangle wave + noise, in hundredths, integers only
//! timestamp  = 2026-01-01T00:00:00Z + n x interval of the sensor + jitter below the interval
//! key        = hall-3/line-7/machine-12/temperature
//! record     = {"reading":17,"value":71.83,"unit":"C"}
//! ```
//!
//! Invariant: no float takes part, so the same seed gives the same bytes on every machine.

use super::load::DataSet;
use fulmar_client::{TopicPartition, WriteRecord};
use fulmar_types::PartitionIndex;
use serde::Deserialize;

/// The topic of the data set.
pub const TOPIC: &str = "readings";
/// The partitions of the topic.
pub const PARTITIONS: u32 = 12;
/// The sensors of the plant; each is a key.
pub const SENSORS: usize = HALLS * LINES * MACHINES * QUANTITIES.len();

pub(super) const HALLS: usize = 6;
pub(super) const LINES: usize = 8;
pub(super) const MACHINES: usize = 24;

/// What is measured: name, unit, base value and amplitude in hundredths.
const QUANTITIES: [(&str, &str, i64, i64); 4] = [
    ("temperature", "C", 6_500, 1_800),
    ("vibration", "mm/s", 280, 190),
    ("current", "A", 1_450, 600),
    ("pressure", "bar", 620, 240),
];

/// 2026-01-01T00:00:00Z in ms since 1970.
pub(super) const START_MS: i64 = 1_767_225_600_000;

/// SplitMix64 (Steele, Lea, Flood 2014), as a function of its counter.
fn mix(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `below`. The bias of the remainder is far below what a plant would show.
pub(super) fn draw(seed: u64, counter: u64, below: u64) -> u64 {
    mix(seed, counter) % below
}

/// A sensor, by its number in the plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sensor(pub usize);

/// The plant of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Plant {
    seed: u64,
}

#[derive(Deserialize)]
struct ReadingNumber {
    reading: u64,
}

impl Sensor {
    fn quantity(self) -> &'static (&'static str, &'static str, i64, i64) {
        &QUANTITIES[self.0 % QUANTITIES.len()]
    }

    /// The key of its records.
    pub fn key(self) -> String {
        let machine = self.0 / QUANTITIES.len();
        let line = machine / MACHINES;
        format!(
            "hall-{}/line-{}/machine-{}/{}",
            line / LINES + 1,
            line % LINES + 1,
            machine % MACHINES + 1,
            self.quantity().0
        )
    }

    /// The partition of its records.
    pub fn partition(self) -> PartitionIndex {
        PartitionIndex((self.0 as u64 % u64::from(PARTITIONS)) as u32)
    }
}

impl Plant {
    /// The plant of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The sensor that speaks as the `at`-th.
    pub fn speaker(&self, at: u64) -> Sensor {
        Sensor(draw(self.seed, at, SENSORS as u64) as usize)
    }

    /// A reading of a sensor; its first has number 0.
    pub fn reading(&self, sensor: Sensor, number: u64) -> WriteRecord {
        let own = mix(self.seed ^ 0x5eed, sensor.0 as u64);
        let interval_ms = 1_000 + draw(own, 1, 9_000) as i64;
        let at = i64::try_from(number).unwrap_or(i64::MAX / 20_000);
        let jitter_ms = draw(own, 2 * number + 3, interval_ms.unsigned_abs()) as i64;
        let (_, unit, base, amplitude) = *sensor.quantity();
        let period = 20 + draw(own, 2, 200) as i64;
        let noise = draw(own, 2 * number + 4, 100) as i64 - 50;
        let value = base + triangle(at, period, amplitude) + noise;
        let value = format!("{}.{:02}", value / 100, (value % 100).abs());
        let text = format!("{{\"reading\":{number},\"value\":{value},\"unit\":\"{unit}\"}}");
        WriteRecord {
            timestamp_ms: START_MS + at * interval_ms + jitter_ms,
            key: Some(sensor.key().into()),
            value: Some(text.into()),
            headers: Vec::new(),
        }
    }

    /// How many readings each sensor gives in a data set of this many records.
    pub fn readings_by_sensor(&self, records: u64) -> Vec<u64> {
        let mut readings = vec![0; SENSORS];
        for at in 0..records {
            readings[self.speaker(at).0] += 1;
        }
        readings
    }
}

/// The data set of a plant, record by record.
#[derive(Clone, Debug)]
pub struct Readings {
    plant: Plant,
    /// The readings that each sensor has given.
    given: Vec<u64>,
}

impl Readings {
    /// All of them are to come.
    pub fn of(plant: Plant) -> Self {
        Self { plant, given: vec![0; SENSORS] }
    }
}

impl DataSet for Readings {
    fn record(
        &mut self,
        number: u64,
        is_mine: impl Fn(PartitionIndex) -> bool,
    ) -> Option<(PartitionIndex, WriteRecord)> {
        let sensor = self.plant.speaker(number);
        let given = self.given[sensor.0];
        self.given[sensor.0] += 1;
        let partition = sensor.partition();
        is_mine(partition).then(|| (partition, self.plant.reading(sensor, given)))
    }
}

/// A wave from `-amplitude` to `amplitude` and back in `period` steps.
fn triangle(at: i64, period: i64, amplitude: i64) -> i64 {
    let phase = at % period;
    let half = period / 2;
    let rising = if phase < half { phase } else { period - phase };
    2 * amplitude * rising / half.max(1) - amplitude
}

/// The number of a reading, as its record says. `None` if it is no reading.
pub fn reading_number(value: &[u8]) -> Option<u64> {
    serde_json::from_slice::<ReadingNumber>(value).ok().map(|found| found.reading)
}

/// A partition of the topic.
pub fn partition(index: PartitionIndex) -> TopicPartition {
    TopicPartition::new(TOPIC, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fmt::Write;

    fn text(bytes: &Option<bytes::Bytes>) -> String {
        String::from_utf8(bytes.as_ref().expect("set").to_vec()).expect("text")
    }

    #[test]
    fn every_sensor_has_a_key_of_its_own() {
        let keys = (0..SENSORS).map(|at| Sensor(at).key()).collect::<BTreeSet<_>>();
        assert_eq!(keys.len(), 4608);
        assert_eq!(Sensor(0).key(), "hall-1/line-1/machine-1/temperature");
        assert_eq!(Sensor(SENSORS - 1).key(), "hall-6/line-8/machine-24/pressure");
    }

    #[test]
    fn the_data_set_of_a_seed_never_changes() {
        let plant = Plant::new(7);
        let mut shown = String::new();
        for at in 0..8 {
            let record = plant.reading(plant.speaker(at), at * 31);
            let (key, value) = (text(&record.key), text(&record.value));
            writeln!(shown, "{} {key} {value}", record.timestamp_ms).expect("a string");
            assert_eq!(reading_number(value.as_bytes()), Some(at * 31));
        }
        insta::assert_snapshot!(shown);
        assert_ne!(Plant::new(8).speaker(0), plant.speaker(0));
    }

    #[test]
    fn time_moves_on_for_every_sensor() {
        let plant = Plant::new(1);
        for sensor in (0..SENSORS).step_by(97).map(Sensor) {
            let times = (0..50).map(|n| plant.reading(sensor, n).timestamp_ms);
            assert!(times.collect::<Vec<_>>().is_sorted(), "sensor {}", sensor.0);
        }
        let total: u64 = plant.readings_by_sensor(20_000).iter().sum();
        assert_eq!(total, 20_000);
    }
}

//! Random pipelines and inputs.

use proptest::prelude::*;
use std::fmt::Write;

/// Partitions of the stream.
pub const PARTITIONS: u32 = 3;

/// How rows get into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// One after the other.
    Tumble(i64),
    /// Start to start, and length.
    Hop(i64, i64),
    /// Until nothing comes for so long.
    Session(i64),
}

/// What a pipeline does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Row by row.
    Plain,
    /// Joined with the table, keeping rows without a device or not.
    Enrich { keeps: bool },
    /// Grouped in windows, by key or not.
    Group { windows: Windows, by_key: bool, having: u64 },
    /// Two groupings of the same windows, joined.
    Join { size: i64, keeps: bool },
}

/// A record.
#[derive(Clone, Debug)]
pub struct Input {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// The device.
    pub device: u8,
    /// A number, or none.
    pub v: Option<i64>,
    /// Hundredths.
    pub d: i64,
    /// Quarters.
    pub f: i64,
    /// The time, in milliseconds.
    pub at: i64,
    /// For the stream: no JSON at all. For the table: the device is gone.
    pub is_broken: bool,
    /// Whether it is one of the table.
    pub is_device: bool,
}

impl Input {
    /// The key of the record.
    pub fn key(&self) -> String {
        format!("dev-{}", self.device)
    }

    /// The payload.
    pub fn payload(&self) -> Option<String> {
        match (self.is_broken, self.is_device) {
            (true, true) => None,
            (true, false) => Some(format!("{{\"k\": {}", self.offset)),
            (false, true) => Some(format!("{{\"r\":{}}}", self.d)),
            (false, false) => {
                let v = self.v.map_or("null".to_owned(), |v| v.to_string());
                let (d, f) = (hundredths(self.d), self.f as f64 / 4.0);
                let (k, at) = (self.key(), self.at);
                Some(format!("{{\"k\":\"{k}\",\"v\":{v},\"d\":{d},\"f\":{f},\"at\":{at}}}"))
            }
        }
    }
}

/// A number of hundredths as a DECIMAL(_, 2) is written.
pub fn hundredths(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", number.abs() / 100, number.abs() % 100)
}

/// An epoch.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// The age of the pipeline at its end.
    pub age_ms: u64,
    /// Records of the stream, in canonical order.
    pub inputs: Vec<Input>,
    /// Records of the table.
    pub devices: Vec<Input>,
}

/// A pipeline and its input.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it does.
    pub shape: Shape,
    /// How far the watermark is behind.
    pub delay_ms: i64,
    /// When a partition is idle.
    pub idle_ms: Option<i64>,
    /// Whether the table has an event time that is waited for.
    pub table_time: bool,
    /// Rows with less are left out.
    pub least: i64,
    /// Whether the input ends with the last epoch.
    pub ends: bool,
    /// The input.
    pub epochs: Vec<Epoch>,
}

impl Case {
    /// The pipeline as a file.
    pub fn sql(&self) -> String {
        let idle =
            self.idle_ms.map_or(String::new(), |ms| format!(" IDLE INTERVAL '{ms}' MILLISECOND"));
        let mut sql = format!(
            "CREATE STREAM s (k VARCHAR NOT NULL, v BIGINT CHECK (v < 90), d DECIMAL(9, 2), f DOUBLE, \
             at TIMESTAMP(3)) FROM TOPIC \"in\" WATERMARK at - INTERVAL '{}' MILLISECOND{idle} \
             ON ERROR DEAD LETTER dead LATE TO late;\n",
            self.delay_ms
        );
        let least = self.least;
        match self.shape {
            Shape::Plain => {
                let _ = write!(
                    sql,
                    "INSERT INTO TOPIC out KEY k SELECT k, v, 100 / (v - 3) AS q, d * 2 AS d FROM s \
                     WHERE v >= {least};"
                );
            }
            Shape::Enrich { keeps } => {
                let watermark = if self.table_time {
                    "WATERMARK at IDLE INTERVAL '3000' MILLISECOND"
                } else {
                    ""
                };
                let join = if keeps { "LEFT JOIN" } else { "JOIN" };
                let _ = write!(
                    sql,
                    "CREATE TABLE t (k VARCHAR PRIMARY KEY METADATA FROM 'key', r BIGINT, at \
                     TIMESTAMP(3) METADATA FROM 'timestamp') FROM TOPIC devices {watermark} ON ERROR \
                     FAIL;\nINSERT INTO TOPIC out KEY k SELECT s.k, s.v, t.r, 100 / (s.v - 3) AS q FROM s \
                     {join} t ON s.k = t.k WHERE s.v >= {least};"
                );
            }
            Shape::Group { windows, by_key, having } => {
                let from = match windows {
                    Windows::Tumble(size) => format!("TUMBLE(s, {})", interval(size)),
                    Windows::Hop(slide, size) => {
                        format!("HOP(s, {}, {})", interval(slide), interval(size))
                    }
                    Windows::Session(gap) => format!("SESSION(s, {})", interval(gap)),
                };
                let (column, key) = if by_key { ("k, ", "KEY k") } else { ("", "") };
                let _ = write!(
                    sql,
                    "INSERT INTO TOPIC out {key} SELECT {column}window_start, window_end, COUNT(*) AS n, \
                     COUNT(v) AS nv, SUM(v) AS sv, SUM(d) AS sd, AVG(d) AS ad, SUM(f) AS sf, MIN(v) AS \
                     low, MAX(d) AS high, FIRST_VALUE(v) AS first, LAST_VALUE(v) AS last FROM {from} \
                     WHERE v >= {least} OR v IS NULL GROUP BY {column}window_start, window_end \
                     HAVING COUNT(*) > {having};"
                );
            }
            Shape::Join { size, keeps } => {
                let join = if keeps { "LEFT JOIN" } else { "JOIN" };
                let size = interval(size);
                let _ = write!(
                    sql,
                    "CREATE STREAM a AS SELECT k, v, window_start AS ws, window_end AS we FROM TUMBLE(s, \
                     {size}) WHERE v >= {least};\n\
                     CREATE STREAM b AS SELECT MAX(v) AS m, window_start AS ws, window_end AS we FROM \
                     TUMBLE(s, {size}) GROUP BY window_start, window_end;\n\
                     INSERT INTO TOPIC out KEY k SELECT a.k, a.v, b.m FROM a {join} b ON a.ws = b.ws AND \
                     a.we = b.we AND a.v = b.m;"
                );
            }
        }
        sql
    }
}

fn interval(ms: i64) -> String {
    format!("INTERVAL '{ms}' MILLISECOND")
}

fn shape() -> impl Strategy<Value = Shape> {
    let windows = prop_oneof![
        prop::sample::select(vec![1_000, 2_500, 7_000]).prop_map(Windows::Tumble),
        (prop::sample::select(vec![500, 1_000]), 1i64..5).prop_map(|(s, n)| Windows::Hop(s, s * n)),
        prop::sample::select(vec![300, 1_000, 2_000]).prop_map(Windows::Session),
    ];
    prop_oneof![
        1 => Just(Shape::Plain),
        2 => any::<bool>().prop_map(|keeps| Shape::Enrich { keeps }),
        4 => (windows, any::<bool>(), 0u64..3)
            .prop_map(|(windows, by_key, having)| Shape::Group { windows, by_key, having }),
        2 => (prop::sample::select(vec![1_000, 3_000]), any::<bool>())
            .prop_map(|(size, keeps)| Shape::Join { size, keeps }),
    ]
}

/// A record, with its time relative to the epoch.
fn input(is_device: bool) -> impl Strategy<Value = Input> {
    let v = prop_oneof![1 => Just(None), 9 => (-2i64..12).prop_map(Some), 1 => (88i64..92).prop_map(Some)];
    let broken = prop::bool::weighted(if is_device { 0.25 } else { 0.05 });
    (0..PARTITIONS, 0u8..3, v, (-500i64..500, -9i64..9), -4_000i64..3_000, broken).prop_map(
        move |(partition, device, v, (d, f), at, is_broken)| Input {
            partition: if is_device { 0 } else { partition },
            offset: 0,
            device,
            v,
            d,
            f,
            at,
            is_broken,
            is_device,
        },
    )
}

/// A pipeline with its input.
pub fn case() -> impl Strategy<Value = Case> {
    let inputs = prop::collection::vec(input(false), 0..12);
    let devices = prop::collection::vec(input(true), 0..4);
    let epoch = (inputs, devices, 1u64..4_000, 0i64..4_000, 0..=PARTITIONS);
    let epochs = prop::collection::vec(epoch, 1..8);
    let idle = prop_oneof![Just(None), Just(Some(500)), Just(Some(5_000))];
    (shape(), (0i64..2_000, idle, any::<bool>()), 0i64..5, any::<bool>(), epochs).prop_map(
        |(shape, (delay_ms, idle_ms, table_time), least, ends, raw)| {
            let (mut age_ms, mut now) = (0, 10_000);
            let (mut offsets, mut device_offset) = ([0; PARTITIONS as usize], 0);
            let mut epochs = Vec::new();
            for (mut inputs, mut devices, step_ms, ahead, silent) in raw {
                age_ms += step_ms;
                now += ahead;
                // A partition falls silent now and then.
                inputs.retain(|input| input.partition != silent);
                inputs.sort_by_key(|input| input.partition);
                for input in &mut inputs {
                    let offset = &mut offsets[input.partition as usize];
                    (input.offset, input.at) = (*offset, now + input.at);
                    *offset += 1;
                }
                for input in &mut devices {
                    (input.offset, input.at) = (device_offset, now + input.at);
                    device_offset += 1;
                }
                epochs.push(Epoch { age_ms, inputs, devices });
            }
            Case { shape, delay_ms, idle_ms, table_time, least, ends, epochs }
        },
    )
}

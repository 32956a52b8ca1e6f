//! Kinds of pipelines, and records for them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

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
    /// Row by row, in two queries, and in a third one over another stream of the same topic, which has its own ways with bad
    /// records.
    Several {
        /// Whether the other stream drops them, and does not send them to a topic of its own.
        drops: bool,
    },
    /// Joined with the table.
    Enrich {
        /// Whether rows without a device are kept.
        keeps: bool,
    },
    /// Grouped in windows, by key or not.
    Group {
        /// Which windows.
        windows: Windows,
        /// Whether each key has groups of its own.
        by_key: bool,
        /// Groups of so many rows or fewer are left out.
        having: u64,
    },
    /// Windows of two topics, joined: the table's is a stream here.
    Pairs {
        /// The length of a window, in milliseconds.
        size: i64,
        /// Whether rows of the stream without a partner are kept.
        keeps: bool,
    },
    /// Two groupings of the same windows, joined.
    Join {
        /// The length of a window, in milliseconds.
        size: i64,
        /// Whether rows without a partner are kept.
        keeps: bool,
    },
}

impl Shape {
    /// The topics that it writes, without what is before them in their names.
    pub fn outputs(&self) -> &'static [&'static str] {
        match self {
            Self::Several { .. } => &["out", "dead", "late", "more", "side", "rest"],
            _ => &["out", "dead", "late"],
        }
    }

    /// The source of each of its readers: queries in the order of what they write, and in each of them what
    /// comes first in the text.
    pub fn readers(&self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Group { .. } => &["s"],
            Self::Several { .. } => &["s", "s", "u"],
            Self::Enrich { .. } => &["s", "t"],
            Self::Pairs { .. } => &["s", "w"],
            Self::Join { .. } => &["s", "s"],
        }
    }
}

/// In place of the partition: the record was a dead letter, and comes once more.
pub const RETRIED: u32 = u32::MAX;

/// A record.
#[derive(Clone, Debug)]
pub struct Input {
    /// The partition, or [`RETRIED`].
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// What it is called by whoever made it.
    pub number: u64,
    /// The device.
    pub device: u32,
    /// A number, or none.
    pub v: Option<i64>,
    /// Hundredths.
    pub d: i64,
    /// Quarters.
    pub f: i64,
    /// The time, in milliseconds.
    pub at: i64,
    /// For the stream: no JSON at all, or a batch that cannot be read. For the table: the device is gone.
    pub is_broken: bool,
    /// Whether it is one of the table.
    pub is_device: bool,
    /// In place of a record, a batch that cannot be read; as a text, as far as it is one.
    pub batch: Option<Arc<str>>,
}

impl Input {
    /// The name of the device.
    pub fn key(&self) -> String {
        format!("dev-{}", self.device)
    }

    /// The key of the record.
    pub fn record_key(&self) -> Option<String> {
        self.batch.is_none().then(|| self.key())
    }

    /// The payload.
    pub fn payload(&self) -> Option<String> {
        if let Some(batch) = &self.batch {
            return Some(batch.to_string());
        }
        match (self.is_broken, self.is_device) {
            (true, true) => None,
            (true, false) => Some(format!("{{\"k\": {}", self.number)),
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

/// The partition of a record with this key, of so many: murmur2 of its bytes, as the clients of Kafka have
/// it (`org.apache.kafka.common.utils.Utils`), without its sign.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    for four in key.chunks(4) {
        if let Ok(four) = <[u8; 4]>::try_from(four) {
            let mut word = u32::from_le_bytes(four).wrapping_mul(FACTOR);
            word ^= word >> 24;
            hash = hash.wrapping_mul(FACTOR) ^ word.wrapping_mul(FACTOR);
        } else {
            for (at, byte) in four.iter().enumerate() {
                hash ^= u32::from(*byte) << (8 * at);
            }
            hash = hash.wrapping_mul(FACTOR);
        }
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) % partitions
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
    /// Partitions of the stream of which it leaves something unread.
    pub unread: BTreeSet<u32>,
    /// Whether it does so of the table.
    pub leaves_devices: bool,
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
    /// Whether bad records of the stream are dropped, and do not go to a topic.
    pub drops: bool,
    /// Whether the table has an event time that is waited for.
    pub table_time: bool,
    /// Rows with less are left out.
    pub least: i64,
    /// Whether the input ends with the last epoch.
    pub ends: bool,
    /// Partitions of the stream; the table has one.
    pub partitions: u32,
    /// How the names of its topics begin.
    pub prefix: String,
    /// What stands before that in the names of its inputs.
    pub from: String,
    /// The input.
    pub epochs: Vec<Epoch>,
}

impl Case {
    /// The full name of one of its topics: `in`, `devices`, or one of [`Shape::outputs`].
    pub fn topic(&self, name: &str) -> String {
        let from = if matches!(name, "in" | "devices") { self.from.as_str() } else { "" };
        format!("{from}{}{name}", self.prefix)
    }

    fn on_error(&self) -> String {
        match self.drops {
            true => "DROP".to_owned(),
            false => format!("DEAD LETTER \"{}\"", self.topic("dead")),
        }
    }

    /// The pipeline as a file.
    pub fn sql(&self) -> String {
        let (input, devices, out) = (self.topic("in"), self.topic("devices"), self.topic("out"));
        let (late, on_error) = (self.topic("late"), self.on_error());
        let idle =
            self.idle_ms.map_or(String::new(), |ms| format!(" IDLE INTERVAL '{ms}' MILLISECOND"));
        let mut sql = format!(
            "CREATE STREAM s (k VARCHAR NOT NULL, v BIGINT CHECK (v < 90), d DECIMAL(9, 2), f DOUBLE, \
             at TIMESTAMP(3)) FROM TOPIC \"{input}\" WATERMARK at - INTERVAL '{}' MILLISECOND{idle} \
             ON ERROR {on_error} LATE TO \"{late}\";\n",
            self.delay_ms
        );
        let least = self.least;
        match self.shape {
            Shape::Plain => {
                let _ = write!(
                    sql,
                    "INSERT INTO TOPIC \"{out}\" KEY k SELECT k, v, 100 / (v - 3) AS q, d * 2 AS d FROM s \
                     WHERE v >= {least};"
                );
            }
            Shape::Several { drops } => self.several(drops, &mut sql),
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
                     TIMESTAMP(3) METADATA FROM 'timestamp') FROM TOPIC \"{devices}\" {watermark} ON ERROR \
                     FAIL;\nINSERT INTO TOPIC \"{out}\" KEY k SELECT s.k, s.v, t.r, 100 / (s.v - 3) AS q FROM s \
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
                    "INSERT INTO TOPIC \"{out}\" {key} SELECT {column}window_start, window_end, COUNT(*) AS n, \
                     COUNT(v) AS nv, SUM(v) AS sv, SUM(d) AS sd, AVG(d) AS ad, SUM(f) AS sf, MIN(v) AS \
                     low, MAX(d) AS high, FIRST_VALUE(v) AS first, LAST_VALUE(v) AS last FROM {from} \
                     WHERE v >= {least} OR v IS NULL GROUP BY {column}window_start, window_end \
                     HAVING COUNT(*) > {having};"
                );
            }
            Shape::Pairs { size, keeps } => self.pairs((size, keeps), &idle, &mut sql),
            Shape::Join { size, keeps } => self.join((size, keeps), &mut sql),
        }
        sql
    }

    /// Windows of the stream and of the other topic.
    fn pairs(&self, (size, keeps): (i64, bool), idle: &str, sql: &mut String) {
        let (join, size) = (if keeps { "LEFT JOIN" } else { "JOIN" }, interval(size));
        let (devices, out, delay) = (self.topic("devices"), self.topic("out"), self.delay_ms);
        let _ = write!(
            sql,
            "CREATE STREAM w (k VARCHAR NOT NULL METADATA FROM 'key', r BIGINT, at TIMESTAMP(3) METADATA \
             FROM 'timestamp') FROM TOPIC \"{devices}\" WATERMARK at - INTERVAL '{delay}' MILLISECOND{idle} \
             ON ERROR DROP LATE DROP;\n\
             INSERT INTO TOPIC \"{out}\" KEY k SELECT l.k AS k, l.v AS v, r.r AS r FROM TUMBLE(s, {size}) AS l \
             {join} TUMBLE(w, {size}) AS r ON l.k = r.k AND l.window_start = r.window_start AND \
             l.window_end = r.window_end;"
        );
    }

    /// Windows of the stream, joined with what is the most in them.
    fn join(&self, (size, keeps): (i64, bool), sql: &mut String) {
        let (join, size) = (if keeps { "LEFT JOIN" } else { "JOIN" }, interval(size));
        let (out, least) = (self.topic("out"), self.least);
        let _ = write!(
            sql,
            "CREATE STREAM a AS SELECT k, v, window_start AS ws, window_end AS we FROM TUMBLE(s, \
             {size}) WHERE v >= {least};\n\
             CREATE STREAM b AS SELECT MAX(v) AS m, window_start AS ws, window_end AS we FROM \
             TUMBLE(s, {size}) GROUP BY window_start, window_end;\n\
             INSERT INTO TOPIC \"{out}\" KEY k SELECT a.k, a.v, b.m FROM a {join} b ON a.ws = b.ws AND \
             a.we = b.we AND a.v = b.m;"
        );
    }

    /// What fails in one query does not in the others.
    fn several(&self, drops: bool, sql: &mut String) {
        let (input, out, least) = (self.topic("in"), self.topic("out"), self.least);
        let (more, side) = (self.topic("more"), self.topic("side"));
        let on_error = match drops {
            true => "DROP".to_owned(),
            false => format!("DEAD LETTER \"{}\"", self.topic("rest")),
        };
        let _ = write!(
            sql,
            "CREATE STREAM u (k VARCHAR NOT NULL, v BIGINT CHECK (v < 89)) FROM TOPIC \"{input}\" ON ERROR \
             {on_error};\n\
             INSERT INTO TOPIC \"{out}\" KEY k SELECT k, v, 100 / (v - 3) AS q FROM s WHERE v >= {least};\n\
             INSERT INTO TOPIC \"{side}\" KEY k SELECT k, v, 100 / (v - 7) AS q FROM u WHERE v >= {least};\n\
             INSERT INTO TOPIC \"{more}\" KEY k SELECT k, v, 100 / (v - 5) AS q FROM s WHERE v >= {least};"
        );
    }
}

fn interval(ms: i64) -> String {
    format!("INTERVAL '{ms}' MILLISECOND")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `UtilsTest` in Kafka.
    #[test]
    fn keys_go_where_the_clients_of_kafka_send_them() {
        let hashes: [(&str, i32); 4] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("abc", 479_470_107),
        ];
        for (key, hash) in hashes {
            let positive = hash.cast_unsigned() & 0x7fff_ffff;
            assert_eq!(partition_of(key.as_bytes(), 1 << 20), positive % (1 << 20), "{key}");
        }
    }
}

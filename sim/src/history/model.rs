//! Operations of clients on one partition.

use fulmar_types::{Offset, PartitionIndex};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;

/// A virtual time, in nanoseconds since the start of the run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// After everything else.
    pub const END: Self = Self(u64::MAX);
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::END {
            return f.write_str("the end");
        }
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A client of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

impl ClientId {
    /// The one who reads the whole log at the end of the run.
    pub const LAST_READER: Self = Self(u32::MAX);
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LAST_READER {
            return f.write_str("the last reader");
        }
        write!(f, "client {}", self.0)
    }
}

/// A producer: what numbers its records. A client that restarts is another producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProducerTag(pub u32);

impl fmt::Display for ProducerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "producer {}", self.0)
    }
}

/// The hash of a record's key, value and headers. Two records never share one in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload(pub u64);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

// As text, because readers of JSON round a number of 64 bits.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}

/// A partition of a topic of a site. A topic that is created again needs another name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionName {
    /// The site.
    pub site: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at {}", self.topic, self.partition, self.site)
    }
}

/// What one produce request carries for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Who produced it.
    pub producer: ProducerTag,
    /// The number of its first record among all that this producer ever produced.
    pub sequence: u64,
    /// Its records; at least one.
    pub payloads: Vec<Payload>,
    /// Whether the producer numbered it for the broker (KIP-98), so that it may be sent again. A
    /// batch that is not numbered is sent once: after an unknown outcome its client gives up.
    pub idempotent: bool,
    /// Its bytes in the log, at most.
    #[serde(default)]
    pub bytes_max: u64,
}

impl Batch {
    /// How many records it has.
    pub fn count(&self) -> u64 {
        self.payloads.len() as u64
    }
}

/// How a produce request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProduceOutcome {
    /// The first record has this offset, the others follow.
    Acked(Offset),
    /// The broker answered that it was not appended and never will be.
    Failed,
    /// No answer, or one that leaves it open: it may be appended at any time, or never.
    #[default]
    Unknown,
}

/// A record that a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// Where.
    pub offset: Offset,
    /// What.
    pub payload: Payload,
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAnswer {
    /// The records from the asked offset on, as many as the answer had room for.
    pub records: Vec<SeenRecord>,
    /// The end of the log at the moment of the read: the offset that the next record will have.
    pub high_watermark: Offset,
    /// The first offset that is kept, at that moment.
    #[serde(default)]
    pub log_start: Offset,
}

/// What a record has beside its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Besides {
    /// Its time.
    pub timestamp_ms: i64,
    /// A hash over its headers; 0 if it has none.
    pub headers: u64,
}

/// What was read of a whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Where the log began then.
    pub start: Offset,
    /// When it was known to begin there.
    pub at: Time,
    /// Its records.
    pub records: Vec<SeenRecord>,
    /// What they have beside keys and values, as far as somebody has looked.
    pub besides: BTreeMap<Offset, Besides>,
    /// Where it was said to end, which may lie behind the last record.
    pub told_end: Offset,
}

impl ReadBack {
    /// The offset that the next record will have.
    pub fn end(&self) -> Offset {
        let end = self.records.last().map_or(self.start, |record| record.offset.plus(1));
        end.max(self.told_end)
    }
}

/// What goes when the bytes that are kept of a partition are reached and other sites lack what would have
/// to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// The oldest.
    #[default]
    KeepNewest,
    /// What comes.
    KeepOldest,
    /// Nothing: what comes has to wait.
    Block,
}

impl Budget {
    /// Its name as a setting of a topic.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepNewest => "keep-newest",
            Self::KeepOldest => "keep-oldest",
            Self::Block => "block",
        }
    }
}

/// What a site says of records that are missing in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The first offset.
    pub first: Offset,
    /// The offset behind the last one.
    pub end: Offset,
    /// How many records are missing in between.
    pub count: u64,
    /// Why, by its name.
    pub reason: String,
}

impl Marker {
    /// Whether it spans an offset.
    pub fn spans(&self, offset: Offset) -> bool {
        self.first <= offset && offset < self.end
    }

    /// Whether the reason is, or may be, a budget.
    pub fn is_for_budget(&self) -> bool {
        matches!(&*self.reason, "budget" | "several")
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, end, count, reason } = self;
        write!(f, "the marker of {count} records ({reason}) from offset {first} to before {end}")
    }
}

/// How long the records of a topic are kept at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Nanoseconds; `None` for ever.
    pub for_ns: Option<u64>,
    /// Bytes of each partition; `None` for all. Under another policy than [`Budget::KeepNewest`] that
    /// is also what is kept at most.
    pub bytes: Option<u64>,
    /// What goes when there are more.
    #[serde(default)]
    pub budget: Budget,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.for_ns, self.bytes) {
            (None, None) => f.write_str("all records"),
            (Some(ns), None) => write!(f, "records for {}", Time(ns)),
            (None, Some(bytes)) => write!(f, "{bytes} bytes"),
            (Some(ns), Some(bytes)) => write!(f, "records for {}, {bytes} bytes", Time(ns)),
        }
    }
}

/// How a change of a topic ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// It took effect before the answer.
    Done,
    /// The broker answered that it had no effect and never will.
    Failed,
    /// No answer, or one that leaves it open: it may take effect at any time, or never.
    #[default]
    Unknown,
}

/// How a read ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOutcome {
    /// With records, or with the news that there are none yet.
    Answer(ReadAnswer),
    /// The asked offset is above the end of the log, or before its start.
    OutOfRange,
    /// With what no log holds, and what that is: a batch with a wrong checksum or in another place,
    /// or nothing where the log goes on.
    Damaged(String),
    /// Without any news of the log.
    #[default]
    Nothing,
}

/// What a client did, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It appended records.
    Produce {
        /// The records.
        batch: Batch,
        /// How it ended.
        outcome: ProduceOutcome,
    },
    /// It read from an offset on.
    Read {
        /// The offset.
        from: Offset,
        /// How it ended.
        outcome: ReadOutcome,
    },
    /// It asked for the end of the log.
    Latest {
        /// The offset that the next record will have; `None` if the call failed.
        end: Option<Offset>,
    },
    /// It asked for the start of the log.
    Earliest {
        /// The first offset that is kept; `None` if the call failed.
        start: Option<Offset>,
    },
    /// It changed how long records are kept, for the whole topic.
    Keep {
        /// How long from then on.
        kept: Kept,
        /// How it ended.
        outcome: ChangeOutcome,
    },
}

impl Action {
    /// A produce request that is not answered yet.
    pub fn produce(batch: Batch) -> Self {
        Self::Produce { batch, outcome: ProduceOutcome::Unknown }
    }

    /// A read that is not answered yet.
    pub fn read(from: Offset) -> Self {
        Self::Read { from, outcome: ReadOutcome::Nothing }
    }

    /// A question for the end of the log that is not answered yet.
    pub fn latest() -> Self {
        Self::Latest { end: None }
    }

    /// A question for the start of the log that is not answered yet.
    pub fn earliest() -> Self {
        Self::Earliest { start: None }
    }

    /// A change of how long records are kept that is not answered yet.
    pub fn keep(kept: Kept) -> Self {
        Self::Keep { kept, outcome: ChangeOutcome::Unknown }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Produce { batch, outcome } => {
                let Batch { producer, sequence, payloads, .. } = batch;
                match payloads.as_slice() {
                    [payload] => write!(f, "append of {payload} ({producer}, number {sequence})")?,
                    several => write!(
                        f,
                        "append of {} records ({producer}, numbers {sequence} to {})",
                        several.len(),
                        sequence + batch.count().saturating_sub(1),
                    )?,
                }
                match outcome {
                    ProduceOutcome::Acked(base) => write!(f, " -> acknowledged at offset {base}"),
                    ProduceOutcome::Failed => f.write_str(" -> failed"),
                    ProduceOutcome::Unknown => f.write_str(" -> unknown"),
                }
            }
            Self::Read { from, outcome } => {
                write!(f, "read from offset {from}")?;
                match outcome {
                    ReadOutcome::Answer(answer) => write!(
                        f,
                        " -> {} records, high watermark {}",
                        answer.records.len(),
                        answer.high_watermark
                    ),
                    ReadOutcome::OutOfRange => f.write_str(" -> out of range"),
                    ReadOutcome::Damaged(text) => write!(f, " -> damaged: {text}"),
                    ReadOutcome::Nothing => f.write_str(" -> no answer"),
                }
            }
            Self::Latest { end: Some(end) } => write!(f, "latest offset -> {end}"),
            Self::Latest { end: None } => f.write_str("latest offset -> no answer"),
            Self::Earliest { start: Some(start) } => write!(f, "earliest offset -> {start}"),
            Self::Earliest { start: None } => f.write_str("earliest offset -> no answer"),
            Self::Keep { kept, outcome } => {
                let ended = match outcome {
                    ChangeOutcome::Done => "done",
                    ChangeOutcome::Failed => "failed",
                    ChangeOutcome::Unknown => "unknown",
                };
                write!(f, "keep {kept} from now on -> {ended}")
            }
        }
    }
}

/// An operation in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId(pub(super) usize);

/// What one client did to one partition, with the times of its call and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who.
    pub client: ClientId,
    /// Where.
    pub partition: PartitionName,
    /// The time of the call.
    pub invoked: Time,
    /// The time of the answer, or when the client gave up; `None` if it still waits.
    pub returned: Option<Time>,
    /// What.
    pub action: Action,
}

impl Operation {
    /// The batch and its first offset, of a produce request that was acknowledged.
    pub fn acked(&self) -> Option<(&Batch, Offset)> {
        match &self.action {
            Action::Produce { batch, outcome: ProduceOutcome::Acked(base) } => Some((batch, *base)),
            _ => None,
        }
    }

    /// The records that a read returned.
    pub fn seen(&self) -> &[SeenRecord] {
        match &self.action {
            Action::Read { outcome: ReadOutcome::Answer(answer), .. } => &answer.records,
            _ => &[],
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{} .. ", self.client, self.action, self.invoked)?;
        match self.returned {
            Some(returned) => write!(f, "{returned}]"),
            None => f.write_str("open]"),
        }
    }
}

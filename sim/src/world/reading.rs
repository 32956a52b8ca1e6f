//! Reading: the clients that read while a run lasts, and those that read a log from front to back.
//!
//! Invariants: an answer that shows damage goes into the history as that, whoever read it, and is
//! never taken for no answer; a reader that gets no further gives up after a bounded time.
//!
//! While faults last, a node may be too busy to send records, or not know a topic yet. After
//! everything has healed nothing excuses that, so the reader at the end of the run takes it for what
//! it is: a log that cannot be read, or one that is gone.

use super::client::{Client, payload};
use super::stage::Stage;
use super::workload::READ_TIMEOUT;
use crate::history::{
    Action, Besides, ClientId, History, PartitionName, ReadAnswer, ReadBack, ReadOutcome,
    SeenRecord, Time,
};
use crate::scenario::workload::{Read, ReadFrom};
use crate::scenario::{Drawn, SiteName};
use fulmar_client::error::{CallError, LeaderError};
use fulmar_client::fetch::{Fetch, Fetched};
use fulmar_client::offsets::OffsetAt;
use fulmar_client::{Cluster, FetchError, ReadRecord, Target, TopicPartition};
use fulmar_types::{Offset, PartitionIndex};
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::{Batch, RecordError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Attempts in a row that may come to nothing before a reader gives up.
const ATTEMPTS: u32 = 100;

/// How long a reader waits after an attempt that came to nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a log was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// An answer shows damage.
    Damaged,
    /// Answers come, and the log goes on, and they do not hold what is next.
    Stuck,
    /// The site does not know the partition.
    Gone,
    /// No answer, or none about the log.
    Unanswered,
}

/// A log that was not read to its end.
#[derive(Debug, PartialEq, Eq)]
struct Unread {
    at: Offset,
    cause: Cause,
    text: String,
}

/// Whether an error means that a node answered, and with what no sound log holds. The network of
/// the simulator changes no byte, so it was the node.
const fn is_damage(error: &FetchError) -> bool {
    match error {
        FetchError::Batch(_)
        | FetchError::Record(_)
        | FetchError::Order { .. }
        | FetchError::Missing
        | FetchError::Call(CallError::Malformed(_)) => true,
        FetchError::Refused(_) | FetchError::Call(_) | FetchError::Leader(_) => false,
    }
}

/// What it means if a reader of a whole log meets nothing but this error from some point on.
const fn cause(error: &FetchError) -> Cause {
    match error {
        FetchError::Refused(ErrorCode::OffsetOutOfRange) => Cause::Stuck,
        FetchError::Refused(ErrorCode::UnknownTopicOrPartition)
        | FetchError::Leader(LeaderError::Topic(ErrorCode::UnknownTopicOrPartition))
        | FetchError::Leader(LeaderError::NoPartition) => Cause::Gone,
        error if is_damage(error) => Cause::Damaged,
        _ => Cause::Unanswered,
    }
}

fn seen(fetched: &Fetched) -> Result<Vec<SeenRecord>, RecordError> {
    let records = fetched.records()?;
    let seen = records.iter().map(|record| SeenRecord {
        offset: record.offset,
        payload: payload(record.key.as_deref(), record.value.as_deref()),
    });
    Ok(seen.collect())
}

/// What records have beside keys and values.
fn besides(records: &[ReadRecord]) -> Vec<(Offset, Besides)> {
    let of = |record: &ReadRecord| {
        let mut bytes = Vec::new();
        for header in &record.headers {
            let value = header.value.as_deref().unwrap_or_default();
            for part in [&*header.key, value] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        let headers = if bytes.is_empty() { 0 } else { xxh3_64(&bytes) };
        (record.offset, Besides { timestamp_ms: record.timestamp_ms, headers })
    };
    records.iter().map(of).collect()
}

/// Who reads whole logs of a site.
pub(super) struct Reader<'a> {
    pub(super) id: ClientId,
    pub(super) site: &'a SiteName,
    pub(super) cluster: &'a Cluster,
    pub(super) stage: &'a Stage,
    pub(super) history: &'a Mutex<History>,
}

impl Reader<'_> {
    /// Reads a topic from front to back into the history, while faults may last.
    ///
    /// # Errors
    /// The partition that could not be read, and why.
    pub(super) async fn read_topic(&self, topic: &str, partitions: u32) -> Result<(), String> {
        for partition in (0..partitions).map(PartitionIndex) {
            let name = self.name(topic, partition);
            match self.read_all(&name, self.may_expire(&name)).await {
                Ok((read, _)) => self.keep(name, read),
                Err(unread) => {
                    if unread.cause == Cause::Damaged {
                        self.note_damage(&name, &unread);
                    }
                    return Err(format!("{name}: {}", unread.text));
                }
            }
        }
        Ok(())
    }

    /// The same for good, after everything has healed: what holds no records now has lost them.
    ///
    /// # Errors
    /// The first partition that could not be read, and why.
    pub(super) async fn read_back(&self, topic: &str, partitions: u32) -> Result<(), String> {
        let mut whole = Ok(());
        for partition in (0..partitions).map(PartitionIndex) {
            let name = self.name(topic, partition);
            let unread = match self.read_all(&name, self.may_expire(&name)).await {
                Ok((read, _)) => {
                    self.keep(name, read);
                    continue;
                }
                Err(unread) => unread,
            };
            whole = whole.and(Err(format!("{name}: {}", unread.text)));
            match unread.cause {
                Cause::Damaged | Cause::Stuck => self.note_damage(&name, &unread),
                Cause::Gone => self.keep(name, ReadBack::default()),
                Cause::Unanswered => {}
            }
        }
        whole
    }

    /// A whole log that stays out of the history. It may begin later and later.
    ///
    /// # Errors
    /// Why it could not be read.
    pub(super) async fn whole(&self, name: &PartitionName) -> Result<(ReadBack, Sizes), String> {
        self.read_all(name, true).await.map_err(|unread| unread.text)
    }

    fn name(&self, topic: &str, partition: PartitionIndex) -> PartitionName {
        PartitionName { site: self.site.as_str().to_owned(), topic: topic.to_owned(), partition }
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, name: PartitionName, read: ReadBack) {
        self.history().read_back(name, read);
    }

    /// Whether the log may begin later and later.
    fn may_expire(&self, name: &PartitionName) -> bool {
        self.history().kept().contains_key(name)
    }

    fn note_damage(&self, name: &PartitionName, unread: &Unread) {
        let now = Time(self.stage.machines.now_ns());
        let mut history = self.history();
        let id = history.begin(self.id, name.clone(), now, Action::read(unread.at));
        history.read(id, now, ReadOutcome::Damaged(unread.text.clone()));
    }

    async fn read_all(
        &self,
        name: &PartitionName,
        may_expire: bool,
    ) -> Result<(ReadBack, Sizes), Unread> {
        let mut whole = Whole::default();
        loop {
            let of = TopicPartition::new(&name.topic, name.partition);
            if may_expire && whole.vain > 0 {
                let asked =
                    self.cluster.list_offset(Target::Leader, &of, OffsetAt::Earliest, READ_TIMEOUT);
                let start = asked.await.ok().and_then(|found| found.offset);
                whole.begins_at(start.unwrap_or_default());
            }
            let fetch =
                Fetch { max_wait: Duration::from_millis(100), ..Fetch::new(of, whole.next) };
            let answer = self.cluster.fetch(Target::Leader, &fetch, READ_TIMEOUT).await;
            match whole.take(answer)? {
                Step::End => {
                    let Whole { start, records, besides, sizes, next: told_end, .. } = whole;
                    let at = Time(self.stage.machines.now_ns());
                    return Ok((ReadBack { start, at, records, besides, told_end }, sizes));
                }
                Step::On => {}
                Step::Again => madsim::time::sleep(PAUSE).await,
            }
        }
    }
}

/// What an answer did for a reader of a whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The log was read to its end.
    End,
    /// There is more.
    On,
    /// It came to nothing.
    Again,
}

/// The offset of every batch of a log, and its bytes.
pub(super) type Sizes = BTreeMap<Offset, u64>;

fn base(batch: &Batch) -> Offset {
    Offset(u64::try_from(batch.header().base_offset).expect("a node places no batch below zero"))
}

/// A log as far as it was read.
#[derive(Debug, Default)]
struct Whole {
    start: Offset,
    records: Vec<SeenRecord>,
    besides: BTreeMap<Offset, Besides>,
    sizes: Sizes,
    next: Offset,
    /// Attempts in a row that came to nothing.
    vain: u32,
    /// Why they did.
    causes: BTreeSet<Cause>,
}

impl Whole {
    /// What comes next has had its time: the log as far as it is there begins here.
    fn begins_at(&mut self, start: Offset) {
        if start > self.next {
            *self = Self { start, next: start, ..Self::default() };
        }
    }

    fn take(&mut self, answer: Result<Fetched, FetchError>) -> Result<Step, Unread> {
        let fetched = match answer {
            Ok(fetched) => fetched,
            Err(error) => return self.again(cause(&error), error.to_string()),
        };
        let all = fetched.records().and_then(|records| Ok((seen(&fetched)?, besides(&records))));
        match all {
            Ok((seen, besides)) => {
                self.records.extend(seen);
                self.besides.extend(besides);
                let sizes = fetched.batches.iter().map(|of| (base(of), of.bytes().len() as u64));
                self.sizes.extend(sizes);
            }
            Err(error) => return self.again(Cause::Damaged, error.to_string()),
        }
        let (before, end) = (self.next, fetched.high_watermark);
        self.next = fetched.next_offset();
        if self.next >= end {
            return Ok(Step::End);
        }
        if self.next > before {
            self.vain = 0;
            self.causes.clear();
            return Ok(Step::On);
        }
        self.again(Cause::Stuck, format!("no record at offset {before}, and the log ends at {end}"))
    }

    /// Damage is damage at once; of everything else another attempt may make something.
    fn again(&mut self, cause: Cause, text: String) -> Result<Step, Unread> {
        self.vain += 1;
        self.causes.insert(cause);
        if cause == Cause::Damaged {
            return Err(Unread { at: self.next, cause, text });
        }
        if self.vain >= ATTEMPTS {
            let text = format!("{text} (attempt {} in a row)", self.vain);
            // What was said once and not again is no evidence.
            let cause = if self.causes.len() == 1 { cause } else { Cause::Unanswered };
            return Err(Unread { at: self.next, cause, text });
        }
        Ok(Step::Again)
    }
}

impl Client {
    /// This client as a reader of whole logs.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            id: self.id,
            site: &self.site,
            cluster: &self.cluster,
            stage: &self.stage,
            history: &self.history,
        }
    }

    pub(super) async fn read(mut self, read: Read<Drawn>, partitions: u32) {
        let interval = self.interval(read.rate.interval());
        let mut next: BTreeMap<u32, Offset> = BTreeMap::new();
        while !self.stopped() {
            self.turn(interval).await;
            let number = u32::try_from(self.prng.below(u64::from(partitions))).unwrap_or(0);
            let known = next.get(&number).copied().unwrap_or_default();
            let from = match read.from {
                ReadFrom::Start | ReadFrom::End => known,
                ReadFrom::Anywhere => Offset(self.prng.between(0, known.get())),
            };
            let topic = read.topic.as_str();
            let partition = PartitionIndex(number);
            let fetch = Fetch {
                max_wait: read.wait.0,
                max_bytes: i32::try_from(read.max_bytes.0).unwrap_or(i32::MAX),
                ..Fetch::new(TopicPartition::new(topic, partition), from)
            };
            let id = {
                let (now, name) = (self.now(), self.name(topic, partition));
                self.history().begin(self.id, name, now, Action::read(from))
            };
            let answer = self.cluster.fetch(Target::Leader, &fetch, READ_TIMEOUT).await;
            if let Ok(fetched) = &answer {
                next.insert(number, goes_on(read.from, fetched));
            }
            let outcome = outcome(answer);
            let now = self.now();
            let is_before_start = {
                let mut history = self.history();
                let may_expire = history.kept().contains_key(&self.name(topic, partition));
                let out_of_range = outcome == ReadOutcome::OutOfRange;
                history.read(id, now, outcome);
                may_expire && out_of_range
            };
            if is_before_start && let Some(start) = self.earliest(topic, partition).await {
                next.insert(number, start);
            }
        }
    }
}

impl Client {
    /// The start of a partition.
    pub(super) async fn earliest(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let id = {
            let (now, name) = (self.now(), self.name(topic, partition));
            self.history().begin(self.id, name, now, Action::earliest())
        };
        let of = TopicPartition::new(topic, partition);
        let found =
            self.cluster.list_offset(Target::Leader, &of, OffsetAt::Earliest, READ_TIMEOUT).await;
        let start = found.ok().and_then(|found| found.offset);
        let now = self.now();
        self.history().earliest(id, now, start);
        start
    }
}

/// Where a client reads next.
fn goes_on(from: ReadFrom, fetched: &Fetched) -> Offset {
    let at_end = fetched.next_offset() >= fetched.high_watermark;
    match from {
        ReadFrom::Anywhere => fetched.high_watermark,
        ReadFrom::Start if at_end => Offset(0),
        ReadFrom::Start | ReadFrom::End => fetched.next_offset(),
    }
}

fn outcome(answer: Result<Fetched, FetchError>) -> ReadOutcome {
    let fetched = match answer {
        Ok(fetched) => fetched,
        Err(FetchError::Refused(ErrorCode::OffsetOutOfRange)) => return ReadOutcome::OutOfRange,
        Err(error) if is_damage(&error) => return ReadOutcome::Damaged(error.to_string()),
        Err(_) => return ReadOutcome::Nothing,
    };
    match seen(&fetched) {
        Ok(records) => {
            let (high_watermark, log_start) = (fetched.high_watermark, fetched.log_start);
            ReadOutcome::Answer(ReadAnswer { records, high_watermark, log_start })
        }
        Err(error) => ReadOutcome::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_types::NodeId;
    use fulmar_wire::batch::{BatchBuilder, BatchError, Batches, place};

    /// An answer with one batch of one record at each of these offsets.
    fn answer(offset: u64, bases: &[u64], high_watermark: u64) -> Fetched {
        let batch = |base: &u64| {
            let mut builder = BatchBuilder::new();
            builder.push(0, None, Some(b"value"), &[]).expect("one small record");
            let mut bytes = bytes::BytesMut::from(&builder.build().expect("one record")[..]);
            place(&mut bytes, Offset(*base), fulmar_types::Term(1));
            Batches::new(bytes.freeze()).next().expect("one batch").expect("a good one")
        };
        let batches: Vec<Batch> = bases.iter().map(batch).collect();
        Fetched {
            node: NodeId(1),
            offset: Offset(offset),
            high_watermark: Offset(high_watermark),
            log_start: Offset(0),
            batches,
        }
    }

    fn damage() -> FetchError {
        FetchError::Batch(BatchError::Truncated { needed: 61, remaining: 3 })
    }

    #[test]
    fn a_damaged_answer_is_written_down_as_that() {
        let order = FetchError::Order { expected: Offset(7), base_offset: 3 };
        for error in [damage(), order, FetchError::Missing] {
            assert!(matches!(outcome(Err(error)), ReadOutcome::Damaged(_)));
        }
        let moved = FetchError::Refused(ErrorCode::NotLeaderOrFollower);
        for error in
            [moved, FetchError::Call(CallError::Lost), FetchError::Call(CallError::TimedOut)]
        {
            assert_eq!(outcome(Err(error)), ReadOutcome::Nothing);
        }
        assert!(matches!(outcome(Ok(answer(0, &[0, 1], 2))), ReadOutcome::Answer(_)));
    }

    #[test]
    fn a_log_is_read_to_its_end() {
        let mut whole = Whole::default();
        assert_eq!(whole.take(Ok(answer(0, &[0, 1], 3))), Ok(Step::On));
        let moved = FetchError::Refused(ErrorCode::NotLeaderOrFollower);
        assert_eq!(whole.take(Err(moved)), Ok(Step::Again));
        assert_eq!(whole.take(Ok(answer(2, &[], 3))), Ok(Step::Again));
        assert_eq!(whole.take(Ok(answer(2, &[2], 3))), Ok(Step::End));
        assert_eq!(whole.records.iter().map(|r| r.offset.get()).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_reader_that_gets_no_further_gives_up() {
        let gone = FetchError::Leader(LeaderError::Topic(ErrorCode::UnknownTopicOrPartition));
        let cases = [
            (Ok(answer(2, &[], 3)), Cause::Stuck),
            (Err(FetchError::Refused(ErrorCode::OffsetOutOfRange)), Cause::Stuck),
            (Err(gone), Cause::Gone),
            (Err(FetchError::Call(CallError::TimedOut)), Cause::Unanswered),
        ];
        for (again, cause) in cases {
            let mut whole = Whole::default();
            assert_eq!(whole.take(Ok(answer(0, &[0, 1], 3))), Ok(Step::On));
            for _ in 1..ATTEMPTS {
                assert_eq!(whole.take(again.clone()), Ok(Step::Again));
            }
            let unread = whole.take(again).expect_err("bounded");
            assert_eq!((unread.at, unread.cause), (Offset(2), cause));
        }
    }

    #[test]
    fn what_was_said_once_is_no_evidence() {
        let mut whole = Whole::default();
        for _ in 1..ATTEMPTS {
            let again = whole.take(Err(FetchError::Call(CallError::TimedOut)));
            assert_eq!(again, Ok(Step::Again));
        }
        let last = whole.take(Err(FetchError::Refused(ErrorCode::OffsetOutOfRange)));
        assert_eq!(last.expect_err("bounded").cause, Cause::Unanswered);
    }

    #[test]
    fn damage_needs_no_second_look() {
        let unread = Whole::default().take(Err(damage())).expect_err("damage");
        assert_eq!(unread.cause, Cause::Damaged);
        assert!(unread.text.starts_with("a damaged batch"), "{}", unread.text);
    }
}

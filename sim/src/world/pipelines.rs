//! Pipelines: clients append what they read, and at the end it is compared what they gave.
//!
//! ```text
//! NAME.in        rows of a stream: some too late, some no rows, partitions that fall silent
//! NAME.devices   versions of a table
//!        |  the pipeline, in the nodes
//! NAME.out, NAME.dead, NAME.late
//! ```
//!
//! What they have to give (`comparing.rs`) is what the reference (`tests/reference`) says, over the records that are in the
//! inputs at the end and the epochs that the nodes said they committed.
//!
//! Invariants checked here: every output has the records of the reference, in its order, each once
//! (`pipeline_exact`), also of dead letters that were put through again (`retrying.rs`); what the pipeline says
//! of the fates of its records is what the reference says (`fates_exact`); after everything has healed all input
//! is read, and all output there (`pipeline_converges`). Where a pipeline has gone back, what it had given before is still there, and what
//! came after follows from the records that it read again. What is done to a pipeline meanwhile: `tending.rs`.

use super::mirroring::region;
use super::packing::{self, Damage};
use super::retrying::Asked;
use super::stage::Stage;
use super::tending::{Tended, Tending};
use super::whole::{end, since};
use super::workload::Workloads;
use crate::epochs::Part;
use crate::prng::Prng;
use crate::report::Verdict;
use crate::scenario::workload::{Does, Pipeline};
use crate::scenario::{Drawn, SiteName, Workload};
use bytes::Bytes;
use fulmar_client::admin::CreateTopicError;
use fulmar_client::{
    Cluster, Outcome, PipelineSettings, Producer, ProducerSettings, ReadRecord, TopicPartition,
    WriteRecord,
};
use fulmar_host::time;
use fulmar_reference::spec::{Case, Input, Shape, Windows};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Offset, PartitionIndex};
use fulmar_wire::batch::Compression;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long one attempt at anything may take.
pub(super) const LIMIT: Duration = Duration::from_secs(3);

/// How often the harness looks whether a pipeline has come to its end.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// Records that a client may have under way.
const IN_FLIGHT: usize = 64;

/// The event time at the start, in milliseconds: what comes too early is still after 1970.
const TIME_ZERO_MS: i64 = 20_000;

/// More than this are many.
const DEVICES_MANY: u32 = 50;

/// One record of the table for so many of the stream.
const ROWS_PER_DEVICE: u64 = 12;

/// The same where that is the other stream.
const ROWS_PER_PARTNER: u64 = 3;

/// A partition is silent for a part of the time, between two times in which it is not.
const SILENT_ONE_IN: u64 = 400;

/// How batches are compressed that are.
const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

const INPUTS: [&str; 2] = ["in", "devices"];

/// A site that has the outputs, and how their names begin there.
type Place = (Cluster, String);

/// What is in the inputs.
pub(super) type Rows = BTreeMap<Part, BTreeMap<Offset, ReadRecord>>;

/// What was appended to the stream, by its payload.
type Made = Arc<Mutex<BTreeMap<Vec<u8>, Input>>>;

/// What was in partitions at any time.
type Remembered = Arc<Mutex<BTreeMap<TopicPartition, BTreeMap<Offset, ReadRecord>>>>;

/// When records of the stream were acknowledged, and where they are, by partition.
pub(super) type Acked = Arc<Mutex<BTreeMap<u32, Vec<(u64, Offset)>>>>;

/// A pipeline of a run.
#[derive(Clone)]
pub(super) struct Piping {
    pub(super) of: Pipeline<Drawn>,
    pub(super) case: Case,
    /// What was appended to the stream, by its payload.
    pub(super) made: Made,
    /// Up to where dead letters were asked for to be put through again.
    pub(super) asked: Asked,
    /// What was in the inputs at any time: it may have expired since.
    pub(super) remembered: Remembered,
    /// When records of the stream were acknowledged, by partition, in virtual nanoseconds since the start.
    pub(super) acked: Acked,
    /// What was done to the pipeline.
    tended: Arc<Mutex<Tended>>,
}

/// The sites that have something of a pipeline.
pub(super) struct Places {
    /// Where it runs, and then where its outputs are copied to.
    pub(super) outputs: Vec<Place>,
    /// Where its inputs are copied from.
    pub(super) origin: Option<Cluster>,
}

/// All pipelines of a run.
#[derive(Default)]
pub(super) struct Pipelines {
    all: Vec<Piping>,
}

impl Pipelines {
    pub(super) fn new(workloads: &[Workload<Drawn>], stream_seed: u64) -> Self {
        let all = workloads.iter().filter_map(|workload| match workload {
            Workload::Pipeline(of) => Some(Piping {
                tended: Arc::default(),
                of: of.clone(),
                case: case(of, &mut Prng::new(stream_seed, &format!("pipeline/{}", of.name))),
                made: Arc::default(),
                asked: Asked::default(),
                remembered: Arc::default(),
                acked: Arc::default(),
            }),
            _ => None,
        });
        Self { all: all.collect() }
    }

    /// The pipeline of a workload.
    pub(super) fn piping(&self, of: &Pipeline<Drawn>) -> Piping {
        let is_it = |piping: &&Piping| piping.of.name == of.name && piping.of.site == of.site;
        self.all.iter().find(is_it).expect("made from the same scenario").clone()
    }

    /// Creates the topics, and deploys the pipelines.
    pub(super) async fn lay_down(&self, workloads: &Workloads) {
        for piping in &self.all {
            let cluster = workloads.cluster(&piping.of.site);
            let origin = piping.of.fed_from.as_ref().map(|from| workloads.cluster(from));
            for (topic, partitions) in piping.topics() {
                let at = match &origin {
                    Some(origin) if piping.is_input(&topic) => origin,
                    _ => &cluster,
                };
                while !piping.create(at, piping.own_name(&topic), partitions).await {
                    madsim::time::sleep(LOOK).await;
                }
            }
            while !piping.let_in(&cluster, origin.as_ref()).await {
                madsim::time::sleep(LOOK).await;
            }
            while !piping.let_go(&cluster).await || !piping.deploy(&cluster).await {
                madsim::time::sleep(LOOK).await;
            }
        }
    }

    /// The copies that there are of outputs, and of what they are made of: the site and the topic there.
    pub(super) fn copies(
        workloads: &[Workload<Drawn>],
    ) -> impl Iterator<Item = (SiteName, String)> {
        let all = workloads.iter().filter_map(|workload| match workload {
            Workload::Pipeline(of) => Some(of),
            _ => None,
        });
        all.flat_map(|of| {
            let shape = match of.does {
                Some(Does::Several) => Shape::Several { drops: false },
                _ => Shape::Plain,
            };
            let names = INPUTS.into_iter().chain(shape.outputs().iter().copied());
            let out = of.copied_to.iter().map(|to| (to.clone(), &of.site));
            let fed = of.fed_from.iter().map(|from| (of.site.clone(), from));
            let copies = out.chain(fed).flat_map(move |(to, from)| {
                names.clone().map(move |name| (to.clone(), format!("{from}.{}.{name}", of.name)))
            });
            copies.collect::<Vec<_>>()
        })
    }

    /// What is wrong with what they gave, once everything has healed.
    pub(super) async fn verdict(&self, workloads: &Workloads, deadline_ns: u64) -> Option<Verdict> {
        for piping in &self.all {
            let at_home = (workloads.cluster(&piping.of.site), String::new());
            let away = piping.of.copied_to.as_ref();
            let away = away.map(|to| (workloads.cluster(to), format!("{}.", piping.of.site)));
            let outputs: Vec<Place> = [at_home].into_iter().chain(away).collect();
            let origin = piping.of.fed_from.as_ref().map(|from| workloads.cluster(from));
            let places = Places { outputs, origin };
            if let Some(verdict) = piping.compare(&places, workloads.stage(), deadline_ns).await {
                return Some(verdict);
            }
        }
        None
    }
}

/// What a pipeline does; what the scenario leaves open is drawn.
fn case(of: &Pipeline<Drawn>, prng: &mut Prng) -> Case {
    let all = [Does::Plain, Does::Enrich, Does::Tumble, Does::Hop, Does::Session, Does::Join];
    let does = of.does.unwrap_or_else(|| *prng.pick(&all).expect("there are six"));
    let (by_key, having, keeps) = (prng.below(2) == 0, prng.below(3), prng.below(2) == 0);
    // Many devices are there to make large epochs and a large state of.
    let has_many = of.devices.get() > DEVICES_MANY;
    let (by_key, having) = if has_many { (true, 0) } else { (by_key, having) };
    let windows = match does {
        Does::Hop => Windows::Hop(1_000, 1_000 * (1 + prng.below(4)).cast_signed()),
        Does::Session => Windows::Session(*prng.pick(&[300, 1_000, 2_000]).expect("three")),
        _ => Windows::Tumble(*prng.pick(&[1_000, 2_500, 7_000]).expect("three")),
    };
    let shape = match does {
        Does::Plain => Shape::Plain,
        Does::Several => Shape::Several { drops: keeps },
        Does::Enrich => Shape::Enrich { keeps },
        Does::Join => Shape::Join { size: 2_000, keeps },
        Does::Pairs => Shape::Pairs { size: 2_000, keeps },
        Does::Tumble | Does::Hop | Does::Session => Shape::Group { windows, by_key, having },
    };
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Case {
        shape,
        delay_ms: ms(of.delay.0),
        idle_ms: of.idle.map(|idle| ms(idle.0)),
        drops: false,
        table_time: prng.below(2) == 0,
        least: prng.below(5).cast_signed(),
        ends: false,
        partitions: of.partitions.get(),
        prefix: format!("{}.", of.name),
        from: of.fed_from.as_ref().map_or(String::new(), |from| format!("{from}.")),
        epochs: Vec::new(),
    }
}

impl Piping {
    pub(super) fn topics(&self) -> Vec<(String, u32)> {
        let partitions = self.case.partitions;
        let outputs = self.case.shape.outputs().iter().map(|name| match *name {
            "dead" | "late" | "rest" => (*name, 1),
            name => (name, partitions),
        });
        let all = [("in", partitions), ("devices", 1)].into_iter().chain(outputs);
        all.map(|(name, partitions)| (self.case.topic(name), partitions)).collect()
    }

    fn is_input(&self, topic: &str) -> bool {
        INPUTS.iter().any(|name| self.case.topic(name) == *topic)
    }

    /// What a topic is called where clients append to it.
    pub(super) fn own_name<'a>(&self, topic: &'a str) -> &'a str {
        topic.strip_prefix(&self.case.from).unwrap_or(topic)
    }

    pub(super) fn tended(&self) -> MutexGuard<'_, Tended> {
        self.tended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever does something to it, or looks how large it is.
    pub(super) fn tending(&self, cluster: Cluster) -> Tending {
        let latency_ms = u32::try_from(self.of.latency.0.as_millis()).unwrap_or(u32::MAX);
        let (name, sql) = (self.of.name.as_str().to_owned(), self.case.sql());
        let (dead, tended) = (self.case.topic("dead"), self.tended.clone());
        Tending { name, sql, dead, latency_ms, cluster, tended }
    }

    /// The memory for state that each node of its site has.
    pub(super) fn memory(&self, stage: &Stage) -> Option<u64> {
        let site = usize::from(stage.site_number(&self.of.site));
        let config = stage.drawn.site_config(site, &self.of.site).ok()?;
        Some(config.pipelines.memory_bytes.0)
    }

    /// Lets the inputs come from the site where they are, and waits until they do.
    async fn let_in(&self, cluster: &Cluster, origin: Option<&Cluster>) -> bool {
        let Some(origin) = origin else { return true };
        let rule = RuleDefinition::verbatim([region(&self.of.site)]);
        for topic in INPUTS.map(|name| self.case.topic(name)) {
            if origin.set_rule(self.own_name(&topic), None, &rule, LIMIT).await.is_err() {
                return false;
            }
        }
        let Ok(known) = cluster.refresh_all(LIMIT).await else { return false };
        INPUTS.iter().all(|name| known.topics.contains_key(&self.case.topic(name)))
    }

    async fn create(&self, cluster: &Cluster, topic: &str, partitions: u32) -> bool {
        let kept_ms = self.of.retention.map(|retention| retention.0.as_millis().to_string());
        let kept_ms = kept_ms.filter(|_| self.is_input(topic));
        let settings = kept_ms.map(|ms| ("retention.ms".to_owned(), ms));
        let settings: Vec<_> = settings.into_iter().collect();
        let created = cluster.create_topic_with(topic, partitions, &settings, LIMIT).await;
        matches!(created, Ok(_) | Err(CreateTopicError::Exists))
    }

    /// Lets the inputs go where the outputs have to be.
    async fn let_go(&self, cluster: &Cluster) -> bool {
        let Some(to) = &self.of.copied_to else { return true };
        let rule = RuleDefinition::verbatim([region(to)]);
        for name in INPUTS {
            if cluster.set_rule(&self.case.topic(name), None, &rule, LIMIT).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn deploy(&self, cluster: &Cluster) -> bool {
        let latency_ms = u32::try_from(self.of.latency.0.as_millis()).unwrap_or(u32::MAX);
        let settings = PipelineSettings {
            latency_ms: Some(latency_ms),
            ..PipelineSettings::of(self.case.sql())
        };
        cluster.set_pipeline(self.of.name.as_str(), None, &settings, LIMIT).await.is_ok()
    }

    /// Remembers what is in the inputs before it expires, until it is told to stop.
    pub(super) async fn remember(self, cluster: Cluster, stopped: impl Fn() -> bool) {
        let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        while !stopped() && self.of.retention.is_some() {
            madsim::time::sleep(LOOK).await;
            for (topic, partitions) in self.topics() {
                for partition in (0..partitions).map(PartitionIndex) {
                    if self.is_input(&topic) {
                        let of = TopicPartition::new(&topic, partition);
                        self.remember_more(&cluster, of, &mut ends).await;
                    }
                }
            }
        }
    }

    /// Asks for its dead letters to be put through again, if somebody is to, until it is told to stop.
    pub(super) async fn retry(self, cluster: Cluster, stopped: impl Fn() -> bool) {
        let Some(every) = self.of.retries else { return };
        let of = (cluster, self.of.name.as_str().to_owned(), self.case.topic("dead"));
        self.asked.ask(of, every.0, stopped).await;
    }

    async fn remember_more(
        &self,
        cluster: &Cluster,
        of: TopicPartition,
        ends: &mut BTreeMap<TopicPartition, Offset>,
    ) {
        let from = ends.get(&of).copied().unwrap_or(Offset(0));
        let Some(end) = end(cluster, &of).await.filter(|end| *end > from) else { return };
        let Some(read) = since(cluster, &of, from, end).await else { return };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.entry(of.clone()).or_default().extend(read);
        ends.insert(of, end);
    }

    /// Appends records until it is told to stop.
    pub(super) async fn run(self, cluster: Cluster, mut prng: Prng, stopped: impl Fn() -> bool) {
        let settings = ProducerSettings {
            delivery_timeout: Duration::from_secs(20),
            ..ProducerSettings::default()
        };
        let producer = Producer::new(cluster.clone(), settings);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let begun = time::now();
        let mut silent = BTreeMap::new();
        let (interval, mut number) = (self.of.rate.interval(), 0);
        while !stopped() {
            madsim::time::sleep(interval).await;
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let now_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
            number += 1;
            let Some((topic, partition, record)) =
                self.record(&mut prng, (number, now_ms), &mut silent)
            else {
                continue;
            };
            let to = TopicPartition::new(&topic, PartitionIndex(partition));
            let is_row = topic == self.own_name(&self.case.topic("in"));
            let packed = self.of.packed.ppm();
            if is_row && packed > 0 && prng.chance(packed) {
                let (batch, records) =
                    self.pack(&mut prng, (&mut number, now_ms), (partition, record));
                let (piping, cluster) = (self.clone(), cluster.clone());
                fulmar_host::task::spawn(async move {
                    if let Some(base) = packing::send(&cluster, &to, batch, LIMIT).await {
                        piping.acknowledged((to, is_row), base, records);
                    }
                    drop(permit);
                });
                continue;
            }
            let ticket = producer.enqueue(&to, vec![record.clone()]).await;
            let piping = self.clone();
            fulmar_host::task::spawn(async move {
                // What became of others shows in the topic.
                if let Outcome::Done { base_offset: Some(offset), .. } = ticket.await {
                    piping.acknowledged((to, is_row), offset, vec![read_as(record)]);
                }
                drop(permit);
            });
        }
        let _all = room.acquire_many(u32::try_from(IN_FLIGHT).expect("a handful")).await;
    }

    /// Remembers what is in a partition from an offset on.
    fn acknowledged(
        &self,
        (to, is_row): (TopicPartition, bool),
        base: Offset,
        records: Vec<ReadRecord>,
    ) {
        if is_row {
            let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
            acked.entry(to.partition.get()).or_default().push((now_ns(), base));
        }
        let mut all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(to).or_default();
        for (number, record) in (0..).zip(records) {
            let offset = base.plus(number);
            of.insert(offset, ReadRecord { offset, ..record });
        }
    }

    /// A compressed batch that begins with a record, and what is to be read in it.
    fn pack(
        &self,
        prng: &mut Prng,
        (number, now_ms): (&mut u64, i64),
        (partition, first): (u32, WriteRecord),
    ) -> (Bytes, Vec<ReadRecord>) {
        let mut records = vec![first];
        for _ in 0..1 + prng.below(3) {
            *number += 1;
            let device = self.device(prng);
            records.push(self.row(prng, (*number, now_ms), (partition, device)));
        }
        let codec = *prng.pick(&CODECS).expect("there are four");
        let is_damaged = prng.chance(self.of.damaged.ppm());
        let damage = is_damaged.then(|| *prng.pick(&Damage::ALL).expect("there are some"));
        let batch = packing::packed(&records, codec, damage);
        if damage.is_none() {
            return (batch, records.into_iter().map(read_as).collect());
        }
        let text = String::from_utf8_lossy(&batch).into();
        let input =
            Input { partition, is_broken: true, batch: Some(text), ..blank(*number, 0, prng) };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.to_vec(), input);
        let records = packing::unreadable(&batch, Offset(0));
        (batch, records)
    }

    /// The next record, and where it goes. None if that partition is silent.
    fn record(
        &self,
        prng: &mut Prng,
        (number, now_ms): (u64, i64),
        silent: &mut BTreeMap<u32, i64>,
    ) -> Option<(String, u32, WriteRecord)> {
        let at = TIME_ZERO_MS + now_ms;
        let device = self.device(prng);
        let rows_per_device = match self.case.shape {
            Shape::Enrich { .. } => Some(ROWS_PER_DEVICE),
            Shape::Pairs { .. } => Some(ROWS_PER_PARTNER),
            _ => None,
        };
        if rows_per_device.is_some_and(|rows| prng.below(rows) == 0) {
            let input = Input {
                at: at - prng.below(500).cast_signed(),
                is_broken: prng.below(4) == 0,
                is_device: true,
                ..blank(number, device, prng)
            };
            let topic = self.case.topic("devices");
            return Some((self.own_name(&topic).to_owned(), 0, write(&input)));
        }
        let partition = prng.below(u64::from(self.case.partitions)) as u32;
        if silent.get(&partition).is_some_and(|until| now_ms < *until) {
            return None;
        }
        if let Some(span) = self.of.silent
            && prng.below(SILENT_ONE_IN) == 0
        {
            let span_ms = i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
            silent.insert(partition, now_ms.saturating_add(span_ms));
        }
        let record = self.row(prng, (number, now_ms), (partition, device));
        let topic = self.case.topic("in");
        Some((self.own_name(&topic).to_owned(), partition, record))
    }

    fn device(&self, prng: &mut Prng) -> u32 {
        prng.below(u64::from(self.of.devices.get().max(1))) as u32
    }

    /// The next record of a partition of the stream.
    fn row(
        &self,
        prng: &mut Prng,
        (number, now_ms): (u64, i64),
        (partition, device): (u32, u32),
    ) -> WriteRecord {
        let is_late = prng.chance(self.of.late.ppm());
        let behind = prng.below(self.case.delay_ms.unsigned_abs().max(1)).cast_signed();
        let late = if is_late { self.case.delay_ms + prng.below(4_000).cast_signed() } else { 0 };
        let input = Input {
            partition,
            at: TIME_ZERO_MS + now_ms - behind - late,
            is_broken: prng.chance(self.of.bad.ppm()),
            ..blank(number, device, prng)
        };
        let record = write(&input);
        let payload = record.value.clone().unwrap_or_default().to_vec();
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(payload, input);
        record
    }
}

/// A record as it is read; where it is comes later.
fn read_as(record: WriteRecord) -> ReadRecord {
    let WriteRecord { timestamp_ms, key, value, headers } = record;
    ReadRecord { offset: Offset(0), timestamp_ms, key, value, headers }
}

fn now_ns() -> u64 {
    let elapsed = madsim::time::TimeHandle::current().elapsed();
    u64::try_from(elapsed.as_nanos()).expect("a run of less than 500 years")
}

/// A record with nothing but its numbers.
fn blank(number: u64, device: u32, prng: &mut Prng) -> Input {
    let v = match prng.below(12) {
        0 => None,
        1 => Some(88 + prng.below(4).cast_signed()),
        _ => Some(prng.below(14).cast_signed() - 2),
    };
    Input {
        partition: 0,
        offset: 0,
        number,
        device,
        v,
        d: prng.below(1_000).cast_signed() - 500,
        f: prng.below(18).cast_signed() - 9,
        at: 0,
        is_broken: false,
        is_device: false,
        batch: None,
    }
}

fn write(input: &Input) -> WriteRecord {
    WriteRecord {
        timestamp_ms: input.at,
        key: Some(input.key().into()),
        value: input.payload().map(Into::into),
        headers: Vec::new(),
    }
}

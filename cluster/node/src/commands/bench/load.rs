//! The load, in a process of its own, so that its CPU time is not taken for that of a node and a
//! node's runtime does not wait for it.
//!
//! Each connection is a TCP connection of its own with one record in flight: it sends, waits for
//! the answer, sends the next. The records are drawn before the measurement begins and do not
//! compress. Prints one line of JSON.

use crate::commands::Stop;
use crate::commands::client::{self, Bootstrap, parse_bootstrap};
use crate::commands::output::say;
use bytes::Bytes;
use clap::Args;
use fulmar_client::producer::plain_batch;
use fulmar_client::{Cluster, Connection, TopicPartition, WriteRecord};
use fulmar_host::random::random_u64;
use fulmar_host::task;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::{ExitCode, PartitionIndex};
use fulmar_wire::{
    ErrorCode, PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Different records that are sent in turn.
const RECORDS_DRAWN: usize = 64;

/// The longest wait for an answer, and for a leader.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a request that failed.
const PAUSE: Duration = Duration::from_millis(20);

/// Three significant digits: a thousandth of the value is far below the noise.
const DIGITS: u8 = 3;

/// The highest latency that is told apart: what a request may take at most, twice.
const LATENCY_US_MAX: u64 = 2 * TIMEOUT.as_micros() as u64;

/// Put load on a site and print what was measured as JSON.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// The addresses of some nodes.
    #[arg(long, value_parser = parse_bootstrap)]
    bootstrap: Bootstrap,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// Its partitions; connections are spread over them.
    #[arg(long)]
    partitions: u32,
    /// Connections with one record in flight each.
    #[arg(long)]
    connections: u32,
    /// Bytes of the value of a record.
    #[arg(long)]
    record_bytes: usize,
    /// Seconds that are measured.
    #[arg(long)]
    seconds: u64,
    /// Seconds before, which are not measured.
    #[arg(long)]
    warm_up_seconds: u64,
    /// Stop after this many records, whatever the time.
    #[arg(long)]
    records_max: Option<u64>,
}

/// What was measured. Latencies are in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Records that were acknowledged in the measured time.
    pub records: u64,
    /// The measured time.
    pub seconds: f64,
    /// Records that were acknowledged in all, before and after the measured time too.
    pub records_in_all: u64,
    /// Bytes of their values.
    pub value_bytes_in_all: u64,
    /// Bytes of their batches, as they were sent.
    pub batch_bytes_in_all: u64,
    /// Requests that failed, by what was wrong.
    pub failures: BTreeMap<String, u64>,
    /// The median.
    pub p50_us: u64,
    /// 90 % are faster.
    pub p90_us: u64,
    /// 99 % are faster.
    pub p99_us: u64,
    /// 99.9 % are faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Measured {
    /// Records per second.
    pub fn records_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.records as f64 / self.seconds } else { 0.0 }
    }
}

struct Tally {
    histogram: Histogram<u64>,
    records_in_all: u64,
    failures: BTreeMap<String, u64>,
    /// Why no record of this load will ever be taken.
    refused: Option<String>,
}

impl Tally {
    /// Takes note of an acknowledgement, and of how long it took if that is to be measured.
    fn acknowledged(&mut self, took: Option<Duration>) {
        self.records_in_all += 1;
        if let Some(took) = took {
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.histogram.saturating_record(took_us);
        }
    }

    fn is_over(&self, records_max: u64) -> bool {
        self.records_in_all >= records_max || self.refused.is_some()
    }

    fn failed(&mut self, failure: Failure) {
        if failure.is_final {
            self.refused.get_or_insert(failure.why.clone());
        }
        *self.failures.entry(failure.why).or_insert(0) += 1;
    }
}

/// Why a request failed.
struct Failure {
    why: String,
    /// Trying again is of no use.
    is_final: bool,
}

fn passing(error: impl std::fmt::Display) -> Failure {
    Failure { why: error.to_string(), is_final: false }
}

/// What all connections share.
struct Run {
    cluster: Cluster,
    requests: Vec<Vec<ProduceRequest>>,
    partitions: Vec<TopicPartition>,
    from: Instant,
    until: Instant,
    records_max: u64,
    tally: Mutex<Tally>,
}

impl Run {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures and prints.
pub async fn run(options: LoadOptions) -> Result<ExitCode, Stop> {
    let cluster = client::cluster(client::plain(), options.bootstrap.0.clone(), "fulmar-bench");
    let batches = draw_batches(options.record_bytes)?;
    let batch_bytes = batches.first().map_or(0, Bytes::len) as u64;
    let partitions = (0..options.partitions)
        .map(|at| TopicPartition::new(&options.topic, PartitionIndex(at)))
        .collect::<Vec<_>>();
    let from = time::now() + Duration::from_secs(options.warm_up_seconds);
    let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)
        .map_err(|error| Stop::failed(format!("cannot measure: {error}.")))?;
    let run = Arc::new(Run {
        requests: partitions.iter().map(|to| requests(to, &batches)).collect(),
        partitions,
        cluster,
        from,
        until: from + Duration::from_secs(options.seconds),
        records_max: options.records_max.unwrap_or(u64::MAX),
        tally: Mutex::new(Tally {
            histogram,
            records_in_all: 0,
            failures: BTreeMap::new(),
            refused: None,
        }),
    });
    let connections = (0..options.connections as usize)
        .map(|at| task::spawn(connection(Arc::clone(&run), at)))
        .collect::<Vec<_>>();
    for connection in connections {
        let ended = connection.await;
        ended.map_err(|error| Stop::failed(format!("a connection failed: {error}.")))?;
    }
    if let Some(why) = &run.tally().refused {
        return Err(Stop::failed(format!("the site refuses the records of this load: {why}.")));
    }
    let measured = run.measured(options.record_bytes as u64, batch_bytes);
    let text = serde_json::to_string(&measured);
    say(text.map_err(|error| Stop::failed(format!("cannot print: {error}.")))?);
    Ok(ExitCode::Ok)
}

impl Run {
    fn measured(&self, value_bytes: u64, batch_bytes: u64) -> Measured {
        let tally = self.tally();
        let at = |quantile| tally.histogram.value_at_quantile(quantile);
        let end = time::now().min(self.until);
        Measured {
            records: tally.histogram.len(),
            seconds: end.saturating_duration_since(self.from).as_secs_f64(),
            records_in_all: tally.records_in_all,
            value_bytes_in_all: tally.records_in_all * value_bytes,
            batch_bytes_in_all: tally.records_in_all * batch_bytes,
            failures: tally.failures.clone(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: tally.histogram.max(),
        }
    }
}

/// Batches of one record each, of random bytes.
fn draw_batches(record_bytes: usize) -> Result<Vec<Bytes>, Stop> {
    let draw = |_| {
        let mut value = Vec::with_capacity(record_bytes + 8);
        while value.len() < record_bytes {
            value.extend_from_slice(&random_u64().to_le_bytes());
        }
        value.truncate(record_bytes);
        let record = WriteRecord { value: Some(value.into()), ..WriteRecord::default() };
        plain_batch(&[record])
    };
    let batches = (0..RECORDS_DRAWN).map(draw).collect::<Result<_, _>>();
    batches.map_err(|error| Stop::usage(format!("--record-bytes {record_bytes}: {error}.")))
}

fn requests(to: &TopicPartition, batches: &[Bytes]) -> Vec<ProduceRequest> {
    let request = |batch: &Bytes| {
        let index = i32::try_from(to.partition.get()).unwrap_or(i32::MAX);
        let data = PartitionProduceData { index, records: Some(batch.clone()) };
        let topic = TopicProduceData { name: to.topic.to_string(), partition_data: vec![data] };
        ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![topic],
        }
    };
    batches.iter().map(request).collect()
}

/// One connection, one record in flight.
async fn connection(run: Arc<Run>, at: usize) {
    let partition = at % run.partitions.len();
    let mut connection: Option<Connection> = None;
    let mut turn = at;
    loop {
        let now = time::now();
        if now >= run.until || run.tally().is_over(run.records_max) {
            return;
        }
        let open = match connection.take().filter(Connection::is_usable) {
            Some(open) => open,
            None => match connect(&run, partition).await {
                Ok(open) => open,
                Err(failure) => {
                    run.tally().failed(failure);
                    time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let requests = &run.requests[partition];
        let sent_at = time::now();
        let answer = open.call(&requests[turn % requests.len()], TIMEOUT).await;
        let answered_at = time::now();
        turn += 1;
        match answer.map_err(passing).and_then(|answer| written(&answer)) {
            Ok(()) => {
                let took = (sent_at >= run.from && answered_at <= run.until)
                    .then(|| answered_at.saturating_duration_since(sent_at));
                run.tally().acknowledged(took);
                connection = Some(open);
            }
            Err(failure) => {
                run.tally().failed(failure);
                time::sleep(PAUSE).await;
            }
        }
    }
}

/// A connection of its own to the leader; or why there is none.
async fn connect(run: &Run, partition: usize) -> Result<Connection, Failure> {
    let of = &run.partitions[partition];
    let deadline = time::now() + TIMEOUT;
    let leader = run.cluster.leader(of, deadline).await.map_err(passing)?;
    let place = leader.connection.place().clone();
    let network = client::plain();
    let opened = Connection::open(network.as_ref(), place, run.cluster.settings()).await;
    if opened.is_err() {
        run.cluster.forget_leader(of, leader.epoch);
        run.cluster.pause(3, deadline).await;
    }
    opened.map_err(passing)
}

/// Whether the record was written; or why not.
fn written(answer: &ProduceResponse) -> Result<(), Failure> {
    let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.next().map(|partition| partition.error_code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(Failure { why: code.to_string(), is_final: !code.is_retriable() }),
        None => Err(passing("the answer names no partition")),
    }
}

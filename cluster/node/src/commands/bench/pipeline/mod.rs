//! `fulmar bench pipeline`: how long a record takes through a pipeline, and how long nothing comes out when the
//! node that runs it dies.
//!
//! ```text
//! latency    records at a steady pace: acknowledged -> what comes of it is read    (without the pipeline: CPU)
//! takeover   with so much state: SIGKILL of the owner -> the first output of a record that was sent after it;
//!            every second time of an owner that leads the site as well
//! ```
//!
//! Invariant: both are seen from outside, by a client; an output of a record that was sent before the kill
//! does not count, whoever put it out.

mod traffic;

use super::{QUIET, TIMEOUT, create_topic, read_counters, show, warn_of_memory};
use crate::commands::Stop;
use crate::commands::bench::mirror::size;
use crate::commands::client::wait_for_leader;
use crate::commands::node::StopSignal;
use crate::commands::output::{grouped, note};
use crate::commands::site::Site;
use clap::Args;
use fulmar_client::{
    Cluster, Outcome, PipelineSettings, PipelineStatus, Producer, ProducerSettings,
};
use fulmar_host::time::{self, Duration};
use fulmar_pipelines::facts::Facts;
use fulmar_types::{ExitCode, NodeId};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use traffic::Traffic;

const INPUT: &str = "bench.in";
const OUTPUT: &str = "bench.out";
const PARTITIONS: u32 = 4;
const NAME: &str = "bench";

/// Every record passes, and every key is kept with what its first record had: windows of a day never end.
const FILE: &str = r#"
CREATE STREAM s (
    k    VARCHAR NOT NULL,
    n    BIGINT NOT NULL,
    pad  VARCHAR NOT NULL,
    at   TIMESTAMP(3) NOT NULL
) FROM TOPIC "bench.in" WATERMARK at - INTERVAL '1' SECOND ON ERROR FAIL LATE DROP;

INSERT INTO TOPIC "bench.out" SELECT n, k FROM s;

INSERT INTO TOPIC "bench.kept" KEY k
SELECT k, window_start, window_end, FIRST_VALUE(pad) AS pad, COUNT(*) AS n
FROM TUMBLE(s, INTERVAL '86400' SECOND)
GROUP BY k, window_start, window_end;
"#;

/// What a key takes in the state besides its text, about.
const KEY_BYTES: u64 = 352;

/// Records of the state that are written at a time: so many, or so many bytes.
const FILL_BATCH: u64 = 200;
const FILL_BATCH_BYTES: u64 = 64 << 10;

/// Records a second while the owner is killed.
const PER_SECOND_WITH_KILLS: u64 = 100;

/// How long the site runs undisturbed before each kill.
const STEADY: Duration = Duration::from_secs(2);

/// Seconds of traffic before the measurement.
const WARM_UP: Duration = Duration::from_secs(3);

/// How often a leader is restarted so that the owner may lead.
const RESTARTS_MAX: usize = 6;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Measure how long records take through a pipeline, and how long its output stops when its owner dies.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Records a second.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    rate: u64,
    /// Seconds that are measured.
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// The state of the pipeline whose owner is killed, about, as `100MiB`.
    #[arg(long, value_name = "SIZE", default_value = "100MiB", value_parser = size)]
    state: u64,
    /// How much text each key keeps there: with less, there are more keys.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size)]
    text: u64,
    /// How often its owner is killed.
    #[arg(long, value_name = "N", default_value_t = 50)]
    kills: u32,
    /// Where the site lives, a new or empty directory on the disk to be measured. Without it the site lives in
    /// the directory for temporary files, and is removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// How long records took, in microseconds.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    records_per_second: u64,
    records: usize,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// CPU time of each node in a second, by its id, in milliseconds: without the pipeline, and with it.
    cpu_ms_per_second: Vec<(NodeId, [f64; 2])>,
    owner: u64,
}

/// How long the output stopped.
#[derive(Clone, Debug, Serialize)]
struct Takeover {
    /// As the pipeline says.
    state_bytes: u64,
    /// From SIGKILL to the first output of a record that was sent after it, ascending.
    until_next_ms: Vec<u64>,
    /// Of those, when the node led the site as well.
    of_leaders_ms: Vec<u64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
struct Report {
    latency: Latency,
    takeover: Option<Takeover>,
}

/// Runs the bench.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    if options.rate == 0 || options.seconds == 0 {
        return Err(Stop::usage("--rate and --seconds must be at least 1."));
    }
    let mut stop = StopSignal::listen()?;
    let memory = options.state.saturating_mul(4).max(256 << 20) >> 20;
    let extra = format!("\n[pipelines]\nmemory_bytes = \"{memory}MiB\"\n");
    let mut site =
        Site::temporary(options.dir.as_deref(), "bench-pipeline", extra).await?.counting();
    warn_of_memory(&site.dir);
    let measured = tokio::select! {
        biased;
        () = stop.wait() => Err(Stop::failed("the bench was interrupted.")),
        measured = measure(&options, &mut site) => measured,
    };
    let report = measured.map_err(|mut stop| {
        site.keep();
        stop.message += &format!("\n  The nodes' logs are kept in {}.", site.dir.display());
        stop
    })?;
    site.stop().await?;
    show(options.json, &report.text(), &report)
}

async fn measure(options: &Options, site: &mut Site) -> Result<Report, Stop> {
    site.start_all()?;
    let cluster = site.cluster("fulmar-bench");
    site.wait_serving(&cluster, TIMEOUT).await?;
    create_topic(&cluster, INPUT, PARTITIONS).await?;
    create_topic(&cluster, OUTPUT, PARTITIONS).await?;
    let latency = latency(options, site, &cluster).await?;
    let takeover = match options.kills {
        0 => None,
        _ => Some(takeover(options, site, &cluster).await?),
    };
    Ok(Report { latency, takeover })
}

/// CPU time of each node while there is traffic.
async fn cpu_ms(site: &Site, seconds: u64) -> Result<Vec<(NodeId, f64)>, Stop> {
    let before = read_counters(site)?;
    time::sleep(Duration::from_secs(seconds)).await;
    let after = read_counters(site)?;
    let used = before.iter().zip(&after).map(|((id, before), (_, after))| {
        (*id, after.since(before).cpu_ms as f64 / seconds as f64)
    });
    Ok(used.collect())
}

fn failed(traffic: &Traffic) -> Result<(), Stop> {
    traffic.failure().map_or(Ok(()), |why| Err(Stop::failed(format!("{why}."))))
}

async fn latency(options: &Options, site: &Site, cluster: &Cluster) -> Result<Latency, Stop> {
    let traffic = Traffic::start(cluster, options.rate, 1);
    time::sleep(WARM_UP).await;
    let without = cpu_ms(site, options.seconds).await?;
    let wanted = PipelineSettings::of(FILE);
    let set = cluster.set_pipeline(NAME, Some(0), &wanted, TIMEOUT).await;
    set.map_err(|error| Stop::failed(format!("the pipeline is not taken: {error}.")))?;
    let owner = owner(cluster, None).await?.0;
    if traffic.read_from(traffic.sent()).await.is_none() {
        return Err(Stop::failed("nothing comes out of the pipeline."));
    }
    time::sleep(WARM_UP).await;
    let first = traffic.sent();
    let with = cpu_ms(site, options.seconds).await?;
    let last = traffic.sent();
    // What was sent in that time comes out a little later.
    time::sleep(QUIET).await;
    failed(&traffic)?;
    let all = traffic.times();
    let mut took: Vec<u64> = Vec::new();
    for times in &all[first..last] {
        let (Some(acknowledged), Some(read)) = (times.acknowledged, times.read) else {
            return Err(Stop::failed("a record did not come out within two seconds."));
        };
        let took_us = read.saturating_duration_since(acknowledged).as_micros();
        took.push(u64::try_from(took_us).unwrap_or(u64::MAX));
    }
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    let cpu = without.iter().zip(&with).map(|((id, without), (_, with))| (*id, [*without, *with]));
    Ok(Latency {
        records_per_second: options.rate,
        records: took.len(),
        p50_us: at(50),
        p99_us: at(99),
        max_us: took.last().copied().unwrap_or_default(),
        cpu_ms_per_second: cpu.collect(),
        owner,
    })
}

async fn status(cluster: &Cluster) -> Result<Option<PipelineStatus>, Stop> {
    let status = cluster.pipeline_status(NAME, Duration::from_secs(2)).await.ok().flatten();
    match status.as_ref().and_then(|status| status.failed.clone()) {
        Some(why) => Err(Stop::failed(format!("the pipeline cannot go on: {why}."))),
        None => Ok(status),
    }
}

/// Who runs the pipeline, under another fence than this one, and under which.
async fn owner(cluster: &Cluster, fence: Option<u64>) -> Result<(u64, u64), Stop> {
    let deadline = time::now() + TIMEOUT;
    while time::now() < deadline {
        let found = status(cluster).await?.and_then(|status| Some((status.owner?, status.fence)));
        if let Some(found) = found.filter(|found| Some(found.1) != fence) {
            return Ok(found);
        }
        time::sleep(LOOK_EVERY).await;
    }
    Err(Stop::failed("no node runs the pipeline."))
}

/// Makes the state so large, and waits until it is in the log. How large it is.
async fn fill(cluster: &Cluster, keys: u64, text: u64) -> Result<u64, Stop> {
    let producer = Producer::new(cluster.separate(), ProducerSettings::default());
    let batch = FILL_BATCH.max(FILL_BATCH_BYTES / (text + 1)).min(10 * FILL_BATCH);
    let pad = "x".repeat(text as usize);
    for first in (0..keys).step_by(batch as usize) {
        // From other keys than those of the traffic before.
        let numbers = first..keys.min(first + batch);
        let records = numbers.map(|number| traffic::record(0, number, &pad)).collect();
        let outcome = producer.send(&traffic::place(first / batch), records).await;
        if let Outcome::NotDone(error) | Outcome::Unknown(error) = outcome {
            return Err(Stop::failed(format!("the state cannot be written: {error}.")));
        }
    }
    let deadline = time::now() + 5 * TIMEOUT;
    while time::now() < deadline {
        if let Some(status) = status(cluster).await? {
            let is_read = status.inputs.values().all(|of| of.next >= of.end);
            let bytes = Facts::decode(&status.facts).unwrap_or_default().state_bytes;
            if is_read
                && status.delta_epoch == status.epoch
                && bytes > keys * (text + KEY_BYTES) / 2
            {
                return Ok(bytes);
            }
        }
        time::sleep(LOOK_EVERY).await;
    }
    Err(Stop::failed("the state does not come into the log."))
}

/// Restarts whoever leads and does not run the pipeline, some times at most: its successor may be the owner.
async fn make_owner_lead(site: &mut Site, cluster: &Cluster) -> Result<(), Stop> {
    for _ in 0..RESTARTS_MAX {
        let leader = wait_for_leader(cluster, TIMEOUT).await?;
        if leader.get() == owner(cluster, None).await?.0 {
            break;
        }
        let killed = site.node_mut(leader)?.kill().await;
        killed.map_err(|error| Stop::failed(format!("cannot kill node {leader}: {error}.")))?;
        wait_for_leader(cluster, TIMEOUT).await?;
        site.start(leader)?;
        site.wait_answering(leader, TIMEOUT).await?;
    }
    Ok(())
}

async fn takeover(options: &Options, site: &mut Site, cluster: &Cluster) -> Result<Takeover, Stop> {
    let keys = options.state / (options.text + KEY_BYTES) + 1;
    let state_bytes = fill(cluster, keys, options.text).await?;
    note(format!("{} bytes of state are in the log", grouped(state_bytes)));
    let traffic = Traffic::start(cluster, PER_SECOND_WITH_KILLS, keys);
    let (mut until_next_ms, mut of_leaders_ms) = (Vec::new(), Vec::new());
    for kill in 1..=options.kills {
        if traffic.read_from(traffic.sent()).await.is_none() {
            failed(&traffic)?;
            return Err(Stop::failed("nothing comes out of the pipeline."));
        }
        if kill % 2 == 0 {
            make_owner_lead(site, cluster).await?;
        }
        time::sleep(STEADY).await;
        let (node, _) = owner(cluster, None).await?;
        let leads = wait_for_leader(cluster, TIMEOUT).await?.get() == node;
        let (killed_at, sent) = (time::now(), traffic.sent());
        let killed = site.node_mut(NodeId(node))?.kill().await;
        killed.map_err(|error| Stop::failed(format!("cannot kill node {node}: {error}.")))?;
        let Some(next) = traffic.read_from(sent).await else {
            failed(&traffic)?;
            return Err(Stop::failed("nothing comes out after the kill."));
        };
        let took = next.saturating_duration_since(killed_at).as_millis();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        until_next_ms.push(took);
        of_leaders_ms.extend(Some(took).filter(|_| leads));
        let also = if leads { ", which led the site" } else { "" };
        note(format!("kill {kill}: node {node}{also}, {took} ms"));
        site.start(NodeId(node))?;
        site.wait_answering(NodeId(node), TIMEOUT).await?;
    }
    until_next_ms.sort_unstable();
    of_leaders_ms.sort_unstable();
    Ok(Takeover { state_bytes, until_next_ms, of_leaders_ms })
}

/// How long most took, and all, of some that are in order.
fn spread(ms: &[u64]) -> String {
    let at = |percent: usize| ms[(ms.len() * percent / 100).min(ms.len() - 1)];
    format!("p50 {} ms, p90 {} ms, max {} ms", at(50), at(90), at(100))
}

impl Report {
    fn text(&self) -> String {
        let Latency { records_per_second, records, p50_us, p99_us, max_us, owner, .. } =
            &self.latency;
        let ms = |us: &u64| *us as f64 / 1_000.0;
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        line(format!(
            "latency   {} records at {} a second, from acknowledged to read: p50 {:.1} ms, p99 {:.1} ms, max \
             {:.1} ms",
            grouped(*records as u64),
            grouped(*records_per_second),
            ms(p50_us),
            ms(p99_us),
            ms(max_us)
        ));
        for (node, [without, with]) in &self.latency.cpu_ms_per_second {
            let runs = if node.get() == *owner { ", runs the pipeline" } else { "" };
            line(format!(
                "          node {node}{runs}: {without:.0} ms CPU a second without it, {with:.0} ms with it"
            ));
        }
        if let Some(Takeover { state_bytes, until_next_ms, of_leaders_ms }) = &self.takeover {
            let (kills, state) = (until_next_ms.len(), grouped(*state_bytes));
            let took = spread(until_next_ms);
            line(format!("takeover  {kills} kills with {state} bytes of state: {took}"));
            if !of_leaders_ms.is_empty() {
                let (of_them, took) = (of_leaders_ms.len(), spread(of_leaders_ms));
                line(format!("          {of_them} of them of the leader: {took}"));
            }
        }
        text
    }
}

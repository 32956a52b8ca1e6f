//! `fulmar bench`: throughput, latency, and what they cost.
//!
//! Three nodes and the load are processes of their own. What a node used is read before and after
//! each load, from `/proc` and from the counters that it writes; the measured latencies leave the
//! first seconds out, the costs do not.

mod failover;
mod load;
mod mirror;
mod pipeline;
mod report;

pub use load::{LoadOptions, run as load};

use super::child::{self, OnParentDeath};
use super::counters::{self, Counters};
use super::node::StopSignal;
use super::output::{complain, say};
use super::site::Site;
use super::stats::REWRITE_EVERY;
use super::{Stop, client};
use clap::{Args, Subcommand};
use fulmar_client::Cluster;
use fulmar_host::time::{self, Duration};
use fulmar_types::{ExitCode, NodeId};
use load::Measured;
use report::{Figures, Report};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Partitions of the topic; connections are spread over them.
const PARTITIONS: u32 = 8;

/// Seconds of load before the measurement.
const WARM_UP_SECONDS: u64 = 2;

/// How long the site may take for anything but load.
const TIMEOUT: Duration = Duration::from_secs(60);

/// After this long an idle node has written its counters and has nothing left to do.
const QUIET: Duration = REWRITE_EVERY.saturating_mul(2);

/// Segments that are filled and given back before a bench on recycled segments, on top of one for
/// each second of load. A site that writes more ends on new ones.
const RECYCLED_SEGMENTS_MORE: u64 = 4;

/// The value bytes of the records that fill them.
const FILL_RECORD_BYTES: usize = 256 << 10;

/// Measure throughput, latency and what they cost.
///
/// Starts a site of three nodes on this machine and puts load on it from a process of its own:
/// first one connection, then many, each with one incompressible record in flight.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Connections of the second load.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Bytes of the value of a record.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_bytes: usize,
    /// Seconds that each load is measured.
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// Where the site lives, a new or empty directory on the disk to be measured. Without it the
    /// site lives in the directory for temporary files, and is removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Fill segments and give them back first, so that the load writes to recycled ones.
    #[arg(long)]
    recycled: bool,
    /// At the end kill the leader so many times, and pause it so many times, and measure how long
    /// it takes until the next record is acknowledged.
    #[arg(long, value_name = "N", default_value_t = 0)]
    failovers: u32,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Other measurements.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    Mirror(mirror::Options),
    Pipeline(pipeline::Options),
}

impl Options {
    /// Segments that are filled and given back first; 0: none.
    fn recycled_segments(&self) -> u64 {
        if !self.recycled {
            return 0;
        }
        self.seconds.saturating_add(WARM_UP_SECONDS + RECYCLED_SEGMENTS_MORE)
    }
}

/// Runs the bench.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.other {
        Some(Other::Mirror(options)) => return mirror::run(options).await,
        Some(Other::Pipeline(options)) => return pipeline::run(options).await,
        None => {}
    }
    if options.connections == 0 || options.seconds == 0 {
        return Err(Stop::usage("--connections and --seconds must be at least 1."));
    }
    let mut stop = StopSignal::listen()?;
    tokio::select! {
        biased;
        () = stop.wait() => Err(Stop::failed("the bench was interrupted.")),
        measured = measure(&options) => {
            let report = measured?;
            show(options.json, &report.text(), &report)
        }
    }
}

/// Prints a report.
fn show(as_json: bool, text: &str, report: &impl Serialize) -> Result<ExitCode, Stop> {
    if as_json {
        let text = serde_json::to_string_pretty(report);
        say(text.map_err(|error| Stop::failed(format!("cannot print: {error}.")))?);
    } else {
        say(text.trim_end());
    }
    Ok(ExitCode::Ok)
}

async fn measure(options: &Options) -> Result<Report, Stop> {
    let spares = options.recycled_segments().max(1);
    let extra = format!("\n[log]\nspare_segments = {spares}\n");
    let mut site = Site::temporary(options.dir.as_deref(), "bench", extra).await?;
    let measured = measure_site(options, &mut site).await;
    measured.map_err(|mut stop| {
        // What a failure was about is to be looked at.
        site.keep();
        stop.message += &format!("\n  The nodes' logs are kept in {}.", site.dir.display());
        stop
    })
}

async fn measure_site(options: &Options, site: &mut Site) -> Result<Report, Stop> {
    warn_of_memory(&site.dir);
    site.start_all()?;
    let cluster = site.cluster("fulmar-bench");
    site.wait_serving(&cluster, TIMEOUT).await?;
    time::sleep(QUIET).await;
    site.check()?;
    let idle = read_counters(site)?;
    if options.recycled {
        fill_and_give_back(site, &cluster, options.recycled_segments()).await?;
    }
    create_topic(&cluster, "bench", PARTITIONS).await?;
    let mut loads = Vec::new();
    for connections in [1, options.connections] {
        site.check()?;
        let load = Load {
            topic: "bench",
            partitions: PARTITIONS,
            connections,
            record_bytes: options.record_bytes,
            seconds: options.seconds,
            records_max: None,
        };
        time::sleep(QUIET).await;
        let before = read_counters(site)?;
        let measured = load.run(site).await?;
        time::sleep(QUIET).await;
        let after = read_counters(site)?;
        let leader = client::wait_for_leader(&cluster, TIMEOUT).await.ok();
        let used = before.iter().zip(&after);
        let used = used.map(|((id, before), (_, after))| (*id, after.since(before)));
        loads.push(Figures::new(connections, measured, leader, &used.collect::<Vec<_>>()));
    }
    let failovers = match options.failovers {
        0 => Vec::new(),
        rounds => failover::measure(site, &cluster, rounds).await?,
    };
    site.stop().await?;
    Ok(Report {
        record_bytes: options.record_bytes,
        seconds: options.seconds,
        recycled: options.recycled,
        idle_resident_bytes: idle.iter().map(|(_, counters)| counters.resident_bytes).collect(),
        loads,
        failovers,
    })
}

fn read_counters(site: &Site) -> Result<Vec<(NodeId, Counters)>, Stop> {
    let read = |node: &child::ChildNode| {
        let counters = counters::read(node.pid(), &site.stats_file(node.id));
        let counters = counters.map_err(|error| {
            Stop::failed(format!("cannot read what node {} used: {error}.", node.id))
        })?;
        Ok((node.id, counters))
    };
    site.nodes().iter().map(read).collect()
}

async fn create_topic(cluster: &Cluster, name: &str, partitions: u32) -> Result<(), Stop> {
    let created = cluster.create_topic(name, partitions, TIMEOUT).await;
    created.map_err(|error| Stop::failed(format!("cannot create the topic {name}: {error}.")))?;
    Ok(())
}

/// Fills segments with a topic, deletes it, and fills the next segment: nodes give segments back
/// when they seal one.
async fn fill_and_give_back(site: &Site, cluster: &Cluster, segments: u64) -> Result<(), Stop> {
    fill(site, cluster, "fill", segments + 1).await?;
    let deleted = cluster.delete_topic("fill", TIMEOUT).await;
    deleted.map_err(|error| Stop::failed(format!("cannot delete the topic: {error}.")))?;
    time::sleep(QUIET).await;
    fill(site, cluster, "seal", 2).await
}

/// Writes so many segments to a topic of its own.
async fn fill(site: &Site, cluster: &Cluster, topic: &str, segments: u64) -> Result<(), Stop> {
    create_topic(cluster, topic, 1).await?;
    let bytes = segments * site.config.log.segment_bytes.0;
    let load = Load {
        topic,
        partitions: 1,
        connections: 8,
        record_bytes: FILL_RECORD_BYTES,
        seconds: 600,
        records_max: Some(bytes / FILL_RECORD_BYTES as u64),
    };
    load.run(site).await?;
    time::sleep(QUIET).await;
    Ok(())
}

/// A run of the load process.
struct Load<'a> {
    topic: &'a str,
    partitions: u32,
    connections: u32,
    record_bytes: usize,
    seconds: u64,
    records_max: Option<u64>,
}

impl Load<'_> {
    async fn run(&self, site: &Site) -> Result<Measured, Stop> {
        let mut command = tokio::process::Command::new(child::this_program()?);
        command.args(["bench-load", "--bootstrap", &site.bootstrap_text()]);
        command.args(["--topic", self.topic]);
        command.args(["--partitions", &self.partitions.to_string()]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--record-bytes", &self.record_bytes.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        let warm_up = if self.records_max.is_some() { 0 } else { WARM_UP_SECONDS };
        command.args(["--warm-up-seconds", &warm_up.to_string()]);
        if let Some(records_max) = self.records_max {
            command.args(["--records-max", &records_max.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        child::die_with_parent(&mut command, OnParentDeath::Kill);
        let cannot = |error| Stop::failed(format!("cannot run the load: {error}."));
        let output = command.spawn().map_err(cannot)?.wait_with_output().await.map_err(cannot)?;
        if output.stdout.is_empty() {
            return Err(Stop::failed("the load failed; its own message is above."));
        }
        let measured: Measured = serde_json::from_slice(&output.stdout)
            .map_err(|error| Stop::failed(format!("the load printed nonsense: {error}.")))?;
        if measured.records == 0 {
            let why =
                measured.failures.iter().map(|(why, times)| format!(" {times} times: {why}."));
            return Err(Stop::failed(format!(
                "no record was acknowledged in {} s.{}",
                self.seconds,
                why.collect::<String>()
            )));
        }
        Ok(measured)
    }
}

fn warn_of_memory(dir: &Path) {
    if is_memory(dir) {
        let dir = dir.display();
        complain(format!(
            "{dir} lies in memory, where a flush costs nothing. Choose a directory on a disk with --dir."
        ));
    }
}

/// Whether a directory lies on a file system in memory.
fn is_memory(dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return false };
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte, and the struct is ours to write to.
    let status = unsafe { libc::statfs(path.as_ptr(), &raw mut found) };
    status == 0 && found.f_type == libc::TMPFS_MAGIC
}

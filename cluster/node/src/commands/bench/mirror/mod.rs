//! `fulmar bench mirror`: how fast a copy grows, beside how fast its origin does.
//!
//! ```text
//! origin   a load without a link          -> so many records per second, and a backlog
//! link     laid down; the backlog arrives -> so many records per second, and their ratio
//! origin   the same load with the link    -> both at once, and how long the copy takes to come to its end
//! hub      with so many links that have nothing to carry (`idle.rs`)
//! ```
//!
//! Invariants: both rates are of the same run, the same records and the same machine; the copy has arrived when
//! each of its partitions ends where that of the origin does, as the hub itself tells.

mod idle;
mod report;

use super::load::Measured;
use super::report::NodeFigures;
use super::{Load, PARTITIONS, QUIET, TIMEOUT, read_counters, show, warn_of_memory};
use crate::commands::Stop;
use crate::commands::client;
use crate::commands::node::StopSignal;
use crate::commands::site::{Ground, Site};
use clap::Args;
use fulmar_client::Cluster;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::link::{EVERY_TOPIC, LinkDefinition};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::units::HumanSize;
use fulmar_types::{ExitCode, Offset};
use report::{Copied, Report, WithLink};
use std::path::{Path, PathBuf};

/// The sites, and where they lie.
const NAMES: [&str; 2] = ["origin", "hub"];
const REGION: &str = "eu";

/// What is copied.
const TOPIC: &str = "bench";

/// How long a backlog may stand still before the bench gives up.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How often it is looked how far the copy is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Measure how fast a mirror is, and what links cost that have nothing to carry.
///
/// Starts two sites of three nodes on this machine that prove to each other who they are. Writes a backlog to
/// the one without a link, links it to the other, and measures how fast the backlog arrives; then the same load
/// with the link. Ratios are of the records per second of the same run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The backlog: the bytes of the values of its records, as `256MiB`.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    backlog: u64,
    /// Connections of the load with one record in flight each.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Bytes of the value of a record.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_bytes: usize,
    /// Seconds of the load with a link.
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// Connections of the link.
    #[arg(long, value_name = "N", default_value_t = fulmar_types::link::LINK_CONNECTIONS_DEFAULT)]
    link_connections: u8,
    /// Measure as well a hub to which so many sites of one node each are linked, with nothing to send.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle_links: u32,
    /// Seconds for which such a hub is measured, with its links and before it has any.
    #[arg(long, value_name = "S", default_value_t = 60)]
    idle_seconds: u64,
    /// Where the sites live, a new or empty directory on the disk to be measured. Without it they live in the
    /// directory for temporary files, and are removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    HumanSize::parse(text).map(|size| size.0).map_err(|error| error.to_string())
}

/// Runs the bench.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    if options.connections == 0 || options.seconds == 0 || options.record_bytes == 0 {
        return Err(Stop::usage("--connections, --seconds and --record-bytes must be at least 1."));
    }
    if options.backlog / (options.record_bytes as u64) < u64::from(options.connections) {
        return Err(Stop::usage("--backlog must hold a record of each connection."));
    }
    let mut stop = StopSignal::listen()?;
    let mut ground = Ground::new(options.dir.as_deref(), "bench-mirror")?;
    warn_of_memory(&ground.dir);
    let measured = tokio::select! {
        biased;
        () = stop.wait() => Err(Stop::failed("the bench was interrupted.")),
        measured = measure(&options, &ground.dir) => measured,
    };
    let report = measured.map_err(|mut stop| {
        ground.keep();
        stop.message += &format!("\n  The nodes' logs are kept in {}.", ground.dir.display());
        stop
    })?;
    show(options.json, &report.text(), &report)
}

async fn measure(options: &Options, dir: &Path) -> Result<Report, Stop> {
    let [origin, hub] = Site::linked(dir, NAMES).await?;
    let sites = [origin.counting(), hub.counting()];
    let clusters = [sites[0].cluster("fulmar-bench"), sites[1].cluster("fulmar-bench")];
    let mut bench = Bench { sites, clusters };
    let mut report = bench.course(options).await?;
    for site in &mut bench.sites {
        site.stop().await?;
    }
    drop(bench);
    if options.idle_links > 0 {
        report.idle = Some(idle::measure(dir, options.idle_links, options.idle_seconds).await?);
    }
    Ok(report)
}

struct Bench {
    /// The origin and the hub.
    sites: [Site; 2],
    clusters: [Cluster; 2],
}

impl Bench {
    async fn course(&mut self, options: &Options) -> Result<Report, Stop> {
        for site in &mut self.sites {
            site.start_all()?;
        }
        for (site, cluster) in self.sites.iter_mut().zip(&self.clusters) {
            site.wait_serving(cluster, TIMEOUT).await?;
        }
        super::create_topic(&self.clusters[0], TOPIC, PARTITIONS).await?;
        let rule = RuleDefinition::verbatim([REGION.to_owned()]);
        let ruled = self.clusters[0].set_rule(TOPIC, Some(0), &rule, TIMEOUT).await;
        ruled.map_err(|error| Stop::failed(format!("there is no rule: {error}.")))?;
        time::sleep(QUIET).await;

        let records = options.backlog / options.record_bytes as u64;
        let mut load = Load {
            topic: TOPIC,
            partitions: PARTITIONS,
            connections: options.connections,
            record_bytes: options.record_bytes,
            seconds: 3600,
            records_max: Some(records),
        };
        let without_link = load.run(&self.sites[0]).await?;
        time::sleep(QUIET).await;
        let caught_up = self.catch_up(options, &without_link).await?;
        time::sleep(QUIET).await;
        (load.seconds, load.records_max) = (options.seconds, None);
        let with_link = self.with_link(&load).await?;
        Ok(Report {
            record_bytes: options.record_bytes,
            connections: options.connections,
            link_connections: options.link_connections,
            ratio: caught_up.records_per_second / without_link.records_per_second(),
            without_link: (&without_link).into(),
            caught_up,
            with_link,
            idle: None,
        })
    }

    /// Links the two sites and waits until the backlog is at the hub.
    async fn catch_up(&mut self, options: &Options, wrote: &Measured) -> Result<Copied, Stop> {
        let before = [read_counters(&self.sites[0])?, read_counters(&self.sites[1])?];
        let [origin, hub] = &self.sites;
        let connections = options.link_connections;
        let begun = time::now();
        lay_link([origin, hub], [&self.clusters[0], &self.clusters[1]], connections).await?;
        let first = self.arrived(1).await?;
        let target = self.at_origin().await?;
        let last = self.arrived(target).await?;
        let seconds = last.saturating_duration_since(begun).as_secs_f64();
        // The counters are written once a second.
        time::sleep(QUIET).await;
        let mut nodes = Vec::new();
        for ((site, cluster), before) in self.sites.iter().zip(&self.clusters).zip(&before) {
            let leader = client::wait_for_leader(cluster, TIMEOUT).await.ok();
            let after = read_counters(site)?;
            let used = before.iter().zip(&after);
            let used: Vec<_> = used.map(|((id, b), (_, a))| (*id, a.since(b))).collect();
            nodes.push(NodeFigures::all(wrote, leader, &used));
        }
        let [origin, hub] = nodes.try_into().expect("two sites");
        Ok(Copied {
            records: target,
            seconds,
            until_first_seconds: first.saturating_duration_since(begun).as_secs_f64(),
            records_per_second: target as f64 / seconds,
            origin,
            hub,
        })
    }

    /// The load once more while the link carries.
    async fn with_link(&mut self, load: &Load<'_>) -> Result<WithLink, Stop> {
        let (begun, before) = (time::now(), self.at_origin().await?);
        let wrote = load.run(&self.sites[0]).await?;
        let (ended, at_end) = (time::now(), at_hub(&self.clusters[1]).await);
        let records = self.at_origin().await?;
        let last = self.arrived(records).await?;
        let copied = at_end.saturating_sub(before);
        let loaded = ended.saturating_duration_since(begun).as_secs_f64();
        Ok(WithLink {
            produced: (&wrote).into(),
            copied_per_second: copied as f64 / loaded,
            ratio: copied as f64 / (records - before).max(1) as f64,
            behind_at_end: records.saturating_sub(at_end),
            drained_seconds: last.saturating_duration_since(ended).as_secs_f64(),
        })
    }

    /// How many records the origin has.
    async fn at_origin(&self) -> Result<u64, Stop> {
        let ends = client::ends(&self.clusters[0], TOPIC, PARTITIONS, TIMEOUT).await;
        ends.map(sum).ok_or_else(|| Stop::failed("the origin does not say where its topic ends."))
    }

    /// Waits until so many records are at the hub. When that was.
    async fn arrived(&mut self, records: u64) -> Result<Instant, Stop> {
        let (mut most, mut moved) = (0, time::now());
        loop {
            let (now, copied) = (time::now(), at_hub(&self.clusters[1]).await);
            if copied >= records {
                return Ok(now);
            }
            if copied > most {
                (most, moved) = (copied, now);
            }
            for site in &mut self.sites {
                site.check()?;
            }
            if moved.elapsed() > STANDSTILL {
                let told = format!("the copy stands still at {copied} of {records} records.");
                return Err(Stop::failed(told));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }
}

fn sum(ends: Vec<Offset>) -> u64 {
    ends.iter().map(|end| end.0).sum()
}

/// How many records the copy has; none while there is no copy.
async fn at_hub(hub: &Cluster) -> u64 {
    let copy = format!("{}.{TOPIC}", NAMES[0]);
    client::ends(hub, &copy, PARTITIONS, TIMEOUT).await.map_or(0, sum)
}

/// Has the first of two sites dial the second, which takes whatever may go.
async fn lay_link(
    [near, far]: [&Site; 2],
    [near_client, far_client]: [&Cluster; 2],
    connections: u8,
) -> Result<(), Stop> {
    let dial = far.links().iter().map(ToString::to_string).collect();
    let there = LinkDefinition { dial, connections, ..far.as_peer(REGION)? };
    let take = vec![EVERY_TOPIC.to_owned()];
    let back = LinkDefinition { take, connections, ..near.as_peer(REGION)? };
    for (cluster, link) in [(near_client, there), (far_client, back)] {
        let set = cluster.set_link(&link.site, Some(0), Some(&link), TIMEOUT).await;
        set.map_err(|error| Stop::failed(format!("a link cannot be laid down: {error}.")))?;
    }
    Ok(())
}

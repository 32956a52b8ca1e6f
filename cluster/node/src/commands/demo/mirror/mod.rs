//! `fulmar demo mirror`: two sites, a line that fails, and a copy that is whole afterwards.
//!
//! ```text
//! plant                          line                         hub
//! readings: may go to region eu ------->  plant.readings: the copy
//! recipes: no rule              (cut for a while; leaders of both sides are killed meanwhile)
//! alarms: urgent                                              plant.alarms: in front of the backlog
//! people: a rule about fields                                 plant.people: without what it withholds
//! ```
//!
//! Invariants: the copy is compared by a fresh process with what follows from the seed, not with what
//! the sites say of each other; the demo holds only if every record is there once, in order,
//! unchanged, at the same offset, the topic without a rule is not at the hub, an alarm overtakes the backlog,
//! and nothing that a rule withholds is at the hub.

mod line;
mod shown;

use super::load::Load;
use super::plant::{PARTITIONS, Plant, Readings, TOPIC};
use super::{check_records, tell, verify};
use crate::commands::node::StopSignal;
use crate::commands::output::{grouped, say, seconds};
use crate::commands::site::{Ground, Site};
use crate::commands::{Stop, client};
use clap::Args;
use fulmar_client::{Cluster, LinkStatus};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::link::{EVERY_TOPIC, LinkDefinition};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{ExitCode, NodeId};
use line::Line;
use shown::Shown;
use std::path::{Path, PathBuf};

/// How long anything may take that the demo waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the demo looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How fast readings are written, at most.
const PER_SECOND: u64 = 30_000;

/// The sites, and where they lie.
const NAMES: [&str; 2] = ["plant", "hub"];
const REGION: &str = "eu";

/// What the plant sends in a second at most, so that the backlog takes a while.
const CAP: u64 = 512 << 10;

/// A topic that no rule lets go.
const SECRET: &str = "recipes";

/// Cut the line between two sites, kill leaders on both, and prove that the copy is whole.
///
/// Starts two sites of three nodes that prove to each other who they are. Readings of the plant are
/// copied to the hub; recipes have no rule, and stay; of people not everything leaves. The line is cut, a
/// backlog grows, the leader of each site is killed with SIGKILL, and the line comes back; an alarm overtakes
/// the backlog. At the end a fresh process reads the copy
/// and compares it with the seed. Exits with 0 only if it is whole.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Readings to write.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    records: u64,
    /// The seed of the data set.
    #[arg(long, value_name = "SEED", default_value_t = 7)]
    seed: u64,
    /// Keep the sites in this directory, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the demo.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    check_records(options.records)?;
    let mut stop = StopSignal::listen()?;
    let mut ground = Ground::new(options.keep.as_deref(), "demo-mirror")?;
    let ended = tokio::select! {
        biased;
        () = stop.wait() => Err(Stop::failed("the demo was interrupted.")),
        ended = play(&options, &ground.dir) => ended,
    };
    if !matches!(ended, Ok(ExitCode::Ok)) {
        ground.keep();
    }
    if ground.is_kept() {
        let dir = ground.dir.display();
        say(format!("The sites with the logs of their nodes are kept in {dir}."));
    }
    ended
}

async fn play(options: &Options, dir: &Path) -> Result<ExitCode, Stop> {
    let began = time::now();
    tell(began, format!("starting two sites of three nodes in {}", dir.display()));
    let [plant, hub] = Site::linked(dir, NAMES).await?;
    let line = Line::to(client::plain(), hub.links()).await;
    let line = line.map_err(|error| Stop::failed(format!("there is no line: {error}.")))?;
    let clusters = [plant.cluster("fulmar-demo"), hub.cluster("fulmar-demo")];
    let mut demo = Demo { sites: [plant, hub], clusters, line, began };
    let ended = demo.course(options).await;
    for site in &mut demo.sites {
        site.stop().await?;
    }
    ended
}

struct Demo {
    /// The plant and the hub.
    sites: [Site; 2],
    clusters: [Cluster; 2],
    line: Line,
    began: Instant,
}

impl Demo {
    fn tell(&self, what: impl std::fmt::Display) {
        tell(self.began, what);
    }

    async fn course(&mut self, options: &Options) -> Result<ExitCode, Stop> {
        for site in &mut self.sites {
            site.start_all()?;
        }
        let mut leaders = Vec::new();
        for (site, cluster) in self.sites.iter_mut().zip(&self.clusters) {
            leaders.push(site.wait_serving(cluster, PATIENCE).await?);
        }
        self.tell(format!(
            "ready: node {} leads the plant, node {} the hub",
            leaders[0], leaders[1]
        ));
        self.lay_down().await?;
        self.write_one(SECRET, "not for the hub").await?;

        let (records, early) = (options.records, options.records / 4);
        let data = Readings::of(Plant::new(options.seed));
        let load = Load::start(&self.clusters[0], &data, records, PER_SECOND);
        load.hold_at(early);
        self.written(&load, early).await?;
        let took = self.arrived().await?;
        self.tell(format!(
            "{} readings written at the plant, all at the hub {} later",
            grouped(early),
            seconds(took)
        ));
        self.line.cut();
        self.tell("the line is cut");
        load.hold_at(records);
        self.written(&load, records).await?;
        let behind = self.behind().await?;
        self.tell(format!(
            "{} readings written at the plant; the link is {}, {} behind",
            grouped(records),
            behind.0,
            grouped(behind.1)
        ));
        for at in [0, 1] {
            self.kill_leader(at).await?;
        }
        self.line.heal();
        self.tell(format!("the line is back, for {} KiB/s", CAP >> 10));
        let shown = self.overtake().await?;
        let took = self.arrived().await?;
        self.tell(format!("everything is at the hub {} later", seconds(took)));
        self.judge(options, &shown).await
    }

    /// Links, and the rule for the readings.
    async fn lay_down(&self) -> Result<(), Stop> {
        let [plant, hub] = &self.clusters;
        let dial = self.line.places.clone();
        let to_hub = LinkDefinition { dial, cap: Some(CAP), ..self.sites[1].as_peer(REGION)? };
        let take = vec![EVERY_TOPIC.to_owned()];
        let to_plant = LinkDefinition { take, ..self.sites[0].as_peer(REGION)? };
        let failed = |error| Stop::failed(format!("a link cannot be laid down: {error}."));
        for topic in [TOPIC, SECRET] {
            let created = plant.create_topic(topic, PARTITIONS, PATIENCE).await;
            created.map_err(|error| Stop::failed(format!("cannot create {topic}: {error}.")))?;
        }
        let rule = RuleDefinition::verbatim([REGION.to_owned()]);
        plant.set_rule(TOPIC, Some(0), &rule, PATIENCE).await.map_err(failed)?;
        self.lay_down_shown().await?;
        plant.set_link(NAMES[1], Some(0), Some(&to_hub), PATIENCE).await.map_err(failed)?;
        hub.set_link(NAMES[0], Some(0), Some(&to_plant), PATIENCE).await.map_err(failed)?;
        self.tell(format!("{TOPIC} may go to the hub, {SECRET} have no rule; the plant dials"));
        Ok(())
    }

    /// Waits until so many readings are acknowledged.
    async fn written(&mut self, load: &Load, records: u64) -> Result<(), Stop> {
        let is_enough = |tally: &super::load::Tally| {
            tally.acknowledged >= records || !tally.failures.is_empty()
        };
        let reached = load.wait_until(PATIENCE + PATIENCE, is_enough).await;
        self.sites[0].check()?;
        match load.tally().failures.first() {
            Some(failure) => Err(Stop::failed(format!("{failure}."))),
            None if !reached => Err(Stop::failed("the readings are not acknowledged in time.")),
            None => Ok(()),
        }
    }

    /// Waits until the copy ends where its origin does. How long that took.
    async fn arrived(&mut self) -> Result<Duration, Stop> {
        let began = time::now();
        loop {
            let [plant, hub] = &self.clusters;
            let origin = client::ends(plant, TOPIC, PARTITIONS, PATIENCE).await;
            let ends = (origin, client::ends(hub, &copy(), PARTITIONS, PATIENCE).await);
            if ends.0.is_some() && ends.0 == ends.1 {
                return Ok(began.elapsed());
            }
            for site in &mut self.sites {
                site.check()?;
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::failed(format!("the copy does not come to its end: {ends:?}.")));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// The state of the link at the plant, and how many records have not arrived, once it has noticed
    /// that the line is cut.
    async fn behind(&self) -> Result<(String, u64), Stop> {
        let began = time::now();
        loop {
            let status = self.clusters[0].link_status(NAMES[1], PATIENCE).await;
            let status = status.ok().flatten().unwrap_or_default();
            if status.state == "down" {
                return Ok((status.state.clone(), behind(&status)));
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::failed("the link does not notice that its line is cut."));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    async fn kill_leader(&mut self, at: usize) -> Result<(), Stop> {
        let leader: NodeId = client::wait_for_leader(&self.clusters[at], PATIENCE).await?;
        let killed = self.sites[at].node_mut(leader)?.kill().await;
        killed.map_err(|error| Stop::failed(format!("cannot kill node {leader}: {error}.")))?;
        self.tell(format!("node {leader} leads the {}: SIGKILL", NAMES[at]));
        self.sites[at].start(leader)
    }

    async fn judge(&self, options: &Options, shown: &Shown) -> Result<ExitCode, Stop> {
        self.tell("reading the copy with a fresh process");
        let data_set = (options.seed, options.records);
        let findings = verify::by_fresh_process(&self.sites[1], &copy(), data_set).await?;
        let known = self.clusters[1].refresh_all(PATIENCE).await;
        let known = known.map_err(|error| Stop::failed(format!("the hub is silent: {error}.")))?;
        let came = known.topics.keys().find(|topic| topic.ends_with(SECRET));
        say("");
        say(format!(
            "copy      {} records at the hub: {} missing, {} twice, {} out of order, {} changed, {} \
             foreign; the ends are those of the origin",
            grouped(findings.read),
            grouped(findings.missing),
            grouped(findings.twice),
            grouped(findings.out_of_order),
            grouped(findings.changed),
            grouped(findings.foreign)
        ));
        let stays =
            if came.is_none() { "not at the hub, as no rule lets it go" } else { "AT THE HUB" };
        say(format!("{SECRET:<9} {stays}"));
        let is_shown = self.say_shown(shown).await;
        let holds = findings.is_clean() && came.is_none() && is_shown;
        say(if holds { "verdict   the copy is whole" } else { "verdict   IT DOES NOT HOLD" });
        Ok(if holds { ExitCode::Ok } else { ExitCode::Failed })
    }
}

/// Readings that the other site is not known to have.
fn behind(status: &LinkStatus) -> u64 {
    let readings = status.sends.iter().filter(|(of, _)| *of.topic == *TOPIC);
    readings.map(|(_, sent)| sent.next.saturating_sub(sent.has.unwrap_or(0))).sum()
}

/// The name of the copy at the hub.
fn copy() -> String {
    format!("{}.{TOPIC}", NAMES[0])
}

//! `fulmar demo`: kills two leaders under load and proves that nothing acknowledged was lost.
//!
//! ```text
//! write ......... 25 %  SIGKILL the leader -> next acknowledgement -> start it again
//!       ......... 60 %  SIGKILL the other leader -> next acknowledgement -> start it again
//!       ........ 100 %  a fresh process reads everything back and compares it with the seed
//! ```
//!
//! Invariants: a leader is killed only while batches are in flight to it; the two that are killed
//! are different nodes; the demo holds only if [`report::Report::failures`] is empty and no node
//! ended but those that were killed; the directory of a demo that failed is kept.

mod load;
mod mirror;
mod pipeline;
mod plant;
mod report;
mod verify;

pub use verify::{VerifyOptions, run as verify};

use super::node::StopSignal;
use super::output::{grouped, say, seconds};
use super::site::Site;
use super::{Stop, client};
use clap::{Args, Subcommand};
use fulmar_client::Cluster;
use fulmar_host::task;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::{ExitCode, NodeId};
use load::Load;
use plant::{PARTITIONS, Plant, Readings, TOPIC};
use report::{Kill, Report};
use std::fmt::Display;
use std::path::PathBuf;
use verify::Findings;

/// How long writing takes without the kills.
const WRITING: Duration = Duration::from_secs(20);

/// How long the site may take to be ready, and to come back.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Batches in flight at which a leader is killed.
const IN_FLIGHT_MIN: u64 = 4;

/// Kill two leaders under load, then prove that nothing was lost, doubled or reordered.
///
/// Starts a site of three nodes in a temporary directory and writes a data set that follows from
/// the seed: the readings of the 4,608 sensors of a plant. Two different leaders are killed with
/// SIGKILL while batches are in flight, and started again. At the end a fresh process reads
/// everything back. Exits with 0 only if every record was acknowledged and is there, once, in
/// order, unchanged.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Records to write.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    records: u64,
    /// The seed of the data set.
    #[arg(long, value_name = "SEED", default_value_t = 7)]
    seed: u64,
    /// Keep the site in this directory, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Other demonstrations.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    Mirror(mirror::Options),
    Pipeline(pipeline::Options),
}

/// Runs the demo.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.other {
        Some(Other::Mirror(options)) => return mirror::run(options).await,
        Some(Other::Pipeline(options)) => return pipeline::run(options).await,
        None => {}
    }
    check_records(options.records)?;
    let mut stop = StopSignal::listen()?;
    tokio::select! {
        biased;
        () = stop.wait() => Err(Stop::failed("the demo was interrupted.")),
        ended = Demo::run(&options) => ended,
    }
}

/// Refuses a data set that is written before anybody is killed.
fn check_records(records: u64) -> Result<(), Stop> {
    if records < 1_000 {
        return Err(Stop::usage("--records must be at least 1000, so that there is time to kill."));
    }
    Ok(())
}

/// Tells what happens, and when.
fn tell(began: Instant, what: impl Display) {
    let at = time::now().saturating_duration_since(began).as_secs_f64();
    say(format!("[{at:>5.1} s] {what}"));
}

struct Demo {
    site: Site,
    cluster: Cluster,
    began: Instant,
}

impl Demo {
    async fn run(options: &Options) -> Result<ExitCode, Stop> {
        let site = Site::temporary(options.keep.as_deref(), "demo", String::new()).await?;
        let cluster = site.cluster("fulmar-demo");
        let mut demo = Self { site, cluster, began: time::now() };
        let ended = demo.end(options).await;
        if !matches!(ended, Ok(ExitCode::Ok)) {
            // What a failure was about is to be looked at.
            demo.site.keep();
        }
        if demo.site.is_kept() {
            let dir = demo.site.dir.display();
            say(format!(
                "The site with the logs of its nodes is kept in {dir}; `fulmar up --dir {dir}` \
                 starts it again."
            ));
        }
        ended
    }

    async fn end(&mut self, options: &Options) -> Result<ExitCode, Stop> {
        let report = self.play(options).await?;
        self.site.stop().await?;
        say("");
        say(report.text().trim_end());
        Ok(if report.failures().is_empty() { ExitCode::Ok } else { ExitCode::Failed })
    }

    fn tell(&self, what: impl Display) {
        tell(self.began, what);
    }

    async fn play(&mut self, options: &Options) -> Result<Report, Stop> {
        self.tell(format!("starting three nodes in {}", self.site.dir.display()));
        self.site.start_all()?;
        let leader = self.site.wait_serving(&self.cluster, READY_TIMEOUT).await?;
        self.tell(format!("ready, node {leader} leads"));
        let created = self.cluster.create_topic(TOPIC, PARTITIONS, READY_TIMEOUT).await;
        created.map_err(|error| Stop::failed(format!("cannot create the topic: {error}.")))?;

        let writing_began = time::now();
        let per_second = (options.records / WRITING.as_secs()).max(1);
        let data = Readings::of(Plant::new(options.seed));
        let load = Load::start(&self.cluster, &data, options.records, per_second);
        let kills = self.kill_leaders(&load, options.records).await?;
        if !self.acknowledged(&load, options.records).await? {
            self.tell("not everything was acknowledged");
        }
        let writing = time::now() - writing_began;
        let tally = load.tally();
        drop(load);
        self.tell(format!("{} records acknowledged", grouped(tally.acknowledged)));
        let findings = self.read_back(options).await?;
        self.site.check()?;
        Ok(Report { seed: options.seed, records: options.records, tally, writing, kills, findings })
    }

    async fn kill_leaders(&mut self, load: &Load, records: u64) -> Result<Vec<Kill>, Stop> {
        // The rest is held back until the kill is over, however fast the machine is.
        load.hold_at(records / 2);
        self.acknowledged(load, records / 4).await?;
        let first = self.kill_leader(load, None).await?;
        load.hold_at(records / 10 * 8);
        self.acknowledged(load, records / 10 * 6).await?;
        let second = self.kill_leader(load, Some(first.node)).await?;
        load.hold_at(records);
        Ok(vec![first, second])
    }

    /// Waits until so many records are acknowledged, and tells the progress. False if that cannot
    /// come about any more.
    async fn acknowledged(&mut self, load: &Load, records: u64) -> Result<bool, Stop> {
        let mut last_move = (time::now(), 0);
        loop {
            let wait = Duration::from_secs(2);
            let enough = |tally: &load::Tally| {
                tally.acknowledged >= records || !tally.failures.is_empty() && tally.pending == 0
            };
            let reached = load.wait_until(wait, enough).await;
            // Only the leader is killed here, and it is started again before this goes on.
            self.site.check()?;
            let tally = load.tally();
            if reached {
                return Ok(tally.acknowledged >= records);
            }
            self.tell(format!("{} records acknowledged", grouped(tally.acknowledged)));
            if tally.acknowledged > last_move.1 {
                last_move = (time::now(), tally.acknowledged);
            } else if time::now() - last_move.0 > READY_TIMEOUT {
                return Err(Stop::failed(format!(
                    "nothing was acknowledged for {} s. The nodes' logs are in {}.",
                    READY_TIMEOUT.as_secs(),
                    self.site.dir.display()
                )));
            }
        }
    }

    /// The leader, once it is not the one that was killed before.
    async fn leader_other_than(&self, killed: Option<NodeId>) -> Result<NodeId, Stop> {
        let deadline = time::now() + READY_TIMEOUT;
        loop {
            let leader = client::wait_for_leader(&self.cluster, READY_TIMEOUT).await?;
            if Some(leader) != killed {
                return Ok(leader);
            }
            if time::now() > deadline {
                return Err(Stop::failed(format!(
                    "node {leader} leads again, so no second leader could be killed. Run the demo \
                     again."
                )));
            }
            time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn kill_leader(&mut self, load: &Load, before: Option<NodeId>) -> Result<Kill, Stop> {
        let leader = self.leader_other_than(before).await?;
        let in_flight = batches_in_flight(load).await;
        let node = self.site.node_mut(leader)?;
        load.note_kill();
        let killed = node.kill().await;
        killed.map_err(|error| Stop::failed(format!("cannot kill node {leader}: {error}.")))?;
        self.tell(format!("node {leader} leads: SIGKILL, with {in_flight} batches in flight"));
        let resumed = load.resumed(READY_TIMEOUT).await.ok_or_else(|| {
            Stop::failed(format!(
                "nothing was acknowledged for {} s after node {leader} was killed. The nodes' \
                 logs are in {}.",
                READY_TIMEOUT.as_secs(),
                self.site.dir.display()
            ))
        })?;
        let next_leader = client::wait_for_leader(&self.cluster, READY_TIMEOUT).await.ok();
        let by = next_leader.map_or_else(String::new, |node| format!(" by node {node}"));
        self.tell(format!("acknowledged again{by}, {} after the kill", seconds(resumed)));
        self.start_again(leader).await?;
        Ok(Kill { node: leader, in_flight, until_next: resumed, next_leader })
    }

    /// Starts a node that was killed, and waits until it answers.
    async fn start_again(&mut self, id: NodeId) -> Result<(), Stop> {
        let began = time::now();
        self.site.start(id)?;
        self.site.wait_answering(id, READY_TIMEOUT).await?;
        self.site.check()?;
        self.tell(format!("node {id} is back after {}", seconds(time::now() - began)));
        Ok(())
    }

    async fn read_back(&self, options: &Options) -> Result<Findings, Stop> {
        self.tell("reading everything back with a fresh process");
        verify::by_fresh_process(&self.site, TOPIC, (options.seed, options.records)).await
    }
}

/// Waits for a moment at which batches were sent and are not answered. Returns how many.
async fn batches_in_flight(load: &Load) -> u64 {
    let deadline = time::now() + READY_TIMEOUT;
    loop {
        load.wait_until(READY_TIMEOUT, |tally| tally.pending >= IN_FLIGHT_MIN).await;
        // What was queued just now goes to the partition's task, from there to the connection's,
        // and from there to the socket.
        for _ in 0..3 {
            task::yield_now().await;
        }
        let in_flight = load.in_flight();
        if in_flight >= IN_FLIGHT_MIN || time::now() > deadline {
            return in_flight;
        }
    }
}

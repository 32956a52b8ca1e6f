//! `fulmar demo pipeline`: alerts come once, whoever dies.
//!
//! ```text
//! readings -> over_temperature.sql -> alerts          ......... 30 %  SIGKILL the node that runs it
//!          (docs/pipelines)        -> readings_bad    ......... 60 %  SIGKILL the node that runs it then
//!                                                     ........ 100 %  what came, and what follows from the seed
//! ```
//!
//! Invariants: what has to come is found out from the seed, without any of the code that runs pipelines; the
//! demo holds only if every alert and every dead letter is there, once, those of a machine in order, nothing
//! else is there, and the fates of the readings add up.

mod heat;

use super::load::{Load, Tally};
use super::plant::{PARTITIONS, TOPIC};
use super::{check_records, tell, verify};
use crate::commands::node::StopSignal;
use crate::commands::output::{grouped, say, seconds};
use crate::commands::site::Site;
use crate::commands::{Stop, client};
use clap::Args;
use fulmar_client::{Cluster, PipelineSettings, PipelineStatus, ReadRecord};
use fulmar_flow::Fates;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_pipelines::facts::Facts;
use fulmar_types::{ExitCode, NodeId};
use heat::{Findings, Heat, RECORDS_MAX};
use std::path::PathBuf;

/// What runs, as it is in the documentation.
const FILE: &str = include_str!("../../../../../../docs/pipelines/over_temperature.sql");

const NAME: &str = "over_temperature";
const ALERTS: &str = "alerts";
const BAD: &str = "readings_bad";
const LATE: &str = "readings_late";

/// How long writing takes without the kills.
const WRITING: Duration = Duration::from_secs(12);

/// How long anything may take that the demo waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one question may take, of which the next node may know more.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the demo looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Kill the node that runs a pipeline, twice, and prove that every alert came once.
///
/// Starts a site of three nodes, lets it run docs/pipelines/over_temperature.sql, and writes readings that
/// follow from the seed. Twice the node that runs the pipeline is killed with SIGKILL, and another one goes
/// on. At the end everything that came is compared with what follows from the seed. Exits with 0 only if
/// every alert is there, once, in order, and nothing else.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Readings to write.
    #[arg(long, value_name = "N", default_value_t = 120_000)]
    records: u64,
    /// The seed of the data set.
    #[arg(long, value_name = "SEED", default_value_t = 7)]
    seed: u64,
    /// Keep the site in this directory, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the demo.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    check_records(options.records)?;
    if options.records > RECORDS_MAX {
        return Err(Stop::usage(format!("--records can be {RECORDS_MAX} at most.")));
    }
    let mut stop = StopSignal::listen()?;
    tokio::select! {
        biased;
        () = stop.wait() => Err(Stop::failed("the demo was interrupted.")),
        ended = play(&options) => ended,
    }
}

async fn play(options: &Options) -> Result<ExitCode, Stop> {
    let site = Site::temporary(options.keep.as_deref(), "demo-pipeline", String::new()).await?;
    let cluster = site.cluster("fulmar-demo");
    let heat = Heat { seed: options.seed, records: options.records };
    let mut demo = Demo { site, cluster, heat, began: time::now() };
    let ended = demo.course().await;
    if !matches!(ended, Ok(ExitCode::Ok)) {
        demo.site.keep();
    }
    if demo.site.is_kept() {
        let dir = demo.site.dir.display();
        say(format!("The site with the logs of its nodes is kept in {dir}."));
    }
    demo.site.stop().await?;
    ended
}

struct Demo {
    site: Site,
    cluster: Cluster,
    heat: Heat,
    began: Instant,
}

impl Demo {
    fn tell(&self, what: impl std::fmt::Display) {
        tell(self.began, what);
    }

    async fn course(&mut self) -> Result<ExitCode, Stop> {
        self.tell(format!("starting three nodes in {}", self.site.dir.display()));
        self.site.start_all()?;
        let leader = self.site.wait_serving(&self.cluster, PATIENCE).await?;
        self.tell(format!("ready, node {leader} leads"));
        let created = self.cluster.create_topic(TOPIC, PARTITIONS, PATIENCE).await;
        created.map_err(|error| Stop::failed(format!("cannot create the topic: {error}.")))?;
        let wanted = PipelineSettings::of(FILE);
        let set = self.cluster.set_pipeline(NAME, Some(0), &wanted, PATIENCE).await;
        set.map_err(|error| Stop::failed(format!("the pipeline is not taken: {error}.")))?;
        let owner = self.owner_other_than(None).await?.0;
        self.tell(format!("{NAME}.sql reads {TOPIC} and writes {ALERTS}; node {owner} runs it"));

        let all = self.heat.all();
        let per_second = (all / WRITING.as_secs()).max(1);
        let load = Load::start(&self.cluster, &self.heat, all, per_second);
        for (percent, held_at) in [(30, 55), (60, 85)] {
            // The rest is held back until the kill is over, however fast the machine is.
            load.hold_at(all * held_at / 100);
            self.written(&load, all * percent / 100).await?;
            self.kill_owner(&load).await?;
        }
        load.hold_at(all);
        self.written(&load, all).await?;
        self.tell(format!("{} readings written", grouped(all)));
        let status = self.caught_up().await?;
        self.tell("all of them are read; comparing what came with what follows from the seed");
        self.judge(&status).await
    }

    /// Waits until so many readings are acknowledged.
    async fn written(&mut self, load: &Load, records: u64) -> Result<(), Stop> {
        let is_enough = |tally: &Tally| tally.acknowledged >= records || !tally.failures.is_empty();
        let reached = load.wait_until(PATIENCE + PATIENCE, is_enough).await;
        self.site.check()?;
        match load.tally().failures.first() {
            Some(failure) => Err(Stop::failed(format!("{failure}."))),
            None if !reached => Err(Stop::failed("the readings are not acknowledged in time.")),
            None => Ok(()),
        }
    }

    /// What becomes of the pipeline; nothing, if that is not known for now.
    async fn status(&self) -> Result<Option<PipelineStatus>, Stop> {
        let status = self.cluster.pipeline_status(NAME, ASK_TIMEOUT).await.ok().flatten();
        match status.as_ref().and_then(|status| status.failed.clone()) {
            Some(why) => Err(Stop::failed(format!("the pipeline cannot go on: {why}."))),
            None => Ok(status),
        }
    }

    /// Waits until a node runs the pipeline under another fence than this one.
    async fn owner_other_than(&self, fence: Option<u64>) -> Result<(u64, u64), Stop> {
        let began = time::now();
        loop {
            let status = self.status().await?;
            let owner = status.and_then(|status| Some((status.owner?, status.fence)));
            if let Some(owner) = owner.filter(|owner| Some(owner.1) != fence) {
                return Ok(owner);
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::failed("no node runs the pipeline."));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// How many alerts there are.
    async fn alerts(&self) -> Option<u64> {
        let ends = client::ends(&self.cluster, ALERTS, PARTITIONS, ASK_TIMEOUT).await;
        ends.map(|ends| ends.iter().map(|end| end.get()).sum())
    }

    async fn kill_owner(&mut self, load: &Load) -> Result<(), Stop> {
        let (owner, fence) = self.owner_other_than(None).await?;
        let leader = client::wait_for_leader(&self.cluster, PATIENCE).await?;
        let node = NodeId(owner);
        let alerts = self.alerts().await.unwrap_or_default();
        let killed_at = time::now();
        let killed = self.site.node_mut(node)?.kill().await;
        killed.map_err(|error| Stop::failed(format!("cannot kill node {owner}: {error}.")))?;
        let also = if leader == node { " and leads the site" } else { "" };
        self.tell(format!(
            "node {owner} runs it{also}: SIGKILL, with {} readings written and {} alerts there",
            grouped(load.tally().acknowledged),
            grouped(alerts)
        ));
        let (next, took) = self.next_alert(fence, killed_at).await?;
        self.tell(format!(
            "node {next} runs it; the next alert came {} after the kill",
            seconds(took)
        ));
        self.site.start(node)?;
        self.site.wait_answering(node, PATIENCE).await?;
        self.tell(format!("node {owner} is back"));
        Ok(())
    }

    /// Who runs it now, and when the next alert was there. What came before another node was seen to run it
    /// may be of the dead one, and does not count.
    async fn next_alert(&self, fence: u64, since: Instant) -> Result<(u64, Duration), Stop> {
        let (next, _) = self.owner_other_than(Some(fence)).await?;
        let mut before = None;
        while since.elapsed() < PATIENCE {
            let alerts = self.alerts().await;
            match before {
                None => before = alerts,
                Some(before) if alerts.is_some_and(|alerts| alerts > before) => {
                    return Ok((next, since.elapsed()));
                }
                Some(_) => {}
            }
            time::sleep(LOOK_EVERY).await;
        }
        Err(Stop::failed("no alert comes after the kill."))
    }

    /// Waits until every reading is read.
    async fn caught_up(&mut self) -> Result<PipelineStatus, Stop> {
        let began = time::now();
        loop {
            self.site.check()?;
            if let Some(status) = self.status().await?
                && status.inputs.values().map(|of| of.next).sum::<u64>() >= self.heat.all()
            {
                return Ok(status);
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::failed("the pipeline does not read everything."));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Everything that is in a topic, by a client that knows nothing yet.
    async fn read(&self, topic: &str) -> Result<Vec<ReadRecord>, Stop> {
        let cluster = self.site.cluster("fulmar-demo-compare");
        let ends = verify::ends(&cluster, topic).await?;
        let mut records = Vec::new();
        verify::read_all(&cluster, &ends, |_, record| records.push(record.clone())).await?;
        Ok(records)
    }

    async fn judge(&self, status: &PipelineStatus) -> Result<ExitCode, Stop> {
        let expected = self.heat.expected();
        let alerts = expected.compare_alerts(&self.read(ALERTS).await?);
        let bad = expected.compare_bad(&self.read(BAD).await?);
        let late = self.read(LATE).await?.len() as u64;
        let mut fates = Fates::default();
        let facts = Facts::decode(&status.facts).unwrap_or_default();
        facts.fates.iter().for_each(|(_, _, of)| fates.add(of));
        say("");
        say(line(ALERTS, &alerts, expected.alerts()));
        say(line("bad", &bad, expected.bad()));
        say(format!("late      {} of {} readings", grouped(late), grouped(self.heat.all())));
        say(format!("fates     {fates}"));
        let adds_up = fates.read == self.heat.all() && fates.sum() == fates.read;
        let holds = alerts.is_clean() && bad.is_clean() && late == 0 && adds_up;
        let holds = holds && alerts.read > 0;
        let verdict = if holds { "every alert came once" } else { "IT DOES NOT HOLD" };
        say(format!("verdict   {verdict}"));
        Ok(if holds { ExitCode::Ok } else { ExitCode::Failed })
    }
}

fn line(what: &str, findings: &Findings, expected: u64) -> String {
    format!(
        "{what:<9} {} came, {} follow from the seed: {} missing, {} twice, {} out of order, {} foreign",
        grouped(findings.read),
        grouped(expected),
        grouped(findings.missing),
        grouped(findings.twice),
        grouped(findings.out_of_order),
        grouped(findings.foreign)
    )
}

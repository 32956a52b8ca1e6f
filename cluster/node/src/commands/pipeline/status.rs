//! What becomes of pipelines, in words.

use super::super::Stop;
use super::super::client::Reaching;
use super::super::output::{count, grouped, moment, say, seconds, utc};
use super::{CLIENT, TIMEOUT, letters, pipelines, savepoints};
use clap::Args;
use fulmar_client::{Cluster, PipelineStatus};
use fulmar_flow::{Fates, Letters, Plan, RETRIED};
use fulmar_host::time::Duration;
use fulmar_pipelines::facts::{Facts, Waiting};
use fulmar_types::ExitCode;
use fulmar_types::pipeline::PipelineDefinition;
use std::collections::BTreeMap;
use std::fmt::Write;

/// For how long after an epoch its rate is that of now.
const RATE_HOLDS: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Args)]
pub struct Asked {
    /// The pipeline; all of them, if it is left out.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    reaching: Reaching,
}

/// Names pipelines and savepoints.
pub async fn list(cluster: &Cluster) -> Result<ExitCode, Stop> {
    let pipelines = pipelines(cluster).await?;
    if pipelines.is_empty() {
        say("no pipelines");
    }
    for (name, pipeline) in pipelines {
        let failed = of(cluster, &name).await?.failed.is_some();
        let paused = match (failed, pipeline.is.paused) {
            (true, _) => ", FAILED",
            (false, true) => ", paused",
            (false, false) => "",
        };
        let (read, written) = (pipeline.is.inputs.join(", "), pipeline.is.outputs.join(", "));
        say(format!("pipeline {name}: reads {read}; writes {written}{paused}"));
    }
    for (name, savepoint) in savepoints(cluster).await? {
        let (at, of) = (utc(savepoint.changed.1), &savepoint.is.pipeline);
        say(format!("savepoint {name}: pipeline {of} at epoch {}, {at}", savepoint.is.epoch));
    }
    Ok(ExitCode::Ok)
}

/// The state of a pipeline that is there.
pub async fn of(cluster: &Cluster, name: &str) -> Result<PipelineStatus, Stop> {
    let found = cluster.pipeline_status(name, TIMEOUT).await;
    let found = found.map_err(|error| {
        Stop::failed(format!("the state of the pipeline {name} is not known: {error}."))
    })?;
    found.ok_or_else(|| Stop::usage(format!("there is no pipeline {name}.")))
}

/// Ends with 1 if one has failed.
pub async fn status(asked: Asked) -> Result<ExitCode, Stop> {
    let cluster = asked.reaching.reached(CLIENT).await?;
    let mut pipelines = pipelines(&cluster).await?;
    if let Some(name) = &asked.name {
        pipelines.retain(|known, _| known == name);
        if pipelines.is_empty() {
            return Err(Stop::usage(format!("there is no pipeline {name}.")));
        }
    }
    if pipelines.is_empty() {
        say("no pipelines");
    }
    let mut code = ExitCode::Ok;
    for (name, pipeline) in pipelines {
        let status = of(&cluster, &name).await?;
        if status.failed.is_some() {
            code = ExitCode::Failed;
        }
        say(render(&name, &pipeline.is, &status).trim_end());
    }
    Ok(code)
}

fn render(name: &str, is: &PipelineDefinition, status: &PipelineStatus) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    let facts = Facts::decode(&status.facts);
    let state = match (status.owner, is.paused, &status.failed) {
        (_, _, Some(_)) => "FAILED".to_owned(),
        (Some(node), true, _) => format!("is being paused by node {node}"),
        (None, true, _) => "paused".to_owned(),
        (Some(node), false, _) => format!("runs on node {node}"),
        (None, false, _) => "waits for a node to run it".to_owned(),
    };
    line(format!("pipeline {name}: {state}"));
    if let Some(why) = &status.failed {
        line(format!("  because      {why}"));
    }
    let ago = match status.epoch {
        0 => String::new(),
        _ => format!(", {} ago", seconds(status.epoch_ago)),
    };
    let (epoch, stored) = (grouped(status.epoch), grouped(status.delta_epoch));
    line(format!("  epoch        {epoch}{ago}; its state is in the log up to epoch {stored}"));
    let waits: u64 = status.inputs.values().map(|of| of.end.saturating_sub(of.next)).sum();
    let behind = status.inputs.values().map(|of| of.behind).max().unwrap_or_default();
    let late = if waits > 0 { format!(", {} at most", seconds(behind)) } else { String::new() };
    line(format!("  behind       {}{late}", count(waits, "record")));
    let missed: u64 = status.inputs.values().map(|of| of.missed).sum();
    if missed > 0 {
        line(format!("  missed       {}, gone before they were read", count(missed, "record")));
    }
    let Some(facts) = facts else { return text };
    // It is of the last epoch, and where nothing comes there is no next one.
    let runs = status.owner.is_some() && !is.paused && status.failed.is_none();
    let is_of_now = runs && status.epoch_ago < RATE_HOLDS;
    let rate = if is_of_now { facts.records_per_s } else { 0 };
    line(format!("  rate         {} a second", count(rate, "record")));
    line(format!("  state        about {} bytes", grouped(facts.state_bytes)));
    let to_go = letters::to_go(status);
    if to_go > 0 || facts.letters != Letters::default() {
        let left =
            if to_go > 0 { format!(", {} to look at", grouped(to_go)) } else { String::new() };
        line(format!("  letters      {}{left}", letters::told(facts.letters)));
    }
    if facts.waiting != Waiting::No {
        let (what, act) = (facts.waiting.name(), advice(facts.waiting));
        line(format!("  WAITS        for {what}{act}"));
    }
    if let Ok(plan) = fulmar_flow::plan(&is.file) {
        text += &of_plan(&plan, &facts);
    }
    text
}

/// What somebody who sees a pipeline wait has to know.
const fn advice(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::No | Waiting::Room => "",
        Waiting::Time => ": memory is full, so it reads only what lets windows end",
        Waiting::Memory => {
            ": it reads nothing. Give it more (pipelines.memory_bytes), or shorter windows, fewer keys, IDLE"
        }
    }
}

/// Watermarks and fates, with the names of the file.
fn of_plan(plan: &Plan, facts: &Facts) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    for (source, watermark) in plan.sources.iter().zip(&facts.watermarks) {
        if source.watermark.is_some() {
            let told = watermark.map_or_else(|| "none yet".to_owned(), moment);
            line(format!("  watermark    {}: {told}", source.name));
        }
    }
    let mut all = Fates::default();
    let mut by_place: BTreeMap<(&str, u32), Vec<(u32, Fates)>> = BTreeMap::new();
    for (reader, partition, fates) in &facts.fates {
        all.add(fates);
        let source = plan.readers.get(*reader as usize).and_then(|at| plan.sources.get(*at));
        let Some(source) = source else { continue };
        by_place.entry((&source.name, *partition)).or_default().push((*reader, *fates));
    }
    facts.others.iter().for_each(|(_, _, fates)| all.add(fates));
    if all.dead_lettered + all.dropped + all.late + facts.failed_results > 0 {
        let each = if plan.readers.len() > 1 { "; each query counts what it reads" } else { "" };
        line(format!(
            "  trouble      {} dead-lettered, {} dropped, {} late, {} results without a value{each}",
            grouped(all.dead_lettered),
            grouped(all.dropped),
            grouped(all.late),
            grouped(facts.failed_results)
        ));
    }
    let queries = queries(plan);
    let query = |reader: u32| queries.get(reader as usize).map_or("", String::as_str);
    for ((source, partition), readers) in by_place {
        for (reader, fates) in readers {
            let query = query(reader);
            match partition {
                RETRIED => line(format!("  {source}, put through again{query}  {fates}")),
                _ => line(format!("  {source}/{partition}{query}  {fates}")),
            }
        }
    }
    for (reader, partitions, fates) in &facts.others {
        let source = plan.readers.get(*reader as usize).and_then(|at| plan.sources.get(*at));
        let name = source.map_or("?", |source| &source.name);
        let (more, query) = (count(*partitions, "partition"), query(*reader));
        line(format!("  {name}, {more} more{query}  {fates}"));
    }
    text
}

/// For each reader what tells it from others of its stream: the output, and the number that metrics have for it.
/// Nothing, if it is the only one.
fn queries(plan: &Plan) -> Vec<String> {
    let is_alone = |source: usize| plan.readers.iter().filter(|of| **of == source).count() == 1;
    let names = plan.readers.iter().zip(plan.reader_names()).enumerate();
    let told = names.map(|(reader, (source, name))| match is_alone(*source) {
        true => String::new(),
        false => format!(" to {} (query {reader})", name.output),
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_host::time::Duration;

    #[test]
    fn a_pipeline_is_told_with_the_names_of_its_file() {
        let file = "CREATE STREAM s (v BIGINT) FROM TOPIC t ON ERROR DROP;\n\
                    INSERT INTO TOPIC out SELECT v FROM s;";
        let is = PipelineDefinition { file: file.to_owned(), ..PipelineDefinition::default() };
        let fates = Fates { read: 3, passed: 2, dropped: 1, ..Fates::default() };
        let facts = Facts { fates: vec![(0, 4, fates)], ..Facts::default() };
        let status = PipelineStatus {
            owner: Some(2),
            epoch: 7,
            delta_epoch: 5,
            epoch_ago: Duration::from_millis(40),
            facts: facts.encode().to_vec(),
            ..PipelineStatus::default()
        };
        let text = render("p", &is, &status);
        assert!(text.starts_with("pipeline p: runs on node 2\n"), "{text}");
        assert!(text.contains("epoch        7, 0.04 s ago"), "{text}");
        assert!(text.contains("s/4  3 read = 2 passed"), "{text}");
        assert!(text.contains("1 dropped"), "{text}");
        let failed = PipelineStatus { failed: Some("why".to_owned()), ..status };
        assert!(render("p", &is, &failed).starts_with("pipeline p: FAILED\n  because      why\n"));
    }
    #[test]
    fn a_line_names_its_output_where_there_are_several() {
        let file = "CREATE STREAM s (v BIGINT) FROM TOPIC t ON ERROR DEAD LETTER bad;\n\
                    INSERT INTO TOPIC one SELECT v FROM s;\n\
                    INSERT INTO TOPIC two SELECT v FROM s WHERE 60 / v > 1;";
        let is = PipelineDefinition { file: file.to_owned(), ..PipelineDefinition::default() };
        let bad = Fates { read: 3, passed: 2, dead_lettered: 1, ..Fates::default() };
        let facts = Facts {
            fates: vec![(0, 4, bad), (1, 4, bad)],
            others: vec![(1, 7, Fates::default())],
            ..Facts::default()
        };
        let facts = facts.encode().to_vec();
        let text = render("p", &is, &PipelineStatus { facts, ..PipelineStatus::default() });
        for line in [
            "  trouble      2 dead-lettered, 0 dropped, 0 late, 0 results without a value; each query counts \
             what it reads\n",
            "  s/4 to one (query 0)  3 read = ",
            "  s/4 to two (query 1)  3 read = ",
            "  s, 7 partitions more to two (query 1)  0 read",
        ] {
            assert!(text.contains(line), "{text}\n{line}");
        }
    }
}

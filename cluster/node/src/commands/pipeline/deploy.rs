//! Pipelines and savepoints of a site are changed.
//!
//! Invariant: what a pipeline has in its state never goes without a word: another file goes on with it if it
//! has the same shape, and else only where `--fresh` or `--savepoint` was said.

use super::super::Stop;
use super::super::apply::carry::rules;
use super::super::apply::names::check_pipeline_name;
use super::super::client::Reaching;
use super::super::makings::{Makings, goes_as_well, plain};
use super::super::output::{say, utc};
use super::{CLIENT, Named, TIMEOUT, file, pipeline, pipelines, savepoints, status};
use clap::Args;
use fulmar_client::admin::AlterTopicError;
use fulmar_client::{Cluster, LaidDown, PipelineSettings, PipelineStatus};
use fulmar_flow::Plan;
use fulmar_host::time::{self, Duration};
use fulmar_types::ExitCode;
use fulmar_types::pipeline::{PipelineDefinition, Start};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How long a pipeline may take to put its state into the log.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What does not fit the state that there is: how much of that is told.
const MISFITS_MAX: usize = 4;

/// How often is looked whether it has.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Args)]
pub struct Deploy {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the pipeline is called; the name of the file without its ending, if it is left out.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Begin without any state, with the oldest records that are there.
    #[arg(long, conflicts_with = "savepoint")]
    fresh: bool,
    /// Begin with the state of this savepoint.
    #[arg(long, value_name = "SAVEPOINT")]
    savepoint: Option<String>,
    /// The pause between two epochs, in milliseconds; what it was, or 20.
    #[arg(long, value_name = "MS")]
    latency_ms: Option<u32>,
    /// Do not let it run yet. One that is paused stays so in any case.
    #[arg(long)]
    paused: bool,
    /// Let a new pipeline write what another one writes too.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
pub struct Savepoint {
    /// The pipeline.
    #[arg(value_name = "NAME")]
    name: String,
    /// What the savepoint is called.
    #[arg(value_name = "SAVEPOINT")]
    savepoint: String,
    /// Put it in the place of the savepoint that there is of this name.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// The pipeline.
    #[arg(value_name = "NAME")]
    name: String,
    /// The savepoint.
    #[arg(long, value_name = "SAVEPOINT")]
    from: String,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// The pipeline.
    #[arg(value_name = "NAME")]
    name: String,
    /// Also remove its savepoints. Without that a pipeline that has some stays.
    #[arg(long)]
    savepoints: bool,
    #[command(flatten)]
    reaching: Reaching,
}

/// What a pipeline is now, to be changed.
fn settings(is: &PipelineDefinition) -> PipelineSettings {
    PipelineSettings {
        paused: is.paused,
        latency_ms: Some(is.latency_ms),
        ..PipelineSettings::of(is.file.clone())
    }
}

/// Why a site has not done something.
pub fn refused(what: &str, error: &AlterTopicError) -> Stop {
    let text = match error {
        AlterTopicError::Refused { message: Some(message), .. } => message.clone(),
        error => error.to_string(),
    };
    Stop::failed(format!("{what}: {text}."))
}

async fn set(
    cluster: &Cluster,
    (name, number): (&str, u64),
    wanted: &PipelineSettings,
) -> Result<(), Stop> {
    let set = cluster.set_pipeline(name, Some(number), wanted, TIMEOUT).await;
    set.map_err(|error| refused(&format!("pipeline {name}"), &error))
}

/// What a pipeline is to be, with its plan.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What is said to the site.
    pub settings: PipelineSettings,
    plan: Arc<Plan>,
}

impl Wish {
    /// A file as a pipeline, if its tests pass.
    pub fn read(path: &Path, (latency_ms, paused): (Option<u32>, bool)) -> Result<Self, Stop> {
        let text = file::read(path)?;
        let Some(plan) = file::planned(path, &text) else {
            let message = format!("{} is no pipeline; see above.", path.display());
            return Err(Stop::failed(message));
        };
        file::tested(path, &plan)?;
        let settings = PipelineSettings { paused, latency_ms, ..PipelineSettings::of(text) };
        Ok(Self { settings, plan })
    }

    /// A text as a pipeline.
    #[cfg(test)]
    pub fn of(text: &str) -> Option<Self> {
        let plan = file::planned(Path::new("test.sql"), text)?;
        Some(Self { settings: PipelineSettings::of(text.to_owned()), plan })
    }

    /// The topics that it reads.
    pub fn inputs(&self) -> BTreeSet<&str> {
        self.plan.read()
    }

    /// The topics that it writes.
    pub fn outputs(&self) -> BTreeSet<&str> {
        self.plan.written()
    }

    /// Whether it can go on with the state that there is.
    ///
    /// # Errors
    /// For people: why not.
    pub fn fits(&self, name: &str, is: &PipelineDefinition) -> Result<(), String> {
        let goes_on = self.settings.start == Start::Keep && is.file != self.settings.file;
        if !goes_on || is.shape == self.plan.shape() {
            return Ok(());
        }
        let before = fulmar_flow::plan(&is.file).ok();
        let misfits = before.map(|before| self.plan.misfits(&before)).unwrap_or_default();
        let which = match misfits.as_slice() {
            [] => String::new(),
            [.., _] if misfits.len() > MISFITS_MAX => {
                let more = misfits.len() - MISFITS_MAX;
                format!(": {}, and {more} more", misfits[..MISFITS_MAX].join(", "))
            }
            few => format!(": {}", few.join(", ")),
        };
        Err(format!(
            "pipeline {name}: its state belongs to other windows, groups, joins, columns or inputs than \
             this file has{which}. Deploy it with --fresh, or with --savepoint and a savepoint that it fits."
        ))
    }

    /// What differs from what is, for people. Nothing, if nothing does.
    pub fn lines(&self, is: Option<&PipelineDefinition>) -> Vec<String> {
        let plan = &self.plan;
        let Some(is) = is else {
            let all = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
            let (read, written) = (all(plan.read()), all(plan.written()));
            return vec![format!("reads       {read}"), format!("writes      {written}")];
        };
        let (mut out, wanted) = (Vec::new(), &self.settings);
        if is.file != wanted.file {
            let (old, new): (Vec<&str>, Vec<&str>) =
                (is.file.lines().collect(), wanted.file.lines().collect());
            let gone = old.iter().filter(|line| !new.contains(line)).count();
            let came = new.iter().filter(|line| !old.contains(line)).count();
            out.push(format!("file        {came} lines are new, {gone} are gone"));
            // Where it begins otherwise, the state that there is says nothing.
            if wanted.start == Start::Keep {
                let fits = if is.shape == plan.shape() { "it fits" } else { "it does not fit" };
                out.push(format!("state       {fits}"));
            }
        }
        out.extend(list_differs("reads", &is.inputs, &plan.read()));
        out.extend(list_differs("writes", &is.outputs, &plan.written()));
        if is.paused != wanted.paused {
            out.push(format!("paused      {} -> {}", is.paused, wanted.paused));
        }
        let latency_ms = wanted.latency_ms.unwrap_or(is.latency_ms);
        if is.latency_ms != latency_ms {
            out.push(format!("latency     {} ms -> {latency_ms} ms", is.latency_ms));
        }
        if wanted.start != Start::Keep {
            out.push(format!("begins      {}", wanted.start));
        }
        out
    }

    /// What somebody has to know of the topics that others write too: what both write is in there twice.
    pub fn notes<'a>(
        &self,
        others: impl IntoIterator<Item = (&'a str, BTreeSet<&'a str>)>,
    ) -> Vec<String> {
        let written = self.outputs();
        let mut notes = Vec::new();
        for (other, outputs) in others {
            let both = written.intersection(&outputs).copied().collect::<Vec<_>>();
            if !both.is_empty() {
                notes.push(format!("note        pipeline {other} writes {} too", both.join(", ")));
            }
        }
        notes
    }
}

/// What a pipeline of a site writes.
pub fn written_by(is: &PipelineDefinition) -> BTreeSet<&str> {
    is.outputs.iter().map(String::as_str).collect()
}

fn list_differs(what: &str, before: &[String], after: &BTreeSet<&str>) -> Option<String> {
    let before: BTreeSet<&str> = before.iter().map(String::as_str).collect();
    let came = after.difference(&before).map(|name| format!("+{name}"));
    let gone = before.difference(after).map(|name| format!("-{name}"));
    let names: Vec<String> = came.chain(gone).collect();
    (!names.is_empty()).then(|| format!("{what:<10}  {}", names.join(" ")))
}

/// Makes a pipeline what it is to be. If another file goes on with the state, the state goes into the log
/// first.
pub async fn put(
    cluster: &Cluster,
    name: &str,
    before: Option<&LaidDown<PipelineDefinition>>,
    wanted: &PipelineSettings,
) -> Result<(), Stop> {
    let latency_ms = wanted.latency_ms.or(before.map(|before| before.is.latency_ms));
    let wanted = PipelineSettings { latency_ms, ..wanted.clone() };
    let goes_on = |before: &&LaidDown<PipelineDefinition>| {
        before.is.file != wanted.file && wanted.start == Start::Keep
    };
    let Some(before) = before.filter(goes_on) else {
        let number = before.map_or(0, |before| before.number);
        return set(cluster, (name, number), &wanted).await;
    };
    let number = settled(cluster, name, before).await?;
    let done = set(cluster, (name, number), &wanted).await;
    if done.is_err() && !before.is.paused {
        // It was paused for a file that is refused. If somebody has changed it meanwhile, it is theirs.
        let is_back = set(cluster, (name, number), &settings(&before.is)).await.is_ok();
        say(format!(
            "pipeline {name}: {}",
            if is_back { "goes on as before" } else { "is paused" }
        ));
    }
    done
}

/// Lets a site run a file.
pub async fn deploy(asked: Deploy) -> Result<ExitCode, Stop> {
    let mut wish = Wish::read(&asked.file, (asked.latency_ms, asked.paused))?;
    wish.settings.start = match (asked.fresh, asked.savepoint) {
        (true, _) => Start::Fresh,
        (false, Some(savepoint)) => Start::Savepoint(savepoint),
        (false, None) => Start::Keep,
    };
    let stem = asked.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = asked.name.or(stem).unwrap_or_default();
    check_pipeline_name("pipeline", &name)?;
    let cluster = asked.reaching.reached(CLIENT).await?;
    let mut others = pipelines(&cluster).await?;
    let before = others.remove(&name);
    // Whoever has paused it says when it goes on.
    let stays_paused = before.as_ref().is_some_and(|before| before.is.paused);
    wish.settings.paused |= stays_paused;
    let mut lines = wish.lines(before.as_ref().map(|before| &before.is));
    if lines.is_empty() {
        let failed = status::of(&cluster, &name).await?.failed;
        if let Some(why) = failed {
            return Err(Stop::failed(format!(
                "pipeline {name} is as the file says, and has failed: {why}. `fulmar pipeline resume {name}` \
                 lets it try again."
            )));
        }
        say(format!("pipeline {name} is as the file says"));
        return Ok(ExitCode::Ok);
    }
    if let Some(before) = &before {
        wish.fits(&name, &before.is).map_err(Stop::failed)?;
    }
    if let Start::Savepoint(savepoint) = &wish.settings.start {
        savepoint_of(&cluster, &name, savepoint).await?;
    }
    let notes = wish.notes(others.iter().map(|(name, of)| (name.as_str(), written_by(&of.is))));
    if before.is_none() && !notes.is_empty() && !asked.yes {
        let text = "it is new, and what both make would be there twice. Name the one that is to be changed with \
                    --name, or say --yes.";
        return Err(Stop::usage(format!("pipeline {name}:\n    {}\n{text}", notes.join("\n    "))));
    }
    let (makings, rules) = (Makings::of_site(&cluster).await?, plain(&rules(&cluster).await?));
    let makings_after = makings.with([&wish].into_iter());
    put(&cluster, &name, before.as_ref(), &wish.settings).await?;
    lines.extend(notes);
    lines.extend(goes_as_well((&makings, &rules), (&makings_after, &rules)));
    say(format!("pipeline {name}: {}", if before.is_none() { "new" } else { "changed" }));
    lines.iter().for_each(|line| say(format!("    {line}")));
    if stays_paused {
        say(format!("    stays paused; `fulmar pipeline resume {name}` lets it run"));
    }
    Ok(ExitCode::Ok)
}

/// Pauses a pipeline and waits until its state is in the log, so that another file can go on with it. Its
/// number then.
async fn settled(
    cluster: &Cluster,
    name: &str,
    before: &LaidDown<PipelineDefinition>,
) -> Result<u64, Stop> {
    if !before.is.paused {
        let paused = PipelineSettings { paused: true, ..settings(&before.is) };
        set(cluster, (name, before.number), &paused).await?;
    }
    wait_until_settled(cluster, name).await?;
    Ok(pipeline(cluster, name).await?.number)
}

async fn wait_until_settled(cluster: &Cluster, name: &str) -> Result<PipelineStatus, Stop> {
    let deadline = time::now() + SETTLE_TIMEOUT;
    loop {
        let status = status::of(cluster, name).await?;
        let is_stored = status.owner.is_none() && status.epoch == status.delta_epoch;
        if is_stored || status.failed.is_some() {
            return Ok(status);
        }
        if time::now() >= deadline {
            return Err(Stop::failed(format!(
                "pipeline {name}: it is paused, and its state is not in the log after {} seconds; see \
                 `fulmar pipeline status`.",
                SETTLE_TIMEOUT.as_secs()
            )));
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// Lets a pipeline rest, or go on.
pub async fn set_paused(of: Named, paused: bool) -> Result<ExitCode, Stop> {
    let (cluster, name) = (of.reaching.reached(CLIENT).await?, &of.name);
    let before = pipeline(&cluster, name).await?;
    let has_failed = status::of(&cluster, name).await?.failed.is_some();
    if before.is.paused == paused && (paused || !has_failed) {
        let is = if paused { "is paused already" } else { "runs already" };
        say(format!("the pipeline {name} {is}"));
        return Ok(ExitCode::Ok);
    }
    let wanted = PipelineSettings { paused, ..settings(&before.is) };
    set(&cluster, (name, before.number), &wanted).await?;
    if paused {
        let status = wait_until_settled(&cluster, name).await?;
        say(format!("pipeline {name}: {}", rests(&status)));
    } else {
        say(format!("pipeline {name}: goes on"));
    }
    Ok(ExitCode::Ok)
}

/// How a pipeline rests that was paused.
fn rests(status: &PipelineStatus) -> String {
    let Some(why) = &status.failed else {
        return "paused, and its state is in the log".to_owned();
    };
    let (epoch, stored) = (status.epoch, status.delta_epoch);
    let state = if epoch == stored {
        "Its state is in the log".to_owned()
    } else {
        format!(
            "Its state is in the log up to epoch {stored} of {epoch}; the epochs behind that can be run again only as \
             long as what they have read is there"
        )
    };
    format!("paused; it has failed before: {why}. {state}")
}

/// Keeps state under a name.
pub async fn savepoint(asked: Savepoint) -> Result<ExitCode, Stop> {
    let Savepoint { name, savepoint, replace, reaching } = asked;
    check_pipeline_name("savepoint", &savepoint)?;
    let cluster = reaching.reached(CLIENT).await?;
    pipeline(&cluster, &name).await?;
    let before = savepoints(&cluster).await?.remove(&savepoint);
    if let Some(before) = before.as_ref().filter(|_| !replace) {
        return Err(Stop::usage(format!(
            "there is a savepoint {savepoint}: pipeline {} at epoch {}, {}. Take another name, or put the \
             new one in its place with --replace.",
            before.is.pipeline,
            before.is.epoch,
            utc(before.changed.1)
        )));
    }
    let number = before.as_ref().map_or(0, |before| before.number);
    let set = cluster.set_savepoint(&savepoint, Some(number), Some(&name), SETTLE_TIMEOUT).await;
    if let Err(error) = set {
        // An attempt without an answer may have made it, and the one after it have been refused for that.
        let now = savepoints(&cluster).await?.remove(&savepoint);
        if !now.is_some_and(|now| now.number != number && now.is.pipeline == name) {
            return Err(refused(&format!("savepoint {savepoint}"), &error));
        }
    }
    let replaced = if before.is_some() { ", in the place of the one before" } else { "" };
    say(format!("savepoint {savepoint}: the state of pipeline {name}{replaced}"));
    Ok(ExitCode::Ok)
}

/// Removes a savepoint.
pub async fn forget(of: Named) -> Result<ExitCode, Stop> {
    let cluster = of.reaching.reached(CLIENT).await?;
    let Some(known) = savepoints(&cluster).await?.remove(&of.name) else {
        return Err(no_savepoint(&of.name));
    };
    let set = cluster.set_savepoint(&of.name, Some(known.number), None, TIMEOUT).await;
    set.map_err(|error| refused(&format!("savepoint {}", of.name), &error))?;
    say(format!("savepoint {}: removed", of.name));
    Ok(ExitCode::Ok)
}

/// A savepoint that is to be begun with has to be there, and to be one of the pipeline.
async fn savepoint_of(cluster: &Cluster, name: &str, savepoint: &str) -> Result<(), Stop> {
    match savepoints(cluster).await?.get(savepoint) {
        Some(found) if found.is.pipeline == name => Ok(()),
        Some(found) => Err(Stop::usage(format!(
            "the savepoint {savepoint} is one of the pipeline {}, and not of {name}; `fulmar pipeline list` names \
             them all.",
            found.is.pipeline
        ))),
        None => Err(no_savepoint(savepoint)),
    }
}

fn no_savepoint(name: &str) -> Stop {
    Stop::usage(format!("there is no savepoint {name}; `fulmar pipeline list` names them all."))
}

/// Puts a pipeline back.
pub async fn restore(asked: Restore) -> Result<ExitCode, Stop> {
    let Restore { name, from, reaching } = asked;
    let cluster = reaching.reached(CLIENT).await?;
    let before = pipeline(&cluster, &name).await?;
    savepoint_of(&cluster, &name, &from).await?;
    let start = Start::Savepoint(from.clone());
    let wanted = PipelineSettings { start, ..settings(&before.is) };
    set(&cluster, (&name, before.number), &wanted).await?;
    say(format!("pipeline {name}: begins with savepoint {from}; what it has written stays"));
    Ok(ExitCode::Ok)
}

/// Removes a pipeline.
pub async fn delete(asked: Delete) -> Result<ExitCode, Stop> {
    let Delete { name, savepoints, reaching } = asked;
    let cluster = reaching.reached(CLIENT).await?;
    pipeline(&cluster, &name).await?;
    let removed = cluster.remove_pipeline(&name, savepoints, TIMEOUT).await;
    removed.map_err(|error| refused(&format!("pipeline {name}"), &error))?;
    say(format!("pipeline {name}: removed, with its state"));
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> Wish {
        let plan = fulmar_flow::plan(text).expect("it has no mistake");
        Wish { settings: PipelineSettings::of(text.to_owned()), plan: Arc::new(plan) }
    }

    const STREAM: &str = "CREATE STREAM s (v BIGINT) FROM TOPIC t ON ERROR DEAD LETTER bad;\n";

    #[test]
    fn a_topic_that_another_pipeline_writes_too_is_named() {
        let wish = wish(&format!(
            "{STREAM}INSERT INTO TOPIC one SELECT v FROM s; INSERT INTO TOPIC two SELECT v FROM s;"
        ));
        let is = |outputs: &[&str]| PipelineDefinition {
            outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
            ..PipelineDefinition::default()
        };
        let (same, alone) = (is(&["two", "one", "three"]), is(&["four"]));
        let others = [("a", written_by(&same)), ("b", written_by(&alone))];
        assert_eq!(wish.notes(others), ["note        pipeline a writes one, two too"]);
    }

    #[test]
    fn whether_the_state_fits_is_told_where_it_goes_on_with_it() {
        let mut wish = wish(&format!("{STREAM}INSERT INTO TOPIC one SELECT v FROM s;"));
        let is = PipelineDefinition { shape: wish.plan.shape(), ..PipelineDefinition::default() };
        let tells =
            |wish: &Wish| wish.lines(Some(&is)).iter().any(|line| line.starts_with("state"));
        assert!(tells(&wish));
        wish.settings.start = Start::Fresh;
        assert!(!tells(&wish));
    }
}

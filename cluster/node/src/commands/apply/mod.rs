//! `fulmar apply`: a site becomes what a file says, and the difference is shown first.
//!
//! | module | what |
//! |---|---|
//! | [`mod@file`] | what may stand in the file |
//! | [`names`] | what may be a name |
//! | [`plan`] | what differs, in words and as changes |
//! | [`carry`] | asking the site, and changing it |
//!
//! Invariants: what the file does not name stays, unless `--prune` was given, and then only links and
//! rules go, never topics; a change takes effect only on what was shown; links and rules change together, and in
//! that place among the others in which nothing goes on the way that goes neither before nor afterwards.

pub mod carry;
pub mod file;
pub mod names;
pub mod plan;

pub use file::{authority, plain_list};

use super::client::Reaching;
use super::makings::{Makings, goes_as_well, plain};
use super::output::{count, say};
use super::{Stop, output};
use clap::Args;
use fulmar_types::ExitCode;
use fulmar_types::link::LinkDefinition;
use plan::Change;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// Make a site what a file says: its links to other sites, its rules, its topics, its
/// pipelines.
///
/// The difference is shown first. What the file does not name stays as it is.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The file, in TOML: tables `[[link]]`, `[[rule]]`, `[[topic]]` and `[[pipeline]]`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    reaching: Reaching,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only show the difference. Ends with 1 if there is one.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Also remove the links and rules that the file does not name. Topics and pipelines are never
    /// removed.
    #[arg(long)]
    prune: bool,
}

/// Shows the difference, asks, and makes it go away.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    let wanted = file::read(&options.file)?;
    let cluster = options.reaching.reached("fulmar-apply").await?;
    let mut known = carry::known(&cluster, &wanted).await?;
    known.pipelines = super::pipeline::pipelines(&cluster).await?;
    if options.prune && wanted.links.is_empty() && wanted.rules.is_empty() {
        return Err(Stop::usage(
            "the file names no link and no rule, so --prune would remove all.",
        ));
    }
    let changes = plan::changes(&wanted, &known, options.prune).map_err(Stop::usage)?;
    let makings = Makings::of_site(&cluster).await?;
    let makings_after = makings.with(wanted.pipelines.values());
    let rules_after = plan::rules_after(&wanted, &known.rules, options.prune);
    let rules_before = plain(&known.rules);
    let (before, after) = ((&makings, &rules_before), (&makings_after, &rules_after));
    let changes = plan::ordered(changes, before, after).map_err(Stop::usage)?;
    let others = plan::unnamed(&wanted, &known, options.prune);
    say(render(&changes, &others).trim_end());
    let history = super::rule::history_of(&cluster).await?;
    for topic in wanted.rules.keys().filter(|topic| !known.rules.contains_key(*topic)) {
        super::rule::taken_back(&history, topic).iter().for_each(say);
    }
    goes_as_well(before, after).iter().for_each(say);
    let links = plan::links_after(&wanted, &known, options.prune);
    for (topic, regions) in plan::rules_to_look_at(&wanted, &known, options.prune) {
        warn_of_regions((topic, &regions), links.iter().copied());
    }
    if changes.is_empty() {
        return Ok(ExitCode::Ok);
    }
    plan::missing_inputs(&wanted, &known).iter().for_each(output::remark);
    if options.dry_run {
        return Ok(ExitCode::Failed);
    }
    if !options.yes && !agreed(changes.len())? {
        say("nothing was changed");
        return Ok(ExitCode::Failed);
    }
    let mut done = 0;
    for step in plan::steps(&changes) {
        carry::out(&cluster, step).await.map_err(|stop| Stop {
            message: format!("after {} of {}: {}", done, changes.len(), stop.message),
            ..stop
        })?;
        done += step.len();
    }
    say(format!("done: {}", count(changes.len() as u64, "change")));
    Ok(ExitCode::Ok)
}

/// Says which regions of a rule are those of no link: nothing else would show a mistyped one.
pub fn warn_of_regions<'a>(
    (topic, regions): (&str, &[String]),
    links: impl Iterator<Item = &'a LinkDefinition>,
) {
    let known: BTreeSet<&str> = links.map(|link| link.region.as_str()).collect();
    let unknown: Vec<&str> =
        regions.iter().map(String::as_str).filter(|region| !known.contains(region)).collect();
    if unknown.is_empty() {
        return;
    }
    let there = match known.is_empty() {
        true => "there is no link yet".to_owned(),
        false => format!("links lead to {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    };
    output::remark(format!(
        "the rule of {topic} names {}, and no link leads there ({there}).",
        unknown.join(", ")
    ));
}

fn render(changes: &[Change], others: &[String]) -> String {
    let mut text: String = changes.iter().map(|change| format!("{change}\n")).collect();
    if changes.is_empty() {
        text += "the site is as the file says\n";
    }
    if !others.is_empty() {
        text += &format!("not in the file, and left as it is: {}\n", others.join(", "));
    }
    text
}

/// Asks whoever sits at the terminal.
fn agreed(changes: usize) -> Result<bool, Stop> {
    if !std::io::stdin().is_terminal() {
        return Err(Stop::usage("nobody can be asked here; say --yes to make these changes."));
    }
    let question = format!("make {}? [y/N] ", count(changes as u64, "change"));
    let mut out = std::io::stderr().lock();
    let asked = write!(out, "{question}").and_then(|()| out.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| std::io::stdin().read_line(&mut answer));
    read.map_err(|error| Stop::failed(format!("the terminal does not answer: {error}.")))?;
    output::note("");
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

//! `fulmar rule`: where the topics of a site may go. A topic without a rule goes nowhere.

use super::Stop;
use super::apply::carry::{out, rules};
use super::apply::plain_list;
use super::apply::plan::Change;
use super::client::Reaching;
use super::output::say;
use clap::{Args, Subcommand};
use fulmar_types::ExitCode;
use std::collections::BTreeSet;

/// Where the topics of a site may go. A topic without a rule goes nowhere.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Let a topic go to some regions, and to no others.
    Set(Set),
    /// Take a rule back: the topic goes nowhere any more.
    Delete(Delete),
    /// Show all rules.
    List(Of),
}

#[derive(Clone, Debug, Args)]
struct Of {
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Set {
    /// The topic. It need not be there yet.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The regions that may have it, with commas between.
    #[arg(long, value_name = "REGION,...", value_delimiter = ',', required = true)]
    regions: Vec<String>,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Delete {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    reaching: Reaching,
}

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    let (topic, reaching, regions) = match options.command {
        Command::Set(set) => {
            plain_list("a region", &set.regions)?;
            (set.topic, set.reaching, set.regions)
        }
        Command::Delete(delete) => (delete.topic, delete.reaching, Vec::new()),
        Command::List(of) => {
            let cluster = of.reaching.cluster("fulmar-rule")?;
            let rules = rules(&cluster).await?;
            if rules.is_empty() {
                say("no rules: no topic leaves the site");
            }
            for (topic, rule) in rules {
                say(format!("rule {topic}: may go to {}", rule.is.join(", ")));
            }
            return Ok(ExitCode::Ok);
        }
    };
    let cluster = reaching.cluster("fulmar-rule")?;
    let before = rules(&cluster).await?.remove(&topic);
    if before.is_none() && regions.is_empty() {
        return Err(Stop::usage(format!("there is no rule for the topic {topic}.")));
    }
    let number = Some(before.as_ref().map_or(0, |rule| rule.number));
    let before = before.map(|rule| rule.is).unwrap_or_default();
    let after = regions.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let change = Change::Rule { topic, before, number, after };
    out(&cluster, &change).await?;
    say(&change);
    Ok(ExitCode::Ok)
}

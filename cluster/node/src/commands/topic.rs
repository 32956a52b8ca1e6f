//! `fulmar topic`: the topics of a site, over the Kafka protocol, as any Kafka tool would.

use super::apply::names::check_topic;
use super::client::Reaching;
use super::output::{count, grouped, say};
use super::pipeline::pipelines;
use super::{Stop, client};
use clap::{Args, Subcommand};
use fulmar_client::admin::{CreateTopicError, DeleteTopicError};
use fulmar_client::{Cluster, LaidDown, OffsetAt, TopicPartition};
use fulmar_host::time::Duration;
use fulmar_types::ExitCode;
use fulmar_types::pipeline::PipelineDefinition;

const CLIENT: &str = "fulmar-topic";

/// How long a question or a change may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The topics of a site. Any Kafka tool does as well.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Name the topics of a site.
    List(Of),
    /// Create a topic.
    Create(Create),
    /// Remove a topic with all of its records.
    Delete(Delete),
    /// Show the partitions, the offsets and the settings of a topic.
    Describe(Named),
}

#[derive(Clone, Debug, Args)]
struct Of {
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Named {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    name: String,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Delete {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Also if pipelines read or write it, which fail then.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Create {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// How many partitions; a topic keeps the number.
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: u32,
    /// A setting, as in retention.ms=604800000; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    reaching: Reaching,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    let pair = pair.filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| format!("`{text}` is no setting; write KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.command {
        Command::List(of) => list(&of.reaching.reached(CLIENT).await?).await?,
        Command::Create(create) => {
            let settings = create.settings.iter().map(|(key, value)| (key, value));
            check_topic(&create.name, create.partitions, settings)?;
            let cluster = create.reaching.reached(CLIENT).await?;
            let (name, partitions) = (&create.name, create.partitions);
            let created = cluster.create_topic_with(name, partitions, &create.settings, TIMEOUT);
            created.await.map_err(|error| match error {
                CreateTopicError::Exists => {
                    Stop::usage(format!("there is a topic {name} already."))
                }
                CreateTopicError::Refused { message: Some(message), .. } => {
                    Stop::failed(format!("topic {name}: {message}."))
                }
                error => Stop::failed(format!("topic {name}: {error}.")),
            })?;
            say(format!("+ topic {name}: {}", count(u64::from(partitions), "partition")));
        }
        Command::Delete(of) => {
            let cluster = of.reaching.reached(CLIENT).await?;
            let needed = needed_by(&cluster, &of.name).await?;
            if !needed.is_empty() && !of.yes {
                return Err(Stop::usage(format!(
                    "the topic {}: {}, and would fail without it; say --yes.",
                    of.name,
                    needed.join(", ")
                )));
            }
            let copy = client::copy_of(&client::mirrors(&cluster, TIMEOUT).await, &of.name);
            cluster.delete_topic(&of.name, TIMEOUT).await.map_err(|error| match error {
                DeleteTopicError::NoTopic => none(&of.name),
                error => Stop::failed(format!("topic {}: {error}.", of.name)),
            })?;
            say(format!("- topic {}{copy}", of.name));
            if !copy.is_empty() {
                say(
                    "  it is made anew for as long as its link takes it, of what its origin has by then",
                );
            }
        }
        Command::Describe(of) => describe(&of.reaching.reached(CLIENT).await?, &of.name).await?,
    }
    Ok(ExitCode::Ok)
}

/// The pipelines that need a topic, for people.
async fn needed_by(cluster: &Cluster, topic: &str) -> Result<Vec<String>, Stop> {
    let has = |topics: &[String]| topics.iter().any(|name| name == topic);
    let need = |(name, of): (String, LaidDown<PipelineDefinition>)| {
        let what = match (has(&of.is.inputs), has(&of.is.outputs)) {
            (true, _) => "reads",
            (_, true) => "writes",
            (false, false) => return None,
        };
        Some(format!("the pipeline {name} {what} it"))
    };
    Ok(pipelines(cluster).await?.into_iter().filter_map(need).collect())
}

fn none(name: &str) -> Stop {
    Stop::usage(format!("there is no topic {name}; `fulmar topic list` names them."))
}

async fn list(cluster: &Cluster) -> Result<(), Stop> {
    let metadata = client::metadata(cluster, TIMEOUT).await?;
    let mirrors = client::mirrors(cluster, TIMEOUT).await;
    if metadata.topics.is_empty() {
        say("no topics");
    }
    for (name, topic) in &metadata.topics {
        let partitions = count(topic.partitions.len() as u64, "partition");
        let copy = client::copy_of(&mirrors, name);
        say(format!("topic {name}: {partitions}{copy}"));
    }
    Ok(())
}

async fn describe(cluster: &Cluster, name: &str) -> Result<(), Stop> {
    let metadata = client::metadata(cluster, TIMEOUT).await?;
    let topic = metadata.topics.get(name).ok_or_else(|| none(name))?;
    let mirrors = client::mirrors(cluster, TIMEOUT).await;
    let copy = client::copy_of(&mirrors, name);
    let partitions = count(topic.partitions.len() as u64, "partition");
    say(format!("topic {name}: {partitions}{copy}\n    id  {}", topic.id));
    let settings = cluster.topic_settings(name, TIMEOUT).await;
    let settings = settings.map_err(|error| {
        Stop::failed(format!("the settings of the topic {name} are not known: {error}."))
    })?;
    for (key, value) in settings {
        say(format!("    {key}  {value}"));
    }
    for partition in topic.partitions.keys() {
        let of = TopicPartition::new(name, *partition);
        let at = async |at| {
            let found = cluster.find_offset(&of, at, TIMEOUT).await;
            found.map(|found| grouped(found.offset.unwrap_or_default().get()))
        };
        let offsets = match (at(OffsetAt::Earliest).await, at(OffsetAt::Latest).await) {
            (Ok(first), Ok(next)) => format!("{first} to {next}"),
            (Err(error), _) | (_, Err(error)) => error.to_string(),
        };
        say(format!("  {partition:>4}  {offsets}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_pairs() {
        let pair = Ok(("retention.ms".to_owned(), "7".to_owned()));
        assert_eq!(setting("retention.ms=7"), pair);
        for bad in ["retention.ms", "=7", ""] {
            assert!(setting(bad).is_err(), "{bad}");
        }
    }
}

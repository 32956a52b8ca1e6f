//! Asking a site what it is, and changing it.

use super::super::Stop;
use super::super::pipeline::deploy;
use super::file::Topic;
use super::plan::{Change, Known, Links, Rules};
use fulmar_client::Cluster;
use fulmar_client::admin::AlterTopicError;
use fulmar_host::time::Duration;
use fulmar_types::rule::RuleDefinition;
use std::collections::BTreeMap;
use std::fmt::Display;

/// How long a question or a change may take.
const TIMEOUT: Duration = Duration::from_secs(15);

fn unknown(what: &str, error: impl Display) -> Stop {
    Stop::failed(format!("the {what} of the site are not known: {error}."))
}

/// The links of a site, by name.
pub async fn links(cluster: &Cluster) -> Result<Links, Stop> {
    cluster.links(TIMEOUT).await.map_err(|error| unknown("links", error))
}

/// The rules of a site, by topic.
pub async fn rules(cluster: &Cluster) -> Result<Rules, Stop> {
    cluster.rules(TIMEOUT).await.map_err(|error| unknown("rules", error))
}

/// What a site is, and how it has these topics.
pub async fn known(cluster: &Cluster, topics: &BTreeMap<String, Topic>) -> Result<Known, Stop> {
    let (links, rules) = (links(cluster).await?, rules(cluster).await?);
    let mut known = Known { links, rules, ..Known::default() };
    if topics.is_empty() {
        return Ok(known);
    }
    let metadata = cluster.refresh_all(TIMEOUT).await;
    let metadata = metadata.map_err(|error| unknown("topics", error))?;
    for name in topics.keys() {
        let Some(of) = metadata.topics.get(name) else { continue };
        let settings = topic_settings(cluster, name).await?;
        let partitions = u32::try_from(of.partitions.len()).unwrap_or(u32::MAX);
        known.topics.insert(name.clone(), Topic { partitions, settings });
    }
    Ok(known)
}

/// Makes a change.
pub async fn out(cluster: &Cluster, change: &Change) -> Result<(), Stop> {
    let altered = match change {
        Change::NewTopic { name, topic } => {
            let settings: Vec<(String, String)> =
                topic.settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let created = cluster.create_topic_with(name, topic.partitions, &settings, TIMEOUT);
            return match created.await {
                Ok(_) => Ok(()),
                Err(error) => Err(Stop::failed(format!("topic {name}: {error}."))),
            };
        }
        Change::TopicSettings { name, changed } => {
            let is = topic_settings(cluster, name).await?;
            if changed.iter().any(|(key, (before, _))| is.get(key) != before.as_ref()) {
                let text = "its settings have been changed meanwhile; look at them again";
                return Err(Stop::failed(format!("topic {name}: {text}.")));
            }
            let changed: Vec<(String, Option<String>)> = changed
                .iter()
                .map(|(key, (_, after))| (key.clone(), Some(after.clone())))
                .collect();
            let altered = cluster.alter_topic(name, &changed, TIMEOUT).await;
            altered.map_err(|error| (format!("topic {name}"), error))
        }
        Change::Rule { topic, before, number, after } => {
            let number = match number {
                Some(number) => *number,
                None => number_of(cluster, topic, before).await?,
            };
            let set = cluster.set_rule(topic, Some(number), after, TIMEOUT).await;
            set.map_err(|error| (format!("rule {topic}"), error))
        }
        Change::Pipeline { name, before, settings, .. } => {
            return deploy::put(cluster, name, before.as_deref(), settings).await;
        }
        Change::Link { name, before, after } => {
            let number = before.as_ref().map_or(0, |before| before.number);
            let set = cluster.set_link(name, Some(number), after.as_ref(), TIMEOUT).await;
            set.map_err(|error| (format!("link {name}"), error))
        }
    };
    let Err((what, error)) = altered else { return Ok(()) };
    // An attempt without an answer may have done it, and the one after it have been refused for that.
    if is_done(cluster, change).await {
        return Ok(());
    }
    let text = match &error {
        AlterTopicError::Refused { message: Some(message), .. } => message.clone(),
        error => error.to_string(),
    };
    Err(Stop::failed(format!("{what}: {text}.")))
}

/// The number of a rule that an earlier change has made what it is.
async fn number_of(cluster: &Cluster, topic: &str, is: &RuleDefinition) -> Result<u64, Stop> {
    match rules(cluster).await?.remove(topic) {
        Some(rule) if rule.is == *is => Ok(rule.number),
        None if is.regions.is_empty() => Ok(0),
        _ => Err(Stop::failed(format!("rule {topic}: it has been changed meanwhile."))),
    }
}

async fn topic_settings(cluster: &Cluster, name: &str) -> Result<BTreeMap<String, String>, Stop> {
    let settings = cluster.topic_settings(name, TIMEOUT).await;
    settings.map_err(|error| unknown("topics", error))
}

async fn is_done(cluster: &Cluster, change: &Change) -> bool {
    match change {
        Change::Link { name, after, .. } => links(cluster)
            .await
            .is_ok_and(|links| links.get(name).map(|link| &link.is) == after.as_ref()),
        Change::Rule { topic, after, .. } => rules(cluster).await.is_ok_and(|rules| {
            rules.get(topic).map(|rule| rule.is.clone()).unwrap_or_default() == *after
        }),
        Change::TopicSettings { name, changed } => topic_settings(cluster, name)
            .await
            .is_ok_and(|is| changed.iter().all(|(key, (_, after))| is.get(key) == Some(after))),
        Change::NewTopic { .. } | Change::Pipeline { .. } => false,
    }
}

//! Asking a site what it is, and changing it.

use super::super::Stop;
use super::super::pipeline::deploy;
use super::file::{Topic, Wanted};
use super::plan::{Change, Known, Links, Rules};
use fulmar_client::{Cluster, Definitions};
use fulmar_host::time::Duration;
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

/// What a site is, as far as what is wanted of it may differ from that.
pub async fn known(cluster: &Cluster, wanted: &Wanted) -> Result<Known, Stop> {
    let (links, rules) = (links(cluster).await?, rules(cluster).await?);
    let mut known = Known { links, rules, ..Known::default() };
    if wanted.topics.is_empty() && wanted.pipelines.is_empty() {
        return Ok(known);
    }
    let metadata = cluster.refresh_all(TIMEOUT).await;
    let metadata = metadata.map_err(|error| unknown("topics", error))?;
    for name in wanted.topics.keys() {
        let Some(of) = metadata.topics.get(name) else { continue };
        let settings = topic_settings(cluster, name).await?;
        let partitions = u32::try_from(of.partitions.len()).unwrap_or(u32::MAX);
        known.topics.insert(name.clone(), Topic { partitions, settings });
    }
    known.names = metadata.topics.into_keys().collect();
    Ok(known)
}

/// Makes the changes of a step, all or none. Links and rules are one step; anything else is a step of its own.
pub async fn out(cluster: &Cluster, step: &[Change]) -> Result<(), Stop> {
    match step {
        [Change::NewTopic { name, topic }] => {
            let settings: Vec<(String, String)> =
                topic.settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let created = cluster.create_topic_with(name, topic.partitions, &settings, TIMEOUT);
            match created.await {
                Ok(_) => Ok(()),
                Err(error) => Err(Stop::failed(format!("topic {name}: {error}."))),
            }
        }
        [Change::TopicSettings { name, changed }] => alter_topic(cluster, name, changed).await,
        [Change::Pipeline { name, before, settings, .. }] => {
            deploy::put(cluster, name, before.as_deref(), settings).await
        }
        definitions => define(cluster, definitions).await,
    }
}

async fn alter_topic(
    cluster: &Cluster,
    name: &str,
    changed: &BTreeMap<String, (Option<String>, String)>,
) -> Result<(), Stop> {
    let is = topic_settings(cluster, name).await?;
    if changed.iter().any(|(key, (before, _))| is.get(key) != before.as_ref()) {
        let text = "its settings have been changed meanwhile; look at them again";
        return Err(Stop::failed(format!("topic {name}: {text}.")));
    }
    let after: Vec<(String, Option<String>)> =
        changed.iter().map(|(key, (_, after))| (key.clone(), Some(after.clone()))).collect();
    let Err(error) = cluster.alter_topic(name, &after, TIMEOUT).await else { return Ok(()) };
    // An attempt without an answer may have done it, and the one after it have been refused for that.
    let is = topic_settings(cluster, name).await;
    if is.is_ok_and(|is| changed.iter().all(|(key, (_, after))| is.get(key) == Some(after))) {
        return Ok(());
    }
    Err(deploy::refused(&format!("topic {name}"), &error))
}

/// Changes links and rules together.
async fn define(cluster: &Cluster, changes: &[Change]) -> Result<(), Stop> {
    let mut definitions = Definitions::default();
    for change in changes {
        match change {
            Change::Link { name, before, after } => {
                let number = before.as_ref().map_or(0, |before| before.number);
                definitions.link(name, Some(number), after.as_ref());
            }
            Change::Rule { topic, number, after, .. } => {
                definitions.rule(topic, Some(*number), after);
            }
            other => unreachable!("{other} is neither a link nor a rule"),
        }
    }
    let Err(error) = cluster.lay_down(&definitions, TIMEOUT).await else { return Ok(()) };
    let now = match (links(cluster).await, rules(cluster).await) {
        (Ok(links), Ok(rules)) => Known { links, rules, ..Known::default() },
        _ => return Err(deploy::refused(&named(changes), &error)),
    };
    // An attempt without an answer may have done it.
    if changes.iter().all(|change| is_made(change, &now)) {
        return Ok(());
    }
    let moved: Vec<&Change> = changes.iter().filter(|change| has_moved(change, &now)).collect();
    let of = if moved.is_empty() { named(changes) } else { named(moved) };
    Err(deploy::refused(&of, &error))
}

/// The links and rules that are changed, for people.
fn named<'a>(changes: impl IntoIterator<Item = &'a Change>) -> String {
    let name = |change: &Change| match change {
        Change::Link { name, .. } => Some(format!("link {name}")),
        Change::Rule { topic, .. } => Some(format!("rule {topic}")),
        _ => None,
    };
    changes.into_iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

/// Whether a link or a rule is what it is to be.
fn is_made(change: &Change, now: &Known) -> bool {
    match change {
        Change::Link { name, after, .. } => {
            now.links.get(name).map(|link| &link.is) == after.as_ref()
        }
        Change::Rule { topic, after, .. } => {
            now.rules.get(topic).map(|rule| rule.is.clone()).unwrap_or_default() == *after
        }
        _ => false,
    }
}

/// Whether a link or a rule is not what it was any more.
fn has_moved(change: &Change, now: &Known) -> bool {
    match change {
        Change::Link { name, before, .. } => {
            now.links.get(name).map(|link| link.number) != before.as_ref().map(|of| of.number)
        }
        Change::Rule { topic, number, .. } => {
            now.rules.get(topic).map_or(0, |rule| rule.number) != *number
        }
        _ => false,
    }
}

async fn topic_settings(cluster: &Cluster, name: &str) -> Result<BTreeMap<String, String>, Stop> {
    let settings = cluster.topic_settings(name, TIMEOUT).await;
    settings.map_err(|error| unknown("topics", error))
}

//! What may stand in the file of `fulmar apply`.

use super::super::Stop;
use super::super::pipeline::deploy::Wish;
use super::names::{check_link, check_pipeline_name, check_rule, check_topic};
use super::plan::sorted;
use fulmar_host::real::tls::keys::authority_of;
use fulmar_types::link::{
    self, COPIES_PARTITIONS_DEFAULT, CopyLimits, LINK_CONNECTIONS_DEFAULT, LinkDefinition, NO_CAP,
};
use fulmar_types::rule::{FIELDS, HEADERS, KEY, REGIONS, RuleDefinition};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    link: Vec<WrittenLink>,
    #[serde(default)]
    rule: Vec<WrittenRule>,
    #[serde(default)]
    topic: Vec<WrittenTopic>,
    #[serde(default)]
    pipeline: Vec<WrittenPipeline>,
}

/// A link to another site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLink {
    name: String,
    /// The name of the site, if it is not that of the link.
    site: Option<String>,
    region: String,
    /// The certificate of the site's authority; relative to the file.
    authority: PathBuf,
    #[serde(default)]
    dial: Vec<String>,
    #[serde(default)]
    take: Vec<String>,
    #[serde(default)]
    paused: bool,
    /// A size for each second; as much as the line takes if it is left out.
    cap: Option<String>,
    #[serde(default = "connections")]
    connections: u8,
    #[serde(default = "partitions_max")]
    partitions_max: u32,
    /// A size; as much as the origin keeps if it is left out.
    retention_bytes_max: Option<String>,
}

fn partitions_max() -> u32 {
    COPIES_PARTITIONS_DEFAULT
}

fn connections() -> u8 {
    LINK_CONNECTIONS_DEFAULT
}

/// Why a table of a link is none.
enum Problem {
    /// A value that it cannot have, for people.
    Value(String),
    Other(Stop),
}

impl From<String> for Problem {
    fn from(why: String) -> Self {
        Self::Value(why)
    }
}

impl From<Stop> for Problem {
    fn from(stop: Stop) -> Self {
        Self::Other(stop)
    }
}

impl WrittenLink {
    fn definition(self, beside: &Path) -> Result<LinkDefinition, Problem> {
        plain_list("a place to dial", &self.dial)?;
        plain_list("a topic", &self.take)?;
        let keep = self.retention_bytes_max.as_deref().unwrap_or(NO_CAP);
        Ok(LinkDefinition {
            site: self.site.unwrap_or(self.name),
            region: self.region,
            authority: authority(&beside.join(self.authority))?,
            dial: self.dial,
            take: self.take,
            paused: self.paused,
            cap: self.cap.as_deref().map_or(Ok(None), link::cap)?,
            connections: link::connections(&self.connections.to_string())?,
            copies: CopyLimits {
                partitions_max: link::partitions_max(&self.partitions_max.to_string())?,
                retention_bytes_max: link::retention_bytes_max(keep)?,
            },
        })
    }
}

/// Where a topic may go, and in which form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    topic: String,
    regions: Vec<String>,
    key: Option<String>,
    headers: Option<WrittenHeaders>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

/// What becomes of headers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WrittenHeaders {
    /// The same of all.
    All(String),
    /// By name.
    Each(BTreeMap<String, String>),
}

impl WrittenRule {
    /// The rule.
    ///
    /// # Errors
    /// For people.
    fn definition(self) -> Result<RuleDefinition, String> {
        let listed = |pairs: BTreeMap<String, String>| {
            let pairs = pairs.into_iter().map(|(name, action)| format!("{name}={action}"));
            pairs.collect::<Vec<_>>().join(",")
        };
        let headers = self.headers.map(|headers| match headers {
            WrittenHeaders::All(text) => text,
            WrittenHeaders::Each(pairs) => listed(pairs),
        });
        let settings = [
            (REGIONS, Some(self.regions.join(","))),
            (KEY, self.key),
            (HEADERS, headers),
            (FIELDS, (!self.fields.is_empty()).then(|| listed(self.fields))),
        ];
        let given = settings.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        RuleDefinition::laid_down(given).map(|rule| sorted(&rule))
    }
}

/// A topic.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTopic {
    name: String,
    partitions: u32,
    /// All that differ from the defaults, as in Kafka.
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// A pipeline.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPipeline {
    name: String,
    /// What it does; relative to the file.
    file: PathBuf,
    latency_ms: Option<u32>,
    #[serde(default)]
    paused: bool,
}

/// A topic as it is to be, or as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// How many partitions.
    pub partitions: u32,
    /// The settings that were given.
    pub settings: BTreeMap<String, String>,
}

/// What a site is to be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Its links, by name.
    pub links: BTreeMap<String, LinkDefinition>,
    /// Its rules, by topic.
    pub rules: BTreeMap<String, RuleDefinition>,
    /// Its topics.
    pub topics: BTreeMap<String, Topic>,
    /// Its pipelines, by name.
    pub pipelines: BTreeMap<String, Wish>,
}

/// Refuses a list that would be another one once it is written with commas between.
pub fn plain_list(what: &str, texts: &[String]) -> Result<(), Stop> {
    let is_plain =
        |text: &&String| !text.is_empty() && text.trim() == text.as_str() && !text.contains(',');
    match texts.iter().find(|text| !is_plain(text)) {
        Some(text) => Err(Stop::usage(format!(
            "`{text}` is no name of {what}: it is empty, or has a comma or a space at an end."
        ))),
        None => Ok(()),
    }
}

/// The authority in a file, as a link pins it.
pub fn authority(file: &Path) -> Result<Vec<u8>, Stop> {
    if !file.exists() {
        return Err(Stop::usage(format!(
            "there is no file {}. It is the `authority.crt` of the other site, by which its nodes prove who they \
             are: copy it from there; one that is made here is not theirs.",
            file.display()
        )));
    }
    authority_of(file).map_err(|error| {
        Stop::usage(format!("the authority of the other site cannot be read: {error}."))
    })
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Wanted, Stop> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Stop::usage(format!("cannot read {shown}: {error}.")))?;
    let written: Written = toml::from_str(&text)
        .map_err(|error| Stop::usage(format!("{shown} is not valid.\n{error}")))?;
    let beside = path.parent().unwrap_or(Path::new("."));
    let twice = |what: &str, name: &str| {
        Stop::usage(format!("{shown} is not valid: there are two tables for the {what} {name}."))
    };
    let mut wanted = Wanted::default();
    for link in written.link {
        let name = link.name.clone();
        let definition = link.definition(beside).map_err(|problem| match problem {
            Problem::Value(why) => {
                Stop::usage(format!("{shown} is not valid: the link {name}: {why}."))
            }
            Problem::Other(stop) => stop,
        })?;
        check_link(&name, &definition)?;
        if wanted.links.insert(name.clone(), definition).is_some() {
            return Err(twice("link", &name));
        }
    }
    for rule in written.rule {
        if rule.regions.is_empty() {
            return Err(Stop::usage(format!(
                "{shown} is not valid: the rule of the topic {} names no region. Leave it out, and \
                 the topic goes nowhere.",
                rule.topic
            )));
        }
        plain_list("a region", &rule.regions)?;
        let topic = rule.topic.clone();
        let definition = rule.definition().map_err(|error| {
            Stop::usage(format!("{shown} is not valid: the rule of the topic {topic}: {error}."))
        })?;
        check_rule(&topic, &definition)?;
        if wanted.rules.insert(topic.clone(), definition).is_some() {
            return Err(twice("rule of the topic", &topic));
        }
    }
    for topic in written.topic {
        check_topic(&topic.name, topic.partitions, topic.settings.iter())?;
        let is = Topic { partitions: topic.partitions, settings: topic.settings };
        if wanted.topics.insert(topic.name.clone(), is).is_some() {
            return Err(twice("topic", &topic.name));
        }
    }
    for WrittenPipeline { name, file, latency_ms, paused } in written.pipeline {
        check_pipeline_name("pipeline", &name)?;
        let wish = Wish::read(&beside.join(file), (latency_ms, paused))?;
        if wanted.pipelines.insert(name.clone(), wish).is_some() {
            return Err(twice("pipeline", &name));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_is_not_there_comes_from_the_other_site() {
        let text = authority(Path::new("/nowhere/hub.crt")).expect_err("it is not there").message;
        assert!(text.starts_with("there is no file /nowhere/hub.crt. It is the"), "{text}");
        assert!(text.contains("copy it from there") && !text.contains("fulmar keys"), "{text}");
    }
}

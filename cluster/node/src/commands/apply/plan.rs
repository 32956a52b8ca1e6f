//! What a site lacks to be what a file says.

use super::file::{Topic, Wanted};
use fulmar_client::LaidDown;
use fulmar_host::real::tls::fingerprint;
use fulmar_types::link::LinkDefinition;
use std::collections::BTreeMap;
use std::fmt;

/// What a site is.
#[derive(Debug, Default)]
pub struct Known {
    /// Its links, by name.
    pub links: BTreeMap<String, LaidDown<LinkDefinition>>,
    /// The regions that topics may go to.
    pub rules: BTreeMap<String, LaidDown<Vec<String>>>,
    /// Its topics, as far as somebody wants to know.
    pub topics: BTreeMap<String, Topic>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new topic.
    NewTopic {
        /// Its name.
        name: String,
        /// What it is to be.
        topic: Topic,
    },
    /// Other settings of a topic.
    TopicSettings {
        /// Its name.
        name: String,
        /// The settings that change: before, and after.
        changed: BTreeMap<String, (Option<String>, Option<String>)>,
    },
    /// A rule.
    Rule {
        /// The topic.
        topic: String,
        /// What it is.
        before: Option<LaidDown<Vec<String>>>,
        /// What it is to be; none removes it.
        after: Vec<String>,
    },
    /// A link.
    Link {
        /// Its name.
        name: String,
        /// What it is.
        before: Option<Box<LaidDown<LinkDefinition>>>,
        /// What it is to be; `None` removes it.
        after: Option<LinkDefinition>,
    },
}

/// What is to be done, in this order: first what may leave the site, so that no link carries what a new
/// rule keeps back.
///
/// # Errors
/// For people: what cannot be done.
pub fn changes(wanted: &Wanted, known: &Known, prune: bool) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    for (topic, regions) in &wanted.rules {
        let before = known.rules.get(topic);
        let is_same = before.is_some_and(|rule| {
            let mut known = rule.is.clone();
            known.sort();
            known == *regions
        });
        if !is_same {
            let (topic, before) = (topic.clone(), before.cloned());
            changes.push(Change::Rule { topic, before, after: regions.clone() });
        }
    }
    if prune {
        for (topic, rule) in known.rules.iter().filter(|(of, _)| !wanted.rules.contains_key(*of)) {
            let (topic, before) = (topic.clone(), Some(rule.clone()));
            changes.push(Change::Rule { topic, before, after: Vec::new() });
        }
    }
    for (name, topic) in &wanted.topics {
        changes.extend(topic_change(name, topic, known.topics.get(name))?);
    }
    for (name, definition) in &wanted.links {
        let before = known.links.get(name);
        if before.is_none_or(|link| link.is != *definition) {
            let (name, before) = (name.clone(), before.cloned().map(Box::new));
            changes.push(Change::Link { name, before, after: Some(definition.clone()) });
        }
    }
    if prune {
        for (name, link) in known.links.iter().filter(|(of, _)| !wanted.links.contains_key(*of)) {
            let (name, before) = (name.clone(), Some(Box::new(link.clone())));
            changes.push(Change::Link { name, before, after: None });
        }
    }
    Ok(changes)
}

fn topic_change(
    name: &str,
    wanted: &Topic,
    known: Option<&Topic>,
) -> Result<Option<Change>, String> {
    let Some(known) = known else {
        return Ok(Some(Change::NewTopic { name: name.to_owned(), topic: wanted.clone() }));
    };
    if known.partitions != wanted.partitions {
        return Err(format!(
            "the topic {name} has {} partitions and not {}; a topic keeps the number that it was \
             created with.",
            known.partitions, wanted.partitions
        ));
    }
    let mut changed = BTreeMap::new();
    for key in known.settings.keys().chain(wanted.settings.keys()) {
        let (before, after) = (known.settings.get(key), wanted.settings.get(key));
        if before != after {
            changed.insert(key.clone(), (before.cloned(), after.cloned()));
        }
    }
    let name = name.to_owned();
    Ok((!changed.is_empty()).then_some(Change::TopicSettings { name, changed }))
}

/// The links and rules that a file does not name.
pub fn unnamed(wanted: &Wanted, known: &Known) -> Vec<String> {
    let links = known.links.keys().filter(|name| !wanted.links.contains_key(*name));
    let rules = known.rules.keys().filter(|topic| !wanted.rules.contains_key(*topic));
    let links = links.map(|name| format!("link {name}"));
    links.chain(rules.map(|topic| format!("rule {topic}"))).collect()
}

/// What a link is, setting by setting, for people.
pub fn settings_of(link: &LinkDefinition) -> Vec<(&'static str, String)> {
    let listed = |texts: &[String]| match texts {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    };
    let dial = if link.dial.is_empty() { "it dials us".to_owned() } else { listed(&link.dial) };
    vec![
        ("site", link.site.clone()),
        ("region", link.region.clone()),
        ("authority", fingerprint(&link.authority)),
        ("dial", dial),
        ("take", listed(&link.take)),
        ("paused", link.paused.to_string()),
    ]
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewTopic { name, topic } => {
                write!(f, "+ topic {name}\n    partitions  {}", topic.partitions)?;
                topic.settings.iter().try_for_each(|(key, value)| write!(f, "\n    {key}  {value}"))
            }
            Self::TopicSettings { name, changed } => {
                write!(f, "~ topic {name}")?;
                let text = |value: &Option<String>| match value {
                    Some(value) => value.clone(),
                    None => "its default".to_owned(),
                };
                changed.iter().try_for_each(|(key, (before, after))| {
                    write!(f, "\n    {key}  {} -> {}", text(before), text(after))
                })
            }
            Self::Rule { topic, before: None, after } => {
                write!(f, "+ rule {topic}\n    may go to  {}", after.join(", "))
            }
            Self::Rule { topic, before: Some(before), after } if after.is_empty() => {
                write!(f, "- rule {topic}\n    may go to  {} -> nowhere", before.is.join(", "))
            }
            Self::Rule { topic, before: Some(before), after } => {
                let (before, after) = (before.is.join(", "), after.join(", "));
                write!(f, "~ rule {topic}\n    may go to  {before} -> {after}")
            }
            Self::Link { name, before: None, after } => {
                write!(f, "+ link {name}")?;
                let settings = after.as_ref().map(settings_of).unwrap_or_default();
                settings.iter().try_for_each(|(key, value)| write!(f, "\n    {key:<9}  {value}"))
            }
            Self::Link { name, before: Some(_), after: None } => write!(f, "- link {name}"),
            Self::Link { name, before: Some(before), after: Some(after) } => {
                write!(f, "~ link {name}")?;
                let both = settings_of(&before.is).into_iter().zip(settings_of(after));
                let mut differ = both.filter(|(before, after)| before != after);
                differ.try_for_each(|((key, before), (_, after))| {
                    write!(f, "\n    {key:<9}  {before} -> {after}")
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(dial: &[&str]) -> LinkDefinition {
        LinkDefinition {
            site: "hub".to_owned(),
            region: "eu".to_owned(),
            authority: vec![1],
            dial: dial.iter().map(|place| (*place).to_owned()).collect(),
            take: vec!["orders".to_owned()],
            paused: false,
        }
    }

    fn topic(settings: &[(&str, &str)]) -> Topic {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Topic { partitions: 4, settings: settings.collect() }
    }

    fn laid_down<T>(number: u64, is: T) -> LaidDown<T> {
        LaidDown { number, is }
    }

    fn regions(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What is wanted, and a site that has none of it, or something else.
    fn both() -> (Wanted, Known) {
        let name = |name: &str| name.to_owned();
        let wanted = Wanted {
            links: BTreeMap::from([(name("hub"), link(&["h:1"])), (name("new"), link(&[]))]),
            rules: BTreeMap::from([
                (name("a"), regions(&["eu"])),
                (name("b"), regions(&["eu", "us"])),
                (name("c"), regions(&["eu", "us"])),
            ]),
            topics: BTreeMap::from([
                (name("there"), topic(&[("retention.ms", "7"), ("retention.bytes", "9")])),
                (name("missing"), topic(&[("retention.ms", "7")])),
            ]),
        };
        let known = Known {
            links: BTreeMap::from([
                (name("hub"), laid_down(7, link(&["h:1", "h:2"]))),
                (name("old"), laid_down(8, link(&[]))),
            ]),
            rules: BTreeMap::from([
                (name("b"), laid_down(3, regions(&["us"]))),
                (name("c"), laid_down(4, regions(&["us", "eu"]))),
                (name("d"), laid_down(5, regions(&["us"]))),
            ]),
            topics: BTreeMap::from([(name("there"), topic(&[("retention.ms", "8"), ("x", "y")]))]),
        };
        (wanted, known)
    }

    #[test]
    fn the_difference_is_what_is_shown() {
        let (wanted, known) = both();
        let text = |prune| {
            let changes = changes(&wanted, &known, prune).expect("it can be done");
            changes.iter().map(|change| format!("{change}\n")).collect::<String>()
        };
        insta::assert_snapshot!(text(false));
        let pruned = text(true).len() - text(false).len();
        assert!(pruned > 0 && text(true).contains("- link old") && text(true).contains("- rule d"));
        assert_eq!(unnamed(&wanted, &known), ["link old", "rule d"]);
    }

    #[test]
    fn partitions_stay() {
        let (mut wanted, known) = both();
        wanted.topics.get_mut("there").expect("it is wanted").partitions = 5;
        let text = changes(&wanted, &known, false).expect_err("a topic keeps its partitions");
        assert!(text.contains("4 partitions and not 5"), "{text}");
    }
}

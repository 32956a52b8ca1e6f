//! What a site lacks to be what a file says.

use super::super::makings::{Going, goes_as_well, plain};
use super::super::pipeline::deploy::written_by;
use super::file::{Topic, Wanted};
use fulmar_client::{LaidDown, PipelineSettings};
use fulmar_host::real::tls::fingerprint;
use fulmar_types::link::{self, LinkDefinition, NO_CAP};
use fulmar_types::pipeline::PipelineDefinition;
use fulmar_types::rule::RuleDefinition;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Links, by name.
pub type Links = BTreeMap<String, LaidDown<LinkDefinition>>;

/// Rules, by topic.
pub type Rules = BTreeMap<String, LaidDown<RuleDefinition>>;

/// What a site is.
#[derive(Debug, Default)]
pub struct Known {
    /// Its links, by name.
    pub links: Links,
    /// Its rules, by topic.
    pub rules: Rules,
    /// Its topics, as far as somebody wants to know.
    pub topics: BTreeMap<String, Topic>,
    /// The names of all its topics, if somebody wants to know of topics or pipelines.
    pub names: BTreeSet<String>,
    /// Its pipelines, by name.
    pub pipelines: BTreeMap<String, LaidDown<PipelineDefinition>>,
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
        changed: BTreeMap<String, (Option<String>, String)>,
    },
    /// A rule.
    Rule {
        /// The topic.
        topic: String,
        /// What it is; without regions if there is none.
        before: RuleDefinition,
        /// Its number, 0 if there is none.
        number: u64,
        /// What it is to be; without regions it is removed.
        after: RuleDefinition,
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
    /// A pipeline.
    Pipeline {
        /// Its name.
        name: String,
        /// What it is.
        before: Option<Box<LaidDown<PipelineDefinition>>>,
        /// What it is to be.
        settings: PipelineSettings,
        /// What differs, for people.
        lines: Vec<String>,
    },
}

/// What is to be done: links and rules, which change together, then topics, then pipelines; [`ordered`] says whether the
/// links and rules come first or last.
///
/// # Errors
/// For people: what cannot be done.
pub fn changes(wanted: &Wanted, known: &Known, prune: bool) -> Result<Vec<Change>, String> {
    for (name, link) in &wanted.links {
        if let Some(before) = known.links.get(name).filter(|before| before.is.site != link.site) {
            return Err(format!(
                "the link {name} leads to the site {}, and not to {}: a link stays with its site. Give the new \
                 one another name, or delete this one first.",
                before.is.site, link.site
            ));
        }
    }
    let mut changes = link_changes(wanted, known, prune);
    let none = RuleDefinition::default();
    // What goes makes room for what comes.
    let pruned = known.rules.keys().filter(|topic| prune && !wanted.rules.contains_key(*topic));
    for (topic, after) in pruned.map(|topic| (topic, &none)).chain(&wanted.rules) {
        changes.extend(rule_change(topic, known.rules.get(topic), after));
    }
    for (name, topic) in &wanted.topics {
        changes.extend(topic_change(name, topic, known.topics.get(name))?);
    }
    for (name, wish) in &wanted.pipelines {
        let before = known.pipelines.get(name);
        let mut lines = wish.lines(before.map(|before| &before.is));
        if let Some(before) = before {
            wish.fits(name, &before.is)?;
        }
        if !lines.is_empty() {
            lines.extend(wish.notes(others(name, wanted, known)));
            let (name, settings) = (name.clone(), wish.settings.clone());
            let before = before.cloned().map(Box::new);
            changes.push(Change::Pipeline { name, before, settings, lines });
        }
    }
    Ok(changes)
}

/// The changes in the steps in which they are made: the links and rules, then each of the others.
pub fn steps(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    changes.chunk_by(|one, next| one.is_definition() && next.is_definition())
}

fn link_changes(wanted: &Wanted, known: &Known, prune: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = known.links.iter().filter(|(of, _)| prune && !wanted.links.contains_key(*of));
    let removed = |(name, link): (&String, &LaidDown<LinkDefinition>)| {
        let (name, before) = (name.clone(), Some(Box::new(link.clone())));
        Change::Link { name, before, after: None }
    };
    // A site has one link, and only so many: those that others take the place of go first.
    changes.extend(gone.map(removed));
    for (name, definition) in &wanted.links {
        let before = known.links.get(name);
        if before.is_none_or(|link| link.is != *definition) {
            let (name, before) = (name.clone(), before.cloned().map(Box::new));
            changes.push(Change::Link { name, before, after: Some(definition.clone()) });
        }
    }
    changes
}

/// The changes in an order in which at no time more goes than before or afterwards, whatever becomes of it on the way.
/// What pipelines make goes by the rules of what it is made of, as far as it has none of its own: as `before` and
/// `after` say, what pipelines have made and by which rules.
///
/// # Errors
/// For people: in no order.
pub fn ordered(
    mut changes: Vec<Change>,
    before: Going<'_>,
    after: Going<'_>,
) -> Result<Vec<Change>, String> {
    if goes_as_well(after, (before.0, after.1)).is_empty() {
        return Ok(changes);
    }
    let on_the_way = goes_as_well(before, (after.0, before.1));
    if on_the_way.is_empty() {
        let definitions = changes.iter().filter(|change| change.is_definition()).count();
        changes.rotate_left(definitions);
        return Ok(changes);
    }
    Err(format!(
        "the rules and the pipelines of the file cannot change in any order without letting go on the way what goes \
         neither now nor afterwards. Take back the rules of what the pipelines read and write first, then apply the \
         file.\n{}",
        on_the_way.join("\n")
    ))
}

/// What the other pipelines write that there are once a site is as a file says.
fn others<'a>(
    name: &'a str,
    wanted: &'a Wanted,
    known: &'a Known,
) -> impl Iterator<Item = (&'a str, BTreeSet<&'a str>)> {
    let left = known.pipelines.iter().filter(|(other, _)| !wanted.pipelines.contains_key(*other));
    let left = left.map(|(other, of)| (other.as_str(), written_by(&of.is)));
    let named = wanted.pipelines.iter().map(|(other, wish)| (other.as_str(), wish.outputs()));
    left.chain(named).filter(move |(other, _)| *other != name)
}

fn rule_change(
    topic: &str,
    known: Option<&LaidDown<RuleDefinition>>,
    after: &RuleDefinition,
) -> Option<Change> {
    let before = sorted(&known.map(|rule| rule.is.clone()).unwrap_or_default());
    let (after, number) = (sorted(after), known.map_or(0, |rule| rule.number));
    let topic = topic.to_owned();
    (before != after).then_some(Change::Rule { topic, before, number, after })
}

/// A rule with its regions in order: in which they are written says nothing.
pub fn sorted(rule: &RuleDefinition) -> RuleDefinition {
    let regions: BTreeSet<String> = rule.regions.iter().cloned().collect();
    RuleDefinition { regions: regions.into_iter().collect(), ..rule.clone() }
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
    for (key, after) in &wanted.settings {
        let before = known.settings.get(key);
        if before != Some(after) {
            changed.insert(key.clone(), (before.cloned(), after.clone()));
        }
    }
    let name = name.to_owned();
    Ok((!changed.is_empty()).then_some(Change::TopicSettings { name, changed }))
}

/// The rules that there are once a site is as a file says.
pub fn rules_after(
    wanted: &Wanted,
    known: &Rules,
    prune: bool,
) -> BTreeMap<String, RuleDefinition> {
    let left = if prune { BTreeMap::new() } else { plain(known) };
    left.into_iter().chain(wanted.rules.clone()).collect()
}

/// What a file does not name, and what stays: links and rules unless `prune`, and pipelines.
pub fn unnamed(wanted: &Wanted, known: &Known, prune: bool) -> Vec<String> {
    let links = known.links.keys().filter(|name| !prune && !wanted.links.contains_key(*name));
    let rules = known.rules.keys().filter(|topic| !prune && !wanted.rules.contains_key(*topic));
    let pipelines = known.pipelines.keys().filter(|name| !wanted.pipelines.contains_key(*name));
    let links = links.map(|name| format!("link {name}"));
    let rules = rules.map(|topic| format!("rule {topic}"));
    links.chain(rules).chain(pipelines.map(|name| format!("pipeline {name}"))).collect()
}

/// What pipelines of the file read that is neither there nor in the file, for people.
pub fn missing_inputs(wanted: &Wanted, known: &Known) -> Vec<String> {
    let is_missing =
        |topic: &&str| !known.names.contains(*topic) && !wanted.topics.contains_key(*topic);
    let missing = wanted.pipelines.iter().flat_map(|(name, wish)| {
        let missing: Vec<&str> = wish.inputs().into_iter().filter(is_missing).collect();
        missing.into_iter().map(move |topic| (name, topic)).collect::<Vec<_>>()
    });
    let text = |(name, topic): (&String, &str)| {
        format!(
            "pipeline {name} reads {topic}, and there is no such topic: it is refused until there is one"
        )
    };
    missing.map(text).collect()
}

/// The links that there are once a site is as a file says.
pub fn links_after<'a>(
    wanted: &'a Wanted,
    known: &'a Known,
    prune: bool,
) -> Vec<&'a LinkDefinition> {
    let left = known.links.iter();
    let left = left.filter(|(name, _)| !prune && !wanted.links.contains_key(*name));
    left.map(|(_, link)| &link.is).chain(wanted.links.values()).collect()
}

/// The rules whose regions somebody may have mistaken: those of the file, and those of the site that are left
/// as they are, as far as they name the region of a link that leads there now.
pub fn rules_to_look_at<'a>(
    wanted: &'a Wanted,
    known: &'a Known,
    prune: bool,
) -> Vec<(&'a str, Vec<String>)> {
    let led_to = |region: &&String| known.links.values().any(|link| link.is.region == **region);
    let left = known.rules.iter();
    let left = left.filter(|(topic, _)| !prune && !wanted.rules.contains_key(*topic));
    let left = left.map(|(topic, rule)| {
        (topic.as_str(), rule.is.regions.iter().filter(led_to).cloned().collect())
    });
    let named = wanted.rules.iter().map(|(topic, rule)| (topic.as_str(), rule.regions.clone()));
    named.chain(left).collect()
}

/// What a rule says, for people.
pub fn terms_of(rule: &RuleDefinition) -> [(&'static str, String); 4] {
    let regions = match rule.regions.as_slice() {
        [] => "nowhere".to_owned(),
        some => some.join(", "),
    };
    let fields = match rule.fields_text() {
        text if text.is_empty() => "as they are".to_owned(),
        text => text,
    };
    let key = rule.key.to_string();
    [("may go to", regions), ("key", key), ("headers", rule.headers_text()), ("fields", fields)]
}

/// What is said of a rule that lets go what the one before it withholds.
const LETS_MORE_GO: &str = "this lets go what is withheld now";

impl Change {
    /// Whether it changes together with others that do.
    pub const fn is_definition(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Rule { .. })
    }

    /// Whether it lets go, in the place of a rule that there is, what that withholds.
    pub fn lets_more_go(&self) -> bool {
        match self {
            Self::Rule { before, after, .. } => {
                !before.regions.is_empty() && after.tells_more_than(before)
            }
            _ => false,
        }
    }
}

/// What changes about a rule. One that is new or gone is shown as it is or was: beside a rule that there is not,
/// which lets nothing go, each of its terms would look like an opening.
fn rule_lines(before: &RuleDefinition, after: &RuleDefinition) -> Vec<String> {
    let line = |(key, value): (&str, String)| format!("{key:<9}  {value}");
    let all = |rule: &RuleDefinition| -> Vec<String> {
        let shown = if rule.is_verbatim() { 1 } else { usize::MAX };
        terms_of(rule).into_iter().take(shown).map(line).collect()
    };
    match (before.regions.as_slice(), after.regions.as_slice()) {
        ([], _) => all(after),
        (_, []) => {
            let gone = "no rule names it any more; the one that there was:".to_owned();
            [gone].into_iter().chain(all(before)).collect()
        }
        _ => terms_of(before)
            .into_iter()
            .zip(terms_of(after))
            .filter(|((_, before), (_, after))| before != after)
            .map(|((key, before), (_, after))| line((key, format!("{before} -> {after}"))))
            .collect(),
    }
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
        ("cap", link.cap.map_or_else(|| NO_CAP.to_owned(), |_| format!("{}/s", link.cap_text()))),
        ("connections", link.connections.to_string()),
        ("partitions-max", link.copies.partitions_max.to_string()),
        ("retention-bytes-max", link::size_text(link.copies.retention_bytes_max)),
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
                changed.iter().try_for_each(|(key, (before, after))| {
                    let before = before.as_deref().unwrap_or("its default");
                    write!(f, "\n    {key}  {before} -> {after}")
                })
            }
            Self::Rule { topic, before, after, .. } => {
                let sign = match (before.regions.as_slice(), after.regions.as_slice()) {
                    ([], _) => '+',
                    (_, []) => '-',
                    _ => '~',
                };
                write!(f, "{sign} rule {topic}")?;
                let lines = rule_lines(before, after);
                let more = self.lets_more_go().then(|| LETS_MORE_GO.to_owned());
                lines.iter().chain(&more).try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::Pipeline { name, before, lines, .. } => {
                let sign = if before.is_none() { '+' } else { '~' };
                write!(f, "{sign} pipeline {name}")?;
                lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::Link { name, before: None, after } => {
                write!(f, "+ link {name}")?;
                let settings = after.as_ref().map(settings_of).unwrap_or_default();
                settings.iter().try_for_each(|(key, value)| write!(f, "\n    {key:<11}  {value}"))
            }
            Self::Link { name, before: Some(_), after: None } => write!(f, "- link {name}"),
            Self::Link { name, before: Some(before), after: Some(after) } => {
                write!(f, "~ link {name}")?;
                let both = settings_of(&before.is).into_iter().zip(settings_of(after));
                let mut differ = both.filter(|(before, after)| before != after);
                differ.try_for_each(|((key, before), (_, after))| {
                    write!(f, "\n    {key:<11}  {before} -> {after}")
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What a site lacks to be what a file says.

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
        /// Its number, 0 if there is none; `None` if an earlier change of the same plan made it so.
        number: Option<u64>,
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

/// What is to be done, in this order: rules let less go, topics, links, rules let more go. So whatever
/// becomes of it on the way, no topic may go over a link that neither what was nor what is to be lets it
/// go over, nor in a form that tells more than both. A rule that both gets and loses something is changed
/// twice.
///
/// # Errors
/// For people: what cannot be done.
pub fn changes(wanted: &Wanted, known: &Known, prune: bool) -> Result<Vec<Change>, String> {
    let (mut changes, mut more) = (Vec::new(), Vec::new());
    let none = RuleDefinition::default();
    let pruned = known.rules.keys().filter(|topic| prune && !wanted.rules.contains_key(*topic));
    for (topic, after) in wanted.rules.iter().chain(pruned.map(|topic| (topic, &none))) {
        let (less, then) = rule_changes(topic, known.rules.get(topic), after);
        changes.extend(less);
        more.extend(then);
    }
    for (name, topic) in &wanted.topics {
        changes.extend(topic_change(name, topic, known.topics.get(name))?);
    }
    let gone = known.links.iter().filter(|(of, _)| prune && !wanted.links.contains_key(*of));
    let removed = |(name, link): (&String, &LaidDown<LinkDefinition>)| {
        let (name, before) = (name.clone(), Some(Box::new(link.clone())));
        Change::Link { name, before, after: None }
    };
    // A site has one link: the one that another name takes the place of goes first.
    let (replaced, gone): (Vec<_>, Vec<_>) =
        gone.partition(|(_, link)| wanted.links.values().any(|of| of.site == link.is.site));
    changes.extend(replaced.into_iter().map(removed));
    for (name, definition) in &wanted.links {
        let before = known.links.get(name);
        if before.is_none_or(|link| link.is != *definition) {
            let (name, before) = (name.clone(), before.cloned().map(Box::new));
            changes.push(Change::Link { name, before, after: Some(definition.clone()) });
        }
    }
    changes.extend(gone.into_iter().map(removed));
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
    changes.append(&mut more);
    Ok(changes)
}

/// What the other pipelines write that there are once a site is as a file says.
fn others<'a>(
    name: &'a str,
    wanted: &'a Wanted,
    known: &'a Known,
) -> impl Iterator<Item = (&'a str, BTreeSet<&'a str>)> {
    let left = known.pipelines.iter().filter(|(other, _)| !wanted.pipelines.contains_key(*other));
    let left = left.map(|(other, of)| (other.as_str(), written_by(&of.is)));
    let named = wanted.pipelines.iter().map(|(other, wish)| (other.as_str(), wish.written()));
    left.chain(named).filter(move |(other, _)| *other != name)
}

/// What makes a rule let less go, and what makes it let more go.
fn rule_changes(
    topic: &str,
    known: Option<&LaidDown<RuleDefinition>>,
    after: &RuleDefinition,
) -> (Option<Change>, Option<Change>) {
    let before = sorted(&known.map(|rule| rule.is.clone()).unwrap_or_default());
    let after = sorted(after);
    let both = before.join(&after);
    let number = Some(known.map_or(0, |rule| rule.number));
    let rule = |number, before: &RuleDefinition, after: &RuleDefinition| {
        let (topic, before, after) = (topic.to_owned(), before.clone(), after.clone());
        (before != after).then_some(Change::Rule { topic, before, number, after })
    };
    let less = rule(number, &before, &both);
    let number = if less.is_some() { None } else { number };
    (less, rule(number, &both, &after))
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
    known: &Known,
    prune: bool,
) -> BTreeMap<String, RuleDefinition> {
    let left = known.rules.iter().filter(|_| !prune);
    let left = left.map(|(topic, rule)| (topic.clone(), rule.is.clone()));
    left.chain(wanted.rules.clone()).collect()
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(dial: &[&str]) -> LinkDefinition {
        LinkDefinition {
            site: "hub".to_owned(),
            region: "eu".to_owned(),
            authority: vec![1],
            dial: dial.iter().map(|place| (*place).to_owned()).collect(),
            take: vec!["orders".to_owned()],
            ..LinkDefinition::default()
        }
    }

    fn topic(settings: &[(&str, &str)]) -> Topic {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Topic { partitions: 4, settings: settings.collect() }
    }

    fn laid_down<T>(number: u64, is: T) -> LaidDown<T> {
        LaidDown { number, changed: (String::new(), 0), is }
    }

    fn regions(names: &[&str]) -> RuleDefinition {
        RuleDefinition::verbatim(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_rule_of_the_site_is_looked_at_when_the_file_moves_the_link_that_it_names() {
        let mut moved = link(&["h:1"]);
        moved.region = "us".to_owned();
        let wanted =
            Wanted { links: BTreeMap::from([("hub".to_owned(), moved)]), ..Wanted::default() };
        let rule = laid_down(3, regions(&["eu", "mistyped"]));
        let known = Known {
            links: BTreeMap::from([("hub".to_owned(), laid_down(7, link(&["h:1"])))]),
            rules: BTreeMap::from([("a".to_owned(), rule)]),
            ..Known::default()
        };
        let after: Vec<&str> =
            links_after(&wanted, &known, false).iter().map(|link| &*link.region).collect();
        assert_eq!(after, ["us"]);
        let looked_at = rules_to_look_at(&wanted, &known, false);
        assert_eq!(looked_at, [("a", vec!["eu".to_owned()])]);
        assert_eq!(rules_to_look_at(&wanted, &known, true), []);
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
            ..Wanted::default()
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
            ..Known::default()
        };
        (wanted, known)
    }

    #[test]
    fn a_link_that_gets_another_name_goes_before_it_comes() {
        let to = |site: &str| LinkDefinition { site: site.to_owned(), ..link(&[]) };
        let wanted = Wanted { links: [("new".to_owned(), to("hub"))].into(), ..Wanted::default() };
        let links = [("old", to("hub")), ("other", to("far"))];
        let links = links.map(|(name, is)| (name.to_owned(), laid_down(7, is)));
        let known = Known { links: links.into(), ..Known::default() };
        let names = |prune| -> Vec<(String, bool)> {
            let changes = changes(&wanted, &known, prune).expect("it can be done");
            let name = |change: Change| match change {
                Change::Link { name, after, .. } => (name, after.is_some()),
                other => panic!("{other:?}"),
            };
            changes.into_iter().map(name).collect()
        };
        let is = |name: &str, there| (name.to_owned(), there);
        assert_eq!(names(true), [is("old", false), is("new", true), is("other", false)]);
        assert_eq!(names(false), [is("new", true)]);
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
        assert_eq!(unnamed(&wanted, &known, false), ["link old", "rule d"]);
        assert_eq!(unnamed(&wanted, &known, true), Vec::<String>::new());
    }

    #[test]
    fn a_rule_is_shown_as_what_becomes_of_records() {
        let rule = |fields: &str| {
            let settings =
                [("regions", "eu"), ("key", "hash"), ("headers", "drop"), ("fields", fields)];
            let settings = settings.into_iter().filter(|(_, value)| !value.is_empty());
            RuleDefinition::from_settings(settings).expect("it is a rule")
        };
        let shown = |before: &RuleDefinition, after: &RuleDefinition| {
            let (topic, number) = ("people".to_owned(), Some(7));
            let (before, after) = (before.clone(), after.clone());
            Change::Rule { topic, before, number, after }.to_string()
        };
        let (none, less, more) = (RuleDefinition::default(), rule("card=drop,name=mask"), rule(""));
        let terms = "    may go to  eu\n    key        hash\n    headers    *=drop\n    \
                     fields     card=drop,name=mask";
        assert_eq!(shown(&none, &less), format!("+ rule people\n{terms}"));
        let gone = "    no rule names it any more; the one that there was:";
        assert_eq!(shown(&less, &none), format!("- rule people\n{gone}\n{terms}"));
        let change = "    fields     card=drop,name=mask -> as they are";
        assert_eq!(
            shown(&less, &more),
            format!("~ rule people\n{change}\n    this lets go what is withheld now")
        );
        assert!(!shown(&more, &less).contains("lets go what"), "{}", shown(&more, &less));
        // To another region goes what went to none, not what was withheld.
        assert!(!shown(&none, &more).contains("lets go what"));
        assert!(!shown(&regions(&["us"]), &regions(&["eu", "us"])).contains("lets go what"));
    }

    fn tells_no_more(form: &RuleDefinition, than: &RuleDefinition) -> bool {
        let allowed = RuleDefinition { regions: form.regions.clone(), ..than.clone() };
        form.join(&allowed) == *form
    }

    /// Which topics may go over which links, and in which form.
    fn ways(
        links: &BTreeMap<String, LinkDefinition>,
        rules: &BTreeMap<String, RuleDefinition>,
    ) -> BTreeMap<(String, String), RuleDefinition> {
        let mut ways = BTreeMap::new();
        for (topic, rule) in rules {
            let goes =
                |link: &&String| !links[*link].paused && rule.lets_go_to(&links[*link].region);
            let way = |link: &String| ((topic.clone(), link.clone()), rule.clone());
            ways.extend(links.keys().filter(goes).map(way));
        }
        ways
    }

    proptest! {
        #[test]
        fn on_the_way_nothing_may_go_that_may_go_neither_before_nor_after(
            before in any_site(), after in any_site(), prune in any::<bool>()
        ) {
            let known = Known {
                links: before.0.iter().map(|(n, l)| (n.clone(), laid_down(1, l.clone()))).collect(),
                rules: before.1.iter().map(|(t, r)| (t.clone(), laid_down(2, r.clone()))).collect(),
                ..Known::default()
            };
            let wanted = Wanted { links: after.0, rules: after.1, ..Wanted::default() };
            let (mut links, mut rules) = before;
            let (old, mut passed) = (ways(&links, &rules), Vec::new());
            for change in changes(&wanted, &known, prune).expect("it can be done") {
                match change {
                    Change::Rule { topic, before, after, .. } => {
                        let now = rules.remove(&topic).unwrap_or_default();
                        prop_assert_eq!(now, before);
                        rules.extend((!after.regions.is_empty()).then_some((topic, after)));
                    }
                    Change::Link { name, after, .. } => {
                        links.remove(&name);
                        links.extend(after.map(|link| (name, link)));
                    }
                    _ => {}
                }
                passed.extend(ways(&links, &rules));
            }
            let new = ways(&links, &rules);
            if prune {
                prop_assert_eq!((&links, &rules), (&wanted.links, &wanted.rules));
            }
            for (way, form) in passed {
                let is_covered = |by: &BTreeMap<_, RuleDefinition>| {
                    by.get(&way).is_some_and(|allowed| tells_no_more(&form, allowed))
                };
                prop_assert!(is_covered(&old) || is_covered(&new), "{way:?}: {form:?}");
            }
        }
    }

    type AnySite = (BTreeMap<String, LinkDefinition>, BTreeMap<String, RuleDefinition>);

    fn any_site() -> impl Strategy<Value = AnySite> {
        let region = || prop::sample::select(vec!["eu", "us", "asia"]);
        let link = (region(), any::<bool>()).prop_map(|(region, paused)| LinkDefinition {
            region: region.to_owned(),
            paused,
            ..link(&[])
        });
        let fields = prop::sample::select(vec!["", "a=drop", "a=mask,b=drop", "b=hash"]);
        let rule = (prop::collection::btree_set(region(), 1..3), fields);
        let rule = rule.prop_map(|(regions, fields)| RuleDefinition {
            fields: fulmar_types::rule::fields(fields).expect("they are fields"),
            ..RuleDefinition::verbatim(regions.into_iter().map(str::to_owned))
        });
        let name = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
        (
            prop::collection::btree_map(name(), link, 0..3),
            prop::collection::btree_map(name(), rule, 0..3),
        )
    }

    #[test]
    fn partitions_stay() {
        let (mut wanted, known) = both();
        wanted.topics.get_mut("there").expect("it is wanted").partitions = 5;
        let text = changes(&wanted, &known, false).expect_err("a topic keeps its partitions");
        assert!(text.contains("4 partitions and not 5"), "{text}");
    }
}

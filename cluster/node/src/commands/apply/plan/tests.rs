//! From what is there to what a file says, in which steps.

use super::*;
use crate::commands::makings::Makings;
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
    let wanted = Wanted { links: BTreeMap::from([("hub".to_owned(), moved)]), ..Wanted::default() };
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
    assert_eq!(names(true), [is("old", false), is("other", false), is("new", true)]);
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
        let (topic, number) = ("people".to_owned(), 7);
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

proptest! {
    #[test]
    fn links_and_rules_become_what_they_are_to_be_in_one_step(
        before in any_site(), after in any_site(), prune in any::<bool>()
    ) {
        let known = Known {
            links: before.0.iter().map(|(n, l)| (n.clone(), laid_down(1, l.clone()))).collect(),
            rules: before.1.iter().map(|(t, r)| (t.clone(), laid_down(2, r.clone()))).collect(),
            ..Known::default()
        };
        let missing = [("new".to_owned(), topic(&[]))];
        let wanted = Wanted { links: after.0, rules: after.1, topics: missing.into(), ..Wanted::default() };
        let (mut links, mut rules) = before;
        let changes = changes(&wanted, &known, prune).expect("it can be done");
        let steps: Vec<_> = steps(&changes).collect();
        let (last, first) = steps.split_last().expect("a topic is missing");
        let is_topic = matches!(last, [Change::NewTopic { .. }]);
        prop_assert!(first.len() <= 1 && is_topic);
        let mut named = std::collections::BTreeSet::new();
        for change in first.iter().copied().flatten() {
            match change.clone() {
                Change::Rule { topic, before, after, .. } => {
                    prop_assert!(named.insert(("rule", topic.clone())), "it is changed twice");
                    prop_assert_eq!(rules.remove(&topic).unwrap_or_default(), before);
                    rules.extend((!after.regions.is_empty()).then_some((topic, after)));
                }
                Change::Link { name, after, .. } => {
                    prop_assert!(named.insert(("link", name.clone())), "it is changed twice");
                    links.remove(&name);
                    links.extend(after.map(|link| (name, link)));
                }
                other => prop_assert!(false, "{} is not changed with links and rules", other),
            }
        }
        for (name, link) in &wanted.links {
            prop_assert_eq!(&links[name], link);
        }
        for (topic, rule) in &wanted.rules {
            prop_assert_eq!(&rules[topic], rule);
        }
        if prune {
            prop_assert_eq!((&links, &rules), (&wanted.links, &wanted.rules));
        }
    }
}

/// Topics, with others that they are made of, or with regions that they may go to.
type With<'a> = &'a [(&'a str, &'a [&'a str])];

/// What is done first, if something may be done at all: rules or pipelines.
fn first(before: (With<'_>, With<'_>), after: (With<'_>, With<'_>)) -> Option<&'static str> {
    let rules = |all: With<'_>| -> BTreeMap<String, RuleDefinition> {
        all.iter().map(|(topic, to)| ((*topic).to_owned(), regions(to))).collect()
    };
    let [makings, makings_after] = [before.0, after.0].map(Makings::of_these);
    let (rules, rules_after) = (rules(before.1), rules(after.1));
    let name = |name: &str| name.to_owned();
    let rule =
        Change::Rule { topic: name("a"), before: regions(&[]), number: 0, after: regions(&["eu"]) };
    let (settings, lines) = (PipelineSettings::of(""), Vec::new());
    let pipeline = Change::Pipeline { name: name("p"), before: None, settings, lines };
    let changes = vec![rule, pipeline];
    let done = ordered(changes, (&makings, &rules), (&makings_after, &rules_after)).ok()?;
    Some(if done[0].is_definition() { "rules" } else { "pipelines" })
}

#[test]
fn nothing_goes_on_the_way_that_goes_neither_before_nor_afterwards() {
    // A second pipeline makes `out` of what stays as well, and what it is made of now may go.
    let one: With<'_> = &[("out", &["a"])];
    let both: With<'_> = &[("out", &["a", "b"])];
    assert_eq!(first((one, &[]), (both, &[("a", &["eu"])])), Some("pipelines"));
    // A new pipeline, and its output gets a rule of its own with it.
    let own: With<'_> = &[("a", &["eu"]), ("out", &["us"])];
    assert_eq!(first((&[], &[("a", &["eu"])]), (one, own)), Some("rules"));
    assert_eq!(first((one, &[]), (one, &[("a", &["eu"])])), Some("rules"), "as far as it is said");
    // Both at once: `out` is made of more, and `new` gets a rule of its own.
    let more: With<'_> = &[("out", &["a", "b"]), ("new", &["c"])];
    let rules: With<'_> = &[("a", &["eu"]), ("c", &["eu"]), ("new", &["us"])];
    assert_eq!(first((one, &[("c", &["eu"])]), (more, rules)), None);
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

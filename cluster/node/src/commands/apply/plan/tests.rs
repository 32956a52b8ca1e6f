//! From what is there to what a file says, in which steps.

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
        let goes = |link: &&String| !links[*link].paused && rule.lets_go_to(&links[*link].region);
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

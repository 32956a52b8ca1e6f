//! Copies of copies, settings that change at the origin, and what a peer does not take.

use super::mirrors::{create_mirror, peer_has, place, rule, set_link};
use super::*;
use fulmar_store::entry::{LinkOperation, NewMirror, RuleSecret};
use fulmar_types::link::{CopyLimits, Decline, LinkDefinition};
use fulmar_types::rule::RuleDefinition;

fn link_to(site: &str) -> Operation {
    let definition = LinkDefinition {
        site: site.to_owned(),
        region: "eu".to_owned(),
        take: vec!["*".to_owned()],
        ..Default::default()
    };
    let (name, who) = (site.to_owned(), "carol".to_owned());
    let definition = Some(definition);
    Operation::Link(LinkOperation::SetLink { name, expected: None, who, definition })
}

fn rule_of(topic: &str, secret: u8) -> Operation {
    let definition = RuleDefinition::verbatim(["eu".to_owned()]);
    let (topic, who, secret) = (topic.to_owned(), "dave".to_owned(), RuleSecret([secret; 32]));
    Operation::Link(LinkOperation::SetRule { topic, expected: None, who, definition, secret })
}

/// A copy that has come over the link to `north`, through other sites before it.
fn copy(name: &str, origin_name: &str, via: &[&str]) -> Operation {
    Operation::Link(LinkOperation::CreateMirror(NewMirror {
        topic: topic_id(1),
        name: name.to_owned(),
        partitions: 1,
        configs: Vec::new(),
        link: "north".to_owned(),
        origin: topic_id(100),
        origin_name: origin_name.to_owned(),
        via: via.iter().map(|site| (*site).to_owned()).collect(),
    }))
}

fn number(site: &Site, link: &str) -> u64 {
    site.state.link(link).expect("there").number
}

fn goes_over(site: &Site, link: &str, topic: &str) -> bool {
    let link = site.state.link(link).expect("there");
    let topic = site.state.topics().by_name(topic).expect("there");
    site.state.rule_over(link, topic).is_some()
}

#[test]
fn a_copy_goes_on_by_a_rule_and_never_back() {
    let mut site = Site::new();
    for other in ["north", "hub"] {
        site.one(link_to(other)).expect("set");
    }
    let wrong = site.one(copy("north.t", "t", &["plant", "north"]));
    assert_eq!(wrong, Err(Refusal::InvalidTopicName), "it is called after its origin");
    for via in [&["plant"][..], &[], &["a b", "north"]] {
        let wrong = site.one(copy("plant.t", "plant.t", via));
        assert_eq!(wrong, Err(Refusal::InvalidLink), "{via:?}");
    }
    let created = site.one(copy("plant.t", "plant.t", &["plant", "north"]));
    assert_eq!(created, Ok(OperationResult::TopicCreated));
    site.one(link_to("plant")).expect("set");
    assert!(!goes_over(&site, "hub", "plant.t"), "no rule");
    site.one(rule_of("plant.t", 1)).expect("set");
    assert!(goes_over(&site, "hub", "plant.t"));
    assert!(!goes_over(&site, "north", "plant.t"), "it comes from there");
    assert!(!goes_over(&site, "plant", "plant.t"), "it is of there");
    let again = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(again.hash(), site.state.hash());
}

#[test]
fn what_is_said_to_be_of_a_site_comes_over_the_link_to_it_and_no_other() {
    let mut site = Site::new();
    site.one(link_to("north")).expect("set");
    let number = |site: &mut Site, name| match site.one(link_to(name)) {
        Ok(OperationResult::LinkSet { .. }) => true,
        refused => refused != Err(Refusal::InvalidLink),
    };
    assert!(number(&mut site, "plant"));
    let forged = site.one(copy("plant.t", "plant.t", &["plant", "north"]));
    assert_eq!(forged, Err(Refusal::InvalidLink));
    let honest = site.one(copy("mine.t", "mine.t", &["mine", "north"]));
    assert_eq!(honest, Ok(OperationResult::TopicCreated));
    // `plant.7` with a topic `x`, or `plant` with a topic `7.x`?
    assert!(!number(&mut site, "plant.7"));
}

#[test]
fn a_link_brings_no_more_partitions_than_it_may_and_keeps_no_more_of_each() {
    let mut site = Site::new();
    let mut operation = link_to("north");
    let Operation::Link(LinkOperation::SetLink { definition: Some(link), .. }) = &mut operation
    else {
        unreachable!("it is one")
    };
    link.copies = CopyLimits { partitions_max: 3, retention_bytes_max: Some(100) };
    site.one(operation).expect("set");
    let create = |n: u8, partitions: u32| {
        Operation::Link(LinkOperation::CreateMirror(NewMirror {
            topic: topic_id(n),
            name: format!("north.t{n}"),
            partitions,
            configs: vec![("retention.bytes".to_owned(), "1000".to_owned())],
            link: "north".to_owned(),
            origin: topic_id(100 + n),
            origin_name: format!("t{n}"),
            via: vec!["north".to_owned()],
        }))
    };
    assert_eq!(site.one(create(1, 4)), Err(Refusal::LimitReached));
    assert_eq!(site.one(create(1, 2)), Ok(OperationResult::TopicCreated));
    assert_eq!(site.one(create(2, 2)), Err(Refusal::LimitReached));
    assert_eq!(site.one(create(2, 1)), Ok(OperationResult::TopicCreated));
    let kept = |site: &Site| {
        let topic = site.state.topics().get(topic_id(1)).expect("there");
        (topic.keeping.retention.bytes, site.state.keeping(topic).retention.bytes)
    };
    assert_eq!(kept(&site), (Some(1_000), Some(100)));
    site.one(link_to("north")).expect("set");
    assert_eq!(kept(&site), (Some(1_000), Some(1_000)));
    let again = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(again.hash(), site.state.hash());
}

#[test]
fn a_copy_has_a_key_of_its_own_that_nobody_is_told() {
    let keys = ["one", "two"].map(|secret| {
        let mut site = Site::new();
        site.one(link_to("north")).expect("set");
        let mut operation = copy("north.t", "t", &["north"]);
        let Operation::Link(LinkOperation::CreateMirror(new)) = &mut operation else {
            unreachable!("it is one")
        };
        new.configs.push((topics::CHAIN_KEY_CONFIG.to_owned(), secret.to_owned()));
        site.one(operation).expect("created");
        let mirror = site.state.mirror(topic_id(1)).expect("there");
        assert!(mirror.configs.is_empty(), "what is compared with the origin has none");
        let topic = site.state.topics().get(topic_id(1)).expect("there");
        assert!(topic.configs.is_empty());
        topic.chain_key
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn what_changes_at_the_origin_changes_and_what_is_changed_here_stays() {
    let mut site = Site::new();
    site.one(set_link(Some(false))).expect("set");
    site.one(create_mirror(1)).expect("created");
    let link = number(&site, "north");
    let align = |link, configs: &[(&str, &str)]| {
        let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let via = vec!["north".to_owned()];
        let topic = topic_id(1);
        Operation::Link(LinkOperation::AlignMirror { link, topic, via, configs })
    };
    let settings = |site: &Site| {
        let mut configs = site.state.topics().get(topic_id(1)).expect("there").configs.clone();
        configs.sort();
        configs.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    };
    site.one(align(link, &[("retention.ms", "5"), ("a", "1")])).expect("aligned");
    assert_eq!(settings(&site), "a=1 retention.ms=5");
    site.one(keep(1, &[("a", Some("mine")), ("b", Some("mine"))])).expect("altered");
    site.one(align(link, &[("retention.ms", "9"), ("a", "1")])).expect("aligned");
    assert_eq!(settings(&site), "a=mine b=mine retention.ms=9");
    site.one(align(link, &[("a", "2")])).expect("aligned");
    assert_eq!(settings(&site), "a=2 b=mine");
    let stale = site.one(align(link + 77, &[]));
    assert_eq!(stale, Err(Refusal::StaleLink { number: link }));
    let again = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(again.hash(), site.state.hash());
}

#[test]
fn what_a_peer_does_not_take_it_does_not_hold_up_once_that_is_in_the_log() {
    let mut site = Site::with_producers();
    site.one(set_link(Some(false))).expect("set");
    site.one(rule(1, &["eu"])).expect("set");
    site.one(create(1, 1)).expect("created");
    let limits = [("retention.bytes", Some("300")), ("fulmar.budget.policy", Some("block"))];
    site.one(keep(1, &limits)).expect("altered");
    let record = || append(1, 0, batch(-1, -1, -1, 1, 5));
    while site.one(record()).is_ok() {}
    assert_eq!(site.one(record()), Err(Refusal::BudgetReached));
    let link = number(&site, "north");
    let declines = |link, topics| Operation::Link(LinkOperation::PeerDeclines { link, topics });
    let this = vec![(topic_id(1), Decline::NotWanted), (topic_id(9), Decline::Loop)];
    let stale = site.one(declines(link + 7, this.clone()));
    assert_eq!(stale, Err(Refusal::StaleLink { number: 0 }));
    assert_eq!(site.one(record()), Err(Refusal::BudgetReached));
    assert_eq!(site.one(declines(link, this.clone())), Ok(OperationResult::PeerNoted));
    assert_eq!(site.state.declined("north", topic_id(1)), Some(Decline::NotWanted));
    assert_eq!(site.state.declined("north", topic_id(9)), None, "there is no such topic");
    site.one(record()).expect("nobody waits for what goes");
    let again = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(again.hash(), site.state.hash());

    // It asks for the topic after all.
    site.one(peer_has(place(link, 1, 0, 0))).expect("noted");
    assert_eq!(site.state.declined("north", topic_id(1)), None);
    assert_eq!(site.one(record()), Err(Refusal::BudgetReached));
    site.one(declines(link, this.clone())).expect("noted");
    site.one(declines(link, Vec::new())).expect("noted");
    assert_eq!(site.one(record()), Err(Refusal::BudgetReached), "it says nothing of the topic");
    site.one(declines(link, this)).expect("noted");
    site.one(set_link(None)).expect("removed");
    assert_eq!(site.state.declined("north", topic_id(1)), None);
}

#[test]
fn the_key_of_hashes_lives_as_long_as_the_site() {
    let mut site = Site::new();
    let secret = |site: &Site| site.state.rule("t").expect("there").secret;
    site.one(rule_of("t", 1)).expect("set");
    site.one(rule_of("t", 2)).expect("set");
    assert_eq!(secret(&site), RuleSecret([1; 32]));
    let none = RuleDefinition::default();
    let (topic, who, secret_3) = ("t".to_owned(), "dave".to_owned(), RuleSecret([3; 32]));
    let expected = None;
    let removed =
        LinkOperation::SetRule { topic, expected, who, definition: none, secret: secret_3 };
    site.one(Operation::Link(removed)).expect("removed");
    site.state = State::restore(&site.state.snapshot()).expect("restores");
    site.one(rule_of("t", 4)).expect("set");
    assert_eq!(secret(&site), RuleSecret([1; 32]), "the last rule has not taken it along");
}

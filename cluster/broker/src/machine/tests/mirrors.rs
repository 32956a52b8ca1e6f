//! Links, rules and mirrors.

use super::*;
use crate::link_figures::{GapPlace, gaps_behind};
use crate::machine::changes::{CHANGES_MAX, Change, ChangeOf};
use crate::machine::mirroring::NO_TAG;
use fulmar_store::entry::{LinkOperation, MirrorPlace, NewMirror, RuleSecret};
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::link::{LINK_OFFSET_MAX, LinkDefinition};
use fulmar_types::rule::RuleDefinition;

fn link(site: &str, paused: bool) -> LinkDefinition {
    let take = vec!["*".to_owned()];
    LinkDefinition {
        site: site.to_owned(),
        region: "eu".to_owned(),
        take,
        paused,
        ..Default::default()
    }
}

fn set(name: &str, definition: Option<LinkDefinition>) -> Operation {
    let (name, who) = (name.to_owned(), "carol".to_owned());
    Operation::Link(LinkOperation::SetLink { name, expected: None, who, definition })
}

pub(super) fn set_link(paused: Option<bool>) -> Operation {
    set("north", paused.map(|paused| link("north", paused)))
}

pub(super) fn rule(n: u8, regions: &[&str]) -> Operation {
    let definition = RuleDefinition::verbatim(regions.iter().map(|region| (*region).to_owned()));
    let (topic, who, secret) = (format!("topic-{n}"), "dave".to_owned(), RuleSecret([n; 32]));
    Operation::Link(LinkOperation::SetRule { topic, expected: None, who, definition, secret })
}

fn goes(site: &Site, topic: &str, region: &str) -> bool {
    site.state.rule_to(topic, region).is_some()
}

pub(super) fn create_mirror(n: u8) -> Operation {
    Operation::Link(LinkOperation::CreateMirror(NewMirror {
        topic: topic_id(n),
        name: format!("north.topic-{n}"),
        partitions: 2,
        configs: Vec::new(),
        link: "north".to_owned(),
        origin: topic_id(100 + n),
        origin_name: format!("topic-{n}"),
        via: vec!["north".to_owned()],
    }))
}

pub(super) fn place(number: u64, n: u8, offset: u64, tag: u8) -> MirrorPlace {
    MirrorPlace {
        link: number,
        topic: topic_id(n),
        partition: PartitionIndex(0),
        offset: Offset(offset),
        tag: [tag; 16],
    }
}

pub(super) fn mirror_append(place: MirrorPlace, bytes: Bytes) -> Operation {
    Operation::Link(LinkOperation::MirrorAppend { place, batch: bytes.into() })
}

pub(super) fn skip(place: MirrorPlace, to: u64) -> Operation {
    let count = to.saturating_sub(place.offset.0);
    let (to, missing) = (Offset(to), Missing::untimed(GapReason::Expired, count));
    Operation::Link(LinkOperation::MirrorSkip { place, to, missing })
}

pub(super) fn peer_has(place: MirrorPlace) -> Operation {
    Operation::Link(LinkOperation::PeerHas { place })
}

fn number(site: &mut Site, operation: Operation) -> u64 {
    match site.one(operation) {
        Ok(OperationResult::LinkSet { number }) => number,
        other => panic!("{other:?}"),
    }
}

fn records(n: i32) -> Bytes {
    batch(7, 0, 5, n, 9)
}

#[test]
fn a_link_has_one_definition_and_every_change_another_number() {
    let mut site = Site::new();
    let first = number(&mut site, set_link(Some(false)));
    let second = number(&mut site, set_link(Some(true)));
    assert!(second > first);
    let known = site.state.link("north").expect("there");
    assert_eq!((known.number, known.definition.paused), (second, true));
    assert_eq!(site.one(set("north", Some(link("east", false)))), Err(Refusal::LinkOfOtherSite));
    assert_eq!(site.one(set("again", Some(link("north", false)))), Err(Refusal::SiteTaken));
    assert_eq!(site.one(set("a b", Some(link("west", false)))), Err(Refusal::InvalidLink));
    number(&mut site, set("none", None));
    assert_eq!(site.one(set(&"n".repeat(10_000), None)), Err(Refusal::InvalidLink));
    number(&mut site, set("north", None));
    assert!(site.state.link("north").is_none());
}

#[test]
fn a_change_of_what_nobody_has_seen_is_refused() {
    let mut site = Site::new();
    let expecting = |expected, definition| {
        let (name, who) = ("north".to_owned(), String::new());
        Operation::Link(LinkOperation::SetLink { name, expected: Some(expected), who, definition })
    };
    let definition = || Some(link("north", false));
    assert_eq!(site.one(expecting(7, definition())), Err(Refusal::Changed), "there is none");
    let first = number(&mut site, expecting(0, definition()));
    assert_eq!(site.one(expecting(0, definition())), Err(Refusal::Changed), "there is one");
    let second = number(&mut site, expecting(first, definition()));
    assert_eq!(site.one(expecting(first, None)), Err(Refusal::Changed));
    number(&mut site, expecting(second, None));

    let topic = "t".to_owned();
    let rule = |expected, regions: &[&str]| {
        let definition =
            RuleDefinition::verbatim(regions.iter().map(|region| (*region).to_owned()));
        let (topic, expected, who) = (topic.clone(), Some(expected), String::new());
        let secret = RuleSecret([1; 32]);
        Operation::Link(LinkOperation::SetRule { topic, expected, who, definition, secret })
    };
    let first = number(&mut site, rule(0, &["eu"]));
    assert_eq!(site.one(rule(0, &["us"])), Err(Refusal::Changed));
    number(&mut site, rule(first, &[]));
}

#[test]
fn what_was_asked_for_and_removed_does_not_come_back_late() {
    let mut site = Site::new();
    let rule = |expected, regions: &[&str]| {
        let regions = regions.iter().map(|region| (*region).to_owned());
        let (definition, secret) = (RuleDefinition::verbatim(regions), RuleSecret([1; 32]));
        let (topic, expected, who) = ("t".to_owned(), Some(expected), String::new());
        Operation::Link(LinkOperation::SetRule { topic, expected, who, definition, secret })
    };
    let of = (ChangeOf::Rule, "t");
    let none = site.state.number_of(of);
    let late = || rule(none, &["eu"]);
    let there = number(&mut site, late());
    assert_eq!(site.state.number_of(of), there);
    let gone = number(&mut site, rule(there, &[]));
    assert_eq!(site.one(late()), Err(Refusal::Changed), "it was asked for before it was removed");
    assert_eq!(site.one(rule(0, &["eu"])), Err(Refusal::Changed), "0 is what never was");
    assert_eq!(site.one(rule(gone + 1, &["eu"])), Err(Refusal::Changed), "nobody has seen that");

    // Taking back what is not there is a change too: what nobody has heard of does not come behind it.
    let asked = site.state.number_of(of);
    number(&mut site, rule(asked, &[]));
    assert_eq!(site.one(rule(asked, &["eu"])), Err(Refusal::Changed));

    // A link that is not there, likewise.
    let link_of = |expected, definition| {
        let (name, who) = ("hub".to_owned(), String::new());
        let expected = Some(expected);
        Operation::Link(LinkOperation::SetLink { name, expected, who, definition })
    };
    let asked = site.state.number_of((ChangeOf::Link, "hub"));
    number(&mut site, link_of(asked, None));
    assert_eq!(site.one(link_of(asked, Some(link("hub", false)))), Err(Refusal::Changed));

    // What is forgotten may have been anything.
    let asked = site.state.number_of(of);
    for _ in 0..CHANGES_MAX {
        number(&mut site, set_link(Some(true)));
    }
    assert_eq!(site.one(rule(asked, &["eu"])), Err(Refusal::Changed));
    let now = site.state.number_of(of);
    number(&mut site, rule(now, &["eu"]));
}

#[test]
fn who_changed_what_is_kept_with_it_and_among_the_last_changes() {
    let mut site = Site::new();
    let first = number(&mut site, set_link(Some(false)));
    let second = number(&mut site, set_link(Some(true)));
    number(&mut site, rule(1, &["eu"]));
    number(&mut site, rule(1, &[]));
    number(&mut site, rule(1, &[]));
    number(&mut site, set_link(None));
    let changes: Vec<_> = site.state.changes().cloned().collect();
    let told = |change: &Change| format!("{} {} {}", change.of, change.name, change.text);
    let texts: Vec<String> = changes.iter().map(told).collect();
    assert_eq!(
        texts,
        [
            "link north created: site north; region eu; take *; paused false; cap none; connections 4; partitions-max 4096; \
             retention-bytes-max none",
            "link north paused false -> true",
            "rule topic-1 created: regions eu",
            "rule topic-1 removed",
            "rule topic-1 there was none",
            "link north removed",
        ],
        "taking back what is not there is a change too"
    );
    assert_eq!((changes[0].number, changes[1].number), (first, second));
    assert_eq!((&*changes[1].changed.who, &*changes[2].changed.who), ("carol", "dave"));
    assert!(changes[1].changed.wall_ms > 0);
}

#[test]
fn a_topic_goes_nowhere_without_a_rule() {
    let mut site = Site::new();
    assert!(!goes(&site, "topic-1", "eu"));
    number(&mut site, rule(1, &["eu", "us"]));
    assert!(goes(&site, "topic-1", "eu") && !goes(&site, "topic-1", "asia"));
    number(&mut site, rule(1, &["us"]));
    assert!(!goes(&site, "topic-1", "eu"));
    number(&mut site, rule(1, &[]));
    assert!(!goes(&site, "topic-1", "us"));
    assert_eq!(site.one(rule(1, &[""])), Err(Refusal::InvalidLink));
}

#[test]
fn a_mirror_takes_what_its_link_brings_at_the_offset_that_is_next_and_nothing_else() {
    let mut site = Site::new();
    assert_eq!(site.one(create_mirror(1)), Err(Refusal::UnknownLink));
    let link = number(&mut site, set_link(Some(false)));
    assert_eq!(site.one(create_mirror(1)), Ok(OperationResult::TopicCreated));
    let stream = StreamId(0);
    assert_eq!(site.state.tag(stream), Some(NO_TAG));
    assert_eq!(site.one(append(1, 0, records(1))), Err(Refusal::IsMirror));

    assert_eq!(site.one(mirror_append(place(link, 1, 0, 1), records(3))), appended(0));
    assert_eq!(site.state.tag(stream), Some([1; 16]));
    let again = site.one(mirror_append(place(link, 1, 0, 1), records(3)));
    assert_eq!(again, Err(Refusal::UnexpectedOffset { next: Offset(3) }));
    let ahead = site.one(mirror_append(place(link, 1, 4, 2), records(3)));
    assert_eq!(ahead, Err(Refusal::UnexpectedOffset { next: Offset(3) }));
    let bad = site.one(mirror_append(place(link, 1, 3, 2), Bytes::from_static(b"bad")));
    assert_eq!(bad, Err(Refusal::InvalidBatch));
    assert_eq!(site.state.tag(stream), Some([1; 16]), "the tag belongs to the records");
    assert_eq!(site.one(mirror_append(place(link, 1, 3, 2), records(1))), appended(3));

    let newer = number(&mut site, set_link(Some(false)));
    let stale = Err(Refusal::StaleLink { number: newer });
    assert_eq!(site.one(mirror_append(place(link, 1, 4, 3), records(1))), stale);
    assert_eq!(site.one(mirror_append(place(newer, 1, 4, 3), records(1))), appended(4));
    number(&mut site, set_link(Some(true)));
    assert!(site.one(mirror_append(place(newer, 1, 5, 3), records(1))).is_err(), "paused");

    site.one(create(2, 1)).expect("created");
    let plain = site.one(mirror_append(place(newer, 2, 0, 3), records(1)));
    assert_eq!(plain, Err(Refusal::NotAMirror));
}

#[test]
fn a_gap_is_kept_and_the_partition_goes_on_behind_it() {
    let mut site = Site::new();
    let link = number(&mut site, set_link(Some(false)));
    site.one(create_mirror(1)).expect("created");
    let stream = StreamId(0);
    assert_eq!(site.one(skip(place(link, 1, 0, 1), 10)), Ok(OperationResult::Skipped));
    let start = |site: &Site| site.state.partition(stream).expect("there").log_start.0;
    assert_eq!(start(&site), 10, "nothing lies below");
    assert_eq!(site.one(mirror_append(place(link, 1, 10, 2), records(2))), appended(10));
    assert_eq!(site.one(skip(place(link, 1, 12, 3), 20)), Ok(OperationResult::Skipped));
    assert_eq!(start(&site), 10);
    let behind = site.one(skip(place(link, 1, 20, 3), 20));
    assert_eq!(behind, Err(Refusal::OffsetOutOfRange { next: Offset(20) }));
    assert_eq!(site.one(mirror_append(place(link, 1, 20, 4), records(1))), appended(20));
    let gaps: Vec<_> = site.state.gaps(stream).map(|gap| (gap.first.0, gap.end.0)).collect();
    assert_eq!(gaps, [(0, 10), (12, 20)]);
    let again = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(again.hash(), site.state.hash());
    site.one(Operation::DeleteTopic { topic: topic_id(1) }).expect("deleted");
    assert_eq!((site.state.gaps(stream).count(), site.state.tag(stream)), (0, None));
    State::restore(&site.state.snapshot()).expect("nothing of it is left");
}

#[test]
fn all_gaps_of_a_link_are_told_a_page_at_a_time() {
    let mut site = Site::new();
    let number = number(&mut site, set_link(Some(false)));
    for n in 1..=3 {
        site.one(create_mirror(n)).expect("a mirror");
        for at in [0, 10] {
            assert_eq!(
                site.one(skip(place(number, n, at, 1), at + 5)),
                Ok(OperationResult::Skipped)
            );
            site.one(mirror_append(place(number, n, at + 5, 2), records(5))).expect("it is next");
        }
    }
    let link = site.state.link("north").expect("there");
    let (mut behind, mut told, mut pages) = (GapPlace::default(), Vec::new(), 0);
    loop {
        let (page, has_more) = gaps_behind(&site.state, link, &behind, 4);
        assert!(page.len() <= 4);
        let places = page.into_iter().map(|of| (of.topic, of.partition, of.gap.first.0));
        told.extend(places);
        (behind, pages) = (told.last().expect("some").clone(), pages + 1);
        if !has_more {
            break;
        }
    }
    let place = |n, at| (format!("north.topic-{n}"), 0, at);
    let all: Vec<GapPlace> = (1..=3).flat_map(|n| [place(n, 0), place(n, 10)]).collect();
    assert_eq!((told, pages), (all, 2));
}

#[test]
fn a_copy_ends_where_the_next_site_can_still_hear_of_it() {
    let mut site = Site::new();
    let number = number(&mut site, set_link(Some(false)));
    site.one(create_mirror(1)).expect("a mirror");
    for too_far in [LINK_OFFSET_MAX + 1, i64::MAX as u64, u64::MAX] {
        let refused = site.one(skip(place(number, 1, 0, 1), too_far));
        assert_eq!(refused, Err(Refusal::OffsetOutOfRange { next: Offset(0) }), "{too_far}");
    }
    let near = LINK_OFFSET_MAX - 2;
    assert_eq!(site.one(skip(place(number, 1, 0, 1), near)), Ok(OperationResult::Skipped));
    let refused = site.one(mirror_append(place(number, 1, near, 2), records(3)));
    assert_eq!(refused, Err(Refusal::OffsetOutOfRange { next: Offset(near) }));
    site.one(mirror_append(place(number, 1, near, 2), records(2)))
        .expect("it ends at the last one");
    let end = Offset(LINK_OFFSET_MAX);
    let refused = site.one(mirror_append(place(number, 1, end.0, 3), records(1)));
    assert_eq!(refused, Err(Refusal::OffsetOutOfRange { next: end }));
}

#[test]
fn a_copy_whose_link_is_gone_goes_on_over_another_one_to_the_same_site() {
    let mut site = Site::new();
    let link_before = number(&mut site, set_link(Some(false)));
    site.one(create_mirror(1)).expect("created");
    assert_eq!(site.one(mirror_append(place(link_before, 1, 0, 2), records(2))), appended(0));
    let align = |link: u64, via: &str| {
        let (via, configs) = (vec![via.to_owned()], Vec::new());
        let topic = topic_id(1);
        Operation::Link(LinkOperation::AlignMirror { link, topic, via, configs })
    };
    let other = number(&mut site, set("west", Some(link("west", false))));
    assert_eq!(site.one(align(other, "west")), Err(Refusal::StaleLink { number: link_before }));
    site.one(set_link(None)).expect("removed");
    assert_eq!(site.one(align(other, "west")), Err(Refusal::InvalidLink), "another site");
    let heir = number(&mut site, set("plant", Some(link("north", false))));
    let too_early = site.one(mirror_append(place(heir, 1, 2, 3), records(1)));
    assert_eq!(too_early, Err(Refusal::UnknownLink));
    site.one(align(heir, "north")).expect("taken over");
    assert_eq!(site.one(mirror_append(place(heir, 1, 2, 3), records(1))), appended(2));
    State::restore(&site.state.snapshot()).expect("restores");
}

#[test]
fn a_link_brings_a_copy_that_leads_to_its_site_and_takes_it() {
    let mut site = Site::new();
    let before = number(&mut site, set_link(Some(false)));
    site.one(create_mirror(1)).expect("created");
    assert_eq!(site.one(mirror_append(place(before, 1, 0, 2), records(2))), appended(0));
    let name = {
        let mirror = site.state.mirror(topic_id(1)).expect("it was created");
        assert!(site.state.is_brought(mirror));
        mirror.link.clone()
    };
    let is_brought =
        |site: &Site| site.state.is_brought(site.state.mirror(topic_id(1)).expect("it stays"));
    let declines = LinkDefinition { take: vec!["other".to_owned()], ..link("north", false) };
    site.one(set(&name, Some(declines))).expect("changed");
    assert!(!is_brought(&site), "its link does not take it");
    site.one(set(&name, None)).expect("removed");
    let other = number(&mut site, set(&name, Some(link("west", false))));
    assert!(!is_brought(&site), "a link of that name leads elsewhere");
    let align = |link: u64| {
        let (via, configs) = (vec!["north".to_owned()], Vec::new());
        Operation::Link(LinkOperation::AlignMirror { link, topic: topic_id(1), via, configs })
    };
    assert_eq!(site.one(align(other)), Err(Refusal::InvalidLink), "another site");
    let heir = number(&mut site, set("plant", Some(link("north", false))));
    site.one(align(heir)).expect("taken over");
    assert!(is_brought(&site));
    assert_eq!(site.one(mirror_append(place(heir, 1, 2, 3), records(1))), appended(2));
}

#[test]
fn what_a_link_takes_from_its_origin_is_taken_from_nobody_else() {
    let mut site = Site::new();
    let passed_on = |n: u8| {
        let Operation::Link(LinkOperation::CreateMirror(new)) = create_mirror(n) else {
            panic!("it makes a mirror")
        };
        let via = vec!["north".to_owned(), "west".to_owned()];
        let (name, link) = (format!("north.topic-{n}"), "west".to_owned());
        let new = NewMirror { origin_name: name.clone(), name, link, via, ..new };
        Operation::Link(LinkOperation::CreateMirror(new))
    };
    let take = vec!["topic-1".to_owned()];
    let direct = LinkDefinition { take, ..link("north", false) };
    site.one(set("north", Some(direct))).expect("set");
    site.one(set("west", Some(link("west", false)))).expect("set");
    assert_eq!(site.one(passed_on(1)), Err(Refusal::InvalidLink));
    site.one(passed_on(2)).expect("nobody takes it there");
}

#[test]
fn the_progress_of_a_peer_is_kept_until_link_or_topic_go() {
    let mut site = Site::new();
    let link = number(&mut site, set_link(Some(false)));
    site.one(create(1, 1)).expect("created");
    site.one(append(1, 0, batch(-1, -1, -1, 5, 1))).expect("appended");
    assert_eq!(site.one(peer_has(place(link, 1, 3, 8))), Ok(OperationResult::PeerNoted));
    let known = |site: &Site| {
        site.state.peer_progress("north", StreamId(0)).map(|peer| (peer.offset.0, peer.tag[0]))
    };
    assert_eq!(known(&site), Some((3, 8)));
    let ahead = site.one(peer_has(place(link, 1, 6, 8)));
    assert_eq!(ahead, Err(Refusal::OffsetOutOfRange { next: Offset(5) }));
    assert_eq!(site.one(peer_has(place(77, 1, 3, 8))), Err(Refusal::StaleLink { number: 0 }));
    site.one(set_link(None)).expect("removed");
    assert_eq!(known(&site), None);
}

#[test]
fn the_chain_can_be_computed_from_the_start_of_any_span() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    site.one(keep(1, &[("retention.bytes", Some("3000"))])).expect("altered");
    let mut batches = Vec::new();
    for at in 0..60 {
        let bytes = batch(-1, -1, -1, 1 + at % 3, i64::from(at));
        batches.push((site.state.partition(StreamId(0)).expect("there").next, bytes.clone()));
        site.one(append(1, 0, bytes)).expect("appended");
    }
    let key = site.state.topics().by_name("topic-1").expect("there").chain_key;
    let end = site.state.partition(StreamId(0)).expect("there").chain;
    let spans: Vec<_> = site.state.spans(StreamId(0)).copied().collect();
    assert!(spans.len() > 4, "{}", spans.len());
    for span in spans {
        let behind = batches.iter().filter(|(base, _)| *base >= span.first);
        let rolled = behind.fold(span.chain, |chain, (base, bytes)| {
            partitions::chained(&key, &chain, *base, bytes)
        });
        assert_eq!(rolled, end, "from {}", span.first);
    }
}

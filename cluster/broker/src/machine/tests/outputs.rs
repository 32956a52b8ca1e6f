//! Pipelines and borders: where what they write may go, and copies that they read.

use super::pipelines::{COMMITTED, P, at, change, commit, definition, output, range, set};
use super::*;
use fulmar_store::entry::{InputRange, PipelineChange};
use fulmar_types::pipeline::{PipelineDefinition, Start, internal_topic};

#[test]
fn outputs_go_where_all_that_they_are_made_of_may_go_as_it_is() {
    let mut site = Site::with_pipeline();
    site.one(create(4, 1)).expect("created");
    let goes = |site: &Site, n: u8| {
        let name = format!("topic-{n}");
        (site.state.rule_to(&name, "eu").is_some(), site.state.rule_to(&name, "us").is_some())
    };
    assert_eq!(goes(&site, 2), (false, false), "its input has no rule");
    site.one(mirrors::rule(1, &["eu", "us"])).expect("set");
    assert_eq!(goes(&site, 2), (true, true));
    // From 2 and 3 to 4: what 2 is made of counts, too, and what 3 says.
    site.one(set("q", definition(&[2, 3], &[4], 0), Start::Keep)).expect("set");
    assert_eq!(goes(&site, 4), (false, false));
    site.one(mirrors::rule(3, &["eu"])).expect("set");
    assert_eq!(goes(&site, 4), (true, false), "the strictest of them");
    let withholding =
        fulmar_types::rule::RuleDefinition::from_settings([("regions", "eu"), ("key", "hash")]);
    let rule = LinkOperation::SetRule {
        topic: "topic-3".to_owned(),
        expected: None,
        who: "dave".to_owned(),
        definition: withholding.expect("a rule"),
        secret: fulmar_store::entry::RuleSecret([0; 32]),
    };
    site.one(Operation::Link(rule)).expect("set");
    assert_eq!(goes(&site, 4), (false, false), "what a rule withholds may be in it");
    // What is in it does not change with the pipelines that wrote it.
    site.one(set("q", definition(&[1], &[4], 1), Start::Fresh)).expect("set");
    assert_eq!(goes(&site, 4), (false, false));
    site.one(change("q", None, PipelineChange::Remove { savepoints: false })).expect("removed");
    assert_eq!(goes(&site, 4), (false, false));
    site.one(mirrors::rule(4, &["us"])).expect("set");
    assert_eq!(goes(&site, 4), (false, true), "a rule of its own");
    site.one(Operation::DeleteTopic { topic: topic_id(2) }).expect("deleted");
    site.one(create(2, 1)).expect("created");
    assert_eq!(goes(&site, 2), (true, true), "it is made of what its pipeline reads");
    assert!(site.state.rule_to(&internal_topic(P), "eu").is_none());
}

#[test]
fn what_was_made_of_a_topic_that_is_gone_does_not_go_by_its_name() {
    // 4 -> 1 -> 2, and what is in 2 came of 4.
    let mut site = Site::with_pipeline();
    for n in [4, 5] {
        site.one(create(n, 1)).expect("created");
    }
    site.one(mirrors::rule(5, &["eu"])).expect("set");
    site.one(set("q", definition(&[4], &[1], 0), Start::Keep)).expect("set");
    let fence = site.claim(1);
    assert_eq!(site.one(commit(at(fence, 1), 1, Vec::new())), COMMITTED);
    site.one(output(at(fence, 1), 0, 2)).expect("appended");
    assert!(site.state.rule_to("topic-2", "eu").is_none(), "4 has no rule");
    // Something else gets the name of 1, of what may go anywhere.
    site.one(change("q", None, PipelineChange::Remove { savepoints: true })).expect("removed");
    site.one(Operation::DeleteTopic { topic: topic_id(1) }).expect("deleted");
    site.one(create(1, 1)).expect("created");
    site.one(set("q", definition(&[5], &[1], 0), Start::Keep)).expect("set");
    assert!(site.state.rule_to("topic-1", "eu").is_some(), "all that it is made of may go");
    assert!(site.state.rule_to("topic-2", "eu").is_none(), "that is not what it was made of");
    State::restore(&site.state.snapshot()).expect("restores");
}

#[test]
fn an_output_that_is_made_anew_is_made_of_what_its_pipelines_read() {
    let mut site = Site::with_pipeline();
    site.one(create(4, 1)).expect("created");
    site.one(mirrors::rule(4, &["eu"])).expect("set");
    site.one(Operation::DeleteTopic { topic: topic_id(2) }).expect("deleted");
    site.one(create(2, 1)).expect("created");
    // The pipeline of before may write to it still.
    site.one(set("q", definition(&[4], &[2], 0), Start::Keep)).expect("set");
    assert!(site.state.rule_to("topic-2", "eu").is_none(), "of 1 as well");
}

#[test]
fn what_a_client_wrote_into_an_output_goes_nowhere_without_a_rule() {
    // What lay there before it became an output, and what is written besides.
    for before in [true, false] {
        let mut site = Site::with_pipeline();
        site.one(mirrors::rule(1, &["eu"])).expect("set");
        if before {
            site.fill(3, 0, 1);
        }
        site.one(set("q", definition(&[1], &[3], 0), Start::Keep)).expect("set");
        assert_eq!(site.state.rule_to("topic-3", "eu").is_some(), !before);
        site.fill(3, 1, 1);
        assert!(site.state.rule_to("topic-3", "eu").is_none(), "{before}");
        let again = State::restore(&site.state.snapshot()).expect("restores");
        assert!(again.rule_to("topic-3", "eu").is_none(), "{before}");
        site.one(mirrors::rule(3, &["eu"])).expect("set");
        assert!(site.state.rule_to("topic-3", "eu").is_some(), "a rule of its own");
    }
}

#[test]
fn a_copy_that_a_pipeline_reads_takes_what_comes_whatever_its_budget_says() {
    for policy in ["block", "keep-oldest"] {
        let mut site = Site::with_pipeline();
        let Ok(OperationResult::LinkSet { number }) = site.one(mirrors::set_link(Some(false)))
        else {
            panic!("the link is refused")
        };
        site.one(mirrors::create_mirror(5)).expect("created");
        let settings = [("retention.bytes", Some("1")), ("fulmar.budget.policy", Some(policy))];
        site.one(keep(5, &settings)).expect("altered");
        let reading = PipelineDefinition {
            inputs: vec!["north.topic-5".to_owned()],
            ..definition(&[], &[2], 1)
        };
        site.set(reading, Start::Fresh).expect("set");
        let fence = site.claim(1);
        let append = |site: &mut Site, at: u64| {
            // One of two records was withheld.
            let mut lacking = batch(-1, -1, -1, 2, 5).to_vec();
            lacking[57..61].copy_from_slice(&1i32.to_be_bytes());
            let place = mirrors::place(number, 5, at, 1);
            site.one(mirrors::mirror_append(place, lacking.into()))
        };
        for at in 0..4 {
            assert_eq!(append(&mut site, 2 * at), appended(2 * at), "{policy}");
        }
        let topic = site.state.topics().by_name("north.topic-5").expect("there");
        let stream = topic.first_stream;
        let start = |site: &Site| site.state.partition(stream).expect("there").log_start.0;
        assert_eq!(start(&site), 6, "nobody has to read it again");
        let reads = InputRange { topic: topic_id(5), ..range(5, 0, 6, 8) };
        assert_eq!(site.one(commit(at(fence, 1), 0, vec![reads])), COMMITTED);
        assert_eq!(append(&mut site, 8), appended(8), "{policy}");
        assert_eq!(append(&mut site, 10), appended(10), "{policy}");
        assert_eq!(start(&site), 6, "until the next delta the epoch is to be read again");
        site.delta(fence, 1);
        assert_eq!(append(&mut site, 12), appended(12), "{policy}");
        assert_eq!(start(&site), 12, "{policy}: what was not read keeps nothing");
    }
}

#[test]
fn two_topics_that_are_made_of_each_other_go_nowhere() {
    // One pipeline after the other, since they would feed each other for ever.
    let mut site = Site::with_pipeline();
    let back = || set("q", definition(&[2], &[1], 0), Start::Keep);
    assert_eq!(site.one(back()), Err(Refusal::Circle));
    site.one(change(P, None, PipelineChange::Remove { savepoints: false })).expect("removed");
    site.one(back()).expect("set");
    assert!(site.state.rule_to("topic-1", "eu").is_none());
    site.one(mirrors::rule(1, &["eu"])).expect("set");
    assert!(site.state.rule_to("topic-2", "eu").is_some());
}

#[test]
fn pipelines_that_would_feed_each_other_are_refused() {
    let mut site = Site::with_pipeline();
    for n in 4..=6 {
        site.one(create(n, 1)).expect("created");
    }
    let wants = |site: &mut Site, name: &str, inputs: &[u8], outputs: &[u8]| {
        site.one(set(name, definition(inputs, outputs, 0), Start::Fresh)).map(|_| ())
    };
    // 1 -> 2 by p, 2 -> 3 and 4, 4 -> 5: a line with branches.
    assert_eq!(wants(&mut site, "q", &[2], &[3, 4]), Ok(()));
    assert_eq!(wants(&mut site, "r", &[1, 4], &[5]), Ok(()));
    for back in [2, 1, 4] {
        assert_eq!(wants(&mut site, "s", &[5], &[6, back]), Err(Refusal::Circle), "{back}");
    }
    let closing = definition(&[5], &[6, 1], 0);
    let way = site.state.circle("s", &closing).expect("a circle");
    assert_eq!(way.first().map(String::as_str), Some("topic-1"));
    assert_eq!(way.last().map(String::as_str), Some("topic-5"));
    assert_eq!(wants(&mut site, "s", &[5], &[6]), Ok(()), "as far as this");
    // Two that write the same topic, and one that is changed: what it was does not count.
    assert_eq!(wants(&mut site, "t", &[6], &[3]), Ok(()));
    assert_eq!(wants(&mut site, P, &[6], &[2]), Err(Refusal::Circle));
    assert_eq!(wants(&mut site, "q", &[6], &[3]), Ok(()));
    assert_eq!(wants(&mut site, P, &[6], &[2]), Ok(()));
    // A pipeline that is paused may go on.
    let paused = PipelineDefinition { paused: true, ..definition(&[3], &[4], 0) };
    assert_eq!(site.one(set("u", paused, Start::Fresh)), Err(Refusal::Circle));
}

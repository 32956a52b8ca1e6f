//! Settings of topics that change (operation 8), and starts that move behind such a change
//! (operation 6).

use super::super::retention::Retention;
use super::*;

fn altered() -> Result<OperationResult, Refusal> {
    Ok(OperationResult::TopicAltered)
}

fn start_at(offset: u64) -> Result<OperationResult, Refusal> {
    Ok(OperationResult::StartMoved { log_start: Offset(offset), missing: 0 })
}

fn configs(site: &Site) -> Vec<(String, String)> {
    site.state.topics().by_name("topic-1").expect("there").configs.clone()
}

fn retention(site: &Site) -> Retention {
    site.state.topics().by_name("topic-1").expect("there").keeping.retention
}

fn log_start(site: &Site) -> u64 {
    site.state.partition(StreamId(0)).expect("there").log_start.0
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A topic that keeps what is at most 100 ms old, with ten records at each of the ages 1000, 1100,
/// 1200 and 1300; the site is 1310 ms old. Three of its spans have had their time.
fn aging() -> Site {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    site.one(keep(1, &[("retention.ms", Some("100"))])).expect("altered");
    for _ in 0..4 {
        site.one(append(1, 0, batch(-1, -1, -1, 10, 5))).expect("appended");
        site.wall_ms += 100;
    }
    site.wall_ms -= 90;
    site
}

#[test]
fn some_settings_change_or_all_are_replaced() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("created");
    let both = [("retention.ms", Some("100")), ("retention.bytes", Some("7"))];
    assert_eq!(site.one(keep(1, &both)), altered());
    assert_eq!(configs(&site), pairs(&[("retention.ms", "100"), ("retention.bytes", "7")]));
    assert_eq!(retention(&site), Retention { age_ms: Some(100), bytes: Some(7) });

    let again = [("retention.ms", Some("5")), ("retention.ms", Some("6"))];
    assert_eq!(site.one(keep(1, &again)), altered(), "a later change counts");
    assert_eq!(configs(&site), pairs(&[("retention.bytes", "7"), ("retention.ms", "6")]));
    assert_eq!(site.one(keep(1, &[("retention.bytes", None)])), altered());
    assert_eq!(configs(&site), pairs(&[("retention.ms", "6")]));
    assert_eq!(site.one(keep(1, &[("retention.bytes", None)])), altered(), "it is not there");

    let changes = vec![("retention.bytes".to_owned(), Some("9".to_owned()))];
    let replace = Operation::AlterTopic { topic: topic_id(1), replaces: true, changes };
    assert_eq!(site.one(replace), altered());
    assert_eq!(configs(&site), pairs(&[("retention.bytes", "9")]));
    assert_eq!(retention(&site), Retention { age_ms: None, bytes: Some(9) });
}

#[test]
fn a_change_that_is_refused_leaves_no_trace() {
    let mut site = aging();
    let sections = site.state.snapshot();
    let unchanged = |site: &Site| {
        // The entry itself passes: its age stands in the numbers of the site.
        let same = |(before, after): (&Section, &Section)| before.id == META || before == after;
        sections.iter().zip(&site.state.snapshot()).all(same)
    };
    let new = ("retention.ms", Some("9000"));
    assert_eq!(site.one(keep(2, &[new])), Err(Refusal::UnknownTopic));
    assert!(unchanged(&site));
    let long = "9".repeat(topics::TOPIC_CONFIG_BYTES_MAX + 1);
    let names: Vec<_> = (0..=topics::TOPIC_CONFIGS_MAX).map(|at| format!("setting-{at}")).collect();
    for changes in [
        vec![new, (topics::CHAIN_KEY_CONFIG, Some("x"))],
        vec![new, ("retention.bytes", Some(&*long))],
        vec![new, (&*long, Some("1"))],
        names.iter().map(|name| (name.as_str(), Some("1"))).collect(),
    ] {
        assert_eq!(site.one(keep(1, &changes)), Err(Refusal::InvalidConfig));
        assert!(unchanged(&site));
    }

    // In a unit with others the change took effect for a moment.
    let operations = vec![
        keep(1, &[new, ("retention.bytes", Some("0"))]),
        advance(1, 0, 40),
        keep(1, &[(topics::CHAIN_KEY_CONFIG, None)]),
    ];
    let refused = site.entry(vec![Unit { preconditions: vec![], operations }]);
    assert_eq!(results(&refused), [UnitResult::Refused(Refusal::InvalidConfig)]);
    assert_eq!(refused.moved_starts, []);
    assert!(unchanged(&site));
    assert_eq!(retention(&site), Retention { age_ms: Some(100), bytes: None });
    assert_eq!(site.one(advance(1, 0, 40)), start_at(30), "the spans are those from before");
}

#[test]
fn a_restored_state_goes_on_with_the_settings_that_were_changed() {
    let mut site = aging();
    site.one(keep(1, &[("retention.ms", Some("250")), ("retention.bytes", None)])).expect("done");
    let restored = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(restored.hash(), site.state.hash());
    let mut other = Site { state: restored, ..Site::new() };
    (other.next, other.wall_ms) = (site.next, site.wall_ms);
    assert_eq!(retention(&other), Retention { age_ms: Some(250), bytes: None });
    for operation in [
        append(1, 0, batch(-1, -1, -1, 3, 5)),
        advance(1, 0, 30),
        keep(1, &[("retention.ms", None), ("retention.bytes", Some("60"))]),
        append(1, 0, batch(-1, -1, -1, 3, 5)),
        advance(1, 0, 40),
    ] {
        let units = vec![Unit::of(operation)];
        assert_eq!(site.entry(units.clone()), other.entry(units));
        assert_eq!(site.state.hash(), other.state.hash());
        assert_eq!(site.state.snapshot(), other.state.snapshot());
    }
    assert!(log_start(&site) > 10, "both limits let something go");
}

#[test]
fn a_start_that_was_proposed_under_a_shorter_retention_stays() {
    let mut site = aging();
    let due = retention(&site).start(|| site.state.spans(StreamId(0)), site.wall_ms);
    assert_eq!(due, Some(Offset(30)), "what a leader would propose");
    // In one entry, as the proposer puts together what waits.
    let units = [keep(1, &[("retention.ms", None)]), advance(1, 0, 30)].map(Unit::of);
    let applied = site.entry(units.to_vec());
    let done = [altered(), start_at(0)].map(|done| UnitResult::Done(vec![done.expect("done")]));
    assert_eq!(results(&applied), done);
    assert_eq!(applied.moved_starts, []);
    assert_eq!(site.one(advance(1, 0, 30)), start_at(0));
    assert_eq!(site.state.spans(StreamId(0)).next().map(|span| span.first.0), Some(0));
    // The change is part of the state, so a node that applies only the rest does the same.
    site.state = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(site.one(advance(1, 0, 30)), start_at(0));
    site.one(keep(1, &[("retention.ms", Some("100"))])).expect("altered");
    assert_eq!(site.one(advance(1, 0, 30)), start_at(30));
}

#[test]
fn a_start_moves_as_far_as_a_longer_retention_allows() {
    let mut site = aging();
    site.one(keep(1, &[("retention.ms", Some("200"))])).expect("altered");
    let applied = site.entry(vec![Unit::of(advance(1, 0, 30))]);
    assert_eq!(applied.moved_starts, [(StreamId(0), Offset(20))]);
    assert_eq!(site.one(advance(1, 0, 15)), start_at(20), "it moves forward only");
    let out = Err(Refusal::OffsetOutOfRange { next: Offset(40) });
    assert_eq!(site.one(advance(1, 0, 41)), out);
    // Of four batches of one size two are left; by bytes one may go.
    let bytes: u64 = site.state.spans(StreamId(0)).map(|span| span.bytes).sum();
    let kept = (bytes / 2).to_string();
    let by_bytes = [("retention.ms", None), ("retention.bytes", Some(&*kept))];
    site.one(keep(1, &by_bytes)).expect("altered");
    assert_eq!(site.one(advance(1, 0, 40)), start_at(30));
    site.one(keep(1, &[("retention.bytes", None)])).expect("altered");
    assert_eq!(site.one(advance(1, 0, 40)), start_at(30));
}

/// A leader may be younger than the one before it, whose age stands in the log.
#[test]
fn the_age_that_counts_is_that_of_the_entry() {
    let mut site = aging();
    site.wall_ms = 1_205;
    assert_eq!(site.one(advance(1, 0, 30)), start_at(20), "the site was 1300 ms old before");
    site.wall_ms = 1_401;
    assert_eq!(site.one(advance(1, 0, 40)), start_at(40));
}

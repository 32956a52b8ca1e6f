//! Budgets of partitions under each policy, and the markers of what other sites will never have.

use super::mirrors::{create_mirror, mirror_append, peer_has, place, rule, set_link, skip};
use super::*;
use fulmar_types::gap::{GapReason, Missing};

const STREAM: StreamId = StreamId(0);

/// Bytes of a batch of these tests.
const BATCH: u64 = 69;

/// A topic of which ten batches are kept, at a site with a link that has asked for it, and the number of
/// the link.
fn site(policy: &str) -> (Site, u64) {
    let mut site = Site::with_producers();
    site.one(set_link(Some(false))).expect("set");
    let link = site.state.link("north").expect("there").number;
    site.one(rule(1, &["eu"])).expect("set");
    site.one(create(1, 1)).expect("created");
    let bytes = (10 * BATCH).to_string();
    let settings = [("retention.bytes", Some(&*bytes)), ("fulmar.budget.policy", Some(policy))];
    site.one(keep(1, &settings)).expect("altered");
    (site, link)
}

fn records(n: i32) -> Operation {
    append(1, 0, batch(-1, -1, -1, n, 5))
}

fn fill(site: &mut Site, batches: u64) {
    for _ in 0..batches {
        site.one(records(2)).expect("taken");
        site.wall_ms += 10;
    }
}

fn has(link: u64, offset: u64) -> Operation {
    peer_has(place(link, 1, offset, 0))
}

fn bounds(site: &Site) -> (u64, u64, u64) {
    let partition = site.state.partition(STREAM).expect("there");
    (partition.log_start.0, partition.next.0, site.state.bytes(STREAM) / BATCH)
}

fn gaps(site: &Site) -> Vec<(u64, u64, u64, GapReason)> {
    let shown = |gap: &gaps::Gap| (gap.first.0, gap.end.0, gap.missing.count, gap.missing.reason);
    site.state.gaps(STREAM).map(shown).collect()
}

fn not_kept(offset: u64) -> Result<OperationResult, Refusal> {
    Ok(OperationResult::NotKept { base_offset: Offset(offset) })
}

#[test]
fn block_refuses_what_is_too_much_until_the_oldest_were_delivered() {
    let (mut site, link) = site("block");
    fill(&mut site, 10);
    assert_eq!(site.one(records(1)), Err(Refusal::BudgetReached));
    assert_eq!(bounds(&site), (0, 20, 10));
    let topic = site.state.topics().by_name("topic-1").expect("there").clone();
    assert!(site.state.is_blocked(&topic, STREAM, &batch(-1, -1, -1, 1, 5)));

    site.one(has(link, 3)).expect("noted");
    assert_eq!(site.one(records(1)), appended(20), "one batch of two was delivered");
    assert_eq!(bounds(&site), (2, 21, 10));
    assert_eq!(site.one(records(1)), Err(Refusal::BudgetReached));
    assert_eq!(gaps(&site), []);
    // Nobody waits any more.
    site.one(rule(1, &["us"])).expect("set");
    assert_eq!(site.one(records(1)), appended(21));
    assert_eq!(bounds(&site), (4, 22, 10));
    assert_eq!(gaps(&site), [(3, 4, 1, GapReason::Budget)], "it may be let go again");
}

#[test]
fn what_was_appended_before_is_answered_however_full_it_is() {
    let (mut site, _) = site("block");
    let first = batch(3, 0, 0, 2, 5);
    assert_eq!(site.one(append(1, 0, first.clone())), appended(0));
    fill(&mut site, 9);
    let duplicate = Ok(OperationResult::Duplicate { base_offset: Offset(0), term: Term(1) });
    let topic = site.state.topics().by_name("topic-1").expect("there").clone();
    assert!(!site.state.is_blocked(&topic, STREAM, &first));
    assert_eq!(site.one(append(1, 0, first)), duplicate);
    let next = batch(3, 0, 2, 1, 5);
    assert!(site.state.is_blocked(&topic, STREAM, &next));
    assert_eq!(site.one(append(1, 0, next)), Err(Refusal::BudgetReached));
}

#[test]
fn keep_oldest_acknowledges_and_does_not_keep_and_marks_it() {
    let (mut site, link) = site("keep-oldest");
    fill(&mut site, 10);
    let chain = site.state.partition(STREAM).expect("there").chain;
    let sent = batch(3, 0, 0, 3, 5);
    assert_eq!(site.one(append(1, 0, sent.clone())), not_kept(20));
    assert_eq!(site.one(records(1)), not_kept(23));
    assert_eq!(bounds(&site), (0, 24, 10));
    assert_eq!(gaps(&site), [(20, 24, 4, GapReason::Budget)]);
    assert_eq!(site.state.partition(STREAM).expect("there").chain, chain, "it is no part of it");
    let again = Ok(OperationResult::Duplicate { base_offset: Offset(20), term: Term(1) });
    assert_eq!(site.one(append(1, 0, sent)), again);

    // Delivered records make room, and behind a gap only for a whole span: here two batches of it are
    // less than the smallest, which is one batch.
    site.one(has(link, 4)).expect("noted");
    assert_eq!(site.one(records(1)), appended(24));
    assert_eq!(bounds(&site), (2, 25, 10));
    assert_eq!(site.one(records(1)), appended(25));
    assert_eq!(site.one(records(1)), not_kept(26));
    assert_eq!(gaps(&site), [(20, 24, 4, GapReason::Budget), (26, 27, 1, GapReason::Budget)]);
    let restored = State::restore(&site.state.snapshot()).expect("restores");
    assert_eq!(restored.hash(), site.state.hash());

    // Behind the gap, all of it was delivered.
    site.one(has(link, 27)).expect("noted");
    assert_eq!(site.one(records(1)), appended(27));
    assert_eq!(
        site.one(Operation::DeleteTopic { topic: topic_id(1) }),
        Ok(OperationResult::TopicDeleted)
    );
    assert_eq!(gaps(&site), []);
}

#[test]
fn keep_newest_lets_the_oldest_go_and_marks_what_was_not_delivered() {
    let (mut site, link) = site("keep-newest");
    fill(&mut site, 15);
    assert_eq!(bounds(&site), (0, 30, 15), "the leader looks later");
    site.one(has(link, 5)).expect("noted");
    let moved = OperationResult::StartMoved { log_start: Offset(10), missing: 5 };
    assert_eq!(site.one(advance(1, 0, 30)), Ok(moved));
    assert_eq!(gaps(&site), [(5, 10, 5, GapReason::Budget)]);
    let gap = *site.state.gaps(STREAM).next().expect("a marker");
    assert_eq!((gap.missing.first_ms, gap.missing.last_ms), (1_020, 1_040), "of its spans");
    let span = site.state.spans(STREAM).next().expect("a span");
    assert_eq!((gap.tag, span.first), (span.chain, Offset(10)), "to go on from there");

    site.one(has(link, 30)).expect("noted");
    fill(&mut site, 1);
    let moved = OperationResult::StartMoved { log_start: Offset(12), missing: 0 };
    assert_eq!(site.one(advance(1, 0, 30)), Ok(moved));
    assert_eq!(gaps(&site).len(), 1);
}

#[test]
fn time_is_not_the_budgets() {
    for policy in ["block", "keep-oldest", "keep-newest"] {
        let (mut site, _) = site(policy);
        site.one(keep(1, &[("retention.ms", Some("55"))])).expect("altered");
        fill(&mut site, 10);
        site.one(advance(1, 0, 20)).expect("moved");
        assert_eq!(bounds(&site), (10, 20, 5), "{policy}");
        assert_eq!(gaps(&site), [(0, 10, 10, GapReason::Expired)], "{policy}");
    }
}

#[test]
fn markers_say_what_was_too_old_and_what_was_too_much() {
    let (mut site, _) = site("keep-newest");
    fill(&mut site, 15);
    site.one(keep(1, &[("retention.ms", Some("125"))])).expect("altered");
    site.one(advance(1, 0, 30)).expect("moved");
    let expected = [(0, 6, 6, GapReason::Expired), (6, 10, 4, GapReason::Budget)];
    assert_eq!(gaps(&site), expected);
}

#[test]
fn a_smaller_budget_lets_go_what_was_delivered_and_no_more() {
    for policy in ["block", "keep-oldest"] {
        let (mut site, link) = site(policy);
        fill(&mut site, 10);
        let bytes = (4 * BATCH).to_string();
        site.one(keep(1, &[("retention.bytes", Some(&bytes))])).expect("altered");
        site.one(has(link, 6)).expect("noted");
        let stays = site.one(advance(1, 0, 20)).expect("moved");
        assert_eq!(stays, OperationResult::StartMoved { log_start: Offset(6), missing: 0 });
        site.one(has(link, 20)).expect("noted");
        site.one(advance(1, 0, 20)).expect("moved");
        assert_eq!(bounds(&site), (12, 20, 4), "{policy}");
    }
}

#[test]
fn one_batch_fits_however_large_it_is() {
    for policy in ["block", "keep-oldest"] {
        let (mut site, _) = site(policy);
        site.one(keep(1, &[("retention.bytes", Some("10"))])).expect("altered");
        assert_eq!(site.one(records(4)), appended(0), "{policy}");
        assert!(!matches!(site.one(records(4)), Ok(OperationResult::Appended { .. })), "{policy}");
    }
}

#[test]
fn a_copy_and_a_topic_that_goes_nowhere_wait_for_nobody() {
    for policy in ["block", "keep-oldest"] {
        let (mut site, link) = site(policy);
        site.one(rule(1, &[])).expect("set");
        fill(&mut site, 25);
        assert_eq!(bounds(&site), (30, 50, 10), "{policy}");

        site.one(create_mirror(2)).expect("created");
        let bytes = (2 * BATCH).to_string();
        let settings = [("retention.bytes", Some(&*bytes)), ("fulmar.budget.policy", Some(policy))];
        site.one(keep(2, &settings)).expect("altered");
        for at in 0..5 {
            let batch = batch(-1, -1, -1, 1, 5);
            let taken = site.one(mirror_append(place(link, 2, at, 1), batch));
            assert_eq!(taken, appended(at), "{policy}");
        }
        let mirror = site.state.topics().by_name("north.topic-2").expect("there").first_stream;
        assert_eq!(site.state.bytes(mirror), 2 * BATCH);
        assert_eq!(site.state.gaps(mirror).count(), 0);
    }
}

#[test]
fn a_mirrored_marker_counts_what_it_was_told_and_nothing_impossible() {
    let (mut site, link) = site("keep-newest");
    site.one(create_mirror(2)).expect("created");
    let missing = |count| Missing::untimed(GapReason::Withheld, count);
    let said = |count| {
        let (place, to, missing) = (place(link, 2, 0, 1), Offset(10), missing(count));
        Operation::Link(LinkOperation::MirrorSkip { place, to, missing })
    };
    for count in [0, 11] {
        assert_eq!(site.one(said(count)), Err(Refusal::OffsetOutOfRange { next: Offset(0) }));
    }
    assert_eq!(site.one(said(4)), Ok(OperationResult::Skipped));
    assert_eq!(site.one(skip(place(link, 2, 10, 1), 12)), Ok(OperationResult::Skipped));
    let mirror = site.state.topics().by_name("north.topic-2").expect("there").first_stream;
    let counts: Vec<_> = site.state.gaps(mirror).map(|gap| gap.missing.count).collect();
    assert_eq!(counts, [4, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever comes: under `block` and `keep-oldest` nothing goes that the other site lacks, nothing is
    /// refused or dropped that would fit, and there is never more than the budget; every offset is
    /// there, was delivered, or is counted by a marker.
    #[test]
    fn nothing_is_lost_unseen(
        policy in 0usize..3,
        steps in proptest::collection::vec((0u8..10, 1i32..5, 0u64..8), 1..120),
    ) {
        let policy = budget::BudgetPolicy::ALL[policy];
        let (mut site, link) = site(policy.name());
        let (mut delivered, mut appended_at) = (0, std::collections::BTreeSet::new());
        for (kind, records_of, more) in steps {
            let before = (bounds(&site), site.state.bytes(STREAM));
            match kind {
                0..6 => match site.one(records(records_of)) {
                    Ok(OperationResult::Appended { base_offset }) => {
                        let end = base_offset.0 + u64::from(records_of.unsigned_abs());
                        appended_at.extend(base_offset.0..end);
                    }
                    Ok(OperationResult::NotKept { base_offset }) => {
                        prop_assert_eq!(policy, budget::BudgetPolicy::KeepOldest);
                        prop_assert_eq!(base_offset.0, before.0.1);
                        prop_assert!(before.1 + 2 * BATCH > 10 * BATCH, "it would fit");
                    }
                    Err(refusal) => {
                        prop_assert_eq!(refusal, Refusal::BudgetReached);
                        prop_assert_eq!(policy, budget::BudgetPolicy::Block);
                        prop_assert!(before.1 + BATCH > 10 * BATCH, "it would fit");
                    }
                    other => prop_assert!(false, "{:?}", other),
                },
                6..8 => {
                    let next = bounds(&site).1;
                    delivered = (delivered + more).min(next);
                    site.one(has(link, delivered)).expect("noted");
                }
                _ => drop(site.one(advance(1, 0, bounds(&site).1)).expect("moved")),
            }
            let (start, next, _) = bounds(&site);
            if policy != budget::BudgetPolicy::KeepNewest {
                prop_assert!(site.state.bytes(STREAM) <= 10 * BATCH);
                prop_assert!(start <= delivered.max(before.0.0), "it was not delivered");
            }
            let marked: u64 = gaps(&site).iter().map(|gap| gap.2).sum();
            let lost = (0..next).filter(|at| {
                let is_there = *at >= start && appended_at.contains(at);
                !is_there && !gaps(&site).iter().any(|gap| (gap.0..gap.1).contains(at))
            });
            // What went without a marker was delivered.
            prop_assert!(lost.clone().all(|at| at < delivered), "{:?}", lost.collect::<Vec<_>>());
            prop_assert!(gaps(&site).iter().all(|gap| gap.2 == gap.1 - gap.0), "none was put together");
            prop_assert!(marked <= next);
        }
        let restored = State::restore(&site.state.snapshot()).expect("restores");
        prop_assert_eq!(restored.hash(), site.state.hash());
    }
}

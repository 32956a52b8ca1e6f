//! Dead letters that are put through again.

use super::pipelines::{P, at, commit, definition, halt, range, remove, retry, save};
use super::*;
use crate::machine::letters::Letters;
use fulmar_types::pipeline::Start;

fn letters(site: &Site) -> Vec<(u64, u64, u64)> {
    let of = |letters: &Letters| (letters.floor.0, letters.next.0, letters.until.0);
    site.state.letters(P).iter().map(|found| of(found.letters)).collect()
}

fn wanted(records: u64) -> Result<OperationResult, Refusal> {
    Ok(OperationResult::LettersWanted { records })
}

/// An epoch that reads dead letters of topic 2.
fn reads(site: &mut Site, fence: u64, (from, to): (u64, u64)) -> Result<OperationResult, Refusal> {
    let epoch = site.run().epoch + 1;
    site.one(commit(at(fence, epoch), 0, vec![range(2, 0, from, to)]))
}

#[test]
fn what_somebody_asks_for_is_read_once() {
    let mut site = Site::with_pipeline();
    site.fill(2, 0, 5);
    let fence = site.claim(2);
    let done = Ok(OperationResult::EpochCommitted);
    assert_eq!(reads(&mut site, fence, (0, 1)), Err(Refusal::NotAnInput), "nobody has asked");
    assert_eq!(site.one(retry(3)), Err(Refusal::NotAnOutput));
    assert_eq!(site.one(retry(2)), wanted(5));
    assert_eq!(letters(&site), [(0, 0, 5), (0, 0, 0)]);
    site.fill(2, 0, 2);
    let behind = Refusal::OffsetOutOfRange { next: Offset(5) };
    assert_eq!(reads(&mut site, fence, (0, 6)), Err(behind), "of what came since");
    assert_eq!(reads(&mut site, fence, (0, 3)), done);
    let taken = Refusal::UnexpectedOffset { next: Offset(3) };
    assert_eq!(reads(&mut site, fence, (0, 5)), Err(taken), "a second time");
    assert_eq!(letters(&site)[0], (0, 3, 5));
    let stream = site.state.letters(P)[0].letters.stream;
    assert_eq!(site.state.replayed_from(stream), Some(Offset(0)), "for whoever takes over");
    site.delta(fence, 0);
    assert_eq!((letters(&site)[0], site.state.replayed_from(stream)), ((3, 3, 5), None));
    assert_eq!(reads(&mut site, fence, (3, 5)), done);
    assert_eq!(site.one(retry(2)), wanted(2), "those that came since");
    assert_eq!(letters(&site)[0], (3, 5, 7));
    // It goes on with its inputs meanwhile.
    site.epoch(fence, 2);
    let sections = site.state.snapshot();
    site.state = State::restore(&sections).expect("restores");
    assert_eq!(reads(&mut site, fence, (5, 7)), done);
    assert_eq!(site.one(retry(2)), wanted(0));
}

#[test]
fn what_lies_there_at_the_beginning_is_not_put_through() {
    let mut site = Site::with_pipeline();
    site.fill(2, 0, 5);
    site.claim(2);
    assert_eq!(site.one(retry(2)), wanted(5));
    site.set(definition(&[1], &[2], 0), Start::Fresh).expect("set");
    assert_eq!(letters(&site), [(5, 5, 5), (0, 0, 0)], "their records are read again");
    site.fill(2, 1, 1);
    assert_eq!(site.one(retry(2)), wanted(1));
    site.one(Operation::DeleteTopic { topic: topic_id(2) }).expect("deleted");
    assert_eq!(letters(&site), []);
    site.one(create(2, 2)).expect("created");
    assert_eq!(site.one(retry(2)), wanted(0), "another topic of the same name");
}

/// Of topic 2 with the file that writes it: `(floor, next, until)` of its first partition.
fn of_first(site: &Site) -> Option<(u64, u64, u64)> {
    letters(site).first().copied()
}

#[test]
fn what_was_read_again_is_not_put_through_whatever_files_came_between() {
    let other = || definition(&[1], &[3], 0);
    let this = || definition(&[1], &[2], 0);
    let saved = Start::Savepoint("s".to_owned());
    // Begins another time while topic 2 is not written, at once or after another file.
    for (start, at_once) in [(Start::Fresh, true), (Start::Fresh, false), (saved, false)] {
        let mut site = Site::with_pipeline();
        let fence = site.claim(2);
        site.epoch(fence, 1);
        site.delta(fence, 0);
        site.one(save(Some(P))).expect("saved");
        site.fill(2, 0, 5);
        if !at_once {
            site.set(other(), Start::Keep).expect("set");
        }
        site.set(other(), start).expect("set");
        site.set(this(), Start::Keep).expect("set");
        assert_eq!(of_first(&site), Some((5, 5, 5)), "{at_once}");
        let sections = site.state.snapshot();
        site.state = State::restore(&sections).expect("restores");
        assert_eq!(site.one(retry(2)), wanted(0), "{at_once}");
        site.fill(2, 0, 1);
        assert_eq!(site.one(retry(2)), wanted(1), "{at_once}: of this time");
    }
}

#[test]
fn a_file_that_does_not_write_a_topic_leaves_what_is_known_of_it() {
    let mut site = Site::with_pipeline();
    site.fill(2, 0, 5);
    let fence = site.claim(2);
    assert_eq!(site.one(retry(2)), wanted(5));
    assert_eq!(reads(&mut site, fence, (0, 3)), Ok(OperationResult::EpochCommitted));
    site.delta(fence, 0);
    site.fill(3, 0, 4);
    site.set(definition(&[1], &[3], 0), Start::Keep).expect("set");
    assert_eq!(of_first(&site), Some((4, 4, 4)), "what lies there is of somebody else");
    assert_eq!(site.one(retry(2)), Err(Refusal::NotAnOutput));
    site.set(definition(&[1], &[2], 0), Start::Keep).expect("set");
    assert_eq!(of_first(&site), Some((3, 3, 5)), "two are still wanted");
    let fence = site.claim(2);
    assert_eq!(reads(&mut site, fence, (3, 5)), Ok(OperationResult::EpochCommitted));
    // One that was never put through is not forgotten either.
    let mut site = Site::with_pipeline();
    let fence = site.claim(2);
    site.epoch(fence, 1);
    site.delta(fence, 0);
    site.fill(2, 0, 5);
    site.set(definition(&[1], &[3], 0), Start::Keep).expect("set");
    site.set(definition(&[1], &[2], 0), Start::Keep).expect("set");
    assert_eq!(site.one(retry(2)), wanted(5));
}

#[test]
fn what_is_known_of_topics_that_are_not_written_any_more_has_a_bound() {
    let mut site = Site::with_pipeline();
    let mut written = 4_096 - 2;
    let mut sets = 0;
    for n in 10..100 {
        site.one(create(n, 1_000)).expect("created");
        let set = site.set(definition(&[1], &[n], 0), Start::Keep);
        if written < 1_000 {
            assert_eq!(set, Err(Refusal::LimitReached));
            break;
        }
        (written, sets) = (written - 1_000, sets + 1);
        set.expect("set");
    }
    assert_eq!(sets, 4);
    site.one(Operation::DeleteTopic { topic: topic_id(10) }).expect("deleted");
    site.set(definition(&[1], &[14], 0), Start::Keep).expect("there is room again");
    site.one(remove(false)).expect("removed");
    assert_eq!(site.state.letters.iter().count(), 0);
}

#[test]
fn a_topic_whose_letters_were_read_since_the_last_delta_cannot_go() {
    let mut site = Site::with_pipeline();
    site.fill(2, 0, 5);
    let fence = site.claim(2);
    assert_eq!(site.one(retry(2)), wanted(5));
    let delete = || Operation::DeleteTopic { topic: topic_id(2) };
    let needed = |site: &Site| {
        let topic = site.state.topics().by_name("topic-2").expect("it is there");
        site.state.needed_by(topic).into_iter().collect::<Vec<_>>()
    };
    assert!(needed(&site).is_empty(), "nothing was read of it");
    assert_eq!(reads(&mut site, fence, (0, 3)), Ok(OperationResult::EpochCommitted));
    assert_eq!(site.one(delete()), Err(Refusal::NeededAgain));
    assert_eq!(needed(&site), [P]);
    site.delta(fence, 0);
    assert!(needed(&site).is_empty());
    assert_eq!(reads(&mut site, fence, (3, 5)), Ok(OperationResult::EpochCommitted));
    let mut failed = site.clone();
    assert_eq!(failed.one(halt(fence)), Ok(OperationResult::Halted));
    assert_eq!(failed.one(delete()), Ok(OperationResult::TopicDeleted), "it keeps nothing");
    let mut gone = site.clone();
    gone.one(remove(false)).expect("removed");
    assert_eq!(gone.one(delete()), Ok(OperationResult::TopicDeleted));
    let mut anew = site.clone();
    anew.set(definition(&[1], &[2], 0), Start::Fresh).expect("set");
    assert_eq!(anew.one(delete()), Ok(OperationResult::TopicDeleted));
    site.delta(fence, 0);
    assert_eq!(site.one(delete()), Ok(OperationResult::TopicDeleted));
    // An input may go whenever somebody wants it to.
    site.epoch(fence, 2);
    let input = Operation::DeleteTopic { topic: topic_id(1) };
    assert_eq!(site.one(input), Ok(OperationResult::TopicDeleted));
}

#[test]
fn what_expires_is_not_waited_for() {
    let mut site = Site::with_pipeline();
    // Before there is anything, so that each batch is a span of its own.
    site.one(keep(2, &[("retention.bytes", Some("0"))])).expect("altered");
    site.fill(2, 0, 5);
    let fence = site.claim(2);
    assert_eq!(site.one(retry(2)), wanted(5));
    site.one(advance(2, 0, 2)).expect("moved");
    let next = Refusal::UnexpectedOffset { next: Offset(2) };
    assert_eq!(reads(&mut site, fence, (0, 5)), Err(next));
    assert_eq!(reads(&mut site, fence, (2, 5)), Ok(OperationResult::EpochCommitted));
}

#[test]
fn an_output_is_made_of_what_is_put_through() {
    let mut site = Site::with_pipeline();
    let made = |site: &Site| site.state.made_of("topic-2").map(|making| making.of.clone());
    assert_eq!(made(&site), Some(vec!["topic-1".to_owned()]));
    site.one(retry(2)).expect("asked");
    assert_eq!(made(&site), Some(vec!["topic-1".to_owned(), "topic-2".to_owned()]));
    assert!(site.state.rule_to("topic-2", "eu").is_none(), "and the search for its rule ends");
}

//! Dead letters that are put through again.

use super::pipelines::{P, at, commit, definition, range, retry};
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
    assert_eq!(letters(&site), [(5, 5, 5)], "their records are read again");
    site.fill(2, 1, 1);
    assert_eq!(site.one(retry(2)), wanted(1));
    site.one(Operation::DeleteTopic { topic: topic_id(2) }).expect("deleted");
    assert_eq!(letters(&site), []);
    site.one(create(2, 2)).expect("created");
    assert_eq!(site.one(retry(2)), wanted(0), "another topic of the same name");
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

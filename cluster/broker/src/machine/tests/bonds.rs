//! What two sites give each other by which each finds out that it was put back.

use super::mirrors::{peer_has, place, set_link};
use super::*;
use crate::machine::bonds::BOND_MAX;
use fulmar_store::entry::LinkOperation;

fn link(site: &mut Site, paused: bool) -> u64 {
    match site.one(set_link(Some(paused))) {
        Ok(OperationResult::LinkSet { number }) => number,
        other => panic!("{other:?}"),
    }
}

fn give(link: u64, shown: u64) -> Operation {
    Operation::Link(LinkOperation::GiveBond { link, shown })
}

fn noticed(link: u64, shown: u64) -> Operation {
    Operation::Link(LinkOperation::PutBackNoticed { link, shown })
}

fn hear(link: u64, number: u64) -> Operation {
    Operation::Link(LinkOperation::HearBond { link, number })
}

const fn given(number: u64) -> Result<OperationResult, Refusal> {
    Ok(OperationResult::BondGiven { number })
}

#[test]
fn each_number_is_greater_and_outlives_the_link() {
    let mut site = Site::new();
    assert_eq!(site.one(give(7, 0)), Err(Refusal::StaleLink { number: 0 }), "there is no link");
    let first = link(&mut site, false);
    assert_eq!(site.one(give(first, 0)), given(1));
    assert_eq!(site.one(give(first, 1)), given(2));
    assert_eq!(
        site.one(give(first, 0)),
        given(3),
        "the peer may not have logged what it was given"
    );
    assert_eq!(site.one(hear(first, 9)), Ok(OperationResult::PeerNoted));
    assert_eq!(site.one(set_link(None)).map(|_| ()), Ok(()));
    let again = link(&mut site, false);
    assert!(!site.state.is_put_back("north", 3), "a link that is made anew leads to whom it led");
    assert_eq!(site.one(give(again, 3)), given(4));
    assert_eq!(site.state.bond("north").heard, 9);
    assert_eq!(site.one(give(first, 3)), Err(Refusal::StaleLink { number: 0 }), "of an older link");
}

#[test]
fn who_was_put_back_goes_on_when_somebody_has_looked_at_it() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("a topic");
    let mut number = link(&mut site, false);
    assert_eq!(site.one(give(number, 0)), given(1));
    site.one(peer_has(place(number, 1, 0, 1))).expect("noted");
    assert!(site.state.is_put_back("north", 5), "north has heard more of this site than it knows");
    assert_eq!(site.one(give(number, 5)), Err(Refusal::StaleLink { number }));
    link(&mut site, true);
    number = link(&mut site, false);
    assert!(site.state.is_put_back("north", 5), "whoever resumed it was not told");
    assert_eq!(site.one(noticed(number, 5)), Ok(OperationResult::PeerNoted));
    link(&mut site, true);
    assert!(site.state.is_put_back("north", 5), "nobody has resumed it yet");
    number = link(&mut site, false);
    assert!(site.state.is_put_back("north", 6), "he was not told of that");
    assert!(!site.state.is_put_back("north", 5));
    let stream = StreamId(0);
    assert!(site.state.peer_progress("north", stream).is_some());
    assert_eq!(site.one(give(number, 5)), given(6));
    assert!(site.state.bond("north").parted, "what north has may be of the other history");
    assert!(site.state.peer_progress("north", stream).is_none(), "it was noted of another history");
    assert!(site.state.is_put_back("north", 7), "once, and not for ever");
}

#[test]
fn to_resume_a_link_pardons_nothing_that_comes_later() {
    let mut site = Site::new();
    link(&mut site, true);
    let mut number = link(&mut site, false);
    assert!(site.state.is_put_back("north", 2), "nothing was noticed");
    site.one(noticed(number, 2)).expect("noted");
    link(&mut site, true);
    number = link(&mut site, false);
    // A copy that is made now has the pardon. By the time that it is put back the other site has heard more.
    let copy = site.state.snapshot();
    assert_eq!(site.one(give(number, 2)), given(3));
    let restored = State::restore(&copy).expect("a state");
    assert!(!restored.is_put_back("north", 2) && restored.is_put_back("north", 3));
    assert!(site.state.is_put_back("north", 4), "once, and not for ever");
    site.one(noticed(number, BOND_MAX)).expect("noted");
    link(&mut site, true);
    number = link(&mut site, false);
    let nonsense = site.one(give(number, BOND_MAX));
    assert_eq!(nonsense, given(4), "whoever says that has not heard it from this site");
}

#[test]
fn a_fork_is_known_when_what_was_compared_is_gone() {
    let mut site = Site::new();
    site.one(create(1, 1)).expect("a topic");
    let number = link(&mut site, false);
    site.one(peer_has(place(number, 1, 0, 1))).expect("noted");
    let (topic, partition) = (topic_id(1), PartitionIndex(0));
    let parted = |link| Operation::Link(LinkOperation::PeerParted { link, topic, partition });
    assert_eq!(site.one(parted(number + 1)), Err(Refusal::StaleLink { number: 0 }));
    assert_eq!(site.one(parted(number)), Ok(OperationResult::PeerNoted));
    assert!(site.state.bond("north").parted);
    assert!(site.state.peer_progress("north", StreamId(0)).is_none());
    let restored = State::restore(&site.state.snapshot()).expect("a state");
    assert_eq!(restored.bond("north"), site.state.bond("north"));
    assert_eq!(restored.hash(), site.state.hash());
}

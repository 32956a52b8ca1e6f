//! What goes over which connection, and when.

use super::*;
use crate::flow::{PATIENCE_MIN, SAY_GOT_BYTES, WINDOW_BYTES_MIN};
use crate::line::LINE_BYTES_MIN;
use crate::message::{Mark, Part};
use bytes::Bytes;
use fulmar_types::{Offset, PartitionIndex, TopicId, Uuid};

fn batch(offset: u64, bytes: usize) -> Message {
    let part = Part { topic: TopicId(Uuid([1; 16])), partition: PartitionIndex(0) };
    let mark = Mark { offset: Offset(offset), tag: [0; 16] };
    Message::Batch(part, mark, Bytes::from(vec![0; bytes]))
}

fn push(outbox: &Outbox, lane: Priority, messages: impl IntoIterator<Item = Message>) {
    fulmar_host::task::block_on(async {
        for message in messages {
            outbox.push(lane, message).await;
        }
    });
}

fn numbers(job: Option<Job>) -> Option<(Priority, u64, usize)> {
    match job? {
        Job::Group(group) => Some((group.lane, group.number, group.messages.len())),
        Job::Got | Job::Leave => None,
    }
}

#[test]
fn the_first_connection_is_for_what_is_urgent() {
    let outbox = Outbox::default();
    outbox.up(0);
    push(&outbox, Priority::Bulk, [batch(0, 10)]);
    push(&outbox, Priority::Urgent, [batch(0, 10)]);
    assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Urgent, 0, 1)));
    assert_eq!(numbers(outbox.try_next(0)), None, "it writes that");
    outbox.wrote(0, 10, Written::Last(Priority::Urgent));
    assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Bulk, 0, 1)), "it is alone");
    outbox.up(1);
    push(&outbox, Priority::Normal, [batch(0, 10)]);
    push(&outbox, Priority::Urgent, [batch(1, 10)]);
    assert_eq!(numbers(outbox.try_next(1)), Some((Priority::Normal, 0, 1)));
    assert_eq!(numbers(outbox.try_next(1)), None);
    assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Urgent, 1, 1)));
    assert!(outbox.lost(0));
    assert_eq!(numbers(outbox.try_next(1)), Some((Priority::Urgent, 0, 2)), "sent again");
}

#[test]
fn what_was_on_a_lost_connection_goes_over_another_but_for_what_has_come() {
    let outbox = Outbox::default();
    [0, 1, 2].into_iter().for_each(|by| outbox.up(by));
    push(&outbox, Priority::Normal, (0..5).map(|offset| batch(offset, GROUP_BYTES)));
    let group = |by| numbers(outbox.try_next(by));
    for (by, number) in [(1, 0), (2, 1), (1, 2)] {
        assert_eq!(group(by), Some((Priority::Normal, number, 1)));
        outbox.wrote(by, 10, Written::Last(Priority::Normal));
    }
    assert_eq!(outbox.confirmed(1, 21), Err(Impossible), "more than was sent");
    assert_eq!(outbox.confirmed(1, 19), Ok(()), "the first, and a part of the second");
    assert!(outbox.lost(1));
    assert_eq!(group(2), Some((Priority::Normal, 2, 1)), "again");
    assert!(outbox.lost(2));
    outbox.up(1);
    for number in [1, 2, 3] {
        assert_eq!(group(1), Some((Priority::Normal, number, 1)));
        if number < 3 {
            outbox.wrote(1, 10, Written::Last(Priority::Normal));
        }
    }
    outbox.lost(1);
    assert!(!outbox.lost(0));
    outbox.up(0);
    assert_eq!(group(0), Some((Priority::Normal, 1, 1)), "what was not written as well");
}

#[test]
fn a_connection_takes_no_more_than_goes_through_it() {
    let outbox = Outbox::default();
    outbox.up(0);
    push(&outbox, Priority::Normal, (0..6).map(|offset| batch(offset, GROUP_BYTES)));
    assert!(outbox.try_next(0).is_some());
    outbox.wrote(0, WINDOW_BYTES_MIN, Written::Last(Priority::Normal));
    assert!(outbox.try_next(0).is_none(), "as much is on its way");
    assert!(outbox.confirmed(0, WINDOW_BYTES_MIN).is_ok());
    for _ in 1..=2 {
        assert!(outbox.try_next(0).is_some(), "it is faster than was thought");
        outbox.wrote(0, WINDOW_BYTES_MIN, Written::Last(Priority::Normal));
    }
    assert!(outbox.try_next(0).is_none());
}

#[test]
fn all_connections_together_take_no_more_than_goes_through_the_line() {
    on_paused_clock(async {
        let outbox = Outbox::default();
        (0..8).for_each(|by| outbox.up(by));
        for offset in 0..8 {
            outbox.push(Priority::Normal, batch(offset, GROUP_BYTES)).await;
        }
        let part = LINE_BYTES_MIN / 4;
        let has_room = |by, lane| locked(&outbox.state).room(by, lane, time::now()) > 0;
        let begins = |by| numbers(outbox.try_next(by)).is_some();
        assert!(begins(1) && begins(2) && begins(3) && !begins(4), "a slow line needs no more");
        for by in [1, 2, 3, 1] {
            assert!(has_room(by, Priority::Normal));
            outbox.wrote(by, part, Written::Part(Priority::Normal));
        }
        assert!(!has_room(2, Priority::Normal), "the line is full");
        assert!(has_room(0, Priority::Urgent));
        // One is stuck, and the others move: it holds no more than half of the line.
        for round in 1..=6 {
            time::sleep(PATIENCE_MIN * 4 / 5).await;
            for by in [2, 3] {
                assert_eq!(outbox.confirmed(by, round * part / 8), Ok(()));
            }
        }
        assert!(has_room(2, Priority::Normal));
        outbox.wrote(2, LINE_BYTES_MIN / 2 - 2 * part / 4, Written::Part(Priority::Normal));
        assert!(!has_room(3, Priority::Normal));
    });
}

#[test]
fn what_is_said_does_not_wait_for_the_room_of_records() {
    on_paused_clock(async {
        let outbox = Outbox::default();
        let mut waiting = 0;
        let soon = Duration::from_millis(1);
        while time::timeout(soon, outbox.push(Priority::Urgent, batch(0, 1_000))).await.is_ok() {
            waiting += 1_000;
        }
        assert!(waiting <= LINE_BYTES_MIN, "{waiting}: as much as a slow line takes");
        for bytes in 0..1_000 {
            let said = outbox.push(Priority::Urgent, Message::Room(Priority::Bulk, bytes));
            time::timeout(soon, said).await.expect("it waits for nothing");
        }
    });
}

#[test]
fn what_was_passed_over_may_leave_yet() {
    on_paused_clock(async {
        let outbox = Outbox::default();
        [0, 1].into_iter().for_each(|by| outbox.up(by));
        outbox.push(Priority::Urgent, batch(0, 10)).await;
        assert!(outbox.try_next(0).is_some() && !outbox.has_records_underway());
        outbox.wrote(0, 10, Written::Last(Priority::Urgent));
        assert!(outbox.has_records_underway());
        assert!(matches!(outbox.next(1).await, Job::Group(group) if group.passes));
        outbox.wrote(1, 10, Written::Last(Priority::Urgent));
        assert_eq!(outbox.confirmed(1, 10), Ok(()));
        assert!(outbox.has_records_underway(), "it lies in the first");
        assert_eq!(outbox.confirmed(0, 10), Ok(()));
        assert!(!outbox.has_records_underway());
        // What is no record may come late.
        outbox.push(Priority::Urgent, Message::Room(Priority::Bulk, 5)).await;
        assert!(outbox.try_next(0).is_some());
        outbox.wrote(0, 10, Written::Last(Priority::Urgent));
        assert!(!outbox.has_records_underway());
    });
}

#[test]
fn what_is_urgent_goes_between_the_parts_of_others_and_leaves_them_theirs() {
    let outbox = Outbox::default();
    outbox.up(0);
    push(&outbox, Priority::Normal, [batch(0, GROUP_BYTES)]);
    assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Normal, 0, 1)));
    let before_part = || numbers(outbox.try_next(0));
    push(&outbox, Priority::Bulk, [batch(0, 1)]);
    assert_eq!(before_part(), None, "only what is urgent");
    outbox.wrote(0, 100, Written::Part(Priority::Normal));
    push(&outbox, Priority::Urgent, [batch(0, 10)]);
    assert_eq!(before_part(), Some((Priority::Urgent, 0, 1)));
    outbox.wrote(0, 10, Written::Last(Priority::Urgent));
    assert_eq!(outbox.confirmed(0, 110), Ok(()));
    outbox.wrote(0, 100, Written::Last(Priority::Normal));
    assert_eq!(outbox.confirmed(0, 209), Ok(()), "all but a byte of the other frame");
    assert!(!outbox.lost(0));
    outbox.up(0);
    assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Normal, 0, 1)), "not all came");

    let (mut passed, mut parts) = (0, 0);
    for _ in 0..1_000 {
        push(&outbox, Priority::Urgent, [batch(0, 1_000)]);
        while before_part().is_none() {
            outbox.wrote(0, 1_000, Written::Part(Priority::Normal));
            parts += 1;
        }
        outbox.wrote(0, 1_000, Written::Last(Priority::Urgent));
        let written = locked(&outbox.state).flows.get(&0).map(|flow| flow.written);
        assert_eq!(outbox.confirmed(0, written.expect("it is up")), Ok(()));
        passed += 1;
    }
    assert!((90..130).contains(&parts), "{parts} beside {passed}");
}

#[test]
fn it_is_said_what_came() {
    let outbox = Outbox::default();
    outbox.up(0);
    outbox.came(0, SAY_GOT_BYTES - 1, None);
    assert!(outbox.try_next(0).is_none());
    outbox.came(0, 1, None);
    assert!(matches!(outbox.try_next(0), Some(Job::Got)));
    assert_eq!(outbox.telling(0), SAY_GOT_BYTES);
    assert!(outbox.try_next(0).is_none());
}

/// Runs something on a clock that goes on whenever everybody waits.
fn on_paused_clock<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(test)
}

#[test]
fn it_is_said_soon_what_came_and_sooner_if_it_is_urgent() {
    on_paused_clock(async {
        let outbox = Outbox::default();
        outbox.up(0);
        for (of, ms) in [(Priority::Normal, 500), (Priority::Urgent, 100)] {
            let began = time::now();
            outbox.came(0, 10, Some(of));
            assert!(matches!(outbox.next(0).await, Job::Got));
            assert_eq!((time::now() - began).as_millis(), ms);
            outbox.telling(0);
        }
        outbox.came(0, 13, None);
        let nothing = time::timeout(2 * PATIENCE_MIN, outbox.next(0)).await;
        assert!(nothing.is_err(), "that something was said is not said");
    });
}

#[test]
fn what_is_urgent_goes_past_a_connection_that_is_stuck() {
    on_paused_clock(async {
        let outbox = Outbox::default();
        [0, 1, 2].into_iter().for_each(|by| outbox.up(by));
        let urgent = |offset| outbox.push(Priority::Urgent, batch(offset, 10));
        urgent(0).await;
        assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Urgent, 0, 1)));
        outbox.wrote(0, 10, Written::Last(Priority::Urgent));
        urgent(1).await;
        assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Urgent, 1, 1)));
        outbox.wrote(0, 10, Written::Last(Priority::Urgent));
        // The second in line is stuck as well.
        outbox.push(Priority::Normal, batch(0, 10)).await;
        assert_eq!(numbers(outbox.try_next(1)), Some((Priority::Normal, 0, 1)));
        outbox.wrote(1, 10, Written::Last(Priority::Normal));
        assert_eq!(outbox.confirmed(0, 10), Ok(()));

        let began = time::now();
        let job = outbox.next(2).await;
        assert!(matches!(&job, Job::Group(group) if group.passes));
        assert_eq!(numbers(Some(job)), Some((Priority::Urgent, 1, 1)), "the first has come");
        assert_eq!((time::now() - began), PATIENCE_MIN);
        outbox.wrote(2, 10, Written::Last(Priority::Urgent));
        urgent(2).await;
        assert_eq!(numbers(outbox.try_next(0)), None);
        assert_eq!(numbers(outbox.try_next(2)), Some((Priority::Urgent, 2, 1)));
        outbox.wrote(2, 10, Written::Last(Priority::Urgent));

        assert_eq!(outbox.confirmed(0, 20), Ok(()), "it has come to itself");
        urgent(3).await;
        assert_eq!(numbers(outbox.try_next(2)), None);
        assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Urgent, 3, 1)));
        assert!(outbox.lost(0));
        assert_eq!(numbers(outbox.try_next(2)), Some((Priority::Urgent, 3, 1)), "no other");
    });
}

/// Whether what is urgent waits for the first of two connections for so long that it has to be slow.
async fn is_thought_slow(other_comes_through: bool) -> bool {
    let outbox = Outbox::default();
    [0, 1].into_iter().for_each(|by| outbox.up(by));
    let urgent = |offset| outbox.push(Priority::Urgent, batch(offset, 10));
    urgent(0).await;
    assert!(outbox.try_next(0).is_some());
    outbox.wrote(0, 10, Written::Last(Priority::Urgent));
    assert!(matches!(outbox.next(1).await, Job::Group(_)), "it goes past the first");
    outbox.wrote(1, 10, Written::Last(Priority::Urgent));
    if other_comes_through {
        time::sleep(PATIENCE_MIN / 2).await;
        assert_eq!(outbox.confirmed(1, 10), Ok(()));
    }
    time::sleep(PATIENCE_MIN / 2).await;
    assert_eq!(outbox.confirmed(0, 10), Ok(()));
    assert_eq!(outbox.confirmed(1, 10), Ok(()));
    urgent(1).await;
    assert!(outbox.try_next(0).is_some());
    outbox.wrote(0, 10, Written::Last(Priority::Urgent));
    let began = time::now();
    outbox.next(1).await;
    time::now() - began > PATIENCE_MIN
}

#[test]
fn who_is_stuck_alone_is_not_slow() {
    on_paused_clock(async {
        assert!(is_thought_slow(false).await, "all of the line is");
        assert!(!is_thought_slow(true).await);
    });
}

#[test]
fn who_moves_is_not_stuck_and_who_is_alone_goes_on() {
    on_paused_clock(async {
        let outbox = Outbox::default();
        [0, 1].into_iter().for_each(|by| outbox.up(by));
        outbox.push(Priority::Urgent, batch(0, 10)).await;
        assert!(outbox.try_next(0).is_some());
        outbox.wrote(0, 1_000, Written::Last(Priority::Urgent));
        for got in 1..10 {
            time::sleep(PATIENCE_MIN / 2).await;
            assert_eq!(outbox.confirmed(0, got), Ok(()));
            assert!(outbox.try_next(1).is_none());
        }
        assert!(outbox.lost(1));
        time::sleep(4 * PATIENCE_MIN).await;
        outbox.push(Priority::Urgent, batch(1, 10)).await;
        assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Urgent, 1, 1)));
    });
}

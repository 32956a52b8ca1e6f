//! What a session has to say, and over which of its connections it goes.
//!
//! ```text
//! push --> waiting, by priority and number --> a connection takes a group --> on its way, until the
//!              ^                                                              other side has got it
//!              +------------------- the connection was lost -----------------------+
//! ```
//!
//! Of several connections the first is for what is urgent and for what the two sides say to each other,
//! and for nothing else; a single one carries everything. A connection takes no more while what it has
//! taken before is still on its way, beyond what came through in a second or two: so little
//! lies in its buffers that the others need not wait long for it, nor does what is urgent.
//!
//! What is urgent waits for no frame of the others: where a connection is to carry both, because the first
//! one is lost or no other is there yet, it goes between the parts of their frames.
//!
//! Invariants: messages of one priority are numbered in the order in which they were pushed; each is
//! kept until the other side has got it; what waits and what is on its way is bounded.

use crate::frame::is_plain;
use crate::locked;
use crate::message::{MESSAGES_MAX, Message};
use crate::shares::{Shares, Waits};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::link::Priority;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use tokio::sync::Notify;

/// Bytes of one priority that may wait to be taken.
const WAITING_BYTES_MAX: usize = 512 << 10;

/// Messages of one priority that may wait: those without records are few.
const WAITING_MAX: usize = 1_024;

/// A group takes no further message once it has so many bytes.
const GROUP_BYTES: usize = 64 << 10;

/// What may be on its way over one connection, whatever its speed.
const WINDOW_BYTES_MIN: u64 = 64 << 10;
const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// How long the speed of a connection is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// It is said what has come once it is so many bytes.
const SAY_GOT_BYTES: u64 = 8 << 10;

/// Messages to be written as one frame.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) lane: Priority,
    pub(crate) number: u64,
    pub(crate) messages: Vec<Message>,
}

/// What a connection is to write next.
#[derive(Debug)]
pub(crate) enum Job {
    Group(Group),
    /// It is to be said how much has come.
    Got,
    /// It is to be said that this site has paused the link.
    Leave,
}

/// The other side says what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Impossible;

#[derive(Debug, Default)]
struct Lane {
    next: u64,
    waiting: BTreeMap<u64, Message>,
    waiting_bytes: usize,
}

fn size(message: &Message) -> usize {
    if let Message::Batch(_, _, bytes) = message { bytes.len() } else { 0 }
}

impl Lane {
    fn has_room(&self) -> bool {
        self.waiting_bytes < WAITING_BYTES_MAX && self.waiting.len() < WAITING_MAX
    }

    fn wait(&mut self, number: u64, message: Message) {
        self.waiting_bytes += size(&message);
        self.waiting.insert(number, message);
    }

    /// Takes neighbours off what waits.
    fn group(&mut self, lane: Priority) -> Option<Group> {
        let number = *self.waiting.first_key_value()?.0;
        let (mut messages, mut bytes, mut next) = (Vec::new(), 0, number);
        let mut is_first_plain = None;
        while bytes < GROUP_BYTES && messages.len() < MESSAGES_MAX {
            // What is compressed already would not let the others be compressed.
            let is_like = |message: &Message| {
                let plain = is_plain(message);
                *is_first_plain.get_or_insert(plain) == plain
            };
            if !self.waiting.get(&next).is_some_and(is_like) {
                break;
            }
            let Some(message) = self.waiting.remove(&next) else { break };
            bytes += size(&message);
            messages.push(message);
            next += 1;
        }
        self.waiting_bytes -= bytes;
        Some(Group { lane, number, messages })
    }
}

/// A message on its way: it has arrived when so many bytes have.
#[derive(Debug)]
struct Underway {
    /// `None` until it is written.
    end: Option<u64>,
    lane: Priority,
    number: u64,
    message: Message,
}

/// What is on its way over a connection.
#[derive(Debug)]
struct Flow {
    underway: VecDeque<Underway>,
    /// Whose frame is being written in parts.
    writes: Option<Priority>,
    written: u64,
    confirmed: u64,
    window: u64,
    /// When the speed was measured last, and how much was confirmed then.
    measured: (Instant, u64),
    /// Bytes that have come, and of how many the other side was told.
    got: u64,
    told: u64,
}

impl Flow {
    fn new() -> Self {
        Self {
            underway: VecDeque::new(),
            writes: None,
            written: 0,
            confirmed: 0,
            window: WINDOW_BYTES_MIN,
            measured: (time::now(), 0),
            got: 0,
            told: 0,
        }
    }

    /// Bytes go, which are the end of what was taken of a priority last, if one is named.
    fn wrote(&mut self, bytes: u64, ends: Option<Priority>) {
        self.written += bytes;
        let is_it = |one: &&mut Underway| one.end.is_none() && Some(one.lane) == ends;
        let unwritten = self.underway.iter_mut().rev().filter(is_it);
        unwritten.for_each(|one| one.end = Some(self.written));
        self.writes = self.writes.filter(|writes| Some(*writes) != ends);
    }

    /// Whether a priority may put more on its way. What is urgent need not wait until the others have
    /// come through.
    fn has_room(&self, lane: Priority) -> bool {
        let most = if lane == Priority::Urgent { 2 * self.window } else { self.window };
        self.written - self.confirmed < most
    }

    fn confirm(&mut self, got: u64) -> Result<(), Impossible> {
        if got > self.written {
            return Err(Impossible);
        }
        self.confirmed = self.confirmed.max(got);
        let has_arrived = |one: &Underway| one.end.is_some_and(|end| end <= self.confirmed);
        while self.underway.front().is_some_and(has_arrived) {
            self.underway.pop_front();
        }
        let (since, before) = self.measured;
        let (elapsed, moved) = (time::now() - since, self.confirmed - before);
        let bounded = |bytes: u64| bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        if elapsed >= MEASURED {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            self.window = bounded(moved.saturating_mul(2_000) / ms);
            self.measured = (time::now(), self.confirmed);
        } else {
            self.window = self.window.max(bounded(moved.saturating_mul(2)));
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct State {
    lanes: [Lane; Priority::ALL.len()],
    shares: Shares,
    /// The connections that are up, by their number.
    flows: BTreeMap<u8, Flow>,
    is_leaving: bool,
}

impl State {
    /// What a connection may carry of what waits.
    fn waits(&self, by: u8) -> Waits {
        let is_alone = self.flows.len() <= 1;
        let is_first = self.flows.keys().next() == Some(&by);
        Priority::ALL.map(|lane| {
            let may = is_alone || is_first == (lane == Priority::Urgent);
            may && !self.lanes[lane.rank()].waiting.is_empty()
        })
    }

    /// What a connection is to write next: while it writes a frame in parts, before the next of them.
    fn next(&mut self, by: u8) -> Option<Job> {
        let flow = self.flows.get(&by)?;
        if self.is_leaving && flow.writes.is_none() {
            return Some(Job::Leave);
        }
        if flow.got - flow.told >= SAY_GOT_BYTES {
            return Some(Job::Got);
        }
        let mut waits = self.waits(by);
        for lane in Priority::ALL {
            waits[lane.rank()] &= flow.has_room(lane);
            if let Some(writes) = flow.writes {
                waits[lane.rank()] &= lane == Priority::Urgent;
                waits[lane.rank()] |= lane == writes;
            }
        }
        let lane = self.shares.next(waits).filter(|lane| Some(*lane) != flow.writes)?;
        let group = self.lanes[lane.rank()].group(lane)?;
        let numbered = (group.number..).zip(&group.messages);
        let underway = numbered.map(|(number, message)| Underway {
            end: None,
            lane,
            number,
            message: message.clone(),
        });
        let flow = self.flows.get_mut(&by)?;
        flow.underway.extend(underway);
        if lane != Priority::Urgent {
            flow.writes = Some(lane);
        }
        Some(Job::Group(group))
    }
}

/// The outgoing side of a session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

impl Outbox {
    /// Has a message written. Waits while much waits already.
    pub(crate) async fn push(&self, lane: Priority, message: Message) {
        let mut message = Some(message);
        loop {
            let changed = self.changed.notified();
            {
                let mut state = locked(&self.state);
                let lane = &mut state.lanes[lane.rank()];
                if lane.has_room()
                    && let Some(message) = message.take()
                {
                    let number = lane.next;
                    lane.next += 1;
                    lane.wait(number, message);
                }
            }
            if message.is_none() {
                self.changed.notify_waiters();
                return;
            }
            changed.await;
        }
    }

    /// Has every connection say that the link is paused here, and nothing more.
    pub(crate) fn leave(&self) {
        locked(&self.state).is_leaving = true;
        self.changed.notify_waiters();
    }

    /// A connection is up.
    pub(crate) fn up(&self, by: u8) {
        locked(&self.state).flows.insert(by, Flow::new());
        self.changed.notify_waiters();
    }

    /// A connection is lost: what was on it goes over the others. Returns whether there are any.
    pub(crate) fn lost(&self, by: u8) -> bool {
        let mut state = locked(&self.state);
        let underway = state.flows.remove(&by).map(|flow| flow.underway).unwrap_or_default();
        for Underway { lane, number, message, .. } in underway {
            state.lanes[lane.rank()].wait(number, message);
        }
        let is_left = !state.flows.is_empty();
        drop(state);
        self.changed.notify_waiters();
        is_left
    }

    /// What a connection is to write now, if anything. While what it was told to write last is not
    /// written to its end, that is nothing that would have to wait for the same.
    pub(crate) fn try_next(&self, by: u8) -> Option<Job> {
        let job = locked(&self.state).next(by);
        if job.is_some() {
            // There is room again.
            self.changed.notify_waiters();
        }
        job
    }

    /// What a connection is to write next.
    pub(crate) async fn next(&self, by: u8) -> Job {
        loop {
            let changed = self.changed.notified();
            if let Some(job) = self.try_next(by) {
                return job;
            }
            changed.await;
        }
    }

    /// Bytes of a frame of a priority go over a connection, and whether they are its last ones.
    pub(crate) fn wrote(&self, by: u8, bytes: u64, (lane, is_whole): (Priority, bool)) {
        let mut state = locked(&self.state);
        let mut waits = state.waits(by);
        let writes = state.flows.get(&by).and_then(|flow| flow.writes);
        if let Some(writes) = writes {
            waits[writes.rank()] = true;
        }
        state.shares.spent(lane, bytes, waits);
        if let Some(flow) = state.flows.get_mut(&by) {
            flow.wrote(bytes, is_whole.then_some(lane));
        }
    }

    /// A frame of so many bytes came over a connection.
    pub(crate) fn came(&self, by: u8, bytes: u64) {
        let is_due = {
            let mut state = locked(&self.state);
            let Some(flow) = state.flows.get_mut(&by) else { return };
            flow.got += bytes;
            flow.got - flow.told >= SAY_GOT_BYTES
        };
        if is_due {
            self.changed.notify_waiters();
        }
    }

    /// How many bytes have come over a connection, which is about to be said.
    pub(crate) fn telling(&self, by: u8) -> u64 {
        let mut state = locked(&self.state);
        let Some(flow) = state.flows.get_mut(&by) else { return 0 };
        flow.told = flow.got;
        flow.got
    }

    /// The other side has got so many bytes over a connection.
    ///
    /// # Errors
    /// If it was not sent as many.
    pub(crate) fn confirmed(&self, by: u8, got: u64) -> Result<(), Impossible> {
        if let Some(flow) = locked(&self.state).flows.get_mut(&by) {
            flow.confirm(got)?;
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            outbox.wrote(by, 10, (Priority::Normal, true));
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
                outbox.wrote(1, 10, (Priority::Normal, true));
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
        push(&outbox, Priority::Normal, (0..4).map(|offset| batch(offset, GROUP_BYTES)));
        assert!(outbox.try_next(0).is_some());
        outbox.wrote(0, WINDOW_BYTES_MIN, (Priority::Normal, true));
        assert!(outbox.try_next(0).is_none(), "as much is on its way");
        assert!(outbox.confirmed(0, WINDOW_BYTES_MIN).is_ok());
        assert!(outbox.try_next(0).is_some());
        outbox.wrote(0, WINDOW_BYTES_MIN, (Priority::Normal, true));
        assert!(outbox.try_next(0).is_some(), "it is faster than was thought");
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
        outbox.wrote(0, 100, (Priority::Normal, false));
        push(&outbox, Priority::Urgent, [batch(0, 10)]);
        assert_eq!(before_part(), Some((Priority::Urgent, 0, 1)));
        outbox.wrote(0, 10, (Priority::Urgent, true));
        assert_eq!(outbox.confirmed(0, 110), Ok(()));
        outbox.wrote(0, 100, (Priority::Normal, true));
        assert_eq!(outbox.confirmed(0, 209), Ok(()), "all but a byte of the other frame");
        assert!(!outbox.lost(0));
        outbox.up(0);
        let urgent = numbers(outbox.try_next(0));
        assert_eq!(urgent, Some((Priority::Urgent, 0, 1)), "once too often does not matter");
        assert_eq!(numbers(outbox.try_next(0)), Some((Priority::Normal, 0, 1)), "not all came");

        let (mut passed, mut parts) = (0, 0);
        for _ in 0..1_000 {
            push(&outbox, Priority::Urgent, [batch(0, 1_000)]);
            while before_part().is_none() {
                outbox.wrote(0, 1_000, (Priority::Normal, false));
                parts += 1;
            }
            outbox.wrote(0, 1_000, (Priority::Urgent, true));
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
        outbox.came(0, SAY_GOT_BYTES - 1);
        assert!(outbox.try_next(0).is_none());
        outbox.came(0, 1);
        assert!(matches!(outbox.try_next(0), Some(Job::Got)));
        assert_eq!(outbox.telling(0), SAY_GOT_BYTES);
        assert!(outbox.try_next(0).is_none());
    }
}

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
//! What is urgent is not held up by a connection that is stuck ([`crate::flow`]): another one carries it
//! then, and what was written to the stuck one as well. The other side passes on what comes first.
//!
//! It waits for no frame of the others: where a connection is to carry both, because the first
//! one is lost or no other is there yet, it goes between the parts of their frames.
//!
//! Invariants: messages of one priority are numbered in the order in which they were pushed; each is
//! kept until the other side has got it over the connection that carries it; what waits and what is on its way is bounded.

use crate::flow::{Flow, Written};
use crate::frame::is_plain;
use crate::line::Line;
use crate::locked;
use crate::message::{MESSAGES_MAX, Message};
use crate::shares::{Shares, Waits};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::link::Priority;
use fulmar_types::{Plant, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Bytes of one priority that may wait to be taken: of records and gaps, and of what the two sides say to each other,
/// which waits for no room that those have taken.
const WAITING_BYTES_MAX: usize = 512 << 10;

/// Messages of one priority that may wait, of either.
const WAITING_MAX: usize = 1_024;

/// After so long somebody who is stuck holds up the others no more than one who is stuck alone, if they have nothing on
/// their way by which that could be seen.
const ALONE_AFTER: Duration = Duration::from_secs(4);

/// A group takes no further message once it has so many bytes, or, if it is urgent, what there is room for.
const GROUP_BYTES: usize = 64 << 10;

/// Messages to be written as one frame.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) lane: Priority,
    pub(crate) number: u64,
    pub(crate) messages: Vec<Message>,
    /// Whether some of them are on their way over a connection that is stuck.
    pub(crate) passes: bool,
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
    /// How many of them are records and gaps, and how many others; and their bytes.
    counts: [usize; 2],
    bytes: [usize; 2],
}

/// Which of the two a message is.
const fn class(message: &Message) -> usize {
    match message {
        Message::Batch(..) | Message::Gap { .. } => 0,
        _ => 1,
    }
}

impl Lane {
    /// Whether a message may wait, if records may wait up to so many bytes.
    fn has_room(&self, message: &Message, most: usize) -> bool {
        let class = class(message);
        let most = if class == 0 { most } else { WAITING_BYTES_MAX };
        self.bytes[class] < most && self.counts[class] < WAITING_MAX
    }

    fn wait(&mut self, number: u64, message: Message) {
        self.counts[class(&message)] += 1;
        self.bytes[class(&message)] += message.held_bytes();
        self.waiting.insert(number, message);
    }

    /// Takes neighbours off what waits.
    fn group(&mut self, lane: Priority, most: usize) -> Option<Group> {
        let number = *self.waiting.first_key_value()?.0;
        let (mut messages, mut bytes, mut next) = (Vec::new(), 0, number);
        let mut is_first_plain = None;
        while bytes < most && messages.len() < MESSAGES_MAX {
            // What is compressed already would not let the others be compressed.
            let is_like = |message: &Message| {
                let plain = is_plain(message);
                *is_first_plain.get_or_insert(plain) == plain
            };
            if !self.waiting.get(&next).is_some_and(is_like) {
                break;
            }
            let Some(message) = self.waiting.remove(&next) else { break };
            bytes += message.held_bytes();
            self.counts[class(&message)] -= 1;
            self.bytes[class(&message)] -= message.held_bytes();
            messages.push(message);
            next += 1;
        }
        Some(Group { lane, number, messages, passes: false })
    }
}

#[derive(Debug, Default)]
struct State {
    lanes: [Lane; Priority::ALL.len()],
    shares: Shares,
    line: Line,
    /// The connections that are up, by their number.
    flows: BTreeMap<u8, Flow>,
    is_leaving: bool,
}

/// Whether what is urgent is to go past a connection.
fn is_stuck(flow: &Flow, now: Instant) -> bool {
    flow.is_stuck(now) && !fulmar_host::planted(Plant::UrgentStaysStuck)
}

impl State {
    /// What was given to connections and is not confirmed.
    fn underway(&self) -> impl Iterator<Item = &Message> {
        self.flows.values().flat_map(Flow::underway)
    }

    /// The connection for what is urgent: the first, unless that is stuck and another is not.
    fn carrier(&self, now: Instant) -> Option<u8> {
        let moves = |(_, flow): &(&u8, &Flow)| !is_stuck(flow, now);
        let carrier = self.flows.iter().find(moves).or_else(|| self.flows.first_key_value());
        carrier.map(|(number, _)| *number)
    }

    /// What a connection may carry of what waits.
    fn waits(&self, by: u8, now: Instant) -> Waits {
        let is_alone = self.flows.len() <= 1;
        let is_first = self.flows.keys().next() == Some(&by);
        let is_carrier = self.carrier(now) == Some(by);
        Priority::ALL.map(|lane| {
            let is_its_own = if lane == Priority::Urgent { is_carrier } else { !is_first };
            (is_alone || is_its_own) && !self.lanes[lane.rank()].waiting.is_empty()
        })
    }

    /// Has what is urgent, and was written to connections that are stuck, wait again for the one that
    /// carries it now. Whether there was some.
    fn pass_over(&mut self, by: u8, now: Instant) -> bool {
        let moves = self.flows.get(&by).is_some_and(|flow| !is_stuck(flow, now));
        if !moves || self.carrier(now) != Some(by) {
            return false;
        }
        let waits = &mut self.lanes[Priority::Urgent.rank()];
        let mut passes = false;
        for flow in self.flows.values_mut().filter(|flow| is_stuck(flow, now)) {
            for (number, message) in flow.give_urgent() {
                waits.wait(number, message);
                passes = true;
            }
        }
        passes
    }

    /// Bytes that are on their way over the line. What lies in connections that are stuck alone holds up the others as
    /// far as to leave them half of it: they may come to themselves at any time.
    fn on_its_way(&self, now: Instant) -> u64 {
        let is_alone = |by: u8, flow: &Flow| {
            let others = self.flows.iter().filter(|(number, _)| **number != by);
            let others = others.filter_map(|(_, flow)| flow.came_through()).max();
            let since = flow.stuck_at().filter(|at| *at <= now);
            since.is_some_and(|at| others.is_some_and(|came| came >= at) || now >= at + ALONE_AFTER)
        };
        let (mut moving, mut stuck) = (0, 0);
        for (number, flow) in &self.flows {
            let bytes = if is_alone(*number, flow) { &mut stuck } else { &mut moving };
            *bytes += flow.on_its_way();
        }
        moving + stuck.min(self.line.window() / 2)
    }

    /// How much more of a priority a connection may put on its way. What is urgent does not wait for the others; what
    /// has begun waits for the line alone.
    fn room(&self, by: u8, lane: Priority, now: Instant) -> u64 {
        let Some(flow) = self.flows.get(&by) else { return 0 };
        let of_line = || self.line.window().saturating_sub(self.on_its_way(now));
        match lane {
            Priority::Urgent => flow.room(lane),
            _ if flow.writes == Some(lane) => of_line(),
            _ if !self.carries(by, now) => 0,
            _ => of_line().min(flow.room(lane)),
        }
    }

    /// Whether there is room for more. A connection that is lost waits for none.
    fn has_room(&self, by: u8, lane: Priority, now: Instant) -> bool {
        !self.flows.contains_key(&by) || self.room(by, lane, now) > 0
    }

    /// Whether a connection is among those that carry what is not urgent: as many as the line has use for, of those
    /// that are not stuck.
    fn carries(&self, by: u8, now: Instant) -> bool {
        let carriers = self.line.carriers();
        if self.flows.len() <= 1 + carriers {
            return true;
        }
        let moves = self.flows.iter().skip(1).filter(|(_, flow)| !is_stuck(flow, now));
        let mut carriers = moves.take(carriers);
        carriers.any(|(number, _)| *number == by)
    }

    /// When a connection that has nothing to write, as of now, is to look again.
    fn looks_at(&self, by: u8, now: Instant) -> Option<Instant> {
        let others = self.flows.iter().filter(|(number, _)| **number != by);
        let stuck = others.filter_map(|(_, flow)| flow.stuck_at());
        let stuck = stuck.flat_map(|at| [at, at + ALONE_AFTER]).filter(|at| *at > now);
        let tells = self.flows.get(&by).and_then(Flow::tells_at);
        stuck.chain(tells).min()
    }

    /// What a connection is to write next: while it writes a frame in parts, before the next of them.
    fn next(&mut self, by: u8, now: Instant) -> Option<Job> {
        let flow = self.flows.get(&by)?;
        if self.is_leaving && flow.writes.is_none() && !flow.writes_urgent {
            return Some(Job::Leave);
        }
        if flow.is_to_tell(now) {
            return Some(Job::Got);
        }
        if flow.writes_urgent {
            return None;
        }
        let passes = self.pass_over(by, now);
        let mut waits = self.waits(by, now);
        let rooms = Priority::ALL.map(|lane| self.room(by, lane, now));
        let flow = self.flows.get_mut(&by)?;
        for lane in Priority::ALL {
            waits[lane.rank()] &= rooms[lane.rank()] > 0;
            if let Some(writes) = flow.writes {
                waits[lane.rank()] &= lane == Priority::Urgent;
                waits[lane.rank()] |= lane == writes;
            }
        }
        let lane = self.shares.next(waits).filter(|lane| Some(*lane) != flow.writes)?;
        let most = match lane {
            Priority::Urgent => usize::try_from(rooms[lane.rank()]).unwrap_or(GROUP_BYTES),
            _ => self.line.group_bytes(),
        };
        let most = most.min(GROUP_BYTES);
        let mut group = self.lanes[lane.rank()].group(lane, most)?;
        group.passes = passes && lane == Priority::Urgent;
        flow.takes(lane, group.number, &group.messages);
        Some(Job::Group(group))
    }
}

/// Waits for a change, at most until something is to be looked at again.
async fn wait(changed: Notified<'_>, looks_at: Option<Instant>) {
    match looks_at {
        Some(at) => drop(time::timeout_at(at, changed).await),
        None => changed.await,
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
                // What the two sides say to each other comes behind what is urgent and waits.
                let most = match lane {
                    Priority::Urgent => state.line.window(),
                    _ => u64::MAX,
                };
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(WAITING_BYTES_MAX);
                let lane = &mut state.lanes[lane.rank()];
                if let Some(message) = message.take_if(|of| lane.has_room(of, most)) {
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

    /// The topics of records that wait, or were written and are not confirmed.
    pub(crate) fn topics(&self) -> BTreeSet<TopicId> {
        let state = locked(&self.state);
        let waiting = state.lanes.iter().flat_map(|lane| lane.waiting.values());
        let records = waiting.chain(state.underway()).filter_map(Message::records);
        records.map(|(part, _)| part.topic).collect()
    }

    /// Whether records were written to a connection, and are not confirmed by it: also if another one has carried
    /// them meanwhile, since they may leave yet.
    pub(crate) fn has_records_underway(&self) -> bool {
        locked(&self.state).flows.values().any(Flow::has_records)
    }

    /// A connection is up.
    pub(crate) fn up(&self, by: u8) {
        locked(&self.state).flows.insert(by, Flow::new());
        self.changed.notify_waiters();
    }

    /// A connection is lost: what was on it goes over the others. Returns whether there are any.
    pub(crate) fn lost(&self, by: u8) -> bool {
        let mut state = locked(&self.state);
        let lost = state.flows.remove(&by);
        for (lane, number, message) in lost.into_iter().flat_map(Flow::give_all) {
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
        self.next_or_when(by).ok()
    }

    /// The same, or when to look again.
    fn next_or_when(&self, by: u8) -> Result<Job, Option<Instant>> {
        let (mut state, now) = (locked(&self.state), time::now());
        let Some(job) = state.next(by, now) else { return Err(state.looks_at(by, now)) };
        drop(state);
        // There is room again.
        self.changed.notify_waiters();
        Ok(job)
    }

    /// What a connection is to write next.
    pub(crate) async fn next(&self, by: u8) -> Job {
        loop {
            let changed = self.changed.notified();
            match self.next_or_when(by) {
                Ok(job) => return job,
                Err(looks_at) => wait(changed, looks_at).await,
            }
        }
    }

    /// How large the parts are in which frames that are not urgent are written.
    pub(crate) fn piece_bytes(&self) -> usize {
        locked(&self.state).line.piece_bytes()
    }

    /// Whether more of a priority may be on its way over a connection.
    pub(crate) fn has_room(&self, by: u8, lane: Priority) -> bool {
        locked(&self.state).has_room(by, lane, time::now())
    }

    /// Waits until more of a priority may be on its way over a connection.
    pub(crate) async fn room(&self, by: u8, lane: Priority) {
        loop {
            let changed = self.changed.notified();
            let looks_at = {
                let (state, now) = (locked(&self.state), time::now());
                if state.has_room(by, lane, now) {
                    return;
                }
                state.looks_at(by, now)
            };
            wait(changed, looks_at).await;
        }
    }

    /// Bytes go over a connection.
    pub(crate) fn wrote(&self, by: u8, bytes: u64, what: Written) {
        let mut state = locked(&self.state);
        let mut waits = state.waits(by, time::now());
        let writes = state.flows.get(&by).and_then(|flow| flow.writes);
        if let Some(writes) = writes {
            waits[writes.rank()] = true;
        }
        state.shares.spent(what.lane(), bytes, waits);
        let asks = state.flows.get_mut(&by).is_some_and(|flow| flow.wrote(bytes, what));
        drop(state);
        if asks {
            // The others look again when this one would be stuck.
            self.changed.notify_waiters();
        }
    }

    /// Bytes came over a connection, of a priority, or of what nobody has to confirm.
    pub(crate) fn came(&self, by: u8, bytes: u64, of: Option<Priority>) {
        let state = &mut locked(&self.state);
        if state.flows.get_mut(&by).is_some_and(|flow| flow.came(bytes, of)) {
            self.changed.notify_waiters();
        }
    }

    /// How many bytes have come over a connection, which is about to be said.
    pub(crate) fn telling(&self, by: u8) -> u64 {
        locked(&self.state).flows.get_mut(&by).map_or(0, Flow::telling)
    }

    /// The other side has got so many bytes over a connection.
    ///
    /// # Errors
    /// If it was not sent as many.
    pub(crate) fn confirmed(&self, by: u8, got: u64) -> Result<(), Impossible> {
        {
            let mut state = locked(&self.state);
            let others = state.flows.iter().filter(|(number, _)| **number != by);
            let others = others.filter_map(|(_, flow)| flow.came_through()).max();
            if let Some(flow) = state.flows.get_mut(&by) {
                let new = flow.confirm(got, others)?;
                state.line.moved(new);
            }
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! What is on its way over one connection of a session, and whether that gets anywhere.
//!
//! ```text
//! written       to the connection
//! asked for     as much of it as the other side is to confirm soon
//! confirmed     as much as it says that it has got
//! ```
//!
//! A connection that nothing comes through may come to itself again: its system sends again what a line
//! has lost, after pauses that double, and all that was written later waits for it. So it is not given
//! up. It is *stuck* while something was asked for, and nothing was confirmed for longer than its other
//! side ever takes; what is urgent goes over another one then.
//!
//! Invariants: of each priority messages are confirmed in the order in which they were written; each is
//! kept until it is, or until somebody else has taken it.

use crate::message::Message;
use crate::outbox::Impossible;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::Plant;
use fulmar_types::link::Priority;
use std::collections::VecDeque;

/// What may be on its way over one connection, whatever its speed.
pub(crate) const WINDOW_BYTES_MIN: u64 = 64 << 10;
pub(crate) const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// What is urgent may be on its way, whatever the speed, if nothing else is.
pub(crate) const URGENT_BYTES_MIN: u64 = 16 << 10;

/// How long the speed of a connection is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// It is said what has come once it is so many bytes.
pub(crate) const SAY_GOT_BYTES: u64 = 8 << 10;

/// It is said what has come after so long, if there was something urgent, and otherwise.
const SAY_URGENT_AFTER: Duration = Duration::from_millis(100);
const SAY_OTHER_AFTER: Duration = Duration::from_millis(500);

/// How long at least, and at most, nothing is confirmed until a connection is thought to be stuck.
pub(crate) const PATIENCE_MIN: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(4);

const _: () = assert!(PATIENCE_MIN.as_millis() >= 2 * SAY_OTHER_AFTER.as_millis());

/// What is written to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// What nobody has to confirm.
    Said,
    /// A part of a frame of a priority, which goes on.
    Part(Priority),
    /// A frame of a priority, or the last part of one.
    Last(Priority),
}

impl Written {
    pub(crate) fn lane(self) -> Priority {
        match self {
            Self::Said => Priority::Urgent,
            Self::Part(lane) | Self::Last(lane) => lane,
        }
    }
}

/// A message on its way: it has arrived when so many bytes have.
#[derive(Debug)]
struct Underway {
    /// `None` until it is written.
    end: Option<u64>,
    number: u64,
    message: Message,
}

/// What is on its way over a connection.
#[derive(Debug)]
pub(crate) struct Flow {
    underway: [VecDeque<Underway>; Priority::ALL.len()],
    /// Whose frame is being written in parts, but for what is urgent.
    pub(crate) writes: Option<Priority>,
    /// Whether what is urgent is being written, perhaps between those.
    pub(crate) writes_urgent: bool,
    pub(crate) written: u64,
    /// Which priorities' last frame has records in it, and how much was written when the last part of such a one was.
    has_records: [bool; Priority::ALL.len()],
    records: u64,
    asked: u64,
    confirmed: u64,
    /// When something was confirmed last, or the first was asked for that is not.
    moved: Instant,
    /// When something was confirmed last that was asked for.
    came_through: Option<Instant>,
    /// How long that takes.
    takes: Duration,
    window: u64,
    urgent_window: u64,
    /// When the speed was measured last, and how much was confirmed then.
    measured: (Instant, u64),
    /// Bytes that have come, and of how many the other side was told.
    got: u64,
    told: u64,
    /// When it is to be told of the others.
    tells_at: Option<Instant>,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self {
            underway: Default::default(),
            writes: None,
            writes_urgent: false,
            written: 0,
            has_records: Default::default(),
            records: 0,
            asked: 0,
            confirmed: 0,
            moved: time::now(),
            came_through: None,
            takes: Duration::ZERO,
            window: WINDOW_BYTES_MIN,
            urgent_window: URGENT_BYTES_MIN,
            measured: (time::now(), 0),
            got: 0,
            told: 0,
            tells_at: None,
        }
    }

    /// Messages of a priority, numbered from one on, are about to be written.
    pub(crate) fn takes(&mut self, lane: Priority, number: u64, messages: &[Message]) {
        let numbered = (number..).zip(messages);
        let underway = numbered.map(|(number, message)| Underway {
            end: None,
            number,
            message: message.clone(),
        });
        self.underway[lane.rank()].extend(underway);
        let has_records = messages.iter().any(|message| message.records().is_some());
        self.has_records[lane.rank()] = has_records;
        match lane {
            Priority::Urgent => self.writes_urgent = true,
            _ => self.writes = Some(lane),
        }
    }

    /// Bytes go. Whether they are the first to be asked for.
    pub(crate) fn wrote(&mut self, bytes: u64, what: Written) -> bool {
        self.written += bytes;
        if what == Written::Said {
            return false;
        }
        let asks = self.asked <= self.confirmed;
        if asks {
            self.moved = time::now();
        }
        self.asked = self.written;
        if self.has_records[what.lane().rank()] {
            self.records = self.written;
        }
        if let Written::Last(lane) = what {
            let ends = self.underway[lane.rank()].iter_mut().rev();
            for one in ends.take_while(|one| one.end.is_none()) {
                one.end = Some(self.written);
            }
            self.writes = self.writes.filter(|writes| *writes != lane);
            self.writes_urgent &= lane != Priority::Urgent;
        }
        asks
    }

    /// How much more a priority may put on its way. What is urgent need not wait until the others have
    /// come through; but of itself no more is on its way than comes through in some seconds, since all of that goes
    /// once more if it has to go over another connection.
    pub(crate) fn room(&self, lane: Priority) -> u64 {
        let most = match lane {
            Priority::Urgent if fulmar_host::planted(Plant::UrgentFloods) => 2 * self.window,
            Priority::Urgent if self.writes.is_some() => self.window + self.urgent_window,
            Priority::Urgent => self.urgent_window,
            _ => self.window,
        };
        most.saturating_sub(self.written - self.confirmed)
    }

    /// Whether records were written to it that may not have left, whoever else has carried them since.
    pub(crate) fn has_records(&self) -> bool {
        self.records > self.confirmed
    }

    /// Bytes that the other side is to confirm and has not.
    pub(crate) fn on_its_way(&self) -> u64 {
        self.asked.saturating_sub(self.confirmed)
    }

    /// When something came through it last.
    pub(crate) fn came_through(&self) -> Option<Instant> {
        self.came_through
    }

    /// The other side has got so many bytes. When something came through the other connections last tells whether
    /// this one is slow as the whole line is, and is to be given more time, or was stuck alone. Returns how many are
    /// new.
    ///
    /// # Errors
    /// If it was not sent as many.
    pub(crate) fn confirm(&mut self, got: u64, others: Option<Instant>) -> Result<u64, Impossible> {
        if got > self.written {
            return Err(Impossible);
        }
        let now = time::now();
        if got > self.confirmed && self.asked > self.confirmed {
            let took = now - self.moved;
            let stuck_at = self.stuck_at().filter(|at| *at <= now);
            let is_slow = stuck_at.is_some_and(|at| others.is_none_or(|others| others < at));
            let least = if is_slow { took } else { Duration::ZERO };
            self.takes = ((self.takes * 7 + took) / 8).max(least);
            (self.moved, self.came_through) = (now, Some(now));
        }
        let new = got.saturating_sub(self.confirmed);
        self.confirmed += new;
        let has_arrived = |one: &Underway| one.end.is_some_and(|end| end <= self.confirmed);
        for lane in &mut self.underway {
            while lane.front().is_some_and(has_arrived) {
                lane.pop_front();
            }
        }
        let (since, before) = self.measured;
        let (elapsed, moved) = (now - since, self.confirmed - before);
        let two_seconds = if elapsed >= MEASURED {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            self.measured = (now, self.confirmed);
            (self.window, self.urgent_window) = (0, 0);
            moved.saturating_mul(2_000) / ms
        } else {
            moved.saturating_mul(2)
        };
        let bounded = |least: u64| two_seconds.clamp(least, WINDOW_BYTES_MAX);
        self.window = self.window.max(bounded(WINDOW_BYTES_MIN));
        self.urgent_window = self.urgent_window.max(bounded(URGENT_BYTES_MIN));
        Ok(new)
    }

    /// When it will be stuck, or has been since, if nothing more is confirmed.
    pub(crate) fn stuck_at(&self) -> Option<Instant> {
        let patience = (self.takes * 2).clamp(PATIENCE_MIN, PATIENCE_MAX);
        (self.asked > self.confirmed).then(|| self.moved + patience)
    }

    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|at| at <= now)
    }

    /// Gives away what is urgent and was written, or is being written, with its numbers: somebody else is
    /// to see to it.
    pub(crate) fn give_urgent(&mut self) -> impl Iterator<Item = (u64, Message)> {
        let urgent = &mut self.underway[Priority::Urgent.rank()];
        urgent.drain(..).map(|one| (one.number, one.message))
    }

    /// What was given to it and is not confirmed.
    pub(crate) fn underway(&self) -> impl Iterator<Item = &Message> {
        self.underway.iter().flatten().map(|one| &one.message)
    }

    /// Gives away all that is not confirmed.
    pub(crate) fn give_all(self) -> impl Iterator<Item = (Priority, u64, Message)> {
        Priority::ALL.into_iter().zip(self.underway).flat_map(|(lane, underway)| {
            underway.into_iter().map(move |one| (lane, one.number, one.message))
        })
    }

    /// Bytes came, of a priority, or of what nobody has to confirm. Whether the other side is to be told
    /// now, or sooner than before.
    pub(crate) fn came(&mut self, bytes: u64, of: Option<Priority>) -> bool {
        self.got += bytes;
        let is_due = self.got - self.told >= SAY_GOT_BYTES;
        let Some(lane) = of else { return is_due };
        let is_urgent = lane == Priority::Urgent;
        let at = time::now() + if is_urgent { SAY_URGENT_AFTER } else { SAY_OTHER_AFTER };
        let is_sooner = self.tells_at.is_none_or(|before| at < before);
        if is_sooner {
            self.tells_at = Some(at);
        }
        is_due || is_sooner
    }

    /// When the other side is to be told what has come.
    pub(crate) fn tells_at(&self) -> Option<Instant> {
        self.tells_at
    }

    /// Whether it is to be told now.
    pub(crate) fn is_to_tell(&self, now: Instant) -> bool {
        self.got - self.told >= SAY_GOT_BYTES || self.tells_at.is_some_and(|at| at <= now)
    }

    /// How much has come, which is about to be told.
    pub(crate) fn telling(&mut self) -> u64 {
        (self.told, self.tells_at) = (self.got, None);
        self.got
    }
}

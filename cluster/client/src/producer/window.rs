//! The batches of one partition between the caller and an outcome: a machine without I/O.
//!
//! ```text
//! slots   [ in flight | in flight | in flight | waiting | waiting ]     oldest first
//!           answered next                       sent next
//! ```
//!
//! Invariants: slots leave in order unless the broker itself answered out of order; a slot that
//! failed is sent again only when nothing is in flight any more (`draining`), so that the broker
//! sees the sequence numbers in order; slots of two identities are never in flight together. A
//! slot is `uncertain` from the first attempt on that may have been carried out without an answer,
//! for ever; it is then never numbered anew, and can only end as done or unknown.

use super::{Outcome, SendError, WriteRecord, build};
use crate::admin::ProducerIdentity;
use crate::error::CallError;
use bytes::Bytes;
use fulmar_host::time::Instant;
use fulmar_types::Offset;
use fulmar_wire::ErrorCode;
use fulmar_wire::batch::sequence_after;
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// A batch as it is sent, and sent again.
struct Numbered {
    bytes: Bytes,
    identity: Option<ProducerIdentity>,
}

/// One batch.
pub(super) struct Slot {
    records: Vec<WriteRecord>,
    batch: Option<Numbered>,
    deadline: Instant,
    attempts: u32,
    in_flight: bool,
    uncertain: bool,
    last: Option<SendError>,
    reply: oneshot::Sender<Outcome>,
}

impl Slot {
    pub(super) fn new(
        records: Vec<WriteRecord>,
        deadline: Instant,
        reply: oneshot::Sender<Outcome>,
    ) -> Self {
        Self {
            records,
            batch: None,
            deadline,
            attempts: 0,
            in_flight: false,
            uncertain: false,
            last: None,
            reply,
        }
    }

    /// Answers that it was not done, or that nobody knows.
    fn give_up(self, error: SendError) {
        let outcome =
            if self.uncertain { Outcome::Unknown(error) } else { Outcome::NotDone(error) };
        // The caller may have dropped its ticket.
        let _ = self.reply.send(outcome);
    }

    fn done(self, base_offset: Option<Offset>) {
        let _ = self.reply.send(Outcome::Done { base_offset, attempts: self.attempts });
    }
}

/// What an answer means for the batch.
enum Verdict {
    Done(Option<Offset>),
    /// Try again. `definite`: this attempt has certainly not been carried out.
    Retry {
        definite: bool,
    },
    /// The broker does not expect this sequence number.
    Unexpected,
    Refused,
}

/// Whether a broker that answers this has certainly not appended the batch.
///
/// `NotLeaderOrFollower` is among them: a Fulmar leader that is deposed while a batch is on its way
/// to the majority answers `RequestTimedOut`. So is `KafkaStorageError`, which says that the disks
/// are full.
const fn is_definite(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::UnknownServerError
            | ErrorCode::NetworkException
            | ErrorCode::Unlisted(_)
    )
}

fn verdict(code: ErrorCode, base_offset: i64) -> Verdict {
    match code {
        ErrorCode::None => Verdict::Done(u64::try_from(base_offset).ok().map(Offset)),
        ErrorCode::DuplicateSequenceNumber => Verdict::Done(None),
        ErrorCode::OutOfOrderSequenceNumber
        | ErrorCode::UnknownProducerId
        | ErrorCode::InvalidProducerEpoch
        | ErrorCode::InvalidProducerIdMapping
        | ErrorCode::ProducerFenced => Verdict::Unexpected,
        code if !is_definite(code) => Verdict::Retry { definite: false },
        code if code.is_retriable() => Verdict::Retry { definite: true },
        _ => Verdict::Refused,
    }
}

/// What the broker, or the connection, said about the oldest batch in flight.
pub(super) type Answered = Result<(ErrorCode, i64), CallError>;

/// The batches of one partition.
pub(super) struct Window {
    idempotent: bool,
    in_flight_max: usize,
    slots: VecDeque<Slot>,
    /// The identity in use and its next sequence number; `None` if a new one is needed.
    numbering: Option<(ProducerIdentity, i32)>,
    /// The identity that was used last, not to be used again once `numbering` is lost.
    used: Option<ProducerIdentity>,
    /// Something failed: nothing is sent until everything in flight is answered.
    draining: bool,
}

impl Window {
    pub(super) fn new(idempotent: bool, in_flight_max: usize) -> Self {
        let in_flight_max = if idempotent { in_flight_max } else { 1 };
        Self {
            idempotent,
            in_flight_max,
            slots: VecDeque::new(),
            numbering: None,
            used: None,
            draining: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.in_flight_max
    }

    /// Whether a failure waits for a pause and [`Self::resume`].
    pub(super) fn is_stalled(&self) -> bool {
        self.draining && self.in_flight() == 0
    }

    /// Sends again, after a pause.
    pub(super) fn resume(&mut self) {
        assert_eq!(self.in_flight(), 0, "sent again while earlier attempts are under way");
        self.draining = false;
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
    }

    fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| slot.in_flight).count()
    }

    /// The deadline of the oldest batch.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots.front().map(|slot| slot.deadline)
    }

    /// The next slot to send, if it may be sent now.
    fn next(&self) -> Option<usize> {
        let at = self.slots.iter().position(|slot| !slot.in_flight)?;
        let identity = match &self.slots[at].batch {
            Some(numbered) => numbered.identity,
            None => self.numbering.map(|(identity, _)| identity),
        };
        // Until all of an older identity is settled nobody knows what has to come first.
        let same = |slot: &Slot| slot.batch.as_ref().is_none_or(|b| b.identity == identity);
        let free = !self.draining && at < self.in_flight_max;
        (free && self.slots.iter().take(at).all(same)).then_some(at)
    }

    /// Whether a batch can be sent now, perhaps after [`Self::identify`].
    pub(super) fn can_send(&self) -> bool {
        self.next().is_some()
    }

    /// Whether the next batch needs a producer id first; if so, another one than this.
    pub(super) fn needs_identity(&self) -> Option<Option<ProducerIdentity>> {
        let next = self.next()?;
        let needed =
            self.idempotent && self.slots[next].batch.is_none() && self.numbering.is_none();
        needed.then_some(self.used)
    }

    pub(super) fn identify(&mut self, identity: ProducerIdentity) {
        assert_ne!(self.used, Some(identity), "an identity is begun twice");
        self.numbering = Some((identity, 0));
        self.used = Some(identity);
    }

    /// Takes the next batch to send. `None` if there is none, or its records make no batch; its
    /// outcome is known then.
    pub(super) fn take_next(&mut self) -> Option<Bytes> {
        let at = self.next()?;
        if self.slots[at].batch.is_none()
            && let Err(error) = self.number(at)
        {
            let slot = self.slots.remove(at).expect("found above");
            slot.give_up(error);
            return None;
        }
        let slot = &mut self.slots[at];
        slot.in_flight = true;
        slot.attempts += 1;
        slot.batch.as_ref().map(|numbered| numbered.bytes.clone())
    }

    fn number(&mut self, at: usize) -> Result<(), SendError> {
        let slot = &mut self.slots[at];
        assert!(!slot.uncertain, "a batch that may have been written is numbered anew");
        let stamp = self.numbering.map(|(id, sequence)| (id.producer_id, id.epoch, sequence));
        assert_eq!(stamp.is_some(), self.idempotent, "numbered without an identity");
        let bytes = build(&slot.records, stamp)?;
        let identity = self.numbering.map(|(identity, _)| identity);
        slot.batch = Some(Numbered { bytes, identity });
        if let Some((_, sequence)) = &mut self.numbering {
            let count = i32::try_from(slot.records.len()).expect("checked when it was built");
            *sequence = sequence_after(*sequence, count);
        }
        Ok(())
    }

    /// The deadline of the batch that was taken last.
    pub(super) fn sent_deadline(&self) -> Option<Instant> {
        self.slots.iter().rev().find(|slot| slot.in_flight).map(|slot| slot.deadline)
    }

    /// The batch that was taken last could not be handed to a connection.
    pub(super) fn not_started(&mut self, error: CallError) {
        let last = self.slots.iter().rposition(|slot| slot.in_flight);
        self.settle(last.expect("a batch was taken"), Err(error));
    }

    /// The batch that was taken last is on its way, and no answer will come.
    pub(super) fn not_asked(&mut self) {
        let last = self.slots.iter().rposition(|slot| slot.in_flight);
        let slot = self.slots.remove(last.expect("a batch was taken")).expect("found above");
        let _ = slot.reply.send(Outcome::Unknown(SendError::NotAsked));
    }

    /// The oldest batch in flight was answered.
    pub(super) fn answered(&mut self, answered: Answered) {
        let at = self.slots.iter().position(|slot| slot.in_flight);
        self.settle(at.expect("an answer without a batch in flight"), answered);
    }

    fn settle(&mut self, at: usize, answered: Answered) {
        let (verdict, error) = match answered {
            Ok((code, offset)) => (verdict(code, offset), SendError::Refused(code)),
            Err(error) if !error.is_retriable() => (Verdict::Refused, SendError::Call(error)),
            Err(error) => {
                let definite = !error.may_have_happened();
                (Verdict::Retry { definite }, SendError::Call(error))
            }
        };
        self.slots[at].in_flight = false;
        match verdict {
            Verdict::Done(base_offset) => {
                self.slots.remove(at).expect("found above").done(base_offset);
            }
            Verdict::Retry { definite } => self.retry(at, definite, error),
            // A batch before it failed, so this one came too early; it is not to blame.
            Verdict::Unexpected if at > 0 => self.retry(at, true, error),
            Verdict::Unexpected => self.unexpected(error),
            Verdict::Refused => self.remove(at, error),
        }
    }

    fn retry(&mut self, at: usize, definite: bool, error: SendError) {
        let slot = &mut self.slots[at];
        slot.uncertain |= !definite;
        if slot.uncertain && !self.idempotent {
            return self.remove(at, error);
        }
        slot.last = Some(error);
        self.draining = true;
    }

    /// The broker has lost count of us, or we of it. A batch that was certainly not written begins
    /// a new count; of any other nobody can say what became of it.
    fn unexpected(&mut self, error: SendError) {
        if self.slots[0].uncertain {
            return self.remove(0, error);
        }
        self.lose_count(0);
        self.slots[0].batch = None;
        self.retry(0, true, error);
    }

    /// Gives up the batch at `at`. If it had a number, those after it do not fit any more.
    fn remove(&mut self, at: usize, error: SendError) {
        self.lose_count(at);
        self.slots.remove(at).expect("the caller found it").give_up(error);
    }

    fn lose_count(&mut self, at: usize) {
        let identity = self.slots[at].batch.as_ref().and_then(|batch| batch.identity);
        if identity.is_some() && identity == self.numbering.map(|(identity, _)| identity) {
            self.numbering = None;
        }
    }

    /// Notes why nothing could be sent; it becomes the reason if the deadline passes.
    pub(super) fn note(&mut self, error: &SendError) {
        if let Some(slot) = self.slots.front_mut() {
            slot.last = Some(error.clone());
        }
        self.draining = true;
    }

    /// Gives up what is beyond its deadline and not in flight.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|slot| slot.deadline <= now && !slot.in_flight) {
            let last = self.slots[0].last.take();
            self.remove(0, last.unwrap_or(SendError::Deadline));
        }
    }
}

//! What the requests have in common that only the leader carries out: how long they may take, how a
//! unit is proposed, and why it was not done.

use crate::broker::Broker;
use crate::error_map::{self, Unanswered};
use crate::machine::outcome::{Refusal, UnitResult};
use crate::proposer::Answer;
use fulmar_host::time::{self, Instant};
use fulmar_store::entry::Unit;
use fulmar_wire::ErrorCode;
use std::time::Duration;

/// Why it was not done.
#[derive(Clone)]
pub(super) struct Failure {
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { code, message: message.into() })
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        let message = match unanswered {
            Unanswered::NotDone => "this node does not lead",
            Unanswered::NoRoom => "the disks of the site are full",
            Unanswered::Unknown => "the outcome was not known in time",
        };
        Self { code: error_map::of_unanswered_admin(unanswered), message: message.to_owned() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: error_map::of_refusal(refusal), message: refusal.to_string() }
    }
}

/// How long an administrative request may take.
pub(super) fn deadline(broker: &Broker, timeout_ms: i32) -> Instant {
    let asked = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    time::now() + asked.min(broker.settings.request_timeout_max)
}

/// Proposes a unit whose results say no more than that it took effect.
pub(super) async fn carry_out(
    broker: &Broker,
    unit: Unit,
    deadline: Instant,
) -> Result<(), Failure> {
    let answer = time::timeout_at(deadline, broker.proposer.propose(unit)).await;
    carried_out(answer.unwrap_or(Answer::Unknown))
}

/// What a client is told of an answer.
pub(super) fn carried_out(answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Done { result: UnitResult::Done(_), .. } => Ok(()),
        Answer::Done { result: UnitResult::Refused(refusal), .. } => Err(refusal.into()),
        Answer::NotDone => Err(Unanswered::NotDone.into()),
        Answer::NoRoom => Err(Unanswered::NoRoom.into()),
        Answer::Unknown => Err(Unanswered::Unknown.into()),
    }
}

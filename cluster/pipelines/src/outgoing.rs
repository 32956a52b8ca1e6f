//! An epoch on its way into the log: its commit, then its appends, in as few units as they need.
//!
//! The commit comes first, so the epoch is decided before any of its outputs is there; a unit holds as much
//! as fits. A proposal whose outcome is not known is found again by looking at the applied state, and sent
//! again if it is not there: the number of the epoch, the place of each append and the fence of the owner see
//! to it that nothing takes effect twice.
//!
//! Invariant: whatever is answered, what is sent next is what the log lacks, or nothing at all.

use bytes::Bytes;
use fulmar_broker::machine::outcome::{Refusal, UnitResult};
use fulmar_broker::machine::pipelines::Run;
use fulmar_broker::proposer::Answer;
use fulmar_store::entry::{Batch, EpochPlace, InputRange, Operation, PipelineOperation, Unit};
use fulmar_types::pipeline::OutputHash;
use fulmar_types::{NodeId, PartitionIndex, TopicId};

/// Operations of one unit, at most: so that applying it takes no longer than others.
const OPERATIONS_MAX: usize = 256;

/// A batch for an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The batch.
    pub batch: Bytes,
}

/// What decides an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The age at its end, in milliseconds.
    pub age_ms: u64,
    /// The hash over all outputs.
    pub hash: OutputHash,
    /// What it reads.
    pub ranges: Vec<InputRange>,
    /// What is to be known about the pipeline now.
    pub facts: Bytes,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This is to be proposed.
    Send(Unit),
    /// Everything is there.
    Done,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on with [`Outgoing::next`].
    Go,
    /// The same, after a while.
    Pause,
    /// The same; there was no room.
    NoRoom,
    /// The applied state says what became of it, now or later: see [`Outgoing::look`].
    Look,
    /// Somebody else owns the pipeline, or nobody.
    Superseded,
    /// What is in memory does not go on from what is in the log; to be loaded anew.
    Reload,
    /// It can never be done.
    Impossible(Refusal),
}

/// An epoch on its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    at: EpochPlace,
    decision: Option<Decision>,
    hash: OutputHash,
    outputs: Vec<Output>,
    appended: u32,
    /// The appends of the unit that was sent last.
    sent: u32,
}

impl Outgoing {
    /// An epoch that is to be decided.
    pub fn new(at: EpochPlace, decision: Decision, outputs: Vec<Output>) -> Self {
        let hash = decision.hash;
        Self { at, decision: Some(decision), hash, outputs, appended: 0, sent: 0 }
    }

    /// An epoch that was decided before, of which so many appends are there.
    pub fn rest(at: EpochPlace, hash: OutputHash, outputs: Vec<Output>, appended: u32) -> Self {
        Self { at, decision: None, hash, outputs, appended, sent: 0 }
    }

    /// Whether the decision is known to be in the log.
    pub fn is_decided(&self) -> bool {
        self.decision.is_none()
    }

    /// What the log lacks, as far as one unit holds it.
    pub fn next(&mut self, unit_bytes_max: usize) -> Next {
        let mut unit = Unit::default();
        if let Some(decision) = &self.decision {
            let Decision { age_ms, hash, ranges, facts } = decision.clone();
            let at = self.at.clone();
            let appends = self.outputs.len() as u32;
            let commit = PipelineOperation::Commit { at, age_ms, hash, appends, ranges, facts };
            unit.operations.push(Operation::Pipeline(commit));
        }
        let mut bytes = unit.encoded_len();
        let empty = Unit::default().encoded_len();
        self.sent = 0;
        for (seq, output) in (0..).zip(&self.outputs).skip(self.appended as usize) {
            let Output { topic, partition, batch } = output.clone();
            let (at, batch) = (self.at.clone(), Batch::new(batch));
            let append = PipelineOperation::Append { at, seq, topic, partition, batch };
            let append = Operation::Pipeline(append);
            let more = Unit::of(append.clone()).encoded_len() - empty;
            let is_full = bytes + more > unit_bytes_max || unit.operations.len() >= OPERATIONS_MAX;
            if is_full && !unit.operations.is_empty() {
                break;
            }
            bytes += more;
            self.sent += 1;
            unit.operations.push(append);
        }
        if unit.operations.is_empty() { Next::Done } else { Next::Send(unit) }
    }

    /// What the answer to the last unit means.
    pub fn answer(&mut self, answer: &Answer) -> Verdict {
        match answer {
            Answer::Done { result: UnitResult::Done(_), .. } => {
                self.decision = None;
                self.appended += self.sent;
                Verdict::Go
            }
            Answer::Done { result: UnitResult::Refused(refusal), .. } => self.refused(refusal),
            Answer::NotDone => Verdict::Pause,
            Answer::NoRoom => Verdict::NoRoom,
            Answer::Unknown => Verdict::Look,
        }
    }

    fn refused(&mut self, refusal: &Refusal) -> Verdict {
        match refusal {
            Refusal::UnknownPipeline | Refusal::StaleOwner { .. } => Verdict::Superseded,
            Refusal::BudgetReached => Verdict::NoRoom,
            // An earlier proposal of the same took effect after all.
            Refusal::UnexpectedEpoch { .. } => Verdict::Look,
            Refusal::UnexpectedAppend { next } if self.is_decided() && *next > self.appended => {
                self.appended = *next;
                Verdict::Go
            }
            Refusal::UnexpectedAppend { .. }
            | Refusal::EpochIncomplete { .. }
            | Refusal::AgeGoesBack { .. }
            | Refusal::UnexpectedOffset { .. }
            | Refusal::OffsetOutOfRange { .. }
            | Refusal::DeltaNeeded => Verdict::Reload,
            refusal => Verdict::Impossible(*refusal),
        }
    }

    /// What the applied state says. What is not there yet may come later; to send it again does no harm.
    pub fn look(&mut self, run: Option<&Run>, me: NodeId) -> Verdict {
        let Some(run) = run.filter(|run| run.owner == Some(me) && run.fence == self.at.fence)
        else {
            return Verdict::Superseded;
        };
        if run.epoch < self.at.epoch {
            return if self.is_decided() { Verdict::Pause } else { Verdict::Go };
        }
        if run.epoch > self.at.epoch || run.hash != self.hash {
            return Verdict::Reload;
        }
        self.decision = None;
        self.appended = self.appended.max(run.appended);
        Verdict::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_broker::machine::outcome::OperationResult;
    use fulmar_types::{Term, Uuid};

    const ME: NodeId = NodeId(2);

    fn outgoing(outputs: usize) -> Outgoing {
        let at = EpochPlace { pipeline: "p".to_owned(), fence: 7, epoch: 3 };
        let decision =
            Decision { age_ms: 5, hash: [1; 16], ranges: Vec::new(), facts: Bytes::new() };
        let output = |number: usize| Output {
            topic: TopicId(Uuid::from_random([4; 16])),
            partition: PartitionIndex(0),
            batch: Bytes::from(vec![number as u8; 400]),
        };
        Outgoing::new(at, decision, (0..outputs).map(output).collect())
    }

    fn run() -> Run {
        Run { pipeline: "p".to_owned(), owner: Some(ME), fence: 7, epoch: 2, ..Run::default() }
    }

    fn done() -> Answer {
        let result = UnitResult::Done(vec![OperationResult::EpochCommitted]);
        Answer::Done { result, term: Term(1) }
    }

    fn refused(refusal: Refusal) -> Answer {
        Answer::Done { result: UnitResult::Refused(refusal), term: Term(1) }
    }

    fn sent(next: Next) -> (bool, Vec<u32>) {
        let Next::Send(unit) = next else { return (false, Vec::new()) };
        let mut is_commit = false;
        let mut seqs = Vec::new();
        for operation in unit.operations {
            match operation {
                Operation::Pipeline(PipelineOperation::Commit { .. }) => is_commit = true,
                Operation::Pipeline(PipelineOperation::Append { seq, .. }) => seqs.push(seq),
                other => panic!("{other:?}"),
            }
        }
        (is_commit, seqs)
    }

    #[test]
    fn what_fits_is_one_unit_and_the_rest_follows_in_order() {
        let mut epoch = outgoing(5);
        assert_eq!(sent(epoch.next(10_000)), (true, vec![0, 1, 2, 3, 4]));
        let mut epoch = outgoing(5);
        assert_eq!(sent(epoch.next(1_200)), (true, vec![0, 1]));
        assert_eq!(epoch.answer(&done()), Verdict::Go);
        assert!(epoch.is_decided());
        assert_eq!(sent(epoch.next(1_200)), (false, vec![2, 3]));
        assert_eq!(epoch.answer(&done()), Verdict::Go);
        assert_eq!(sent(epoch.next(1_200)), (false, vec![4]));
        assert_eq!(epoch.answer(&done()), Verdict::Go);
        assert_eq!(epoch.next(1_200), Next::Done);
    }

    #[test]
    fn an_unknown_outcome_is_looked_up_and_never_guessed() {
        let mut epoch = outgoing(3);
        epoch.next(900);
        assert_eq!(epoch.answer(&Answer::Unknown), Verdict::Look);
        // It is not there (yet): the same again.
        assert_eq!(epoch.look(Some(&run()), ME), Verdict::Go);
        assert_eq!(sent(epoch.next(900)), (true, vec![0]));
        // The first one was in time, so the second one is refused; the state has it.
        assert_eq!(epoch.answer(&refused(Refusal::UnexpectedEpoch { next: 4 })), Verdict::Look);
        let there = Run { epoch: 3, hash: [1; 16], appends: 3, appended: 1, ..run() };
        assert_eq!(epoch.look(Some(&there), ME), Verdict::Go);
        assert_eq!(sent(epoch.next(900)), (false, vec![1]));
        assert_eq!(epoch.answer(&Answer::Unknown), Verdict::Look);
        let there = Run { appended: 2, ..there };
        assert_eq!(epoch.look(Some(&there), ME), Verdict::Go);
        assert_eq!(sent(epoch.next(900)), (false, vec![2]));
    }

    #[test]
    fn another_owner_or_another_epoch_ends_it() {
        let mut epoch = outgoing(1);
        epoch.next(900);
        assert_eq!(epoch.answer(&refused(Refusal::StaleOwner { fence: 9 })), Verdict::Superseded);
        assert_eq!(epoch.look(None, ME), Verdict::Superseded);
        assert_eq!(epoch.look(Some(&Run { fence: 9, ..run() }), ME), Verdict::Superseded);
        let nobody = Run { owner: None, ..run() };
        assert_eq!(epoch.look(Some(&nobody), ME), Verdict::Superseded);
        let other = Run { epoch: 3, hash: [2; 16], ..run() };
        assert_eq!(epoch.look(Some(&other), ME), Verdict::Reload);
        let reload = refused(Refusal::UnexpectedOffset { next: fulmar_types::Offset(4) });
        assert_eq!(epoch.answer(&reload), Verdict::Reload);
        let impossible = refused(Refusal::NotAnOutput);
        assert_eq!(epoch.answer(&impossible), Verdict::Impossible(Refusal::NotAnOutput));
        assert_eq!(epoch.answer(&refused(Refusal::BudgetReached)), Verdict::NoRoom);
    }
}

//! A delta on its way into the log, part by part, beside the epochs behind it.
//!
//! Invariant: a delta is said to be complete only when every part of it was answered "done"; a part that may
//! lie in the log twice is read once.

use crate::Context;
use crate::job::End;
use crate::run::AGAIN_AFTER;
use bytes::Bytes;
use fulmar_broker::machine::outcome::{OperationResult, Refusal, UnitResult};
use fulmar_broker::proposer::Answer;
use fulmar_host::task::{self, Owned};
use fulmar_host::time;
use fulmar_store::StreamId;
use fulmar_store::entry::{Batch, EpochPlace, Operation, PipelineOperation, Unit};
use fulmar_types::Offset;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A delta on its way.
pub struct Writing {
    epoch: u64,
    ended: oneshot::Receiver<Result<(), End>>,
    result: Option<Result<(), End>>,
    _task: Owned<()>,
}

impl Writing {
    /// Begins to write the parts of a delta; deltas before an epoch are not needed any more when it is there.
    pub fn begin(
        context: Arc<Context>,
        internal: StreamId,
        place: EpochPlace,
        (parts, keep_from): (Vec<Bytes>, u64),
    ) -> Self {
        let (tell, ended) = oneshot::channel();
        let epoch = place.epoch;
        let writer = Writer { context, internal, place };
        let _task = task::spawn_owned(async move {
            // Nobody listens to a job that has ended.
            let _ = tell.send(writer.write(parts, keep_from).await);
        });
        Self { epoch, ended, result: None, _task }
    }

    /// The epoch at whose end it was taken.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Waits until it is there, or never will be.
    pub async fn finished(&mut self) {
        if self.result.is_none() {
            self.result = Some((&mut self.ended).await.unwrap_or(Err(End::Reload)));
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Result<(), End>> {
        if self.result.is_none() {
            self.result = self.ended.try_recv().ok();
        }
        self.result.take()
    }
}

struct Writer {
    context: Arc<Context>,
    internal: StreamId,
    place: EpochPlace,
}

impl Writer {
    async fn write(&self, parts: Vec<Bytes>, keep_from: u64) -> Result<(), End> {
        let mut last = None;
        for part in parts {
            last = Some(self.part(part).await?);
        }
        let (mut first, mut end) = self.place_of_parts(last).await?;
        loop {
            let at = self.place.clone();
            let done = PipelineOperation::Done { at, first, end, keep_from };
            let answer = self.context.propose(Unit::of(Operation::Pipeline(done))).await;
            match answer {
                Answer::Done { result: UnitResult::Done(_), .. } => return Ok(()),
                Answer::Done { result: UnitResult::Refused(refusal), .. } => match refusal {
                    Refusal::UnexpectedPart { first: from, end: to } => (first, end) = (from, to),
                    // It is there already, or the job has lost its place.
                    refusal => self.refused(&refusal)?,
                },
                Answer::NotDone | Answer::NoRoom | Answer::Unknown => {}
            }
            if self.is_there() {
                return Ok(());
            }
            time::sleep(AGAIN_AFTER).await;
            self.check()?;
        }
    }

    /// Appends a part, and says where it lies.
    async fn part(&self, part: Bytes) -> Result<Offset, End> {
        loop {
            let (at, batch) = (self.place.clone(), Batch::new(part.clone()));
            let part = PipelineOperation::Part { at, batch };
            match self.context.propose(Unit::of(Operation::Pipeline(part))).await {
                Answer::Done { result: UnitResult::Done(results), .. } => {
                    if let Some(OperationResult::Appended { base_offset }) = results.first() {
                        return Ok(*base_offset);
                    }
                    return Err(End::Reload);
                }
                Answer::Done { result: UnitResult::Refused(refusal), .. } => {
                    self.refused(&refusal)?;
                }
                // If it is there nevertheless, it is there twice, which does no harm.
                Answer::NotDone | Answer::NoRoom | Answer::Unknown => {}
            }
            time::sleep(AGAIN_AFTER).await;
            self.check()?;
        }
    }

    /// Where the log has the parts, once this node has seen the last one.
    async fn place_of_parts(&self, last: Option<Offset>) -> Result<(Offset, Offset), End> {
        loop {
            let place = self.context.broker.site().read(|state| {
                let run = state.run(&self.place.pipeline)?;
                let parts = run.parts.filter(|parts| parts.epoch == self.place.epoch);
                match last {
                    Some(last) => parts.filter(|parts| parts.end > last).map(|p| (p.first, p.end)),
                    None => state.partition(self.internal).map(|known| (known.next, known.next)),
                }
            });
            match place {
                Some(place) => return Ok(place),
                None => time::sleep(AGAIN_AFTER).await,
            }
            self.check()?;
        }
    }

    fn is_there(&self) -> bool {
        self.context.broker.site().read(|state| {
            let run = state.run(&self.place.pipeline);
            run.is_some_and(|run| {
                run.fence == self.place.fence && run.delta_epoch == self.place.epoch
            })
        })
    }

    fn refused(&self, refusal: &Refusal) -> Result<(), End> {
        match refusal {
            Refusal::UnknownPipeline | Refusal::StaleOwner { .. } => Err(End::Superseded),
            // It waits for room, as the epochs do.
            Refusal::BudgetReached => Ok(()),
            // That of an answer that never came.
            Refusal::UnexpectedEpoch { .. } if self.is_there() => Ok(()),
            _ => Err(End::Reload),
        }
    }

    fn check(&self) -> Result<(), End> {
        let is_over = self.context.is_over(&self.place.pipeline, self.place.fence);
        if is_over { Err(End::Superseded) } else { Ok(()) }
    }
}

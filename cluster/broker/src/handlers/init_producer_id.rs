//! InitProducerId (key 22): a producer id for duplicate detection. Ids are handed out by the log,
//! so no two producers of a site ever have the same one.

use super::{Origin, forward};
use crate::broker::Broker;
use crate::error_map::{self, Unanswered};
use crate::machine::outcome::{OperationResult, UnitResult};
use crate::proposer::Answer;
use fulmar_host::{random, time};
use fulmar_store::entry::{Operation, Unit};
use fulmar_types::Uuid;
use fulmar_wire::{ErrorCode, InitProducerIdRequest, InitProducerIdResponse};

pub(super) async fn handle(
    broker: &Broker,
    of: &Origin,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |error_code| InitProducerIdResponse {
        error_code,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        // FindCoordinator, which comes before it in every client, is not offered.
        return failed(ErrorCode::InvalidRequest);
    }
    let deadline = time::now() + broker.settings.request_timeout_max;
    let answered = if broker.group.leadership().is_me || of.forwarded {
        assign(broker, deadline).await
    } else {
        forward::to_leader(broker, &request, of, deadline).await
    };
    // Not "not controller", not "no coordinator", after which Java looks for one, and not "timed
    // out", which older Java clients take for the end of the producer: a client that may ask any
    // node tries again after this. An id that was handed out all the same is never used.
    answered.unwrap_or_else(|unanswered| match unanswered {
        Unanswered::NotDone | Unanswered::NoRoom | Unanswered::Unknown => {
            failed(ErrorCode::CoordinatorLoadInProgress)
        }
    })
}

async fn assign(
    broker: &Broker,
    deadline: time::Instant,
) -> Result<InitProducerIdResponse, Unanswered> {
    let request = Uuid::from_random(random::random_16());
    let unit = Unit::of(Operation::InitProducer { request });
    let answer = time::timeout_at(deadline, broker.proposer.propose(unit)).await;
    match answer.unwrap_or(Answer::Unknown) {
        Answer::Done { result: UnitResult::Done(results), .. } => match results.as_slice() {
            [OperationResult::ProducerAssigned { producer }] => Ok(InitProducerIdResponse {
                producer_id: producer.0,
                producer_epoch: 0,
                ..InitProducerIdResponse::default()
            }),
            other => unreachable!("a request for an id was answered with {other:?}"),
        },
        Answer::Done { result: UnitResult::Refused(refusal), .. } => Ok(InitProducerIdResponse {
            error_code: error_map::of_refusal(refusal),
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        }),
        Answer::NotDone => Err(Unanswered::NotDone),
        Answer::NoRoom => Err(Unanswered::NoRoom),
        Answer::Unknown => Err(Unanswered::Unknown),
    }
}

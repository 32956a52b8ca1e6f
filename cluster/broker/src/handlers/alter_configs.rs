//! AlterConfigs (key 33), which replaces all settings of a topic, and IncrementalAlterConfigs
//! (key 44), which changes some: as one entry of the log for each topic.
//!
//! Whether a setting is honoured is said here; what comes of several changes at once, by one client
//! or by two, is settled by the state machine, so none is lost.

use super::create_topics::deadline;
use super::forward;
use super::topic_config::{self, RESOURCE_TOPIC, SETTINGS};
use crate::broker::Broker;
use crate::error_map::{self, Unanswered};
use crate::machine::outcome::UnitResult;
use crate::machine::topics::TOPIC_CONFIGS_MAX;
use crate::proposer::Answer;
use fulmar_host::time::{self, Instant};
use fulmar_store::entry::{Operation, Unit};
use fulmar_wire::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse, ErrorCode,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
};
use std::collections::BTreeMap;

/// A change sets a value (`AlterConfigOp.OpType.SET`).
const SET: i8 = 0;

/// A change takes a setting back to its default (`DELETE`).
const DELETE: i8 = 1;

/// How long it may take: these requests do not say.
const TIMEOUT_MS: i32 = i32::MAX;

/// What is to become of one resource.
struct Wish {
    resource_type: i8,
    resource_name: String,
    replaces: bool,
    changes: Result<Vec<(String, Option<String>)>, Failure>,
}

type Failure = (ErrorCode, String);

fn invalid<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err((ErrorCode::InvalidConfig, message.into()))
}

pub(super) async fn replace(
    broker: &Broker,
    version: i16,
    request: AlterConfigsRequest,
    forwarded: bool,
) -> AlterConfigsResponse {
    let deadline = deadline(broker, TIMEOUT_MS);
    let is_elsewhere = !broker.group.leadership().is_me && !forwarded;
    let handed_over = if is_elsewhere {
        match forward::to_leader(broker, &request, version, deadline).await {
            Ok(response) => return response,
            Err(unanswered) => Some(unanswered),
        }
    } else {
        None
    };
    let wishes = request.resources.into_iter().map(|resource| Wish {
        changes: resource
            .configs
            .into_iter()
            .map(|config| match config.value {
                Some(value) => Ok((config.name, Some(value))),
                None => invalid(format!("the setting {} has no value", config.name)),
            })
            .collect(),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        replaces: true,
    });
    let outcomes = all(broker, wishes.collect(), request.validate_only, (deadline, handed_over));
    let response = |outcome: Outcome| AlterConfigsResourceResponse {
        error_code: outcome.error_code,
        error_message: outcome.error_message,
        resource_type: outcome.resource_type,
        resource_name: outcome.resource_name,
    };
    let responses = outcomes.await.into_iter().map(response).collect();
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

pub(super) async fn change(
    broker: &Broker,
    version: i16,
    request: IncrementalAlterConfigsRequest,
    forwarded: bool,
) -> IncrementalAlterConfigsResponse {
    let deadline = deadline(broker, TIMEOUT_MS);
    let is_elsewhere = !broker.group.leadership().is_me && !forwarded;
    let handed_over = if is_elsewhere {
        match forward::to_leader(broker, &request, version, deadline).await {
            Ok(response) => return response,
            Err(unanswered) => Some(unanswered),
        }
    } else {
        None
    };
    let wishes = request.resources.into_iter().map(|resource| Wish {
        changes: resource
            .configs
            .into_iter()
            .map(|config| match (config.config_operation, config.value) {
                (SET, Some(value)) => Ok((config.name, Some(value))),
                (SET, None) => invalid(format!("the setting {} has no value", config.name)),
                (DELETE, _) => Ok((config.name, None)),
                // Adding to a list and taking from one: each of our lists has one possible value.
                (_, _) => invalid(format!("{} can be set or deleted, no more", config.name)),
            })
            .collect(),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        replaces: false,
    });
    let outcomes = all(broker, wishes.collect(), request.validate_only, (deadline, handed_over));
    let response = |outcome: Outcome| IncrementalAlterConfigsResourceResponse {
        error_code: outcome.error_code,
        error_message: outcome.error_message,
        resource_type: outcome.resource_type,
        resource_name: outcome.resource_name,
    };
    let responses = outcomes.await.into_iter().map(response).collect();
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

/// What became of one resource.
struct Outcome {
    error_code: ErrorCode,
    error_message: Option<String>,
    resource_type: i8,
    resource_name: String,
}

async fn all(
    broker: &Broker,
    wishes: Vec<Wish>,
    validate_only: bool,
    (deadline, handed_over): (Instant, Option<Unanswered>),
) -> Vec<Outcome> {
    let mut times = BTreeMap::<(i8, String), u32>::new();
    for wish in &wishes {
        *times.entry((wish.resource_type, wish.resource_name.clone())).or_default() += 1;
    }
    let mut outcomes = Vec::new();
    for wish in wishes {
        let (resource_type, resource_name) = (wish.resource_type, wish.resource_name.clone());
        let is_twice = times.get(&(resource_type, resource_name.clone())).is_some_and(|n| *n > 1);
        let done = match handed_over {
            Some(unanswered) => Err(unanswered_text(unanswered)),
            None if is_twice => Err((
                ErrorCode::InvalidRequest,
                "the request names this resource more than once".to_owned(),
            )),
            None => alter(broker, wish, validate_only, deadline).await,
        };
        let (error_code, error_message) = match done {
            Ok(()) => (ErrorCode::None, None),
            Err((code, message)) => (code, Some(message)),
        };
        outcomes.push(Outcome { error_code, error_message, resource_type, resource_name });
    }
    outcomes
}

fn unanswered_text(unanswered: Unanswered) -> Failure {
    let text = match unanswered {
        Unanswered::NotDone => "this node does not lead",
        Unanswered::NoRoom => "the disks of the site are full",
        Unanswered::Unknown => "the outcome was not known in time",
    };
    (error_map::of_unanswered_admin(unanswered), text.to_owned())
}

async fn alter(
    broker: &Broker,
    wish: Wish,
    validate_only: bool,
    deadline: Instant,
) -> Result<(), Failure> {
    if wish.resource_type != RESOURCE_TOPIC {
        let message = "only the settings of topics can be changed".to_owned();
        return Err((ErrorCode::InvalidRequest, message));
    }
    let changes = checked(wish.changes?)?;
    let leads = broker.prove_leadership().await;
    leads.map_err(|_| unanswered_text(Unanswered::NotDone))?;
    let topic =
        broker.site.read(|state| state.topics().by_name(&wish.resource_name).map(|topic| topic.id));
    let unknown = || (ErrorCode::UnknownTopicOrPartition, "there is no such topic".to_owned());
    let topic = topic.ok_or_else(unknown)?;
    if validate_only {
        return Ok(());
    }
    let unit = Unit::of(Operation::AlterTopic { topic, replaces: wish.replaces, changes });
    let answer = time::timeout_at(deadline, broker.proposer.propose(unit)).await;
    match answer.unwrap_or(Answer::Unknown) {
        Answer::Done { result: UnitResult::Done(_), .. } => Ok(()),
        Answer::Done { result: UnitResult::Refused(refusal), .. } => {
            Err((error_map::of_refusal(refusal), refusal.to_string()))
        }
        Answer::NotDone => Err(unanswered_text(Unanswered::NotDone)),
        Answer::NoRoom => Err(unanswered_text(Unanswered::NoRoom)),
        Answer::Unknown => Err(unanswered_text(Unanswered::Unknown)),
    }
}

fn checked(
    changes: Vec<(String, Option<String>)>,
) -> Result<Vec<(String, Option<String>)>, Failure> {
    if changes.len() > TOPIC_CONFIGS_MAX {
        return invalid(format!("more than {TOPIC_CONFIGS_MAX} settings"));
    }
    for (at, (name, value)) in changes.iter().enumerate() {
        if changes[..at].iter().any(|(other, _)| other == name) {
            return invalid(format!("the setting {name} is given twice"));
        }
        let checked = match value {
            Some(value) => topic_config::check(name, value),
            None if SETTINGS.iter().any(|setting| setting.name == name) => Ok(()),
            None => Err(format!("the setting {name} is not supported")),
        };
        checked.or_else(invalid)?;
    }
    Ok(changes)
}

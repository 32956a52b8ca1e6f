//! AlterConfigs (key 33), which replaces all settings of a topic, and IncrementalAlterConfigs
//! (key 44), which changes some: as one entry of the log for each topic.
//!
//! Whether a setting is honoured is said here; what comes of several changes at once, by one client
//! or by two, is settled by the state machine, so none is lost.
//!
//! Invariant: the links and rules of one request change together, as one entry, or none of them does. Where a topic
//! has no rule, those of what it is made of hold; so half of a change of both may let go what neither the rules
//! before it nor those after it let go.

use super::catch_up::has_caught_up;
use super::controller::{Failure, carry_out, deadline, refuse};
use super::link_config;
use super::pipeline_config::{self, Wanted};
use super::topic_config::{self, SETTINGS};
use super::{Origin, forward};
use crate::broker::Broker;
use crate::error_map::Unanswered;
use crate::machine::outcome::Refusal;
use crate::machine::topics::TOPIC_CONFIGS_MAX;
use fulmar_host::planted;
use fulmar_host::time::Instant;
use fulmar_store::entry::{LinkOperation, Operation, Unit};
use fulmar_types::Plant;
use fulmar_types::link::NUMBER;
use fulmar_types::pipeline::RETRY;
use fulmar_wire::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
    AlterableConfig, CONFIG_DELETE, CONFIG_SET, ErrorCode, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, RESOURCE_LINK, RESOURCE_PIPELINE, RESOURCE_RULE,
    RESOURCE_SAVEPOINT, RESOURCE_TOPIC,
};
use std::collections::BTreeMap;

/// How long it may take: these requests do not say.
const TIMEOUT_MS: i32 = i32::MAX;

/// What is to become of one resource.
struct Wish {
    resource_type: i8,
    resource_name: String,
    replaces: bool,
    changes: Result<Vec<(String, Option<String>)>, Failure>,
}

impl Wish {
    /// Whether it is that a link or a rule become another one.
    const fn is_definition(&self) -> bool {
        self.replaces && matches!(self.resource_type, RESOURCE_LINK | RESOURCE_RULE)
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Failure> {
    refuse(ErrorCode::InvalidConfig, message)
}

pub(super) async fn replace(
    broker: &Broker,
    of: &Origin,
    mut request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let deadline = deadline(broker, TIMEOUT_MS);
    if !of.forwarded {
        give_numbers(broker, &mut request.resources).await;
    }
    let handed_over = match forward::from_follower(broker, &request, of, deadline).await {
        Some(Ok(response)) => return response,
        Some(Err(unanswered)) => Some(unanswered),
        None => None,
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
    let responses =
        all(broker, (wishes.collect(), of), request.validate_only, (deadline, handed_over)).await;
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

/// What comes without a number is a change of what there is now, and not of what there is when it gets to whoever
/// carries it out. Asking for dead letters again has none.
async fn give_numbers(broker: &Broker, resources: &mut [AlterConfigsResource]) {
    for resource in resources {
        let Some(of) = link_config::numbered(resource.resource_type) else { continue };
        let configs = &mut resource.configs;
        if configs.iter().any(|config| config.name == NUMBER || config.name == RETRY) {
            continue;
        }
        // A node that has just started and knows nothing yet has it refused, and nothing worse.
        has_caught_up(broker).await;
        let name = &*resource.resource_name;
        let (name, value) = broker.site.read(|state| link_config::number(state, (of, name)));
        configs.push(AlterableConfig { name, value: Some(value) });
    }
}

pub(super) async fn change(
    broker: &Broker,
    of: &Origin,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let deadline = deadline(broker, TIMEOUT_MS);
    let handed_over = match forward::from_follower(broker, &request, of, deadline).await {
        Some(Ok(response)) => return response,
        Some(Err(unanswered)) => Some(unanswered),
        None => None,
    };
    let wishes = request.resources.into_iter().map(|resource| Wish {
        changes: resource
            .configs
            .into_iter()
            .map(|config| match (config.config_operation, config.value) {
                (CONFIG_SET, Some(value)) => Ok((config.name, Some(value))),
                (CONFIG_SET, None) => invalid(format!("the setting {} has no value", config.name)),
                (CONFIG_DELETE, _) => Ok((config.name, None)),
                // Adding to a list and taking from one: each of our lists has one possible value.
                (_, _) => invalid(format!("{} can be set or deleted, no more", config.name)),
            })
            .collect(),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        replaces: false,
    });
    let responses =
        all(broker, (wishes.collect(), of), request.validate_only, (deadline, handed_over)).await;
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

async fn all(
    broker: &Broker,
    (wishes, of): (Vec<Wish>, &Origin),
    validate_only: bool,
    (deadline, handed_over): (Instant, Option<Unanswered>),
) -> Vec<AlterConfigsResourceResponse> {
    let mut times = BTreeMap::<(i8, &str), u32>::new();
    for wish in &wishes {
        *times.entry((wish.resource_type, &wish.resource_name)).or_default() += 1;
    }
    let twice = |wish: &Wish| match times.get(&(wish.resource_type, &*wish.resource_name)) {
        Some(1) => Ok(()),
        _ => refuse(
            ErrorCode::InvalidRequest,
            format!("the request names {} more than once", wish.resource_name),
        ),
    };
    let once: Vec<Result<(), Failure>> = wishes.iter().map(twice).collect();
    let definitions = wishes.iter().zip(&once).filter(|(wish, _)| wish.is_definition());
    let operations = definitions.map(|(wish, once)| {
        once.clone()?;
        definition(broker, wish, of)
    });
    let defined = match handed_over {
        None => define(broker, operations.collect(), validate_only, deadline).await,
        Some(unanswered) => Err(unanswered.into()),
    };
    let mut responses = Vec::new();
    for (wish, once) in wishes.into_iter().zip(once) {
        let (resource_type, resource_name) = (wish.resource_type, wish.resource_name.clone());
        let done = match (handed_over, once) {
            (Some(unanswered), _) => Err(unanswered.into()),
            (None, _) if wish.is_definition() => defined.clone(),
            (None, Err(failure)) => Err(failure),
            (None, Ok(())) => alter(broker, (wish, of), validate_only, deadline).await,
        };
        let (error_code, error_message) = match done {
            Ok(()) => (ErrorCode::None, None),
            Err(failure) => (failure.code, Some(failure.message)),
        };
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name,
        });
    }
    responses
}

/// What is to become of a link or a rule.
fn definition(broker: &Broker, wish: &Wish, of: &Origin) -> Result<Operation, Failure> {
    let changes = wish.changes.as_ref().map_err(Failure::clone)?;
    let named = (wish.resource_type, wish.resource_name.clone());
    let operation = link_config::operation(named, of.who.to_string(), changes);
    let checked = operation.and_then(|operation| {
        if let LinkOperation::SetLink { definition: Some(link), .. } = &operation {
            broker.host.links.check_authority(&link.authority)?;
            link_config::check_site(&broker.settings.site_name, &link.site)?;
        }
        Ok(Operation::Link(operation))
    });
    checked.or_else(|text| refuse(ErrorCode::InvalidConfig, text))
}

/// Changes links and rules together. Why none of them was changed is said of each.
async fn define(
    broker: &Broker,
    operations: Vec<Result<Operation, Failure>>,
    validate_only: bool,
    deadline: Instant,
) -> Result<(), Failure> {
    let count = operations.len();
    let together = |failure: Failure| match failure.code.is_retriable() || count == 1 {
        true => failure,
        false => {
            let message = format!("{}; none of the {count} changes was made", failure.message);
            Failure { message, ..failure }
        }
    };
    let operations = operations.into_iter().collect::<Result<Vec<_>, _>>().map_err(together)?;
    if validate_only || operations.is_empty() {
        return Ok(());
    }
    if planted(Plant::DefinitionsApart) {
        for operation in operations {
            carry_out(broker, Unit::of(operation), deadline).await?;
        }
        return Ok(());
    }
    let unit = Unit { operations, ..Unit::default() };
    if unit.encoded_len() > broker.unit_bytes_max() {
        let text = "the links and rules of the request are too many for one entry of the log";
        return refuse(ErrorCode::InvalidRequest, text).map_err(together);
    }
    carry_out(broker, unit, deadline).await.map_err(together)
}

async fn alter(
    broker: &Broker,
    (wish, of): (Wish, &Origin),
    validate_only: bool,
    deadline: Instant,
) -> Result<(), Failure> {
    match wish.resource_type {
        RESOURCE_TOPIC => {}
        kind @ (RESOURCE_PIPELINE | RESOURCE_SAVEPOINT) if wish.replaces => {
            let given = wish.changes?.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let (name, who) = (wish.resource_name, of.who.to_string());
            let wanted = Wanted { name, who, settings: given.collect() };
            return match kind {
                RESOURCE_PIPELINE => {
                    pipeline_config::set_pipeline(broker, wanted, validate_only, deadline).await
                }
                _ => pipeline_config::set_savepoint(broker, wanted, validate_only, deadline).await,
            };
        }
        _ => {
            let text = "only the settings of topics can be changed, and links, rules, pipelines and \
                        savepoints replaced";
            return refuse(ErrorCode::InvalidRequest, text);
        }
    }
    let changes = checked(broker, wish.changes?)?;
    let leads = broker.prove_leadership().await;
    leads.map_err(|_| Unanswered::NotDone)?;
    let topic =
        broker.site.read(|state| state.topics().by_name(&wish.resource_name).map(|topic| topic.id));
    let topic = topic.ok_or(Refusal::UnknownTopic)?;
    if validate_only {
        return Ok(());
    }
    let unit = Unit::of(Operation::AlterTopic { topic, replaces: wish.replaces, changes });
    carry_out(broker, unit, deadline).await
}

fn checked(
    broker: &Broker,
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
            Some(value) => topic_config::check(&broker.settings, name, value),
            None if SETTINGS.iter().any(|setting| setting.name == name) => Ok(()),
            None => Err(format!("the setting {name} is not supported")),
        };
        checked.or_else(invalid)?;
    }
    Ok(changes)
}

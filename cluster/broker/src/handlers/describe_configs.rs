//! DescribeConfigs (key 32): the settings of topics. A broker has none that clients could use: it is
//! described as one without settings.
//!
//! Any node answers from what it has applied, as for Metadata.

use super::catch_up::has_caught_up;
use super::link_config::{number, numbered};
use super::topic_config::{SETTINGS, Setting};
use super::{link_config, link_status, pipeline_config, pipeline_status};
use crate::broker::{Broker, kafka_id};
use crate::machine::topics::Topic;
use crate::settings::BrokerSettings;
use fulmar_wire::{
    CONFIG_SOURCE_DEFAULT, CONFIG_SOURCE_TOPIC, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym, ErrorCode, RESOURCE_BROKER, RESOURCE_CHANGES, RESOURCE_LINK,
    RESOURCE_LINK_STATUS, RESOURCE_MADE_OF, RESOURCE_MIRRORS, RESOURCE_PIPELINE,
    RESOURCE_PIPELINE_STATUS, RESOURCE_RULE, RESOURCE_SAVEPOINT, RESOURCE_TOPIC,
};

/// What a request wants to be told beside the values.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

pub(super) async fn handle(
    broker: &Broker,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let wanted =
        Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut response = DescribeConfigsResponse::default();
    let mut long = 0;
    for resource in request.resources {
        let is_listed = matches!(
            resource.resource_type,
            RESOURCE_LINK
                | RESOURCE_RULE
                | RESOURCE_PIPELINE
                | RESOURCE_SAVEPOINT
                | RESOURCE_MADE_OF
        );
        if is_listed && resource.resource_name.is_empty() {
            response.results.extend(all_of(broker, resource.resource_type).await);
            continue;
        }
        long += usize::from(is_long(&resource));
        let described = if long > LONG_MAX {
            let text = format!("a request may ask for {LONG_MAX} links, rules and pipelines");
            Err((ErrorCode::InvalidRequest, text))
        } else {
            describe(broker, &resource, wanted).await
        };
        let (error_code, error_message, configs) = match described {
            Ok(configs) => (ErrorCode::None, None, configs),
            Err((code, message)) => {
                let of = numbered(resource.resource_type);
                let of = of.filter(|_| code == ErrorCode::ResourceNotFound);
                let name = &*resource.resource_name;
                let number = |of| broker.site.read(|state| number(state, (of, name)));
                (code, Some(message), of.map(number).map(told).into_iter().collect())
            }
        };
        response.results.push(DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs,
        });
    }
    response
}

/// All links, rules, pipelines, savepoints or topics that pipelines have made, by name only.
async fn all_of(broker: &Broker, resource_type: i8) -> Vec<DescribeConfigsResult> {
    let result = |resource_name, error_code| DescribeConfigsResult {
        error_code,
        resource_type,
        resource_name,
        ..DescribeConfigsResult::default()
    };
    if !has_caught_up(broker).await {
        return vec![result(String::new(), ErrorCode::LeaderNotAvailable)];
    }
    let names = broker.site.read(|state| match resource_type {
        RESOURCE_LINK | RESOURCE_RULE => link_config::names(state, resource_type),
        _ => pipeline_config::names(state, resource_type),
    });
    names.into_iter().map(|name| result(name, ErrorCode::None)).collect()
}

/// Links, rules and pipelines that one request may ask for: their settings may be hundreds of KiB each.
const LONG_MAX: usize = 8;

fn is_long(asked: &DescribeConfigsResource) -> bool {
    matches!(
        asked.resource_type,
        RESOURCE_LINK
            | RESOURCE_RULE
            | RESOURCE_LINK_STATUS
            | RESOURCE_CHANGES
            | RESOURCE_MADE_OF
            | RESOURCE_MIRRORS
            | RESOURCE_PIPELINE
            | RESOURCE_SAVEPOINT
            | RESOURCE_PIPELINE_STATUS
    )
}

async fn describe(
    broker: &Broker,
    asked: &DescribeConfigsResource,
    wanted: Wanted,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    let name = &asked.resource_name;
    match asked.resource_type {
        RESOURCE_TOPIC => {}
        RESOURCE_BROKER => {
            let is_ours = |id| broker.settings.nodes.iter().any(|e| kafka_id(e.node) == id);
            return if name.is_empty() || name.parse().is_ok_and(is_ours) {
                Ok(Vec::new())
            } else {
                Err((ErrorCode::InvalidRequest, format!("no node of the site has the id {name}")))
            };
        }
        kind @ (RESOURCE_LINK | RESOURCE_RULE | RESOURCE_PIPELINE | RESOURCE_SAVEPOINT) => {
            let found = broker.site.read(|state| match kind {
                RESOURCE_LINK | RESOURCE_RULE => link_config::settings(state, kind, name),
                _ => pipeline_config::settings(state, kind, name),
            });
            let missing =
                || (ErrorCode::ResourceNotFound, format!("there is nothing named {name}"));
            return found.map(|found| found.into_iter().map(plain).collect()).ok_or_else(missing);
        }
        RESOURCE_CHANGES => {
            let found = broker.site.read(link_config::changes);
            return Ok(found.into_iter().map(told).collect());
        }
        RESOURCE_MADE_OF => {
            let found = broker.site.read(|state| pipeline_config::made_of(state, name));
            let missing =
                || (ErrorCode::ResourceNotFound, format!("no pipeline has written {name}"));
            return Ok(found.ok_or_else(missing)?.into_iter().map(told).collect());
        }
        RESOURCE_MIRRORS => {
            let found = broker.site.read(link_config::mirrors);
            return Ok(found.into_iter().map(told).collect());
        }
        kind @ (RESOURCE_LINK_STATUS | RESOURCE_PIPELINE_STATUS) => {
            return status(broker, kind, name, asked.configuration_keys.as_deref());
        }
        other => {
            let message = format!("settings of resources of type {other} are not served");
            return Err((ErrorCode::InvalidRequest, message));
        }
    }
    let look = || {
        broker.site.read(|state| {
            let topic = state.topics().by_name(name)?;
            let keys = asked.configuration_keys.as_deref();
            Some(settings_of(&broker.settings, topic, keys, wanted))
        })
    };
    if let Some(found) = look() {
        return Ok(found);
    }
    let code = if has_caught_up(broker).await {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::LeaderNotAvailable
    };
    look().ok_or((code, "there is no such topic".to_owned()))
}

/// What becomes of a link or a pipeline. Whoever leads carries the links, and knows first how far pipelines
/// are.
fn status(
    broker: &Broker,
    kind: i8,
    name: &str,
    keys: Option<&[String]>,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    if !broker.group.leadership().is_me {
        return Err((ErrorCode::NotController, "another node leads".to_owned()));
    }
    let (what, found) = match kind {
        RESOURCE_LINK_STATUS => match link_status::asked_gaps(keys) {
            Some(behind) => ("link", link_status::gaps(broker, name, &behind)),
            None => ("link", link_status::values(broker, name)),
        },
        _ => ("pipeline", pipeline_status::values(broker, name)),
    };
    let missing = || (ErrorCode::ResourceNotFound, format!("there is no {what} named {name}"));
    Ok(found.ok_or_else(missing)?.into_iter().map(told).collect())
}

/// Something that can be looked at and not be set.
fn told((name, value): (String, String)) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult { read_only: true, ..plain((name, value)) }
}

/// A setting that is as somebody has given it.
fn plain((name, value): (String, String)) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name,
        value: Some(value),
        config_source: CONFIG_SOURCE_TOPIC,
        ..DescribeConfigsResourceResult::default()
    }
}

fn settings_of(
    site: &BrokerSettings,
    topic: &Topic,
    keys: Option<&[String]>,
    wanted: Wanted,
) -> Vec<DescribeConfigsResourceResult> {
    let is_wanted = |setting: &&Setting| {
        keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == setting.name))
    };
    let described = SETTINGS.iter().filter(is_wanted);
    described.map(|setting| describe_setting(site, topic, setting, wanted)).collect()
}

fn describe_setting(
    site: &BrokerSettings,
    topic: &Topic,
    setting: &Setting,
    wanted: Wanted,
) -> DescribeConfigsResourceResult {
    let given = topic.config(setting.name);
    let default = (setting.default)(site);
    let synonym = |value: &str, source| DescribeConfigsSynonym {
        name: setting.name.to_owned(),
        value: Some(value.to_owned()),
        source,
    };
    let mut synonyms = Vec::new();
    if wanted.synonyms {
        synonyms.extend(given.map(|value| synonym(value, CONFIG_SOURCE_TOPIC)));
        synonyms.push(synonym(&default, CONFIG_SOURCE_DEFAULT));
    }
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        config_source: if given.is_some() { CONFIG_SOURCE_TOPIC } else { CONFIG_SOURCE_DEFAULT },
        value: Some(given.map_or(default, str::to_owned)),
        read_only: false,
        is_sensitive: false,
        synonyms,
        config_type: setting.kind as i8,
        documentation: wanted.documentation.then(|| setting.about.to_owned()),
    }
}

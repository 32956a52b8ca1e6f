//! Links and rules as things with settings: what AlterConfigs replaces and DescribeConfigs tells of
//! them. Kafka has no such things, and no requests for them.

use crate::machine::state::State;
use fulmar_store::entry::LinkOperation;
use fulmar_types::link::{LinkDefinition, list};
use fulmar_wire::{RESOURCE_LINK, RESOURCE_RULE};

/// The one setting of a rule: the regions that may have the topic, with commas between.
const REGIONS: &str = "regions";

/// What replaces all settings of a link or a rule; without any it is removed.
///
/// # Errors
/// For people.
pub(super) fn operation(
    resource_type: i8,
    name: String,
    settings: &[(String, Option<String>)],
) -> Result<LinkOperation, String> {
    let given = settings.iter().filter_map(|(name, value)| Some((&**name, value.as_deref()?)));
    let given: Vec<(&str, &str)> = given.collect();
    if resource_type == RESOURCE_LINK {
        let definition = match &given[..] {
            [] => None,
            some => Some(LinkDefinition::from_settings(some.iter().copied())?),
        };
        return Ok(LinkOperation::SetLink { name, definition });
    }
    match &given[..] {
        [] => Ok(LinkOperation::SetRule { topic: name, regions: Vec::new() }),
        [(REGIONS, regions)] => Ok(LinkOperation::SetRule { topic: name, regions: list(regions) }),
        _ => Err(format!("a rule has one setting, `{REGIONS}`")),
    }
}

/// The settings of a link or a rule, if there is one of the name.
pub(super) fn settings(
    state: &State,
    resource_type: i8,
    name: &str,
) -> Option<Vec<(String, String)>> {
    match resource_type {
        RESOURCE_LINK => state.link(name).map(|link| link.definition.settings()),
        RESOURCE_RULE => {
            let rule = state.rules().find(|rule| rule.topic == name)?;
            Some(vec![(REGIONS.to_owned(), rule.regions.join(","))])
        }
        _ => None,
    }
}

//! Links and rules as things with settings: what AlterConfigs replaces and DescribeConfigs tells of
//! them. Kafka has no such things, and no requests for them.
//!
//! Whoever asks is told the number of the definition among the settings. Whoever sends it back with a
//! change has the change refused if there was another one meanwhile; the number 0 stands for a link or
//! a rule that is not there yet.

use crate::machine::state::State;
use fulmar_host::random;
use fulmar_store::entry::LinkOperation;
use fulmar_types::link::{LinkDefinition, NUMBER};
use fulmar_types::rule::RuleDefinition;
use fulmar_wire::RESOURCE_LINK;

/// What replaces all settings of a link or a rule; without any but the number it is removed.
///
/// # Errors
/// For people.
pub(super) fn operation(
    resource_type: i8,
    name: String,
    settings: &[(String, Option<String>)],
) -> Result<LinkOperation, String> {
    let given = settings.iter().filter_map(|(name, value)| Some((&**name, value.as_deref()?)));
    let (numbers, given): (Vec<_>, Vec<_>) = given.partition(|(name, _)| *name == NUMBER);
    let number = |(_, text): &(&str, &str)| {
        text.parse().map_err(|_| format!("`{NUMBER}` is a number, and not `{text}`"))
    };
    let expected = numbers.first().map(number).transpose()?;
    if resource_type == RESOURCE_LINK {
        let definition = match &given[..] {
            [] => None,
            some => Some(LinkDefinition::from_settings(some.iter().copied())?),
        };
        return Ok(LinkOperation::SetLink { name, expected, definition });
    }
    let definition = RuleDefinition::from_settings(given)?;
    let (first, second) = (random::random_16(), random::random_16());
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(&first);
    secret[16..].copy_from_slice(&second);
    Ok(LinkOperation::SetRule { topic: name, expected, definition, secret })
}

/// The settings of a link or a rule, if there is one of the name.
pub(super) fn settings(
    state: &State,
    resource_type: i8,
    name: &str,
) -> Option<Vec<(String, String)>> {
    let (number, mut settings) = match resource_type {
        RESOURCE_LINK => state.link(name).map(|link| (link.number, link.definition.settings()))?,
        _ => {
            let rule = state.rule(name)?;
            (rule.number, rule.definition.settings())
        }
    };
    settings.push((NUMBER.to_owned(), number.to_string()));
    Some(settings)
}

/// The names of all links, or of all topics with a rule.
pub(super) fn names(state: &State, resource_type: i8) -> Vec<String> {
    match resource_type {
        RESOURCE_LINK => state.links().map(|link| link.name.clone()).collect(),
        _ => state.rules().map(|rule| rule.topic.clone()).collect(),
    }
}

//! Links and rules as things with settings: what AlterConfigs replaces and DescribeConfigs tells of
//! them. Kafka has no such things, and no requests for them.
//!
//! Whoever asks is told the number of the definition among the settings, and also the number of what is not
//! there. Whoever sends it back with a change has the change refused if there was another one meanwhile, however
//! late it comes; the number 0 stands for what never was. A change without a number gets the one that the first
//! node knows which has it. Beside the number stand who made the definition what it is, and when.

use crate::limits::LINK_STATUS_VALUES_MAX;
use crate::machine::changes::{Change, ChangeOf, Changed};
use crate::machine::state::State;
use fulmar_host::random;
use fulmar_store::entry::{LinkOperation, RuleSecret};
use fulmar_types::link::{CHANGED_BY, CHANGED_MS, LinkDefinition, NUMBER};
use fulmar_types::rule::RuleDefinition;
use fulmar_wire::{RESOURCE_LINK, RESOURCE_PIPELINE, RESOURCE_RULE, RESOURCE_SAVEPOINT};

/// What has a number, by the type of its resource.
pub(super) const fn numbered(resource_type: i8) -> Option<ChangeOf> {
    match resource_type {
        RESOURCE_LINK => Some(ChangeOf::Link),
        RESOURCE_RULE => Some(ChangeOf::Rule),
        RESOURCE_PIPELINE => Some(ChangeOf::Pipeline),
        RESOURCE_SAVEPOINT => Some(ChangeOf::Savepoint),
        _ => None,
    }
}

/// The number of something, there or not, as a setting.
pub(super) fn number(state: &State, of: (ChangeOf, &str)) -> (String, String) {
    (NUMBER.to_owned(), state.number_of(of).to_string())
}

/// What replaces all settings of a link or a rule, for somebody; without any but the number it is removed.
///
/// # Errors
/// For people.
pub(super) fn operation(
    (resource_type, name): (i8, String),
    who: String,
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
        return Ok(LinkOperation::SetLink { name, expected, who, definition });
    }
    let definition = RuleDefinition::laid_down(given)?;
    let (first, second) = (random::random_16(), random::random_16());
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(&first);
    secret[16..].copy_from_slice(&second);
    let secret = RuleSecret(secret);
    Ok(LinkOperation::SetRule { topic: name, expected, who, definition, secret })
}

/// A site has links to others: over one to itself nothing would come, and what waits for the other side would
/// wait for ever.
///
/// # Errors
/// For people.
pub(super) fn check_site(own: &str, other: &str) -> Result<(), String> {
    if own != other {
        return Ok(());
    }
    Err(format!("`{own}` is this very site: a link leads to another one, which its `site` names"))
}

/// The settings of a link or a rule, if there is one of the name.
pub(super) fn settings(
    state: &State,
    resource_type: i8,
    name: &str,
) -> Option<Vec<(String, String)>> {
    let (number, changed, mut settings) = match resource_type {
        RESOURCE_LINK => {
            let link = state.link(name)?;
            (link.number, &link.changed, link.definition.settings())
        }
        _ => {
            let rule = state.rule(name)?;
            (rule.number, &rule.changed, rule.definition.settings())
        }
    };
    settings.push((NUMBER.to_owned(), number.to_string()));
    settings.push((CHANGED_BY.to_owned(), changed.who.clone()));
    settings.push((CHANGED_MS.to_owned(), changed.wall_ms.to_string()));
    Some(settings)
}

/// The last changes of links and rules, oldest first, each as a name and a value:
///
/// ```text
/// NUMBER    link or rule, its name, wall ms, by whom, what; with tabs between
/// ```
pub(super) fn changes(state: &State) -> Vec<(String, String)> {
    let plain = |text: &str| text.replace('\t', " ");
    let change = |change: &Change| {
        let Changed { who, wall_ms } = &change.changed;
        let value =
            format!("{}\t{}\t{wall_ms}\t{who}\t{}", change.of, change.name, plain(&change.text));
        (change.number.to_string(), value)
    };
    state.changes().map(change).collect()
}

/// The topics that are copies, each with `LINK/TOPIC`: the link that brings it, and its name at the other
/// site. As many as one answer holds.
pub(super) fn mirrors(state: &State) -> Vec<(String, String)> {
    let mirrors = state.topics().iter().filter_map(|topic| {
        let mirror = state.mirror(topic.id)?;
        Some((topic.name.clone(), format!("{}/{}", mirror.link, mirror.origin_name)))
    });
    mirrors.take(LINK_STATUS_VALUES_MAX).collect()
}

/// The names of all links, or of all topics with a rule.
pub(super) fn names(state: &State, resource_type: i8) -> Vec<String> {
    match resource_type {
        RESOURCE_LINK => state.links().map(|link| link.name.clone()).collect(),
        _ => state.rules().map(|rule| rule.topic.clone()).collect(),
    }
}

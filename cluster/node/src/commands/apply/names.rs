//! What may be a name, said before the site says it, and which name it is.
//!
//! Invariant: what passes here the site takes as well, as far as names and lengths go.

use super::super::Stop;
use fulmar_broker::machine::topics::is_valid_name;
use fulmar_types::limits::PARTITIONS_PER_TOPIC_MAX;
use fulmar_types::link::{LINK_TEXT_BYTES_MAX, LinkDefinition};
use fulmar_types::rule::RuleDefinition;

/// What a name may be, in words.
const NAME: &str = "1 to 249 letters, digits, `.`, `_` and `-`, and not `.` or `..`";

/// Refuses what is no name of a topic, a link or a site.
pub fn check_name(what: &str, name: &str) -> Result<(), Stop> {
    if is_valid_name(name) {
        return Ok(());
    }
    Err(Stop::usage(format!("`{name}` cannot be {what}: use {NAME}.")))
}

/// Refuses what is empty, or longer than may be.
fn check_text(what: &str, text: &str) -> Result<(), Stop> {
    if (1..=LINK_TEXT_BYTES_MAX).contains(&text.len()) {
        return Ok(());
    }
    let problem = if text.is_empty() { "is empty" } else { "is too long" };
    Err(Stop::usage(format!("{what} {problem}; use 1 to {LINK_TEXT_BYTES_MAX} characters.")))
}

/// The same for what rules and links call a region: a rule names several with commas between, and one with
/// a space in it is a slip that nobody sees.
fn check_region(what: &str, region: &str) -> Result<(), Stop> {
    check_text(what, region)?;
    if region.chars().all(|c| c != ',' && !c.is_whitespace() && !c.is_control()) {
        return Ok(());
    }
    Err(Stop::usage(format!("{what}, `{region}`, has a space or a comma in it; use a plain name.")))
}

/// Refuses a link that the site would refuse.
pub fn check_link(name: &str, link: &LinkDefinition) -> Result<(), Stop> {
    check_name("the name of a link", name)?;
    check_name("the name of a site", &link.site)?;
    if link.site.contains('.') {
        let text = "copies are called after their site, and a dot ends its name";
        return Err(Stop::usage(format!("`{}` cannot be the name of a site: {text}.", link.site)));
    }
    check_region(&format!("the region of the link {name}"), &link.region)?;
    if link.is_within_limits() {
        return Ok(());
    }
    let text = "one of its settings is longer, or names more, than a link may";
    Err(Stop::usage(format!("the link {name}: {text}; `docs/CONFIGURATION.md` has the limits.")))
}

/// Refuses a rule that the site would refuse.
pub fn check_rule(topic: &str, rule: &RuleDefinition) -> Result<(), Stop> {
    check_name("the name of a topic", topic)?;
    for region in &rule.regions {
        check_region(&format!("a region of the rule of {topic}"), region)?;
    }
    if rule.is_within_limits() {
        return Ok(());
    }
    let text = "it names more regions, headers or fields than a rule may, or one that is too long";
    Err(Stop::usage(format!("the rule of {topic}: {text}.")))
}

/// Refuses a topic that the site would refuse.
pub fn check_topic(name: &str, partitions: u32) -> Result<(), Stop> {
    check_name("the name of a topic", name)?;
    if (1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
        return Ok(());
    }
    let most = PARTITIONS_PER_TOPIC_MAX;
    Err(Stop::usage(format!("the topic {name} has {partitions} partitions; use 1 to {most}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_site_would_refuse_is_named() {
        let link = |site: &str, region: &str| LinkDefinition {
            site: site.to_owned(),
            region: region.to_owned(),
            ..LinkDefinition::default()
        };
        assert_eq!(check_link("hub", &link("hub", "eu")), Ok(()));
        let rule = |region: &str| RuleDefinition::verbatim([region.to_owned()]);
        let long = rule(&"x".repeat(250));
        for (done, part) in [
            (check_link("my hub", &link("hub", "eu")), "`my hub` cannot be the name of a link"),
            (check_link("hub", &link("hub/1", "eu")), "`hub/1` cannot be the name of a site"),
            (check_link("hub", &link("hub.1", "eu")), "`hub.1` cannot be the name of a site"),
            (check_link("hub", &link("hub", "")), "the region of the link hub is empty"),
            (check_link("hub", &link("hub", "e u")), "the region of the link hub, `e u`, has"),
            (check_rule("a", &rule("eu,us")), "a region of the rule of a, `eu,us`, has"),
            (check_rule("a b", &rule("eu")), "`a b` cannot be the name of a topic"),
            (check_rule("a", &long), "a region of the rule of a is too long"),
            (check_topic("", 1), "`` cannot be the name of a topic"),
            (check_topic("a", 0), "the topic a has 0 partitions"),
        ] {
            let text = done.expect_err(part).message;
            assert!(text.starts_with(part), "{text}");
        }
    }
}

//! What may be a name, a place or a setting, said before the site says it, or where it would not.
//!
//! Invariant: what passes here the site takes as well, as far as names, lengths and settings go that every site
//! takes alike.
//!
//! Never: look at what a site has in its log already. A link that was laid down by something else stays usable.

use super::super::Stop;
use fulmar_broker::handlers::check_on_any_site;
use fulmar_broker::machine::topics::{TOPIC_NAME_BYTES_MAX, is_valid_name};
use fulmar_types::config::is_site_name;
use fulmar_types::limits::PARTITIONS_PER_TOPIC_MAX;
use fulmar_types::link::{EVERY_TOPIC, LINK_TEXT_BYTES_MAX, LinkDefinition};
use fulmar_types::pipeline::{PIPELINE_NAME_BYTES_MAX, internal_topic, is_internal};
use fulmar_types::rule::RuleDefinition;
use std::net::{Ipv4Addr, SocketAddr};

/// Refuses what is no name of a topic or a link.
fn check_name(what: &str, name: &str) -> Result<(), Stop> {
    check_name_within(what, name, TOPIC_NAME_BYTES_MAX)
}

/// The same where names are shorter.
fn check_name_within(what: &str, name: &str, most: usize) -> Result<(), Stop> {
    if is_valid_name(name) && name.len() <= most {
        return Ok(());
    }
    Err(Stop::usage(format!(
        "`{name}` cannot be {what}: use 1 to {most} letters, digits, `.`, `_` and `-`, and not `.` or `..`."
    )))
}

/// Refuses what is no name of a topic that people make or make rules for.
fn check_topic_name(name: &str) -> Result<(), Stop> {
    if is_internal(name) {
        let own = internal_topic("");
        return Err(Stop::usage(format!(
            "`{name}` cannot be the name of a topic: the site keeps the state of its pipelines in those whose \
             name begins with `{own}`."
        )));
    }
    check_name("the name of a topic", name)
}

/// Whether other sites can be dialled at a place: a name or an address, and a port.
fn is_place(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() > 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    // What looks like an address and is none is no name either.
    let is_number = host.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let is_host = !host.is_empty() && host.bytes().all(is_plain);
    is_host
        && (!is_number || host.parse::<Ipv4Addr>().is_ok())
        && port.bytes().all(|c| c.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
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
    if !is_site_name(&link.site) {
        let site = &link.site;
        let text = "it has 1 to 64 lower-case letters, digits and `-`, as in the `site.toml` there";
        let hint = if site == name { "; say with `site` what it is called" } else { "" };
        return Err(Stop::usage(format!("`{site}` cannot be the name of a site: {text}{hint}.")));
    }
    if let Some(place) = link.dial.iter().find(|place| !is_place(place)) {
        return Err(Stop::usage(format!(
            "the link {name}: `{place}` is no place to dial; write HOST:PORT as in hub-1:9292, 10.0.0.11:9292 or \
             [fd00::11]:9292, with a port from 1 to 65535."
        )));
    }
    for topic in link.take.iter().filter(|topic| *topic != EVERY_TOPIC) {
        check_name(&format!("what the link {name} takes, the name of a topic"), topic)?;
    }
    check_region(&format!("the region of the link {name}"), &link.region)?;
    if link.is_within_limits() {
        return Ok(());
    }
    let text = "one of its settings is longer, or names more, than a link may";
    Err(Stop::usage(format!("the link {name}: {text}; `docs/CONFIGURATION.md` has the limits.")))
}

/// Refuses what is no name of a pipeline or a savepoint.
pub fn check_pipeline_name(what: &str, name: &str) -> Result<(), Stop> {
    check_name_within(&format!("the name of a {what}"), name, PIPELINE_NAME_BYTES_MAX)
}

/// Refuses a rule that the site would refuse.
pub fn check_rule(topic: &str, rule: &RuleDefinition) -> Result<(), Stop> {
    check_topic_name(topic)?;
    for region in &rule.regions {
        check_region(&format!("a region of the rule of {topic}"), region)?;
    }
    if rule.is_within_limits() {
        return Ok(());
    }
    let text = "it names more regions, headers or fields than a rule may, or one that is too long";
    Err(Stop::usage(format!("the rule of {topic}: {text}.")))
}

/// Refuses a topic that every site would refuse. What depends on the site (`min.insync.replicas`,
/// `max.message.bytes`) passes if there is one that takes it.
pub fn check_topic<'a>(
    name: &str,
    partitions: u32,
    mut settings: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(), Stop> {
    check_topic_name(name)?;
    if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
        let most = PARTITIONS_PER_TOPIC_MAX;
        let text = format!("the topic {name} has {partitions} partitions; use 1 to {most}.");
        return Err(Stop::usage(text));
    }
    let checked = settings.try_for_each(|(key, value)| check_on_any_site(key, value));
    checked.map_err(|why| Stop::usage(format!("the topic {name}: {why}.")))
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
        let takes = |topic: &str| LinkDefinition {
            take: vec!["*".to_owned(), topic.to_owned()],
            ..link("hub", "eu")
        };
        assert_eq!(check_link("hub", &takes("north.orders")), Ok(()));
        let rule = |region: &str| RuleDefinition::verbatim([region.to_owned()]);
        let long = rule(&"x".repeat(250));
        for (done, part) in [
            (check_link("my hub", &link("hub", "eu")), "`my hub` cannot be the name of a link"),
            (check_link("hub", &link("hub/1", "eu")), "`hub/1` cannot be the name of a site"),
            (check_link("hub", &link("hub.1", "eu")), "`hub.1` cannot be the name of a site"),
            (check_link("hub", &link("", "eu")), "`` cannot be the name of a site"),
            (check_link("hub", &link(&"x".repeat(65), "eu")), "`xxxxxxx"),
            (check_link("hub", &link("hub", "")), "the region of the link hub is empty"),
            (check_link("hub", &link("hub", "e u")), "the region of the link hub, `e u`, has"),
            (check_link("hub", &takes("a b")), "`a b` cannot be what the link hub takes"),
            (check_pipeline_name("savepoint", "a b"), "`a b` cannot be the name of a savepoint"),
            (check_pipeline_name("pipeline", &"x".repeat(201)), "`xxxxxxx"),
            (check_rule("a", &rule("eu,us")), "a region of the rule of a, `eu,us`, has"),
            (check_rule("a b", &rule("eu")), "`a b` cannot be the name of a topic"),
            (check_rule("a", &long), "a region of the rule of a is too long"),
            (
                check_rule("__pipeline.x", &rule("eu")),
                "`__pipeline.x` cannot be the name of a topic",
            ),
            (topic("", 1, ("retention.ms", "7")), "`` cannot be the name of a topic"),
            (topic("a", 0, ("retention.ms", "7")), "the topic a has 0 partitions"),
            (topic("a", 1, ("retention.ms", "1 day")), "the topic a: retention.ms must be"),
            (topic("a", 1, ("cleanup.policy", "compact")), "the topic a: cleanup.policy=compact"),
            (topic("a", 1, ("retention", "7")), "the topic a: the setting retention is"),
            (topic("a", 1, ("min.insync.replicas", "3")), "the topic a: min.insync.replicas must"),
        ] {
            let text = done.expect_err(part).message;
            assert!(text.starts_with(part), "{text}");
        }
        assert_eq!(topic("a", 1, ("min.insync.replicas", "2")), Ok(()));
    }

    fn topic(name: &str, partitions: u32, (key, value): (&str, &str)) -> Result<(), Stop> {
        let settings = [(key.to_owned(), value.to_owned())];
        check_topic(name, partitions, settings.iter().map(|(key, value)| (key, value)))
    }

    #[test]
    fn a_link_called_otherwise_than_its_site_is_told_to_say_so() {
        let upper = LinkDefinition {
            site: "HUB2".to_owned(),
            region: "eu".to_owned(),
            ..LinkDefinition::default()
        };
        let text = |name| check_link(name, &upper).expect_err("no site is called so").message;
        assert!(text("HUB2").contains("say with `site`"), "{}", text("HUB2"));
        assert!(!text("hub").contains("say with `site`"), "{}", text("hub"));
        let plain = LinkDefinition { site: "hub-2".to_owned(), ..upper };
        assert_eq!(check_link("HUB2", &plain), Ok(()));
    }

    #[test]
    fn a_link_dials_a_host_and_a_port() {
        let dials = |place: &str| {
            let link = LinkDefinition {
                site: "hub".to_owned(),
                region: "eu".to_owned(),
                dial: vec!["hub-1:9292".to_owned(), place.to_owned()],
                ..LinkDefinition::default()
            };
            check_link("hub", &link)
        };
        let good =
            ["h:1", "box_1.plant.example:65535", "10.0.0.11:9292", "[fd00::11]:9292", "7up:9"];
        for place in good {
            assert_eq!(dials(place), Ok(()), "{place}");
        }
        for place in [
            "127.0.0.1",
            "nohost",
            "1.2.3.4:99999",
            "x:0",
            "1.2.3.4:0",
            ":9292",
            "",
            "x:",
            "x:+1",
            "x:1:2",
            "fd00::11:9292",
            "[fd00::11]",
            "[fd00::11]:0",
            "[x]:1",
            "[]:1",
            "1.2.3:9292",
            "1.2.3.400:9292",
            "h h:1",
            "http://h:1",
            "h:1/",
            "h\u{1b}:1",
        ] {
            let text = dials(place).expect_err(place).message;
            assert!(text.starts_with(&format!("the link hub: `{place}` is no place")), "{text}");
        }
    }
}

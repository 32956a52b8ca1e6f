//! `fulmar policy`: what a rule lets go, shown on a record.
//!
//! Invariants: what is shown as going is what the link's own code makes of the record; the key of the
//! site's hashes is known to nobody outside the site, so hashes are shown with another one.
//!
//! Never: guess that something stays. Without a rule it is said that there is none.

use super::Stop;
use super::apply::carry::{links, rules};
use super::apply::file::{self, Wanted};
use super::apply::plan::{Rules, rules_after, terms_of};
use super::client::{OptionalReaching, Reaching};
use super::made_of::Made;
use super::makings::Makings;
use super::output::{escaped, say};
use super::ways::Ways;
use clap::{Args, Subcommand};
use fulmar_client::fetch::Fetch;
use fulmar_client::{Cluster, LaidDown, OffsetAt, ReadRecord, Target, TopicPartition};
use fulmar_host::time::Duration;
use fulmar_mirror::policy::{Pace, Policy};
use fulmar_store::entry::RuleSecret;
use fulmar_types::link::LinkDefinition;
use fulmar_types::pipeline::is_internal;
use fulmar_types::rule::{FieldAction, RuleDefinition, Segment};
use fulmar_types::{ExitCode, Offset, PartitionIndex};
use fulmar_wire::batch::{Header, Record};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The key of the hashes that are shown.
const SHOWN: RuleSecret = RuleSecret([0; 32]);

/// What the rules of a site let go, and in which form.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show what the rules of a file for `fulmar apply` would let go, with an example for each.
    Check(Check),
    /// Show what of a topic goes to another site, and why, on its newest record.
    Explain(Explain),
}

#[derive(Clone, Debug, Args)]
struct Check {
    /// The file, as for `fulmar apply`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The value of the record that serves as the example; without one, the newest record of a topic
    /// if a site is named, and else one made up from the rule.
    #[arg(long, value_name = "JSON")]
    record: Option<String>,
    #[command(flatten)]
    reaching: OptionalReaching,
}

#[derive(Clone, Debug, Args)]
struct Explain {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The other site, by its name or that of the link.
    #[arg(long, value_name = "SITE")]
    to: String,
    #[command(flatten)]
    reaching: Reaching,
}

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    match options.command {
        Command::Check(check) => check.run().await,
        Command::Explain(explain) => explain.run().await,
    }
}

impl Check {
    async fn run(self) -> Result<ExitCode, Stop> {
        let wanted = file::read(&self.file)?;
        let cluster = self.reaching.reached("fulmar-policy").await?;
        let seen = Seen::of(wanted, cluster.as_ref()).await?;
        if seen.rules.is_empty() {
            say("no rules: no topic leaves the site");
        }
        for (topic, rule) in &seen.wanted.rules {
            say(format!("rule {topic}"));
            say_terms(rule);
            seen.say_ways(topic, rule);
            let example = match (&self.record, &cluster) {
                (Some(value), _) => Some(with_value(value.clone())),
                (None, Some(cluster)) => newest(cluster, topic).await?,
                (None, None) => None,
            };
            say_example(rule, example).await;
        }
        for (topic, rule) in &seen.left {
            if !seen.wanted.rules.contains_key(topic) {
                say(format!("rule {topic} (of the site: not in the file, and left as it is)"));
                say_terms(&rule.is);
                seen.say_ways(topic, &rule.is);
            }
        }
        seen.say_others();
        Ok(ExitCode::Ok)
    }
}

/// What a file wants, and what of the site it leaves as it is.
struct Seen {
    wanted: Wanted,
    left: Rules,
    /// All rules then.
    rules: BTreeMap<String, RuleDefinition>,
    ways: Ways,
    makings: Makings,
    /// Where it was looked.
    both: &'static str,
}

impl Seen {
    async fn of(wanted: Wanted, cluster: Option<&Cluster>) -> Result<Self, Stop> {
        let file_links = wanted.links.clone();
        // What the file does not name `apply` leaves as it is.
        let (left, ways, makings, both) = match cluster {
            Some(cluster) => (
                rules(cluster).await?,
                Ways::of_site(cluster, links(cluster).await?, file_links).await?,
                Makings::of_site(cluster).await?,
                "the file or the site",
            ),
            None => (Rules::new(), Ways::of_file(file_links), Makings::default(), "the file"),
        };
        let rules = rules_after(&wanted, &left, false);
        let makings = makings.with(wanted.pipelines.values());
        Ok(Self { wanted, left, rules, ways, makings, both })
    }

    fn say_ways(&self, topic: &str, rule: &RuleDefinition) {
        let to = self.ways.links().iter().filter(|(_, link)| rule.lets_go_to(&link.region));
        let to: Vec<_> = to.collect();
        if to.is_empty() {
            let both = self.both;
            say(format!("    goes to    no site: no link of {both} leads to such a region"));
        }
        let lets_go =
            |region: &str| self.left.get(topic).is_some_and(|rule| rule.is.lets_go_to(region));
        for (name, link) in to {
            say_way(name, self.ways.obstacle(topic, name, lets_go), &over(name, link));
        }
    }

    /// Says what becomes of the topics that no rule names: those of the file, and those that pipelines write.
    fn say_others(&self) {
        let made = self.makings.topics(&self.rules);
        let named = self.wanted.topics.keys().filter(|topic| !self.rules.contains_key(*topic));
        let others: BTreeSet<&str> =
            named.map(String::as_str).chain(made.iter().copied()).collect();
        for topic in others {
            let is_made = made.contains(&topic);
            let written = if is_made { " (pipelines write it, and no rule names it)" } else { "" };
            say(format!("topic {topic}{written}"));
            let goes = |link: &LinkDefinition| self.makings.goes(topic, &link.region, &self.rules);
            let to: Vec<_> = self.ways.links().iter().filter(|(_, link)| goes(link)).collect();
            if to.is_empty() {
                let why = match is_made {
                    true => "not all that it is made of goes to a region of a link as it is",
                    false => "no rule names it",
                };
                say(format!("    goes to    no site: by {} {why}", self.both));
            }
            for (name, link) in to {
                let goes = format!("{}, as it is", over(name, link));
                say_way(name, self.ways.obstacle(topic, name, |_| false), &goes);
            }
        }
    }
}

/// Says whether a topic goes over a link, or what keeps it from that.
fn say_way(link: &str, obstacle: Option<String>, goes: &str) {
    match obstacle {
        Some(why) => say(format!("    stays      not over the link {link}: {why}")),
        None => say(format!("    goes to    {goes}")),
    }
}

impl Explain {
    async fn run(self) -> Result<ExitCode, Stop> {
        let (topic, to) = (&self.topic, &self.to);
        let cluster = self.reaching.reached("fulmar-policy").await?;
        let links = links(&cluster).await?;
        let is_meant = |(name, link): &(&String, &LaidDown<LinkDefinition>)| {
            link.is.site == *to || *name == to
        };
        let Some((name, link)) = links.iter().find(is_meant) else {
            say(format!("nothing goes to {to}: no link leads to that site"));
            return Ok(ExitCode::Ok);
        };
        let (name, link) = (name.clone(), link.is.clone());
        let mut rules = rules(&cluster).await?;
        let rule = rules.remove(topic).map(|rule| rule.is);
        let made = match &rule {
            Some(rule) if !is_let_go(&cluster, (topic, to), &link, rule).await? => {
                return Ok(ExitCode::Ok);
            }
            Some(_) => None,
            None => match inherited(&cluster, (topic, to), &link, &rules).await? {
                Some(made) => Some(made),
                None => return Ok(ExitCode::Ok),
            },
        };
        let ways = Ways::of_site(&cluster, links, BTreeMap::new()).await?;
        if let Some(why) = ways.obstacle(topic, &name, |region| region == link.region) {
            say(format!("nothing of {topic} goes to {to}, though rules let it: {why}"));
            return Ok(ExitCode::Ok);
        }
        say(format!("{topic} goes to {}", over(&name, &link)));
        if let Some(made) = made {
            say(format!(
                "    no rule names it, and all that it is made of may go there as it is\n{made}"
            ));
        }
        if link.paused {
            say("    for now nothing does: the link is paused");
        }
        rule.iter().for_each(say_terms);
        let rule = rule.unwrap_or_else(|| RuleDefinition::verbatim([link.region.clone()]));
        say_example(&rule, newest(&cluster, topic).await?).await;
        Ok(ExitCode::Ok)
    }
}

/// Whether a rule lets a topic go over a link. If not, that is said.
async fn is_let_go(
    cluster: &Cluster,
    (topic, to): (&str, &str),
    LinkDefinition { site, region, .. }: &LinkDefinition,
    rule: &RuleDefinition,
) -> Result<bool, Stop> {
    let why = if !is_there(cluster, topic).await? {
        "there is no such topic, only a rule for it".to_owned()
    } else if !rule.lets_go_to(region) {
        let regions = rule.regions.join(", ");
        format!("{site} lies in the region {region}, and the rule lets it go to {regions} only")
    } else {
        return Ok(true);
    };
    say(format!("nothing of {topic} goes to {to}: {why}"));
    Ok(false)
}

/// What lets a topic go that no rule names. If nothing does, that is said.
async fn inherited(
    cluster: &Cluster,
    (topic, to): (&str, &str),
    link: &LinkDefinition,
    rules: &Rules,
) -> Result<Option<Made>, Stop> {
    if is_internal(topic) {
        say(format!("nothing of {topic} goes to {to}: the state of a pipeline stays here"));
        return Ok(None);
    }
    let Some(made) = Made::find(cluster, topic, (&link.region, rules)).await? else {
        say(format!("nothing of {topic} goes to {to}: no rule names the topic"));
        return Ok(None);
    };
    if !made.goes() {
        say(format!(
            "nothing of {topic} goes to {to}: no rule names the topic, and what a pipeline writes goes \
             only where all that it is made of may go, as it is\n{made}"
        ));
        return Ok(None);
    }
    Ok(Some(made))
}

fn over(name: &str, link: &LinkDefinition) -> String {
    format!("{} in the region {}, over the link {name}", link.site, link.region)
}

fn say_terms(rule: &RuleDefinition) {
    for (name, value) in terms_of(rule) {
        say(format!("    {name:<9}  {value}"));
    }
}

fn with_value(value: String) -> Record {
    let (key, value) = (Some("a-key".into()), Some(value.into()));
    Record { offset: 0, timestamp: 0, key, value, headers: Vec::new() }
}

/// Whether the site has a topic.
async fn is_there(cluster: &Cluster, topic: &str) -> Result<bool, Stop> {
    let known = cluster.refresh_all(TIMEOUT).await;
    let known =
        known.map_err(|error| Stop::failed(format!("the site does not answer: {error}.")))?;
    Ok(known.topics.contains_key(topic))
}

/// The newest record of a topic by its timestamp, of the last ones of its partitions, if there is one.
async fn newest(cluster: &Cluster, topic: &str) -> Result<Option<Record>, Stop> {
    let failed = |error: String| Stop::failed(format!("{topic} cannot be read: {error}."));
    let metadata = cluster.refresh_all(TIMEOUT).await.map_err(|error| failed(error.to_string()))?;
    let Some(known) = metadata.topics.get(topic) else { return Ok(None) };
    let count = u32::try_from(known.partitions.len()).unwrap_or(u32::MAX);
    let mut newest: Option<Record> = None;
    for partition in (0..count).map(PartitionIndex) {
        let of = TopicPartition::new(topic, partition);
        let find = |at| cluster.find_offset(&of, at, TIMEOUT);
        let first = find(OffsetAt::Earliest).await.map_err(|error| failed(error.to_string()))?;
        let next = find(OffsetAt::Latest).await.map_err(|error| failed(error.to_string()))?;
        let last = next.offset.filter(|next| first.offset.is_some_and(|first| first < *next));
        if let Some(next) = last {
            let fetch = Fetch::new(of, Offset(next.0 - 1));
            let read = cluster
                .fetch(Target::Leader, &fetch, TIMEOUT)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let records = read.records().map_err(|error| failed(error.to_string()))?;
            if let Some(record) = records.into_iter().next_back() {
                newest = later(newest, written(record));
            }
        }
    }
    Ok(newest)
}

/// The later one of two records; the first, if both are of one time.
fn later(first: Option<Record>, second: Record) -> Option<Record> {
    Some(first.filter(|first| first.timestamp >= second.timestamp).unwrap_or(second))
}

fn written(record: ReadRecord) -> Record {
    let ReadRecord { offset, timestamp_ms, key, value, headers } = record;
    let offset = i64::try_from(offset.0).unwrap_or(i64::MAX);
    Record { offset, timestamp: timestamp_ms, key, value, headers }
}

/// Shows what becomes of a record, or of one made up from the rule.
async fn say_example(rule: &RuleDefinition, record: Option<Record>) {
    let what = if record.is_some() { "" } else { " (made up)" };
    let record = record.unwrap_or_else(|| made_up(rule));
    say(format!("    before     {}{what}", shown(&record)));
    match Policy::new(rule, &SHOWN).record(record, &mut Pace::default()).await {
        Some(after) => say(format!("    after      {}", shown(&after))),
        None => say("    after      withheld: its value is not JSON that a rule can judge"),
    }
    if rule.settings().iter().any(|(_, value)| value.contains("hash")) {
        say(
            "    (hashes are made with the key of the site, which is not shown: these are examples)",
        );
    }
}

/// A record that has every field that the rule speaks of, and one more.
fn made_up(rule: &RuleDefinition) -> Record {
    let mut root = Map::new();
    root.insert("other".to_owned(), Value::from("as it is"));
    for (path, action) in &rule.fields {
        let name = |segment: &Segment| match segment {
            Segment::Name(name) => name.clone(),
            Segment::Any => "any".to_owned(),
        };
        let mut at = &mut root;
        let (last, on_the_way) = path.segments().split_last().expect("a path has a name");
        for segment in on_the_way {
            let below = at.entry(name(segment)).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            at = below.as_object_mut().expect("it is one now");
        }
        let value = match action {
            FieldAction::Round(_) => serde_json::from_str("1234.5678").expect("it is a number"),
            FieldAction::Truncate(characters) => {
                Value::from("abcdefghij".repeat(*characters as usize / 10 + 1) + "-and-so-on")
            }
            FieldAction::Drop | FieldAction::Mask | FieldAction::Hash => Value::from("private"),
        };
        at.entry(name(last)).or_insert(value);
    }
    let headers = rule.headers.keys().map(|name| Header {
        key: if name == "*" { "another".into() } else { name.clone().into() },
        value: Some("its value".into()),
    });
    Record { headers: headers.collect(), ..with_value(Value::Object(root).to_string()) }
}

/// A record in a line.
fn shown(record: &Record) -> String {
    let text = |bytes: &[u8]| escaped(&String::from_utf8_lossy(bytes));
    let mut parts = Vec::new();
    parts.extend(record.key.as_ref().map(|key| format!("key {}", text(key))));
    for header in &record.headers {
        let value = header.value.as_ref().map(|value| text(value)).unwrap_or_default();
        parts.push(format!("header {}={value}", text(&header.key)));
    }
    match &record.value {
        Some(value) => parts.push(text(value)),
        None => parts.push("no value".to_owned()),
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_host::task::block_on;

    #[test]
    fn an_example_has_what_the_rule_speaks_of_and_shows_what_becomes_of_it() {
        let rule = RuleDefinition::from_settings([
            ("regions", "eu"),
            ("key", "drop"),
            ("headers", "trace=pass,*=drop"),
            ("fields", "a.b=drop,a.*=mask,n=round:1,t=truncate:3"),
        ])
        .expect("it is a rule");
        let before = made_up(&rule);
        assert_eq!(
            shown(&before),
            "key a-key  header another=its value  header trace=its value  \
             {\"a\":{\"any\":\"private\",\"b\":\"private\"},\"n\":1234.5678,\"other\":\"as it is\",\
             \"t\":\"abcdefghij-and-so-on\"}"
        );
        let policy = Policy::new(&rule, &SHOWN);
        let after = block_on(policy.record(before, &mut Pace::default())).expect("it is JSON");
        assert_eq!(
            shown(&after),
            "header trace=its value  \
             {\"a\":{\"any\":\"***\"},\"n\":1234.6,\"other\":\"as it is\",\"t\":\"abc\"}"
        );
        assert!(shown(&with_value("\u{1b}[2J".to_owned())).contains("\\u{1b}"));
    }

    #[test]
    fn the_newest_record_is_that_with_the_latest_time() {
        let of = |timestamp, value: &str| Record { timestamp, ..with_value(value.to_owned()) };
        let records = [of(5, "a"), of(7, "b"), of(7, "c"), of(6, "d")];
        let newest = records.into_iter().fold(None, later).expect("there are some");
        assert_eq!(newest.value.as_deref(), Some(&b"b"[..]));
    }
}

//! `fulmar rule`: where the topics of a site may go. A topic without a rule goes nowhere, but for what pipelines
//! write: that goes where all that it is made of may go as it is.

use super::Stop;
use super::apply::carry::{links, out, rules};
use super::apply::names::check_rule;
use super::apply::plan::{Change, Rules, sorted, terms_of};
use super::apply::{plain_list, warn_of_regions};
use super::client::Reaching;
use super::link::{History, changed, history};
use super::makings::{Makings, goes_as_well, plain};
use super::output::{say, utc};
use clap::{Args, Subcommand};
use fulmar_client::{ChangeTold, Cluster};
use fulmar_host::time::Duration;
use fulmar_types::ExitCode;
use fulmar_types::rule::{FIELDS, HEADERS, KEY, REGIONS, RuleDefinition};

/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where the topics of a site may go. A topic without a rule goes nowhere; only what pipelines write
/// goes where all that it is made of may go as it is.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Let a topic go to some regions, and to no others; as it is, or without some of its fields.
    Set(Set),
    /// Take a rule back: the topic goes nowhere any more, unless pipelines write it.
    Delete(Delete),
    /// Show all rules.
    List(Of),
    /// Show who changed rules, when, and what; of one topic or of all.
    History(History),
}

#[derive(Clone, Debug, Args)]
struct Of {
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Set {
    /// The topic. It need not be there yet.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The regions that may have it, with commas between.
    #[arg(long, value_name = "REGION,...", value_delimiter = ',', required = true)]
    regions: Vec<String>,
    /// What becomes of keys: pass, drop, or hash for a keyed hash.
    #[arg(long, value_name = "ACTION")]
    key: Option<String>,
    /// What becomes of headers: pass, drop or hash for all, or NAME=ACTION with commas between, where
    /// the name * stands for all others.
    #[arg(long, value_name = "ACTION")]
    headers: Option<String>,
    /// What becomes of a field of the values, which then have to be JSON; may be given several times.
    /// The path is names with dots between, the action one of drop, mask, hash,
    /// truncate:CHARACTERS and round:DIGITS.
    #[arg(long = "field", value_name = "PATH=ACTION")]
    fields: Vec<String>,
    /// Let go what the rule withholds that the topic has now.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Clone, Debug, Args)]
struct Delete {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Let go what goes without the rule: what pipelines make goes where all that they make it of may go.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    reaching: Reaching,
}

impl Set {
    fn definition(&self) -> Result<RuleDefinition, Stop> {
        plain_list("a region", &self.regions)?;
        let (regions, fields) = (self.regions.join(","), self.fields.join(","));
        let settings = [
            (REGIONS, Some(regions)),
            (KEY, self.key.clone()),
            (HEADERS, self.headers.clone()),
            (FIELDS, (!fields.is_empty()).then_some(fields)),
        ];
        let given = settings.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let rule = RuleDefinition::laid_down(given);
        Ok(sorted(&rule.map_err(|error| Stop::usage(format!("{error}.")))?))
    }
}

/// Does what it is asked.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    let (topic, reaching, after, is_agreed) = match options.command {
        Command::Set(set) => {
            let definition = set.definition()?;
            check_rule(&set.topic, &definition)?;
            (set.topic, set.reaching, definition, set.yes)
        }
        Command::History(asked) => return history("rule", asked).await,
        Command::Delete(delete) => {
            (delete.topic, delete.reaching, RuleDefinition::default(), delete.yes)
        }
        Command::List(of) => {
            list(&rules(&of.reaching.reached("fulmar-rule").await?).await?);
            return Ok(ExitCode::Ok);
        }
    };
    let cluster = reaching.reached("fulmar-rule").await?;
    let mut rules = rules(&cluster).await?;
    let as_well = as_well(&cluster, &rules, (&topic, &after)).await?;
    let before = rules.remove(&topic);
    let number = before.as_ref().map_or(0, |rule| rule.number);
    if before.is_none() && after.regions.is_empty() {
        let text = format!(
            "there is no rule for the topic {topic}; what was asked for before and has not been answered is not \
             done any more"
        );
        let before = RuleDefinition::default();
        out(&cluster, &[Change::Rule { topic, before, number, after }]).await?;
        say(text);
        return Ok(ExitCode::Ok);
    }
    let before = before.map(|rule| sorted(&rule.is)).unwrap_or_default();
    let links = links(&cluster).await?;
    warn_of_regions((&topic, &after.regions), links.values().map(|link| &link.is));
    // Whoever takes a rule back does not mean to let more go.
    let opens = after.regions.is_empty() && !as_well.is_empty();
    let back = match before.regions.is_empty() && !after.regions.is_empty() {
        true => taken_back(&history_of(&cluster).await?, &topic),
        false => None,
    };
    let change = Change::Rule { topic, before, number, after };
    if let Some(why) = in_doubt(&change, opens, back).filter(|_| !is_agreed) {
        let as_well: String = as_well.iter().map(|line| format!("{line}\n")).collect();
        return Err(Stop::usage(format!("{change}\n{as_well}{why}")));
    }
    out(&cluster, std::slice::from_ref(&change)).await?;
    say(&change);
    as_well.iter().for_each(say);
    Ok(ExitCode::Ok)
}

/// Why a change needs a yes, if it does: it lets go what is withheld now, or more without the rule than with
/// it, or what has come since a rule was taken back.
fn in_doubt(change: &Change, opens: bool, back: Option<String>) -> Option<String> {
    let lasts = "what has left a site does not come back;";
    if opens {
        return Some(format!("{lasts} give it a rule instead, or say --yes."));
    }
    if let Some(back) = back {
        return Some(format!("{back}\n{lasts} if this rule is right for all of that, say --yes."));
    }
    let asks = format!("{lasts} name what is to be withheld, all of it, or say --yes.");
    change.lets_more_go().then_some(asks)
}

fn list(rules: &Rules) {
    if rules.is_empty() {
        say("no rules: no topic leaves the site");
    }
    for (topic, rule) in rules {
        let by = changed(&rule.changed);
        say(format!("rule {topic}: may go to {} ({by})", rule.is.regions.join(", ")));
        if !rule.is.is_verbatim() {
            for (name, value) in &terms_of(&rule.is)[1..] {
                say(format!("    {name:<7}  {value}"));
            }
        }
    }
}

/// The last changes of a site, oldest first.
pub async fn history_of(cluster: &Cluster) -> Result<Vec<ChangeTold>, Stop> {
    cluster
        .changes(TIMEOUT)
        .await
        .map_err(|error| Stop::failed(format!("the changes of the site are not known: {error}.")))
}

/// What is to be known of a topic whose rule was taken back, as far as that is remembered: what came since waits,
/// and a rule that is made again in another form lets it go in that.
pub fn taken_back(history: &[ChangeTold], topic: &str) -> Option<String> {
    let ours = || history.iter().rev().filter(|of| of.of == "rule" && of.name == topic);
    let is_none = |change: &&ChangeTold| matches!(&*change.what, "removed" | "there was none");
    let removed = ours().take_while(is_none).find(|change| change.what == "removed")?;
    let before = ours().find(|change| !is_none(change));
    let before = before.map(|change| format!(" What was said of it before: {}.", change.what));
    Some(format!(
        "the rule of {topic} was taken back at {}; what has come since waits, and goes by the new one.{}",
        utc(removed.wall_ms),
        before.unwrap_or_default()
    ))
}

/// What pipelines make and what goes with a rule, or without the one that a topic had, for people.
async fn as_well(
    cluster: &Cluster,
    rules: &Rules,
    (topic, rule): (&String, &RuleDefinition),
) -> Result<Vec<String>, Stop> {
    let makings = Makings::of_site(cluster).await?;
    let before = plain(rules);
    let mut after = before.clone();
    after.remove(topic);
    after.extend((!rule.regions.is_empty()).then(|| (topic.clone(), rule.clone())));
    Ok(goes_as_well((&makings, &before), (&makings, &after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_was_taken_back_is_remembered() {
        let change = |of: &str, name: &str, what: &str| ChangeTold {
            of: of.to_owned(),
            name: name.to_owned(),
            wall_ms: 0,
            who: "carol".to_owned(),
            what: what.to_owned(),
        };
        let rule = |what: &str| change("rule", "orders", what);
        let of = |history: &[ChangeTold]| taken_back(history, "orders");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[rule("there was none")]), None);
        let mut history = vec![rule("created: regions eu; fields serial=hash"), rule("removed")];
        history.push(change("rule", "other", "created: regions eu"));
        history.push(change("link", "orders", "created: region eu"));
        history.push(rule("there was none"));
        let told = of(&history).expect("it was taken back");
        assert!(told.contains("taken back at 1970-01-01"), "{told}");
        assert!(told.contains("before: created: regions eu; fields serial=hash."), "{told}");
        history.push(rule("created: regions eu"));
        assert_eq!(of(&history), None);
    }
}

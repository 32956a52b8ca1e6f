//! Why what pipelines write may go somewhere, or not, where no rule names it.
//!
//! Invariant: what is said here is what the site does (`inherited_rule` in
//! `cluster/broker/src/machine/mirroring.rs`): such a topic goes where all that it is made of may go as it is, and
//! nowhere else.

use super::Stop;
use super::apply::plan::{Rules, terms_of};
use fulmar_client::{Cluster, MadeOf};
use fulmar_host::time::Duration;
use fulmar_types::rule::RuleDefinition;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How long a question may take.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// What one topic that another is made of has to say about a region.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Says {
    /// Its rule lets all of it go.
    Goes,
    /// Its rule withholds something of it.
    Withholds(RuleDefinition),
    /// Its rule lets it go to these regions only.
    Elsewhere(Vec<String>),
    /// It has no rule, and no pipeline has written it.
    Stays,
    /// It has no rule, and is made of what follows.
    Made,
    /// It has no rule, and more is in it than is known: clients have written to it, or it was there before.
    MadeOfMore,
}

/// One topic that another is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// Through how many others.
    depth: usize,
    topic: String,
    says: Says,
}

/// What a topic without a rule is made of, and what that says of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    region: String,
    parts: Vec<Part>,
}

/// What a site says of topics, and of all that they are made of, as far as pipelines write it; with nothing
/// behind what is an end.
pub async fn told(
    cluster: &Cluster,
    mut ahead: Vec<String>,
    is_end: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, MadeOf>, Stop> {
    let (mut made, mut seen) = (BTreeMap::new(), BTreeSet::new());
    while let Some(topic) = ahead.pop() {
        if is_end(&topic) || !seen.insert(topic.clone()) {
            continue;
        }
        let of = cluster.made_of(&topic, TIMEOUT).await;
        let of = of.map_err(|error| {
            Stop::failed(format!("what {topic} is made of is not known: {error}."))
        })?;
        ahead.extend(of.iter().flat_map(|made| made.of.clone()));
        made.extend(of.map(|of| (topic, of)));
    }
    Ok(made)
}

impl Made {
    /// What a site says of a topic. `None` if no pipeline has written it.
    pub async fn find(
        cluster: &Cluster,
        topic: &str,
        (region, rules): (&str, &Rules),
    ) -> Result<Option<Self>, Stop> {
        let has_rule = |topic: &str| rules.contains_key(topic);
        let made = told(cluster, vec![topic.to_owned()], has_rule).await?;
        let rules: BTreeMap<&str, &RuleDefinition> =
            rules.iter().map(|(topic, rule)| (topic.as_str(), &rule.is)).collect();
        Ok(Self::of(topic, region, (&rules, &made)))
    }

    /// The same of what is known already.
    pub fn of(
        topic: &str,
        region: &str,
        (rules, made): (&BTreeMap<&str, &RuleDefinition>, &BTreeMap<String, MadeOf>),
    ) -> Option<Self> {
        let own = made.get(topic)?;
        let (mut parts, mut seen) = (Vec::new(), BTreeSet::from([topic]));
        let mut ahead: Vec<(usize, &str)> =
            own.of.iter().rev().map(|of| (0, of.as_str())).collect();
        if own.has_more {
            parts.push(Part { depth: 0, topic: topic.to_owned(), says: Says::MadeOfMore });
        }
        while let Some((depth, topic)) = ahead.pop() {
            if !seen.insert(topic) {
                continue;
            }
            let says = match (rules.get(topic), made.get(topic)) {
                (Some(rule), _) if !rule.lets_go_to(region) => {
                    Says::Elsewhere(rule.regions.clone())
                }
                (Some(rule), _) if !rule.is_verbatim() => Says::Withholds((*rule).clone()),
                (Some(_), _) => Says::Goes,
                (None, None) => Says::Stays,
                (None, Some(of)) => {
                    ahead.extend(of.of.iter().rev().map(|of| (depth + 1, of.as_str())));
                    if of.has_more { Says::MadeOfMore } else { Says::Made }
                }
            };
            parts.push(Part { depth, topic: topic.to_owned(), says });
        }
        Some(Self { region: region.to_owned(), parts })
    }

    /// Whether the topic goes, as it is.
    pub fn goes(&self) -> bool {
        let may = |part: &Part| matches!(part.says, Says::Goes | Says::Made);
        // One that leads in a circle to itself alone goes nowhere.
        self.parts.iter().all(may) && self.parts.iter().any(|part| part.says == Says::Goes)
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = &self.region;
        for (at, Part { depth, topic, says }) in self.parts.iter().enumerate() {
            let (gap, indent) = (if at > 0 { "\n" } else { "" }, 4 + 2 * depth);
            write!(f, "{gap}{:indent$}made of {topic}: ", "")?;
            match says {
                Says::Goes => write!(f, "its rule lets it go to {region} as it is")?,
                Says::Elsewhere(regions) => {
                    write!(f, "its rule lets it go to {} only", regions.join(", "))?;
                }
                Says::Stays => write!(f, "no rule names it, so it stays")?,
                Says::Made => write!(f, "no rule names it, and it is made of others itself")?,
                Says::MadeOfMore => write!(
                    f,
                    "no rule names it, and more is in it than pipelines have made of what they read"
                )?,
                Says::Withholds(rule) => {
                    let [_, withheld @ ..] = terms_of(rule);
                    let withheld = withheld.map(|(name, value)| format!("{name} {value}"));
                    write!(f, "its rule withholds something: {}", withheld.join("; "))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(topic: &str, made: &[(&str, &[&str])]) -> (bool, String) {
        let whole = RuleDefinition::verbatim(["eu".to_owned()]);
        let us = RuleDefinition::verbatim(["us".to_owned()]);
        let less =
            [("regions", "eu"), ("key", "hash"), ("headers", "*=drop"), ("fields", "name=mask")];
        let less = RuleDefinition::from_settings(less).expect("a rule");
        let rules = BTreeMap::from([("whole", &whole), ("us", &us), ("less", &less)]);
        let made = made.iter().map(|(topic, of)| {
            let of = of.iter().map(|of| (*of).to_owned()).collect();
            ((*topic).to_owned(), MadeOf { of, has_more: *topic == "many" })
        });
        let made = Made::of(topic, "eu", (&rules, &made.collect())).expect("it is made of some");
        (made.goes(), made.to_string())
    }

    #[test]
    fn a_topic_goes_where_all_that_it_is_made_of_may_go_as_it_is() {
        assert_eq!(
            said("out", &[("out", &["mid", "whole"]), ("mid", &["whole"])]),
            (
                true,
                "    made of mid: no rule names it, and it is made of others itself\n      \
                 made of whole: its rule lets it go to eu as it is"
                    .to_owned()
            )
        );
        assert!(!said("a", &[("a", &["b"]), ("b", &["a"])]).0, "nothing lets it go");
        assert!(!said("many", &[("many", &["whole"])]).0);
    }

    #[test]
    fn it_is_said_what_keeps_a_topic_at_home() {
        let (goes, text) =
            said("out", &[("out", &["less", "mid", "plain", "whole"]), ("mid", &["us"])]);
        assert!(!goes);
        assert_eq!(
            text,
            "    made of less: its rule withholds something: key hash; headers *=drop; fields name=mask\n    \
             made of mid: no rule names it, and it is made of others itself\n      \
             made of us: its rule lets it go to us only\n    \
             made of plain: no rule names it, so it stays\n    \
             made of whole: its rule lets it go to eu as it is"
        );
    }
}

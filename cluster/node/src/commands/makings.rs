//! What goes beside the topics that rules name: what pipelines make of them.
//!
//! Invariant: as in `made_of`; and of a pipeline that is only wished for, what its file reads counts as what all
//! that it writes is made of, as the site will say once it runs.
//!
//! Never: ask whether such a topic is there already. That it might go is what is to be said.

use super::Stop;
use super::apply::plan::Rules;
use super::made_of::{Made, TIMEOUT, told};
use super::pipeline::deploy::Wish;
use fulmar_client::{Cluster, MadeOf};
use fulmar_types::pipeline::is_internal;
use fulmar_types::rule::RuleDefinition;
use std::collections::{BTreeMap, BTreeSet};

/// What the topics are made of that pipelines write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Makings(BTreeMap<String, MadeOf>);

impl Makings {
    /// What a site says of all that pipelines write or have written, those that have gone among them.
    pub async fn of_site(cluster: &Cluster) -> Result<Self, Stop> {
        let made = cluster.made(TIMEOUT).await.map_err(|error| {
            Stop::failed(format!("what pipelines have made is not known: {error}."))
        })?;
        told(cluster, made, |_| false).await.map(Self)
    }

    /// What is made of what.
    #[cfg(test)]
    pub fn of_these(all: &[(&str, &[&str])]) -> Self {
        let made = |(topic, of): &(&str, &[&str])| {
            let of = of.iter().map(|of| (*of).to_owned()).collect();
            ((*topic).to_owned(), MadeOf { of, has_more: false })
        };
        Self(all.iter().map(made).collect())
    }

    /// The same once these pipelines run as well.
    pub fn with<'a>(&self, wishes: impl Iterator<Item = &'a Wish>) -> Self {
        let mut with = self.clone();
        for wish in wishes {
            let read = wish.inputs();
            for output in wish.outputs() {
                let of = &mut with.0.entry(output.to_owned()).or_default().of;
                of.extend(read.iter().map(|topic| (*topic).to_owned()));
                of.sort();
                of.dedup();
            }
        }
        with
    }

    /// The topics that pipelines write and no rule names.
    pub fn topics(&self, rules: &BTreeMap<String, RuleDefinition>) -> Vec<&str> {
        let topics = self.0.keys().map(String::as_str);
        topics.filter(|topic| !is_internal(topic) && !rules.contains_key(*topic)).collect()
    }

    /// Whether rules let a topic go to a region as what pipelines make of others.
    pub fn goes(
        &self,
        topic: &str,
        region: &str,
        rules: &BTreeMap<String, RuleDefinition>,
    ) -> bool {
        let rules = rules.iter().map(|(topic, rule)| (topic.as_str(), rule)).collect();
        Made::of(topic, region, (&rules, &self.0)).is_some_and(|made| made.goes())
    }

    /// All that goes so, by topic, and to which regions.
    fn all(&self, rules: &BTreeMap<String, RuleDefinition>) -> BTreeSet<(String, String)> {
        let regions: BTreeSet<&str> =
            rules.values().flat_map(|rule| rule.regions.iter().map(String::as_str)).collect();
        let mut all = BTreeSet::new();
        for topic in self.topics(rules) {
            let to = regions.iter().filter(|region| self.goes(topic, region, rules));
            all.extend(to.map(|region| (topic.to_owned(), (*region).to_owned())));
        }
        all
    }
}

/// What pipelines make and what goes by these rules.
pub type Going<'a> = (&'a Makings, &'a BTreeMap<String, RuleDefinition>);

/// What goes after a change though no rule names it, and did not before, for people: a line that says why, and
/// one for each topic. Nothing, if there is no such topic.
pub fn goes_as_well(before: Going<'_>, after: Going<'_>) -> Vec<String> {
    let gone = before.0.all(before.1);
    let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (topic, region) in after.0.all(after.1).difference(&gone) {
        came.entry(topic.clone()).or_default().push(region.clone());
    }
    let line = |(topic, regions): (&String, &Vec<String>)| {
        format!("    {topic} may go to {}", regions.join(", "))
    };
    let why = "with this goes what pipelines make of what goes as it is, where no rule names it:";
    let head = (!came.is_empty()).then(|| why.to_owned());
    head.into_iter().chain(came.iter().map(line)).collect()
}

/// The rules of a site, without who made them.
pub fn plain(rules: &Rules) -> BTreeMap<String, RuleDefinition> {
    rules.iter().map(|(topic, rule)| (topic.clone(), rule.is.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "CREATE STREAM readings (v BIGINT) FROM TOPIC readings ON ERROR DEAD LETTER bad;\n\
                        INSERT INTO TOPIC clean SELECT v FROM readings;\n";

    fn rules(all: &[(&str, &[(&str, &str)])]) -> BTreeMap<String, RuleDefinition> {
        let rule = |(topic, settings): &(&str, &[(&str, &str)])| {
            let rule = RuleDefinition::from_settings(settings.iter().copied());
            ((*topic).to_owned(), rule.expect("it is a rule"))
        };
        all.iter().map(rule).collect()
    }

    #[test]
    fn what_goes_with_a_rule_is_named() {
        let nothing = Makings::default();
        let wish = Wish::of(FILE).expect("it is a pipeline");
        let makings = nothing.with([&wish].into_iter());
        let (none, eu) = (rules(&[]), rules(&[("readings", &[("regions", "eu")])]));
        let told = goes_as_well((&nothing, &none), (&makings, &eu));
        let lines = [
            "with this goes what pipelines make of what goes as it is, where no rule names it:",
            "    bad may go to eu",
            "    clean may go to eu",
        ];
        assert_eq!(told, lines);
        // The same with a pipeline that is there, a rule that is, or both.
        assert_eq!(goes_as_well((&makings, &none), (&makings, &eu)), lines);
        assert_eq!(goes_as_well((&nothing, &eu), (&makings, &eu)), lines);
        assert!(goes_as_well((&makings, &eu), (&makings, &eu)).is_empty());
        // A region more; a rule that withholds something; one of its own, and its end.
        let more = rules(&[("readings", &[("regions", "eu,us")])]);
        let told = goes_as_well((&makings, &eu), (&makings, &more));
        assert_eq!(told[1..], ["    bad may go to us", "    clean may go to us"]);
        let less = [("regions", "eu"), ("key", "drop"), ("headers", "drop")];
        let less = rules(&[("readings", &less)]);
        assert!(goes_as_well((&nothing, &none), (&makings, &less)).is_empty());
        assert_eq!(goes_as_well((&makings, &less), (&makings, &eu)), lines);
        let own = [("regions", "us")];
        let own = rules(&[("readings", &[("regions", "eu")]), ("clean", &own)]);
        assert_eq!(
            goes_as_well((&makings, &none), (&makings, &own))[1..],
            ["    bad may go to eu"]
        );
        assert_eq!(
            goes_as_well((&makings, &own), (&makings, &eu))[1..],
            ["    clean may go to eu"]
        );
    }
}

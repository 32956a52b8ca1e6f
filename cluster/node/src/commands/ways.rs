//! Over which links a topic goes, as far as that is no matter of rules: a copy goes neither back to where it comes
//! from nor to a site that it has come through, and a site need not take what it is offered.
//!
//! Invariant: what is said here is what the site does (`rule_over` in `cluster/broker/src/machine/mirroring.rs`).
//!
//! Never: guess. What the site does not tell keeps nothing at home.

use super::Stop;
use super::apply::plan::Links;
use super::client::{self, Mirrors};
use fulmar_client::{Cluster, LinkStatus};
use fulmar_host::time::Duration;
use fulmar_types::link::LinkDefinition;
use std::collections::BTreeMap;

/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Links, and what is known of what goes over them.
#[derive(Debug, Default)]
pub struct Ways {
    links: BTreeMap<String, LinkDefinition>,
    /// The links as they are now.
    there: BTreeMap<String, LinkDefinition>,
    mirrors: Mirrors,
    /// By the name of the link, of those that are there.
    statuses: BTreeMap<String, LinkStatus>,
}

impl Ways {
    /// The links that a site has, in their place and beside them others; and what it says of its own.
    pub async fn of_site(
        cluster: &Cluster,
        there: Links,
        others: BTreeMap<String, LinkDefinition>,
    ) -> Result<Self, Stop> {
        let mirrors = client::mirrors(cluster, TIMEOUT).await;
        let there: BTreeMap<_, _> = there.into_iter().map(|(name, link)| (name, link.is)).collect();
        let mut statuses = BTreeMap::new();
        for name in there.keys() {
            let status = cluster.link_status(name, TIMEOUT).await.map_err(|error| {
                Stop::failed(format!("the state of the link {name} is not known: {error}."))
            })?;
            statuses.extend(status.map(|status| (name.clone(), status)));
        }
        let links = there.clone().into_iter().chain(others).collect();
        Ok(Self { links, there, mirrors, statuses })
    }

    /// Links that nobody can be asked about.
    pub fn of_file(links: BTreeMap<String, LinkDefinition>) -> Self {
        Self { links, ..Self::default() }
    }

    /// All links, by name.
    pub fn links(&self) -> &BTreeMap<String, LinkDefinition> {
        &self.links
    }

    /// What keeps a topic from going over a link, whatever its rule says. `goes_by` says whether what the site has
    /// now lets it go to a region: whoever is let go there and is not sent has come through that site.
    pub fn obstacle(
        &self,
        topic: &str,
        name: &str,
        goes_by: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let link = self.links.get(name)?;
        let site = &link.site;
        if let Some((over, origin)) = self.mirrors.get(topic)
            && self.there.get(over).is_some_and(|over| over.site == *site)
        {
            return Some(format!("it is the copy of {origin} from there, and goes back to nobody"));
        }
        let there = self.there.get(name).filter(|there| there.site == *site)?;
        let status = self.statuses.get(name)?;
        if let Some(why) = status.declined.get(topic) {
            return Some(format!("{site} does not take it: {why}"));
        }
        let is_sent = status.sends.keys().any(|of| &*of.topic == topic);
        let has_come_through = self.mirrors.contains_key(topic)
            && !is_sent
            && !status.is_truncated
            && goes_by(&there.region);
        has_come_through.then(|| format!("it is a copy that has come through {site}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_client::TopicPartition;
    use fulmar_client::links::Sent;
    use fulmar_types::PartitionIndex;

    fn ways() -> Ways {
        let link = |name: &str| {
            let (site, region) = (name.to_owned(), "eu".to_owned());
            (name.to_owned(), LinkDefinition { site, region, ..LinkDefinition::default() })
        };
        let copy =
            |name: &str, origin: &str| (name.to_owned(), ("plant".to_owned(), origin.to_owned()));
        let sent =
            Sent { next: 1, has: None, noted: None, behind_bytes: 0, behind: Duration::ZERO };
        let status = LinkStatus {
            declined: BTreeMap::from([(
                "orders".to_owned(),
                "its link does not name it".to_owned(),
            )]),
            sends: BTreeMap::from([(TopicPartition::new("plant.a", PartitionIndex(0)), sent)]),
            ..LinkStatus::default()
        };
        let there = BTreeMap::from([link("plant"), link("far")]);
        Ways {
            links: there.clone().into_iter().chain([link("new")]).collect(),
            there,
            mirrors: Mirrors::from([copy("plant.a", "a"), copy("plant.far.b", "far.b")]),
            statuses: BTreeMap::from([
                ("far".to_owned(), status),
                ("plant".to_owned(), LinkStatus::default()),
            ]),
        }
    }

    #[test]
    fn a_copy_goes_neither_back_nor_in_a_circle() {
        let ways = ways();
        let why = |topic: &str, name: &str| ways.obstacle(topic, name, |region| region == "eu");
        let back = "it is the copy of a from there, and goes back to nobody";
        assert_eq!(why("plant.a", "plant").as_deref(), Some(back));
        assert_eq!(why("plant.a", "far"), None, "it is sent");
        let through = "it is a copy that has come through far";
        assert_eq!(why("plant.far.b", "far").as_deref(), Some(through));
        // Without a rule it is not sent for that reason.
        assert_eq!(ways.obstacle("plant.far.b", "far", |_| false), None);
        assert_eq!(why("readings", "far"), None, "no copy is in no circle");
        assert_eq!(why("plant.a", "new"), None, "nothing is known of a link that is not there");
        assert_eq!(why("plant.a", "none"), None);
    }

    #[test]
    fn what_the_other_site_does_not_take_does_not_go() {
        let ways = ways();
        let why = ways.obstacle("orders", "far", |_| true);
        assert_eq!(why.as_deref(), Some("far does not take it: its link does not name it"));
        assert_eq!(ways.obstacle("orders", "plant", |_| true), None);
        let file = Ways::of_file(ways.links().clone());
        assert_eq!(file.obstacle("orders", "far", |_| true), None);
    }
}

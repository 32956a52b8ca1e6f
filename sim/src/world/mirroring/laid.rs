//! What is laid down for the mirrors of a run: which links which site has, and which rules.

use super::{LIMIT, LOOK, Mirrors, giver, region, topic_of};
use crate::net::Papers;
use crate::scenario::workload::{Dials, Mirror};
use crate::scenario::{Drawn, LINK_PORT, SiteName};
use crate::world::stage::Stage;
use crate::world::workload::Workloads;
use fulmar_types::link::{EVERY_TOPIC, LinkDefinition};
use fulmar_types::rule::{HEADERS, REGIONS, RuleDefinition};
use std::collections::{BTreeMap, BTreeSet};

impl Mirrors {
    /// The links of all sites: of which site, to which other one, and what they are.
    pub(super) fn links(&self, stage: &Stage) -> BTreeMap<(SiteName, SiteName), LinkDefinition> {
        let mut links: BTreeMap<(SiteName, SiteName), LinkDefinition> = BTreeMap::new();
        for mirror in &self.mirrors {
            let giver = giver(mirror);
            let ends = [(&mirror.site, giver), (giver, &mirror.site)];
            for (here, there) in ends {
                let link = links.entry((here.clone(), there.clone())).or_default();
                link.site = there.as_str().to_owned();
                link.region = region(there);
                link.authority = Papers::authority_of(there.as_str());
                link.connections = u8::try_from(mirror.connections.get()).unwrap_or(u8::MAX);
                let dials = match mirror.dials {
                    Dials::Both => true,
                    Dials::Mirror => here == &mirror.site,
                    Dials::Origin => here == giver,
                };
                if dials && link.dial.is_empty() {
                    let nodes = stage.bootstrap(there).into_iter();
                    let mut places: Vec<_> = nodes.map(|at| at.ip()).collect();
                    if self.impostors.contains(&(here.clone(), there.clone())) {
                        places.insert(0, stage.client_address(here));
                    }
                    let places = places.into_iter();
                    link.dial = places.map(|at| format!("{at}:{LINK_PORT}")).collect();
                }
            }
            let link = links.get_mut(&(mirror.site.clone(), giver.clone()));
            link.expect("it was made above").take = self.taken(&mirror.site, giver);
            if let Some(cap) = mirror.cap {
                let link = links.get_mut(&(mirror.of.clone(), mirror.site.clone()));
                link.expect("it was made above").cap = Some(cap.0);
            }
        }
        if self.mirrors.iter().any(|mirror| mirror.onward) {
            // What goes round is offered everywhere, and refused where it is already.
            links.values_mut().for_each(|link| link.take = vec![EVERY_TOPIC.to_owned()]);
        }
        links
    }

    /// What a site takes over its link to another one. What is not to come is kept back by the rules
    /// alone, unless a topic is to come that is not taken.
    fn taken(&self, site: &SiteName, from: &SiteName) -> Vec<String> {
        let over = |mirror: &&Mirror<Drawn>| mirror.site == *site && giver(mirror) == from;
        let over = self.mirrors.iter().filter(over);
        let declines = |of: &Mirror<Drawn>| of.take_for.is_some() || !of.untaken.is_empty();
        // What a link to the origin takes comes over no other.
        let comes_otherwise =
            |of: &Mirror<Drawn>| of.site == *site && of.of == *from && of.through.is_some();
        if !over.clone().any(declines) && !self.mirrors.iter().any(comes_otherwise) {
            return vec![EVERY_TOPIC.to_owned()];
        }
        let names: BTreeSet<&str> = over.map(|mirror| mirror.topic.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Lays down the links and the rules, on sites that are ready.
    pub(in crate::world) async fn lay_down(&self, workloads: &Workloads) {
        for ((here, there), link) in self.links(workloads.stage()) {
            let cluster = workloads.cluster(&here);
            while cluster.set_link(there.as_str(), None, Some(&link), LIMIT).await.is_err() {
                madsim::time::sleep(LOOK).await;
            }
        }
        for ((site, topic), rule) in self.passing() {
            let cluster = workloads.cluster(&site);
            while cluster.set_rule(&topic, None, &rule, LIMIT).await.is_err() {
                madsim::time::sleep(LOOK).await;
            }
        }
    }

    /// What whoever looks after a site needs to know: its links by name, and its rules by topic.
    pub(in crate::world) fn of_site(
        &self,
        site: &SiteName,
        stage: &Stage,
    ) -> (BTreeMap<String, LinkDefinition>, BTreeMap<String, RuleDefinition>) {
        let links = self.links(stage).into_iter().filter(|((here, _), _)| here == site);
        let rules = self.passing().into_iter().filter(|((at, _), _)| at == site);
        let links = links.map(|((_, there), link)| (there.as_str().to_owned(), link));
        (links.collect(), rules.map(|((_, topic), rule)| (topic, rule)).collect())
    }

    /// Under which rule which topic of which site goes.
    fn passing(&self) -> BTreeMap<(SiteName, String), RuleDefinition> {
        let mut regions: BTreeMap<(SiteName, String), BTreeSet<String>> = BTreeMap::new();
        let mut without_headers = BTreeSet::new();
        for mirror in &self.mirrors {
            let from = giver(mirror);
            let topic = match &mirror.through {
                Some(_) => topic_of(mirror),
                None => mirror.topic.as_str().to_owned(),
            };
            if mirror.drops_headers {
                without_headers.insert((from.clone(), topic.clone()));
            }
            regions.entry((from.clone(), topic)).or_default().insert(region(&mirror.site));
            for topic in &mirror.untaken {
                let topic = (from.clone(), topic.as_str().to_owned());
                regions.entry(topic).or_default().insert(region(&mirror.site));
            }
            if mirror.onward {
                let sites = self.mirrors.iter().flat_map(|other| [giver(other), &other.site]);
                let onward = regions.entry((mirror.site.clone(), topic_of(mirror))).or_default();
                onward.extend(sites.filter(|site| **site != mirror.site).map(region));
            }
        }
        let rules = regions.into_iter();
        let rule = |(of, regions)| {
            let mut rule = RuleDefinition::verbatim(regions);
            if without_headers.contains(&of) {
                rule.headers =
                    RuleDefinition::from_settings([(REGIONS, "any"), (HEADERS, "*=drop")])
                        .expect("a rule that can be read")
                        .headers;
            }
            (of, rule)
        };
        rules.map(rule).collect()
    }

    /// The rule of the origin of a mirror.
    pub(super) fn rule(&self, of: &Mirror<Drawn>) -> RuleDefinition {
        let same = |mirror: &&Mirror<Drawn>| mirror.of == of.of && mirror.topic == of.topic;
        let regions = self.mirrors.iter().filter(same).map(|mirror| region(&mirror.site));
        RuleDefinition::verbatim(regions.collect::<BTreeSet<_>>())
    }
}

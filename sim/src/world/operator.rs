//! Who looks after the sites where one is put back to an older copy of itself: when a link says so, he makes the rules of its
//! site what they are to be, and then pauses the link and resumes it; and a copy of which something must stay at its origin
//! he deletes when he is told that it is a fork, so that it is made anew.
//!
//! Invariant: he does nothing before the site says so. What it does until then by itself is what is checked.

use super::forks;
use super::pausing::STEP;
use super::secrets::Keeping;
use super::sink::Sink;
use crate::prng::Prng;
use fulmar_client::{Cluster, TopicPartition};
use fulmar_types::PartitionIndex;
use fulmar_types::link::LinkDefinition;
use fulmar_types::rule::RuleDefinition;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often he looks.
const LOOK: Duration = Duration::from_millis(500);

/// How long it takes him to see it, at most.
const SEES_WITHIN_MS: u64 = 3_000;

/// How long one attempt may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The operator of one site.
pub(super) struct Operator {
    pub(super) site: u16,
    pub(super) cluster: Cluster,
    pub(super) sink: Arc<Sink>,
    /// The links of the site, by name, as they are to be.
    pub(super) links: BTreeMap<String, LinkDefinition>,
    /// Its rules, by topic.
    pub(super) rules: BTreeMap<String, RuleDefinition>,
    /// Whose rules change on the way.
    pub(super) secrets: Vec<Keeping>,
    /// Copies that he deletes if they are forks, with the link that brings them.
    pub(super) copies: Vec<(String, String)>,
    pub(super) prng: Prng,
}

impl Operator {
    async fn delete_forks(&self) {
        for (link, copy) in &self.copies {
            let of = TopicPartition::new(copy, PartitionIndex(0));
            if forks::tells(&self.cluster, link, &of).await {
                // Whatever becomes of it: if it is there still he is told again.
                let _ = self.cluster.delete_topic(copy, LIMIT).await;
            }
        }
    }

    /// Looks after the site to the end of the run.
    pub(super) async fn run(mut self) {
        loop {
            madsim::time::sleep(LOOK).await;
            self.delete_forks().await;
            let Some(link) = self.sink.stopped_link(self.site) else { continue };
            let sees_in = Duration::from_millis(self.prng.below(SEES_WITHIN_MS));
            madsim::time::sleep(sees_in).await;
            for (topic, rule) in &self.rules {
                while self.cluster.set_rule(topic, None, rule, LIMIT).await.is_err() {
                    madsim::time::sleep(STEP).await;
                }
            }
            for keeping in &self.secrets {
                while !keeping.set_rule_again(&self.cluster).await {
                    madsim::time::sleep(STEP).await;
                }
            }
            let Some(definition) = self.links.get(&link) else { continue };
            for paused in [true, false] {
                let is = LinkDefinition { paused, ..definition.clone() };
                while self.cluster.set_link(&link, None, Some(&is), LIMIT).await.is_err() {
                    madsim::time::sleep(STEP).await;
                }
            }
            self.sink.resumed_link(self.site, &link);
        }
    }
}

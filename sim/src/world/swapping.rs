//! A topic and one that a pipeline makes of it, whose rules change together by turns.
//!
//! ```text
//! TOPIC         may go to the other site  |  goes to a region to which no link leads
//! TOPIC.made    goes to such a region     |  no rule: what TOPIC may, it may, too
//! ```
//!
//! So what is made may go to the other site at no time; but it might if one of the two rules changed before the other
//! one. Of each pair of changes the one comes first that opens it.
//!
//! Checked at the end, with all topics of the other site (`mirror_rule`): `TOPIC.made` has not come there.

use super::pausing::{STEP, pause};
use super::rules::LIMIT;
use fulmar_client::admin::CreateTopicError;
use fulmar_client::{Cluster, Definitions, PipelineSettings};
use fulmar_types::rule::RuleDefinition;
use std::time::Duration;

/// A region to which no link leads.
const ELSEWHERE: &str = "elsewhere";

/// Whoever changes the two rules.
pub(super) struct Swapping {
    cluster: Cluster,
    topic: String,
    made: String,
    /// That of the topic while it may go.
    goes: RuleDefinition,
    elsewhere: RuleDefinition,
    /// How long they stay.
    each: Duration,
}

impl Swapping {
    pub(super) fn new(cluster: Cluster, topic: &str, goes: RuleDefinition, each: Duration) -> Self {
        let (topic, made) = (topic.to_owned(), format!("{topic}.made"));
        let elsewhere = RuleDefinition::verbatim([ELSEWHERE.to_owned()]);
        Self { cluster, topic, made, goes, elsewhere, each }
    }

    /// Goes on until it is told to stop; then the topic may go.
    pub(super) async fn run(self, stopped: impl Fn() -> bool) {
        while !(stopped() || self.lay_down().await) {
            madsim::time::sleep(STEP).await;
        }
        while !stopped() {
            for goes in [false, true] {
                pause(self.each, &stopped).await;
                while self.swap(goes).await.is_none() {
                    madsim::time::sleep(STEP).await;
                }
            }
        }
    }

    /// Makes the second topic, its rule first. Whatever is no record of the pipeline is a dead letter, so that all
    /// that is in the one topic comes into the other.
    async fn lay_down(&self) -> bool {
        let Self { cluster, topic, made, .. } = self;
        let sql = format!(
            "CREATE STREAM whole (n BIGINT NOT NULL) FROM TOPIC \"{topic}\" ON ERROR DEAD LETTER \"{made}\";\n\
             INSERT INTO TOPIC \"{made}\" SELECT n FROM whole;"
        );
        let pipeline = PipelineSettings::of(sql);
        cluster.set_rule(made, None, &self.elsewhere, LIMIT).await.is_ok()
            && matches!(
                cluster.create_topic(made, 1, LIMIT).await,
                Ok(_) | Err(CreateTopicError::Exists)
            )
            && cluster.set_pipeline(made, None, &pipeline, LIMIT).await.is_ok()
    }

    /// Lets the topic go, or not. `None` if nobody knows.
    async fn swap(&self, goes: bool) -> Option<()> {
        let mut both = Definitions::default();
        match goes {
            true => {
                both.rule(&self.topic, None, &self.goes).rule(&self.made, None, &self.elsewhere)
            }
            false => both.rule(&self.made, None, &RuleDefinition::default()).rule(
                &self.topic,
                None,
                &self.elsewhere,
            ),
        };
        self.cluster.lay_down(&both, LIMIT).await.ok()
    }
}

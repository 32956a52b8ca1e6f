//! Secrets that a pipeline reads.
//!
//! ```text
//! TOPIC          with secrets, under the rule of the workload --+
//! TOPIC.towns    may go as it is ------------------------------ | --> pipeline TOPIC
//!                                                                        |
//! TOPIC.all, .last, .bad, .late    no rule: what is in them stays  <-----+
//! __pipeline.TOPIC                 its state stays, too            <-----+
//! TOPIC.open                       a rule of its own: goes as it is  <---+
//! ```
//!
//! Checked here: what has a rule of its own is at the other site, to the byte, and has every acknowledged
//! record that is a row (`secrets_piped`); there were canaries in each of the topics that stay
//! (`canaries_counted`). That none of them crosses is heard at the line.

use super::eavesdrop::CANARY;
use super::mirroring::region;
use super::whole::{end, whole};
use fulmar_client::{Cluster, PipelineSettings, ReadRecord, TopicPartition};
use fulmar_types::pipeline::internal_topic;
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Offset, PartitionIndex};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one attempt at anything may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What the pipeline writes that has no rule.
const STAYS: [&str; 4] = ["all", "last", "bad", "late"];

/// The pipeline that reads a topic with secrets.
pub(super) struct Piped<'a> {
    /// The topic; the pipeline is called so, too.
    pub(super) topic: &'a str,
    /// The site that has the copies.
    pub(super) to: &'a crate::scenario::SiteName,
}

/// What is at the two sites in the end.
pub(super) struct Ended {
    /// What is wrong with the topic that may go.
    pub(super) wrong: Option<String>,
    /// Canaries in what must not.
    pub(super) canaries: BTreeMap<String, u64>,
}

impl Piped<'_> {
    /// The topics that may be at the other site.
    pub(super) fn let_go(topic: &str) -> [String; 2] {
        [format!("{topic}.towns"), format!("{topic}.open")]
    }

    fn sql(&self) -> String {
        let topic = self.topic;
        format!(
            "CREATE STREAM people (n BIGINT NOT NULL, word VARCHAR PATH '$.open', town VARCHAR PATH \
             '$.person.town', name VARCHAR PATH '$.person.name', note VARCHAR, secret JSON, late VARCHAR, at \
             TIMESTAMP(3) METADATA FROM 'timestamp') FROM TOPIC \"{topic}\" WATERMARK at - INTERVAL '1' SECOND \
             ON ERROR DEAD LETTER \"{topic}.bad\" LATE TO \"{topic}.late\";\n\
             CREATE STREAM towns (town VARCHAR) FROM TOPIC \"{topic}.towns\" ON ERROR DROP;\n\
             INSERT INTO TOPIC \"{topic}.all\" KEY word SELECT n, word, name, note, secret, late FROM people;\n\
             INSERT INTO TOPIC \"{topic}.all\" SELECT town FROM towns;\n\
             INSERT INTO TOPIC \"{topic}.open\" KEY word SELECT n, word, town FROM people;\n\
             INSERT INTO TOPIC \"{topic}.last\" SELECT window_start, COUNT(*) AS n, LAST_VALUE(name) AS name \
             FROM TUMBLE(people, INTERVAL '2' SECOND) GROUP BY window_start, window_end;"
        )
    }

    /// Makes the rules and the pipeline. Whether all of that is done.
    pub(super) async fn lay_down(&self, cluster: &Cluster) -> bool {
        let towns = format!("{}.towns", self.topic);
        let is_there = cluster.create_topic(&towns, 1, LIMIT).await.is_ok()
            || cluster.metadata().topics.contains_key(&towns);
        let rule = RuleDefinition::verbatim([region(self.to)]);
        for topic in Self::let_go(self.topic) {
            if cluster.set_rule(&topic, None, &rule, LIMIT).await.is_err() {
                return false;
            }
        }
        let settings = PipelineSettings::of(self.sql());
        is_there && cluster.set_pipeline(self.topic, None, &settings, LIMIT).await.is_ok()
    }

    /// What is wrong once the pipeline and the copy have come to their ends; why they have not, if so.
    pub(super) async fn ended(
        &self,
        (origin, copy, from): (&Cluster, &Cluster, &str),
        rows: &BTreeSet<u64>,
    ) -> Result<Ended, String> {
        let status = origin.pipeline_status(self.topic, LIMIT).await;
        let status = status.map_err(|error| error.to_string())?.ok_or("the pipeline is gone")?;
        if status.failed.is_some() || status.inputs.values().any(|input| input.next < input.end) {
            return Err(format!("the pipeline is at {:?}, {:?}", status.inputs, status.failed));
        }
        let mut canaries = BTreeMap::new();
        let stays = STAYS.map(|name| format!("{}.{name}", self.topic));
        for topic in stays.into_iter().chain([internal_topic(self.topic)]) {
            let read = all(origin, &topic).await?;
            let count = read.values().map(canaries_in).sum();
            canaries.insert(topic, count);
        }
        let open = format!("{}.open", self.topic);
        let (here, there) =
            (all(origin, &open).await?, all(copy, &format!("{from}.{open}")).await?);
        if there.len() < here.len() {
            return Err(format!("{open} has {} records, and its copy {}", here.len(), there.len()));
        }
        let has: BTreeSet<u64> = here.values().filter_map(number).collect();
        let lacks = rows.iter().find(|n| !has.contains(*n));
        let wrong = match lacks {
            Some(n) => Some(format!("{open} lacks record {n}")),
            None if here != there => Some(format!("the copy of {open} is another one")),
            None => None,
        };
        Ok(Ended { wrong, canaries })
    }
}

async fn all(cluster: &Cluster, topic: &str) -> Result<BTreeMap<Offset, ReadRecord>, String> {
    let unread = || format!("{topic} cannot be read");
    let of = TopicPartition::new(topic, PartitionIndex(0));
    let end = end(cluster, &of).await.ok_or_else(unread)?;
    whole(cluster, &of, end).await.ok_or_else(unread)
}

fn canaries_in(record: &ReadRecord) -> u64 {
    let parts = [&record.key, &record.value].into_iter().flatten();
    let count =
        |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).matches(CANARY).count() as u64;
    parts.map(count).sum()
}

fn number(record: &ReadRecord) -> Option<u64> {
    let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    value["n"].as_u64()
}

//! What else the demo of two sites shows: an urgent record that overtakes a backlog, and a record of
//! which not everything leaves.
//!
//! Invariant: what is shown of the other site was read there.

use super::{Demo, LOOK_EVERY, NAMES, PATIENCE, REGION};
use crate::commands::Stop;
use crate::commands::output::{grouped, say, seconds};
use fulmar_client::fetch::Fetch;
use fulmar_client::{Producer, ProducerSettings, Target, TopicPartition, WriteRecord};
use fulmar_host::time::{self, Duration};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{Offset, PartitionIndex};

/// The topic that is urgent.
pub(super) const ALARMS: &str = "alarms";

/// The topic of which not everything leaves.
pub(super) const PEOPLE: &str = "people";

/// A record of that topic.
const PERSON: &str = r#"{"id":4711,"name":"Ada Lovelace","card":"4111 1111 1111 1111","gps":{"lat":52.520008,"lon":13.404954},"shift":"late"}"#;

/// What of it must not be at the hub.
const PRIVATE: [&str; 4] = ["4711", "Ada", "4111", "520008"];

/// What came of it.
pub(super) struct Shown {
    /// How long the alarm took.
    took: Duration,
    /// Readings that were behind when it was written, and when it was there.
    behind: [u64; 2],
}

impl Demo {
    /// Creates the two topics, with their rules.
    pub(super) async fn lay_down_shown(&self) -> Result<(), Stop> {
        let plant = &self.clusters[0];
        let urgent = [("fulmar.priority".to_owned(), "urgent".to_owned())];
        let fields = "id=hash,name=mask,card=drop,gps.lat=round:1,gps.lon=round:1";
        let person = RuleDefinition::from_settings([
            ("regions", REGION),
            ("key", "drop"),
            ("headers", "drop"),
            ("fields", fields),
        ]);
        let person = person.expect("a rule that can be read");
        let verbatim = RuleDefinition::verbatim([REGION.to_owned()]);
        for (topic, settings, rule) in [(ALARMS, &urgent[..], verbatim), (PEOPLE, &[], person)] {
            let created = plant.create_topic_with(topic, 1, settings, PATIENCE).await;
            created.map_err(|error| Stop::failed(format!("cannot create {topic}: {error}.")))?;
            let set = plant.set_rule(topic, Some(0), &rule, PATIENCE).await;
            set.map_err(|error| Stop::failed(format!("no rule for {topic}: {error}.")))?;
        }
        self.write_one(PEOPLE, PERSON).await
    }

    /// Writes a record at the plant.
    pub(super) async fn write_one(&self, topic: &str, value: &'static str) -> Result<(), Stop> {
        let producer = Producer::new(self.clusters[0].clone(), ProducerSettings::default());
        let record = WriteRecord { value: Some(value.into()), ..WriteRecord::default() };
        let to = TopicPartition::new(topic, PartitionIndex(0));
        match producer.enqueue(&to, vec![record]).await.await {
            fulmar_client::Outcome::Done { .. } => Ok(()),
            other => Err(Stop::failed(format!("{topic} cannot be written: {other:?}."))),
        }
    }

    /// Readings that the hub is not known to have, once the link carries something.
    async fn lag(&self) -> Result<u64, Stop> {
        let began = time::now();
        loop {
            let status = self.clusters[0].link_status(NAMES[1], PATIENCE).await;
            let status = status.ok().flatten().unwrap_or_default();
            if status.state == "up" {
                return Ok(super::behind(&status));
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::failed("the link does not come back."));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Writes an alarm while there is a backlog, and waits until it is at the hub.
    pub(super) async fn overtake(&self) -> Result<Shown, Stop> {
        let before = self.lag().await?;
        self.write_one(ALARMS, r#"{"press":3,"alarm":"too hot"}"#).await?;
        let began = time::now();
        loop {
            if self.read_first(ALARMS).await.is_some() {
                let took = began.elapsed();
                let behind = [before, self.lag().await?];
                self.tell(format!(
                    "an alarm, written with {} readings in front of it, is at the hub {} later",
                    grouped(before),
                    seconds(took)
                ));
                return Ok(Shown { took, behind });
            }
            if began.elapsed() > PATIENCE {
                return Err(Stop::failed("the alarm does not come to the hub."));
            }
            time::sleep(LOOK_EVERY / 10).await;
        }
    }

    /// The value of the first record of a copy at the hub.
    async fn read_first(&self, topic: &str) -> Option<String> {
        let of = TopicPartition::new(&format!("{}.{topic}", NAMES[0]), PartitionIndex(0));
        let fetch = Fetch::new(of, Offset(0));
        let fetched = self.clusters[1].fetch(Target::Leader, &fetch, PATIENCE).await.ok()?;
        let first = fetched.records().ok()?.into_iter().next()?;
        Some(String::from_utf8_lossy(&first.value?).into_owned())
    }

    /// Says what was shown. `false` if it is not as it should be.
    pub(super) async fn say_shown(&self, shown: &Shown) -> bool {
        let [before, after] = shown.behind;
        let overtook = after > 0;
        say(format!(
            "{ALARMS:<9} at the hub {} after it was written, {} {} of {} readings",
            seconds(shown.took),
            // As far as the origin has heard: some of them may have arrived.
            if overtook { "in front of at most" } else { "WITH NOTHING BEHIND IT:" },
            grouped(after),
            grouped(before)
        ));
        let person = self.read_first(PEOPLE).await.unwrap_or_default();
        let is_private = !person.is_empty() && !PRIVATE.iter().any(|part| person.contains(part));
        say(format!("{PEOPLE:<9} at the plant  {PERSON}"));
        say(format!(
            "{:<9} at the hub    {person}{}",
            "",
            if is_private { "" } else { "  NOT AS RULED" }
        ));
        overtook && is_private
    }
}

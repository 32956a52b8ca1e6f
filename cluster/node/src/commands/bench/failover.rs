//! How long a site takes nothing after its leader is gone: killed, or paused and silent.
//!
//! One idempotent producer writes a record at a time. The time runs from the signal to the
//! acknowledgement of the first record that was sent after it.

use super::TIMEOUT;
use crate::commands::Stop;
use crate::commands::client;
use crate::commands::site::Site;
use fulmar_client::{Cluster, Outcome, Producer, ProducerSettings, TopicPartition, WriteRecord};
use fulmar_host::time::{self, Duration};
use fulmar_types::PartitionIndex;
use serde::Serialize;

/// The topic that is written to.
const TOPIC: &str = "failover";

/// How long the site runs undisturbed before each round.
const STEADY: Duration = Duration::from_millis(1500);

/// What is done to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Blow {
    /// SIGKILL: its connections break at once.
    Kill,
    /// SIGSTOP: its connections stay, and nothing comes.
    Pause,
}

/// The times of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failovers {
    /// What was done.
    pub blow: Blow,
    /// From the signal to the next acknowledgement, ascending.
    pub until_next_ms: Vec<u64>,
}

impl Failovers {
    /// The median.
    pub fn median_ms(&self) -> u64 {
        self.until_next_ms.get(self.until_next_ms.len() / 2).copied().unwrap_or(0)
    }

    /// The longest.
    pub fn worst_ms(&self) -> u64 {
        self.until_next_ms.last().copied().unwrap_or(0)
    }
}

/// Strikes the leader so many times in each way.
pub async fn measure(
    site: &mut Site,
    cluster: &Cluster,
    rounds: u32,
) -> Result<Vec<Failovers>, Stop> {
    super::create_topic(cluster, TOPIC, 1).await?;
    let settings = ProducerSettings { delivery_timeout: TIMEOUT, ..ProducerSettings::default() };
    let writer = Writer {
        producer: Producer::new(cluster.separate(), settings),
        to: TopicPartition::new(TOPIC, PartitionIndex(0)),
    };
    let mut all = Vec::new();
    for blow in [Blow::Kill, Blow::Pause] {
        let mut until_next_ms = Vec::new();
        for _ in 0..rounds {
            let took = round(site, cluster, &writer, blow).await?;
            until_next_ms.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
        until_next_ms.sort_unstable();
        all.push(Failovers { blow, until_next_ms });
    }
    Ok(all)
}

async fn round(
    site: &mut Site,
    cluster: &Cluster,
    writer: &Writer,
    blow: Blow,
) -> Result<Duration, Stop> {
    let steady_until = time::now() + STEADY;
    while time::now() < steady_until {
        writer.write().await?;
        time::sleep(Duration::from_millis(5)).await;
    }
    let leader = client::wait_for_leader(cluster, TIMEOUT).await?;
    let node = site.node_mut(leader)?;
    let cannot = |error| Stop::failed(format!("cannot signal node {leader}: {error}."));
    let struck_at = time::now();
    match blow {
        Blow::Kill => node.kill().await.map_err(cannot)?,
        Blow::Pause => node.signal(libc::SIGSTOP).map_err(cannot)?,
    }
    writer.write().await?;
    let took = time::now() - struck_at;
    match blow {
        Blow::Kill => site.start(leader)?,
        Blow::Pause => site.node_mut(leader)?.signal(libc::SIGCONT).map_err(cannot)?,
    }
    site.wait_answering(leader, TIMEOUT).await?;
    Ok(took)
}

struct Writer {
    producer: Producer,
    to: TopicPartition,
}

impl Writer {
    async fn write(&self) -> Result<(), Stop> {
        let record =
            WriteRecord { value: Some("a record like any other".into()), ..Default::default() };
        match self.producer.send(&self.to, vec![record]).await {
            Outcome::Done { .. } => Ok(()),
            Outcome::NotDone(error) | Outcome::Unknown(error) => {
                Err(Stop::failed(format!("the site took no record: {error}.")))
            }
        }
    }
}

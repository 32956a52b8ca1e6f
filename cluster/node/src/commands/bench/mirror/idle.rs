//! What a hub uses for links that have nothing to carry.
//!
//! Each link is that of another site, of one node, in a process of its own, which dials the hub. A record of
//! each has arrived before anything is measured, so each link has a session, its connections and a copy.
//!
//! Invariant: what is measured is what the processes of the hub used, and not those of the other sites.

use super::report::{Idle, IdleNode};
use super::{LOOK_EVERY, REGION, TIMEOUT, lay_link};
use crate::commands::Stop;
use crate::commands::bench::{QUIET, create_topic, read_counters};
use crate::commands::client;
use crate::commands::counters::Counters;
use crate::commands::site::Site;
use fulmar_client::{
    Cluster, OffsetAt, Outcome, Producer, ProducerSettings, TopicPartition, WriteRecord,
};
use fulmar_host::time::{self, Duration};
use fulmar_types::rule::RuleDefinition;
use fulmar_types::{NodeId, Offset, PartitionIndex};
use std::path::Path;

const HUB: &str = "idle-hub";

/// What each site has.
const TOPIC: &str = "quiet";

/// Connections of an idle link: those that a link has if nothing else is said.
const CONNECTIONS: u8 = fulmar_types::link::LINK_CONNECTIONS_DEFAULT;

/// Measures a hub without a link, and with so many.
pub(super) async fn measure(dir: &Path, links: u32, seconds: u64) -> Result<Idle, Stop> {
    let (hub, around) = Site::star(dir, HUB, links as usize).await?;
    let mut hub = hub.counting();
    hub.start_all()?;
    let hub_client = hub.cluster("fulmar-bench");
    hub.wait_serving(&hub_client, TIMEOUT).await?;
    time::sleep(QUIET).await;
    let without = used(&hub, &hub_client, seconds).await?;
    let mut sites = Vec::new();
    for mut site in around {
        site.start_all()?;
        let cluster = site.cluster("fulmar-bench");
        site.wait_serving(&cluster, TIMEOUT).await?;
        begin(&site, &cluster).await?;
        lay_link([&site, &hub], [&cluster, &hub_client], CONNECTIONS).await?;
        sites.push(site);
    }
    for site in &sites {
        arrived(&hub_client, &site.config.site).await?;
    }
    time::sleep(QUIET).await;
    let with = used(&hub, &hub_client, seconds).await?;
    hub.check()?;
    for site in &mut sites {
        site.check()?;
    }
    hub.stop().await?;
    Ok(Idle { links, connections: CONNECTIONS, seconds, without, with })
}

/// A topic with a record that may go.
async fn begin(site: &Site, cluster: &Cluster) -> Result<(), Stop> {
    create_topic(cluster, TOPIC, 1).await?;
    let failed = |error: String| Stop::failed(format!("{}: {error}.", site.config.site));
    let rule = RuleDefinition::verbatim([REGION.to_owned()]);
    let ruled = cluster.set_rule(TOPIC, Some(0), &rule, TIMEOUT).await;
    ruled.map_err(|error| failed(error.to_string()))?;
    let producer = Producer::new(cluster.clone(), ProducerSettings::default());
    let to = TopicPartition::new(TOPIC, PartitionIndex(0));
    let record = WriteRecord { value: Some("here".into()), ..WriteRecord::default() };
    match producer.send(&to, vec![record]).await {
        Outcome::Done { .. } => Ok(()),
        Outcome::NotDone(error) | Outcome::Unknown(error) => Err(failed(error.to_string())),
    }
}

/// Waits until the record of a site is at the hub.
async fn arrived(hub: &Cluster, site: &str) -> Result<(), Stop> {
    let of = TopicPartition::new(&format!("{site}.{TOPIC}"), PartitionIndex(0));
    let begun = time::now();
    loop {
        let end = hub.find_offset(&of, OffsetAt::Latest, TIMEOUT).await.ok();
        if end.and_then(|found| found.offset) == Some(Offset(1)) {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            return Err(Stop::failed(format!("the record of {site} does not come to the hub.")));
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// What the nodes of the hub use in so many seconds.
async fn used(hub: &Site, cluster: &Cluster, seconds: u64) -> Result<Vec<IdleNode>, Stop> {
    let leader = client::wait_for_leader(cluster, TIMEOUT).await.ok();
    let (begun, before) = (time::now(), read_counters(hub)?);
    time::sleep(Duration::from_secs(seconds)).await;
    let (elapsed, after) = (begun.elapsed(), read_counters(hub)?);
    let node = |(before, after): (&(NodeId, Counters), &(NodeId, Counters))| {
        let used = after.1.since(&before.1);
        IdleNode {
            node: after.0.get(),
            leads: leader == Some(after.0),
            cpu_seconds_per_minute: used.cpu_ms as f64 / 1e3 * 60.0 / elapsed.as_secs_f64(),
            resident_bytes: used.resident_bytes,
        }
    };
    Ok(before.iter().zip(&after).map(node).collect())
}

//! `fulmar status`: who leads, which nodes answer, and what is in the topics.

use super::Stop;
use super::client::{self, Mirrors, Reaching, copy_of};
use super::output::{count, grouped, say};
use clap::Args;
use fulmar_client::{Cluster, Metadata, OffsetAt, Place, TopicPartition};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::{ExitCode, NodeId, PartitionIndex};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How long each question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long all questions about offsets may take. A site without a leader answers none of them.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that does not greet within this time counts as one that does not answer.
const GREETING: Duration = Duration::from_secs(2);

/// Show who leads a site, which nodes answer, and the offsets of its topics.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    reaching: Reaching,
}

/// The first and the next offset of each partition, or why they are not known.
type Offsets = BTreeMap<(String, PartitionIndex), Result<(u64, u64), String>>;

/// What is wrong with the nodes that do not answer.
type Silent = BTreeMap<NodeId, String>;

/// Asks and prints.
pub async fn run(options: Options) -> Result<ExitCode, Stop> {
    let cluster = options.reaching.cluster("fulmar-status")?;
    let metadata = client::metadata(&cluster, TIMEOUT).await?;
    let mut offsets = Offsets::new();
    let deadline = time::now() + OFFSETS_TIMEOUT;
    for (name, topic) in &metadata.topics {
        for partition in topic.partitions.keys() {
            let found =
                offsets_of(&cluster, &TopicPartition::new(name, *partition), deadline).await;
            offsets.insert((name.clone(), *partition), found);
        }
    }
    let silent = silent(&cluster, &metadata).await;
    let mirrors = match leader(&metadata, &silent, &offsets) {
        Some(_) => client::mirrors(&cluster, TIMEOUT).await,
        None => Mirrors::new(),
    };
    say(render(&metadata, &silent, (&offsets, &mirrors)).trim_end());
    Ok(if leader(&metadata, &silent, &offsets).is_some() { ExitCode::Ok } else { ExitCode::Failed })
}

/// Greets every node anew: the site names all of its nodes, those that are down included.
async fn silent(cluster: &Cluster, metadata: &Metadata) -> Silent {
    let mut silent = Silent::new();
    for (id, advertised) in &metadata.nodes {
        let place = Place::from(&**advertised);
        let greeted = cluster.separate().connection_to(place, time::now() + GREETING).await;
        if let Err(error) = greeted {
            silent.insert(*id, error.to_string());
        }
    }
    silent
}

/// The node that leads, as far as can be told: it answers, and offsets are known only to a leader
/// with a majority.
fn leader(metadata: &Metadata, silent: &Silent, offsets: &Offsets) -> Option<NodeId> {
    let answers = offsets.is_empty() || offsets.values().any(Result::is_ok);
    metadata.controller.filter(|node| answers && !silent.contains_key(node))
}

async fn offsets_of(
    cluster: &Cluster,
    of: &TopicPartition,
    deadline: Instant,
) -> Result<(u64, u64), String> {
    let find = async |at| {
        let left = deadline.saturating_duration_since(time::now()).min(TIMEOUT);
        if left.is_zero() {
            return Err("not asked: the site takes too long to answer".to_owned());
        }
        let found = cluster.find_offset(of, at, left).await.map_err(|error| error.to_string());
        Ok(found?.offset.unwrap_or_default().get())
    };
    Ok((find(OffsetAt::Earliest).await?, find(OffsetAt::Latest).await?))
}

fn render(
    metadata: &Metadata,
    silent: &Silent,
    (offsets, mirrors): (&Offsets, &Mirrors),
) -> String {
    let mut text = String::new();
    let site = metadata.site.as_deref().unwrap_or("without a name");
    let leader = leader(metadata, silent, offsets);
    let leads = match (leader, metadata.controller) {
        (Some(leader), _) => format!("node {leader} leads"),
        (None, Some(last)) => format!("no node leads; node {last} did last"),
        (None, None) => "no node leads".to_owned(),
    };
    let line = |text: &mut String, line: String| {
        writeln!(text, "{line}").expect("a string takes everything");
    };
    line(&mut text, format!("site {site}: {leads}"));
    for (id, address) in &metadata.nodes {
        let leads = if leader == Some(*id) { "  leads" } else { "" };
        let silent = silent.get(id).map(|error| format!("  does not answer: {error}"));
        let silent = silent.unwrap_or_default();
        line(&mut text, format!("  node {id}  {address}{leads}{silent}"));
    }
    match leader {
        Some(_) if metadata.topics.is_empty() => line(&mut text, "no topics".to_owned()),
        // A node that has just started knows what is committed only from a leader.
        None if metadata.topics.is_empty() => line(
            &mut text,
            "no topics are known: without a leader this node cannot say which there are".to_owned(),
        ),
        _ => {}
    }
    for (name, topic) in &metadata.topics {
        let of_topic = offsets.iter().filter(|((of, _), _)| of == name);
        // There may be gaps among them: of a copy what is withheld, anywhere what a budget did not keep.
        let offsets = of_topic.clone().filter_map(|(_, found)| found.as_ref().ok());
        let offsets = offsets.map(|(first, next)| next.saturating_sub(*first)).sum();
        let partitions = count(topic.partitions.len() as u64, "partition");
        let offsets = match of_topic.clone().filter(|(_, found)| found.is_err()).count() {
            0 => count(offsets, "offset"),
            unknown if unknown == topic.partitions.len() => "offsets unknown".to_owned(),
            _ => format!("at least {}", count(offsets, "offset")),
        };
        let copy = copy_of(mirrors, name);
        line(&mut text, format!("topic {name}: {partitions}, {offsets}{copy}"));
        // Where a leader is missing, the same is wrong with a hundred partitions.
        let of_topic = of_topic.collect::<Vec<_>>();
        for alike in of_topic.chunk_by(|a, b| a.1.is_err() && a.1 == b.1) {
            let ((_, first), found) = alike[0];
            let last = alike.last().map_or(first, |((_, last), _)| last);
            match found {
                Ok((from, next)) => {
                    let offsets = format!("{} to {}", grouped(*from), grouped(*next));
                    line(&mut text, format!("  {first:>4}  {offsets}"));
                }
                Err(error) if first == last => line(&mut text, format!("  {first:>4}  {error}")),
                Err(error) => line(&mut text, format!("  all from {first} to {last}  {error}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_client::metadata::{PartitionMetadata, TopicMetadata};
    use fulmar_types::Uuid;
    use fulmar_wire::ErrorCode;

    #[test]
    fn the_status_of_a_site() {
        let partition =
            PartitionMetadata { leader: Some(NodeId(2)), leader_epoch: 5, error: ErrorCode::None };
        let topic = TopicMetadata {
            id: Uuid::NIL,
            error: ErrorCode::None,
            partitions: (0..2).map(|at| (PartitionIndex(at), partition.clone())).collect(),
        };
        let metadata = Metadata {
            site: Some("plant-7".to_owned()),
            nodes: (1..=3).map(|id| (NodeId(id), format!("127.0.0.1:{}", 9091 + id))).collect(),
            controller: Some(NodeId(2)),
            topics: BTreeMap::from([("readings".to_owned(), topic)]),
        };
        let of = |at| ("readings".to_owned(), PartitionIndex(at));
        let offsets = Offsets::from([
            (of(0), Ok((0, 1_234_567))),
            (of(1), Err("no answer within the time for it".to_owned())),
        ]);
        let silent = Silent::from([(NodeId(3), "cannot connect: connection refused".to_owned())]);
        let copy = ("hub".to_owned(), "readings".to_owned());
        let mirrors = Mirrors::from([("readings".to_owned(), copy)]);
        insta::assert_snapshot!(render(&metadata, &silent, (&offsets, &mirrors)));
        let gone = Silent::from([(NodeId(2), "cannot connect: connection refused".to_owned())]);
        let none = Offsets::new();
        assert_eq!(leader(&metadata, &silent, &none), Some(NodeId(2)));
        assert_eq!(leader(&metadata, &gone, &none), None, "who is down does not lead");
        let lost = offsets.into_keys().map(|of| (of, Err("no leader".to_owned()))).collect();
        insta::assert_snapshot!(render(&metadata, &silent, (&lost, &Mirrors::new())));
        let nothing = (&Offsets::new(), &Mirrors::new());
        insta::assert_snapshot!(render(&Metadata::default(), &Silent::new(), nothing));
    }
}

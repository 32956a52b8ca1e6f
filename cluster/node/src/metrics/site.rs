//! The node, its log, its clients, its topics.

use super::names as m;
use super::text::Text;
use crate::node_view::{NodeView, Serving};
use fulmar_broker::Broker;
use fulmar_broker::machine::state::State;
use fulmar_broker::machine::topics::Topic;
use fulmar_host::time::Duration;
use fulmar_store::FLUSH_BUCKETS_US;
use fulmar_types::{LogIndex, LogPosition, NodeId, Role};

/// Topics that are told one by one, at most.
const TOPICS_MAX: usize = 1_000;

const ROLES: [&str; 4] = ["leader", "follower", "candidate", "learner"];

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
    }
}

/// Whether there are more topics than are told, if the node serves any.
pub(super) fn tell(text: &mut Text, view: &NodeView, ready: bool) -> Option<bool> {
    text.put(m::BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let node = view.node.to_string();
    text.put(m::NODE, &[("site", &view.site), ("node", &node)], 1);
    text.flag(m::READY, &[], ready);
    text.seconds(m::UPTIME, &[], view.uptime());
    events(text, view);
    let serving = view.serving()?;
    raft(text, view, &serving);
    log(text, &serving);
    clients(text, &serving.broker);
    Some(serving.broker.site().read(|state| topics(text, state)))
}

fn events(text: &mut Text, view: &NodeView) {
    let tally = view.tally();
    text.put(m::LEADER_CHANGES, &[], tally.leader_changes);
    text.put(m::SNAPSHOTS, &[], tally.snapshots);
    text.put(m::SEALS, &[], tally.seals);
    text.put(m::FORKS, &[], tally.forks);
    for (reason, count) in &tally.peers_refused {
        text.put(m::PEERS_REFUSED, &[("reason", reason)], count);
    }
    for ((reason, by_peer), count) in &tally.distrusted {
        let by = if *by_peer { "other-side" } else { "this-node" };
        text.put(m::DISTRUSTED, &[("reason", reason), ("by", by)], count);
    }
    for (reason, count) in &tally.sites_refused {
        text.put(m::SITES_REFUSED, &[("reason", reason)], count);
    }
}

fn raft(text: &mut Text, view: &NodeView, serving: &Serving) {
    let leadership = serving.group.leadership();
    // What is led is what counts: a role is told a moment before.
    let role = if leadership.is_me { Some(Role::Leader) } else { view.tally().role };
    text.one_of(m::ROLE, (&[], "role"), &ROLES, role.map_or("", role_name));
    text.put(m::TERM, &[], leadership.term);
    text.put(m::LEADER, &[], leadership.leader.map_or(0, NodeId::get));
    text.flag(m::TAKES_RECORDS, &[], serving.group.takes_records(0));
}

fn log(text: &mut Text, serving: &Serving) {
    let of = serving.group.store().figures();
    let index = |at: Option<LogPosition>| at.map_or(0, |at| at.index.get());
    let applied = serving.group.applied();
    text.put(m::LAST_INDEX, &[], index(of.last));
    text.put(m::FLUSHED_INDEX, &[], index(of.flushed));
    text.put(m::COMMITTED_INDEX, &[], index(serving.group.committed()));
    text.put(m::APPLIED_INDEX, &[], index(applied));
    text.put(m::FLOOR_INDEX, &[], index(of.floor));
    let next = |at: Option<LogPosition>| at.map_or(LogIndex(0), |at| at.index.next()).get();
    text.put(m::UNAPPLIED, &[], next(of.last).saturating_sub(next(applied)));
    text.put(m::SEGMENTS, &[], of.segments);
    text.put(m::LOG_BYTES, &[], of.segments * of.segment_bytes);
    text.put(m::SPARES, &[], of.spares);
    let room = serving.group.room();
    text.put(m::READY_BYTES, &[], room.ready_bytes);
    text.put(m::FREE_BYTES, &[], room.more_bytes);
    text.histogram(m::FLUSHES, &FLUSH_BUCKETS_US, &of.flushes, of.flush_us);
    text.put(m::FLUSHED_ENTRIES, &[], of.flushed_entries);
    text.put(m::FLUSHED_BYTES, &[], of.flushed_bytes);
}

fn clients(text: &mut Text, broker: &Broker) {
    let counters = broker.counters();
    // Those that are over are read first, so that there are never more of them.
    let ended = counters.connections_ended.get();
    let connections = counters.connections.get();
    text.put(m::CONNECTIONS, &[], connections.saturating_sub(ended));
    text.put(m::CONNECTIONS_ALL, &[], connections);
    text.put(m::CONNECTIONS_REFUSED, &[], counters.connections_refused.get());
    text.put(m::CONNECTIONS_FAULTY, &[], counters.connections_faulty.get());
    for (api, count) in counters.requests() {
        text.put(m::REQUESTS, &[("api", &format!("{api:?}"))], count);
    }
    for ((api, error), count) in counters.errors() {
        let labels = [("api", &*format!("{api:?}")), ("error", &*format!("{error:?}"))];
        text.put(m::REQUEST_ERRORS, &labels, count);
    }
    text.put(m::PRODUCE_BATCHES, &[], counters.produce_batches.get());
    text.put(m::PRODUCE_BYTES, &[], counters.produce_bytes.get());
    text.put(m::FETCH_BYTES, &[], counters.fetch_bytes.get());
    for pool in broker.pools() {
        text.put(m::POOL_USED, &[("pool", pool.name)], pool.used_bytes);
        text.put(m::POOL_MAX, &[("pool", pool.name)], pool.bytes);
    }
    text.seconds(m::AGE, &[], Duration::from_millis(broker.age_ms()));
}

/// Says whether there are more than it tells.
fn topics(text: &mut Text, state: &State) -> bool {
    text.seconds(m::ENTRY_TIME, &[], Duration::from_millis(state.entry_ms()));
    let topics = state.topics();
    text.put(m::TOPICS, &[], topics.iter().count());
    text.put(m::PARTITIONS, &[], topics.partition_count());
    let mirrors = topics.iter().filter(|topic| state.mirror(topic.id).is_some());
    text.put(m::MIRRORS, &[], mirrors.count());
    text.put(m::PRODUCERS, &[], state.producers().len());
    text.put(m::LINKS, &[], state.links().count());
    text.put(m::RULES, &[], state.rules().count());
    topics.iter().take(TOPICS_MAX).for_each(|of| topic(text, state, of));
    topics.iter().count() > TOPICS_MAX
}

fn topic(text: &mut Text, state: &State, topic: &Topic) {
    let (mut appended, mut records, mut bytes) = (0, 0, 0);
    for stream in topic.streams() {
        let Some(partition) = state.partition(stream) else { continue };
        appended += partition.next.get();
        records += partition.next.get() - partition.log_start.get();
        bytes += state.spans(stream).map(|span| span.bytes).sum::<u64>();
    }
    let labels = [("topic", &*topic.name)];
    text.put(m::TOPIC_APPENDED, &labels, appended);
    text.put(m::TOPIC_RECORDS, &labels, records);
    text.put(m::TOPIC_BYTES, &labels, bytes);
}

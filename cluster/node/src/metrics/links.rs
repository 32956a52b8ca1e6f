//! The links to other sites, as the node knows them that leads; the others tell nothing of them.

use super::names as m;
use super::text::Text;
use crate::node_view::NodeView;
use fulmar_broker::link_figures::{LinkFigures, Sends, Takes};
use fulmar_broker::link_states::PUT_BACK;
use fulmar_host::time::Duration;
use std::collections::BTreeMap;

/// Links that are told, at most, and partitions of each.
const LINKS_MAX: usize = 256;
const PARTITIONS_MAX: usize = 4_096;

const STATES: [&str; 4] = ["up", "down", "paused", PUT_BACK];

/// Whether there are more links, or more of one, than are told.
pub(super) fn tell(text: &mut Text, view: &NodeView) -> bool {
    let Some(serving) = view.serving() else { return false };
    if !serving.group.leadership().is_me {
        return false;
    }
    let names = serving.broker.link_names();
    let mut is_truncated = names.len() > LINKS_MAX;
    for name in names.iter().take(LINKS_MAX) {
        if let Some(link) = serving.broker.link_figures(name, PARTITIONS_MAX) {
            of_link(text, &link);
            sends(text, &link);
            takes(text, &link);
            is_truncated |= link.is_truncated;
        }
    }
    is_truncated
}

fn of_link(text: &mut Text, link: &LinkFigures) {
    let labels = [("link", &*link.name)];
    text.one_of(m::LINK_STATE, (&labels, "state"), &STATES, link.state);
    text.seconds(m::LINK_UP, &labels, link.up_for.unwrap_or_default());
    if let Some(next) = link.next_attempt {
        text.seconds(m::LINK_NEXT, &labels, next);
    }
    if let Some((_, ago)) = &link.trouble {
        let labels = [("link", &*link.name), ("error", link.trouble_kind)];
        text.seconds(m::LINK_TROUBLE, &labels, *ago);
    }
    text.put(m::LINK_SESSIONS, &labels, link.sessions);
    text.put(m::LINK_SENT, &labels, link.sent_bytes);
    text.put(m::LINK_LINE, &labels, link.line_bytes);
    text.put(m::LINK_CAP, &labels, link.cap.unwrap_or(0));
    text.put(m::LINK_RECEIVED, &labels, link.received_bytes);
    text.put(m::LINK_SENT_RATE, &labels, link.sent_per_second);
    text.put(m::LINK_RECEIVED_RATE, &labels, link.received_per_second);
    text.put(m::LINK_WITHHELD, &labels, link.withheld.len());
    let mut stopped = BTreeMap::<&str, u64>::new();
    for (_, _, why) in &link.stopped {
        *stopped.entry(why).or_default() += 1;
    }
    for (why, count) in stopped {
        text.put(m::LINK_STOPPED, &[("link", &*link.name), ("reason", why)], count);
    }
}

fn sends(text: &mut Text, link: &LinkFigures) {
    for of_topic in link.sends.chunk_by(|a, b| a.topic == b.topic) {
        let labels = [("link", &*link.name), ("topic", &*of_topic[0].topic)];
        let records: u64 = of_topic.iter().map(Sends::behind_records).sum();
        let bytes: u64 = of_topic.iter().map(|of| of.behind_bytes).sum();
        let ms = of_topic.iter().map(|of| of.behind_ms).max().unwrap_or_default();
        text.put(m::LINK_LAG_RECORDS, &labels, records);
        text.put(m::LINK_UNSENT, &labels, of_topic.iter().map(Sends::unsent).sum::<u64>());
        text.put(m::LINK_LAG_BYTES, &labels, bytes);
        text.seconds(m::LINK_LAG_SECONDS, &labels, Duration::from_millis(ms));
    }
}

fn takes(text: &mut Text, link: &LinkFigures) {
    for of_topic in link.takes.chunk_by(|a, b| a.topic == b.topic) {
        let labels = [("link", &*link.name), ("topic", &*of_topic[0].topic)];
        text.put(m::LINK_MISSING, &labels, of_topic.iter().map(Takes::missing).sum::<u64>());
        if let Some(ms) = of_topic.iter().filter_map(|of| of.arrived_ms).min() {
            text.seconds(m::LINK_ARRIVED, &labels, Duration::from_millis(ms));
        }
    }
}

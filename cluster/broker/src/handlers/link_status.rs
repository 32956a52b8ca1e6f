//! The state of a link as a list of names and values, for `fulmar link status`.
//!
//! ```text
//! state              up, down or paused
//! for-ms             how long it is up
//! next-attempt-ms    when the other site is dialled again
//! trouble            what went wrong last
//! trouble-ms         how long ago
//! sent-bytes         bytes of records since this node leads
//! received-bytes
//! sends/T/P          what may go: "next has noted-ms bytes ms", - for what is not known: the next
//!                    offset here, that which the other site waits for and when it was noted, and how
//!                    many bytes and milliseconds it is behind, at most
//! takes/T/P          what comes: "next"
//! gap/T/P/OFFSET     what will never come: "end ms reason", noted so long ago
//! stopped/T/P        why nothing more of it comes over the link in this session
//! truncated          there is more than one answer holds
//! ```

use crate::age;
use crate::broker::Broker;
use crate::limits::LINK_STATUS_VALUES_MAX;
use crate::link_states::LinkState;
use crate::machine::links::Link;
use crate::machine::state::State;
use crate::machine::topics::Topic;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::StreamId;
use fulmar_types::{Offset, PartitionIndex};
use std::fmt::Display;

type Values = Vec<(String, String)>;

/// The state of a link, if there is one of the name. To be asked of the node that leads.
pub(super) fn values(broker: &Broker, name: &str) -> Option<Values> {
    let age_ms = age::age_ms(&broker.host, &broker.site, broker.group.leadership().term);
    broker.site.read(|state| {
        let link = state.link(name)?;
        let is = broker.links.of(&link.name);
        let mut values = of_session(&is, link);
        let mut gaps = Values::new();
        for topic in state.topics().iter() {
            of_topic((state, &is), link, topic, age_ms, (&mut values, &mut gaps));
            if values.len() >= LINK_STATUS_VALUES_MAX {
                break;
            }
        }
        values.append(&mut gaps);
        if values.len() >= LINK_STATUS_VALUES_MAX {
            values.truncate(LINK_STATUS_VALUES_MAX - 1);
            values.push(("truncated".to_owned(), "true".to_owned()));
        }
        Some(values)
    })
}

fn of_session(is: &LinkState, link: &Link) -> Values {
    let now = time::now();
    let ms = |duration: Duration| duration.as_millis().to_string();
    let state = match is.up_since {
        _ if link.definition.paused => "paused",
        Some(_) => "up",
        None => "down",
    };
    let mut values = vec![
        ("state", state.to_owned()),
        ("sent-bytes", is.sent_bytes.to_string()),
        ("received-bytes", is.received_bytes.to_string()),
    ];
    let up_for = is.up_since.map(|since| ms(now.saturating_duration_since(since)));
    values.extend(up_for.map(|text| ("for-ms", text)));
    let next = is.next_attempt.map(|at| ms(at.saturating_duration_since(now)));
    values.extend(next.map(|text| ("next-attempt-ms", text)));
    if let Some((trouble, at)) = &is.trouble {
        values.push(("trouble", trouble.clone()));
        values.push(("trouble-ms", ms(now.saturating_duration_since(*at))));
    }
    let mut values: Values =
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for ((topic, partition), why) in &is.stopped {
        values.push((format!("stopped/{topic}/{partition}"), (*why).to_owned()));
    }
    values
}

fn of_topic(
    (state, is): (&State, &LinkState),
    link: &Link,
    topic: &Topic,
    age_ms: u64,
    (values, gaps): (&mut Values, &mut Values),
) {
    let mirror = state.mirror(topic.id);
    let comes = mirror.is_some_and(|mirror| mirror.link == link.name);
    let goes = mirror.is_none() && state.may_go(&topic.name, &link.definition.region);
    if !comes && !goes {
        return;
    }
    for (partition, stream) in topic.streams().enumerate() {
        let Some(known) = state.partition(stream) else { continue };
        let at = format!("{}/{partition}", topic.name);
        if goes {
            let index = PartitionIndex(u32::try_from(partition).unwrap_or(u32::MAX));
            let said = is.has.get(&(topic.id, index)).copied();
            values.push((format!("sends/{at}"), sends(state, link, stream, (age_ms, said))));
        } else {
            values.push((format!("takes/{at}"), known.next.to_string()));
            let left = LINK_STATUS_VALUES_MAX.saturating_sub(gaps.len());
            for gap in state.gaps(stream).take(left) {
                let ago_ms = age_ms.saturating_sub(gap.age_ms);
                let value = format!("{} {ago_ms} {}", gap.end, gap.reason);
                gaps.push((format!("gap/{at}/{}", gap.first), value));
            }
        }
    }
}

/// A number, or the sign for none.
fn or_none(number: Option<impl Display>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// `said` is what the other site said in this process, and when.
fn sends(
    state: &State,
    link: &Link,
    stream: StreamId,
    (age_ms, said): (u64, Option<(Offset, Instant)>),
) -> String {
    let next = state.partition(stream).map(|partition| partition.next);
    let noted = state.peer_progress(&link.name, stream);
    let noted = noted.map(|peer| (peer.offset, age_ms.saturating_sub(peer.age_ms)));
    let ago_ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let newest = said.map(|(offset, at)| (offset, ago_ms(at))).or(noted);
    let (has, noted_ms) = newest.unzip();
    let missing = state.spans(stream).filter(|span| has.is_none_or(|has| span.end > has));
    let (mut bytes, mut oldest_ms) = (0, None);
    for span in missing {
        bytes += span.bytes;
        oldest_ms.get_or_insert(age_ms.saturating_sub(span.first_age_ms));
    }
    let behind_ms = oldest_ms.unwrap_or(0);
    format!("{} {} {} {bytes} {behind_ms}", or_none(next), or_none(has), or_none(noted_ms))
}

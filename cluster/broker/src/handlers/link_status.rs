//! The state of a link as a list of names and values, for `fulmar link status`.
//!
//! ```text
//! state              up, down or paused
//! for-ms             how long it is up
//! next-attempt-ms    when the other site is dialled again
//! trouble            what went wrong last
//! trouble-ms         how long ago
//! sent-bytes         bytes of records since this node leads
//! line-bytes         bytes of the frames that held them
//! sent-rate          bytes of records per second, over the last ten
//! received-bytes
//! received-rate
//! sends/T/P          what may go: "next has noted-ms bytes ms", - for what is not known: the next
//!                    offset here, that which the other site waits for and when it was noted, and how
//!                    many bytes and milliseconds it is behind, about
//! takes/T/P          what comes: "next ms": the next offset, and how long ago the last record came
//! gap/T/P/OFFSET     what will never come, or was not known to be there when it went here: "end ms
//!                    count first-ms last-ms reason", noted so long ago; when it was appended there,
//!                    at the earliest and the latest, or 0
//! stopped/T/P        why nothing more of it comes over the link in this session
//! declined/T         why the other site does not take a topic of this one
//! declines/T         why this site does not take a topic of the other one
//! withheld/T         a topic of this site that no rule lets go over the link
//! truncated          there is more than one answer holds
//! ```
//!
//! Who asks with the key `gaps` is told the gaps and nothing else, and with `gaps/T/P/OFFSET` those behind that one, by
//! topic, partition and offset: so they can be had all, an answer at a time.

use crate::broker::Broker;
use crate::limits::LINK_STATUS_VALUES_MAX;
use crate::link_figures::{GapOf, GapPlace, LinkFigures, Sends, Takes};
use crate::machine::gaps::Gap;
use fulmar_host::time::Duration;
use fulmar_types::gap::Missing;
use std::fmt::Display;

type Values = Vec<(String, String)>;

/// The state of a link, if there is one of the name. To be asked of the node that leads.
pub(super) fn values(broker: &Broker, name: &str) -> Option<Values> {
    let figures = broker.link_figures(name, LINK_STATUS_VALUES_MAX)?;
    let mut values = of_session(&figures);
    values.extend(figures.sends.iter().map(sends));
    values.extend(figures.takes.iter().map(takes));
    let topics = figures.withheld.iter();
    values.extend(topics.map(|topic| (format!("withheld/{topic}"), String::new())));
    let declined = figures.declined.iter();
    values.extend(declined.map(|(of, why)| (format!("declined/{of}"), (*why).to_owned())));
    let declines = figures.declines.iter();
    values.extend(declines.map(|(of, why)| (format!("declines/{of}"), (*why).to_owned())));
    let age_ms = broker.age_ms();
    let sent = figures.sends.iter().map(|of| (&of.topic, of.partition, &of.gaps));
    let taken = figures.takes.iter().map(|of| (&of.topic, of.partition, &of.gaps));
    for (topic, partition, gaps) in taken.chain(sent) {
        values.extend(gaps.iter().map(|of| gap((topic, partition), of, age_ms)));
    }
    if figures.is_truncated || values.len() >= LINK_STATUS_VALUES_MAX {
        values.truncate(LINK_STATUS_VALUES_MAX - 1);
        values.push(("truncated".to_owned(), "true".to_owned()));
    }
    Some(values)
}

/// The gaps that one of the keys asks for; `None` if none does.
pub(super) fn asked_gaps(keys: Option<&[String]>) -> Option<GapPlace> {
    keys?.iter().find_map(|key| {
        let place = key.strip_prefix("gaps")?;
        if place.is_empty() {
            return Some(GapPlace::default());
        }
        let mut parts = place.strip_prefix('/')?.split('/');
        let (topic, partition, first) = (parts.next()?, parts.next()?, parts.next()?);
        Some((topic.to_owned(), partition.parse().ok()?, first.parse().ok()?))
    })
}

/// The gaps of a link behind one of them, if there is a link of the name.
pub(super) fn gaps(broker: &Broker, name: &str, behind: &GapPlace) -> Option<Values> {
    let (gaps, has_more) = broker.link_gaps(name, behind, LINK_STATUS_VALUES_MAX - 1)?;
    let age_ms = broker.age_ms();
    let value = |of: &GapOf| gap((&of.topic, of.partition), &of.gap, age_ms);
    let mut values: Values = gaps.iter().map(value).collect();
    if has_more {
        values.push(("truncated".to_owned(), "true".to_owned()));
    }
    Some(values)
}

fn of_session(link: &LinkFigures) -> Values {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let mut values = vec![
        ("state", link.state.to_owned()),
        ("sent-bytes", link.sent_bytes.to_string()),
        ("line-bytes", link.line_bytes.to_string()),
        ("sent-rate", link.sent_per_second.to_string()),
        ("received-bytes", link.received_bytes.to_string()),
        ("received-rate", link.received_per_second.to_string()),
    ];
    values.extend(link.up_for.map(|up_for| ("for-ms", ms(up_for))));
    values.extend(link.next_attempt.map(|next| ("next-attempt-ms", ms(next))));
    if let Some((trouble, ago)) = &link.trouble {
        values.push(("trouble", trouble.clone()));
        values.push(("trouble-ms", ms(*ago)));
    }
    let mut values: Values =
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for (topic, partition, why) in &link.stopped {
        values.push((format!("stopped/{topic}/{partition}"), (*why).to_owned()));
    }
    values
}

/// A number, or the sign for none.
fn or_none(number: Option<impl Display>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn sends(of: &Sends) -> (String, String) {
    let Sends { topic, partition, next, behind_bytes, behind_ms, .. } = of;
    let (has, heard_ms) = (or_none(of.has), or_none(of.heard_ms));
    let value = format!("{next} {has} {heard_ms} {behind_bytes} {behind_ms}");
    (format!("sends/{topic}/{partition}"), value)
}

fn takes(of: &Takes) -> (String, String) {
    let value = format!("{} {}", of.next, or_none(of.arrived_ms));
    (format!("takes/{}/{}", of.topic, of.partition), value)
}

fn gap((topic, partition): (&str, u32), gap: &Gap, age_ms: u64) -> (String, String) {
    let Gap { first, end, missing, .. } = gap;
    let Missing { reason, count, first_ms, last_ms } = missing;
    let (ago_ms, reason) = (age_ms.saturating_sub(gap.age_ms), reason.name());
    let value = format!("{end} {ago_ms} {count} {first_ms} {last_ms} {reason}");
    (format!("gap/{topic}/{partition}/{first}"), value)
}

//! What becomes of links, in words.

use super::output::{count, escaped, grouped, seconds, utc};
use fulmar_client::links::{Sent, Taken};
use fulmar_client::{LinkStatus, TopicPartition};
use fulmar_host::time::Duration;
use fulmar_types::gap::Missing;
use fulmar_types::link::{EVERY_TOPIC, LinkDefinition};
use fulmar_types::pipeline::is_internal;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Topics that are named one by one in a line.
const NAMES_MAX: usize = 12;

/// The state of a link. Much of it has been told by another site.
pub fn render(name: &str, link: &LinkDefinition, status: &LinkStatus) -> String {
    let mut text = String::new();
    let mut line =
        |line: String| writeln!(text, "{}", escaped(&line)).expect("a string takes everything");
    let since = match status.up_for {
        Some(up_for) if status.state == "up" => format!(" for {}", seconds(up_for)),
        _ => String::new(),
    };
    let dials = if link.dial.is_empty() { ", which dials this one" } else { "" };
    line(format!(
        "link {name}: {}{since}, to site {} in region {}{dials}",
        status.state, link.site, link.region
    ));
    if let Some((trouble, at)) = &status.trouble {
        line(format!("  last error {} ago: {trouble}", ago(*at)));
    }
    if !matches!(&*status.state, "up" | "paused") {
        if let Some(next) = status.next_attempt {
            line(format!("  dials again in {}", seconds(next)));
        }
        if status.trouble.is_none() && link.dial.is_empty() {
            line("  nobody of the other site has dialled since this node leads".to_owned());
        }
    }
    line(format!(
        "  {} bytes of records sent and {} received since this node leads; lately {} and {} per second",
        grouped(status.sent_bytes),
        grouped(status.received_bytes),
        grouped(status.sent_rate),
        grouped(status.received_rate)
    ));
    let tenths = status.sent_bytes * 10 / status.line_bytes.max(1);
    if tenths > 10 {
        let on_line = grouped(status.line_bytes);
        line(format!("  as {on_line} on the line, {}.{} to 1", tenths / 10, tenths % 10));
    }
    if link.cap.is_some() {
        line(format!("  sends {} in any second at most", link.cap_text()));
    }
    topics(status, &mut line);
    // The state of pipelines stays here in any case.
    let withheld: BTreeSet<&String> =
        status.withheld.iter().filter(|topic| !is_internal(topic)).collect();
    if !withheld.is_empty() {
        line(format!("  no rule lets go  {}", listed(&withheld)));
    }
    if status.is_truncated {
        line("  ... and more than one answer holds".to_owned());
    }
    text
}

/// What becomes of the topics of a link.
fn topics(status: &LinkStatus, line: &mut impl FnMut(String)) {
    for (of, sent) in &status.sends {
        let never = match missing(status, of) {
            0 => String::new(),
            some => format!(", {} went or were not kept before", grouped(some)),
        };
        line(format!("  sends {}/{}  {}{never}", of.topic, of.partition, sends(sent)));
    }
    for (of, Taken { next, arrived }) in &status.takes {
        let arrived = arrived.map_or_else(String::new, |at| format!(", the last {} ago", ago(at)));
        let never = match missing(status, of) {
            0 => String::new(),
            some => format!(", {} will never come", grouped(some)),
        };
        let next = grouped(*next);
        line(format!("  takes {}/{}  up to {next}{arrived}{never}", of.topic, of.partition));
    }
    for (of, why) in &status.stopped {
        line(format!("  STOPPED {}/{}  {why}", of.topic, of.partition));
    }
    for (topic, why) in &status.declined {
        line(format!("  the other site does not take  {topic}: {why}"));
    }
    for (topic, why) in &status.declines {
        line(format!("  does not take  {topic}: {why}"));
    }
}

/// The topics that a link takes by name and that there is no copy of, though it is up.
pub fn lacking<'a>(
    link: &LinkDefinition,
    status: &LinkStatus,
    copies: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let copies: BTreeSet<&str> = copies.collect();
    let is_known = |topic: &str| copies.contains(topic) || status.declines.contains_key(topic);
    let lacks = |topic: &&String| topic.as_str() != EVERY_TOPIC && !is_known(topic);
    let of = |topic: &String| {
        let why = "there is no copy: no such topic there, or no rule there lets it come";
        escaped(&format!("  takes {topic}  {why}"))
    };
    match (status.state.as_str(), link.paused) {
        ("up", false) => link.take.iter().filter(lacks).map(of).collect(),
        _ => Vec::new(),
    }
}

/// Some names, and how many more there are.
fn listed(names: &BTreeSet<&String>) -> String {
    let told: Vec<&str> = names.iter().take(NAMES_MAX).map(|name| name.as_str()).collect();
    match names.len().saturating_sub(told.len()) {
        0 => told.join(", "),
        more => format!("{} and {} more", told.join(", "), grouped(more as u64)),
    }
}

/// How many records of a partition are missing.
fn missing(status: &LinkStatus, of: &TopicPartition) -> u64 {
    let gaps = status.gaps.get(of).map(Vec::as_slice).unwrap_or_default();
    gaps.iter().map(|gap| gap.missing.count).sum()
}

fn sends(sent: &Sent) -> String {
    let Some(has) = sent.has else {
        return format!("{}, and nothing is known to have arrived", count(sent.next, "record"));
    };
    let noted = sent.noted.map_or_else(String::new, |ago| format!(", {} ago", seconds(ago)));
    let arrived = format!("{} of {} arrived{noted}", grouped(has), grouped(sent.next));
    match sent.next.saturating_sub(has) {
        0 => arrived,
        records => format!(
            "{arrived}: {} behind, about {} bytes and {}",
            count(records, "record"),
            grouped(sent.behind_bytes),
            seconds(sent.behind)
        ),
    }
}

/// What will never come over a link; at the side that sends, what went, or was not kept, before it was
/// known to have arrived.
pub fn gaps(status: &LinkStatus) -> String {
    let mut text = String::new();
    for (of, gaps) in &status.gaps {
        for gap in gaps {
            let Missing { reason, count: records, .. } = gap.missing;
            writeln!(
                text,
                "{}/{}  {}, offsets {} to {}{}: {reason}, noted {} ago",
                of.topic,
                of.partition,
                count(records, "record"),
                grouped(gap.first),
                grouped(gap.end.saturating_sub(1)),
                appended(&gap.missing),
                ago(gap.noted)
            )
            .expect("a string takes everything");
        }
    }
    text
}

/// When the records were appended at the origin.
fn appended(missing: &Missing) -> String {
    match (missing.first_ms, missing.last_ms) {
        (0, 0) => String::new(),
        (0, last) => format!(", of up to {}", utc(last)),
        (first, last) => format!(", of {} to {}", utc(first), utc(last)),
    }
}

/// Long times in words.
fn ago(duration: Duration) -> String {
    match duration.as_secs() {
        0..=119 => seconds(duration),
        secs @ 120..=7_199 => format!("{} min", secs / 60),
        secs @ 7_200..=172_799 => format!("{} h", secs / 3_600),
        secs => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_client::links::Gap;
    use fulmar_types::PartitionIndex;
    use fulmar_types::gap::GapReason;
    use fulmar_types::pipeline::internal_topic;
    use std::collections::BTreeMap;

    #[test]
    fn the_state_of_a_link_in_words() {
        let of = |topic: &str, at| TopicPartition::new(topic, PartitionIndex(at));
        let sent = |next, has| Sent {
            next,
            has,
            noted: has.map(|_| Duration::from_secs(3)),
            behind_bytes: 1_234,
            behind: Duration::from_secs(40),
        };
        let gap =
            |first, end, missing| Gap { first, end, noted: Duration::from_secs(90_000), missing };
        let (reason, count) = (GapReason::Budget, 1_000);
        let (first_ms, last_ms) = (1_767_225_600_000, 1_767_229_200_999);
        let budget = gap(4, 1_204, Missing { reason, count, first_ms, last_ms });
        let expired = gap(1_204, 1_205, Missing::untimed(GapReason::Expired, 1));
        let up = LinkStatus {
            state: "up".to_owned(),
            up_for: Some(Duration::from_millis(12_345)),
            sent_bytes: 1_234_567,
            line_bytes: 300_000,
            sends: BTreeMap::from([
                (of("orders", 0), sent(10, Some(10))),
                (of("orders", 1), sent(2_010, Some(10))),
                (of("orders", 2), sent(7, None)),
            ]),
            takes: BTreeMap::from([
                (of("hub.alarms", 0), Taken { next: 1_300, arrived: Some(Duration::from_secs(7)) }),
                (of("hub.alarms", 1), Taken { next: 5, arrived: None }),
            ]),
            withheld: (0..14)
                .map(|at| format!("topic-{at:02}"))
                .chain([internal_topic("p")])
                .collect(),
            sent_rate: 12_345,
            gaps: BTreeMap::from([(of("hub.alarms", 0), vec![budget, expired])]),
            stopped: BTreeMap::from([(of("hub.alarms", 1), "a fork".to_owned())]),
            is_truncated: true,
            ..LinkStatus::default()
        };
        let link = LinkDefinition {
            site: "hub".to_owned(),
            region: "eu".to_owned(),
            cap: Some(256 << 10),
            ..LinkDefinition::default()
        };
        insta::assert_snapshot!(render("hub", &link, &up));
        insta::assert_snapshot!(gaps(&up));
        let takes = ["alarms", "peple", EVERY_TOPIC].map(str::to_owned).to_vec();
        let taking = LinkDefinition { take: takes, ..link.clone() };
        let lacks = lacking(&taking, &up, ["alarms"].into_iter());
        assert_eq!(lacks.len(), 1, "{lacks:?}");
        assert!(lacks[0].starts_with("  takes peple  there is no copy"), "{lacks:?}");
        let down = LinkStatus {
            state: "down".to_owned(),
            next_attempt: Some(Duration::from_millis(2_500)),
            trouble: Some(("h:9292 does not answer".to_owned(), Duration::from_secs(1))),
            ..LinkStatus::default()
        };
        let dialling = LinkDefinition { dial: vec!["h:9292".to_owned()], ..link };
        insta::assert_snapshot!(render("hub", &dialling, &down));
    }
}

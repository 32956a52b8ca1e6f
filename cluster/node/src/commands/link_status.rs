//! What becomes of links, in words.

use super::output::{count, grouped, seconds};
use fulmar_client::LinkStatus;
use fulmar_client::links::{Sent, Taken};
use fulmar_host::time::Duration;
use fulmar_types::link::LinkDefinition;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Topics that are named one by one in a line.
const NAMES_MAX: usize = 12;

/// The state of a link.
pub fn render(name: &str, link: &LinkDefinition, status: &LinkStatus) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
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
    if status.state == "down" {
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
    for (of, sent) in &status.sends {
        line(format!("  sends {}/{}  {}", of.topic, of.partition, sends(sent)));
    }
    for (of, Taken { next, arrived }) in &status.takes {
        let arrived = arrived.map_or_else(String::new, |at| format!(", the last {} ago", ago(at)));
        let missing = status.gaps.get(of).map(Vec::as_slice).unwrap_or_default();
        let missing: u64 = missing.iter().map(|gap| gap.end.saturating_sub(gap.first)).sum();
        let never = match missing {
            0 => String::new(),
            some => format!(", {} will never come", grouped(some)),
        };
        let next = grouped(*next);
        line(format!("  takes {}/{}  up to {next}{arrived}{never}", of.topic, of.partition));
    }
    for (of, why) in &status.stopped {
        line(format!("  STOPPED {}/{}  {why}", of.topic, of.partition));
    }
    if !status.withheld.is_empty() {
        line(format!("  no rule lets go  {}", listed(&status.withheld)));
    }
    if status.is_truncated {
        line("  ... and more than one answer holds".to_owned());
    }
    text
}

/// Some names, and how many more there are.
fn listed(names: &BTreeSet<String>) -> String {
    let told: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    match names.len().saturating_sub(told.len()) {
        0 => told.join(", "),
        more => format!("{} and {} more", told.join(", "), grouped(more as u64)),
    }
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
            "{arrived}: {} behind, at most {} bytes and {}",
            count(records, "record"),
            grouped(sent.behind_bytes),
            seconds(sent.behind)
        ),
    }
}

/// What will never come over a link.
pub fn gaps(status: &LinkStatus) -> String {
    let mut text = String::new();
    for (of, gaps) in &status.gaps {
        for gap in gaps {
            let records = count(gap.end.saturating_sub(gap.first), "record");
            writeln!(
                text,
                "{}/{}  {records}, offsets {} to {}: {}, noted {} ago",
                of.topic,
                of.partition,
                grouped(gap.first),
                grouped(gap.end.saturating_sub(1)),
                gap.reason,
                ago(gap.noted)
            )
            .expect("a string takes everything");
        }
    }
    text
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
    use fulmar_client::TopicPartition;
    use fulmar_client::links::Missing;
    use fulmar_types::PartitionIndex;
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
        let gap = Missing {
            first: 4,
            end: 1_204,
            noted: Duration::from_secs(90_000),
            reason: "expired at the origin".to_owned(),
        };
        let up = LinkStatus {
            state: "up".to_owned(),
            up_for: Some(Duration::from_millis(12_345)),
            sent_bytes: 1_234_567,
            sends: BTreeMap::from([
                (of("orders", 0), sent(10, Some(10))),
                (of("orders", 1), sent(2_010, Some(10))),
                (of("orders", 2), sent(7, None)),
            ]),
            takes: BTreeMap::from([
                (of("hub.alarms", 0), Taken { next: 1_300, arrived: Some(Duration::from_secs(7)) }),
                (of("hub.alarms", 1), Taken { next: 5, arrived: None }),
            ]),
            withheld: (0..14).map(|at| format!("topic-{at:02}")).collect(),
            sent_rate: 12_345,
            gaps: BTreeMap::from([(of("hub.alarms", 0), vec![gap])]),
            stopped: BTreeMap::from([(of("hub.alarms", 1), "a fork".to_owned())]),
            is_truncated: true,
            ..LinkStatus::default()
        };
        let link = LinkDefinition {
            site: "hub".to_owned(),
            region: "eu".to_owned(),
            ..LinkDefinition::default()
        };
        insta::assert_snapshot!(render("hub", &link, &up));
        insta::assert_snapshot!(gaps(&up));
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

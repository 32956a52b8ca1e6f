//! What a site says of the state of one of its links.

use super::GAPS;
use crate::metadata::TopicPartition;
use fulmar_host::time::Duration;
use fulmar_types::PartitionIndex;
use fulmar_types::gap::{GapReason, Missing};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a partition that may go to the other site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The offset that the next record here gets.
    pub next: u64,
    /// The offset that the other site waits for, as far as that was noted.
    pub has: Option<u64>,
    /// How long ago that was noted.
    pub noted: Option<Duration>,
    /// Bytes that it lacks, at most.
    pub behind_bytes: u64,
    /// The age of the oldest record that it lacks, at most.
    pub behind: Duration,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its next offset.
    pub next: u64,
    /// How long ago its last record came, if one is left.
    pub arrived: Option<Duration>,
}

/// Records that a copy will never have, or that went before it was known to have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The offset of the first.
    pub first: u64,
    /// The offset behind the last.
    pub end: u64,
    /// How long ago that was noted.
    pub noted: Duration,
    /// How many, of which time, and why.
    pub missing: Missing,
}

/// What becomes of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// `up`, `down` or `paused`.
    pub state: String,
    /// How long it is up.
    pub up_for: Option<Duration>,
    /// When the other site is dialled again.
    pub next_attempt: Option<Duration>,
    /// What went wrong last, and how long ago.
    pub trouble: Option<(String, Duration)>,
    /// Bytes of records that went out since the node leads that carries the link.
    pub sent_bytes: u64,
    /// Bytes of the frames that held them: less if they were compressed on the line.
    pub line_bytes: u64,
    /// How many of them per second, lately.
    pub sent_rate: u64,
    /// Bytes of records that came in.
    pub received_bytes: u64,
    /// How many of them per second, lately.
    pub received_rate: u64,
    /// What may go to the other site.
    pub sends: BTreeMap<TopicPartition, Sent>,
    /// What comes from it.
    pub takes: BTreeMap<TopicPartition, Taken>,
    /// Topics of the site that the other one does not take, and why.
    pub declined: BTreeMap<String, String>,
    /// Topics of the other site that this one does not take, and why.
    pub declines: BTreeMap<String, String>,
    /// Topics of the site that no rule lets go over the link.
    pub withheld: BTreeSet<String>,
    /// What will never come of what comes; of what may go, what went before it had arrived.
    pub gaps: BTreeMap<TopicPartition, Vec<Gap>>,
    /// Copies of which nothing more comes for now, and why.
    pub stopped: BTreeMap<TopicPartition, String>,
    /// There is more than one answer holds.
    pub is_truncated: bool,
}

impl LinkStatus {
    /// Reads the names and values of `broker/src/handlers/link_status.rs`. `None` if one makes no
    /// sense; names that are not known are passed over.
    pub(super) fn read<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut status = Self::default();
        let (mut trouble, mut trouble_at) = (None, Duration::ZERO);
        for (name, value) in values {
            match name {
                "state" => status.state = value.to_owned(),
                "for-ms" => status.up_for = Some(ms(value)?),
                "next-attempt-ms" => status.next_attempt = Some(ms(value)?),
                "trouble" => trouble = Some(value.to_owned()),
                "trouble-ms" => trouble_at = ms(value)?,
                "sent-bytes" => status.sent_bytes = value.parse().ok()?,
                "line-bytes" => status.line_bytes = value.parse().ok()?,
                "sent-rate" => status.sent_rate = value.parse().ok()?,
                "received-rate" => status.received_rate = value.parse().ok()?,
                "truncated" => status.is_truncated = true,
                "received-bytes" => status.received_bytes = value.parse().ok()?,
                _ => status.read_partition(name, value)?,
            }
        }
        status.trouble = trouble.map(|trouble| (trouble, trouble_at));
        Some(status)
    }

    /// Adds the gaps of an answer. Returns the key of those behind them, if there are more.
    pub(super) fn add_gaps(&mut self, part: Self) -> Option<String> {
        let last = part.gaps.last_key_value().and_then(|(of, gaps)| Some((of, gaps.last()?.first)));
        let last = last.map(|(of, first)| (of.clone(), first));
        let known = |of: &TopicPartition| Some((of.clone(), self.gaps.get(of)?.last()?.first));
        let known = self.gaps.keys().next_back().and_then(known);
        let is_further = last > known;
        self.is_truncated = part.is_truncated && !is_further;
        if is_further {
            for (of, gaps) in part.gaps {
                self.gaps.entry(of).or_default().extend(gaps);
            }
        }
        let (of, first) = last.filter(|_| part.is_truncated && is_further)?;
        Some(format!("{GAPS}/{}/{}/{first}", of.topic, of.partition))
    }

    fn read_partition(&mut self, name: &str, value: &str) -> Option<()> {
        let mut parts = name.split('/');
        let kind = parts.next()?;
        let (topic, partition) = (parts.next(), parts.next());
        if let ("withheld", Some(topic)) = (kind, topic) {
            self.withheld.insert(topic.to_owned());
        }
        match (kind, topic) {
            ("declined", Some(topic)) => {
                self.declined.insert(topic.to_owned(), value.to_owned());
            }
            ("declines", Some(topic)) => {
                self.declines.insert(topic.to_owned(), value.to_owned());
            }
            _ => {}
        }
        let (Some(topic), Some(partition)) = (topic, partition) else { return Some(()) };
        let of = TopicPartition::new(topic, PartitionIndex(partition.parse().ok()?));
        let mut fields = value.split(' ');
        let mut number = || fields.next();
        match kind {
            "sends" => {
                let next = number()?.parse().ok()?;
                let (has, noted) = (number()?, number()?);
                let behind_bytes = number()?.parse().ok()?;
                let behind = ms(number()?)?;
                let (has, noted) = (has.parse().ok(), ms(noted));
                self.sends.insert(of, Sent { next, has, noted, behind_bytes, behind });
            }
            "stopped" => drop(self.stopped.insert(of, value.to_owned())),
            "takes" => {
                let (next, arrived) = (number()?.parse().ok()?, number().and_then(ms));
                self.takes.insert(of, Taken { next, arrived });
            }
            "gap" => {
                let first = parts.next()?.parse().ok()?;
                let (end, noted) = (number()?.parse().ok()?, ms(number()?)?);
                let count = number()?.parse().ok()?;
                let (first_ms, last_ms) = (number()?.parse().ok()?, number()?.parse().ok()?);
                let reason = GapReason::by_name(number()?)?;
                let missing = Missing { reason, count, first_ms, last_ms };
                self.gaps.entry(of).or_default().push(Gap { first, end, noted, missing });
            }
            _ => {}
        }
        Some(())
    }
}

fn ms(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_asked_for_until_there_are_no_more_or_nothing_new_comes() {
        let part = |gaps: &[(&str, &str)], more: &[(&str, &str)]| {
            let values = gaps.iter().chain(more).copied();
            LinkStatus::read(values).expect("it makes sense")
        };
        let (one, other) =
            ([("gap/a/1/4", "9 0 5 0 0 budget")], [("gap/b.c/0/7", "8 0 1 0 0 budget")]);
        let more = [("truncated", "true")];
        let mut all = LinkStatus::default();
        assert_eq!(all.add_gaps(part(&one, &more)).as_deref(), Some("gaps/a/1/4"));
        assert_eq!(all.add_gaps(part(&other, &more)).as_deref(), Some("gaps/b.c/0/7"));
        assert!(!all.is_truncated && all.gaps.len() == 2);
        let mut stuck = all.clone();
        assert_eq!(stuck.add_gaps(part(&one, &more)), None, "an older node tells the same again");
        assert!(stuck.is_truncated && stuck.gaps == all.gaps);
        let mut none = LinkStatus::default();
        assert!(
            none.add_gaps(part(&[], &more)).is_none() && none.is_truncated,
            "none that it tells"
        );
        assert!(all.add_gaps(part(&[], &[])).is_none() && !all.is_truncated);
    }

    #[test]
    fn the_state_of_a_link_is_read_and_nonsense_is_refused() {
        let status = LinkStatus::read([
            ("state", "down"),
            ("trouble", "lost"),
            ("trouble-ms", "1500"),
            ("next-attempt-ms", "20"),
            ("sent-bytes", "7"),
            ("sends/orders.eu/2", "10 7 250 300 4000"),
            ("sends/new/0", "3 - - 90 10"),
            ("takes/hub.alarms/0", "12 5000"),
            ("takes/hub.alarms/1", "3 -"),
            ("withheld/secret", ""),
            ("sent-rate", "99"),
            ("gap/hub.alarms/0/4", "9 60000 5 1000 2000 budget"),
            ("stopped/hub.alarms/0", "it differs"),
            ("of-a-later-version", "x"),
        ])
        .expect("it makes sense");
        let of = |topic: &str, partition| TopicPartition::new(topic, PartitionIndex(partition));
        let sent = &status.sends[&of("orders.eu", 2)];
        assert_eq!((sent.next, sent.has, sent.behind_bytes), (10, Some(7), 300));
        assert_eq!((sent.noted, sent.behind), (ms("250"), Duration::from_secs(4)));
        let new = &status.sends[&of("new", 0)];
        assert_eq!((new.next, new.has, new.noted), (3, None, None));
        assert_eq!(status.takes[&of("hub.alarms", 0)], Taken { next: 12, arrived: ms("5000") });
        assert_eq!(status.takes[&of("hub.alarms", 1)], Taken { next: 3, arrived: None });
        assert!(status.withheld.contains("secret") && status.sent_rate == 99);
        assert_eq!(status.stopped[&of("hub.alarms", 0)], "it differs");
        let gap = &status.gaps[&of("hub.alarms", 0)][0];
        let missing =
            Missing { reason: GapReason::Budget, count: 5, first_ms: 1_000, last_ms: 2_000 };
        assert_eq!((gap.first, gap.end, gap.missing), (4, 9, missing));
        assert_eq!(status.trouble, Some(("lost".to_owned(), Duration::from_millis(1_500))));
        for (name, value) in
            [("sends/a/x", "1 - - 0 0"), ("takes/a/0", ""), ("gap/a/0/1", "2 0 1 0 0 x")]
        {
            assert_eq!(LinkStatus::read([(name, value)]), None, "{name} {value}");
        }
    }
}

//! The settings that a topic may have. Only those that are honoured are accepted: a client that
//! asks for compaction and gets a plain log would lose its faith, or its data.
//!
//! Invariant: a default is what holds on this site, and no value is accepted that would promise more:
//! the largest batch follows from the size of a segment, the majority from the number of nodes.

use crate::limits::TOPIC_SETTINGS;
use crate::machine::budget::{BUDGET_POLICY, BudgetPolicy};
use crate::machine::retention::{RETENTION_BYTES, RETENTION_MS};
use crate::machine::topics::Topic;
use crate::settings::BrokerSettings;
use fulmar_types::limits::BATCH_BYTES_MAX;
use fulmar_types::link::{PRIORITY, Priority};

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// The majority of the largest site, which has three nodes.
const MAJORITY_MAX: usize = 2;

/// What kind of value a setting has (`ConfigDef.Type`, as DescribeConfigs numbers them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum Kind {
    Flag = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// A setting that a topic has.
pub(super) struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// What holds on a site if it is not given.
    pub default: fn(&BrokerSettings) -> String,
    /// What it is for, for people.
    pub about: &'static str,
}

/// All of them, by name.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "cleanup.policy",
        kind: Kind::List,
        default: |_| "delete".to_owned(),
        about: "What is done with old records: they are deleted.",
    },
    Setting {
        name: "compression.type",
        kind: Kind::Text,
        default: |_| "producer".to_owned(),
        about: "How records are compressed: as the producer does it.",
    },
    Setting {
        name: BUDGET_POLICY,
        kind: Kind::Text,
        default: |_| BudgetPolicy::default().name().to_owned(),
        about: "What goes when retention.bytes are reached and other sites lack what would have to go.",
    },
    Setting {
        name: PRIORITY,
        kind: Kind::Text,
        default: |_| Priority::default().name().to_owned(),
        about: "What goes before what on a link to another site: urgent, normal or bulk.",
    },
    Setting {
        name: MAX_MESSAGE_BYTES,
        kind: Kind::Int,
        default: |site| site.batch_bytes_max().to_string(),
        about: "The largest record batch, in bytes.",
    },
    Setting {
        name: "message.timestamp.type",
        kind: Kind::Text,
        default: |_| "CreateTime".to_owned(),
        about: "Whose time a record has: that of its producer.",
    },
    Setting {
        name: MIN_INSYNC_REPLICAS,
        kind: Kind::Int,
        default: |site| site.majority().to_string(),
        about: "How many nodes must have flushed a record: always a majority of the site.",
    },
    Setting {
        name: RETENTION_BYTES,
        kind: Kind::Long,
        default: |_| "-1".to_owned(),
        about: "The bytes of a partition beyond which its oldest records may go; -1 for no limit.",
    },
    Setting {
        name: RETENTION_MS,
        kind: Kind::Long,
        default: |_| "-1".to_owned(),
        about: "The age in milliseconds from which on records may go; -1 for no limit.",
    },
    Setting {
        name: "unclean.leader.election.enable",
        kind: Kind::Flag,
        default: |_| "false".to_owned(),
        about: "Whether a node without all acknowledged records may lead: never.",
    },
];

const _: () = assert!(SETTINGS.len() == TOPIC_SETTINGS);

/// The largest batch of a topic, if it was given.
pub(super) fn max_message_bytes(topic: &Topic) -> Option<usize> {
    topic.config(MAX_MESSAGE_BYTES).and_then(|value| value.parse().ok())
}

/// Whether a setting is honoured, and if not, why.
pub(crate) fn check(site: &BrokerSettings, key: &str, value: &str) -> Result<(), String> {
    check_within((site.majority(), site.batch_bytes_max()), "on this site", (key, value))
}

/// Whether there is a site that honours a setting, and if not, why: for whoever asks before there is a site to
/// ask. What depends on the site is measured by the largest one.
///
/// # Errors
/// For people.
pub fn check_on_any_site(key: &str, value: &str) -> Result<(), String> {
    check_within((MAJORITY_MAX, BATCH_BYTES_MAX), "on any site", (key, value))
}

fn check_within(
    (majority, batch_bytes_max): (usize, usize),
    place: &str,
    (key, value): (&str, &str),
) -> Result<(), String> {
    let only = |allowed: &[&str]| {
        if allowed.contains(&value) {
            Ok(())
        } else {
            Err(format!("{key}={value} is not supported; possible: {}", allowed.join(", ")))
        }
    };
    // The text is kept and shown again, so there is one for each number.
    let up_to = |max: usize| match value.parse::<usize>() {
        Ok(number) if (1..=max).contains(&number) && value == number.to_string() => Ok(()),
        Ok(_) | Err(_) => Err(format!("{key} must be from 1 to {max} {place}")),
    };
    match key {
        BUDGET_POLICY => only(&BudgetPolicy::ALL.map(BudgetPolicy::name)),
        "cleanup.policy" => only(&["delete"]),
        "compression.type" => only(&["producer"]),
        "message.timestamp.type" => only(&["CreateTime"]),
        PRIORITY => only(&Priority::ALL.map(Priority::name)),
        // Every answer waits for a majority; for more nodes none does.
        MIN_INSYNC_REPLICAS => up_to(majority),
        RETENTION_MS | RETENTION_BYTES => match value.parse::<i64>() {
            Ok(limit) if limit >= -1 && value == limit.to_string() => Ok(()),
            Ok(_) | Err(_) => Err(format!("{key} must be a number from 0 on, or -1 for no limit")),
        },
        "unclean.leader.election.enable" => only(&["false"]),
        MAX_MESSAGE_BYTES => up_to(batch_bytes_max),
        _ => Err(format!("the setting {key} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    fn sites() -> [BrokerSettings; 2] {
        let mut small = settings(1);
        small.nodes.truncate(1);
        small.segment_bytes = 128 << 10;
        [settings(1), small]
    }

    #[test]
    fn every_setting_has_a_default_that_it_could_be_given() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for site in sites() {
            for setting in SETTINGS {
                let default = (setting.default)(&site);
                assert_eq!(check(&site, setting.name, &default), Ok(()), "{}", setting.name);
                assert_eq!(check_on_any_site(setting.name, &default), Ok(()), "{}", setting.name);
            }
        }
    }

    #[test]
    fn what_a_site_cannot_honour_is_refused() {
        let [large, small] = sites();
        for (key, most_of_large, most_of_small) in
            [(MAX_MESSAGE_BYTES, 1 << 20, 32 << 10), (MIN_INSYNC_REPLICAS, 2, 1)]
        {
            for (site, most) in [(&large, most_of_large), (&small, most_of_small)] {
                let (most, more) = (most.to_string(), (most + 1).to_string());
                let setting = SETTINGS.iter().find(|setting| setting.name == key);
                assert_eq!((setting.expect("is there").default)(site), most, "{key}");
                assert_eq!(check(site, key, &most), Ok(()), "{key}");
                let why = check(site, key, &more).expect_err("too much");
                assert_eq!(why, format!("{key} must be from 1 to {most} on this site"));
            }
            assert_eq!(check_on_any_site(key, &most_of_large.to_string()), Ok(()));
            let why = check_on_any_site(key, &(most_of_large + 1).to_string());
            assert_eq!(why, Err(format!("{key} must be from 1 to {most_of_large} on any site")));
        }
    }

    #[test]
    fn the_page_has_every_setting() {
        let page = include_str!("../../../../docs/KAFKA_COMPAT.md");
        let has = |setting: &Setting| page.contains(&format!("\n| `{}` | ", setting.name));
        assert!(SETTINGS.iter().all(has));
    }

    #[test]
    fn a_number_has_one_form() {
        let site = settings(1);
        assert_eq!(check(&site, MAX_MESSAGE_BYTES, "1000"), Ok(()));
        for bad in ["01000", "+1000", "1e3", " 1000", "0", "", "99999999"] {
            assert!(check(&site, MAX_MESSAGE_BYTES, bad).is_err(), "{bad}");
        }
        for key in [RETENTION_MS, RETENTION_BYTES] {
            for good in ["-1", "0", "1", "604800000", "9223372036854775807"] {
                assert_eq!(check(&site, key, good), Ok(()), "{good}");
            }
            for bad in ["-2", "+1", "07", "1d", "", "9223372036854775808"] {
                assert!(check(&site, key, bad).is_err(), "{bad}");
            }
        }
    }
}

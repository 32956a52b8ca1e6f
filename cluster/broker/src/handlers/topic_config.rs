//! The settings that a topic may have. Only those that are honoured are accepted: a client that
//! asks for compaction and gets a plain log would lose its faith, or its data.

use crate::limits::TOPIC_SETTINGS;
use crate::machine::retention::{RETENTION_BYTES, RETENTION_MS};
use crate::machine::topics::Topic;
use fulmar_types::limits::BATCH_BYTES_MAX;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

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
    /// What holds if it is not given.
    pub default: fn() -> String,
    /// What it is for, for people.
    pub about: &'static str,
}

/// All of them, by name.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "cleanup.policy",
        kind: Kind::List,
        default: || "delete".to_owned(),
        about: "What is done with old records: they are deleted.",
    },
    Setting {
        name: "compression.type",
        kind: Kind::Text,
        default: || "producer".to_owned(),
        about: "How records are compressed: as the producer does it.",
    },
    Setting {
        name: MAX_MESSAGE_BYTES,
        kind: Kind::Int,
        default: || BATCH_BYTES_MAX.to_string(),
        about: "The largest record batch, in bytes.",
    },
    Setting {
        name: "message.timestamp.type",
        kind: Kind::Text,
        default: || "CreateTime".to_owned(),
        about: "Whose time a record has: that of its producer.",
    },
    Setting {
        name: "min.insync.replicas",
        kind: Kind::Int,
        default: || "2".to_owned(),
        about: "How many nodes must have flushed a record: always a majority of the site.",
    },
    Setting {
        name: RETENTION_BYTES,
        kind: Kind::Long,
        default: || "-1".to_owned(),
        about: "The bytes of a partition beyond which its oldest records may go; -1 for no limit.",
    },
    Setting {
        name: RETENTION_MS,
        kind: Kind::Long,
        default: || "-1".to_owned(),
        about: "The age in milliseconds from which on records may go; -1 for no limit.",
    },
    Setting {
        name: "unclean.leader.election.enable",
        kind: Kind::Flag,
        default: || "false".to_owned(),
        about: "Whether a node without all acknowledged records may lead: never.",
    },
];

const _: () = assert!(SETTINGS.len() == TOPIC_SETTINGS);

/// The largest batch of a topic, if it was given.
pub(super) fn max_message_bytes(topic: &Topic) -> Option<usize> {
    topic.config(MAX_MESSAGE_BYTES).and_then(|value| value.parse().ok())
}

/// Whether a setting is honoured, and if not, why.
pub(super) fn check(key: &str, value: &str) -> Result<(), String> {
    let only = |allowed: &[&str]| {
        if allowed.contains(&value) {
            Ok(())
        } else {
            Err(format!("{key}={value} is not supported; possible: {}", allowed.join(", ")))
        }
    };
    match key {
        "cleanup.policy" => only(&["delete"]),
        "compression.type" => only(&["producer"]),
        "message.timestamp.type" => only(&["CreateTime"]),
        // Every answer waits for a majority of the three nodes.
        "min.insync.replicas" => only(&["1", "2"]),
        RETENTION_MS | RETENTION_BYTES => match value.parse::<i64>() {
            Ok(limit) if limit >= -1 && value == limit.to_string() => Ok(()),
            Ok(_) | Err(_) => Err(format!("{key} must be a number from 0 on, or -1 for no limit")),
        },
        "unclean.leader.election.enable" => only(&["false"]),
        MAX_MESSAGE_BYTES => match value.parse::<usize>() {
            // The text is kept and shown again, so there is one for each number.
            Ok(bytes) if (1..=BATCH_BYTES_MAX).contains(&bytes) && value == bytes.to_string() => {
                Ok(())
            }
            Ok(_) | Err(_) => Err(format!("{key} must be from 1 to {BATCH_BYTES_MAX}")),
        },
        _ => Err(format!("the setting {key} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_default_that_it_could_be_given() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for setting in SETTINGS {
            assert_eq!(check(setting.name, &(setting.default)()), Ok(()), "{}", setting.name);
        }
    }

    #[test]
    fn a_number_has_one_form() {
        assert_eq!(check(MAX_MESSAGE_BYTES, "1000"), Ok(()));
        for bad in ["01000", "+1000", "1e3", " 1000", "0", "", "99999999"] {
            assert!(check(MAX_MESSAGE_BYTES, bad).is_err(), "{bad}");
        }
        for key in [RETENTION_MS, RETENTION_BYTES] {
            for good in ["-1", "0", "1", "604800000", "9223372036854775807"] {
                assert_eq!(check(key, good), Ok(()), "{good}");
            }
            for bad in ["-2", "+1", "07", "1d", "", "9223372036854775808"] {
                assert!(check(key, bad).is_err(), "{bad}");
            }
        }
    }
}

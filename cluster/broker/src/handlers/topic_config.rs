//! The settings that a topic may have. Only those that are honoured are accepted: a client that
//! asks for compaction and gets a plain log would lose its faith, or its data.

use crate::machine::retention::{RETENTION_BYTES, RETENTION_MS};
use crate::machine::topics::Topic;
use fulmar_types::limits::BATCH_BYTES_MAX;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

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

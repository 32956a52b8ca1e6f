//! How much is logged on account of what the other site of a link says.
//!
//! Invariant: of each link so many lines a minute at most, over all its sessions; the next one says how many were
//! left out.
//!
//! Never: decide anything but whether a line is written.

use crate::locked;
use fulmar_host::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Lines of one link in a period.
const LINES_MAX: u32 = 10;

/// How long that is.
const PERIOD: Duration = Duration::from_secs(60);

/// The lines of one link.
struct Lines {
    since: Instant,
    said: u32,
    unsaid: u64,
}

/// The lines of all links of a node, by the name of the link.
#[derive(Default)]
pub(crate) struct Quiet(Mutex<BTreeMap<String, Lines>>);

impl Quiet {
    /// Whether a line of a link is written now: with the number of those that were not since the last one.
    pub(crate) fn may_say(&self, link: &str, now: Instant) -> Option<u64> {
        let mut links = locked(&self.0);
        let new = || Lines { since: now, said: 0, unsaid: 0 };
        let lines = links.entry(link.to_owned()).or_insert_with(new);
        if now.saturating_duration_since(lines.since) >= PERIOD {
            (lines.since, lines.said) = (now, 0);
        }
        if lines.said >= LINES_MAX {
            lines.unsaid += 1;
            return None;
        }
        lines.said += 1;
        Some(std::mem::take(&mut lines.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_host::time;

    #[test]
    fn a_link_has_some_lines_a_minute_and_the_next_one_counts_the_others() {
        let (quiet, begun) = (Quiet::default(), time::now());
        let said = (0..16_384).filter(|_| quiet.may_say("plant", begun).is_some()).count();
        assert_eq!(said, 10);
        assert_eq!(quiet.may_say("other", begun), Some(0), "each link by itself");
        let later = begun + PERIOD;
        assert_eq!(quiet.may_say("plant", later), Some(16_374));
        assert_eq!(quiet.may_say("plant", later), Some(0));
    }
}
